"""Nets as configuration and tensors; their packed weights, made once per change."""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _core
from .._activations import SIGMOID, TANH, Activation
from .._arrays import Array

DTYPES = {torch.float32: "float32", torch.float64: "float64"}

# What a part, one layer in one direction, can have, in the order of the core. Of alpha the tensor
# is the logit.
FIELDS = (
    "weight_ih",
    "weight_hh",
    "bias_ih",
    "bias_hh",
    "alpha_logit",
    "weight_hr",
    "peephole",
)
ALPHA = 4

# Row blocks of the weight matrices.
GATES = {
    "lstm": 4,
    "lstm_coupled": 3,
    "gru": 3,
    "gru_reset_before": 3,
    "mingru": 2,
    "rnn": 1,
    "leaky_rate": 1,
    "leaky_potential": 1,
}

# Parameters of up to so many bytes are compared whole with what was packed, of larger ones about
# so many values, evenly spread.
WHOLE_BYTES = 16384
SPREAD_VALUES = 16

_VERSION = operator.attrgetter("_version")


class Config(NamedTuple):
    """What a net is besides its tensors and their sizes, in the order of the operators' arguments.

    clip and cell_clip are 0 where there is none. Functions that a cell does not have are tanh,
    sigmoid and tanh.
    """

    cell: str
    bias: bool
    num_layers: int
    bidirectional: bool
    proj_size: int = 0
    peephole: bool = False
    clip: float = 0.0
    cell_clip: float = 0.0
    activation: Activation = TANH
    gate_activation: Activation = SIGMOID
    output_activation: Activation = TANH

    def flat(self) -> tuple[Any, ...]:
        """The arguments of the operators: as they stand here, with the functions taken apart."""
        return (*self[:8], *self.activation, *self.gate_activation, *self.output_activation)

    @classmethod
    def of(cls, flat: Sequence[Any]) -> Config:
        """From the arguments of an operator, of which it takes the first ones."""
        return cls(*flat[:8], *(tuple(flat[i : i + 3]) for i in (8, 11, 14)))

    @property
    def parts(self) -> int:
        """Layers times directions."""
        return self.num_layers * (1 + self.bidirectional)

    @property
    def states(self) -> int:
        """State tensors: h (u of the potential form), or h and c."""
        return 2 if self.cell.startswith("lstm") else 1

    def fields(self) -> tuple[int, ...]:
        """Which of FIELDS each part has."""
        if self.cell == "leaky":
            return (ALPHA,)
        if self.cell == "mingru":
            names = ["weight_ih", *(["bias_ih"] if self.bias else [])]
        else:
            names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if self.bias else [])]
        names += ["alpha_logit"] if self.cell.startswith("leaky") else []
        names += ["weight_hr"] if self.proj_size else []
        names += ["peephole"] if self.peephole else []
        return tuple(map(FIELDS.index, names))

    def names(self) -> list[str]:
        """Of the net's tensors, part by part."""
        fields = [FIELDS[field] for field in self.fields()]
        if self.cell == "leaky":
            return fields
        ends = ("", "_reverse")[: 1 + self.bidirectional]
        return [f"{f}_l{i}{e}" for i in range(self.num_layers) for e in ends for f in fields]

    def shapes(self, input_size: int, hidden_size: int) -> list[tuple[int, ...]]:
        """Of the net's tensors, part by part."""
        if self.cell == "leaky":
            return [(hidden_size,)]
        gates, out = GATES[self.cell], self.proj_size or hidden_size
        rows = gates * hidden_size
        shapes: list[tuple[int, ...]] = []
        for part in range(self.parts):
            below = out * (1 + self.bidirectional)
            inputs = input_size if part <= self.bidirectional else below
            every = (
                (rows, inputs),
                (rows, out),
                (rows,),
                (rows,),
                (hidden_size,),
                (self.proj_size, hidden_size),
                ((gates - 1) * hidden_size,),
            )
            shapes += [every[field] for field in self.fields()]
        return shapes

    def sizes(self, weights: Sequence[Tensor]) -> tuple[int, int]:
        """input_size and hidden_size of a net of these tensors."""
        if self.cell == "leaky":
            return weights[0].shape[0], weights[0].shape[0]
        return weights[0].shape[1], weights[0].shape[0] // GATES[self.cell]

    def output_size(self, hidden_size: int) -> int:
        """The last axis of the output."""
        return (self.proj_size or hidden_size) * (1 + self.bidirectional)

    def state_shapes(self, batch: tuple[int, ...], hidden_size: int) -> list[tuple[int, ...]]:
        """Of the state tensors; batch is (B,), or () for one sequence."""
        parts = () if self.cell == "leaky" else (self.parts,)
        shapes = [(*parts, *batch, self.proj_size or hidden_size), (*parts, *batch, hidden_size)]
        return shapes[: self.states]

    def check(self, weights: Sequence[Tensor]) -> None:
        """An error that names the tensor which does not fit the others or the kernels."""
        dtype = weights[0].dtype
        shapes = self.shapes(*self.sizes(weights))
        for name, tensor, shape in zip(self.names(), weights, shapes, strict=True):
            if tensor.dtype not in DTYPES or not tensor.is_cpu:
                raise ValueError(
                    f"{name}: expected torch.float32 or torch.float64 on the cpu, "
                    f"got {tensor.dtype} on {tensor.device}"
                )
            if tensor.dtype != dtype:
                raise ValueError(f"{name}: expected {dtype} as the others, got {tensor.dtype}")
            if tensor.shape != shape:
                raise RuntimeError(f"{name}: expected size {shape}, got {tuple(tensor.shape)}")


@functools.lru_cache(maxsize=256)
def plain_net(config: Config, dtype: str, input_size: int, hidden_size: int) -> _core.Net:
    """The net without weights."""
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
    )


class Packed:
    """A net with the packed weights of tensors, as they were when it was made.

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
        width = len(fields)
        arrays = [tensor.detach().numpy() for tensor in weights]
        self.alphas: list[Array] = []
        if fields[-1] == ALPHA:
            logits = weights[width - 1 :: width]
            self.alphas = [torch.sigmoid(logit.detach()).numpy() for logit in logits]
            arrays[width - 1 :: width] = self.alphas
            for name, alpha in zip(config.names()[width - 1 :: width], self.alphas, strict=True):
                if np.isnan(alpha).any():
                    raise ValueError(f"{name}: expected numbers, got NaN")
        # Which of the arrays of all parts, with a None at their end, go into each part.
        self.slots = [
            operator.itemgetter(
                *(begin + fields.index(i) if i in fields else -1 for i in range(len(FIELDS)))
            )
            for begin in range(0, len(arrays), width)
        ]
        net = plain_net(config, self.dtype.name, *config.sizes(weights))
        self.net = net.pack(self.by_part([np.require(array, None, ["C", "A"]) for array in arrays]))

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
        width = len(gradients) // len(self.slots)
        for alpha, gradient in zip(self.alphas, gradients[width - 1 :: width], strict=True):
            if gradient is not None:
                gradient *= alpha * (1 - alpha)


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
