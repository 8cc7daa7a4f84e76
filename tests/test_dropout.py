"""Dropout between layers: what it does in training, and its gradients."""

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
    assert_same_sums,
    build,
    draw_mask,
    draw_reset,
    each_maker,
    each_stack,
    one_direction,
)
from support import same_bits, same_gradients

import fastrnn


@each_maker
def test_dropout_is_of_training_only(maker: str, rng: np.random.Generator) -> None:
    dropping = build(maker, num_layers=2, dropout=0.5)
    x = rng.standard_normal((STEPS, ROWS, 3))
    assert same_bits(dropping(x), build(maker, num_layers=2)(x))
    y, _, _ = dropping.forward_train(x, rng=0)
    assert not np.array_equal(y, dropping(x)[0])
    assert not np.array_equal(dropping.forward_train(x)[0], dropping.forward_train(x)[0])


@each_maker
@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_repeats_with_its_seed(
    maker: str, bidirectional: bool, rng: np.random.Generator
) -> None:
    layer = build(maker, num_layers=3, bidirectional=bidirectional, dropout=0.3)
    case = Case(layer, rng)
    first, again, other = (case.trained(rng=seed) for seed in (1, np.random.default_rng(1), 2))
    assert same_bits(first[:2], again[:2])
    assert same_gradients(first[2], again[2])
    assert not np.array_equal(first[0], other[0])
    shared = np.random.default_rng(1)
    assert not np.array_equal(case.trained(rng=shared)[0], case.trained(rng=shared)[0])


@each_stack
def test_what_is_dropped_does_not_depend_on_the_layout(
    stack: dict[str, Any], rng: np.random.Generator
) -> None:
    options = stack | {"num_layers": 2, "dropout": 0.5}
    layer, other = build("lstm", **options), build("lstm", batch_first=True, **options)
    x = rng.standard_normal((STEPS, ROWS, 3))
    y, final, _ = layer.forward_train(x, rng=5)
    turned, turned_final, _ = other.forward_train(x.swapaxes(0, 1), rng=5)
    assert same_bits(turned.swapaxes(0, 1).copy(), y)
    assert same_bits(turned_final, final)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropped_and_scaled(dtype: str) -> None:
    """Two layers that do nothing show what came between them."""
    layer = fastrnn.RNN(50, 50, 2, nonlinearity="identity", dropout=0.25, dtype=dtype, bias=False)
    for name in layer.parameters():
        values = np.eye(50) if name.startswith("weight_ih") else np.zeros((50, 50))
        setattr(layer, name, values.astype(dtype))
    y, _, tape = layer.forward_train(np.ones((40, 30, 50), dtype), rng=0)
    kept = np.dtype(dtype).type(1) / np.dtype(dtype).type(0.75)
    assert set(np.unique(y)) == {0, kept}
    rate = np.mean(y == 0)
    assert abs(rate - 0.25) < 5 * np.sqrt(0.25 * 0.75 / y.size)
    assert np.array_equal(layer.backward(tape, np.ones_like(y)).x, y)


def test_everything_dropped(rng: np.random.Generator) -> None:
    layer = build("rnn", num_layers=2, dropout=1.0)
    case = Case(layer, rng)
    y, _, g = case.trained(rng=0)
    above = one_direction(layer, 1, False)
    silent = np.zeros((STEPS, ROWS, 5))
    assert same_bits(y, above(silent, case.state[1:])[0])
    assert not g.params["weight_ih_l1"].any()


@each_maker
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_with_dropout_are_slopes(
    maker: str, bidirectional: bool, rng: np.random.Generator
) -> None:
    layer = build(maker, num_layers=3, bidirectional=bidirectional, dropout=0.4)
    assert_gradients_are_slopes(Case(layer, rng), rng, rng=7)


@pytest.mark.parametrize("name", ["lengths", "reset", "mask", "go_backwards"])
def test_dropout_together_with(name: str, rng: np.random.Generator) -> None:
    layer = build("lstm", num_layers=2, dropout=0.4, go_backwards=name == "go_backwards")
    given = {"lengths": LENGTHS, "reset": draw_reset(rng), "mask": draw_mask(rng)}
    options = {name: given[name]} if name in given else {}
    assert_gradients_are_slopes(Case(layer, rng), rng, rng=7, **options)


def test_a_tape_of_dropout_serves_again_and_adds_up(rng: np.random.Generator) -> None:
    layer = build("gru", num_layers=2, dropout=0.5)
    case = Case(layer, rng)
    _, _, tape = layer.forward_train(case.x, case.state, rng=0)
    g = layer.backward(tape, case.dy, case.dstate)
    out = {name: np.ones_like(array) for name, array in g.params.items()}
    again = layer.backward(tape, case.dy, case.dstate, out=out)
    assert same_bits(again.x, g.x)
    assert_same_sums(out, {name: array + 1 for name, array in g.params.items()})
    none = layer.backward(tape, case.dy, need_x=False, need_params=False)
    assert (none.x, none.params) == (None, {})
    assert tape.nbytes > 2 * STEPS * ROWS * 5 * 8


@each_stack
def test_no_dropout_is_a_plain_forward(stack: dict[str, Any], rng: np.random.Generator) -> None:
    case = Case(build("lstm", dropout=0.0, **stack), rng)
    y, final, g = case.trained()
    seeded = case.trained(rng=3)
    assert same_bits(seeded[:2], (y, final))
    assert same_gradients(seeded[2], g)
