"""Initial values: PyTorch's uniform weights, biases of gates, retentions from other conventions.

Everywhere in fastrnn `alpha` is the *retention* of a leaky unit, the weight of its past:

    h_t = alpha * h_{t-1} + (1 - alpha) * v_t

(Goodfellow, Bengio and Courville 2016, section 10.9.2). The functions here convert from what other
systems call the same thing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._activations import finite
from ._arrays import Array, check_choice, check_size


def uniform(
    rng: np.random.Generator, shape: tuple[int, ...], hidden_size: int, dtype: Any
) -> Array:
    """Uniform on [-1/sqrt(H), 1/sqrt(H)], the default of PyTorch's recurrent layers.

    Example:
        >>> w = uniform(np.random.default_rng(0), (80, 3), 20, np.float32)
        >>> bool(abs(w).max() <= 20 ** -0.5)
        True
    """
    bound = hidden_size**-0.5
    return rng.uniform(-bound, bound, shape).astype(dtype)


def chrono(
    hidden_size: int, t_min: float, t_max: float, rng: int | np.random.Generator | None = None
) -> Array:
    """Biases of gates that keep the past, for time scales T uniform on [t_min, t_max] steps.

        b = log(T - 1), so that sigmoid(b) = 1 - 1/T

    with 1 < t_min <= t_max; the paper's range is t_min = 2, t_max the longest dependency. A gate
    that is the weight of the new gets -b, as sigmoid(-b) = 1/T. `chrono=(t_min, t_max)` of LSTM,
    GRU and MinGRU sets their biases so.

    Source: Tallec and Ollivier (2018), "Can recurrent neural networks warp time?".

    Example:
        >>> b = chrono(1000, 2, 50, rng=0)
        >>> scales = 1 + np.exp(b)
        >>> bool(2 <= scales.min() < 3), bool(49 < scales.max() <= 50)
        (True, True)
    """
    low, high = checked_scales((t_min, t_max))
    return np.log(np.random.default_rng(rng).uniform(low - 1, high - 1, hidden_size))


def checked_scales(chrono: Any) -> tuple[float, float]:
    """(t_min, t_max) in steps, as the argument `chrono`."""
    if not isinstance(chrono, (tuple, list)) or len(chrono) != 2:
        raise TypeError(f"chrono: expected a tuple (t_min, t_max), got {chrono!r}")
    low, high = (finite("chrono", value) for value in chrono)
    if not 1 < low <= high:
        raise ValueError(f"chrono: expected 1 < t_min <= t_max, got {chrono!r}")
    return low, high


def _numbers(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected a number or an array of numbers, got {value!r}")
    return array.astype(np.float64)


def _checked(name: str, value: Any, low: float, high: float) -> Array:
    array = _numbers(name, value)
    if not np.all((array >= low) & (array <= high)):
        raise ValueError(f"{name}: expected values in [{low:g}, {high:g}], got {value!r}")
    return array


def alpha_from_leak_rate(leak_rate: Any) -> Array:
    """Retention of a unit that leaks `leak_rate` in [0, 1] of itself each step: 1 - leak_rate.

    The convention of reservoir computing (Jaeger et al. 2007).

    Example:
        >>> float(alpha_from_leak_rate(0.25))
        0.75
    """
    return 1.0 - _checked("leak_rate", leak_rate, 0, 1)


def alpha_from_tau(tau: Any, dt: Any = 1.0, method: str = "exact") -> Array:
    """Retention of a unit of time constant `tau`, stepped by `dt` (both > 0, in the same unit).

    tau dh/dt = v - h, either solved over a step with v held, alpha = exp(-dt / tau)
    (`method="exact"`), or by one explicit Euler step, alpha = 1 - dt / tau (`method="euler"`, which
    needs dt <= tau).

    Example:
        >>> float(alpha_from_tau(20.0, dt=5.0, method="euler"))
        0.75
        >>> round(float(alpha_from_tau(20.0, dt=5.0)), 6)
        0.778801
    """
    check_choice("method", method, ("exact", "euler"))
    tiny = np.nextafter(0.0, 1.0)
    tau, dt = _checked("tau", tau, tiny, np.inf), _checked("dt", dt, tiny, np.inf)
    if method == "exact":
        return np.exp(-dt / tau)
    return 1.0 - _checked("dt / tau", dt / tau, 0, 1)


def alpha_from_half_life(half_life: Any) -> Array:
    """Retention of a unit that forgets half of its state in `half_life` > 0 steps.

    alpha = 2^(-1/half_life). The `halflife` of pandas' `ewm`.

    Example:
        >>> float(alpha_from_half_life(1))
        0.5
    """
    return 0.5 ** (1.0 / _checked("half_life", half_life, np.nextafter(0.0, 1.0), np.inf))


def time_constants(hidden_size: int, low: float, high: float, spacing: str = "log") -> Array:
    """Retentions [H] of units whose time constants spread over a range.

        alpha = exp(-1 / tau), tau from `low` to `high` steps

    so that dependencies of every length in the range have units of their time scale.

    Args:
        hidden_size: H, units.
        low, high: the first and the last tau, in steps, 0 < low <= high; of one unit it is low.
        spacing: "log" for equal ratios of tau, "linear" for equal differences.

    Source: Mozer (1992), "Induction of multiscale temporal structure"; Goodfellow, Bengio and
    Courville (2016), section 10.9.2.

    Example:
        >>> alpha = time_constants(3, 1, 100)
        >>> (-1 / np.log(alpha)).round(6).tolist()
        [1.0, 10.0, 100.0]
    """
    check_size("hidden_size", hidden_size)
    check_choice("spacing", spacing, ("log", "linear"))
    first, last = finite("low", low), finite("high", high)
    if not 0 < first <= last:
        raise ValueError(f"low: expected 0 < low <= high, got {low!r} and {high!r}")
    spread = np.geomspace if spacing == "log" else np.linspace
    return np.exp(-1 / spread(first, last, hidden_size))


def checked_alpha(alpha: Any, hidden_size: int, dtype: np.dtype) -> Array:
    """A new array [H] of `dtype` from a scalar or one value per unit, each in [0, 1]."""
    array = _numbers("alpha", alpha)
    if array.shape not in ((), (hidden_size,)):
        raise ValueError(f"alpha: expected a scalar or shape ({hidden_size},), got {array.shape}")
    if not np.all((array >= 0) & (array <= 1)):
        raise ValueError("alpha: expected values in [0, 1] (retention, the weight of the past)")
    return np.array(np.broadcast_to(array, (hidden_size,)), dtype)
