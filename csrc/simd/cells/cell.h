/* SPDX-License-Identifier: MIT
 *
 * What all cells share: the order of work in a step, and where the values of 16 units lie.
 *
 * A cell file gives <cell>_units(), the point-wise part for the 16 units of one block of one row,
 * and names it in FRNN_DEFINE_STEP. The work is done group by group: when the product of a group of
 * blocks is complete for all rows, its cells run while the gates are still in L1.
 */

/* The arrays of one row and block; each holds 16 values (gates: 16 per gate). */
typedef struct units {
    real *gates; /* in: pre-activations */
    const real *h_prev, *c_prev;
    real *h, *c;
    const real *alpha;
} units;

typedef void (*units_function)(const units *u, frnn_activation activation);

INLINE units units_at(const int gates, const frnn_step *s, size_t row, size_t block) {
    const size_t at = row * s->ld + block * FRNN_BLOCK;
    units u = {
        .gates = (real *)s->gates + (row * s->blocks + block) * (size_t)gates * FRNN_BLOCK,
        .h_prev = (const real *)s->h_prev + at,
        .h = (real *)s->h + at,
    };
    if (s->c != NULL) {
        u.c_prev = (const real *)s->c_prev + at;
        u.c = (real *)s->c + at;
    }
    if (s->alpha != NULL)
        u.alpha = (const real *)s->alpha + block * FRNN_BLOCK;
    return u;
}

/* h of one block to the caller's array, which ends at hidden_size. */
INLINE void units_output(const frnn_step *s, size_t row, size_t block, const real *h) {
    const size_t at = block * FRNN_BLOCK, count = frnn_min(s->hidden_size - at, FRNN_BLOCK);
    real *y = (real *)s->y + (ptrdiff_t)row * s->y_row + at;
    if (count == FRNN_BLOCK) {
        for (int i = 0; i < FRNN_BLOCK; i += VL)
            vstore(y + i, vload(h + i));
        return;
    }
    for (size_t i = 0; i < count; i += VL)
        vstore_n(y + i, vload(h + i), frnn_min(VL, count - i));
}

INLINE vreal activate(frnn_activation activation, vreal x) {
    switch (activation) {
    case FRNN_TANH:
        return vtanh(x);
    case FRNN_RELU:
        return vmax(vzero(), x); /* x where x is NaN */
    default:
        return x;
    }
}

INLINE void step_groups(const int gates, const frnn_step *s, units_function function,
                        void (*recur)(const frnn_step *s, size_t block, size_t panels)) {
    size_t begin = s->block_begin, end = s->block_end;
    while (begin < end) {
        const size_t panels =
            group_panels(gates, s->row_end - s->row_begin, (end - begin) * (size_t)gates);
        const size_t blocks = panels / (size_t)gates;
        const size_t first = s->backwards ? end - blocks : begin;
        recur(s, first, panels);
        for (size_t row = s->row_begin; row < s->row_end; row++)
            for (size_t block = first; block < first + blocks; block++) {
                const units u = units_at(gates, s, row, block);
                function(&u, s->activation);
                units_output(s, row, block, u.h);
            }
        if (s->backwards)
            end -= blocks;
        else
            begin += blocks;
    }
}

/* The product is shared by the cells of one number of gates, so it is not inlined into each. */
static void recur_1(const frnn_step *s, size_t block, size_t panels) {
    recur_group(1, s, block, panels);
}

static void recur_4(const frnn_step *s, size_t block, size_t panels) {
    recur_group(4, s, block, panels);
}

#define FRNN_DEFINE_STEP(name, gates)                                                              \
    static void name##_step(const frnn_step *s) {                                                  \
        step_groups(gates, s, name##_units, recur_##gates);                                        \
    }
