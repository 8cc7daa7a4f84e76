"""snnTorch: the membrane of its Leaky neuron, without the spikes.

    snnTorch:  mem_t = beta mem_{t-1} + x_t
    fastrnn:   mu_t = alpha mu_{t-1} + (1 - alpha) v_t

beta is alpha, but the input has no gain of 1 - beta: mu = mem if v = x / (1 - beta).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arrays import Array, check_dtype, check_size, describe
from ..leaky import Leaky
from ._parts import check_exportable, to_array


class ScaledLeaky(NamedTuple):
    """A layer and what its input is to be multiplied by: `y, state = layer(x * input_factor)`."""

    layer: Leaky
    input_factor: Array  # [H], of the layer's dtype


def from_snntorch(
    source: Any, hidden_size: int | None = None, *, batch_first: bool = False, dtype: Any = None
) -> ScaledLeaky:
    """A Leaky layer for the membrane of `snntorch.Leaky` where no spike resets it.

        mem_t = beta * mem_{t-1} + x_t

    Args:
        source: beta, one number or [H]; values below 0 count as 0, as in snnTorch. Or a
            `snntorch.Leaky` with reset_mechanism "none", of which beta is taken.
        hidden_size: H, needed if beta is one number.
        batch_first: as of the layer.
        dtype: float32 or float64; None for float32.

    Returns:
        The layer, whose y and state are mem, and the factor 1 / (1 - beta) of its input.

    Raises:
        TypeError: if the source is another neuron of snnTorch.
        ValueError: for beta of 1 or more, a sum without a leak; for another reset_mechanism, as
            fastrnn has no spikes; for state_quant; if hidden_size is needed or does not fit.

    Example:
        >>> layer, factor = from_snntorch(0.5, 1)
        >>> y, mem = layer(np.ones((3, 1), np.float32) * factor)
        >>> y.ravel().tolist()
        [1.0, 1.5, 1.75]
    """
    native = check_dtype(np.float32 if dtype is None else dtype)
    beta = to_array("beta", _beta_of(source)).astype(np.float64)
    if beta.ndim > 1 or beta.size == 0:
        raise ValueError(f"beta: expected one number or [H], got shape {beta.shape}")
    if hidden_size is None:
        if beta.size == 1 and beta.ndim == 0:
            raise ValueError("hidden_size: needed for a beta of one number")
        hidden_size = beta.size
    check_size("hidden_size", hidden_size)
    if beta.size not in (1, hidden_size):
        raise ValueError(f"beta: expected one number or [{hidden_size}], got shape {beta.shape}")
    alpha = np.maximum(np.broadcast_to(beta.reshape(-1), hidden_size), 0).astype(native)
    if not np.all(alpha < 1):
        raise ValueError(
            f"beta: expected less than 1, got {beta.max()}: a sum without a leak is no Leaky"
        )
    layer = Leaky(hidden_size, alpha=alpha, batch_first=batch_first, dtype=native)
    return ScaledLeaky(layer, 1 / (1 - alpha))


def _beta_of(source: Any) -> Any:
    module = type(source).__module__
    if not module.startswith("snntorch."):
        if callable(source):
            raise TypeError(f"source: expected beta or a snntorch.Leaky, got {describe(source)}")
        return source
    if type(source).__name__ != "Leaky":
        raise TypeError(f"source: expected a snntorch.Leaky, got {type(source).__name__}")
    reset = source.reset_mechanism
    if reset != "none":
        raise ValueError(
            f"reset_mechanism: expected 'none', got {reset!r}: fastrnn has no spikes; give beta "
            "for the membrane between them"
        )
    if source.state_quant:
        raise ValueError("state_quant: expected False")
    return source.beta


def to_snntorch(layer: Leaky) -> tuple[Array, Array]:
    """beta for `snntorch.Leaky(beta, reset_mechanism="none")`, and the factor of its input, both
    [H]: its mem for x * factor is the layer's y for x.

    Example:
        >>> to_snntorch(Leaky(1, alpha=0.75))
        (array([0.75], dtype=float32), array([0.25], dtype=float32))
    """
    check_exportable(layer, "snnTorch", ("leaky",))
    return layer.alpha.copy(), 1 - layer.alpha
