/* SPDX-License-Identifier: MIT
 *
 * Nets with a time structure backwards, of rows that do not all do the same: as rows.c, each row is
 * run alone, stretch after stretch, with an adjoint of its own.
 */
#include "back.h"

/* An adjoint of one row, behind the scratch of its loop: bytes from the start of scratch. */
typedef struct row_space {
    size_t dh, carry, dz_past, windows;
    size_t dh_sum, carry_sum; /* of all stretches: the gradient of the row's initial state */
    size_t size;
} row_space;

static int loop_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t rows,
                        size_t *size) {
    return part->groups > 0 ? frnn_clocks_back_scratch(part, itemsize, rows, size)
                            : frnn_delays_back_scratch(part, itemsize, steps, rows, size);
}

static int lay_out(const frnn_part *part, size_t itemsize, size_t steps, row_space *s) {
    if (!loop_scratch(part, itemsize, steps, 1, &s->size))
        return 0;
    return frnn_append(&s->size, &s->dh, part->history[0], part->h_ld, 1, itemsize) &&
           frnn_append(&s->size, &s->carry, part->history[1], part->ld, 1, itemsize) &&
           frnn_append(&s->size, &s->dz_past, frnn_back_reach(part) * part->span, frnn_dz_row(part),
                       1, itemsize) &&
           frnn_append(&s->size, &s->windows, part->window_elements, 1, 1, itemsize) &&
           frnn_append(&s->size, &s->dh_sum, part->history[0], part->h_ld, 1, itemsize) &&
           frnn_append(&s->size, &s->carry_sum, part->history[1], part->ld, 1, itemsize);
}

int frnn_rows_back_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                           int ragged, size_t *size) {
    row_space s = {0};
    if (!loop_scratch(part, itemsize, steps, batch, size))
        return 0;
    if ((ragged || part->groups > 0) && !lay_out(part, itemsize, steps, &s))
        return 0;
    *size = frnn_max(*size, s.size);
    return 1;
}

/* Makes a run of the second direction one of the first, over the steps in their other order. */
static void turn(frnn_part_back *run, size_t steps) {
    const ptrdiff_t last = steps > 0 ? (ptrdiff_t)steps - 1 : 0,
                    itemsize = (ptrdiff_t)run->itemsize;
    run->reverse = 0;
    run->turned = 1;
    run->x += last * run->x_step * itemsize;
    run->x_step = -run->x_step;
    if (run->dy != NULL)
        run->dy += last * run->dy_step * itemsize;
    run->dy_step = -run->dy_step;
    if (run->dx != NULL)
        run->dx += last * run->dx_step * itemsize;
    run->dx_step = -run->dx_step;
}

/* One loop over `steps` steps of `rows` rows, with clocks over those of [begin, end); steps that
 * went before are counted in steps. */
static void run_loop(frnn_part_back *run, size_t steps, size_t rows, size_t begin, size_t end) {
    const frnn_part *part = run->part;
    if (run->reverse)
        turn(run, steps);
    run->times = steps;
    run->begin = begin;
    run->end = end;
    run->rows = rows;
    run->span = part->span;
    run->batch = rows * part->span;
    run->steps = steps == 0 ? 0 : (steps - 1) / part->span + 1;
    run->position /= part->span;
    if (part->groups > 0)
        frnn_clocks_backward(run);
    else
        frnn_delays_backward(run);
}

typedef struct row_run {
    const frnn_part_back *whole;
    frnn_part_back run;
    row_space space;
    size_t b, first;
} row_run;

/* One row between the adjoint of a batch and one of its own. */
static void exchange(const row_run *r, char *whole, char *own, int c, int store) {
    const frnn_part *part = r->whole->part;
    const size_t row = (c ? part->ld : part->h_ld) * r->whole->itemsize;
    for (size_t slot = 0; slot < part->history[c]; slot++) {
        char *const of_batch = whole + (slot * r->whole->batch + r->b) * row;
        memcpy(store ? of_batch : own + slot * row, store ? own + slot * row : of_batch, row);
    }
}

static void backward_stretch(void *context, size_t begin, size_t steps, size_t number, int last) {
    row_run *r = context;
    const frnn_part_back *whole = r->whole;
    const frnn_part *part = whole->part;
    const ptrdiff_t itemsize = (ptrdiff_t)whole->itemsize, b = (ptrdiff_t)r->b;
    const size_t h_size = part->history[0] * part->h_ld, c_size = part->history[1] * part->ld;
    char *const scratch = whole->scratch;
    frnn_part_back run = r->run;
    (void)number;
    run.x += ((ptrdiff_t)begin * run.x_step + b * run.x_row) * itemsize;
    if (run.dy != NULL)
        run.dy += ((ptrdiff_t)begin * run.dy_step + b * run.dy_row) * itemsize;
    if (run.dx != NULL)
        run.dx += ((ptrdiff_t)begin * run.dx_step + b * run.dx_row) * itemsize;
    run.dy_begin = run.dy_begin > begin ? run.dy_begin - begin : 0;
    run.first = r->first + begin;
    memset(run.dh, 0, h_size * whole->itemsize);
    memset(run.carry, 0, c_size * whole->itemsize);
    memset(run.windows, 0, part->window_elements * whole->itemsize);
    if (last) {
        exchange(r, whole->dh, run.dh, 0, 0);
        exchange(r, whole->carry, run.carry, 1, 0);
    }
    if (steps > 0)
        run_loop(&run, steps, 1, 0, steps);
    whole->kernels->add(run.dh, scratch + r->space.dh_sum, h_size);
    whole->kernels->add(run.carry, scratch + r->space.carry_sum, c_size);
}

/* Rows are added to what is there. */
static void zero_matrices(const frnn_part_back *run) {
    const frnn_part *part = run->part;
    const frnn_gradients *g = run->gradients;
    const size_t rows = part->gates * part->hidden_size * run->itemsize;
    if (g->weight_ih != NULL)
        memset(g->weight_ih, 0, rows * part->input_size);
    if (g->weight_hh != NULL)
        memset(g->weight_hh, 0, rows * part->output_size);
    for (size_t i = 0; i + 1 < part->num_delays; i++)
        if (g->delayed[i] != NULL)
            memset(g->delayed[i], 0, rows * part->output_size);
    if (g->weight_hr != NULL)
        memset(g->weight_hr, 0, part->output_size * part->hidden_size * run->itemsize);
}

static void backward_ragged(const frnn_part_back *whole) {
    const frnn_part *part = whole->part;
    const size_t c_steps = part->c_ring;
    row_run r = {.whole = whole, .run = *whole};
    char *const scratch = whole->scratch;
    const size_t steps = whole->ragged->steps;
    lay_out(part, whole->itemsize, steps, &r.space);
    r.run.dh = scratch + r.space.dh;
    r.run.carry = scratch + r.space.carry;
    r.run.dz_past = scratch + r.space.dz_past;
    r.run.windows = scratch + r.space.windows;
    r.run.ragged = NULL;
    r.run.position = 0;
    r.run.last = 1;
    if (r.run.gradients != NULL && !r.run.accumulate)
        zero_matrices(whole);
    r.run.accumulate = 1;
    for (r.b = 0; r.b < whole->batch; r.b++) {
        r.run.b = r.b;
        r.run.clocks = whole->clocks == NULL ? NULL : whole->clocks + r.b;
        r.run.h0 = whole->h0 + r.b * part->history[0] * part->h_ld * whole->itemsize;
        r.run.c0 = whole->c0 + r.b * c_steps * part->ld * whole->itemsize;
        memset(scratch + r.space.dh_sum, 0, part->history[0] * part->h_ld * whole->itemsize);
        memset(scratch + r.space.carry_sum, 0, part->history[1] * part->ld * whole->itemsize);
        r.first +=
            frnn_rows_stretches(whole->ragged, steps, r.b, whole->reverse, backward_stretch, &r);
        exchange(&r, whole->dh, scratch + r.space.dh_sum, 0, 1);
        exchange(&r, whole->carry, scratch + r.space.carry_sum, 1, 1);
    }
}

/* Rows whose clocks differ: in turn, a chain of the sums at a time, so that it does not matter
 * where the sequence is cut. What arrives at them lies row by row in the adjoint. */
static void backward_apart(const frnn_part_back *whole) {
    const frnn_part *part = whole->part;
    const ptrdiff_t itemsize = (ptrdiff_t)whole->itemsize;
    const size_t unit = frnn_sum_steps(whole->batch), h_row = part->h_ld * whole->itemsize;
    const size_t c_row = part->ld * whole->itemsize;
    if (whole->gradients != NULL && !whole->accumulate && whole->position == 0)
        zero_matrices(whole);
    for (size_t end = whole->steps, steps; end > 0; end -= steps) {
        const uint64_t position = whole->position + (whole->steps - end);
        steps = frnn_min(unit - (size_t)(position % unit), end);
        for (size_t b = 0; b < whole->batch; b++) {
            frnn_part_back run = *whole;
            run.b = b;
            run.first = b * whole->steps;
            run.accumulate = 1;
            run.clocks += b;
            run.h0 += b * h_row;
            run.c0 += b * c_row;
            run.dh += b * h_row;
            run.carry += b * c_row;
            run.windows += b * part->window_elements * whole->itemsize;
            run.x += (ptrdiff_t)b * run.x_row * itemsize;
            if (run.dy != NULL)
                run.dy += (ptrdiff_t)b * run.dy_row * itemsize;
            if (run.dx != NULL)
                run.dx += (ptrdiff_t)b * run.dx_row * itemsize;
            run_loop(&run, whole->steps, 1, end - steps, end);
        }
    }
}

void frnn_rows_backward(const frnn_part_back *whole) {
    frnn_part_back run = *whole;
    run.h0 = run.saved + run.layout->h0;
    run.c0 = run.saved + run.layout->c0;
    if (run.part->groups > 0)
        run.clocks = (const uint64_t *)(const void *)(run.saved + run.layout->clocks);
    if (run.ragged != NULL)
        backward_ragged(&run);
    else if (frnn_rows_apart(run.clocks, run.batch))
        backward_apart(&run);
    else
        run_loop(&run, run.steps, run.batch, 0, run.steps);
    if (run.gradients != NULL && run.last && run.part->groups > 0)
        frnn_clocks_totals(whole);
    else if (run.gradients != NULL && run.last)
        frnn_back_totals(whole);
}
