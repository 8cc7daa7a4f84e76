"""Layers that look back the farther, the higher they stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import _structure
from ._arrays import Array, check_choice
from .gated import GRU, LSTM, MinGRU
from .layers import RNN, LeakyRNN, Recurrent

CELLS: dict[str, type[Recurrent]] = {
    "lstm": LSTM,
    "gru": GRU,
    "rnn": RNN,
    "mingru": MinGRU,
    "leaky": LeakyRNN,
}
# What the dilations stand for, or do not go together with.
_REFUSED = ("num_layers", "delays", "periods", "group_sizes", "connectivity", "proj_size")


class DilatedRNN(Recurrent):
    """Stacked layers with one delay each: layer l reads h_{t - dilations[l]} for h_{t-1}.

    Lower layers see what is near, upper ones what is far, and a path over many steps passes few
    units. A layer of dilation d is d nets of the same weights, each over every d-th step.

    Args:
        cell: "lstm", "gru", "rnn", "mingru" or "leaky", for the layers LSTM, GRU, RNN, MinGRU and
            LeakyRNN.
        input_size: I, features of x.
        hidden_size: H, units of each layer.
        dilations: 1 to 16 integers, the delay of each layer in steps. In the paper they double.
        options: those of the cell's layer but num_layers, delays, periods, group_sizes,
            connectivity and proj_size.

    Parameters, calls and all else as of a layer of the cell with `num_layers=len(dilations)`. In
    the state layer l has dilations[l] steps for each direction, the oldest first: h (and c of an
    LSTM) is [D * sum(dilations), B, H]. `delays` are the dilations.

    Source: Chang et al. (2017), "Dilated recurrent neural networks".

    Example:
        >>> net = DilatedRNN("gru", 3, 8, dilations=(1, 2, 4), seed=0)
        >>> net
        DilatedRNN('gru', 3, 8, dilations=(1, 2, 4))
        >>> sorted(net.parameters())[:3]
        ['bias_hh_l0', 'bias_hh_l1', 'bias_hh_l2']
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        dilations: Iterable[int] = (1, 2, 4, 8),
        **options: Any,
    ) -> None:
        self.cell = check_choice("cell", cell, tuple(CELLS))
        for name in _REFUSED:
            if name in options:
                raise TypeError(f"{name}: not an option of DilatedRNN")
        delays = _structure.checked_dilations(dilations)
        self._dilated = True
        kind: Any = CELLS[self.cell]
        kind.__init__(
            self._as_cell(), input_size, hidden_size, len(delays), delays=delays, **options
        )

    def _as_cell(self) -> Recurrent:
        """This layer as one of the cell's class: with the same attributes, not copies of them."""
        layer = object.__new__(CELLS[self.cell])
        layer.__dict__ = self.__dict__
        return layer

    def __getattr__(self, name: str) -> Array:
        """Also the properties of the cell's class, such as nonlinearity."""
        kind = CELLS.get(self.__dict__.get("cell", ""))
        if isinstance(getattr(kind, name, None), property):
            return getattr(self._as_cell(), name)
        return super().__getattr__(name)

    @property
    def dilations(self) -> tuple[float, ...]:
        """The delay of each layer, in steps."""
        return self.delays

    @property
    def _cell(self) -> str:  # type: ignore[override]
        return self._as_cell()._cell

    @property
    def _states(self) -> int:  # type: ignore[override]
        return self._as_cell()._states

    @property
    def _gates(self) -> int:  # type: ignore[override]
        return self._as_cell()._gates

    def _options(self) -> list[str]:
        return [f"dilations={self.dilations}", *self._as_cell()._options()]

    def __repr__(self) -> str:
        arguments = [repr(self.cell), str(self.input_size), str(self.hidden_size)]
        return f"DilatedRNN({', '.join(arguments + self._options())})"
