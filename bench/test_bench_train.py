"""Speed of a training step, forward and backward; each checked against NumPy in float64 first.

pytest-benchmark runs one engine after the other. For ratios on a machine that is not quiet use
``fastrnn bench --mode train``, which interleaves them.
"""

from __future__ import annotations

from typing import Any

import pytest

from fastrnn.bench import TOLERANCE
from fastrnn.bench.cases import TRAIN, Case
from fastrnn.bench.engines import COPY, ENGINES, case_of, first_results
from fastrnn.bench.reference import difference, reference

MODE = TRAIN


@pytest.mark.benchmark(min_rounds=3, max_time=0.1, warmup=True, warmup_iterations=3)
def test_train(benchmark: Any, case: Case, engine: str) -> None:
    """Time a forward and the gradients of everything."""
    real = case_of(engine, case)
    call = ENGINES[engine].prepare(real, 1)
    if engine != COPY:
        off = difference(first_results(real, call), reference(real))
        assert max(off.values()) <= TOLERANCE
    benchmark.group = f"{case.cell} {case.shape}, forward and backward"
    benchmark.name = engine
    benchmark(call)
