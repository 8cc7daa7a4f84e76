"""The right answer of a case, by NumPy.

A forward is compared with good NumPy in float32, a training step with plain NumPy in float64. What
a training step gives is named: y, and "d" with a name for the gradient of x, h0, c0 or a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from .. import _numpy_rnn
from .cases import FORWARD, Case
from .numpy_gru import numpy_gru

Arrays = dict[str, np.ndarray]

# How far an array may be off, relative to its largest value, for its time to be reported.
TOLERANCE = 1e-4


def numpy_forward(case: Case) -> _numpy_rnn.Forward:
    """Return the good NumPy implementation of a case with a product."""
    make = {
        "lstm": _numpy_rnn.numpy_lstm,
        "gru": numpy_gru,
        "rnn": _numpy_rnn.numpy_rnn,
        "leaky_rnn": _numpy_rnn.numpy_leaky_rnn,
    }[case.cell]
    return make(case.parameters())


def reference(case: Case) -> Arrays:
    """Return what every engine must give, by name."""
    p = {name: a.astype(np.float64) for name, a in case.parameters().items()}
    x = case.x()
    if case.mode == FORWARD:
        if case.cell != "leaky":
            return {"y": numpy_forward(case)(x)[0]}
        (start,) = case.state()
        return {"y": _scan(p["alpha"], 0.0 * start, (1 - p["alpha"]) * x)}
    state = tuple(a.astype(np.float64) for a in case.state())
    arguments = p, x.astype(np.float64), state, case.dy().astype(np.float64)
    found = _leaky(*arguments) if case.cell == "leaky" else _recurrent(case.cell, *arguments)
    return {name: array.astype(np.float32) for name, array in found.items()}


def difference(found: Mapping[str, np.ndarray], expected: Arrays) -> dict[str, float]:
    """Return how far each array is off, relative to the largest value expected in it."""
    return {
        name: float(np.max(np.abs(found[name].reshape(e.shape) - e)) / np.max(np.abs(e)))
        for name, e in expected.items()
    }


def _scan(alpha: np.ndarray, start: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return s_t = alpha * s_{t-1} + rows_t for all t, s before the first being start."""
    one = rows[0].size == 1
    # One channel as Python numbers: a NumPy operation on each of a million steps is slow.
    a, first, steps = (v.ravel().tolist() if one else v for v in (alpha, start, rows))
    a, first = (a[0], first[0]) if one else (a, first)
    values = accumulate(steps, lambda s, row: a * s + row, initial=first)
    return np.array(list(values)[1:]).reshape(rows.shape)


def _leaky(p: Arrays, x: np.ndarray, state: tuple[np.ndarray, ...], dy: np.ndarray) -> Arrays:
    """h_t = a * h_{t-1} + (1 - a) * x_t, and back: dh_t = dy_t + a * dh_{t+1}."""
    a, (h0,) = p["alpha"], state
    y = _scan(a, h0, (1 - a) * x)
    dh = _scan(a, 0.0 * h0, dy[::-1])[::-1]
    before = np.concatenate([h0[None], y[:-1]])
    dalpha = (dh * (before - x)).sum((0, 1))
    return {"y": y, "dx": (1 - a) * dh, "dh0": a * dh[0], "dalpha": dalpha}


def _recurrent(
    cell: str, p: Arrays, x: np.ndarray, state: tuple[np.ndarray, ...], dy: np.ndarray
) -> Arrays:
    """The loops of a cell over time, between the products that need none."""
    w, u = p["weight_ih_l0"], p["weight_hh_l0"]
    z = x @ w.T + p["bias_ih_l0"] + p["bias_hh_l0"]
    found: Arrays = {}
    du = None  # the gradient of U h + b_hh where it is not that of z
    if cell == "gru":
        start = state[0][0]
        y, dz, du, found["dh0"] = _gru_loops(z - p["bias_hh_l0"], u, p["bias_hh_l0"], start, dy)
    elif cell == "lstm":
        y, dz, found["dh0"], found["dc0"] = _lstm_loops(z, u, state[0][0], state[1][0], dy)
    else:
        alpha = p.get("alpha_l0", np.zeros(u.shape[1]))  # with zeros it is a plain RNN
        y, dz, found["dh0"], dalpha = _leaky_rnn_loops(z, u, alpha, state[0][0], dy)
        if "alpha_l0" in p:
            found["dalpha_l0"] = dalpha
    before = np.concatenate([state[0], y[:-1]])
    du = dz if du is None else du
    return found | {
        "y": y,
        "dx": dz @ w,
        "dweight_ih_l0": np.tensordot(dz, x, ((0, 1), (0, 1))),
        "dweight_hh_l0": np.tensordot(du, before, ((0, 1), (0, 1))),
        "dbias_ih_l0": dz.sum((0, 1)),
        "dbias_hh_l0": du.sum((0, 1)),
    }


def _lstm_loops(
    z: np.ndarray, u: np.ndarray, h: np.ndarray, c: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return y, dz [T, B, 4H] and the gradients of h and c, given z = Wx + b."""
    y, gates, cells = np.empty_like(dy), np.empty_like(z), [c]
    for t, z_t in enumerate(z):
        i, f, g, o = np.split(z_t + h @ u.T, 4, axis=-1)
        i, f, o = (0.5 + 0.5 * np.tanh(0.5 * v) for v in (i, f, o))
        g = np.tanh(g)
        c = f * c + i * g
        y[t] = h = o * np.tanh(c)
        gates[t] = np.concatenate([i, f, g, o], axis=-1)
        cells.append(c)
    dz, dh, dc = np.empty_like(z), 0.0 * h, 0.0 * c
    for t in reversed(range(len(z))):
        i, f, g, o = np.split(gates[t], 4, axis=-1)
        tanh_c = np.tanh(cells[t + 1])
        dh = dh + dy[t]
        dc = dc + dh * o * (1 - tanh_c**2)
        parts = (
            dc * g * i * (1 - i),
            dc * cells[t] * f * (1 - f),
            dc * i * (1 - g**2),
            dh * tanh_c * o * (1 - o),
        )
        dz[t] = np.concatenate(parts, axis=-1)
        dh, dc = dz[t] @ u, dc * f
    return y, dz, dh[None], dc[None]


def _gru_loops(
    z: np.ndarray, u: np.ndarray, b_hh: np.ndarray, h: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return y, dz and du [T, B, 3H] and the gradient of h, given z = Wx + b_ih.

    du is the gradient of Uh + b_hh, of which r scales the part of n.
    """
    y, gates, products, before = np.empty_like(dy), np.empty_like(z), [], []
    for t, z_t in enumerate(z):
        before.append(h)
        z_r, z_u, z_n = np.split(z_t, 3, axis=-1)
        u_r, u_u, u_n = np.split(h @ u.T + b_hh, 3, axis=-1)
        r, keep = (0.5 + 0.5 * np.tanh(0.5 * v) for v in (z_r + u_r, z_u + u_u))
        products.append(u_n)
        n = np.tanh(z_n + r * u_n)
        y[t] = h = (1 - keep) * n + keep * h
        gates[t] = np.concatenate([r, keep, n], axis=-1)
    dz, du, dh = np.empty_like(z), np.empty_like(z), 0.0 * h
    for t in reversed(range(len(z))):
        r, keep, n = np.split(gates[t], 3, axis=-1)
        dh = dh + dy[t]
        dn = dh * (1 - keep) * (1 - n**2)
        dr = dn * products[t] * r * (1 - r)
        dkeep = dh * (before[t] - n) * keep * (1 - keep)
        dz[t] = np.concatenate([dr, dkeep, dn], axis=-1)
        du[t] = np.concatenate([dr, dkeep, dn * r], axis=-1)
        dh = dh * keep + du[t] @ u
    return y, dz, du, dh[None]


def _leaky_rnn_loops(
    z: np.ndarray, u: np.ndarray, alpha: np.ndarray, h: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return y, dz [T, B, H] and the gradients of h and alpha, given z = Wx + b."""
    y, f, before = np.empty_like(dy), np.empty_like(z), np.empty_like(dy)
    for t, z_t in enumerate(z):
        before[t] = h
        f[t] = np.tanh(z_t + h @ u.T)
        y[t] = h = alpha * h + (1 - alpha) * f[t]
    dz, dh, dalpha = np.empty_like(z), 0.0 * h, 0.0 * alpha
    for t in reversed(range(len(z))):
        dh = dh + dy[t]
        dalpha += (dh * (before[t] - f[t])).sum(0)
        dz[t] = (1 - alpha) * dh * (1 - f[t] ** 2)
        dh = alpha * dh + dz[t] @ u
    return y, dz, dh[None], dalpha
