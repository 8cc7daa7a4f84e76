/* SPDX-License-Identifier: MIT
 *
 * What all cells share: the order of work in a step, and where the values of 16 units lie.
 *
 * A cell file gives the point-wise part for the 16 units of one block of one row, in two functions
 * that run one after the other over all rows and blocks of a group, and names them in
 * FRNN_DEFINE_STEP:
 *
 *     <cell>_state(u, net, plain, save)    from the gates to c, or to h where there is no c; with
 *                                          `save` leaves in the gates what the backward needs
 *     <cell>_output(u, net, plain, save)   from c to h, if the cell has a c
 *
 * Two, because both end in long chains of dependent operations: units that wait for the first are
 * worked on side by side. The work is done group by group: when the product of a group of
 * blocks is complete for all rows, its cells run while the gates are still in L1.
 *
 * `plain` and `save` are constants: `plain` says that all activations are the default ones and that
 * there are no limits and no peephole, so that nothing is asked of `net`.
 */

/* The arrays of one row and block; each holds 16 values (gates: 16 per slot). */
typedef struct units {
    real *gates; /* in: pre-activations */
    const real *h_prev, *c_prev;
    real *h, *c, *reset_h;
    const real *vectors; /* vector_size elements apart */
    size_t vector_size;
} units;

typedef void (*units_function)(const units *u, const frnn_config *net, const int plain,
                               const int save);

INLINE vreal gate_value(const frnn_config *net, const int plain, vreal x) {
    return plain ? vsigmoid(x) : activate(&net->gate_activation, bounded(net->clip, x));
}

INLINE vreal cell_value(const frnn_config *net, const int plain, vreal x) {
    return plain ? vtanh(x) : activate(&net->activation, bounded(net->clip, x));
}

INLINE units units_at(const int slots, const frnn_step *s, size_t row, size_t block) {
    const size_t unit = block * FRNN_BLOCK, at = row * s->ld + unit;
    units u = {
        .gates = (real *)s->gates + row * s->gates_row + unit * (size_t)slots,
        .h_prev = (const real *)s->h_prev + row * s->past_row + unit,
        .h = (real *)s->h + at,
    };
    if (s->c != NULL) {
        u.c_prev = (const real *)s->c_prev + at;
        u.c = (real *)s->c + at;
    }
    if (s->vectors != NULL) {
        u.vectors = (const real *)s->vectors + unit;
        u.vector_size = s->vector_size;
    }
    if (s->reset_pieces != NULL) /* the cast is safe: the driver's scratch */
        u.reset_h = (real *)(uintptr_t)s->reset_pieces[0].past + at;
    return u;
}

/* `count` values to the caller's array, which may end anywhere. */
INLINE void store_output(real *y, const real *h, size_t count) {
    if (count == FRNN_BLOCK) {
        for (int i = 0; i < FRNN_BLOCK; i += VL)
            vstore(y + i, vload(h + i));
        return;
    }
    for (size_t i = 0; i < count; i += VL)
        vstore_n(y + i, vload(h + i), frnn_min(VL, count - i));
}

/* A function over the rows of a step and the blocks [first, last). */
INLINE void step_units(const int slots, const frnn_step *s, size_t first, size_t last,
                       units_function function, const int output, const int plain, const int save) {
    for (size_t row = s->row_begin; row < s->row_end; row++)
        for (size_t block = first; block < last; block++) {
            const units u = units_at(slots, s, row, block);
            const size_t at = block * FRNN_BLOCK;
            function(&u, s->net, plain, save);
            if (output && s->y != NULL)
                store_output((real *)s->y + (ptrdiff_t)row * s->y_row + at, u.h,
                             frnn_min(s->hidden_size - at, FRNN_BLOCK));
        }
}

/* The input part of the gates, for the few inputs that are not projected beforehand. */
INLINE void step_input(const int gates, const int slots, const frnn_step *s, size_t first,
                       size_t last) {
    const size_t width = (size_t)gates * FRNN_BLOCK;
    for (size_t row = s->row_begin; row < s->row_end; row++) {
        const real *x = (const real *)s->x + (ptrdiff_t)row * s->x_row;
        for (size_t block = first; block < last; block++) {
            const real *bias = (const real *)s->bias + block * width;
            const real *w = (const real *)s->w_ih + block * s->input_size * width;
            real *out = (real *)s->gates + row * s->gates_row + block * (size_t)slots * FRNN_BLOCK;
            UNROLL for (int v = 0; v < gates * FRNN_BLOCK; v += VL) {
                vreal sum = vload(bias + v);
                for (size_t i = 0; i < s->input_size; i++)
                    sum = vfma(vset1(x[i]), vload(w + i * width + v), sum);
                vstore(out + v + (v / FRNN_BLOCK == gates - 1 ? (slots - gates) * FRNN_BLOCK : 0),
                       sum);
            }
        }
    }
}

/* The recurrent product, shared by the cells of one number of gates, so it is not inlined into
 * each; nor is that of time structures into the plain one. */
#define FRNN_DEFINE_RECUR(name, gates, slots, first)                                               \
    NOINLINE void name##_structured(const frnn_step *s, const void *w, const frnn_piece *pieces,   \
                                    size_t past_row, size_t block, size_t panels) {                \
        if (s->lists != NULL)                                                                      \
            recur_lists(gates, slots, first, s, w, pieces, past_row, block, panels);               \
        else                                                                                       \
            recur_pieces(gates, slots, first, s, w, pieces, past_row, block, panels);              \
    }                                                                                              \
    INLINE void name##_of(const frnn_step *s, const void *w, const frnn_piece *pieces,             \
                          size_t past_row, size_t block, size_t panels) {                          \
        if (s->num_pieces == 1 && s->start == NULL && s->lists == NULL)                            \
            recur_whole(gates, slots, first, s, w, pieces, past_row, block, panels);               \
        else                                                                                       \
            name##_structured(s, w, pieces, past_row, block, panels);                              \
    }
FRNN_DEFINE_RECUR(recur_1, 1, 1, 0)
FRNN_DEFINE_RECUR(recur_3, 3, 4, 0)
FRNN_DEFINE_RECUR(recur_4, 4, 4, 0)

typedef void (*recur_function)(const frnn_step *s, size_t block, size_t panels);

static void recur_1(const frnn_step *s, size_t block, size_t panels) {
    recur_1_of(s, s->w_hh, s->pieces, s->past_row, block, panels);
}

static void recur_3(const frnn_step *s, size_t block, size_t panels) {
    recur_3_of(s, s->w_hh, s->pieces, s->past_row, block, panels);
}

static void recur_4(const frnn_step *s, size_t block, size_t panels) {
    recur_4_of(s, s->w_hh, s->pieces, s->past_row, block, panels);
}

/* What a step does: for a group of blocks the input part, if that is still to be done, of
 * `input_gates` (0: never here); the product, with the panels of `gates`; then the cell. */
typedef struct step_parts {
    int input_gates, gates, slots;
    recur_function recur;
    units_function state, output;
} step_parts;

INLINE void step_groups(const step_parts p, const frnn_step *s, const int plain, const int save) {
    size_t begin = s->block_begin, end = s->block_end;
    const int together = s->lists != NULL && s->lists->lanes != NULL; /* see recur_lanes */
    while (begin < end) {
        const size_t all = (end - begin) * (size_t)p.gates;
        const size_t panels =
            together ? all : group_panels(p.gates, s->row_end - s->row_begin, all);
        const size_t blocks = panels / (size_t)p.gates;
        const size_t first = s->backwards ? end - blocks : begin, last = first + blocks;
        if (p.input_gates > 0 && s->x != NULL)
            step_input(p.input_gates, p.slots, s, first, last);
        if (p.recur != NULL)
            p.recur(s, first, panels);
        step_units(p.slots, s, first, last, p.state, p.output == NULL, plain, save);
        if (p.output != NULL)
            step_units(p.slots, s, first, last, p.output, 1, plain, save);
        if (s->backwards)
            end -= blocks;
        else
            begin += blocks;
    }
}

/* For both values of `save`, and of `plain` where the cell makes a difference. */
#define FRNN_STEP_SAVE(parts, s, plain)                                                            \
    if ((s)->save)                                                                                 \
        step_groups(parts, s, plain, 1);                                                           \
    else                                                                                           \
        step_groups(parts, s, plain, 0)

#define FRNN_DEFINE_STEP(name, gates, slots, recur, state, output)                                 \
    static void name##_step(const frnn_step *s) {                                                  \
        const step_parts parts = {gates, gates, slots, recur, state, output};                      \
        FRNN_STEP_SAVE(parts, s, 0);                                                               \
    }

/* Apart from one another: the general one calls functions, which the registers of the plain one
 * would suffer from. */
#define FRNN_DEFINE_STEP_PLAIN(name, gates, slots, recur, state, output)                           \
    NOINLINE void name##_step_plain(const frnn_step *s) {                                          \
        const step_parts parts = {gates, gates, slots, recur, state, output};                      \
        FRNN_STEP_SAVE(parts, s, 1);                                                               \
    }                                                                                              \
    NOINLINE void name##_step_general(const frnn_step *s) {                                        \
        const step_parts parts = {gates, gates, slots, recur, state, output};                      \
        FRNN_STEP_SAVE(parts, s, 0);                                                               \
    }                                                                                              \
    static void name##_step(const frnn_step *s) {                                                  \
        (s->plain ? name##_step_plain : name##_step_general)(s);                                   \
    }

/* frnn_kernels.emit */
static void emit(const frnn_emit *s) {
    for (size_t row = 0; row < s->rows; row++) {
        real *h = (real *)s->h + row * s->h_row;
        real *y = s->y != NULL ? (real *)s->y + (ptrdiff_t)row * s->y_row : NULL;
        for (size_t i = 0; i < s->count; i += FRNN_BLOCK) {
            for (int j = 0; j < FRNN_BLOCK; j += VL)
                vstore(h + i + j, vflush(vload(h + i + j)));
            if (y != NULL)
                store_output(y + i, h + i, frnn_min(s->count - i, FRNN_BLOCK));
        }
    }
}
