"""Options of constructors: what they set, how layers show, copy and save them."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from support import map_state, refuses, same_bits, unpack

import fastrnn
from fastrnn import GRU, LSTM, RNN, LeakyRNN, MinGRU

COMMON = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "bidirectional": False,
    "dropout": 0.0,
    "go_backwards": False,
    "dtype": np.float32,
    "seed": None,
}
STRUCTURE = {"delays": (1,), "periods": None, "group_sizes": None, "connectivity": "slower"}
MASKED = STRUCTURE | {"recurrent_mask": None}
DEFAULTS: dict[Any, dict[str, Any]] = {
    GRU: {
        **MASKED,
        "reset_after": True,
        "activation": "tanh",
        "gate_activation": "sigmoid",
        "clip": None,
        "chrono": None,
    },
    LSTM: {
        **MASKED,
        "proj_size": 0,
        "peephole": False,
        "coupled": False,
        "activation": "tanh",
        "gate_activation": "sigmoid",
        "output_activation": "tanh",
        "clip": None,
        "cell_clip": None,
        "chrono": None,
        "forget_bias": None,
    },
    MinGRU: STRUCTURE | {"activation": "identity", "clip": None, "chrono": None},
    RNN: MASKED | {"nonlinearity": "tanh", "clip": None},
    LeakyRNN: MASKED | {"nonlinearity": "tanh", "clip": None, "alpha": 0.9, "form": "rate"},
}

# A layer for every option, and for many at once.
VARIANTS: list[tuple[Any, dict[str, Any]]] = [
    (GRU, {}),
    (GRU, {"reset_after": False}),
    (GRU, {"activation": "relu", "gate_activation": ("hard_sigmoid", 0.2, 0.5)}),
    (GRU, {"clip": 0.75, "bias": False, "num_layers": 2, "bidirectional": True}),
    (GRU, {"go_backwards": True, "batch_first": True, "dtype": "float64"}),
    (LSTM, {"proj_size": 2, "num_layers": 2, "bidirectional": True}),
    (LSTM, {"proj_size": 9}),
    (LSTM, {"peephole": True}),
    (LSTM, {"coupled": True}),
    (LSTM, {"coupled": True, "peephole": True, "proj_size": 3, "num_layers": 2}),
    (LSTM, {"clip": 3.0, "cell_clip": 0.1}),
    (LSTM, {"activation": ("elu", 0.3), "output_activation": ("scaled_tanh", 1.7, 2 / 3)}),
    (LSTM, {"gate_activation": "hard_sigmoid", "output_activation": "softsign"}),
    (LSTM, {"output_activation": "identity", "go_backwards": True}),
    (MinGRU, {}),
    (MinGRU, {"activation": "tanh", "num_layers": 3, "bias": False}),
    (MinGRU, {"clip": 0.5, "bidirectional": True}),
    (RNN, {"nonlinearity": "identity"}),
    (RNN, {"nonlinearity": ("affine", -0.5, 0.1), "clip": 1e-3}),
    (RNN, {"nonlinearity": ("thresholded_relu", 0.25)}),
    (RNN, {"nonlinearity": "softplus", "dtype": "float64"}),
    (LeakyRNN, {"nonlinearity": ("leaky_relu", 0.3), "clip": 2.0}),
    (LeakyRNN, {"nonlinearity": "sigmoid", "form": "potential", "go_backwards": True}),
]


def variant_id(variant: Any) -> str:
    if isinstance(variant, dict):
        return ",".join(f"{k}={v}" for k, v in variant.items()) or "default"
    return variant.__name__


each_variant = pytest.mark.parametrize(("make", "options"), VARIANTS, ids=variant_id)


def outputs(layer: Any, seed: int = 0) -> Any:
    x = np.random.default_rng(seed).standard_normal((6, 2, layer.input_size))
    return layer((x.swapaxes(0, 1) if layer.batch_first else x).astype(layer.dtype))


def same_layer(a: Any, b: Any) -> bool:
    return (
        type(a) is type(b)
        and repr(a) == repr(b)
        and list(a.parameters()) == list(b.parameters())
        and all(same_bits(v, b.parameters()[k]) for k, v in a.parameters().items())
        and same_bits(outputs(a), outputs(b))
    )


# ---- Constructors -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", DEFAULTS, ids=lambda c: c.__name__)
def test_arguments_and_defaults(make: Any) -> None:
    parameters = inspect.signature(make).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert defaults == COMMON | DEFAULTS[make]
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["input_size", "hidden_size", "num_layers"]


ACTIVATIONS = [
    ("tanh", ("tanh", 0.0, 0.0)),
    (("relu",), ("relu", 0.0, 0.0)),
    (["identity"], ("identity", 0.0, 0.0)),
    (("sigmoid", 0.0, 0.0), ("sigmoid", 0.0, 0.0)),
    ("hard_sigmoid", ("hard_sigmoid", 1 / 6, 0.5)),
    (("hard_sigmoid", 0.2), ("hard_sigmoid", 0.2, 0.5)),
    (("hard_sigmoid", 0.2, 0.4), ("hard_sigmoid", 0.2, 0.4)),
    ("affine", ("affine", 1.0, 0.0)),
    (("affine", 0, -2), ("affine", 0.0, -2.0)),
    ("leaky_relu", ("leaky_relu", 0.01, 0.0)),
    (("leaky_relu", 0), ("leaky_relu", 0.0, 0.0)),
    ("thresholded_relu", ("thresholded_relu", 1.0, 0.0)),
    (("thresholded_relu", np.float32(0.5), 0), ("thresholded_relu", 0.5, 0.0)),
    ("scaled_tanh", ("scaled_tanh", 1.0, 1.0)),
    (("scaled_tanh", -1.5, 0), ("scaled_tanh", -1.5, 0.0)),
    ("elu", ("elu", 1.0, 0.0)),
    ("softsign", ("softsign", 0.0, 0.0)),
    ("softplus", ("softplus", 0.0, 0.0)),
]


@pytest.mark.parametrize(("given", "expected"), ACTIVATIONS)
def test_activations_are_normalised(given: Any, expected: tuple[str, float, float]) -> None:
    for make, name in (
        (RNN, "nonlinearity"),
        (LeakyRNN, "nonlinearity"),
        (MinGRU, "activation"),
        *((GRU, name) for name in ("activation", "gate_activation")),
        *((LSTM, name) for name in ("activation", "gate_activation", "output_activation")),
    ):
        layer = make(2, 3, **{name: given})
        found = getattr(layer, "activation" if name == "nonlinearity" else name)
        assert found == expected
        assert [type(value) for value in found] == [str, float, float]
        assert repr(make(2, 3, **{name: found})) == repr(layer)
        assert np.isfinite(outputs(layer)[0]).all()


def test_nonlinearity_is_what_was_given() -> None:
    for given in ("tanh", "elu", ("elu", 0.5), ("hard_sigmoid", 0.2, 0.5)):
        assert RNN(2, 3, nonlinearity=given).nonlinearity == given
    assert RNN(2, 3).activation == ("tanh", 0.0, 0.0)


def test_attributes() -> None:
    options = {"proj_size": 2, "peephole": True, "coupled": True, "clip": 3, "cell_clip": 0.5}
    options |= {"dropout": 0.25, "num_layers": 2, "go_backwards": True}
    layer = LSTM(3, 5, **options)
    assert {name: getattr(layer, name) for name in options} == options
    assert type(layer.clip) is float
    plain = LSTM(3, 5)
    assert (plain.clip, plain.cell_clip, plain.proj_size) == (None, None, 0)
    assert (GRU(3, 5).reset_after, GRU(3, 5, reset_after=False).reset_after) == (True, False)


SHAPES: list[tuple[Any, dict[str, Any], dict[str, tuple[int, ...]]]] = [
    (GRU, {}, {"weight_ih": (15, 3), "weight_hh": (15, 5), "bias_ih": (15,), "bias_hh": (15,)}),
    (GRU, {"bias": False, "reset_after": False}, {"weight_ih": (15, 3), "weight_hh": (15, 5)}),
    (
        LSTM,
        {"proj_size": 2, "peephole": True},
        {
            "weight_ih": (20, 3),
            "weight_hh": (20, 2),
            "bias_ih": (20,),
            "bias_hh": (20,),
            "weight_hr": (2, 5),
            "peephole": (15,),
        },
    ),
    (
        LSTM,
        {"coupled": True, "peephole": True, "bias": False},
        {"weight_ih": (15, 3), "weight_hh": (15, 5), "peephole": (10,)},
    ),
    (MinGRU, {}, {"weight_ih": (10, 3), "bias_ih": (10,)}),
    (MinGRU, {"bias": False}, {"weight_ih": (10, 3)}),
]


@pytest.mark.parametrize(("make", "options", "shapes"), SHAPES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_names_and_shapes_of_parameters(
    make: Any, options: dict[str, Any], shapes: dict[str, Any], bidirectional: bool
) -> None:
    layer = make(3, 5, 2, bidirectional=bidirectional, **options)
    width = (1 + bidirectional) * options.get("proj_size", 5)
    expected = {}
    for number in (0, 1):
        for end in ("", "_reverse")[: 1 + bidirectional]:
            for name, shape in shapes.items():
                above = number > 0 and name == "weight_ih"
                expected[f"{name}_l{number}{end}"] = (shape[0], width) if above else shape
    found = {name: array.shape for name, array in layer.parameters().items()}
    assert list(found.items()) == list(expected.items())


@each_variant
def test_initial_weights_are_uniform(make: Any, options: dict[str, Any]) -> None:
    layer = make(7, 40, **options, seed=2)
    limit = layer.dtype.type(40**-0.5)
    for name, values in layer.parameters().items():
        if not name.startswith("alpha"):
            assert 0.85 * limit < np.abs(values).max() <= limit, name
    assert same_layer(make(7, 40, **options, seed=2), layer)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["GRU", "LSTM", "RNN"])
def test_state_dicts_of_torch_load_as_they_are(name: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    for options in ({}, {"bias": False}, {"proj_size": 2}):
        if "proj_size" in options and name != "LSTM":
            continue
        module = getattr(torch.nn, name)(3, 5, 2, bidirectional=bidirectional, **options)
        layer = getattr(fastrnn, name)(3, 5, 2, bidirectional=bidirectional, **options)
        names = [(k, tuple(v.shape)) for k, v in module.state_dict().items()]
        assert [(k, v.shape) for k, v in layer.parameters().items()] == names
        layer.load_state_dict(module.state_dict())
        x = torch.randn(6, 2, 3)
        expected, _ = module(x)
        np.testing.assert_allclose(layer(x)[0], expected.detach().numpy(), rtol=0, atol=1e-6)


# ---- Shapes of calls, streams, tapes ----------------------------------------------------------


@each_variant
def test_shapes(make: Any, options: dict[str, Any]) -> None:
    layer = make(3, 5, **options)
    directions = 1 + layer.bidirectional
    size = options.get("proj_size", 5) if make is LSTM else 5
    parts = layer.num_layers * directions
    for batch in (None, 2):
        lead = (6,) if batch is None else (2, 6) if layer.batch_first else (6, 2)
        rows = () if batch is None else (2,)
        y, state, tape = layer.forward_train(np.ones((*lead, 3), layer.dtype))
        assert y.shape == (*lead, directions * size)
        shapes = [(parts, *rows, size), (parts, *rows, 5)][: 2 if make is LSTM else 1]
        assert [array.shape for array in unpack(state)] == shapes
        again, _ = layer(np.ones((*lead, 3), layer.dtype), state)
        assert again.shape == y.shape
        g = layer.backward(tape, y, state)
        assert [array.shape for array in unpack(g.state)] == shapes
        last = layer.backward(tape, y[:, -1] if batch and layer.batch_first else y[-1])
        assert last.x.shape == (*lead, 3)
        assert {k: v.shape for k, v in g.params.items()} == {
            k: v.shape for k, v in layer.parameters().items()
        }


@each_variant
def test_streams(make: Any, options: dict[str, Any], rng: np.random.Generator) -> None:
    layer = make(3, 5, **options)
    if layer.bidirectional or layer.go_backwards:
        with refuses(ValueError, "stream"):
            layer.stream()
        return
    x = rng.standard_normal((6, 2, 3)).astype(layer.dtype)
    state = map_state(lambda a: rng.uniform(-1, 1, a.shape).astype(a.dtype), layer(x)[1])
    y, final = layer(x, state)
    stream = layer.stream(2)
    assert [a.shape for a in unpack(stream.state)] == [a.shape for a in unpack(state)]
    stream.state = state
    assert same_bits(stream.state, state)
    assert same_bits(np.stack([stream.step(x_t) for x_t in x]), y)
    assert same_bits(stream.state, final)
    stream.reset()
    assert same_bits(stream.step(x[0]), layer(x[:1])[0][0].copy())


@each_variant
@pytest.mark.parametrize("checkpoint", [1, "auto"])
def test_checkpoints(
    make: Any, options: dict[str, Any], checkpoint: Any, rng: np.random.Generator
) -> None:
    layer = make(3, 5, **options)
    x = rng.standard_normal((2, 300, 3) if layer.batch_first else (300, 2, 3)).astype(layer.dtype)
    y, state, tape = layer.forward_train(x)
    short_y, short_state, short = layer.forward_train(x, checkpoint=checkpoint)
    assert same_bits((short_y, short_state), (y, state))
    dy = rng.standard_normal(y.shape).astype(layer.dtype)
    a, b = layer.backward(tape, dy, state), layer.backward(short, dy, state)
    assert same_bits(a.x, b.x)
    assert same_bits(a.state, b.state)
    assert all(same_bits(a.params[name], b.params[name]) for name in a.params)


def test_tapes_of_other_configurations_are_refused() -> None:
    x = np.ones((4, 3), np.float32)
    layers = [make(3, 5, **options) for make, options in VARIANTS]
    tapes = [
        (layer, layer.forward_train(x.astype(layer.dtype))[2])
        for layer in layers
        if not layer.bidirectional
    ]
    for layer in layers:
        for other, tape in tapes:
            if layer is not other:
                with refuses(ValueError, "tape"):
                    layer.backward(tape, None)


# ---- repr, copies, files ----------------------------------------------------------------------


REPRS = [
    (lambda: GRU(2, 3), "GRU(2, 3)"),
    (lambda: GRU(2, 3, 2, reset_after=False), "GRU(2, 3, reset_after=False, num_layers=2)"),
    (lambda: LSTM(2, 3, proj_size=1, coupled=True), "LSTM(2, 3, proj_size=1, coupled=True)"),
    (lambda: LSTM(2, 3, peephole=True, clip=3), "LSTM(2, 3, peephole=True, clip=3.0)"),
    (
        lambda: LSTM(2, 3, gate_activation=("hard_sigmoid", 0.2, 0.5), cell_clip=0.5),
        "LSTM(2, 3, gate_activation=('hard_sigmoid', 0.2, 0.5), cell_clip=0.5)",
    ),
    (
        lambda: LSTM(2, 3, activation="relu", output_activation="identity"),
        "LSTM(2, 3, activation='relu', output_activation='identity')",
    ),
    (
        lambda: LSTM(2, 3, 2, dropout=0.5, go_backwards=True, bias=False),
        "LSTM(2, 3, num_layers=2, bias=False, dropout=0.5, go_backwards=True)",
    ),
    (lambda: MinGRU(2, 3), "MinGRU(2, 3)"),
    (lambda: MinGRU(2, 3, activation="tanh"), "MinGRU(2, 3, activation='tanh')"),
    (lambda: RNN(2, 3, nonlinearity="elu"), "RNN(2, 3, nonlinearity='elu')"),
    (lambda: RNN(2, 3, nonlinearity=("elu", 1.0)), "RNN(2, 3, nonlinearity='elu')"),
    (lambda: RNN(2, 3, nonlinearity=("elu", 2)), "RNN(2, 3, nonlinearity=('elu', 2.0))"),
    (lambda: RNN(2, 3, clip=1), "RNN(2, 3, clip=1.0)"),
]


@pytest.mark.parametrize(("make", "text"), REPRS)
def test_repr(make: Callable[[], Any], text: str) -> None:
    assert repr(make()) == text


@each_variant
def test_repr_makes_the_layer_again(make: Any, options: dict[str, Any]) -> None:
    layer = make(3, 5, **options)
    names = {"float64": "float64", make.__name__: make}
    assert repr(eval(repr(layer), names)) == repr(layer)


@each_variant
def test_copies(make: Any, options: dict[str, Any]) -> None:
    layer = make(3, 5, **options)
    expected = outputs(layer)
    for twin in (
        copy.copy(layer),
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        pickle.loads(pickle.dumps(layer, protocol=2)),
    ):
        assert same_layer(twin, layer)
        x = np.ones((2, 4, 3) if layer.batch_first else (4, 2, 3), layer.dtype)
        tape = layer.forward_train(x)[2]
        assert twin.backward(tape, None).x.shape == x.shape
    assert same_bits(outputs(layer), expected)


def test_copies_keep_dropout() -> None:
    layer = LSTM(3, 5, 2, dropout=0.25)
    assert copy.copy(layer).dropout == pickle.loads(pickle.dumps(layer)).dropout == 0.25


@each_variant
def test_files(make: Any, options: dict[str, Any], tmp_path: Path) -> None:
    layer = make(3, 5, **options)
    layer.save(tmp_path / "model")
    assert same_layer(fastrnn.load(tmp_path / "model"), layer)


@pytest.mark.parametrize(("given", "expected"), ACTIVATIONS)
def test_activations_in_files(given: Any, expected: Any, tmp_path: Path) -> None:
    """With all bits of their parameters, also those that no short decimal has."""
    name, *parameters = expected
    odd = (name, *(value and value / 3 for value in parameters))
    for activation in (given, odd):
        layer = LSTM(2, 3, activation=activation, gate_activation=odd, output_activation=given)
        layer.save(tmp_path / "model")
        loaded = fastrnn.load(tmp_path / "model")
        for which in ("activation", "gate_activation", "output_activation"):
            assert getattr(loaded, which) == getattr(layer, which)


def described(layer: Any, folder: Path) -> dict[str, Any]:
    layer.save(folder / "model")
    with safetensors.safe_open(folder / "model", "np") as file:
        return json.loads(file.metadata()["fastrnn"])


def test_what_files_say(tmp_path: Path) -> None:
    plain = described(LSTM(3, 5), tmp_path)
    options = {"clip", "cell_clip", "proj_size", "peephole", "go_backwards"}
    options |= {"gate_activation", "output_activation"}
    assert not options & plain.keys()
    full = described(
        LSTM(
            3,
            5,
            proj_size=2,
            peephole=True,
            coupled=True,
            clip=3,
            cell_clip=0.1,
            gate_activation=("hard_sigmoid", 0.2, 0.5),
            output_activation="relu",
            go_backwards=True,
        ),
        tmp_path,
    )
    assert options <= full.keys()
    assert (full["cell"], full["proj_size"], full["peephole"]) == ("lstm_coupled", 2, True)
    assert (full["clip"], full["cell_clip"]) == ((3.0).hex(), (0.1).hex())
    assert full["gate_activation"] == f"hard_sigmoid({(0.2).hex()}, {(0.5).hex()})"
    assert (full["activation"], full["output_activation"]) == ("tanh", "relu")
    assert full["go_backwards"] is True
    assert described(GRU(3, 5), tmp_path)["cell"] == "gru"
    assert described(GRU(3, 5, reset_after=False), tmp_path)["cell"] == "gru_reset_before"
    assert described(MinGRU(3, 5), tmp_path)["activation"] == "identity"


# ---- Dropout ----------------------------------------------------------------------------------


def test_dropout_of_a_single_layer_warns() -> None:
    for make in (GRU, LSTM, MinGRU, RNN):
        with pytest.warns(UserWarning, match="dropout"):
            make(2, 3, dropout=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert GRU(2, 3, 2, dropout=0.5).dropout == 0.5
        assert GRU(2, 3, dropout=0).dropout == 0
