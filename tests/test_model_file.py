"""Model files: what is saved is read back, and what others write and read is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from model_files import build, config_of, join, read, read_tensors, split
from support import (
    CELLS,
    DTYPES,
    Net,
    assert_close,
    bound,
    draw_net,
    one_of_each,
    picker,
    same_bits,
    stacked,
)

import fastrnn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


# ---- Reading what was written -----------------------------------------------------------------


def assert_same_layer(a: Any, b: Any, net: Net, rng: np.random.Generator) -> None:
    assert type(a) is type(b) and repr(a) == repr(b)
    for key in ("input_size", "hidden_size", "num_layers", "bidirectional", "batch_first", "dtype"):
        assert getattr(a, key) == getattr(b, key), key
    for key in ("bias", "nonlinearity", "form"):
        assert getattr(a, key, None) == getattr(b, key, None), key
    assert list(a.parameters()) == list(b.parameters())
    assert all(map(same_bits, a.parameters().values(), b.parameters().values()))
    x, state = net.input(rng, 5, 3), net.state(rng, 3)
    assert same_bits(a(x, state), b(x, state))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_what_is_saved_is_loaded(
    cell: str, dtype: str, path: Path, rng: np.random.Generator
) -> None:
    for _ in range(20):
        net = draw_net(picker(rng), cell, dtype=dtype)
        layer = net.build()
        layer.save(path)
        assert_same_layer(fastrnn.load(path), layer, net, rng)
        assert same_bits(
            tuple(fastrnn.load_tensors(path).values()), tuple(layer.parameters().values())
        )
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("net", stacked(batch_first=True, bias=False), ids=str)
def test_safetensors_reads_what_save_writes(net: Net, path: Path) -> None:
    layer = net.build()
    layer.save(str(path))
    arrays = safetensors.numpy.load_file(path)
    assert arrays.keys() == layer.parameters().keys()
    assert all(same_bits(arrays[name], array) for name, array in layer.parameters().items())
    with safetensors.safe_open(path, "numpy") as file:
        config = json.loads(file.metadata()["fastrnn"])
    expected = config_of(net)
    if net.cell == "leaky":  # it has no biases to have or not
        del expected["bias"], config["bias"]
    assert config == expected


@pytest.mark.parametrize("net", stacked(batch_first=True), ids=str)
def test_load_reads_what_safetensors_writes(net: Net, path: Path, rng: np.random.Generator) -> None:
    layer = net.build()
    metadata = {"fastrnn": json.dumps(config_of(net), indent=1), "é": 'of "others"\n\x01\\'}
    safetensors.numpy.save_file(layer.parameters(), path, metadata)
    assert_same_layer(fastrnn.load(path), layer, net, rng)


@pytest.mark.parametrize("net", one_of_each(), ids=str)
def test_most_of_the_architecture_has_defaults(
    net: Net, path: Path, rng: np.random.Generator
) -> None:
    layer = net.build()
    required = {"format", "cell", "input_size", "hidden_size"}
    config = {key: value for key, value in config_of(net).items() if key in required}
    assert_same_layer(read(path, build(config, layer.parameters())), layer, net, rng)


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_a_file_of_torch(cell: str, path: Path, rng: np.random.Generator) -> None:
    net = Net(cell, 3, 5, 2, bidirectional=True, batch_first=True)
    module = getattr(torch.nn, cell.upper())(3, 5, 2, bidirectional=True, batch_first=True)
    safetensors.torch.save_file(
        module.state_dict(), path, {"fastrnn": json.dumps(config_of(net)), "format": "pt"}
    )
    x = net.input(rng, 7, 4)
    expected = module(torch.from_numpy(x))[0].detach().numpy()
    layer = net.build()
    layer.load_state_dict(fastrnn.load_tensors(path))
    for loaded in (fastrnn.load(path), layer):
        assert_close(loaded(x)[0], expected, bound(net, 7))


def test_tensors_of_any_shape(path: Path, rng: np.random.Generator) -> None:
    shapes = [(), (0,), (1,), (3, 0, 2), (2, 3), (1,) * 8]
    arrays = {
        f"{dtype} of {shape} é": np.asarray(rng.standard_normal(shape), dtype)
        for dtype in DTYPES
        for shape in shapes
    }
    for file in (build(None, arrays), build({"not": "read"}, arrays)):
        loaded = read_tensors(path, file)
        assert loaded.keys() == arrays.keys()
        assert all(same_bits(loaded[name], arrays[name]) for name in arrays)
    assert read_tensors(path, join({})) == {}


def test_the_order_of_tensors_and_data_is_free(path: Path, rng: np.random.Generator) -> None:
    net = Net("lstm", 3, 5)
    layer = net.build()
    names = list(layer.parameters())
    for _ in range(5):
        shuffled = {name: layer.parameters()[name] for name in rng.permutation(names)}
        header, data = split(build(config_of(net), shuffled))
        header = {name: header[name] for name in rng.permutation(list(header))}
        assert_same_layer(read(path, join(header, data)), layer, net, rng)
        padded = json.dumps(header, indent=3) + 13 * " "
        assert_same_layer(read(path, join(padded, data)), layer, net, rng)


# ---- Paths ------------------------------------------------------------------------------------


def test_a_path_that_cannot_be_used(tmp_path: Path) -> None:
    for use in (fastrnn.load, fastrnn.load_tensors, fastrnn.RNN(3, 2).save):
        with pytest.raises(FileNotFoundError):
            use(tmp_path / "no folder" / "model.safetensors")
        with pytest.raises(OSError):
            use(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_save_replaces_the_file(path: Path) -> None:
    fastrnn.LSTM(30, 20).save(path)
    fastrnn.RNN(3, 2, seed=0).save(path)
    assert isinstance(fastrnn.load(path), fastrnn.RNN)
