"""What all conversions share: arrays and their checks, blocks of gates, layers from their parts.

A part is one layer in one direction: its arrays by fastrnn's names without the suffix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .._activations import SIGMOID, TANH, plain
from .._arrays import Array, as_array, as_real, check_dtype, check_size, describe
from .._base import Layer
from .._structure import PLAIN_DELAYS
from ..gated import GRU, LSTM
from ..layers import RNN, Recurrent

Part = dict[str, Array]
Net = TypeVar("Net", bound=Recurrent)

# The layers that most systems have, by the row blocks of their matrices.
BY_GATES: dict[int, type[LSTM | GRU | RNN]] = {4: LSTM, 3: GRU, 1: RNN}

# Options of a layer as they are in one that has none, by what they are called for its users. A
# recurrent_mask is not among them: the weights are 0 where it is not.
_PLAIN: dict[str, Any] = {
    "proj_size": 0,
    "peephole": False,
    "clip": None,
    "cell_clip": None,
    "go_backwards": False,
    "activation": TANH,
    "gate_activation": SIGMOID,
    "output_activation": TANH,
    "delays": PLAIN_DELAYS,
    "periods": None,
}
_CELLS = {
    "lstm": "LSTM",
    "lstm_coupled": "LSTM with coupled=True",
    "gru": "GRU",
    "gru_reset_before": "GRU with reset_after=False",
    "mingru": "MinGRU",
    "rnn": "RNN",
    "leaky_rate": "LeakyRNN",
    "leaky_potential": "LeakyRNN with form='potential'",
    "leaky": "Leaky",
}


# ---- Arrays -----------------------------------------------------------------------------------


def to_array(name: str, value: Any) -> Array:
    """An array of NumPy; a tensor of PyTorch without its history and its device."""
    for step in ("detach", "cpu"):
        method = getattr(value, step, None)
        value = method() if callable(method) else value
    return as_array(name, value)


def in_one_dtype(arrays: Mapping[str, Any], dtype: Any) -> tuple[dict[str, Array], np.dtype]:
    """The arrays in `dtype`, which must hold them exactly; if None, in that which all have."""
    found = {name: to_array(name, value) for name, value in arrays.items()}
    if dtype is None:
        first, *others = found.items()
        native = first[1].dtype.newbyteorder("=")
        if native.name not in ("float32", "float64"):
            raise TypeError(
                f"{first[0]}: expected float32 or float64, got {describe(first[1])}; "
                "give dtype to convert it"
            )
        for name, array in others:
            if array.dtype.newbyteorder("=") != native:
                raise TypeError(f"{name}: expected {native} as {first[0]}, got {describe(array)}")
    else:
        native = check_dtype(dtype)
    return {name: as_real(name, array, native) for name, array in found.items()}, native


def check_axes(name: str, array: Array, axes: str, known: Mapping[str, int] | None = None) -> None:
    """An array with these axes, the sizes of some of which are known; none of them 0."""
    wanted = [(known or {}).get(axis) for axis in axes.split()]
    fits = array.ndim == len(wanted) and all(
        n >= 1 and (size is None or n == size) for n, size in zip(array.shape, wanted, strict=True)
    )
    if not fits:
        names = [
            axis if n is None else str(n) for axis, n in zip(axes.split(), wanted, strict=True)
        ]
        raise ValueError(f"{name}: expected shape [{', '.join(names)}], got {array.shape}")


def count_gates(name: str, array: Array, rows: int, hidden_size: int) -> int:
    """The gates of a matrix whose `rows` are those of all of them: 4, 3 or 1."""
    gates = rows // hidden_size
    if gates * hidden_size != rows or gates not in BY_GATES:
        raise ValueError(
            f"{name}: expected 4 (LSTM), 3 (GRU) or 1 (RNN) times {hidden_size} rows of gates, "
            f"got {rows} in shape {array.shape}"
        )
    return gates


def reordered(array: Array, order: Sequence[int], axis: int = 0) -> Array:
    """Block k of the result is block order[k] of the array, along an axis of equal blocks."""
    blocks = np.split(array, len(order), axis)
    return np.concatenate([blocks[k] for k in order], axis)


# ---- Into layers ------------------------------------------------------------------------------


def assembled(
    kind: type[Net], parts: Sequence[Part], dtype: np.dtype, *, bidirectional: bool, **options: Any
) -> Net:
    """A layer of these parts: layer 0, layer 0 reverse, layer 1, ..."""
    sizes = (
        parts[0]["weight_ih"].shape[1],
        parts[0]["weight_hh"].shape[0] // _gates(kind, options),
    )
    layer = kind(
        *sizes,
        len(parts) // (1 + bidirectional),
        bias="bias_ih" in parts[0],
        bidirectional=bidirectional,
        dtype=dtype,
        seed=0,
        **options,
    )
    suffixes = [suffix for _, suffix in layer._parts()]
    layer.load_state_dict(
        {
            name + suffix: array
            for part, suffix in zip(parts, suffixes, strict=True)
            for name, array in part.items()
        }
    )
    return layer


def _gates(kind: type[Recurrent], options: Mapping[str, Any]) -> int:
    return next((gates for gates, each in BY_GATES.items() if issubclass(kind, each)), 1)


def with_one_bias(part: Part, bias: Array | None) -> Part:
    """The part with the one bias that a system has, if it has it, as the input's."""
    biases = {} if bias is None else {"bias_ih": bias, "bias_hh": np.zeros_like(bias)}
    return part | biases


def checked_direction(direction: Any, count: int, one: str, two: str) -> bool:
    """Whether there are two directions: by the size of the weights' axis, which must fit a name."""
    if count not in (1, 2):
        raise ValueError(f"direction: expected weights of 1 or 2 directions, got {count}")
    expected = (one, two)[count - 1]
    if direction not in (None, expected):
        raise ValueError(
            f"direction: expected {expected!r} with weights of {count}, got {direction!r}; "
            "a layer that only reads backwards is one that reads forwards, with x and y turned "
            "round in time"
        )
    return count == 2


# ---- Out of layers ----------------------------------------------------------------------------


def check_exportable(
    layer: Any, system: str, cells: Sequence[str], allowed: Sequence[str] = ()
) -> None:
    """The layer is of one of these cells, and has no options but those allowed."""
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected a layer of fastrnn, got {describe(layer)}")
    if layer._cell not in cells:
        raise ValueError(f"layer: {system} has no {_CELLS[layer._cell]}")
    for name, default in _PLAIN.items():
        value = getattr(layer, name)
        if name not in allowed and value != default:
            if name.endswith("activation"):
                default, value = plain(default), plain(value)
            raise ValueError(
                f"{_shown(name, layer)}: {system} has none but {default!r}, got {value!r}"
            )


def _shown(option: str, layer: Layer) -> str:
    """What an option is called for users of the layer."""
    if option == "activation" and layer._cell == "rnn":
        return "nonlinearity"
    return "dilations" if option == "delays" and layer._dilated else option


def parts_of(layer: Any) -> list[Part]:
    """The parts of a layer, in order."""
    parameters = layer.parameters()
    suffixes = [suffix for _, suffix in layer._parts()]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole", "alpha")
    return [
        {name: parameters[name + s] for name in names if name + s in parameters} for s in suffixes
    ]


def parts_at(layer: Any, index: Any) -> list[Part]:
    """The parts, one for each direction, of one of the stacked layers."""
    if index != 0:
        check_size("index", index)
    if isinstance(index, bool) or index >= layer.num_layers:
        raise ValueError(f"index: expected 0 to {layer.num_layers - 1}, got {index!r}")
    directions = 1 + layer.bidirectional
    return parts_of(layer)[index * directions : (index + 1) * directions]


def one_bias(part: Part) -> Array | None:
    """The sum of the two biases, or None."""
    return part["bias_ih"] + part["bias_hh"] if "bias_ih" in part else None
