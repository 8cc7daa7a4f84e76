"""Finite differences of the forward oracle, as a witness of the gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from reference_backward import Gradients
from structured import draw_structured
from support import (
    BATCHES,
    OPTIONS,
    STEPS,
    Net,
    Parameters,
    Pick,
    draw_net,
    gradient_arrays,
    pack,
    picker,
    unpack,
)

# The four-point difference is wrong by h^4 f^(5) / 30 and by rounding, eps |L| / h: both are below
# this part of the scale of the derivative, for either step.
DIFFERENCE = 1e-8
SMOOTH_STEP = 1e-4

# Nothing must be pushed over a kink: a smaller step, and few units, steps and rows.
KINK_STEP = 1e-6
KINK_SIZES = {"hidden_size": 5, "num_layers": 2}

SMOOTH: tuple[Any, ...] = ("tanh", "identity", "sigmoid", "softplus", ("affine", -0.75, 0.25))
SMOOTH += (("scaled_tanh", 1.5, 0.625),)


def draw_smooth(pick: Pick, cell: str, kind: str | None = None) -> Net:
    """A net without kinks in any of its functions, plain or with such a time structure."""
    fixed: dict[str, Any] = {"clip": None, "cell_clip": None, "gate_activation": "sigmoid"}
    fixed["output_activation"] = pick(SMOOTH)
    fixed = {name: value for name, value in fixed.items() if name in OPTIONS.get(cell, ())}
    if cell != "leaky":
        fixed["nonlinearity"] = pick(SMOOTH)
    if kind is not None:
        return draw_structured(pick, kind, cell, dtype="float64", **fixed)
    return draw_net(pick, cell, dtype="float64", **fixed)


def draw(
    rng: np.random.Generator, net: Net, dy_kind: str = "all", largest: int = 13
) -> tuple[Any, ...]:
    """x, state, dy and dstate of random sizes, batched, with at most so many steps and rows."""
    pick = picker(rng)
    steps, batch = min(pick(STEPS), largest), min(pick(BATCHES), largest)
    dy = net.output_gradient(rng, steps, batch)
    if dy_kind == "last":
        dy = np.ascontiguousarray(dy[:, -1] if net.batch_first else dy[-1])
    x, state = net.input(rng, steps, batch), net.state(rng, batch)
    return x, state, dy, net.state_gradient(rng, batch)


def loss(
    net: Net, arrays: dict[str, Any], clock: Any, dy: np.ndarray, dstate: Any, call: dict[str, Any]
) -> float:
    """sum(dy y) + sum(dstate final), by the forward oracle; arrays: as `gradient_arrays` says."""
    names = ("x", "state", "state c")[: 1 + net.states]
    x, *state = (arrays[name] for name in names)
    layer = Parameters({k: v for k, v in arrays.items() if k not in names})
    y, final = net.oracle(layer, x, pack([*state, *clock]), **call)
    if dy.ndim < y.ndim:
        y = y[:, -1] if net.batch_first and y.ndim == 3 else y[-1]
    ends = zip(unpack(dstate), unpack(final)[: net.states], strict=True)
    return float(np.sum(dy * y)) + sum(float(np.sum(d * s)) for d, s in ends)


def check_differences(
    net: Net, rng: np.random.Generator, h: float, arguments: Any, **call: Any
) -> None:
    """Of every array, along a random direction, which no element escapes, and of one element."""
    layer = net.bare()
    x, state, dy, dstate = arguments
    state, clock = unpack(state)[: net.states], unpack(state)[net.states :]
    arrays = gradient_arrays(Gradients(x, state, layer.state_dict()))
    gradients = gradient_arrays(net.oracle_backward(layer, *arguments, **call))
    assert {k: v.shape for k, v in gradients.items()} == {k: v.shape for k, v in arrays.items()}
    for name, gradient in gradients.items():
        element = np.zeros_like(gradient)
        element.reshape(-1)[rng.integers(element.size)] = 1.0
        for direction in (rng.choice([-1.0, 1.0], gradient.shape), element):
            at = {
                n: loss(
                    net, arrays | {name: arrays[name] + n * h * direction}, clock, dy, dstate, call
                )
                for n in (-2, -1, 1, 2)
            }
            found = (8.0 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12.0 * h)
            scale = max(1.0, float(np.abs(gradient * direction).sum()))
            error = abs(found - float(np.sum(gradient * direction)))
            assert error <= DIFFERENCE * scale, (net, name, error / scale)
