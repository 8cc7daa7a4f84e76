/* SPDX-License-Identifier: MIT
 *
 * The simple recurrent net (Elman 1990): h = f(Wx + Uh + b).
 */

INLINE void rnn_state(const units *u, frnn_activation activation) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL)
        vstore(u->h + j, vflush(activate(activation, vload(u->gates + j))));
}

FRNN_DEFINE_STEP(rnn, 1, rnn_state, NULL)
