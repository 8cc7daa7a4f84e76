"""Nets as configuration: what they are besides their tensors, whose names and shapes follow."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import _structure
from .._activations import SIGMOID, TANH, Activation
from .._arrays import Array
from .._structure import PLAIN_DELAYS, Structure

DTYPES = {torch.float32: "float32", torch.float64: "float64"}

# What a part, one layer in one direction, can have, in the order of the core. Of alpha the tensor
# is the logit. The recurrent matrices of delays after the first follow, with the next numbers.
FIELDS = (
    "weight_ih",
    "weight_hh",
    "bias_ih",
    "bias_hh",
    "alpha_logit",
    "weight_hr",
    "peephole",
)
RECURRENT = 1
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


class Config(NamedTuple):
    """What a net is besides its tensors and their sizes, in the order of the operators' arguments.

    clip and cell_clip are 0 where there is none. Functions that a cell does not have are tanh,
    sigmoid and tanh. delays are none for the one delay 1, and in a dilated net those of the layers;
    full and masked say that groups read faster ones, and that there are masks.
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
    delays: tuple[int, ...] = ()
    dilated: bool = False
    periods: tuple[int, ...] = ()
    group_sizes: tuple[int, ...] = ()
    full: bool = False
    masked: bool = False

    def flat(self) -> tuple[Any, ...]:
        """The arguments of the operators: as they stand here, with the functions taken apart."""
        functions = (*self.activation, *self.gate_activation, *self.output_activation)
        return (*self[:8], *functions, *self[11:])

    @classmethod
    def of(cls, flat: Sequence[Any]) -> Config:
        """From the arguments of an operator, of which it takes the first ones."""
        functions = [tuple(flat[i : i + 3]) for i in (8, 11, 14)]
        rest = [tuple(each) if isinstance(each, list) else each for each in flat[17:23]]
        return cls(*flat[:8], *functions, *rest)

    @property
    def parts(self) -> int:
        """Layers times directions."""
        return self.num_layers * (1 + self.bidirectional)

    @property
    def states(self) -> int:
        """State tensors but for the clock: h (u of the potential form), or h and c."""
        return 2 if self.cell.startswith("lstm") else 1

    @property
    def clocked(self) -> bool:
        """Whether the state has a clock at its end."""
        return len(self.periods) > 0

    def state_names(self) -> tuple[str, ...]:
        """Of the state tensors, for errors."""
        symbols = ["h_0", "c_0"][: self.states] + ["clock"] * self.clocked
        if len(symbols) == 1:
            return ("hx",)
        return tuple([f"hx[{i}] ({symbol})" for i, symbol in enumerate(symbols)])

    # ---- Tensors

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
        fields = [*map(FIELDS.index, names)]
        fields[2:2] = range(len(FIELDS), self.all_fields())
        return tuple(fields)

    def all_fields(self) -> int:
        """How many fields there are: those of delays too."""
        later = 0 if self.dilated or not self.delays else len(self.delays) - 1
        return len(FIELDS) + later

    def suffixes(self) -> list[str]:
        """What the names of a part's tensors end with, part by part."""
        ends = ("", "_reverse")[: 1 + self.bidirectional]
        return [f"_l{i}{end}" for i in range(self.num_layers) for end in ends]

    def names(self) -> list[str]:
        """Of the net's parameters, part by part."""
        if self.cell == "leaky":
            return [FIELDS[ALPHA]]
        stems = [
            (FIELDS[field], "")
            if field < len(FIELDS)
            else ("weight_hh", f"_d{self.delays[1 + field - len(FIELDS)]}")
            for field in self.fields()
        ]
        return [stem + suffix + end for suffix in self.suffixes() for stem, end in stems]

    def mask_names(self) -> list[str]:
        """Of its masks, part by part."""
        return [f"recurrent_mask{suffix}" for suffix in self.suffixes()] if self.masked else []

    def shapes(self, input_size: int, hidden_size: int) -> list[tuple[int, ...]]:
        """Of the net's parameters, part by part."""
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
            fields = self.fields()
            shapes += [every[field if field < len(FIELDS) else RECURRENT] for field in fields]
        return shapes

    def sizes(self, weights: Sequence[Tensor]) -> tuple[int, int]:
        """input_size and hidden_size of a net of these tensors."""
        if self.cell == "leaky":
            return weights[0].shape[0], weights[0].shape[0]
        return weights[0].shape[1], weights[0].shape[0] // GATES[self.cell]

    def check(self, tensors: Sequence[Tensor]) -> None:
        """An error that names the tensor which does not fit the others or the kernels; masks stand
        behind the parameters."""
        dtype = tensors[0].dtype
        inputs, hidden = self.sizes(tensors)
        names, shapes = self.names(), self.shapes(inputs, hidden)
        count = len(names)
        for name, tensor, shape in zip(names, tensors[:count], shapes, strict=True):
            if tensor.dtype not in DTYPES or not tensor.is_cpu:
                raise ValueError(
                    f"{name}: expected torch.float32 or torch.float64 on the cpu, "
                    f"got {tensor.dtype} on {tensor.device}"
                )
            if tensor.dtype != dtype:
                raise ValueError(f"{name}: expected {dtype} as the others, got {tensor.dtype}")
            _check_size(name, tensor, shape)
        for name, mask in zip(self.mask_names(), tensors[count:], strict=True):
            if mask.dtype != torch.bool or not mask.is_cpu:
                raise ValueError(
                    f"{name}: expected torch.bool on the cpu, got {mask.dtype} on {mask.device}"
                )
            _check_size(name, mask, (hidden, self.proj_size or hidden))

    # ---- Outputs and states

    def output_size(self, hidden_size: int) -> int:
        """The last axis of the output."""
        return (self.proj_size or hidden_size) * (1 + self.bidirectional)

    def slots(self) -> tuple[int, int]:
        """Steps that the state has of all parts together: of h (or u), and of c."""
        if self.dilated:
            steps = (1 + self.bidirectional) * sum(self.delays)
            return steps, steps
        delays = self.delays or PLAIN_DELAYS
        return self.parts * delays[-1], self.parts * delays[0]

    def state_shapes(self, batch: tuple[int, ...], hidden_size: int) -> list[tuple[int, ...]]:
        """Of the state tensors but for the clock, which has that of batch: (B,), or () for one
        sequence."""
        if self.cell == "leaky":
            return [(*batch, hidden_size)]
        steps = c_steps = self.parts
        if self.delays:
            steps, c_steps = self.slots()
        shapes = [(steps, *batch, self.proj_size or hidden_size), (c_steps, *batch, hidden_size)]
        return shapes[: self.states]

    # ---- Time structures

    def layers(self) -> list[Config]:
        """Each layer as a net of its own."""
        one = self._replace(num_layers=1)
        if not self.dilated:
            return [one] * self.num_layers
        each = [() if (delay,) == PLAIN_DELAYS else (delay,) for delay in self.delays]
        return [one._replace(delays=delays, dilated=False) for delays in each]

    def structured(self, given: Structure, hidden_size: int) -> tuple[Config, Array | None]:
        """This net, which has none yet, with the structure of these arguments, and its masks
        [L * D, H, O]."""
        found = _structure.checked(given, self._as_layer(hidden_size))
        plain = not self.dilated and found.delays == PLAIN_DELAYS
        config = self._replace(
            delays=() if plain else found.delays,
            periods=found.periods or (),
            group_sizes=found.group_sizes or (),
            full=found.connectivity == "full",
            masked=found.recurrent_mask is not None,
        )
        return config, found.recurrent_mask

    def check_masks(self, masks: Array, hidden_size: int) -> None:
        """An error if masks [L * D, H, O] are not such as a layer takes: they can be written to."""
        _structure.checked(Structure(recurrent_mask=masks), self._as_layer(hidden_size))

    def connections(self, hidden_size: int, masks: Array | None) -> Array | None:
        """[L * D, H, O] booleans: the recurrent connections; None if all are."""
        return _structure.connections(self._as_layer(hidden_size, masks))

    def shown(self, hidden_size: int, masks: Array | None) -> list[str]:
        """The arguments of structure that differ from their defaults, for repr."""
        return _structure.shown(self._as_layer(hidden_size, masks))

    def _as_layer(self, hidden_size: int, masks: Array | None = None) -> Any:
        """What the functions of `_structure` ask a layer for."""
        return SimpleNamespace(
            _cell=self.cell,
            _dilated=self.dilated,
            hidden_size=hidden_size,
            proj_size=self.proj_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            delays=self.delays or PLAIN_DELAYS,
            periods=self.periods or None,
            group_sizes=self.group_sizes or None,
            connectivity="full" if self.full else "slower",
            recurrent_mask=masks,
        )


def _check_size(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise RuntimeError(f"{name}: expected size {shape}, got {tuple(tensor.shape)}")


def stacked(masks: Sequence[Tensor]) -> Array | None:
    """Masks as one array [L * D, H, O]; None if there are none."""
    return np.array([mask.numpy() for mask in masks]) if masks else None
