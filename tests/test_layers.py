"""Layers as objects: constructors, parameters, files, copies; what they compute is elsewhere."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from support import DTYPES, Net, one_of_each, refuses, run_python, same_bits, stacked, unharmed

import fastrnn

# Two ways to write one formula in float64 may differ by a rounding before the cast to the dtype.
ROUNDINGS = 2

WEIGHTED = (fastrnn.LSTM, fastrnn.RNN, fastrnn.LeakyRNN)


def outputs(layer: Any, seed: int = 0) -> Any:
    x = np.random.default_rng(seed).standard_normal((6, 2, layer.input_size))
    return layer(x.astype(layer.dtype))


def same_parameters(a: Any, b: Any) -> bool:
    p, q = a.parameters(), b.parameters()
    return list(p) == list(q) and all(same_bits(p[name], q[name]) for name in p)


# ---- Constructors -----------------------------------------------------------------------------


def test_arguments_and_defaults_of_leaky() -> None:
    """Those of the others are in test_options.py."""
    parameters = inspect.signature(fastrnn.Leaky).parameters.values()
    assert {p.name: p.default for p in parameters if p.default is not p.empty} == {
        "alpha": 0.9,
        "batch_first": False,
        "parallel": None,
        "dtype": np.float32,
    }
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["hidden_size"]


@pytest.mark.parametrize("net", stacked() + stacked(dtype="float64"), ids=str)
def test_attributes(net: Net) -> None:
    layer = net.build()
    assert (layer.hidden_size, layer.batch_first) == (net.hidden_size, False)
    assert layer.dtype == np.dtype(net.dtype)
    if net.cell != "leaky":
        assert layer.input_size == net.input_size
        assert layer.num_layers == net.num_layers
        assert (layer.bias, layer.bidirectional) == (True, net.bidirectional)
    if net.cell.startswith("leaky_"):
        form = net.cell.removeprefix("leaky_")
        assert (layer.form, layer.nonlinearity) == (form, net.nonlinearity)


@pytest.mark.parametrize("dtype", [np.float32, "float32", "f4", np.dtype("f4"), float, "float64"])
def test_spellings_of_dtype(dtype: Any) -> None:
    for layer in (fastrnn.LSTM(2, 3, dtype=dtype), fastrnn.Leaky(3, dtype=dtype)):
        assert layer.dtype == np.dtype(dtype)
        assert {p.dtype for p in layer.parameters().values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("dtype", [np.float16, int, complex, "longdouble", ">f4", "nonsense", None])
def test_bad_dtype(dtype: Any) -> None:
    for make in (lambda: fastrnn.LSTM(2, 3, dtype=dtype), lambda: fastrnn.Leaky(3, dtype=dtype)):
        with refuses((TypeError, ValueError), "dtype"):
            make()


@pytest.mark.parametrize("size", [0, -1, 2.0, 1.5, "3", None, [3], True])
@pytest.mark.parametrize("layer_class", WEIGHTED, ids=lambda c: c.__name__)
def test_bad_sizes(layer_class: Any, size: Any) -> None:
    for position, name in enumerate(("input_size", "hidden_size", "num_layers")):
        sizes = [2, 3, 1]
        sizes[position] = size
        with refuses((TypeError, ValueError), name):
            layer_class(*sizes)
    with refuses((TypeError, ValueError), "hidden_size"):
        fastrnn.Leaky(size)


HUGE = """
import resource, sys
import fastrnn
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**28
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
name, *sizes = sys.argv[1:]
try:
    getattr(fastrnn, name)(*map(int, sizes))
except (ValueError, MemoryError) as error:
    print(error)
"""


@pytest.mark.parametrize("sizes", [(2**40, 2**40), (1, 2**31, 2**20), (2**62, 1), (2, 3, 2**62)])
@pytest.mark.parametrize("layer_class", WEIGHTED, ids=lambda c: c.__name__)
def test_sizes_that_overflow_are_refused_before_any_work(layer_class: Any, sizes: Any) -> None:
    """In a process that may have 256 MiB more than it started with."""
    process = run_python("-c", HUGE, layer_class.__name__, *map(str, sizes))
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.strip()


def test_numpy_integers_are_sizes() -> None:
    layer = fastrnn.LSTM(np.int64(2), np.int32(3), np.uint8(2))
    assert outputs(layer)[0].shape == (6, 2, 3)
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (2, 3, 2)


def test_bad_choices() -> None:
    for make, name in (
        (lambda: fastrnn.RNN(2, 3, nonlinearity="gelu"), "nonlinearity"),
        (lambda: fastrnn.RNN(2, 3, nonlinearity="Tanh"), "nonlinearity"),
        (lambda: fastrnn.LeakyRNN(2, 3, nonlinearity="swish"), "nonlinearity"),
        (lambda: fastrnn.LeakyRNN(2, 3, nonlinearity=None), "nonlinearity"),
        (lambda: fastrnn.LeakyRNN(2, 3, form="linear"), "form"),
        (lambda: fastrnn.LeakyRNN(2, 3, form=None), "form"),
    ):
        with refuses((TypeError, ValueError), name):
            make()


def test_unknown_arguments() -> None:
    for make in (
        lambda: fastrnn.LSTM(2, 3, nonlinearity="tanh"),
        lambda: fastrnn.LSTM(2, 3, 1, True),
        lambda: fastrnn.RNN(2, 3, alpha=0.5),
        lambda: fastrnn.LSTM(2),
        lambda: fastrnn.Leaky(3, num_layers=2),
        lambda: fastrnn.LeakyRNN.from_tau(2, 3, tau=2.0, alpha=0.5),
        lambda: fastrnn.LeakyRNN.from_tau(2, 3),
    ):
        with pytest.raises(TypeError):
            make()


@pytest.mark.parametrize("net", stacked(dtype="float64", batch_first=True), ids=str)
def test_repr_names_what_differs(net: Net) -> None:
    layer = net.build()
    text = repr(layer)
    assert text.startswith(type(layer).__name__ + "(")
    assert len(text) < 250
    expected = ["batch_first=True", "float64", "5"]
    if net.num_layers > 1:
        expected += ["num_layers=2", "bidirectional=True"]
    if net.cell == "leaky_potential":
        expected += ["form='potential'"]
    assert all(part in text for part in expected), text


def test_repr_gives_the_sizes_first() -> None:
    assert repr(fastrnn.LSTM(40, 128)).startswith("LSTM(40, 128")
    assert repr(fastrnn.LeakyRNN(40, 128)).startswith("LeakyRNN(40, 128")
    assert repr(fastrnn.Leaky(128)).startswith("Leaky(128")
    assert "nonlinearity='relu'" in repr(fastrnn.RNN(40, 128, nonlinearity="relu"))


# ---- Retention by other names -----------------------------------------------------------------

PER_UNIT = np.array([1.5, 2.0, 10.0])
CONVENTIONS: list[tuple[str, dict[str, Any], Any]] = [
    ("from_leak_rate", {"leak_rate": 0.3}, 1 - 0.3),
    ("from_leak_rate", {"leak_rate": 1 / PER_UNIT}, 1 - 1 / PER_UNIT),
    ("from_leak_rate", {"leak_rate": [0.0, 0.5, 1.0]}, [1.0, 0.5, 0.0]),
    ("from_tau", {"tau": 5.0}, np.exp(-1 / 5)),
    ("from_tau", {"tau": 5.0, "dt": 0.1}, np.exp(-0.1 / 5)),
    ("from_tau", {"tau": PER_UNIT, "method": "exact"}, np.exp(-1 / PER_UNIT)),
    ("from_tau", {"tau": 5.0, "dt": 0.1, "method": "euler"}, 1 - 0.1 / 5),
    ("from_tau", {"tau": PER_UNIT, "method": "euler"}, 1 - 1 / PER_UNIT),
    ("from_half_life", {"half_life": 1.0}, 0.5),
    ("from_half_life", {"half_life": PER_UNIT}, 0.5 ** (1 / PER_UNIT)),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "arguments", "alpha"), CONVENTIONS)
def test_named_constructors(name: str, arguments: dict[str, Any], alpha: Any, dtype: str) -> None:
    tolerance = ROUNDINGS * np.finfo(dtype).eps
    expected = np.broadcast_to(alpha, 3)
    deep = {"num_layers": 2, "bidirectional": True, "form": "potential"}
    leaky_rnn = getattr(fastrnn.LeakyRNN, name)(2, 3, **arguments, **deep, dtype=dtype)
    leaky = getattr(fastrnn.Leaky, name)(3, **arguments, dtype=dtype)
    assert leaky_rnn.num_layers == 2
    assert (type(leaky_rnn), type(leaky)) == (fastrnn.LeakyRNN, fastrnn.Leaky)
    found = [v for k, v in leaky_rnn.parameters().items() if k.startswith("alpha_l")]
    assert len(found) == 4
    for values in (*found, leaky.parameters()["alpha"]):
        assert values.dtype == np.dtype(dtype)
        np.testing.assert_allclose(values, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize(
    ("name", "arguments", "culprit"),
    [
        ("from_leak_rate", {"leak_rate": -0.1}, "leak_rate"),
        ("from_leak_rate", {"leak_rate": 1.1}, "leak_rate"),
        ("from_leak_rate", {"leak_rate": np.nan}, "leak_rate"),
        ("from_tau", {"tau": 0.0}, "tau"),
        ("from_tau", {"tau": -1.0}, "tau"),
        ("from_tau", {"tau": [1.0, np.nan, 1.0]}, "tau"),
        ("from_tau", {"tau": 1.0, "dt": 0.0}, "dt"),
        ("from_tau", {"tau": 1.0, "dt": -1.0}, "dt"),
        ("from_tau", {"tau": 1.0, "dt": np.nan}, "dt"),
        ("from_tau", {"tau": 1.0, "dt": 2.0, "method": "euler"}, "dt"),
        ("from_tau", {"tau": 1.0, "method": "rk4"}, "method"),
        ("from_half_life", {"half_life": 0.0}, "half_life"),
        ("from_half_life", {"half_life": -1.0}, "half_life"),
        ("from_half_life", {"half_life": np.nan}, "half_life"),
    ],
)
def test_named_constructors_refuse(name: str, arguments: dict[str, Any], culprit: str) -> None:
    for make in (
        lambda: getattr(fastrnn.LeakyRNN, name)(2, 3, **arguments),
        lambda: getattr(fastrnn.Leaky, name)(3, **arguments),
    ):
        with refuses(ValueError, culprit):
            make()


# ---- Default initialisation -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer_class", WEIGHTED, ids=lambda c: c.__name__)
def test_initial_weights_are_uniform(layer_class: Any, dtype: str) -> None:
    hidden = 50
    layer = layer_class(20, hidden, 2, bidirectional=True, dtype=dtype, seed=4)
    limit = np.dtype(dtype).type(1 / np.sqrt(hidden))
    for name, values in layer.parameters().items():
        if name.startswith("alpha"):
            assert (values == np.dtype(dtype).type(0.9)).all()
            continue
        assert np.abs(values).max() <= limit, name
        assert np.abs(values).max() > 0.9 * limit, name
        # The standard error of the mean of n uniform values is limit / sqrt(3 n).
        assert abs(values.mean()) < 5 * limit / np.sqrt(3 * values.size), name
        assert len(np.unique(values)) > 0.9 * values.size, name


@pytest.mark.parametrize("layer_class", WEIGHTED, ids=lambda c: c.__name__)
def test_seed_repeats(layer_class: Any) -> None:
    first, again, other = (layer_class(3, 17, 2, seed=seed) for seed in (7, 7, 8))
    assert same_parameters(first, again)
    assert not same_parameters(first, other)
    assert same_bits(outputs(first), outputs(again))
    assert not same_parameters(layer_class(3, 17), layer_class(3, 17))


def test_parts_of_a_net_differ() -> None:
    layer = fastrnn.LSTM(4, 4, 2, bidirectional=True, seed=0)
    values = [v.tobytes() for v in layer.parameters().values()]
    assert len(set(values)) == len(values)


# ---- Parameters -------------------------------------------------------------------------------


def torch_lstm(**options: Any) -> torch.nn.LSTM:
    torch.manual_seed(3)
    return torch.nn.LSTM(3, 5, 2, bidirectional=True, **options)


@pytest.mark.parametrize("bias", [True, False])
def test_names_and_shapes_are_those_of_torch(bias: bool) -> None:
    ours = fastrnn.LSTM(3, 5, 2, bidirectional=True, bias=bias).parameters()
    theirs = torch_lstm(bias=bias).state_dict()
    assert [(k, v.shape) for k, v in ours.items()] == [
        (k, tuple(v.shape)) for k, v in theirs.items()
    ]


def test_names_and_shapes_of_leaky_layers() -> None:
    shapes = {k: v.shape for k, v in fastrnn.LeakyRNN(3, 5, 2).parameters().items()}
    assert shapes.keys() == {
        name + f"_l{layer}"
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "alpha")
        for layer in (0, 1)
    }
    assert shapes["alpha_l0"] == shapes["alpha_l1"] == (5,)
    assert {k: v.shape for k, v in fastrnn.Leaky(5).parameters().items()} == {"alpha": (5,)}


@pytest.mark.parametrize("net", stacked(), ids=str)
def test_parameters_are_read_only_and_a_state_dict_is_a_copy(net: Net) -> None:
    layer = net.build()
    before = outputs(layer)
    for name, values in layer.parameters().items():
        assert same_bits(values, getattr(layer, name))
        with pytest.raises(ValueError, match="read-only"):
            values[...] = 0
        with pytest.raises(ValueError, match="read-only"):
            getattr(layer, name)[...] = 0
    state = layer.state_dict()
    assert list(state) == list(layer.parameters())
    for values in state.values():
        values.fill(0)
    assert same_bits(outputs(layer), before)


@pytest.mark.parametrize("net", stacked(), ids=str)
@pytest.mark.parametrize("convert", [np.copy, torch.from_numpy, np.ndarray.tolist])
def test_load_state_dict(net: Net, convert: Callable[[np.ndarray], Any]) -> None:
    layer, other = net.build(), type(net)(**vars(net) | {"seed": 9}).build()
    assert not same_parameters(layer, other)
    before = layer.state_dict()
    answer = other.load_state_dict({k: convert(v) for k, v in before.items()})
    assert [list(names) for names in answer] == [[], []]
    assert same_parameters(layer, other)
    assert same_bits(outputs(layer), outputs(other))


@pytest.mark.parametrize("bias", [True, False])
def test_state_dict_of_torch_loads_as_it_is(bias: bool) -> None:
    theirs = torch_lstm(bias=bias).state_dict()
    layer = fastrnn.LSTM(3, 5, 2, bidirectional=True, bias=bias)
    layer.load_state_dict(theirs)
    for name, values in layer.parameters().items():
        assert same_bits(values, theirs[name].numpy())
    state = {k: torch.from_numpy(v) for k, v in layer.state_dict().items()}
    torch_lstm(bias=bias).load_state_dict(state)


@pytest.mark.parametrize("strict", [True, False])
def test_missing_and_unexpected_names(strict: bool) -> None:
    layer, new = fastrnn.RNN(2, 3, seed=0), fastrnn.RNN(2, 3, seed=1).state_dict()
    x = np.ones((4, 2), np.float32)
    partial = {k: v for k, v in new.items() if k != "bias_ih_l0"}
    extra = new | {"weight_ih_l1": np.zeros(3, np.float32)}
    if strict:
        for state, name in ((partial, "bias_ih_l0"), (extra, "weight_ih_l1")):
            with unharmed(layer, x), refuses(KeyError, name):
                layer.load_state_dict(state)
        return
    kept = layer.bias_ih_l0.copy()
    missing, unexpected = layer.load_state_dict(partial, strict=False)
    assert (list(missing), list(unexpected)) == (["bias_ih_l0"], [])
    assert same_bits(layer.bias_ih_l0, kept)
    assert same_bits(layer.weight_hh_l0, new["weight_hh_l0"])
    missing, unexpected = layer.load_state_dict(extra, strict=False)
    assert (list(missing), list(unexpected)) == ([], ["weight_ih_l1"])
    assert same_bits(layer.bias_ih_l0, new["bias_ih_l0"])


@pytest.mark.parametrize("strict", [True, False])
def test_a_bad_tensor_changes_nothing(strict: bool) -> None:
    layer, new = fastrnn.LSTM(2, 3, seed=0), fastrnn.LSTM(2, 3, seed=1).state_dict()
    x = np.ones((4, 2), np.float32)
    for error, value, facts in (
        (ValueError, np.zeros((12, 4), np.float32), ((12, 3), (12, 4))),
        (ValueError, np.zeros((3, 12), np.float32), ((12, 3), (3, 12))),
        (ValueError, np.zeros(36, np.float32), ((12, 3), 36)),
        (TypeError, np.zeros((12, 3), np.complex64), ("complex64",)),
        (TypeError, np.zeros((12, 3), object), ("object",)),
        (TypeError, None, ()),
    ):
        with unharmed(layer, x), refuses(error, "weight_hh_l0", *facts):
            layer.load_state_dict(new | {"weight_hh_l0": value}, strict=strict)
        with unharmed(layer, x), refuses(error, "weight_hh_l0", *facts):
            layer.weight_hh_l0 = value


def test_assignment_takes_effect_and_copies() -> None:
    layer, source = fastrnn.LSTM(2, 3, seed=0), fastrnn.LSTM(2, 3, seed=1)
    for name, values in source.state_dict().items():
        setattr(layer, name, values)
        values.fill(99)
    assert same_parameters(layer, source)
    assert same_bits(outputs(layer), outputs(source))


def test_streams_keep_working_when_weights_change() -> None:
    """A stream runs one consistent net: either the old weights or the new, in every step."""
    layer, other = fastrnn.LSTM(2, 3, seed=0), fastrnn.LSTM(2, 3, seed=1)
    x = np.ones((4, 2), np.float32)
    choices = [each(x)[0] for each in (layer, other)]
    stream = layer.stream()
    layer.load_state_dict(other.state_dict())
    y = np.stack([stream.step(x_t) for x_t in x])
    assert any(same_bits(y, choice) for choice in choices)
    assert same_bits(layer(x)[0], choices[1])


# ---- Files, pickles, copies -------------------------------------------------------------------


def via_file(layer: Any, folder: Path) -> Any:
    layer.save(folder / "model.safetensors")
    return fastrnn.load(folder / "model.safetensors")


def via_named_file(layer: Any, folder: Path) -> Any:
    layer.save(str(folder / "model"))
    return fastrnn.load(str(folder / "model"))


def via_pickle(layer: Any, folder: Path) -> Any:
    return pickle.loads(pickle.dumps(layer))


def via_old_pickle(layer: Any, folder: Path) -> Any:
    return pickle.loads(pickle.dumps(layer, protocol=2))


def via_copy(layer: Any, folder: Path) -> Any:
    return copy.copy(layer)


def via_deepcopy(layer: Any, folder: Path) -> Any:
    return copy.deepcopy(layer)


WAYS = [via_file, via_named_file, via_pickle, via_old_pickle, via_copy, via_deepcopy]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("net", stacked(dtype="float64", batch_first=True) + one_of_each(), ids=str)
def test_copies_are_equal_and_independent(net: Net, way: Callable, tmp_path: Path) -> None:
    layer = net.build()
    twin = way(layer, tmp_path)
    before = outputs(layer)
    assert type(twin) is type(layer)
    assert repr(twin) == repr(layer)
    assert twin.dtype == layer.dtype
    assert same_parameters(twin, layer)
    assert same_bits(outputs(twin), before)
    name = next(iter(twin.parameters()))
    setattr(twin, name, np.zeros_like(getattr(twin, name)))
    assert not same_parameters(twin, layer)
    assert same_bits(outputs(layer), before)


@pytest.mark.parametrize("options", [{"bias": False}, {"nonlinearity": "relu"}])
def test_options_survive_files(options: dict[str, Any], tmp_path: Path) -> None:
    layer = fastrnn.RNN(3, 5, **options)
    assert repr(via_file(layer, tmp_path)) == repr(layer)
    assert same_bits(outputs(via_file(layer, tmp_path)), outputs(layer))


def test_saved_files_are_plain_safetensors(tmp_path: Path) -> None:
    layer = fastrnn.LSTM(3, 5, 2)
    layer.save(tmp_path / "model")
    expected = layer.state_dict()
    for tensors in (
        safetensors.numpy.load_file(tmp_path / "model"),
        fastrnn.load_tensors(tmp_path / "model"),
    ):
        assert tensors.keys() == expected.keys()
        assert all(same_bits(tensors[name], expected[name]) for name in expected)
    with safetensors.safe_open(tmp_path / "model", "np") as file:
        described = json.loads(file.metadata()["fastrnn"])
    assert (described["format"], described["cell"]) == (1, "lstm")


def test_files_of_torch(tmp_path: Path) -> None:
    module, path = torch_lstm(), tmp_path / "model"
    layer = fastrnn.LSTM(3, 5, 2, bidirectional=True)
    safetensors.torch.save_file(module.state_dict(), path)
    layer.load_state_dict(fastrnn.load_tensors(path))
    sizes = {"input_size": 3, "hidden_size": 5, "num_layers": 2, "bidirectional": True}
    described = {"fastrnn": json.dumps({"format": 1, "cell": "lstm", **sizes})}
    safetensors.torch.save_file(module.state_dict(), path, metadata=described)
    loaded = fastrnn.load(path)
    assert same_parameters(loaded, layer)
    assert repr(loaded) == repr(layer)


def test_files_that_are_none(tmp_path: Path) -> None:
    for read in (fastrnn.load, fastrnn.load_tensors):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "absent")
        for content in (b"", b"nonsense", bytes(100)):
            (tmp_path / "bad").write_bytes(content)
            with pytest.raises(ValueError, match=r"\w+ \w+"):
                read(tmp_path / "bad")
