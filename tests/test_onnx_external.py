"""Data outside the file of a model: read from below one folder, and from nowhere else."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from support import refuses, same_bits

import fastrnn.onnx as fo
from fastrnn import GRU, LSTM

READ = pytest.mark.parametrize("read", [fo.load, fo.layers])


def weights(model: onnx.ModelProto) -> TensorProto:
    """W of the node."""
    return next(t for t in model.graph.initializer if t.name == "W_l0")


def external(**entries: Any) -> onnx.ModelProto:
    """The model with the data of W, 192 bytes, in another file."""
    model = fo.to_model(LSTM(3, 4, seed=0))
    w = weights(model)
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        w.external_data.add(key=key, value=str(value))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with data, beside a secret, with ways out of it."""
    (tmp_path / "secret").write_bytes(bytes(192))
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "data").write_bytes(struct.pack("<48f", *range(48)) + b"more")
    (folder / "below" / "data").write_bytes(struct.pack("<48f", *range(48)))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "inner").symlink_to(folder / "data")
    os.mkfifo(folder / "pipe")
    return folder


@READ
@pytest.mark.parametrize(
    "entries",
    [
        {"location": "data"},
        {"location": "data", "offset": 0, "length": 192, "checksum": "unchecked"},
        {"location": "data", "offset": 4},
        {"location": "below/data"},
        {"location": "./data"},
        {"location": "inner"},
    ],
    ids=str,
)
def test_data_inside_the_folder_is_read(read: Any, folder: Path, entries: dict[str, Any]):
    parts = read(external(**entries), external_data=folder)
    layer = parts.layer if read is fo.load else parts["lstm_l0"].layer
    assert layer.weight_ih_l0[0, 0] == (1 if entries.get("offset") else 0)


@READ
@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"location": ""},
        {"location": "."},
        {"location": "none"},
        {"location": "below"},
        {"location": "pipe"},
        {"location": "../secret"},
        {"location": "below/../../secret"},
        {"location": "..\\secret"},
        {"location": "link"},
        {"location": "linked/secret"},
        {"location": "/etc/passwd"},
        {"location": "data\0"},
        {"location": "data", "offset": 5},
        {"location": "data", "offset": -1},
        {"location": "data", "offset": "1e2"},
        {"location": "data", "offset": 2**63},
        {"location": "data", "offset": 10**17},
        {"location": "data", "offset": "9" * 5000},
        {"location": "data", "length": 191},
        {"location": "data", "length": 193},
        {"location": "data", "length": -192},
        {"location": "data", "unknown": 1},
    ],
    ids=lambda e: "-".join(map(str, e.values()))[:40],
)
def test_data_outside_the_folder_or_of_wrong_size_is_refused(
    read: Any, folder: Path, entries: dict[str, Any]
):
    with refuses(ValueError, "W_l0"):
        read(external(**entries), external_data=folder)


@READ
def test_no_folder_no_data(read: Any, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Not even from where the file or the program is."""
    monkeypatch.chdir(folder)
    path = folder / "model.onnx"
    path.write_bytes(external(location="data").SerializeToString())
    with refuses(ValueError, "W_l0", "external_data", "data"):
        read(path)
    with refuses(ValueError, "external_data", "none"):
        read(path, external_data=folder / "none")
    with refuses(TypeError, "external_data"):
        read(path, external_data=b"folder")
    with pytest.raises(TypeError):
        read(path, external_data=3)


@READ
def test_a_key_twice_is_refused(read: Any, folder: Path):
    model = external(location="data")
    weights(model).external_data.add(key="location", value="below/data")
    with refuses(ValueError, "W_l0", "location"):
        read(model, external_data=folder)


def test_data_outside_the_file_comes_from_a_named_folder(tmp_path: Path):
    layer = GRU(3, 40, seed=0)
    model = fo.to_model(layer)
    path = tmp_path / "gru.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="gru.data", size_threshold=0)
    x = np.ones((5, 2, 3), np.float32)
    assert same_bits(fo.load(path, external_data=tmp_path)(x)[0], layer(x)[0])
    assert same_bits(fo.layers(path, external_data=str(tmp_path))["gru_l0"](x)[0], layer(x)[0])
    with refuses(ValueError, "external_data", "gru.data"):
        fo.load(path)
