"""Files of Keras 3, read without Keras, by what Keras computes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from convert_support import HIDDEN, INPUTS, ROWS, STEPS, assert_equal_outputs, drawn
from keras_witness import NAMES, PRECISION, keras, known, layers
from support import refuses, same_bits

import fastrnn.convert as fc
from fastrnn import GRU


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
        assert_equal_outputs((y, y), (expected, expected), PRECISION, label)
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
