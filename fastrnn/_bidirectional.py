"""Checkpoints of bidirectional layers.

A net of two directions cannot run in stretches of time: a layer needs both outputs of the one
below. So each direction of each layer runs as a net of its own, with checkpoints of its own, the
reverse ones over reversed views of the arrays. The arithmetic is that of the whole, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._arrays import Array

if TYPE_CHECKING:
    from ._base import Layer

Shape = tuple[int, ...]


class BidirectionalTape:
    """Has the interface of `_core.Tape`, for nets of two directions."""

    def __init__(self, layer: Layer, states: int, segment: int) -> None:
        self._hidden, self._batch_first = layer.hidden_size, layer.batch_first
        self._dtype, self._states = layer.dtype, states
        self._tapes = [_core.Tape(segment) for _ in range(2 * layer.num_layers)]
        self._nets = layer._direction_nets()
        self._inputs: list[Array] = []  # of each layer

    def _views(self, x: Array) -> tuple[Array, Array]:
        """x as each direction sees it."""
        time = 1 if self._batch_first and x.ndim == 3 else 0
        return x, np.flip(x, time)

    def _outputs(self, y: Array) -> tuple[Array, Array]:
        """The share of each direction in y, as it sees it."""
        forward, reverse = y[..., : self._hidden], y[..., self._hidden :]
        return self._views(forward)[0], self._views(reverse)[1]

    def forward(self, x: Array, state: Any, out: Array | None) -> tuple[Array, Any]:
        """As Net.call with a tape; the arguments have been converted."""
        states = state if isinstance(state, tuple) else (state,)
        layers = len(self._nets) // 2
        finals = []
        for layer in range(layers):
            self._inputs.append(x)
            last = layer == layers - 1
            shape = (*x.shape[:-1], 2 * self._hidden)
            y = out if last and out is not None else np.empty(shape, self._dtype)
            for direction, (view, part) in enumerate(
                zip(self._views(x), self._outputs(y), strict=True)
            ):
                index = 2 * layer + direction
                start = None if state is None else _part(states, index)
                result = self._nets[index].call(
                    view, start, part, self._batch_first, False, self._tapes[index]
                )
                assert result is not None
                finals.append(result[1] if self._states > 1 else (result[1],))
            x = y
        joined = tuple(np.concatenate(arrays) for arrays in zip(*finals, strict=True))
        return x, joined if self._states > 1 else joined[0]

    @property
    def nbytes(self) -> int:
        """Bytes that are held: checkpoints, and the outputs of inner layers."""
        return sum(t.nbytes for t in self._tapes) + sum(x.nbytes for x in self._inputs[1:])

    def inputs(self) -> tuple[Array, ...]:
        """The arrays that the backward reads."""
        return tuple(self._inputs)

    def shapes(self) -> tuple[Shape, Shape, Shape]:
        """Of x, of y and of a state array."""
        x, (_, _, state) = self._inputs[0].shape, self._tapes[0].shapes()
        return x, (*x[:-1], 2 * self._hidden), (len(self._nets), *state[1:])

    def backward(
        self,
        dy: Array | None,
        dstate: tuple[Array | None, ...],
        need_x: bool,
        grads: list[tuple[Array | None, ...]] | None,
        accumulate: bool = False,
    ) -> tuple[Array | None, tuple[Array, ...]]:
        """As _core.Tape.backward."""
        finals: list[tuple[Array, ...]] = []
        dy = self._all_steps(dy)
        for layer in reversed(range(len(self._nets) // 2)):
            shares = (None, None) if dy is None else self._outputs(dy)
            dxs = []
            for direction in (1, 0):
                index = 2 * layer + direction
                part = None if grads is None else [grads[index]]
                dx, final = self._tapes[index].backward(
                    shares[direction],
                    tuple(None if d is None else d[index : index + 1] for d in dstate),
                    need_x or layer > 0,
                    part,
                    accumulate,
                )
                dxs.append(dx)
                finals.append(final)
            if dxs[0] is None or dxs[1] is None:
                dy = None
            else:
                dy = dxs[1]
                dy += self._views(dxs[0])[1]
        joined = tuple(np.concatenate(arrays[::-1]) for arrays in zip(*finals, strict=True))
        return dy, joined

    def _all_steps(self, dy: Array | None) -> Array | None:
        """dy with its axis of time: the last step of all is the first of a reverse direction."""
        shape = self.shapes()[1]
        if dy is None or dy.ndim == len(shape):
            return dy
        whole = np.zeros(shape, self._dtype)
        if whole.size:
            np.moveaxis(whole, 1 if self._batch_first and whole.ndim == 3 else 0, 0)[-1] = dy
        return whole


def _part(states: tuple[Array, ...], index: int) -> Any:
    """The state of one part, as Net.call takes it."""
    parts = tuple(array[index : index + 1] for array in states)
    return parts if len(parts) > 1 else parts[0]
