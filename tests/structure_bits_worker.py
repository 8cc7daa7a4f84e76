"""Prints, as JSON, the ISA in use and a hash of what each net of a fixed list gives.

Nets with time structures; outputs, states and gradients, of ordinary and of extreme arrays.
test_time_structure_bits.py runs it once for each ISA and compares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
from bits_worker import extreme
from structured import CASES, draw_structured
from support import BATCHES, STEPS, Net, gradient_arrays, picker, unpack

import fastrnn

PER_CASE = 6

DENSE = ("random", 1.0, False)

# Sizes beyond one block of the kernels, and several blocks of sums over steps and rows.
LARGE = (
    (Net("lstm", 40, 100, delays=(2, 5)), 6, 5),
    (Net("gru", 3, 200, delays=(1, 2, 4, 8)), 9, 3),
    (Net("rnn", 9, 33, delays=(4,)), 300, 3),
    (Net("rnn", 5, 130, periods=(8, 1, 2, 4), dtype="float64"), 30, 5),
    (Net("leaky_rate", 5, 200, recurrent_mask=("blocks", 0.2, False)), 9, 9),
    (Net("gru", 5, 150, recurrent_mask=("random", 0.05, False), dtype="float64"), 7, 3),
    (Net("gru_reset_before", 5, 200, delays=(1, 3), recurrent_mask=("random", 0.02, False)), 9, 5),
    (Net("lstm", 5, 260, recurrent_mask=("random", 0.02, False)), 9, 1),
    (Net("leaky_potential", 1, 1000, recurrent_mask=("random", 0.01, False)), 9, 3),
    (Net("lstm", 3, 20, periods=(1, 3), connectivity="full"), 20, 70),
    (Net("lstm", 3, 20, 2, periods=(2, 3, 1), recurrent_mask=("random", 0.5, False)), 30, 40),
    (Net("rnn", 2, 9, 1, True, delays=(4,), recurrent_mask=DENSE), 20, 40),
    (Net("gru_reset_before", 2, 9, delays=(2, 5), recurrent_mask=DENSE), 20, 40),
    (Net("lstm", 2, 9, delays=(1, 3), proj_size=3), 20, 140),
    (Net("leaky_potential", 2, 9, recurrent_mask=DENSE), 200, 9),
    (Net("rnn", 2, 5, recurrent_mask=DENSE), 5, 140),
    (Net("mingru", 2, 9, delays=(7,)), 30, 40),
)


def configurations() -> Iterator[tuple[Net, int, int]]:
    for number, case in enumerate(CASES):
        pick = picker(np.random.default_rng(number))
        cell, kind = case
        for _ in range(PER_CASE):
            yield draw_structured(pick, kind, cell), pick((*STEPS, 21)), pick(BATCHES)
    yield from LARGE


def hash_of(net: Net, steps: int, batch: int) -> str:
    """All NaNs count as one value."""
    rng = np.random.default_rng(net.seed)
    layer, state, dstate = net.build(), net.state(rng, batch), net.state_gradient(rng, batch)
    x, dy = net.input(rng, steps, batch), net.output_gradient(rng, steps, batch)
    digest = hashlib.sha256()
    for values in (x, extreme(rng, x)):
        y, final, tape = layer.forward_train(values, state)
        g = layer.backward(tape, dy, dstate)
        for array in (y, *unpack(final)[: net.states], *gradient_arrays(g).values()):
            digest.update(np.where(np.isnan(array), np.nan, array).astype(net.dtype).tobytes())
    return digest.hexdigest()


def main() -> None:
    hashes = {repr(c): hash_of(*c) for c in configurations()}
    print(json.dumps({"isa": fastrnn.isa(), "hashes": hashes}))


if __name__ == "__main__":
    main()
