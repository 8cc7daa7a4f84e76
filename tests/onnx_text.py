"""ONNX's text of LSTM, GRU and RNN in float64, one row and one step at a time, quite plainly.

It shares nothing with fastrnn, not even an order of gates: the witness of the conventions. Where
the text leaves a choice it is that of `fastrnn.onnx`'s documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Function = Callable[[Array], Array]


def sigmoid(v: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-v))


# f(v, alpha, beta), and the defaults of the parameters that it has
FUNCTIONS: dict[str, tuple[Callable[..., Array], tuple[Any, ...]]] = {
    "relu": (lambda v: np.maximum(v, 0), ()),
    "tanh": (np.tanh, ()),
    "sigmoid": (sigmoid, ()),
    "softsign": (lambda v: v / (1 + abs(v)), ()),
    "softplus": (lambda v: np.logaddexp(v, 0), ()),
    "leakyrelu": (lambda v, a: np.where(v >= 0, v, a * v), (0.01,)),
    "thresholdedrelu": (lambda v, a: np.where(v > a, v, 0), (1.0,)),
    "elu": (lambda v, a: np.where(v >= 0, v, a * (np.exp(np.minimum(v, 0)) - 1)), (1.0,)),
    "hardsigmoid": (lambda v, a, b: np.minimum(np.maximum(a * v + b, 0), 1), (0.2, 0.5)),
    "affine": (lambda v, a, b: a * v + b, (None, None)),
    "scaledtanh": (lambda v, a, b: a * np.tanh(b * v), (None, None)),
}
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def functions(op: str, attributes: Mapping[str, Any], directions: int) -> list[list[Function]]:
    """f, g, h of each direction. Each takes the next alpha and beta of the lists if it has one."""
    names = attributes.get("activations", DEFAULTS[op] * directions)
    alphas = iter(attributes.get("activation_alpha", ()))
    betas = iter(attributes.get("activation_beta", ()))
    found: list[Function] = []
    for name in names:
        function, defaults = FUNCTIONS[name.lower()]
        values = [
            float(np.float32(next(given, default)))
            for given, default in zip((alphas, betas), defaults, strict=False)
        ]
        found.append(lambda v, function=function, values=values: function(v, *values))
    each = len(found) // directions
    return [found[d * each : (d + 1) * each] for d in range(directions)]


def run(
    op: str,
    attributes: Mapping[str, Any],
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Sequence[int] | None = None,
    h: Array | None = None,
    c: Array | None = None,
    p: Array | None = None,
) -> list[Array]:
    """Y, Y_h and for LSTM Y_c of a node, in float64."""
    batchwise = attributes.get("layout", 0) == 1
    x = np.asarray(x, np.float64)
    x = x.swapaxes(0, 1) if batchwise else x  # [T, B, I]
    steps, rows, _ = x.shape
    directions, _, hidden = r.shape
    lengths = [steps] * rows if lengths is None else lengths
    y = np.zeros((steps, directions, rows, hidden))
    finals = np.zeros((2, directions, rows, hidden))
    for state, given in zip(finals, (h, c), strict=True):
        if given is not None:
            state[...] = given.swapaxes(0, 1) if batchwise else given
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    order = backwards[attributes.get("direction", "forward")]
    bias = np.zeros((directions, 2 * w.shape[1])) if b is None else b.astype(np.float64)
    for d, fs in enumerate(functions(op, attributes, directions)):
        step = STEPS[op](attributes, fs, w[d], r[d], bias[d], None if p is None else p[d])
        for row in range(rows):
            times = range(lengths[row])
            for t in reversed(times) if order[d] else times:
                finals[:, d, row] = step(x[t, row], finals[0, d, row], finals[1, d, row])
                y[t, d, row] = finals[0, d, row]
    outputs = [y.transpose(2, 0, 1, 3) if batchwise else y]
    outputs += [f.swapaxes(0, 1) if batchwise else f for f in finals[: 1 + (op == "LSTM")]]
    return outputs


def _limit(attributes: Mapping[str, Any], function: Function) -> Function:
    clip = attributes.get("clip")
    if clip is None:
        return function
    clip = float(np.float32(clip))
    return lambda v: function(np.minimum(np.maximum(v, -clip), clip))


def _parts(w: Array, r: Array, bias: Array, gates: int) -> list[tuple[Array, ...]]:
    """W, R, Wb, Rb of each gate, in ONNX's order."""
    w, r, bias = (np.asarray(a, np.float64) for a in (w, r, bias))
    of_w, of_r = bias[: len(w)], bias[len(w) :]
    split = (np.split(a, gates) for a in (w, r, of_w, of_r))
    return list(zip(*split, strict=True))


def lstm(
    attributes: Mapping[str, Any], fs: list[Function], w: Array, r: Array, b: Array, p: Any
) -> Callable[..., tuple[Array, Array]]:
    input_gate, output_gate, forget_gate, cell_gate = _parts(w, r, b, 4)
    f, g = _limit(attributes, fs[0]), _limit(attributes, fs[1])
    peep_i, peep_o, peep_f = np.zeros((3, 1)) if p is None else np.split(p.astype(np.float64), 3)

    def plain(gate: tuple[Array, ...], x: Array, h: Array) -> Array:
        return gate[0] @ x + gate[1] @ h + gate[2] + gate[3]

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        i = f(plain(input_gate, x, h) + peep_i * c)
        forget = f(plain(forget_gate, x, h) + peep_f * c)
        if attributes.get("input_forget", 0):
            forget = 1 - i
        new = forget * c + i * g(plain(cell_gate, x, h))
        o = f(plain(output_gate, x, h) + peep_o * new)
        return o * fs[2](new), new

    return step


def gru(
    attributes: Mapping[str, Any], fs: list[Function], w: Array, r: Array, b: Array, p: Any
) -> Callable[..., tuple[Array, Array]]:
    (wz, rz, wbz, rbz), (wr, rr, wbr, rbr), (wh, rh, wbh, rbh) = _parts(w, r, b, 3)
    f, g = _limit(attributes, fs[0]), _limit(attributes, fs[1])

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        z = f(wz @ x + rz @ h + wbz + rbz)
        reset = f(wr @ x + rr @ h + wbr + rbr)
        if attributes.get("linear_before_reset", 0):
            new = g(wh @ x + reset * (rh @ h + rbh) + wbh)
        else:
            new = g(wh @ x + rh @ (reset * h) + rbh + wbh)
        return (1 - z) * new + z * h, c

    return step


def rnn(
    attributes: Mapping[str, Any], fs: list[Function], w: Array, r: Array, b: Array, p: Any
) -> Callable[..., tuple[Array, Array]]:
    ((wi, ri, wb, rb),) = _parts(w, r, b, 1)
    f = _limit(attributes, fs[0])

    def step(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        return f(wi @ x + ri @ h + wb + rb), c

    return step


STEPS = {"LSTM": lstm, "GRU": gru, "RNN": rnn}
