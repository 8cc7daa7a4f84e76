"""Time structures of the float64 oracle: what a step reads of the past, and which units it changes.

A history [S, B, H] is what a state holds of h, u or c: the last S steps, the oldest first, so that
h_{t-d} is history[-d] before step t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from reference_options import Array

State = tuple[Array, ...]


@dataclass(frozen=True)
class Structure:
    """Of one layer in one direction; O outputs, which are H without a projection."""

    delays: tuple[int, ...] = (1,)
    periods: Any = None  # [H], that of each unit
    connected: Any = None  # booleans [H, O]: whether unit i reads output j

    @property
    def slots(self) -> tuple[int, int]:
        """Steps in the histories of h (or u) and of c."""
        return self.delays[-1], self.delays[0]

    def past(self, histories: Sequence[Array]) -> Array:
        """h_{t-d} for every delay d [K, B, O]."""
        return np.stack([histories[0][-d] for d in self.delays])

    def memory(self, histories: Sequence[Array]) -> State:
        """The state that the cell itself remembers."""
        return tuple(history[-self.delays[0]] for history in histories)

    def active(self, clock: Array) -> Any:
        """Which units a step changes, of clocks [B, 1]."""
        return True if self.periods is None else clock % self.periods == 0

    def masked(self, weight_hh: Any) -> Any:
        """Matrices [..., G * H, O] with 0 where nothing is connected."""
        if self.connected is None or weight_hh is None:
            return weight_hh
        gates = weight_hh.shape[-2] // len(self.connected)
        return np.where(np.tile(self.connected, (gates, 1)), weight_hh, 0.0)


def pushed(history: Array, new: Array) -> Array:
    """The history one step later."""
    return np.concatenate([history[1:], new[None]])


def pushed_backward(d_history: Array) -> tuple[Array, Array]:
    """d(history before) and d(new)."""
    return np.concatenate([np.zeros_like(d_history[:1]), d_history[:-1]]), d_history[-1]


def unit_periods(hidden_size: int, periods: Sequence[int], group_sizes: Any = None) -> Array:
    """[H], from the groups' [G]; without sizes the first groups have one unit more."""
    groups = np.array_split(np.arange(hidden_size), len(periods))
    sizes = [len(group) for group in groups] if group_sizes is None else group_sizes
    return np.repeat(periods, sizes)


def structures(
    hidden_size: int,
    num_layers: int,
    directions: int,
    delays: Sequence[int] = (1,),
    dilations: Sequence[int] | None = None,
    periods: Sequence[int] | None = None,
    group_sizes: Sequence[int] | None = None,
    connectivity: str = "slower",
    recurrent_mask: Any = None,
) -> list[Structure]:
    """Those of every layer and direction, from the arguments of a layer."""
    of_units: Any = None
    allowed: Any = None  # by the clocks
    if periods is not None:
        of_units = unit_periods(hidden_size, periods, group_sizes)
        if connectivity != "full":
            allowed = of_units >= of_units[:, None]
    found = []
    for part in range(num_layers * directions):
        connected = allowed
        if recurrent_mask is not None:
            mask = np.asarray(recurrent_mask)
            own = mask if mask.ndim == 2 else mask[part]
            connected = own if allowed is None else own & allowed
        steps = tuple(delays) if dilations is None else (dilations[part // directions],)
        found.append(Structure(steps, of_units, connected))
    return found
