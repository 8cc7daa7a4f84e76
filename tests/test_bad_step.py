"""Bad input to a stream's step: it converts nothing, and after an error it is as it was before."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Net, at_offset, one_of_each, read_only, refuses, same_bits, spread, swapped

each_cell = pytest.mark.parametrize("net", one_of_each(), ids=str)

StepInput = Callable[[np.ndarray], Any]
UNFIT: dict[str, StepInput] = {
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "int32": lambda x: x.astype(np.int32),
    "complex64": lambda x: x.astype(np.complex64),
    "object": lambda x: x.astype(object),
    "big-endian": swapped,
    "list": np.ndarray.tolist,
    "None": lambda x: None,
    "str": lambda x: "x",
    "strided features": lambda x: spread(x, [1, 2]),
    "backwards": lambda x: spread(x, [1, -1]),
    "fortran": np.asfortranarray,
    "misaligned": lambda x: at_offset(x, 1),
    "a row more": lambda x: np.concatenate([x, x[:1]]),
    "a row less": lambda x: x[:-1].copy(),
    "a feature more": lambda x: np.pad(x, [(0, 0), (0, 1)]),
    "a feature less": lambda x: x[:, :-1].copy(),
    "an axis more": lambda x: x[None],
    "an axis less": lambda x: x[0],
    "flat": np.ravel,
    "scalar": lambda x: np.float32(1),
    "empty": lambda x: x[:0],
}


@each_cell
@pytest.mark.parametrize("kind", UNFIT)
def test_step_refuses_what_does_not_fit(net: Net, kind: str, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 3, 2)
    expected, _ = layer(x)
    stream = layer.stream(batch_size=2)
    stream.step(x[0])
    before, out = stream.state, np.zeros((2, 5), np.float32)
    unfit = UNFIT[kind](x[1])
    with refuses((TypeError, ValueError), "x"):
        stream.step(unfit)
    with refuses((TypeError, ValueError), "x"):
        stream.step(unfit, out=out)
    unfit_out = UNFIT[kind](out)
    if unfit_out is not None:  # which means a new array
        with refuses((TypeError, ValueError), "out"):
            stream.step(x[1], out=unfit_out)
    with refuses((TypeError, ValueError), "out"):
        stream.step(x[1], out=read_only(out))
    assert not out.any()
    assert same_bits(stream.state, before)
    assert same_bits(stream.step(x[1]), expected[1])
    assert same_bits(stream.step(x[2], out=out), expected[2])


@each_cell
def test_step_refuses_overlap(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 3, 2)
    expected, _ = layer(x)
    stream, step = layer.stream(batch_size=2), x[0].copy()
    long = np.concatenate([step, step])
    with refuses(ValueError, "out"):
        stream.step(step, out=step)
    with refuses(ValueError, "out"):
        stream.step(long[:2], out=long[1:3])
    assert same_bits(step, x[0])
    assert same_bits(stream.step(long[:2], out=long[2:]), expected[0])


@each_cell
def test_step_says_what_it_wanted(net: Net, rng: np.random.Generator) -> None:
    stream, x = net.build().stream(batch_size=2), net.input(rng, 1, 2)[0]
    with refuses(TypeError, "x", "float32", "float64"):
        stream.step(x.astype(np.float64))
    with refuses(ValueError, "x", (2, 5), (2, 4)):
        stream.step(x[:, :4].copy())
    with refuses(ValueError, "out", (2, 5), (3, 5)):
        stream.step(x, out=np.empty((3, 5), np.float32))


@each_cell
def test_step_on_slices_of_batch_first_arrays(net: Net, rng: np.random.Generator) -> None:
    """x[:, t] has contiguous features and spread rows: right or refused, but never wrong."""
    layer, x = net.build(), net.input(rng, 3, 2)
    expected, _ = layer(x)
    spread_x = np.ascontiguousarray(x.swapaxes(0, 1))
    stream = layer.stream(batch_size=2)
    for t in range(3):
        try:
            y = stream.step(spread_x[:, t])
        except ValueError as error:
            assert "x" in str(error)
            y = stream.step(x[t])
        assert same_bits(y, expected[t])


@each_cell
def test_step_takes_read_only_and_any_buffer(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 2, None)
    expected, _ = layer(x)
    stream = layer.stream()
    assert same_bits(stream.step(read_only(x[0])), expected[0])
    assert same_bits(stream.step(array.array("f", x[1].tolist())), expected[1])
