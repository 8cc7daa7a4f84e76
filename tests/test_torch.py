"""fastrnn.torch: modules that are those of torch.nn, with the bits of fastrnn's layers."""

from __future__ import annotations

import copy
import inspect
import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from support import (
    PLAIN,
    STEPS,
    Net,
    assert_close,
    assert_gradients_close,
    bound,
    draw_net,
    gradient_bound,
    picker,
    refuses,
    run_python,
    same_bits,
    same_gradients,
    stacked,
)
from torch import nn
from torch_support import module_gradients, module_of, problem, tensor
from witnesses import torch_module

import fastrnn
import fastrnn.torch as ft

BOTH_DTYPES = stacked() + stacked(dtype="float64", batch_first=True)


# ---- The same as torch.nn


@pytest.mark.parametrize("seed", range(45))
def test_outputs_and_gradients_are_those_of_torch_nn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pick = picker(rng)
    cell = ("lstm", "gru", "rnn")[seed % 3]
    options = {"proj_size": 0} if cell == "lstm" and seed % 2 else {}
    function = pick(("tanh", "relu")) if cell == "rnn" else "tanh"
    net = draw_net(pick, cell, **PLAIN, **options, nonlinearity=function)
    steps, batch = pick(STEPS), pick((None, 1, 2, 5))
    layer = net.build()
    arrays = problem(net, rng, steps, batch)
    y, final, found = module_gradients(module_of(net, layer), *arrays)
    expected_y, expected_final, expected = module_gradients(
        torch_module(net, layer, "float64"), *arrays
    )
    assert (y.dtype, found.x.dtype) == (np.dtype(net.dtype), np.dtype(net.dtype))
    assert_close(y, expected_y, bound(net, steps), net)
    assert_close(final, expected_final, bound(net, steps), net)
    assert_gradients_close(found, expected, gradient_bound(net, steps, batch), net)


def test_arguments_and_defaults_are_those_of_torch_nn() -> None:
    def arguments(module_class: Any) -> list[tuple[str, Any]]:
        parameters = inspect.signature(module_class.__init__).parameters.values()
        return [
            (p.name, p.default)
            for p in parameters
            if p.name != "mode" and p.kind is not p.KEYWORD_ONLY
        ]

    base = arguments(nn.RNNBase)
    assert arguments(ft.LSTM) == base
    base.remove(("proj_size", 0))
    assert arguments(ft.GRU) == base
    base.insert(4, ("nonlinearity", "tanh"))
    assert arguments(ft.RNN) == base


@pytest.mark.parametrize("name", ["LSTM", "GRU", "MinGRU", "RNN", "LeakyRNN", "Leaky"])
def test_options_and_defaults_are_those_of_fastrnn(name: str) -> None:
    theirs = inspect.signature(getattr(fastrnn, name)).parameters
    ours = inspect.signature(getattr(ft, name)).parameters
    elsewhere = {"dtype", "seed", "go_backwards", "chrono", "forget_bias"}
    for key in set(theirs) - elsewhere:
        assert ours[key].default == theirs[key].default
        if name in ("MinGRU", "LeakyRNN", "Leaky"):
            assert ours[key].kind == theirs[key].kind
    assert set(ours) - set(theirs) == {"device"}
    assert (ours["device"].default, ours["dtype"].default) == (None, None)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3, "bidirectional": True, "batch_first": True, "dropout": 0.25},
    {"num_layers": 2, "bias": False, "dtype": torch.float64},
]
CASES = [(name, options) for name in ("LSTM", "GRU", "RNN") for options in OPTIONS]
CASES += [("LSTM", options | {"proj_size": 2}) for options in OPTIONS]


@pytest.mark.parametrize("name, options", CASES, ids=lambda value: str(value))
def test_a_seed_gives_the_parameters_and_the_state_dict_of_torch_nn(
    name: str, options: dict[str, Any]
) -> None:
    modules = []
    for library in (nn, ft):
        torch.manual_seed(7)
        modules.append(getattr(library, name)(5, 6, **options))
    theirs, ours = modules
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype
    assert [len(part) for part in ours.all_weights] == [len(part) for part in theirs.all_weights]
    ours.flatten_parameters()

    torch.manual_seed(8)
    ours.reset_parameters()
    assert theirs.load_state_dict(ours.state_dict()) == ours.load_state_dict(theirs.state_dict())
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_a_seed_gives_peepholes_values_of_the_same_distribution() -> None:
    net = ft.LSTM(5, 6, 2, peephole=True)
    for name in ("peephole_l0", "peephole_l1"):
        values = getattr(net, name).detach()
        assert values.shape == (18,)
        assert 0 < values.abs().max() <= 1 / math.sqrt(6)


def test_attributes() -> None:
    lstm, rnn = ft.LSTM(2, 3, 2, dropout=0.5), ft.RNN(2, 3, 1, "relu")
    theirs = nn.LSTM(2, 3, 2, dropout=0.5)
    for name in ("input_size", "hidden_size", "num_layers", "bias", "dropout", "proj_size"):
        assert getattr(lstm, name) == getattr(theirs, name)
    assert (rnn.nonlinearity, rnn.batch_first, rnn.bidirectional) == ("relu", False, False)
    with pytest.warns(UserWarning, match="num_layers=1"):
        ft.LSTM(2, 3, dropout=0.5)
    coupled = ft.LSTM(2, 5, proj_size=3, coupled=True, clip=2, cell_clip=0.5, peephole=True)
    assert (coupled.proj_size, coupled.coupled, coupled.peephole) == (3, True, True)
    assert (coupled.clip, coupled.cell_clip, lstm.clip, lstm.cell_clip) == (2.0, 0.5, None, None)
    assert (lstm.coupled, lstm.peephole) == (False, False)
    hard = ft.LSTM(2, 3, activation="relu", gate_activation="hard_sigmoid")
    assert hard.activation == ("relu", 0.0, 0.0)
    assert hard.gate_activation == ("hard_sigmoid", 1 / 6, 1 / 2)
    assert hard.output_activation == ("tanh", 0.0, 0.0)
    gru = ft.GRU(2, 3, reset_after=False, clip=1.5, activation=("elu", 0.5))
    assert (gru.reset_after, gru.clip, gru.activation) == (False, 1.5, ("elu", 0.5, 0.0))
    assert ft.GRU(2, 3).reset_after
    assert ft.MinGRU(2, 3).activation == ("identity", 0.0, 0.0)
    assert ft.RNN(2, 3, nonlinearity=("elu", 0.5), clip=3.0).nonlinearity == ("elu", 0.5)
    assert ft.LeakyRNN(2, 3, nonlinearity="softsign", clip=3.0).clip == 3.0


REPRS = {
    "GRU(2, 3, reset_after=False, clip=0.5)": {"reset_after": False, "clip": 0.5},
    "LSTM(2, 3, proj_size=1, peephole=True, activation=relu)": {
        "proj_size": 1,
        "peephole": True,
        "activation": "relu",
    },
    "LSTM(2, 3, coupled=True, gate_activation=('hard_sigmoid', 0.2, 0.5), cell_clip=2.0)": {
        "coupled": True,
        "gate_activation": ("hard_sigmoid", 0.2, 0.5),
        "cell_clip": 2,
    },
    "MinGRU(2, 3, activation=softplus)": {"activation": "softplus"},
    "RNN(2, 3, nonlinearity=softsign)": {"nonlinearity": "softsign"},
    "LeakyRNN(2, 3, nonlinearity=relu, form=potential)": {
        "nonlinearity": "relu",
        "form": "potential",
    },
}


@pytest.mark.parametrize("text", REPRS)
def test_repr_shows_the_options_that_are_not_the_default(text: str) -> None:
    name = text.split("(")[0]
    assert repr(getattr(ft, name)(2, 3, **REPRS[text])) == text


# ---- The same as fastrnn


@pytest.mark.parametrize("net", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("batch", [None, 3])
def test_bits_are_those_of_the_layer(net: Net, batch: int | None, rng: np.random.Generator) -> None:
    layer = net.build()
    module = module_of(net, layer)
    layer = module.to_fastrnn()  # from the logits, alpha has other last bits
    x, state, dy, dstate = problem(net, rng, 7, batch)
    y, final, found = module_gradients(module, x, state, dy, dstate)
    expected_y, expected_final, tape = layer.forward_train(x, state)
    expected = layer.backward(tape, dy, dstate)
    for name, alpha in layer.parameters().items():
        if name.startswith("alpha"):
            found.params[name] = found.params.pop(name.replace("alpha", "alpha_logit"))
            expected.params[name] *= alpha * (1 - alpha)
    assert same_bits(y, expected_y)
    assert same_bits(final, expected_final)
    params = {name: found.params[name] for name in expected.params}
    assert same_gradients(type(found)(found.x, found.state, params), expected)

    with torch.no_grad():
        y, _ = module(tensor(x))
    assert same_bits(y.numpy(), layer(x)[0])
    assert not y.requires_grad


@pytest.mark.parametrize("net", BOTH_DTYPES, ids=str)
def test_conversion_to_and_from_a_layer(net: Net, rng: np.random.Generator) -> None:
    layer = net.build()
    module = module_of(net, layer)
    again = module.to_fastrnn()
    assert repr(again) == repr(layer)
    x = net.input(rng, 6, 2)
    with torch.inference_mode():
        assert same_bits(again(x)[0], module(tensor(x))[0].numpy())
    for name, value in layer.parameters().items():
        if name.startswith("alpha"):  # through the logit: within some roundings of 1
            eps = np.finfo(net.dtype).eps
            np.testing.assert_allclose(again.parameters()[name], value, rtol=0, atol=2 * eps)
        else:
            assert same_bits(again.parameters()[name], value)
    assert module.to_fastrnn() is not again


def test_conversion_keeps_options_and_refuses_other_layers() -> None:
    lstm = fastrnn.LSTM(2, 3, 2, batch_first=True, bias=False)
    module = ft.LSTM.from_fastrnn(lstm, dropout=0.25)
    assert (module.dropout, module.batch_first, module.bias) == (0.25, True, False)
    net = fastrnn.LeakyRNN(2, 3, nonlinearity="relu", form="potential")
    module = ft.LeakyRNN.from_fastrnn(net)
    assert (module.nonlinearity, module.form) == ("relu", "potential")
    assert ft.Leaky.from_fastrnn(fastrnn.Leaky(3, parallel="time")).parallel == "time"
    for wrong in (net, "LSTM"):
        with refuses(TypeError, "layer", "LSTM"):
            ft.LSTM.from_fastrnn(wrong)
    with refuses(TypeError, "layer", "RNN"):  # a LeakyRNN is an RNN by descent only
        ft.RNN.from_fastrnn(net)
    with refuses(ValueError, "layer", "go_backwards"):
        ft.GRU.from_fastrnn(fastrnn.GRU(2, 3, go_backwards=True))
    dropping = fastrnn.GRU(2, 3, 2, dropout=0.25)
    assert ft.GRU.from_fastrnn(dropping).dropout == 0.25
    assert ft.GRU.from_fastrnn(dropping, dropout=0.5).to_fastrnn().dropout == 0.5


# ---- Copies


@pytest.mark.parametrize("net", stacked(), ids=str)
def test_copies(net: Net, rng: np.random.Generator) -> None:
    module = module_of(net, net.build())
    x = tensor(net.input(rng, 5, 2))
    expected = module(x)[0]
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    twins = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ]
    for twin in twins:
        assert repr(twin) == repr(module)
        assert torch.equal(twin(x)[0], expected)
        with torch.no_grad():
            next(twin.parameters()).add_(0.25)
        assert not torch.equal(twin(x)[0], expected)
    assert torch.equal(module(x)[0], expected)


def test_a_state_dict_survives_a_safe_file(rng: np.random.Generator) -> None:
    lstm, theirs = ft.LSTM(3, 4, 2), nn.LSTM(3, 4, 2)
    file = io.BytesIO()
    torch.save(lstm.state_dict(), file)
    file.seek(0)
    theirs.load_state_dict(torch.load(file, weights_only=True))
    assert all(map(torch.equal, lstm.parameters(), theirs.parameters()))


# ---- Errors


def lstm(**options: Any) -> ft.LSTM:
    return ft.LSTM(3, 4, **options)


X = torch.zeros(5, 2, 3)
H = torch.zeros(1, 2, 4)

BAD_CALLS: dict[str, tuple[Any, Any, type, tuple[Any, ...]]] = {
    "array": (X.numpy(), None, TypeError, ("input", "ndarray")),
    "1-D": (X[0, 0], None, ValueError, ("input", "2 or 3", 1)),
    "4-D": (X[None], None, ValueError, ("input", "2 or 3", 4)),
    "features": (torch.zeros(5, 2, 6), None, RuntimeError, ("input", 3, 6)),
    "dtype": (X.double(), None, ValueError, ("input", "torch.float32", "torch.float64")),
    "integers": (X.long(), None, ValueError, ("input", "torch.float32", "torch.int64")),
    "device": (X.to("meta"), None, RuntimeError, ("input", "cpu", "meta")),
    "sparse": (
        torch.eye(3).to_sparse(),
        None,
        RuntimeError,
        ("input", "dense", "torch.sparse_coo"),
    ),
    "no tuple": (X, H, TypeError, ("hx", "tuple", "Tensor")),
    "one state": (X, (H,), TypeError, ("hx", "tuple of 1")),
    "array state": (X, (H, H.numpy()), TypeError, ("hx[1]", "c_0", "ndarray")),
    "state shape": (X, (H, H[:, :1]), RuntimeError, ("hx[1]", (1, 2, 4), (1, 1, 4))),
    "unbatched state": (X, (H[:, 0], H), RuntimeError, ("hx[0]", (1, 2, 4), (1, 4))),
    "batched state": (X[:, 0], (H, H), RuntimeError, ("hx[0]", (1, 4), (1, 2, 4))),
    "state dtype": (X, (H, H.double()), ValueError, ("hx[1]", "torch.float32", "torch.float64")),
}


@pytest.mark.parametrize("case", BAD_CALLS)
@pytest.mark.parametrize("grad", [True, False])
def test_a_bad_call_is_refused_by_name(case: str, grad: bool) -> None:
    x, hx, error, facts = BAD_CALLS[case]
    with torch.set_grad_enabled(grad), refuses(error, *facts):
        lstm()(x, hx)


def test_a_bad_state_of_other_modules_is_refused_by_name() -> None:
    with refuses(RuntimeError, "hx[0]", (1, 2, 3), (1, 2, 4)):
        lstm(proj_size=3)(X, (H, H))
    with refuses(RuntimeError, "hx", (1, 2, 4), (1, 4, 2)):
        ft.GRU(3, 4)(X, H.transpose(1, 2))
    with refuses(TypeError, "hx", "Tensor", "tuple"):
        ft.GRU(3, 4)(X, (H, H))
    with refuses(RuntimeError, "hx", (2, 2, 4), (1, 2, 4)):
        ft.RNN(3, 4, bidirectional=True)(X, H)
    with refuses(RuntimeError, "hx", (2, 3), (1, 2, 3)):
        ft.Leaky(3)(X, torch.zeros(1, 2, 3))
    with refuses(TypeError, "hx", "Tensor", "tuple"):
        ft.Leaky(3)(X, (torch.zeros(2, 3),))


BAD_ARGUMENTS: dict[str, tuple[Any, type, tuple[Any, ...]]] = {
    "proj_size": (lambda: lstm(proj_size=-1), ValueError, ("proj_size", -1)),
    "proj_size type": (lambda: lstm(proj_size=1.0), TypeError, ("proj_size", "1.0")),
    "peephole": (lambda: lstm(peephole=1), TypeError, ("peephole", 1)),
    "coupled": (lambda: lstm(coupled=None), TypeError, ("coupled", None)),
    "clip": (lambda: lstm(clip=0), ValueError, ("clip", 0)),
    "cell_clip": (lambda: lstm(cell_clip="1"), TypeError, ("cell_clip",)),
    "activation": (lambda: lstm(activation="gelu"), ValueError, ("activation", "gelu")),
    "gate": (
        lambda: ft.GRU(3, 4, gate_activation=("elu", -1.0)),
        ValueError,
        ("gate_activation", "elu"),
    ),
    "output": (lambda: lstm(output_activation=None), TypeError, ("output_activation", None)),
    "reset_after": (lambda: ft.GRU(3, 4, reset_after=1), TypeError, ("reset_after", 1)),
    "clip of potentials": (
        lambda: ft.LeakyRNN(3, 4, form="potential", clip=1.0),
        ValueError,
        ("clip", "potential", "1.0"),
    ),
    "device": (lambda: lstm(device="meta"), ValueError, ("device", "cpu", "meta")),
    "dtype": (lambda: lstm(dtype=torch.bfloat16), TypeError, ("dtype", "torch.bfloat16")),
    "sizes": (lambda: ft.LSTM(0, 4), ValueError, ("input_size", 0)),
    "hidden": (lambda: ft.RNN(3, 4.0), TypeError, ("hidden_size", "4.0")),
    "layers": (lambda: lstm(num_layers=0), ValueError, ("num_layers", 0)),
    "bias": (lambda: lstm(bias=1), TypeError, ("bias", 1)),
    "batch_first": (lambda: lstm(batch_first=None), TypeError, ("batch_first", None)),
    "dropout": (lambda: lstm(num_layers=2, dropout=1.5), ValueError, ("dropout", "1.5")),
    "dropout type": (lambda: lstm(num_layers=2, dropout=True), ValueError, ("dropout", True)),
    "nonlinearity": (
        lambda: ft.RNN(3, 4, nonlinearity="gelu"),
        ValueError,
        ("nonlinearity", "tanh", "gelu"),
    ),
    "form": (lambda: ft.LeakyRNN(3, 4, form="flux"), ValueError, ("form", "rate", "flux")),
    "parallel": (lambda: ft.Leaky(3, parallel="units"), ValueError, ("parallel", "units")),
    "alpha": (lambda: ft.Leaky(3, alpha=1.5), ValueError, ("alpha", 1)),
    "alpha shape": (lambda: ft.LeakyRNN(3, 4, alpha=[0.5] * 3), ValueError, ("alpha", 4, 3)),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_a_bad_argument_is_refused_by_name(case: str) -> None:
    make, error, facts = BAD_ARGUMENTS[case]
    with refuses(error, *facts):
        make()


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    net = lstm(num_layers=2)
    net.bias_ih_l1.data = net.bias_ih_l1.data.double()
    with refuses(ValueError, "bias_ih_l1", "torch.float32", "torch.float64"):
        net(X)
    net = lstm(num_layers=2)
    net.weight_hh_l1.data = torch.zeros(16, 5)
    with refuses(RuntimeError, "weight_hh_l1", (16, 4), (16, 5)):
        net(X)
    net = lstm(proj_size=2)
    net.weight_hr_l0.data = torch.zeros(4, 2)
    with refuses(RuntimeError, "weight_hr_l0", (2, 4), (4, 2)):
        net(X)
    net = lstm(num_layers=2, dropout=0.5)
    net.weight_ih_l1.data = torch.zeros(16, 3)
    with refuses(RuntimeError, "weight_ih_l1", (16, 4), (16, 3)):
        net(X)
    net = lstm().to(torch.bfloat16)
    with refuses(ValueError, "weight_ih_l0", "torch.float32", "torch.bfloat16"):
        net(X.to(torch.bfloat16))


# ---- Without PyTorch


def test_fastrnn_does_not_import_torch() -> None:
    result = run_python("-c", "import fastrnn, sys; sys.exit('torch' in sys.modules)")
    assert result.returncode == 0, result.stderr


def test_a_missing_torch_is_an_import_error_that_says_so() -> None:
    code = "import sys; sys.modules['torch'] = None; import fastrnn.torch"
    result = run_python("-c", code)
    assert result.returncode == 1
    assert "ImportError: fastrnn.torch needs PyTorch: pip install 'fastrnn[torch]'" in result.stderr
