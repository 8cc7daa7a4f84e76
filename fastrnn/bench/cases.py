"""A case is a cell at a shape: its arrays, its right answer, its cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from .. import _numpy_rnn
from .shapes import Shape

CELLS = ("lstm", "rnn", "leaky_rnn", "leaky")
GATES = {"lstm": 4, "rnn": 1, "leaky_rnn": 1, "leaky": 0}
ALPHA = 0.9

# Below this many channels, Leaky is measured with the time axis split over the vector lanes.
FEW_CHANNELS = 16


@dataclass(frozen=True)
class Case:
    """One layer, one direction, float32, zero initial state; rnn and leaky_rnn with tanh."""

    cell: str
    shape: Shape

    @property
    def flops(self) -> float:
        """Floating-point operations of one forward: the products, 2 for each multiply-add.

        For leaky, which has no product: two multiplications and an addition per value.
        """
        i, h, b, t = self.shape
        if self.cell == "leaky":
            return 3.0 * h * b * t
        return 2.0 * GATES[self.cell] * h * (i + h) * b * t

    @property
    def recurrent_bytes(self) -> int:
        """Bytes of the recurrent matrix, which every step reads."""
        return 4 * GATES[self.cell] * self.shape.hidden_size**2

    @property
    def parallel(self) -> str | None:
        """The argument of fastrnn.leaky of this name."""
        few = self.shape.batch * self.shape.hidden_size < FEW_CHANNELS
        return "time" if self.cell == "leaky" and few else None

    def plain(self) -> Case:
        """Return what a library without leaky layers can run of it: an RNN(tanh) of that size."""
        return replace(self, cell="rnn") if self.cell == "leaky_rnn" else self

    def parameters(self) -> dict[str, np.ndarray]:
        """Return the parameters under PyTorch's names, the same in every process."""
        i, h, _, _ = self.shape
        if self.cell == "leaky":
            return {"alpha": np.full(h, ALPHA, np.float32)}
        rng = np.random.default_rng(1)
        rows = GATES[self.cell] * h
        shapes = {
            "weight_ih_l0": (rows, i),
            "weight_hh_l0": (rows, h),
            "bias_ih_l0": (rows,),
            "bias_hh_l0": (rows,),
        }
        bound = h**-0.5
        arrays = {n: rng.uniform(-bound, bound, s).astype(np.float32) for n, s in shapes.items()}
        if self.cell == "leaky_rnn":
            arrays["alpha_l0"] = np.full(h, ALPHA, np.float32)
        return arrays

    def x(self) -> np.ndarray:
        """Return the input [T, B, I], the same in every process."""
        i, _, b, t = self.shape
        return np.random.default_rng(2).standard_normal((t, b, i), dtype=np.float32)

    def reference(self) -> np.ndarray:
        """Return y [T, B, H] as NumPy computes it."""
        if self.cell != "leaky":
            return numpy_forward(self)(self.x())[0]
        x = self.x().astype(np.float64)
        # One channel as Python numbers: a NumPy operation on each of a million steps is slow.
        rows = x.ravel().tolist() if x[0].size == 1 else x
        start = 0.0 * rows[0]
        values = accumulate(rows, lambda y, v: ALPHA * y + (1 - ALPHA) * v, initial=start)
        return np.array(list(values)[1:], np.float32).reshape(x.shape)


def numpy_forward(case: Case) -> _numpy_rnn.Forward:
    """Return the good NumPy implementation of a case with a product."""
    make = {
        "lstm": _numpy_rnn.numpy_lstm,
        "rnn": _numpy_rnn.numpy_rnn,
        "leaky_rnn": _numpy_rnn.numpy_leaky_rnn,
    }[case.cell]
    return make(case.parameters())
