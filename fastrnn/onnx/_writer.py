"""Layers as ONNX models that ONNX Runtime runs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from .._activations import Activation
from .._arrays import Array, check_flag, describe
from .._base import Layer
from .._structure import PLAIN_DELAYS
from ..gated import GRU, LSTM
from ..layers import RNN
from ._cells import ACTIVATIONS, DEFAULTS, node_arrays
from ._graph import OLDEST_OPSET

_OPSET = 17  # of models unless another one is asked for: widely supported
_ONNX_NAMES = {ours: (name, len(defaults)) for name, ours, defaults in ACTIVATIONS.values()}
_IDENTITY = ("affine", 1.0, 0.0)  # what ONNX has for it


def save(
    layer: Layer,
    path: str | os.PathLike[str],
    *,
    opset: int | None = None,
    lengths: bool = False,
    state: bool = False,
) -> None:
    """Writes `to_model(layer, ...)` to a file.

    Example:
        >>> import fastrnn, fastrnn.onnx, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(fastrnn.GRU(3, 8, seed=0), folder + "/gru.onnx")
        ...     fastrnn.onnx.load(folder + "/gru.onnx").layer
        GRU(3, 8)
    """
    data = to_model(layer, opset=opset, lengths=lengths, state=state).SerializeToString()
    with open(path, "wb") as file:
        file.write(data)


def to_model(
    layer: Layer, *, opset: int | None = None, lengths: bool = False, state: bool = False
) -> onnx.ModelProto:
    """An LSTM, GRU or RNN layer as an ONNX model.

    Args:
        layer: with everything that ONNX can say: layers, directions, peepholes, coupled gates,
            clip, activations, reset_after, batch_first (by Transpose nodes, because ONNX Runtime
            has no layout = 1), either dtype. Dropout is for training, and is not written; of a
            recurrent_mask what is written are the zeros in the weights.
        opset: version of the operators, 7 or later; 17 if None.
        lengths: whether the model has an input "lengths", int32 [B], as a call has the argument.
        state: whether it has inputs "h" and for LSTM "c", [L * D, B, H]; without, they are zero.

    Returns:
        A model with the input "x" and the outputs "y", "hn" and for LSTM "cn", all in the shapes of
        a call of the layer. Nodes are called "lstm_l0", "lstm_l1", ...

    Raises:
        TypeError: if the layer is none of the three.
        ValueError: if it has what ONNX cannot say, named: proj_size, cell_clip, go_backwards,
            delays, periods, or a parameter of an activation or a clip that is no float32.

    Example:
        >>> import fastrnn
        >>> model = to_model(fastrnn.LSTM(3, 8, num_layers=2, seed=0), lengths=True)
        >>> [node.op_type for node in model.graph.node]
        ['LSTM', 'Squeeze', 'LSTM', 'Squeeze', 'Concat', 'Concat']
    """
    kind = _kind(layer)
    newest = onnx.defs.onnx_opset_version()
    opset = _OPSET if opset is None else opset
    if isinstance(opset, bool) or not isinstance(opset, int):
        raise TypeError(f"opset: expected an integer, got {opset!r}")
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(f"opset: expected {OLDEST_OPSET} to {newest}, got {opset}")
    check_flag("lengths", lengths)
    check_flag("state", state)
    graph = _Writer(layer, kind, opset).write(lengths, state)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(
        graph,
        opset_imports=imports,
        ir_version=max(helper.find_min_ir_version_for(imports), 4),
        producer_name="fastrnn",
    )


def _kind(layer: Any) -> str:
    """The operator of a layer, or an error that names what ONNX cannot say of it."""
    kind = {LSTM: "LSTM", GRU: "GRU", RNN: "RNN"}.get(type(layer))
    if kind is None:
        name = type(layer).__name__ if isinstance(layer, Layer) else describe(layer)
        raise TypeError(f"layer: expected an LSTM, GRU or RNN, ONNX has no operator for {name}")
    delays = {} if layer.delays == PLAIN_DELAYS else {"delays": layer.delays}
    names = ("proj_size", "cell_clip", "go_backwards", "periods")
    for option, value in ({name: getattr(layer, name) for name in names} | delays).items():
        if value:
            raise ValueError(f"layer: ONNX has no {option}, and this one has {option}={value}")
    return kind


class _Writer:
    """Collects the nodes and tensors of one model."""

    def __init__(self, layer: Any, kind: str, opset: int) -> None:
        self._layer, self._kind, self._opset = layer, kind, opset
        self._type = TensorProto.FLOAT if layer.dtype == np.float32 else TensorProto.DOUBLE
        self._nodes: list[NodeProto] = []
        self._tensors: list[TensorProto] = []

    def write(self, lengths: bool, state: bool) -> onnx.GraphProto:
        layer = self._layer
        directions, lstm = 1 + layer.bidirectional, self._kind == "LSTM"
        states = ("h", "c")[: 1 + lstm]
        lead = ["B", "T"] if layer.batch_first else ["T", "B"]
        inputs = [self._value("x", [*lead, layer.input_size])]
        shape = [layer.num_layers * directions, "B", layer.hidden_size]
        if lengths:
            inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]))
        if state:
            inputs += [self._value(name, shape) for name in states]
        outputs = [self._value("y", [*lead, directions * layer.hidden_size])]
        outputs += [self._value(name + "n", shape) for name in states]

        initial = [self._parted(name) if state else [""] * layer.num_layers for name in states]
        x = self._transposed("x", (1, 0, 2), "x_steps") if layer.batch_first else "x"
        finals: list[list[str]] = [[] for _ in states]
        for k in range(layer.num_layers):
            names = [f"{name}n_l{k}" for name in states]
            self._recurrent(k, x, "lengths" if lengths else "", [s[k] for s in initial], names)
            for final, name in zip(finals, names, strict=True):
                final.append(name)
            x = self._side_by_side(k, directions)
        for name, parts in zip(states, finals, strict=True):
            self._add("Concat", parts, name + "n", axis=0)
        return helper.make_graph(self._nodes, "fastrnn", inputs, outputs, self._tensors)

    # ---- Pieces

    def _value(self, name: str, shape: list[Any]) -> ValueInfoProto:
        return helper.make_tensor_value_info(name, self._type, shape)

    def _add(self, kind: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, outputs, outputs[0], **attributes))
        return outputs[0]

    def _tensor(self, name: str, array: Any) -> str:
        self._tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _transposed(self, name: str, order: tuple[int, ...], result: str) -> str:
        return self._add("Transpose", [name], result, perm=order)

    def _parted(self, name: str) -> list[str]:
        """The share of each layer in a state."""
        count, directions = self._layer.num_layers, 1 + self._layer.bidirectional
        if count == 1:
            return [name]
        parts, sizes = [f"{name}_l{k}" for k in range(count)], [directions] * count
        if self._opset < 13:
            self._add("Split", [name], *parts, axis=0, split=sizes)
        else:
            split = self._tensor(f"{name}_split", np.array(sizes, np.int64))
            self._add("Split", [name, split], *parts, axis=0)
        return parts

    def _side_by_side(self, k: int, directions: int) -> str:
        """The outputs of layer k as a layer has them, from ONNX's [T, D, B, H]."""
        last = k == self._layer.num_layers - 1
        turn = last and self._layer.batch_first
        source, result = f"y_l{k}", "y" if last else f"x_l{k + 1}"
        if directions == 1 and not turn:
            if self._opset < 13:
                return self._add("Squeeze", [source], result, axes=[1])
            if k == 0:
                self._tensor("axis_of_directions", np.array([1], np.int64))
            return self._add("Squeeze", [source, "axis_of_directions"], result)
        order = (2, 0, 1, 3) if turn else (0, 2, 1, 3)
        turned = self._transposed(source, order, f"{source}_rows")
        width = directions * self._layer.hidden_size
        shape = self._tensor(f"{source}_shape", np.array([0, 0, width], np.int64))
        return self._add("Reshape", [turned, shape], result)

    def _recurrent(
        self, k: int, x: str, lengths: str, initial: list[str], finals: list[str]
    ) -> None:
        layer, kind = self._layer, self._kind
        coupled = getattr(layer, "coupled", False)
        ours = "lstm_coupled" if coupled else kind.lower()
        directions = [
            {
                name: array
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole")
                if (array := layer.parameters().get(f"{name}_l{k}{suffix}")) is not None
            }
            for suffix in ("", "_reverse")[: 1 + layer.bidirectional]
        ]
        arrays: dict[str, Array] = node_arrays(kind, ours, directions)
        names = {slot: self._tensor(f"{slot}_l{k}", array) for slot, array in arrays.items()}
        inputs = [x, names["W"], names["R"], names.get("B", ""), lengths, *initial]
        inputs += [names["P"]] if "P" in names else []
        while not inputs[-1]:
            inputs.pop()
        attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
        if layer.bidirectional:
            attributes["direction"] = "bidirectional"
        if getattr(layer, "clip", None):
            attributes["clip"] = _single("clip", layer.clip, layer.dtype)
        if coupled:
            attributes["input_forget"] = 1
        if getattr(layer, "reset_after", False):
            attributes["linear_before_reset"] = 1
        attributes |= self._activations()
        node = helper.make_node(
            kind, inputs, [f"y_l{k}", *finals], f"{kind.lower()}_l{k}", **attributes
        )
        self._nodes.append(node)

    def _activations(self) -> dict[str, Any]:
        """The three attributes, if the activations are not ONNX's defaults."""
        layer, directions = self._layer, 1 + self._layer.bidirectional
        attributes = {
            "LSTM": ("gate_activation", "activation", "output_activation"),
            "GRU": ("gate_activation", "activation"),
            "RNN": ("activation",),
        }[self._kind]
        functions = [_function(getattr(layer, name)) for name in attributes]
        names = [_ONNX_NAMES[name][0] for name, _, _ in functions]
        if tuple(names) == DEFAULTS[self._kind]:
            return {}
        result: dict[str, Any] = {"activations": names * directions}
        for position, attribute in ((0, "activation_alpha"), (1, "activation_beta")):
            values = [
                _single(f"{attribute} of {name}", (alpha, beta)[position], layer.dtype)
                for name, alpha, beta in functions
                if _ONNX_NAMES[name][1] > position
            ]
            if values:
                result[attribute] = values * directions
        return result


def _function(activation: Any) -> Activation:
    """An activation of a layer, as ONNX has it."""
    name, alpha, beta = activation
    if name == "identity":
        return _IDENTITY
    return name, float(alpha), float(beta)


def _single(what: str, value: float, dtype: np.dtype) -> float:
    """A number as ONNX's attributes hold it; of a float64 layer none may be rounded by that."""
    if dtype == np.float64 and float(np.float32(value)) != value:
        raise ValueError(f"layer: ONNX holds {what} as float32, which {value!r} is not")
    return float(value)
