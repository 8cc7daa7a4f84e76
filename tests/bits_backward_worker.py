"""Prints, as JSON, the ISA in use and a hash of the gradients of each net of a fixed list.

test_backward_bits.py runs it once for each ISA and compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
from bits_worker import extreme, large_nets
from support import BATCHES, CELLS, STEPS, Net, draw_net, gradient_arrays, picker

import fastrnn

PER_CELL = 40


def configurations() -> Iterator[tuple[Net, int, int]]:
    for number, cell in enumerate(CELLS):
        pick = picker(np.random.default_rng(100 + number))
        for _ in range(PER_CELL):
            yield draw_net(pick, cell), pick(STEPS), pick(BATCHES)
    yield from large_nets("float32")
    yield from large_nets("float64")


def hash_of(net: Net, steps: int, batch: int) -> str:
    """Of all gradients, for ordinary and for extreme arrays. All NaNs count as one value."""
    rng = np.random.default_rng(net.seed)
    layer, state = net.build(), net.state(rng, batch)
    x, dy = net.input(rng, steps, batch), net.output_gradient(rng, steps, batch)
    dstate = net.state(rng, batch)
    last = np.ascontiguousarray(dy[:, -1] if net.batch_first else dy[-1])
    digest = hashlib.sha256()
    for x_values, dy_values in ((x, dy), (x, extreme(rng, dy)), (extreme(rng, x), last)):
        _, _, tape = layer.forward_train(x_values, state)
        g = layer.backward(tape, dy_values, dstate)
        for array in gradient_arrays(g).values():
            digest.update(np.where(np.isnan(array), np.nan, array).astype(net.dtype).tobytes())
    return digest.hexdigest()


def main() -> None:
    hashes = {repr(c): hash_of(*c) for c in configurations()}
    print(json.dumps({"isa": fastrnn.isa(), "hashes": hashes}))


if __name__ == "__main__":
    main()
