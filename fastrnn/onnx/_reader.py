"""From a graph to parts: which nodes there are, which form a stack, in which order they run."""

from __future__ import annotations

import graphlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays import Array
from . import _glue
from ._cells import GATES, Cell, Weights, build, read_cell, stackable
from ._graph import Graph, Op, read
from ._model import (
    GlueStep,
    Model,
    Node,
    Part,
    PartStep,
    ShapeStep,
    Step,
    output_view,
)

_PROBE = 2**26  # elements; beyond that nodes stay apart
_MOVES = ("Identity", "Squeeze", "Unsqueeze", "Transpose", "Reshape")


def load(model: Any, *, external_data: Any = None) -> Model:
    """The net in an ONNX model whose graph holds nothing but recurrent nodes and what moves data.

    Args:
        model: a path, the bytes of a file, or a `ModelProto`.
        external_data: the folder from which data outside the file may be read. Without it, a model
            with such data is refused.

    Returns:
        An object that runs the graph, see `Model`. A stack of equal LSTM, GRU or RNN nodes, as
        PyTorch exports it, is one layer of several `num_layers` in it.

    Raises:
        ValueError: if anything about the file is not as it must be or not supported; the message
            names the node and what it is.
        TypeError: if model is something else.
        OSError: if the path cannot be read.

    Warns:
        UserWarning: for a GRU with linear_before_reset = 0 from PyTorch, whose exporter wrote that
            for nets that compute otherwise (pytorch issue 189225).

    Example:
        >>> import fastrnn, fastrnn.onnx
        >>> lstm = fastrnn.LSTM(3, 8, num_layers=2, bidirectional=True, seed=0)
        >>> load(fastrnn.onnx.to_model(lstm)).layer
        LSTM(3, 8, num_layers=2, bidirectional=True)
    """
    return build_model(read(model, external_data))


def layers(model: Any, *, external_data: Any = None) -> dict[str, Part]:
    """The recurrent nodes of any ONNX model, whatever else its graph holds, by name.

    Args:
        model, external_data: as of `load`.

    Returns:
        A `Part` for each LSTM, GRU and RNN node, those inside If, Loop and Scan too; its `.layer`
        is the plain layer. A node without a name goes by that of its first output.

    Raises:
        TypeError, ValueError, OSError: as `load`.

    Example:
        >>> import fastrnn, fastrnn.onnx
        >>> model = fastrnn.onnx.to_model(fastrnn.RNN(3, 8, seed=0))
        >>> layers(model)["rnn_l0"].layer
        RNN(3, 8)
    """
    parts: dict[str, Part] = {}
    for graph, op in read(model, external_data).walk():
        if not _is_recurrent(op):
            continue
        if op.name in parts:
            raise ValueError(f"{op}: another node has the same name")
        found = _Found.read(graph, op)
        part = _part(graph, [found])
        node = found.node
        if node.lengths:
            part.lengths = graph.constant(node.lengths)
        states = {name: graph.constant(name) for name in (node.h, node.c) if name}
        known = [array for array in states.values() if array is not None]
        if known and len(known) == len(states):
            batch = known[0].shape[0 if part.layer.batch_first else 1] if known[0].ndim == 3 else 0
            part.state = PartStep(part, [node]).initial(states, batch)
        parts[op.name] = part
    return parts


def _is_recurrent(op: Op) -> bool:
    return op.kind in GATES and not op.domain


@dataclass(frozen=True)
class _Found:
    """A recurrent node that has been read."""

    op: Op
    node: Node
    cell: Cell
    weights: list[Weights]

    @classmethod
    def read(cls, graph: Graph, op: Op) -> _Found:
        cell, weights = read_cell(graph, op)
        if op.kind == "GRU" and not cell.reset_after and graph.producer == "pytorch":
            warnings.warn(
                f"{op} comes from PyTorch and has linear_before_reset = 0. PyTorch's GRU is that "
                "of 1, but its exporter wrote 0 in some versions (pytorch issue 189225). The node "
                "is run as the file says",
                stacklevel=4,
            )
        return cls(op, Node.of(op), cell, weights)

    @property
    def input_size(self) -> int:
        return self.weights[0]["weight_ih"].shape[1]


def _part(graph: Graph, stack: Sequence[_Found]) -> Part:
    cell = stack[0].cell
    layer = build(cell, [found.weights for found in stack])
    return Part([found.op.name for found in stack], layer, cell.reverse)


def build_model(graph: Graph) -> Model:
    """The model of a graph, or an error that names what it cannot run."""
    graph.check()
    if graph.sparse:
        raise ValueError(f"graph: sparse initializers {sorted(graph.sparse)} are not supported")
    for op in graph.ops:
        constant = op.kind == "Constant" and not op.domain
        if not (_is_recurrent(op) or _glue.known(op) or constant):
            raise ValueError(
                f"{op}: neither recurrent nor a rearrangement of data; fastrnn.onnx.layers(model) "
                "gives the recurrent nodes of any graph"
            )
    found = [_Found.read(graph, op) for op in graph.ops if _is_recurrent(op)]
    if not found:
        raise ValueError("graph: no LSTM, GRU or RNN node")
    stacks = _Stacks(graph, found).stacks
    steps: list[Step] = []
    for stack in stacks:
        part = _part(graph, stack)
        steps.append(PartStep(part, [f.node for f in stack]))
        steps += [ShapeStep(part, stack[0].node.x, f.node.y) for f in stack[:-1] if f.node.y]
    steps += [GlueStep(graph, op) for op in graph.ops if _glue.known(op)]
    ordered = _ordered(graph, steps)
    constants = {}
    for step in ordered:
        for name in step.inputs:
            if graph.is_constant(name):
                value = graph.constant(name)
                assert value is not None
                constants[name] = value
    for name in graph.outputs:
        if graph.is_constant(name):
            raise ValueError(f"graph: its output {name!r} is a constant")
    return Model(graph, ordered, constants, _chain(graph, ordered))


def _ordered(graph: Graph, steps: Sequence[Step]) -> list[Step]:
    """The steps that outputs or parts need, each after those that it needs."""
    origin = {name: step for step in steps for name in step.outputs if name}
    order: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    index = {id(step): k for k, step in enumerate(steps)}
    todo: list[Step] = [step for step in steps if isinstance(step, PartStep)]
    todo += [origin[name] for name in graph.outputs if name in origin]
    seen: set[int] = set()
    while todo:
        step = todo.pop()
        if id(step) in seen:
            continue
        seen.add(id(step))
        needs = [origin[name] for name in step.inputs if name in origin]
        order.add(index[id(step)], *(index[id(need)] for need in needs))
        todo += needs
    return [steps[k] for k in order.static_order()]


def _chain(graph: Graph, steps: Sequence[Step]) -> tuple[str, bool] | None:
    """The name of x and whether its batch comes first, if each part reads the one before."""
    below = ""
    start: tuple[str, bool] | None = None
    for step in steps:
        if not isinstance(step, PartStep):
            continue
        name, turns = step.nodes[0].x, 0
        while (op := graph.producers.get(name)) and op.kind in _MOVES and not op.domain:
            turns += op.kind == "Transpose" and op.attributes.get("perm") == (1, 0, 2)
            name = op.input(0)
        if start is None:
            if name not in graph.inputs:
                return None
            start = name, bool(turns % 2) != step.part.layer.batch_first
        elif name != below:
            return None
        below = step.nodes[-1].y
    return start


class _Stacks:
    """Groups of nodes that can run as one layer each; `stacks` in the order of the graph.

    A node joins that below it if the cells are equal, if what stands between them gives it the
    outputs of all directions side by side (which is tried out), and if nobody else sees them.
    """

    def __init__(self, graph: Graph, found: Sequence[_Found]) -> None:
        self._graph = graph
        self._consumers: dict[str, list[tuple[Op, int]]] = {}
        for op in graph.ops:
            for slot, name in enumerate(op.inputs):
                self._consumers.setdefault(name, []).append((op, slot))
        self.stacks: list[list[_Found]] = []
        for upper in found:
            lower = next((s for s in self.stacks if self._joins(s, upper)), None)
            if lower is None:
                self.stacks.append([upper])
            else:
                lower.append(upper)

    def _joins(self, stack: list[_Found], upper: _Found) -> bool:
        lower, origin = stack[-1], self._graph.origin
        return (
            stackable(lower.cell, upper.cell, upper.input_size)
            and bool(lower.node.y)
            and origin(lower.node.lengths) == origin(upper.node.lengths)
            and self._feeds_only(lower.node.y, upper.op)
            and not self._needs_states(upper, stack)
            and all(self._side_by_side(stack, upper, sizes) for sizes in self._sizes(stack))
        )

    def _feeds_only(self, value: str, reader: Op) -> bool:
        """Whether the data of a value goes nowhere but to the first input of a node."""
        todo, reached, seen = [value], False, {value}
        while todo:
            name = todo.pop()
            if name in self._graph.outputs:
                return False
            for op, slot in self._consumers.get(name, ()):
                if op is reader and slot == 0:
                    reached = True
                elif _is_recurrent(op):
                    return False
                elif op.kind != "Shape":
                    fresh = [output for output in op.outputs if output and output not in seen]
                    seen.update(fresh)
                    todo += fresh
        return reached

    def _needs_states(self, upper: _Found, stack: list[_Found]) -> bool:
        """Whether the upper node starts from what the others ended with."""
        inner = {id(found.op) for found in stack}
        finals = {name for found in stack for name in (found.node.y_h, found.node.y_c) if name}
        todo, seen = [upper.node.lengths, upper.node.h, upper.node.c], set()
        while todo:
            name = todo.pop()
            if name in finals:
                return True
            op = self._graph.producers.get(name)
            if name in seen or op is None or id(op) in inner:
                continue
            seen.add(name)
            todo += op.inputs
        return False

    def _sizes(self, stack: list[_Found]) -> Iterable[tuple[int, int]]:
        """Numbers of steps and rows to try: those that the graph declares, where it does."""
        for free in ((2, 3, 5, 7), (5, 4, 3, 2)):
            values: dict[str, Array] = {}
            for name, declared in self._graph.inputs.items():
                if declared.dims is not None:
                    spare = iter(free * len(declared.dims))
                    dims = [next(spare) if d is None else d for d in declared.dims]
                    if len(dims) == 3 and all(0 <= d <= _PROBE for d in dims):
                        values[name] = np.broadcast_to(np.float32(0), dims)
            x = self._evaluate(stack[0].node.x, values)
            lead = free[:2] if x is None or x.ndim != 3 else x.shape[:2]
            yield (lead[1], lead[0]) if stack[0].cell.batch_first else (lead[0], lead[1])

    def _side_by_side(self, stack: list[_Found], upper: _Found, sizes: tuple[int, int]) -> bool:
        cell = stack[-1].cell
        lead = (sizes[1], sizes[0]) if cell.batch_first else sizes
        width = cell.directions * cell.hidden_size
        if lead[0] * lead[1] * width > _PROBE:
            return False
        y = np.arange(lead[0] * lead[1] * width, dtype=np.float64).reshape(*lead, width)
        view = output_view(y, cell.directions, cell.batch_first)
        x = self._evaluate(upper.node.x, {stack[-1].node.y: view})
        return x is not None and np.array_equal(x, y)

    def _evaluate(self, wanted: str, values: dict[str, Array]) -> Array | None:
        """A value from others, through nodes that rearrange; None if that is not possible."""
        graph, values = self._graph, dict(values)
        for op in self._needed(wanted, set(values)):
            inputs: list[Array | None] = []
            for name in op.inputs:
                array = values.get(name)
                if name and array is None:
                    array = graph.constant(name) if graph.is_constant(name) else None
                    if array is None:
                        return None
                inputs.append(array)
            try:
                results = _glue.run(graph, op, inputs)
            except ValueError:
                return None
            values.update(zip(op.outputs, results, strict=False))
        return values.get(wanted)

    def _needed(self, wanted: str, known: set[str]) -> Iterator[Op]:
        """The nodes that lead to a value, in order."""
        todo, needed = [wanted], set()
        while todo:
            name = todo.pop()
            op = self._graph.producers.get(name)
            if name not in known and op is not None and _glue.known(op) and id(op) not in needed:
                needed.add(id(op))
                todo += op.inputs
        return (op for op in self._graph.ops if id(op) in needed)
