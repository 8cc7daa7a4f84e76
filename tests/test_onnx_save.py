"""Layers as ONNX models: ONNX Runtime runs them to equal results, and they come back the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_cases
import onnxruntime
import pytest
from support import assert_close, refuses, same_bits, unpack

import fastrnn
import fastrnn.onnx as fo
from fastrnn import GRU, LSTM, RNN

FUNCTIONS = {"gate_activation": ("hard_sigmoid", 0.25, 0.5), "activation": ("elu", 0.75)}
LAYERS: dict[str, Any] = {
    "lstm": lambda **o: LSTM(3, 5, **o),
    "lstm options": lambda **o: LSTM(3, 5, 2, peephole=True, clip=0.75, **o),
    "lstm coupled": lambda **o: LSTM(3, 5, 2, coupled=True, **o),
    "lstm coupled peephole": lambda **o: LSTM(3, 5, coupled=True, peephole=True, **o),
    "lstm functions": lambda **o: LSTM(
        3, 5, **FUNCTIONS, output_activation=("scaled_tanh", 1.5, 0.5), **o
    ),
    "lstm no bias": lambda **o: LSTM(3, 5, 3, bias=False, **o),
    "gru": lambda **o: GRU(3, 5, 3, **o),
    "gru before": lambda **o: GRU(3, 5, 2, reset_after=False, **o),
    "gru functions": lambda **o: GRU(3, 5, **FUNCTIONS, clip=0.5, **o),
    "rnn": lambda **o: RNN(3, 5, 2, **o),
    "rnn identity": lambda **o: RNN(3, 5, nonlinearity="identity", clip=0.5, **o),
    "gru mask": lambda **o: GRU(3, 5, 2, recurrent_mask=np.eye(5, dtype=bool), **o),
    "rnn relu": lambda **o: RNN(3, 5, 2, nonlinearity="relu", dropout=0.5, **o),
}
OPSETS = (7, 9, 10, 12, 13, 14, 17, 18, 21, 22)


def draw(layer: Any, seed: int = 0, steps: int = 6, rows: int = 3) -> tuple[Any, Any]:
    """x and a state."""
    rng = np.random.default_rng(seed)
    shape = (rows, steps) if layer.batch_first else (steps, rows)
    x = rng.standard_normal((*shape, layer.input_size)).astype(layer.dtype)
    size = (layer.num_layers * (1 + layer.bidirectional), rows, layer.hidden_size)
    states = [rng.uniform(-1, 1, size).astype(layer.dtype) for _ in range(2)]
    return x, tuple(states) if isinstance(layer, LSTM) else states[0]


def results(y: Any, state: Any) -> tuple[np.ndarray, ...]:
    return (y, *unpack(state))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_onnx_runtime_gives_equal_results(name: str, bidirectional: bool, batch_first: bool):
    layer = LAYERS[name](bidirectional=bidirectional, batch_first=batch_first, seed=1)
    x, state = draw(layer)
    feeds = {"x": x, **dict(zip("hc", unpack(state), strict=False))}
    expected = results(*layer(x, state))
    for opset in OPSETS:
        model = fo.to_model(layer, opset=opset, state=True)
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        assert_close(tuple(session.run(None, feeds)), expected, 2e-6, opset)
        assert session.get_outputs()[0].name == "y"


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["lstm options", "gru", "rnn"])
def test_lengths_are_an_input(name: str, bidirectional: bool):
    layer = LAYERS[name](bidirectional=bidirectional, batch_first=True, seed=1)
    x, _ = draw(layer)
    lengths = np.array([2, 6, 1], np.int32)
    model = fo.to_model(layer, lengths=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    actual = tuple(session.run(None, {"x": x, "lengths": lengths}))
    assert_close(actual, results(*layer(x, lengths=lengths)), 2e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_comes_back_with_the_same_bits(
    name: str, bidirectional: bool, batch_first: bool, dtype: str
):
    layer = LAYERS[name](bidirectional=bidirectional, batch_first=batch_first, seed=1, dtype=dtype)
    x, state = draw(layer)
    expected = results(*layer(x, state))
    for opset in (*OPSETS, onnx_cases.NEWEST):
        net = fo.load(fo.to_model(layer, opset=opset, state=True))
        assert len(net.parts) == 1
        assert net.batch_first == batch_first
        assert same_bits(results(*net(x, state)), expected)
        feeds = {"x": x, **dict(zip("hc", unpack(state), strict=False))}
        assert same_bits(tuple(map(np.ascontiguousarray, net.run(feeds).values())), expected)
        for parameter, array in layer.parameters().items():
            assert same_bits(net.layer.parameters()[parameter], array)


def test_without_a_state_it_is_zero(tmp_path):
    layer = LSTM(3, 5, 2, seed=0)
    x, _ = draw(layer)
    fo.save(layer, tmp_path / "lstm.onnx", opset=15)
    net = fo.load(tmp_path / "lstm.onnx")
    assert net.inputs == ("x",)
    assert net.outputs == ("y", "hn", "cn")
    assert same_bits(results(*net(x)), results(*layer(x)))
    assert onnx.load(tmp_path / "lstm.onnx").opset_import[0].version == 15


@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (1, 1)])
def test_any_number_of_steps_and_rows(shape: tuple[int, int]):
    layer = GRU(3, 5, 2, bidirectional=True, batch_first=True, seed=0)
    x = np.ones((*shape, 3), np.float32)
    net = fo.load(fo.to_model(layer))
    assert same_bits(results(*net(x)), results(*layer(x)))


@pytest.mark.parametrize(
    ("make", "error", "facts"),
    [
        (lambda: LSTM(3, 5, proj_size=2), ValueError, ["proj_size", 2]),
        (lambda: LSTM(3, 5, cell_clip=1.5), ValueError, ["cell_clip", 1.5]),
        (lambda: LSTM(3, 5, go_backwards=True), ValueError, ["go_backwards"]),
        (lambda: GRU(3, 5, go_backwards=True), ValueError, ["go_backwards"]),
        (lambda: fastrnn.LeakyRNN(3, 5), TypeError, ["layer", "LeakyRNN"]),
        (lambda: fastrnn.Leaky(5), TypeError, ["layer", "Leaky"]),
        (lambda: fastrnn.MinGRU(3, 5), TypeError, ["layer", "MinGRU"]),
        (lambda: np.ones(3), TypeError, ["layer", "float64"]),
        (lambda: GRU(3, 5, clip=0.1, dtype="float64"), ValueError, ["clip", 0.1]),
        (
            lambda: GRU(3, 5, gate_activation="hard_sigmoid", dtype="float64"),
            ValueError,
            ["activation_alpha", "hard_sigmoid", 1 / 6],
        ),
        (lambda: LSTM(3, 5, delays=(1, 8)), ValueError, ["delays", (1, 8)]),
        (lambda: GRU(3, 5, periods=(1, 2)), ValueError, ["periods", (1, 2)]),
        (lambda: fastrnn.DilatedRNN("rnn", 3, 5), TypeError, ["DilatedRNN"]),
    ],
)
def test_what_onnx_cannot_say_is_refused(make: Any, error: type, facts: list[Any], tmp_path):
    with refuses(error, *facts):
        fo.save(make(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "facts"),
    [
        ({"opset": 6}, ValueError, ["opset", 7, 6]),
        ({"opset": 1000}, ValueError, ["opset", 1000]),
        ({"opset": "17"}, TypeError, ["opset", "17"]),
        ({"lengths": 1}, TypeError, ["lengths"]),
        ({"state": None}, TypeError, ["state"]),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type, facts: list[Any]):
    with refuses(error, *facts):
        fo.to_model(RNN(3, 5), **options)
