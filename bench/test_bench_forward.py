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

from fastrnn.bench import TOLERANCE
from fastrnn.bench.cases import FORWARD, Case
from fastrnn.bench.engines import COPY, ENGINES, case_of, first_results
from fastrnn.bench.peers import fastrnn_layer, onnx_model, onnxruntime_session
from fastrnn.bench.reference import difference, reference
from fastrnn.bench.shapes import Shape

MODE = FORWARD
QUICK = {"min_rounds": 3, "max_time": 0.1, "warmup": True, "warmup_iterations": 10}

STEP_SHAPE = Shape(32, 32, 1, 1)


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


def fastrnn_step(case: Case) -> Callable[[], Any]:
    """One step of a stream into a buffer."""
    layer = fastrnn_layer(case, 1)
    x, y = case.x()[0, 0], np.empty(case.shape.hidden_size, np.float32)
    return partial(layer.stream().step, x, out=y)


def torch_step(case: Case) -> Callable[[], Any]:
    """One call of LSTMCell or GRUCell, which keeps its state."""
    import torch

    torch.set_num_threads(1)
    cell = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[case.cell](*case.shape[:2])
    cell.load_state_dict(
        {name.removesuffix("_l0"): torch.from_numpy(a) for name, a in case.parameters().items()}
    )
    x = torch.from_numpy(case.x()[0])
    state = None

    @torch.inference_mode()
    def call() -> Any:
        nonlocal state
        state = cell(x, state)
        return state[0]  # h; of a GRU, whose state is h, its only row

    return call


def onnxruntime_step(case: Case) -> Callable[[], Any]:
    """One run of a model of one step with the state as input and output."""
    session = onnxruntime_session(onnx_model(case, stateful=True), 1)
    names = [value.name for value in session.get_inputs()]
    arrays = [case.x(), *map(np.zeros_like, case.state())]

    def call() -> Any:
        y, *arrays[1:] = session.run(None, dict(zip(names, arrays, strict=True)))
        return y

    return call


@pytest.mark.benchmark(**QUICK)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("make", [fastrnn_step, torch_step, onnxruntime_step])
def test_step(benchmark: Any, make: Callable[[Case], Callable[[], Any]], cell: str) -> None:
    """Time one step with the state carried on."""
    case = Case(cell, STEP_SHAPE)
    call = make(case)
    expected = reference(case)["y"]
    first = np.asarray(call()).reshape(expected.shape)
    np.testing.assert_allclose(first, expected, rtol=0, atol=TOLERANCE)
    benchmark.group = f"one step from Python, {cell} 32,32, batch 1"
    benchmark.name = make.__name__
    benchmark(call)
