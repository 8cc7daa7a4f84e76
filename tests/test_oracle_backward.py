"""The oracle of the gradients, against finite differences, PyTorch and JAX, all in float64."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from differences import (
    KINK_SIZES,
    KINK_STEP,
    SMOOTH_STEP,
    check_differences,
    draw,
    draw_smooth,
)
from nets import FUNCTIONS
from reference_backward import Gradients
from reference_options import Function, normalised
from support import (
    CELLS,
    NONLINEARITIES,
    PLAIN,
    Net,
    Parameters,
    assert_gradients_close,
    draw_net,
    pack,
    picker,
    stacked,
    unpack,
)
from witnesses import MODULES, TORCH_FUNCTIONS, has_module, parametric, torch_gradients

# Random nets per cell.
DIFFERENCE_NETS = 6
TORCH_NETS = 25

# Two float64 programs that sum in different orders, over at most 13 steps of 13 rows and 3 layers;
# as a part of the largest element of a gradient, which cancellation can make small.
FLOAT64 = 1e-12

KINKED = [cell for cell in CELLS if cell != "leaky"]


# ---- Finite differences -----------------------------------------------------------------------


@pytest.mark.parametrize("dy_kind", ["all", "last"])
@pytest.mark.parametrize("cell", CELLS)
def test_finite_differences(cell: str, dy_kind: str, rng: np.random.Generator) -> None:
    for _ in range(DIFFERENCE_NETS):
        net = draw_smooth(picker(rng), cell)
        check_differences(net, rng, SMOOTH_STEP, draw(rng, net, dy_kind))


@pytest.mark.parametrize("dy_kind", ["all", "last"])
@pytest.mark.parametrize("cell", KINKED)
def test_finite_differences_beside_kinks(cell: str, dy_kind: str, rng: np.random.Generator) -> None:
    """With limits and with functions that have kinks, or jump."""
    for _ in range(DIFFERENCE_NETS):
        pick = picker(rng)
        name = pick(NONLINEARITIES[cell])
        net = draw_net(pick, cell, dtype="float64", nonlinearity=name, **KINK_SIZES)
        check_differences(net, rng, KINK_STEP, draw(rng, net, dy_kind, largest=3))


# ---- Other programs ---------------------------------------------------------------------------


@pytest.mark.parametrize("dy_kind", ["all", "last"])
@pytest.mark.parametrize("cell", CELLS)
def test_torch_autograd(cell: str, dy_kind: str, rng: np.random.Generator) -> None:
    for _ in range(TORCH_NETS):
        net = draw_net(picker(rng), cell, dtype="float64")
        layer, arrays = net.bare(), draw(rng, net, dy_kind)
        expected = torch_gradients(net, layer, *arrays, loop=True)
        assert_gradients_close(net.oracle_backward(layer, *arrays), expected, FLOAT64, net)


@pytest.mark.parametrize("cell", MODULES)
def test_torch_modules(cell: str, rng: np.random.Generator) -> None:
    """Nets without the options that torch.nn lacks, so that its own backward is the witness."""
    names = ("tanh", "relu") if cell == "rnn" else ("tanh",)
    for _ in range(TORCH_NETS):
        pick = picker(rng)
        net = draw_net(pick, cell, dtype="float64", nonlinearity=pick(names), **PLAIN)
        assert has_module(net)
        layer, arrays = net.bare(), draw(rng, net)
        expected = torch_gradients(net, layer, *arrays)
        assert_gradients_close(net.oracle_backward(layer, *arrays), expected, FLOAT64, net)


JAX_NETS = stacked(dtype="float64")
JAX_NETS += [Net("rnn", 3, 4, nonlinearity=f, dtype="float64") for f in NONLINEARITIES["rnn"][1:]]


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
    layer, arrays = net.bare(), draw(rng, net)
    expected = jax_process.submit(ask_jax, net, layer, *arrays).result()
    assert_gradients_close(net.oracle_backward(layer, *arrays), expected, FLOAT64, net)


# ---- Conventions ------------------------------------------------------------------------------


def flat(net: Net) -> Parameters:
    """All weights and biases 0: every pre-activation is 0."""
    layer = net.bare().parameters()
    return Parameters({k: v if "alpha" in k else np.zeros_like(v) for k, v in layer.items()})


def test_relu_has_no_slope_at_zero(rng: np.random.Generator) -> None:
    for cell in ("rnn", "leaky_rate", "leaky_potential"):
        net = Net(cell, 3, 4, nonlinearity="relu", dtype="float64")
        x, dy = net.input(rng, 3, 2), net.output_gradient(rng, 3, 2)
        g = net.oracle_backward(flat(net), x, None, dy)
        assert not g.params["weight_ih_l0"].any()
        assert not g.x.any()


@pytest.mark.parametrize("cell", ["lstm", "lstm_coupled", "gru", "gru_reset_before", "rnn"])
def test_a_clip_passes_nothing_on_at_its_limit(cell: str, rng: np.random.Generator) -> None:
    """Just below the limit it does; either sign."""
    for bias, passes in ((0.5, False), (-0.5, False), (7.0, False), (0.5 - 1e-9, True)):
        net = Net(cell, 3, 4, clip=0.5, dtype="float64")
        layer = flat(net)
        layer.parameters()["bias_ih_l0"][...] = bias
        x, dy = net.input(rng, 1, 2), net.output_gradient(rng, 1, 2)
        g = net.oracle_backward(layer, x, net.state(rng, 2), dy)
        assert g.params["bias_ih_l0"].any() == passes, (cell, bias)


@pytest.mark.parametrize("cell", ["lstm", "lstm_coupled"])
def test_a_cell_clip_passes_nothing_on_at_its_limit(cell: str, rng: np.random.Generator) -> None:
    """Gates of 1/2 and g of 0 halve c, so that c = 1 comes to the limit of 1/2."""
    for c, passes in ((1.0, False), (-1.0, False), (3.0, False), (1.0 - 1e-9, True)):
        net = Net(cell, 3, 4, cell_clip=0.5, dtype="float64")
        h, _ = net.state(rng, 2)
        x, dy, dstate = net.input(rng, 1, 2), net.output_gradient(rng, 1, 2), net.state(rng, 2)
        g = net.oracle_backward(flat(net), x, (h, np.full_like(h, c)), dy, dstate)
        assert g.state[1].any() == passes, (cell, c)


@pytest.mark.parametrize("given", FUNCTIONS, ids=str)
def test_functions_and_their_slopes(given: Any) -> None:
    """Against PyTorch, far out and in the middle, and with the same slopes at kinks."""
    name, parameters = parametric(given)
    v = np.concatenate([np.linspace(-40.0, 40.0, 801), [-1e300, 1e300, 1e-300, -1e-300]])
    function = Function(*normalised(given))
    t = torch.tensor(v, requires_grad=True)
    expected = TORCH_FUNCTIONS[name](t, *parameters)
    (slope,) = torch.autograd.grad(expected.sum(), t)
    assert np.allclose(function(v), expected.detach().numpy(), 1e-14, 1e-14)
    # Where hard sigmoid reaches its limits, PyTorch's clamp passes a gradient on, ours does not.
    tested = np.abs(function(v) - 0.5) < 0.5 if name == "hard_sigmoid" else v < np.inf
    assert np.allclose(function.slope(v)[tested], slope.numpy()[tested], 1e-14, 1e-14)
    assert name != "hard_sigmoid" or not function.slope(v)[~tested].any()


@pytest.mark.parametrize("net", stacked(dtype="float64"), ids=str)
def test_what_is_not_given_is_zero(net: Net, rng: np.random.Generator) -> None:
    layer, x, zeros = net.bare(), net.input(rng, 4, 3), net.zero_state(3)
    dy, dstate = net.output_gradient(rng, 4, 3), net.state(rng, 3)
    nothing = np.zeros_like(dy)
    pairs = [((x, None, dy, None), (x, zeros, dy, zeros))]
    pairs += [((x, zeros, None, dstate), (x, zeros, nothing, dstate))]
    last = np.concatenate([nothing[:-1], dy[-1:]])
    pairs += [((x, None, dy[-1], None), (x, None, last, None))]
    if net.states == 2:
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
    layer, x, state = net.bare(), net.input(rng, 4, 1), net.state(rng, 1)
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
