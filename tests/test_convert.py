"""Conversions from and to PyTorch, reservoirpy and snnTorch, by the outputs of the packages."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import snntorch
import torch
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
from reservoirpy.nodes import Reservoir
from support import assert_close, refuses, run_python, same_bits
from torch import nn

import fastrnn.convert as fc
from fastrnn import GRU, LSTM, RNN, DilatedRNN, Leaky, LeakyRNN, MinGRU

# ---- PyTorch ----------------------------------------------------------------------------------

MODULES: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "LSTM": (nn.LSTM, {}),
    "LSTM proj": (nn.LSTM, {"proj_size": 2}),
    "GRU": (nn.GRU, {}),
    "RNN": (nn.RNN, {}),
    "RNN relu": (nn.RNN, {"nonlinearity": "relu"}),
}
each_module = pytest.mark.parametrize("name", MODULES)


def module_of(name: str, **options: Any) -> nn.Module:
    kind, own = MODULES[name]
    torch.manual_seed(0)
    module = kind(INPUTS, HIDDEN, **{"dtype": torch.float64} | own | options)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module


def as_tensors(state: Any) -> Any:
    return tuple(map(torch.from_numpy, state)) if isinstance(state, tuple) else torch.tensor(state)


@torch.no_grad()
def run_module(module: nn.Module, x: np.ndarray, state: Any) -> tuple[Any, Any]:
    y, final = module(torch.from_numpy(x), as_tensors(state))
    return y.numpy(), tuple(map(np.asarray, final)) if isinstance(final, tuple) else final.numpy()


@each_module
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True},
        {"bias": False, "batch_first": True},
        {"num_layers": 2, "bidirectional": True, "bias": False},
    ],
)
def test_from_torch_and_back(
    name: str, dtype: torch.dtype, options: dict[str, Any], rng: np.random.Generator
) -> None:
    module = module_of(name, dtype=dtype, **options)
    given = {"nonlinearity": module.nonlinearity} if name.startswith("RNN") else {}
    from_names = fc.from_torch(
        module.state_dict(), batch_first=options.get("batch_first", False), **given
    )
    layer = fc.from_torch(module)
    assert repr(layer) == repr(from_names)
    x, state = draw_call(layer, rng)
    assert_equal_outputs(layer(x, state), run_module(module, x, state), layer.dtype)
    assert same_bits(from_names(x, state), layer(x, state))
    other = module_of(name, dtype=dtype, **options)
    nn.init.zeros_(next(other.parameters()))
    other.load_state_dict(fc.to_torch(layer))
    assert_equal_outputs(run_module(other, x, state), layer(x, state), layer.dtype)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_cells_of_torch(name: str, rng: np.random.Generator) -> None:
    cell = getattr(nn, name + "Cell")(INPUTS, HIDDEN, dtype=torch.float64)
    layer = fc.from_torch(cell)
    given = {"nonlinearity": "tanh"} if name == "RNN" else {}
    from_names = fc.from_torch(cell.state_dict(), **given)
    x, state = draw_call(layer, rng)
    h = as_tensors(state)
    h = tuple(each[0] for each in h) if name == "LSTM" else h[0]
    with torch.no_grad():
        for step in torch.from_numpy(x):
            h = cell(step, h)
    final = layer(x, state)[1]
    assert same_bits(from_names(x, state)[1], final)
    expected = tuple(each.numpy()[None] for each in h) if name == "LSTM" else h.numpy()[None]
    assert_close(final, expected, 1e-13)


class Model(nn.Module):
    """A model with two recurrent layers among others."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, INPUTS)
        self.encoder = nn.ModuleDict({"rnn": nn.GRU(INPUTS, HIDDEN, batch_first=True)})
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.decoder = nn.LSTM(HIDDEN, HIDDEN, 2, dropout=0.25)


@pytest.mark.parametrize("prefix", ["encoder.rnn", "encoder.rnn."])
def test_a_layer_of_a_model_by_its_prefix(prefix: str) -> None:
    model = Model()
    for source in (model, model.state_dict()):
        layer = fc.from_torch(source, prefix=prefix, batch_first=True)
        assert isinstance(layer, GRU)
        assert layer.batch_first
        assert np.array_equal(layer.weight_hh_l0, model.encoder["rnn"].weight_hh_l0.detach())
    assert fc.from_torch(model, prefix="decoder").dropout == 0.25
    model.decoder = nn.Linear(2, 2)
    assert repr(fc.from_torch(model)) == "GRU(4, 5, batch_first=True)"
    assert repr(fc.from_torch(model.state_dict())) == "GRU(4, 5)"


def test_dtypes_of_torch() -> None:
    weights = nn.GRU(3, 4).half().state_dict()
    with refuses(TypeError, "weight_ih_l0", "float16", "dtype"):
        fc.from_torch(weights)
    layer = fc.from_torch(weights, dtype=np.float32)
    assert np.array_equal(layer.bias_hh_l0, weights["bias_hh_l0"].float())
    assert fc.from_torch(nn.GRU(3, 4), dtype=np.float64).dtype == np.float64
    with refuses(TypeError, "weight_ih_l0", "float32", "float64"):
        fc.from_torch(nn.GRU(3, 4).double(), dtype=np.float32)
    mixed = nn.GRU(3, 4).state_dict() | {"bias_hh_l0": torch.zeros(12, dtype=torch.float64)}
    with refuses(TypeError, "bias_hh_l0", "float32", "float64"):
        fc.from_torch(mixed)


class Changed(nn.LSTM):
    pass


def weights_of(kind: type[nn.Module] = nn.LSTM, **changes: Any) -> dict[str, Any]:
    """A state_dict with some arrays in another shape, or left out if None."""
    names = dict(kind(3, 4, 2, bidirectional=True).state_dict())
    for name, shape in changes.items():
        names.pop(name, None)
        names |= {} if shape is None else {name: torch.ones(shape)}
    return names


@pytest.mark.parametrize(
    ("error", "source", "options", "facts"),
    [
        (TypeError, 3, {}, ["source", "int"]),
        (TypeError, [np.ones(3)], {}, ["source", "list"]),
        (TypeError, Changed(3, 4), {}, ["Changed", "subclass"]),
        (ValueError, Model(), {}, ["prefix", "encoder.rnn", "decoder"]),
        (ValueError, Model(), {"prefix": "norm"}, ["norm", "encoder.rnn"]),
        (ValueError, Model().state_dict(), {}, ["prefix", "encoder.rnn.", "decoder."]),
        (ValueError, Model().state_dict(), {"prefix": "rnn"}, ["rnn.", "decoder."]),
        (ValueError, {}, {}, ["prefix", "none"]),
        (ValueError, nn.Linear(2, 2), {}, ["prefix", "none"]),
        (ValueError, nn.LSTM(3, 4), {"nonlinearity": "relu"}, ["nonlinearity", "module"]),
        (ValueError, nn.RNN(3, 4).state_dict(), {}, ["nonlinearity", "tanh", "relu", "None"]),
        (ValueError, nn.RNN(3, 4).state_dict(), {"nonlinearity": "elu"}, ["nonlinearity", "elu"]),
        (ValueError, nn.GRU(3, 4).state_dict(), {"nonlinearity": "tanh"}, ["nonlinearity", "GRU"]),
        (ValueError, weights_of(extra=3), {}, ["extra"]),
        (ValueError, weights_of(alpha_l0=4), {}, ["alpha_l0"]),
        (ValueError, weights_of(bias_hh_l1=None), {}, ["bias_hh_l1"]),
        (ValueError, weights_of(bias_ih_l0=None), {}, ["bias_hh_l0", "unexpected"]),
        (ValueError, weights_of(weight_ih_l0=None), {}, ["weight_ih_l0"]),
        (ValueError, weights_of(weight_ih_l1=None), {}, ["weight_ih_l1"]),
        (ValueError, weights_of(weight_hh_l9=(16, 4)), {}, ["gap", 9]),
        (ValueError, weights_of(weight_hh_l02=(16, 4)), {}, ["weight_hh_l02"]),
        (ValueError, weights_of(weight_hh_l1=(16, 5)), {}, ["weight_hh_l1", (16, 4), (16, 5)]),
        (ValueError, weights_of(weight_hh_l0=(8, 4)), {}, ["weight_hh_l0", (8, 4)]),
        (ValueError, weights_of(weight_hh_l0=(16,)), {}, ["weight_hh_l0", (16,)]),
        (ValueError, weights_of(weight_ih_l0=(16, 0)), {}, ["weight_ih_l0", (16, 0)]),
        (ValueError, weights_of(weight_hr_l0=(3, 4)), {}, ["weight_hr_l0", (3, 4)]),
        (ValueError, weights_of(weight_hr_l0=(4, 4)), {}, ["weight_hr_l1", "missing"]),
        (ValueError, weights_of(nn.GRU, weight_hr_l0=(4, 4)), {}, ["weight_hr_l0"]),
        (ValueError, weights_of(weight_hh=(16, 4)), {}, ["layer", "cell", "weight_hh"]),
    ],
)
def test_what_is_refused_of_torch(
    error: type, source: Any, options: dict[str, Any], facts: list[Any]
) -> None:
    with refuses(error, *facts):
        fc.from_torch(source, **options)


def test_parametrized_weights_are_refused() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.LSTM(3, 4), "weight_hh_l0")
    with refuses(TypeError, "ParametrizedLSTM"):
        fc.from_torch(module)
    with refuses(ValueError, "parametrizations.weight_hh_l0.original0"):
        fc.from_torch(nn.Sequential(module).state_dict(), prefix="0")


UNLIKE_TORCH = [
    (MinGRU(3, 4), "MinGRU"),
    (LeakyRNN(3, 4), "LeakyRNN"),
    (Leaky(3), "Leaky"),
    (LSTM(3, 4, coupled=True), "coupled"),
    (GRU(3, 4, reset_after=False), "reset_after"),
    (LSTM(3, 4, peephole=True), "peephole"),
    (LSTM(3, 4, cell_clip=1.0), "cell_clip"),
    (GRU(3, 4, clip=1.0), "clip"),
    (GRU(3, 4, activation="relu"), "activation"),
    (LSTM(3, 4, gate_activation="hard_sigmoid"), "gate_activation"),
    (LSTM(3, 4, output_activation="identity"), "output_activation"),
    (RNN(3, 4, nonlinearity="elu"), "nonlinearity"),
    (RNN(3, 4, go_backwards=True), "go_backwards"),
    (LSTM(3, 4, delays=(1, 8)), "delays"),
    (GRU(3, 4, delays=2), "delays"),
    (RNN(3, 4, periods=(1, 2)), "periods"),
    (DilatedRNN("gru", 3, 4, (1, 2)), "dilations"),
    (DilatedRNN("leaky", 3, 4), "LeakyRNN"),
]


@pytest.mark.parametrize(("layer", "fact"), UNLIKE_TORCH)
def test_what_torch_does_not_have(layer: Any, fact: str) -> None:
    with refuses(ValueError, fact, "torch.nn"):
        fc.to_torch(layer)


def test_of_a_mask_the_weights_are_converted(rng: np.random.Generator) -> None:
    layer = GRU(3, 4, 2, recurrent_mask=np.eye(4, dtype=bool), seed=0)
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    module = nn.GRU(3, 4, 2)
    module.load_state_dict(fc.to_torch(layer))
    with torch.no_grad():
        assert_close(module(torch.tensor(x))[0].numpy(), layer(x)[0], 1e-6)
    assert same_bits(fc.from_torch(module)(x), layer(x))


def test_what_torch_has_no_name_for_is_refused() -> None:
    weights = GRU(3, 4, delays=(1, 8)).state_dict()
    with refuses(ValueError, "weight_hh_l0_d8"):
        fc.from_torch(weights)
    weights = GRU(3, 4).state_dict() | {"recurrent_mask_l0": np.eye(4, dtype=bool)}
    with refuses(ValueError, "recurrent_mask_l0"):
        fc.from_torch(weights)


def test_only_layers_are_converted() -> None:
    functions = [fc.to_torch, fc.to_keras, fc.to_openvino, fc.to_onednn, fc.to_reservoirpy]
    for function in [*functions, fc.to_snntorch]:
        with refuses(TypeError, "layer", "dict"):
            function({})


# ---- reservoirpy ------------------------------------------------------------------------------


def reservoir_of(**options: Any) -> Reservoir:
    node = Reservoir(20, seed=3, input_dim=INPUTS, rc_connectivity=0.4, **options)
    node.initialize(np.zeros((1, INPUTS)))
    return node


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.3},
        {"lr": np.linspace(0, 1, 20), "bias": np.linspace(-1, 1, 20)},
        {"lr": 0.6, "activation": "sigmoid"},
        {"lr": 0.6, "activation": "relu", "bias": 0.25},
        {"lr": 0.6, "activation": "identity"},
        {"lr": 0.6, "activation": "softplus", "sr": 0.5},
    ],
)
def test_reservoirs_run_alike(options: dict[str, Any], rng: np.random.Generator) -> None:
    node = reservoir_of(**options)
    assert scipy.sparse.issparse(node.W)
    layer = fc.from_reservoirpy(node)
    x = drawn(rng, 50, INPUTS)
    expected = node.run(x)
    assert_close(layer(x)[0], expected, 1e-12)
    again = Reservoir(**fc.to_reservoirpy(layer))
    assert_close(again.run(x), expected, 1e-12)
    single = fc.from_reservoirpy(reservoir_of(**options, dtype=np.float32))
    assert single.dtype == np.float32


def test_a_reservoir_from_its_arrays(rng: np.random.Generator) -> None:
    W, Win, bias = drawn(rng, 6, 6) / 3, drawn(rng, 6, 2), drawn(rng, 6, 1)
    x, lr = drawn(rng, 30, 2), 0.3
    options = {"W": W, "Win": scipy.sparse.csr_matrix(Win), "lr": lr, "activation": "tanh"}
    outputs = {"internal": [], "external": []}
    h, r = np.zeros(6), np.zeros(6)
    for step in x:
        h = (1 - lr) * h + lr * np.tanh(W @ h + Win @ step + bias[:, 0])
        r = (1 - lr) * r + lr * (W @ np.tanh(r) + Win @ step + bias[:, 0])
        outputs["internal"].append(h)
        outputs["external"].append(np.tanh(r))
    for equation, expected in outputs.items():
        layer = fc.from_reservoirpy(bias=bias, equation=equation, **options)
        assert_close(layer(x)[0], np.array(expected), 1e-12)
    single = fc.from_reservoirpy(
        bias=0.5, equation="internal", **options | {"W": W.astype("f"), "Win": Win.astype("f")}
    )
    assert single.dtype == np.float32


COMPLETE: dict[str, Any] = {
    "W": np.eye(3),
    "Win": np.ones((3, 2)),
    "bias": 0.0,
    "lr": 0.5,
    "activation": "tanh",
    "equation": "internal",
}


@pytest.mark.parametrize(
    ("error", "changes", "facts"),
    [
        (ValueError, {"lr": None, "bias": None}, ["lr", "bias"]),
        (ValueError, {"equation": "inner"}, ["equation", "inner"]),
        (ValueError, {"activation": "softmax"}, ["activation", "softmax"]),
        (ValueError, {"lr": 1.5}, ["leak_rate"]),
        (ValueError, {"lr": np.ones(2)}, ["lr", 3]),
        (ValueError, {"bias": np.ones(2)}, ["bias", 3]),
        (ValueError, {"W": np.ones((3, 4))}, ["W", (3, 4)]),
        (ValueError, {"Win": np.ones((4, 2))}, ["Win", (4, 2)]),
        (TypeError, {"Win": np.ones((3, 2), "f")}, ["Win", "float32"]),
        (TypeError, {"reservoir": 3}, ["W"]),
    ],
)
def test_what_is_refused_of_reservoirs(
    error: type, changes: dict[str, Any], facts: list[Any]
) -> None:
    given = COMPLETE | changes
    if "reservoir" in changes:
        with refuses(ValueError, *facts):
            fc.from_reservoirpy(**given)
        given = {"reservoir": 3}
        facts = ["reservoir", "int"]
    with refuses(error, *facts):
        fc.from_reservoirpy(**given)


def test_reservoirs_that_are_refused() -> None:
    with refuses(ValueError, "initialized"):
        fc.from_reservoirpy(Reservoir(20))

    def tanh(v: np.ndarray) -> np.ndarray:
        return v / (1 + np.abs(v))

    for function in (tanh, np.tanh, "softmax"):
        with refuses(ValueError, "activation"):
            fc.from_reservoirpy(reservoir_of(activation=function))

    class Other(Reservoir):
        pass

    with refuses(TypeError, "reservoir", "Other"):
        fc.from_reservoirpy(Other(20))


@pytest.mark.parametrize(
    ("layer", "fact"),
    [
        (RNN(3, 4), "RNN"),
        (LeakyRNN(3, 4, form="potential"), "potential"),
        (LeakyRNN(3, 4, clip=1.0), "clip"),
        (LeakyRNN(3, 4, num_layers=2), "num_layers"),
        (LeakyRNN(3, 4, bidirectional=True), "bidirectional"),
        (LeakyRNN(3, 4, nonlinearity="elu"), "elu"),
        (LeakyRNN(3, 4, go_backwards=True), "go_backwards"),
        (LeakyRNN(3, 4, delays=(1, 8)), "delays"),
        (LeakyRNN(3, 4, periods=(1, 2)), "periods"),
        (DilatedRNN("leaky", 3, 4, (2,)), "dilations"),
    ],
)
def test_what_reservoirpy_does_not_have(layer: Any, fact: str) -> None:
    with refuses(ValueError, fact):
        fc.to_reservoirpy(layer)


def test_a_layer_without_bias_as_a_reservoir(rng: np.random.Generator) -> None:
    layer = randomized(LeakyRNN(INPUTS, 20, bias=False, dtype="float64"), rng)
    layer.weight_hh_l0 = layer.weight_hh_l0 / 4
    x = drawn(rng, 30, INPUTS)
    assert_close(Reservoir(**fc.to_reservoirpy(layer)).run(x), layer(x)[0], 1e-12)


# ---- snnTorch ---------------------------------------------------------------------------------


def membrane(beta: Any, x: np.ndarray, **options: Any) -> np.ndarray:
    """mem of snnTorch's Leaky for x [T, B, H]."""
    neuron = snntorch.Leaky(beta=beta, **options)
    mem, found = torch.zeros(x.shape[1:], dtype=torch.from_numpy(x).dtype), []
    with torch.no_grad():
        for step in torch.from_numpy(x):
            _, mem = neuron(step, mem)
            found.append(mem.numpy())
    return np.array(found)


BETAS = [0.9, torch.linspace(0, 0.99, HIDDEN), torch.tensor(0.5), torch.full((HIDDEN,), -0.25)]


@pytest.mark.parametrize("beta", BETAS)
def test_membranes_are_leaky_units(beta: Any, rng: np.random.Generator) -> None:
    x = drawn(rng, STEPS, ROWS, HIDDEN, dtype=np.float32)
    layer, factor = fc.from_snntorch(beta, HIDDEN)
    y, state = layer(x * factor)
    assert same_bits(y[-1], state)
    # Without spikes: never reached, or without effect.
    assert_close(y, membrane(beta, x, threshold=1e9), 1e-6)
    none = {"reset_mechanism": "none", "threshold": 0.1}
    assert_close(y, membrane(beta, x, **none), 1e-6)
    neuron = snntorch.Leaky(beta=beta, **none)
    assert same_bits(fc.from_snntorch(neuron, HIDDEN).layer(x * factor)[0], y)


def test_leaky_units_as_membranes(rng: np.random.Generator) -> None:
    layer = Leaky(HIDDEN, alpha=np.linspace(0, 0.99, HIDDEN))
    beta, factor = fc.to_snntorch(layer)
    x = drawn(rng, STEPS, ROWS, HIDDEN, dtype=np.float32)
    mem = membrane(torch.from_numpy(beta), x * factor, reset_mechanism="none")
    assert_close(layer(x)[0], mem, 1e-6)
    with refuses(ValueError, "LeakyRNN"):
        fc.to_snntorch(LeakyRNN(3, 4))


def test_options_of_membranes() -> None:
    layer, factor = fc.from_snntorch([0.5, 0.75], batch_first=True, dtype=np.float64)
    assert layer.batch_first
    assert factor.tolist() == [2.0, 4.0]
    assert layer.dtype == factor.dtype == np.float64


@pytest.mark.parametrize(
    ("error", "source", "size", "facts"),
    [
        (ValueError, 0.5, None, ["hidden_size"]),
        (ValueError, [0.5, 0.5], 3, ["beta", 3]),
        (ValueError, np.ones((2, 2)) / 2, 4, ["beta", (2, 2)]),
        (ValueError, 1.0, 3, ["beta", 1]),
        (ValueError, float("nan"), 3, ["beta"]),
        (ValueError, 1 - 1e-9, 3, ["beta"]),
        (ValueError, snntorch.Leaky(0.5), 3, ["reset_mechanism", "subtract"]),
        (ValueError, snntorch.Leaky(0.5, reset_mechanism="zero"), 3, ["reset_mechanism", "zero"]),
        (
            ValueError,
            snntorch.Leaky(0.5, reset_mechanism="none", state_quant=torch.round),
            3,
            ["state_quant"],
        ),
        (TypeError, snntorch.Synaptic(0.5, 0.5), 3, ["Synaptic"]),
        (TypeError, nn.Linear(2, 2), 3, ["source", "Linear"]),
        (TypeError, 0.5, 2.5, ["hidden_size"]),
    ],
)
def test_what_is_refused_of_membranes(
    error: type, source: Any, size: Any, facts: list[Any]
) -> None:
    with refuses(error, *facts):
        fc.from_snntorch(source, size)


# ---- The package ------------------------------------------------------------------------------


def test_every_function_has_an_example_and_names_its_errors() -> None:
    for name in fc.__all__:
        text = getattr(fc, name).__doc__
        assert text
        if name != "ScaledLeaky":
            assert ">>> " in text
        assert name == "ScaledLeaky" or name == "to_snntorch" or "Raises:" in text
    table = re.findall(r"(?:from|to)_\w+", fc.__doc__ or "")
    assert {name for name in fc.__all__ if "_" in name} <= set(table)


def test_fastrnn_alone_imports_no_other_package() -> None:
    code = (
        "import sys, fastrnn.convert;"
        "print([m for m in ('torch', 'keras', 'h5py', 'onnx', 'scipy') if m in sys.modules])"
    )
    result = run_python("-c", code)
    assert result.stdout == "[]\n"
