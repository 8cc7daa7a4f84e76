"""reservoirpy: its Reservoir, a recurrent net of leaky units with fixed random weights.

    internal:  h_t = (1 - lr) h_{t-1} + lr f(W h_{t-1} + Win x_t + bias)
    external:  r_t = (1 - lr) r_{t-1} + lr (W h_{t-1} + Win x_t + bias),  h_t = f(r_t)

lr is the leak rate, 1 - alpha. The first is LeakyRNN of form "rate", the second of form
"potential". reservoirpy 0.4 has the first only, 0.3 had both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import init
from .._activations import checked_activation
from .._arrays import Array, check_choice, describe
from ..layers import LeakyRNN
from ._parts import (
    check_axes,
    check_exportable,
    in_one_dtype,
    one_bias,
    parts_of,
    to_array,
    with_one_bias,
)

_FORMS = {"internal": "rate", "external": "potential"}
_ACTIVATIONS = ("tanh", "sigmoid", "relu", "identity", "softplus")


def from_reservoirpy(
    reservoir: Any = None,
    *,
    W: Any = None,
    Win: Any = None,
    bias: Any = None,
    lr: Any = None,
    activation: str | None = None,
    equation: str | None = None,
    dtype: Any = None,
) -> LeakyRNN:
    """A LeakyRNN that computes what `Reservoir.run` of reservoirpy computes.

    Args:
        reservoir: a `reservoirpy.nodes.Reservoir` of version 0.4 that has been initialized, by
            running it or by `initialize`; or None, and all that follows.
        W: [H, H]; Win: [H, I]; bias: [H], [H, 1] or one number. Dense, or sparse of SciPy.
        lr: the leak rate, one number or [H].
        activation: "tanh", "sigmoid", "relu", "identity" or "softplus".
        equation: "internal" or "external".
        dtype: float32 or float64; None for that of W and Win.

    Returns:
        A layer with alpha = 1 - lr, and `run(x)` is its y for x [T, I] from a zero state.

    Raises:
        TypeError: if the reservoir is another node or of another version, or for another dtype.
        ValueError: if it is not initialized; if something is missing, or given twice; if a shape
            does not fit; for a leak rate outside [0, 1]; for other activations.

    Example:
        >>> W, Win = np.eye(2) / 2, np.ones((2, 3))
        >>> options = {"activation": "tanh", "equation": "internal"}
        >>> from_reservoirpy(W=W, Win=Win, bias=0.0, lr=0.25, **options)
        LeakyRNN(3, 2, alpha=0.75, dtype=float64)
    """
    given = {"W": W, "Win": Win, "bias": bias, "lr": lr}
    given |= {"activation": activation, "equation": equation}
    if reservoir is not None:
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name}: expected None for a reservoir, which tells it")
        given = _of_node(reservoir)
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise ValueError(f"reservoir: without one, {', '.join(missing)} are needed too")
    form = _FORMS[check_choice("equation", given["equation"], tuple(_FORMS))]
    function = check_choice("activation", given["activation"], _ACTIVATIONS)
    matrices = {name: _dense(given[name]) for name in ("W", "Win")}
    arrays, native = in_one_dtype(matrices, dtype)
    check_axes("W", arrays["W"], "units units")
    units = arrays["W"].shape[0]
    check_axes("W", arrays["W"], "units units", {"units": units})
    check_axes("Win", arrays["Win"], "units I", {"units": units})
    b = to_array("bias", _dense(given["bias"]))
    if b.shape not in ((), (1,), (units,), (units, 1)):
        raise ValueError(f"bias: expected one number, [{units}] or [{units}, 1], got {b.shape}")
    rate = to_array("lr", given["lr"])
    if rate.shape not in ((), (units,)):
        raise ValueError(f"lr: expected one number or [{units}], got shape {rate.shape}")
    layer = LeakyRNN(
        arrays["Win"].shape[1],
        units,
        alpha=init.alpha_from_leak_rate(rate),
        nonlinearity=checked_activation("activation", function),
        form=form,
        dtype=native,
        seed=0,
    )
    values = np.broadcast_to(b.reshape(-1), units).astype(native)
    part = {"weight_ih": arrays["Win"], "weight_hh": arrays["W"]}
    part = with_one_bias(part, values)
    layer.load_state_dict({f"{name}_l0": array for name, array in part.items()}, strict=False)
    return layer


def _dense(value: Any) -> Any:
    return value.toarray() if hasattr(value, "toarray") else value


def _of_node(node: Any) -> dict[str, Any]:
    """The arguments that a node stands for."""
    module = type(node).__module__
    if type(node).__name__ != "Reservoir" or not module.startswith("reservoirpy."):
        raise TypeError(f"reservoir: expected a reservoirpy Reservoir, got {describe(node)}")
    if hasattr(node, "noise_rc"):
        raise TypeError(
            "reservoir: expected one of reservoirpy 0.4, got one of 0.3, with noise and feedback; "
            "give W, Win, bias, lr, activation and equation"
        )
    if not getattr(node, "initialized", False):
        raise ValueError("reservoir: not initialized yet; run it, or call initialize")
    function = node.activation
    name = getattr(function, "__name__", None)
    # A function of the user may have the name of one of reservoirpy's.
    if "reservoirpy." not in getattr(function, "__module__", "") or name not in _ACTIVATIONS:
        raise ValueError(
            f"activation: expected one of reservoirpy's {', '.join(_ACTIVATIONS)}, got {function!r}"
        )
    given = {name: getattr(node, name) for name in ("W", "Win", "bias", "lr")}
    return given | {"activation": name, "equation": "internal"}


def to_reservoirpy(layer: LeakyRNN) -> dict[str, Any]:
    """The arguments of `reservoirpy.nodes.Reservoir` for a LeakyRNN of form "rate".

    Returns:
        W, Win, bias, lr, activation and dtype: `Reservoir(**to_reservoirpy(layer))`.

    Raises:
        TypeError, ValueError: if reservoirpy has no such node, naming what it does not have.

    Example:
        >>> arguments = to_reservoirpy(LeakyRNN(3, 2, alpha=0.75))
        >>> arguments["lr"], arguments["activation"], arguments["Win"].shape
        (array([0.25, 0.25], dtype=float32), 'tanh', (2, 3))
    """
    check_exportable(layer, "reservoirpy", ("leaky_rate",), ("activation",))
    if layer.num_layers > 1 or layer.bidirectional:
        raise ValueError(f"layer: expected one layer in one direction, got {layer!r}")
    name = layer.activation[0]
    if name not in _ACTIVATIONS:
        raise ValueError(f"nonlinearity: reservoirpy has no {layer.activation!r}")
    (part,) = parts_of(layer)
    bias: Array | None = one_bias(part)
    return {
        "W": part["weight_hh"].copy(),
        "Win": part["weight_ih"].copy(),
        "bias": np.zeros(layer.hidden_size, layer.dtype) if bias is None else bias,
        "lr": 1 - part["alpha"],
        "activation": name,
        "dtype": layer.dtype.type,
    }
