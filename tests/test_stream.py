"""Streams: step by step is the whole, whatever the batch, the buffers or the threads."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import numpy as np
import pytest
from support import (
    BATCHES,
    CELLS,
    DTYPES,
    STEPS,
    Net,
    draw_net,
    map_state,
    one_of_each,
    picker,
    refuses,
    same_bits,
    unpack,
)

# Steps per measurement of memory, and how many bytes may remain after all of them: less than one
# a step is noise of the measurement, as no object is that small.
MEMORY_STEPS = 1000
MEMORY_NOISE = MEMORY_STEPS // 2


def run_steps(stream: Any, x: np.ndarray) -> np.ndarray:
    return np.stack([stream.step(x_t) for x_t in x])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_steps_are_the_whole(cell: str, dtype: str, rng: np.random.Generator) -> None:
    pick = picker(rng)
    for _ in range(30):
        net = draw_net(pick, cell, dtype=dtype, bidirectional=False, batch_first=False)
        layer, steps, batch = net.build(), pick(STEPS), pick(BATCHES)
        x, state = net.input(rng, steps, batch), net.state(rng, batch)
        y, final = layer(x, state)
        stream = layer.stream(batch_size=batch)
        stream.state = state
        assert same_bits(stream.state, state), net
        assert same_bits(run_steps(stream, x), y), net
        assert same_bits(stream.state, final), net


@pytest.mark.parametrize("net", one_of_each(), ids=str)
def test_one_sequence_needs_no_batch_axis(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 6, None)
    y, _ = layer(x)
    assert same_bits(run_steps(layer.stream(), x), y)
    assert same_bits(run_steps(layer.stream(), x[:, None]), y[:, None])
    out = np.empty(net.output_size, net.dtype)
    assert layer.stream().step(x[0], out=out) is out
    assert same_bits(out, y[0])


@pytest.mark.parametrize("net", one_of_each(), ids=str)
def test_reset_and_state(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 6, 2)
    stream = layer.stream(batch_size=2)
    assert same_bits(stream.state, net.zero_state(2))

    first = run_steps(stream, x)
    stream.reset()
    assert same_bits(stream.state, net.zero_state(2))
    assert same_bits(run_steps(stream, x), first)

    stream.reset()
    run_steps(stream, x[:3])
    middle = stream.state
    rest = run_steps(stream, x[3:])
    assert same_bits(rest, first[3:])
    stream.state = middle
    assert same_bits(run_steps(stream, x[3:]), rest)
    other = layer.stream(batch_size=2)
    other.state = middle
    assert same_bits(run_steps(other, x[3:]), rest)


@pytest.mark.parametrize("net", one_of_each(), ids=str)
def test_state_is_a_copy_in_and_out(net: Net, rng: np.random.Generator) -> None:
    layer, state = net.build(), net.state(rng, 2)
    stream = layer.stream(batch_size=2)
    given = map_state(np.copy, state)
    stream.state = given
    for array in unpack(given) + unpack(stream.state):
        array.fill(99)
    assert same_bits(stream.state, state)


@pytest.mark.parametrize("net", one_of_each(), ids=str)
def test_out_is_used_and_returned(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 5, 3)
    y, _ = layer(x)
    stream, out = layer.stream(batch_size=3), np.full(y.shape[1:], np.nan, net.dtype)
    for x_t, y_t in zip(x, y, strict=True):
        assert stream.step(x_t, out=out) is out
        assert same_bits(out, y_t)
    into, stream = np.full_like(y, np.nan), layer.stream(batch_size=3)
    for x_t, into_t in zip(x, into, strict=True):
        stream.step(x_t, out=into_t)
    assert same_bits(into, y)


@pytest.mark.parametrize("net", one_of_each(), ids=str)
def test_results_are_new_arrays(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 2, 3)
    stream = layer.stream(batch_size=3)
    first = stream.step(x[0])
    kept = first.copy()
    second = stream.step(x[1])
    assert not np.shares_memory(first, second)
    assert same_bits(first, kept)


def test_streams_of_one_layer_are_independent(rng: np.random.Generator) -> None:
    net = Net("lstm", 5, 17, num_layers=2)
    layer = net.build()
    xs = [net.input(rng, 6, 1) for _ in range(3)]
    streams = [layer.stream() for _ in xs]
    ys: list[list[np.ndarray]] = [[] for _ in xs]
    for t in range(6):
        for stream, x, y in zip(streams, xs, ys, strict=True):
            y.append(stream.step(x[t]))
    for x, y in zip(xs, ys, strict=True):
        assert same_bits(np.stack(y), layer(x)[0])


def test_the_layer_may_run_between_steps(rng: np.random.Generator) -> None:
    for net in one_of_each():
        layer, x = net.build(), net.input(rng, 6, 2)
        y, _ = layer(x)
        stream = layer.stream(batch_size=2)
        for x_t, y_t in zip(x, y, strict=True):
            layer(net.input(rng, 9, 4))
            assert same_bits(stream.step(x_t), y_t)


@pytest.mark.parametrize("net", one_of_each(), ids=str)
def test_threads_share_a_layer(net: Net, rng: np.random.Generator) -> None:
    """Each with a stream of its own, while others call the layer itself."""
    layer = net.build()
    xs = [net.input(rng, 100, 2) for _ in range(8)]
    whole = [layer(x)[0] for x in xs]

    def work(number: int) -> np.ndarray:
        if number % 2:
            return layer(xs[number])[0]
        return run_steps(layer.stream(batch_size=2), xs[number])

    with ThreadPoolExecutor(4) as pool:
        for number, y in enumerate(pool.map(work, [*range(8)] * 3)):
            assert same_bits(y, whole[number % 8])


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "leaky"])
def test_bidirectional_is_refused(cell: str) -> None:
    layer = Net(cell, 5, 5, bidirectional=True).build()
    with refuses(ValueError, "bidirectional"):
        layer.stream()


@pytest.mark.parametrize("size", [-1, 1.5, "2", None, 2**70])
def test_batch_size_is_checked(size: Any) -> None:
    for net in one_of_each():
        with refuses((TypeError, ValueError), "batch_size"):
            net.build().stream(batch_size=size)


@pytest.mark.parametrize("net", one_of_each(), ids=str)
def test_state_is_checked(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 3, 2)
    stream = layer.stream(batch_size=2)
    stream.step(x[0])
    before = stream.state
    wrong = net.state_shape(3)
    for state in (
        map_state(lambda a: np.zeros(wrong, a.dtype), before),
        map_state(lambda a: a.astype(np.float64), before),
        map_state(lambda a: a.astype(np.complex64), before),
        unpack(before) * 2,
        "state",
    ):
        with refuses((TypeError, ValueError), "state"):
            stream.state = state
        assert same_bits(stream.state, before)
    assert same_bits(stream.step(x[1]), layer(x)[0][1])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("net", one_of_each(hidden_size=128, input_size=128), ids=str)
def test_step_allocates_nothing(net: Net, batch: int, rng: np.random.Generator) -> None:
    """Nothing remains, and no array as large as the output exists even for a moment."""
    stream = net.build().stream(batch_size=batch)
    x, out = net.input(rng, 1, batch)[0], np.empty((batch, 128), net.dtype)
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
