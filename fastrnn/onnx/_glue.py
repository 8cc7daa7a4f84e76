"""Operators that only rearrange, as NumPy has them: all that may stand between recurrent nodes.

Of arithmetic there is what shapes need: integers may be multiplied and cast. Views are returned
where they can be, so that a file of a few bytes cannot ask for much memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, TensorProto

from .._arrays import Array
from ._graph import Graph, Op
from ._tensors import dtype_of

LARGEST = 2**31  # elements of a result that is copied


def run(graph: Graph, op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """The outputs of a node; None among the inputs for one that is left out."""
    try:
        return _OPS[op.kind](_Call(graph, op, inputs))
    except (ValueError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{op}: {error}") from error


def known(op: Op) -> bool:
    """Whether a node is one of these."""
    return not op.domain and op.kind in _OPS


class _Call:
    """One node with its inputs."""

    def __init__(self, graph: Graph, op: Op, inputs: Sequence[Array | None]) -> None:
        self.graph, self.op, self._inputs = graph, op, inputs
        if any(isinstance(value, GraphProto) for value in op.attributes.values()):
            raise ValueError("a graph as attribute")

    def array(self, index: int = 0) -> Array:
        array = self.optional(index)
        if array is None:
            raise ValueError(f"input {index} is missing")
        return array

    def optional(self, index: int) -> Array | None:
        return self._inputs[index] if index < len(self._inputs) else None

    def all(self) -> list[Array]:
        return [self.array(k) for k in range(len(self._inputs))]

    def ints(self, index: int) -> tuple[int, ...] | None:
        """An input of whole numbers."""
        array = self.optional(index)
        if array is None:
            return None
        if array.dtype.kind != "i" or array.ndim > 1:
            raise ValueError(f"input {index}: expected integers in a row, got {array.dtype}")
        return tuple(int(value) for value in np.atleast_1d(array))

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.op.attributes.get(name, default)

    def axes(self) -> tuple[int, ...] | None:
        """An attribute before opset 13, an input since."""
        return self.attribute("axes") if self.graph.opset < 13 else self.ints(1)


def _small(count: int) -> None:
    if count > LARGEST:
        raise ValueError(f"a result of {count} elements")


def _squeeze(call: _Call) -> list[Array]:
    return [np.squeeze(call.array(), call.axes())]


def _unsqueeze(call: _Call) -> list[Array]:
    axes = call.axes()
    if axes is None:
        raise ValueError("axes are missing")
    return [np.expand_dims(call.array(), axes)]


def _transpose(call: _Call) -> list[Array]:
    return [np.transpose(call.array(), call.attribute("perm"))]


def _reshape(call: _Call) -> list[Array]:
    x, shape = call.array(), call.ints(1)
    if shape is None or any(size < -1 for size in shape):
        raise ValueError(f"shape {shape}")
    if not call.attribute("allowzero", 0):
        shape = tuple(size or x.shape[k] for k, size in enumerate(shape))
    _small(x.size)
    return [x.reshape(shape)]


def _concat(call: _Call) -> list[Array]:
    arrays, axis = call.all(), call.attribute("axis")
    if axis is None or len({array.dtype for array in arrays}) != 1:
        raise ValueError("expected an axis and inputs of one type")
    _small(sum(array.size for array in arrays))
    return [np.concatenate(arrays, axis)]


def _split(call: _Call) -> list[Array]:
    x, axis, count = call.array(), call.attribute("axis", 0), len(call.op.outputs)
    size = x.shape[axis]
    given = call.attribute("split") if call.graph.opset < 13 else call.ints(1)
    each = -(-size // count)
    even = [each] * (count - 1) + [size - each * (count - 1)]
    sizes = even if given is None else list(given)
    if len(sizes) != count or min(sizes) < 0 or sum(sizes) != size:
        raise ValueError(f"{size} cannot be split into {sizes}")
    return np.split(x, np.cumsum(sizes[:-1]).tolist(), axis)


def _slice(call: _Call) -> list[Array]:
    x = call.array()
    if call.graph.opset < 10:
        starts, ends = call.attribute("starts"), call.attribute("ends")
        axes, steps = call.attribute("axes"), None
    else:
        starts, ends, axes, steps = (call.ints(k) for k in range(1, 5))
    if starts is None or ends is None:
        raise ValueError("starts and ends are missing")
    rows = zip(
        starts,
        ends,
        range(len(starts)) if axes is None else axes,
        [1] * len(starts) if steps is None else steps,
        strict=True,
    )
    index = [slice(None)] * x.ndim
    for start, end, axis, step in rows:
        index[axis] = slice(start, end, step)
    return [x[tuple(index)]]


def _shape(call: _Call) -> list[Array]:
    part = slice(call.attribute("start"), call.attribute("end"))
    return [np.array(call.array().shape[part], np.int64)]


def _gather(call: _Call) -> list[Array]:
    x, index, axis = call.array(), call.array(1), call.attribute("axis", 0)
    _small(x.size // max(1, x.shape[axis]) * index.size)
    return [np.take(x, index, axis)]


def _expand(call: _Call) -> list[Array]:
    x, shape = call.array(), call.ints(1)
    if shape is None or any(size < 0 for size in shape):
        raise ValueError(f"shape {shape}")
    return [np.broadcast_to(x, np.broadcast_shapes(x.shape, shape))]


def _constant_of_shape(call: _Call) -> list[Array]:
    shape, value = call.ints(0), call.attribute("value")
    if shape is None or any(size < 0 for size in shape):
        raise ValueError(f"shape {shape}")
    fill = np.zeros((), np.float32)
    if isinstance(value, TensorProto):
        fill = call.graph.attribute_tensor(value).reshape(())
    return [np.broadcast_to(fill, shape)]


def _mul(call: _Call) -> list[Array]:
    a, b = call.array(), call.array(1)
    if a.dtype.kind != "i" or b.dtype != a.dtype:
        raise ValueError(f"arithmetic on {a.dtype} is not supported")
    _small(math.prod(np.broadcast_shapes(a.shape, b.shape)))
    return [a * b]


def _cast(call: _Call) -> list[Array]:
    x, dtype = call.array(), dtype_of(call.attribute("to", 0), "to")
    if x.dtype.kind != "i" or dtype.kind != "i":
        raise ValueError(f"a cast from {x.dtype} to {dtype} is not supported")
    _small(x.size)
    return [x.astype(dtype)]


_OPS: dict[str, Callable[[_Call], list[Array]]] = {
    "Identity": lambda call: [call.array()],
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Shape": _shape,
    "Gather": _gather,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Mul": _mul,
    "Cast": _cast,
}
