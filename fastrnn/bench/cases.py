"""A case is a cell at a shape in a mode: its arrays and its cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .shapes import Shape

# What one call is: a forward, or a forward and the gradients of everything that went into it.
FORWARD, TRAIN = MODES = ("forward", "train")

CELLS = ("lstm", "gru", "rnn", "leaky_rnn", "leaky")
GATES = {"lstm": 4, "gru": 3, "rnn": 1, "leaky_rnn": 1, "leaky": 0}
ALPHA = 0.9

# Below this many channels, Leaky is measured with the time axis split over the vector lanes.
FEW_CHANNELS = 16


@dataclass(frozen=True)
class Case:
    """One layer, one direction, float32; rnn and leaky_rnn with tanh, gru as PyTorch has it.

    A forward begins at a state of zeros, a training step at `state`.
    """

    cell: str
    shape: Shape
    mode: str = FORWARD

    @property
    def flops(self) -> float:
        """Floating-point operations of one call: the products, 2 for each multiply-add.

        For leaky, which has no product: two multiplications and an addition per value. The
        backward of a product is two products of its size, so training counts three times.
        """
        i, h, b, t = self.shape
        forward = 3.0 * h if self.cell == "leaky" else 2.0 * GATES[self.cell] * h * (i + h)
        return forward * b * t * (3 if self.mode == TRAIN else 1)

    @property
    def recurrent_bytes(self) -> int:
        """Bytes of the recurrent matrix, which every step reads."""
        return 4 * GATES[self.cell] * self.shape.hidden_size**2

    @property
    def touched_bytes(self) -> int:
        """Bytes that a unit without weights must read or write in one call.

        A forward reads x and writes y, two arrays [T, B, H]. The backward reads dy, and x again for
        the gradient of alpha, and writes dx: five in all.
        """
        _, h, b, t = self.shape
        return 4 * t * b * h * (5 if self.mode == TRAIN else 2)

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

    def state(self) -> tuple[np.ndarray, ...]:
        """Return the initial state of a training step: h [1, B, H], and c if there is one.

        For leaky, which has no layers: [B, H].
        """
        _, h, b, _ = self.shape
        shape = (b, h) if self.cell == "leaky" else (1, b, h)
        rng = np.random.default_rng(3)
        count = 2 if self.cell == "lstm" else 1
        return tuple(rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(count))

    def dy(self) -> np.ndarray:
        """Return the gradient of the loss in y, [T, B, H]."""
        _, h, b, t = self.shape
        return np.random.default_rng(4).standard_normal((t, b, h), dtype=np.float32)
