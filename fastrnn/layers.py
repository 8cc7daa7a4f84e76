"""Layers of products over time: what all have in common, RNN and LeakyRNN; the gated ones are in
gated.py. Names, shapes, parameters and defaults follow PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from . import _structure, init
from ._activations import TANH, Activation, checked_activation, checked_clip, plain
from ._arrays import Array, check_choice, check_flag, check_size
from ._base import Layer
from ._cost import StepCost, step_cost
from ._dropout import checked_dropout
from ._structure import Structure

# Those of a part, one layer in one direction, in the order of the C library. The recurrent matrices
# of further delays follow.
PART = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "alpha", "weight_hr", "peephole")


class Recurrent(Layer):
    """What all layers with weights have in common: layers, directions and weight matrices."""

    _gates: ClassVar[int] = 1
    # The arguments that are activations, with their defaults.
    _activations: ClassVar[dict[str, Activation]] = {}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        bias: bool,
        batch_first: bool,
        bidirectional: bool,
        dropout: float,
        go_backwards: bool,
        structure: Structure,
        dtype: Any,
        seed: int | np.random.Generator | None,
    ) -> None:
        super().__init__(input_size, hidden_size, batch_first, dtype)
        self.num_layers = check_size("num_layers", num_layers)
        self.bias = check_flag("bias", bias)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        self.dropout = checked_dropout(dropout, self.num_layers)
        self.go_backwards = check_flag("go_backwards", go_backwards)
        if self.go_backwards and self.bidirectional:
            raise ValueError("go_backwards: not for a bidirectional layer, which reads both ways")
        for name, value in _structure.checked(structure, self)._asdict().items():
            setattr(self, name, value)
        self._check_sizes()
        rng = np.random.default_rng(seed)
        for layer, suffix in self._parts():
            inputs = self.input_size if layer == 0 else self._output_size
            for name, shape in self._shapes(inputs).items():
                for end in _structure.delay_ends(self) if name == "weight_hh" else ("",):
                    values = init.uniform(rng, shape, self.hidden_size, self.dtype)
                    self._set_parameter(name + suffix + end, values)

    def _shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        """The weights of a part that reads so many values, in PyTorch's order."""
        rows = self._gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, inputs),
            "weight_hh": (rows, self.proj_size or self.hidden_size),
        }
        return shapes | ({"bias_ih": (rows,), "bias_hh": (rows,)} if self.bias else {})

    @functools.cached_property
    def _connections(self) -> Array | None:
        return _structure.connections(self)

    def _set_parameter(self, name: str, value: Any) -> None:
        """As of all layers; recurrent weights are 0 where there is no connection."""
        if name.startswith("weight_hh") and self._connections is not None:
            stems = ["weight_hh" + suffix for _, suffix in self._parts()]
            part = next(i for i, s in enumerate(stems) if name == s or name.startswith(s + "_d"))
            gates = np.reshape(value, (-1, *self._connections.shape[1:]))
            value = np.where(self._connections[part], gates, 0).reshape(np.shape(value))
        super()._set_parameter(name, value)

    def _parts(self) -> list[tuple[int, str]]:
        directions = ("", "_reverse")[: 1 + self.bidirectional]
        return [(i, f"_l{i}{d}") for i in range(self.num_layers) for d in directions]

    def _in_parts(self, arrays: Mapping[str, Array]) -> list[tuple[Array | None, ...]]:
        parts, later = [], _structure.delay_ends(self)[1:]
        for _, suffix in self._parts():
            delayed = [arrays.get("weight_hh" + suffix + end) for end in later]
            parts.append((*(arrays.get(name + suffix) for name in PART), *delayed))
        return parts

    def _options(self) -> list[str]:
        """The arguments that differ from their defaults, for repr."""
        values: dict[str, Any] = {}
        if self.num_layers > 1 and not self._dilated:
            values["num_layers"] = self.num_layers
        for name, default in self._activations.items():
            value = getattr(self, name)
            values |= {name: plain(value)} if value != default else {}
        limits = {"clip": self.clip, "cell_clip": self.cell_clip}
        values |= {name: limit for name, limit in limits.items() if limit is not None}
        values |= {} if self.bias else {"bias": False}
        flags = ("batch_first", "bidirectional", "dropout", "go_backwards")
        values |= {name: getattr(self, name) for name in flags if getattr(self, name)}
        options = [f"{name}={value!r}" for name, value in values.items()] + _structure.shown(self)
        return options + ([f"dtype={self.dtype.name}"] if self.dtype != np.float32 else [])

    def step_cost(self) -> StepCost:
        """Multiply-adds of one step of one sequence: mean, worst, and without a time structure.

        Example:
            >>> RNN(1, 64, periods=[1, 4], connectivity="full").step_cost()
            StepCost(mean=1832.0, worst=4160, dense=4160)
        """
        return step_cost(self)

    def __repr__(self) -> str:
        sizes = [str(self.input_size), str(self.hidden_size)]
        return f"{type(self).__name__}({', '.join(sizes + self._options())})"


class RNN(Recurrent):
    """The simple recurrent net, as `torch.nn.RNN`.

        h_t = f(W x_t + b_ih + U h_{t-1} + b_hh)

    Args:
        nonlinearity: f, "tanh", "relu", or any other of `fastrnn.LSTM`.
        clip: limits what goes into f to [-clip, clip]; None for no limit.
        delays, periods, group_sizes, connectivity, recurrent_mask: as of LSTM, but that each row of
            a mask has some True: a unit without would have no memory.
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, dropout,
            go_backwards, dtype, seed: as of LSTM.

    Parameters as of LSTM, with H rows instead of 4H.

    Source: Elman (1990).

    Example:
        >>> y, h = RNN(3, 8, nonlinearity="relu", seed=0)(np.ones((5, 3), np.float32))
        >>> y.shape, h.shape
        ((5, 8), (1, 8))
    """

    _cell = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str | tuple[Any, ...] = "tanh",
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
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.activation = checked_activation("nonlinearity", nonlinearity)
        self.clip = checked_clip("clip", clip)
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
            seed=seed,
        )

    @property
    def nonlinearity(self) -> str | tuple[Any, ...]:
        """The activation f: its name, with its parameters if they are not the usual ones."""
        return plain(self.activation)

    def _options(self) -> list[str]:
        given = [] if self.activation == TANH else [f"nonlinearity={self.nonlinearity!r}"]
        return given + super()._options()


class LeakyRNN(RNN):
    """A recurrent net of leaky units, each with a time scale of its own.

        form "rate":       h_t = a * h_{t-1} + (1 - a) * f(W x_t + U h_{t-1} + b)
        form "potential":  u_t = a * u_{t-1} + (1 - a) * (W x_t + U f(u_{t-1}) + b),  h_t = f(u_t)

    with b = b_ih + b_hh and a = alpha, the *retention* of each unit: the weight of its past. The
    constructors `from_leak_rate`, `from_tau` and `from_half_life` convert other conventions.

    Args:
        alpha: a scalar or one value per unit, in [0, 1]; the same for all layers and directions
            at first.
        nonlinearity: f, "tanh", "relu", "identity", or any other of `fastrnn.LSTM`.
        form: where the leak sits, "rate" or "potential". The state is h or u.
        clip: limits what goes into f to [-clip, clip]; form "rate" only.
        delays, periods, group_sizes, connectivity, recurrent_mask: as of LSTM. a * h_{t-1} and
            a * u_{t-1} are those of the shortest delay.
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, dropout,
            go_backwards, dtype, seed: as of LSTM.

    Parameters as of RNN, and alpha [H] for each layer and direction.

    Source: Goodfellow, Bengio and Courville (2016), section 10.9.2; Jaeger et al. (2007) for the
    rate form.

    Example:
        >>> net = LeakyRNN(1, 200, alpha=np.linspace(0.5, 0.999, 200), seed=0)
        >>> y, h = net(np.ones((10, 1), np.float32))
        >>> y.shape, h.shape
        ((10, 200), (1, 200))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        alpha: Any = 0.9,
        nonlinearity: str | tuple[Any, ...] = "tanh",
        form: str = "rate",
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
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.form = check_choice("form", form, ("rate", "potential"))
        if clip is not None and form == "potential":
            raise ValueError(f"clip: expected None for form 'potential', got {clip!r}")
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            nonlinearity=nonlinearity,
            clip=clip,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            dropout=dropout,
            go_backwards=go_backwards,
            delays=delays,
            periods=periods,
            group_sizes=group_sizes,
            connectivity=connectivity,
            recurrent_mask=recurrent_mask,
            dtype=dtype,
            seed=seed,
        )
        values = init.checked_alpha(alpha, self.hidden_size, self.dtype)
        for _, suffix in self._parts():
            self._set_parameter("alpha" + suffix, values)

    @property
    def _cell(self) -> str:  # type: ignore[override]
        return f"leaky_{self.form}"

    @classmethod
    def from_leak_rate(cls, *sizes: int, leak_rate: Any, **options: Any) -> Self:
        """From a leak rate in [0, 1], as reservoir computing has it: alpha = 1 - leak_rate."""
        return cls(*sizes, alpha=init.alpha_from_leak_rate(leak_rate), **options)

    @classmethod
    def from_tau(
        cls, *sizes: int, tau: Any, dt: Any = 1.0, method: str = "exact", **options: Any
    ) -> Self:
        """From a time constant and the step in the same unit of time; see `init.alpha_from_tau`."""
        return cls(*sizes, alpha=init.alpha_from_tau(tau, dt, method), **options)

    @classmethod
    def from_half_life(cls, *sizes: int, half_life: Any, **options: Any) -> Self:
        """From the steps in which half of the state is forgotten: alpha = 2^(-1/half_life)."""
        return cls(*sizes, alpha=init.alpha_from_half_life(half_life), **options)

    def _options(self) -> list[str]:
        values = [self._parameters["alpha" + suffix] for _, suffix in self._parts()]
        low, high = min(v.min() for v in values), max(v.max() for v in values)
        alpha = f"alpha={low:g}" if low == high else f"alpha={low:g}..{high:g}"
        form = [] if self.form == "rate" else [f"form={self.form!r}"]
        return [alpha, *form, *super()._options()]
