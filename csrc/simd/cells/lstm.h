/* SPDX-License-Identifier: MIT
 *
 * LSTM (Hochreiter & Schmidhuber 1997, with forget gate: Gers et al. 2000); gates i, f, g, o.
 *
 *     c = f * c + i * g        h = o * tanh(c)
 *
 * With the input and the forget gate coupled (Greff et al. 2017) f = 1 - i, and the gates are i, g
 * and o, of which the recurrent part of the last is kept apart: o is its sum with the input part.
 * Peepholes (Gers & Schmidhuber 2000) let i and f see the c before, o the new one.
 */

/* Slots of the gates. */
#define LSTM_G(coupled) ((coupled) ? 1 : 2)
#define LSTM_O          3

INLINE const real *peephole(const units *u, int gate) {
    return u->vectors + (size_t)gate * u->vector_size;
}

INLINE void lstm_state_of(const int coupled, const units *u, const frnn_config *net,
                          const int plain, const int save) {
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        real *const gates = u->gates + j;
        const int peeps = !plain && net->peephole;
        vreal i = vload(gates);
        if (peeps)
            i = vfma(vload(peephole(u, 0) + j), vload(u->c_prev + j), i);
        i = gate_value(net, plain, i);
        vreal f;
        if (coupled) {
            f = vsub(vset1(1), i);
        } else {
            f = vload(gates + FRNN_BLOCK);
            if (peeps)
                f = vfma(vload(peephole(u, 1) + j), vload(u->c_prev + j), f);
            f = gate_value(net, plain, f);
        }
        const vreal g = cell_value(net, plain, vload(gates + LSTM_G(coupled) * FRNN_BLOCK));
        vreal c = vflush(vfma(f, vload(u->c_prev + j), vmul(i, g)));
        if (!plain)
            c = bounded(net->cell_clip, c);
        vstore(u->c + j, c);
        vreal o = vload(gates + LSTM_O * FRNN_BLOCK);
        if (coupled)
            o = vadd(o, vload(gates + 2 * FRNN_BLOCK));
        if (peeps)
            o = vfma(vload(peephole(u, 2 - coupled) + j), c, o);
        vstore(gates + LSTM_O * FRNN_BLOCK, gate_value(net, plain, o));
        if (save) {
            vstore(gates, i);
            if (!coupled)
                vstore(gates + FRNN_BLOCK, f);
            vstore(gates + LSTM_G(coupled) * FRNN_BLOCK, g);
        }
    }
}

INLINE void lstm_output(const units *u, const frnn_config *net, const int plain, const int save) {
    (void)save;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const vreal o = vload(u->gates + LSTM_O * FRNN_BLOCK + j), c = vload(u->c + j);
        const vreal e = plain ? vtanh(c) : activate(&net->output_activation, c);
        vstore(u->h + j, vflush(vmul(o, e)));
    }
}

/* With e = e(c) and primes for slopes, dh what arrives at h, and p the peephole:
 *     do = dh * e * o'
 *     dc = carry + dh * o * e' + do * p_o    (0 where c is at its limit)
 *     di = dc * g * i'    df = dc * c_prev * f'    dg = dc * i * g'
 *     carry' = dc * f + di * p_i + df * p_f
 * Coupled, c moves by g - c_prev with i:  di = dc * (g - c_prev) * i'.
 */
INLINE void lstm_back_of(const int coupled, const units_back *u, const frnn_config *net,
                         const int plain, const int initial) {
    if (initial) /* dh and carry are the gradients of h and c */
        return;
    UNROLL for (int j = 0; j < FRNN_BLOCK; j += VL) {
        const int peeps = !plain && net->peephole;
        const vreal i = vload(u->gates + j), o = vload(u->gates + LSTM_O * FRNN_BLOCK + j);
        const vreal f = coupled ? vsub(vset1(1), i) : vload(u->gates + FRNN_BLOCK + j);
        const vreal g = vload(u->gates + LSTM_G(coupled) * FRNN_BLOCK + j);
        const vreal dh = arriving(u, j), c = vload(u->c + j);
        const vreal c_prev = vload(u->c_prev + j);
        const vreal moved = coupled ? vsub(g, c_prev) : g;
        const vreal e = plain ? vtanh(c) : activate(&net->output_activation, c);
        const vreal inner = plain ? vfnma(e, e, vset1(1)) : slope(&net->output_activation, e);
        const vreal d_o = vmul(dh, vmul(e, gate_slope(net, plain, o)));
        vreal dc = vfma(dh, vmul(o, inner), vload(u->carry + j));
        if (peeps)
            dc = vfma(d_o, vload(u->vectors + (size_t)(2 - coupled) * u->vector_size + j), dc);
        if (!plain && net->cell_clip > 0)
            dc = vselect_lt(vabs(c), vset1((real)net->cell_clip), dc, vzero());
        const vreal d_i = vmul(dc, vmul(moved, gate_slope(net, plain, i)));
        const vreal d_f = coupled ? vzero() : vmul(dc, vmul(c_prev, gate_slope(net, plain, f)));
        vreal carry = vmul(dc, f);
        if (peeps) {
            carry = vfma(d_i, vload(u->vectors + j), carry);
            sum_vector(u, 0, j, d_i, c_prev);
            if (!coupled) {
                carry = vfma(d_f, vload(u->vectors + u->vector_size + j), carry);
                sum_vector(u, 1, j, d_f, c_prev);
            }
            sum_vector(u, 2 - coupled, j, d_o, c);
        }
        vstore(u->carry + j, vflush(carry));
        leave(u, 0, j, d_i);
        if (!coupled)
            leave(u, 1, j, d_f);
        leave(u, LSTM_G(coupled), j, vmul(dc, vmul(i, cell_slope(net, plain, g))));
        leave(u, 3 - coupled, j, d_o);
    }
}

INLINE void lstm_state(const units *u, const frnn_config *net, const int plain, const int save) {
    lstm_state_of(0, u, net, plain, save);
}

INLINE void lstm_back(const units_back *u, const frnn_config *net, const int plain,
                      const int initial) {
    lstm_back_of(0, u, net, plain, initial);
}

FRNN_DEFINE_STEP_PLAIN(lstm, 4, 4, recur_4, lstm_state, lstm_output)
FRNN_DEFINE_BACK_PLAIN(lstm, 4, 4, recur_back_4, lstm_output, lstm_back)

INLINE void lstm_coupled_state(const units *u, const frnn_config *net, const int plain,
                               const int save) {
    lstm_state_of(1, u, net, plain, save);
}

INLINE void lstm_coupled_back(const units_back *u, const frnn_config *net, const int plain,
                              const int initial) {
    lstm_back_of(1, u, net, plain, initial);
}

FRNN_DEFINE_STEP_PLAIN(lstm_coupled, 3, 4, recur_3, lstm_coupled_state, lstm_output)
FRNN_DEFINE_BACK_PLAIN(lstm_coupled, 3, 4, recur_back_3, lstm_output, lstm_coupled_back)
