"""A model file as plain data: operators, constants, inputs, outputs."""

from __future__ import annotations

import copy
import graphlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from .._arrays import Array, describe
from ._tensors import tensor

OLDEST_OPSET = 7
_ATTRIBUTES = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
}


@dataclass(frozen=True)
class Op:
    """One node of the default operator set, or of another `domain`."""

    kind: str
    name: str  # never empty: that of an output if the node has none
    inputs: tuple[str, ...]  # "" for one that is left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    domain: str = ""

    def __str__(self) -> str:
        """For messages."""
        kind = f"{self.domain}.{self.kind}" if self.domain else self.kind
        return f"node {self.name!r} ({kind})"

    def input(self, index: int) -> str:
        return self.inputs[index] if index < len(self.inputs) else ""

    def output(self, index: int) -> str:
        return self.outputs[index] if index < len(self.outputs) else ""


@dataclass(frozen=True)
class Input:
    """What a graph declares about an input; None for a size that is not fixed."""

    type: int
    dims: tuple[int | None, ...] | None


class Graph:
    """The graph of a model, or one inside a node of it.

    Args:
        proto: as it stands in the file.
        opset: version of the default operator set.
        folder: from which external data may be read, or None.
        parent: the graph around it.
    """

    def __init__(
        self,
        proto: GraphProto,
        opset: int,
        folder: str | None,
        producer: str = "",
        parent: Graph | None = None,
    ) -> None:
        self.opset, self.producer = opset, producer
        self._folder, self._parent = folder, parent
        self._tensors = {t.name: t for t in proto.initializer}
        self._arrays: dict[str, Array] = {}  # constants that have been read
        self._bound: tuple[str, ...] = ()
        self.ops = [_op(node) for node in proto.node]
        self.inputs = {
            value.name: _input(value) for value in proto.input if value.name not in self._tensors
        }
        self.outputs = tuple(value.name for value in proto.output)
        self.sparse = {t.values.name for t in proto.sparse_initializer}
        self.producers = {name: op for op in self.ops for name in op.outputs if name}

    # ---- Constants

    def origin(self, name: str) -> str:
        """The value that Identity nodes hand on under this name."""
        seen = {name}
        while (op := self.producers.get(name)) and op.kind == "Identity" and not op.domain:
            name = op.input(0)
            if name in seen:
                raise ValueError(f"{op}: its input is its output")
            seen.add(name)
        return name

    def constant(self, name: str) -> Array | None:
        """The value if it stands in the file: an initializer or a Constant node."""
        name = self.origin(name)
        if name in self._arrays:
            return self._arrays[name]
        if name in self.sparse:
            raise ValueError(f"tensor {name!r}: sparse initializers are not supported")
        op = self.producers.get(name)
        if name in self._tensors:
            self._arrays[name] = tensor(self._tensors[name], self._folder)
        elif op is not None and op.kind == "Constant" and not op.domain:
            self._arrays[name] = self._constant_node(op)
        elif op is None and name not in self.inputs and self._parent is not None:
            return self._parent.constant(name)
        return self._arrays.get(name)

    def _constant_node(self, op: Op) -> Array:
        values = dict(op.attributes)
        kind, value = values.popitem() if len(values) == 1 else ("", None)
        if kind == "value" and isinstance(value, TensorProto):
            return tensor(value, self._folder)
        dtypes = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}
        if kind not in dtypes:
            raise ValueError(f"{op}: {kind or 'a node without one value'} is not supported")
        return np.array(value, dtypes[kind])

    def attribute_tensor(self, value: TensorProto) -> Array:
        return tensor(value, self._folder)

    def is_constant(self, name: str) -> bool:
        """Whether `constant` would give a value, without reading it."""
        name = self.origin(name)
        op = self.producers.get(name)
        return name in self._arrays or name in self._tensors or bool(op and op.kind == "Constant")

    def bind(self, values: Mapping[str, Array]) -> Graph:
        """The graph with constants in the place of some inputs."""
        bound = copy.copy(self)
        bound._arrays = {**self._arrays, **values}
        bound._bound = (*self._bound, *values)
        bound.inputs = {name: v for name, v in self.inputs.items() if name not in values}
        return bound

    # ---- Structure

    def check(self) -> None:
        """Refuses a graph in which a value has no origin, or two."""
        known = [*self.inputs, *self._bound, *self._tensors, *self.sparse]
        known += [name for op in self.ops for name in op.outputs if name]
        seen: set[str] = set()
        for name in known:
            if name in seen or not name:
                raise ValueError(f"graph: value {name!r} has two origins or no name")
            seen.add(name)
        for op in self.ops:
            for name in op.inputs:
                if name and name not in seen:
                    raise ValueError(f"{op}: its input {name!r} comes from nowhere")
        for name in self.outputs:
            if name not in seen:
                raise ValueError(f"graph: its output {name!r} comes from nowhere")
        order: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
        index = {name: i for i, op in enumerate(self.ops) for name in op.outputs if name}
        for i, op in enumerate(self.ops):
            order.add(i, *(index[name] for name in op.inputs if name in index))
        try:
            self.ops = [self.ops[i] for i in order.static_order()]
        except graphlib.CycleError as error:
            raise ValueError("graph: nodes whose inputs are their outputs") from error

    def walk(self) -> Iterator[tuple[Graph, Op]]:
        """All nodes, those of graphs inside them too."""
        for op in self.ops:
            yield self, op
            for value in op.attributes.values():
                if isinstance(value, GraphProto):
                    yield from Graph(value, self.opset, self._folder, self.producer, self).walk()


def _op(node: NodeProto) -> Op:
    outputs = tuple(node.output)
    name = node.name or next(filter(None, outputs), "")
    domain = "" if node.domain == "ai.onnx" else node.domain
    attributes: dict[str, Any] = {}
    op = Op(node.op_type, name, tuple(node.input), outputs, attributes, domain)
    for attribute in node.attribute:
        if attribute.name in attributes:
            raise ValueError(f"{op}: attribute {attribute.name!r} twice")
        if attribute.ref_attr_name:
            raise ValueError(f"{op}: attribute {attribute.name!r} refers to that of a function")
        field = _ATTRIBUTES.get(attribute.type)
        # of a type that no node here has: known by name only, refused where it is looked at
        value: Any = None if field is None else getattr(attribute, field)
        plural = field in ("floats", "ints", "strings")
        attributes[attribute.name] = tuple(value) if plural else value
    return op


def _input(value: onnx.ValueInfoProto) -> Input:
    if not value.type.HasField("tensor_type"):
        return Input(TensorProto.UNDEFINED, None)
    declared = value.type.tensor_type
    if not declared.HasField("shape"):
        return Input(declared.elem_type, None)
    dims = (d.dim_value if d.HasField("dim_value") else None for d in declared.shape.dim)
    return Input(declared.elem_type, tuple(dims))


def read(model: Any, external_data: Any = None) -> Graph:
    """The graph of a model.

    Args:
        model: a path, the bytes of a file, or a ModelProto.
        external_data: the folder from which external data may be read, or None.
    """
    folder = None if external_data is None else os.fspath(external_data)
    if isinstance(folder, bytes):
        raise TypeError("external_data: expected a path of text, got bytes")
    if folder is not None and not os.path.isdir(folder):
        raise ValueError(f"external_data: {folder!r} is not a folder")
    if isinstance(model, (str, os.PathLike)):
        with open(model, "rb") as file:
            model = file.read()
    if isinstance(model, (bytes, bytearray, memoryview)):
        data, model = bytes(model), ModelProto()
        try:
            model.ParseFromString(data)
        except DecodeError as error:
            raise ValueError(f"model: not an ONNX file: {error}") from error
    if not isinstance(model, ModelProto):
        raise TypeError(f"model: expected a path, bytes or ModelProto, got {describe(model)}")
    if not model.HasField("graph"):
        raise ValueError("model: not an ONNX file: it has no graph")
    if model.functions:
        raise ValueError(
            f"model: local functions ({model.functions[0].name!r}) are not supported; "
            "onnx.inliner.inline_local_functions(model) replaces them"
        )
    return Graph(model.graph, _opset(model), folder, model.producer_name)


def _opset(model: ModelProto) -> int:
    versions = {o.version for o in model.opset_import if o.domain in ("", "ai.onnx")}
    if len(versions) != 1:
        raise ValueError(f"model: expected one opset of the default domain, got {sorted(versions)}")
    version = versions.pop()
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= version <= newest:
        raise ValueError(
            f"model: expected opset {OLDEST_OPSET} to {newest}, which the installed onnx "
            f"{onnx.__version__} knows, got {version}"
        )
    return version
