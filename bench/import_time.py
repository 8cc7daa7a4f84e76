"""What ``import fastrnn`` costs above ``import numpy``.

python bench/import_time.py [PROCESSES] prints medians over new interpreters. Each imports numpy and
then fastrnn, so that the noise of starting a process is in neither figure.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

_PROGRAM = """
import time
times = [time.perf_counter()]
import numpy
times.append(time.perf_counter())
import fastrnn
times.append(time.perf_counter())
print(times[1] - times[0], times[2] - times[1])
"""


def measure(processes: int = 15) -> tuple[float, float]:
    """Return the median seconds of importing numpy, and of importing fastrnn after it."""
    pairs = []
    for _ in range(1 + processes):
        command = [sys.executable, "-c", _PROGRAM]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        pairs.append(tuple(map(float, output.split())))
    # The first process only brings the files into the system's cache.
    numpy_seconds, fastrnn_seconds = zip(*pairs[1:], strict=True)
    return statistics.median(numpy_seconds), statistics.median(fastrnn_seconds)


def main() -> None:
    """Print both times."""
    numpy_seconds, fastrnn_seconds = measure(*map(int, sys.argv[1:2]))
    print(f"import numpy            {numpy_seconds * 1e3:7.1f} ms")
    print(f"import fastrnn after it {fastrnn_seconds * 1e3:7.1f} ms")


if __name__ == "__main__":
    main()
