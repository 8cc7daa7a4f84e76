/* SPDX-License-Identifier: MIT
 *
 * Time structures of nets against nets without them, or with simpler ones, in every bit of a
 * forward and a backward; and nets with as many delays or groups as there may be.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "train_check.h"

static size_t where_base; /* what is being tested begins so; how it is follows */

static void say(const char *how) {
    snprintf(where + where_base, sizeof where - where_base, ": %s", how);
}

static void say_task(const task *t) {
    where_base = (size_t)say_net(&t->p.net, t->p.steps, t->p.batch, frnn_isa());
}

/* ---- Comparisons ---------------------------------------------------------------------------- */

static void check_span(const span *a, const span *b) {
    if (a->at != NULL && b->at != NULL)
        CHECK(a->size == b->size && memcmp(a->at, b->at, a->size) == 0);
}

/* All that both have, but for clocks; without sums over steps if `params` is 0. */
static void check_same(const result *a, const result *b, int params) {
    for (size_t i = 0; i < (params ? ARRAYS : PARAMS); i++)
        check_span(&a->array[i], &b->array[i]);
}

/* The outputs and the state after all in every bit, gradients but for rounding, relative to the
 * largest of an array or 1. */
static void check_near(const problem *p, const result *a, const result *b) {
    const double terms = (double)(p->steps * p->batch);
    const double rounding = (p->items == 4 ? 1e-5 : 1e-13) * (1 + 0.1 * sqrt(terms));
    for (size_t i = Y; i < ARRAYS; i++) {
        const size_t count = i < DX ? 0 : a->array[i].size / p->items;
        double *const one = memory(count * sizeof *one), *const other = memory(count * sizeof *one);
        double largest = 1;
        size_t wrong = 0;
        if (i < DX)
            check_span(&a->array[i], &b->array[i]);
        get(p->items, one, a->array[i].at, count);
        get(p->items, other, b->array[i].at, count);
        for (size_t j = 0; j < count; j++)
            largest = fmax(largest, fabs(one[j]));
        for (size_t j = 0; j < count; j++)
            wrong += !(fabs(one[j] - other[j]) <= rounding * largest);
        CHECK(wrong == 0);
    }
}

/* Another net with the same weights, input and start. */
static task task_like(const task *t, const frnn_config *net) {
    task other = *t;
    size_t size = 0;
    other.p.net = *net;
    if (net->mask_blocks == 0)
        memset(other.p.mask, 0, sizeof other.p.mask);
    for (size_t i = 0; i < t->p.parts; i++) { /* without what is not read */
        void *typed[KINDS];
        for (size_t kind = 0; kind < KINDS; kind++) {
            const size_t count = param_count(net, i, kind);
            typed[kind] = count > 0 ? memory(count * t->p.items) : NULL;
            put(t->p.items, typed[kind], t->p.weights[i][kind], count);
        }
        other.p.given[i] = weights_of(typed, other.p.mask[i]);
    }
    CHECK(frnn_packed_size(net, &size) == FRNN_OK);
    other.p.packed = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_pack(net, other.p.given, other.p.packed.at, size) == FRNN_OK);
    frame_protect(&other.p.packed, PROT_READ);
    task_pack(&other);
    return other;
}

/* The nets do the same. */
static void check_like(const task *t, const frnn_config *net, int params, const char *what) {
    const task other = task_like(t, net);
    const result a = train(t, (manner){0}), b = train(&other, (manner){0});
    say(what);
    check_same(&a, &b, params);
    task_free(&other);
}

static frnn_config draw_net(frnn_cell cell, frnn_dtype dtype) {
    frnn_config net = FRNN_CONFIG(cell, 1 + below(9), 1 + below(below(2) > 0 ? 40 : 12));
    net.dtype = dtype;
    draw_options(&net);
    net.num_layers = 1 + below(2);
    net.num_directions = 1 + below(2);
    return net;
}

/* ---- What comes to the same ------------------------------------------------------------------ */

/* The delay 1, dilations of 1, and one group that is always active: the net without. */
static void check_trivial(frnn_cell cell, frnn_dtype dtype) {
    const frnn_config plain_net = draw_net(cell, dtype);
    const task t = task_new(&plain_net, 1 + below(20), 1 + below(5), 1);
    say_task(&t);
    frnn_config net = plain_net;
    net.num_delays = net.delays[0] = 1;
    check_like(&t, &net, 1, "delay 1");
    net.num_delays = net.num_layers;
    net.dilated = net.delays[0] = net.delays[1] = 1;
    check_like(&t, &net, 1, "dilations 1");
    net = plain_net;
    if (net.proj_size == 0 && cell != FRNN_CELL_GRU_RESET_BEFORE) {
        task clocked = t;
        clocked.p.start.clock = memory(t.p.batch * sizeof *t.p.start.clock);
        memset(clocked.p.start.clock, 0, t.p.batch * sizeof *t.p.start.clock);
        net.num_groups = net.periods[0] = 1;
        net.group_sizes[0] = net.hidden_size;
        net.full = (int)below(2);
        check_like(&clocked, &net, 0, "one group");
    }
    task_free(&t);
    memory_free();
}

/* A mask: zeros in the dense matrix. Backwards its products are summed in another order. */
static void check_masked(frnn_cell cell, frnn_dtype dtype) {
    frnn_config net = draw_net(cell, dtype);
    if (below(3) > 0)
        draw_delays(&net, 0);
    net.mask_blocks = 1;
    const task t = task_new(&net, 1 + below(20), 1 + below(5), 1);
    say_task(&t);
    const size_t H = net.hidden_size, O = output_size(&net);
    for (size_t i = 0; i < t.p.parts; i++) {
        size_t blocks = 0;
        for (size_t first = 0; first < H; first += 16)
            for (size_t k = 0; k < O; k++) {
                int some = 0;
                for (size_t j = first; j < H && j < first + 16; j++)
                    some |= t.p.mask[i][j * O + k] != 0;
                blocks += (size_t)some;
            }
        CHECK(frnn_mask_blocks(t.p.mask[i], H, O) == blocks && blocks <= t.p.net.mask_blocks);
    }
    const result masked = train(&t, (manner){0});
    net.mask_blocks = 0;
    const task dense = task_like(&t, &net);
    result all = train(&dense, (manner){0});
    for (size_t i = 0; i < t.p.parts * KINDS; i++) /* that has gradients where there are zeros */
        for (size_t j = 0; j < param_count(&net, i / KINDS, i % KINDS); j++)
            if (!connected(&t.p, i / KINDS, i % KINDS, j))
                memset(all.array[PARAMS + i].at + j * t.p.items, 0, t.p.items);
    say("dense with zeros");
    check_near(&t.p, &masked, &all);
    task_free(&dense);
    task_free(&t);
    memory_free();
}

/* Clocks with a mask: clocks with zeros in the matrix. */
static void check_masked_clocks(frnn_cell cell, frnn_dtype dtype) {
    frnn_config net = draw_net(cell, dtype);
    net.proj_size = 0;
    draw_groups(&net);
    net.mask_blocks = 1;
    const task t = task_new(&net, 1 + below(40), 1 + below(5), 1);
    say_task(&t);
    const result masked = train(&t, (manner){0});
    net.mask_blocks = 0;
    const task dense = task_like(&t, &net);
    result all = train(&dense, (manner){0});
    for (size_t i = 0; i < t.p.parts * KINDS; i++)
        for (size_t j = 0; j < param_count(&net, i / KINDS, i % KINDS); j++)
            if (!connected(&t.p, i / KINDS, i % KINDS, j))
                memset(all.array[PARAMS + i].at + j * t.p.items, 0, t.p.items);
    say("clocks with zeros");
    check_same(&masked, &all, 1);
    CHECK(memcmp(masked.clock.at, all.clock.at, all.clock.size) == 0);
    task_free(&dense);
    task_free(&t);
    memory_free();
}

/* A single delay d: d sequences of every d-th step that know nothing of each other. */
static void check_interleaved(frnn_cell cell, frnn_dtype dtype) {
    frnn_config net = draw_net(cell, dtype);
    net.num_layers = net.num_directions = 1;
    const size_t d = 1 + below(9), steps = below(3) > 0 ? 1 + below(40) : below(d + 1);
    net.num_delays = 1;
    net.delays[0] = d;
    const task t = task_new(&net, steps, 1, 1);
    const problem *p = &t.p;
    const size_t I = net.input_size, W = p->width;
    say_task(&t);
    const result all = train(&t, (manner){0});
    net.num_delays = net.delays[0] = 0;
    task lane = task_like(&t, &net);
    for (size_t i = 0; i < d; i++) {
        const size_t n = steps > i ? (steps - i - 1) / d + 1 : 0;
        lane.p.steps = n;
        lane.p.x = memory(n * I * sizeof(double));
        lane.dy = memory(n * W * sizeof(double));
        for (size_t j = 0; j < n; j++) {
            memcpy(lane.p.x + j * I, p->x + (i + j * d) * I, I * sizeof(double));
            memcpy(lane.dy + j * W, t.dy + (i + j * d) * W, W * sizeof(double));
        }
        /* steps [steps, steps + d) read the slots of the state after all */
        const size_t after = (d + i - steps % d) % d;
        for (size_t k = 0; k < p->cell->states; k++) {
            const size_t w = state_width(&net, k);
            lane.p.start.state[k] = p->start.state[k] + i * w;
            lane.dstate[k] = t.dstate[k] + after * w;
        }
        say("one lane");
        const result one = train(&lane, (manner){0});
        for (size_t j = 0; j < n; j++) {
            const size_t at = i + j * d, y = W * p->items, dx = I * p->items;
            CHECK(memcmp(one.array[Y].at + j * y, all.array[Y].at + at * y, y) == 0);
            CHECK(memcmp(one.array[DX].at + j * dx, all.array[DX].at + at * dx, dx) == 0);
        }
        for (size_t k = 0; k < p->cell->states; k++) {
            const size_t w = state_width(&net, k) * p->items;
            const span *const s = &one.array[STATE + k], *const ds = &one.array[DSTATE + k];
            CHECK(memcmp(s->at, all.array[STATE + k].at + after * w, w) == 0);
            CHECK(memcmp(ds->at, all.array[DSTATE + k].at + i * w, w) == 0);
        }
    }
    task_free(&lane);
    task_free(&t);
    memory_free();
}

/* A dilated stack: nets of one layer, one after the other. */
static void check_stack(frnn_cell cell, frnn_dtype dtype) {
    frnn_config net = draw_net(cell, dtype);
    net.num_directions = 1;
    net.num_layers = net.num_delays = 2 + below(PARTS - 1);
    net.dilated = 1;
    net.mask_blocks = cell != FRNN_CELL_MINGRU && below(3) == 0;
    for (size_t i = 0; i < net.num_layers; i++)
        net.delays[i] = below(2) > 0 ? (size_t)1 << i : 1 + below(20);
    const task t = task_new(&net, 1 + below(40), 1 + below(5), 1);
    const problem *p = &t.p;
    say_task(&t);
    const result all = plain(p);
    const double *x = p->x;
    size_t slots[2] = {0, 0};
    span y = {0};
    for (size_t layer = 0; layer < net.num_layers; layer++) {
        frnn_config one = p->net;
        size_t size = 0;
        one.input_size = part_input(&net, layer);
        one.num_layers = one.num_delays = 1;
        one.delays[0] = net.delays[layer];
        one.dilated = (int)below(2);
        problem q = *p;
        q.net = one, q.parts = 1;
        q.x = memory(p->steps * p->batch * one.input_size * sizeof(double));
        memcpy(q.x, x, p->steps * p->batch * one.input_size * sizeof(double));
        for (size_t k = 0; k < 2; k++)
            q.start.state[k] = p->start.state[k] + slots[k] * p->batch * state_width(&net, k);
        CHECK(frnn_packed_size(&one, &size) == FRNN_OK);
        q.packed = frame_new(size, FRNN_ALIGN);
        CHECK(frnn_pack(&one, &p->given[layer], q.packed.at, size) == FRNN_OK);
        say("one layer");
        const result r = plain(&q);
        for (size_t k = 0; k < p->cell->states; k++) {
            const size_t row = p->batch * state_width(&net, k) * p->items;
            CHECK(memcmp(r.array[STATE + k].at, all.array[STATE + k].at + slots[k] * row,
                         r.array[STATE + k].size) == 0);
            slots[k] += net.delays[layer];
        }
        y = r.array[Y];
        double *const next = memory(y.size / p->items * sizeof(double));
        get(p->items, next, y.at, y.size / p->items);
        x = next;
        frame_free(&q.packed);
    }
    check_span(&y, &all.array[Y]);
    task_free(&t);
    memory_free();
}

/* Units keep what they gave where their clock, in either direction, says so. */
static void check_rests(frnn_cell cell, frnn_dtype dtype) {
    frnn_config net = draw_net(cell, dtype);
    net.proj_size = 0;
    net.num_layers = 1;
    draw_groups(&net);
    const task t = task_new(&net, 2 + below(40), 1 + below(5), 1);
    const problem *p = &t.p;
    say_task(&t);
    say("rests");
    const result r = plain(p);
    const size_t H = net.hidden_size;
    size_t wrong = 0;
    for (size_t i = p->batch; i < p->steps * p->batch; i++)
        for (size_t j = 0; j < p->width; j++) {
            const size_t b = i % p->batch, s = i / p->batch;
            const int reverse = j >= H;
            const unsigned long long clock =
                p->start.clock[b] + (reverse ? p->steps - s : s); /* of the later of two steps */
            const unsigned char *const at = r.array[Y].at + (i * p->width + j) * p->items;
            wrong += clock % period_of(&net, j % H) != 0 &&
                     memcmp(at, at - p->batch * p->width * p->items, p->items) != 0;
        }
    CHECK(wrong == 0);
    task_free(&t);
    memory_free();
}

/* Steps [begin, end) of all rows, which are told that they do every step. */
static void forward_lengths(const problem *p, const grid *x, const grid *y, size_t begin,
                            size_t end, const frame *state) {
    size_t size = 0, *const lengths = memory(p->batch * sizeof *lengths);
    for (size_t b = 0; b < p->batch; b++)
        lengths[b] = end - begin;
    CHECK(frnn_ragged_scratch_size(&p->net, end - begin, p->batch, &size) == FRNN_OK);
    const frame scratch = frame_new(size, FRNN_ALIGN);
    frnn_run run = FRNN_RUN(&p->net, end - begin, p->batch, grid_at(x, begin, 0),
                            grid_at(y, begin, 0), state->at, state->size, scratch.at, size);
    run.lengths = lengths;
    CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &run) == FRNN_OK);
    frame_free(&scratch);
}

/* Sums that a state keeps of resting groups are never those of another state, of other weights or
 * of other calls. */
static void check_kept(frnn_cell cell, frnn_dtype dtype) {
    frnn_config net = draw_net(cell, dtype);
    net.proj_size = 0;
    net.num_directions = 1;
    draw_groups(&net);
    const task t = task_new(&net, 2 + below(30), 1 + below(4), 1);
    const problem *p = &t.p;
    const size_t T = p->steps, first = below(T + 1), second = first + below(T - first + 1);
    for (size_t b = 1; b < p->batch; b++) /* rows that go together */
        p->start.clock[b] = p->start.clock[0];
    say_task(&t);
    const result all = plain(p);
    const grid x = grid_new(T, p->batch, net.input_size, p->items, 0);
    grid y = grid_new(T, p->batch, p->width, p->items, 0);
    grid_fill(&x, p, 0, p->x, net.input_size);
    const frame state = state_new(p, p->batch, &p->start);
    result r = {0};
    say("row by row between");
    forward(p, &x, &y, 0, first, &state, NULL, 0);
    forward_lengths(p, &x, &y, first, second, &state);
    forward(p, &x, &y, second, T, &state, NULL, 0);
    state_take(p, &state, &r);
    r.array[Y] = grid_take(&y, p, p->width);
    check_same(&all, &r, 0);

    for (int what = 0; what < 2; what++) { /* the clocks go back alone, then h and c alone */
        problem like = *p;
        for (size_t k = 0; k < p->cell->states && what == 0; k++) {
            like.start.state[k] = memory(state_count(p, p->batch, k) * sizeof(double));
            get(p->items, like.start.state[k], r.array[STATE + k].at, state_count(p, p->batch, k));
        }
        like.start.clock = memory(r.clock.size);
        memcpy(like.start.clock, r.clock.at, r.clock.size);
        for (size_t b = 0; b < p->batch && what == 0; b++)
            like.start.clock[b] = p->start.clock[0] / 2;
        say(what == 0 ? "other clocks" : "another state");
        const result expected = plain(&like);
        if (what == 0)
            CHECK(frnn_state_set_clock(&net, p->batch, state.at, state.size, like.start.clock) ==
                  FRNN_OK);
        for (size_t k = 0; k < p->cell->states && what == 1; k++) {
            void *const typed = memory(state_count(p, p->batch, k) * p->items);
            put(p->items, typed, p->start.state[k], state_count(p, p->batch, k));
            CHECK(frnn_state_set(&net, p->batch, state.at, state.size, k, typed) == FRNN_OK);
        }
        y = grid_new(T, p->batch, p->width, p->items, 0);
        forward(p, &x, &y, 0, T, &state, NULL, 0);
        state_take(p, &state, &r);
        r.array[Y] = grid_take(&y, p, p->width);
        check_same(&expected, &r, 0);
    }

    say("other weights");
    task other = task_new(&net, T, p->batch, 1);
    for (size_t k = 0; k < p->cell->states; k++)
        get(p->items, other.p.start.state[k], r.array[STATE + k].at, state_count(p, p->batch, k));
    memcpy(other.p.start.clock, r.clock.at, r.clock.size);
    const result changed = plain(&other.p);
    grid_fill(&x, &other.p, 0, other.p.x, net.input_size);
    y = grid_new(T, p->batch, p->width, p->items, 0);
    forward(&other.p, &x, &y, 0, T, &state, NULL, 0);
    r.array[Y] = grid_take(&y, p, p->width);
    state_take(p, &state, &r);
    check_same(&changed, &r, 0);
    frame_free(&state);
    frame_free(&x.f);
    task_free(&other);
    task_free(&t);
    memory_free();
}

/* ---- As many as there may be ------------------------------------------------------------------
 */

/* One call and stretches of a net at the limits. */
static void check_pieces(const frnn_config *net, size_t steps, size_t batch) {
    const task t = task_new(net, steps, batch, 1);
    say_task(&t);
    const result all = train(&t, (manner){0}), forward_only = plain(&t.p);
    check_same(&all, &forward_only, 0);
    if (net->num_groups == 0) { /* whose scratch is not large */
        const result cut_often = train(&t, (manner){.units = 1, .visits = 1, .strided = 1});
        say("short stretches");
        check_same(&all, &cut_often, 0);
    }
    const result cut_rarely = train(&t, (manner){.units = 1});
    say("stretches");
    check_same(&all, &cut_rarely, 1);
    task_free(&t);
    memory_free();
}

static void check_limits(frnn_cell cell, frnn_dtype dtype) {
    frnn_config net = FRNN_CONFIG(cell, 3, 70);
    net.dtype = dtype;
    if (cell != FRNN_CELL_GRU_RESET_BEFORE) {
        net.num_groups = FRNN_MAX_GROUPS;
        for (size_t i = 0; i < FRNN_MAX_GROUPS; i++) {
            net.group_sizes[i] = i < 70 - FRNN_MAX_GROUPS ? 2 : 1;
            net.periods[i] = i % 2 > 0 ? 1 + below(20) : i + 1;
        }
        net.full = (int)below(2);
        check_pieces(&net, 70, 2);
    }
    net = (frnn_config)FRNN_CONFIG(cell, 3, 5);
    net.dtype = dtype;
    net.num_delays = cell == FRNN_CELL_MINGRU ? 1 : FRNN_MAX_DELAYS;
    for (size_t i = 0; i < net.num_delays; i++)
        net.delays[i] = 3 * (i + 1);
    check_pieces(&net, 100, 1 + below(2));
    net.delays[0]--;
    check_pieces(&net, 100, 1 + below(2));
    net.num_delays = 1; /* far longer than the sequence */
    net.delays[0] = 300;
    check_pieces(&net, 1 + below(70), 1);
}

int main(void) {
    prepare();
    for (size_t i = 0; frnn_isa_available(i) != NULL; i++) {
        CHECK(frnn_isa_set(frnn_isa_available(i)) == FRNN_OK);
        for (int n = 0; n < 2 * FRNN_CELL_LEAKY; n++) {
            const frnn_cell cell = (frnn_cell)(n / 2);
            const frnn_dtype dtype = (frnn_dtype)(n % 2);
            for (int round = 0; round < 4 / NETS_PART; round++) {
                check_trivial(cell, dtype);
                check_interleaved(cell, dtype);
                check_stack(cell, dtype);
                if (cell != FRNN_CELL_MINGRU)
                    check_masked(cell, dtype);
                if (cell != FRNN_CELL_GRU_RESET_BEFORE) {
                    check_rests(cell, dtype);
                    check_kept(cell, dtype);
                }
                if (cell != FRNN_CELL_MINGRU && cell != FRNN_CELL_GRU_RESET_BEFORE)
                    check_masked_clocks(cell, dtype);
            }
            if ((i + (size_t)cell + (size_t)dtype) % (2 * NETS_PART) == 0)
                check_limits(cell, dtype);
        }
    }
    return report();
}
