"""The packed weights of nets, made once per change."""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _core
from .._arrays import Array
from .._structure import mask_blocks
from ._config import ALPHA, DTYPES, RECURRENT, Config

# Parameters of up to so many bytes are compared whole with what was packed, of larger ones about
# so many values, evenly spread.
WHOLE_BYTES = 16384
SPREAD_VALUES = 16

_VERSION = operator.attrgetter("_version")


@functools.lru_cache(maxsize=256)
def plain_net(
    config: Config, dtype: str, input_size: int, hidden_size: int, blocks: int = 0
) -> _core.Net:
    """The net without weights; blocks: of its masks, which change no size of what is saved."""
    return _core.Net(
        config.cell,
        dtype,
        input_size,
        hidden_size,
        config.num_layers,
        1 + config.bidirectional,
        config.proj_size,
        config.peephole,
        config.clip,
        config.cell_clip,
        config.activation,
        config.gate_activation,
        config.output_activation,
        config.delays,
        config.dilated,
        config.periods,
        config.group_sizes,
        config.full,
        blocks,
    )


class Packed:
    """A net with the packed weights of tensors, masks behind them, as they were when it was made.

    It is valid for those very tensors as long as their memory and their version counters are the
    same. The arrays that it keeps hold the memory, so that no other tensor can get it; of the
    tensors themselves it has weak references, and it is dropped when one of them goes.

    Not every write moves a version counter: `p.data.add_()`, a NumPy view and another process do
    not. So that a training loop written that way does not go on with old weights, the comparison
    also looks at the values: at all of a small parameter, at a sample of a large one.
    """

    def __init__(self, config: Config, weights: Sequence[Tensor]) -> None:
        config.check(weights)
        self.config = config
        self.dtype = np.dtype(DTYPES[weights[0].dtype])
        self.shapes = [tuple(tensor.shape) for tensor in weights]
        # Tensors of inference mode have no version counter.
        self.lasting = not any(t.is_inference() or not t.is_contiguous() for t in weights)
        if self.lasting:
            # Versions first: a change by another thread from now on will be seen.
            self.versions = list(map(_VERSION, weights))
            self.pointers = list(map(Tensor.data_ptr, weights))
            self.looks = [_look(tensor) for tensor in weights]
            self.seen = [look.tobytes() for look in self.looks]
            gone = functools.partial(_gone, tuple(map(id, weights)))
            self.refs = [weakref.ref(tensor, gone) for tensor in weights]
        fields = config.fields()
        self.width = width = len(fields)
        count = width * config.parts
        weights, masks = weights[:count], weights[count:]
        arrays = [tensor.detach().numpy() for tensor in weights]
        self.alphas: list[Array] = []
        if fields[-1] == ALPHA:
            logits = weights[width - 1 :: width]
            self.alphas = [torch.sigmoid(logit.detach()).numpy() for logit in logits]
            arrays[width - 1 :: width] = self.alphas
            for name, alpha in zip(config.names()[width - 1 :: width], self.alphas, strict=True):
                if np.isnan(alpha).any():
                    raise ValueError(f"{name}: expected numbers, got NaN")
        numbers = config.all_fields()
        # Which of the arrays of all parts, with a None at their end, go into each part.
        self.slots = [
            operator.itemgetter(
                *(begin + fields.index(i) if i in fields else -1 for i in range(numbers))
            )
            for begin in range(0, len(arrays), width)
        ]
        sizes, parts = config.sizes(weights), self.by_part(list(map(_contiguous, arrays)))
        if config.masked:
            connected = [_contiguous(mask.numpy()) for mask in masks]
            config.check_masks(np.array(connected), sizes[1])
            if config.clocked:
                parts = [_cleared(*pair) for pair in zip(parts, connected, strict=True)]
            net = plain_net(config, self.dtype.name, *sizes, max(map(mask_blocks, connected)))
            self.net = net.pack(parts, connected)
        else:
            self.net = plain_net(config, self.dtype.name, *sizes).pack(parts)

    def fits(self, config: Config, weights: Sequence[Tensor]) -> bool:
        """Whether packing these tensors, of the same ids, would give the same now."""
        return (
            list(map(_VERSION, weights)) == self.versions
            and list(map(Tensor.data_ptr, weights)) == self.pointers
            and list(map(np.ndarray.tobytes, self.looks)) == self.seen
            and (config is self.config or config == self.config)
        )

    def by_part(self, arrays: Sequence[Array | None]) -> list[tuple[Array | None, ...]]:
        """Arrays in the order of the tensors, as the core takes them."""
        padded = [*arrays, None]
        return [slot(padded) for slot in self.slots]

    def through_sigmoid(self, gradients: Sequence[Array | None]) -> None:
        """Turns the gradients of the alphas into those of their logits, in place."""
        own = gradients[self.width - 1 : self.width * len(self.slots) : self.width]
        for alpha, gradient in zip(self.alphas, own, strict=True):
            if gradient is not None:
                gradient *= alpha * (1 - alpha)


def _contiguous(array: Array) -> Array:
    return np.require(array, None, ["C", "A"])


def _cleared(part: tuple[Any, ...], mask: Array) -> tuple[Any, ...]:
    """The arrays of a part, weight_hh with 0 outside of its mask: with clocks the core wants so."""
    weight = part[RECURRENT]
    gates = weight.reshape(-1, *mask.shape)
    return (
        *part[:RECURRENT],
        np.where(mask, gates, 0).reshape(weight.shape),
        *part[RECURRENT + 1 :],
    )


def _look(tensor: Tensor) -> Array:
    """Values of a contiguous tensor that a change will not leave as they are."""
    values = tensor.detach().numpy().reshape(-1)
    step = 1 if values.nbytes <= WHOLE_BYTES else values.size // SPREAD_VALUES
    return values[:: step | 1]  # odd, so that not all of them stand in one column


# By the ids of the tensors, all of which live as long as the entry is here. Single operations on a
# dict are atomic, so threads need no lock, and a fork cannot leave one behind; at worst two threads
# pack the same weights.
_entries: dict[tuple[int, ...], Packed] = {}


def packed(config: Config, weights: Sequence[Tensor]) -> Packed:
    """The packed weights of these tensors, packed now if they have changed."""
    key = tuple(map(id, weights))
    entry = _entries.get(key)
    if entry is not None and entry.fits(config, weights):
        return entry
    entry = Packed(config, weights)
    if entry.lasting:
        _entries[key] = entry
    return entry


def _gone(key: tuple[int, ...], ref: Any, entries: dict[Any, Packed] = _entries) -> None:
    """Called when one of an entry's tensors is gone; the entry may be that of others by now."""
    entry = entries.get(key)
    if entry is not None and any(ref is own for own in entry.refs):
        entries.pop(key, None)


def forget(tensors: Iterable[Any]) -> None:
    """Drops what was packed of these tensors, and so the weak references to them."""
    ids = set(map(id, tensors))
    for key in list(_entries):
        if not ids.isdisjoint(key):
            _entries.pop(key, None)
