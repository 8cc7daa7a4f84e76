/* SPDX-License-Identifier: MIT
 *
 * What all cells share: the order of work in a step, and where the values of 16 units lie.
 *
 * A cell file gives the point-wise part for the 16 units of one block of one row, in two functions
 * that run one after the other over all rows and blocks of a group, and names them in
 * FRNN_DEFINE_STEP:
 *
 *     <cell>_state(u, activation, save)    from the gates to c, or to h where there is no c; with
 *                                          `save` leaves in the gates what the backward needs
 *     <cell>_output(u, activation, save)   from c to h, if the cell has a c
 *
 * Two, because both end in long chains of dependent operations: units that wait for the first are
 * worked on side by side. The work is done group by group: when the product of a group of
 * blocks is complete for all rows, its cells run while the gates are still in L1.
 */

/* The arrays of one row and block; each holds 16 values (gates: 16 per gate). */
typedef struct units {
    real *gates; /* in: pre-activations */
    const real *h_prev, *c_prev;
    real *h, *c;
    const real *alpha;
} units;

typedef void (*units_function)(const units *u, frnn_activation activation, const int save);

INLINE units units_at(const int gates, const frnn_step *s, size_t row, size_t block) {
    const size_t at = row * s->ld + block * FRNN_BLOCK;
    units u = {
        .gates = (real *)s->gates + row * s->gates_row + block * (size_t)gates * FRNN_BLOCK,
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

/* A function over the rows of a step and the blocks [first, last). */
INLINE void step_units(const int gates, const frnn_step *s, size_t first, size_t last,
                       units_function function, const int output, const int save) {
    for (size_t row = s->row_begin; row < s->row_end; row++)
        for (size_t block = first; block < last; block++) {
            const units u = units_at(gates, s, row, block);
            function(&u, s->activation, save);
            if (output)
                units_output(s, row, block, u.h);
        }
}

/* The input part of the gates, for the few inputs that are not projected beforehand. */
INLINE void step_input(const int gates, const frnn_step *s, size_t first, size_t last) {
    const size_t width = (size_t)gates * FRNN_BLOCK;
    for (size_t row = s->row_begin; row < s->row_end; row++) {
        const real *x = (const real *)s->x + (ptrdiff_t)row * s->x_row;
        for (size_t block = first; block < last; block++) {
            const real *bias = (const real *)s->bias + block * width;
            const real *w = (const real *)s->w_ih + block * s->input_size * width;
            real *out = (real *)s->gates + row * s->gates_row + block * width;
            UNROLL for (int v = 0; v < gates * FRNN_BLOCK; v += VL) {
                vreal sum = vload(bias + v);
                for (size_t i = 0; i < s->input_size; i++)
                    sum = vfma(vset1(x[i]), vload(w + i * width + v), sum);
                vstore(out + v, sum);
            }
        }
    }
}

INLINE void step_groups(const int gates, const frnn_step *s, units_function state,
                        units_function output, const int save,
                        void (*recur)(const frnn_step *s, size_t block, size_t panels)) {
    size_t begin = s->block_begin, end = s->block_end;
    while (begin < end) {
        const size_t panels =
            group_panels(gates, s->row_end - s->row_begin, (end - begin) * (size_t)gates);
        const size_t blocks = panels / (size_t)gates;
        const size_t first = s->backwards ? end - blocks : begin;
        if (s->x != NULL)
            step_input(gates, s, first, first + blocks);
        recur(s, first, panels);
        step_units(gates, s, first, first + blocks, state, output == NULL, save);
        if (output != NULL)
            step_units(gates, s, first, first + blocks, output, 1, save);
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

#define FRNN_DEFINE_STEP(name, gates, state, output)                                               \
    static void name##_step(const frnn_step *s) {                                                  \
        if (s->save)                                                                               \
            step_groups(gates, s, state, output, 1, recur_##gates);                                \
        else                                                                                       \
            step_groups(gates, s, state, output, 0, recur_##gates);                                \
    }
