"""Speed of the gated leak beside copies of as many bytes, which is the limit, and a NumPy loop.

The forward reads two arrays and writes one, the backward reads four and writes two; both are
checked against the equation first. pytest-benchmark runs one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import fastrnn

STEPS, BATCH, CHANNELS = 2000, 32, 256
ROUNDS = {"min_rounds": 5, "max_time": 0.2, "warmup": True, "warmup_iterations": 1}


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """alpha and v."""
    rng = np.random.default_rng(0)
    shape = (STEPS, BATCH, CHANNELS)
    return rng.random(shape, np.float32), rng.standard_normal(shape, np.float32)


def loop(alpha: np.ndarray, v: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The equation, step by step."""
    y = np.zeros_like(v[0])
    for a, x, into in zip(alpha, v, out, strict=True):
        y = np.add(a * y, (1 - a) * x, out=into)
    return out


def copies(count: int) -> Callable[[], Any]:
    """A copy that moves as many bytes as lie in that many of the arrays."""
    source = np.ones(count * STEPS * BATCH * CHANNELS // 2, np.float32)
    return partial(np.copyto, np.zeros_like(source), source)


@pytest.mark.benchmark(group="gated leak, forward", **ROUNDS)
@pytest.mark.parametrize("engine", ["fastrnn", "numpy", "copy"])
def test_forward(benchmark: Any, engine: str) -> None:
    """Time 2000 steps of 32 rows of 256 channels into an array."""
    if engine == "copy":
        benchmark(copies(3))
        return
    alpha, v = arrays()
    out = np.zeros_like(v)
    if engine == "numpy":
        benchmark(partial(loop, alpha, v, out))
        return
    y, _ = fastrnn.gated_leaky(alpha, v, out=out)
    few = slice(None), slice(3), slice(9)
    expected = loop(
        alpha[few].astype(np.float64), v[few].astype(np.float64), np.empty(y[few].shape)
    )
    np.testing.assert_allclose(y[few], expected, rtol=0, atol=1e-5)
    benchmark(partial(fastrnn.gated_leaky, alpha, v, out=out))


@pytest.mark.benchmark(group="gated leak, backward", **ROUNDS)
@pytest.mark.parametrize("engine", ["fastrnn", "copy"])
def test_backward(benchmark: Any, engine: str) -> None:
    """Time the gradients; two arrays are allocated in each call."""
    if engine == "copy":
        benchmark(copies(6))
        return
    alpha, v = arrays()
    y, _ = fastrnn.gated_leaky(alpha, v)
    _, dv, dstate = fastrnn.gated_leaky_backward(alpha, v, y, y)
    g = np.zeros_like(v[0], np.float64)
    for t in reversed(range(STEPS)):
        g += y[t]
        np.testing.assert_allclose(dv[t], (1 - alpha[t]) * g, rtol=0, atol=1e-4)
        g *= alpha[t]
    np.testing.assert_allclose(dstate, g, rtol=0, atol=1e-4)
    benchmark(partial(fastrnn.gated_leaky_backward, alpha, v, y, y))
