"""States: their form, what is accepted as one, how they are cut into those of pieces of a net."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import Array, as_array, as_real, describe

if TYPE_CHECKING:
    from ._base import Layer


def as_state(arrays: tuple[Any, ...]) -> Any:
    """The form of a state: the one array, or a tuple."""
    return arrays if len(arrays) > 1 else arrays[0]


def as_tuple(state: Any) -> tuple[Any, ...]:
    """The arrays of a state."""
    return state if isinstance(state, tuple) else (state,)


# ---- What is accepted -------------------------------------------------------------------------


def checked_state(layer: Layer, name: str, state: Any, batch: tuple[int, ...]) -> tuple[Any, ...]:
    """The arrays of a state or of its gradient, contiguous; none of them for None. An array of a
    gradient may be None, and it has no clock."""
    if state is None:
        return ()
    d = name.removesuffix("state")
    clocked = layer.periods is not None and not d
    first = "u" if layer._cell == "leaky_potential" else "h"
    symbols = [d + first, f"{d}c"][: layer._states] + ["clock"] * clocked
    if len(symbols) == 1:
        names, state = [name], (state,)
    elif not isinstance(state, (tuple, list)) or len(state) != len(symbols):
        form = ", ".join(symbols)
        raise TypeError(f"{name}: expected a tuple ({form}), got {_described(state)}")
    else:
        names = [f"{name}[{i}] ({symbol})" for i, symbol in enumerate(symbols)]
    arrays: list[Array | None] = []
    for label, value, shape in zip(names, state, layer._state_shapes(batch), strict=False):
        if value is None and d:
            arrays.append(None)
            continue
        array = as_real(label, value, layer.dtype)
        if array.shape != shape:
            raise ValueError(f"{label}: expected shape {shape}, got {array.shape}")
        arrays.append(np.require(array, requirements=["C", "A"]))
    if clocked:
        arrays.append(_checked_clock(names[-1], state[-1], batch))
    return tuple(arrays)


def _described(state: Any) -> str:
    if isinstance(state, (tuple, list)):
        return f"{type(state).__name__} of {len(state)}"
    return describe(state)


def _checked_clock(name: str, value: Any, batch: tuple[int, ...]) -> Array:
    """Steps done as int64, of the shape of the batch."""
    array = as_array(name, value)
    if array.dtype.kind not in "iu" and array.size > 0:
        raise TypeError(f"{name}: expected integers, got {describe(array)}")
    if array.shape != batch:
        raise ValueError(f"{name}: expected shape {batch}, got {array.shape}")
    top = np.iinfo(np.int64).max
    if array.size > 0 and not 0 <= int(array.min()) <= int(array.max()) <= top:
        raise ValueError(f"{name}: expected 0 to {top}, got {array.min()} to {array.max()}")
    return np.array(array, np.int64, order="C")


# ---- Pieces -----------------------------------------------------------------------------------


class Pieces:
    """How the arrays of a state, or of its gradient, are cut into those of pieces of a net.

    A state's clock, behind the arrays that are cut, belongs to all of them.
    """

    def __init__(self, slots: list[tuple[int, ...]]) -> None:
        """slots: of each piece, how much it has of the first axis of each array."""
        ends = np.cumsum([tuple(0 for _ in slots[0]), *slots], axis=0).tolist()
        self._shares = [tuple(map(slice, begin, end)) for begin, end in itertools.pairwise(ends)]

    def of(self, piece: int, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """Those of one piece, None for None."""
        shares = self._shares[piece]
        cut = (None if a is None else a[s] for a, s in zip(arrays, shares, strict=False))
        return (*cut, *arrays[len(shares) :])

    def joined(self, each: list[tuple[Array, ...]]) -> tuple[Array, ...]:
        """Those of the net from those of all pieces."""
        count = len(self._shares[0])
        whole = (np.concatenate(arrays) for arrays in zip(*(e[:count] for e in each), strict=True))
        return (*whole, *each[0][count:])
