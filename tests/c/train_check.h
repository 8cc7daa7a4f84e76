/* SPDX-License-Identifier: MIT
 *
 * Gradients of a problem, found in any manner that the library offers. Every buffer lies between
 * guards and has exactly the size that is asked for; what is only read is write-protected.
 */
#ifndef FRNN_TRAIN_CHECK_H
#define FRNN_TRAIN_CHECK_H

#include "grid.h"

/* The loss is the sum of dy * y and dstate * the state after the last step. */
typedef struct task {
    problem p;
    frame packed_back;
    double *dy, *dstate[2]; /* [T, B, D * P] and [state_slots(), B, state_width()] */
} task;

/* Arrays of a result: contiguous, of the dtype of the net; at: NULL if there is none. */
enum { Y, STATE, DX = STATE + 2, DSTATE, PARAMS = DSTATE + 2, ARRAYS = PARAMS + PARTS * KINDS };
typedef struct span {
    unsigned char *at;
    size_t size;
} span;
typedef struct result {
    span array[ARRAYS], clock; /* clocks after the last step; at: NULL without groups */
} result;

/* What is left out of a backward; from NO_KIND on, one bit for each kind of parameter. */
enum { NO_DX = 1, NO_DY = 2, NO_PARAMS = 4, NO_KIND = 8 };

typedef struct manner {
    int strided;         /* x, y, dy and dx with random strides */
    size_t units;        /* stretches of so many checkpoint units at most; 0, two directions, or no
                            weights: one call */
    int visits;          /* units are the shortest that there may be, in place of checkpoint units:
                            sums over steps are then others */
    unsigned without;    /* NO_... */
    size_t dy_begin;     /* dy before this step is NaN */
    const result *start; /* gradients to add to; NULL: overwrite what is there */
    int twice;           /* once more from the same saved; one call only */
    int time_axis;       /* frnn_run.parallel_time, frnn_back.parallel_time */
} manner;

/* ---- Tasks ---------------------------------------------------------------------------------- */

static inline void task_pack(task *t) {
    size_t size = 0;
    CHECK(frnn_packed_back_size(&t->p.net, &size) == FRNN_OK);
    t->packed_back = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_pack_back(&t->p.net, t->p.given, t->packed_back.at, size) == FRNN_OK);
    frame_protect(&t->packed_back, PROT_READ);
}

static inline task task_new(const frnn_config *net, size_t steps, size_t batch, int bias) {
    task t = {.p = problem_new(net, steps, batch, bias)};
    t.dy = random_values(t.p.items, steps * batch * t.p.width, -1, 1);
    for (size_t k = 0; k < 2; k++)
        t.dstate[k] = random_values(t.p.items, state_count(&t.p, batch, k), -1, 1);
    task_pack(&t);
    return t;
}

/* After a change of the weights. They are handed over as they are, which takes doubles. */
static inline void task_pack_doubles(task *t) {
    problem *p = &t->p;
    for (size_t i = 0; i < p->parts; i++) {
        void *at[KINDS];
        for (size_t kind = 0; kind < KINDS; kind++)
            at[kind] = param_count(&p->net, i, kind) > 0 ? p->weights[i][kind] : NULL;
        p->given[i] = weights_of(at, p->mask[i]);
    }
    frame_protect(&p->packed, PROT_READ | PROT_WRITE);
    CHECK(frnn_pack(&p->net, p->given, p->packed.at, p->packed.size) == FRNN_OK);
    frame_protect(&p->packed, PROT_READ);
}

static inline void task_free(const task *t) {
    frame_free(&t->p.packed);
    frame_free(&t->packed_back);
}

/* ---- Arrays --------------------------------------------------------------------------------- */

static inline span span_new(size_t size) {
    return (span){memory(size), size};
}

static inline void grid_fill(const grid *g, const problem *p, size_t begin, const double *from,
                             size_t width) {
    for (size_t i = begin * p->batch; i < p->steps * p->batch; i++)
        put(p->items, grid_at(g, i / p->batch, i % p->batch), from + i * width, width);
}

/* The elements of a grid, which is not written beside them. */
static inline span grid_take(const grid *g, const problem *p, size_t width) {
    const size_t bytes = width * p->items;
    const span s = span_new(p->steps * p->batch * bytes);
    for (size_t i = 0; i < p->steps * p->batch; i++) {
        unsigned char *from = grid_at(g, i / p->batch, i % p->batch);
        memcpy(s.at + i * bytes, from, bytes);
        memset(from, FILL, bytes);
    }
    CHECK(filled(g->f.at, g->f.size));
    frame_free(&g->f);
    return s;
}

static inline frame frame_copy(const frame *from) {
    const frame to = frame_new(from->size, FRNN_ALIGN);
    memcpy(to.at, from->at, from->size);
    return to;
}

static inline void state_take(const problem *p, const frame *state, result *to) {
    for (size_t i = 0; i < p->cell->states; i++) {
        const span s = to->array[STATE + i] = span_new(state_count(p, p->batch, i) * p->items);
        CHECK(frnn_state_get(&p->net, p->batch, state->at, state->size, i, s.at) == FRNN_OK);
    }
    if (p->net.num_groups == 0)
        return;
    unsigned long long *const clock = memory(p->batch * sizeof *clock);
    CHECK(frnn_state_get_clock(&p->net, p->batch, state->at, state->size, clock) == FRNN_OK);
    to->clock = (span){(unsigned char *)clock, p->batch * sizeof *clock};
}

/* An adjoint with these values, which come back unchanged. */
static inline frame adjoint_new(const task *t) {
    const problem *p = &t->p;
    size_t size = 0;
    CHECK(frnn_adjoint_size(&p->net, p->steps, p->batch, &size) == FRNN_OK);
    const frame f = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_adjoint_reset(&p->net, p->steps, p->batch, f.at, size) == FRNN_OK);
    for (size_t i = 0; i < p->cell->states; i++) {
        const size_t count = state_count(p, p->batch, i), bytes = count * p->items;
        void *typed = memory(bytes), *back = memory(bytes);
        put(p->items, typed, t->dstate[i], count);
        CHECK(frnn_adjoint_set(&p->net, p->steps, p->batch, f.at, size, i, typed) == FRNN_OK);
        CHECK(frnn_adjoint_get(&p->net, p->steps, p->batch, f.at, size, i, back) == FRNN_OK);
        CHECK(memcmp(typed, back, bytes) == 0);
    }
    return f;
}

/* Arrays for the gradients of parameters, of any alignment that their elements allow. */
static inline void params_new(const problem *p, manner how, frame *params, frnn_gradients *g) {
    for (size_t i = 0; i < p->parts; i++) {
        void *at[KINDS] = {NULL};
        for (size_t kind = 0; kind < KINDS; kind++) {
            frame *const f = &params[i * KINDS + kind];
            const size_t size = param_count(&p->net, i, kind) * p->items;
            if (size == 0 || how.without & (unsigned)NO_KIND << kind)
                continue;
            *f = frame_new(size, p->items);
            at[kind] = f->at;
            if (how.start != NULL)
                memcpy(f->at, how.start->array[PARAMS + i * KINDS + kind].at, size);
        }
        g[i] = gradients_of(at);
    }
}

static inline void params_take(const problem *p, manner how, const frame *params, result *r) {
    for (size_t i = 0; i < p->parts * KINDS; i++) {
        const frame *const f = &params[i];
        if (f->at == NULL)
            continue;
        if (how.without & NO_PARAMS) {
            CHECK(filled(f->at, f->size));
        } else {
            r->array[PARAMS + i] = span_new(f->size);
            memcpy(r->array[PARAMS + i].at, f->at, f->size);
        }
        frame_free(f);
    }
}

/* ---- Runs ----------------------------------------------------------------------------------- */

/* Steps [begin, end); saved may be NULL. */
static inline void forward(const problem *p, const grid *x, const grid *y, size_t begin, size_t end,
                           const frame *state, const frame *saved, int time_axis) {
    size_t size = 0;
    CHECK(frnn_scratch_size(&p->net, end - begin, p->batch, &size) == FRNN_OK);
    const frame scratch = frame_new(size, FRNN_ALIGN);
    frnn_run run =
        FRNN_RUN(&p->net, end - begin, p->batch, grid_at(x, begin, 0), grid_at(y, begin, 0),
                 state->at, state->size, size > 0 ? scratch.at : NULL, size);
    run.x_step = x->step, run.x_row = x->row, run.y_step = y->step, run.y_row = y->row;
    run.parallel_time = time_axis;
    if (saved != NULL)
        run.saved = saved->at, run.saved_size = saved->size;
    CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &run) == FRNN_OK);
    frame_free(&scratch);
}

/* y and the state, without a thought of training. */
static inline result plain(const problem *p) {
    const grid x = grid_new(p->steps, p->batch, p->net.input_size, p->items, 0);
    const grid y = grid_new(p->steps, p->batch, p->width, p->items, 0);
    const frame state = state_new(p, p->batch, &p->start);
    result r = {0};
    grid_fill(&x, p, 0, p->x, p->net.input_size);
    forward(p, &x, &y, 0, p->steps, &state, NULL, 0);
    r.array[Y] = grid_take(&y, p, p->width);
    state_take(p, &state, &r);
    frame_free(&x.f);
    frame_free(&state);
    return r;
}

/* What a backward call is given beside the task. */
typedef struct back_call {
    const grid *x, *dy, *dx; /* dy and dx may be NULL */
    frame saved, adjoint;
    const frnn_gradients *gradients; /* may be NULL */
} back_call;

static inline void backward(const task *t, manner how, const back_call *c, size_t begin,
                            size_t end) {
    const problem *p = &t->p;
    const size_t steps = end - begin;
    size_t size = 0;
    CHECK(frnn_backward_scratch_size(&p->net, steps, p->batch, &size) == FRNN_OK);
    const frame scratch = frame_new(size, FRNN_ALIGN);
    frnn_back back = FRNN_BACK(&p->net, steps, p->batch, grid_at(c->x, begin, 0), NULL, NULL,
                               c->saved.at, c->saved.size, c->adjoint.at, c->adjoint.size,
                               size > 0 ? scratch.at : NULL, size);
    back.total_steps = p->steps;
    if (!how.strided)
        CHECK(back.x_step == c->x->step && back.x_row == c->x->row &&
              back.dy_step == (ptrdiff_t)(p->batch * p->width) &&
              back.dy_row == (ptrdiff_t)p->width && back.dx_step == back.x_step &&
              back.dx_row == back.x_row);
    back.x_step = c->x->step, back.x_row = c->x->row;
    if (c->dy != NULL)
        back.dy = grid_at(c->dy, begin, 0), back.dy_step = c->dy->step, back.dy_row = c->dy->row;
    if (c->dx != NULL)
        back.dx = grid_at(c->dx, begin, 0), back.dx_step = c->dx->step, back.dx_row = c->dx->row;
    if (how.dy_begin > begin)
        back.dy_begin = how.dy_begin < end ? how.dy_begin - begin : steps;
    back.gradients = c->gradients;
    back.accumulate = how.start != NULL;
    back.parallel_time = how.time_axis;
    CHECK(frnn_backward(&p->net, t->packed_back.at, t->packed_back.size, &back) == FRNN_OK);
    frame_free(&scratch);
}

#define STRETCHES 34 /* at most */

/* The least stretch: as many steps as go side by side in each layer. */
static inline size_t shortest_stretch(const frnn_config *net) {
    size_t unit = 1;
    for (size_t layer = 0; layer < net->num_layers; layer++) {
        const size_t one = unit;
        while (unit % span_of(net, layer) != 0)
            unit += one;
    }
    return unit;
}

/* Where stretches begin and end: cuts[0] = 0 to cuts[count] = steps. All but the first are whole
 * units. */
static inline size_t *cut(const problem *p, manner how, size_t *count) {
    const int whole = p->net.num_directions == 2 || p->cell->gates == 0;
    const size_t units = whole ? 0 : how.units;
    const size_t unit =
        how.visits ? shortest_stretch(&p->net) : frnn_checkpoint_unit(&p->net, p->batch);
    size_t *const cuts = memory((STRETCHES + 1) * sizeof *cuts);
    size_t ends[STRETCHES], n = 0, left = p->steps;
    do {
        const size_t wanted = units == 0 || n == STRETCHES - 1 ? left : unit * (1 + below(units));
        ends[n++] = left;
        left -= wanted < left ? wanted : left;
    } while (left > 0);
    cuts[0] = 0;
    for (size_t i = 1; i <= n; i++)
        cuts[i] = ends[n - i];
    *count = n;
    return cuts;
}

/* y and the state of a forward that saves, and all gradients. */
static inline result train(const task *t, manner how) {
    const problem *p = &t->p;
    const size_t T = p->steps, B = p->batch, I = p->net.input_size;
    const grid x = grid_new(T, B, I, p->items, how.strided);
    const grid y = grid_new(T, B, p->width, p->items, how.strided);
    const grid dy = grid_new(T, B, p->width, p->items, how.strided);
    const grid dx = grid_new(T, B, I, p->items, how.strided);
    grid_fill(&x, p, 0, p->x, I);
    grid_fill(&dy, p, how.dy_begin, t->dy, p->width);
    frame_protect(&x.f, PROT_READ);
    frame_protect(&dy.f, PROT_READ);
    size_t count;
    const size_t *const cuts = cut(p, how, &count);
    frame *const states = memory((count + 1) * sizeof *states); /* before each of the stretches */
    states[0] = state_new(p, B, &p->start);
    for (size_t i = 0; i < count; i++) {
        states[i + 1] = frame_copy(&states[i]);
        if (count > 1)
            forward(p, &x, &y, cuts[i], cuts[i + 1], &states[i + 1], NULL, how.time_axis);
    }
    frame params[PARTS * KINDS] = {{0}};
    frnn_gradients gradients[PARTS];
    params_new(p, how, params, gradients);
    back_call call = {&x, how.without & NO_DY ? NULL : &dy, how.without & NO_DX ? NULL : &dx,
                      .adjoint = adjoint_new(t),
                      .gradients = how.without & NO_PARAMS ? NULL : gradients};
    result r = {0};
    for (size_t i = count; i-- > 0;) {
        size_t size = 0;
        CHECK(frnn_saved_size(&p->net, cuts[i + 1] - cuts[i], B, &size) == FRNN_OK);
        call.saved = frame_new(size, FRNN_ALIGN);
        forward(p, &x, &y, cuts[i], cuts[i + 1], &states[i], &call.saved, how.time_axis);
        frame_protect(&call.saved, PROT_READ);
        if (i == count - 1)
            state_take(p, &states[i], &r);
        const frame before = frame_copy(&call.adjoint);
        backward(t, how, &call, cuts[i], cuts[i + 1]);
        if (how.twice) {
            memcpy(call.adjoint.at, before.at, before.size);
            backward(t, how, &call, cuts[i], cuts[i + 1]);
        }
        frame_free(&before);
        frame_free(&call.saved);
        frame_free(&states[i]);
    }
    frame_free(&states[count]);
    r.array[Y] = grid_take(&y, p, p->width);
    r.array[DX] = grid_take(&dx, p, call.dx == NULL ? 0 : I);
    for (size_t i = 0; i < p->cell->states; i++) {
        const span s = r.array[DSTATE + i] = span_new(r.array[STATE + i].size);
        CHECK(frnn_adjoint_get(&p->net, T, B, call.adjoint.at, call.adjoint.size, i, s.at) ==
              FRNN_OK);
    }
    if (call.dx == NULL)
        r.array[DX].at = NULL;
    params_take(p, how, params, &r);
    frame_free(&call.adjoint);
    frame_free(&x.f);
    frame_free(&dy.f);
    return r;
}

#endif
