"""Options of the pytest-benchmark suite: which cells and shapes."""

from __future__ import annotations

import os

# Before NumPy is imported: every engine of the suite has one thread.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import pytest  # noqa: E402

from fastrnn.bench.cases import CELLS, Case  # noqa: E402
from fastrnn.bench.engines import ENGINES  # noqa: E402
from fastrnn.bench.shapes import GROUPS, parse  # noqa: E402

# Its threads do not survive a fork, by which OpenVINO reports itself.
ALONE = ("jax",)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --bench-cells and --bench-shapes."""
    group = parser.getgroup("fastrnn")
    group.addoption("--bench-cells", default=",".join(CELLS), help=f"of {', '.join(CELLS)}")
    group.addoption(
        "--bench-shapes",
        default="small",
        help=f"I,H,B,T;I,H,B,T;... or {', '.join(GROUPS)} (default: small)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests that take (case, engine) every case of their file's MODE, and its engines."""
    if "case" not in metafunc.fixturenames:
        return
    mode = metafunc.module.MODE
    cells = metafunc.config.getoption("--bench-cells").split(",")
    pairs = []
    for cell in cells:
        if cell not in CELLS:
            raise pytest.UsageError(f"--bench-cells: expected {', '.join(CELLS)}; got {cell!r}")
        try:
            shapes = parse(metafunc.config.getoption("--bench-shapes"), cell)
        except ValueError as error:
            raise pytest.UsageError(f"--bench-{error}") from None
        for shape in shapes:
            for name, engine in ENGINES.items():
                if name not in ALONE and engine.runs(mode, cell) and engine.installed:
                    label = f"{cell}-{shape}-{name}"
                    pairs.append(pytest.param(Case(cell, shape, mode), name, id=label))
    metafunc.parametrize(("case", "engine"), pairs)
