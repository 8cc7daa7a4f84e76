"""Keras 3: layers with random weights, and what they compute."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from convert_support import HIDDEN, INPUTS, ROWS, STEPS, drawn

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
from keras import layers

# Keras multiplies matrices of double precision in single precision, whatever its backend is.
PRECISION = "float32"

# What arrays do not tell, as Keras has it by default.
NAMES = {"activation": "tanh", "recurrent_activation": "sigmoid"}
RETURNS = {"return_sequences": True, "return_state": True}


def built(make: Any, rng: np.random.Generator, *, two: bool = False, **options: Any) -> Any:
    """A layer of Keras with random weights, biases too."""
    layer = make(HIDDEN, **{"dtype": "float64"} | RETURNS | options)
    if two:
        layer = layers.Bidirectional(layer, dtype=layer.dtype)
    layer.build((ROWS, STEPS, INPUTS))
    layer.set_weights([drawn(rng, *w.shape, dtype=w.dtype) / 2 for w in layer.get_weights()])
    return layer


def run_keras(layer: Any, x: np.ndarray, state: Any, **options: Any) -> tuple[Any, Any]:
    """Outputs and final states of a call, the states as fastrnn has them, [D, B, H]."""
    arrays = state if isinstance(state, tuple) else (state,)
    initial = [array[d] for d in range(len(arrays[0])) for array in arrays]
    y, *final = map(keras.ops.convert_to_numpy, layer(x, initial_state=initial, **options))
    states = tuple(np.stack(final[k :: len(arrays)]) for k in range(len(arrays)))
    return y, states if len(states) > 1 else states[0]


def known(config: dict[str, Any]) -> dict[str, Any]:
    """What arrays do not tell, from the configuration of a layer."""
    names = {"activation", "recurrent_activation", "go_backwards"} & set(config)
    return {name: config[name] for name in names}
