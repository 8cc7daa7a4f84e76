"""Schedules that save work, each against a plain one: what is skipped or kept changes no bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from structured import STRUCTURED, draw_groups, draw_structured
from support import (
    DTYPES,
    Net,
    assert_close,
    assert_gradients_close,
    bound,
    draw_net,
    floats,
    gradient_bound,
    pack,
    picker,
    same_bits,
    same_gradients,
    take_slots,
    unpack,
)

CLOCKED = tuple(cell for cell in STRUCTURED if cell != "gru_reset_before")
RECURRENT = tuple(cell for cell in STRUCTURED if cell != "mingru")

each_cell = pytest.mark.parametrize("cell", STRUCTURED)


def same_weights(net: Net, layer: Any) -> Any:
    """The net's layer, with the weights of another."""
    other = net.build()
    other.load_state_dict(layer.state_dict())
    return other


# ---- Delays -----------------------------------------------------------------------------------


@each_cell
def test_the_delay_of_one_is_no_structure(cell: str, rng: np.random.Generator) -> None:
    net = draw_net(picker(rng), cell)
    x, state, dstate = net.input(rng, 7, 3), net.state(rng, 3), net.state(rng, 3)
    dy = net.output_gradient(rng, 7, 3)
    y, final, tape = net.build().forward_train(x, state)
    g = net.build().backward(tape, dy, dstate)
    for delays in ((1,), [1], 1, np.array([1])):
        layer = net.build(delays=delays)
        found, found_final, tape = layer.forward_train(x, state)
        assert same_bits((found, found_final), (y, final)), net
        assert same_gradients(layer.backward(tape, dy, dstate), g), net
        assert "delays" not in repr(layer)


@each_cell
@pytest.mark.parametrize("delay", [2, 3, 7])
def test_a_single_delay_is_that_many_sequences(
    cell: str, delay: int, rng: np.random.Generator
) -> None:
    """Interleaved, each with the layer without delays; any number of steps."""
    for steps, batch in ((12, 1), (13, 5), (20, 9), (delay - 1, 2)):
        pick = picker(rng)
        plain_net = draw_net(pick, cell, num_layers=1, bidirectional=False, batch_first=False)
        net = replace(plain_net, delays=(delay,))
        layer, plain = net.build(), plain_net.build()
        x, dy = net.input(rng, steps, batch), net.output_gradient(rng, steps, batch)
        state, dstate = net.state(rng, batch), net.state_gradient(rng, batch)
        y, final, tape = layer.forward_train(x, state)
        assert same_bits((y, final), layer(x, state)), net
        g = layer.backward(tape, dy, dstate)
        total: dict[str, np.ndarray] = {}
        for start in range(delay):
            own, place = slice(start, None, delay), [(start - steps) % delay]
            at_first = take_slots(state, [start])
            found, last, tape = plain.forward_train(x[own], at_first)
            assert same_bits(y[own].copy(), found), (net, start)
            assert same_bits(take_slots(final, place), last), (net, start)
            at_last = take_slots(dstate, place)
            part = plain.backward(tape, dy[own].copy(), at_last)
            assert same_bits(g.x[own].copy(), part.x), (net, start)
            d_first = take_slots(g.state, [start])
            assert same_bits(d_first, part.state), (net, start)
            for name, share in part.params.items():
                total[name] = total.get(name, 0) + share.astype(np.float64)
        assert_gradients_close(g, replace_params(g, total), gradient_bound(net, steps, batch), net)


def replace_params(g: Any, params: dict[str, np.ndarray]) -> Any:
    return type(g)(g.x, g.state, params)


@pytest.mark.parametrize("cell", RECURRENT)
def test_delays_without_weights_do_nothing(cell: str, rng: np.random.Generator) -> None:
    """One of several delays is left: the last of the chains adds nothing but zeros."""
    net = Net(cell, 4, 20, delays=(2, 3, 4), dtype="float64")
    layer, alone = net.build(), replace(net, delays=(2,)).build()
    values = {k: v * ("_d" not in k) for k, v in layer.state_dict().items()}
    layer.load_state_dict(values)
    alone.load_state_dict({k: v for k, v in values.items() if "_d" not in k})
    x = net.input(rng, 15, 3)
    assert np.array_equal(layer(x)[0], alone(x)[0])


# ---- Masks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", RECURRENT)
def test_a_mask_is_weights_of_zero(cell: str, dtype: str, rng: np.random.Generator) -> None:
    """Outputs and states to the bit, as zeros add nothing. The backward sums in another order."""
    for _ in range(4):
        pick = picker(rng)
        kinds = ["mask", "mask", "mask and delays", "mask and clocks"]
        net = draw_structured(pick, pick(kinds[: 3 if cell == "gru_reset_before" else 4]), cell)
        net = replace(net, dtype=dtype)
        masked, x = net.build(), net.input(rng, 9, 5)
        plain = same_weights(replace(net, recurrent_mask=None), masked)
        state, dstate = net.state(rng, 5), net.state_gradient(rng, 5)
        dy = net.output_gradient(rng, 9, 5)
        y, final, tape = masked.forward_train(x, state)
        expected, expected_final, plain_tape = plain.forward_train(x, state)
        assert np.array_equal(y, expected), net
        assert all(map(np.array_equal, unpack(final), unpack(expected_final))), net
        g, h = masked.backward(tape, dy, dstate), plain.backward(plain_tape, dy, dstate)
        mask = np.broadcast_to(net.mask(), masked.recurrent_mask.shape)
        assert np.array_equal(masked.recurrent_mask, mask)
        for name in (name for name in g.params if name.startswith("weight_hh")):
            part = int(name.split("_")[2][1:]) * net.directions + ("reverse" in name)
            inside = np.tile(mask[part], (len(g.params[name]) // net.hidden_size, 1))
            assert not masked.parameters()[name][~inside].any()
            assert not g.params[name][~inside].any()
            h.params[name][~inside] = 0
        assert_gradients_close(g, h, 2 * gradient_bound(net, 9, 5), net)  # of either


# ---- Clocks -----------------------------------------------------------------------------------


def clocked_arrays(net: Net, rng: np.random.Generator, steps: int = 13) -> tuple[Any, ...]:
    """x, state, dy and dstate."""
    x, state = net.input(rng, steps, 4), net.state(rng, 4)
    return x, state, net.output_gradient(rng, steps, 4), net.state_gradient(rng, 4)


@pytest.mark.parametrize("cell", CLOCKED)
def test_clocks_that_always_tick(cell: str, rng: np.random.Generator) -> None:
    """All groups read each other: in the order of the units, as without groups."""
    plain_net = draw_net(picker(rng), cell, batch_first=False, proj_size=0, hidden_size=40)
    plain = plain_net.build()
    sizes = {"periods": (1, 1, 1), "group_sizes": (17, 3, 20)}
    for options in ({"periods": (1,)}, sizes, sizes | {"connectivity": "full"}):
        net = replace(plain_net, **options)
        layer, (x, state, dy, dstate) = net.build(), clocked_arrays(net, rng)
        y, final, tape = layer.forward_train(x, state)
        expected, expected_final, plain_tape = plain.forward_train(x, floats(state))
        assert same_bits((y, floats(final)), (expected, expected_final)), net
        g, h = layer.backward(tape, dy, dstate), plain.backward(plain_tape, dy, dstate)
        assert_gradients_close(g, h, gradient_bound(net, 13, 4), net)


def one_by_one(net: Net, layer: Any, x: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
    """Steps of a plain masked layer, of which resting units take nothing; rows in step or not."""
    structure = net.structures()[0]
    plain_net = replace(net, periods=None, group_sizes=None, connectivity="slower")
    mask = {} if net.cell == "mingru" else {"recurrent_mask": structure.connected}
    if mask and structure.connected is None:
        mask = {}
    plain = replace(plain_net, recurrent_mask=None).build(**mask)
    plain.load_state_dict(layer.state_dict())
    (*held, clock), ys = state, []
    y = np.tanh(held[0][0]) if net.cell == "leaky_potential" else held[0][0]
    for x_t in x:
        found, after = plain(x_t[None], pack(held))
        active = clock[:, None] % structure.periods == 0
        y = np.where(active, found[0], y)
        held = [np.where(active, new, old) for new, old in zip(unpack(after), held, strict=True)]
        clock = clock + 1
        ys.append(y)
    return np.stack(ys), (*held, clock)


@pytest.mark.parametrize("cell", CLOCKED)
def test_clocks_step_by_step(cell: str, rng: np.random.Generator) -> None:
    for number in range(6):
        pick = picker(rng)
        net = Net(cell, 5, pick((8, 20, 33, 65)), dtype=pick(DTYPES), seed=number)
        net = replace(net, **draw_groups(pick, net.hidden_size))
        if cell != "mingru" and number % 2:
            net = replace(net, recurrent_mask=("random", 0.6, False))
        if cell == "rnn" and net.recurrent_mask and not net.structures()[0].connected.any(1).all():
            net = replace(net, recurrent_mask=("random", 1.0, False))
        layer, (x, state, _, _) = net.build(), clocked_arrays(net, rng, 30)
        if number % 3 == 0:
            state = (*state[:-1], np.full(4, number))
        y, final = layer(x, state)
        expected, expected_final = one_by_one(net, layer, x, state)
        assert_close(y, expected, bound(net, 30), net)
        assert_close(final, expected_final, bound(net, 30), net)


def reordered(net: Net, groups: Any) -> tuple[Net, np.ndarray]:
    """The same net with its groups in another order, and where each of its units stood."""
    sizes = net.group_sizes or ()
    units = np.split(np.arange(net.hidden_size), np.cumsum(sizes)[:-1])
    periods = tuple(net.periods[g] for g in groups)  # type: ignore[index]
    other = replace(net, periods=periods, group_sizes=tuple(sizes[g] for g in groups))
    return other, np.concatenate([units[g] for g in groups])


@pytest.mark.parametrize("connectivity", ["slower", "full"])
@pytest.mark.parametrize("cell", CLOCKED)
def test_the_order_of_groups_changes_nothing(
    cell: str, connectivity: str, rng: np.random.Generator
) -> None:
    """Sums run from the slowest group to the fastest, wherever they stand."""
    net = Net(cell, 3, 40, periods=(2, 8, 1, 3), group_sizes=(5, 17, 16, 2))
    net = replace(net, connectivity=connectivity)
    layer, (x, state, dy, dstate) = net.build(), clocked_arrays(net, rng)
    y, final, tape = layer.forward_train(x, state)
    g = layer.backward(tape, dy, dstate)
    for groups in ((1, 3, 0, 2), (2, 0, 3, 1)):
        other_net, units = reordered(net, groups)
        values = {}
        for name, value in layer.state_dict().items():
            blocks = value.reshape(-1, 40, *value.shape[1:])[:, units].reshape(value.shape)
            values[name] = blocks[:, units] if "weight_hh" in name else blocks
        other = other_net.build()
        other.load_state_dict(values)
        moved = (*(a[..., units] for a in state[:-1]), state[-1])
        found, found_final, tape = other.forward_train(x, moved)
        assert same_bits(found, y[..., units]), groups
        assert same_bits(found_final, (*(a[..., units] for a in final[:-1]), final[-1])), groups
        d_moved = take_slots(dstate, (..., units))
        h = other.backward(tape, dy[..., units].copy(), d_moved)
        assert_close(h.x, g.x, gradient_bound(net, 13, 4))
        d_state = take_slots(g.state, (..., units))
        assert_close(h.state, d_state, gradient_bound(net, 13, 4))


@pytest.mark.parametrize("cell", CLOCKED)
def test_what_is_kept_belongs_to_its_state(cell: str, rng: np.random.Generator) -> None:
    """A stream whose state is set, reset or set back does not go on with sums of another."""
    net = Net(cell, 3, 40, periods=(1, 2, 4), group_sizes=(17, 3, 20))
    layer, (x, state, _, _) = net.build(), clocked_arrays(net, rng)
    if cell != "mingru":
        layer.load_state_dict(
            {"weight_hh_l0": layer.parameters()["weight_hh_l0"] * 5}, strict=False
        )
    stream = layer.stream(batch_size=4)
    starts = [state, net.state(rng, 4), None, (*state[:-1], np.zeros(4, np.int64))]
    for number in range(12):
        start = starts[number % 4]
        steps = number % 5 + 1
        stream.state = start
        found = np.stack([stream.step(x_t) for x_t in x[number : number + steps]])
        y, final = layer(x[number : number + steps], start)
        assert same_bits(found, y), number
        assert same_bits(stream.state, final), number


def test_many_groups(rng: np.random.Generator) -> None:
    """One for each unit, and as many as there may be; periods from 1 up to more than the steps."""
    for hidden, periods in ((8, tuple(range(1, 9))), (64, tuple(range(64, 0, -1)))):
        net = Net("rnn", 3, hidden, periods=periods)
        layer, (x, state, dy, dstate) = net.build(), clocked_arrays(net, rng, 20)
        y, final, tape = layer.forward_train(x, state)
        assert_close(y, net.oracle(layer, x, state)[0], bound(net, 20))
        assert_close(final, net.oracle(layer, x, state)[1], bound(net, 20))
        g = layer.backward(tape, dy, dstate)
        expected = net.oracle_backward(layer, x, state, dy, dstate)
        assert_gradients_close(g, expected, gradient_bound(net, 20, 4), net)
