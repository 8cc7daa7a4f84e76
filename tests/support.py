"""Helpers of the tests: nets of every kind, arrays of every flavour, comparisons, subprocesses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
import reference_backward

import fastrnn

CELLS = tuple(reference.CELLS)
NONLINEARITIES = {
    "lstm": ("tanh",),
    "rnn": ("tanh", "relu"),
    "leaky_rate": ("tanh", "relu", "identity"),
    "leaky_potential": ("tanh", "relu", "identity"),
    "leaky": ("tanh",),
}
DTYPES = ("float32", "float64")

# Sizes with tails: around the 16 units of a panel, around tiles of several panels and rows.
INPUTS = (1, 2, 3, 5, 8, 13, 16, 19)
HIDDENS = (1, 2, 3, 7, 15, 16, 17, 24, 31, 33, 48, 65)
BATCHES = (1, 2, 3, 4, 5, 7, 9, 13)
STEPS = (1, 2, 3, 5, 8, 13)

Pick = Callable[[Sequence[Any]], Any]


# ---- Nets -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    """A description of a layer that builds it, makes its arrays and asks the oracle about it."""

    cell: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    batch_first: bool = False
    nonlinearity: str = "tanh"
    dtype: str = "float32"
    seed: int = 0

    def __str__(self) -> str:
        """Short, for the names of tests: lstm-5x17-2bi-bf-float32."""
        parts = [self.cell, f"{self.input_size}x{self.hidden_size}"]
        if (self.num_layers, self.bidirectional) != (1, False):
            parts.append(f"{self.num_layers}{'bi' * self.bidirectional}")
        parts += ["bf"] * self.batch_first + [self.dtype]
        return "-".join(parts)

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        return self.directions * self.hidden_size

    @property
    def states(self) -> int:
        return reference.CELLS[self.cell].states

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def build(self) -> Any:
        """The layer; leaky ones have a retention per unit, from 0 to 1 with both ends."""
        alpha = self.rng().uniform(0.0, 1.0, self.hidden_size)
        alpha[: self.seed % 3] = self.seed % 2
        if self.cell == "leaky":
            return fastrnn.Leaky(
                self.hidden_size, alpha=alpha, batch_first=self.batch_first, dtype=self.dtype
            )
        options: dict[str, Any] = {
            "bias": self.bias,
            "batch_first": self.batch_first,
            "bidirectional": self.bidirectional,
            "dtype": self.dtype,
            "seed": self.seed,
        }
        if self.cell != "lstm":
            options["nonlinearity"] = self.nonlinearity
        if self.cell.startswith("leaky_"):
            options |= {"alpha": alpha, "form": self.cell.removeprefix("leaky_")}
        return self.layer_class(self.input_size, self.hidden_size, self.num_layers, **options)

    @property
    def layer_class(self) -> Any:
        names = {"lstm": "LSTM", "rnn": "RNN", "leaky": "Leaky"}
        return getattr(fastrnn, names.get(self.cell, "LeakyRNN"))

    def input_shape(self, steps: int, batch: int | None) -> tuple[int, ...]:
        if batch is None:
            return (steps, self.input_size)
        lead = (batch, steps) if self.batch_first else (steps, batch)
        return (*lead, self.input_size)

    def output_shape(self, steps: int, batch: int | None) -> tuple[int, ...]:
        return (*self.input_shape(steps, batch)[:-1], self.output_size)

    def state_shape(self, batch: int | None) -> tuple[int, ...]:
        rows = () if batch is None else (batch,)
        layers = () if self.cell == "leaky" else (self.num_layers * self.directions,)
        return (*layers, *rows, self.hidden_size)

    def input(self, rng: np.random.Generator, steps: int, batch: int | None) -> np.ndarray:
        return rng.standard_normal(self.input_shape(steps, batch)).astype(self.dtype)

    def state(self, rng: np.random.Generator, batch: int | None) -> Any:
        arrays = rng.uniform(-1.0, 1.0, (self.states, *self.state_shape(batch)))
        return pack(arrays.astype(self.dtype))

    def zero_state(self, batch: int | None) -> Any:
        return pack(np.zeros((self.states, *self.state_shape(batch)), self.dtype))

    def output_gradient(
        self, rng: np.random.Generator, steps: int, batch: int | None
    ) -> np.ndarray:
        """A gradient of some loss with respect to y."""
        return rng.standard_normal(self.output_shape(steps, batch)).astype(self.dtype)

    @property
    def options(self) -> dict[str, Any]:
        """What the oracles need to know besides the parameters."""
        names = ("nonlinearity", "num_layers", "bidirectional", "batch_first")
        return {name: getattr(self, name) for name in names}

    def oracle(self, layer: Any, x: Any, state: Any = None) -> tuple[np.ndarray, Any]:
        return reference.run(self.cell, layer.parameters(), x, state, **self.options)

    def oracle_backward(
        self, layer: Any, x: Any, state: Any = None, dy: Any = None, dstate: Any = None
    ) -> reference_backward.Gradients:
        return reference_backward.run(
            self.cell, layer.parameters(), x, state, dy, dstate, **self.options
        )


def draw_net(pick: Pick, cell: str | None = None, **fixed: Any) -> Net:
    """A net whose every option is one that pick(choices) picked, except for the fixed ones."""
    cell = cell or pick(CELLS)
    fields: dict[str, Any] = {
        "cell": cell,
        "hidden_size": pick(HIDDENS),
        "batch_first": pick((False, True)),
        "dtype": pick(DTYPES),
        "seed": pick(range(1000)),
    }
    if cell == "leaky":
        fields["input_size"] = fields["hidden_size"]
        return Net(**fields | fixed)
    fields |= {
        "input_size": pick(INPUTS),
        "num_layers": pick((1, 1, 2, 3)),
        "bidirectional": pick((False, True)),
        "bias": pick((True, True, False)),
        "nonlinearity": pick(NONLINEARITIES[cell]),
    }
    return Net(**fields | fixed)


def picker(rng: np.random.Generator) -> Pick:
    return lambda choices: choices[int(rng.integers(len(choices)))]


def one_of_each(**fixed: Any) -> list[Net]:
    """A small net of each cell, for tests of what does not depend on sizes."""
    sizes = {"input_size": 5, "hidden_size": 5}
    return [Net(cell, **sizes | fixed) for cell in CELLS]


def stacked(**fixed: Any) -> list[Net]:
    """Nets of each cell, in the simplest and in the richest stack that the cell has."""
    deep = {"num_layers": 2, "bidirectional": True}
    return [
        Net(cell, 5, 5, **options | fixed)
        for cell in CELLS
        for options in ({}, deep)
        if not (options and cell == "leaky")
    ]


# ---- States -----------------------------------------------------------------------------------


def pack(arrays: Sequence[np.ndarray]) -> Any:
    """A list of state arrays as a layer takes it: a tuple, or the one array itself."""
    return tuple(arrays) if len(arrays) > 1 else arrays[0]


def unpack(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)


def map_state(function: Callable[[np.ndarray], Any], state: Any) -> Any:
    return pack([function(array) for array in unpack(state)])


def take_rows(state: Any, rows: Any) -> Any:
    """Some rows of the batch of a state [..., B, H]."""
    return map_state(lambda array: np.ascontiguousarray(array[..., rows, :]), state)


# ---- Comparisons ------------------------------------------------------------------------------


def same_bits(a: Any, b: Any) -> bool:
    """Equal in dtype, shape and every bit (so NaN equals NaN, and -0 is not 0); states too."""
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same_bits, a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def bound(net: Net, steps: int) -> float:
    """The largest error allowed against float64, as a part of the largest value (at least 1).

    It is the bound of oneDNN's benchdnn for forward RNNs, 4 ceil(log2(acc_dim T)) eps with
    acc_dim = 2 gates + 1, once for every layer: each adds its own rounding to what it is given.
    """
    accumulated = max(2, (2 * reference.CELLS[net.cell].gates + 1) * steps)
    eps = float(np.finfo(net.dtype).eps)
    return 4 * int(np.ceil(np.log2(accumulated))) * eps * net.num_layers


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
    also counts the longer of a backward product's two sums, over gates and units or over rows.
    """
    gates = reference.CELLS[net.cell].gates
    accumulated = (2 * gates + 1) * max(gates * net.hidden_size, batch or 1) * steps
    eps = float(np.finfo(net.dtype).eps)
    return 8 * int(np.ceil(np.log2(max(2, accumulated)))) * eps * net.num_layers


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
