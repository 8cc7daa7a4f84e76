"""Values: every layer against the float64 oracle, and both against PyTorch, ONNX Runtime, scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.signal
import torch
from support import (
    BATCHES,
    CELLS,
    DTYPES,
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


@pytest.mark.parametrize("net", stacked(dtype="float32") + stacked(dtype="float64"), ids=str)
def test_large_inputs_stay_in_range(net: Net, rng: np.random.Generator) -> None:
    """Saturated gates are exactly 0 or 1 at most, so |h| <= 1 without any tolerance."""
    layer = net.build()
    y, _ = layer((net.input(rng, 6, 3) * 1e30).astype(net.dtype))
    assert np.isfinite(y).all()
    if net.cell != "leaky":
        assert np.abs(y).max() <= 1.0


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_input_saturates(value: float, rng: np.random.Generator) -> None:
    """One infinite feature makes every pre-activation infinite, and that is a legal value."""
    for cell in ("lstm", "rnn", "leaky_rate"):
        net = Net(cell, 5, 17)
        layer, x = net.build(), net.input(rng, 4, 3)
        x[1, :, 2] = value
        expected, _ = net.oracle(layer, x)
        assert np.isfinite(expected).all()
        assert_close(layer(x)[0], expected, bound(net, 4), net)


# ---- Against PyTorch --------------------------------------------------------------------------


def torch_module(net: Net) -> torch.nn.Module:
    options: dict[str, Any] = {
        "bias": net.bias,
        "batch_first": net.batch_first,
        "bidirectional": net.bidirectional,
        "dtype": getattr(torch, net.dtype),
    }
    torch.manual_seed(net.seed)
    if net.cell == "lstm":
        return torch.nn.LSTM(net.input_size, net.hidden_size, net.num_layers, **options)
    options["nonlinearity"] = net.nonlinearity
    return torch.nn.RNN(net.input_size, net.hidden_size, net.num_layers, **options)


def run_torch(module: torch.nn.Module, x: Any, state: Any) -> tuple[np.ndarray, Any]:
    initial = None if state is None else map_state(torch.from_numpy, state)
    with torch.no_grad():
        y, final = module(torch.from_numpy(x), initial)
    return y.numpy(), map_state(torch.Tensor.numpy, final)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_torch_modules(cell: str, dtype: str, rng: np.random.Generator) -> None:
    for net in nets(rng, PEER_NETS, cell, dtype=dtype):
        layer, module = net.build(), torch_module(net)
        layer.load_state_dict(module.state_dict())
        x, state, steps = arrays(rng, net)
        y, final = layer(x, state)
        expected, expected_final = run_torch(module, x, state)
        tolerance = PEER_BOUNDS * bound(net, steps)
        assert_close(y, expected, tolerance, net)
        assert_close(final, expected_final, tolerance, net)


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_oracle_equals_torch(cell: str, rng: np.random.Generator) -> None:
    for net in nets(rng, PEER_NETS, cell, dtype="float64"):
        layer, module = net.build(), torch_module(net)
        layer.load_state_dict(module.state_dict())
        x, state, _ = arrays(rng, net)
        expected, expected_final = run_torch(module, x, state)
        y, final = net.oracle(layer, x, state)
        assert_close(y, expected, FLOAT64, net)
        assert_close(final, expected_final, FLOAT64, net)


TORCH_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "identity": lambda v: v}


def leaky_rnn_in_torch(net: Net, layer: Any, x: np.ndarray, state: np.ndarray) -> np.ndarray:
    """One LeakyRNN layer in float64 by torch's own linear maps: x [T, B, I] -> y [T, B, H]."""
    p = {k: torch.from_numpy(v.astype(np.float64)) for k, v in layer.parameters().items()}
    f, a = TORCH_ACTIVATIONS[net.nonlinearity], p["alpha_l0"]
    linear = torch.nn.functional.linear
    s, y = torch.from_numpy(state[0].astype(np.float64)), []
    for x_t in torch.from_numpy(x.astype(np.float64)):
        past = s if net.cell == "leaky_rate" else f(s)
        v = linear(x_t, p["weight_ih_l0"], p.get("bias_ih_l0"))
        v = v + linear(past, p["weight_hh_l0"], p.get("bias_hh_l0"))
        s = torch.lerp(f(v) if net.cell == "leaky_rate" else v, s, a)
        y.append(s if net.cell == "leaky_rate" else f(s))
    return torch.stack(y).numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", ["leaky_rate", "leaky_potential"])
def test_leaky_rnn_against_torch_loop(cell: str, dtype: str, rng: np.random.Generator) -> None:
    simple = {"num_layers": 1, "bidirectional": False, "batch_first": False}
    for net in nets(rng, NETS, cell, dtype=dtype, **simple):
        layer, x, state = net.build(), net.input(rng, 9, 3), net.state(rng, 3)
        expected = leaky_rnn_in_torch(net, layer, x, state)
        assert_close(net.oracle(layer, x, state)[0], expected, FLOAT64, net)
        assert_close(layer(x, state)[0], expected, bound(net, 9), net)


# ---- Against ONNX Runtime ---------------------------------------------------------------------

ONNX_ORDER = {"LSTM": [0, 3, 1, 2], "RNN": [0]}  # i f g o -> i o f c


class OnnxStack:
    """One LSTM or RNN node per layer, with the nodes between them that reshape Y for the next."""

    def __init__(self, net: Net, layer: Any) -> None:
        self.op = {"lstm": "LSTM", "rnn": "RNN"}[net.cell]
        self.states = ["h", "c"][: net.states]
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {"rows": np.array([0, 0, -1])}
        info = onnx.helper.make_tensor_value_info
        inputs = [info("x0", onnx.TensorProto.FLOAT, None)]
        outputs = [info(f"x{net.num_layers}", onnx.TensorProto.FLOAT, None)]
        for index in range(net.num_layers):
            self.add_layer(net, layer.parameters(), index)
            for s in self.states:
                inputs.append(info(f"{s}{index}", onnx.TensorProto.FLOAT, None))
                outputs.append(info(f"{s}{index}_end", onnx.TensorProto.FLOAT, None))
        tensors = [onnx.numpy_helper.from_array(v, k) for k, v in self.constants.items()]
        graph = onnx.helper.make_graph(self.nodes, "net", inputs, outputs, tensors)
        model = onnx.helper.make_model(
            graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)]
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def add_layer(self, net: Net, parameters: dict[str, np.ndarray], index: int) -> None:
        suffixes = [f"_l{index}" + r for r in ("", "_reverse")[: net.directions]]

        def of_gates(name: str, suffix: str) -> np.ndarray:
            blocks = np.split(parameters[name + suffix], len(ONNX_ORDER[self.op]))
            return np.concatenate([blocks[gate] for gate in ONNX_ORDER[self.op]])

        def stack(*names: str) -> np.ndarray:
            return np.stack([np.concatenate([of_gates(n, s) for n in names]) for s in suffixes])

        self.constants[f"W{index}"] = stack("weight_ih")
        self.constants[f"R{index}"] = stack("weight_hh")
        bias = ""
        if net.bias:
            bias = f"B{index}"
            self.constants[bias] = stack("bias_ih", "bias_hh")
        activation = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "RNN": [net.nonlinearity.capitalize()]}
        self.nodes += [
            onnx.helper.make_node(
                self.op,
                [f"x{index}", f"W{index}", f"R{index}", bias, ""]
                + [f"{s}{index}" for s in self.states],
                [f"y{index}"] + [f"{s}{index}_end" for s in self.states],
                hidden_size=net.hidden_size,
                direction="bidirectional" if net.bidirectional else "forward",
                activations=activation[self.op] * net.directions,
            ),
            onnx.helper.make_node("Transpose", [f"y{index}"], [f"t{index}"], perm=[0, 2, 1, 3]),
            onnx.helper.make_node("Reshape", [f"t{index}", "rows"], [f"x{index + 1}"]),
        ]

    def __call__(self, net: Net, x: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        """For batched x; state is not None."""
        feed = {"x0": x.swapaxes(0, 1) if net.batch_first else x}
        for s, array in zip(self.states, unpack(state), strict=True):
            layers = np.split(array, net.num_layers)
            feed |= {f"{s}{index}": layers[index] for index in range(net.num_layers)}
        y, *ends = self.session.run(None, {k: np.ascontiguousarray(v) for k, v in feed.items()})
        final = [np.concatenate(ends[i :: net.states]) for i in range(net.states)]
        y = y.swapaxes(0, 1) if net.batch_first else y
        return y, tuple(final) if net.states > 1 else final[0]


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_onnx_runtime(cell: str, rng: np.random.Generator) -> None:
    for net in nets(rng, PEER_NETS, cell, dtype="float32"):
        layer = net.build()
        x, state, steps = arrays(rng, net, batched=True)
        batch = x.shape[0 if net.batch_first else 1]
        y, final = layer(x, state)
        peer = OnnxStack(net, layer)
        expected, expected_final = peer(net, x, net.zero_state(batch) if state is None else state)
        tolerance = PEER_BOUNDS * bound(net, steps)
        assert_close(y, expected, tolerance, net)
        assert_close(final, expected_final, tolerance, net)


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
