"""Promises about gradients that have a number: accuracy of long sums, and memory."""

from __future__ import annotations

import tracemalloc
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from support import CELLS, Net
from witnesses import torch_gradients

# ---- Accuracy ---------------------------------------------------------------------------------


# Draws of weights and arrays, whose errors are taken together.
DRAWS = 3


@lru_cache
def errors(cell: str, mean: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Ours and PyTorch's in float32, as a part of the largest value: of 1000 steps of 100 rows."""
    ours: dict[str, list[np.ndarray]] = {}
    theirs: dict[str, list[np.ndarray]] = {}
    for seed in range(DRAWS):
        net = Net(cell, 8, 16, seed=seed)
        layer, rng = net.build(), net.rng()
        x, state = net.input(rng, 1000, 100), net.state(rng, 100)
        dy = net.output_gradient(rng, 1000, 100) + np.float32(mean)
        g = layer.backward(layer.forward_train(x, state)[2], dy)
        arguments = (net, layer, x, state, dy, net.zero_state(100))
        exact, peer = torch_gradients(*arguments), torch_gradients(*arguments, "float32")
        for name, expected in exact.params.items():
            scale = np.abs(expected).max()
            ours.setdefault(name, []).append((g.params[name] - expected) / scale)
            theirs.setdefault(name, []).append((peer.params[name] - expected) / scale)
    return {k: np.array(v) for k, v in ours.items()}, {k: np.array(v) for k, v in theirs.items()}


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
@pytest.mark.parametrize("mean", [0.0, 1.0], ids=["signs vary", "one sign"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_sums_over_100000_rows_are_not_less_accurate_than_torch(
    cell: str, mean: float, name: str
) -> None:
    ours, theirs = (found[name] for found in errors(cell, mean))
    assert np.abs(ours).max() <= np.abs(theirs).max()
    assert np.linalg.norm(ours) <= np.linalg.norm(theirs)


# ---- Memory -----------------------------------------------------------------------------------


def padded(hidden: int) -> int:
    """H rounded up to whole blocks of 16 units."""
    return -(-hidden // 16) * 16


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", [1, 16, 17, 100])
def test_tape_of_lstm_holds_five_values_per_unit_and_step(
    hidden: int, dtype: str, rng: np.random.Generator
) -> None:
    """Four gates and c, of H rounded up to a block, and 64 more for each step and row."""
    net = Net("lstm", 3, hidden, dtype=dtype)
    layer, x = net.build(), net.input(rng, 200, 3)
    _, _, tape = layer.forward_train(x)
    assert tape.nbytes <= (5 * padded(hidden) + 64) * x.itemsize * 200 * 3


def peak_of_training(layer: Any, x: np.ndarray, checkpoint: Any) -> int:
    """Peak bytes of a forward and a backward besides x, y and dy.

    dy is that of the last step, and of all with two directions: for the reverse one, the last step
    is the first, so that the other steps have to be there as zeros.
    """
    y = layer(x)[0]
    dy = np.ones_like(y if layer.bidirectional else y[-1])
    tracemalloc.start()
    try:
        _, _, tape = layer.forward_train(x, out=y, checkpoint=checkpoint)
        layer.backward(tape, dy, need_x=False)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Fourfold steps make twofold memory; segments are whole blocks of steps, which makes it a little
# more, and what does not grow makes it less.
GROWTH = 2.2


ROOT_NETS = [Net(cell, 4, 16) for cell in CELLS if cell != "leaky"]
ROOT_NETS += [Net("lstm", 4, 16, num_layers=2), Net("rnn", 4, 16, bidirectional=True)]


@pytest.mark.parametrize("net", ROOT_NETS, ids=str)
def test_memory_with_checkpoints_grows_like_the_root_of_the_steps(
    net: Net, rng: np.random.Generator
) -> None:
    """Peak and tape, of all nets but those of several layers of two directions."""
    layer = net.build()
    found = {}
    for steps in (250, 1000, 4000):
        x = net.input(rng, steps, 16)
        _, _, tape = layer.forward_train(x, checkpoint="auto")
        found[steps] = np.array([tape.nbytes, peak_of_training(layer, x, "auto")])
    assert (found[1000] <= GROWTH * found[250]).all(), found
    assert (found[4000] <= GROWTH * found[1000]).all(), found
    assert found[4000][1] <= peak_of_training(layer, x, None) / 4, found


def test_several_layers_of_two_directions_keep_what_is_between_them(
    rng: np.random.Generator,
) -> None:
    """The output of each layer but the last, which the one above needs as a whole."""
    net = Net("lstm", 4, 16, num_layers=3, bidirectional=True)
    layer, kept = net.build(), {}
    for steps in (250, 1000, 4000):
        x = net.input(rng, steps, 16)
        between = 2 * net.output_gradient(rng, steps, 16).nbytes
        kept[steps] = layer.forward_train(x, checkpoint="auto")[2].nbytes - between
    assert 0 < kept[1000] <= GROWTH * kept[250], kept
    assert 0 < kept[4000] <= GROWTH * kept[1000], kept


@pytest.mark.parametrize("cell", CELLS)
def test_tape_counts_what_it_holds(cell: str, rng: np.random.Generator) -> None:
    """nbytes is what a tape keeps allocated, besides x."""
    net = Net(cell, 16, 16)
    layer, x = net.build(), net.input(rng, 500, 4)
    y, _, _ = layer.forward_train(x)
    tracemalloc.start()
    try:
        _, final, tape = layer.forward_train(x, out=y)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    del final
    assert abs(kept - tape.nbytes) <= 16_384
