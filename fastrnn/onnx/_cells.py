"""The conventions of ONNX's three operators: orders of gates, activations, attributes.

Both directions of translation use the tables here. A node's arrays are W [D, G * H, I],
R [D, G * H, H], B [D, 2 * G * H] (that of W, then that of R) and P [D, 3 * H].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from .._activations import Activation
from .._arrays import Array
from .._base import Layer
from ..gated import GRU, LSTM
from ..layers import RNN
from ._graph import Graph, Op

# For each gate of ours, in our order, the block of rows in which ONNX has it.
ROWS = {
    "lstm": (0, 2, 3, 1),  # i f g o out of i o f c
    "lstm_coupled": (0, 3, 1),  # i g o
    "gru": (1, 0, 2),  # r z n out of z r h
    "rnn": (0,),
}
PEEPHOLES = {
    "lstm": (0, 2, 1),  # p_i p_f p_o out of i o f
    "lstm_coupled": (0, 1),
}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}  # ONNX's, also with a coupled gate

# By ONNX's name in small letters: ONNX's name, ours, and the defaults of alpha and beta, those of
# the operator of that name (None: there is none).
ACTIVATIONS: dict[str, tuple[str, str, tuple[float | None, ...]]] = {
    name.lower(): (name, ours, defaults)
    for name, ours, defaults in (
        ("Relu", "relu", ()),
        ("Tanh", "tanh", ()),
        ("Sigmoid", "sigmoid", ()),
        ("Softsign", "softsign", ()),
        ("Softplus", "softplus", ()),
        ("LeakyRelu", "leaky_relu", (0.01,)),
        ("ThresholdedRelu", "thresholded_relu", (1.0,)),
        ("Elu", "elu", (1.0,)),
        ("HardSigmoid", "hard_sigmoid", (0.2, 0.5)),
        ("Affine", "affine", (None, None)),
        ("ScaledTanh", "scaled_tanh", (None, None)),
    )
}
_LISTS = ("activation_alpha", "activation_beta", "activations")
DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}

# Versions of the operators that are understood; layout came with 14.
_VERSIONS = (7, 14, 22)
_LAYOUT_SINCE = 14
_COMMON: dict[str, type] = {  # of a list: of its elements
    "activation_alpha": float,
    "activation_beta": float,
    "activations": bytes,
    "clip": float,
    "direction": bytes,
    "hidden_size": int,
}
_OWN: dict[str, dict[str, type]] = {
    "LSTM": {"input_forget": int},
    "GRU": {"linear_before_reset": int},
    "RNN": {},
}

Weights = dict[str, Array]  # by the names of parameters without their suffix, for one direction


@dataclass(frozen=True)
class Cell:
    """What a node is, besides its weights. Nodes of equal cells can be layers of one stack."""

    kind: str  # "LSTM", "GRU" or "RNN"
    hidden_size: int
    directions: int
    reverse: bool
    batch_first: bool
    dtype: str
    activations: tuple[Activation, ...]  # f, g, h; f, g; f
    clip: float | None = None
    coupled: bool = False
    peephole: bool = False
    reset_after: bool = False

    @property
    def ours(self) -> str:
        """The key of the tables of orders."""
        return "lstm_coupled" if self.coupled else self.kind.lower()


# ---- Reading a node -----------------------------------------------------------------------------


def read_cell(graph: Graph, op: Op) -> tuple[Cell, list[Weights]]:
    """The cell of a node, and the weights of its directions."""
    version = onnx.defs.get_schema(op.kind, graph.opset, "").since_version
    if version not in _VERSIONS:
        raise ValueError(f"{op}: version {version} of the operator is not supported")
    values = _attributes(op, version)
    arrays = _arrays(graph, op)
    w, r = arrays["W"], arrays["R"]
    if w.ndim != 3 or r.ndim != 3 or w.dtype.kind != "f":
        raise ValueError(
            f"{op}: expected W and R of FLOAT or DOUBLE and of three dimensions, "
            f"got {w.shape} and {r.shape} of {w.dtype}"
        )
    hidden: int = values["hidden_size"] if "hidden_size" in values else r.shape[2]
    direction = values.get("direction", b"forward").decode("utf-8", "replace")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise ValueError(f"{op}: direction {direction!r} is not supported")
    count = 2 if direction == "bidirectional" else 1
    _check_shapes(op, arrays, count, hidden)
    cell = Cell(
        op.kind,
        hidden,
        count,
        direction == "reverse",
        bool(_flag(op, values, "layout")),
        w.dtype.name,
        _activations(op, values, count),
        _clip(op, values),
        bool(_flag(op, values, "input_forget")),
        "P" in arrays,
        bool(_flag(op, values, "linear_before_reset")),
    )
    return cell, [_weights(cell, {k: a[d] for k, a in arrays.items()}) for d in range(count)]


def _attributes(op: Op, version: int) -> dict[str, Any]:
    layout = {"layout": int} if version >= _LAYOUT_SINCE else {}
    expected = _COMMON | _OWN[op.kind] | layout
    for name, value in op.attributes.items():
        if name not in expected:
            raise ValueError(f"{op}: attribute {name!r} is not supported")
        plural = name in _LISTS
        values = value if plural and isinstance(value, tuple) else (value,)
        if isinstance(value, tuple) != plural or not all(
            isinstance(v, expected[name]) for v in values
        ):
            raise ValueError(
                f"{op}: attribute {name!r}: expected {expected[name].__name__}, got {value!r}"
            )
    return dict(op.attributes)


def _arrays(graph: Graph, op: Op) -> dict[str, Array]:
    """W, R and, where the node has them, B and P."""
    slots = {"W": 1, "R": 2, "B": 3} | ({"P": 7} if op.kind == "LSTM" else {})
    if len(op.inputs) > (8 if op.kind == "LSTM" else 6) or not all(map(op.input, range(3))):
        raise ValueError(f"{op}: expected inputs X, W, R and the optional ones, got {op.inputs}")
    arrays = {}
    for slot, index in slots.items():
        name = op.input(index)
        if not name:
            continue
        array = graph.constant(name)
        if array is None:
            origin = graph.producers.get(graph.origin(name))
            source = f"the output of {origin}" if origin else "not in the file"
            raise ValueError(f"{op}: {slot} is {source}; expected an initializer or a Constant")
        arrays[slot] = array
        if array.dtype != arrays["W"].dtype:
            raise ValueError(f"{op}: {slot} is {array.dtype}, but W is {arrays['W'].dtype}")
    return arrays


def _check_shapes(op: Op, arrays: dict[str, Array], directions: int, hidden: int) -> None:
    rows = GATES[op.kind] * hidden
    expected = {
        "W": (directions, rows, arrays["W"].shape[2]),
        "R": (directions, rows, hidden),
        "B": (directions, 2 * rows),
        "P": (directions, 3 * hidden),
    }
    if hidden < 1 or arrays["W"].shape[2] < 1:
        raise ValueError(f"{op}: expected at least one unit and one input, got {expected['W']}")
    for slot, array in arrays.items():
        if array.shape != expected[slot]:
            raise ValueError(f"{op}: {slot}: expected {expected[slot]}, got {array.shape}")


def _flag(op: Op, values: dict[str, Any], name: str) -> int:
    value = values.get(name, 0)
    if value not in (0, 1):
        raise ValueError(f"{op}: {name} = {value} is not supported")
    return value


def _clip(op: Op, values: dict[str, Any]) -> float | None:
    clip = values.get("clip")
    if clip is not None and not (clip > 0 and math.isfinite(clip)):
        raise ValueError(f"{op}: clip = {clip} is not supported")
    return clip


def _activations(op: Op, values: dict[str, Any], directions: int) -> tuple[Activation, ...]:
    """f, g and h of the node, with their parameters."""
    each = len(DEFAULTS[op.kind])
    if "activations" in values:
        names = [name.decode("utf-8", "replace") for name in values["activations"]]
        # RNN's own default has two, whatever the direction
        if op.kind == "RNN" and directions == 1 and len(names) == 2 and names[0] == names[1]:
            names = names[:1]
    else:
        names = list(DEFAULTS[op.kind]) * directions
    if len(names) != each * directions:
        raise ValueError(f"{op}: expected {each * directions} activations, got {names}")
    for name in names:
        if name.lower() not in ACTIVATIONS:
            raise ValueError(f"{op}: activation {name!r} is not supported")
    table = [ACTIVATIONS[name.lower()] for name in names]
    lists = [
        _consumed(op, attribute, values.get(attribute, ()), [t[2] for t in table], position)
        for position, attribute in enumerate(("activation_alpha", "activation_beta"))
    ]
    functions = tuple((t[1], a, b) for t, a, b in zip(table, *lists, strict=True))
    if functions[:each] != functions[-each:]:
        raise ValueError(f"{op}: different activations in the two directions are not supported")
    return functions[:each]


def _consumed(
    op: Op,
    attribute: str,
    given: Sequence[float],
    defaults: Sequence[tuple[float | None, ...]],
    position: int,
) -> list[float]:
    """The alpha (position 0) or beta (1) of each activation; 0.0 for those that have none.

    Some writers give a value for every activation. That is accepted where both readings agree.
    """
    takes = [len(default) > position for default in defaults]
    if len(given) == len(takes) and list(given[: sum(takes)]) == [
        value for value, take in zip(given, takes, strict=True) if take
    ]:
        given = given[: sum(takes)]
    if len(given) > sum(takes):
        raise ValueError(
            f"{op}: {attribute} has {len(given)} values for {sum(takes)} activations that take one"
        )
    rest = iter(given)
    values = []
    for default, take in zip(defaults, takes, strict=True):
        value = next(rest, default[position]) if take else 0.0
        if value is None:
            raise ValueError(f"{op}: {attribute} has no value for an activation without a default")
        if not math.isfinite(value):
            raise ValueError(f"{op}: {attribute} = {value} is not supported")
        values.append(float(np.float32(value)))
    return values


# ---- Weights ------------------------------------------------------------------------------------


def _take(array: Array, blocks: int, order: tuple[int, ...]) -> Array:
    """Blocks of rows in another order."""
    size = len(array) // blocks
    return np.concatenate([array[k * size : (k + 1) * size] for k in order])


def _put(array: Array, blocks: int, order: tuple[int, ...]) -> Array:
    """The inverse of `_take`; blocks that were not taken are zero."""
    size = len(array) // len(order)
    result = np.zeros((blocks * size, *array.shape[1:]), array.dtype)
    for k, place in enumerate(order):
        result[place * size : (place + 1) * size] = array[k * size : (k + 1) * size]
    return result


def _weights(cell: Cell, arrays: dict[str, Array]) -> Weights:
    gates, order = GATES[cell.kind], ROWS[cell.ours]
    weights = {
        "weight_ih": _take(arrays["W"], gates, order),
        "weight_hh": _take(arrays["R"], gates, order),
    }
    if "B" in arrays:
        of_input, of_hidden = np.split(arrays["B"], 2)
        weights["bias_ih"] = _take(of_input, gates, order)
        weights["bias_hh"] = _take(of_hidden, gates, order)
    if cell.peephole:
        weights["peephole"] = _take(arrays["P"], 3, PEEPHOLES[cell.ours])
    return weights


def node_arrays(kind: str, ours: str, directions: Sequence[Weights]) -> dict[str, Array]:
    """The inverse: W, R, B and P of a node from the weights of its directions."""
    gates, order = GATES[kind], ROWS[ours]
    arrays: dict[str, list[Array]] = {}
    for weights in directions:
        rows = {key: _put(weights[key], gates, order) for key in weights if key != "peephole"}
        arrays.setdefault("W", []).append(rows["weight_ih"])
        arrays.setdefault("R", []).append(rows["weight_hh"])
        if "bias_ih" in rows:
            arrays.setdefault("B", []).append(np.concatenate([rows["bias_ih"], rows["bias_hh"]]))
        if "peephole" in weights:
            arrays.setdefault("P", []).append(_put(weights["peephole"], 3, PEEPHOLES[ours]))
    return {slot: np.stack(parts) for slot, parts in arrays.items()}


def build(cell: Cell, stack: Sequence[Sequence[Weights]]) -> Layer:
    """The layer of one node, or of a stack of them: weights by layer and direction."""
    bias = any("bias_ih" in weights for layer in stack for weights in layer)
    options: dict[str, Any] = {
        "clip": cell.clip,
        "bias": bias,
        "batch_first": cell.batch_first,
        "bidirectional": cell.directions == 2,
        "dtype": cell.dtype,
        "seed": 0,
    }
    sizes = (stack[0][0]["weight_ih"].shape[1], cell.hidden_size, len(stack))
    layer: Layer
    if cell.kind == "LSTM":
        gate, candidate, output = cell.activations
        layer = LSTM(
            *sizes,
            peephole=cell.peephole,
            coupled=cell.coupled,
            gate_activation=gate,
            activation=candidate,
            output_activation=output,
            **options,
        )
    elif cell.kind == "GRU":
        gate, candidate = cell.activations
        layer = GRU(
            *sizes,
            reset_after=cell.reset_after,
            gate_activation=gate,
            activation=candidate,
            **options,
        )
    else:
        layer = RNN(*sizes, nonlinearity=cell.activations[0], **options)
    parameters: dict[str, Array] = {}
    for k, directions in enumerate(stack):
        for suffix, weights in zip(("", "_reverse"), directions, strict=False):
            if bias and "bias_ih" not in weights:
                zeros = np.zeros(len(weights["weight_ih"]), cell.dtype)
                weights = {**weights, "bias_ih": zeros, "bias_hh": zeros}
            parameters |= {f"{name}_l{k}{suffix}": array for name, array in weights.items()}
    layer.load_state_dict(parameters)
    return layer


def stackable(lower: Cell, upper: Cell, upper_inputs: int) -> bool:
    """Whether a node can be the next layer of one stack."""
    return lower == upper and upper_inputs == lower.directions * lower.hidden_size
