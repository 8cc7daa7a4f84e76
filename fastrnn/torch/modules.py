"""LSTM, GRU, MinGRU and RNN. Names, arguments, parameters, defaults and errors follow torch.nn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import fastrnn

from .._activations import IDENTITY, SIGMOID, TANH, checked_activation, checked_clip, plain
from .._arrays import check_flag, check_size
from .._structure import Structure
from ._recurrent import Recurrent


def _option(name: str, text: str) -> Any:
    """A property that shows a field of the configuration."""
    return property(lambda self: getattr(self._config, name), doc=text)


def _limit(name: str, text: str) -> Any:
    """Likewise, of a limit that there may be none."""
    return property(lambda self: getattr(self._config, name) or None, doc=text)


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
        delays, periods, group_sizes, connectivity, recurrent_mask: what a step reads of the past,
            which units it changes, and which recurrent connections there are, as of `fastrnn.LSTM`.

    Called with `input` [T, B, I] (or [T, I], or a PackedSequence) and perhaps the state (h_0, c_0),
    each [L * D, B, H], it returns `output, (h_n, c_n)`, [T, B, D * H] and [L * D, B, H]; with a
    projection P stands for the H of the output and of h. See `forward` for lengths and reset, and
    for the states with delays and periods.

    Parameters as of torch.nn.LSTM, and with `peephole` peephole_l0 [3H], p_i, p_f, p_o ([2H], p_i,
    p_o if coupled), with the suffixes of the others. The recurrent matrices of delays after the
    shortest stand behind it, such as weight_hh_l0_d8. A mask is a buffer for each layer and
    direction, recurrent_mask_l0 bool [H, H] ([H, P]), part of the state_dict; a state_dict without
    leaves it. Elements of weight_hh outside of masks, and those that connect a group to a faster
    one, begin as 0, are not read, and have gradients of exactly 0.

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> output, (h, c) = ft.LSTM(3, 8, num_layers=2)(torch.zeros(5, 2, 3))
        >>> output.shape, h.shape
        (torch.Size([5, 2, 8]), torch.Size([2, 2, 8]))
        >>> output, (h, c) = ft.LSTM(3, 8, delays=(2, 5))(torch.ones(9, 3))
        >>> h.shape, c.shape
        (torch.Size([5, 8]), torch.Size([2, 8]))
        >>> output, (h, c, clock) = ft.LSTM(3, 8, periods=(1, 4))(torch.ones(9, 3))
        >>> clock
        tensor(9)
    """

    _counterpart = fastrnn.LSTM
    _defaults: ClassVar[dict[str, Any]] = {
        "peephole": False,
        "coupled": False,
        "activation": TANH,
        "gate_activation": SIGMOID,
        "output_activation": TANH,
        "clip": None,
        "cell_clip": None,
    }
    _common: ClassVar[tuple[str, ...]] = (
        *Recurrent._common,
        "proj_size",
        *_defaults,
        "recurrent_mask",
    )

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
        delays: int | Iterable[int] = (1,),
        periods: Iterable[int] | None = None,
        group_sizes: Iterable[int] | None = None,
        connectivity: str = "slower",
        recurrent_mask: Any = None,
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
            structure=Structure(delays, periods, group_sizes, connectivity, recurrent_mask),
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
        delays, periods, group_sizes, connectivity, recurrent_mask: as of LSTM; no periods with
            reset_after=False.

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
    _common: ClassVar[tuple[str, ...]] = (*Recurrent._common, *_defaults, "recurrent_mask")

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
        delays: int | Iterable[int] = (1,),
        periods: Iterable[int] | None = None,
        group_sizes: Iterable[int] | None = None,
        connectivity: str = "slower",
        recurrent_mask: Any = None,
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
            structure=Structure(delays, periods, group_sizes, connectivity, recurrent_mask),
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
        delays, periods, group_sizes, connectivity: as of LSTM, with one delay at most.

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
        delays: int | Iterable[int] = (1,),
        periods: Iterable[int] | None = None,
        group_sizes: Iterable[int] | None = None,
        connectivity: str = "slower",
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
            structure=Structure(delays, periods, group_sizes, connectivity),
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
        delays, periods, group_sizes, connectivity, recurrent_mask: as of LSTM; each row of a mask
            has some True.

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> output, h = ft.RNN(3, 8, nonlinearity="relu")(torch.ones(5, 3))
        >>> output.shape, h.shape
        (torch.Size([5, 8]), torch.Size([1, 8]))
    """

    _counterpart = fastrnn.RNN
    _defaults: ClassVar[dict[str, Any]] = {"nonlinearity": "tanh", "clip": None}
    _common: ClassVar[tuple[str, ...]] = (*Recurrent._common, *_defaults, "recurrent_mask")

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
        delays: int | Iterable[int] = (1,),
        periods: Iterable[int] | None = None,
        group_sizes: Iterable[int] | None = None,
        connectivity: str = "slower",
        recurrent_mask: Any = None,
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
            structure=Structure(delays, periods, group_sizes, connectivity, recurrent_mask),
        )

    clip = _limit("clip", "The limit of what goes into f.")

    @property
    def nonlinearity(self) -> Any:
        """The activation f: its name, or with parameters of its own a tuple."""
        return plain(self._config.activation)
