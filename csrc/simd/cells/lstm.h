/* SPDX-License-Identifier: MIT
 *
 * LSTM (Hochreiter & Schmidhuber 1997, with forget gate: Gers et al. 2000); gates i, f, g, o.
 *
 *     c = f * c + i * g        h = o * tanh(c)
 */

INLINE void lstm_state(const units *u, frnn_activation activation) {
    (void)activation;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal i = vsigmoid(vload(u->gates + 0 * FRNN_BLOCK + j));
        const vreal f = vsigmoid(vload(u->gates + 1 * FRNN_BLOCK + j));
        const vreal g = vtanh(vload(u->gates + 2 * FRNN_BLOCK + j));
        const vreal c = vflush(vfma(f, vload(u->c_prev + j), vmul(i, g)));
        vstore(u->c + j, c);
        vstore(u->gates + 3 * FRNN_BLOCK + j, vsigmoid(vload(u->gates + 3 * FRNN_BLOCK + j)));
    }
}

INLINE void lstm_output(const units *u, frnn_activation activation) {
    (void)activation;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal o = vload(u->gates + 3 * FRNN_BLOCK + j);
        vstore(u->h + j, vflush(vmul(o, vtanh(vload(u->c + j)))));
    }
}

FRNN_DEFINE_STEP(lstm, 4, lstm_state, lstm_output)
