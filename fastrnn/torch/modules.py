"""LSTM and RNN. Names, arguments, parameters, defaults and errors follow torch.nn."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import fastrnn

from .._arrays import check_choice, check_flag, check_size
from ._base import Base
from ._ops import run
from ._packing import Config


class Recurrent(Base):
    """What LSTM, RNN and LeakyRNN have in common: layers, directions and weight matrices."""

    _common: ClassVar[tuple[str, ...]] = (
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "bidirectional",
    )

    def __init__(
        self,
        cell: str,
        activation: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.num_layers = check_size("num_layers", num_layers)
        self.bias = check_flag("bias", bias)
        self.batch_first = check_flag("batch_first", batch_first)
        self.dropout = _checked_dropout(dropout, self.num_layers)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        config = Config(cell, activation, self.bias, self.num_layers, self.bidirectional)
        self._set_config(config)
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
        self, x: Tensor, state: tuple[Tensor, ...], weights: list[Tensor]
    ) -> tuple[Tensor, ...]:
        if self.training and self.dropout > 0 and self.num_layers > 1:
            return self._outputs_with_dropout(x, state, weights)
        return run(self._config, x, state, weights, self.batch_first)

    def _outputs_with_dropout(
        self, x: Tensor, state: tuple[Tensor, ...], weights: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Layer by layer. Time comes first inside, so that torch.nn would drop the same units."""
        self._config.check(weights)
        swap = self.batch_first and x.dim() == 3
        x = x.transpose(0, 1) if swap else x
        directions, width = 1 + self.bidirectional, len(weights) // self.num_layers
        finals = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = nn.functional.dropout(x, self.dropout, True)
            before = [s[layer * directions : (layer + 1) * directions] for s in state]
            own = weights[layer * width : (layer + 1) * width]
            x, *final = run(self._one_layer, x, before, own, False)
            finals.append(final)
        y = x.transpose(0, 1) if swap else x
        return (y, *[torch.cat(parts) for parts in zip(*finals, strict=True)])

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
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        defaults |= {"bidirectional": False}
        sizes = [str(self.input_size), str(self.hidden_size)]
        values = {name: getattr(self, name) for name in defaults}
        options = [f"{name}={v}" for name, v in values.items() if v != defaults[name]]
        return ", ".join(sizes + options)


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

        i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of W x_t + b_ih + U h_{t-1} + b_hh
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    Args:
        input_size: I, features of the input.
        hidden_size: H, units.
        num_layers: L, layers stacked on one another.
        bias: whether there are b_ih and b_hh.
        batch_first: the input is [B, T, I] instead of [T, B, I].
        dropout: the probability with which, in training, each output of a layer but the last
            becomes 0.
        bidirectional: a second net reads the sequence backwards; D is then 2, else 1.
        proj_size: 0; projections are not supported.
        device: "cpu".
        dtype: torch.float32 or torch.float64.

    Called with `input` [T, B, I] (or [T, I]) and perhaps the state (h_0, c_0), each [L * D, B, H],
    it returns `output, (h_n, c_n)`, [T, B, D * H] and [L * D, B, H]. A PackedSequence is a
    TypeError: all sequences of a batch have one length.

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> output, (h, c) = ft.LSTM(3, 8, num_layers=2)(torch.zeros(5, 2, 3))
        >>> output.shape, h.shape
        (torch.Size([5, 2, 8]), torch.Size([2, 2, 8]))
    """

    _counterpart = fastrnn.LSTM
    _state_names = ("hx[0] (h_0)", "hx[1] (c_0)")
    proj_size = 0

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
    ) -> None:
        if proj_size != 0:
            raise ValueError(f"proj_size: expected 0 (no projections here), got {proj_size!r}")
        super().__init__(
            "lstm",
            "tanh",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device,
            dtype,
        )


class RNN(Recurrent):
    """`torch.nn.RNN` on the kernels of fastrnn: the same arguments, parameters and outputs.

        h_t = f(W x_t + b_ih + U h_{t-1} + b_hh)

    Args:
        nonlinearity: f, "tanh" or "relu".
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype: as of LSTM.

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> output, h = ft.RNN(3, 8, nonlinearity="relu")(torch.ones(5, 3))
        >>> output.shape, h.shape
        (torch.Size([5, 8]), torch.Size([1, 8]))
    """

    _counterpart = fastrnn.RNN
    _common: ClassVar[tuple[str, ...]] = (*Recurrent._common, "nonlinearity")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(
            "rnn",
            nonlinearity,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device,
            dtype,
        )

    @property
    def nonlinearity(self) -> str:
        """The activation f."""
        return self._config.activation

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        plain = self.nonlinearity == "tanh"
        return super().extra_repr() + ("" if plain else f", nonlinearity={self.nonlinearity}")
