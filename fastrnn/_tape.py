"""What tapes of every kind have in common: `_core.Tape`, and those in Python made of several."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ._arrays import Array

Grads = list[tuple[Array | None, ...]]  # of each part, in the order of Net.pack


class TapeLike(Protocol):
    """What a forward kept for its backward."""

    @property
    def nbytes(self) -> int:
        """Bytes that are held, without the caller's x."""
        ...

    def inputs(self) -> tuple[Array, ...]:
        """The arrays that the backward reads, x first."""
        ...

    def backward(
        self,
        dy: Array | None,
        dstate: tuple[Array | None, ...],
        need_x: bool,
        grads: Grads | None,
        accumulate: bool = False,
    ) -> tuple[Array | None, tuple[Array, ...]]:
        """As _core.Tape.backward."""
        ...


def all_steps(dy: Array, shape: tuple[int, ...], batch_first: bool) -> Array:
    """dy of y's shape, from one that may lack the axis of time and belong to the last step."""
    if dy.ndim == len(shape):
        return dy
    whole = np.zeros(shape, dy.dtype)
    if whole.size:
        np.moveaxis(whole, 1 if batch_first and whole.ndim == 3 else 0, 0)[-1] = dy
    return whole
