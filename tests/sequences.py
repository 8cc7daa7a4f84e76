"""Helpers of the tests of lengths, resets, masks and dropout: layers, cases, finite differences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import floats, map_state, pack, unpack

import fastrnn

ALPHA = np.linspace(0.0, 1.0, 5)
MAKERS: dict[str, Callable[..., Any]] = {
    "lstm": lambda **o: fastrnn.LSTM(3, 5, **o),
    "lstm projected": lambda **o: fastrnn.LSTM(3, 5, proj_size=2, **o),
    "lstm of options": lambda **o: fastrnn.LSTM(
        3, 5, peephole=True, coupled=True, cell_clip=0.5, **o
    ),
    "gru": lambda **o: fastrnn.GRU(3, 5, **o),
    "gru reset before": lambda **o: fastrnn.GRU(3, 5, reset_after=False, **o),
    "mingru": lambda **o: fastrnn.MinGRU(3, 5, **o),
    "rnn": lambda **o: fastrnn.RNN(3, 5, **o),
    "leaky rate": lambda **o: fastrnn.LeakyRNN(3, 5, alpha=ALPHA, **o),
    "leaky potential": lambda **o: fastrnn.LeakyRNN(3, 5, alpha=ALPHA, form="potential", **o),
}
STACKS: list[dict[str, Any]] = [{}, {"num_layers": 2, "bidirectional": True}]

each_maker = pytest.mark.parametrize("maker", MAKERS)
each_stack = pytest.mark.parametrize("stack", STACKS, ids=["plain", "deep"])

STEPS, ROWS = 7, 6
LENGTHS = [4, 7, 0, 1, 7, 3]


def build(maker: str, **options: Any) -> Any:
    return MAKERS[maker](**{"dtype": "float64", "seed": 3} | options)


def state_of(layer: Any, rng: np.random.Generator, rows: int | None = ROWS) -> Any:
    shape = (STEPS, layer.input_size) if rows is None else (STEPS, rows, layer.input_size)
    if layer.batch_first and rows is not None:
        shape = (rows, STEPS, layer.input_size)
    _, final = layer(np.zeros(shape, layer.dtype))

    def drawn(a: np.ndarray) -> np.ndarray:
        if a.dtype.kind == "i":  # a clock
            return rng.integers(0, 100, a.shape)
        return rng.uniform(-1, 1, a.shape).astype(layer.dtype)

    return map_state(drawn, final)


class Case:
    """A layer with everything that a training step needs."""

    def __init__(self, layer: Any, rng: np.random.Generator, steps: int = STEPS) -> None:
        self.layer = layer
        self.x = rng.standard_normal((steps, ROWS, layer.input_size)).astype(layer.dtype)
        self.state = state_of(layer, rng)
        y, final = layer(self.x, self.state)
        self.dy = rng.standard_normal(y.shape).astype(layer.dtype)
        final = floats(final)
        self.dstate = map_state(lambda a: rng.standard_normal(a.shape).astype(a.dtype), final)

    def trained(self, **options: Any) -> tuple[Any, Any, Any]:
        y, final, tape = self.layer.forward_train(self.x, self.state, **options)
        return y, final, self.layer.backward(tape, self.dy, self.dstate)


def add_up(target: dict[str, np.ndarray], params: dict[str, np.ndarray]) -> None:
    for name, array in params.items():
        target[name] = target.get(name, 0) + array


def assert_same_sums(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Sums in another order, in float64."""
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-12, err_msg=name)


def assert_gradients_are_slopes(case: Case, draw: np.random.Generator, **options: Any) -> None:
    """Those of a random linear loss, along a random direction, against finite differences."""

    def loss(layer: Any, x: np.ndarray, state: Any) -> float:
        y, final, _ = layer.forward_train(x, state, **options)
        pairs = zip((y, *unpack(floats(final))), (case.dy, *unpack(case.dstate)), strict=True)
        return sum(float((a * d).sum()) for a, d in pairs)

    layer, eps = case.layer, 1e-6
    _, _, g = case.trained(**options)
    start = {"x": case.x, **layer.parameters()}
    states = [f"state {i}" for i in range(len(unpack(case.state)))]
    start |= dict(zip(states, unpack(case.state), strict=True))
    found = {"x": g.x, **g.params}
    found |= {f"state {i}": array for i, array in enumerate(unpack(g.state))}
    for name in found:
        value = start[name]
        direction = draw.uniform(-1, 1, value.shape)
        if name.startswith("alpha"):
            direction *= (value > 0) & (value < 1)
        values = []
        for sign in (1, -1):
            moved = start | {name: value + sign * eps * direction}
            other = copy.copy(layer)
            other.load_state_dict({k: moved[k] for k in layer.parameters()})
            state = pack([moved[name] for name in states])
            values.append(loss(other, moved["x"], state))
        slope = (values[0] - values[1]) / (2 * eps)
        product = float((found[name] * direction).sum())
        assert abs(slope - product) <= 1e-7 * max(1.0, abs(slope)), (name, slope, product)


def draw_reset(rng: np.random.Generator) -> np.ndarray:
    reset = rng.random((STEPS, ROWS)) < 0.3
    reset[:, 0] = False
    reset[:, 1] = True
    return reset


def draw_mask(rng: np.random.Generator) -> np.ndarray:
    mask = rng.random((STEPS, ROWS)) < 0.6
    mask[:, 0], mask[:, 1] = False, True
    return mask


def one_direction(layer: Any, number: int, reverse: bool) -> Any:
    """A layer of a stack in one direction as a layer of its own."""
    part = copy.copy(layer)
    names = {n: v for n, v in layer.state_dict().items() if "_l0" in n and "reverse" not in n}
    suffix = f"_l{number}" + "_reverse" * reverse
    values = {n: layer.state_dict()[n.replace("_l0", suffix)] for n in names}
    inputs = values["weight_ih_l0"].shape[1]
    vars(part).update(input_size=inputs, num_layers=1, bidirectional=False, _parameters=values)
    return part
