"""Masks with holes, and layers that go backwards: what Keras has of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sequences import (
    LENGTHS,
    ROWS,
    STEPS,
    Case,
    assert_gradients_are_slopes,
    build,
    draw_mask,
    draw_reset,
    each_maker,
    each_stack,
    one_direction,
    state_of,
)
from support import pack, same_bits, same_gradients, unpack

# ---- Masks ------------------------------------------------------------------------------------


def as_keras(
    layer: Any, x: np.ndarray, state: Any, mask: np.ndarray, zero_output: bool
) -> tuple[np.ndarray, Any]:
    """Keras' loop over time: steps without a mask carry the state and repeat the output."""
    finals: list[tuple[np.ndarray, ...]] = []
    for number in range(layer.num_layers):
        outputs = []
        for reverse in (False, True)[: 1 + layer.bidirectional]:
            step, index = one_direction(layer, number, reverse), len(finals)
            held = [array[index : index + 1] for array in unpack(state)]
            y = np.zeros((STEPS, ROWS, step(x[:1])[0].shape[-1]), layer.dtype)
            previous = np.zeros_like(y[0])
            for t in reversed(range(STEPS)) if reverse else range(STEPS):
                out, after = step(x[t : t + 1], pack(held))
                taken = mask[t][:, None]
                pairs = zip(unpack(after), held, strict=True)
                held = [np.where(taken, new, old) for new, old in pairs]
                previous = np.where(taken, out[0], previous)
                y[t] = np.where(taken, previous, 0) if zero_output else previous
            outputs.append(y)
            finals.append(tuple(held))
        x = np.concatenate(outputs, axis=-1)
    return x, pack([np.concatenate(arrays) for arrays in zip(*finals, strict=True)])


@each_maker
@each_stack
@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masks_are_those_of_keras(
    maker: str, stack: dict[str, Any], zero_output: bool, dtype: str, rng: np.random.Generator
) -> None:
    case, mask = Case(build(maker, dtype=dtype, **stack), rng), draw_mask(rng)
    options = {"mask": mask, "zero_output_for_mask": zero_output}
    expected = as_keras(case.layer, case.x, case.state, mask, zero_output)
    assert same_bits(case.layer(case.x, case.state, **options), expected)
    case.x[~mask] = np.nan  # what is skipped is not looked at
    assert same_bits(case.layer(case.x, case.state, **options), expected)
    assert same_bits(case.trained(**options)[:2], expected)


@each_maker
@each_stack
@pytest.mark.parametrize("zero_output", [False, True])
def test_gradients_with_masks_are_slopes(
    maker: str, stack: dict[str, Any], zero_output: bool, rng: np.random.Generator
) -> None:
    case, mask = Case(build(maker, **stack), rng), draw_mask(rng)
    options = {"mask": mask, "zero_output_for_mask": zero_output}
    assert_gradients_are_slopes(case, rng, **options)
    _, _, g = case.trained(**options)
    assert not g.x[~mask].any()


@each_maker
@each_stack
def test_a_mask_without_holes_is_a_length(
    maker: str, stack: dict[str, Any], rng: np.random.Generator
) -> None:
    case = Case(build(maker, **stack), rng)
    mask = np.arange(STEPS)[:, None] < np.array(LENGTHS)
    y, final, g = case.trained(mask=mask, zero_output_for_mask=True)
    by_length = case.trained(lengths=LENGTHS)
    assert same_bits((y, final), by_length[:2])
    assert same_gradients(g, by_length[2])


@each_maker
@pytest.mark.parametrize("zero_output", [False, True])
def test_nothing_but_holes(maker: str, zero_output: bool, rng: np.random.Generator) -> None:
    case = Case(build(maker, bidirectional=True), rng)
    mask = np.zeros((STEPS, ROWS), bool)
    y, final, g = case.trained(mask=mask, zero_output_for_mask=zero_output)
    assert not y.any()
    assert same_bits(final, case.state)
    assert same_bits(g.state, case.dstate)
    assert not g.x.any()


@each_stack
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_last_step_of_a_masked_sequence(
    batch_first: bool, stack: dict[str, Any], rng: np.random.Generator
) -> None:
    """Its gradient alone, without the axis of time, also where y repeats an earlier output."""
    layer = build("gru", batch_first=batch_first, **stack)
    mask = draw_mask(rng)
    x = rng.standard_normal((STEPS, ROWS, 3))
    if batch_first:
        x, mask = x.swapaxes(0, 1), mask.T
    y, _, tape = layer.forward_train(x, mask=mask)
    last = (slice(None), -1) if batch_first else (-1,)
    dy = np.zeros_like(y)
    dy[last] = rng.standard_normal(dy[last].shape)
    assert same_gradients(layer.backward(tape, dy[last].copy()), layer.backward(tape, dy))


@each_maker
@pytest.mark.parametrize("options", [{"steps": 0}, {"rows": 0}], ids=["steps", "rows"])
def test_masks_of_nothing(maker: str, options: dict[str, int]) -> None:
    layer = build(maker)
    steps, rows = options.get("steps", STEPS), options.get("rows", ROWS)
    x, mask = np.zeros((steps, rows, 3)), np.ones((steps, rows), bool)
    y, final, tape = layer.forward_train(x, mask=mask)
    assert y.shape[:2] == (steps, rows)
    assert same_bits((y, final), layer(x))
    assert layer.backward(tape, y).x.shape == x.shape


# ---- Backwards --------------------------------------------------------------------------------


@each_maker
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("batch_first", [False, True])
def test_going_backwards_is_a_turned_sequence(
    maker: str, num_layers: int, batch_first: bool, rng: np.random.Generator
) -> None:
    options = {"num_layers": num_layers, "batch_first": batch_first}
    layer, forwards = build(maker, go_backwards=True, **options), build(maker, **options)
    time = 1 if batch_first else 0
    x = rng.standard_normal((ROWS, STEPS, 3) if batch_first else (STEPS, ROWS, 3))
    state = state_of(layer, rng)
    y, final, tape = layer.forward_train(x, state)
    assert same_bits((y, final), layer(x, state))
    other, other_final, other_tape = forwards.forward_train(np.flip(x, time), state)
    assert same_bits((y, final), (other, other_final))
    dy = rng.standard_normal(y.shape)
    g, g_other = layer.backward(tape, dy, state), forwards.backward(other_tape, dy, state)
    assert same_bits(g.x, np.flip(g_other.x, time).copy())
    assert same_bits(g.state, g_other.state)
    assert all(same_bits(g.params[name], array) for name, array in g_other.params.items())
    assert layer.backward(tape, dy, need_x=False).x is None


@each_maker
def test_going_backwards_is_the_reverse_direction(maker: str, rng: np.random.Generator) -> None:
    """In the order in which it visits the steps; with lengths of its own by a mask."""
    both, layer = build(maker, bidirectional=True), build(maker, go_backwards=True)
    values = both.state_dict()
    layer.load_state_dict({name: values[name + "_reverse"] for name in layer.parameters()})
    x = rng.standard_normal((STEPS, ROWS, 3))
    reset, mask = draw_reset(rng), draw_mask(rng)
    for options in ({}, {"reset": reset}, {"mask": mask}):
        y, _ = both(x, **options)
        own, _ = layer(x, **options)
        assert same_bits(own, y[::-1, :, y.shape[-1] // 2 :].copy())
    case = Case(layer, rng)
    assert_gradients_are_slopes(case, rng, reset=reset)
    assert_gradients_are_slopes(case, rng, mask=mask)


@each_maker
def test_going_backwards_one_sequence(maker: str, rng: np.random.Generator) -> None:
    layer, x = build(maker, go_backwards=True), rng.standard_normal((STEPS, ROWS, 3))
    mask = draw_mask(rng)
    y, _ = layer(x, mask=mask)
    for row in range(ROWS):
        assert same_bits(layer(x[:, row], mask=mask[:, row])[0], y[:, row].copy())


@each_maker
@pytest.mark.parametrize("checkpoint", [1, "auto"])
def test_going_backwards_with_checkpoints(
    maker: str, checkpoint: Any, rng: np.random.Generator
) -> None:
    layer = build(maker, go_backwards=True)
    case = Case(layer, rng, steps=300)
    plain, short = case.trained(), case.trained(checkpoint=checkpoint)
    assert same_bits(plain[:2], short[:2])
    assert same_gradients(plain[2], short[2])
