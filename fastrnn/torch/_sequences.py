"""Sequences of several lengths in one batch: lengths, resets, and PackedSequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .._arrays import Array

_CPU = torch.device("cpu")  # whatever the default device is
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Cuts(NamedTuple):
    """Where the rows of a batch end and start anew, as tensors."""

    lengths: Tensor | None  # [B] of int64
    reset: Tensor | None  # [T, B] of bool, time first in any case


WHOLE = Cuts(None, None)


def checked_cuts(lengths: Any, reset: Any, x: Tensor, batch_first: bool) -> Cuts:
    """The arguments of a call as tensors, or an error that names one. x is [T, B, I] or alike.

    What the lengths are is not looked at: a tracer has no values.
    """
    shape = x.shape[:-1]
    if lengths is not None:
        lengths = _tensor("lengths", lengths)
        if lengths.dtype not in INTEGERS and lengths.numel() > 0:
            raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
        if len(shape) == 1 and lengths.dim() == 0:
            lengths = lengths.unsqueeze(0)
        batch = 1 if len(shape) == 1 else shape[0 if batch_first else 1]
        if lengths.shape != (batch,):
            raise ValueError(
                f"lengths: expected shape ({batch},), one for each sequence, "
                f"got {tuple(lengths.shape)}"
            )
        lengths = lengths.to(torch.int64)
    if reset is not None:
        reset = _tensor("reset", reset)
        if reset.dtype != torch.bool:
            raise TypeError(f"reset: expected torch.bool, got {reset.dtype}")
        if reset.shape != shape:
            raise ValueError(
                f"reset: expected shape {tuple(shape)}, the steps and sequences of input, "
                f"got {tuple(reset.shape)}"
            )
        if len(shape) == 1:
            reset = reset.unsqueeze(1)
        elif batch_first:
            reset = reset.transpose(0, 1)
    return Cuts(lengths, reset)


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        try:
            return torch.as_tensor(value, device=_CPU)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name}: cannot be read as a tensor: {error}") from error
    if not value.is_cpu or value.layout != torch.strided:
        raise RuntimeError(
            f"{name}: expected a dense tensor on the cpu, got {value.layout} on {value.device}"
        )
    return value


def cut_arrays(cuts: Cuts, steps: int) -> tuple[Array | None, Array | None]:
    """Copies for the core, which trusts them, so that nobody else can change their values."""
    lengths, reset = cuts
    ends = starts = None
    if lengths is not None:
        ends = np.array(lengths.numpy(), np.intp)
        if ends.size and (ends.min() < 0 or ends.max() > steps):
            raise ValueError(
                f"lengths: expected 0 to {steps} (the steps of input), "
                f"got {ends.min()} to {ends.max()}"
            )
    if reset is not None:
        starts = np.array(reset.numpy(), np.bool_, order="C")
    return ends, starts


# ---- PackedSequence


class Gather(torch.autograd.Function):
    """Rows of a matrix by their numbers; in the backward by those of the way back.

    Between packed rows and padded ones no row has two places, and what arrives at padding does not
    matter, so the sums that index_select does in its backward are not needed.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, there: Tensor, back: Tensor) -> Tensor:
        """there: the numbers of the rows that the result has; back: of those that its rows have."""
        ctx.ways = there, back
        return rows.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The same the other way round."""
        there, back = ctx.ways
        return Gather.apply(gradients[0], back, there), None, None


class Layout:
    """How the rows of a PackedSequence stand in a padded batch, longest sequence first."""

    def __init__(self, packed: PackedSequence) -> None:
        data, sizes, self.sorted, self.unsorted = packed
        self.sizes = sizes
        counts = sizes.numpy()
        self.steps, self.batch = len(counts), int(counts[0])
        if data.dim() != 2:
            raise ValueError(f"input: expected packed data of 2 dimensions, got {data.dim()}")
        if len(data) != counts.sum() or counts[-1] < 1 or (counts[1:] > counts[:-1]).any():
            raise ValueError(
                f"input: expected batch_sizes that fall and add up to {len(data)}, the rows of "
                f"data, got {counts.tolist()}"
            )
        self.full = len(data) == self.steps * self.batch
        if not self.full:
            within = np.arange(self.batch) < counts[:, None]  # [T, B]
            first = np.cumsum(counts) - counts
            # At padding, which is not read, any number: 0.
            numbers = np.where(within, first[:, None] + np.arange(self.batch), 0)
            self._from_packed = torch.from_numpy(numbers.ravel())
            self._from_padded = torch.from_numpy(np.flatnonzero(within))
            self.lengths = torch.from_numpy(within.sum(0))

    @property
    def cuts(self) -> Cuts:
        """Of the padded batch."""
        return WHOLE if self.full else Cuts(self.lengths, None)

    def padded(self, data: Tensor) -> Tensor:
        """[rows, F] as [T, B, F]."""
        if not self.full:
            data = Gather.apply(data, self._from_packed, self._from_padded)
        return data.reshape(self.steps, self.batch, data.shape[1])

    def packed(self, y: Tensor) -> Tensor:
        """[T, B, F] as [rows, F]."""
        y = y.reshape(self.steps * self.batch, y.shape[2])
        return y if self.full else Gather.apply(y, self._from_padded, self._from_packed)

    def on_packed(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A function of packed rows, as one of a padded batch."""
        return lambda y: self.padded(function(self.packed(y)))

    def to_sorted(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """States in the order of the padded batch, from the order of the caller."""
        if self.sorted is None:
            return state
        return tuple(_rows(s, self.sorted) for s in state)

    def to_unsorted(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The other way round."""
        if self.unsorted is None:
            return state
        return tuple(_rows(s, self.unsorted) for s in state)

    def sequence(self, y: Tensor) -> PackedSequence:
        """A padded batch as what the caller gets."""
        return PackedSequence(self.packed(y), self.sizes, self.sorted, self.unsorted)


def _rows(state: Tensor, order: Tensor) -> Tensor:
    """The rows of a state tensor [..., B, H], or of a clock [B], in another order."""
    return state.index_select(max(state.dim() - 2, 0), order)
