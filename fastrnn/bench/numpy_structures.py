"""What time structures must compute: a loop in NumPy in float64, and runs of interleaved steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .._structure import even_sizes

Parameters = Mapping[str, np.ndarray]


def loop(
    cell: str,
    parameters: Parameters,
    x: np.ndarray,
    delays: Sequence[int] = (1,),
    periods: Sequence[int] | None = None,
) -> np.ndarray:
    """Return y of an "rnn", "lstm" or "gru" with delays, or with clocks in equal groups, in
    float64 and from zeros."""
    p = {name: array.astype(np.float64) for name, array in parameters.items()}
    ends = ["", *(f"_d{delay}" for delay in delays[1:])]
    recurrent = [p["weight_hh_l0" + end] for end in ends]
    units = recurrent[0].shape[1]
    of_unit = None
    if periods is not None:
        of_unit = np.repeat(periods, even_sizes(units, len(periods)))
        connected = np.tile(of_unit >= of_unit[:, None], (len(recurrent[0]) // units, 1))
        recurrent = [np.where(connected, matrix, 0.0) for matrix in recurrent]
    step = _STEPS[cell]
    none = np.zeros((x.shape[1], units))
    past, cells = [none] * delays[-1], [none] * delays[0]
    y = np.empty((*x.shape[:2], units))
    for t, z in enumerate(x @ p["weight_ih_l0"].T + p["bias_ih_l0"]):
        u = p["bias_hh_l0"] + sum(
            past[-delay] @ matrix.T for delay, matrix in zip(delays, recurrent, strict=True)
        )
        h, c = step(z, u, past[-delays[0]], cells[0])
        if of_unit is not None:
            active = t % of_unit == 0
            h, c = np.where(active, h, past[-1]), np.where(active, c, cells[0])
        past, cells = [*past[1:], h], [*cells[1:], c]
        y[t] = h
    return y


def interleaved(run: Callable[[np.ndarray], np.ndarray], x: np.ndarray, delay: int) -> np.ndarray:
    """Return y of a single delay: what `run` gives for every delay-th step, from each of the first
    ones on.

    >>> interleaved(lambda x: np.cumsum(x, axis=0), np.ones(5), 2)
    array([1., 1., 2., 2., 3.])
    """
    runs = [run(x[first::delay]) for first in range(min(delay, len(x)))]
    y = np.empty((len(x), *runs[0].shape[1:]), runs[0].dtype)
    for first, part in enumerate(runs):
        y[first::delay] = part
    return y


def _sigmoid(v: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * v)


_Pair = tuple[np.ndarray, np.ndarray]

# Of each cell: h and c, of Wx + b_ih, of Uh + b_hh, and of h and c before.


def _rnn(z: np.ndarray, u: np.ndarray, h: np.ndarray, c: np.ndarray) -> _Pair:
    return np.tanh(z + u), c


def _lstm(z: np.ndarray, u: np.ndarray, h: np.ndarray, c: np.ndarray) -> _Pair:
    i, f, g, o = np.split(z + u, 4, axis=-1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru(z: np.ndarray, u: np.ndarray, h: np.ndarray, c: np.ndarray) -> _Pair:
    (z_r, z_k, z_n), (u_r, u_k, u_n) = (np.split(v, 3, axis=-1) for v in (z, u))
    keep = _sigmoid(z_k + u_k)
    return (1 - keep) * np.tanh(z_n + _sigmoid(z_r + u_r) * u_n) + keep * h, c


_STEPS: dict[str, Callable[..., _Pair]] = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}
