"""Activation functions as arguments and in files, and the limits of what goes into them.

An argument is a name, or a tuple of the name and its parameters; inside it is always a tuple
(name, alpha, beta), 0.0 where the function has no such parameter. The functions themselves are
those of csrc/fastrnn.h.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Activation = tuple[str, float, float]

# The parameters that a function has, by their defaults. Where systems differ, as PyTorch and Keras
# have them: the hard sigmoid of ONNX is (0.2, 0.5).
DEFAULTS: dict[str, tuple[float, ...]] = {
    "tanh": (),
    "relu": (),
    "identity": (),
    "sigmoid": (),
    "hard_sigmoid": (1 / 6, 1 / 2),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}
NOT_NEGATIVE = ("leaky_relu", "thresholded_relu", "elu")

TANH: Activation = ("tanh", 0.0, 0.0)
SIGMOID: Activation = ("sigmoid", 0.0, 0.0)
IDENTITY: Activation = ("identity", 0.0, 0.0)


def checked_activation(argument: str, value: Any) -> Activation:
    """(name, alpha, beta) of a name or of a tuple with parameters, as the argument `argument`.

    Example:
        >>> checked_activation("nonlinearity", "leaky_relu")
        ('leaky_relu', 0.01, 0.0)
        >>> checked_activation("nonlinearity", ("scaled_tanh", 1.7, 0.6))
        ('scaled_tanh', 1.7, 0.6)
    """
    name, *given = value if _is_row(value) else (value,)
    if not isinstance(name, str):
        raise TypeError(
            f"{argument}: expected a name, or a tuple of a name and its parameters, got {value!r}"
        )
    if name not in DEFAULTS:
        raise ValueError(
            f"{argument}: expected one of {', '.join(map(repr, DEFAULTS))}, got {name!r}"
        )
    defaults = DEFAULTS[name]
    numbers = [finite(argument, parameter) for parameter in given]
    if len(numbers) > 2 or any(numbers[len(defaults) :]):
        raise ValueError(f"{argument}: {name} takes {len(defaults)} parameters, got {value!r}")
    known = numbers[: len(defaults)]
    alpha, beta, *_ = (*known, *defaults[len(known) :], 0.0, 0.0)
    if name in NOT_NEGATIVE and alpha < 0:
        raise ValueError(f"{argument}: expected an alpha of at least 0, got {value!r}")
    if name == "scaled_tanh" and alpha == 0:
        raise ValueError(f"{argument}: expected an alpha other than 0, got {value!r}")
    return name, alpha, beta


def _is_row(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) > 0


def finite(argument: str, value: Any) -> float:
    """A finite number as a float."""
    real = (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, real):
        raise TypeError(f"{argument}: expected a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{argument}: expected a finite number, got {value!r}")
    return float(value)


def plain(activation: Activation) -> str | tuple[Any, ...]:
    """The shortest argument that gives this activation.

    Example:
        >>> plain(("elu", 1.0, 0.0)), plain(("elu", 0.5, 0.0))
        ('elu', ('elu', 0.5))
    """
    name, *parameters = activation
    defaults = DEFAULTS[name]
    known = tuple(parameters[: len(defaults)])
    return name if known == defaults else (name, *known)


def as_text(activation: Activation) -> str:
    """As model files have it: parameters in hexadecimal, so that none is rounded.

    Example:
        >>> as_text(("tanh", 0.0, 0.0)), as_text(("hard_sigmoid", 0.25, 0.5))
        ('tanh', 'hard_sigmoid(0x1.0000000000000p-2, 0x1.0000000000000p-1)')
    """
    name, *parameters = activation
    known = [value.hex() for value in parameters[: len(DEFAULTS[name])]]
    return f"{name}({', '.join(known)})" if known else name


def checked_clip(argument: str, value: Any) -> float | None:
    """A limit > 0, or None for none."""
    if value is None:
        return None
    limit = finite(argument, value)
    if limit <= 0:
        raise ValueError(f"{argument}: expected None or a number > 0, got {value!r}")
    return limit
