"""LSTM, GRU, MinGRU and RNN. Names, arguments, parameters, defaults and errors follow torch.nn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import fastrnn

from .._activations import IDENTITY, SIGMOID, TANH, checked_activation, checked_clip, plain
from .._arrays import check_flag, check_size
from ._base import Base
from ._ops import run
from ._packing import Config
from ._sequences import Cuts, Layout


def _option(name: str, text: str) -> Any:
    """A property that shows a field of the configuration."""
    return property(lambda self: getattr(self._config, name), doc=text)


def _limit(name: str, text: str) -> Any:
    """Likewise, of a limit that there may be none."""
    return property(lambda self: getattr(self._config, name) or None, doc=text)


class Recurrent(Base):
    """What all but Leaky have in common: layers, directions and weight matrices."""

    _common: ClassVar[tuple[str, ...]] = (
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "bidirectional",
        "dropout",
    )
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
        self._set_config(Config(cell, self.bias, self.num_layers, self.bidirectional, **options))
        self._make_parameters(device, dtype)
        self.reset_parameters()

    def _set_config(self, config: Config) -> None:
        super()._set_config(config)
        self._one_layer = config._replace(num_layers=1)

    def reset_parameters(self) -> None:
        """Draws weights and biases anew, uniform on [-1/sqrt(H), 1/sqrt(H)], as torch.nn does."""
        bound = 1 / math.sqrt(self.hidden_size)
        for name in self._names:
            if not name.startswith("alpha"):
                nn.init.uniform_(getattr(self, name), -bound, bound)

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
        self._config.check(weights)
        directions, width = 1 + self.bidirectional, len(weights) // self.num_layers
        finals = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = between(x)
            before = [s[layer * directions : (layer + 1) * directions] for s in state]
            own = weights[layer * width : (layer + 1) * width]
            x, *final = run(self._one_layer, x, before, own, False, False, cuts)
            finals.append(final)
        return (x, *[torch.cat(parts) for parts in zip(*finals, strict=True)])

    # ---- What programs written for torch.nn use

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction."""
        width = len(self._names) // self._config.parts
        weights = self._weights()
        return [weights[i : i + width] for i in range(0, len(weights), width)]

    def flatten_parameters(self) -> None:
        """Nothing to do: weights are packed at the first call after a change."""

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        options = [str(self.input_size), str(self.hidden_size)]
        defaults = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False}
        defaults |= {"dropout": 0.0, "bidirectional": False} | self._defaults
        for name, default in defaults.items():
            value = getattr(self, name, default)
            if value != default:
                is_function = name.endswith(("activation", "nonlinearity"))
                options.append(f"{name}={_shown(value) if is_function else value}")
        return ", ".join(options)


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


class LSTM(Recurrent):
    """`torch.nn.LSTM` on the kernels of fastrnn: the same arguments, parameters and outputs.

        i, f, g, o = s, s, a, s of W x_t + b_ih + U h_{t-1} + b_hh
        c_t = f * c_{t-1} + i * g
        h_t = o * e(c_t), or with a projection R (o * e(c_t))

    with s the sigmoid and a, e tanh, if nothing else is asked for.

    Args:
        input_size: I, features of the input.
        hidden_size: H, units.
        num_layers: L, layers stacked on one another.
        bias: whether there are b_ih and b_hh.
        batch_first: the input is [B, T, I] instead of [T, B, I].
        dropout: the probability with which, in training, each output of a layer but the last
            becomes 0.
        bidirectional: a second net reads the sequence backwards; D is then 2, else 1.
        proj_size: P, outputs of the projection; 0 for none.
        device: "cpu".
        dtype: torch.float32 or torch.float64.
        peephole: i and f also see p_i * c_{t-1} and p_f * c_{t-1}, and o sees p_o * c_t.
        coupled: f = 1 - i; the gates are then i, g, o.
        activation, gate_activation, output_activation: a, s and e, names or tuples with parameters
            as of `fastrnn.LSTM`.
        clip: what goes into a and s is limited to [-clip, clip].
        cell_clip: c is limited to [-cell_clip, cell_clip].

    Called with `input` [T, B, I] (or [T, I], or a PackedSequence) and perhaps the state (h_0, c_0),
    each [L * D, B, H], it returns `output, (h_n, c_n)`, [T, B, D * H] and [L * D, B, H]; with a
    projection P stands for the H of the output and of h. See `forward` for lengths and reset.

    Parameters as of torch.nn.LSTM, and with `peephole` peephole_l0 [3H], p_i, p_f, p_o ([2H], p_i,
    p_o if coupled), with the suffixes of the others.

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> output, (h, c) = ft.LSTM(3, 8, num_layers=2)(torch.zeros(5, 2, 3))
        >>> output.shape, h.shape
        (torch.Size([5, 2, 8]), torch.Size([2, 2, 8]))
    """

    _counterpart = fastrnn.LSTM
    _state_names = ("hx[0] (h_0)", "hx[1] (c_0)")
    _defaults: ClassVar[dict[str, Any]] = {
        "peephole": False,
        "coupled": False,
        "activation": TANH,
        "gate_activation": SIGMOID,
        "output_activation": TANH,
        "clip": None,
        "cell_clip": None,
    }
    _common: ClassVar[tuple[str, ...]] = (*Recurrent._common, "proj_size", *_defaults)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        peephole: bool = False,
        coupled: bool = False,
        activation: Any = "tanh",
        gate_activation: Any = "sigmoid",
        output_activation: Any = "tanh",
        clip: float | None = None,
        cell_clip: float | None = None,
    ) -> None:
        super().__init__(
            "lstm_coupled" if check_flag("coupled", coupled) else "lstm",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device,
            dtype,
            proj_size=_checked_projection(proj_size, hidden_size),
            peephole=check_flag("peephole", peephole),
            clip=checked_clip("clip", clip) or 0.0,
            cell_clip=checked_clip("cell_clip", cell_clip) or 0.0,
            activation=checked_activation("activation", activation),
            gate_activation=checked_activation("gate_activation", gate_activation),
            output_activation=checked_activation("output_activation", output_activation),
        )

    proj_size = _option("proj_size", "P, or 0.")
    peephole = _option("peephole", "Whether the gates see c.")
    activation = _option("activation", "Of g: its name and parameters.")
    gate_activation = _option("gate_activation", "Of the gates.")
    output_activation = _option("output_activation", "Of c on its way to h.")
    clip = _limit("clip", "The limit of what goes into the gates and g.")
    cell_clip = _limit("cell_clip", "The limit of c.")

    @property
    def coupled(self) -> bool:
        """Whether f = 1 - i."""
        return self._config.cell == "lstm_coupled"


def _checked_projection(value: Any, hidden_size: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    return check_size("proj_size", value)


class GRU(Recurrent):
    """`torch.nn.GRU` on the kernels of fastrnn: the same arguments, parameters and outputs.

        r, z = s of W x_t + b_ih + U h_{t-1} + b_hh
        n = a(W_n x_t + b_in + r * (U_n h_{t-1} + b_hn))
        h_t = (1 - z) * n + z * h_{t-1}

    with s the sigmoid and a tanh, if nothing else is asked for.

    Args:
        reset_after: if False, n = a(W_n x_t + b_in + U_n (r * h_{t-1}) + b_hn), as in the first
            paper and by default in ONNX.
        activation, gate_activation: a and s, names or tuples with parameters as of `fastrnn.GRU`.
        clip: what goes into a and s is limited to [-clip, clip].
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype: as of LSTM.

    Called as LSTM is, with the one state h_0 [L * D, B, H].

    Source: Cho et al. (2014).

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> output, h = ft.GRU(3, 8, bidirectional=True)(torch.ones(5, 2, 3))
        >>> output.shape, h.shape
        (torch.Size([5, 2, 16]), torch.Size([2, 2, 8]))
    """

    _counterpart = fastrnn.GRU
    _defaults: ClassVar[dict[str, Any]] = {
        "reset_after": True,
        "activation": TANH,
        "gate_activation": SIGMOID,
        "clip": None,
    }
    _common: ClassVar[tuple[str, ...]] = (*Recurrent._common, *_defaults)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        reset_after: bool = True,
        activation: Any = "tanh",
        gate_activation: Any = "sigmoid",
        clip: float | None = None,
    ) -> None:
        super().__init__(
            "gru" if check_flag("reset_after", reset_after) else "gru_reset_before",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device,
            dtype,
            clip=checked_clip("clip", clip) or 0.0,
            activation=checked_activation("activation", activation),
            gate_activation=checked_activation("gate_activation", gate_activation),
        )

    activation = _option("activation", "Of n: its name and parameters.")
    gate_activation = _option("gate_activation", "Of the gates.")
    clip = _limit("clip", "The limit of what goes into the gates and n.")

    @property
    def reset_after(self) -> bool:
        """Whether r acts on the recurrent part of n, and not on the state that goes into it."""
        return self._config.cell == "gru"


class MinGRU(Recurrent):
    """A GRU whose gates do not see the state, so that it is a leaky unit with a gate for a leak.

        z = sigmoid(W_z x_t + b_z),  n = a(W_n x_t + b_n)
        h_t = (1 - z) * h_{t-1} + z * n

    Args:
        activation: a, a name or a tuple with parameters as of `fastrnn.MinGRU`.
        clip: what goes into a and the sigmoid is limited to [-clip, clip].
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype: as of LSTM.

    Called as GRU is. Parameters, with their suffixes: weight_ih_l0 [2H, I] and bias_ih_l0 [2H],
    rows z, n.

    Source: Feng et al. (2024).

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> output, h = ft.MinGRU(3, 8)(torch.ones(5, 2, 3))
        >>> output.shape, h.shape
        (torch.Size([5, 2, 8]), torch.Size([1, 2, 8]))
    """

    _counterpart = fastrnn.MinGRU
    _defaults: ClassVar[dict[str, Any]] = {"activation": IDENTITY, "clip": None}
    _common: ClassVar[tuple[str, ...]] = (*Recurrent._common, *_defaults)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        activation: Any = "identity",
        clip: float | None = None,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "mingru",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device,
            dtype,
            clip=checked_clip("clip", clip) or 0.0,
            activation=checked_activation("activation", activation),
        )

    activation = _option("activation", "Of n: its name and parameters.")
    clip = _limit("clip", "The limit of what goes into the gate and n.")


class RNN(Recurrent):
    """`torch.nn.RNN` on the kernels of fastrnn: the same arguments, parameters and outputs.

        h_t = f(W x_t + b_ih + U h_{t-1} + b_hh)

    Args:
        nonlinearity: f, "tanh" or "relu", or any other that `fastrnn.RNN` has.
        clip: what goes into f is limited to [-clip, clip].
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype: as of LSTM.

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> output, h = ft.RNN(3, 8, nonlinearity="relu")(torch.ones(5, 3))
        >>> output.shape, h.shape
        (torch.Size([5, 8]), torch.Size([1, 8]))
    """

    _counterpart = fastrnn.RNN
    _defaults: ClassVar[dict[str, Any]] = {"nonlinearity": "tanh", "clip": None}
    _common: ClassVar[tuple[str, ...]] = (*Recurrent._common, *_defaults)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Any = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        clip: float | None = None,
    ) -> None:
        super().__init__(
            "rnn",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device,
            dtype,
            clip=checked_clip("clip", clip) or 0.0,
            activation=checked_activation("nonlinearity", nonlinearity),
        )

    clip = _limit("clip", "The limit of what goes into f.")

    @property
    def nonlinearity(self) -> Any:
        """The activation f: its name, or with parameters of its own a tuple."""
        return plain(self._config.activation)
