/* SPDX-License-Identifier: MIT
 *
 * What all cells share on the way back: the order of work in a step, where the values of 16 units
 * lie, and h once more from what was saved.
 *
 * A cell file gives, next to its forward, two functions for one block of one row:
 *
 *     <cell>_hidden(u, net, plain, save)   h from the saved gates and c: its output function, if
 *                                          it has one
 *     <cell>_back(u, net, plain, initial)  from dh and dy to dz; with `initial` only the gradient
 *                                          of the state before the first step
 */

/* The arrays of one row and block, each of 16 values; of dy and dz only `count` are there. */
typedef struct units_back {
    size_t count;
    const real *gates; /* as saved, 16 per slot */
    const real *c, *c_prev;
    const real *vectors; /* vector_size elements apart, dvectors dvector_size */
    size_t vector_size, dvector_size;
    const real *dh, *dy; /* dy may be NULL */
    const real *reset_dh, *reset_sum;
    real *carry, *dvectors;
    real *dz; /* slots lie hidden_size apart */
    size_t dz_gate;
} units_back;

typedef void (*units_back_function)(const units_back *u, const frnn_config *net, const int plain,
                                    const int initial);

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

/* Slopes where gate_value() and cell_value() gave `value`. */
INLINE vreal gate_slope(const frnn_config *net, const int plain, vreal value) {
    return plain ? vfnma(value, value, value)
                 : slope_bounded(&net->gate_activation, net->clip, value);
}

INLINE vreal cell_slope(const frnn_config *net, const int plain, vreal value) {
    return plain ? vfnma(value, value, vset1(1))
                 : slope_bounded(&net->activation, net->clip, value);
}

/* Adds a * b to the sum over time that is the gradient of a vector, if that is wanted. */
INLINE void sum_vector(const units_back *u, int vector, int j, vreal a, vreal b) {
    if (u->dvectors == NULL)
        return;
    real *sum = u->dvectors + (size_t)vector * u->dvector_size + j;
    vstore(sum, vfma(a, b, vload(sum)));
}

/* The product of a step for a group of panels that starts at `block`: complete dh. */
INLINE void recur_group_back(const int gates, const frnn_step_back *s, size_t block,
                             size_t panels) {
    const product_back p = {
        .rows = s->row_end - s->row_begin,
        .k = s->hidden_size,
        .a = (const real *)s->dz_next + s->row_begin * s->dz_row,
        .a_row = (ptrdiff_t)s->dz_row,
        .a_gate = s->dz_gate,
        .w = (const real *)s->w_hh + block * s->hidden_size * FRNN_BLOCK,
        .w_gate = ((s->hidden_size - 1) / FRNN_BLOCK + 1) * s->hidden_size * FRNN_BLOCK,
        .out = (real *)s->dh + s->row_begin * s->ld + block * FRNN_BLOCK,
        .out_row = (ptrdiff_t)s->ld,
        .partial = (real *)s->partial + s->row_begin * FRNN_PARTIAL,
    };
    product_group_back(gates, &p, panels);
}

typedef void (*recur_back_function)(const frnn_step_back *s, size_t block, size_t panels);

static void recur_back_1(const frnn_step_back *s, size_t block, size_t panels) {
    recur_group_back(1, s, block, panels);
}

static void recur_back_2(const frnn_step_back *s, size_t block, size_t panels) {
    recur_group_back(2, s, block, panels);
}

static void recur_back_3(const frnn_step_back *s, size_t block, size_t panels) {
    recur_group_back(3, s, block, panels);
}

static void recur_back_4(const frnn_step_back *s, size_t block, size_t panels) {
    recur_group_back(4, s, block, panels);
}

INLINE void step_units_back(const int slots, const frnn_step_back *s, size_t first, size_t last,
                            units_back_function function, const int plain, const int initial) {
    for (size_t row = s->row_begin; row < s->row_end; row++)
        for (size_t block = first; block < last; block++) {
            const size_t unit = block * FRNN_BLOCK, at = row * s->ld + unit;
            units_back u = {
                .count = frnn_min(s->hidden_size - unit, FRNN_BLOCK),
                .dh = (const real *)s->dh + at,
                .dz_gate = s->dz_gate,
            };
            if (!initial) {
                u.gates = (const real *)s->gates + row * s->gates_row + unit * (size_t)slots;
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
            if (s->reset_dh != NULL)
                u.reset_dh = (const real *)s->reset_dh + at;
            if (s->delays > 1)
                u.reset_sum = (const real *)s->reset_sum + at;
            if (s->vectors != NULL) {
                u.vectors = (const real *)s->vectors + unit;
                u.vector_size = s->vector_size;
            }
            if (s->dvectors != NULL) {
                u.dvectors = (real *)s->dvectors + at;
                u.dvector_size = s->dvector_size;
            }
            function(&u, s->net, plain, initial);
        }
}

/* What a step does: the product of a group of blocks with `gates` gates of dz, then the cell. */
typedef struct back_parts {
    int gates, slots;
    recur_back_function recur;
    units_back_function function;
} back_parts;

INLINE void step_groups_back(const back_parts p, const frnn_step_back *s, const int plain) {
    size_t begin = s->block_begin, end = s->block_end;
    while (begin < end) {
        const size_t blocks =
            group_back(s->row_end - s->row_begin, (s->hidden_size - 1) / FRNN_BLOCK + 1, begin, end,
                       s->backwards);
        const size_t first = s->backwards ? end - blocks : begin;
        if (p.recur != NULL && s->dz_next != NULL)
            p.recur(s, first, blocks);
        if (s->dz != NULL)
            step_units_back(p.slots, s, first, first + blocks, p.function, plain, 0);
        else
            step_units_back(p.slots, s, first, first + blocks, p.function, plain, 1);
        if (s->backwards)
            end -= blocks;
        else
            begin += blocks;
    }
}

INLINE void hidden_units(const int slots, const frnn_hidden *s, units_function function,
                         const int plain) {
    for (size_t row = 0; row < s->rows; row++)
        for (size_t block = 0; block < s->blocks; block++) {
            const ptrdiff_t at = (ptrdiff_t)(block * FRNN_BLOCK), r = (ptrdiff_t)row;
            units u = {
                /* the cast is safe: output functions only read them */
                .gates = (real *)(uintptr_t)s->gates + r * s->gates_row + at * slots,
                .h = (real *)s->h + r * s->h_row + at,
            };
            if (s->c != NULL)
                u.c = (real *)(uintptr_t)s->c + r * s->c_row + at;
            function(&u, s->net, plain, 0);
        }
}

#define FRNN_DEFINE_BACK(name, gates, slots, recur, hidden_function, back_function)                \
    static void name##_hidden_rows(const frnn_hidden *s) {                                         \
        hidden_units(slots, s, hidden_function, 0);                                                \
    }                                                                                              \
    static void name##_step_back(const frnn_step_back *s) {                                        \
        const back_parts parts = {gates, slots, recur, back_function};                             \
        step_groups_back(parts, s, 0);                                                             \
    }

#define FRNN_DEFINE_BACK_PLAIN(name, gates, slots, recur, hidden_function, back_function)          \
    static void name##_hidden_rows(const frnn_hidden *s) {                                         \
        if (s->plain)                                                                              \
            hidden_units(slots, s, hidden_function, 1);                                            \
        else                                                                                       \
            hidden_units(slots, s, hidden_function, 0);                                            \
    }                                                                                              \
    NOINLINE void name##_step_back_plain(const frnn_step_back *s) {                                \
        const back_parts parts = {gates, slots, recur, back_function};                             \
        step_groups_back(parts, s, 1);                                                             \
    }                                                                                              \
    NOINLINE void name##_step_back_general(const frnn_step_back *s) {                              \
        const back_parts parts = {gates, slots, recur, back_function};                             \
        step_groups_back(parts, s, 0);                                                             \
    }                                                                                              \
    static void name##_step_back(const frnn_step_back *s) {                                        \
        (s->plain ? name##_step_back_plain : name##_step_back_general)(s);                         \
    }
