"""Wrong options are refused by name, before any work."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from support import refuses, same_bits, unharmed

import fastrnn
from fastrnn import GRU, LSTM, RNN, LeakyRNN, MinGRU, init

WITH_ACTIVATIONS: list[tuple[Any, str]] = [
    (RNN, "nonlinearity"),
    (LeakyRNN, "nonlinearity"),
    (MinGRU, "activation"),
    (GRU, "activation"),
    (GRU, "gate_activation"),
    (LSTM, "activation"),
    (LSTM, "gate_activation"),
    (LSTM, "output_activation"),
]
EVERY = (GRU, LSTM, MinGRU, RNN, LeakyRNN)
NAN, INF = float("nan"), float("inf")


# ---- Constructors -----------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "argument"), WITH_ACTIVATIONS)
@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ("Tanh", "Tanh"),
        ("gelu", "hard_sigmoid"),
        ("", "tanh"),
        ("hard_sigmoid(0.2, 0.5)", "hard_sigmoid"),
        (None, "None"),
        (3, "3"),
        ((), "()"),
        ((0.2, "hard_sigmoid"), "name"),
        ({"tanh"}, "name"),
        (("tanh", 1.0), "0 parameters"),
        (("softsign", 0.0, 1.0), "0 parameters"),
        (("elu", 1.0, 1.0), "1 parameters"),
        (("affine", 1.0, 1.0, 1.0), "2 parameters"),
        (("tanh", 0.0, 0.0, 0.0), "0 parameters"),
        (("affine", "1"), "number"),
        (("affine", True), "number"),
        (("affine", None), "number"),
        (("affine", 1j), "number"),
        (("affine", NAN), "finite"),
        (("affine", 1.0, INF), "finite"),
        (("leaky_relu", -0.1), "alpha"),
        (("thresholded_relu", -1), "alpha"),
        (("elu", -1.0), "alpha"),
        (("scaled_tanh", 0.0, 1.0), "alpha"),
        (torch.tanh, "name"),
        (np.tanh, "name"),
    ],
)
def test_activations(make: Any, argument: str, value: Any, fact: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        make(2, 3, **{argument: value})
    assert str(caught.value).startswith(argument + ":")
    assert fact in str(caught.value)


@pytest.mark.parametrize(
    ("make", "name"), [*((make, "clip") for make in EVERY), (LSTM, "cell_clip")]
)
@pytest.mark.parametrize("value", [0, -1.0, 0.0, NAN, INF, "3", True, [1.0], 1j, np.ones(2)])
def test_limits(make: Any, name: str, value: Any) -> None:
    with refuses((TypeError, ValueError), name):
        make(2, 3, **{name: value})


def test_the_potential_form_has_no_clip() -> None:
    with refuses(ValueError, "clip", "potential"):
        LeakyRNN(2, 3, form="potential", clip=1.0)


@pytest.mark.parametrize("value", [-1, 1.0, 0.0, "2", None, True, False, [1], 2**70])
def test_proj_size(value: Any) -> None:
    with refuses((TypeError, ValueError), "proj_size"):
        LSTM(2, 3, proj_size=value)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (GRU, "reset_after"),
        (LSTM, "peephole"),
        (LSTM, "coupled"),
        *((make, "go_backwards") for make in EVERY),
    ],
)
@pytest.mark.parametrize("value", [1, 0, "yes", None, 1.0, [True]])
def test_flags(make: Any, name: str, value: Any) -> None:
    with refuses(TypeError, name):
        make(2, 3, **{name: value})


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("value", [-0.1, 1.1, NAN, INF, "0.5", True, None, [0.5]])
def test_dropout(make: Any, value: Any) -> None:
    with refuses((TypeError, ValueError), "dropout"):
        make(2, 3, 2, dropout=value)


@pytest.mark.parametrize("make", EVERY)
def test_going_backwards_both_ways(make: Any) -> None:
    with refuses(ValueError, "go_backwards"):
        make(2, 3, go_backwards=True, bidirectional=True)


@pytest.mark.parametrize("make", [GRU, LSTM, MinGRU])
@pytest.mark.parametrize(
    "value",
    [5, (5,), (2, 5, 9), "ab", {2, 5}, (1, 5), (0.5, 5), (9, 5), (2, INF), (NAN, 5), (2, "5")],
)
def test_chrono(make: Any, value: Any) -> None:
    with refuses((TypeError, ValueError), "chrono"):
        make(2, 3, chrono=value)


def test_init_chrono() -> None:
    for scales in ((1, 5), (9, 5)):
        with refuses(ValueError, "t_min", "t_max", scales):
            init.chrono(3, *scales)
    for scales in ((2, INF), ("2", 5), (2, True)):
        with refuses((TypeError, ValueError), "chrono", "number"):
            init.chrono(3, *scales)


@pytest.mark.parametrize("value", ["1", NAN, INF, True, [1.0]])
def test_forget_bias(value: Any) -> None:
    with refuses((TypeError, ValueError), "forget_bias"):
        LSTM(2, 3, forget_bias=value)


def test_starts_that_cannot_be() -> None:
    with refuses(ValueError, "forget_bias", "chrono"):
        LSTM(2, 3, forget_bias=1.0, chrono=(2, 9))
    with refuses(ValueError, "forget_bias"):
        LSTM(2, 3, forget_bias=1.0, bias=False)
    for make in (GRU, LSTM, MinGRU):
        with refuses(ValueError, "chrono"):
            make(2, 3, chrono=(2, 9), bias=False)
    for make in (GRU, LSTM):
        with refuses(ValueError, "chrono", "gate_activation"):
            make(2, 3, chrono=(2, 9), gate_activation="hard_sigmoid")


def test_options_of_other_layers() -> None:
    for make, options in (
        (GRU, {"proj_size": 2}),
        (GRU, {"peephole": True}),
        (GRU, {"cell_clip": 1.0}),
        (GRU, {"forget_bias": 1.0}),
        (GRU, {"output_activation": "tanh"}),
        (LSTM, {"reset_after": True}),
        (LSTM, {"nonlinearity": "tanh"}),
        (MinGRU, {"gate_activation": "sigmoid"}),
        (MinGRU, {"reset_after": True}),
        (RNN, {"activation": "tanh"}),
        (RNN, {"chrono": (2, 9)}),
        (RNN, {"proj_size": 2}),
    ):
        with pytest.raises(TypeError, match=next(iter(options))):
            make(2, 3, **options)


@pytest.mark.parametrize("sizes", [(2**40, 2**40), (1, 2**31, 2**20), (2**62, 1), (2, 3, 2**62)])
@pytest.mark.parametrize("make", EVERY)
def test_sizes_beyond_memory(make: Any, sizes: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, MemoryError)):
        make(*sizes)
    with pytest.raises((ValueError, MemoryError)):
        LSTM(2, 2**20, proj_size=2**60)


# ---- Parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "name", "shape"),
    [
        (LSTM(2, 3, proj_size=4), "weight_hr_l0", (3, 4)),
        (LSTM(2, 3, proj_size=4), "weight_hh_l0", (12, 3)),
        (LSTM(2, 3, peephole=True), "peephole_l0", (3, 3)),
        (LSTM(2, 3, peephole=True, coupled=True), "peephole_l0", (9,)),
        (LSTM(2, 3, coupled=True), "bias_ih_l0", (12,)),
        (GRU(2, 3), "weight_ih_l0", (12, 2)),
        (MinGRU(2, 3), "weight_ih_l0", (9, 2)),
    ],
    ids=repr,
)
def test_parameters_of_wrong_shape(layer: Any, name: str, shape: tuple[int, ...]) -> None:
    before = layer.parameters()
    with refuses(ValueError, name, shape, layer.parameters()[name].shape):
        setattr(layer, name, np.zeros(shape, np.float32))
    with refuses(ValueError, name):
        layer.load_state_dict(layer.state_dict() | {name: np.zeros(shape, np.float32)})
    assert all(same_bits(value, before[key]) for key, value in layer.parameters().items())


def test_parameters_that_a_layer_does_not_have() -> None:
    with refuses(KeyError, "bias_hh_l0"):
        MinGRU(2, 3).load_state_dict(MinGRU(2, 3).state_dict() | {"bias_hh_l0": np.zeros(6)})
    with refuses(KeyError, "weight_hr_l0"):
        LSTM(2, 3, proj_size=3).load_state_dict(LSTM(2, 3).state_dict())


def test_states_of_a_projection() -> None:
    layer, x = LSTM(2, 3, proj_size=4), np.zeros((5, 2), np.float32)
    h, c = np.zeros((1, 4), np.float32), np.zeros((1, 3), np.float32)
    for state, fact, shape in (((c, c), "h", (1, 4)), ((h, h), "c", (1, 3))):
        with unharmed(layer, x), refuses(ValueError, "state", fact, shape):
            layer(x, state)
        _, _, tape = layer.forward_train(x)
        with refuses(ValueError, "dstate", "d" + fact, shape):
            layer.backward(tape, None, state)
    stream = layer.stream()
    with refuses(ValueError, "state", (1, 1, 4)):
        stream.state = (c[None], c[None])


def test_streams_read_forwards() -> None:
    for make in EVERY:
        with refuses(ValueError, "stream", "backwards"):
            make(2, 3, go_backwards=True).stream()


# ---- Calls ------------------------------------------------------------------------------------

STEPS, ROWS = 4, 3
X = np.random.default_rng(0).standard_normal((STEPS, ROWS, 2)).astype(np.float32)
TRUE = np.ones((STEPS, ROWS), bool)

BAD_FORMS: list[tuple[dict[str, Any], str]] = [
    ({"lengths": [1, 2]}, "lengths"),
    ({"lengths": [1, 2, 3, 4]}, "lengths"),
    ({"lengths": 3}, "lengths"),
    ({"lengths": [[1, 2, 3]]}, "lengths"),
    ({"lengths": [1, 2, 5]}, "lengths"),
    ({"lengths": [1, -1, 3]}, "lengths"),
    ({"lengths": [1.0, 2.0, 3.0]}, "lengths"),
    ({"lengths": [True, True, True]}, "lengths"),
    ({"lengths": ["1", "2", "3"]}, "lengths"),
    ({"lengths": "123"}, "lengths"),
    ({"lengths": [2**70, 1, 1]}, "lengths"),
    ({"lengths": np.array([2**63, 1, 1], np.uint64)}, "lengths"),
    ({"lengths": np.ma.masked_array([1, 2, 3])}, "lengths"),
    *(({name: TRUE.T}, name) for name in ("reset", "mask")),
    *(({name: TRUE[:, 0]}, name) for name in ("reset", "mask")),
    *(({name: TRUE[None]}, name) for name in ("reset", "mask")),
    *(({name: TRUE[:2]}, name) for name in ("reset", "mask")),
    *(({name: TRUE.astype(int)}, name) for name in ("reset", "mask")),
    *(({name: TRUE.astype(np.float32)}, name) for name in ("reset", "mask")),
    *(({name: True}, name) for name in ("reset", "mask")),
    *(({name: "yes"}, name) for name in ("reset", "mask")),
    ({"mask": TRUE, "lengths": [1, 2, 3]}, "mask"),
    ({"mask": TRUE, "reset": TRUE}, "mask"),
    ({"zero_output_for_mask": 1}, "zero_output_for_mask"),
    ({"zero_output_for_mask": "no", "mask": TRUE}, "zero_output_for_mask"),
    ({"mask": TRUE, "zero_output_for_mask": None}, "zero_output_for_mask"),
]


@pytest.mark.parametrize(("options", "name"), BAD_FORMS)
@pytest.mark.parametrize("stack", [{}, {"num_layers": 2, "bidirectional": True, "dropout": 0.5}])
def test_calls(options: dict[str, Any], name: str, stack: dict[str, Any]) -> None:
    layer = LSTM(2, 3, **stack)
    out = np.full((STEPS, ROWS, 3 * (1 + layer.bidirectional)), 7, np.float32)
    for run in (layer, layer.forward_train):
        with unharmed(layer, X, out), refuses((TypeError, ValueError), name):
            run(X, out=out, **options)


@pytest.mark.parametrize("options", [{"lengths": [1, 2, 3]}, {"reset": TRUE}, {"mask": TRUE}])
def test_other_arguments_are_still_checked(options: dict[str, Any]) -> None:
    layer = GRU(2, 3)
    y = np.zeros((STEPS, ROWS, 3), np.float32)
    for run in (layer, layer.forward_train):
        with unharmed(layer, X), refuses(TypeError, "x", "float64"):
            run(X.astype(np.float64), **options)
        with unharmed(layer, X), refuses(ValueError, "x"):
            run(X[..., :1], **options)
        with unharmed(layer, X), refuses(ValueError, "state"):
            run(X, np.zeros((1, 2, 3), np.float32), **options)
        with unharmed(layer, X), refuses(ValueError, "out"):
            run(X, out=y[:2], **options)
        with unharmed(layer, X), refuses(TypeError, "out"):
            run(X, out=y.astype(np.float64), **options)
    layer = GRU(3, 3)
    for run in (layer, layer.forward_train):
        with unharmed(layer, y), refuses(ValueError, "out"):
            run(y, out=y, **options)


def test_lengths_of_a_layer_that_goes_backwards() -> None:
    layer = GRU(2, 3, go_backwards=True)
    for run in (layer, layer.forward_train):
        with unharmed(layer, X), refuses(ValueError, "lengths"):
            run(X, lengths=[1, 2, 3])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lengths": [1, 2, 3]}, "lengths"),
        ({"reset": TRUE}, "reset"),
        ({"mask": TRUE}, "mask"),
        ({}, "dropout"),
    ],
)
@pytest.mark.parametrize("checkpoint", [2, "auto"])
def test_checkpoints_together_with(options: dict[str, Any], name: str, checkpoint: Any) -> None:
    layer = GRU(2, 3, 2, dropout=0.0 if options else 0.5)
    with unharmed(layer, X), refuses(ValueError, "checkpoint", name):
        layer.forward_train(X, checkpoint=checkpoint, **options)


@pytest.mark.parametrize("rng", ["seed", -1, 1.5, [1.5], object()])
def test_rng(rng: Any) -> None:
    for layer in (GRU(2, 3), GRU(2, 3, 2, dropout=0.5)):
        with unharmed(layer, X), refuses((TypeError, ValueError), "rng"):
            layer.forward_train(X, rng=rng)


def test_leaky_units_and_streams_take_no_options() -> None:
    for option in ("go_backwards", "dropout", "clip"):
        with pytest.raises(TypeError, match=option):
            fastrnn.Leaky(3, **{option: 0.5})
    with pytest.raises(TypeError):
        GRU(2, 3).stream().step(np.zeros(2, np.float32), lengths=[1])


def test_refused_layers_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with refuses(ValueError, "dropout"):
            LSTM(2, 3, dropout=2.0)
