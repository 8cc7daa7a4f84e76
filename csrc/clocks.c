/* SPDX-License-Identifier: MIT
 *
 * The time loop of nets with clocks (Koutnik et al. 2014). At a step only the groups run whose
 * clocks say so; all others keep their state. What a group reads changes no more often than the
 * groups that it reads are active: the chains of its sums are kept behind each of them, slowest
 * first, and go on from where nothing has changed since the group was active last.
 *
 * Of a part the state holds, for each group, the clock of its last step and 1 more, or 0 where no
 * sums are kept; and the stamp of the weights that they were made with.
 */
#include "loop.h"

typedef struct clock_loop {
    frnn_loop loop;
    frnn_group groups[FRNN_MAX_GROUPS];
    size_t w_at[FRNN_MAX_GROUPS];    /* bytes from w_hh to the matrix of a group */
    size_t sums_at[FRNN_MAX_GROUPS]; /* bytes from the sums to those of a group */
    size_t left[FRNN_MAX_GROUPS];    /* steps until a group is active */
    size_t count;
    uint64_t *kept;
    char *sums;
    char *next;
} clock_loop;

/* Steps from a clock to the next of a period. */
static size_t steps_to(uint64_t clock, size_t period) {
    const size_t past = (size_t)(clock % period);
    return past == 0 ? 0 : period - past;
}

/* The input part of the gates of a group for steps [begin, begin + steps), where it is active. */
static void project_group(const clock_loop *c, const frnn_group *group, uint64_t clock,
                          size_t begin, size_t steps, char *gates) {
    const frnn_part_run *run = c->loop.run;
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    const size_t panel = group->block * part->gates * FRNN_BLOCK * run->itemsize;
    const size_t slot = group->block * part->slots * FRNN_BLOCK * run->itemsize;
    const size_t step_bytes = run->batch * c->loop.gates_bytes;
    size_t t = steps_to(clock + begin, group->period);
    if (t >= steps)
        return;
    frnn_project p = {
        .rows = run->batch,
        .k = part->input_size,
        .blocks = group->blocks,
        .gates = part->gates,
        .apart = part->slots > part->gates,
        .a_row = run->x_row,
        .w = run->packed + part->w_ih + panel * part->input_size,
        .bias = run->packed + part->bias + panel,
        .out_row = (ptrdiff_t)frnn_gates_row(part),
        .partial = c->loop.step.partial,
    };
    const size_t times = (steps - 1 - t) / group->period + 1;
    const int evenly = group->period == 1 && run->x_step == (ptrdiff_t)run->batch * run->x_row;
    if (run->batch == 1) { /* evenly spaced rows of x and gates */
        p.rows = times;
        p.a_row = run->x_step * (ptrdiff_t)group->period;
        p.out_row *= (ptrdiff_t)group->period;
    } else if (evenly) {
        p.rows = times * run->batch;
    }
    const size_t calls = p.rows == run->batch && run->batch > 1 ? times : 1;
    for (size_t i = 0; i < calls; i++, t += group->period) {
        p.a = run->x + (ptrdiff_t)(begin + t) * run->x_step * itemsize;
        p.out = gates + t * step_bytes + slot;
        run->kernels->project(&p);
    }
}

/* The first of the groups that a group reads which were active since it was itself. */
static size_t first_changed(const clock_loop *c, size_t i) {
    size_t j = 0;
    if (c->kept[i] == 0)
        return 0;
    while (j + 1 < c->groups[i].sources && c->kept[j] < c->kept[i])
        j++;
    return j;
}

/* A step of a group, from h to `next`. */
static void run_group(clock_loop *c, size_t i, size_t t, char *gates) {
    const frnn_part_run *run = c->loop.run;
    const frnn_part *part = run->part;
    const frnn_group *group = &c->groups[i];
    const size_t units = group->block * FRNN_BLOCK * run->itemsize;
    const size_t panel = part->gates * FRNN_BLOCK * run->itemsize, row = group->blocks * panel;
    frnn_piece pieces[FRNN_MAX_GROUPS];
    frnn_step step = c->loop.step;
    if (part->recurrent) {
        const size_t first = first_changed(c, i);
        char *const sums = c->sums + c->sums_at[i];
        for (size_t j = first; j < group->sources; j++) {
            pieces[j - first].past = c->loop.h + c->groups[j].block * FRNN_BLOCK * run->itemsize;
            pieces[j - first].k = c->groups[j].blocks * FRNN_BLOCK;
            pieces[j - first].sums = j + 1 < group->sources ? sums + j * run->batch * row : NULL;
        }
        step.recurrent_size = frnn_group_k(c->groups, i);
        step.num_pieces = group->sources - first;
        step.pieces = pieces;
        step.sums_row = row / run->itemsize;
        step.start = first > 0 ? sums + (first - 1) * run->batch * row : NULL;
        step.w_hh =
            (const char *)step.w_hh + c->w_at[i] + c->groups[first].block * FRNN_BLOCK * panel;
    }
    step.block_end = group->blocks;
    step.hidden_size = group->size;
    step.gates = gates + group->block * part->slots * FRNN_BLOCK * run->itemsize;
    step.h_prev = c->loop.h + units;
    step.h = c->next + units;
    if (c->loop.c != NULL)
        step.c_prev = step.c = c->loop.c + units;
    if (step.vectors != NULL)
        step.vectors = (const char *)step.vectors + units;
    if (c->loop.fold) {
        step.x = run->x + (ptrdiff_t)t * run->x_step * (ptrdiff_t)run->itemsize;
        step.w_ih = (const char *)step.w_ih + group->block * panel * part->input_size;
        step.bias = (const char *)step.bias + group->block * panel;
    }
    run->kernels->step[run->net->cell](&step);
}

/* The units of a group, from rows to rows. */
static void copy_group(const clock_loop *c, const frnn_group *group, const char *from, char *to,
                       size_t row) {
    const size_t at = group->block * FRNN_BLOCK * c->loop.run->itemsize;
    const size_t bytes = group->blocks * FRNN_BLOCK * c->loop.run->itemsize;
    for (size_t b = 0; b < c->loop.run->batch; b++)
        memcpy(to + b * row + at, from + b * row + at, bytes);
}

/* What the step of a group leaves: its state, and what training keeps. */
static void end_group(clock_loop *c, size_t i, size_t t, uint64_t clock) {
    const frnn_loop *l = &c->loop;
    const size_t row = (l->run->begin + t) * l->run->batch;
    copy_group(c, &c->groups[i], c->next, l->h, l->h_bytes);
    c->kept[i] = clock + 1;
    if (l->kept_h != NULL)
        copy_group(c, &c->groups[i], c->next, l->kept_h + row * l->h_bytes, l->h_bytes);
    if (l->kept_c != NULL)
        copy_group(c, &c->groups[i], l->c, l->kept_c + row * l->c_bytes, l->c_bytes);
}

static void store_outputs(const clock_loop *c, size_t t) {
    const frnn_part_run *run = c->loop.run;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    for (size_t b = 0; b < run->batch; b++) {
        char *const y =
            run->y + ((ptrdiff_t)t * run->y_step + (ptrdiff_t)b * run->y_row) * itemsize;
        const char *const h = c->loop.h + b * c->loop.h_bytes;
        for (size_t i = 0; i < c->count; i++)
            memcpy(y + c->groups[i].unit * run->itemsize,
                   h + c->groups[i].block * FRNN_BLOCK * run->itemsize,
                   c->groups[i].size * run->itemsize);
    }
}

static void loop_begin(clock_loop *c, const frnn_part_run *run, const frnn_workspace *w) {
    const frnn_part *part = run->part;
    const int memory = frnn_cell_get(run->net->cell)->memory;
    const size_t panel = part->gates * FRNN_BLOCK * run->itemsize;
    size_t w_at = 0, sums_at = 0;
    frnn_loop_begin(&c->loop, run, w, run->state + part->h, memory ? run->state + part->c : NULL);
    c->count = frnn_groups_get(run->net, c->groups);
    c->kept = (uint64_t *)(void *)(run->state + part->kept);
    c->sums = run->state + part->kept_sums;
    c->next = run->scratch + w->next;
    if (c->kept[c->count] != run->stamp)
        memset(c->kept, 0, c->count * sizeof *c->kept);
    c->kept[c->count] = run->stamp;
    for (size_t i = 0; i < c->count; i++) {
        c->w_at[i] = w_at;
        c->sums_at[i] = sums_at;
        w_at += c->groups[i].blocks * frnn_group_k(c->groups, i) * panel;
        sums_at += (c->groups[i].sources - 1) * run->batch * c->groups[i].blocks * panel;
        c->left[i] = steps_to(run->clocks[0], c->groups[i].period);
    }
}

static void run_step(clock_loop *c, size_t t, uint64_t clock, char *gates) {
    for (size_t i = 0; i < c->count; i++)
        if (c->left[i] == 0)
            run_group(c, i, t, gates);
    for (size_t i = 0; i < c->count; i++) {
        if (c->left[i] == 0) {
            end_group(c, i, t, clock);
            c->left[i] = c->groups[i].period;
        }
        c->left[i]--;
    }
    store_outputs(c, t);
}

void frnn_clocks_forward(const frnn_part_run *given) {
    frnn_part_run run = *given;
    const frnn_part *part = run.part;
    const size_t chunk = frnn_part_chunk(part, run.itemsize, run.batch);
    frnn_workspace w;
    clock_loop c;
    if (run.reverse)
        frnn_turn(&run);
    frnn_loop_layout(part, run.itemsize, run.steps, run.batch, 0, &w);
    loop_begin(&c, &run, &w);
    if (run.keep_h0 != NULL)
        memcpy(run.keep_h0, c.loop.h, run.batch * c.loop.h_bytes);
    if (run.keep_h0 != NULL && c.loop.c != NULL)
        memcpy(run.keep_c0, c.loop.c, run.batch * c.loop.c_bytes);
    for (size_t done = 0; done < run.steps;) {
        const size_t steps = frnn_min(chunk, run.steps - done);
        char *const gates = frnn_loop_gates(&c.loop, (run.begin + done) * run.batch);
        for (size_t i = 0; i < c.count && !c.loop.fold; i++)
            project_group(&c, &c.groups[i], run.clocks[0], done, steps, gates);
        for (size_t t = 0; t < steps; t++)
            run_step(&c, done + t, run.clocks[0] + done + t,
                     gates + t * run.batch * c.loop.gates_bytes);
        done += steps;
    }
}
