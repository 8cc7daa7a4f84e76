/* SPDX-License-Identifier: MIT
 *
 * The simple recurrent net (Elman 1990): h = f(Wx + Uh + b).
 */

INLINE void rnn_state(const units *u, const frnn_config *net, const int plain, const int save) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal h = vflush(cell_value(net, plain, vload(u->gates + j)));
        vstore(u->h + j, h);
        if (save)
            vstore(u->gates + j, h);
    }
}

INLINE void rnn_hidden(const units *u, const frnn_config *net, const int plain, const int save) {
    (void)net;
    (void)plain;
    (void)save;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) vstore(u->h + j, vload(u->gates + j));
}

/* dz = dh * f' */
INLINE void rnn_back(const units_back *u, const frnn_config *net, const int plain,
                     const int initial) {
    if (initial)
        return;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL)
        leave(u, 0, j, vmul(arriving(u, j), cell_slope(net, plain, vload(u->gates + j))));
}

FRNN_DEFINE_STEP_PLAIN(rnn, 1, 1, recur_1, rnn_state, NULL)
FRNN_DEFINE_BACK_PLAIN(rnn, 1, 1, recur_back_1, rnn_hidden, rnn_back)
