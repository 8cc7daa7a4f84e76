"""Streams: a net that is fed one step at a time and keeps its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._arrays import Array, check_size

if TYPE_CHECKING:
    from ._base import Layer, State


class Stream:
    """One step at a time, with the state kept between; made by `layer.stream()`.

    The results have the same bits as those of the layer on the whole sequence. A stream holds the
    weights that its layer had when it was made. Streams of one layer may run in different threads;
    one stream belongs to one thread at a time.

    Attributes:
        step: `step(x_t, out=None)` takes x_t [B, I] ([I] for one sequence) and returns y_t [B, H]
            ([H]). Nothing is converted: x_t and out must be aligned arrays of the layer's dtype
            with contiguous features, else TypeError or ValueError. With `out` nothing is allocated.

    Example:
        >>> from fastrnn import LSTM
        >>> lstm = LSTM(3, 8, seed=0)
        >>> x = np.ones((5, 3), np.float32)
        >>> s = lstm.stream()
        >>> steps = np.stack([s.step(x_t) for x_t in x])
        >>> bool((steps == lstm(x)[0]).all())
        True
    """

    def __init__(self, layer: Layer, batch_size: int = 1) -> None:
        self.batch_size = check_size("batch_size", batch_size)
        if layer.bidirectional:
            raise ValueError(
                "stream: a bidirectional layer reads the sequence from both ends and has no stream"
            )
        self._layer = layer
        net = layer._net()
        self._states = net.states
        self._core = _core.Stream(net, self.batch_size)
        self.step = self._core.step

    def reset(self) -> None:
        """Sets the state to zero, as before the first step."""
        self._core.reset()

    @property
    def state(self) -> State:
        """The state as a layer's call returns it, [L, B, H] each; assign to set it."""
        shape = self._layer._state_shape((self.batch_size,))
        arrays = tuple(np.empty(shape, self._layer.dtype) for _ in range(self._states))
        self._core.get(arrays)
        return (arrays[0], arrays[1]) if self._states == 2 else arrays[0]

    @state.setter
    def state(self, value: Any) -> None:
        if value is None:
            self._core.reset()
            return
        arrays: tuple[Array, ...] = self._layer._check_state(
            value, self._states, (self.batch_size,)
        )
        self._core.set(arrays)

    def __repr__(self) -> str:
        return f"Stream({self._layer!r}, batch_size={self.batch_size})"
