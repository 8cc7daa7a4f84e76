"""The gated leak: a running average whose retention is given at every step."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core
from ._arrays import Array, as_array, as_input, as_real, check_choice, check_out


def gated_leaky(
    alpha: Any,
    v: Any,
    state: Any = None,
    *,
    out: Array | None = None,
    parallel: str | None = None,
) -> tuple[Array, Array]:
    """The leaky unit with a retention for every step, the linear core of gated nets:

        y_t = alpha_t * y_{t-1} + (1 - alpha_t) * v_t

    alpha is the weight of the past: minGRU's z is 1 - alpha, the forget gates of QRNN (f-pooling)
    and SRU are alpha. It is not checked to lie in [0, 1]: whatever it holds is computed with.

    Args:
        alpha: [T, B, H], or [T, H] for one sequence. `np.broadcast_to` spreads fewer values over
            steps or rows without a copy.
        v: in the shape of alpha; anything but float32 is taken as float64. The other arrays must
            fit in that dtype.
        state: y before the first step, [B, H] or [H]; zeros if None.
        out: an array for y; must not overlap alpha or v.
        parallel: None, or "time" to spread the time axis over vector lanes where there are so few
            channels that they would stay empty. That may differ in the last bits; the default has
            the same bits for any batch, any cut of the sequence and any instruction set.

    Returns:
        y at every step, in the shape of v, and y after the last step (the state if T is 0).

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing has been computed then.

    Source: Feng et al. (2024), "Were RNNs all we needed?"; Bradbury et al. (2017), "Quasi-recurrent
    neural networks"; Lei et al. (2018), "Simple recurrent units for highly parallelizable
    recurrence".

    Example:
        >>> alpha = np.array([[0.5], [0.0], [0.75]])
        >>> y, state = gated_leaky(alpha, np.array([[4.0], [8.0], [0.0]]))
        >>> y.ravel().tolist(), state.tolist()
        ([2.0, 8.0, 6.0], [6.0])
    """
    check_choice("parallel", parallel, (None, "time"))
    alpha, v = _inputs(alpha, v)
    final = _state("state", state, v)
    y = np.empty(v.shape, v.dtype) if out is None else check_out(out, v.shape, v.dtype)
    _core.gated_leaky(alpha, v, final, y, parallel == "time")
    return y, final


def gated_leaky_backward(
    alpha: Any,
    v: Any,
    y: Any,
    dy: Any,
    state: Any = None,
    dstate: Any = None,
    *,
    parallel: str | None = None,
) -> tuple[Array, Array, Array]:
    """The exact gradients of a loss through `gated_leaky`: with g_t = dy_t + alpha_{t+1} g_{t+1}

        dv_t = (1 - alpha_t) * g_t        dalpha_t = g_t * (y_{t-1} - v_t)

    A long sequence may be cut: its last stretch goes first, the `dstate` that it returns is that
    of the stretch before, and the state of a stretch is the y of the step before it.

    Args:
        alpha, v, state: as of the forward.
        y: what the forward returned.
        dy: the gradient of the loss with respect to y, in its shape; None for zeros.
        dstate: likewise of the final state, [B, H] or [H]; zeros if None. A loss that sees only the
            last step may give its gradient here, and None for dy.
        parallel: as of the forward.

    Returns:
        dalpha and dv in the shape of v, and dstate, the gradient with respect to the state before
        the first step. A gradient that fades below 2^-100 (float64: 2^-900) on its way through
        time becomes 0.

    Raises:
        TypeError, ValueError: if an argument does not fit; nothing has been computed then.

    Source: Werbos (1990).

    Example:
        >>> alpha, v = np.full((2, 1), 0.5), np.array([[4.0], [8.0]])
        >>> y, state = gated_leaky(alpha, v)  # 2, 5
        >>> dalpha, dv, dstate = gated_leaky_backward(alpha, v, y, None, dstate=np.ones(1))
        >>> dalpha.ravel().tolist(), dv.ravel().tolist(), dstate.tolist()
        ([-2.0, -6.0], [0.25, 0.5], [0.25])
    """
    check_choice("parallel", parallel, (None, "time"))
    alpha, v = _inputs(alpha, v)
    y = _like(v, "y", y)
    dy = None if dy is None else _like(v, "dy", dy)
    initial, carry = _state("state", state, v), _state("dstate", dstate, v)
    dalpha, dv = np.empty(v.shape, v.dtype), np.empty(v.shape, v.dtype)
    _core.gated_leaky_backward(alpha, v, y, initial, dy, dalpha, dv, carry, parallel == "time")
    return dalpha, dv, carry


def _inputs(alpha: Any, v: Any) -> tuple[Array, Array]:
    """alpha and v as the kernels read them; v decides on the dtype and the shape."""
    array = as_array("v", v)
    single = array.dtype.newbyteorder("=") == np.float32
    array = as_input("v", array, np.dtype(np.float32 if single else np.float64))
    if array.ndim not in (2, 3):
        raise ValueError(f"v: expected [T, B, H] or [T, H], got shape {array.shape}")
    return _like(array, "alpha", alpha), array


def _like(v: Array, name: str, value: Any) -> Array:
    array = as_input(name, value, v.dtype)
    if array.shape != v.shape:
        raise ValueError(f"{name}: expected shape {v.shape}, as v has, got {array.shape}")
    return array


def _state(name: str, value: Any, v: Array) -> Array:
    """A state as an array that may be written to."""
    if value is None:
        return np.zeros(v.shape[1:], v.dtype)
    array = as_real(name, value, v.dtype)
    if array.shape != v.shape[1:]:
        raise ValueError(f"{name}: expected shape {v.shape[1:]}, got {array.shape}")
    return np.array(array, v.dtype, order="C")
