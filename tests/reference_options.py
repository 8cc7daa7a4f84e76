"""The options of the float64 oracle: functions of one number with their slopes, and limits.

What a slope is where there is none, at a kink: relu, leaky relu, thresholded relu and elu take the
one from the left; a limit passes nothing on where the value is at it or beyond.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


# ---- Limits -----------------------------------------------------------------------------------


def limited(v: Array, limit: float | None) -> Array:
    """v, held within [-limit, limit]."""
    return v if not limit else np.clip(v, -limit, limit)


def limited_slope(v: Array, limit: float | None) -> Array:
    return np.ones_like(v) if not limit else np.where(np.abs(v) < limit, 1.0, 0.0)


# ---- Functions --------------------------------------------------------------------------------


def sigmoid(v: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-v) = inf gives the right 0
        return 1.0 / (1.0 + np.exp(-v))


def sigmoid_slope(v: Array) -> Array:
    """s(v) s(-v), which is s (1 - s) without the cancellation."""
    return sigmoid(v) * sigmoid(-v)


def tanh_slope(v: Array) -> Array:
    return 1.0 - np.tanh(v) ** 2


def line(v: Array, a: float, b: float) -> Array:
    return a * v + b


def within(v: Array, low: float, high: float) -> Array:
    return (low < v) & (v < high)


def exp_below_zero(v: Array) -> Array:
    """exp(v) where v < 0, else 1."""
    return np.exp(np.minimum(v, 0.0))


@dataclass(frozen=True)
class Kind:
    """f(v, alpha, beta), its derivative with respect to v, and what alpha and beta default to."""

    value: Callable[[Array, float, float], Array]
    slope: Callable[[Array, float, float], Array]
    defaults: tuple[float, ...] = ()


KINDS = {
    "tanh": Kind(lambda v, a, b: np.tanh(v), lambda v, a, b: tanh_slope(v)),
    "relu": Kind(lambda v, a, b: np.maximum(v, 0.0), lambda v, a, b: np.where(v > 0.0, 1.0, 0.0)),
    "identity": Kind(lambda v, a, b: v, lambda v, a, b: np.ones_like(v)),
    "sigmoid": Kind(lambda v, a, b: sigmoid(v), lambda v, a, b: sigmoid_slope(v)),
    "hard_sigmoid": Kind(
        lambda v, a, b: np.clip(line(v, a, b), 0.0, 1.0),
        lambda v, a, b: np.where(within(line(v, a, b), 0.0, 1.0), a, 0.0),
        (1 / 6, 1 / 2),
    ),
    "affine": Kind(line, lambda v, a, b: np.full_like(v, a), (1.0, 0.0)),
    "leaky_relu": Kind(
        lambda v, a, b: np.where(v > 0.0, v, a * v),
        lambda v, a, b: np.where(v > 0.0, 1.0, a),
        (0.01,),
    ),
    "thresholded_relu": Kind(
        lambda v, a, b: np.where(v <= a, 0.0, v),
        lambda v, a, b: np.where(v > a, 1.0, 0.0),
        (1.0,),
    ),
    "scaled_tanh": Kind(
        lambda v, a, b: a * np.tanh(b * v), lambda v, a, b: a * b * tanh_slope(b * v), (1.0, 1.0)
    ),
    "elu": Kind(
        lambda v, a, b: np.where(v > 0.0, v, a * np.expm1(np.minimum(v, 0.0))),
        lambda v, a, b: np.where(v > 0.0, 1.0, a * exp_below_zero(v)),
        (1.0,),
    ),
    "softsign": Kind(
        lambda v, a, b: v / (1.0 + np.abs(v)), lambda v, a, b: (1.0 / (1.0 + np.abs(v))) ** 2
    ),
    "softplus": Kind(lambda v, a, b: np.logaddexp(v, 0.0), lambda v, a, b: sigmoid(v)),
}


@dataclass(frozen=True)
class Function:
    """A kind with its parameters, of a value that is limited first."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0
    limit: float | None = None

    def __call__(self, v: Array) -> Array:
        return KINDS[self.name].value(limited(v, self.limit), self.alpha, self.beta)

    def slope(self, v: Array) -> Array:
        inside = KINDS[self.name].slope(limited(v, self.limit), self.alpha, self.beta)
        return inside * limited_slope(v, self.limit)


def normalised(given: Any) -> tuple[str, float, float]:
    """A name, (name, alpha) or (name, alpha, beta), with the defaults filled in."""
    name, *some = (given,) if isinstance(given, str) else given
    values = [*some, *KINDS[name].defaults[len(some) :], 0.0, 0.0]
    return name, float(values[0]), float(values[1])


# ---- Options of a cell ------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """f, s and e of the equations in csrc/fastrnn.h, and the limit of an LSTM's cell."""

    f: Function
    s: Function
    e: Function
    cell_clip: float | None = None


def options(
    cell: str,
    activation: Any = None,
    gate_activation: Any = "sigmoid",
    output_activation: Any = "tanh",
    clip: float | None = None,
    cell_clip: float | None = None,
    nonlinearity: Any = None,
) -> Options:
    """From the arguments of a layer; nonlinearity is another name of activation."""
    given = nonlinearity if activation is None else activation
    if given is None:
        given = "identity" if cell == "mingru" else "tanh"
    return Options(
        Function(*normalised(given), clip),
        Function(*normalised(gate_activation), clip),
        Function(*normalised(output_activation)),
        cell_clip,
    )
