"""oneDNN: the primitives vanilla_rnn, lstm, gru and lbr_gru, forward.

    weights_layer         [L, D, I, G, H]    "ldigo", or [L, D, G, H, I] "ldgoi"
    weights_iter          [L, D, H, G, H]    likewise; with a projection P values instead of the
                                             first H
    bias                  [L, D, G, H]       lbr_gru has four: u, r, the input's o, the recurrent o
    weights_peephole      [L, D, 3, H]       i f o
    weights_projection    [L, D, H, P]       "ldio" with ldigo, [L, D, P, H] "ldoi" with ldgoi

The gates are i f c o of lstm, and u r o of gru, with u the weight of the old state. With one
direction a layer of the stack reads the one below, and I is the same for all. With two, oneDNN runs
a whole stack in each direction and joins only the outputs of the last layers: no fastrnn layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._activations import checked_activation
from .._arrays import Array, check_choice
from ..gated import GRU, LSTM
from ..layers import RNN
from ._parts import (
    BY_GATES,
    Part,
    assembled,
    check_axes,
    check_exportable,
    checked_direction,
    count_gates,
    in_one_dtype,
    one_bias,
    parts_of,
    reordered,
    with_one_bias,
)

# fastrnn's gates, by their places in oneDNN; each order leads back, too.
_ORDERS = {4: (0, 1, 2, 3), 3: (1, 0, 2), 1: (0,)}
_LAYOUTS = ("ldigo", "ldgoi")
_FUNCTIONS = ("tanh", "relu", "leaky_relu", "sigmoid")


def from_onednn(
    weights_layer: Any,
    weights_iter: Any,
    bias: Any,
    *,
    weights_peephole: Any = None,
    weights_projection: Any = None,
    layout: str = "ldigo",
    activation: Any = None,
    direction: str | None = None,
    dtype: Any = None,
) -> LSTM | GRU | RNN:
    """A layer from the weights of one of oneDNN's RNN primitives.

    Which primitive it is is found from the shapes: 4 gates of lstm, 3 with 4 biases of lbr_gru
    (reset_after), 3 of gru, 1 of vanilla_rnn.

    Args:
        weights_layer, weights_iter, bias, weights_peephole, weights_projection: arrays in the
            shapes above.
        layout: that of the matrices, "ldigo" or "ldgoi".
        activation: of vanilla_rnn, whose weights do not tell it: "tanh", "relu" (for an alpha
            other than 0 ("leaky_relu", alpha)) or "sigmoid" (oneDNN's logistic); else None.
        direction: "unidirectional_left2right" or "bidirectional_concat", or None for what the
            shapes say.
        dtype: float32 or float64; None for that of the arrays.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape does not fit; for a stack of more than one layer with two directions;
            for other directions; if activation is needed, or given where there is none.

    Example:
        >>> arrays = np.ones((1, 1, 3, 3, 2)), np.ones((1, 1, 2, 3, 2)), np.ones((1, 1, 4, 2))
        >>> from_onednn(*arrays)
        GRU(3, 2, dtype=float64)
    """
    check_choice("layout", layout, _LAYOUTS)
    given = {"weights_layer": weights_layer, "weights_iter": weights_iter, "bias": bias}
    optional = {"weights_peephole": weights_peephole, "weights_projection": weights_projection}
    given |= {name: value for name, value in optional.items() if value is not None}
    arrays, native = in_one_dtype(given, dtype)
    if layout == "ldgoi":
        for name in ("weights_layer", "weights_iter"):
            check_axes(name, arrays[name], "L D G H I")
            arrays[name] = arrays[name].transpose(0, 1, 4, 2, 3)
        if weights_projection is not None:
            check_axes("weights_projection", arrays["weights_projection"], "L D P H")
            arrays["weights_projection"] = arrays["weights_projection"].transpose(0, 1, 3, 2)
    w = arrays["weights_layer"]
    check_axes("weights_layer", w, "L D I G H")
    layers, directions, inputs, gates, hidden = w.shape
    known = {"L": layers, "D": directions, "I": inputs, "G": gates, "H": hidden, "3": 3}
    two = checked_direction(
        direction, directions, "unidirectional_left2right", "bidirectional_concat"
    )
    if two and layers > 1:
        raise ValueError(
            f"weights_layer: {layers} layers of two directions are two separate stacks in oneDNN, "
            "which are no layer of fastrnn"
        )
    gates = count_gates("weights_layer", w, gates * hidden, hidden)
    outputs = hidden
    if weights_projection is not None or weights_peephole is not None:
        name = "weights_projection" if weights_projection is not None else "weights_peephole"
        if gates != 4:
            raise ValueError(f"{name}: expected None for {gates} gates, which are no lstm")
    if weights_projection is not None:
        check_axes("weights_projection", arrays["weights_projection"], "L D H P", known)
        outputs = arrays["weights_projection"].shape[3]
    if weights_peephole is not None:
        check_axes("weights_peephole", arrays["weights_peephole"], "L D 3 H", known)
    known["O"] = outputs
    check_axes("weights_iter", arrays["weights_iter"], "L D O G H", known)
    if layers > 1:
        check_axes("weights_layer", w, "L D O G H", known)
    apart = gates == 3 and arrays["bias"].ndim == 4 and arrays["bias"].shape[2] == 4
    check_axes("bias", arrays["bias"], "L D G H", known | {"G": gates + apart})
    options = _options(gates, apart, activation)
    if gates == 4:
        options |= {"proj_size": outputs if weights_projection is not None else 0}
        options |= {"peephole": weights_peephole is not None}
    places = [(layer, d) for layer in range(layers) for d in range(directions)]
    parts = [_part({name: a[at] for name, a in arrays.items()}, gates) for at in places]
    return assembled(BY_GATES[gates], parts, native, bidirectional=two, **options)


def _options(gates: int, apart: bool, activation: Any) -> dict[str, Any]:
    if gates > 1:
        if activation is not None:
            raise ValueError(f"activation: expected None for {gates} gates, got {activation!r}")
        return {"reset_after": apart} if gates == 3 else {}
    if activation is None:
        raise ValueError("activation: needed for vanilla_rnn, whose weights do not tell it")
    function = checked_activation("activation", activation)
    check_choice("activation", function[0], _FUNCTIONS)
    return {"nonlinearity": function}


def _part(arrays: dict[str, Array], gates: int) -> Part:
    """From the arrays of one layer and direction, [I, G, H] the matrices."""
    hidden, order = arrays["bias"].shape[-1], _ORDERS[gates]
    part: Part = {
        ours: reordered(arrays[name].reshape(-1, gates * hidden).T, order)
        for ours, name in (("weight_ih", "weights_layer"), ("weight_hh", "weights_iter"))
    }
    bias = arrays["bias"]
    part = with_one_bias(part, reordered(bias[:gates].reshape(-1), order))
    if len(bias) > gates:
        part["bias_hh"][-hidden:] = bias[gates]
    if "weights_peephole" in arrays:
        part["peephole"] = arrays["weights_peephole"].reshape(-1)
    if "weights_projection" in arrays:
        part["weight_hr"] = arrays["weights_projection"].T
    return part


def to_onednn(layer: LSTM | GRU | RNN, *, layout: str = "ldigo") -> dict[str, Array]:
    """The weights for oneDNN's primitive, as arguments of `from_onednn`, without layout.

    A layer without biases gets zeros, which oneDNN must have. vanilla_rnn takes its activation and
    alpha with the primitive.

    Raises:
        TypeError, ValueError: if oneDNN has no such layer, naming what it does not have; that is
            also float64, a stack whose layers differ in I, and a stack with two directions.

    Example:
        >>> import fastrnn
        >>> {name: a.shape for name, a in to_onednn(fastrnn.RNN(3, 2)).items()}
        {'weights_layer': (1, 1, 3, 1, 2), 'weights_iter': (1, 1, 2, 1, 2), 'bias': (1, 1, 1, 2)}
    """
    check_choice("layout", layout, _LAYOUTS)
    allowed = ["proj_size", "peephole"]
    if getattr(layer, "_cell", "") == "rnn" and layer.activation[0] in _FUNCTIONS:
        allowed.append("activation")
    cells = ("lstm", "gru", "gru_reset_before", "rnn")
    check_exportable(layer, "oneDNN", cells, allowed)
    if layer.dtype != np.float32:
        raise TypeError(f"layer: oneDNN has float32, got {layer.dtype}")
    outputs = layer.proj_size or layer.hidden_size
    if layer.num_layers > 1 and layer.bidirectional:
        raise ValueError("bidirectional: oneDNN has it for one layer, not for a stack")
    if layer.num_layers > 1 and layer.input_size != outputs:
        raise ValueError(
            f"input_size: expected {outputs}, that of the layers above, got {layer.input_size}"
        )
    gates, hidden = layer._gates, layer.hidden_size
    order = _ORDERS[gates]
    lead = (layer.num_layers, 1 + layer.bidirectional)
    found: dict[str, list[Array]] = {}
    for part in parts_of(layer):
        for ours, name in (("weight_ih", "weights_layer"), ("weight_hh", "weights_iter")):
            matrix = reordered(part[ours], order).reshape(gates, hidden, -1)
            plain = matrix if layout == "ldgoi" else matrix.transpose(2, 0, 1)
            found.setdefault(name, []).append(plain)
        zeros = np.zeros(gates * hidden, layer.dtype)
        bias = one_bias(part)
        rows = reordered(zeros if bias is None else bias, order).reshape(gates, hidden)
        if layer._cell == "gru":
            last = [part.get(name, zeros)[-hidden:] for name in ("bias_ih", "bias_hh")]
            rows = np.concatenate([rows[:2], last])
        found.setdefault("bias", []).append(rows)
        if layer.peephole:
            found.setdefault("weights_peephole", []).append(part["peephole"].reshape(3, hidden))
        if layer.proj_size:
            projection = part["weight_hr"] if layout == "ldgoi" else part["weight_hr"].T
            found.setdefault("weights_projection", []).append(projection)
    return {name: np.stack(a).reshape(*lead, *a[0].shape) for name, a in found.items()}
