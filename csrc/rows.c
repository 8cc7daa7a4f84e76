/* SPDX-License-Identifier: MIT
 *
 * Nets with a time structure, of rows that do not all do the same: whose sequences have different
 * lengths or start anew, or whose clocks differ. Each row is run alone, from one start to the next,
 * which gives the bits of the batch.
 */
#include "loop.h"

/* A state of one row, behind the scratch of its loop: bytes from the start of scratch. */
typedef struct row_space {
    size_t h, c, kept, kept_sums;
    size_t size;
} row_space;

static size_t h_steps(const frnn_part *part) {
    return part->groups > 0 ? 1 : part->ring;
}

static int lay_out(const frnn_part *part, size_t itemsize, size_t steps, row_space *s) {
    frnn_workspace w;
    if (!frnn_loop_layout(part, itemsize, steps, 1, 0, &w))
        return 0;
    s->size = w.size;
    return frnn_append(&s->size, &s->h, h_steps(part), part->h_ld, 1, itemsize) &&
           frnn_append(&s->size, &s->c, part->c_ring, part->ld, 1, itemsize) &&
           frnn_append(&s->size, &s->kept, part->groups + 1, 1, 1, sizeof(uint64_t)) &&
           frnn_append(&s->size, &s->kept_sums, part->kept_elements, 1, 1, itemsize);
}

int frnn_rows_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                      int ragged, size_t *size) {
    frnn_workspace w;
    row_space s = {0};
    if (!frnn_loop_layout(part, itemsize, steps, batch, 0, &w))
        return 0;
    if ((ragged || part->groups > 0) && !lay_out(part, itemsize, steps, &s))
        return 0;
    *size = frnn_max(w.size, s.size);
    return 1;
}

int frnn_rows_apart(const uint64_t *clocks, size_t batch) {
    for (size_t b = 1; clocks != NULL && b < batch; b++)
        if (clocks[b] != clocks[0])
            return 1;
    return 0;
}

/* One row between the state of a batch, at a position, and a state of its own. */
static void exchange(const frnn_part_run *run, const frnn_part *own, size_t b, uint64_t position,
                     uint64_t own_position, int store) {
    const frnn_part *part = run->part;
    const int memory = frnn_cell_get(run->net->cell)->memory;
    for (int c = 0; c <= memory; c++) {
        const size_t row = (c ? part->ld : part->h_ld) * run->itemsize;
        const size_t steps = part->history[c && !part->derived];
        for (size_t slot = 0; slot < steps; slot++) {
            char *const whole = run->state + (c ? part->c : part->h) +
                                (frnn_ring_slot(part, position, c, slot) * run->batch + b) * row;
            char *const single = run->scratch + (c ? own->c : own->h) +
                                 frnn_ring_slot(own, own_position, c, slot) * row;
            memcpy(store ? whole : single, store ? single : whole, row);
        }
    }
}

static int starts_anew(const frnn_ragged *ragged, size_t b, size_t t) {
    return ragged != NULL && ragged->reset != NULL && ragged->reset[t * ragged->batch + b] != 0;
}

/* The next stretch of a row that nothing starts anew in: [*begin, *end), from `at` on, in reverse
 * up to it. */
static void next_stretch(const frnn_ragged *ragged, size_t b, int reverse, size_t length, size_t at,
                         size_t *begin, size_t *end) {
    *begin = *end = at;
    if (at == (reverse ? 0 : length))
        return;
    if (reverse)
        do
            --*begin;
        while (*begin > 0 && !starts_anew(ragged, b, *begin));
    else
        do
            ++*end;
        while (*end < length && !starts_anew(ragged, b, *end));
}

size_t frnn_rows_length(const frnn_ragged *ragged, size_t steps, size_t b) {
    return ragged != NULL && ragged->lengths != NULL ? ragged->lengths[b] : steps;
}

size_t frnn_rows_stretches(const frnn_ragged *ragged, size_t steps, size_t b, int reverse,
                           frnn_rows_visit visit, void *context) {
    const size_t length = frnn_rows_length(ragged, steps, b);
    size_t at = reverse ? length : 0, number = 0, begin, end;
    do {
        next_stretch(ragged, b, reverse, length, at, &begin, &end);
        at = reverse ? begin : end;
        visit(context, begin, end - begin, number++, at == (reverse ? 0 : length));
    } while (at != (reverse ? 0 : length));
    return length;
}

typedef struct row_run {
    const frnn_part_run *whole;
    frnn_part_run run;
    frnn_part part;
    row_space space;
    size_t b, first; /* the row, and where its steps begin in what is saved */
} row_run;

static void forward_stretch(void *context, size_t begin, size_t steps, size_t number, int last) {
    row_run *r = context;
    const frnn_part_run *whole = r->whole;
    const frnn_part *part = whole->part;
    const ptrdiff_t itemsize = (ptrdiff_t)whole->itemsize, b = (ptrdiff_t)r->b;
    frnn_part_run run = r->run;
    run.steps = steps;
    run.begin = r->first + begin;
    run.x += ((ptrdiff_t)begin * run.x_step + b * run.x_row) * itemsize;
    run.y += ((ptrdiff_t)begin * run.y_step + b * run.y_row) * itemsize;
    run.keep_h0 = run.keep_c0 = NULL;
    if (whole->keep_h0 != NULL && number == 0) {
        const size_t c_steps = part->history[part->derived ? 0 : 1];
        run.keep_h0 = whole->keep_h0 + r->b * part->history[0] * part->h_ld * whole->itemsize;
        run.keep_c0 = whole->keep_c0 + r->b * c_steps * part->ld * whole->itemsize;
    }
    exchange(whole, &r->part, r->b, whole->position, 0, 0);
    memset(run.state + r->part.kept, 0, (part->groups + 1) * sizeof(uint64_t));
    if (part->groups > 0)
        frnn_clocks_forward(&run);
    else
        frnn_delays_forward(&run);
    if (last)
        exchange(whole, &r->part, r->b, whole->position + whole->steps, steps, 1);
}

static void forward_rows(const frnn_part_run *whole) {
    row_run r = {.whole = whole, .run = *whole, .part = *whole->part};
    lay_out(whole->part, whole->itemsize, whole->steps, &r.space);
    r.part.h = r.space.h;
    r.part.c = r.space.c;
    r.part.kept = r.space.kept;
    r.part.kept_sums = r.space.kept_sums;
    r.run.part = &r.part;
    r.run.batch = 1;
    r.run.state = whole->scratch;
    r.run.position = 0;
    for (r.b = 0; r.b < whole->batch; r.b++) {
        r.run.clocks = whole->clocks == NULL ? NULL : whole->clocks + r.b;
        const size_t length = frnn_rows_stretches(whole->ragged, whole->steps, r.b, whole->reverse,
                                                  forward_stretch, &r);
        for (size_t t = length; t < whole->steps; t++)
            memset(whole->y + ((ptrdiff_t)t * whole->y_step + (ptrdiff_t)r.b * whole->y_row) *
                                  (ptrdiff_t)whole->itemsize,
                   0, whole->part->output_size * whole->itemsize);
        r.first += length;
    }
    if (whole->part->groups > 0) /* sums are of the whole batch */
        memset(whole->state + whole->part->kept, 0, (whole->part->groups + 1) * sizeof(uint64_t));
}

void frnn_rows_forward(const frnn_part_run *given) {
    frnn_part_run run = *given;
    if (run.saved != NULL) {
        char *const saved = frnn_saved_part(&run);
        if (run.begin == 0) {
            run.keep_h0 = saved + run.layout->h0;
            run.keep_c0 = saved + run.layout->c0;
        }
        if (run.begin == 0 && run.clocks != NULL)
            memcpy(saved + run.layout->clocks, run.clocks, run.batch * sizeof *run.clocks);
    }
    if (run.ragged != NULL || frnn_rows_apart(run.clocks, run.batch))
        forward_rows(&run);
    else if (run.part->groups > 0)
        frnn_clocks_forward(&run);
    else
        frnn_delays_forward(&run);
}
