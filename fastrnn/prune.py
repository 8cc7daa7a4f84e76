"""Recurrent connections that are left out by their size, in blocks that the kernels skip."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _structure
from ._activations import finite
from ._arrays import Array, check_size, describe
from .layers import Recurrent


def prune(layer: Any, density: float, block: tuple[int, int] = (_structure.BLOCK, 1)) -> Any:
    """A layer of which only the largest recurrent weights are left, by blocks.

    Of the blocks (rows x columns of weight_hh, of all gates and delays together) of each layer and
    direction those with the largest norm are kept; they are the new layer's `recurrent_mask`. What
    is not kept is 0, is not trained, and where all of 16 rows are, neither stored nor multiplied.

    Args:
        layer: an LSTM, GRU, RNN, LeakyRNN or DilatedRNN; one with a mask or with clocks keeps its
            mask, and only blocks in which it has connections count.
        density: the part of the blocks that is kept, in (0, 1]: ceil(density * blocks). Of an RNN
            every unit goes on reading one, be it in more blocks.
        block: rows, which are units, and columns. The kernels' own is (16, 1).

    Returns:
        A new layer of the same kind.

    Raises:
        TypeError, ValueError: if an argument does not fit.

    Source: Narang et al. (2017), "Block-sparse recurrent neural networks", for blocks; Han et al.
    (2015) for their choice by size.

    Example:
        >>> from fastrnn import GRU
        >>> prune(GRU(3, 64, seed=0), 0.25)
        GRU(3, 64, recurrent_mask=25 %)
    """
    if not isinstance(layer, Recurrent) or layer._cell == "mingru":
        got = repr(layer) if isinstance(layer, Recurrent) else describe(layer)
        raise TypeError(f"layer: expected one with recurrent weights, got {got}")
    share = finite("density", density)
    if not 0 < share <= 1:
        raise ValueError(f"density: expected a number in (0, 1], got {density!r}")
    if not isinstance(block, (tuple, list)) or len(block) != 2:
        raise TypeError(f"block: expected a tuple (rows, columns), got {block!r}")
    rows, columns = (check_size("block", size) for size in block)
    masks = [_pruned(layer, part, share, rows, columns) for part in range(len(layer._parts()))]
    mask = np.array(masks)
    mask.flags.writeable = False
    return _structure.restructured(layer, recurrent_mask=mask)


def _pruned(layer: Recurrent, part: int, share: float, rows: int, columns: int) -> Array:
    """The mask of one part."""
    suffix = layer._parts()[part][1]
    names = ["weight_hh" + suffix + end for end in _structure.delay_ends(layer)]
    weights = np.concatenate([layer.parameters()[name] for name in names])
    gates = weights.reshape(-1, layer.hidden_size, weights.shape[1]).astype(np.float64)
    energy = _over_blocks(np.add, np.square(gates).sum(axis=0), rows, columns)
    everything = np.ones(gates.shape[1:], bool)
    allowed = everything if layer._connections is None else layer._connections[part]
    candidates = _over_blocks(np.logical_or, allowed, rows, columns)
    # the largest first, and those without a connection last
    order = np.argsort(np.where(candidates, -energy, np.inf), axis=None, kind="stable")
    count = math.ceil(share * np.count_nonzero(candidates))
    mask = everything if layer.recurrent_mask is None else layer.recurrent_mask[part]
    kept = np.zeros(candidates.size, bool)
    if layer._cell == "rnn":
        kept[_covering(order, mask, rows, columns, candidates.shape[1])] = True
    rest = order[: np.count_nonzero(candidates)]
    rest = rest[~kept[rest]]
    kept[rest[: max(0, count - np.count_nonzero(kept))]] = True
    blocks = kept.reshape(candidates.shape)
    return mask & blocks.repeat(rows, 0)[: len(mask)].repeat(columns, 1)[:, : mask.shape[1]]


def _over_blocks(reduce: np.ufunc, array: Array, rows: int, columns: int) -> Array:
    """The sum (or whatever `reduce` does) of each block; those at the edges may be smaller."""
    array = reduce.reduceat(array, np.arange(0, array.shape[0], rows), axis=0)
    return reduce.reduceat(array, np.arange(0, array.shape[1], columns), axis=1)


def _covering(order: Array, mask: Array, rows: int, columns: int, across: int) -> list[int]:
    """The first blocks in this order by which each row of the mask keeps a connection."""
    silent, found = np.ones(len(mask), bool), []
    for block in order.tolist():
        down, right = block // across * rows, block % across * columns
        reads = mask[down : down + rows, right : right + columns].any(axis=1)
        if (silent[down : down + rows] & reads).any():
            silent[down : down + rows] &= ~reads
            found.append(block)
            if not silent.any():
                break
    return found
