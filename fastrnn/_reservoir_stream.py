"""A Reservoir that is fed one step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import Array, as_array, check_out, check_size, describe

if TYPE_CHECKING:
    from ._reservoir_states import States

State = Array | tuple[Array, Array]


class ReservoirStream:
    """One step at a time, with the state kept between; made by `Reservoir.stream`.

    The results have the same bits as those of `Reservoir.predict` on the whole series. With
    feedback each output goes into the next step. A stream keeps the weights and the readout that
    its Reservoir had when it was made; it belongs to one thread at a time.

    Example:
        >>> from fastrnn.reservoir import Reservoir
        >>> x = np.sin(np.arange(50, dtype=np.float32))[:, None]
        >>> net = Reservoir(1, 40, seed=0).fit(x[:-1], x[1:])
        >>> s = net.stream()
        >>> online = np.stack([s.step(x_t) for x_t in x])
        >>> bool((online == net.predict(x)).all())
        True
    """

    def __init__(self, reservoir: States, batch_size: int = 1) -> None:
        self.batch_size = check_size("batch_size", batch_size)
        readout, layer = reservoir._fitted("stream"), reservoir.layer
        self._reservoir, self._dtype = repr(reservoir), layer.dtype
        self._state_of = reservoir._check_state
        self._units, self._linear = layer.stream(batch_size), readout.stream(batch_size)
        rows, size, units = self.batch_size, reservoir.input_size, layer.hidden_size
        joined = np.zeros((rows, layer.input_size), layer.dtype)
        self._joined, self._x, self._last = joined, joined[:, :size], joined[:, size:]
        self._h = np.empty((rows, units), layer.dtype)
        self._features = np.empty((rows, readout.input_size))
        self._seen, self._seen_x = self._features[:, :units], self._features[:, units:]
        self._y = np.empty((rows, readout.hidden_size))

    def step(self, x_t: Any, out: Array | None = None) -> Array:
        """One step.

        Args:
            x_t: [B, I], or [I] for one series. Real numbers, rounded to the dtype of the units; of
                an array with that many values nothing is allocated but y_t.
            out: an array of the units' dtype for y_t, of its shape.

        Returns:
            y_t [B, O] or [O].

        Raises:
            TypeError, ValueError: if an argument does not fit; the state is unchanged then.

        Example:
            >>> from fastrnn.reservoir import Reservoir
            >>> net = Reservoir(2, 20, seed=0).fit(np.eye(2), np.ones((2, 1)))
            >>> net.stream().step([1.0, 0.0]).shape
            (1,)
        """
        x = as_array("x", x_t)
        if x.dtype.kind not in "biuf":
            raise TypeError(f"x: expected real numbers, got {describe(x)}")
        batch = x.shape[:-1]
        if x.shape != self._x.shape and not (x.shape == self._x.shape[1:] and len(self._x) == 1):
            shape = self._x.shape
            raise ValueError(f"x: expected shape {shape}, got {x.shape}")
        if out is None:
            out = np.empty((*batch, self._y.shape[1]), self._dtype)
        else:
            check_out(out, (*batch, self._y.shape[1]), self._dtype)
        self._x[...] = x
        self._units.step(self._joined, self._h)
        self._seen[...] = self._h
        if self._seen_x.size:
            self._seen_x[...] = self._x
        self._linear.reset()  # the readout remembers nothing, not even a NaN
        self._linear.step(self._features, self._y)
        out[...] = self._y
        self._feed(out)
        return out

    def _over(self, x: Array, states: Array | None = None) -> Array:
        """y [T, B, O] of x [T, B, I]; the units' outputs into `states`."""
        y = np.empty((*x.shape[:2], self._y.shape[1]), self._dtype)
        for t, x_t in enumerate(x):
            self.step(x_t, y[t])
            if states is not None:
                states[t] = self._h
        return y

    def reset(self) -> None:
        """Sets the state, and the output that is fed back, to zero."""
        self._units.reset()
        self._feed(0)

    @property
    def state(self) -> State:
        """The state as `Reservoir.run` returns it, [B, H], with feedback (h, y); assign to set
        it."""
        h = self._units.state[0]
        return (h, self._last.copy()) if self._last.size else h

    @state.setter
    def state(self, value: Any) -> None:
        self._set(*self._state_of(value, (self.batch_size,)))

    def _set(self, h: Array | None, y: Array | None = None) -> None:
        self._units.state = None if h is None else h[None]
        self._feed(0 if y is None else y)

    def _feed(self, y: Any) -> None:
        """What the next step reads as the output before it, if there is feedback."""
        if self._last.size:
            self._last[...] = y

    def __repr__(self) -> str:
        return f"ReservoirStream({self._reservoir}, batch_size={self.batch_size})"
