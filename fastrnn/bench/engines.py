"""The engines that are measured: what each needs, and how it prepares a case of each mode."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from . import peers
from .cases import FORWARD, TRAIN, Case
from .jax_peer import JaxStep, prepare_jax
from .training import FastrnnStep, FastrnnTorchStep, TorchStep


class Job(NamedTuple):
    """What an engine does in one mode.

    A forward is prepared as a call that returns y, a training step as a `training.Step`.
    """

    prepare: Callable[[Case, int], Any]
    cells: tuple[str, ...]


class Engine(NamedTuple):
    """An engine: the packages that it imports, and its job in each mode that it has."""

    packages: tuple[str, ...]
    jobs: dict[str, Job]

    @property
    def installed(self) -> bool:
        """Whether the packages can be found; does not import them."""
        return all(find_spec(package) is not None for package in self.packages)

    def runs(self, mode: str, cell: str) -> bool:
        """Return whether it can run that."""
        return mode in self.jobs and cell in self.jobs[mode].cells

    def prepare(self, case: Case, threads: int) -> Any:
        """Return the call of a case."""
        return self.jobs[case.mode].prepare(case, threads)


def prepare_copy(case: Case, threads: int) -> peers.Call:
    """Copy as many bytes as a unit without weights must touch, half of them read, half written."""
    source = np.ones(case.touched_bytes // 8, np.float32)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source)


_PRODUCT = ("lstm", "gru", "rnn", "leaky_rnn")
_ALL = (*_PRODUCT, "leaky")

FASTRNN = "fastrnn"
FASTRNN_TORCH = "fastrnn.torch"  # no peer, since it is fastrnn itself under autograd
COPY = "copy"  # no peer, since it computes nothing: the limit of leaky

ENGINES = {
    FASTRNN: Engine(
        ("fastrnn", "numpy"),
        {FORWARD: Job(peers.prepare_fastrnn, _ALL), TRAIN: Job(FastrnnStep, _ALL)},
    ),
    FASTRNN_TORCH: Engine(("fastrnn", "torch"), {TRAIN: Job(FastrnnTorchStep, _ALL)}),
    "numpy": Engine(("numpy",), {FORWARD: Job(peers.prepare_numpy, _PRODUCT)}),
    "torch": Engine(
        ("torch",),
        {FORWARD: Job(peers.prepare_torch, _PRODUCT), TRAIN: Job(TorchStep, _PRODUCT)},
    ),
    "jax": Engine(("jax",), {FORWARD: Job(prepare_jax, _PRODUCT), TRAIN: Job(JaxStep, _PRODUCT)}),
    "onnxruntime": Engine(
        ("onnxruntime", "onnx"), {FORWARD: Job(peers.prepare_onnxruntime, _PRODUCT)}
    ),
    "openvino": Engine(("openvino", "onnx"), {FORWARD: Job(peers.prepare_openvino, _PRODUCT)}),
    COPY: Engine(
        ("numpy",), {FORWARD: Job(prepare_copy, ("leaky",)), TRAIN: Job(prepare_copy, ("leaky",))}
    ),
    "lfilter": Engine(("scipy",), {FORWARD: Job(peers.prepare_lfilter, ("leaky",))}),
}

# Those that are libraries with recurrent layers of their own.
LIBRARIES = ("torch", "onnxruntime", "openvino")

# Those that have leaky layers, or equations instead of layers; the others run a plain RNN.
LEAKY_ENGINES = (FASTRNN, FASTRNN_TORCH, "numpy", "jax")


def choices(mode: str, cell: str) -> list[str]:
    """Return the names of what can be measured beside fastrnn, installed or not."""
    return [n for n, e in ENGINES.items() if e.runs(mode, cell) and n not in (FASTRNN, COPY)]


def case_of(name: str, case: Case) -> Case:
    """Return the case that an engine really runs."""
    return case if name in LEAKY_ENGINES else case.plain()


def first_results(case: Case, call: Any) -> dict[str, np.ndarray]:
    """Return what the first call of a prepared case computes, by name, as float32."""
    y = call()
    found = {"y": y} if case.mode == FORWARD else call.results()
    return {name: np.array(np.asarray(array), np.float32) for name, array in found.items()}
