/* SPDX-License-Identifier: MIT
 *
 * Leaky units (Deep Learning, section 10.9.2): alpha is the weight of the past.
 *
 *     rate        h = a * h + (1 - a) * f(Wx + Uh + b)
 *     potential   u = a * u + (1 - a) * (Wx + U f(u) + b)      h = f(u)
 *
 * The plain leaky unit has no product; it is a scan over time, see ../scan.h.
 */

/* a * past + (1 - a) * present: the one formula of every leaky unit. */
INLINE vreal leak(vreal a, vreal past, vreal present) {
    return vflush(vfma(a, past, vmul(vsub(vset1(1), a), present)));
}

/* The same backwards, where `total` is the gradient of the new average: the past's share goes to
 * carry, the sum of total * (past - present) to the gradient of a, and the present's is returned.
 */
INLINE vreal leak_back(const units_back *u, int j, vreal total, vreal past, vreal present) {
    const vreal a = vload(u->alpha + j);
    vstore(u->carry + j, vflush(vmul(a, total)));
    if (u->dalpha != NULL)
        vstore(u->dalpha + j, vfma(total, vsub(past, present), vload(u->dalpha + j)));
    return vmul(vsub(vset1(1), a), total);
}

/* ---- rate ---------------------------------------------------------------------------------- */

INLINE void leaky_rate_state(const units *u, frnn_activation activation, const int save) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal present = activate(activation, vload(u->gates + j));
        vstore(u->h + j, leak(vload(u->alpha + j), vload(u->h_prev + j), present));
        if (save)
            vstore(u->gates + j, present);
    }
}

INLINE void leaky_rate_hidden(const units *u, frnn_activation activation, const int save) {
    (void)activation;
    (void)save;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) vstore(u->h + j, vload(u->c + j));
}

/* What is saved as c is h. */
INLINE void leaky_rate_back(const units_back *u, const int initial) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal total = vadd(arriving(u, j), vload(u->carry + j));
        if (initial) {
            vstore(u->carry + j, total);
        } else {
            const vreal f = vload(u->gates + j);
            const vreal present = leak_back(u, j, total, vload(u->c_prev + j), f);
            leave(u, 0, j, vmul(present, slope(u->activation, f)));
        }
    }
}

FRNN_DEFINE_STEP(leaky_rate, 1, leaky_rate_state, NULL)
FRNN_DEFINE_BACK(leaky_rate, 1, leaky_rate_hidden, leaky_rate_back)

/* ---- potential ----------------------------------------------------------------------------- */

INLINE void leaky_potential_state(const units *u, frnn_activation activation, const int save) {
    (void)activation;
    (void)save; /* the gates stay as they are */
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal c = leak(vload(u->alpha + j), vload(u->c_prev + j), vload(u->gates + j));
        vstore(u->c + j, c);
    }
}

INLINE void leaky_potential_output(const units *u, frnn_activation activation, const int save) {
    (void)save;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL)
        vstore(u->h + j, vflush(activate(activation, vload(u->c + j))));
}

/* du = carry + f'(u) * dh; the initial u is c_prev of the first step. */
INLINE void leaky_potential_back(const units_back *u, const int initial) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal past = vload(u->c_prev + j), potential = initial ? past : vload(u->c + j);
        const vreal f = activate(u->activation, potential);
        const vreal total = vfma(slope(u->activation, f), arriving(u, j), vload(u->carry + j));
        if (initial)
            vstore(u->carry + j, total);
        else
            leave(u, 0, j, leak_back(u, j, total, past, vload(u->gates + j)));
    }
}

FRNN_DEFINE_STEP(leaky_potential, 1, leaky_potential_state, leaky_potential_output)
FRNN_DEFINE_BACK(leaky_potential, 1, leaky_potential_output, leaky_potential_back)

/* ---- plain --------------------------------------------------------------------------------- */

#define leaky_step        NULL
#define leaky_hidden_rows NULL
#define leaky_step_back   NULL
