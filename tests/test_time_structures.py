"""Values and gradients of layers with delays, clocks, masks and dilations, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference_backward import Gradients
from structured import CASES, STRUCTURED, draw_structured
from support import (
    BATCHES,
    STEPS,
    Net,
    assert_close,
    assert_gradients_close,
    bound,
    floats,
    gradient_arrays,
    gradient_bound,
    map_state,
    picker,
    same_bits,
    same_gradients,
    take_rows,
    unpack,
)

# Random nets of each cell with each structure.
NETS = 8

each_case = pytest.mark.parametrize(("cell", "kind"), CASES)
each_cell = pytest.mark.parametrize("cell", STRUCTURED)

# One net of each cell with each structure, for tests of what does not depend on more.
OF_EACH: list[dict[str, Any]] = [
    {"delays": (3,)},
    {"delays": (2, 3, 6), "recurrent_mask": ("random", 0.5, False)},
    {"periods": (2, 1, 3), "group_sizes": (17, 1, 2), "recurrent_mask": ("random", 0.7, False)},
    {"periods": (4, 2, 1), "connectivity": "full"},
    {"recurrent_mask": ("blocks", 0.4, False)},
    {"dilations": (2, 5), "num_layers": 2},
]


def of_each(**fixed: Any) -> list[Net]:
    found = []
    for cell in STRUCTURED:
        for options in OF_EACH:
            if cell == "mingru":
                options = {k: v for k, v in options.items() if k != "recurrent_mask"}
            several = len(options.get("delays", ())) > 1
            if (cell == "mingru" and (several or not options)) or (
                cell == "gru_reset_before" and "periods" in options
            ):
                continue
            found.append(Net(cell, 5, 20, **options | fixed))
    return found


each_net = pytest.mark.parametrize("net", of_each(), ids=str)


def last_of(net: Net, dy: np.ndarray) -> np.ndarray:
    """The part of dy that belongs to the last time step."""
    return np.ascontiguousarray(dy[:, -1] if net.batch_first and dy.ndim == 3 else dy[-1])


# ---- Random nets ------------------------------------------------------------------------------


@each_case
def test_random_nets(cell: str, kind: str, rng: np.random.Generator) -> None:
    """Of every option and size, with and without state, dy and dstate, and any checkpoint."""
    for _ in range(NETS):
        pick = picker(rng)
        net = draw_structured(pick, kind, cell)
        layer, steps, batch = net.build(), pick((*STEPS, 21)), pick((None, *BATCHES))
        x, state = net.input(rng, steps, batch), pick((None, net.state(rng, batch)))
        y, final, tape = layer.forward_train(x, state, checkpoint=pick((None, 1, 3, "auto")))
        assert same_bits((y, final), layer(x, state)), net
        expected, expected_final = net.oracle(layer, x, state)
        assert_close(y, expected, bound(net, steps), net)
        assert_close(final, expected_final, bound(net, steps), net)
        assert [a.dtype.name for a in unpack(final)[: net.states]] == [net.dtype] * net.states

        dy = net.output_gradient(rng, steps, batch)
        dy, dstate = pick((dy, dy, last_of(net, dy), None)), net.state_gradient(rng, batch)
        dstate = pick((None, dstate, dstate))
        g = layer.backward(tape, dy, dstate)
        expected_g = net.oracle_backward(layer, x, state, dy, dstate)
        assert {a.dtype for a in gradient_arrays(g).values()} == {np.dtype(net.dtype)}
        assert_gradients_close(g, expected_g, gradient_bound(net, steps, batch), net)
        assert list(g.params) == list(layer.parameters())
        names = [name for name in layer.parameters() if "alpha" not in name]
        assert names == [name for name in net.parameter_shapes() if "alpha" not in name], net


# Sizes beyond one block of the kernels and of the sums: inputs, units, steps, rows.
LARGE = ((70, 150, 7, 3), (3, 260, 5, 9), (5, 40, 20, 129), (2, 17, 300, 1), (1, 20, 3, 600))
LARGE_OF_EACH: list[dict[str, Any]] = [
    {"delays": (5,)},
    {"delays": (1, 2, 4, 8)},
    {"delays": (2, 7), "recurrent_mask": ("blocks", 0.1, False)},
    {"periods": (1, 2, 4, 8, 16)},
    {"periods": (3, 10, 1), "connectivity": "full"},
    {"recurrent_mask": ("tiles", 0.2, False)},
    {"recurrent_mask": ("random", 0.03, False)},
]


@pytest.mark.parametrize("size", LARGE, ids=str)
def test_large_nets(size: tuple[int, ...], rng: np.random.Generator) -> None:
    """Each structure with one of the cells that have it, in turn."""
    inputs, hidden, steps, batch = size
    for number, options in enumerate(LARGE_OF_EACH):
        cells = ("rnn", "lstm", "gru", "leaky_rate", "lstm_coupled", "leaky_potential")
        cell = cells[(number + LARGE.index(size)) % len(cells)]
        net = Net(cell, inputs, hidden, seed=number, **options)
        layer, x, state = net.build(), net.input(rng, steps, batch), net.state(rng, batch)
        dy, dstate = net.output_gradient(rng, steps, batch), net.state_gradient(rng, batch)
        y, final, tape = layer.forward_train(x, state)
        assert same_bits((y, final), layer(x, state)), net
        expected, expected_final = net.oracle(layer, x, state)
        assert_close(y, expected, bound(net, steps), net)
        assert_close(final, expected_final, bound(net, steps), net)
        g = layer.backward(tape, dy, dstate)
        expected_g = net.oracle_backward(layer, x, state, dy, dstate)
        assert_gradients_close(g, expected_g, gradient_bound(net, steps, batch), net)


# ---- Sizes at the border ----------------------------------------------------------------------


@each_net
def test_no_steps(net: Net, rng: np.random.Generator) -> None:
    """The final state is the initial one, and so are their gradients."""
    layer = net.build()
    for batch in (None, 2):
        x, state = net.input(rng, 0, batch), net.state(rng, batch)
        dstate = net.state_gradient(rng, batch)
        for checkpoint in (None, 4, "auto"):
            y, final, tape = layer.forward_train(x, state, checkpoint=checkpoint)
            assert same_bits((y, final), layer(x, state))
            assert same_bits(final, state)
            g = layer.backward(tape, np.zeros_like(y), dstate)
            assert same_bits(g.state, dstate)
            assert not any(array.any() for array in g.params.values())


@each_net
def test_no_rows(net: Net, rng: np.random.Generator) -> None:
    layer = net.build()
    x, state, dy = net.input(rng, 4, 0), net.state(rng, 0), net.output_gradient(rng, 4, 0)
    y, final, tape = layer.forward_train(x, state)
    assert same_bits((y, final), layer(x, state))
    assert [a.shape for a in unpack(final)] == [a.shape for a in unpack(state)]
    g = layer.backward(tape, dy, net.state_gradient(rng, 0))
    assert g.x.shape == x.shape
    assert not any(array.any() for array in g.params.values())


@each_net
def test_fewer_steps_than_delays(net: Net, rng: np.random.Generator) -> None:
    """The older part of the state is then what was given, and its gradient passes by."""
    layer = net.build()
    for steps in (1, 2):
        for batch in (None, 3):
            x, state = net.input(rng, steps, batch), net.state(rng, batch)
            dy, dstate = net.output_gradient(rng, steps, batch), net.state_gradient(rng, batch)
            y, final, tape = layer.forward_train(x, state)
            assert same_bits((y, final), layer(x, state))
            expected, expected_final = net.oracle(layer, x, state)
            assert_close(y, expected, bound(net, steps))
            assert_close(final, expected_final, bound(net, steps))
            start = 0  # of a part in h; what it held of older steps has moved to its begin
            for part in net.structures():
                n = part.slots[0]
                old, new = (unpack(s)[0][start : start + n] for s in (state, final))
                assert same_bits(new[: n - steps].copy(), old[steps:].copy())
                start += n
            g = layer.backward(tape, dy, dstate)
            expected_g = net.oracle_backward(layer, x, state, dy, dstate)
            assert_gradients_close(g, expected_g, gradient_bound(net, steps, batch))


@each_net
def test_no_state_is_the_zero_state(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 7, 3)
    zero = map_state(np.zeros_like, net.zero_state(3))
    assert same_bits(layer(x), layer(x, zero))


# ---- What is not connected --------------------------------------------------------------------


@each_cell
def test_faster_groups_are_not_read(cell: str, rng: np.random.Generator) -> None:
    if cell in ("mingru", "gru_reset_before"):
        return
    net = Net(cell, 3, 20, periods=(1, 3, 2), group_sizes=(3, 1, 16))
    layer, x = net.build(), net.input(rng, 8, 2)
    _, _, tape = layer.forward_train(x)
    g = layer.backward(tape, net.output_gradient(rng, 8, 2))
    connected = net.structures()[0].connected
    assert connected[0].all()
    assert connected[3].sum() == 1
    for values in (layer.parameters()["weight_hh_l0"], g.params["weight_hh_l0"]):
        gates = values.reshape(-1, 20, 20)
        assert not gates[:, ~connected].any()


# ---- NaN --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["x", "state", "dy", "dstate"])
@each_net
def test_nan_stays_in_its_row(net: Net, where: str, rng: np.random.Generator) -> None:
    layer, x, state = net.build(), net.input(rng, 7, 4), net.state(rng, 4)
    dy, dstate = net.output_gradient(rng, 7, 4), net.state_gradient(rng, 4)
    clean_y, clean_final = layer(x, state)
    clean = layer.backward(layer.forward_train(x, state)[2], dy, dstate)
    if where in ("x", "dy"):
        (x if where == "x" else dy)[2, 1] = np.nan
    else:
        for array in unpack(floats(state) if where == "state" else dstate):
            array[..., 1, 0] = np.nan
    others = [0, 2, 3]
    y, final, tape = layer.forward_train(x, state)
    assert same_bits(y[:, others], clean_y[:, others])
    assert same_bits(take_rows(final, others), take_rows(clean_final, others))
    g = layer.backward(tape, dy, dstate)
    assert same_bits(g.x[:, others], clean.x[:, others])
    assert same_bits(take_rows(g.state, others), take_rows(clean.state, others))
    assert any(np.isnan(array).any() for array in (y, *gradient_arrays(g).values()))


# ---- Backward of pieces -----------------------------------------------------------------------


@each_net
def test_pieces_in_a_chain_give_the_gradients_of_the_whole(
    net: Net, rng: np.random.Generator
) -> None:
    """Cut where no delay and no period ends; dstate is handed on from piece to piece."""
    layer, x, state = net.build(), net.input(rng, 12, 3), net.state(rng, 3)
    dy, dstate = net.output_gradient(rng, 12, 3), net.state_gradient(rng, 3)
    expected = net.oracle_backward(layer, x, state, dy, dstate)
    tapes = []
    for part in np.split(x, [1, 6]):
        _, state, tape = layer.forward_train(part, state)
        tapes.append(tape)
    found = []
    for tape, d in zip(tapes[::-1], np.split(dy, [1, 6])[::-1], strict=True):
        found.append(layer.backward(tape, d, dstate))
        dstate = found[-1].state
    params = {name: sum(g.params[name] for g in found) for name in layer.parameters()}
    dx = np.concatenate([g.x for g in reversed(found)])
    assert_gradients_close(Gradients(dx, dstate, params), expected, gradient_bound(net, 12, 3))


@each_net
def test_a_tape_serves_twice_and_sums_add_up(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 9, 3)
    dy = net.output_gradient(rng, 9, 3)
    _, _, tape = layer.forward_train(x)
    first = layer.backward(tape, dy)
    assert same_gradients(layer.backward(tape, dy), first)
    out = {name: np.ones_like(value) for name, value in first.params.items()}
    layer.backward(tape, dy, out=out)
    for name, value in first.params.items():
        assert_close(out[name], 1.0 + value.astype(np.float64), gradient_bound(net, 9, 3), name)
