"""OpenVINO: the operations LSTMSequence-5, GRUSequence-5 and RNNSequence-5.

            W             R             B                                   gates
    LSTM    [D, 4H, I]    [D, 4H, H]    [D, 4H]                             f i c o
    GRU     [D, 3H, I]    [D, 3H, H]    [D, 3H]; with linear_before_reset   z r h
                                        [D, 4H]: z, r, the input's h,
                                        the recurrent h
    RNN     [D, H, I]     [D, H, H]     [D, H]

A bias is the sum of the input's and the recurrent one. X is [B, T, I], and Y [B, D, T, H], where a
layer's y is [B, T, D * H]; states are [B, D, H].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

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
    parts_at,
    reordered,
    with_one_bias,
)

# fastrnn's gates, by their places in OpenVINO; each order leads back, too.
_ORDERS = {4: (1, 0, 2, 3), 3: (1, 0, 2), 1: (0,)}

# The activations of the operations, and for which argument of a layer each is, with the default.
_FUNCTIONS = ("tanh", "sigmoid", "relu")
_ROLES: dict[int, dict[str, str]] = {
    4: {"gate_activation": "sigmoid", "activation": "tanh", "output_activation": "tanh"},
    3: {"gate_activation": "sigmoid", "activation": "tanh"},
    1: {"nonlinearity": "tanh"},
}


def from_openvino(
    W: Any,
    R: Any,
    B: Any,
    *,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str | None = None,
    dtype: Any = None,
) -> LSTM | GRU | RNN:
    """A layer from the inputs W, R and B of a LSTMSequence, GRUSequence or RNNSequence.

    Which of the three it is, and a GRU's linear_before_reset, are found from the shapes. The result
    has `batch_first`.

    Args:
        W, R, B: arrays in the shapes above. Those of the operations for one step, as LSTMCell, are
            the same without D: give them as W[None].
        activations: the operation's attribute: "tanh", "sigmoid" or "relu", for LSTM those of
            gates, candidate and output, for GRU of gates and candidate; None for the operation's
            default.
        clip: the operation's attribute, which limits what goes into the activations but the
            output's; None or 0 for none.
        direction: the operation's: "forward" or "bidirectional", or None for what the shapes say.
        dtype: float32 or float64; None for that of the arrays.

    Raises:
        TypeError: if a dtype does not fit.
        ValueError: if a shape does not fit; for direction "reverse"; for other activations.

    Example:
        >>> W, R, B = np.ones((1, 6, 3)), np.ones((1, 6, 2)), np.ones((1, 8))
        >>> from_openvino(W, R, B)
        GRU(3, 2, batch_first=True, dtype=float64)
        >>> from_openvino(W, R, B[:, :6])
        GRU(3, 2, reset_after=False, batch_first=True, dtype=float64)
    """
    arrays, native = in_one_dtype({"W": W, "R": R, "B": B}, dtype)
    check_axes("R", arrays["R"], "directions rows H")
    count, rows, hidden = arrays["R"].shape
    two = checked_direction(direction, count, "forward", "bidirectional")
    gates = count_gates("R", arrays["R"], rows, hidden)
    check_axes("W", arrays["W"], "directions rows I", {"directions": count, "rows": rows})
    apart = gates == 3 and arrays["B"].shape[-1:] == (4 * hidden,)
    width = rows + apart * hidden
    check_axes("B", arrays["B"], "directions rows", {"directions": count, "rows": width})
    options = _functions(gates, activations)
    if clip:
        options["clip"] = clip
    if gates == 3:
        options["reset_after"] = apart
    parts = []
    for w, r, b in zip(*arrays.values(), strict=True):
        order = _ORDERS[gates]
        part: Part = {"weight_ih": reordered(w, order), "weight_hh": reordered(r, order)}
        part = with_one_bias(part, reordered(b[:rows], order))
        if apart:
            part["bias_hh"][-hidden:] = b[rows:]
        parts.append(part)
    return assembled(BY_GATES[gates], parts, native, bidirectional=two, batch_first=True, **options)


def _functions(gates: int, activations: Any) -> dict[str, Any]:
    """The activations as arguments of the layer."""
    roles = _ROLES[gates]
    given = list(roles.values()) if activations is None else list(activations)
    if len(given) != len(roles):
        raise ValueError(f"activations: expected {len(roles)} names, got {given}")
    checked = [check_choice("activations", each, _FUNCTIONS) for each in given]
    return dict(zip(roles, checked, strict=True))


def to_openvino(layer: LSTM | GRU | RNN, index: int = 0) -> tuple[Array, Array, Array]:
    """The inputs W, R and B of OpenVINO's operation for a layer; see `from_openvino`.

    Its attributes are the layer's: hidden_size, direction "forward" or "bidirectional",
    activations, clip, and for GRU linear_before_reset = reset_after. A layer without biases gets
    zeros.

    Args:
        layer: an LSTM, GRU or RNN.
        index: which one of the stack, 0 for the lowest.

    Raises:
        TypeError, ValueError: if OpenVINO has no such layer, naming what it does not have.

    Example:
        >>> import fastrnn
        >>> [array.shape for array in to_openvino(fastrnn.LSTM(3, 2, bidirectional=True))]
        [(2, 8, 3), (2, 8, 2), (2, 8)]
    """
    names = ("activation", "gate_activation", "output_activation")
    cells = ("lstm", "gru", "gru_reset_before", "rnn")
    check_exportable(layer, "OpenVINO", cells, (*names, "clip"))
    for name in names:
        if getattr(layer, name)[0] not in _FUNCTIONS:
            raise ValueError(f"{name}: OpenVINO has no {getattr(layer, name)!r}")
    order = _ORDERS[layer._gates]
    rows: list[list[Array]] = [[], [], []]
    for part in parts_at(layer, index):
        zeros = np.zeros(layer._gates * layer.hidden_size, layer.dtype)
        bias = one_bias(part)
        bias = zeros if bias is None else bias
        if layer._cell == "gru":
            hidden = layer.hidden_size
            last = [part.get(name, zeros)[-hidden:] for name in ("bias_ih", "bias_hh")]
            both = reordered(bias, order)[: 2 * hidden]
            b = np.concatenate([both, *last])
        else:
            b = reordered(bias, order)
        rows[0].append(reordered(part["weight_ih"], order))
        rows[1].append(reordered(part["weight_hh"], order))
        rows[2].append(b)
    W, R, B = map(np.stack, rows)
    return W, R, B
