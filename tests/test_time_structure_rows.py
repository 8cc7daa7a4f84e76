"""Rows that end, begin anew, skip steps or go backwards, and dropout, with time structures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sequences
from pieces import (
    BATCH,
    STEPS,
    Case,
    Layer,
    Oracle,
    calls,
    expected_gradients,
    expected_values,
    make_case,
    pieces_of,
    some_flags,
    some_lengths,
    taken,
)
from sequences import assert_gradients_are_slopes, draw_mask, draw_reset
from structured import CASES, STRUCTURED, draw_structured
from support import (
    DTYPES,
    Net,
    Pick,
    assert_close,
    assert_gradients_close,
    bound,
    gradient_bound,
    map_state,
    picker,
    same_bits,
    same_gradients,
    unpack,
)

# Random nets of each cell with each structure.
NETS = 2

each_case = pytest.mark.parametrize(("cell", "kind"), CASES)
each_cell = pytest.mark.parametrize("cell", STRUCTURED)


def draw(pick: Pick, cell: str, kind: str, **fixed: Any) -> Net:
    """Time-major, and of one layer or two."""
    sizes = {"hidden_size": pick((3, 16, 20)), "input_size": pick((1, 4))}
    return draw_structured(pick, kind, cell, batch_first=False, **sizes | fixed)


# ---- Each row alone ---------------------------------------------------------------------------


def compare(case: Case, pieces: list[Any], exact: bool) -> None:
    """With the same layer on each piece of a row: the values to the bit, and if not exact, the
    gradients of x and state as sums in another order."""
    y, final = case.values()
    expected, expected_final = expected_values(case, pieces)
    assert np.array_equal(y, expected), case.net
    assert all(map(np.array_equal, unpack(final), unpack(expected_final))), case.net
    g, expected_g = case.gradients(), expected_gradients(case, pieces)
    if exact:
        assert np.array_equal(g.x, expected_g.x), case.net
        assert all(map(np.array_equal, unpack(g.state), unpack(expected_g.state))), case.net
    assert_gradients_close(g, expected_g, gradient_bound(case.net, STEPS, BATCH), case.net)


@each_case
def test_a_row_is_as_if_it_were_alone(cell: str, kind: str, rng: np.random.Generator) -> None:
    """Its clock and its history too, whatever other rows do."""
    for number in range(NETS):
        net = draw(picker(rng), cell, kind)
        program = Layer(net.build())
        lengths, flags = some_lengths(rng), some_flags(rng)
        never = np.zeros_like(flags)
        compare(make_case(net, rng, program, lengths=lengths), pieces_of(lengths, never), True)
        case = make_case(net, rng, program, lengths=lengths, reset=flags)
        compare(case, pieces_of(lengths, flags), False)
        zeros = bool(number % 2)  # else outputs repeat, and what arrives at them adds up
        case = make_case(net, rng, program, mask=~flags, zero_output_for_mask=zeros)
        compare(case, taken(~flags, zeros), zeros)


@each_case
def test_clocks_of_all_rows_at_one_step(cell: str, kind: str, rng: np.random.Generator) -> None:
    """Rows that are in step at first, as they mostly are, and part when they end or begin anew."""
    if "clocks" not in kind:
        return
    net = draw(picker(rng), cell, kind)
    lengths, flags = some_lengths(rng), some_flags(rng)
    for start in (0, 7):
        for reset in (np.zeros_like(flags), flags):
            case = make_case(net, rng, Layer(net.build()), lengths=lengths, reset=reset)
            case.state[-1][...] = start
            compare(case, pieces_of(lengths, reset), not reset.any())


# ---- Against the oracle -----------------------------------------------------------------------


@each_case
def test_against_the_oracle(cell: str, kind: str, rng: np.random.Generator) -> None:
    for _ in range(NETS):
        pick = picker(rng)
        net = draw(pick, cell, kind)
        call = pick([c for c in calls(rng, net) if "go_backwards" not in c])
        case = make_case(net, rng, **call)
        layer = net.build()
        y, final, tape = layer.forward_train(case.x, case.state, **call)
        assert same_bits((y, final), layer(case.x, case.state, **call)), (net, call)
        expected, expected_final = net.oracle(layer, case.x, case.state, **call)
        assert_close(y, expected, bound(net, STEPS), net)
        assert_close(final, expected_final, bound(net, STEPS), net)
        g = layer.backward(tape, case.dy, case.dstate)
        arrays = (case.x, case.state, case.dy, case.dstate)
        expected_g = net.oracle_backward(layer, *arrays, **call)
        assert_gradients_close(g, expected_g, gradient_bound(net, STEPS, BATCH), net)


@each_case
def test_layers_that_go_backwards(cell: str, kind: str, rng: np.random.Generator) -> None:
    """Their first step is the last of the sequence: there their clock starts."""
    net = draw(picker(rng), cell, kind, bidirectional=False)
    layer, flags = net.build(go_backwards=True), some_flags(rng)
    for call in ({}, {"mask": flags}, {"reset": flags}):
        case = make_case(net, rng, Oracle(net, layer), go_backwards=True, **call)
        y, final, tape = layer.forward_train(case.x, case.state, **call)
        assert same_bits((y, final), layer(case.x, case.state, **call)), net
        assert_close(y, case.values()[0], bound(net, STEPS), net)
        assert_close(final, case.values()[1], bound(net, STEPS), net)
        g = layer.backward(tape, case.dy, case.dstate)
        assert_gradients_close(g, case.gradients(), gradient_bound(net, STEPS, BATCH), net)


# ---- Layouts ----------------------------------------------------------------------------------


@each_case
def test_layouts(cell: str, kind: str, rng: np.random.Generator) -> None:
    """Rows first, one sequence alone, and what stands where nothing is read."""
    net = draw(picker(rng), cell, kind)
    layer, rows_first = net.build(), replace(net, batch_first=True).build()
    lengths, flags = some_lengths(rng), some_flags(rng)
    for call in ({"lengths": lengths}, {"reset": flags}, {"mask": flags}):
        case = make_case(net, rng, Layer(layer), **call)
        (y, final), g = case.values(), case.gradients()
        turned = {k: v.T if np.ndim(v) == 2 else v for k, v in call.items()}
        x, dy = case.x.swapaxes(0, 1), case.dy.swapaxes(0, 1)
        y_rows, final_rows, tape = rows_first.forward_train(x, case.state, **turned)
        assert same_bits((y_rows.swapaxes(0, 1).copy(), final_rows), (y, final)), (net, call)
        g_rows = rows_first.backward(tape, dy, case.dstate)
        assert same_bits((g_rows.x.swapaxes(0, 1).copy(), g_rows.state), (g.x, g.state)), net
        assert all(same_bits(g_rows.params[k], v) for k, v in g.params.items()), net
        if "reset" in call:
            continue
        unread = ~flags if "mask" in call else np.arange(STEPS)[:, None] >= lengths
        case.x[unread] = np.nan
        assert same_bits(case.values(), (y, final)), net
        if "lengths" in call:
            case.dy[unread] = np.nan
        assert same_gradients(case.gradients(), g), net


# ---- Clocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_clocks_count_the_steps_of_each_row(dtype: str, rng: np.random.Generator) -> None:
    net = Net("lstm", 3, 5, 2, periods=(2, 3), dtype=dtype)
    layer, x = net.build(), net.input(rng, 6, 4)
    (*state, _), clock = net.state(rng, 4), np.array([0, 1, 5, 2**40])
    state = (*state, clock)
    lengths, reset = [6, 0, 3, 6], np.zeros((6, 4), bool)
    reset[4, :] = True

    def last(final: Any) -> list[int]:
        assert final[-1].dtype == np.int64
        return final[-1].tolist()

    assert last(layer(x)[1]) == [6] * 4
    assert last(layer(x, state)[1]) == (clock + 6).tolist()
    assert last(layer(x, state, lengths=lengths)[1]) == [6, 1, 8, 2**40 + 6]
    assert last(layer(x, state, reset=reset)[1]) == (clock + 2).tolist()
    assert last(layer(x, state, mask=reset)[1]) == (clock + 1).tolist()
    alone = layer(x[:, 2], map_state(lambda a: a[2] if a.ndim == 1 else a[:, 2], state))[1]
    assert alone[-1].shape == ()
    assert int(alone[-1]) == 11
    assert clock.tolist() == [0, 1, 5, 2**40]


def test_late_clocks(rng: np.random.Generator) -> None:
    """Long after the start, beyond 32 bits, all is as it was at the same phase."""
    net = Net("gru", 3, 20, periods=(1, 3, 4))
    layer, x, (h, _) = net.build(), net.input(rng, 9, 3), net.state(rng, 3)
    for phase in range(12):
        y, (end, _) = layer(x, (h, np.full(3, phase)))
        for late in (12, 12 * 2**31, 12 * 2**55):
            y_late, (end_late, clock) = layer(x, (h, np.full(3, late + phase)))
            assert same_bits((y_late, end_late), (y, end)), (phase, late)
            assert clock.tolist() == [late + phase + 9] * 3


# ---- Finite differences and dropout -----------------------------------------------------------

SLOPES: tuple[dict[str, Any], ...] = (
    {"delays": (2, 3)},
    {"periods": (1, 2), "recurrent_mask": ("random", 0.7, False)},
    {"dilations": (2, 1), "num_layers": 2},
)


@each_cell
def test_gradients_are_slopes(cell: str, rng: np.random.Generator) -> None:
    """With rows that end and begin anew, and with dropout between layers."""
    for options in SLOPES:
        if cell == "mingru":
            options = {k: v for k, v in options.items() if k != "recurrent_mask"}
            options |= {"delays": (2,)} if "delays" in options else {}
        if cell == "gru_reset_before" and "periods" in options:
            continue
        net = Net(cell, 3, 5, **{"num_layers": 2} | options, dtype="float64", seed=3)
        case = sequences.Case(net.build(dropout=0.4), rng)
        call = picker(rng)(
            (
                {"reset": draw_reset(rng), "lengths": sequences.LENGTHS},
                {"mask": draw_mask(rng)},
                {"mask": draw_mask(rng), "zero_output_for_mask": True},
            )
        )
        assert_gradients_are_slopes(case, rng, rng=5, **call)


@each_cell
def test_dropout(cell: str, rng: np.random.Generator) -> None:
    """Of training only; it repeats with its seed."""
    options: dict[str, Any] = {"delays": (3,)}
    if cell not in ("mingru", "gru_reset_before"):
        options = {"periods": (1, 2, 4), "group_sizes": (5, 3, 12)}
    net = Net(cell, 3, 20, 2, True, **options)
    layer, plain = net.build(dropout=0.5), net.build()
    case = sequences.Case(layer, rng)
    assert same_bits(layer(case.x, case.state), plain(case.x, case.state))
    y, final, g = case.trained(rng=1)
    assert not np.array_equal(y, layer(case.x, case.state)[0])
    again, final_again, g_again = case.trained(rng=1)
    assert same_bits((again, final_again), (y, final))
    assert same_gradients(g_again, g)
