"""The gated layers: LSTM, GRU and MinGRU. Names, shapes, parameters and defaults follow PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from . import init
from ._activations import IDENTITY, SIGMOID, TANH, checked_activation, checked_clip, finite
from ._arrays import check_flag, check_size
from ._structure import Structure
from .layers import Recurrent


class Gated(Recurrent):
    """What gated layers have in common: gates whose biases set how long a unit remembers."""

    # Row blocks of the gates that weigh past and new, the foremost first, each with 1 if it is the
    # weight of the past, -1 if it is that of the new.
    _memory: ClassVar[tuple[tuple[int, int], ...]]

    def _checked_start(self, bias: bool, chrono: Any, forget_bias: Any = None) -> Any:
        """How the gates' biases are to begin: time scales, a number or None."""
        for name, value in (("chrono", chrono), ("forget_bias", forget_bias)):
            if value is not None and not check_flag("bias", bias):
                raise ValueError(f"{name}: expected None for a layer without biases, got {value!r}")
        if forget_bias is not None:
            if chrono is not None:
                raise ValueError("forget_bias: not together with chrono, which sets it")
            return finite("forget_bias", forget_bias)
        if chrono is None:
            return None
        if self.gate_activation != SIGMOID:
            raise ValueError("chrono: expected None, as gate_activation is not the sigmoid")
        return init.checked_scales(chrono)

    def _set_start(self, start: Any, rng: np.random.Generator) -> None:
        """Sets the biases that _checked_start asks for: bias_ih; bias_hh is 0 there."""
        if start is None:
            return
        for _, suffix in self._parts():
            if isinstance(start, tuple):
                gates, values = self._memory, init.chrono(self.hidden_size, start[0], start[1], rng)
            else:
                gates, values = self._memory[:1], np.full(self.hidden_size, start)
            for name in ("bias_ih" + suffix, "bias_hh" + suffix):
                if name in self._parameters:
                    bias = self._parameters[name].copy()
                    for gate, sign in gates:
                        rows = slice(gate * self.hidden_size, (gate + 1) * self.hidden_size)
                        bias[rows] = sign * values if name.startswith("bias_ih") else 0
                    self._set_parameter(name, bias)


class LSTM(Gated):
    """Long short-term memory, as `torch.nn.LSTM`, with the options of ONNX and Keras.

        i, f, g, o = s, s, a, s of W x_t + b_ih + U h_{t-1} + b_hh
        c_t = f * c_{t-1} + i * g
        h_t = o * e(c_t)

    where s is the sigmoid, a and e are tanh, unless given. With `proj_size` P the output is
    h_t = R (o * e(c_t)), of P values. With `peephole` the gates see the cell: p_i * c_{t-1} is
    added to what goes into i, p_f * c_{t-1} to f, p_o * c_t to o. With `coupled` there is no f:
    c_t = (1 - i) * c_{t-1} + i * g.

    Args:
        input_size: I, features of x.
        hidden_size: H, units.
        num_layers: L, layers stacked on one another.
        proj_size: P, of any size; 0 for no projection.
        peephole: whether the gates see the cell.
        coupled: whether the forget gate is 1 - i (ONNX: input_forget).
        activation, gate_activation, output_activation: a, s and e: a name or a tuple of a name and
            its parameters. tanh, relu, identity, sigmoid, softsign and softplus have none;
            ("hard_sigmoid", 1/6, 1/2) is alpha v + beta limited to [0, 1] (ONNX: 0.2, 0.5),
            ("affine", 1, 0) alpha v + beta, ("leaky_relu", 0.01) alpha v below 0,
            ("thresholded_relu", 1) 0 up to alpha, ("scaled_tanh", 1, 1) alpha tanh(beta v),
            ("elu", 1) alpha (exp(v) - 1) below 0; the numbers are those of the bare name.
        clip: limits what goes into s and a to [-clip, clip]; None for no limit.
        cell_clip: limits c likewise.
        bias: whether there are b_ih and b_hh.
        batch_first: x is [B, T, I] instead of [T, B, I].
        bidirectional: a second net reads the sequence backwards; D is then 2, else 1.
        dropout: the probability with which, in `forward_train`, an output of a layer but the last
            becomes 0. Model files do not keep it.
        go_backwards: the sequence is read from its end, and y comes in that order, as in Keras.
            Not for bidirectional layers.
        delays: 1 to 16 distinct integers >= 1, or one: how many steps before the present one the
            outputs are that a step reads. U h_{t-1} becomes the sum over k of U_k h_{t - d_k}, and
            c_{t-1} that of the shortest delay. Before the first step is the state.
        periods: None, or 1 to 64 integers >= 1: units are in groups, and one of period p is active
            at steps 0, p, 2p, ...; at others it keeps its c and h. It reads the h_{t-1} of groups
            that are at least as slow; other elements of weight_hh are 0, as outside a mask. Steps
            are counted from the state's clock, by a reverse direction from the sequence's end. Not
            with other delays or a projection.
        group_sizes: their units, in order, the first units first; None for equal groups, the first
            ones larger by a unit where H does not divide.
        connectivity: "slower", or "full": a group reads all others.
        recurrent_mask: None, or booleans [H, O] (O = P with a projection, else H), or
            [L * D, H, O]: whether unit i reads output j, by all gates and at all delays. Elements
            of weight_hh elsewhere are set to 0, and are not trained. What is False for 16 units
            (0 to 15, 16 to 31, ...) together is neither stored nor multiplied: see `prune`. With
            few connections in no such order the forward multiplies these alone: see `step_cost`.
        chrono: (t_min, t_max), a range of time scales in steps, from which the forget biases
            begin: log(T - 1), those of i at -log(T - 1); see `init.chrono`.
        forget_bias: a number at which the forget biases begin (Keras: 1.0); with `coupled` those of
            i begin at its negative.
        dtype: float32 or float64, of weights, inputs, outputs and state.
        seed: for the initial weights, uniform on [-1/sqrt(H), 1/sqrt(H)].

    Parameters, with suffix `_l{k}` or `_l{k}_reverse`: weight_ih [4H, I] ([4H, D * H] above layer
    0), weight_hh [4H, H], bias_ih and bias_hh [4H]; rows in the order i, f, g, o. With a projection
    weight_hr [P, H], and P for H in the columns of the others. peephole [3H], rows p_i, p_f, p_o.
    With `coupled` 3H rows i, g, o, and peephole [2H] rows p_i, p_o. weight_hh is that of the
    shortest delay; behind it stand those of the others, such as weight_hh_l0_d8.

    Source: Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000), peepholes
    of Gers and Schmidhuber (2000), the projection of Sak et al. (2014), coupled gates as in Greff
    et al. (2015), chrono initialisation of Tallec and Ollivier (2018), delays of El Hihi and Bengio
    (1996) and Lin et al. (1996), clocks of Koutnik et al. (2014).

    Example:
        >>> lstm = LSTM(3, 8, num_layers=2, seed=0)
        >>> y, (h, c) = lstm(np.zeros((5, 2, 3), np.float32))
        >>> y.shape, h.shape, c.shape
        ((5, 2, 8), (2, 2, 8), (2, 2, 8))
        >>> y, (h, c) = LSTM(3, 8, proj_size=2, forget_bias=1.0)(np.ones((5, 3), np.float32))
        >>> y.shape, h.shape, c.shape
        ((5, 2), (1, 2), (1, 8))
        >>> y, (h, c) = LSTM(3, 8, delays=(2, 5))(np.ones((9, 3), np.float32))
        >>> y.shape, h.shape, c.shape
        ((9, 8), (5, 8), (2, 8))
        >>> y, (h, c, clock) = LSTM(3, 8, periods=(1, 4))(np.ones((9, 3), np.float32))
        >>> bool((y[5, 4:] == y[4, 4:]).all()), int(clock)
        (True, 9)
    """

    _states = 2
    _activations: ClassVar[dict[str, Any]] = {
        "activation": TANH,
        "gate_activation": SIGMOID,
        "output_activation": TANH,
    }

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        proj_size: int = 0,
        peephole: bool = False,
        coupled: bool = False,
        activation: str | tuple[Any, ...] = "tanh",
        gate_activation: str | tuple[Any, ...] = "sigmoid",
        output_activation: str | tuple[Any, ...] = "tanh",
        clip: float | None = None,
        cell_clip: float | None = None,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        go_backwards: bool = False,
        delays: int | Iterable[int] = (1,),
        periods: Iterable[int] | None = None,
        group_sizes: Iterable[int] | None = None,
        connectivity: str = "slower",
        recurrent_mask: Any = None,
        chrono: tuple[float, float] | None = None,
        forget_bias: float | None = None,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.proj_size = _checked_projection(proj_size)
        self.peephole = check_flag("peephole", peephole)
        self.coupled = check_flag("coupled", coupled)
        self.activation = checked_activation("activation", activation)
        self.gate_activation = checked_activation("gate_activation", gate_activation)
        self.output_activation = checked_activation("output_activation", output_activation)
        self.clip = checked_clip("clip", clip)
        self.cell_clip = checked_clip("cell_clip", cell_clip)
        start = self._checked_start(bias, chrono, forget_bias)
        rng = np.random.default_rng(seed)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            dropout=dropout,
            go_backwards=go_backwards,
            structure=Structure(delays, periods, group_sizes, connectivity, recurrent_mask),
            dtype=dtype,
            seed=rng,
        )
        self._set_start(start, rng)

    @property
    def _cell(self) -> str:  # type: ignore[override]
        return "lstm_coupled" if self.coupled else "lstm"

    @property
    def _gates(self) -> int:  # type: ignore[override]
        return 3 if self.coupled else 4

    @property
    def _memory(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        return ((0, -1),) if self.coupled else ((1, 1), (0, -1))

    def _shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        shapes = super()._shapes(inputs)
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        if self.peephole:
            shapes["peephole"] = ((self._gates - 1) * self.hidden_size,)
        return shapes

    def _options(self) -> list[str]:
        given = [f"proj_size={self.proj_size}"] if self.proj_size else []
        given += [f"{name}=True" for name in ("peephole", "coupled") if getattr(self, name)]
        return given + super()._options()


def _checked_projection(value: Any) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value == 0:
        return 0
    try:
        return check_size("proj_size", value)
    except ValueError as error:
        raise ValueError(f"{error} (0: no projection)") from None


class GRU(Gated):
    """Gated recurrent units, as `torch.nn.GRU`, or with the reset gate before the product.

        r, z = s, s of W x_t + b_ih + U h_{t-1} + b_hh
        n = f(W_n x_t + b_in + r * (U_n h_{t-1} + b_hn))        reset_after, as PyTorch and Keras
        n = f(W_n x_t + b_in + U_n (r * h_{t-1}) + b_hn)        else, as ONNX without being told
        h_t = (1 - z) * n + z * h_{t-1}

    where s is the sigmoid and f is tanh, unless given.

    Args:
        reset_after: whether the reset gate acts on the product, or before it. Weights trained for
            one do not serve the other.
        activation, gate_activation: f and s, as of LSTM.
        clip: limits what goes into s and f to [-clip, clip]; None for no limit.
        chrono: (t_min, t_max), a range of time scales in steps, from which the biases of z begin:
            log(T - 1); see `init.chrono`.
        delays, periods, group_sizes, connectivity, recurrent_mask: as of LSTM. z * h_{t-1} is that
            of the shortest delay; no periods with reset_after=False.
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, dropout,
            go_backwards, dtype, seed: as of LSTM.

    Parameters as of LSTM, with 3H rows in the order r, z, n.

    Source: Cho et al. (2014) for the reset before; after it as in cuDNN.

    Example:
        >>> y, h = GRU(3, 8, seed=0)(np.ones((5, 3), np.float32))
        >>> y.shape, h.shape
        ((5, 8), (1, 8))
    """

    _gates = 3
    _memory = ((1, 1),)
    _activations: ClassVar[dict[str, Any]] = {"activation": TANH, "gate_activation": SIGMOID}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = True,
        activation: str | tuple[Any, ...] = "tanh",
        gate_activation: str | tuple[Any, ...] = "sigmoid",
        clip: float | None = None,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        go_backwards: bool = False,
        delays: int | Iterable[int] = (1,),
        periods: Iterable[int] | None = None,
        group_sizes: Iterable[int] | None = None,
        connectivity: str = "slower",
        recurrent_mask: Any = None,
        chrono: tuple[float, float] | None = None,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.reset_after = check_flag("reset_after", reset_after)
        self.activation = checked_activation("activation", activation)
        self.gate_activation = checked_activation("gate_activation", gate_activation)
        self.clip = checked_clip("clip", clip)
        start = self._checked_start(bias, chrono)
        rng = np.random.default_rng(seed)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            dropout=dropout,
            go_backwards=go_backwards,
            structure=Structure(delays, periods, group_sizes, connectivity, recurrent_mask),
            dtype=dtype,
            seed=rng,
        )
        self._set_start(start, rng)

    @property
    def _cell(self) -> str:  # type: ignore[override]
        return "gru" if self.reset_after else "gru_reset_before"

    def _options(self) -> list[str]:
        return ([] if self.reset_after else ["reset_after=False"]) + super()._options()


class MinGRU(Gated):
    """Gated units whose gates see only the input: a running average with a weight at each step.

        z = sigmoid(W_z x_t + b_z)
        n = f(W_n x_t + b_n)
        h_t = (1 - z) * h_{t-1} + z * n

    As z does not depend on h, everything but the average is one product for all steps. Note that z
    is the weight of the new, in GRU that of the past. `fastrnn.gated_leaky` is the average alone.

    Args:
        activation: f, the identity unless given; as of LSTM.
        clip: limits what goes into the sigmoid and f to [-clip, clip]; None for no limit.
        chrono: (t_min, t_max), a range of time scales in steps, from which the biases of z begin:
            -log(T - 1); see `init.chrono`.
        delays, periods, group_sizes, connectivity: as of LSTM. There is one delay at most, as no
            unit reads another.
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, dropout,
            go_backwards, dtype, seed: as of LSTM.

    Parameters, with suffix `_l{k}` or `_l{k}_reverse`: weight_ih [2H, I] ([2H, D * H] above layer
    0), bias_ih [2H]; rows in the order z, n.

    Source: Feng et al. (2024), "Were RNNs all we needed?".

    Example:
        >>> y, h = MinGRU(3, 8, num_layers=2, seed=0)(np.ones((5, 3), np.float32))
        >>> y.shape, h.shape
        ((5, 8), (2, 8))
    """

    _cell = "mingru"
    _gates = 2
    _memory = ((0, -1),)
    _activations: ClassVar[dict[str, Any]] = {"activation": IDENTITY}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        activation: str | tuple[Any, ...] = "identity",
        clip: float | None = None,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        go_backwards: bool = False,
        delays: int | Iterable[int] = (1,),
        periods: Iterable[int] | None = None,
        group_sizes: Iterable[int] | None = None,
        connectivity: str = "slower",
        chrono: tuple[float, float] | None = None,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.activation = checked_activation("activation", activation)
        self.clip = checked_clip("clip", clip)
        start = self._checked_start(bias, chrono)
        rng = np.random.default_rng(seed)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            dropout=dropout,
            go_backwards=go_backwards,
            structure=Structure(delays, periods, group_sizes, connectivity),
            dtype=dtype,
            seed=rng,
        )
        self._set_start(start, rng)

    def _shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        shapes = super()._shapes(inputs)
        return {name: shapes[name] for name in ("weight_ih", "bias_ih") if name in shapes}
