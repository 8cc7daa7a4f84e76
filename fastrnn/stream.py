"""Streams: a net that is fed one step at a time and keeps its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._arrays import check_size
from ._states import as_state

if TYPE_CHECKING:
    from ._base import Layer, State


class Stream:
    """One step at a time, with the state kept between; made by `layer.stream()`.

    The results have the same bits as those of the layer on the whole sequence. A stream holds the
    weights that its layer had when it was made. Streams of one layer may run in different threads;
    one stream belongs to one thread at a time.

    Attributes:
        step: `step(x_t, out=None)` takes x_t [B, I] ([I] for one sequence) and returns y_t [B, H]
            ([H]; P for H with a projection). Nothing is converted: x_t and out must be aligned
            arrays of the layer's dtype with contiguous features, else TypeError or ValueError. With
            `out` nothing is allocated.

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
        if layer.go_backwards:
            raise ValueError("stream: a layer that goes backwards starts at the end of a sequence")
        self._layer = layer
        self._core = _core.Stream(layer._net(), self.batch_size)
        self.step = self._core.step

    def reset(self) -> None:
        """Sets the state to zero, as before the first step."""
        self._core.reset()

    @property
    def state(self) -> State:
        """The state as a layer's call returns it, [L, B, H] each (h of an LSTM with a projection
        [L, B, P]; with delays and clocks as there); assign to set it."""
        batch = (self.batch_size,)
        arrays = [np.empty(s, self._layer.dtype) for s in self._layer._state_shapes(batch)]
        if self._layer.periods is not None:
            arrays.append(np.empty(batch, np.int64))
        self._core.get(tuple(arrays))
        return as_state(tuple(arrays))

    @state.setter
    def state(self, value: Any) -> None:
        if value is None:
            self._core.reset()
            return
        self._core.set(self._layer._check_state("state", value, (self.batch_size,)))

    def __repr__(self) -> str:
        return f"Stream({self._layer!r}, batch_size={self.batch_size})"
