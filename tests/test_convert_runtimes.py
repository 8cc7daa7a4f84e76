"""Conversions from and to OpenVINO and oneDNN, by what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
from convert_support import HIDDEN, INPUTS, ROWS, STEPS, assert_equal_outputs, drawn, randomized
from onednn_witness import OneDNN
from openvino import opset13
from support import refuses, same_bits, unpack

import fastrnn.convert as fc
from fastrnn import GRU, LSTM, RNN, DilatedRNN, Leaky, LeakyRNN, MinGRU

# ---- OpenVINO ---------------------------------------------------------------------------------

SEQUENCES = {
    LSTM: opset13.lstm_sequence,
    GRU: opset13.gru_sequence,
    RNN: opset13.rnn_sequence,
}


def run_openvino(kind: type, weights: Any, x: np.ndarray, state: Any, **attributes: Any) -> Any:
    """The operation's outputs and final states, in the shapes of a layer with batch_first."""
    inputs = [x, *(np.ascontiguousarray(s.swapaxes(0, 1)) for s in unpack(state))]
    parameters = [opset13.parameter(list(a.shape), np.float32) for a in inputs]
    lengths = opset13.constant(np.full(len(x), x.shape[1], np.int64))
    node = SEQUENCES[kind](
        *parameters,
        lengths,
        *map(opset13.constant, weights),
        hidden_size=weights[1].shape[2],
        direction=("forward", "bidirectional")[len(weights[0]) - 1],
        **attributes,
    )
    model = openvino.Model(node.outputs(), parameters)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    compiled = openvino.Core().compile_model(model, "CPU", exact)
    y, *final = [np.array(value) for value in compiled(inputs).values()]
    states = tuple(each.swapaxes(0, 1) for each in final)
    joined = y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
    return joined, states if len(states) > 1 else states[0]


OPENVINO: dict[str, tuple[type, dict[str, Any], dict[str, Any]]] = {
    "lstm": (LSTM, {}, {}),
    "lstm clip": (LSTM, {"clip": 0.3}, {"clip": 0.3}),
    "lstm functions": (
        LSTM,
        {"gate_activation": "tanh", "activation": "relu", "output_activation": "sigmoid"},
        {"activations": ["tanh", "relu", "sigmoid"]},
    ),
    "gru": (GRU, {}, {"linear_before_reset": True}),
    "gru before": (GRU, {"reset_after": False}, {}),
    "gru functions": (
        GRU,
        {"gate_activation": "tanh", "activation": "sigmoid", "clip": 0.4},
        {"activations": ["tanh", "sigmoid"], "clip": 0.4, "linear_before_reset": True},
    ),
    "rnn": (RNN, {}, {}),
    "rnn relu": (
        RNN,
        {"nonlinearity": "relu", "clip": 0.5},
        {"activations": ["relu"], "clip": 0.5},
    ),
}


@pytest.mark.parametrize("name", OPENVINO)
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_openvino_and_back(name: str, two: bool, bias: bool, rng: np.random.Generator) -> None:
    kind, options, attributes = OPENVINO[name]
    layer = randomized(
        kind(INPUTS, HIDDEN, bidirectional=two, bias=bias, batch_first=True, **options), rng
    )
    x = drawn(rng, ROWS, STEPS, INPUTS, dtype=np.float32)
    arrays = tuple(drawn(rng, *shape, dtype=np.float32) for shape in layer._state_shapes((ROWS,)))
    state = arrays if len(arrays) > 1 else arrays[0]
    weights = fc.to_openvino(layer)
    assert_equal_outputs(
        layer(x, state), run_openvino(kind, weights, x, state, **attributes), "float32"
    )
    # Random arrays of its own, not those of a layer.
    weights = tuple(drawn(rng, *w.shape, dtype=np.float32) / 2 for w in weights)
    known = {key: value for key, value in attributes.items() if key != "linear_before_reset"}
    direction = "bidirectional" if two else "forward"
    imported = fc.from_openvino(*weights, direction=direction, **known)
    assert_equal_outputs(
        imported(x, state), run_openvino(kind, weights, x, state, **attributes), "float32"
    )
    assert all(map(same_bits, fc.to_openvino(imported), weights))


def test_a_stack_is_one_operation_for_each_layer(rng: np.random.Generator) -> None:
    layer = randomized(GRU(INPUTS, HIDDEN, 2, bidirectional=True, dtype="float64"), rng)
    for index, inputs in enumerate((INPUTS, 2 * HIDDEN)):
        weights = fc.to_openvino(layer, index)
        single = fc.from_openvino(*weights)
        assert single.input_size == inputs
        for name, array in single.state_dict().items():
            if name.startswith("weight"):
                assert same_bits(array, layer.state_dict()[name.replace("_l0", f"_l{index}")])
    with refuses(ValueError, "index", 1, 2):
        fc.to_openvino(layer, 2)


def openvino_arrays(gates: int, directions: int = 1, **changes: Any) -> dict[str, Any]:
    rows = gates * 4
    arrays = {
        "W": np.ones((directions, rows, 3)),
        "R": np.ones((directions, rows, 4)),
        "B": np.ones((directions, rows)),
    }
    return arrays | changes


@pytest.mark.parametrize(
    ("error", "given", "facts"),
    [
        (ValueError, openvino_arrays(2), ["R", (1, 8, 4)]),
        (ValueError, openvino_arrays(4, 3), ["direction", 3]),
        (ValueError, openvino_arrays(4, direction="reverse"), ["direction", "reverse", "turned"]),
        (ValueError, openvino_arrays(4, direction="bidirectional"), ["direction", "forward"]),
        (ValueError, openvino_arrays(4, 2, direction="forward"), ["direction", "bidirectional"]),
        (ValueError, openvino_arrays(4, W=np.ones((1, 12, 3))), ["W", (1, 12, 3)]),
        (ValueError, openvino_arrays(4, W=np.ones((16, 3))), ["W", (16, 3)]),
        (ValueError, openvino_arrays(4, B=np.ones((1, 20))), ["B", (1, 20)]),
        (ValueError, openvino_arrays(3, B=np.ones((1, 24))), ["B", (1, 24)]),
        (ValueError, openvino_arrays(3, B=np.float64(1)), ["B", ()]),
        (ValueError, openvino_arrays(4, R=np.ones((1, 16, 0))), ["R", (1, 16, 0)]),
        (ValueError, openvino_arrays(4, activations=["tanh"]), ["activations", 3]),
        (ValueError, openvino_arrays(1, activations=["elu"]), ["activations", "elu"]),
        (ValueError, openvino_arrays(4, clip=-1.0), ["clip"]),
        (TypeError, openvino_arrays(4, B=np.ones((1, 16), "f")), ["B", "float32"]),
        (TypeError, openvino_arrays(4, dtype="float32"), ["W", "float64"]),
    ],
)
def test_what_is_refused_of_openvino(error: type, given: Any, facts: list[Any]) -> None:
    with refuses(error, *facts):
        fc.from_openvino(**given)


UNLIKE_OTHERS = [
    (MinGRU(3, 4), "MinGRU"),
    (LeakyRNN(3, 4), "LeakyRNN"),
    (Leaky(3), "Leaky"),
    (LSTM(3, 4, coupled=True), "coupled"),
    (LSTM(3, 4, cell_clip=1.0), "cell_clip"),
    (RNN(3, 4, nonlinearity="softsign"), "softsign"),
    (GRU(3, 4, gate_activation="hard_sigmoid"), "gate_activation"),
    (RNN(3, 4, go_backwards=True), "go_backwards"),
    (LSTM(3, 4, delays=(1, 8)), "delays"),
    (RNN(3, 4, periods=(1, 2)), "periods"),
    (DilatedRNN("gru", 3, 4, (1, 2)), "dilations"),
]


@pytest.mark.parametrize(
    ("layer", "fact"),
    [
        *UNLIKE_OTHERS,
        (LSTM(3, 4, proj_size=2), "proj_size"),
        (LSTM(3, 4, peephole=True), "peephole"),
    ],
)
def test_what_openvino_does_not_have(layer: Any, fact: str) -> None:
    with refuses(ValueError, fact, "OpenVINO"):
        fc.to_openvino(layer)


# ---- oneDNN -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onednn() -> OneDNN:
    return OneDNN()


ONEDNN: dict[str, tuple[str, type, dict[str, Any], dict[str, Any]]] = {
    "lstm": ("lstm", LSTM, {}, {}),
    "lstm peephole": ("lstm", LSTM, {"peephole": True}, {}),
    "lstm projection": ("lstm", LSTM, {"proj_size": 3}, {}),
    "gru": ("gru", GRU, {"reset_after": False}, {}),
    "lbr_gru": ("lbr_gru", GRU, {}, {}),
    "rnn tanh": ("vanilla_rnn", RNN, {}, {"activation": "tanh"}),
    "rnn relu": ("vanilla_rnn", RNN, {"nonlinearity": "relu"}, {"activation": "relu"}),
    "rnn leaky": (
        "vanilla_rnn",
        RNN,
        {"nonlinearity": ("leaky_relu", 0.3)},
        {"activation": "relu", "alpha": 0.3},
    ),
    "rnn sigmoid": ("vanilla_rnn", RNN, {"nonlinearity": "sigmoid"}, {"activation": "logistic"}),
}


def run_onednn(
    engine: OneDNN, kind: str, arrays: dict[str, np.ndarray], x: np.ndarray, state: Any, **how: Any
) -> Any:
    """The primitive's outputs and final states in the shapes of a layer."""
    weights = {name.removeprefix("weights_"): array for name, array in arrays.items()}
    lead = arrays["bias"].shape[:2]
    states = [each.reshape(*lead, *each.shape[1:]) for each in unpack(state)]
    options = {"direction": "concat"} if lead[1] == 2 else {}
    y, *final = engine.run(kind, x, weights, h=states[0], c=states[-1], **options, **how)
    flat = tuple(each.reshape(-1, *each.shape[2:]) for each in final)
    return y, flat if len(flat) > 1 else flat[0]


@pytest.mark.parametrize("name", ONEDNN)
@pytest.mark.parametrize("layout", ["ldigo", "ldgoi"])
@pytest.mark.parametrize("stack", ["one", "two directions", "two layers"])
@pytest.mark.parametrize("bias", [False, True])
def test_onednn_and_back(
    name: str, layout: str, stack: str, bias: bool, onednn: OneDNN, rng: np.random.Generator
) -> None:
    kind, make, options, how = ONEDNN[name]
    options = options | {"bias": bias, "bidirectional": stack == "two directions"}
    inputs, layers = INPUTS, 1
    if stack == "two layers":
        inputs, layers = options.get("proj_size", HIDDEN), 2
    layer = randomized(make(inputs, HIDDEN, layers, **options), rng)
    x = drawn(rng, STEPS, ROWS, inputs, dtype=np.float32)
    arrays = tuple(drawn(rng, *shape, dtype=np.float32) for shape in layer._state_shapes((ROWS,)))
    state = arrays if len(arrays) > 1 else arrays[0]
    weights = fc.to_onednn(layer, layout=layout)
    expected = run_onednn(onednn, kind, weights, x, state, layout=layout, **how)
    assert_equal_outputs(layer(x, state), expected, "float32")
    # Random arrays of its own, not those of a layer.
    weights = {key: drawn(rng, *w.shape, dtype=np.float32) / 2 for key, w in weights.items()}
    given = {"activation": layer.nonlinearity} if make is RNN else {}
    imported = fc.from_onednn(**weights, layout=layout, **given)
    expected = run_onednn(onednn, kind, weights, x, state, layout=layout, **how)
    assert_equal_outputs(imported(x, state), expected, "float32")
    back = fc.to_onednn(imported, layout=layout)
    assert list(back) == list(weights)
    assert all(same_bits(back[key], array) for key, array in weights.items())


def onednn_arrays(
    gates: int, layers: int = 1, directions: int = 1, inputs: int = 4, **changes: Any
) -> dict[str, Any]:
    lead = (layers, directions)
    arrays = {
        "weights_layer": np.ones((*lead, inputs, gates, 4)),
        "weights_iter": np.ones((*lead, 4, gates, 4)),
        "bias": np.ones((*lead, gates, 4)),
    }
    return arrays | changes


@pytest.mark.parametrize(
    ("error", "given", "facts"),
    [
        (ValueError, onednn_arrays(2), ["weights_layer", 8]),
        (ValueError, onednn_arrays(4, 2, 2), ["weights_layer", "stacks"]),
        (ValueError, onednn_arrays(4, 2, 1, 3), ["weights_layer", (2, 1, 3, 4, 4)]),
        (ValueError, onednn_arrays(4, 1, 3), ["direction", 3]),
        (
            ValueError,
            onednn_arrays(4, direction="unidirectional_right2left"),
            ["direction", "unidirectional_right2left", "turned"],
        ),
        (ValueError, onednn_arrays(4, 1, 2, direction="bidirectional_sum"), ["direction"]),
        (ValueError, onednn_arrays(4, layout="ldgio"), ["layout", "ldgio"]),
        (
            ValueError,
            onednn_arrays(4, inputs=3, layout="ldgoi"),
            ["weights_iter", (1, 1, 4, 4, 4)],
        ),
        (ValueError, onednn_arrays(4, bias=np.ones((1, 1, 5, 4))), ["bias", (1, 1, 5, 4)]),
        (ValueError, onednn_arrays(3, bias=np.ones((1, 1, 5, 4))), ["bias", (1, 1, 5, 4)]),
        (ValueError, onednn_arrays(3, bias=np.ones(12)), ["bias", 12]),
        (ValueError, onednn_arrays(4, weights_iter=np.ones((1, 1, 3, 4, 4))), ["weights_iter"]),
        (ValueError, onednn_arrays(3, activation="tanh"), ["activation"]),
        (ValueError, onednn_arrays(1), ["activation", "vanilla_rnn"]),
        (ValueError, onednn_arrays(1, activation="elu"), ["activation", "elu"]),
        (
            ValueError,
            onednn_arrays(3, weights_peephole=np.ones((1, 1, 3, 4))),
            ["weights_peephole", "lstm"],
        ),
        (
            ValueError,
            onednn_arrays(4, weights_peephole=np.ones((1, 1, 4, 3))),
            ["weights_peephole", (1, 1, 4, 3)],
        ),
        (
            ValueError,
            onednn_arrays(4, weights_projection=np.ones((1, 1, 3, 2))),
            ["weights_projection", (1, 1, 3, 2)],
        ),
        (
            ValueError,
            onednn_arrays(4, weights_projection=np.ones((1, 1, 4, 2))),
            ["weights_iter", (1, 1, 4, 4, 4)],
        ),
        (TypeError, onednn_arrays(4, bias=np.ones((1, 1, 4, 4), "f")), ["bias", "float32"]),
    ],
)
def test_what_is_refused_of_onednn(error: type, given: Any, facts: list[Any]) -> None:
    with refuses(error, *facts):
        fc.from_onednn(**given)


@pytest.mark.parametrize(
    ("layer", "fact"),
    [
        *UNLIKE_OTHERS,
        (GRU(3, 4, clip=1.0), "clip"),
        (LSTM(3, 4, activation="relu"), "activation"),
        (GRU(4, 4, 2, bidirectional=True), "bidirectional"),
        (GRU(3, 4, 2), "input_size"),
        (LSTM(4, 4, 2, proj_size=3), "input_size"),
    ],
)
def test_what_onednn_does_not_have(layer: Any, fact: str) -> None:
    with refuses(ValueError, fact):
        fc.to_onednn(layer)


def test_onednn_has_single_precision() -> None:
    with refuses(TypeError, "float32", "float64"):
        fc.to_onednn(GRU(3, 4, dtype="float64"))


def test_onednn_runs_the_directions_of_a_stack_apart(
    onednn: OneDNN, rng: np.random.Generator
) -> None:
    """Why a stack of two directions is refused: its upper layers do not read both."""
    shapes = {"layer": (2, 2, HIDDEN, 4, HIDDEN), "iter": (2, 2, HIDDEN, 4, HIDDEN)}
    weights = {k: drawn(rng, *s, dtype=np.float32) for k, s in shapes.items()}
    weights["bias"] = drawn(rng, 2, 2, 4, HIDDEN, dtype=np.float32)
    x = drawn(rng, STEPS, ROWS, HIDDEN, dtype=np.float32)
    zeros = np.zeros((2, 2, ROWS, HIDDEN), np.float32)
    both = onednn.run("lstm", x, weights, h=zeros, c=zeros, direction="concat")[0]
    forward = fc.from_onednn(
        weights["layer"][:, :1], weights["iter"][:, :1], weights["bias"][:, :1]
    )
    y = forward(x)[0]
    assert_equal_outputs((y, y), (both[..., :HIDDEN],) * 2, "float32")
