"""The plain leaky unit: a running average with one time constant per unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from . import init
from ._arrays import Array, as_array, as_input, check_choice, check_size
from ._base import Layer


class Leaky(Layer):
    """Leaky units without weights: a bank of running averages.

        mu_t = a * mu_{t-1} + (1 - a) * v_t

    with a = alpha in [0, 1], the *retention* of each unit: 0 copies the input, 1 never changes. It
    is `scipy.signal.lfilter([1 - a], [1, -a], v)` with a constant per unit, and the exponential
    moving average of pandas with `adjust=False` but for the first step: mu starts from the state,
    zero by default.

    Args:
        hidden_size: H, units.
        alpha: a scalar or one value per unit.
        batch_first: v is [B, T, H] instead of [T, B, H].
        parallel: None, or "time" to spread the time axis over vector lanes. That is several times
            faster on fewer channels than lanes, and may differ in the last bits; the default keeps
            the same bits however the sequence is cut.
        dtype: float32 or float64.

    Its one parameter is alpha [H].

    Source: Goodfellow, Bengio and Courville (2016), section 10.9.2.

    Example:
        >>> y, state = Leaky(2, alpha=[0.5, 0.0])(np.ones((3, 2), np.float32))
        >>> y.tolist()
        [[0.5, 1.0], [0.75, 1.0], [0.875, 1.0]]
    """

    _cell = "leaky"

    def __init__(
        self,
        hidden_size: int,
        *,
        alpha: Any = 0.9,
        batch_first: bool = False,
        parallel: str | None = None,
        dtype: Any = np.float32,
    ) -> None:
        check_size("hidden_size", hidden_size)
        super().__init__(hidden_size, hidden_size, batch_first, dtype)
        self._check_sizes()
        self.parallel = check_choice("parallel", parallel, (None, "time"))
        self._set_parameter("alpha", init.checked_alpha(alpha, self.hidden_size, self.dtype))

    def _in_parts(self, arrays: Mapping[str, Array]) -> list[tuple[Array | None, ...]]:
        return [(None, None, None, None, arrays["alpha"], None, None)]

    def _state_shapes(self, batch: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        return ((*batch, self.hidden_size),)

    @property
    def _parallel_time(self) -> bool:  # type: ignore[override]
        return self.parallel == "time"

    @classmethod
    def from_leak_rate(cls, hidden_size: int, *, leak_rate: Any, **options: Any) -> Self:
        """From a leak rate in [0, 1]: alpha = 1 - leak_rate (pandas' `ewm(alpha=leak_rate)`)."""
        return cls(hidden_size, alpha=init.alpha_from_leak_rate(leak_rate), **options)

    @classmethod
    def from_tau(
        cls, hidden_size: int, *, tau: Any, dt: Any = 1.0, method: str = "exact", **options: Any
    ) -> Self:
        """From a time constant and the step in the same unit of time; see `init.alpha_from_tau`."""
        return cls(hidden_size, alpha=init.alpha_from_tau(tau, dt, method), **options)

    @classmethod
    def from_half_life(cls, hidden_size: int, *, half_life: Any, **options: Any) -> Self:
        """From the steps in which half of the state is forgotten: alpha = 2^(-1/half_life)."""
        return cls(hidden_size, alpha=init.alpha_from_half_life(half_life), **options)

    def __repr__(self) -> str:
        low, high = self.alpha.min(), self.alpha.max()
        options = [f"alpha={low:g}" if low == high else f"alpha={low:g}..{high:g}"]
        options += ["batch_first=True"] if self.batch_first else []
        options += [f"parallel={self.parallel!r}"] if self.parallel else []
        options += [f"dtype={self.dtype.name}"] if self.dtype != np.float32 else []
        return f"Leaky({self.hidden_size}, {', '.join(options)})"


def leaky(
    v: Any,
    alpha: Any,
    state: Any = None,
    *,
    out: Array | None = None,
    parallel: str | None = None,
) -> tuple[Array, Array]:
    """The leaky unit as a function: mu_t = alpha * mu_{t-1} + (1 - alpha) * v_t.

    Args:
        v: [T, B, C], or [T, C] for one sequence; anything but float32 is taken as float64.
        alpha: retention in [0, 1], a scalar or one value per channel [C].
        state: mu before the first step, [B, C] or [C]; zeros if None.
        out: an array for the result; must not overlap v.
        parallel: None or "time", as of `Leaky`.

    Returns:
        mu at every step, in the shape of v, and mu after the last step.

    Raises:
        TypeError, ValueError: if an argument does not fit.

    Example:
        >>> mu, state = leaky(np.ones((3, 1)), 0.5)
        >>> mu.ravel().tolist()
        [0.5, 0.75, 0.875]
    """
    array = as_array("v", v)
    single = array.dtype.newbyteorder("=") == np.float32
    array = as_input("v", array, np.dtype(np.float32 if single else np.float64))
    if array.ndim not in (2, 3) or array.shape[-1] < 1:
        raise ValueError(f"v: expected [T, B, C] or [T, C], got shape {array.shape}")
    layer = Leaky(array.shape[-1], alpha=alpha, parallel=parallel, dtype=array.dtype)
    y, final = layer(array, state, out=out)
    assert not isinstance(final, tuple)
    return y, final
