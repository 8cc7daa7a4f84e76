"""Values of gradients: every layer against the float64 oracle and against PyTorch's autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference_backward import Gradients
from support import (
    BATCHES,
    CELLS,
    DTYPES,
    HIDDENS,
    NONLINEARITIES,
    STEPS,
    Net,
    assert_gradients_close,
    bound,
    draw_net,
    gradient_arrays,
    gradient_bound,
    map_state,
    one_of_each,
    pack,
    picker,
    same_bits,
    same_gradients,
    stacked,
    unpack,
)
from witnesses import torch_gradients

import fastrnn

# Random nets per cell and dtype, against the oracle and against PyTorch.
NETS = 50
PEER_NETS = 25

# Against a peer of the same precision: the bound holds for either program, so twice for the pair.
PEER_BOUNDS = 2

STACKS = stacked() + stacked(batch_first=True)
each_stack = pytest.mark.parametrize("net", STACKS, ids=str)


def last_of(net: Net, dy: np.ndarray) -> np.ndarray:
    """The part of dy that belongs to the last time step."""
    return np.ascontiguousarray(dy[:, -1] if net.batch_first and dy.ndim == 3 else dy[-1])


def some_of(rng: np.random.Generator, state: Any) -> Any:
    """A state, or None, or a state of which a part is None."""
    choice = int(rng.integers(4))
    if choice < 2 or not isinstance(state, tuple):
        return state if choice else None
    return (state[0], None) if choice == 2 else (None, state[1])


# ---- Against the oracle -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_random_nets(cell: str, dtype: str, rng: np.random.Generator) -> None:
    """Of every option and size, with and without state, dy and dstate, and any checkpoint."""
    for _ in range(NETS):
        pick = picker(rng)
        net = draw_net(pick, cell, dtype=dtype)
        layer, steps, batch = net.build(), pick(STEPS), pick((None, *BATCHES))
        x, state = net.input(rng, steps, batch), pick((None, net.state(rng, batch)))
        dy = net.output_gradient(rng, steps, batch)
        dy, dstate = pick((dy, dy, last_of(net, dy), None)), some_of(rng, net.state(rng, batch))
        y, final, tape = layer.forward_train(x, state, checkpoint=pick((None, 1, 3, "auto")))
        assert same_bits((y, final), layer(x, state)), net
        g = layer.backward(tape, dy, dstate)
        assert {a.dtype for a in gradient_arrays(g).values()} == {np.dtype(dtype)}
        expected = net.oracle_backward(layer, x, state, dy, dstate)
        assert_gradients_close(g, expected, gradient_bound(net, steps, batch), net)


@each_stack
def test_rich_and_simple_stacks(net: Net, rng: np.random.Generator) -> None:
    layer = net.build()
    for batch in (None, 1, 3):
        x, state = net.input(rng, 7, batch), net.state(rng, batch)
        dy, dstate = net.output_gradient(rng, 7, batch), net.state(rng, batch)
        y, final, tape = layer.forward_train(x, state)
        assert same_bits((y, final), layer(x, state))
        g = layer.backward(tape, dy, dstate)
        expected = net.oracle_backward(layer, x, state, dy, dstate)
        assert_gradients_close(g, expected, gradient_bound(net, 7, batch))
        assert list(g.params) == list(layer.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_every_tail_of_units(cell: str, dtype: str, rng: np.random.Generator) -> None:
    for hidden in (*HIDDENS, 129):
        for inputs, batch in ((1, 1), (17, 2), (40, 6), (5, 33)):
            size = hidden if cell == "leaky" else inputs
            net = Net(cell, size, hidden, dtype=dtype, seed=hidden)
            layer, x, state = net.build(), net.input(rng, 3, batch), net.state(rng, batch)
            dy, dstate = net.output_gradient(rng, 3, batch), net.state(rng, batch)
            g = layer.backward(layer.forward_train(x, state)[2], dy, dstate)
            expected = net.oracle_backward(layer, x, state, dy, dstate)
            assert_gradients_close(g, expected, gradient_bound(net, 3, batch), net)


@pytest.mark.parametrize("cell", CELLS)
def test_many_steps_and_rows_make_several_blocks_of_every_sum(
    cell: str, rng: np.random.Generator
) -> None:
    for steps, batch in ((1, 700), (700, 1), (90, 40), (33, 129)):
        net = Net(cell, 7, 7)
        layer, x, state = net.build(), net.input(rng, steps, batch), net.state(rng, batch)
        dy, dstate = net.output_gradient(rng, steps, batch), net.state(rng, batch)
        g = layer.backward(layer.forward_train(x, state)[2], dy, dstate)
        expected = net.oracle_backward(layer, x, state, dy, dstate)
        assert_gradients_close(g, expected, gradient_bound(net, steps, batch), (net, steps, batch))


@pytest.mark.parametrize("checkpoint", [None, "auto"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "leaky"])
def test_long_sequences(cell: str, checkpoint: Any, rng: np.random.Generator) -> None:
    """3000 steps, of which the last one, or every one, is supervised."""
    net = Net(cell, 9, 9)
    layer, x, state = net.build(), net.input(rng, 3000, 2), net.state(rng, 2)
    _, _, tape = layer.forward_train(x, state, checkpoint=checkpoint)
    for dy in (net.output_gradient(rng, 3000, 2), net.output_gradient(rng, 3000, 2)[-1]):
        expected = net.oracle_backward(layer, x, state, dy)
        assert_gradients_close(layer.backward(tape, dy), expected, gradient_bound(net, 3000, 2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_gradient_that_fades_never_is_subnormal(cell: str, dtype: str) -> None:
    """As states: it becomes 0 before. Over 10000 silent steps of a retention of 0.9 at most."""
    net = Net(cell, 5, 5, dtype=dtype)
    layer, x = net.build(), np.zeros((10000, 1, 5), dtype)
    if "leaky" in cell:
        name = "alpha" if cell == "leaky" else "alpha_l0"
        layer.load_state_dict({name: np.linspace(0.1, 0.9, 5).astype(dtype)}, strict=False)
    g = layer.backward(layer.forward_train(x)[2], np.ones((1, 5), dtype))
    assert g.x[-1].any()
    assert not g.x[:1000].any()
    for array in (g.x, *unpack(g.state)):
        assert (np.abs(array[array != 0]) >= np.finfo(dtype).tiny).all()


# ---- Sizes at the border ----------------------------------------------------------------------


@each_stack
def test_no_steps(net: Net, rng: np.random.Generator) -> None:
    """The final state is the initial one, and so are their gradients."""
    layer = net.build()
    for batch in (None, 2):
        x, state, dstate = net.input(rng, 0, batch), net.state(rng, batch), net.state(rng, batch)
        for checkpoint in (None, 4, "auto"):
            y, final, tape = layer.forward_train(x, state, checkpoint=checkpoint)
            assert same_bits((y, final), layer(x, state))
            for dy in (None, np.zeros_like(y)):
                g = layer.backward(tape, dy, dstate)
                assert g.x.shape == x.shape
                assert same_bits(g.state, dstate)
                assert not any(array.any() for array in g.params.values())
                assert {k: v.shape for k, v in g.params.items()} == {
                    k: v.shape for k, v in layer.parameters().items()
                }


@each_stack
def test_no_rows(net: Net, rng: np.random.Generator) -> None:
    layer = net.build()
    x, state, dy = net.input(rng, 4, 0), net.state(rng, 0), net.output_gradient(rng, 4, 0)
    for checkpoint in (None, 2, "auto"):
        y, final, tape = layer.forward_train(x, state, checkpoint=checkpoint)
        assert same_bits((y, final), layer(x, state))
        for d in (None, dy, last_of(net, dy)):
            g = layer.backward(tape, d, state)
            assert g.x.shape == x.shape
            assert same_bits(g.state, state)
            assert list(g.params) == list(layer.parameters())
            assert not any(array.any() for array in g.params.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_of_everything(dtype: str, rng: np.random.Generator) -> None:
    for cell in CELLS:
        for name in NONLINEARITIES[cell]:
            net = Net(cell, 1, 1, nonlinearity=name, dtype=dtype, seed=3)
            layer, x, state = net.build(), net.input(rng, 1, 1), net.state(rng, 1)
            dy, dstate = net.output_gradient(rng, 1, 1), net.state(rng, 1)
            g = layer.backward(layer.forward_train(x, state)[2], dy, dstate)
            expected = net.oracle_backward(layer, x, state, dy, dstate)
            assert_gradients_close(g, expected, gradient_bound(net, 1, 1), net)


def test_no_bias_has_no_gradient_of_bias(rng: np.random.Generator) -> None:
    for net in stacked(bias=False):
        layer, x = net.build(), net.input(rng, 4, 3)
        dy = net.output_gradient(rng, 4, 3)
        g = layer.backward(layer.forward_train(x)[2], dy)
        assert not [name for name in g.params if "bias" in name]
        expected = net.oracle_backward(layer, x, None, dy)
        assert_gradients_close(g, expected, gradient_bound(net, 4, 3), net)


# ---- What is not given ------------------------------------------------------------------------


@each_stack
def test_what_is_not_given_is_zero(net: Net, rng: np.random.Generator) -> None:
    """To every value: the sign of a zero may differ."""
    layer, x, zeros = net.build(), net.input(rng, 5, 3), net.zero_state(3)
    dy, dstate = net.output_gradient(rng, 5, 3), net.state(rng, 3)
    _, _, tape = layer.forward_train(x)
    pairs = [((dy, None), (dy, zeros)), ((None, dstate), (np.zeros_like(dy), dstate))]
    if net.states == 2:
        pairs += [((dy, (dstate[0], None)), (dy, (dstate[0], zeros[1])))]
        pairs += [((dy, (None, dstate[1])), (dy, (zeros[0], dstate[1])))]
        pairs += [((dy, (None, None)), (dy, None))]
    for some, full in pairs:
        assert_gradients_close(layer.backward(tape, *some), layer.backward(tape, *full), 0.0, net)
    nothing = layer.backward(tape, None)
    assert not any(array.any() for array in gradient_arrays(nothing).values())


@each_stack
def test_last_step_only(net: Net, rng: np.random.Generator) -> None:
    layer = net.build()
    for batch in (None, 1, 3):
        x, state = net.input(rng, 6, batch), net.state(rng, batch)
        dy, dstate = net.output_gradient(rng, 6, batch), net.state(rng, batch)
        _, _, tape = layer.forward_train(x, state)
        last = last_of(net, dy)
        for ds in (None, dstate):
            g = layer.backward(tape, last, ds)
            expected = net.oracle_backward(layer, x, state, last, ds)
            assert_gradients_close(g, expected, gradient_bound(net, 6, batch))


# ---- Saturation, zeros, NaN -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_units_pass_no_gradient(dtype: str, rng: np.random.Generator) -> None:
    """Pre-activations of some 1e30 put every gate at its limit, where its slope is exactly 0."""
    for cell in (c for c in CELLS if c not in ("mingru", "leaky")):
        net = Net(cell, 5, 17, dtype=dtype)
        layer, x = net.build(), (net.input(rng, 4, 3) * 1e30).astype(dtype)
        dy = net.output_gradient(rng, 4, 3)
        g = layer.backward(layer.forward_train(x)[2], dy)
        assert not g.x.any(), cell
        assert not any(v.any() for name, v in g.params.items() if "alpha" not in name), cell
        assert all(np.isfinite(array).all() for array in gradient_arrays(g).values()), cell


def test_relu_has_no_slope_at_zero(rng: np.random.Generator) -> None:
    for cell in ("rnn", "leaky_rate", "leaky_potential"):
        net = Net(cell, 5, 17, nonlinearity="relu")
        layer = net.build()
        flat = {k: v if "alpha" in k else np.zeros_like(v) for k, v in layer.state_dict().items()}
        layer.load_state_dict(flat)
        x, dy = net.input(rng, 4, 3), net.output_gradient(rng, 4, 3)
        g = layer.backward(layer.forward_train(x)[2], dy)
        assert not any(array.any() for array in (g.x, *g.params.values())), cell


@pytest.mark.parametrize("where", ["x", "state", "dy", "dstate"])
@each_stack
def test_nan_stays_in_its_row(net: Net, where: str, rng: np.random.Generator) -> None:
    layer, x, state = net.build(), net.input(rng, 5, 4), net.state(rng, 4)
    dy, dstate = net.output_gradient(rng, 5, 4), net.state(rng, 4)
    clean = layer.backward(layer.forward_train(x, state)[2], dy, dstate)
    if where in ("x", "dy"):
        array = x if where == "x" else dy
        (array.swapaxes(0, 1) if net.batch_first else array)[2, 1] = np.nan
    else:
        for array in unpack(state if where == "state" else dstate):
            array[..., 1, 0] = np.nan
    g = layer.backward(layer.forward_train(x, state)[2], dy, dstate)
    others = [0, 2, 3]
    rows = [(g.x, clean.x)] if net.batch_first else [(g.x.swapaxes(0, 1), clean.x.swapaxes(0, 1))]
    states = zip(unpack(g.state), unpack(clean.state), strict=True)
    rows += [(a.swapaxes(0, -2), b.swapaxes(0, -2)) for a, b in states]
    for a, b in rows:
        assert same_bits(np.ascontiguousarray(a[others]), np.ascontiguousarray(b[others]))
    assert any(np.isnan(array).any() for array in gradient_arrays(g).values())


# ---- Against PyTorch --------------------------------------------------------------------------


@pytest.mark.parametrize("peer", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_torch_autograd(cell: str, dtype: str, peer: str, rng: np.random.Generator) -> None:
    """LSTM and RNN against PyTorch's modules, the leaky cells against a loop, in either dtype."""
    for _ in range(PEER_NETS):
        pick = picker(rng)
        net = draw_net(pick, cell, dtype=dtype)
        layer, steps, batch = net.build(), pick(STEPS), pick(BATCHES)
        x, state = net.input(rng, steps, batch), net.state(rng, batch)
        dy, dstate = net.output_gradient(rng, steps, batch), net.state(rng, batch)
        dy = pick((dy, last_of(net, dy)))
        g = layer.backward(layer.forward_train(x, state)[2], dy, dstate)
        expected = torch_gradients(net, layer, x, state, dy, dstate, peer)
        less_precise = Net(**vars(net) | {"dtype": min(dtype, peer)})  # "float32" < "float64"
        tolerance = PEER_BOUNDS * gradient_bound(less_precise, steps, batch)
        assert_gradients_close(g, expected, tolerance, net)


# ---- Pieces of a sequence ---------------------------------------------------------------------


@pytest.mark.parametrize("net", one_of_each() + one_of_each(batch_first=True), ids=str)
def test_pieces_in_a_chain_give_the_gradients_of_the_whole(
    net: Net, rng: np.random.Generator
) -> None:
    """As truncated backpropagation does, but with dstate handed on from piece to piece."""
    layer, x, state = net.build(), net.input(rng, 12, 3), net.state(rng, 3)
    dy, dstate = net.output_gradient(rng, 12, 3), net.state(rng, 3)
    expected = net.oracle_backward(layer, x, state, dy, dstate)
    axis = 1 if net.batch_first else 0
    pieces = []
    for part in np.split(x, [2, 7], axis):
        _, state, tape = layer.forward_train(part, state)
        pieces.append(tape)
    found = []
    for tape, d in zip(pieces[::-1], np.split(dy, [2, 7], axis)[::-1], strict=True):
        found.append(layer.backward(tape, d, dstate))
        dstate = found[-1].state
    params = {name: sum(g.params[name] for g in found) for name in layer.parameters()}
    dx = np.concatenate([g.x for g in reversed(found)], axis)
    whole = Gradients(dx, map_state(np.asarray, dstate), params)
    assert_gradients_close(whole, expected, gradient_bound(net, 12, 3))


def test_leaky_gradient_of_alpha_is_that_of_its_formula() -> None:
    """One unit, two steps of 1 from mu = 0: mu = 1 - a^2, so dmu/da = -2a, by hand."""
    layer = fastrnn.Leaky(1, alpha=0.25, dtype="float64")
    _, _, tape = layer.forward_train(np.ones((2, 1)))
    g = layer.backward(tape, np.ones(1))
    assert list(g.params) == ["alpha"]
    assert g.params["alpha"].tolist() == [-0.5]
    assert g.x.tolist() == [[0.25 * 0.75], [0.75]]
    assert unpack(g.state)[0].tolist() == [0.0625]


def test_time_parallel_leaky_has_the_same_gradients(rng: np.random.Generator) -> None:
    """Its forward may differ in the last bits, so its gradients may."""
    net = Net("leaky", 3, 3)
    layer = fastrnn.Leaky(3, alpha=[0.0, 0.5, 0.99], parallel="time")
    x, state = net.input(rng, 300, 2), net.state(rng, 2)
    dy, dstate = net.output_gradient(rng, 300, 2), net.state(rng, 2)
    y, final, tape = layer.forward_train(x, state)
    assert same_bits((y, final), layer(x, state))
    expected = net.oracle_backward(layer, x, state, dy, dstate)
    g = layer.backward(tape, dy, dstate)
    assert_gradients_close(g, expected, gradient_bound(net, 300, 2) + bound(net, 300))
    assert same_gradients(g, layer.backward(tape, dy, pack(list(unpack(dstate)))))
