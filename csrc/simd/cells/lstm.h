/* SPDX-License-Identifier: MIT
 *
 * LSTM (Hochreiter & Schmidhuber 1997, with forget gate: Gers et al. 2000); gates i, f, g, o.
 *
 *     c = f * c + i * g        h = o * tanh(c)
 */

INLINE void lstm_state(const units *u, frnn_activation activation, const int save) {
    (void)activation;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal i = vsigmoid(vload(u->gates + 0 * FRNN_BLOCK + j));
        const vreal f = vsigmoid(vload(u->gates + 1 * FRNN_BLOCK + j));
        const vreal g = vtanh(vload(u->gates + 2 * FRNN_BLOCK + j));
        const vreal c = vflush(vfma(f, vload(u->c_prev + j), vmul(i, g)));
        vstore(u->c + j, c);
        vstore(u->gates + 3 * FRNN_BLOCK + j, vsigmoid(vload(u->gates + 3 * FRNN_BLOCK + j)));
        if (save) {
            vstore(u->gates + 0 * FRNN_BLOCK + j, i);
            vstore(u->gates + 1 * FRNN_BLOCK + j, f);
            vstore(u->gates + 2 * FRNN_BLOCK + j, g);
        }
    }
}

INLINE void lstm_output(const units *u, frnn_activation activation, const int save) {
    (void)activation;
    (void)save;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal o = vload(u->gates + 3 * FRNN_BLOCK + j);
        vstore(u->h + j, vflush(vmul(o, vtanh(vload(u->c + j)))));
    }
}

/* With tc = tanh(c):  dc = carry + dh * o * (1 - tc^2)      carry' = dc * f
 *     di = dc * g * (i - i^2)    df = dc * c_prev * (f - f^2)
 *     dg = dc * i * (1 - g^2)    do = dh * tc * (o - o^2)
 */
INLINE void lstm_back(const units_back *u, const int initial) {
    if (initial) /* dh and carry are the gradients of h and c */
        return;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal i = vload(u->gates + 0 * FRNN_BLOCK + j);
        const vreal f = vload(u->gates + 1 * FRNN_BLOCK + j);
        const vreal g = vload(u->gates + 2 * FRNN_BLOCK + j);
        const vreal o = vload(u->gates + 3 * FRNN_BLOCK + j);
        const vreal tc = vtanh(vload(u->c + j)), one = vset1(1), dh = arriving(u, j);
        const vreal dc = vfma(dh, vmul(o, vfnma(tc, tc, one)), vload(u->carry + j));
        vstore(u->carry + j, vflush(vmul(dc, f)));
        leave(u, 0, j, vmul(dc, vmul(g, vfnma(i, i, i))));
        leave(u, 1, j, vmul(dc, vmul(vload(u->c_prev + j), vfnma(f, f, f))));
        leave(u, 2, j, vmul(dc, vmul(i, vfnma(g, g, one))));
        leave(u, 3, j, vmul(dh, vmul(tc, vfnma(o, o, o))));
    }
}

FRNN_DEFINE_STEP(lstm, 4, lstm_state, lstm_output)
FRNN_DEFINE_BACK(lstm, 4, lstm_output, lstm_back)
