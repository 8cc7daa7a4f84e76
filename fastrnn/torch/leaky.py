"""Leaky units with time constants that are learned.

alpha, the retention of a unit, has to stay in [0, 1] while an optimizer moves it. The parameter is
therefore its logit, alpha = sigmoid(alpha_logit), of any value. Where the end of the range is
meant, an alpha of exactly 0 or 1, it stays there: the gradient of its logit is 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

import fastrnn

from .. import init
from .._activations import checked_activation, checked_clip, plain
from .._arrays import check_choice, check_flag, check_size
from .._structure import Structure
from ._base import Base
from ._config import Config
from ._recurrent import Recurrent

# Its sigmoid is exactly 1, that of its negative 0, in both dtypes; finite, so that weight decay
# does not make it NaN.
LOGIT_OF_ONE = 1000.0


def logit(alpha: Any, hidden_size: int) -> Tensor:
    """log(alpha / (1 - alpha)) [H] in float64, of a scalar or one value per unit in [0, 1]."""
    if isinstance(alpha, Tensor):
        alpha = alpha.detach().numpy()
    values = init.checked_alpha(alpha, hidden_size, np.dtype(np.float64))
    with np.errstate(divide="ignore"):
        logits = np.log(values) - np.log1p(-values)
    return torch.from_numpy(np.clip(logits, -LOGIT_OF_ONE, LOGIT_OF_ONE))


class Retention(Base):
    """What LeakyRNN and Leaky share: alpha in place of its logit, other conventions."""

    def _logits(self) -> list[Tensor]:
        return [getattr(self, name) for name in self._names if name.startswith("alpha_logit")]

    def _set_alpha(self, rows: list[Any]) -> None:
        logits = [logit(row, self.hidden_size) for row in rows]
        with torch.no_grad():
            for parameter, values in zip(self._logits(), logits, strict=True):
                parameter.copy_(values)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Takes alpha under fastrnn's names too: alpha_l0 for alpha_logit_l0."""
        state_dict = dict(state_dict)
        for name in self._names:
            plain = prefix + name.replace("alpha_logit", "alpha")
            if name.startswith("alpha_logit") and plain in state_dict:
                try:
                    values = logit(state_dict.pop(plain), self.hidden_size)
                    state_dict[prefix + name] = values.to(getattr(self, name).dtype)
                except (TypeError, ValueError) as error:
                    raise type(error)(f"{plain}: {error}") from None
        super()._load_from_state_dict(state_dict, prefix, *args)

    @classmethod
    def from_leak_rate(cls, *sizes: int, leak_rate: Any, **options: Any) -> Self:
        """From a leak rate in [0, 1], as reservoir computing has it: alpha = 1 - leak_rate."""
        return cls(*sizes, alpha=init.alpha_from_leak_rate(leak_rate), **options)

    @classmethod
    def from_tau(
        cls, *sizes: int, tau: Any, dt: Any = 1.0, method: str = "exact", **options: Any
    ) -> Self:
        """From a time constant and the step in the same unit; see `fastrnn.init.alpha_from_tau`."""
        return cls(*sizes, alpha=init.alpha_from_tau(tau, dt, method), **options)

    @classmethod
    def from_half_life(cls, *sizes: int, half_life: Any, **options: Any) -> Self:
        """From the steps in which half of the state is forgotten: alpha = 2^(-1/half_life)."""
        return cls(*sizes, alpha=init.alpha_from_half_life(half_life), **options)


class LeakyRNN(Retention, Recurrent):
    """A recurrent net of leaky units, each with a time scale that is learned.

        form "rate":       h_t = a * h_{t-1} + (1 - a) * f(W x_t + U h_{t-1} + b)
        form "potential":  u_t = a * u_{t-1} + (1 - a) * (W x_t + U f(u_{t-1}) + b),  h_t = f(u_t)

    with b = b_ih + b_hh and a = alpha = sigmoid(alpha_logit), the *retention* of each unit.

    Args:
        alpha: its first value, a scalar or one per unit, in [0, 1].
        nonlinearity: f, "tanh", "relu", "identity", or any other that `fastrnn.LeakyRNN` has.
        form: where the leak sits, "rate" or "potential". The state is h or u.
        clip: what goes into f is limited to [-clip, clip]; of the rate form only.
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device,
            dtype: as of LSTM.
        delays, periods, group_sizes, connectivity, recurrent_mask: as of LSTM.

    Parameters as of RNN, and alpha_logit [H] with their suffix; its `requires_grad_(False)` holds
    the time scales fixed. `load_state_dict` also takes alpha_l0, as it is called in fastrnn.

    Source: Goodfellow, Bengio and Courville (2016), section 10.9.2; Jaeger et al. (2007) for the
    rate form.

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> net = ft.LeakyRNN(1, 200, alpha=torch.linspace(0.5, 0.999, 200))
        >>> output, h = net(torch.ones(10, 1))
        >>> output.shape, net.alpha.shape
        (torch.Size([10, 200]), torch.Size([1, 200]))
    """

    _counterpart = fastrnn.LeakyRNN
    _defaults: ClassVar[dict[str, Any]] = {"nonlinearity": "tanh", "form": "rate", "clip": None}
    _common: ClassVar[tuple[str, ...]] = (*Recurrent._common, *_defaults, "recurrent_mask")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        alpha: Any = 0.9,
        nonlinearity: Any = "tanh",
        form: str = "rate",
        clip: float | None = None,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        delays: int | Iterable[int] = (1,),
        periods: Iterable[int] | None = None,
        group_sizes: Iterable[int] | None = None,
        connectivity: str = "slower",
        recurrent_mask: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_choice("form", form, ("rate", "potential"))
        if clip is not None and form == "potential":
            raise ValueError(f"clip: expected None with form='potential', got {clip!r}")
        super().__init__(
            f"leaky_{form}",
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
        self._set_alpha([alpha] * self._config.parts)

    @property
    def clip(self) -> float | None:
        """The limit of what goes into f."""
        return self._config.clip or None

    @property
    def nonlinearity(self) -> Any:
        """The activation f: its name, or with parameters of its own a tuple."""
        return plain(self._config.activation)

    @property
    def form(self) -> str:
        """Where the leak sits."""
        return self._config.cell.removeprefix("leaky_")

    @property
    def alpha(self) -> Tensor:
        """The retentions [L * D, H]. Set them to a scalar, one value per unit, or all of them."""
        return torch.sigmoid(torch.stack(self._logits()))

    @alpha.setter
    def alpha(self, value: Any) -> None:
        parts = self._config.parts
        whole = getattr(value, "shape", None) == (parts, self.hidden_size)
        self._set_alpha(list(value) if whole else [value] * parts)


class Leaky(Retention):
    """Leaky units without weights, a bank of running averages with time constants that are learned.

        mu_t = a * mu_{t-1} + (1 - a) * v_t,   a = alpha = sigmoid(alpha_logit)

    Args:
        hidden_size: H, units.
        alpha: its first value, a scalar or one per unit, in [0, 1].
        batch_first: v is [B, T, H] instead of [T, B, H].
        parallel: None, or "time" as of `fastrnn.Leaky`; for calls without gradients.
        device: "cpu".
        dtype: torch.float32 or torch.float64.

    Its one parameter is alpha_logit [H]; `load_state_dict` also takes alpha.

    Source: Goodfellow, Bengio and Courville (2016), section 10.9.2.

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> output, state = ft.Leaky(2, alpha=[0.5, 0.0])(torch.ones(3, 2))
        >>> output.tolist()
        [[0.5, 1.0], [0.75, 1.0], [0.875, 1.0]]
    """

    _counterpart = fastrnn.Leaky
    _common = ("hidden_size", "batch_first", "parallel")

    def __init__(
        self,
        hidden_size: int,
        *,
        alpha: Any = 0.9,
        batch_first: bool = False,
        parallel: str | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_size = self.hidden_size = check_size("hidden_size", hidden_size)
        self.batch_first = check_flag("batch_first", batch_first)
        self.parallel = check_choice("parallel", parallel, (None, "time"))
        self._set_config(Config("leaky", False, 1, False))
        self._make_parameters(device, dtype)
        self._set_alpha([alpha])

    @property
    def _parallel_time(self) -> bool:  # type: ignore[override]
        return self.parallel == "time"

    @property
    def alpha(self) -> Tensor:
        """The retentions [H]. Set them to a scalar or one value per unit."""
        return torch.sigmoid(self.alpha_logit)

    @alpha.setter
    def alpha(self, value: Any) -> None:
        self._set_alpha([value])

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        options = [str(self.hidden_size)]
        options += ["batch_first=True"] if self.batch_first else []
        options += [f"parallel={self.parallel!r}"] if self.parallel else []
        return ", ".join(options)
