"""Speed of an echo state network: its states, and a fit with predictions, beside reservoirpy; one
step of a stream.

The matrices are the same, as is the result, which is checked first. The fit stands beside the
product X^T X in float64 alone, which takes most of it in either library.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from fastrnn.bench.reservoir import SIZES, Size, end_to_end, network, peer, product, series

pytest.importorskip("reservoirpy")

ROUNDS = {"min_rounds": 3, "max_time": 0.5, "warmup": True, "warmup_iterations": 1}
each_size = pytest.mark.parametrize("size", SIZES, ids=str)


@pytest.mark.benchmark(group="reservoir, states", **ROUNDS)
@each_size
@pytest.mark.parametrize("engine", ["fastrnn", "reservoirpy"])
def test_states(benchmark: Any, engine: str, size: Size) -> None:
    """Time the states of 10000 steps."""
    net, (x, _) = network(*size), series()
    if engine == "fastrnn":
        x = x.astype(np.float32)
        states, _ = net.run(x[:1000])
        node, _ = peer(net)
        np.testing.assert_allclose(states, node.run(x[:1000].astype(float)), rtol=0, atol=1e-5)
        benchmark(partial(net.run, x))
    else:
        benchmark(partial(peer(net)[0].run, x))


@pytest.mark.benchmark(group="reservoir, fit and predict", **ROUNDS)
@each_size
@pytest.mark.parametrize("engine", ["fastrnn", "reservoirpy", "product"])
def test_fit_and_predict(benchmark: Any, engine: str, size: Size) -> None:
    """Time a fit to 10000 steps and the predictions of as many."""
    if engine == "product":
        benchmark(product(size[0]))
        return
    runs = end_to_end(network(*size))
    if engine == "fastrnn":
        found, expected = (run()[100:] for run in runs.values())
        assert np.sqrt(np.mean(np.square(found - expected))) < 1e-2
    benchmark(runs[engine])


@pytest.mark.benchmark(group="reservoir, one step", **ROUNDS)
@each_size
@pytest.mark.parametrize("engine", ["fastrnn", "reservoirpy"])
def test_step(benchmark: Any, engine: str, size: Size) -> None:
    """Time a step of a stream with its readout."""
    net, (x, y) = network(*size), series(2000)
    if engine == "fastrnn":
        stream, x_t = net.fit(x, y).stream(), np.ones(1, np.float32)
        benchmark(partial(stream.step, x_t, np.empty(1, np.float32)))
    else:
        _, model = peer(net)
        benchmark(partial(model.fit(x, y, warmup=100).step, np.ones(1)))
