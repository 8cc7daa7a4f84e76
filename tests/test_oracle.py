"""Values: every layer against the float64 oracle, and both against PyTorch, ONNX Runtime, scipy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from onnx_witness import OPERATORS, OnnxStack
from support import (
    BATCHES,
    CELLS,
    DTYPES,
    PLAIN,
    STEPS,
    Net,
    assert_close,
    bound,
    draw_net,
    map_state,
    picker,
    stacked,
    unpack,
)
from witnesses import MODULES, torch_module, torch_values

import fastrnn

# Random nets per cell and dtype, against the oracle and against a peer.
NETS = 60
PEER_NETS = 40

# Against a peer of the same precision: the bound holds for either program, so twice for the pair.
PEER_BOUNDS = 2

# The project's promise for float32 LSTM, H = 256, T = 500, against float64.
LONG_LSTM = 3e-7

# Two float64 programs that round in different orders, over at most 13 steps and 3 layers.
FLOAT64 = 1e-13


def nets(rng: np.random.Generator, count: int, cell: str, **fixed: Any) -> list[Net]:
    return [draw_net(picker(rng), cell, **fixed) for _ in range(count)]


def arrays(rng: np.random.Generator, net: Net, batched: bool = False) -> tuple[Any, Any, int]:
    """x and an initial state (or None) of random sizes, and the number of steps."""
    pick = picker(rng)
    steps, batch = pick(STEPS), pick(BATCHES if batched else (None, *BATCHES))
    state = net.state(rng, batch) if pick((False, True)) else None
    return net.input(rng, steps, batch), state, steps


# ---- Against the oracle -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_random_nets(cell: str, dtype: str, rng: np.random.Generator) -> None:
    for net in nets(rng, NETS, cell, dtype=dtype):
        layer = net.build()
        x, state, steps = arrays(rng, net)
        y, final = layer(x, state)
        expected, expected_final = net.oracle(layer, x, state)
        assert {a.dtype for a in (y, *unpack(final))} == {np.dtype(dtype)}
        assert_close(y, expected, bound(net, steps), net)
        assert_close(final, expected_final, bound(net, steps), net)


@pytest.mark.parametrize("net", stacked() + stacked(batch_first=True), ids=str)
def test_rich_and_simple_stacks(net: Net, rng: np.random.Generator) -> None:
    layer = net.build()
    for batch in (None, 1, 3):
        x, state = net.input(rng, 7, batch), net.state(rng, batch)
        y, final = layer(x, state)
        expected, expected_final = net.oracle(layer, x, state)
        assert y.shape == net.output_shape(7, batch)
        assert_close(y, expected, bound(net, 7))
        assert_close(final, expected_final, bound(net, 7))


def test_no_state_is_the_zero_state(rng: np.random.Generator) -> None:
    for net in stacked():
        layer, x = net.build(), net.input(rng, 4, 3)
        for a, b in zip(layer(x), layer(x, net.zero_state(3)), strict=True):
            assert all(map(np.array_equal, unpack(a), unpack(b)))


def test_long_lstm_is_within_its_promise(rng: np.random.Generator) -> None:
    net = Net("lstm", 40, 256)
    layer, x = net.build(), net.input(rng, 500, 2)
    y, (h, _) = layer(x)
    expected, (expected_h, _) = net.oracle(layer, x)
    assert np.abs(y - expected).max() <= LONG_LSTM
    assert np.abs(h - expected_h).max() <= LONG_LSTM


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_large_inputs_stay_in_range(cell: str, dtype: str, rng: np.random.Generator) -> None:
    """Saturated gates are exactly 0 or 1 at most, so |h| <= 1 without any tolerance."""
    nonlinearity = "tanh" if cell == "mingru" else None
    for layers in (1,) if cell == "leaky" else (1, 2):
        net = Net(cell, 5, 5, layers, layers == 2, nonlinearity=nonlinearity, dtype=dtype)
        y, _ = net.build()((net.input(rng, 6, 3) * 1e30).astype(net.dtype))
        assert np.isfinite(y).all()
        assert cell == "leaky" or np.abs(y).max() <= 1.0


@pytest.mark.parametrize("net", stacked(dtype="float32") + stacked(dtype="float64"), ids=str)
def test_large_inputs_give_the_values_of_the_oracle(net: Net, rng: np.random.Generator) -> None:
    layer = net.build()
    x = (net.input(rng, 6, 3) * 1e30).astype(net.dtype)
    expected, expected_final = net.oracle(layer, x)
    y, final = layer(x)
    assert_close(y, expected, bound(net, 6))
    assert_close(final, expected_final, bound(net, 6))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_input_saturates(value: float, rng: np.random.Generator) -> None:
    """One infinite feature makes every pre-activation infinite, and that is a legal value."""
    for cell in ("lstm", "lstm_coupled", "gru", "gru_reset_before", "rnn", "leaky_rate"):
        net = Net(cell, 5, 17)
        layer, x = net.build(), net.input(rng, 4, 3)
        x[1, :, 2] = value
        expected, _ = net.oracle(layer, x)
        assert np.isfinite(expected).all()
        assert_close(layer(x)[0], expected, bound(net, 4), net)


# ---- Against PyTorch --------------------------------------------------------------------------


def with_weights_of_torch(net: Net) -> tuple[Any, Any]:
    """A layer and a module of torch.nn, both with the module's weights."""
    torch.manual_seed(net.seed)
    layer, module = net.build(), torch_module(net, net.bare(), net.dtype)
    layer.load_state_dict(module.state_dict())
    return layer, module


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", MODULES)
def test_torch_modules(cell: str, dtype: str, rng: np.random.Generator) -> None:
    for net in torch_nets(rng, PEER_NETS, cell, dtype):
        layer, module = with_weights_of_torch(net)
        x, state, steps = arrays(rng, net)
        y, final = layer(x, state)
        initial = None if state is None else map_state(torch.from_numpy, state)
        with torch.no_grad():
            expected, expected_final = module(torch.from_numpy(x), initial)
        tolerance = PEER_BOUNDS * bound(net, steps)
        assert_close(y, expected.numpy(), tolerance, net)
        assert_close(final, map_state(torch.Tensor.numpy, expected_final), tolerance, net)


def torch_nets(rng: np.random.Generator, count: int, cell: str, dtype: str) -> list[Net]:
    """Nets that torch.nn has as modules."""
    names = ("tanh", "relu") if cell == "rnn" else ("tanh",)
    drawn = nets(rng, count, cell, dtype=dtype, **PLAIN)
    return [Net(**vars(net) | {"nonlinearity": picker(rng)(names)}) for net in drawn]


@pytest.mark.parametrize("cell", MODULES)
def test_oracle_equals_torch_modules(cell: str, rng: np.random.Generator) -> None:
    for net in torch_nets(rng, PEER_NETS, cell, "float64"):
        x, state, _ = arrays(rng, net, batched=True)
        state = net.zero_state(x.shape[0 if net.batch_first else 1]) if state is None else state
        expected, expected_final = torch_values(net, net.bare(), x, state, "float64")
        y, final = net.oracle(net.bare(), x, state)
        assert_close(y, expected, FLOAT64, net)
        assert_close(final, expected_final, FLOAT64, net)


@pytest.mark.parametrize("cell", CELLS)
def test_oracle_equals_torch_operations(cell: str, rng: np.random.Generator) -> None:
    """Every option, in loops of PyTorch's own operations."""
    for net in nets(rng, NETS, cell, dtype="float64"):
        x, state = net.input(rng, 9, 3), net.state(rng, 3)
        expected, expected_final = torch_values(net, net.bare(), x, state, "float64", loop=True)
        y, final = net.oracle(net.bare(), x, state)
        assert_close(y, expected, FLOAT64, net)
        assert_close(final, expected_final, FLOAT64, net)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_torch_operations(cell: str, dtype: str, rng: np.random.Generator) -> None:
    for net in nets(rng, NETS, cell, dtype=dtype):
        layer, x, state = net.build(), net.input(rng, 9, 3), net.state(rng, 3)
        expected, expected_final = torch_values(net, layer, x, state, "float64", loop=True)
        y, final = layer(x, state)
        assert_close(y, expected, bound(net, 9), net)
        assert_close(final, expected_final, bound(net, 9), net)


# ---- Against ONNX Runtime ---------------------------------------------------------------------


def onnx_cases(rng: np.random.Generator, cell: str) -> Iterator[tuple[Net, Any, Any, int]]:
    """Nets of every option that ONNX has, x, state and the number of steps."""
    for net in nets(rng, PEER_NETS, cell, dtype="float32", proj_size=0, cell_clip=None):
        x, state, steps = arrays(rng, net, batched=True)
        batch = x.shape[0 if net.batch_first else 1]
        yield net, x, net.zero_state(batch) if state is None else state, steps


@pytest.mark.parametrize("cell", OPERATORS)
def test_onnx_runtime(cell: str, rng: np.random.Generator) -> None:
    for net, x, state, steps in onnx_cases(rng, cell):
        layer = net.build()
        y, final = layer(x, state)
        expected, expected_final = OnnxStack(net, layer)(net, x, state)
        tolerance = PEER_BOUNDS * bound(net, steps)
        assert_close(y, expected, tolerance, net)
        assert_close(final, expected_final, tolerance, net)


@pytest.mark.parametrize("cell", OPERATORS)
def test_oracle_against_onnx_runtime(cell: str, rng: np.random.Generator) -> None:
    for net, x, state, steps in onnx_cases(rng, cell):
        expected, expected_final = net.oracle(net.bare(), x, state)
        y, final = OnnxStack(net, net.bare())(net, x, state)
        assert_close(y, expected, bound(net, steps), net)
        assert_close(final, expected_final, bound(net, steps), net)


# ---- Against scipy ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.9, 0.999, 1.0])
def test_leaky_against_lfilter(alpha: float, dtype: str, rng: np.random.Generator) -> None:
    net = Net("leaky", 7, 7, dtype=dtype)
    x, state = net.input(rng, 300, 3), net.state(rng, 3)
    layer = fastrnn.Leaky(7, alpha=alpha, dtype=dtype)
    a = float(layer.parameters()["alpha"][0])
    expected, _ = scipy.signal.lfilter(
        [1.0 - a], [1.0, -a], x.astype(np.float64), axis=0, zi=a * state[None].astype(np.float64)
    )
    y, final = layer(x, state)
    assert_close(y, expected, bound(net, 300))
    assert_close(final, expected[-1], bound(net, 300))
