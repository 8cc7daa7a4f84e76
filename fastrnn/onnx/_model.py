"""Recurrent nodes as layers, and a graph of them as one object that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _arrays
from .._arrays import Array, as_array, as_real
from .._base import Layer
from ..gated import LSTM
from . import _glue
from ._graph import Graph, Op
from ._tensors import dtype_of

State = Any  # as a layer has it: an array, or a tuple of arrays
Values = dict[str, Array | None]  # of a graph; None for an input that was not given


def turned(x: Array, lengths: Array | None, batch_first: bool) -> Array:
    """x with its time reversed, each row within its own length; turning twice changes nothing."""
    time = 1 if batch_first and x.ndim == 3 else 0
    if lengths is None:
        return np.flip(x, time)
    steps = np.arange(x.shape[time])
    order = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)  # [B, T]
    order = order if batch_first else order.T
    return np.take_along_axis(x, order[:, :, None], axis=time)


class Part:
    """Recurrent nodes of a graph as a fastrnn layer: one node, or a stack of equal ones.

    Attributes:
        names: of the nodes, the lowest first.
        layer: the layer, an LSTM, GRU or RNN with `batch_first` if the nodes have layout 1. It is
            the whole of the part unless `reverse` is set.
        reverse: whether the nodes have direction "reverse": they read the sequence from its end,
            but their outputs are in the original order of time. The layer does neither; a call of
            the part turns x and y round, each row within its own length.
        state: the initial state that the file holds, in the layer's form, or None.
        lengths: sequence_lens if the file holds them, or None.

    A call runs the part as the layer would be called: `y, state = part(x)`, from `part.state`
    (zeros if None) if no state is given, and likewise for `lengths`.
    """

    def __init__(
        self,
        names: Sequence[str],
        layer: Layer,
        reverse: bool,
        state: State = None,
        lengths: Array | None = None,
    ) -> None:
        self.names = tuple(names)
        self.layer = layer
        self.reverse = reverse
        self.state = state
        self.lengths = lengths

    def __call__(self, x: Any, state: State = None, *, lengths: Any = None) -> tuple[Array, State]:
        state = self.state if state is None else state
        lengths = self.lengths if lengths is None else lengths
        options = {} if lengths is None else {"lengths": lengths}
        if not self.reverse:
            return self.layer(x, state, **options)
        x, first = as_array("x", x), self.layer.batch_first
        if lengths is not None:
            lengths = self._checked(lengths, x)
        y, state = self.layer(turned(x, lengths, first), state, **options)
        return turned(y, lengths, first), state

    def _checked(self, lengths: Any, x: Array) -> Array:
        """Lengths by which rows can be turned; the layer sees them too."""
        array = as_array("lengths", lengths)
        if array.dtype.kind not in "iu":
            raise TypeError(f"lengths: expected integers, got {_arrays.describe(lengths)}")
        if x.ndim != 3:
            raise ValueError(f"x: expected three dimensions with lengths, got shape {x.shape}")
        rows, steps = x.shape[:2] if self.layer.batch_first else x.shape[1::-1]
        if array.shape != (rows,) or np.any((array < 0) | (array > steps)):
            raise ValueError(f"lengths: expected {rows} numbers from 0 to {steps}, got {lengths}")
        return array.astype(np.intp)

    def __repr__(self) -> str:
        turn = ", reverse" if self.reverse else ""
        return f"<Part {', '.join(self.names)}: {self.layer!r}{turn}>"


@dataclass(frozen=True)
class Node:
    """Where a recurrent node of ONNX stands in a graph: names of values, "" for none."""

    x: str
    lengths: str
    h: str
    c: str
    y: str
    y_h: str
    y_c: str

    @classmethod
    def of(cls, op: Op) -> Node:
        lstm = op.kind == "LSTM"
        return cls(
            op.input(0),
            op.input(4),
            op.input(5),
            op.input(6) if lstm else "",
            op.output(0),
            op.output(1),
            op.output(2) if lstm else "",
        )


def onnx_state(array: Array, batch_first: bool) -> Array:
    """[D, B, H] from ONNX's form of a state, [B, D, H] with layout 1; and the way back."""
    return np.swapaxes(array, 0, 1) if batch_first else array


def output_view(y: Array, directions: int, batch_first: bool) -> Array:
    """ONNX's Y, [T, D, B, H] or [B, T, D, H], from a layer's y."""
    view = y.reshape(*y.shape[:2], directions, y.shape[2] // directions)
    return view if batch_first else view.transpose(0, 2, 1, 3)


class GlueStep:
    """A node that rearranges."""

    def __init__(self, graph: Graph, op: Op) -> None:
        self._graph, self._op = graph, op
        self.inputs, self.outputs = tuple(filter(None, op.inputs)), op.outputs

    def run(self, values: Values) -> None:
        inputs = [values[name] if name else None for name in self._op.inputs]
        if any(values[name] is None for name in self.inputs):
            values.update(dict.fromkeys(self.outputs))
            return
        results = _glue.run(self._graph, self._op, inputs)
        values.update(zip(self.outputs, results, strict=False))


class PartStep:
    """The nodes of a part. `shadows` of the inner ones' Y have their shape, for who asks."""

    def __init__(self, part: Part, nodes: Sequence[Node]) -> None:
        self.part, self.nodes = part, tuple(nodes)
        states = [name for node in nodes for name in (node.h, node.c)]
        self.inputs = tuple(filter(None, [nodes[0].x, nodes[0].lengths, *states]))
        last = nodes[-1].y
        self.outputs = tuple(filter(None, [last, *(s for n in nodes for s in (n.y_h, n.y_c))]))

    def run(self, values: Values, state: State = None, lengths: Any = None) -> tuple[Array, State]:
        """Runs the nodes; a state or lengths that are given take the place of the graph's."""
        x, layer, node = values[self.nodes[0].x], self.part.layer, self.nodes[0]
        names = ", ".join(self.part.names)
        if x is None:
            raise ValueError(f"node {names}: its input {node.x!r} was not given")
        if x.ndim != 3:
            raise ValueError(f"node {names}: X: expected three dimensions, got shape {x.shape}")
        if lengths is None and node.lengths:
            lengths = values[node.lengths]
        if state is None:
            state = self.initial(values, x.shape[0 if layer.batch_first else 1])
        y, state = self.part(x, state, lengths=lengths)
        self._outputs(values, y, state)
        return y, state

    def initial(self, values: Values, batch: int) -> State:
        """The state that the graph gives, or None if it gives none."""
        layer = self.part.layer
        directions = 1 + layer.bidirectional
        zeros = np.zeros((directions, batch, layer.hidden_size), layer.dtype)
        lstm = isinstance(layer, LSTM)
        slots = [[node.h for node in self.nodes], [node.c for node in self.nodes]][: 1 + lstm]
        given = [[values[name] if name else None for name in names] for names in slots]
        if all(array is None for arrays in given for array in arrays):
            return None
        states = []
        for names, arrays in zip(slots, given, strict=True):
            parts = []
            for name, array in zip(names, arrays, strict=True):
                if array is not None and array.ndim != 3:
                    raise ValueError(f"{name}: expected three dimensions, got shape {array.shape}")
                part = zeros if array is None else onnx_state(array, layer.batch_first)
                if part.shape != zeros.shape:
                    raise ValueError(f"{name}: expected {zeros.shape}, got {part.shape}")
                parts.append(part)
            states.append(np.concatenate(parts))
        return tuple(states) if lstm else states[0]

    def _outputs(self, values: Values, y: Array, state: State) -> None:
        layer = self.part.layer
        directions = 1 + layer.bidirectional
        values[self.nodes[-1].y] = output_view(y, directions, layer.batch_first)
        arrays = state if isinstance(state, tuple) else (state,)
        for k, node in enumerate(self.nodes):
            for name, array in zip((node.y_h, node.y_c), arrays, strict=False):
                final = array[k * directions : (k + 1) * directions]
                values[name] = onnx_state(final, layer.batch_first)


class ShapeStep:
    """An array of the shape of Y of an inner node of a stack: only its shape is ever looked at."""

    def __init__(self, part: Part, x: str, y: str) -> None:
        self._layer, self.inputs, self.outputs = part.layer, (x,), (y,)

    def run(self, values: Values) -> None:
        x, layer = values[self.inputs[0]], self._layer
        if x is None or x.ndim != 3:
            values[self.outputs[0]] = None
            return
        directions = 1 + layer.bidirectional
        shape = (*x.shape[:2], directions * layer.hidden_size)
        y = np.broadcast_to(layer.dtype.type(0), shape)
        values[self.outputs[0]] = output_view(y, directions, layer.batch_first)


Step = GlueStep | PartStep | ShapeStep


class Model:
    """A graph of recurrent nodes, and of nodes that rearrange between them.

    Attributes:
        parts: the recurrent nodes in the order in which they run; those that form a stack of equal
            layers are one part.
        layers: the layer of each part.
        layer: the layer, if there is one part and it is not reversed: the whole net as a plain
            LSTM, GRU or RNN, to be trained, streamed or saved. An initial state or lengths that
            the file holds are the model's, not the layer's.
        batch_first: whether x and y of a call have the batch as their first axis.
        inputs, outputs: the names of the graph's, in order.

    Made by `fastrnn.onnx.load`.
    """

    def __init__(
        self,
        graph: Graph,
        steps: Sequence[Step],
        constants: Mapping[str, Array],
        chain: tuple[str, bool] | None,
    ) -> None:
        self._graph, self._steps, self._constants = graph, tuple(steps), dict(constants)
        self._chain = chain  # the name of x, and batch_first; None if the parts are not a chain
        self.parts = tuple(step.part for step in steps if isinstance(step, PartStep))
        self.layers = tuple(part.layer for part in self.parts)
        self._plans: dict[tuple[bool, bool], list[Step]] = {}
        self.inputs = tuple(graph.inputs)
        self.outputs = graph.outputs

    @property
    def batch_first(self) -> bool:
        return self._as_chain()[1]

    @property
    def layer(self) -> Layer:
        if len(self.parts) != 1 or self.parts[0].reverse:
            raise ValueError(f"layer: expected one part that is not reversed, got {self!r}")
        return self.layers[0]

    def _as_chain(self) -> tuple[str, bool]:
        if self._chain is None:
            raise ValueError(f"{self!r} is not a chain from one x to one y; run(inputs) runs it")
        return self._chain

    def __call__(self, x: Any, state: State = None, *, lengths: Any = None) -> tuple[Array, State]:
        """Runs the net as a layer is run, if its parts are a chain.

        Args:
            x: the graph's input of that role.
            state: what a call returned, to carry on from there: that of the layer, or a tuple with
                one for each part if there are several. None: what the file holds, else zeros.
            lengths: as of a layer; None: what the file holds.

        Returns:
            y of the last part, [T, B, D * H] or with `batch_first` [B, T, D * H]; and the state.

        Raises:
            TypeError, ValueError: if an argument does not fit, or there is no such chain.

        Example:
            >>> import fastrnn, fastrnn.onnx
            >>> gru = fastrnn.GRU(3, 8, num_layers=2, seed=0)
            >>> net = fastrnn.onnx.load(fastrnn.onnx.to_model(gru))
            >>> x = np.ones((5, 2, 3), np.float32)
            >>> bool(np.all(net(x)[0] == gru(x)[0]))
            True
        """
        name, batch_first = self._as_chain()
        count = len(self.parts)
        if (
            state is not None
            and count > 1
            and (not isinstance(state, tuple) or len(state) != count)
        ):
            raise TypeError(f"state: expected a tuple of {count}, one for each part")
        states = [state] if count == 1 else [None] * count if state is None else list(state)
        values: Values = {**dict.fromkeys(self.inputs), **self._constants}
        values[name] = as_real("x", x, self.layers[0].dtype)
        if count > 1:
            self._check_dims(name, values[name])
        finals: list[State] = []
        y: Array | None = None
        for step in self._plan(state is not None, lengths is not None):
            if isinstance(step, PartStep):
                y, final = step.run(values, states[len(finals)], lengths)
                finals.append(final)
            else:
                step.run(values)
        assert y is not None
        if batch_first != self.layers[-1].batch_first:
            y = np.swapaxes(y, 0, 1)
        return y, finals[0] if count == 1 else tuple(finals)

    def _plan(self, state: bool, lengths: bool) -> list[Step]:
        """The steps that a call needs if it is given a state, or lengths."""
        plan = self._plans.get((state, lengths))
        if plan is None:
            plan, needed = [], set()
            for step in reversed(self._steps):
                if isinstance(step, PartStep):
                    node = step.nodes[0]
                    states = {name for n in step.nodes for name in (n.h, n.c)}
                    needed |= {node.x} | (set() if state else states)
                    needed |= set() if lengths else {node.lengths}
                elif needed.isdisjoint(step.outputs):
                    continue
                else:
                    needed.update(step.inputs)
                plan.insert(0, step)
            self._plans[state, lengths] = plan
        return plan

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Runs the graph as it stands: its outputs from its inputs, by name.

        Raises:
            TypeError, ValueError: if an input is missing, unknown, or not as the graph declares it.
        """
        unknown = [name for name in inputs if name not in self._graph.inputs]
        missing = [name for name in self.inputs if name not in inputs]
        if unknown or missing:
            raise ValueError(f"inputs: missing {missing}, unknown {unknown}")
        values: Values = dict(self._constants)
        for name, value in inputs.items():
            dtype = dtype_of(self._graph.inputs[name].type, f"input {name!r}")
            array = as_array(name, value)
            if array.dtype.kind != "i" or dtype.kind != "i":
                array = as_real(name, value, dtype)
            values[name] = array
            self._check_dims(name, array)
        for step in self._steps:
            step.run(values)
        results = {name: values[name] for name in self.outputs}
        return {name: array for name, array in results.items() if array is not None}

    def _check_dims(self, name: str, array: Array | None) -> None:
        dims = self._graph.inputs[name].dims
        shape = () if array is None else array.shape
        if dims is None:
            return
        if len(dims) != len(shape) or any(
            d is not None and d != n for d, n in zip(dims, shape, strict=True)
        ):
            raise ValueError(f"{name}: expected {dims} (None: any), got shape {shape}")

    def __repr__(self) -> str:
        return f"Model({', '.join(map(repr, self.parts))})"
