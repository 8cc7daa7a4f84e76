"""Keras 3: layers and arrays, by what Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from convert_support import (
    HIDDEN,
    INPUTS,
    ROWS,
    STEPS,
    assert_equal_outputs,
    draw_call,
    randomized,
)
from keras_witness import NAMES, PRECISION, built, keras, known, layers, run_keras
from support import refuses, same_bits

import fastrnn.convert as fc
from fastrnn import GRU, LSTM, RNN, DilatedRNN, Leaky, LeakyRNN, MinGRU

ACTIVATIONS = [
    "tanh",
    "relu",
    "linear",
    "sigmoid",
    "hard_sigmoid",
    "leaky_relu",
    "elu",
    "softsign",
    "softplus",
]
LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "LSTM": (layers.LSTM, {}),
    "LSTM relu hard": (
        layers.LSTM,
        {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    ),
    "GRU": (layers.GRU, {}),
    "GRU before": (layers.GRU, {"reset_after": False}),
    "GRU functions": (
        layers.GRU,
        {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    ),
    "SimpleRNN": (layers.SimpleRNN, {}),
    "SimpleRNN elu": (layers.SimpleRNN, {"activation": "elu"}),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


@each_layer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_from_keras_and_back(
    name: str, dtype: str, two: bool, use_bias: bool, rng: np.random.Generator
) -> None:
    make, options = LAYERS[name]
    theirs = built(make, rng, two=two, dtype=dtype, use_bias=use_bias, **options)
    ours = fc.from_keras(theirs)
    x, state = draw_call(ours, rng)
    expected = run_keras(theirs, x, state)
    assert_equal_outputs(ours(x, state), expected, PRECISION)

    inner = theirs.forward_layer if two else theirs
    given = known(inner.get_config()) | {"bidirectional": two}
    if name.startswith("GRU") and not use_bias:
        given["reset_after"] = inner.reset_after
    from_arrays = fc.from_keras(theirs.get_weights(), **given)
    assert repr(from_arrays) == repr(ours)
    assert same_bits(from_arrays(x, state), ours(x, state))

    arrays = fc.to_keras(ours)
    assert all(map(np.array_equal, arrays, theirs.get_weights()))
    random = randomized(ours, rng)  # now both biases are other than 0
    theirs.set_weights(fc.to_keras(random))
    assert_equal_outputs(run_keras(theirs, x, state), random(x, state), PRECISION)


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations_of_keras(function: str, rng: np.random.Generator) -> None:
    for make in (layers.LSTM, layers.GRU):
        theirs = built(make, rng, activation=function, recurrent_activation="sigmoid")
        ours = fc.from_keras(theirs)
        x, state = draw_call(ours, rng)
        assert_equal_outputs(ours(x, state), run_keras(theirs, x, state), PRECISION)
    theirs = built(layers.GRU, rng, recurrent_activation=function)
    ours = fc.from_keras(theirs)
    x, state = draw_call(ours, rng)
    x, state = x / 8, state / 8  # gates above 1 would let the state grow without bound
    y, _ = ours(x, state)
    assert_equal_outputs((y, y), (run_keras(theirs, x, state)[0],) * 2, PRECISION)


@each_layer
@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("way", ["forward", "backward", "both"])
def test_direction_and_masks_are_those_of_keras(
    name: str, zero_output: bool, way: str, rng: np.random.Generator
) -> None:
    make, options = LAYERS[name]
    options = options | {"go_backwards": way == "backward", "zero_output_for_mask": zero_output}
    theirs = built(make, rng, two=way == "both", **options)
    ours = fc.from_keras(theirs)
    assert ours.go_backwards == (way == "backward")
    x, state = draw_call(ours, rng)
    assert_equal_outputs(ours(x, state), run_keras(theirs, x, state), PRECISION)
    mask = rng.random((ROWS, STEPS)) < 0.6
    mask[0, 0] = False
    # A Bidirectional of Keras always asks its layers for zeros.
    zeros = zero_output or way == "both"
    actual = ours(x, state, mask=mask, zero_output_for_mask=zeros)
    assert_equal_outputs(actual, run_keras(theirs, x, state, mask=mask), PRECISION)


def test_each_layer_of_a_stack_is_one_of_keras(rng: np.random.Generator) -> None:
    ours = randomized(LSTM(INPUTS, HIDDEN, 2, batch_first=True, dtype="float64"), rng)
    x, _ = draw_call(ours, rng)
    y: Any = x
    for index in range(2):
        theirs = layers.LSTM(HIDDEN, return_sequences=True, dtype="float64")
        theirs.build(y.shape)
        theirs.set_weights(fc.to_keras(ours, index))
        y = theirs(y)
    actual = ours(x)[0]
    assert_equal_outputs((actual, actual), (keras.ops.convert_to_numpy(y),) * 2, PRECISION)
    with refuses(ValueError, "index", 1, 2):
        fc.to_keras(ours, 2)
    with refuses(ValueError, "index"):
        fc.to_keras(ours, -1)
    with refuses(TypeError, "index"):
        fc.to_keras(ours, "0")


# ---- What is refused --------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Derived(layers.LSTM):
    pass


@keras.saving.register_keras_serializable("tests")
def tanh(v: Any) -> Any:
    return v * 2


@pytest.mark.parametrize(
    ("error", "make", "facts"),
    [
        (TypeError, lambda: layers.Dense(3), ["Dense"]),
        (TypeError, lambda: layers.ConvLSTM1D(3, 2), ["ConvLSTM1D"]),
        (TypeError, lambda: layers.RNN(layers.LSTMCell(3)), ["RNN"]),
        (TypeError, lambda: Derived(3), ["Derived"]),
        (TypeError, lambda: layers.Bidirectional(Derived(3)), ["Derived", "Bidirectional"]),
        (ValueError, lambda: layers.LSTM(3), ["weights"]),
        (ValueError, lambda: layers.LSTM(3, activation="gelu"), ["activation", "gelu"]),
        (ValueError, lambda: layers.LSTM(3, activation=tanh), ["activation", "tanh"]),
        (ValueError, lambda: layers.LSTM(3, activation=lambda v: v), ["activation", "lambda"]),
        (ValueError, lambda: layers.LSTM(3, activation=layers.LeakyReLU(0.1)), ["LeakyReLU"]),
        (
            ValueError,
            lambda: layers.GRU(3, recurrent_activation="silu"),
            ["recurrent_activation", "silu"],
        ),
        (
            ValueError,
            lambda: layers.Bidirectional(layers.GRU(3), merge_mode="sum"),
            ["merge_mode", "sum"],
        ),
        (
            ValueError,
            lambda: layers.Bidirectional(layers.GRU(3), merge_mode=None),
            ["merge_mode", "None"],
        ),
        (
            ValueError,
            lambda: layers.Bidirectional(
                layers.GRU(3), backward_layer=layers.LSTM(3, go_backwards=True)
            ),
            ["Bidirectional", "backwards"],
        ),
        (
            ValueError,
            lambda: layers.Bidirectional(
                layers.GRU(3), backward_layer=layers.GRU(3, activation="relu", go_backwards=True)
            ),
            ["Bidirectional", "relu"],
        ),
        (
            ValueError,
            lambda: layers.Bidirectional(
                layers.GRU(3, go_backwards=True), backward_layer=layers.GRU(3)
            ),
            ["Bidirectional", "backwards"],
        ),
        (
            ValueError,
            lambda: layers.Bidirectional(
                layers.GRU(3), backward_layer=layers.GRU(2, go_backwards=True)
            ),
            ["shape"],
        ),
    ],
)
def test_layers_that_are_refused(error: type, make: Callable[[], Any], facts: list[Any]) -> None:
    layer = make()
    if "weights" not in facts and not isinstance(layer, layers.ConvLSTM1D):
        layer.build((2, 3, 4))
    with refuses(error, *facts):
        fc.from_keras(layer)


KERNELS = {n: [np.ones((3, 4 * n)), np.ones((4, 4 * n))] for n in (1, 3, 4)}


@pytest.mark.parametrize(
    ("error", "source", "options", "facts"),
    [
        (TypeError, 3, NAMES, ["source", "int"]),
        (TypeError, np.ones((3, 3)), NAMES, ["source", (3, 3)]),
        (ValueError, KERNELS[4][:1], NAMES, ["source", 1]),
        (ValueError, KERNELS[4], NAMES | {"bidirectional": True}, ["source", 4, 6, 2]),
        (ValueError, KERNELS[4], {}, ["activation", "None", "tanh"]),
        (ValueError, KERNELS[4], {"activation": "tanh"}, ["recurrent_activation"]),
        (ValueError, KERNELS[4], NAMES | {"activation": "gelu"}, ["activation", "gelu"]),
        (ValueError, KERNELS[4], NAMES | {"reset_after": True}, ["reset_after", "LSTM"]),
        (ValueError, KERNELS[1], NAMES, ["recurrent_activation", "SimpleRNN"]),
        (ValueError, KERNELS[3], NAMES, ["reset_after", "biases"]),
        (TypeError, KERNELS[3], NAMES | {"reset_after": 1}, ["reset_after"]),
        (ValueError, [*KERNELS[3], np.ones(12)], NAMES | {"reset_after": True}, ["reset_after"]),
        (ValueError, [*KERNELS[3], np.ones((3, 12))], NAMES, ["source[2]", (3, 12)]),
        (ValueError, [*KERNELS[3], np.ones(11)], NAMES, ["source[2]", 12, 11]),
        (ValueError, [*KERNELS[4], np.ones((2, 16))], NAMES, ["source[2]", (2, 16)]),
        (ValueError, [np.ones((3, 15)), np.ones((4, 16))], NAMES, ["source[0]", (3, 15)]),
        (ValueError, [np.ones((3, 8)), np.ones((4, 8))], NAMES, ["source[1]", (4, 8)]),
        (ValueError, [np.ones((3, 8)), np.ones(8)], NAMES, ["source[1]", 8]),
        (TypeError, [KERNELS[4][0], KERNELS[4][1].astype("f")], NAMES, ["source[1]", "float32"]),
        (TypeError, KERNELS[4], NAMES | {"dtype": "float32"}, ["source[0]", "float64"]),
        (TypeError, KERNELS[4], NAMES | {"dtype": "float16"}, ["dtype", "float16"]),
        (
            ValueError,
            [*KERNELS[4], *KERNELS[1]],
            NAMES | {"bidirectional": True},
            ["source", "shapes"],
        ),
        (
            ValueError,
            [*KERNELS[4], *KERNELS[4]],
            NAMES | {"bidirectional": True, "go_backwards": True},
            ["go_backwards", "bidirectional"],
        ),
    ],
)
def test_arrays_that_are_refused(
    error: type, source: Any, options: dict[str, Any], facts: list[Any]
) -> None:
    with refuses(error, *facts):
        fc.from_keras(source, **options)


def test_a_layer_tells_its_options(rng: np.random.Generator) -> None:
    layer = built(layers.GRU, rng)
    for name, value in (NAMES | {"reset_after": True, "go_backwards": False}).items():
        with refuses(ValueError, name, "layer"):
            fc.from_keras(layer, **{name: value})


@pytest.mark.parametrize(
    ("layer", "fact"),
    [
        (MinGRU(3, 4), "MinGRU"),
        (LeakyRNN(3, 4), "LeakyRNN"),
        (Leaky(3), "Leaky"),
        (LSTM(3, 4, coupled=True), "coupled"),
        (LSTM(3, 4, peephole=True), "peephole"),
        (LSTM(3, 4, proj_size=2), "proj_size"),
        (LSTM(3, 4, cell_clip=1.0), "cell_clip"),
        (GRU(3, 4, clip=1.0), "clip"),
        (LSTM(3, 4, output_activation="relu"), "output_activation"),
        (GRU(3, 4, activation=("elu", 0.5)), "activation"),
        (RNN(3, 4, nonlinearity=("hard_sigmoid", 0.2, 0.5)), "hard_sigmoid"),
        (LSTM(3, 4, delays=(1, 8)), "delays"),
        (RNN(3, 4, periods=(1, 2)), "periods"),
        (DilatedRNN("gru", 3, 4, (1, 2)), "dilations"),
    ],
)
def test_what_keras_does_not_have(layer: Any, fact: str) -> None:
    with refuses(ValueError, fact, "Keras"):
        fc.to_keras(layer)
