/* SPDX-License-Identifier: MIT
 *
 * The time loop backwards of nets with clocks. What a group gave at its last step was read by
 * others, step after step, until it gave something new: the dz of those steps are added up in the
 * window of the group, and multiplied once, when the loop comes to the step that gave it. The
 * window is then also the factor of the gradient of the recurrent matrix.
 *
 * The window of group j is [rows][gates][units of its readers], with all blocks of these.
 */
#include "back.h"

/* Scratch of a chunk, a chain of the sums: bytes from its start; R are its rows. */
typedef struct space {
    frnn_back_space sums; /* of which only `sum` and `partial` are used */
    size_t dz;            /* [R][dz_row] */
    size_t x, dx;         /* [R][x_row] */
    size_t product;       /* [R][max(x_row, h_ld)] */
    size_t masked;        /* [H][H]: a part of the gradient, if there is a mask */
    size_t windows,
        h; /* of each group: [R of its steps and one more][window], [...][blocks * 16] */
    size_t size;
} space;

/* Steps of a chunk. */
static size_t chunk_steps(size_t batch) {
    return frnn_sum_steps(batch);
}

/* Elements of a row of the window of a group. */
static size_t window_row(const frnn_part *part, const frnn_group *groups, size_t j) {
    return part->gates * (part->width - groups[groups[j].readers].block * FRNN_BLOCK);
}

/* Steps of a group in a chunk, and the state before the first step. */
static size_t group_steps(const frnn_group *group, size_t batch) {
    return (chunk_steps(batch) - 1) / group->period + 2;
}

static int lay_out(const frnn_part *part, size_t itemsize, size_t batch, space *s) {
    const size_t steps = chunk_steps(batch), widest = frnn_max(frnn_x_row(part), part->h_ld);
    frnn_group groups[FRNN_MAX_GROUPS];
    const size_t count = frnn_groups_get(part->net, groups);
    const size_t masked = part->net->mask_blocks > 0 ? part->hidden_size : 0;
    size_t windows = 0, h = 0, fits = steps + 1;
    /* sums that are less than what is tried here */
    if (!frnn_mul(&fits, part->groups) || !frnn_mul(&fits, part->width) ||
        !frnn_mul(&fits, part->gates))
        return 0;
    for (size_t j = 0; j < count; j++) {
        windows += group_steps(&groups[j], batch) * window_row(part, groups, j);
        h += group_steps(&groups[j], batch) * groups[j].blocks * FRNN_BLOCK;
    }
    s->size = 0;
    return frnn_append(&s->size, &s->dz, steps, batch, frnn_dz_row(part), itemsize) &&
           frnn_append(&s->size, &s->x, steps, batch, frnn_x_row(part), itemsize) &&
           frnn_append(&s->size, &s->dx, steps, batch, frnn_x_row(part), itemsize) &&
           frnn_append(&s->size, &s->product, steps, batch, widest, itemsize) &&
           frnn_append(&s->size, &s->windows, windows, batch, 1, itemsize) &&
           frnn_append(&s->size, &s->h, h, batch, 1, itemsize) &&
           frnn_append(&s->size, &s->masked, masked, part->hidden_size, 1, itemsize) &&
           frnn_append(&s->size, &s->sums.partial, steps, batch, FRNN_PARTIAL, itemsize) &&
           frnn_append(&s->size, &s->sums.sum, 1, 1, frnn_dz_row(part), itemsize);
}

int frnn_clocks_back_scratch(const frnn_part *part, size_t itemsize, size_t batch, size_t *size) {
    space s = {0};
    if (!lay_out(part, itemsize, batch, &s))
        return 0;
    *size = s.size;
    return 1;
}

typedef struct clock_loop {
    const frnn_part_back *run;
    space s;
    frnn_step_back step;
    frnn_group groups[FRNN_MAX_GROUPS];
    size_t count;
    uint64_t clock;                 /* of the first step of the run */
    size_t window[FRNN_MAX_GROUPS]; /* elements of a row of it */
    char *open[FRNN_MAX_GROUPS];    /* in the adjoint: what is being added up */
    char *closed[FRNN_MAX_GROUPS];  /* in scratch, of the chunk, and the outputs that were read */
    char *outputs[FRNN_MAX_GROUPS];
    size_t rows[FRNN_MAX_GROUPS];                        /* of these */
    size_t w_hh[FRNN_MAX_GROUPS], w_ih[FRNN_MAX_GROUPS]; /* bytes to the matrices of a group */
    size_t h_row, c_row, dz_row, gates_row;              /* bytes */
} clock_loop;

/* The last step of a group at or before a step, or SIZE_MAX if that is before the first. */
static size_t last_step(const frnn_group *group, uint64_t clock, size_t step) {
    const size_t since = (size_t)((clock + step) % group->period);
    return since > step ? SIZE_MAX : step - since;
}

/* h of a group at one of its steps, one row of what was saved. */
static void group_output(const frnn_part_back *run, const frnn_group *group, const char *saved,
                         size_t row, char *to) {
    const frnn_part *part = run->part;
    const size_t block = FRNN_BLOCK * run->itemsize;
    const frnn_hidden hidden = {
        .rows = 1,
        .blocks = group->blocks,
        .net = run->net,
        .plain = run->plain,
        .gates = saved + run->layout->gates + row * frnn_gates_row(part) * run->itemsize +
                 group->block * part->slots * block,
        .c = frnn_cell_get(run->net->cell)->history
                 ? saved + run->layout->c + row * part->ld * run->itemsize + group->block * block
                 : NULL,
        .h = to,
    };
    run->kernels->hidden[run->net->cell](&hidden);
}

void frnn_clocks_output(const frnn_part_back *run, const char *saved, size_t first, size_t step,
                        size_t b, char *to) {
    const size_t block = FRNN_BLOCK * run->itemsize, h_row = run->part->h_ld * run->itemsize;
    frnn_group groups[FRNN_MAX_GROUPS];
    const size_t count = frnn_groups_get(run->net, groups);
    char h[FRNN_BLOCK * sizeof(double)];
    for (size_t i = 0; i < count; i++) {
        const size_t t = last_step(&groups[i], run->clocks[0], step);
        for (size_t j = 0; j < groups[i].blocks; j++) {
            frnn_group one = groups[i];
            const char *from = saved + run->layout->h0 + (run->b + b) * h_row;
            const size_t unit = j * FRNN_BLOCK, size = frnn_min(one.size - unit, FRNN_BLOCK);
            one.block += j;
            one.blocks = 1;
            from += one.block * block;
            if (t != SIZE_MAX) {
                group_output(run, &one, saved, first + t * run->rows + b, h);
                from = h;
            }
            memcpy(to + (one.unit + unit) * run->itemsize, from, size * run->itemsize);
        }
    }
}

/* What arrives at the outputs of a group from those that read them since; the window is closed. */
static void close_window(clock_loop *c, size_t j, size_t t) {
    const frnn_part_back *run = c->run;
    const frnn_part *part = run->part;
    const frnn_group *group = &c->groups[j];
    const size_t units = group->blocks * FRNN_BLOCK * run->itemsize,
                 bytes = c->window[j] * run->itemsize;
    const size_t at = group->block * FRNN_BLOCK * run->itemsize;
    char *const product = run->scratch + c->s.product;
    const frnn_project_back p = {
        .rows = run->rows,
        .k = c->window[j] / part->gates,
        .blocks = group->blocks,
        .gates = part->gates,
        .last = part->gates - 1,
        .a = c->open[j],
        .a_row = (ptrdiff_t)c->window[j],
        .a_gate = c->window[j] / part->gates,
        .w = run->w_hh + c->w_hh[j],
        .out = product,
        .out_row = (ptrdiff_t)part->h_ld,
        .partial = run->scratch + c->s.sums.partial,
    };
    run->kernels->project_back(&p);
    for (size_t b = 0; b < run->rows; b++) {
        run->kernels->add(product + b * c->h_row, run->dh + b * c->h_row + at,
                          group->blocks * FRNN_BLOCK);
        char *const h = c->outputs[j] + (c->rows[j] + b) * units;
        if (t == SIZE_MAX)
            memcpy(h, run->h0 + b * c->h_row + at, units);
        else
            group_output(run, group, run->saved, run->first + t * run->rows + b, h);
    }
    memcpy(c->closed[j] + c->rows[j] * bytes, c->open[j], run->rows * bytes);
    memset(c->open[j], 0, run->rows * bytes);
    c->rows[j] += run->rows;
}

/* The step of a group: from what arrives at it to dz. */
static void step_group(clock_loop *c, size_t j, size_t t, char *dz) {
    const frnn_part_back *run = c->run;
    const frnn_part *part = run->part;
    const frnn_group *group = &c->groups[j];
    const size_t at = group->block * FRNN_BLOCK * run->itemsize, row = run->first + t * run->rows;
    frnn_step_back step = c->step;
    step.row_end = run->rows;
    step.block_end = group->blocks;
    step.hidden_size = group->size;
    step.dz = dz + at;
    step.dh = run->dh + at;
    step.carry = run->carry + at;
    step.gates = run->saved + run->layout->gates + row * c->gates_row + at * part->slots;
    if (step.vectors != NULL)
        step.vectors = (const char *)step.vectors + at;
    if (step.dvectors != NULL)
        step.dvectors = (char *)step.dvectors + at;
    if (frnn_cell_get(run->net->cell)->history) {
        const char *const saved = run->saved + run->layout->c + at;
        step.c = saved + row * c->c_row;
        step.c_prev = t >= group->period
                          ? saved + (row - group->period * run->rows) * c->c_row
                          : (frnn_cell_get(run->net->cell)->memory ? run->c0 : run->h0) + at;
    }
    run->kernels->step_back[run->net->cell](&step);
    for (size_t b = 0; b < run->rows; b++)
        memset(run->dh + b * c->h_row + at, 0, group->blocks * FRNN_BLOCK * run->itemsize);
}

/* dz of a group to the windows of all groups that it reads. */
static void fill_windows(clock_loop *c, size_t i, const char *dz) {
    const frnn_part_back *run = c->run;
    const frnn_part *part = run->part;
    const frnn_group *group = &c->groups[i];
    for (size_t j = 0; j < group->sources; j++) {
        const size_t first = c->groups[c->groups[j].readers].block;
        const size_t gate = c->window[j] / part->gates;
        for (size_t b = 0; b < run->rows; b++)
            for (size_t g = 0; g < part->gates; g++)
                run->kernels->add(
                    dz + b * c->dz_row +
                        (g * part->dz_units + group->block * FRNN_BLOCK) * run->itemsize,
                    c->open[j] +
                        (b * c->window[j] + g * gate + (group->block - first) * FRNN_BLOCK) *
                            run->itemsize,
                    group->blocks * FRNN_BLOCK);
    }
}

/* What the caller gives joins what arrives at each unit, active or not. */
static void add_dy(const clock_loop *c, size_t t) {
    const frnn_part_back *run = c->run;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    const size_t time = run->turned ? run->times - 1 - t : t;
    if (run->dy == NULL || time < run->dy_begin)
        return;
    for (size_t b = 0; b < run->rows; b++) {
        const char *dy =
            run->dy + ((ptrdiff_t)t * run->dy_step + (ptrdiff_t)b * run->dy_row) * itemsize;
        for (size_t i = 0; i < c->count; i++)
            run->kernels->add(dy + c->groups[i].unit * run->itemsize,
                              run->dh + b * c->h_row +
                                  c->groups[i].block * FRNN_BLOCK * run->itemsize,
                              c->groups[i].size);
    }
}

static void visit_step(clock_loop *c, size_t t, char *dz) {
    const frnn_part *part = c->run->part;
    const uint64_t clock = c->clock + t;
    add_dy(c, t);
    for (size_t i = 0; i < c->count; i++) {
        if (clock % c->groups[i].period != 0)
            continue;
        if (part->recurrent)
            close_window(c, i, t);
        step_group(c, i, t, dz);
    }
    for (size_t i = 0; i < c->count && part->recurrent; i++)
        if (clock % c->groups[i].period == 0)
            fill_windows(c, i, dz);
}

/* ---- Gradients of parameters and input ------------------------------------------------------ */

/* to += from where a mask has connections; rows of the one are contiguous. */
static void add_masked(const frnn_part_back *run, const frnn_outer *o, const unsigned char *mask,
                       char *to) {
    for (size_t i = 0; i < o->m; i++, mask += o->c_row) {
        char *const row = (char *)o->c + i * o->n * run->itemsize;
        frnn_back_clear(row, mask, o->n, run->itemsize);
        run->kernels->add(row, to + i * o->c_row * run->itemsize, o->n);
    }
}

static void sum_recurrent(const clock_loop *c, char *target) {
    const frnn_part_back *run = c->run;
    const frnn_part *part = run->part;
    const size_t H = part->hidden_size;
    for (size_t j = 0; j < c->count; j++)
        for (size_t i = c->groups[j].readers; i < c->count && c->rows[j] > 0; i++)
            for (size_t g = 0; g < part->gates; g++) {
                const size_t first = c->groups[c->groups[j].readers].block;
                const size_t at =
                    g * (c->window[j] / part->gates) + (c->groups[i].block - first) * FRNN_BLOCK;
                const size_t to = (g * H + c->groups[i].unit) * H + c->groups[j].unit;
                frnn_outer outer = {
                    .rows = c->rows[j],
                    .chain = c->rows[j],
                    .m = c->groups[i].size,
                    .n = c->groups[j].size,
                    .a = c->closed[j] + at * run->itemsize,
                    .a_row = c->window[j],
                    .b = c->outputs[j],
                    .b_row = c->groups[j].blocks * FRNN_BLOCK,
                    .c = target + to * run->itemsize,
                    .c_row = H,
                    .add = 1,
                };
                if (run->mask == NULL) {
                    run->kernels->outer(&outer);
                    continue;
                }
                outer.c = run->scratch + c->s.masked;
                outer.c_row = outer.n;
                outer.add = 0;
                run->kernels->outer(&outer);
                outer.c_row = H;
                add_masked(run, &outer, run->mask + c->groups[i].unit * H + c->groups[j].unit,
                           target + to * run->itemsize);
            }
}

/* Where the rows of a group lie among `steps` steps from `begin` on: the first, and how many
 * stretches of how many rows, `apart` rows from one to the next. */
typedef struct group_rows {
    size_t step, calls, rows, apart;
} group_rows;

static group_rows rows_of(const clock_loop *c, size_t i, size_t begin, size_t steps) {
    const size_t period = c->groups[i].period, past = (size_t)((c->clock + begin) % period);
    group_rows r = {.step = past == 0 ? 0 : period - past};
    if (r.step >= steps)
        return r;
    const size_t times = (steps - 1 - r.step) / period + 1;
    const int together = c->run->rows == 1 || period == 1;
    r.calls = together ? 1 : times;
    r.rows = together ? times * c->run->rows : c->run->rows;
    r.apart = c->run->rows == 1 ? period : 1;
    return r;
}

static void sum_input(const clock_loop *c, size_t begin, size_t steps, char *target) {
    const frnn_part_back *run = c->run;
    const frnn_part *part = run->part;
    for (size_t i = 0; i < c->count; i++) {
        const group_rows r = rows_of(c, i, begin, steps);
        for (size_t call = 0; call < r.calls; call++)
            for (size_t g = 0; g < part->gates; g++) {
                const size_t slot = g == part->gates - 1 ? part->back_slots - 1 : g;
                const size_t row = (r.step + call * c->groups[i].period) * run->rows;
                const frnn_outer outer = {
                    .rows = r.rows,
                    .chain = r.rows,
                    .m = c->groups[i].size,
                    .n = part->input_size,
                    .a = run->scratch + c->s.dz + row * c->dz_row +
                         (slot * part->dz_units + c->groups[i].block * FRNN_BLOCK) * run->itemsize,
                    .a_row = r.apart * frnn_dz_row(part),
                    .b = run->scratch + c->s.x + row * frnn_x_row(part) * run->itemsize,
                    .b_row = r.apart * frnn_x_row(part),
                    .c = target + (g * part->hidden_size + c->groups[i].unit) * part->input_size *
                                      run->itemsize,
                    .c_row = part->input_size,
                    .add = 1,
                };
                run->kernels->outer(&outer);
            }
    }
}

static void input_gradient(const clock_loop *c, size_t begin, size_t steps) {
    const frnn_part_back *run = c->run;
    const frnn_part *part = run->part;
    const size_t row_bytes = frnn_x_row(part) * run->itemsize;
    char *const dx = run->scratch + c->s.dx, *const product = run->scratch + c->s.product;
    memset(dx, 0, steps * run->rows * row_bytes);
    for (size_t i = 0; i < c->count; i++) {
        const group_rows r = rows_of(c, i, begin, steps);
        for (size_t call = 0; call < r.calls; call++) {
            const size_t row = (r.step + call * c->groups[i].period) * run->rows;
            const frnn_project_back p = {
                .rows = r.rows,
                .k = c->groups[i].size,
                .blocks = (part->input_size - 1) / FRNN_BLOCK + 1,
                .gates = part->gates,
                .last = part->back_slots - 1,
                .a = run->scratch + c->s.dz + row * c->dz_row +
                     c->groups[i].block * FRNN_BLOCK * run->itemsize,
                .a_row = (ptrdiff_t)(r.apart * frnn_dz_row(part)),
                .a_gate = part->dz_units,
                .w = run->w_ih + c->w_ih[i],
                .out = product,
                .out_row = (ptrdiff_t)frnn_x_row(part),
                .partial = run->scratch + c->s.sums.partial,
            };
            run->kernels->project_back(&p);
            for (size_t n = 0; n < r.rows; n++)
                run->kernels->add(product + n * row_bytes, dx + (row + n * r.apart) * row_bytes,
                                  part->input_size);
        }
    }
    for (size_t row = 0; row < steps * run->rows; row++) {
        const size_t t = begin + row / run->rows, b = row % run->rows;
        char *const to = run->dx + ((ptrdiff_t)t * run->dx_step + (ptrdiff_t)b * run->dx_row) *
                                       (ptrdiff_t)run->itemsize;
        if (run->dx_add)
            run->kernels->add(dx + row * row_bytes, to, part->input_size);
        else
            memcpy(to, dx + row * row_bytes, part->input_size * run->itemsize);
    }
}

/* x of the chunk, in the order of its steps. */
static void gather_x(const clock_loop *c, size_t begin, size_t steps) {
    const frnn_part_back *run = c->run;
    const size_t row_bytes = frnn_x_row(run->part) * run->itemsize, rows = run->rows;
    char *const x = run->scratch + c->s.x;
    for (size_t t = 0; t < steps; t++) { /* visits go backwards */
        const frnn_back_chunk one = {
            .first = run->times - 1 - (begin + t), .count = 1, .rows = rows};
        frnn_back_gather_x(run, &one, x + t * rows * row_bytes);
    }
}

/* The sums of a chunk of steps; `position` is its first visit. */
static void chunk_sums(const clock_loop *c, size_t begin, size_t steps, uint64_t position) {
    const frnn_part_back *run = c->run;
    const frnn_part *part = run->part;
    const size_t super = frnn_super_steps(run->rows), rows = part->gates * part->hidden_size;
    int add;
    const frnn_gradients *target = frnn_back_target(run, position, &add);
    if (!add && target->weight_ih != NULL)
        memset(target->weight_ih, 0, rows * part->input_size * run->itemsize);
    if (!add && target->weight_hh != NULL)
        memset(target->weight_hh, 0, rows * part->hidden_size * run->itemsize);
    if (target->weight_hh != NULL)
        sum_recurrent(c, target->weight_hh);
    if (target->weight_ih != NULL) {
        gather_x(c, begin, steps);
        sum_input(c, begin, steps, target->weight_ih);
    }
    if (run->gradients->bias_ih != NULL || run->gradients->bias_hh != NULL)
        frnn_back_sum_rows(run, &c->s.sums, run->scratch + c->s.dz, frnn_dz_row(part),
                           part->back_slots * part->dz_units, steps * run->rows, run->total_bias);
    if (run->dvectors != NULL)
        frnn_back_vectors(run, &c->s.sums);
    const int end = run->last && begin == 0;
    if (!frnn_back_direct(run, position) && ((position + steps) % super == 0 || end))
        frnn_back_fold(run);
}

/* ---- All of it ------------------------------------------------------------------------------ */

static void loop_begin(clock_loop *c, const frnn_part_back *run) {
    const frnn_part *part = run->part;
    size_t open = 0, closed = c->s.windows, h = c->s.h, w_hh = 0, w_ih = 0;
    c->count = frnn_groups_get(run->net, c->groups);
    c->clock = run->clocks[0];
    for (size_t j = 0; j < c->count; j++) {
        const frnn_group *group = &c->groups[j];
        const size_t rows = group_steps(group, run->rows) * run->rows;
        const size_t window = window_row(part, c->groups, j), units = group->blocks * FRNN_BLOCK;
        c->window[j] = window;
        c->open[j] = run->windows + open;
        c->closed[j] = run->scratch + closed;
        c->outputs[j] = run->scratch + h;
        c->w_hh[j] = w_hh;
        c->w_ih[j] = w_ih;
        open += run->rows * window * run->itemsize;
        closed += rows * window * run->itemsize;
        h += rows * units * run->itemsize;
        w_hh += window * units * run->itemsize;
        w_ih += part->gates * group->size * frnn_blocks_of(part->input_size) * FRNN_BLOCK *
                run->itemsize;
    }
    c->h_row = part->h_ld * run->itemsize;
    c->c_row = part->ld * run->itemsize;
    c->dz_row = frnn_dz_row(part) * run->itemsize;
    c->gates_row = frnn_gates_row(part) * run->itemsize;
    c->step = frnn_back_step(run, &c->s.sums);
}

/* The gradient of the state before the first step. */
static void state_gradient(const clock_loop *c) {
    const frnn_part_back *run = c->run;
    const frnn_part *part = run->part;
    const frnn_cell_info *cell = frnn_cell_get(run->net->cell);
    const frnn_step_back step = {
        .row_end = run->rows,
        .block_end = part->blocks,
        .hidden_size = part->width,
        .net = run->net,
        .c_prev = cell->memory ? run->c0 : NULL,
        .dh = run->dh,
        .carry = run->carry,
        .ld = part->ld,
    };
    if (cell->direct)
        run->kernels->step_back[run->net->cell](&step);
}

void frnn_clocks_totals(const frnn_part_back *run) {
    const frnn_part *part = run->part;
    frnn_group groups[FRNN_MAX_GROUPS];
    const size_t count = frnn_groups_get(run->net, groups);
    const frnn_gradients *g = run->gradients;
    const size_t H = part->hidden_size, itemsize = run->itemsize;
    char *const vectors = g->alpha != NULL ? g->alpha : g->peephole;
    for (size_t i = 0; i < count; i++) {
        const frnn_group *group = &groups[i];
        const size_t at = group->block * FRNN_BLOCK, to = group->unit;
        for (size_t gate = 0; gate < part->gates; gate++) {
            const size_t slot = gate == part->gates - 1 ? part->back_slots - 1 : gate;
            const size_t place = (gate * H + to) * itemsize;
            if (g->bias_hh != NULL)
                frnn_total_store(run, run->total_bias + gate * part->dz_units + at, group->size,
                                 (char *)g->bias_hh + place);
            if (g->bias_ih != NULL)
                frnn_total_store(run, run->total_bias + slot * part->dz_units + at, group->size,
                                 (char *)g->bias_ih + place);
        }
        for (size_t v = 0; v < part->sums && vectors != NULL; v++)
            frnn_total_store(run, run->total_vectors + v * part->width + at, group->size,
                             vectors + (v * H + to) * itemsize);
    }
}

void frnn_clocks_backward(const frnn_part_back *run) {
    const size_t unit = chunk_steps(run->rows);
    clock_loop c = {.run = run};
    lay_out(run->part, run->itemsize, run->rows, &c.s);
    loop_begin(&c, run);
    for (size_t end = run->end, steps; end > run->begin; end -= steps) {
        const uint64_t position = run->position + (run->times - end);
        steps = frnn_min(unit - (size_t)(position % unit), end - run->begin);
        const size_t begin = end - steps;
        char *const dz = run->scratch + c.s.dz;
        memset(dz, 0, steps * run->rows * c.dz_row);
        memset(c.rows, 0, sizeof c.rows);
        for (size_t t = end; t-- > begin;)
            visit_step(&c, t, dz + (t - begin) * run->rows * c.dz_row);
        for (size_t j = 0; j < c.count && begin == 0 && run->last && run->part->recurrent; j++)
            close_window(&c, j, SIZE_MAX);
        if (run->gradients != NULL)
            chunk_sums(&c, begin, steps, position);
        if (run->dx != NULL)
            input_gradient(&c, begin, steps);
    }
    if (run->last && run->begin == 0)
        state_gradient(&c);
}
