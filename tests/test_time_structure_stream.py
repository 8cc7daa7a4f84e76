"""Streams of layers with time structures: independent of each other, and in any thread."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import numpy as np
import pytest
from support import Net, map_state, refuses, same_bits, unpack

# As in test_stream.py.
MEMORY_STEPS = 1000
MEMORY_NOISE = MEMORY_STEPS // 2

STREAMED = [
    Net(cell, 128, 128, **options)
    for cell in ("lstm", "gru", "rnn", "leaky_potential")
    for options in (
        {"delays": (3,)},
        {"delays": (1, 2, 5)},
        {"periods": (1, 2, 4), "group_sizes": (50, 38, 40)},
        {"recurrent_mask": ("blocks", 0.2, False)},
        {"dilations": (1, 3), "num_layers": 2},
    )
]

each_net = pytest.mark.parametrize("net", STREAMED, ids=lambda net: f"{net}-{net.delays}")


def run_steps(stream: Any, x: np.ndarray) -> np.ndarray:
    return np.stack([stream.step(x_t) for x_t in x])


@pytest.mark.parametrize("batch", [1, 3])
@each_net
def test_step_allocates_nothing(net: Net, batch: int, rng: np.random.Generator) -> None:
    """Nothing remains, and no array as large as the output exists even for a moment."""
    stream = net.build().stream(batch_size=batch)
    x, out = net.input(rng, 1, batch)[0], np.empty((batch, net.output_size), net.dtype)
    stream.step(x, out=out)
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for _ in repeat(None, MEMORY_STEPS):
            stream.step(x, out=out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < MEMORY_NOISE
    assert peak - before < out.nbytes


@each_net
def test_streams_and_threads_share_a_layer(net: Net, rng: np.random.Generator) -> None:
    """Streams step by step in turn, and in threads, while others call the layer itself."""
    layer = net.build()
    xs = [net.input(rng, 12, 2) for _ in range(6)]
    whole = [layer(x)[0] for x in xs]
    streams = [layer.stream(batch_size=2) for _ in xs]
    for t in range(12):
        for stream, x, y in zip(streams, xs, whole, strict=True):
            assert same_bits(stream.step(x[t]), y[t])

    def work(number: int) -> np.ndarray:
        if number % 2:
            return layer(xs[number])[0]
        return run_steps(layer.stream(batch_size=2), xs[number])

    with ThreadPoolExecutor(4) as pool:
        for number, y in enumerate(pool.map(work, [*range(6)] * 3)):
            assert same_bits(y, whole[number % 6])


@each_net
def test_reset_and_state(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 7, 2)
    stream = layer.stream(batch_size=2)
    zero = stream.state
    assert same_bits(zero, net.zero_state(2))
    first = run_steps(stream, x)
    stream.reset()
    assert same_bits(stream.state, zero)
    assert same_bits(run_steps(stream, x), first)
    stream.state = None
    run_steps(stream, x[:3])
    middle = stream.state
    given = map_state(np.copy, middle)
    assert same_bits(run_steps(stream, x[3:]), first[3:])
    other = layer.stream(batch_size=2)
    other.state = given
    for array in unpack(given):
        array.fill(9)
    assert same_bits(other.state, middle)
    assert same_bits(run_steps(other, x[3:]), first[3:])


@each_net
def test_one_sequence_needs_no_batch_axis(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 6, None)
    y, _ = layer(x)
    assert same_bits(run_steps(layer.stream(), x), y)
    out = np.empty((6, net.output_size), net.dtype)
    stream = layer.stream()
    for x_t, out_t in zip(x, out, strict=True):
        assert stream.step(x_t, out=out_t) is out_t
    assert same_bits(out, y)


@each_net
def test_a_wrong_state_changes_nothing(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 3, 2)
    stream = layer.stream(batch_size=2)
    stream.step(x[0])
    before = stream.state
    wrong = [map_state(lambda a: a[..., :1], before), unpack(before) * 2, "state"]
    wrong += [map_state(lambda a: np.concatenate([a, a]), before)]
    if net.periods is not None:
        h = unpack(before)[: net.states]
        wrong += [(*h, np.array([-1, 0])), (*h, np.array([0.5, 0.0])), (*h, np.zeros(3, int))]
    for state in wrong:
        with refuses((TypeError, ValueError), "state"):
            stream.state = state
        assert same_bits(stream.state, before)
    assert same_bits(stream.step(x[1]), layer(x)[0][1])
