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
from ._states import as_state, as_tuple
from ._tape import Grads, all_steps

if TYPE_CHECKING:
    from ._base import Layer


class BidirectionalTape:
    """Has the interface of `_core.Tape`, for nets of two directions."""

    def __init__(self, layer: Layer, segment: int) -> None:
        self._batch_first, self._dtype = layer.batch_first, layer.dtype
        self._width = layer._output_size // 2  # of one direction
        self._tapes = [_core.Tape(segment) for _ in range(2 * layer.num_layers)]
        self._nets = layer._pieces(1)
        self._states = layer._state_pieces(1)
        self._inputs: list[Array] = []  # of each layer

    def _views(self, x: Array) -> tuple[Array, Array]:
        """x as each direction sees it."""
        time = 1 if self._batch_first and x.ndim == 3 else 0
        return x, np.flip(x, time)

    def _outputs(self, y: Array) -> tuple[Array, Array]:
        """The share of each direction in y, as it sees it."""
        forward, reverse = y[..., : self._width], y[..., self._width :]
        return self._views(forward)[0], self._views(reverse)[1]

    def forward(self, x: Array, state: Any, out: Array | None) -> tuple[Array, Any]:
        """As Net.call with a tape; the arguments have been converted."""
        layers = len(self._nets) // 2
        finals = []
        for layer in range(layers):
            self._inputs.append(x)
            last = layer == layers - 1
            shape = (*x.shape[:-1], 2 * self._width)
            y = out if last and out is not None else np.empty(shape, self._dtype)
            for direction, (view, share) in enumerate(
                zip(self._views(x), self._outputs(y), strict=True)
            ):
                index = 2 * layer + direction
                own = None if state is None else as_state(self._states.of(index, as_tuple(state)))
                result = self._nets[index].call(
                    view, own, share, self._batch_first, False, self._tapes[index]
                )
                assert result is not None
                finals.append(as_tuple(result[1]))
            x = y
        return x, as_state(self._states.joined(finals))

    @property
    def nbytes(self) -> int:
        """Bytes that are held: checkpoints, and the outputs of inner layers."""
        return sum(t.nbytes for t in self._tapes) + sum(x.nbytes for x in self._inputs[1:])

    def inputs(self) -> tuple[Array, ...]:
        """The arrays that the backward reads."""
        return tuple(self._inputs)

    def backward(
        self,
        dy: Array | None,
        dstate: tuple[Array | None, ...],
        need_x: bool,
        grads: Grads | None,
        accumulate: bool = False,
    ) -> tuple[Array | None, tuple[Array, ...]]:
        """As _core.Tape.backward."""
        finals: list[tuple[Array, ...]] = []
        if dy is not None:  # the last step of all is the first of a reverse direction
            shape = (*self._inputs[0].shape[:-1], 2 * self._width)
            dy = all_steps(dy, shape, self._batch_first)
        for layer in reversed(range(len(self._nets) // 2)):
            shares = (None, None) if dy is None else self._outputs(dy)
            dxs = []
            for direction in (1, 0):
                index = 2 * layer + direction
                own = None if grads is None else [grads[index]]
                dx, final = self._tapes[index].backward(
                    shares[direction],
                    self._states.of(index, dstate),
                    need_x or layer > 0,
                    own,
                    accumulate,
                )
                dxs.append(dx)
                finals.append(final)
            if dxs[0] is None or dxs[1] is None:
                dy = None
            else:
                dy = dxs[1]
                dy += self._views(dxs[0])[1]
        return dy, self._states.joined(finals[::-1])
