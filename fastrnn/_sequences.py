"""Calls whose sequences differ: lengths, resets, masks with holes, layers that go backwards.

Lengths and resets are the kernels' own. A mask becomes lengths: the steps that a row takes move to
its front, and its outputs back to their places. A layer that goes backwards runs over a reversed
view. What is done to arrays on the way in is undone by the tape on the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core
from ._arrays import Array, as_array, check_flag, describe
from ._states import as_state, as_tuple
from ._tape import Grads, TapeLike, all_steps

if TYPE_CHECKING:
    from ._base import Layer

# x, state, out, batch_first, lengths, reset -> y, final state
Run = Callable[[Array, Any, Array | None, bool, Array | None, Array | None], tuple[Array, Any]]
Wrap = Callable[[TapeLike], TapeLike]


class Forms(NamedTuple):
    """The arguments of a call that say which steps a row has."""

    lengths: Any = None
    reset: Any = None
    mask: Any = None
    zero_output_for_mask: Any = False


PLAIN = Forms()


def run(
    layer: Layer, call: Run, x: Any, state: Any, out: Any, forms: Forms
) -> tuple[Array, Any, Wrap]:
    """Checks all arguments and runs `call`.

    Returns y, the final state, and what makes the tape of this call out of that of `call`.
    """
    x, state, out = layer._converted(x, state, out)
    batch_first = layer.batch_first and x.ndim == 3
    lengths, reset, mask = _checked(layer, x, forms, batch_first)
    time = 1 if batch_first else 0
    if layer.go_backwards:
        x = np.flip(x, time)
        reset = None if reset is None else _turned(reset)
        mask = None if mask is None else mask[::-1]
    if mask is None:
        y, final = call(x, state, out, batch_first, lengths, reset)
        wrap: Wrap = _same
    else:
        skips = Skips(mask, 1 + layer.bidirectional, bool(forms.zero_output_for_mask), batch_first)
        shape, width = x.shape, layer._output_size
        y, final = skips.run(call, x, state, out, (*shape[:-1], width))

        def wrap(tape: TapeLike) -> TapeLike:
            return SkippingTape(tape, skips, shape, width)

    if layer.go_backwards:
        return y, final, lambda tape: BackwardsTape(wrap(tape), time)
    return y, final, wrap


def runner(net: _core.Net, parallel_time: bool, tape: _core.Tape | None) -> Run:
    """Net.call for arguments that have been converted."""

    def call(
        x: Array,
        state: Any,
        out: Array | None,
        batch_first: bool,
        lengths: Array | None,
        reset: Array | None,
    ) -> tuple[Array, Any]:
        result = net.call(x, state, out, batch_first, parallel_time, tape, lengths, reset)
        assert result is not None
        return result

    return call


def _same(tape: TapeLike) -> TapeLike:
    return tape


# ---- What is accepted -------------------------------------------------------------------------


def _checked(
    layer: Layer, x: Array, forms: Forms, batch_first: bool
) -> tuple[Array | None, Array | None, Array | None]:
    """lengths [B] and reset and mask, time first, [T, B], as the kernels take them."""
    lengths, reset, mask, zero_output = forms
    check_flag("zero_output_for_mask", zero_output)
    if mask is not None and (lengths is not None or reset is not None):
        raise ValueError("mask: not together with lengths or reset")
    if lengths is not None:
        if layer.go_backwards:
            raise ValueError("lengths: not for a layer that goes backwards; a mask will do")
        rows = 1 if x.ndim == 2 else x.shape[0 if batch_first else 1]
        lengths = _checked_lengths(lengths, x.shape[1 if batch_first else 0], rows, x.ndim == 2)
    if reset is not None:
        reset = _checked_steps("reset", reset, x.shape[:-1], batch_first)
    if mask is not None:
        mask = _checked_steps("mask", mask, x.shape[:-1], batch_first)
    return lengths, reset, mask


def _checked_lengths(value: Any, steps: int, rows: int, unbatched: bool) -> Array:
    array = as_array("lengths", value)
    if array.dtype.kind not in "iu" and array.size > 0:
        raise TypeError(f"lengths: expected integers, got {describe(array)}")
    if array.shape != (rows,) and not (unbatched and array.shape == ()):
        raise ValueError(f"lengths: expected shape {(rows,)}, got {array.shape}")
    values = array.ravel().tolist()  # of a few rows far cheaper than NumPy's comparisons
    if values and not 0 <= min(values) <= max(values) <= steps:
        wrong = next(value for value in values if not 0 <= value <= steps)
        raise ValueError(f"lengths: expected 0 to T = {steps}, got {wrong}")
    return np.array(values, np.intp)


def _checked_steps(name: str, value: Any, shape: tuple[int, ...], batch_first: bool) -> Array:
    """Booleans of x's steps as a contiguous array [T, B]."""
    array = as_array(name, value)
    if array.dtype != np.bool_:
        raise TypeError(f"{name}: expected booleans, got {describe(array)}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if batch_first:
        array = array.swapaxes(0, 1)
    return np.ascontiguousarray(array[:, None] if array.ndim == 1 else array)


def _turned(reset: Array) -> Array:
    """Resets as a net sees them that reads from the end: a cut before step t is one after t."""
    turned = np.zeros_like(reset)
    turned[1:] = reset[:0:-1]
    return turned


# ---- Masks ------------------------------------------------------------------------------------


def _by_time(array: Array, batch_first: bool) -> Array:
    """[T, B, F] of [T, F], or of [B, T, F] with `batch_first`; a view."""
    if array.ndim == 2:
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first else array


def _with_row(array: Array) -> Array:
    """An array of the state of one sequence as that of a batch of one; a clock has no units."""
    return array[None] if array.ndim == 0 else array[..., None, :]


def _without_row(array: Array) -> Array:
    """Undoes _with_row."""
    return array.reshape(()) if array.ndim == 1 else array[..., 0, :]


class Skips:
    """The steps that a mask leaves, moved to the front of each row, and the way back.

    Attributes:
        lengths: [B], the steps that a row takes.
        order: [max(lengths), B], the time of a row's k-th such step; what follows is arbitrary.
        sources: for each direction [T, B], the number of the step whose output stands at time t:
            of the last one taken, for the reverse direction of the next; -1 where y is 0.
        repeating: the times at which an output is repeated, by row.
    """

    def __init__(self, mask: Array, directions: int, zero_output: bool, batch_first: bool) -> None:
        self.batch_first = batch_first
        self.lengths = np.count_nonzero(mask, axis=0).astype(np.intp)
        self.steps = int(self.lengths.max(initial=0))
        self.order = np.argsort(~mask, axis=0, kind="stable")[: self.steps]
        shown = mask | (not zero_output)
        taken = np.cumsum(mask, axis=0)
        before = taken - mask
        last = np.where(shown, taken - 1, -1)
        following = np.where(shown & (before < self.lengths), before, -1)
        self.sources = [last, following][:directions]
        self.repeating = shown & ~mask

    def run(
        self, call: Run, x: Array, state: Any, out: Array | None, y_shape: tuple[int, ...]
    ) -> tuple[Array, Any]:
        """y and the final state."""
        single = x.ndim == 2
        if single and state is not None:
            state = as_state(tuple(map(_with_row, as_tuple(state))))
        if out is not None and np.may_share_memory(x, out):
            raise ValueError("out: must not overlap x")
        short = np.take_along_axis(_by_time(x, self.batch_first), self.order[..., None], 0)
        outputs, final = call(short, state, None, False, self.lengths, None)
        y = np.empty(y_shape, x.dtype) if out is None else out
        self._spread(outputs, _by_time(y, self.batch_first))
        if single:
            final = as_state(tuple(map(_without_row, as_tuple(final))))
        return y, final

    def _shares(self, array: Array) -> list[Array]:
        """The features of each direction."""
        return np.split(array, len(self.sources), axis=-1)

    def _spread(self, outputs: Array, y: Array) -> None:
        """Puts each step's output where it is seen."""
        if self.steps == 0:
            y[...] = 0
            return
        shares = zip(self._shares(outputs), self._shares(y), self.sources, strict=True)
        for part, whole, source in shares:
            whole[...] = np.take_along_axis(part, np.maximum(source, 0)[..., None], 0)
            whole[source < 0] = 0

    def collected(self, dy: Array) -> Array:
        """The gradient of each step's output: the sum over the times where it is seen."""
        short = np.take_along_axis(dy, self.order[..., None], 0)
        shares = zip(self._shares(short), self._shares(dy), self.sources, strict=True)
        for part, whole, source in shares:
            for t in np.flatnonzero(self.repeating.any(axis=1)):
                rows = np.flatnonzero(self.repeating[t] & (source[t] >= 0))
                part[source[t, rows], rows] += whole[t, rows]
        return short

    def scattered(self, values: Array, shape: tuple[int, ...]) -> Array:
        """The values of steps at their times, in an array like x; 0 at the others."""
        whole = np.zeros(shape, values.dtype)
        np.put_along_axis(_by_time(whole, self.batch_first), self.order[..., None], values, 0)
        return whole


class SkippingTape:
    """Of a call with a mask, on top of the tape of the steps that it takes."""

    def __init__(self, inner: TapeLike, skips: Skips, x_shape: tuple[int, ...], width: int) -> None:
        self._inner, self._skips = inner, skips
        self._x_shape, self._y_shape = x_shape, (*x_shape[:-1], width)

    @property
    def nbytes(self) -> int:
        """Bytes that are held, with the copies of the steps of x."""
        arrays = (self._inner.inputs()[0], self._skips.order, *self._skips.sources)
        return self._inner.nbytes + sum(array.nbytes for array in arrays)

    def inputs(self) -> tuple[Array, ...]:
        """The arrays that the backward reads."""
        return self._inner.inputs()

    def backward(
        self,
        dy: Array | None,
        dstate: tuple[Array | None, ...],
        need_x: bool,
        grads: Grads | None,
        accumulate: bool = False,
    ) -> tuple[Array | None, tuple[Array, ...]]:
        """As _core.Tape.backward."""
        skips, single = self._skips, len(self._x_shape) == 2
        if dy is not None:
            dy = all_steps(dy, self._y_shape, skips.batch_first)
            dy = skips.collected(_by_time(dy, skips.batch_first))
        if single:
            dstate = tuple(None if d is None else _with_row(d) for d in dstate)
        dx, final = self._inner.backward(dy, dstate, need_x, grads, accumulate)
        if dx is not None:
            dx = skips.scattered(dx, self._x_shape)
        if single:
            final = tuple(map(_without_row, final))
        return dx, final


# ---- Backwards --------------------------------------------------------------------------------


class BackwardsTape:
    """Of a layer that goes backwards, on top of the tape of the reversed sequence."""

    def __init__(self, inner: TapeLike, time: int) -> None:
        self._inner, self._time = inner, time

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._inner.nbytes

    def inputs(self) -> tuple[Array, ...]:
        """The arrays that the backward reads."""
        return self._inner.inputs()

    def backward(
        self,
        dy: Array | None,
        dstate: tuple[Array | None, ...],
        need_x: bool,
        grads: Grads | None,
        accumulate: bool = False,
    ) -> tuple[Array | None, tuple[Array, ...]]:
        """As _core.Tape.backward."""
        dx, final = self._inner.backward(dy, dstate, need_x, grads, accumulate)
        return None if dx is None else np.flip(dx, self._time).copy(), final
