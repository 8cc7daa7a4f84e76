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
from model_files import (
    NEW_KEYS,
    build,
    config_of,
    join,
    old_config_of,
    read,
    read_tensors,
    split,
)
from nets import CELLS, DTYPES, PLAIN, Net, draw_net, one_of_each, picker, stacked
from support import assert_close, bound, same_bits

import fastrnn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


# ---- Reading what was written -----------------------------------------------------------------


SIZES = ("input_size", "hidden_size", "num_layers", "bidirectional", "batch_first", "dtype")
SOME_HAVE = ("bias", "nonlinearity", "form", "coupled", "reset_after", "activation", *NEW_KEYS)


def assert_same_layer(a: Any, b: Any, net: Net, rng: np.random.Generator) -> None:
    assert type(a) is type(b) and repr(a) == repr(b)
    for key in SIZES:
        assert getattr(a, key) == getattr(b, key), key
    for key in SOME_HAVE:
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
    # What is not used is not written: a file without options is one of any version.
    plain = config_of(Net(net.cell, net.input_size, net.hidden_size))
    assert config.keys() - NEW_KEYS == expected.keys() - set(NEW_KEYS)
    assert {key: plain[key] for key in NEW_KEYS} | config == expected
    assert all(config[key] != plain[key] for key in config.keys() & set(NEW_KEYS))


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


OLD_CELLS = ("lstm", "rnn", "leaky_rate", "leaky_potential", "leaky")


@pytest.mark.parametrize("cell", OLD_CELLS)
def test_a_file_from_before_there_were_options(
    cell: str, path: Path, rng: np.random.Generator
) -> None:
    for _ in range(5):
        activation = "tanh" if cell in ("lstm", "leaky") else picker(rng)(("tanh", "relu"))
        net = draw_net(picker(rng), cell, nonlinearity=activation, **PLAIN, proj_size=0)
        layer = net.build()
        config = old_config_of(net)
        assert len(config) == 9
        assert_same_layer(read(path, build(config, layer.parameters())), layer, net, rng)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "leaky"])
def test_the_direction_of_reading_is_kept(cell: str, path: Path, rng: np.random.Generator) -> None:
    net = Net(cell, 3, 5, 2)
    forward = net.build()
    config = config_of(net) | {"go_backwards": True}
    layer = read(path, build(config, forward.parameters()))
    assert layer.go_backwards
    x = net.input(rng, 7, 2)
    assert same_bits(layer(x), forward(np.ascontiguousarray(x[::-1])))
    layer.save(path)
    assert_same_layer(fastrnn.load(path), layer, net, rng)
    with safetensors.safe_open(path, "numpy") as file:
        assert json.loads(file.metadata()["fastrnn"])["go_backwards"] is True


def test_no_number_is_rounded(path: Path, rng: np.random.Generator) -> None:
    """Limits and parameters come back in every bit, whatever their size."""
    edges = [5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 1 / 3, 1.0]
    drawn = np.ldexp(rng.uniform(0.5, 1, 50), rng.integers(-1070, 1024, 50)).tolist()
    for number in edges + drawn:
        layer = fastrnn.LSTM(
            1,
            1,
            clip=number,
            cell_clip=number / 3 or number,
            activation=("affine", -number, number / 7),
            gate_activation=("scaled_tanh", number, -number),
            output_activation=("elu", number),
            dtype=np.float64,
        )
        layer.save(path)
        loaded = fastrnn.load(path)
        for name in NEW_KEYS:
            assert getattr(loaded, name) == getattr(layer, name), (name, number)
        assert loaded.activation == layer.activation


MODULES = [
    ("lstm", {}),
    ("lstm", {"proj_size": 3}),
    ("gru", {}),
    ("rnn", {}),
]


@pytest.mark.parametrize(("cell", "options"), MODULES, ids=str)
def test_a_file_of_torch(
    cell: str, options: dict[str, Any], path: Path, rng: np.random.Generator
) -> None:
    net = Net(cell, 3, 5, 2, bidirectional=True, batch_first=True, **options)
    module = getattr(torch.nn, cell.upper())(
        3, 5, 2, bidirectional=True, batch_first=True, **options
    )
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
