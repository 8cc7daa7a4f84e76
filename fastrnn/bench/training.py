"""A training step of fastrnn and of PyTorch: one forward, and the gradients of everything.

Each class prepares a case once; a call runs the step and returns nothing. What it computed is asked
for afterwards: `results` gives y and the gradients of the last step under the names of
`reference.py`. Before each step the gradients of the one before are let go, so that all write fresh
arrays into memory that their allocator knows already.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from .cases import ALPHA, Case
from .peers import fastrnn_layer, torch_layer


class Step(Protocol):
    """What is measured in a training step."""

    def __call__(self) -> None:
        """Run one step."""

    def results(self) -> dict[str, Any]:
        """Return what the last step gave, by name."""


def as_argument(state: tuple[Any, ...]) -> Any:
    """Return a state as layers take it: a tuple of two, or the one array."""
    return state if len(state) > 1 else state[0]


def _named(state: Any) -> dict[str, Any]:
    arrays = state if isinstance(state, tuple) else (state,)
    return dict(zip(("h0", "c0"), arrays, strict=False))


class FastrnnStep:
    """forward_train and backward of a layer, on NumPy arrays that need no conversion."""

    def __init__(self, case: Case, threads: int) -> None:
        self._layer = fastrnn_layer(case, threads)
        self._x, self._dy = case.x(), case.dy()
        self._state = as_argument(case.state())
        self._y = np.empty_like(self._dy)
        self._gradients: Any = None

    def __call__(self) -> None:
        """Run one step."""
        self._gradients = None
        _, _, tape = self._layer.forward_train(self._x, self._state, out=self._y)
        self._gradients = self._layer.backward(tape, self._dy)

    def results(self) -> dict[str, Any]:
        """Return what the last step gave."""
        g = self._gradients
        found = {"x": g.x} | _named(g.state) | g.params
        return {"y": self._y} | {"d" + name: array for name, array in found.items()}


class TorchStep:
    """A module of PyTorch through autograd."""

    def __init__(self, case: Case, threads: int) -> None:
        import torch

        self._net = self._module(case, threads)
        self._x = torch.from_numpy(case.x()).requires_grad_()
        state = tuple(torch.from_numpy(a).requires_grad_() for a in case.state())
        self._state = as_argument(state)
        self._dy = torch.from_numpy(case.dy())
        self._y: Any = None
        self._leaves = {"x": self._x} | _named(state) | dict(self._net.named_parameters())

    def _module(self, case: Case, threads: int) -> Any:
        return torch_layer(case, threads)

    def __call__(self) -> None:
        """Run one step."""
        self._y = None
        for leaf in self._leaves.values():
            leaf.grad = None
        self._y, _ = self._net(self._x, self._state)
        self._y.backward(self._dy)

    def results(self) -> dict[str, Any]:
        """Return what the last step gave."""
        found = {"d" + name: leaf.grad for name, leaf in self._leaves.items()}
        return {"y": self._y.detach()} | found


class FastrnnTorchStep(TorchStep):
    """A module of fastrnn.torch through autograd."""

    def _module(self, case: Case, threads: int) -> Any:
        import torch

        import fastrnn.torch as ft

        torch.set_num_threads(threads)
        layer = fastrnn_layer(case, threads)
        return getattr(ft, type(layer).__name__).from_fastrnn(layer)

    def results(self) -> dict[str, Any]:
        """Return what the last step gave; the gradient of alpha from that of its logit."""
        found = super().results()
        for name in [name for name in found if name.startswith("dalpha_logit")]:
            gradient = found.pop(name).numpy()
            found[name.replace("_logit", "")] = gradient / (ALPHA * (1 - ALPHA))
        return found
