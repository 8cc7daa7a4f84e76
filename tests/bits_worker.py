"""Prints, as JSON, the ISA in use and a hash of the outputs of each net of a fixed list.

test_bits.py runs it once for each ISA and compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from support import BATCHES, CELLS, STEPS, Net, draw_net, picker, unpack

import fastrnn

PER_CELL = 80

# Sizes beyond one block of the kernels: many inputs, units, steps, rows.
LARGE = ((700, 5, 3, 9), (3, 300, 3, 5), (2, 17, 900, 3), (9, 33, 4, 70), (31, 130, 2, 7))


def large_nets(dtype: str, **options: Any) -> Iterator[tuple[Net, int, int]]:
    """Nets of each cell with LARGE sizes, and their steps and batch."""
    for cell in CELLS:
        for inputs, hidden, steps, batch in LARGE:
            net = Net(cell, hidden if cell == "leaky" else inputs, hidden, dtype=dtype, **options)
            yield net, steps, batch


def configurations() -> Iterator[tuple[Net, int, int]]:
    for number, cell in enumerate(CELLS):
        pick = picker(np.random.default_rng(number))
        for _ in range(PER_CELL):
            yield draw_net(pick, cell), pick(STEPS), pick(BATCHES)
    yield from large_nets("float32")
    yield from large_nets("float64")


def extreme(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """x with some of its elements from the whole range of the type, infinities and NaN included."""
    info = np.finfo(x.dtype)
    exponents = rng.uniform(np.log2(info.smallest_subnormal), np.log2(info.max), x.shape)
    wild = (np.sign(x) * np.exp2(exponents)).astype(x.dtype)
    wild[rng.random(x.shape) < 0.02] = np.inf
    wild[rng.random(x.shape) < 0.02] = np.nan
    return np.where(rng.random(x.shape) < 0.2, wild, x)


def hash_of(net: Net, steps: int, batch: int) -> str:
    """Of y and final state, for ordinary and for extreme input. All NaNs count as one value."""
    rng = np.random.default_rng(net.seed)
    layer, state = net.build(), net.state(rng, batch)
    x = net.input(rng, steps, batch)
    digest = hashlib.sha256()
    for values in (x, extreme(rng, x)):
        y, final = layer(values, state)
        for array in (y, *unpack(final)):
            digest.update(np.where(np.isnan(array), np.nan, array).astype(net.dtype).tobytes())
    return digest.hexdigest()


def main() -> None:
    hashes = {repr(c): hash_of(*c) for c in configurations()}
    print(json.dumps({"isa": fastrnn.isa(), "hashes": hashes}))


if __name__ == "__main__":
    main()
