"""Keras 3: layers, arrays and files, by what Keras computes."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from convert_support import (
    HIDDEN,
    INPUTS,
    ROWS,
    STEPS,
    assert_equal_outputs,
    draw_call,
    drawn,
    randomized,
)
from support import refuses, same_bits

import fastrnn.convert as fc
from fastrnn import GRU, LSTM, RNN, Leaky, LeakyRNN, MinGRU

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
from keras import layers

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
    assert_equal_outputs(ours(x, state), expected, dtype)

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
    assert_equal_outputs(run_keras(theirs, x, state), random(x, state), dtype)


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations_of_keras(function: str, rng: np.random.Generator) -> None:
    for make in (layers.LSTM, layers.GRU):
        theirs = built(make, rng, activation=function, recurrent_activation="sigmoid")
        ours = fc.from_keras(theirs)
        x, state = draw_call(ours, rng)
        assert_equal_outputs(ours(x, state), run_keras(theirs, x, state), "float64")
    theirs = built(layers.GRU, rng, recurrent_activation=function)
    ours = fc.from_keras(theirs)
    x, state = draw_call(ours, rng)
    x, state = x / 8, state / 8  # gates above 1 would let the state grow without bound
    y, _ = ours(x, state)
    assert_equal_outputs((y, y), (run_keras(theirs, x, state)[0],) * 2, "float64")


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
    assert_equal_outputs(ours(x, state), run_keras(theirs, x, state), "float64")
    mask = rng.random((ROWS, STEPS)) < 0.6
    mask[0, 0] = False
    # A Bidirectional of Keras always asks its layers for zeros.
    zeros = zero_output or way == "both"
    actual = ours(x, state, mask=mask, zero_output_for_mask=zeros)
    assert_equal_outputs(actual, run_keras(theirs, x, state, mask=mask), "float64")


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
    assert_equal_outputs((actual, actual), (keras.ops.convert_to_numpy(y),) * 2, "float64")
    with refuses(ValueError, "index", 1, 2):
        fc.to_keras(ours, 2)
    with refuses(ValueError, "index"):
        fc.to_keras(ours, -1)
    with refuses(TypeError, "index"):
        fc.to_keras(ours, "0")


# ---- What is refused --------------------------------------------------------------------------


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
            lambda: layers.Bidirectional(layers.GRU(3, go_backwards=True)),
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
NAMES = {"activation": "tanh", "recurrent_activation": "sigmoid"}


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
    ],
)
def test_what_keras_does_not_have(layer: Any, fact: str) -> None:
    with refuses(ValueError, fact, "Keras"):
        fc.to_keras(layer)


# ---- Files ------------------------------------------------------------------------------------


def make_model() -> Any:
    """A model with recurrent layers of every kind, some in a model of their own."""
    inner = keras.Sequential(
        [
            keras.Input((None, 2 * HIDDEN)),
            layers.SimpleRNN(HIDDEN, return_sequences=True, activation="relu", name="same"),
            layers.TimeDistributed(layers.Dense(3), name="each"),
        ],
        name="inner",
    )
    x = keras.Input((None, INPUTS))
    options = {"return_sequences": True, "dropout": 0.2}
    lower = layers.LSTM(HIDDEN, name="same", recurrent_activation="hard_sigmoid", **options)(x)
    gru = layers.GRU(HIDDEN, reset_after=False, use_bias=False, go_backwards=True, **options)
    middle = layers.Bidirectional(layers.GRU(HIDDEN, **options), name="both")(lower)
    other = layers.RNN(layers.LSTMCell(2), name="generic")(x)
    return keras.Model(x, [inner(middle), gru(x), other])


def layer_at(model: Any, label: str) -> Any:
    for name in label.split("/"):
        model = model.get_layer(name)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, list[str]]:
    """A model, a folder with its files m.keras and m.weights.h5, and names of its layers."""
    folder, model = tmp_path_factory.mktemp("keras"), make_model()
    rng = np.random.default_rng(1)
    model.set_weights([drawn(rng, *w.shape, dtype=w.dtype) / 2 for w in model.get_weights()])
    model.save(folder / "m.keras")
    model.save_weights(folder / "m.weights.h5")
    gru = next(layer.name for layer in model.layers if isinstance(layer, layers.GRU))
    return model, folder, ["same", "inner/same", "both", gru]


def test_layers_of_a_keras_file(saved: Any, rng: np.random.Generator) -> None:
    model, folder, labels = saved
    for label in labels:
        ours = fc.from_keras_file(folder / "m.keras", layer=label)
        theirs = layer_at(model, label)
        x = drawn(rng, ROWS, STEPS, ours.input_size, dtype=np.float32)
        y = ours(x)[0]
        expected = keras.ops.convert_to_numpy(theirs(x))
        assert_equal_outputs((y, y), (expected, expected), "float32", label)
        assert fc.from_keras_file(folder / "m.keras", layer=label, dtype="float64").dtype == "f8"


def test_layers_of_a_file_of_weights(saved: Any) -> None:
    model, folder, labels = saved
    for label in labels:
        theirs = layer_at(model, label)
        inner = getattr(theirs, "forward_layer", theirs)
        given = known(inner.get_config())
        if label != "both" and hasattr(inner, "reset_after"):
            given["reset_after"] = inner.reset_after
        ours = fc.from_keras_file(folder / "m.weights.h5", layer=label, **given)
        assert repr(ours) == repr(fc.from_keras(theirs))
        for name, array in fc.from_keras(theirs).state_dict().items():
            assert same_bits(ours.state_dict()[name], array)
    with refuses(ValueError, "activation", "None"):
        fc.from_keras_file(folder / "m.weights.h5", layer="same")


def changed_keras(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """m.keras with another configuration."""
    target = folder / "changed.keras"
    with zipfile.ZipFile(folder / "m.keras") as source, zipfile.ZipFile(target, "w") as archive:
        config = json.loads(source.read("config.json"))
        change(config)
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", source.read("model.weights.h5"))
    return target


def test_files_of_keras_that_are_refused(saved: Any, tmp_path: Path) -> None:
    _, folder, labels = saved
    with refuses(ValueError, "layer", *labels):
        fc.from_keras_file(folder / "m.keras")
    with refuses(ValueError, "layer", "dense", "both"):
        fc.from_keras_file(folder / "m.keras", layer="dense")
    with refuses(ValueError, "activation", "keras"):
        fc.from_keras_file(folder / "m.keras", layer="same", activation="tanh")
    with pytest.raises(OSError):
        fc.from_keras_file(folder / "none.keras")
    garbage = tmp_path / "garbage.weights.h5"
    garbage.write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    with refuses(ValueError, "file"):
        fc.from_keras_file(garbage)
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("other.json", "{}")
    with refuses(ValueError, "config.json"):
        fc.from_keras_file(tmp_path / "empty.keras")

    def lower(config: dict[str, Any]) -> dict[str, Any]:
        return next(e for e in config["config"]["layers"] if e["config"]["name"] == "same")

    def both(config: dict[str, Any]) -> dict[str, Any]:
        return next(e for e in config["config"]["layers"] if e["config"]["name"] == "both")

    def named_both(config: dict[str, Any]) -> dict[str, Any]:
        return lower(config)["config"] | {"name": "both"}

    changes: list[tuple[str, Callable[[dict[str, Any]], Any], list[str]]] = [
        ("same", lambda c: lower(c)["config"].update(activation="gelu"), ["activation", "gelu"]),
        ("same", lambda c: lower(c)["config"].update(activation={"a": 1}), ["activation"]),
        ("same", lambda c: lower(c)["config"].pop("activation"), ["activation", "LSTM"]),
        ("same", lambda c: lower(c).update(registered_name="my>LSTM"), ["configuration", "same"]),
        ("same", lambda c: lower(c)["config"].update(name="another"), ["configuration", "same"]),
        ("same", lambda c: lower(c).update(class_name="GRU"), ["source", "LSTM"]),
        ("both", lambda c: both(c)["config"].update(merge_mode="mul"), ["merge_mode", "mul"]),
        ("both", lambda c: both(c)["config"].pop("backward_layer"), ["backward_layer"]),
        ("both", lambda c: both(c).update(class_name="GRU"), ["GRU", "activation"]),
        ("both", lambda c: both(c).update(lower(c) | {"config": named_both(c)}), ["fit", "both"]),
    ]
    for label, change, facts in changes:
        path = changed_keras(folder, change)
        with refuses(ValueError, *facts):
            fc.from_keras_file(path, layer=label)


def write_weights(path: Path, arrays: Any, place: str = "layers/gru/cell/vars") -> Path:
    with h5py.File(path, "w") as file:
        for k, array in enumerate(arrays):
            file[f"{place}/{k}"] = array
    return path


def test_files_of_weights_of_the_first_versions(tmp_path: Path) -> None:
    """They have no names: layers go by their paths."""
    gru = GRU(INPUTS, HIDDEN, seed=1)
    path = write_weights(tmp_path / "gru.weights.h5", fc.to_keras(gru))
    for layer in (None, "layers/gru"):
        found = fc.from_keras_file(path, layer=layer, **NAMES)
        assert np.array_equal(found.weight_hh_l0, gru.weight_hh_l0)


def test_weights_are_only_taken_from_the_file_itself(tmp_path: Path) -> None:
    arrays = fc.to_keras(GRU(INPUTS, HIDDEN))
    secret = write_weights(tmp_path / "secret.h5", arrays)
    path = tmp_path / "links.weights.h5"
    place = "layers/gru/cell/vars"
    with h5py.File(path, "w") as file:
        file[f"{place}/0"] = h5py.ExternalLink(str(secret), f"{place}/0")
        file[f"{place}/1"] = h5py.ExternalLink(str(secret), f"{place}/1")
    with refuses(ValueError, "layer", "none"):
        fc.from_keras_file(path, **NAMES)
    raw = tmp_path / "raw"
    raw.write_bytes(arrays[0].tobytes())
    layout = h5py.VirtualLayout(arrays[0].shape, "f4")
    layout[...] = h5py.VirtualSource(secret, f"{place}/0", arrays[0].shape)
    for kind in ("external", "virtual", "packed", "missing", "text"):
        with h5py.File(path, "w") as file:
            group = file.create_group(place)
            shape, external = arrays[0].shape, [(str(raw), 0, arrays[0].nbytes)]
            if kind == "external":
                group.create_dataset("0", shape, "f4", external=external)
            elif kind == "virtual":
                group.create_virtual_dataset("0", layout)
            elif kind == "packed":
                group.create_dataset("0", data=arrays[0], compression="gzip")
            elif kind == "missing":
                group.create_dataset("0", (2**40, 2**20), "f4")
            else:
                group.create_dataset("0", data=np.array([b"a"] * 9))
            group["1"] = arrays[1]
        with refuses(ValueError, f"{place}/0"):
            fc.from_keras_file(path, **NAMES)


def test_half_a_bidirectional_and_other_cells_are_refused(tmp_path: Path) -> None:
    arrays = fc.to_keras(GRU(INPUTS, HIDDEN))
    path = tmp_path / "half.weights.h5"
    write_weights(path, arrays, "layers/bidirectional/forward_layer/cell/vars")
    with refuses(ValueError, "bidirectional", "forward_layer"):
        fc.from_keras_file(path, **NAMES)
    write_weights(path, arrays)
    with h5py.File(path, "a") as file:
        file["layers/gru/cell/vars"].attrs["name"] = "my_cell"
    with refuses(ValueError, "layers/gru", "my_cell"):
        fc.from_keras_file(path, **NAMES)


def test_damaged_files_of_keras_raise_nothing_else(saved: Any, rng: np.random.Generator) -> None:
    _, folder, _ = saved
    for name, given in (("m.keras", {}), ("m.weights.h5", NAMES)):
        data = (folder / name).read_bytes()
        target = folder / f"damaged-{name}"
        outcomes = set()
        for _ in range(60):
            bad = bytearray(data[: int(rng.integers(len(data)))] if rng.random() < 0.3 else data)
            for at in rng.integers(len(bad), size=int(rng.integers(1, 20))):
                bad[at] = rng.integers(256)
            target.write_bytes(bytes(bad))
            try:
                fc.from_keras_file(target, layer="same", **given)
                outcomes.add("read")
            except ValueError:
                outcomes.add("refused")
        assert "refused" in outcomes
