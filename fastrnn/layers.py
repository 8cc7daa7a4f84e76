"""The recurrent layers. Names, shapes, parameters and defaults follow PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from . import init
from ._arrays import Array, check_choice, check_flag, check_size
from ._base import Layer


class Recurrent(Layer):
    """What LSTM, RNN and LeakyRNN have in common: layers, directions and weight matrices."""

    _gates: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, batch_first, dtype)
        self.num_layers = check_size("num_layers", num_layers)
        self.bias = check_flag("bias", bias)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        self._check_sizes()
        rng = np.random.default_rng(seed)
        rows = self._gates * self.hidden_size
        for layer, suffix in self._parts():
            inputs = self.input_size if layer == 0 else (1 + bidirectional) * self.hidden_size
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (rows, inputs),
                "weight_hh": (rows, self.hidden_size),
            }
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            for name, shape in shapes.items():
                values = init.uniform(rng, shape, self.hidden_size, self.dtype)
                self._set_parameter(name + suffix, values)

    def _parts(self) -> list[tuple[int, str]]:
        """Layer and suffix of the parameters of each layer and direction, in order."""
        directions = ("", "_reverse")[: 1 + self.bidirectional]
        return [(i, f"_l{i}{d}") for i in range(self.num_layers) for d in directions]

    def _in_parts(self, arrays: Mapping[str, Array]) -> list[tuple[Array | None, ...]]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "alpha")
        return [tuple(arrays.get(name + suffix) for name in names) for _, suffix in self._parts()]

    def _options(self) -> list[str]:
        """The arguments that differ from their defaults, for repr."""
        options = [f"num_layers={self.num_layers}"] if self.num_layers > 1 else []
        options += ["bias=False"] if not self.bias else []
        options += ["batch_first=True"] if self.batch_first else []
        options += ["bidirectional=True"] if self.bidirectional else []
        options += [f"dtype={self.dtype.name}"] if self.dtype != np.float32 else []
        return options

    def __repr__(self) -> str:
        sizes = [str(self.input_size), str(self.hidden_size)]
        return f"{type(self).__name__}({', '.join(sizes + self._options())})"


class LSTM(Recurrent):
    """Long short-term memory, as `torch.nn.LSTM`.

        i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of W x_t + b_ih + U h_{t-1} + b_hh
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    Args:
        input_size: I, features of x.
        hidden_size: H, units.
        num_layers: L, layers stacked on one another.
        bias: whether there are b_ih and b_hh.
        batch_first: x is [B, T, I] instead of [T, B, I].
        bidirectional: a second net reads the sequence backwards; D is then 2, else 1.
        dtype: float32 or float64, of weights, inputs, outputs and state.
        seed: for the initial weights, uniform on [-1/sqrt(H), 1/sqrt(H)].

    Parameters, with suffix `_l{k}` or `_l{k}_reverse`: weight_ih [4H, I] ([4H, D * H] above layer
    0), weight_hh [4H, H], bias_ih and bias_hh [4H]; rows in the order i, f, g, o.

    Source: Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000).

    Example:
        >>> lstm = LSTM(3, 8, num_layers=2, seed=0)
        >>> y, (h, c) = lstm(np.zeros((5, 2, 3), np.float32))
        >>> y.shape, h.shape, c.shape
        ((5, 2, 8), (2, 2, 8), (2, 2, 8))
    """

    _cell = "lstm"
    _gates = 4


class RNN(Recurrent):
    """The simple recurrent net, as `torch.nn.RNN`.

        h_t = f(W x_t + b_ih + U h_{t-1} + b_hh)

    Args:
        nonlinearity: f, "tanh" or "relu".
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, dtype, seed: as of
            LSTM.

    Parameters as of LSTM, with H rows instead of 4H.

    Source: Elman (1990).

    Example:
        >>> y, h = RNN(3, 8, nonlinearity="relu", seed=0)(np.ones((5, 3), np.float32))
        >>> y.shape, h.shape
        ((5, 8), (1, 8))
    """

    _cell = "rnn"
    _nonlinearities: ClassVar[tuple[str, ...]] = ("tanh", "relu")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.activation = check_choice("nonlinearity", nonlinearity, self._nonlinearities)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            dtype=dtype,
            seed=seed,
        )

    @property
    def nonlinearity(self) -> str:
        """The activation f."""
        return self.activation

    def _options(self) -> list[str]:
        plain = self.activation == "tanh"
        return ([] if plain else [f"nonlinearity={self.activation!r}"]) + super()._options()


class LeakyRNN(RNN):
    """A recurrent net of leaky units, each with a time scale of its own.

        form "rate":       h_t = a * h_{t-1} + (1 - a) * f(W x_t + U h_{t-1} + b)
        form "potential":  u_t = a * u_{t-1} + (1 - a) * (W x_t + U f(u_{t-1}) + b),  h_t = f(u_t)

    with b = b_ih + b_hh and a = alpha, the *retention* of each unit: the weight of its past. The
    constructors `from_leak_rate`, `from_tau` and `from_half_life` convert other conventions.

    Args:
        alpha: a scalar or one value per unit, in [0, 1]; the same for all layers and directions
            at first.
        nonlinearity: f, "tanh", "relu" or "identity".
        form: where the leak sits, "rate" or "potential". The state is h or u.
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, dtype, seed: as of
            LSTM.

    Parameters as of RNN, and alpha [H] for each layer and direction.

    Source: Goodfellow, Bengio and Courville (2016), section 10.9.2; Jaeger et al. (2007) for the
    rate form.

    Example:
        >>> net = LeakyRNN(1, 200, alpha=np.linspace(0.5, 0.999, 200), seed=0)
        >>> y, h = net(np.ones((10, 1), np.float32))
        >>> y.shape, h.shape
        ((10, 200), (1, 200))
    """

    _nonlinearities = ("tanh", "relu", "identity")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        alpha: Any = 0.9,
        nonlinearity: str = "tanh",
        form: str = "rate",
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dtype: Any = np.float32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.form = check_choice("form", form, ("rate", "potential"))
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            nonlinearity=nonlinearity,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
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
