/* SPDX-License-Identifier: MIT
 *
 * Nets with a time structure, of rows that do not all do the same: whose sequences have different
 * lengths or start anew, or whose clocks differ. The steps in which no row ends or starts anew are
 * run for all rows that are left. For training, whose rows are kept one behind the other, and with
 * clocks that differ, each row is run alone, from one start to the next: that gives the same bits.
 */
#include "loop.h"

/* Rows of inputs that are gathered at a time; more if that many steps go side by side. */
#define TOGETHER_ROWS 512

/* A state of some rows, behind the scratch of their loop, and their inputs and outputs: bytes from
 * the start of scratch. */
typedef struct row_space {
    size_t h, c, kept, kept_sums;
    size_t x, y; /* [steps][rows][input_size], [output_size] */
    size_t size;
} row_space;

static size_t h_steps(const frnn_part *part) {
    return part->groups > 0 ? 1 : part->ring;
}

static int lay_out(const frnn_part *part, size_t itemsize, size_t steps, size_t rows,
                   row_space *s) {
    frnn_workspace w;
    size_t gathered = rows;
    if (!frnn_loop_layout(part, itemsize, steps, rows, 0, &w) || !frnn_mul(&gathered, part->span))
        return 0;
    gathered = rows > 1 ? frnn_max(gathered, TOGETHER_ROWS) : 0;
    s->size = w.size;
    return frnn_append(&s->size, &s->h, h_steps(part), part->h_ld, rows, itemsize) &&
           frnn_append(&s->size, &s->c, part->c_ring, part->ld, rows, itemsize) &&
           frnn_append(&s->size, &s->kept, part->groups + 1, 1, 1, sizeof(uint64_t)) &&
           frnn_append(&s->size, &s->kept_sums, part->kept_elements, rows, 1, itemsize) &&
           frnn_append(&s->size, &s->x, gathered, part->input_size, 1, itemsize) &&
           frnn_append(&s->size, &s->y, gathered, part->output_size, 1, itemsize);
}

int frnn_rows_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                      int ragged, size_t *size) {
    frnn_workspace w;
    row_space one = {0}, all = {0};
    if (!frnn_loop_layout(part, itemsize, steps, batch, 0, &w))
        return 0;
    if ((ragged || part->groups > 0) && !lay_out(part, itemsize, steps, 1, &one))
        return 0;
    if (ragged && !lay_out(part, itemsize, steps, batch, &all))
        return 0;
    *size = frnn_max(w.size, frnn_max(one.size, all.size));
    return 1;
}

int frnn_rows_apart(const uint64_t *clocks, size_t batch) {
    for (size_t b = 1; clocks != NULL && b < batch; b++)
        if (clocks[b] != clocks[0])
            return 1;
    return 0;
}

/* Rows that all do the same. */
static void forward_even(const frnn_part_run *run) {
    (run->part->groups > 0 ? frnn_clocks_forward : frnn_delays_forward)(run);
}

/* The part of a run whose state lies in its scratch. */
static frnn_part part_in_scratch(const frnn_part *part, const row_space *space) {
    frnn_part own = *part;
    own.h = space->h;
    own.c = space->c;
    own.kept = space->kept;
    own.kept_sums = space->kept_sums;
    return own;
}

/* Row `b` between the state of a batch, at a position, and row `row` of `rows` of a state of its
 * own. */
static void exchange(const frnn_part_run *run, const frnn_part *own, size_t rows, size_t row,
                     size_t b, uint64_t position, uint64_t own_position, int store) {
    const frnn_part *part = run->part;
    const int memory = frnn_cell_get(run->net->cell)->memory;
    for (int c = 0; c <= memory; c++) {
        const size_t bytes = (c ? part->ld : part->h_ld) * run->itemsize;
        const size_t steps = part->history[c && !part->derived];
        for (size_t slot = 0; slot < steps; slot++) {
            char *const whole = run->state + (c ? part->c : part->h) +
                                (frnn_ring_slot(part, position, c, slot) * run->batch + b) * bytes;
            char *const other = run->scratch + (c ? own->c : own->h) +
                                (frnn_ring_slot(own, own_position, c, slot) * rows + row) * bytes;
            memcpy(store ? whole : other, store ? other : whole, bytes);
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
    exchange(whole, &r->part, 1, 0, r->b, whole->position, 0, 0);
    memset(run.state + r->part.kept, 0, (part->groups + 1) * sizeof(uint64_t));
    forward_even(&run);
    if (last)
        exchange(whole, &r->part, 1, 0, r->b, whole->position + whole->steps, steps, 1);
}

static void forward_rows(const frnn_part_run *whole) {
    row_run r = {.whole = whole, .run = *whole};
    lay_out(whole->part, whole->itemsize, whole->steps, 1, &r.space);
    r.part = part_in_scratch(whole->part, &r.space);
    r.run.part = &r.part;
    r.run.batch = 1;
    r.run.state = whole->scratch;
    r.run.position = 0;
    for (r.b = 0; r.b < whole->batch; r.b++) {
        r.run.clocks = whole->clocks == NULL ? NULL : whole->clocks + r.b;
        const size_t length = frnn_rows_stretches(whole->ragged, whole->steps, r.b, whole->reverse,
                                                  forward_stretch, &r);
        r.first += length;
    }
}

/* ---- Together ------------------------------------------------------------------------------- */

typedef struct together {
    const frnn_part_run *whole;
    frnn_part_run run; /* of the rows that are left, in the order of the visits */
    frnn_part part;
    row_space space;
    size_t visit; /* steps done */
    uint64_t clock;
} together;

/* x of `steps` visits, from the caller's array; y of them, to the caller's. */
static void move_rows(const together *g, size_t steps, int outputs) {
    const frnn_part_run *w = g->whole;
    const size_t bytes = (outputs ? w->part->output_size : w->part->input_size) * w->itemsize;
    char *own = w->scratch + (outputs ? g->space.y : g->space.x);
    for (size_t visit = g->visit; visit < g->visit + steps; visit++)
        for (size_t row = 0; row < g->run.batch; row++, own += bytes)
            if (outputs) /* the cast is safe: it is the caller's y */
                memcpy((char *)(uintptr_t)frnn_loop_row(w, row, visit, w->y, w->y_step, w->y_row),
                       own, bytes);
            else
                memcpy(own, frnn_loop_row(w, row, visit, w->x, w->x_step, w->x_row), bytes);
}

/* The visits up to `end`, in which no row ends or starts anew. */
static void run_together(together *g, size_t end) {
    const frnn_part *part = g->whole->part;
    const size_t rows = g->run.batch, span = part->span;
    const size_t most = frnn_max(TOGETHER_ROWS / rows / span, 1) * span;
    g->run.x_row = (ptrdiff_t)part->input_size;
    g->run.x_step = (ptrdiff_t)(rows * part->input_size);
    g->run.y_row = (ptrdiff_t)part->output_size;
    g->run.y_step = (ptrdiff_t)(rows * part->output_size);
    for (size_t steps; g->visit < end; g->visit += steps) {
        steps = frnn_min(most - g->visit % span, end - g->visit); /* whole spans, once begun */
        g->run.steps = steps;
        g->run.position = g->visit;
        move_rows(g, steps, 0);
        forward_even(&g->run);
        move_rows(g, steps, 1);
        g->clock += steps;
    }
}

/* The state of the first `rows` rows, in place of that of more; sums that are kept are of those. */
static void shrink(together *g, size_t rows) {
    const frnn_part *part = &g->part;
    const size_t h = part->h_ld * g->run.itemsize, c = part->ld * g->run.itemsize;
    for (size_t slot = 1; slot < h_steps(part) && rows > 0; slot++)
        memmove(g->run.state + part->h + slot * rows * h,
                g->run.state + part->h + slot * g->run.batch * h, rows * h);
    for (size_t slot = 1; slot < part->c_ring && rows > 0; slot++)
        memmove(g->run.state + part->c + slot * rows * c,
                g->run.state + part->c + slot * g->run.batch * c, rows * c);
    memset(g->run.state + part->kept, 0, (part->groups + 1) * sizeof(uint64_t));
    g->run.batch = rows;
}

/* The first visit before `end` at which a row starts anew, behind the one that is next. */
static size_t next_start(const together *g, size_t end) {
    const frnn_part_run *whole = g->whole;
    size_t visit = g->visit + 1;
    if (whole->ragged->reset == NULL)
        return end;
    while (visit < end && !frnn_ragged_any_restart(whole->ragged, visit, whole->reverse))
        visit++;
    return frnn_min(visit, end);
}

static void forward_together(const frnn_part_run *whole) {
    const frnn_ragged *ragged = whole->ragged;
    together g = {.whole = whole, .run = *whole};
    lay_out(whole->part, whole->itemsize, whole->steps, whole->batch, &g.space);
    g.part = part_in_scratch(whole->part, &g.space);
    g.clock = whole->clocks == NULL ? 0 : whole->clocks[0];
    g.run.part = &g.part;
    g.run.state = whole->scratch;
    g.run.x = whole->scratch + g.space.x;
    g.run.y = whole->scratch + g.space.y;
    g.run.reverse = 0;
    g.run.ragged = NULL;
    g.run.clocks = whole->clocks == NULL ? NULL : &g.clock;
    memset(g.run.state + g.part.kept, 0, (g.part.groups + 1) * sizeof(uint64_t));
    for (size_t row = 0; row < whole->batch; row++)
        exchange(whole, &g.part, whole->batch, row, ragged->order[row], whole->position, 0, 0);
    for (;;) {
        size_t left = g.run.batch;
        for (; left > 0 && ragged->length[left - 1] == g.visit; left--)
            exchange(whole, &g.part, g.run.batch, left - 1, ragged->order[left - 1],
                     whole->position + whole->steps, g.visit, 1);
        if (left < g.run.batch)
            shrink(&g, left);
        if (left == 0)
            break;
        for (size_t row = 0; row < left; row++)
            if (frnn_ragged_restarts(ragged, row, g.visit, whole->reverse))
                exchange(whole, &g.part, left, row, ragged->order[row], whole->position, g.visit,
                         0);
        run_together(&g, next_start(&g, ragged->length[left - 1]));
    }
}

/* Whether all rows that are at a step can be run together. */
static int can_go_together(const frnn_part_run *run) {
    const int anew = run->ragged != NULL && run->ragged->reset != NULL;
    return run->ragged != NULL && run->saved == NULL && run->batch > 1 &&
           (run->part->groups == 0 || (!anew && !frnn_rows_apart(run->clocks, run->batch)));
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
    if (run.ragged != NULL || frnn_rows_apart(run.clocks, run.batch)) {
        (can_go_together(&run) ? forward_together : forward_rows)(&run);
        if (run.ragged != NULL)
            frnn_loop_clear_padding(&run);
        if (run.part->groups > 0) /* sums are of other rows */
            memset(run.state + run.part->kept, 0, (run.part->groups + 1) * sizeof(uint64_t));
    } else {
        forward_even(&run);
    }
}
