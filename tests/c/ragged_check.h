/* SPDX-License-Identifier: MIT
 *
 * Calls with rows of different lengths and rows that start anew, and what they have to give: the
 * results of separate runs, one for each piece of each row. What no row has cannot be read: x and
 * dy end with the longest row, and are NaN behind the end of each.
 */
#ifndef FRNN_RAGGED_CHECK_H
#define FRNN_RAGGED_CHECK_H

#include "train_check.h"

/* lengths [B] and reset [T, B], either of which may be NULL; read-only. */
typedef struct ragged {
    const size_t *lengths;
    const unsigned char *reset;
    frame frames[2];
} ragged;

/* ---- Lengths and resets --------------------------------------------------------------------- */

static inline size_t row_length(const problem *p, const ragged *r, size_t row) {
    return r->lengths == NULL ? p->steps : r->lengths[row];
}

static inline size_t longest(const problem *p, const ragged *r) {
    size_t most = 0;
    for (size_t b = 0; b < p->batch; b++)
        most = row_length(p, r, b) > most ? row_length(p, r, b) : most;
    return most;
}

/* Where the piece of a row that begins at `begin` ends. */
static inline size_t piece_end(const problem *p, const ragged *r, size_t row, size_t begin) {
    const size_t length = row_length(p, r, row);
    size_t end = begin + 1;
    while (end < length && (r->reset == NULL || r->reset[end * p->batch + row] == 0))
        end++;
    return end;
}

static inline void ragged_lengths(ragged *r, const size_t *lengths, size_t batch) {
    const size_t size = batch * sizeof *lengths;
    r->frames[0] = frame_new(size, sizeof *lengths);
    if (size > 0)
        memcpy(r->frames[0].at, lengths, size);
    frame_protect(&r->frames[0], PROT_READ);
    r->lengths = (const size_t *)(const void *)r->frames[0].at;
}

/* One byte in `rarity` is not 0, whatever its value; 0: all are 0. */
static inline void ragged_reset(ragged *r, size_t steps, size_t batch, size_t rarity) {
    r->frames[1] = frame_new(steps * batch, 1);
    for (size_t i = 0; i < steps * batch; i++)
        r->frames[1].at[i] = rarity > 0 && below(rarity) == 0 ? (unsigned char)(1 + below(255)) : 0;
    frame_protect(&r->frames[1], PROT_READ);
    r->reset = r->frames[1].at;
}

/* Lengths in no order, with 0, 1 and all steps among them. */
static inline void draw_lengths(ragged *r, size_t steps, size_t batch) {
    size_t *const lengths = memory(batch * sizeof *lengths);
    for (size_t b = 0; b < batch; b++)
        lengths[b] = b == 0 ? steps : b == 1 ? 0 : b == 2 ? steps > 0 : below(steps + 1);
    for (size_t b = batch; b > 1; b--) {
        const size_t other = below(b), length = lengths[b - 1];
        lengths[b - 1] = lengths[other];
        lengths[other] = length;
    }
    if (batch == 1)
        lengths[0] = below(steps + 1);
    ragged_lengths(r, lengths, batch);
}

static inline void ragged_free(const ragged *r) {
    if (r->lengths != NULL)
        frame_free(&r->frames[0]);
    if (r->reset != NULL)
        frame_free(&r->frames[1]);
}

/* ---- One call ------------------------------------------------------------------------------- */

/* The steps that rows have of [T, B, width], from `begin` on. */
static inline grid rows_new(const problem *p, const ragged *r, size_t begin, const double *from,
                            size_t width, int strided) {
    const grid g = grid_new(longest(p, r), p->batch, width, p->items, strided);
    for (size_t b = 0; b < p->batch; b++)
        for (size_t i = begin; i < row_length(p, r, b); i++)
            put(p->items, grid_at(&g, i, b), from + (i * p->batch + b) * width, width);
    frame_protect(&g.f, PROT_READ);
    return g;
}

/* saved may be NULL. */
static inline void ragged_forward(const problem *p, const ragged *r, const grid *x, const grid *y,
                                  const frame *state, const frame *saved, int time_axis) {
    size_t size = 0;
    CHECK(frnn_ragged_scratch_size(&p->net, p->steps, p->batch, &size) == FRNN_OK);
    const frame scratch = frame_new(size, FRNN_ALIGN);
    frnn_run run = FRNN_RUN(&p->net, p->steps, p->batch, grid_at(x, 0, 0), grid_at(y, 0, 0),
                            state->at, state->size, scratch.at, size);
    run.x_step = x->step, run.x_row = x->row, run.y_step = y->step, run.y_row = y->row;
    run.parallel_time = time_axis;
    run.lengths = r->lengths, run.reset = r->reset;
    if (saved != NULL)
        run.saved = saved->at, run.saved_size = saved->size;
    CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &run) == FRNN_OK);
    frame_free(&scratch);
}

static inline void ragged_backward(const task *t, const ragged *r, manner how, const back_call *c) {
    const problem *p = &t->p;
    size_t size = 0;
    CHECK(frnn_ragged_backward_scratch_size(&p->net, p->steps, p->batch, &size) == FRNN_OK);
    const frame scratch = frame_new(size, FRNN_ALIGN);
    frnn_back back =
        FRNN_BACK(&p->net, p->steps, p->batch, grid_at(c->x, 0, 0), NULL, NULL, c->saved.at,
                  c->saved.size, c->adjoint.at, c->adjoint.size, scratch.at, size);
    back.x_step = c->x->step, back.x_row = c->x->row;
    if (c->dy != NULL)
        back.dy = grid_at(c->dy, 0, 0), back.dy_step = c->dy->step, back.dy_row = c->dy->row;
    if (c->dx != NULL)
        back.dx = grid_at(c->dx, 0, 0), back.dx_step = c->dx->step, back.dx_row = c->dx->row;
    back.dy_begin = how.dy_begin;
    back.gradients = c->gradients;
    back.accumulate = how.start != NULL;
    back.parallel_time = how.time_axis;
    back.lengths = r->lengths, back.reset = r->reset;
    CHECK(frnn_backward(&p->net, t->packed_back.at, t->packed_back.size, &back) == FRNN_OK);
    frame_free(&scratch);
}

/* The initial state, which may have one step behind it that no row took part in. */
static inline frame ragged_state(const problem *p) {
    const frame state = state_new(p, p->batch, &p->start);
    if (below(2) == 0)
        return state;
    problem one = *p;
    one.steps = 1;
    ragged nobody = {0};
    size_t *const lengths = memory(p->batch * sizeof *lengths);
    memset(lengths, 0, p->batch * sizeof *lengths);
    ragged_lengths(&nobody, lengths, p->batch);
    const grid x = rows_new(&one, &nobody, 0, NULL, p->net.input_size, 0);
    const grid y = grid_new(1, p->batch, p->width, p->items, 0);
    ragged_forward(&one, &nobody, &x, &y, &state, NULL, 0);
    frame_free(&x.f);
    grid_take(&y, &one, p->width);
    ragged_free(&nobody);
    return state;
}

/* y and the state, without a thought of training. */
static inline result ragged_plain(const problem *p, const ragged *r, manner how) {
    const grid x = rows_new(p, r, 0, p->x, p->net.input_size, how.strided);
    const grid y = grid_new(p->steps, p->batch, p->width, p->items, how.strided);
    const frame state = ragged_state(p);
    result all = {0};
    ragged_forward(p, r, &x, &y, &state, NULL, how.time_axis);
    all.array[Y] = grid_take(&y, p, p->width);
    state_take(p, &state, &all);
    frame_free(&x.f);
    frame_free(&state);
    return all;
}

/* y and the state of a forward that saves, and all gradients. */
static inline result ragged_train(const task *t, const ragged *r, manner how) {
    const problem *p = &t->p;
    const size_t I = p->net.input_size;
    const grid x = rows_new(p, r, 0, p->x, I, how.strided);
    const grid y = grid_new(p->steps, p->batch, p->width, p->items, how.strided);
    const grid dy = rows_new(p, r, how.dy_begin, t->dy, p->width, how.strided);
    const grid dx = grid_new(p->steps, p->batch, I, p->items, how.strided);
    const frame state = ragged_state(p);
    frame params[PARTS * KINDS] = {{0}};
    frnn_gradients gradients[PARTS];
    params_new(p, how, params, gradients);
    size_t size = 0;
    CHECK(frnn_saved_size(&p->net, p->steps, p->batch, &size) == FRNN_OK);
    const back_call call = {&x,
                            how.without & NO_DY ? NULL : &dy,
                            how.without & NO_DX ? NULL : &dx,
                            frame_new(size, FRNN_ALIGN),
                            adjoint_new(t),
                            how.without & NO_PARAMS ? NULL : gradients};
    const frame before = frame_copy(&call.adjoint);
    result all = {0};
    ragged_forward(p, r, &x, &y, &state, &call.saved, how.time_axis);
    all.array[Y] = grid_take(&y, p, p->width);
    state_take(p, &state, &all);
    frame_protect(&call.saved, PROT_READ);
    for (int i = 0; i <= how.twice; i++) {
        memcpy(call.adjoint.at, before.at, before.size);
        ragged_backward(t, r, how, &call);
    }
    all.array[DX] = grid_take(&dx, p, call.dx == NULL ? 0 : I);
    if (call.dx == NULL)
        all.array[DX].at = NULL;
    for (size_t k = 0; k < p->cell->states; k++) {
        const span s = all.array[DSTATE + k] = span_new(all.array[STATE + k].size);
        CHECK(frnn_adjoint_get(&p->net, p->steps, p->batch, call.adjoint.at, call.adjoint.size, k,
                               s.at) == FRNN_OK);
    }
    params_take(p, how, params, &all);
    const frame frames[] = {before, call.saved, call.adjoint, state, x.f, dy.f};
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        frame_free(&frames[i]);
    return all;
}

/* ---- Separate runs -------------------------------------------------------------------------- */

/* Rows that were cut have sums over their pieces as gradients of the state, and of parameters all
 * of them have: those are doubles. */
typedef struct separate {
    result bits;          /* Y, STATE, DX, and DSTATE of rows of one piece or none */
    double *sums[ARRAYS]; /* of DSTATE and PARAMS */
    int *cut;             /* [B]: has more than one piece */
} separate;

/* Whether a step of a state belongs to the direction that ends with the last step of a row. */
static inline int in_first_direction(const problem *p, size_t index, size_t slot) {
    return slot_part(&p->net, index, slot) % p->net.num_directions == 0;
}

/* Steps [begin, end) of a row. What arrives at the state after the whole row arrives at one piece
 * of each direction. */
static inline task task_piece(const task *t, size_t row, size_t begin, size_t end, int last) {
    const problem *p = &t->p;
    const size_t B = p->batch, I = p->net.input_size, n = end - begin;
    task one = *t;
    one.p.batch = 1;
    one.p.steps = n;
    one.p.x = memory(n * I * sizeof(double));
    one.dy = memory(n * p->width * sizeof(double));
    for (size_t i = 0; i < n; i++) {
        const size_t from = (begin + i) * B + row;
        memcpy(one.p.x + i * I, p->x + from * I, I * sizeof(double));
        memcpy(one.dy + i * p->width, t->dy + from * p->width, p->width * sizeof(double));
    }
    for (size_t k = 0; k < 2; k++) {
        const size_t w = state_width(&p->net, k), bytes = w * sizeof(double);
        const size_t slots = state_slots(&p->net, k);
        one.p.start.state[k] = memory(slots * bytes);
        one.dstate[k] = memory(slots * bytes);
        for (size_t i = 0; i < slots; i++) {
            const int ends = in_first_direction(p, k, i) ? last : begin == 0;
            memcpy(one.p.start.state[k] + i * w, p->start.state[k] + (i * B + row) * w, bytes);
            memcpy(one.dstate[k] + i * w, t->dstate[k] + (i * B + row) * w, bytes);
            for (size_t j = 0; j < w && !ends; j++)
                one.dstate[k][i * w + j] = 0;
        }
    }
    if (p->start.clock != NULL)
        one.p.start.clock = &p->start.clock[row];
    return one;
}

static inline double number(const problem *p, const span *s, size_t i) {
    double value;
    get(p->items, &value, s->at + i * p->items, 1);
    return value;
}

static inline void add_numbers(const problem *p, const span *s, double *to, size_t at,
                               size_t count) {
    for (size_t i = 0; i < count; i++)
        to[i] += number(p, s, at + i);
}

/* The results of a piece go where they belong. */
static inline void take_piece(const task *t, separate *all, const result *one, size_t row,
                              size_t begin, size_t end, int last) {
    const problem *p = &t->p;
    const size_t widths[] = {[Y] = p->width, [DX] = p->net.input_size};
    for (size_t i = begin; i < end; i++)
        for (int a = Y; a <= DX; a += DX - Y) {
            const size_t bytes = widths[a] * p->items;
            memcpy(all->bits.array[a].at + (i * p->batch + row) * bytes,
                   one->array[a].at + (i - begin) * bytes, bytes);
        }
    for (size_t k = 0; k < p->cell->states; k++)
        for (size_t i = 0; i < state_slots(&p->net, k); i++) {
            const size_t w = state_width(&p->net, k), at = (i * p->batch + row) * w;
            const size_t bytes = w * p->items;
            if (in_first_direction(p, k, i) ? last : begin == 0)
                memcpy(all->bits.array[STATE + k].at + at * p->items,
                       one->array[STATE + k].at + i * bytes, bytes);
            memcpy(all->bits.array[DSTATE + k].at + at * p->items,
                   one->array[DSTATE + k].at + i * bytes, bytes);
            add_numbers(p, &one->array[DSTATE + k], all->sums[DSTATE + k] + at, i * w, w);
        }
    if (last && one->clock.at != NULL)
        memcpy(all->bits.clock.at + row * one->clock.size, one->clock.at, one->clock.size);
    for (size_t a = PARAMS; a < ARRAYS; a++)
        if (one->array[a].at != NULL)
            add_numbers(p, &one->array[a], all->sums[a], 0, one->array[a].size / p->items);
}

static inline double *zeros(size_t count) {
    double *const to = memory(count * sizeof *to);
    for (size_t i = 0; i < count; i++)
        to[i] = 0;
    return to;
}

static inline separate separate_runs(const task *t, const ragged *r) {
    const problem *p = &t->p;
    const size_t rows = p->steps * p->batch;
    separate all = {.cut = memory(p->batch * sizeof(int))};
    all.bits.array[Y] = span_new(rows * p->width * p->items);
    all.bits.array[DX] = span_new(rows * p->net.input_size * p->items);
    memset(all.bits.array[Y].at, 0, all.bits.array[Y].size);
    memset(all.bits.array[DX].at, 0, all.bits.array[DX].size);
    for (size_t k = 0; k < p->cell->states; k++) { /* of rows without steps */
        const size_t count = state_count(p, p->batch, k);
        all.bits.array[STATE + k] = span_new(count * p->items);
        all.bits.array[DSTATE + k] = span_new(count * p->items);
        put(p->items, all.bits.array[STATE + k].at, p->start.state[k], count);
        put(p->items, all.bits.array[DSTATE + k].at, t->dstate[k], count);
        all.sums[DSTATE + k] = zeros(count);
    }
    if (p->start.clock != NULL) {
        all.bits.clock = span_new(p->batch * sizeof *p->start.clock);
        memcpy(all.bits.clock.at, p->start.clock, all.bits.clock.size);
    }
    for (size_t i = 0; i < p->parts * KINDS; i++)
        all.sums[PARAMS + i] = zeros(param_count(&p->net, i / KINDS, i % KINDS));
    for (size_t row = 0; row < p->batch; row++) {
        const size_t length = row_length(p, r, row);
        all.cut[row] = length > 0 && piece_end(p, r, row, 0) < length;
        for (size_t begin = 0, end; begin < length; begin = end) {
            end = piece_end(p, r, row, begin);
            const task one = task_piece(t, row, begin, end, end == length);
            const result part = train(&one, (manner){0});
            take_piece(t, &all, &part, row, begin, end, end == length);
        }
    }
    return all;
}

#endif
