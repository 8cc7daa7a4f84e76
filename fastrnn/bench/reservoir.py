"""An echo state network beside reservoirpy's with the same matrices, and beside the product of its
states with themselves, which any fit by normal equations must compute."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn.reservoir import Reservoir

# Units and the part of the recurrent matrix that is not 0.
SIZES = ((1000, 0.02), (300, 0.1))
STEPS = 10_000
RIDGE = 1e-6


def network(units: int, density: float) -> Reservoir:
    """A Reservoir of one input, in float32."""
    options: dict[str, Any] = {"alpha": 0.7, "spectral_radius": 0.9, "bias_scale": 0.1}
    return Reservoir(1, units, density=density, ridge=RIDGE, seed=0, **options)


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


def end_to_end(net: Reservoir) -> dict[str, Callable[[], np.ndarray]]:
    """A fit to a series and the predictions of it, by fastrnn and by reservoirpy."""
    x, y = series()

    def ours() -> np.ndarray:
        return net.fit(x, y, warmup=100).predict(x)

    def theirs() -> np.ndarray:
        node, model = peer(net)
        model.fit(x, y, warmup=100)
        node.reset()
        return model.run(x)

    return {"fastrnn": ours, "reservoirpy": theirs}


def product(units: int) -> Callable[[], np.ndarray]:
    """X^T X of as many rows in float64, by the BLAS."""
    x = np.random.default_rng(0).uniform(-1, 1, (STEPS, units))
    return lambda: x.T @ x
