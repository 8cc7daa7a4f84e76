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

INLINE void leaky_rate_state(const units *u, frnn_activation activation) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal present = activate(activation, vload(u->gates + j));
        vstore(u->h + j, leak(vload(u->alpha + j), vload(u->h_prev + j), present));
    }
}

FRNN_DEFINE_STEP(leaky_rate, 1, leaky_rate_state, NULL)

INLINE void leaky_potential_state(const units *u, frnn_activation activation) {
    (void)activation;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal c = leak(vload(u->alpha + j), vload(u->c_prev + j), vload(u->gates + j));
        vstore(u->c + j, c);
    }
}

INLINE void leaky_potential_output(const units *u, frnn_activation activation) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL)
        vstore(u->h + j, vflush(activate(activation, vload(u->c + j))));
}

FRNN_DEFINE_STEP(leaky_potential, 1, leaky_potential_state, leaky_potential_output)

#define leaky_step NULL
