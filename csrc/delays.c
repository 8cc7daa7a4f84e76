/* SPDX-License-Identifier: MIT
 *
 * The time loop of nets with delays. Outputs of the last steps are kept in a ring; as many steps as
 * the shortest delay is long do not wait for each other, and go side by side as rows of one batch,
 * where all delays are multiples of it: then what they read lies together in the ring too.
 */
#include "loop.h"

void frnn_turn(frnn_part_run *run) {
    const ptrdiff_t last = run->steps > 0 ? (ptrdiff_t)run->steps - 1 : 0;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    run->reverse = 0;
    run->x += last * run->x_step * itemsize;
    run->y += last * run->y_step * itemsize;
    run->x_step = -run->x_step;
    run->y_step = -run->y_step;
}

/* What the loop knows of its ring. */
typedef struct ring {
    size_t steps; /* rows of steps that it holds */
    size_t bytes; /* of one step */
    char *at;
} ring;

static char *ring_at(const ring *r, uint64_t position, size_t delay) {
    return r->at +
           (size_t)((position % r->steps + r->steps - delay % r->steps) % r->steps) * r->bytes;
}

/* What a delay reads at a position: steps of the ring, or what lies between two of them. */
static char *past_at(const frnn_loop *l, const ring *r, uint64_t position, size_t delay,
                     char *between) {
    const frnn_part *part = l->run->part;
    char *const past = ring_at(r, position, part->delays[delay]);
    if (part->fractions[delay] == 0)
        return past;
    const frnn_blend blend = {
        .a = past,
        .b = ring_at(r, position, part->delays[delay] + 1),
        .out = between,
        .count = r->bytes / l->run->itemsize,
        .fraction = part->fractions[delay],
    };
    l->run->kernels->blend(&blend);
    return between;
}

/* y of steps that do not lie evenly in the caller's array. */
static void store_outputs(const frnn_part_run *run, size_t begin, size_t steps, const char *h) {
    const size_t row = run->part->h_ld * run->itemsize,
                 bytes = run->part->output_size * run->itemsize;
    for (size_t t = begin; t < begin + steps; t++)
        for (size_t b = 0; b < run->batch; b++, h += row)
            memcpy(run->y + ((ptrdiff_t)t * run->y_step + (ptrdiff_t)b * run->y_row) *
                                (ptrdiff_t)run->itemsize,
                   h, bytes);
}

/* `steps` steps from step `begin` on, side by side. */
static void visit(frnn_loop *l, const ring *h, const ring *c, size_t begin, size_t steps,
                  uint64_t position, char *gates) {
    const frnn_part_run *run = l->run;
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize, batch = (ptrdiff_t)run->batch;
    const size_t row = (run->begin + begin) * run->batch, rows = steps * run->batch;
    const int even = steps == 1 || run->batch == 1 || run->y_step == batch * run->y_row;
    char *const next = ring_at(h, position, 0);
    char *const y = run->y + (ptrdiff_t)begin * run->y_step * itemsize;
    for (size_t i = 0; i < part->num_delays; i++)
        l->pieces[i].past = past_at(l, h, position, i, run->scratch + l->w.blend_h + i * h->bytes);
    l->step.h_prev = l->pieces[0].past;
    if (c->at != NULL) {
        l->step.c_prev = past_at(l, c, position, 0, run->scratch + l->w.blend_c);
        l->step.c = ring_at(c, position, 0);
    }
    l->step.row_end = rows;
    l->step.gates = gates;
    if (l->fold) {
        l->step.x = run->x + (ptrdiff_t)begin * run->x_step * itemsize;
        l->step.x_row = run->batch == 1 ? run->x_step : run->x_row;
    }
    l->step.y_row = run->batch == 1 ? run->y_step : run->y_row;
    l->step.h = part->projected ? run->scratch + l->w.inner : next;
    l->step.y = even && !part->projected ? y : NULL;
    run->kernels->step[run->net->cell](&l->step);
    l->step.backwards = !l->step.backwards;
    if (part->projected)
        frnn_loop_output(l, next, even ? y : NULL);
    if (!even)
        store_outputs(run, begin, steps, next);
    if (l->kept_h != NULL)
        memcpy(l->kept_h + row * l->h_bytes, next, rows * l->h_bytes);
    if (l->kept_c != NULL)
        memcpy(l->kept_c + row * l->c_bytes, l->step.c, rows * l->c_bytes);
}

/* The steps that a state holds, the oldest first, to what training saves. */
static void keep_begin(const frnn_part_run *run, const ring *h, const ring *c) {
    const frnn_part *part = run->part;
    for (size_t slot = 0; slot < part->history[0]; slot++)
        memcpy(run->keep_h0 + slot * h->bytes, ring_at(h, run->position, part->history[0] - slot),
               h->bytes);
    const size_t steps = part->history[part->derived ? 0 : 1];
    for (size_t slot = 0; c->at != NULL && slot < steps; slot++)
        memcpy(run->keep_c0 + slot * c->bytes, ring_at(c, run->position, steps - slot), c->bytes);
}

/* Steps of the visit at a position: within a span, in even parts of at most `side` steps. */
static size_t visit_steps(const frnn_part *part, size_t side, uint64_t position, size_t left) {
    const size_t past = (size_t)(position % part->span);
    const size_t parts = (part->span - 1) / side + 1, even = (part->span - 1) / parts + 1;
    return frnn_min(frnn_min(even - past % even, part->span - past), left);
}

/* Steps of a chunk: as many whole visits as fit, one at least. */
static size_t chunk_steps(const frnn_part *part, size_t side, uint64_t position, size_t most,
                          size_t left) {
    size_t steps = 0;
    while (steps < left) {
        const size_t next = visit_steps(part, side, position + steps, left - steps);
        if (steps > 0 && steps + next > most)
            break;
        steps += next;
    }
    return steps;
}

void frnn_delays_forward(const frnn_part_run *given) {
    frnn_part_run run = *given;
    const frnn_part *part = run.part;
    const size_t batch = run.batch, most = frnn_part_chunk(part, run.itemsize, batch);
    const size_t side = frnn_loop_rows(part, run.itemsize, batch) / batch;
    frnn_workspace w;
    frnn_loop l;
    if (run.reverse)
        frnn_turn(&run);
    frnn_loop_layout(part, run.itemsize, run.steps, batch, 0, &w);
    const int memory = frnn_cell_get(run.net->cell)->memory;
    const ring h = {part->ring, batch * part->h_ld * run.itemsize, run.state + part->h};
    const ring c = {part->c_ring, batch * part->ld * run.itemsize,
                    memory ? run.state + part->c : NULL};
    frnn_loop_begin(&l, &run, &w, h.at, c.at);
    const int even = batch == 1 || run.x_step == (ptrdiff_t)batch * run.x_row;
    l.fold = l.fold && side * batch <= FRNN_FOLD_ROWS && (side == 1 || even);
    if (run.keep_h0 != NULL)
        keep_begin(&run, &h, &c);
    for (size_t done = 0, steps; done < run.steps; done += steps) {
        const uint64_t position = run.position + done;
        char *const gates = frnn_loop_gates(&l, (run.begin + done) * batch);
        steps = chunk_steps(part, side, position, most, run.steps - done);
        if (!l.fold)
            frnn_loop_project(&run, done, steps, gates, l.step.partial);
        for (size_t i = 0, together; i < steps; i += together) {
            together = visit_steps(part, side, position + i, steps - i);
            visit(&l, &h, &c, done + i, together, position + i, gates + i * batch * l.gates_bytes);
        }
    }
}
