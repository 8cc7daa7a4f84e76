"""Helpers of the tests of time structures: a layer of every kind, and what they have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import map_state, same_bits

from fastrnn import GRU, LSTM, RNN, DilatedRNN, LeakyRNN, MinGRU

IN, H = 3, 6


def mask_of(*shape: int, seed: int = 0) -> Any:
    """A third of the connections, and one for every unit."""
    mask = np.random.default_rng(seed).random(shape) < 0.3
    mask[..., 0] = True
    return mask


EVERY_MASK = mask_of(4, H, H)

# Layers of every structure, with all else that a call has to do with.
VARIANTS: dict[str, Any] = {
    "delay": lambda: LSTM(IN, H, delays=3, seed=0),
    "delays": lambda: LSTM(IN, H, 2, delays=(1, 4), bidirectional=True, peephole=True, seed=0),
    "projection": lambda: LSTM(IN, H, 2, delays=(2, 5), proj_size=4, seed=0),
    "reset before": lambda: GRU(IN, H, reset_after=False, delays=(1, 3, 4), seed=0),
    "backwards": lambda: GRU(IN, H, 2, delays=(2, 3), go_backwards=True, seed=0),
    "mingru": lambda: MinGRU(IN, H, 2, delays=2, bidirectional=True, seed=0),
    "potential": lambda: LeakyRNN(IN, H, form="potential", delays=(2, 3), seed=0),
    "float64": lambda: RNN(IN, H, 2, delays=(1, 2), dtype="float64", batch_first=True, seed=0),
    "clocks": lambda: LSTM(IN, H, 2, periods=(1, 2, 3), bidirectional=True, seed=0),
    "full": lambda: GRU(
        IN, H, periods=(4, 1), group_sizes=(2, 4), connectivity="full", go_backwards=True, seed=0
    ),
    "clocked rate": lambda: LeakyRNN(
        IN, H, 2, periods=(1, 3), recurrent_mask=mask_of(H, H), seed=0
    ),
    "clocked potential": lambda: LeakyRNN(IN, H, periods=(3, 1), form="potential", seed=0),
    "clocked mingru": lambda: MinGRU(IN, H, periods=(2, 1), seed=0),
    "mask": lambda: LSTM(IN, H, proj_size=4, recurrent_mask=mask_of(H, 4), seed=0),
    "masks": lambda: RNN(IN, H, 2, bidirectional=True, recurrent_mask=EVERY_MASK, seed=0),
    "masked delays": lambda: GRU(IN, H, delays=(1, 3), recurrent_mask=mask_of(H, H), seed=0),
    "dilated": lambda: DilatedRNN("lstm", IN, H, (1, 2, 3), bidirectional=True, seed=0),
    "dilated rate": lambda: DilatedRNN("leaky", IN, H, (3, 1), alpha=0.5, seed=0),
    "dilated mingru": lambda: DilatedRNN("mingru", IN, H, (2, 2), chrono=(2, 9), seed=0),
    "dilated mask": lambda: DilatedRNN("rnn", IN, H, (2, 4), recurrent_mask=mask_of(H, H), seed=0),
}
each_variant = pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)


def inputs(layer: Any, steps: int = 7, rows: int = 2) -> Any:
    x = np.random.default_rng(1).standard_normal((steps, rows, IN)).astype(layer.dtype)
    return x.swapaxes(0, 1) if layer.batch_first else x


def random_state(layer: Any, rows: int = 2) -> Any:
    """One of the form of a call's, with clocks that differ."""
    rng = np.random.default_rng(2)
    final = layer(inputs(layer, 1, rows))[1]

    def drawn(array: Any) -> Any:
        integers = array.dtype.kind == "i"
        values = rng.integers(0, 9, array.shape) if integers else rng.uniform(-1, 1, array.shape)
        return values.astype(array.dtype)

    return map_state(drawn, final)


def same_layer(a: Any, b: Any) -> bool:
    names = ("delays", "periods", "group_sizes", "connectivity")
    x, state = inputs(a), random_state(a)
    return (
        type(a) is type(b)
        and repr(a) == repr(b)
        and all(getattr(a, name) == getattr(b, name) for name in names)
        and np.array_equal(a.recurrent_mask, b.recurrent_mask)
        and list(a.parameters()) == list(b.parameters())
        and all(same_bits(v, b.parameters()[k]) for k, v in a.parameters().items())
        and same_bits(a(x, state), b(x, state))
    )
