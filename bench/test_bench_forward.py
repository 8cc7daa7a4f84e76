"""Speed of a forward, and of one step of a stream; each checked against NumPy first.

pytest-benchmark runs one engine after the other. For ratios on a machine that is not quiet use
``fastrnn bench``, which interleaves them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.bench import TOLERANCE
from fastrnn.bench.cases import FORWARD, Case
from fastrnn.bench.engines import COPY, ENGINES, case_of, first_results
from fastrnn.bench.peers import onnx_model, onnxruntime_session
from fastrnn.bench.reference import difference, reference
from fastrnn.bench.shapes import Shape

MODE = FORWARD
QUICK = {"min_rounds": 3, "max_time": 0.1, "warmup": True, "warmup_iterations": 10}

STEP = Case("lstm", Shape(32, 32, 1, 1))


@pytest.mark.benchmark(**QUICK)
def test_forward(benchmark: Any, case: Case, engine: str) -> None:
    """Time a forward of a whole sequence."""
    real = case_of(engine, case)
    call = ENGINES[engine].prepare(real, 1)
    if engine != COPY:
        off = difference(first_results(real, call), reference(real))
        assert max(off.values()) <= TOLERANCE
    benchmark.group = f"{case.cell} {case.shape}"
    benchmark.name = engine
    benchmark(call)


def fastrnn_step() -> Callable[[], Any]:
    """One step of a stream into a buffer."""
    layer = fastrnn.LSTM(*STEP.shape[:2])
    layer.load_state_dict(STEP.parameters())
    x, y = STEP.x()[0, 0], np.empty(STEP.shape.hidden_size, np.float32)
    return partial(layer.stream().step, x, out=y)


def torch_step() -> Callable[[], Any]:
    """One call of LSTMCell, which keeps its state."""
    import torch

    torch.set_num_threads(1)
    cell = torch.nn.LSTMCell(*STEP.shape[:2])
    cell.load_state_dict(
        {name.removesuffix("_l0"): torch.from_numpy(a) for name, a in STEP.parameters().items()}
    )
    x = torch.from_numpy(STEP.x()[0])
    state = None

    @torch.inference_mode()
    def call() -> Any:
        nonlocal state
        state = cell(x, state)
        return state[0]

    return call


def onnxruntime_step() -> Callable[[], Any]:
    """One run of a model of one step with the state as input and output."""
    session = onnxruntime_session(onnx_model(STEP, stateful=True), 1)
    x = STEP.x()
    h = c = np.zeros((1, 1, STEP.shape.hidden_size), np.float32)

    def call() -> Any:
        nonlocal h, c
        y, h, c = session.run(None, {"x": x, "h_in": h, "c_in": c})
        return y

    return call


@pytest.mark.benchmark(group="one step from Python, LSTM 32,32, batch 1", **QUICK)
@pytest.mark.parametrize("make", [fastrnn_step, torch_step, onnxruntime_step])
def test_step(benchmark: Any, make: Callable[[], Callable[[], Any]]) -> None:
    """Time one step with the state carried on."""
    call = make()
    expected = reference(STEP)["y"]
    first = np.asarray(call()).reshape(expected.shape)
    np.testing.assert_allclose(first, expected, rtol=0, atol=TOLERANCE)
    benchmark.name = make.__name__
    benchmark(call)
