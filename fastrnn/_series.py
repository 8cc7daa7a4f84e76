"""Series as arguments: one [T, F], several [T, B, F] with lengths, or a list of any lengths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ._arrays import Array, as_array, describe

# Series of a list that run together; sorted by length, so that little is padded.
_TOGETHER = 16


class Block(NamedTuple):
    """Series that run side by side."""

    x: Array  # [T, B, I]
    y: Array  # [T, B, O] in float64; O = 0 if there is none
    lengths: Array | None  # [B]; None if all are T
    numbers: list[int]  # of the series in their list

    def counted(self, steps: slice, skipped: int) -> Array | None:
        """Which of these steps are behind the warm-up and within their series, [steps, B]; None
        for all."""
        if self.lengths is None and steps.start >= skipped:
            return None
        total, batch, _ = self.x.shape
        t = np.arange(steps.start, steps.stop)[:, None]
        ends = np.full(batch, total) if self.lengths is None else self.lengths
        return (t >= skipped) & (t < ends)

    def steps(self, skipped: int) -> int:
        """How many steps are behind the warm-up, of all series together."""
        total, batch, _ = self.x.shape
        ends = np.full(batch, total) if self.lengths is None else self.lengths
        return int(np.maximum(ends - skipped, 0).sum())


def is_list(value: Any) -> bool:
    """Whether a value is a list of series rather than a nested list of numbers [T, F]."""
    if not isinstance(value, (list, tuple)):
        return False
    return not value or np.ndim(value[0]) == 2


def real(name: str, value: Any, dtype: Any) -> Array:
    """Real numbers of any type, rounded to `dtype`."""
    array = as_array(name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got {describe(array)}")
    return array.astype(dtype, copy=False)


def of_shape(name: str, value: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Real numbers of one shape."""
    array = real(name, value, dtype)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def _axes(name: str, array: Array, allowed: tuple[int, ...], size: int | None, letter: str) -> None:
    forms = " or ".join(f"[T, {letter}]" if n == 2 else f"[T, B, {letter}]" for n in allowed)
    if array.ndim not in allowed or size not in (None, array.shape[-1]) or array.shape[-1] < 1:
        known = "" if size is None else f" with {letter} = {size}"
        raise ValueError(f"{name}: expected {forms}{known}, got shape {array.shape}")


def inputs(value: Any, size: int, dtype: Any) -> Array:
    """x as [T, I] or [T, B, I]."""
    array = real("x", value, dtype)
    _axes("x", array, (2, 3), size, "I")
    return array


def targets(value: Any, x: Array, size: int | None) -> Array:
    """y in float64, of the steps and rows of x."""
    array = real("y", value, np.float64)
    _axes("y", array, (x.ndim,), size, "O")
    if array.shape[:-1] != x.shape[:-1]:
        raise ValueError(f"y: expected shape {(*x.shape[:-1], 'O')}, got {array.shape}")
    return array


def blocks(x: Any, y: Any, lengths: Any, size: int, outputs: int | None, dtype: Any) -> list[Block]:
    """What runs together, of x and, unless None, y."""
    if is_list(x):
        return list(_of_list(x, y, lengths, size, outputs, dtype))
    array = inputs(x, size, dtype)
    target = np.empty((*array.shape[:-1], 0)) if y is None else targets(y, array, outputs)
    if array.ndim == 2:
        if lengths is not None:
            raise ValueError("lengths: expected None for one series [T, I]")
        return [Block(array[:, None], target[:, None], None, [0])]
    counts = None if lengths is None else _lengths(lengths, *array.shape[:2])
    return [Block(array, target, counts, list(range(array.shape[1])))]


def _lengths(value: Any, steps: int, rows: int) -> Array:
    array = as_array("lengths", value)
    if array.dtype.kind not in "iu" or array.shape != (rows,):
        raise ValueError(f"lengths: expected {rows} integers, got {describe(array)}")
    if array.size and not (array.min() >= 0 and array.max() <= steps):
        raise ValueError(f"lengths: expected 0 to {steps} steps, got {array.min()}..{array.max()}")
    return array.astype(np.intp)


def _of_list(
    x: Any, y: Any, lengths: Any, size: int, outputs: int | None, dtype: Any
) -> Iterable[Block]:
    if lengths is not None:
        raise ValueError("lengths: expected None for a list of series, which have their own")
    if not x:
        raise ValueError("x: expected at least one series")
    if y is not None and not (is_list(y) and len(y) == len(x)):
        raise ValueError(f"y: expected a list of {len(x)} series, as x is, got {_counted(y)}")
    arrays, wanted = [], []
    for number, series in enumerate(x):
        array = real(f"x[{number}]", series, dtype)
        _axes(f"x[{number}]", array, (2,), size, "I")
        target = np.empty((len(array), 0))
        if y is not None:
            target = real(f"y[{number}]", y[number], np.float64)
            _axes(f"y[{number}]", target, (2,), outputs, "O")
            if len(target) != len(array):
                raise ValueError(f"y[{number}]: expected T = {len(array)}, got {target.shape}")
            outputs = target.shape[1]
        arrays.append(array)
        wanted.append(target)
    order = sorted(range(len(arrays)), key=lambda number: -len(arrays[number]))
    for start in range(0, len(order), _TOGETHER):
        numbers = order[start : start + _TOGETHER]
        counts = np.array([len(arrays[number]) for number in numbers], np.intp)
        padded = [_padded([each[number] for number in numbers]) for each in (arrays, wanted)]
        even = counts.min() == counts.max()
        yield Block(padded[0], padded[1], None if even else counts, numbers)


def listed(blocks: list[Block], arrays: list[Array]) -> list[Array]:
    """Arrays [T, B, O] of blocks as one [T, O] for each series of the list."""
    found: dict[int, Array] = {}
    for block, array in zip(blocks, arrays, strict=True):
        for row, number in enumerate(block.numbers):
            end = len(array) if block.lengths is None else block.lengths[row]
            found[number] = array[:end, row].copy()
    return [found[number] for number in range(len(found))]


def _counted(value: Any) -> str:
    return f"{len(value)} of them" if is_list(value) else describe(value)


def _padded(arrays: list[Array]) -> Array:
    """[T, B, F] of the longest T."""
    first = arrays[0]
    steps = max(map(len, arrays))
    result = np.zeros((steps, len(arrays), first.shape[1]), first.dtype)
    for row, array in enumerate(arrays):
        result[: len(array), row] = array
    return result


def refuse_gaps(name: str, array: Array, block: Block, warmup: int) -> None:
    """Refuses NaN and infinities in the steps that count."""
    if np.isfinite(array).all():
        return
    bad = ~np.isfinite(array).all(-1)
    counted = block.counted(slice(0, len(array)), warmup)
    if counted is not None:
        bad &= counted
    if bad.any():
        step, row = np.argwhere(bad)[0].tolist()
        after = f" after a warm-up of {warmup} steps" if warmup else ""
        raise ValueError(
            f"{name}: expected finite values{after}, got {array[step, row]} at step {step} "
            f"of series {block.numbers[row]}"
        )
