"""Speed of the gated leak beside copies of as many bytes, which is the limit, and a NumPy loop.

The forward reads two arrays and writes one, the backward reads four and writes two; both are
checked against the equation first. pytest-benchmark runs one after the other.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.bench.gated import SHAPE, arrays, copies, loop, loop_backward

ROUNDS = {"min_rounds": 5, "max_time": 0.2, "warmup": True, "warmup_iterations": 1}
FEW = slice(None), slice(3), slice(9)


@pytest.mark.benchmark(group="gated leak, forward", **ROUNDS)
@pytest.mark.parametrize("engine", ["fastrnn", "numpy", "copy"])
def test_forward(benchmark: Any, engine: str) -> None:
    """Time 2000 steps of 32 rows of 256 channels into an array."""
    if engine == "copy":
        benchmark(copies(3, SHAPE))
        return
    alpha, v = arrays(SHAPE)
    out = np.zeros_like(v)
    if engine == "numpy":
        benchmark(partial(loop, alpha, v, out))
        return
    y, _ = fastrnn.gated_leaky(alpha, v, out=out)
    a, x = (array[FEW].astype(np.float64) for array in (alpha, v))
    np.testing.assert_allclose(y[FEW], loop(a, x, np.empty_like(x)), rtol=0, atol=1e-5)
    benchmark(partial(fastrnn.gated_leaky, alpha, v, out=out))


@pytest.mark.benchmark(group="gated leak, backward", **ROUNDS)
@pytest.mark.parametrize("engine", ["fastrnn", "copy"])
def test_backward(benchmark: Any, engine: str) -> None:
    """Time the gradients; two arrays are allocated in each call."""
    if engine == "copy":
        benchmark(copies(6, SHAPE))
        return
    alpha, v = arrays(SHAPE)
    y, _ = fastrnn.gated_leaky(alpha, v)
    dalpha, dv, dstate = fastrnn.gated_leaky_backward(alpha, v, y, y)
    few = [array[FEW].astype(np.float64) for array in (alpha, v, y, y)]
    found = dalpha[FEW], dv[FEW], dstate[FEW[1:]]
    for array, expected in zip(found, loop_backward(*few), strict=True):
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-4)
    benchmark(partial(fastrnn.gated_leaky_backward, alpha, v, y, y))
