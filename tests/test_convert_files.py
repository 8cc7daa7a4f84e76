"""Files that are converted: which layer comes out of which file, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from convert_support import HIDDEN, INPUTS, draw_call, randomized
from support import refuses, same_bits
from torch import nn

import fastrnn
import fastrnn.convert as fc
import fastrnn.onnx as fo
from fastrnn import GRU, LSTM, RNN


class Model(nn.Module):
    """A recurrent layer among others, with tensors that are no floats of 4 or 8 bytes."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(2, 2).bfloat16()


def same_layer(a: Any, b: Any) -> bool:
    """Equal in everything that files hold, and in what they compute."""
    x, state = draw_call(a, np.random.default_rng(0))
    return repr(a) == repr(b) and same_bits(a(x, state), b(x, state))


def test_files_of_fastrnn(tmp_path: Path, rng: np.random.Generator) -> None:
    layer = randomized(LSTM(INPUTS, HIDDEN, peephole=True, clip=2.0), rng)
    fc.save(layer, tmp_path / "net.safetensors")
    assert same_layer(fc.load(tmp_path / "net.safetensors"), layer)
    assert same_layer(fastrnn.load(tmp_path / "net.safetensors"), layer)
    for argument, value in (("prefix", "rnn"), ("batch_first", True), ("nonlinearity", "relu")):
        with refuses(ValueError, argument):
            fc.load(tmp_path / "net.safetensors", **{argument: value})


def test_state_dicts_in_files(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for module in (nn.LSTM(3, 4, 2, proj_size=2), nn.GRU(3, 4, bidirectional=True).double()):
        safetensors.torch.save_file(Model(module).state_dict(), path)
        expected = fc.from_torch(module, batch_first=True)
        for prefix in (None, "rnn", "rnn."):
            assert same_layer(fc.load(path, prefix=prefix, batch_first=True), expected)
    module = nn.RNN(3, 4, nonlinearity="relu")
    safetensors.torch.save_file(module.state_dict(), path)
    assert same_layer(fc.load(path, nonlinearity="relu"), fc.from_torch(module))
    with refuses(ValueError, "nonlinearity"):
        fc.load(path)
    with refuses(ValueError, "prefix", "rnn."):
        fc.load(path, prefix="rnn")
    safetensors.torch.save_file(Model(nn.GRU(3, 4).bfloat16()).state_dict(), path)
    with refuses(ValueError, "rnn.bias_hh_l0", "BF16"):
        fc.load(path)
    for data in (b"", b"\0" * 20, path.read_bytes()[:-3], b"\x02" + b"\0" * 7 + b"[]"):
        path.write_bytes(data)
        with pytest.raises(ValueError):
            fc.load(path)


@pytest.mark.parametrize(
    "layer",
    [
        LSTM(INPUTS, HIDDEN, 2, bidirectional=True),
        GRU(INPUTS, HIDDEN, reset_after=False, batch_first=True),
        RNN(INPUTS, HIDDEN, nonlinearity="elu", dtype="float64"),
    ],
)
def test_files_of_onnx(layer: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    randomized(layer, rng)
    fc.save(layer, tmp_path / "net.onnx")
    found = fc.load(tmp_path / "net.onnx")
    assert same_layer(found, layer)
    assert same_bits(fo.load(tmp_path / "net.onnx").layer.weight_hh_l0, layer.weight_hh_l0)


def test_a_node_of_a_graph(tmp_path: Path) -> None:
    path, stack = tmp_path / "net.onnx", GRU(3, 4, 2, seed=0)
    fo.save(stack, path)
    name = list(fo.layers(path))[1]
    upper = fc.load(path, layer=name)
    assert repr(upper) == "GRU(4, 4)"
    assert same_bits(upper.weight_hh_l0, stack.weight_hh_l1)
    with refuses(ValueError, "layer", name, "other"):
        fc.load(path, layer="other")
    graph = fo.to_model(GRU(3, 4, seed=1))
    # Something else behind it: not one layer as a whole, but there is only one that can be meant.
    graph.graph.node.append(onnx.helper.make_node("Softmax", ["y"], ["p"]))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("p", 1, None))
    onnx.save(graph, path)
    assert same_layer(fc.load(path), GRU(3, 4, seed=1))
    both = fo.to_model(stack)
    both.graph.node.append(onnx.helper.make_node("Softmax", ["y"], ["p"]))
    both.graph.output.append(onnx.helper.make_tensor_value_info("p", 1, None))
    onnx.save(both, path)
    with refuses(ValueError, "Softmax"):
        fc.load(path)


def test_nodes_with_more_than_a_layer_keeps_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = fo.to_model(GRU(3, 4))
    (node,) = (n for n in model.graph.node if n.op_type == "GRU")
    node.attribute.append(onnx.helper.make_attribute("direction", "reverse"))
    for attribute in [a for a in node.attribute if a.name == "direction"][:-1]:
        node.attribute.remove(attribute)
    onnx.save(model, path)
    for name in (None, node.name):
        with refuses(ValueError, node.name, "reverse"):
            fc.load(path, layer=name)
    model = fo.to_model(GRU(3, 4))
    (node,) = (n for n in model.graph.node if n.op_type == "GRU")
    state = np.ones((1, 2, 4), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(state, "h0"))
    while len(node.input) < 6:
        node.input.append("")
    node.input[5] = "h0"
    onnx.save(model, path)
    with refuses(ValueError, node.name, "state"):
        fc.load(path, layer=node.name)


def test_names_that_are_refused(tmp_path: Path) -> None:
    for name in ("net.pt", "net.PTH", "model.bin", "x.ckpt", "x.pkl", "x.pickle"):
        path = tmp_path / name
        torch.save(nn.LSTM(3, 4).state_dict(), path)
        with refuses(ValueError, "pickle", "safetensors.torch.save_file"):
            fc.load(path)
    for name in ("net", "model.h5", "model.tflite", "model.xml"):
        with refuses(ValueError, ".safetensors", ".onnx", ".keras", ".weights.h5"):
            fc.load(tmp_path / name)
        with refuses(ValueError, ".safetensors", ".onnx"):
            fc.save(GRU(3, 4), tmp_path / name)
    for name, argument, value in (
        ("net.onnx", "prefix", "rnn"),
        ("net.onnx", "activation", "tanh"),
        ("net.keras", "activation", "tanh"),
        ("net.keras", "reset_after", True),
        ("net.weights.h5", "batch_first", True),
        ("net.safetensors", "layer", "lstm"),
    ):
        with refuses(ValueError, argument, f".{name.split('.', 1)[1]}"):
            fc.load(tmp_path / name, **{argument: value})
    for name in ("net.onnx", "net.keras", "net.weights.h5", "net.safetensors"):
        with pytest.raises(OSError):
            fc.load(tmp_path / name)


def test_files_of_keras(tmp_path: Path, rng: np.random.Generator) -> None:
    """Those of Keras itself are tested with Keras."""
    layer = randomized(GRU(INPUTS, HIDDEN, batch_first=True), rng)
    path = tmp_path / "NET.Weights.H5"
    with h5py.File(path, "w") as file:
        for k, array in enumerate(fc.to_keras(layer)):
            file[f"layers/gru/cell/vars/{k}"] = array
    given = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    assert same_layer(fc.load(path, **given), layer)
    assert same_layer(fc.load(path, layer="layers/gru", reset_after=True, **given), layer)


@pytest.mark.parametrize(("name", "package"), [("net.onnx", "onnx"), ("net.weights.h5", "h5py")])
def test_packages_that_are_missing(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for module in [m for m in sys.modules if m == package or m.startswith("fastrnn.onnx")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(fastrnn, "onnx")
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / name
    path.write_bytes(b"")
    with refuses(ImportError, package, "pip"):
        fc.load(path)
