"""The two parts of a Reservoir, its units and its readout, and how states are run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from . import _series
from ._arrays import Array, describe
from ._parameters import Parameters
from ._reservoir_stream import ReservoirStream, State
from ._reservoir_weights import check, has_feedback, linear, matrix, units
from ._series import Block
from .layers import RNN, LeakyRNN

# h, or with feedback h and y; None for zeros.
Checked = tuple[Array | None, ...]


class States(Parameters):
    """Base of Reservoir."""

    input_size: int
    hidden_size: int
    output_size: int | None
    alpha: Any
    density: float
    spectral_radius: float
    input_scale: Any
    bias_scale: float
    input_density: float
    feedback_scale: float
    readout_input: bool
    ridge: float
    warmup: int
    nonlinearity: str | tuple[Any, ...]
    form: str
    group: int | None
    weights: Mapping[str, Any] | None
    dtype: Any
    seed: int | np.random.Generator | None

    def _check(self, params: Mapping[str, Any]) -> None:
        check(params)

    def _changed(self, names: set[str]) -> None:
        if not names <= {"ridge", "warmup", "readout_input"}:
            self._layer: LeakyRNN | None = None
        if not names <= {"ridge", "warmup"}:
            self.reset()

    def reset(self) -> None:
        """Forgets the readout."""
        self._readout: RNN | None = None
        self._outputs: int | None = None  # O, if a readout or a fit tells it

    # ---- The two parts

    @property
    def _back(self) -> bool:
        """Whether outputs are fed back."""
        return has_feedback(self.__dict__)

    @property
    def _features(self) -> int:
        return self.hidden_size + (self.input_size if self.readout_input else 0)

    @property
    def _given_outputs(self) -> int | None:
        """O, if the parameters tell it."""
        if self.output_size is None and self.weights is not None and self._back:
            return matrix("weight_fb", self.weights["weight_fb"]).shape[1]
        return self.output_size

    @property
    def _known_outputs(self) -> int | None:
        """O, if the parameters or a fit tell it."""
        return self._given_outputs or self._outputs

    @property
    def layer(self) -> LeakyRNN:
        """The units. With feedback they read x_t and y_{t-1}, I + O values side by side. They have
        a `recurrent_mask` if that saves half of the work at least (`step_cost()`), which is when it
        is faster.

        Raises:
            ValueError: with feedback, if the number of outputs is not known yet.
        """
        return self._units(self._known_outputs)

    def _units(self, outputs: int | None) -> LeakyRNN:
        """The layer, with feedback that of so many outputs."""
        if self._back and not outputs:
            raise ValueError("output_size: with feedback it must be known before the first fit")
        read = self.input_size + ((outputs or 0) if self._back else 0)
        if self._layer is None or self._layer.input_size != read:
            self._layer = units(self.get_params(), outputs or 1)
        return self._layer

    @property
    def readout(self) -> RNN | None:
        """The readout as a layer without memory, in float64, which `save` writes for devices as it
        does `layer`; None before it is fitted."""
        return self._readout

    @property
    def weight_out(self) -> Array | None:
        """W_out [O, H], [O, H + I] with `readout_input`; None before it is fitted."""
        return None if self._readout is None else self._readout.weight_ih_l0

    @property
    def bias_out(self) -> Array | None:
        """b_out [O]; None before it is fitted."""
        return None if self._readout is None else self._readout.bias_ih_l0

    def _take_readout(self, weight: Any, bias: Any) -> None:
        w = matrix("weight_out", weight)
        known = self._given_outputs
        if w.ndim != 2 or w.shape != (known or len(w), self._features) or not len(w):
            shape = f"({known or 'O'}, {self._features})"
            raise ValueError(f"weight_out: expected shape {shape}, got {w.shape}")
        b = np.zeros(len(w)) if bias is None else matrix("bias_out", bias)
        if b.shape != (len(w),):
            raise ValueError(f"bias_out: expected shape {(len(w),)}, got {b.shape}")
        self._readout, self._outputs = linear(w, b), len(w)

    def _fitted(self, name: str) -> RNN:
        if self._readout is None:
            raise RuntimeError(f"{name}: no readout yet; call fit, or partial_fit and solve")
        return self._readout

    # ---- States

    def run(self, x: Any, state: Any = None, *, y: Any = None) -> tuple[Array, State]:
        """The units' outputs at every step.

        Args:
            x: [T, I] or [T, B, I].
            state: h (u for form "potential") before the first step, [H] or [B, H], as a call
                returned it; with feedback (h, y) with the outputs [O] or [B, O] that are fed back
                into the first step. Zeros if None.
            y: with feedback, the outputs to feed back, [T, O] or [T, B, O], each into the step
                after it (teacher forcing); None to feed back what the readout predicts.

        Returns:
            h at every step, [T, H] or [T, B, H], and the state after the last step.

        Raises:
            TypeError, ValueError: if an argument does not fit.
            RuntimeError: with feedback, if there is neither y nor a readout.

        Example:
            >>> from fastrnn.reservoir import Reservoir
            >>> states, state = Reservoir(2, 30, seed=0).run(np.ones((5, 2)))
            >>> states.shape, bool((states[-1] == state).all())
            ((5, 30), True)
        """
        x = _series.inputs(x, self.input_size, self.dtype)
        batch = x.shape[1:-1]
        if not self._back:
            if y is not None:
                raise ValueError("y: expected None, as this Reservoir has no feedback")
            (h,) = self._check_state(state, batch)
            states, final = self.layer(x, None if h is None else h[None])
            return states, final[0]
        if y is None:
            self._fitted("run")
            stream = self._stream(batch, self._check_state(state, batch))
            states = np.empty((*x.shape[:-1], self.hidden_size), x.dtype)
            stream._over(*(array if batch else array[:, None] for array in (x, states)))
            h, last = stream.state
            return states, (h, last) if batch else (h[0], last[0])
        target = _series.targets(y, x, self._known_outputs)
        h, last = self._check_state(state, batch)
        joined = self._joined(x, target, last)
        states, final = self._units(target.shape[-1])(joined, None if h is None else h[None])
        if len(x):
            last = target[-1].astype(x.dtype)
        elif last is None:
            last = np.zeros((*batch, target.shape[-1]), x.dtype)
        return states, (final[0], last)

    def _joined(self, x: Array, y: Array, first: Array | None = None) -> Array:
        """What the layer reads: x_t, and with feedback y_{t-1}."""
        if not self._back:
            return x
        joined = np.zeros((*x.shape[:-1], self.input_size + y.shape[-1]), x.dtype)
        joined[..., : self.input_size] = x
        joined[1:, ..., self.input_size :] = y[:-1]
        if first is not None:
            joined[:1, ..., self.input_size :] = first
        return joined

    def _check_state(self, state: Any, batch: tuple[int, ...]) -> Checked:
        """(h,), with feedback (h, y); None for zeros."""
        shape = (*batch, self.hidden_size)
        if state is None:
            return (None, None) if self._back else (None,)
        if not self._back:
            return (_series.of_shape("state", state, shape, self.dtype),)
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"state: expected a tuple (h, y), got {describe(state)}")
        h = _series.of_shape("state[0] (h)", state[0], shape, self.dtype)
        outputs = self._known_outputs or np.shape(state[1])[-1]
        return h, _series.of_shape("state[1] (y)", state[1], (*batch, outputs), self.dtype)

    def _chunks(
        self, block: Block, rows: int, state: Array | None = None
    ) -> Iterator[tuple[slice, Array]]:
        """Some steps after the other, about so many rows at once, and their states [steps, B, H],
        in memory that is used again."""
        x = self._joined(block.x, block.y)
        layer = self._units(block.y.shape[-1] or None)
        total, batch, _ = x.shape
        stretch = min(max(1, rows // max(1, batch)), max(1, total))
        out = np.empty((stretch, batch, self.hidden_size), x.dtype)
        carried: Any = None if state is None else state.reshape(1, batch, -1)
        for first in range(0, total, stretch):
            steps = slice(first, min(first + stretch, total))
            count = steps.stop - first
            left = None if block.lengths is None else np.clip(block.lengths - first, 0, count)
            states, carried = layer(x[steps], carried, out=out[:count], lengths=left)
            yield steps, states

    def _stream(self, batch: tuple[int, ...], state: Checked | None) -> ReservoirStream:
        """A stream with a state that has been checked."""
        rows = batch[0] if batch else 1
        stream = ReservoirStream(self, rows)
        if state is not None:
            stream._set(*(None if array is None else array.reshape(rows, -1) for array in state))
        return stream
