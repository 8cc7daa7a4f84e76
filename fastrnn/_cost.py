"""Multiply-adds of a step, which a time structure makes fewer: what `Recurrent.step_cost` gives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._structure import BLOCK, mask_entries

if TYPE_CHECKING:
    from .layers import Recurrent

# Of clocks that agree only after more steps than this, so many are counted.
MOST_STEPS = 10000


class StepCost(NamedTuple):
    """Multiply-adds of the matrix products of one step of one sequence.

    Attributes:
        mean: over many steps.
        worst: of the step that takes the most: with clocks the first one, when all groups are
            active and no sums are kept yet. What a real-time program has to wait for.
        dense: of the same layer without its time structure.

    Example:
        >>> from fastrnn import RNN
        >>> RNN(1, 512, periods=[1, 2, 4, 8, 16, 32, 64, 128]).step_cost()
        StepCost(mean=16191.5, worst=147968, dense=262656)
    """

    mean: float
    worst: int
    dense: int


def step_cost(layer: Recurrent) -> StepCost:
    """See `Recurrent.step_cost`."""
    mean, worst, dense = 0.0, 0, 0
    for part, (number, suffix) in enumerate(layer._parts()):
        inputs = layer.input_size if number == 0 else layer._output_size
        rows, outputs = layer._gates * layer.hidden_size, layer.proj_size or layer.hidden_size
        projection = layer.proj_size * layer.hidden_size
        recurrent = rows * outputs if "weight_hh" + suffix in layer._parameters else 0
        dense += rows * inputs + recurrent + projection
        if layer.periods is not None:
            averages, most = _clocked(layer, inputs, recurrent > 0)
            mean, worst = mean + averages, worst + most
            continue
        delays = 1 if layer._dilated else len(layer.delays)
        if layer.recurrent_mask is not None:
            recurrent = layer._gates * BLOCK * mask_entries(layer.recurrent_mask[part])
        mean += rows * inputs + delays * recurrent + projection
        worst += rows * inputs + delays * recurrent + projection
    return StepCost(mean, worst, dense)


def _clocked(layer: Recurrent, inputs: int, recurrent: bool) -> tuple[float, int]:
    """Mean and most of a part with clocks: a group that is active multiplies its inputs, and the
    outputs of what it reads from the slowest group on that was active since it was itself."""
    assert layer.periods is not None and layer.group_sizes is not None
    groups = sorted(zip(layer.periods, layer.group_sizes, strict=True), key=lambda g: -g[0])
    last = [-1] * len(groups)  # the step at which each was active
    costs = []
    steps = min(math.lcm(*layer.periods), MOST_STEPS)
    for step in range(2 * steps):
        cost = 0
        active = [i for i, (period, _) in enumerate(groups) if step % period == 0]
        for i in active:
            period, size = groups[i]
            read = inputs
            if recurrent:
                full = layer.connectivity == "full"
                sources = [j for j, (p, _) in enumerate(groups) if full or p >= period]
                changed = [j for j in sources if step == 0 or last[j] >= last[i]]
                read += sum(groups[j][1] for j in sources if j >= min(changed))
            cost += layer._gates * size * read
        for i in active:
            last[i] = step
        costs.append(cost)
    return float(np.mean(costs[steps:])), max(costs)
