"""What all modules but Leaky have in common: layers, directions, weight matrices, structures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .._activations import checked_activation, plain
from .._arrays import Array, check_flag, check_size
from .._structure import PLAIN_DELAYS, Structure
from ._base import Base
from ._config import GATES, Config, stacked
from ._ops import run
from ._sequences import Cuts, Layout


class Recurrent(Base):
    """A net of layers and directions with weight matrices."""

    _common: ClassVar[tuple[str, ...]] = (
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "bidirectional",
        "dropout",
        "delays",
        "periods",
        "group_sizes",
        "connectivity",
    )
    _dilated: bool = False  # delays are those of the layers, one each
    # Of its options, in the order of the repr: the name, and the default as the attribute has it.
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: Any,
        dtype: Any,
        *,
        structure: Structure,
        **options: Any,
    ) -> None:
        """options: the fields of Config that are not named here."""
        super().__init__()
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        self.bias = check_flag("bias", bias)
        self.batch_first = check_flag("batch_first", batch_first)
        self.dropout = _checked_dropout(dropout, self.num_layers)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        own = (cell, self.bias, self.num_layers, self.bidirectional)
        config = Config(*own, dilated=self._dilated, **options)
        config, masks = config.structured(structure, self.hidden_size)
        self._set_config(config)
        self._make_parameters(device, dtype)
        for name, mask in zip(self._mask_names, () if masks is None else masks, strict=True):
            self.register_buffer(name, torch.from_numpy(np.array(mask)))
        self.reset_parameters()

    def _set_config(self, config: Config) -> None:
        super()._set_config(config)
        self._layers = config.layers()

    def reset_parameters(self) -> None:
        """Draws weights and biases anew, uniform on [-1/sqrt(H), 1/sqrt(H)], as torch.nn does."""
        bound = 1 / math.sqrt(self.hidden_size)
        for name in self._names:
            if not name.startswith("alpha"):
                nn.init.uniform_(getattr(self, name), -bound, bound)
        self._clear_unconnected()

    # ---- Time structures

    @property
    def delays(self) -> tuple[int, ...]:
        """How many steps before the present one the outputs are that it reads."""
        return self._config.delays or PLAIN_DELAYS

    @property
    def periods(self) -> tuple[int, ...] | None:
        """Of the groups of units."""
        return self._config.periods or None

    @property
    def group_sizes(self) -> tuple[int, ...] | None:
        """Their units."""
        return self._config.group_sizes or None

    @property
    def connectivity(self) -> str:
        """Whether groups read only "slower" ones, or in "full" all."""
        return "full" if self._config.full else "slower"

    @property
    def recurrent_mask(self) -> Tensor | None:
        """A copy of all masks, bool [L * D, H, O]; None if there are none. What changes them is
        writing to the buffers."""
        return torch.stack(self._masks()) if self._mask_names else None

    def _mask_array(self) -> Array | None:
        return stacked(self._masks())

    @torch.no_grad()
    def _clear_unconnected(self) -> None:
        """Makes recurrent weights 0 where there is no connection."""
        connections = self._config.connections(self.hidden_size, self._mask_array())
        if connections is None:
            return
        suffixes = self._config.suffixes()
        for suffix, connected in zip(suffixes, torch.tensor(connections), strict=True):
            stem = f"weight_hh{suffix}"
            apart = ~connected.repeat(GATES[self._config.cell], 1)
            for name in self._names:
                if name == stem or name.startswith(stem + "_d"):
                    getattr(self, name).masked_fill_(apart, 0)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *args: Any
    ) -> None:
        """Without masks, those that are here stay."""
        if self._mask_names:
            own = zip(self._mask_names, self._masks(), strict=True)
            state_dict = {prefix + name: mask for name, mask in own} | state_dict
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        if not local_metadata.get("assign_to_params_buffers", False):
            self._clear_unconnected()

    # ---- Calls

    def _outputs(
        self, x: Tensor, state: tuple[Tensor, ...], weights: list[Tensor], cuts: Cuts
    ) -> tuple[Tensor, ...]:
        if not (self.training and self.dropout > 0 and self.num_layers > 1):
            return run(self._config, x, state, weights, self.batch_first, False, cuts)
        # Time comes first inside, so that torch.nn would drop the same units.
        swap = self.batch_first and x.dim() == 3
        x = x.transpose(0, 1) if swap else x
        y, *final = self._outputs_with_dropout(x, state, weights, cuts, self._dropped)
        return (y.transpose(0, 1) if swap else y, *final)

    def _outputs_of_layout(
        self, x: Tensor, state: tuple[Tensor, ...], weights: list[Tensor], layout: Layout
    ) -> tuple[Tensor, ...]:
        if not (self.training and self.dropout > 0 and self.num_layers > 1):
            return super()._outputs_of_layout(x, state, weights, layout)
        between = layout.on_packed(self._dropped)
        return self._outputs_with_dropout(x, state, weights, layout.cuts, between)

    def _dropped(self, y: Tensor) -> Tensor:
        return nn.functional.dropout(y, self.dropout, True)

    def _outputs_with_dropout(
        self,
        x: Tensor,
        state: tuple[Tensor, ...],
        weights: list[Tensor],
        cuts: Cuts,
        between: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, ...]:
        """Layer by layer; time comes first."""
        config, directions = self._config, 1 + self.bidirectional
        config.check(weights)
        count = len(self._names)
        weights, masks = weights[:count], weights[count:]
        width, begun = count // self.num_layers, [0, 0]
        finals = []
        for layer, one in enumerate(self._layers):
            if layer > 0:
                x = between(x)
            before, slots = list(state), one.slots()
            for i, tensor in enumerate(state[: config.states]):
                before[i] = tensor[begun[i] : begun[i] + slots[i]]
                begun[i] += slots[i]
            own = weights[layer * width : (layer + 1) * width]
            own = own + masks[layer * directions : (layer + 1) * directions]
            x, *final = run(one, x, before, own, False, False, cuts)
            finals.append(final)
        whole = [torch.cat(parts) for parts in zip(*finals, strict=True)][: config.states]
        return (x, *whole, *finals[0][config.states :])  # the clock is that of all layers

    # ---- What programs written for torch.nn use

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction."""
        width = len(self._names) // self._config.parts
        weights = self._weights()[: len(self._names)]
        return [weights[i : i + width] for i in range(0, len(weights), width)]

    def flatten_parameters(self) -> None:
        """Nothing to do: weights are packed at the first call after a change."""

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        return ", ".join([str(self.input_size), str(self.hidden_size), *self._options()])

    def _options(self) -> list[str]:
        options = []
        defaults: dict[str, Any] = {"proj_size": 0} | ({} if self._dilated else {"num_layers": 1})
        defaults |= {"bias": True, "batch_first": False}
        defaults |= {"dropout": 0.0, "bidirectional": False} | self._defaults
        for name, default in defaults.items():
            value = getattr(self, name, default)
            if value != default:
                is_function = name.endswith(("activation", "nonlinearity"))
                options.append(f"{name}={_shown(value) if is_function else value}")
        return options + self._config.shown(self.hidden_size, self._mask_array())


def _shown(function: Any) -> str:
    return str(plain(checked_activation("", function)))


def _checked_dropout(dropout: Any, num_layers: int) -> float:
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)):
        raise ValueError(f"dropout: expected a number in [0, 1], got {dropout!r}")
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout: expected a number in [0, 1], got {dropout!r}")
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            f"dropout={dropout}: it acts between layers, and there is one (num_layers=1)",
            stacklevel=4,
        )
    return float(dropout)
