"""Helpers of the tests: comparisons, errors, arrays of every flavour, subprocesses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import reference
from nets import (
    BATCHES,
    CELLS,
    DTYPES,
    HIDDENS,
    INPUTS,
    NONLINEARITIES,
    OPTIONS,
    PLAIN,
    RICH,
    STEPS,
    Net,
    Parameters,
    Pick,
    draw_net,
    floats,
    map_state,
    one_of_each,
    pack,
    picker,
    stacked,
    take_rows,
    take_slots,
    unpack,
)

# What tests import from here, whichever of the two files it stands in.
__all__ = [
    "BATCHES",
    "CELLS",
    "DTYPES",
    "ELEMENTS",
    "FLAVOURS",
    "HIDDENS",
    "INPUTS",
    "NONLINEARITIES",
    "OPTIONS",
    "OUT_FLAVOURS",
    "PLAIN",
    "RICH",
    "SCALE",
    "SCALE_OF_FEW",
    "STEPS",
    "UNDERFLOW",
    "Net",
    "Parameters",
    "Pick",
    "accumulated",
    "assert_close",
    "assert_gradients_close",
    "at_offset",
    "bound",
    "draw_net",
    "floats",
    "gradient_arrays",
    "gradient_bound",
    "map_state",
    "one_of_each",
    "outside",
    "pack",
    "picker",
    "read_only",
    "refuses",
    "run_python",
    "same_bits",
    "same_gradients",
    "spread",
    "stacked",
    "swapped",
    "take_rows",
    "take_slots",
    "unharmed",
    "unpack",
]


# ---- Comparisons ------------------------------------------------------------------------------


def same_bits(a: Any, b: Any) -> bool:
    """Equal in dtype, shape and every bit (so NaN equals NaN, and -0 is not 0); states too."""
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same_bits, a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def bound(net: Net, steps: int) -> float:
    """The largest error allowed against float64, as a part of the largest value (at least 1).

    It is the bound of oneDNN's benchdnn for forward RNNs, 4 ceil(log2(acc_dim T)) eps with acc_dim
    as `accumulated` says, once for every layer: each adds its own rounding to what it is given.
    """
    eps = float(np.finfo(net.dtype).eps)
    return 4 * int(np.ceil(np.log2(max(2, accumulated(net) * steps)))) * eps * net.num_layers


def accumulated(net: Net) -> int:
    """benchdnn's acc_dim: 2 gates + 1, for the two sums of a gate.

    With more delays a gate has as many more sums, each added to what the others came to. Times H
    where a step has one product behind the other, as benchdnn has it for the GRU that
    resets before the product. An LSTM's projection is such a step by the same reason: its sum is
    over values that already err by those of the gates.
    """
    sums = (1 + len(net.delays)) * reference.CELLS[net.cell].gates + 1
    behind = net.cell == "gru_reset_before" or net.proj_size
    return sums * (net.hidden_size if behind else 1)


def assert_close(actual: Any, expected: Any, tolerance: float, note: Any = "") -> None:
    """Within tolerance of the largest expected value, or of 1 if that is larger; states too."""
    for a, b in zip(unpack(actual), unpack(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape, (note, a.shape, b.shape)
        if a.size:
            scale = max(1.0, float(np.abs(b).max()))
            error = float(np.abs(a.astype(np.float64) - b).max())
            assert error <= tolerance * scale, (note, error, tolerance * scale)


# ---- Gradients --------------------------------------------------------------------------------


def gradient_bound(net: Net, steps: int, batch: int | None) -> float:
    """The largest error allowed against float64, as a part of the array's largest value.

    As `bound`, by benchdnn's rule for backward RNNs: 8 ceil(log2(acc_dim T)) eps, where acc_dim
    also counts the longer of a backward product's two sums, over gates and units (of every step
    that reads an output, one a delay) or over rows.
    """
    units = len(net.delays) * net.hidden_size
    longest = max(reference.CELLS[net.cell].gates * units, batch or 1)
    eps = float(np.finfo(net.dtype).eps)
    sums = max(2, accumulated(net) * longest * steps)
    return 8 * int(np.ceil(np.log2(sums))) * eps * net.num_layers


def gradient_arrays(g: Any) -> dict[str, np.ndarray]:
    """All arrays of a set of gradients by name."""
    states = dict(zip(("state", "state c"), unpack(g.state), strict=False))
    return {"x": g.x, **states, **g.params}


# The smallest scale of a gradient, where the arriving gradients are of the order of 1. The slope
# 1 - h^2 of a saturated unit has the error of h, however small it is: gradients that are small
# because of it are as wrong as larger ones. And in a few sums all terms may cancel.
ELEMENTS = 16
SCALE = 1 / 8
SCALE_OF_FEW = 1.0

# What is smaller may be 0, as states are: a gradient that fades over thousands of steps underflows.
UNDERFLOW = {"float32": 2.0**-100, "float64": 2.0**-900}


def assert_gradients_close(actual: Any, expected: Any, tolerance: float, note: Any = "") -> None:
    """Every array within tolerance of its largest expected value, if that is not very small."""
    arrays, others = gradient_arrays(actual), gradient_arrays(expected)
    assert list(arrays) == list(others), note
    for name, a in arrays.items():
        b = others[name]
        assert a.shape == b.shape, (note, name, a.shape, b.shape)
        if a.size:
            error = float(np.abs(a.astype(np.float64) - b).max())
            smallest = SCALE if b.size >= ELEMENTS else SCALE_OF_FEW
            scale = max(float(np.abs(b).max()), smallest)
            allowed = tolerance * scale + UNDERFLOW[a.dtype.name]
            assert error <= allowed, (note, name, error, allowed)


def same_gradients(a: Any, b: Any) -> bool:
    """Equal in names and in every bit."""
    p, q = gradient_arrays(a), gradient_arrays(b)
    return list(p) == list(q) and all(same_bits(p[name], q[name]) for name in p)


# ---- Errors -----------------------------------------------------------------------------------


@contextmanager
def refuses(error: type | tuple[type, ...], *facts: Any) -> Iterator[None]:
    """Expects an error whose message holds each fact: a word, a number, a dtype, or a shape.

    Shapes are looked for without their brackets, so that (3, 4) and [3, 4] both serve.
    """
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    for fact in facts:
        text = ", ".join(map(str, fact)) if isinstance(fact, tuple) else str(fact)
        assert re.search(rf"(?<!\w){re.escape(text)}(?!\w)", message), (text, message)


@contextmanager
def unharmed(layer: Any, x: np.ndarray, *others: np.ndarray) -> Iterator[None]:
    """Expects that what happens inside changes neither the layer nor the arrays."""
    before = layer(x)
    copies = [array.copy() for array in (x, *others)]
    yield
    assert all(map(same_bits, (x, *others), copies))
    assert same_bits(layer(x), before)


# ---- Arrays of every flavour ------------------------------------------------------------------


def at_offset(array: np.ndarray, offset: int) -> np.ndarray:
    """A copy whose data starts that many bytes after an address that is a multiple of 64."""
    raw = np.zeros(array.nbytes + offset + 64, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    view = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def spread(array: np.ndarray, steps: Iterable[int]) -> np.ndarray:
    """A copy laid out as every steps[k]-th element (backwards if negative) of a larger array."""
    slices = tuple(slice(None, None, step) for step in steps)
    size = tuple(n * abs(s.step) for n, s in zip(array.shape, slices, strict=True))
    view = np.full(size, 99, array.dtype)[slices]
    view[...] = array
    return view


def read_only(array: np.ndarray) -> np.ndarray:
    view = array.copy()
    view.flags.writeable = False
    return view


def swapped(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder())


# What a layer must take as input: the same values in another layout.
FLAVOURS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": np.ascontiguousarray,
    "read-only": read_only,
    "fortran": np.asfortranarray,
    "64-byte aligned": lambda a: at_offset(a, 0),
    "element aligned": lambda a: at_offset(a, a.itemsize),
    "misaligned": lambda a: at_offset(a, 1),
    "big-endian": swapped,
    "strided features": lambda a: spread(a, [1] * (a.ndim - 1) + [2]),
    "strided rows": lambda a: spread(a, [1, 3, 1][-a.ndim :]),
    "strided steps": lambda a: spread(a, [2] + [1] * (a.ndim - 1)),
    "strided everywhere": lambda a: spread(a, [2] * a.ndim),
    "part of longer rows": lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(1, 2)])[..., 1:-2],
    "backwards in time": lambda a: spread(a, [-1] + [1] * (a.ndim - 1)),
    "backwards everywhere": lambda a: spread(a, [-1] * a.ndim),
}

# What a layer must take as out=: any strides over steps and rows.
OUT_FLAVOURS = (
    "contiguous",
    "64-byte aligned",
    "element aligned",
    "strided rows",
    "strided steps",
    "part of longer rows",
    "backwards in time",
)


def outside(view: np.ndarray) -> np.ndarray:
    """The elements of view's memory that are not its own, to see that nobody wrote there."""
    owner = view
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    mask = np.ones(owner.nbytes, bool)
    start = view.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    for index in np.ndindex(view.shape):
        at = start + sum(i * s for i, s in zip(index, view.strides, strict=True))
        mask[at : at + view.itemsize] = False
    return owner.reshape(-1).view(np.uint8)[mask]


# ---- Subprocesses -----------------------------------------------------------------------------


def run_python(*arguments: str, isa: str | None = None) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, with this one's modules and with FASTRNN_ISA set or not."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    environment.pop("FASTRNN_ISA", None)
    if isa is not None:
        environment["FASTRNN_ISA"] = isa
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
