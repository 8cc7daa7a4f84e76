"""Layers with random weights and comparisons by outputs, for the tests of conversions."""

from __future__ import annotations

from typing import Any

import numpy as np
from support import assert_close, unpack

STEPS, ROWS, INPUTS, HIDDEN = 7, 3, 4, 5

# Two programs that add in another order, over so few steps.
TOLERANCE = {"float32": 2e-6, "float64": 1e-13}


def drawn(rng: np.random.Generator, *shape: int, dtype: Any = np.float64) -> np.ndarray:
    """Values that use all of the activations' range."""
    return (0.8 * rng.standard_normal(shape)).astype(dtype)


def randomized(layer: Any, rng: np.random.Generator) -> Any:
    """The layer with all of its parameters random, biases too, and no state that grows."""
    values = {}
    for name, array in layer.parameters().items():
        values[name] = drawn(rng, *array.shape, dtype=layer.dtype) / 2
        if name.startswith("alpha"):
            values[name] = rng.uniform(0.1, 0.9, array.shape).astype(layer.dtype)
    layer.load_state_dict(values)
    return layer


def draw_call(layer: Any, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    """x and an initial state for a call of the layer."""
    lead = (ROWS, STEPS) if layer.batch_first else (STEPS, ROWS)
    x = drawn(rng, *lead, layer.input_size, dtype=layer.dtype)
    shapes = layer._state_shapes((ROWS,))
    arrays = tuple(drawn(rng, *shape, dtype=layer.dtype) for shape in shapes)
    return x, arrays if len(arrays) > 1 else arrays[0]


def assert_equal_outputs(actual: Any, expected: Any, dtype: Any, note: Any = "") -> None:
    """Outputs and states of two programs."""
    tolerance = TOLERANCE[np.dtype(dtype).name]
    assert_close(actual[0], expected[0], tolerance, note)
    assert_close(actual[1], expected[1], tolerance, note)
    assert all(np.abs(array).max() > 0.01 for array in (actual[0], *unpack(actual[1])))
