"""The oracle's time structures: delays, clocks, masks and dilated stacks, forward and backward.

The witnesses are loops of PyTorch's own operations (delays as one long matrix, clocks group by
group on parts of the weights) with its autograd, finite differences, nets that are the same
without a structure, and numbers by hand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference
from differences import KINK_SIZES, KINK_STEP, SMOOTH_STEP, check_differences, draw, draw_smooth
from pieces import FLOAT64, calls, check, make_case, pieces_of, some_flags, some_lengths, taken
from reference_backward import Gradients
from structured import CASES, STRUCTURED, draw_structured
from support import (
    Net,
    Pick,
    assert_close,
    assert_gradients_close,
    pack,
    picker,
    same_bits,
    take_slots,
    unpack,
)
from witnesses import torch_gradients, torch_values

# Random nets of each cell with each structure, where more than one.
TORCH_NETS = 4

each_case = pytest.mark.parametrize(("cell", "kind"), CASES)
each_cell = pytest.mark.parametrize("cell", STRUCTURED)


# ---- Other programs ---------------------------------------------------------------------------


@each_case
def test_torch_autograd(cell: str, kind: str, rng: np.random.Generator) -> None:
    for number in range(TORCH_NETS):
        net = draw_structured(picker(rng), kind, cell, dtype="float64")
        layer, arrays = net.bare(), draw(rng, net, ("all", "last")[number % 2])
        expected, expected_final = torch_values(net, layer, *arrays[:2], "float64", loop=True)
        y, final = net.oracle(layer, *arrays[:2])
        assert_close(y, expected, FLOAT64, net)
        assert_close(final, expected_final, FLOAT64, net)
        gradients = torch_gradients(net, layer, *arrays, loop=True)
        assert_gradients_close(net.oracle_backward(layer, *arrays), gradients, FLOAT64, net)


@each_case
def test_finite_differences(cell: str, kind: str, rng: np.random.Generator) -> None:
    net = draw_smooth(picker(rng), cell, kind)
    check_differences(net, rng, SMOOTH_STEP, draw(rng, net, largest=8))


@each_case
def test_finite_differences_beside_kinks(cell: str, kind: str, rng: np.random.Generator) -> None:
    sizes = KINK_SIZES | {"num_layers": 1}
    net = draw_structured(picker(rng), kind, cell, dtype="float64", **sizes)
    check_differences(net, rng, KINK_STEP, draw(rng, net, largest=3))


# ---- Rows -------------------------------------------------------------------------------------


@each_case
def test_rows_are_sequences_of_their_own(cell: str, kind: str, rng: np.random.Generator) -> None:
    """With a length, cut by resets, with steps left out: state and clock are those of the row."""
    net = draw_small(picker(rng), cell, kind)
    lengths, flags, zeros = some_lengths(rng), some_flags(rng), bool(rng.integers(2))
    for call, pieces in (
        ({"lengths": lengths, "reset": flags}, pieces_of(lengths, flags)),
        ({"mask": ~flags, "zero_output_for_mask": zeros}, taken(~flags, zeros)),
    ):
        check(make_case(net, rng, **call), pieces)


@each_case
def test_finite_differences_of_rows(cell: str, kind: str, rng: np.random.Generator) -> None:
    drawn = draw_smooth(picker(rng), cell, kind)
    net = replace(drawn, batch_first=False, hidden_size=8, proj_size=0, group_sizes=None)
    if kind != "dilated":
        net = replace(net, num_layers=1)
    case = make_case(net, rng)
    call = picker(rng)(calls(rng, net))
    arrays = (case.x, case.state, case.dy, case.dstate)
    check_differences(net, rng, SMOOTH_STEP, arrays, **call)


def draw_small(pick: Pick, cell: str, kind: str) -> Net:
    sizes = {"hidden_size": pick((5, 8)), "input_size": pick((1, 3)), "batch_first": False}
    return draw_structured(pick, kind, cell, dtype="float64", **sizes)


# ---- The same without the structure -----------------------------------------------------------


def compare(net: Net, other: Net, rng: np.random.Generator) -> None:
    """Two nets with the same parameters, of which the first has a clock at most."""
    x, dy = net.input(rng, 6, 3), net.output_gradient(rng, 6, 3)
    state, dstate = net.state(rng, 3), net.state_gradient(rng, 3)
    plain = pack(unpack(state)[: net.states])
    y, final = net.oracle(net.bare(), x, state)
    expected, expected_final = other.oracle(net.bare(), x, plain)
    assert same_bits((y, pack(unpack(final)[: net.states])), (expected, expected_final)), net
    if net.periods is not None:
        assert np.array_equal(final[-1], state[-1] + 6)
    g = net.oracle_backward(net.bare(), x, state, dy, dstate)
    assert_gradients_close(g, other.oracle_backward(net.bare(), x, plain, dy, dstate), 0.0, net)


@each_cell
def test_what_changes_nothing(cell: str, rng: np.random.Generator) -> None:
    """Clocks that always tick and read all of each other, a full mask, dilations of 1."""
    plain = Net(cell, 3, 5, 2, True, dtype="float64", seed=3)
    same: list[dict[str, Any]] = [{"dilations": (1, 1)}]
    if cell != "mingru":
        same.append({"recurrent_mask": ("random", 1.0, True)})
    if cell != "gru_reset_before":
        same += [{"periods": (1, 1, 1), "connectivity": c} for c in ("full", "slower")]
        same.append({"periods": (1,)})
    for options in same:
        compare(replace(plain, **options), plain, rng)


@each_cell
def test_a_single_delay_is_that_many_sequences(cell: str, rng: np.random.Generator) -> None:
    """Interleaved ones, with every d-th step of x and of the state."""
    plain = Net(cell, 3, 5, dtype="float64", seed=3)
    net = replace(plain, delays=(3,))
    x, dy = net.input(rng, 8, 2), net.output_gradient(rng, 8, 2)
    state, dstate = net.state(rng, 2), net.state_gradient(rng, 2)
    y, final = net.oracle(net.bare(), x, state)
    g = net.oracle_backward(net.bare(), x, state, dy, dstate)
    total = {name: np.zeros_like(v) for name, v in g.params.items()}
    for start in range(3):
        own, place = slice(start, None, 3), [(start - 8) % 3]
        first = take_slots(state, [start])
        found, last = plain.oracle(plain.bare(), x[own], first)
        assert_close(y[own], found, FLOAT64)
        assert_close(take_slots(final, place), last, FLOAT64)
        d_last = take_slots(dstate, place)
        part = plain.oracle_backward(plain.bare(), x[own], first, dy[own], d_last)
        d_first = take_slots(g.state, [start])
        alone = Gradients(g.x[own], d_first, part.params)
        assert_gradients_close(alone, part, FLOAT64)
        for name, share in part.params.items():
            total[name] += share
    assert_gradients_close(g, Gradients(g.x, g.state, total), FLOAT64)


@each_case
def test_chunks(cell: str, kind: str, rng: np.random.Generator) -> None:
    net = replace(draw_small(picker(rng), cell, kind), bidirectional=False)
    x, dy, state = net.input(rng, 9, 2), net.output_gradient(rng, 9, 2), net.state(rng, 2)
    dstate = net.state_gradient(rng, 2)
    expected = net.oracle_backward(net.bare(), x, state, dy, dstate)
    whole, starts = net.oracle(net.bare(), x, state), [state]
    for t in range(9):
        y, state = net.oracle(net.bare(), x[t : t + 1], starts[-1])
        assert_close(y[0], whole[0][t], FLOAT64)
        starts.append(state)
    assert_close(state, whole[1], FLOAT64)
    params = {name: np.zeros_like(v) for name, v in expected.params.items()}
    dx = np.empty_like(x)
    for t in reversed(range(9)):
        at = slice(t, t + 1)
        g = net.oracle_backward(net.bare(), x[at], starts[t], dy[at], dstate)
        dx[at], dstate = g.x, g.state
        for name, share in g.params.items():
            params[name] += share
    assert_gradients_close(Gradients(dx, dstate, params), expected, FLOAT64)


# ---- Numbers by hand --------------------------------------------------------------------------


def rnn(x: Any, weight_hh: Any, state: Any = None, **structure: Any) -> tuple[Any, Any]:
    """A linear RNN of units that each read x as it is; weight_hh [H, H] or by delay."""
    matrices = weight_hh if isinstance(weight_hh, dict) else {"": weight_hh}
    parameters = {f"weight_hh_l0{d}": np.array(u, float) for d, u in matrices.items()}
    parameters["weight_ih_l0"] = np.ones((len(parameters["weight_hh_l0"]), 1))
    x = np.array(x, float)[:, None]
    return reference.run("rnn", parameters, x, state, nonlinearity="identity", structure=structure)


def test_delays_by_hand() -> None:
    """h_t = x_t + 2 h_{t-1} + 10 h_{t-3}, after 1, 2, 3."""
    matrices = {"": [[2]], "_d3": [[10]]}
    y, h = rnn([0, 1, 0, 0], matrices, np.array([[1], [2], [3]]), delays=(1, 3))
    assert y[:, 0].tolist() == [16, 53, 136, 432]
    assert h[:, 0].tolist() == [53, 136, 432]
    y, h = rnn([1, 1, 1], [[2]], np.array([[5], [7]]), delays=(2,))
    assert y[:, 0].tolist() == [11, 15, 23]
    assert h[:, 0].tolist() == [15, 23]


def test_clocks_by_hand() -> None:
    """A fast unit that reads itself and the slow one; the slow one, of period 2, reads itself."""
    matrix = [[1, 10], [100, 1]]
    y, (h, clock) = rnn([1, 1, 1, 1], matrix, periods=(1, 2))
    assert y.tolist() == [[1, 1], [12, 1], [23, 2], [44, 2]]
    assert (h.tolist(), int(clock)) == ([[44, 2]], 4)
    # from clock 3 on the first step is one of rest
    state = (np.array([[0.0, 7.0]]), np.array(3))
    y, (_, clock) = rnn([1, 1], matrix, state, periods=(1, 2))
    assert (y.tolist(), int(clock)) == ([[71, 7], [142, 8]], 5)
    y, _ = rnn([1, 1, 1], matrix, periods=(1, 2), connectivity="full")
    assert y.tolist() == [[1, 1], [12, 1], [23, 1202]]


def test_masks_by_hand() -> None:
    mask = [[True, False], [True, True]]
    y, _ = rnn([1, 1, 1], [[1, 10], [100, 1]], recurrent_mask=mask)
    assert y.tolist() == [[1, 1], [2, 102], [3, 303]]


def test_groups_without_sizes_are_those_of_array_split() -> None:
    net = Net("rnn", 1, 11, periods=(1, 2, 4), dtype="float64")
    assert net.structures()[0].periods.tolist() == [1] * 4 + [2] * 4 + [4] * 3


def test_resting_units_keep_c_too(rng: np.random.Generator) -> None:
    net = Net("lstm", 2, 3, periods=(4,), dtype="float64")
    h, c, _ = net.state(rng, 2)
    clock = np.array([1, 4])
    y, (h_after, c_after, clock_after) = net.oracle(net.bare(), net.input(rng, 1, 2), (h, c, clock))
    assert np.array_equal(h_after[0, 0], h[0, 0])
    assert np.array_equal(c_after[0, 0], c[0, 0])
    assert np.array_equal(y[0, 0], h[0, 0])
    assert (h_after[0, 1] != h[0, 1]).all()
    assert clock_after.tolist() == [2, 5]
