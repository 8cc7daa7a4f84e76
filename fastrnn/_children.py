"""Child processes for measurements, with a number of threads of their own."""

from __future__ import annotations

import os
from pathlib import Path

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def child_environment(threads: int) -> dict[str, str]:
    """Return the environment of a process in which NumPy's BLAS uses that many threads.

    It cannot be told after NumPy is imported. A fair measurement needs it: on a busy machine a BLAS
    with more threads than free cores is several times slower. The process imports the package of
    this one, wherever it lies.
    """
    environment = os.environ | {name: str(threads) for name in _THREAD_VARIABLES}
    path = [str(Path(__file__).absolute().parents[1]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    return environment
