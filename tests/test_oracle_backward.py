"""The oracle of the gradients, against finite differences, PyTorch and JAX, all in float64."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from reference_backward import Gradients
from support import (
    BATCHES,
    CELLS,
    NONLINEARITIES,
    STEPS,
    Net,
    assert_gradients_close,
    draw_net,
    gradient_arrays,
    pack,
    picker,
    stacked,
    unpack,
)
from witnesses import torch_gradients

# Random nets per cell.
DIFFERENCE_NETS = 15
TORCH_NETS = 25

# Two float64 programs that sum in different orders, over at most 13 steps of 13 rows and 3 layers;
# as a part of the largest element of a gradient, which cancellation can make small.
FLOAT64 = 1e-12

# The four-point difference is wrong by h^4 f^(5) / 30 and by rounding, eps |L| / h: both are below
# this part of the scale of the derivative, for either step.
DIFFERENCE = 1e-8
SMOOTH_STEP = 1e-4

# A relu must not be pushed over its kink: a smaller step, and few units, steps and rows.
RELU_STEP = 1e-6
RELU_SIZES = {"hidden_size": 5, "num_layers": 2}


def draw(
    rng: np.random.Generator, net: Net, dy_kind: str = "all", largest: int = 13
) -> tuple[Any, ...]:
    """x, state, dy and dstate of random sizes, batched, with at most so many steps and rows."""
    pick = picker(rng)
    steps, batch = min(pick(STEPS), largest), min(pick(BATCHES), largest)
    dy = net.output_gradient(rng, steps, batch)
    if dy_kind == "last":
        dy = np.ascontiguousarray(dy[:, -1] if net.batch_first else dy[-1])
    return net.input(rng, steps, batch), net.state(rng, batch), dy, net.state(rng, batch)


# ---- Finite differences -----------------------------------------------------------------------


def loss(net: Net, arrays: dict[str, Any], dy: np.ndarray, dstate: Any) -> float:
    """sum(dy y) + sum(dstate final), by the forward oracle; arrays: as `gradient_arrays` says."""
    names = ("x", "state", "state c")[: 1 + net.states]
    x, *state = (arrays[name] for name in names)
    layer = ParametersOnly({k: v for k, v in arrays.items() if k not in names})
    y, final = net.oracle(layer, x, pack(state))
    if dy.ndim < y.ndim:
        y = y[:, -1] if net.batch_first and y.ndim == 3 else y[-1]
    ends = zip(unpack(dstate), unpack(final), strict=True)
    return float(np.sum(dy * y)) + sum(float(np.sum(d * s)) for d, s in ends)


class ParametersOnly:
    """What an oracle needs of a layer."""

    def __init__(self, parameters: dict[str, np.ndarray]) -> None:
        self.parameters = lambda: parameters


def check_differences(net: Net, rng: np.random.Generator, h: float, arguments: Any) -> None:
    """Of every array, along a random direction, which no element escapes, and of one element."""
    layer = net.build()
    x, state, dy, dstate = arguments
    arrays = gradient_arrays(Gradients(x, state, layer.state_dict()))
    gradients = gradient_arrays(net.oracle_backward(layer, *arguments))
    assert {k: v.shape for k, v in gradients.items()} == {k: v.shape for k, v in arrays.items()}
    for name, gradient in gradients.items():
        element = np.zeros_like(gradient)
        element.reshape(-1)[rng.integers(element.size)] = 1.0
        for direction in (rng.choice([-1.0, 1.0], gradient.shape), element):
            at = {
                n: loss(net, arrays | {name: arrays[name] + n * h * direction}, dy, dstate)
                for n in (-2, -1, 1, 2)
            }
            found = (8.0 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12.0 * h)
            scale = max(1.0, float(np.abs(gradient * direction).sum()))
            error = abs(found - float(np.sum(gradient * direction)))
            assert error <= DIFFERENCE * scale, (net, name, error / scale)


@pytest.mark.parametrize("dy_kind", ["all", "last"])
@pytest.mark.parametrize("cell", CELLS)
def test_finite_differences(cell: str, dy_kind: str, rng: np.random.Generator) -> None:
    smooth = [name for name in NONLINEARITIES[cell] if name != "relu"]
    for _ in range(DIFFERENCE_NETS):
        pick = picker(rng)
        net = draw_net(pick, cell, dtype="float64", nonlinearity=pick(smooth))
        check_differences(net, rng, SMOOTH_STEP, draw(rng, net, dy_kind))


@pytest.mark.parametrize("dy_kind", ["all", "last"])
@pytest.mark.parametrize("cell", ["rnn", "leaky_rate", "leaky_potential"])
def test_finite_differences_of_relu(cell: str, dy_kind: str, rng: np.random.Generator) -> None:
    for _ in range(DIFFERENCE_NETS):
        net = draw_net(picker(rng), cell, dtype="float64", nonlinearity="relu", **RELU_SIZES)
        check_differences(net, rng, RELU_STEP, draw(rng, net, dy_kind, largest=3))


# ---- Other programs ---------------------------------------------------------------------------


@pytest.mark.parametrize("dy_kind", ["all", "last"])
@pytest.mark.parametrize("cell", CELLS)
def test_torch_autograd(cell: str, dy_kind: str, rng: np.random.Generator) -> None:
    for _ in range(TORCH_NETS):
        net = draw_net(picker(rng), cell, dtype="float64")
        layer, arrays = net.build(), draw(rng, net, dy_kind)
        expected = torch_gradients(net, layer, *arrays)
        assert_gradients_close(net.oracle_backward(layer, *arrays), expected, FLOAT64, net)


JAX_NETS = stacked(dtype="float64") + [
    Net(cell, 3, 4, nonlinearity=name, dtype="float64")
    for cell in CELLS
    for name in NONLINEARITIES[cell][1:]
]


def ask_jax(*arguments: Any) -> Gradients:
    """In the process of its own."""
    from jax_witness import jax_gradients

    return jax_gradients(*arguments)


@pytest.fixture(scope="module")
def jax_process() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        yield process


@pytest.mark.parametrize("net", JAX_NETS, ids=lambda net: f"{net}-{net.nonlinearity}")
def test_jax_grad(net: Net, jax_process: ProcessPoolExecutor, rng: np.random.Generator) -> None:
    layer, arrays = net.build(), draw(rng, net)
    expected = jax_process.submit(ask_jax, net, layer, *arrays).result()
    assert_gradients_close(net.oracle_backward(layer, *arrays), expected, FLOAT64, net)


# ---- Conventions ------------------------------------------------------------------------------


def test_relu_has_no_slope_at_zero(rng: np.random.Generator) -> None:
    """Weights of zero put every pre-activation at the kink."""
    for cell in ("rnn", "leaky_rate", "leaky_potential"):
        net = Net(cell, 3, 4, nonlinearity="relu", dtype="float64")
        layer = net.build()
        flat = {k: v if "alpha" in k else np.zeros_like(v) for k, v in layer.state_dict().items()}
        layer.load_state_dict(flat)
        x, dy = net.input(rng, 3, 2), net.output_gradient(rng, 3, 2)
        g = net.oracle_backward(layer, x, None, dy)
        assert not g.params["weight_ih_l0"].any()
        assert not g.x.any()


@pytest.mark.parametrize("net", stacked(dtype="float64"), ids=str)
def test_what_is_not_given_is_zero(net: Net, rng: np.random.Generator) -> None:
    layer, x, zeros = net.build(), net.input(rng, 4, 3), net.zero_state(3)
    dy, dstate = net.output_gradient(rng, 4, 3), net.state(rng, 3)
    nothing = np.zeros_like(dy)
    pairs = [((x, None, dy, None), (x, zeros, dy, zeros))]
    pairs += [((x, zeros, None, dstate), (x, zeros, nothing, dstate))]
    last = np.concatenate([nothing[:-1], dy[-1:]])
    pairs += [((x, None, dy[-1], None), (x, None, last, None))]
    if net.cell == "lstm":
        parts = (
            ((dstate[0], None), (dstate[0], zeros[1])),
            ((None, dstate[1]), (zeros[0], dstate[1])),
        )
        pairs += [((x, None, dy, some), (x, None, dy, full)) for some, full in parts]
    for some, full in pairs:
        a, b = net.oracle_backward(layer, *some), net.oracle_backward(layer, *full)
        assert_gradients_close(a, b, 0.0, net)


@pytest.mark.parametrize("net", stacked(dtype="float64"), ids=str)
def test_one_sequence_and_batch_first(net: Net, rng: np.random.Generator) -> None:
    """The same numbers in other layouts; the last bits are those of another product of matrices."""
    layer, x, state = net.build(), net.input(rng, 4, 1), net.state(rng, 1)
    dy, dstate = net.output_gradient(rng, 4, 1), net.state(rng, 1)
    expected = net.oracle_backward(layer, x, state, dy, dstate)

    def alone(s: Any) -> Any:
        return pack([a[..., 0, :] for a in unpack(s)])

    for last in (False, True):
        given = dy[-1] if last else dy
        expected = net.oracle_backward(layer, x, state, given, dstate)
        one = net.oracle_backward(layer, x[:, 0], alone(state), given[..., 0, :], alone(dstate))
        rows_first = Net(**vars(net) | {"batch_first": True})
        other = rows_first.oracle_backward(
            layer, x.swapaxes(0, 1), state, given if last else given.swapaxes(0, 1), dstate
        )
        whole = Gradients(expected.x[:, 0], alone(expected.state), expected.params)
        assert_gradients_close(one, whole, FLOAT64, net)
        turned = Gradients(expected.x.swapaxes(0, 1), expected.state, expected.params)
        assert_gradients_close(other, turned, FLOAT64, net)
