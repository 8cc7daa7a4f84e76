/* SPDX-License-Identifier: MIT
 *
 * What all cells share on the way back: the order of work in a step, where the values of 16 units
 * lie, and h once more from what was saved.
 *
 * A cell file gives, next to its forward, two functions for one block of one row:
 *
 *     <cell>_hidden(u, activation, save)   h from the saved gates and c: its output function, if
 *                                          it has one
 *     <cell>_back(u, initial)              from dh and dy to dz; with `initial` only the gradient
 *                                          of the state before the first step
 */

/* The arrays of one row and block, each of 16 values; of dy and dz only `count` are there. */
typedef struct units_back {
    frnn_activation activation;
    size_t count;
    const real *gates; /* as saved, 16 per gate */
    const real *c, *c_prev;
    const real *alpha;
    const real *dh, *dy; /* dy may be NULL */
    real *carry, *dalpha;
    real *dz; /* gates lie hidden_size apart */
    size_t dz_gate;
} units_back;

typedef void (*units_back_function)(const units_back *u, const int initial);

/* What arrives at h: from later steps, and from outside. */
INLINE vreal arriving(const units_back *u, int j) {
    const vreal dh = vload(u->dh + j);
    if (u->dy == NULL || (size_t)j >= u->count)
        return dh;
    return vadd(dh, vload_n(u->dy + j, frnn_min(VL, u->count - (size_t)j)));
}

/* Values that fade with distance are zeroed before they become subnormal, as in the forward. */
INLINE void leave(const units_back *u, int gate, int j, vreal value) {
    if ((size_t)j < u->count)
        vstore_n(u->dz + (size_t)gate * u->dz_gate + j, vflush(value),
                 frnn_min(VL, u->count - (size_t)j));
}

/* f'(z), given f(z). */
INLINE vreal slope(frnn_activation activation, vreal value) {
    switch (activation) {
    case FRNN_TANH:
        return vfnma(value, value, vset1(1));
    case FRNN_RELU:
        return vselect_lt(vzero(), value, vset1(1), vzero());
    default:
        return vset1(1);
    }
}

/* The product of a step for a group of panels that starts at `block`: complete dh. */
INLINE void recur_group_back(const int gates, const frnn_step_back *s, size_t block,
                             size_t panels) {
    const product_back p = {
        .rows = s->row_end - s->row_begin,
        .k = s->hidden_size,
        .a = (const real *)s->dz_next + s->row_begin * s->dz_row,
        .a_row = (ptrdiff_t)s->dz_row,
        .w = (const real *)s->w_hh + block * s->hidden_size * FRNN_BLOCK,
        .w_gate = ((s->hidden_size - 1) / FRNN_BLOCK + 1) * s->hidden_size * FRNN_BLOCK,
        .out = (real *)s->dh + s->row_begin * s->ld + block * FRNN_BLOCK,
        .out_row = (ptrdiff_t)s->ld,
        .partial = (real *)s->partial + s->row_begin * FRNN_PARTIAL,
    };
    product_group_back(gates, &p, panels);
}

static void recur_back_1(const frnn_step_back *s, size_t block, size_t panels) {
    recur_group_back(1, s, block, panels);
}

static void recur_back_4(const frnn_step_back *s, size_t block, size_t panels) {
    recur_group_back(4, s, block, panels);
}

INLINE void step_units_back(const int gates, const frnn_step_back *s, size_t first, size_t last,
                            units_back_function function, const int initial) {
    for (size_t row = s->row_begin; row < s->row_end; row++)
        for (size_t block = first; block < last; block++) {
            const size_t unit = block * FRNN_BLOCK, at = row * s->ld + unit;
            units_back u = {
                .activation = s->activation,
                .count = frnn_min(s->hidden_size - unit, FRNN_BLOCK),
                .dh = (const real *)s->dh + at,
                .dz_gate = s->hidden_size,
            };
            if (!initial) {
                u.gates = (const real *)s->gates + row * s->gates_row + unit * (size_t)gates;
                u.dz = (real *)s->dz + row * s->dz_row + unit;
            }
            if (s->c_prev != NULL)
                u.c_prev = (const real *)s->c_prev + at;
            if (s->c != NULL)
                u.c = (const real *)s->c + at;
            if (s->dy != NULL)
                u.dy = (const real *)s->dy + (ptrdiff_t)row * s->dy_row + unit;
            if (s->carry != NULL)
                u.carry = (real *)s->carry + at;
            if (s->alpha != NULL)
                u.alpha = (const real *)s->alpha + unit;
            if (s->dalpha != NULL)
                u.dalpha = (real *)s->dalpha + at;
            function(&u, initial);
        }
}

INLINE void step_groups_back(const int gates, const frnn_step_back *s, units_back_function function,
                             void (*recur)(const frnn_step_back *s, size_t block, size_t panels)) {
    size_t begin = s->block_begin, end = s->block_end;
    while (begin < end) {
        const size_t blocks =
            group_back(s->row_end - s->row_begin, (s->hidden_size - 1) / FRNN_BLOCK + 1, begin, end,
                       s->backwards);
        const size_t first = s->backwards ? end - blocks : begin;
        if (s->dz_next != NULL)
            recur(s, first, blocks);
        if (s->dz != NULL)
            step_units_back(gates, s, first, first + blocks, function, 0);
        else
            step_units_back(gates, s, first, first + blocks, function, 1);
        if (s->backwards)
            end -= blocks;
        else
            begin += blocks;
    }
}

INLINE void hidden_units(const int gates, const frnn_hidden *s, units_function function) {
    for (size_t row = 0; row < s->rows; row++)
        for (size_t block = 0; block < s->blocks; block++) {
            const ptrdiff_t at = (ptrdiff_t)(block * FRNN_BLOCK), r = (ptrdiff_t)row;
            units u = {
                /* the cast is safe: output functions only read them */
                .gates = (real *)(uintptr_t)s->gates + r * s->gates_row + at * gates,
                .h = (real *)s->h + r * s->h_row + at,
            };
            if (s->c != NULL)
                u.c = (real *)(uintptr_t)s->c + r * s->c_row + at;
            function(&u, s->activation, 0);
        }
}

#define FRNN_DEFINE_BACK(name, gates, hidden_function, back_function)                              \
    static void name##_hidden_rows(const frnn_hidden *s) {                                         \
        hidden_units(gates, s, hidden_function);                                                   \
    }                                                                                              \
    static void name##_step_back(const frnn_step_back *s) {                                        \
        step_groups_back(gates, s, back_function, recur_back_##gates);                             \
    }
