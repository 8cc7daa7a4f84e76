"""An echo state network beside reservoirpy's with the same matrices, and beside the product of its
states with themselves, which any fit by normal equations must compute.

`measure` times them in interleaved rounds in one process, which is not this one: only a new process
can be told how many threads the BLAS has.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import fastrnn
from fastrnn._children import child_environment
from fastrnn.reservoir import Reservoir

from .worker import WorkerError, time_round

Size = tuple[int, float, int | None]

# Units, the part of the recurrent matrix that is not 0, and how many units read the same ones or
# None, the default.
SIZES: tuple[Size, ...] = ((1000, 0.02, None), (1000, 0.02, 1), (300, 0.1, None), (300, 0.1, 1))
STEPS = 10_000
RIDGE = 1e-6
WARMUP = 100

STATES, FIT = "states", "fit + predict"
FASTRNN, PEER = "fastrnn", "reservoirpy"

# How far apart results may be as a root mean square. States lie within 1; predictions differ by
# the rounding of states, and more as the matrix of the fit is ill-conditioned.
ALLOWED = {STATES: 1e-5, FIT: 1e-2}

_COMMAND = "from fastrnn.bench.reservoir import serve; serve()"


class Measured(NamedTuple):
    """Of one size: seconds by call, engine and round, and how far results were apart by call."""

    seconds: dict[str, dict[str, list[float]]]
    differences: dict[str, float]


def network(units: int, density: float, group: int | None) -> Reservoir:
    """A Reservoir of one input, in float32."""
    options: dict[str, Any] = {"alpha": 0.7, "spectral_radius": 0.9, "bias_scale": 0.1}
    return Reservoir(1, units, density=density, group=group, ridge=RIDGE, seed=0, **options)


def series(steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """x [T, 1], uniform, and y [T, 1], the product of what it was two and five steps ago."""
    x = np.random.default_rng(0).uniform(-1, 1, (steps, 1))
    return x, np.roll(x, 2, 0) * np.roll(x, 5, 0)


def peer(net: Reservoir) -> tuple[Any, Any]:
    """reservoirpy's node with the matrices of a Reservoir, in float64 and sparse as its own are;
    and a new model of it and a readout."""
    nodes: Any = importlib.import_module("reservoirpy.nodes")
    sparse: Any = importlib.import_module("scipy.sparse")
    layer = net.layer
    node = nodes.Reservoir(
        W=sparse.csr_matrix(layer.weight_hh_l0.astype(np.float64)),
        Win=layer.weight_ih_l0.astype(np.float64),
        bias=layer.bias_ih_l0.astype(np.float64),
        lr=1 - layer.alpha_l0.astype(np.float64),
    )
    return node, node >> nodes.Ridge(ridge=net.ridge)


def end_to_end(net: Reservoir, steps: int = STEPS) -> dict[str, Callable[[], np.ndarray]]:
    """A fit to a series and the predictions of it, by fastrnn and by reservoirpy."""
    x, y = series(steps)

    def ours() -> np.ndarray:
        return net.fit(x, y, warmup=WARMUP).predict(x)

    def theirs() -> np.ndarray:
        node, model = peer(net)
        model.fit(x, y, warmup=WARMUP)
        node.reset()
        return model.run(x)

    return {FASTRNN: ours, PEER: theirs}


def product(units: int) -> Callable[[], np.ndarray]:
    """X^T X of as many rows in float64, by the BLAS."""
    x = np.random.default_rng(0).uniform(-1, 1, (STEPS, units))
    return lambda: x.T @ x


# ---- In interleaved rounds --------------------------------------------------------------------


def installed() -> bool:
    """Whether reservoirpy is there."""
    return importlib.util.find_spec(PEER) is not None


def measure(
    sizes: Sequence[Size], steps: int, threads: int, rounds: int, min_time: float
) -> list[Measured]:
    """Measure the states, and a fit with predictions, of these sizes in a process of its own.

    WorkerError: it failed, or the results of the two differ by more than allowed.
    """
    given = json.dumps([sizes, steps, threads, rounds, min_time])
    done = subprocess.run(
        [sys.executable, "-P", "-c", _COMMAND, given],
        env=child_environment(threads),
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise WorkerError(f"reservoir: its process ended with status {done.returncode}")
    error, found = json.loads(done.stdout.splitlines()[-1])  # libraries may print before it
    if error is not None:
        raise WorkerError(f"reservoir: {error}")
    return [Measured(*each) for each in found]


def serve() -> None:
    """Be the process of `measure`, whose arguments are in sys.argv."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    sizes, steps, threads, rounds, min_time = json.loads(sys.argv[1])
    fastrnn.set_num_threads(threads)
    reply: list[Any]
    try:
        reply = [None, [_measure_size(size, steps, rounds, min_time) for size in sizes]]
    except Exception as error:
        reply = [f"{type(error).__name__}: {' '.join(str(error).split())}"[:500], None]
    print("", json.dumps(reply), sep="\n")


def _measure_size(size: Size, steps: int, rounds: int, min_time: float) -> Measured:
    net = network(*size)
    x, _ = series(steps)
    x32 = x.astype(np.float32)
    node, _ = peer(net)
    calls: dict[str, dict[str, Callable[[], np.ndarray]]] = {
        STATES: {FASTRNN: lambda: net.run(x32)[0], PEER: lambda: node.run(x)},
        FIT: end_to_end(net, steps),
    }
    apart = {}
    for call, engines in calls.items():
        ours, theirs = (run()[WARMUP:] for run in engines.values())
        apart[call] = float(np.sqrt(np.mean(np.square(ours - theirs))))
        if not apart[call] <= ALLOWED[call]:
            raise ValueError(
                f"{call} of {net.hidden_size} units are {apart[call]:.1e} apart from those of "
                f"{PEER}, allowed is {ALLOWED[call]:.0e}"
            )
    seconds: dict[str, dict[str, list[float]]] = {
        call: {engine: [] for engine in engines} for call, engines in calls.items()
    }
    for _ in range(rounds):
        for call, engines in calls.items():
            for engine, run in engines.items():
                seconds[call][engine].append(time_round(run, min_time))
    return Measured(seconds, apart)
