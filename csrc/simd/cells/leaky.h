/* SPDX-License-Identifier: MIT
 *
 * Leaky units (Deep Learning, section 10.9.2): alpha is the weight of the past.
 *
 *     rate        h = a * h + (1 - a) * f(Wx + Uh + b)
 *     potential   u = a * u + (1 - a) * (Wx + U f(u) + b)      h = f(u)
 *     mingru      h = a * h + (1 - a) * f(W_n x + b_n)         1 - a = sigmoid(W_z x + b_z)
 *
 * MinGRU (Feng et al. 2024) has an alpha for each step, and no recurrent product. The plain leaky
 * unit has no product at all; it is a scan over time, see ../scan.h.
 */

/* a * past + (1 - a) * present: the one formula of every leaky unit. */
INLINE vreal leak(vreal a, vreal past, vreal present) {
    return vflush(vfma(a, past, vmul(vsub(vset1(1), a), present)));
}

/* The same backwards, where `total` is the gradient of the new average: the past's share goes to
 * carry, and the present's is returned. */
INLINE vreal leak_back(const units_back *u, int j, vreal a, vreal total) {
    vstore(u->carry + j, vflush(vmul(a, total)));
    return vmul(vsub(vset1(1), a), total);
}

/* h is what training saved as c. */
INLINE void saved_hidden(const units *u, const frnn_config *net, const int plain, const int save) {
    (void)net;
    (void)plain;
    (void)save;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) vstore(u->h + j, vload(u->c + j));
}

/* ---- rate ---------------------------------------------------------------------------------- */

INLINE void leaky_rate_state(const units *u, const frnn_config *net, const int plain,
                             const int save) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal present = cell_value(net, plain, vload(u->gates + j));
        vstore(u->h + j, leak(vload(u->vectors + j), vload(u->h_prev + j), present));
        if (save)
            vstore(u->gates + j, present);
    }
}

INLINE void leaky_rate_back(const units_back *u, const frnn_config *net, const int plain,
                            const int initial) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal total = vadd(arriving(u, j), vload(u->carry + j));
        if (initial) {
            vstore(u->carry + j, total);
            continue;
        }
        const vreal f = vload(u->gates + j);
        const vreal present = leak_back(u, j, vload(u->vectors + j), total);
        sum_vector(u, 0, j, total, vsub(vload(u->c_prev + j), f));
        leave(u, 0, j, vmul(present, cell_slope(net, plain, f)));
    }
}

FRNN_DEFINE_STEP_PLAIN(leaky_rate, 1, 1, recur_1, leaky_rate_state, NULL)
FRNN_DEFINE_BACK_PLAIN(leaky_rate, 1, 1, recur_back_1, saved_hidden, leaky_rate_back)

/* ---- potential ----------------------------------------------------------------------------- */

INLINE void leaky_potential_state(const units *u, const frnn_config *net, const int plain,
                                  const int save) {
    (void)net;
    (void)plain;
    (void)save; /* the gates stay as they are */
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal c = leak(vload(u->vectors + j), vload(u->c_prev + j), vload(u->gates + j));
        vstore(u->c + j, c);
    }
}

INLINE void leaky_potential_output(const units *u, const frnn_config *net, const int plain,
                                   const int save) {
    (void)plain;
    (void)save;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL)
        vstore(u->h + j, vflush(activate(&net->activation, vload(u->c + j))));
}

/* du = carry + f'(u) * dh; the initial u is c_prev of the first step. */
INLINE void leaky_potential_back(const units_back *u, const frnn_config *net, const int plain,
                                 const int initial) {
    (void)plain;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal past = vload(u->c_prev + j), potential = initial ? past : vload(u->c + j);
        const vreal f = activate(&net->activation, potential);
        const vreal total = vfma(slope(&net->activation, f), arriving(u, j), vload(u->carry + j));
        if (initial) {
            vstore(u->carry + j, total);
            continue;
        }
        const vreal present = vload(u->gates + j);
        sum_vector(u, 0, j, total, vsub(past, present));
        leave(u, 0, j, leak_back(u, j, vload(u->vectors + j), total));
    }
}

FRNN_DEFINE_STEP(leaky_potential, 1, 1, recur_1, leaky_potential_state, leaky_potential_output)
FRNN_DEFINE_BACK(leaky_potential, 1, 1, recur_back_1, leaky_potential_output, leaky_potential_back)

/* ---- mingru -------------------------------------------------------------------------------- */

/* a = 1 - sigmoid(z) = sigmoid(-z): the latter loses no digits. */
INLINE void mingru_state(const units *u, const frnn_config *net, const int plain, const int save) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal a = vsigmoid(vsub(vzero(), bounded(net->clip, vload(u->gates + j))));
        const vreal n = cell_value(net, plain, vload(u->gates + FRNN_BLOCK + j));
        vstore(u->h + j, leak(a, vload(u->h_prev + j), n));
        if (save) {
            vstore(u->gates + j, a);
            vstore(u->gates + FRNN_BLOCK + j, n);
        }
    }
}

INLINE void mingru_back(const units_back *u, const frnn_config *net, const int plain,
                        const int initial) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal total = vadd(arriving(u, j), vload(u->carry + j));
        if (initial) {
            vstore(u->carry + j, total);
            continue;
        }
        const vreal a = vload(u->gates + j), n = vload(u->gates + FRNN_BLOCK + j);
        const vreal present = leak_back(u, j, a, total);
        const vreal moved = vmul(total, vsub(n, vload(u->c_prev + j)));
        leave(u, 0, j, vmul(moved, gate_slope(net, plain, a)));
        leave(u, 1, j, vmul(present, cell_slope(net, plain, n)));
    }
}

FRNN_DEFINE_STEP(mingru, 2, 2, NULL, mingru_state, NULL)
FRNN_DEFINE_BACK(mingru, 1, 2, NULL, saved_hidden, mingru_back)

/* ---- plain --------------------------------------------------------------------------------- */

#define leaky_step        NULL
#define leaky_hidden_rows NULL
#define leaky_step_back   NULL
