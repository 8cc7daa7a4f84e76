"""Dropout between layers, in training: layer by layer, each a net of its own."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._activations import finite
from ._arrays import Array
from ._states import as_state, as_tuple
from ._tape import Grads

if TYPE_CHECKING:
    from ._base import Layer


def checked_dropout(value: Any, num_layers: int) -> float:
    """A probability; a warning where it would do nothing."""
    dropout = finite("dropout", value)
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout: expected a number in [0, 1], got {value!r}")
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            f"dropout={dropout}: it acts between layers, and there is one (num_layers=1)",
            stacklevel=4,
        )
    return dropout


def checked_rng(value: Any) -> np.random.Generator:
    """A generator from what NumPy makes one of."""
    try:
        return np.random.default_rng(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"rng: expected None, a seed or a Generator: {error}") from error


class DropoutTape:
    """Has the interface of `_core.Tape`, for nets whose layers drop some of their outputs.

    An output of a layer but the last becomes 0 with probability p, else 1 / (1 - p) of itself.
    What is dropped does not depend on whether the batch comes first.
    """

    def __init__(self, layer: Layer, rng: Any) -> None:
        self._probability, self._rng = layer.dropout, checked_rng(rng)
        self._directions = 1 + layer.bidirectional
        self._nets = layer._pieces(self._directions)
        self._states = layer._state_pieces(self._directions)
        self._tapes = [_core.Tape() for _ in self._nets]
        self._factors: list[Array] = []  # of the outputs of each layer but the last

    def call(
        self,
        x: Array,
        state: Any,
        out: Array | None,
        batch_first: bool,
        lengths: Array | None = None,
        reset: Array | None = None,
    ) -> tuple[Array, Any]:
        """As Net.call with a tape; the arguments have been converted."""
        finals, last = [], len(self._nets) - 1
        for number, (net, tape) in enumerate(zip(self._nets, self._tapes, strict=True)):
            own = None if state is None else as_state(self._states.of(number, as_tuple(state)))
            target = out if number == last else None
            result = net.call(x, own, target, batch_first, False, tape, lengths, reset)
            assert result is not None
            y, final = result
            finals.append(as_tuple(final))
            if number < last:
                self._factors.append(self._draw(y, batch_first))
                y *= self._factors[-1]
            x = y
        return x, as_state(self._states.joined(finals))

    def _draw(self, y: Array, batch_first: bool) -> Array:
        swap = batch_first and y.ndim == 3
        shape = y.swapaxes(0, 1).shape if swap else y.shape
        kept = self._rng.random(shape, np.float32) >= self._probability
        factors = kept.astype(y.dtype)
        if self._probability < 1:
            factors /= 1 - self._probability
        return factors.swapaxes(0, 1) if swap else factors

    @property
    def nbytes(self) -> int:
        """Bytes that are held: activations, the inputs of inner layers, what was dropped."""
        held = sum(tape.nbytes for tape in self._tapes)
        return held + 2 * sum(factors.nbytes for factors in self._factors)

    def inputs(self) -> tuple[Array, ...]:
        """The arrays that the backward reads."""
        inner = [array for tape in self._tapes for array in tape.inputs()]
        return (*inner, *self._factors)

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
        for number in reversed(range(len(self._tapes))):
            parts = slice(number * self._directions, (number + 1) * self._directions)
            dy, final = self._tapes[number].backward(
                dy,
                self._states.of(number, dstate),
                need_x or number > 0,
                None if grads is None else grads[parts],
                accumulate,
            )
            finals.append(final)
            if number > 0:
                assert dy is not None
                dy *= self._factors[number - 1]
        return dy, self._states.joined(finals[::-1])
