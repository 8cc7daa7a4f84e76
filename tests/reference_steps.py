"""One step backwards, for each cell of the float64 oracle.

The step took x [B, I], the past [K, B, H] that the recurrent matrices multiply and the state of the
shortest delay ago to the output h [B, H] and a new state. Given d(h) from what reads the output at
this step only (y, or the layer above), and d(new state) from the steps that follow, its backward
gives d(x), d(past), d(state) and this step's share of d of the weights. All of it is the chain rule
along the equations of reference.py; what the forward computed is computed again. Primes: h' and c'
are h and c after the step, and f' is the slope of f. A sum U h stands for that of U_k h_{t-d_k}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from reference import State, Weights
from reference_options import Array, Options, limited, limited_slope

StepBackward = Callable[
    [Array, Array, State, Weights, Options, Array, State],
    tuple[Array, Array, State, Weights],
]


def joined(*parts: Array) -> Array:
    return np.concatenate(parts, axis=-1)


def past_backward(past: Array, w: Weights, dv: Array) -> tuple[Array, Array]:
    """v = sum of U_k h_k: d(h_k) = U_k^T d(v), and d(U_k) = d(v) h_k^T, a sum over the rows."""
    return dv @ w.weight_hh, dv.T @ past


def preactivation_backward(
    x: Array, past: Array, w: Weights, dv: Array, dalpha: Array | None = None
) -> tuple[Array, Array, Weights]:
    """v = Wx + Uh + b, row by row: d(x), d(past), and d(W), d(U), d(b) as sums over the rows.

    v_j = sum_k W_jk x_k + ..., so d(x_k) = sum_j d(v_j) W_jk and d(W_jk) = d(v_j) x_k. The two
    biases are added to each other before anything else happens: both get d(v).
    """
    dpast, du = past_backward(past, w, dv)
    db = dv.sum(axis=0)
    return dv @ w.weight_ih, dpast, Weights(dv.T @ x, du, db, db, dalpha)


def lstm(
    x: Array,
    past: Array,
    state: State,
    w: Weights,
    o: Options,
    dy: Array,
    dstate: State,
    coupled: bool = False,
) -> tuple[Array, Array, State, Weights]:
    """q = F c + I G, c' = q limited, m = O e(c'), h' = R m; I, F, G, O are functions of v.

        I = s(v_i + p_i c);  F = s(v_f + p_f c), or 1 - I;  G = f(v_g);  O = s(v_o + p_o c')

    h' is the output and a part of the new state, so its two gradients add up. Then
        d(m) = R^T d(h');   d(R) = d(h') m^T, a sum over the rows
        d(v_o) = d(m) e(c') s'
        d(c') = what the next step says + d(m) O e'(c') + d(v_o) p_o
        d(q) = d(c') where c' is not limited, else 0
        d(v_i) = d(q) G s', coupled d(q) (G - c) s';  d(v_f) = d(q) c s';  d(v_g) = d(q) I f'
        d(c) = d(q) F + d(v_i) p_i + d(v_f) p_f
    and d(p_i) = d(v_i) c, d(p_f) = d(v_f) c, d(p_o) = d(v_o) c', as sums over the rows.
    """
    _, c = state
    blocks, p = w.split(w.preactivation(x, past)), w.peepholes()
    vi, vg = blocks[0] + p[0] * c, blocks[-2]
    i, g = o.s(vi), o.f(vg)
    forget = 1.0 - i if coupled else o.s(blocks[1] + p[1] * c)
    q = forget * c + i * g
    after = limited(q, o.cell_clip)
    vo = blocks[-1] + p[-1] * after
    m = o.s(vo) * o.e(after)

    dh = dy + dstate[0]
    dm = dh if w.weight_hr is None else dh @ w.weight_hr
    dvo = dm * o.e(after) * o.s.slope(vo)
    dq = dstate[1] + dm * o.s(vo) * o.e.slope(after) + dvo * p[-1]
    dq = dq * limited_slope(q, o.cell_clip)
    dvg = dq * i * o.f.slope(vg)
    if coupled:
        of_c = [dq * (g - c) * o.s.slope(vi)]
    else:
        of_c = [dq * g * o.s.slope(vi), dq * c * o.s.slope(blocks[1] + p[1] * c)]
    dc = dq * forget + sum(d * p_k for d, p_k in zip(of_c, p, strict=False))

    dx, dpast, dw = preactivation_backward(x, past, w, joined(*of_c, dvg, dvo))
    peephole = joined(*((d * c).sum(axis=0) for d in of_c), (dvo * after).sum(axis=0))
    dw = replace(dw, weight_hr=dh.T @ m, peephole=peephole)
    return dx, dpast, (np.zeros_like(dh), dc), dw


def gru(
    x: Array,
    past: Array,
    state: State,
    w: Weights,
    o: Options,
    dy: Array,
    dstate: State,
) -> tuple[Array, Array, State, Weights]:
    """h' = (1 - z) n + z h with n = f(a + r b), where a = W_n x + b_in and b = U_n h + b_hn.

        d(n) = d(h') (1 - z);  d(z) = d(h') (h - n);  d(a) = d(n) f'
        d(r) = d(a) b;  d(b) = d(a) r
    so that the two sides, of x and of h, differ in the last of their three blocks. d(h) of the
    update is d(h') z.
    """
    (h,) = state
    (xr, xz, xn), (hr, hz, hn) = w.split(w.of_input(x)), w.split(w.of_past(past))
    r, z, n = o.s(xr + hr), o.s(xz + hz), o.f(xn + o.s(xr + hr) * hn)
    dh = dy + dstate[0]
    dn = dh * (1.0 - z) * o.f.slope(xn + r * hn)
    dr = dn * hn * o.s.slope(xr + hr)
    dz = dh * (h - n) * o.s.slope(xz + hz)
    of_x, of_h = joined(dr, dz, dn), joined(dr, dz, dn * r)
    dpast, du = past_backward(past, w, of_h)
    dw = Weights(of_x.T @ x, du, of_x.sum(axis=0), of_h.sum(axis=0))
    return of_x @ w.weight_ih, dpast, (dh * z,), dw


def gru_reset_before(
    x: Array,
    past: Array,
    state: State,
    w: Weights,
    o: Options,
    dy: Array,
    dstate: State,
) -> tuple[Array, Array, State, Weights]:
    """h' = (1 - z) n + z h with n = f(v_n), v_n = W_n x + U_n (r h) + b_n.

    d(z), d(v_n) and d(h) of the update as in gru;  d(r h) = U_n^T d(v_n) for each delay;
    d(r) = d(r h) h, a sum over them;  d(past) = d(r h) r and what comes through r and z.
    """
    (h,) = state
    (xr, xz, xn), (hr, hz, _) = w.split(w.of_input(x)), w.split(w.of_past(past))
    r, z = o.s(xr + hr), o.s(xz + hz)
    vn = xn + w.split(w.of_past(r * past))[2]
    dh = dy + dstate[0]
    dn = dh * (1.0 - z) * o.f.slope(vn)
    dz = dh * (h - o.f(vn)) * o.s.slope(xz + hz)
    u_r, u_z, u_n = np.split(w.weight_hh, 3, axis=1)
    d_rh = dn @ u_n
    dr = (d_rh * past).sum(axis=0) * o.s.slope(xr + hr)
    dv = joined(dr, dz, dn)
    dpast = d_rh * r + dr @ u_r + dz @ u_z
    du = np.concatenate([dr.T @ past, dz.T @ past, dn.T @ (r * past)], axis=1)
    dw = Weights(dv.T @ x, du, dv.sum(axis=0), dv.sum(axis=0))
    return dv @ w.weight_ih, dpast, (dh * z,), dw


def mingru(
    x: Array,
    past: Array,
    state: State,
    w: Weights,
    o: Options,
    dy: Array,
    dstate: State,
) -> tuple[Array, Array, State, Weights]:
    """h' = (1 - z) h + z n:  d(z) = d(h') (n - h);  d(n) = d(h') z;  d(h) = d(h') (1 - z)."""
    (h,) = state
    vz, vn = np.split(w.of_input(x), 2, axis=-1)
    z, n = o.s(vz), o.f(vn)
    dh = dy + dstate[0]
    dv = joined(dh * (n - h) * o.s.slope(vz), dh * z * o.f.slope(vn))
    dw = Weights(dv.T @ x, bias_ih=dv.sum(axis=0))
    return dv @ w.weight_ih, np.zeros_like(past), (dh * (1.0 - z),), dw


def rnn(
    x: Array,
    past: Array,
    state: State,
    w: Weights,
    o: Options,
    dy: Array,
    dstate: State,
) -> tuple[Array, Array, State, Weights]:
    """h' = f(v): d(v) = d(h') f'(v)."""
    dh = dy + dstate[0]
    dv = dh * o.f.slope(w.preactivation(x, past))
    dx, dpast, dw = preactivation_backward(x, past, w, dv)
    return dx, dpast, (np.zeros_like(dh),), dw


def leaky_rate(
    x: Array,
    past: Array,
    state: State,
    w: Weights,
    o: Options,
    dy: Array,
    dstate: State,
) -> tuple[Array, Array, State, Weights]:
    """h' = a h + (1 - a) f(v).

    d(v) = d(h') (1 - a) f'(v);  d(a) = d(h') (h - f(v)), summed over the rows;  d(h) = d(h') a.
    """
    (h,) = state
    v = w.preactivation(x, past)
    dh = dy + dstate[0]
    dv = dh * (1.0 - w.alpha) * o.f.slope(v)
    dalpha = (dh * (h - o.f(v))).sum(axis=0)
    dx, dpast, dw = preactivation_backward(x, past, w, dv, dalpha)
    return dx, dpast, (dh * w.alpha,), dw


def leaky_potential(
    x: Array,
    past: Array,
    state: State,
    w: Weights,
    o: Options,
    dy: Array,
    dstate: State,
) -> tuple[Array, Array, State, Weights]:
    """u' = a u + (1 - a) v with v = Wx + U f(u) + b; the output is f(u').

    d(u') = what the next step says + d(output) f'(u');  d(v) = d(u') (1 - a);
    d(a) = d(u') (u - v);  d(u) = d(u') a, and of the past d(f(u)) f'(u).
    """
    (u,) = state
    v = w.preactivation(x, o.f(past))
    du = dstate[0] + dy * o.f.slope(w.alpha * u + (1.0 - w.alpha) * v)
    dalpha = (du * (u - v)).sum(axis=0)
    dx, dh, dw = preactivation_backward(x, o.f(past), w, du * (1.0 - w.alpha), dalpha)
    return dx, dh * o.f.slope(past), (du * w.alpha,), dw


def leaky(
    x: Array,
    past: Array,
    state: State,
    w: Weights,
    o: Options,
    dy: Array,
    dstate: State,
) -> tuple[Array, Array, State, Weights]:
    """h' = a h + (1 - a) x:  d(x) = d(h') (1 - a);  d(h) = d(h') a;  d(a) = d(h') (h - x)."""
    (h,) = state
    dh = dy + dstate[0]
    dalpha = (dh * (h - x)).sum(axis=0)
    return dh * (1.0 - w.alpha), np.zeros_like(past), (dh * w.alpha,), Weights(alpha=dalpha)


STEPS: dict[str, StepBackward] = {
    "lstm": lstm,
    "lstm_coupled": partial(lstm, coupled=True),
    "gru": gru,
    "gru_reset_before": gru_reset_before,
    "mingru": mingru,
    "rnn": rnn,
    "leaky_rate": leaky_rate,
    "leaky_potential": leaky_potential,
    "leaky": leaky,
}
