/* SPDX-License-Identifier: MIT
 *
 * GRU (Cho et al. 2014); gates r, z, n.
 *
 *     reset after     n = tanh(W_n x + b_in + r * (U_n h + b_hn))     (cuDNN, PyTorch)
 *     reset before    n = tanh(W_n x + b_n + U_n (r * h))             (the paper, ONNX)
 *     both            h = (1 - z) * n + z * h
 *
 * Of n the recurrent part is kept apart: in the slot before its input part. Reset before, it is a
 * product of its own, which waits for r of all units.
 */

#define GRU_R 0
#define GRU_Z 1
#define GRU_U 2 /* the recurrent part of n */
#define GRU_N 3

/* n and h, from the activated z and the complete pre-activation of n. */
INLINE void gru_new(const units *u, int j, const frnn_config *net, const int plain, const int save,
                    vreal z, vreal preactivation) {
    const vreal n = cell_value(net, plain, preactivation);
    vstore(u->h + j, vflush(vfma(z, vsub(vload(u->h_prev + j), n), n)));
    if (save)
        vstore(u->gates + GRU_N * FRNN_BLOCK + j, n);
}

/* From what arrives at h, `total`: dz and dn of the pre-activations; z's share goes on by itself.
 */
INLINE void gru_new_back(const units_back *u, int j, const frnn_config *net, const int plain,
                         vreal *dz, vreal *dn, vreal *carry) {
    const vreal total = vadd(arriving(u, j), vload(u->carry + j));
    const vreal z = vload(u->gates + GRU_Z * FRNN_BLOCK + j);
    const vreal n = vload(u->gates + GRU_N * FRNN_BLOCK + j);
    const vreal moved = vmul(total, vsub(vload(u->c_prev + j), n));
    const vreal present = vmul(total, vsub(vset1(1), z));
    *dz = vmul(moved, gate_slope(net, plain, z));
    *dn = vmul(present, cell_slope(net, plain, n));
    *carry = vmul(total, z);
}

/* The gradient of the state before the first step is all in carry. */
INLINE void gru_initial(const units_back *u, int j) {
    vstore(u->carry + j, vadd(arriving(u, j), vload(u->carry + j)));
}

/* ---- reset after ---------------------------------------------------------------------------- */

INLINE void gru_state(const units *u, const frnn_config *net, const int plain, const int save) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        real *gates = u->gates + j;
        const vreal r = gate_value(net, plain, vload(gates + GRU_R * FRNN_BLOCK));
        const vreal past = vadd(vload(u->vectors + j), vload(gates + GRU_U * FRNN_BLOCK));
        real *const n = gates + GRU_N * FRNN_BLOCK;
        vstore(n, vfma(r, past, vload(n)));
        real *const z = gates + GRU_Z * FRNN_BLOCK;
        vstore(z, gate_value(net, plain, vload(z)));
        if (save) {
            vstore(gates + GRU_R * FRNN_BLOCK, r);
            vstore(gates + GRU_U * FRNN_BLOCK, past);
        }
    }
}

INLINE void gru_output(const units *u, const frnn_config *net, const int plain, const int save) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL)
        gru_new(u, j, net, plain, save, vload(u->gates + GRU_Z * FRNN_BLOCK + j),
                vload(u->gates + GRU_N * FRNN_BLOCK + j));
}

/* dn is the gradient of the input part, dn * r that of the recurrent part. */
INLINE void gru_back(const units_back *u, const frnn_config *net, const int plain,
                     const int initial) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        if (initial) {
            gru_initial(u, j);
            continue;
        }
        vreal dz, dn, carry;
        gru_new_back(u, j, net, plain, &dz, &dn, &carry);
        const vreal r = vload(u->gates + GRU_R * FRNN_BLOCK + j);
        const vreal past = vload(u->gates + GRU_U * FRNN_BLOCK + j);
        const vreal inner = gate_slope(net, plain, r);
        vstore(u->carry + j, vflush(carry));
        leave(u, GRU_R, j, vmul(dn, vmul(past, inner)));
        leave(u, GRU_Z, j, dz);
        leave(u, GRU_U, j, vmul(dn, r));
        leave(u, GRU_N, j, dn);
    }
}

FRNN_DEFINE_STEP_PLAIN(gru, 3, 4, recur_3, gru_state, gru_output)
FRNN_DEFINE_BACK_PLAIN(gru, 3, 4, recur_back_3, saved_hidden, gru_back)

/* ---- reset before --------------------------------------------------------------------------- */

FRNN_DEFINE_RECUR(recur_first, 2, 4, 0)
FRNN_DEFINE_RECUR(recur_last, 1, 4, GRU_U)

static void recur_2_of_3(const frnn_step *s, size_t block, size_t panels) {
    recur_first_of(s, s->w_hh, s->pieces, s->past_row, block, panels);
}

/* The matrix of the last gate lies behind that of the others, which has two blocks for each of its
 * own. */
static void recur_last_of_3(const frnn_step *s, size_t block, size_t panels) {
    const size_t blocks = (s->hidden_size + FRNN_BLOCK - 1) / FRNN_BLOCK;
    const size_t columns =
        s->lists == NULL ? blocks * s->recurrent_size : s->lists->begin[blocks] * s->num_pieces;
    const real *w = (const real *)s->w_hh + columns * 2 * FRNN_BLOCK;
    recur_last_of(s, w, s->reset_pieces, s->ld, block, panels);
}

INLINE void gru_reset_state(const units *u, const frnn_config *net, const int plain,
                            const int save) {
    (void)save; /* the second part reads z from the gates too */
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        real *gates = u->gates + j;
        const vreal r = gate_value(net, plain, vload(gates + GRU_R * FRNN_BLOCK));
        const vreal z = gate_value(net, plain, vload(gates + GRU_Z * FRNN_BLOCK));
        vstore(gates + GRU_R * FRNN_BLOCK, r);
        vstore(gates + GRU_Z * FRNN_BLOCK, z);
        vstore(u->reset_h + j, vmul(r, vload(u->h_prev + j)));
    }
}

INLINE void gru_reset_output(const units *u, const frnn_config *net, const int plain,
                             const int save) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        real *gates = u->gates + j;
        const vreal z = vload(gates + GRU_Z * FRNN_BLOCK);
        const vreal past = vload(gates + GRU_U * FRNN_BLOCK);
        if (save) /* for the gradient of U_n */
            vstore(gates + GRU_U * FRNN_BLOCK, vload(u->reset_h + j));
        gru_new(u, j, net, plain, save, z, vadd(vload(gates + GRU_N * FRNN_BLOCK), past));
    }
}

/* r * h of delays after the first. */
INLINE void gru_reset_past(const frnn_step *s) {
    for (size_t i = 1; i < s->num_pieces; i++)
        for (size_t row = s->row_begin; row < s->row_end; row++) {
            const real *past = (const real *)s->pieces[i].past + row * s->past_row;
            const real *r = (const real *)s->gates + row * s->gates_row + GRU_R * FRNN_BLOCK;
            real *reset = (real *)(uintptr_t)s->reset_pieces[i].past + row * s->ld;
            for (size_t at = 0; at < s->block_end * FRNN_BLOCK; at += FRNN_BLOCK)
                for (int j = 0; j < FRNN_BLOCK; j += VL)
                    vstore(reset + at + j, vmul(vload(r + at * 4 + j), vload(past + at + j)));
        }
}

/* The parts of a step: r and z of all units, then n. h is not an output of the first. */
INLINE void gru_reset_before_parts(const frnn_step *s, const int plain, const int save) {
    const step_parts gates = {3, 2, 4, recur_2_of_3, gru_reset_state, NULL};
    const step_parts candidate = {0, 1, 4, recur_last_of_3, gru_reset_output, NULL};
    frnn_step first = *s;
    first.y = NULL;
    step_groups(gates, &first, plain, save);
    gru_reset_past(s);
    step_groups(candidate, s, plain, save);
}

NOINLINE void gru_reset_before_step_plain(const frnn_step *s) {
    if (s->save)
        gru_reset_before_parts(s, 1, 1);
    else
        gru_reset_before_parts(s, 1, 0);
}

NOINLINE void gru_reset_before_step_general(const frnn_step *s) {
    gru_reset_before_parts(s, 0, s->save);
}

static void gru_reset_before_step(const frnn_step *s) {
    (s->plain ? gru_reset_before_step_plain : gru_reset_before_step_general)(s);
}

INLINE void gru_reset_before_new_back(const units_back *u, const frnn_config *net, const int plain,
                                      const int initial) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        if (initial) {
            gru_initial(u, j);
            continue;
        }
        vreal dz, dn, carry;
        gru_new_back(u, j, net, plain, &dz, &dn, &carry);
        vstore(u->carry + j, carry);
        leave(u, 1, j, dz);
        leave(u, 2, j, dn);
    }
}

/* From the gradient of r * h. */
INLINE void gru_reset_before_reset_back(const units_back *u, const frnn_config *net,
                                        const int plain, const int initial) {
    (void)initial;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal r = vload(u->gates + GRU_R * FRNN_BLOCK + j);
        const vreal arrived = vload(u->reset_dh + j);
        const vreal inner = gate_slope(net, plain, r);
        vstore(u->carry + j, vflush(vfma(arrived, r, vload(u->carry + j))));
        if (u->reset_sum == NULL) {
            leave(u, 0, j, vmul(arrived, vmul(vload(u->c_prev + j), inner)));
            continue;
        }
        const vreal sum = vfma(arrived, vload(u->c_prev + j), vload(u->reset_sum + j));
        leave(u, 0, j, vmul(sum, inner));
        leave(u, 3, j, r);
    }
}

/* What arrives at r * h of a delay. */
static void reset_product_back(const frnn_step_back *s, size_t blocks, size_t delay, void *out) {
    const frnn_project_back candidate = {
        .rows = s->row_end - s->row_begin,
        .k = s->hidden_size,
        .blocks = blocks,
        .gates = 1,
        .a = (const real *)s->dz + s->row_begin * s->dz_row + 2 * s->dz_gate,
        .a_row = (ptrdiff_t)s->dz_row,
        .w = (const real *)s->w_hh + delay * s->delay_matrix +
             2 * blocks * s->hidden_size * FRNN_BLOCK,
        .out = (real *)out + s->row_begin * s->ld,
        .out_row = (ptrdiff_t)s->ld,
        .partial = (real *)s->partial + s->row_begin * FRNN_PARTIAL,
    };
    project_back(&candidate);
}

static void reset_lists_back(const frnn_step_back *s, size_t blocks, size_t delay, void *out) {
    const size_t others = (size_t)s->lists->begin[blocks] * s->delays * 2 * FRNN_BLOCK;
    for (size_t row = s->row_begin; row < s->row_end; row++) {
        const frnn_lists_back candidate = {
            .hidden_size = s->hidden_size,
            .k = s->hidden_size,
            .blocks = blocks,
            .gates = 1,
            .a = (const real *)s->dz + row * s->dz_row + 2 * s->dz_gate,
            .lists = s->lists,
            .w = (const real *)s->w_hh + others,
            .piece = delay,
            .pieces = s->delays,
            .lanes = s->lanes,
            .out = (real *)out + row * s->ld,
        };
        lists_back(&candidate);
    }
}

static void reset_back(const frnn_step_back *s, size_t blocks, size_t delay, void *out) {
    (s->lists != NULL ? reset_lists_back : reset_product_back)(s, blocks, delay, out);
}

/* What r gets from delays after the first: the sum of what arrives there times what they read. */
static void reset_sum_back(const frnn_step_back *s, size_t blocks) {
    const size_t rows = s->row_end - s->row_begin, size = s->row_end * s->ld;
    for (size_t i = 1; i < s->delays; i++) {
        const real *past = (const real *)s->past + (i - 1) * size + s->row_begin * s->ld;
        const real *more = (const real *)s->reset_more + s->row_begin * s->ld;
        real *sum = (real *)s->reset_sum + s->row_begin * s->ld;
        reset_back(s, blocks, i, s->reset_more);
        if (i == 1)
            memset(sum, 0, rows * s->ld * sizeof(real));
        for (size_t row = 0; row < rows; row++)
            add_product_array(more + row * s->ld, past + row * s->ld, sum + row * s->ld,
                              blocks * FRNN_BLOCK);
    }
}

static void gru_reset_before_step_back(const frnn_step_back *s) {
    const size_t blocks = (s->hidden_size + FRNN_BLOCK - 1) / FRNN_BLOCK;
    const back_parts gates = {2, 4, recur_back_2, gru_reset_before_new_back};
    step_groups_back(gates, s, 0);
    if (s->dz == NULL)
        return;
    reset_back(s, blocks, 0, s->reset_dh);
    reset_sum_back(s, blocks);
    step_units_back(4, s, 0, blocks, gru_reset_before_reset_back, 0, 0);
}

static void gru_reset_before_hidden_rows(const frnn_hidden *s) {
    hidden_units(4, s, saved_hidden, 1);
}
