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

static void recur_2_of_3(const frnn_step *s, size_t block, size_t panels) {
    recur_group(2, 4, 0, s, s->w_hh, s->h_prev, s->h_prev_row, block, panels);
}

static void recur_last_of_3(const frnn_step *s, size_t block, size_t panels) {
    const size_t blocks = (s->hidden_size + FRNN_BLOCK - 1) / FRNN_BLOCK;
    const real *w = (const real *)s->w_hh + blocks * s->hidden_size * 2 * FRNN_BLOCK;
    recur_group(1, 4, GRU_U, s, w, s->reset_h, s->ld, block, panels);
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

/* The parts of a step: r and z of all units, then n. h is not an output of the first. */
INLINE void gru_reset_before_parts(const frnn_step *s, const int plain, const int save) {
    const step_parts gates = {3, 2, 4, recur_2_of_3, gru_reset_state, NULL};
    const step_parts candidate = {0, 1, 4, recur_last_of_3, gru_reset_output, NULL};
    frnn_step first = *s;
    first.y = NULL;
    step_groups(gates, &first, plain, save);
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
        leave(u, 0, j, vmul(arrived, vmul(vload(u->c_prev + j), inner)));
    }
}

static void gru_reset_before_step_back(const frnn_step_back *s) {
    const size_t blocks = (s->hidden_size + FRNN_BLOCK - 1) / FRNN_BLOCK;
    const size_t matrix = blocks * s->hidden_size * FRNN_BLOCK;
    const back_parts gates = {2, 4, recur_back_2, gru_reset_before_new_back};
    step_groups_back(gates, s, 0);
    if (s->dz == NULL)
        return;
    const frnn_project_back candidate = {
        .rows = s->row_end - s->row_begin,
        .k = s->hidden_size,
        .blocks = blocks,
        .gates = 1,
        .a = (const real *)s->dz + s->row_begin * s->dz_row + 2 * s->hidden_size,
        .a_row = (ptrdiff_t)s->dz_row,
        .w = (const real *)s->w_hh + 2 * matrix,
        .out = (real *)s->reset_dh + s->row_begin * s->ld,
        .out_row = (ptrdiff_t)s->ld,
        .partial = (real *)s->partial + s->row_begin * FRNN_PARTIAL,
    };
    project_back(&candidate);
    step_units_back(4, s, 0, blocks, gru_reset_before_reset_back, 0, 0);
}

static void gru_reset_before_hidden_rows(const frnn_hidden *s) {
    hidden_units(4, s, saved_hidden, 1);
}
