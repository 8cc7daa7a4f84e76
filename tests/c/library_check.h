/* SPDX-License-Identifier: MIT
 *
 * Random nets with their weights, masks, input, state and clocks.
 */
#ifndef FRNN_LIBRARY_CHECK_H
#define FRNN_LIBRARY_CHECK_H

#include "net_check.h"

/* ---- Problems: every number as a double that the dtype of the net holds exactly ------------- */

typedef struct values {
    double *y, *state[2];      /* [T, B, D * P] and [state_slots(), B, state_width()] */
    unsigned long long *clock; /* [B]; NULL without groups */
} values;

typedef struct problem {
    frnn_config net;
    const frnn_cell_info *cell;
    size_t steps, batch, items, width, parts; /* items: bytes of an element; width: of y */
    double *x, *weights[PARTS][KINDS];
    unsigned char *mask[PARTS]; /* NULL without one */
    values start;               /* y is not used */
    frnn_weights given[PARTS];
    frame packed;
} problem;

static inline void put(size_t items, void *to, const double *from, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const float single = (float)from[i];
        memcpy((char *)to + i * items, items == 4 ? (const void *)&single : &from[i], items);
    }
}

static inline void get(size_t items, double *to, const void *from, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float single = 0;
        memcpy(items == 4 ? (void *)&single : &to[i], (const char *)from + i * items, items);
        to[i] = items == 4 ? (double)single : to[i];
    }
}

static inline double *random_values(size_t items, size_t count, double low, double high) {
    double *to = memory(count * sizeof *to);
    for (size_t i = 0; i < count; i++) {
        to[i] = low + (high - low) * (double)random_bits() / 9007199254740992.0;
        to[i] = items == 4 ? (double)(float)to[i] : to[i];
    }
    return to;
}

/* Elements of a state array. */
static inline size_t state_count(const problem *p, size_t batch, size_t index) {
    return state_slots(&p->net, index) * batch * state_width(&p->net, index);
}

/* Single connections, or those of 16 units together; perhaps one of a unit, perhaps none. */
static inline unsigned char *draw_mask(const frnn_config *net) {
    const size_t H = net->hidden_size, O = output_size(net), rows = below(2) > 0 ? 16 : 1;
    const size_t rarity = 1 + below(6), none = below(10) == 0;
    unsigned char *const mask = memory(H * O);
    if (below(3) == 0) {
        memset(mask, 0, H * O);
        for (size_t i = 0; i < H && !none; i++)
            mask[i * O + below(O)] = 1;
        return mask;
    }
    for (size_t i = 0; i < H; i += rows)
        for (size_t k = 0; k < O; k++) {
            const int there = !none && below(rarity) == 0;
            for (size_t j = i; j < i + rows && j < H; j++)
                mask[j * O + k] = there ? (unsigned char)(1 + below(255)) : 0;
        }
    return mask;
}

static inline void draw_masks(problem *p) {
    size_t most = 1;
    for (size_t i = 0; i < p->parts; i++) {
        p->mask[i] = draw_mask(&p->net);
        const size_t blocks =
            frnn_mask_blocks(p->mask[i], p->net.hidden_size, output_size(&p->net));
        most = blocks > most ? blocks : most;
    }
    p->net.mask_blocks = most + below(2) * below(5);
}

/* Whether an element of a parameter is one; those of recurrent matrices may lack a connection. */
static inline int connected(const problem *p, size_t part, size_t kind, size_t i) {
    const size_t H = p->net.hidden_size, O = output_size(&p->net), unit = i / O % H, k = i % O;
    if (kind != WEIGHT_HH && kind < DELAYED)
        return 1;
    return clocks_connect(&p->net, unit, k) &&
           (p->mask[part] == NULL || p->mask[part][unit * O + k] != 0);
}

/* What the library is given has NaN where there is no connection: it is not read. But clocks with a
 * mask want zeros there. */
static inline void cut_connections(const problem *p, size_t part, size_t kind, void *typed) {
    const double hole = p->net.num_groups > 0 && p->mask[part] != NULL ? 0 : NAN;
    for (size_t i = 0; i < param_count(&p->net, part, kind); i++)
        if (!connected(p, part, kind, i)) {
            p->weights[part][kind][i] = 0;
            put(p->items, (char *)typed + i * p->items, &hole, 1);
        }
}

/* Clocks that are equal or not, some of them large. */
static inline void draw_clocks(problem *p) {
    const size_t how = below(5);
    const unsigned long long first = how == 0 ? 0 : how == 1 ? 1ull << below(62) : below(100);
    p->start.clock = memory(p->batch * sizeof *p->start.clock);
    for (size_t b = 0; b < p->batch; b++)
        p->start.clock[b] = first + (how == 4 ? below(50) : 0);
}

static inline problem problem_new(const frnn_config *net, size_t steps, size_t batch, int bias) {
    problem p = {.net = *net, .cell = frnn_cell_get(net->cell), .steps = steps, .batch = batch};
    const size_t H = net->hidden_size, items = p.items = net->dtype == FRNN_F32 ? 4 : 8;
    const double scale = 0.7 / sqrt((double)H), shift = bias ? 0.5 : 0;
    const double recurrent = scale / (double)delay_count(net);
    const double limits[DELAYED] = {scale, recurrent, shift, shift, 1, scale, 0.5};
    p.width = net->num_directions * output_size(net);
    p.parts = net->num_layers * net->num_directions;
    if (net->mask_blocks > 0)
        draw_masks(&p);
    for (size_t i = 0; i < p.parts; i++) {
        void *typed[KINDS];
        for (size_t kind = 0; kind < KINDS; kind++) {
            const size_t count = param_count(net, i, kind);
            const double limit = limits[kind < DELAYED ? kind : WEIGHT_HH];
            p.weights[i][kind] = random_values(items, count, kind == ALPHA ? 0 : -limit, limit);
            typed[kind] = count > 0 ? memory(count * items) : NULL;
            if (kind == ALPHA && count > 1)
                p.weights[i][kind][0] = 0; /* a unit without a past */
            put(items, typed[kind], p.weights[i][kind], count);
            cut_connections(&p, i, kind, typed[kind]);
            if (!bias && (kind == BIAS_IH || kind == BIAS_HH))
                typed[kind] = NULL;
        }
        p.given[i] = weights_of(typed, p.mask[i]);
    }
    p.x = random_values(items, steps * batch * net->input_size, -1, 1);
    for (size_t k = 0; k < 2; k++)
        p.start.state[k] = random_values(items, state_count(&p, batch, k), -1, 1);
    if (net->num_groups > 0)
        draw_clocks(&p);
    size_t size = 0;
    CHECK(frnn_packed_size(&p.net, &size) == FRNN_OK);
    p.packed = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_pack(&p.net, p.given, p.packed.at, size) == FRNN_OK);
    frame_protect(&p.packed, PROT_READ);
    return p;
}

/* A state with these values, which come back unchanged. */
static inline frame state_new(const problem *p, size_t batch, const values *v) {
    size_t size = 0;
    CHECK(frnn_state_size(&p->net, batch, &size) == FRNN_OK);
    const frame state = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_state_reset(&p->net, batch, state.at, size) == FRNN_OK);
    for (size_t i = 0; i < p->cell->states; i++) {
        const size_t count = state_count(p, batch, i);
        void *typed = memory(count * p->items), *back = memory(count * p->items);
        put(p->items, typed, v->state[i], count);
        CHECK(frnn_state_set(&p->net, batch, state.at, size, i, typed) == FRNN_OK);
        CHECK(frnn_state_get(&p->net, batch, state.at, size, i, back) == FRNN_OK);
        CHECK(memcmp(typed, back, count * p->items) == 0);
    }
    if (v->clock != NULL && p->net.num_groups > 0) {
        unsigned long long *const back = memory(batch * sizeof *back);
        CHECK(frnn_state_set_clock(&p->net, batch, state.at, size, v->clock) == FRNN_OK);
        CHECK(frnn_state_get_clock(&p->net, batch, state.at, size, back) == FRNN_OK);
        CHECK(memcmp(v->clock, back, batch * sizeof *back) == 0);
    }
    return state;
}

#endif
