"""Layers that look back the farther, the higher they stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

import fastrnn

from .._arrays import check_choice
from .._structure import checked_dilations
from ._recurrent import Recurrent
from .leaky import LeakyRNN
from .modules import GRU, LSTM, RNN, MinGRU

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

    Args:
        cell: "lstm", "gru", "rnn", "mingru" or "leaky", for the layers of LSTM, GRU, RNN, MinGRU
            and LeakyRNN.
        input_size: I, features of the input.
        hidden_size: H, units of each layer.
        dilations: 1 to 16 integers, the delay of each layer in steps. In the paper they double.
        options: those of the cell's module but num_layers, delays, periods, group_sizes,
            connectivity and proj_size.

    Parameters, calls and all else as of a module of the cell with `num_layers=len(dilations)`. In
    the state layer l has dilations[l] steps for each direction, the oldest first: h (and c of an
    LSTM) is [D * sum(dilations), B, H]. `delays` are the dilations.

    Source: Chang et al. (2017), "Dilated recurrent neural networks".

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> net = ft.DilatedRNN("gru", 3, 8, dilations=(1, 2, 4))
        >>> output, h = net(torch.ones(9, 3))
        >>> output.shape, h.shape
        (torch.Size([9, 8]), torch.Size([7, 8]))
    """

    _counterpart = fastrnn.DilatedRNN

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
        delays = checked_dilations(dilations)
        self._dilated = True
        kind: Any = CELLS[self.cell]
        kind.__init__(
            self._as_cell(), input_size, hidden_size, len(delays), delays=delays, **options
        )

    def _as_cell(self) -> Any:
        """This module as one of the cell's class: with the same attributes, not copies of them."""
        module = object.__new__(CELLS[self.cell])
        module.__dict__ = self.__dict__
        return module

    def __getattr__(self, name: str) -> Any:
        """Also the properties of the cell's class, such as nonlinearity."""
        kind = CELLS.get(self.__dict__.get("cell", ""))
        if isinstance(getattr(kind, name, None), property):
            return getattr(self._as_cell(), name)
        return super().__getattr__(name)

    @property
    def dilations(self) -> tuple[int, ...]:
        """The delay of each layer, in steps."""
        return self.delays

    @property
    def alpha(self) -> Tensor:
        """Of leaky units the retentions, as of LeakyRNN."""
        return self._as_cell().alpha

    @alpha.setter
    def alpha(self, value: Any) -> None:
        self._as_cell().alpha = value

    def _load_from_state_dict(self, *args: Any) -> None:
        self._as_cell()._load_from_state_dict(*args)

    @classmethod
    def _shared(cls, source: Any) -> tuple[str, ...]:
        own = [name for name in CELLS[source.cell]._common if name not in _REFUSED]
        return ("cell", "dilations", *own)

    def _options(self) -> list[str]:
        return [f"dilations={self.dilations}", *self._as_cell()._options()]

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        return f"{self.cell!r}, {super().extra_repr()}"
