"""One process per engine, so that no engine's threads, allocator or BLAS disturb another's.

The parent tells each worker to load a case, then asks for one round at a time, in turn; a worker
that is not asked is blocked on its pipe. Requests and replies are pickles of plain values over
stdin and stdout: (verb, arguments...) one way, (ok, value) the other.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import signal
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

from .._children import child_environment
from .cases import Case
from .engines import COPY, ENGINES, case_of, first_results
from .limits import Limits
from .peers import Call

_BLOCK_SECONDS = 2e-4  # of calls timed together: far above the clock's grain, below a time slice
_WARM_SECONDS = 2e-3  # a core that was idle, and caches that served another process
# XLA sizes its pool of threads by it, when it is imported.
_XLA_THREADS = "PJRT_NPROC"
_COMMAND = "from fastrnn.bench.worker import serve; serve()"


class WorkerError(RuntimeError):
    """An engine failed; the message is one line and names it."""


class Worker:
    """The parent's end of a worker process."""

    def __init__(self, engine: str, threads: int) -> None:
        self.engine, self.threads = engine, threads
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _COMMAND, engine, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(threads) | {_XLA_THREADS: str(threads)},
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def versions(self) -> dict[str, str]:
        """Return package -> version of what the engine uses."""
        reply: dict[str, str] = self._request("versions")
        return reply

    def load(self, case: Case) -> dict[str, np.ndarray]:
        """Prepare a case and return what its first call computes, by name."""
        reply: dict[str, np.ndarray] = self._request("load", case)
        return reply

    def round(self, min_time: float) -> float:
        """Return the seconds of one call of the loaded case, from at least `min_time` of calls."""
        reply: float = self._request("round", min_time)
        return reply

    def limits(self) -> Limits:
        """Return the machine's limits as they are at this moment."""
        reply: Limits = self._request("limits")
        return reply

    def close(self) -> None:
        """End the process; it may be in the middle of a round."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.close()
            self._process.wait(2)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _request(self, *message: object) -> Any:
        assert self._process.stdin and self._process.stdout
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
            ok, value = pickle.load(self._process.stdout)
        except (BrokenPipeError, EOFError):
            code = self._process.wait()
            raise WorkerError(f"{self.engine}: its process ended with status {code}") from None
        if not ok:
            raise WorkerError(f"{self.engine}: {value}")
        return value


def time_round(call: Call, min_time: float) -> float:
    """Return the seconds of one call: the median over blocks of calls, after a warm-up."""
    clock = time.perf_counter
    start = clock()
    call()
    once = clock() - start
    if once >= min_time:
        return _time_block(call, 1)
    while clock() - start < _WARM_SECONDS:
        call()
    calls = max(1, int(_BLOCK_SECONDS / _time_block(call, 1)))
    blocks = []
    start = clock()
    while clock() - start < min_time:
        blocks.append(_time_block(call, calls))
    return statistics.median(blocks)


def _time_block(call: Call, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _version(package: str) -> str:
    """Return the version without the name of a build, which follows a hyphen."""
    return str(importlib.import_module(package).__version__).partition("-")[0]


def serve() -> None:
    """Be the worker of sys.argv = [_, engine, threads] until the parent closes the pipe."""
    engine, threads = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    gc.disable()
    requests = sys.stdin.buffer
    # What a library prints must not end up between the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    call: Call | None = None
    while True:
        try:
            verb, *arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            value: Any
            if verb == "versions":
                value = {p: _version(p) for p in ENGINES[engine].packages}
            elif verb == "load":
                call = None  # frees the case before
                (case,) = arguments
                gc.collect()
                case = case_of(engine, case)
                call = ENGINES[engine].prepare(case, threads)
                value = {} if engine == COPY else first_results(case, call)
            elif verb == "limits":
                value = Limits.measure(threads)
            else:
                assert call is not None
                value = time_round(call, *arguments)
            reply = (True, value)
        except Exception as error:
            line = " ".join(str(error).split())
            reply = (False, f"{type(error).__name__}: {line}"[:500])
        pickle.dump(reply, replies)
        replies.flush()
