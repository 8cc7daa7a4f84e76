"""The float64 oracle of the gradients: backward through time, one step at a time, plainly.

L is any number that is computed from y and from the final state, and d(v) stands for dL/dv. Given
are d(y) and d(final state); wanted is d of every parameter, of x and of the initial state.

The backward of a cell is a function of one step. The step took x [B, I] and the state before it to
the output h [B, H] and the state after it. Given d(h) from what reads the output at this step only
(y, or the layer above), and d(state after) from the steps that follow, it gives d(x), d(state
before) and this step's share of d of the weights. All of it is the chain rule along the equations
of reference.py; what the forward computed is computed again from x and the state before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from reference import (
    ACTIVATIONS,
    CELLS,
    Activation,
    Array,
    State,
    Weights,
    identity,
    relu,
    sequence,
    sigmoid,
    weights,
)

StepBackward = Callable[
    [Array, State, Weights, Activation, Array, State], tuple[Array, State, Weights]
]

# f'(v). relu has no derivative at 0; what is taken there is 0, as PyTorch does.
DERIVATIVES: dict[Activation, Activation] = {
    np.tanh: lambda v: 1.0 - np.tanh(v) ** 2,
    relu: lambda v: np.where(v > 0.0, 1.0, 0.0),
    identity: np.ones_like,
}


# ---- Cells ------------------------------------------------------------------------------------


def preactivation_backward(
    x: Array, h: Array, w: Weights, dv: Array, dalpha: Array | None = None
) -> tuple[Array, Array, Weights]:
    """v = Wx + Uh + b, row by row: d(x), d(h), and d(W), d(U), d(b) as sums over the rows.

    v_j = sum_k W_jk x_k + ..., so d(x_k) = sum_j d(v_j) W_jk and d(W_jk) = d(v_j) x_k. The two
    biases are added to each other before anything else happens: both get d(v).
    """
    db = dv.sum(axis=0)
    return dv @ w.weight_ih, dv @ w.weight_hh, Weights(dv.T @ x, dv.T @ h, db, db, dalpha)


def lstm(
    x: Array, state: State, w: Weights, f: Activation, dy: Array, dstate: State
) -> tuple[Array, State, Weights]:
    """c' = F c + I G and h' = O tanh(c'), where I, F, G, O are functions of v, four blocks of it.

    h' is the output and a part of the state, so its two gradients add up. Then
        d(O) = d(h') tanh(c')
        d(c') = what the next step says + d(h') O (1 - tanh(c')^2)
        d(I) = d(c') G;   d(G) = d(c') I;   d(F) = d(c') c;   d(c) = d(c') F
    and with s' = s (1 - s) for s = sigmoid(v), t' = 1 - t^2 for t = tanh(v):
        d(v) = (d(I) I (1 - I), d(F) F (1 - F), d(G) (1 - G^2), d(O) O (1 - O))
    """
    h, c = state
    vi, vf, vg, vo = np.split(w.preactivation(x, h), 4, axis=-1)
    i, forget, g, o = sigmoid(vi), sigmoid(vf), np.tanh(vg), sigmoid(vo)
    t = np.tanh(forget * c + i * g)
    dh = dy + dstate[0]
    dc = dstate[1] + dh * o * (1.0 - t**2)
    dv = [
        dc * g * i * (1.0 - i),
        dc * c * forget * (1.0 - forget),
        dc * i * (1.0 - g**2),
        dh * t * o * (1.0 - o),
    ]
    dx, dh_before, dw = preactivation_backward(x, h, w, np.concatenate(dv, axis=-1))
    return dx, (dh_before, dc * forget), dw


def rnn(
    x: Array, state: State, w: Weights, f: Activation, dy: Array, dstate: State
) -> tuple[Array, State, Weights]:
    """h' = f(v): d(v) = d(h') f'(v)."""
    (h,) = state
    dv = (dy + dstate[0]) * DERIVATIVES[f](w.preactivation(x, h))
    dx, dh, dw = preactivation_backward(x, h, w, dv)
    return dx, (dh,), dw


def leaky_rate(
    x: Array, state: State, w: Weights, f: Activation, dy: Array, dstate: State
) -> tuple[Array, State, Weights]:
    """h' = a h + (1 - a) f(v).

    d(v) = d(h') (1 - a) f'(v);  d(a) = d(h') (h - f(v)), summed over the rows;
    d(h) = d(h') a, and what comes through v.
    """
    (h,) = state
    v = w.preactivation(x, h)
    dh = dy + dstate[0]
    dv = dh * (1.0 - w.alpha) * DERIVATIVES[f](v)
    dalpha = (dh * (h - f(v))).sum(axis=0)
    dx, dh_through_v, dw = preactivation_backward(x, h, w, dv, dalpha)
    return dx, (dh * w.alpha + dh_through_v,), dw


def leaky_potential(
    x: Array, state: State, w: Weights, f: Activation, dy: Array, dstate: State
) -> tuple[Array, State, Weights]:
    """u' = a u + (1 - a) v with v = Wx + U f(u) + b; the output is f(u').

    d(u') = what the next step says + d(output) f'(u');  d(v) = d(u') (1 - a);
    d(a) = d(u') (u - v);  d(u) = d(u') a + d(f(u)) f'(u), where d(f(u)) comes through v.
    """
    (u,) = state
    v = w.preactivation(x, f(u))
    du = dstate[0] + dy * DERIVATIVES[f](w.alpha * u + (1.0 - w.alpha) * v)
    dalpha = (du * (u - v)).sum(axis=0)
    dx, dpast, dw = preactivation_backward(x, f(u), w, du * (1.0 - w.alpha), dalpha)
    return dx, (du * w.alpha + dpast * DERIVATIVES[f](u),), dw


def leaky(
    x: Array, state: State, w: Weights, f: Activation, dy: Array, dstate: State
) -> tuple[Array, State, Weights]:
    """h' = a h + (1 - a) x:  d(x) = d(h') (1 - a);  d(h) = d(h') a;  d(a) = d(h') (h - x)."""
    (h,) = state
    dh = dy + dstate[0]
    dalpha = (dh * (h - x)).sum(axis=0)
    return dh * (1.0 - w.alpha), (dh * w.alpha,), Weights(alpha=dalpha)


STEPS: dict[str, StepBackward] = {
    "lstm": lstm,
    "rnn": rnn,
    "leaky_rate": leaky_rate,
    "leaky_potential": leaky_potential,
    "leaky": leaky,
}


# ---- Time, directions, layers -----------------------------------------------------------------


@dataclass(frozen=True)
class Gradients:
    """Of x and of the initial state in their shapes, and of each parameter by its name."""

    x: Array
    state: Any
    params: dict[str, Array]


def zeros_like(w: Weights) -> Weights:
    of = {f.name: getattr(w, f.name) for f in fields(w)}
    return Weights(**{name: None if v is None else np.zeros_like(v) for name, v in of.items()})


def sequence_backward(
    cell_name: str,
    x: Array,
    state: State,
    w: Weights,
    f: Activation,
    reverse: bool,
    dy: Array,
    dstate: State,
) -> tuple[Array, State, Weights]:
    """One layer in one direction, dy [T, B, H]: d(x), d(initial state), d(weights).

    The weights are the same at every step, so that their gradients are sums over the steps.
    """
    times = list(range(len(x)))
    if reverse:
        times.reverse()
    before = {}
    for t in times:
        before[t] = state
        _, state = CELLS[cell_name].step(x[t], state, w, f)
    dx, total = np.empty_like(x), zeros_like(w)
    for t in reversed(times):
        dx[t], dstate, share = STEPS[cell_name](x[t], before[t], w, f, dy[t], dstate)
        for field in fields(total):
            sum_so_far = getattr(total, field.name)
            if sum_so_far is not None:
                sum_so_far += getattr(share, field.name)
    return dx, dstate, total


def forward(
    cell_name: str,
    parameters: Mapping[str, Any],
    x: Array,
    states: Array,
    f: Activation,
    layers: int,
) -> list[Array]:
    """The input of every layer, x [T, B, I] first, and the output y of the last."""
    inputs = [x]
    directions = states.shape[1] // layers
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            initial = tuple(states[:, layer * directions + direction])
            w = weights(parameters, layer, direction == 1)
            h, _ = sequence(CELLS[cell_name], inputs[-1], initial, w, f, direction == 1)
            outputs.append(h)
        inputs.append(np.concatenate(outputs, axis=-1))
    return inputs


def run(
    cell_name: str,
    parameters: Mapping[str, Any],
    x: Any,
    state: Any = None,
    dy: Any = None,
    dstate: Any = None,
    *,
    nonlinearity: str = "tanh",
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> Gradients:
    """The gradients of sum(dy * y) + sum(dstate * final state), for what `reference.run` gives.

    dy is like y, or has one axis less and belongs to y at the last time, or is None for zeros;
    dstate is like the state, and it and its parts may be None for zeros.
    """
    cell, f = CELLS[cell_name], ACTIVATIONS[nonlinearity]
    x = np.asarray(x, np.float64)
    unbatched = x.ndim == 2

    def turned(array: Array) -> Array:
        """From the layout of x to [T, B, ...], and back again."""
        return array.swapaxes(0, 1) if batch_first and not unbatched else array

    x = x[:, None] if unbatched else turned(x)
    directions = 2 if bidirectional else 1
    hidden = x.shape[-1] if cell_name == "leaky" else parameters["weight_hh_l0"].shape[-1]
    shape = (num_layers * directions, x.shape[1], hidden)

    def arrays(values: Any) -> Array:
        """A state as [states, L * D, B, H], with zeros for None."""
        parts = values if isinstance(values, tuple) else [values] * cell.states
        filled = [np.zeros(shape) if part is None else part for part in parts]
        return np.stack([np.array(part, np.float64).reshape(shape) for part in filled])

    states, dstates = arrays(state), arrays(dstate)
    inputs = forward(cell_name, parameters, x, states, f, num_layers)

    d_output = np.zeros_like(inputs[-1])
    if dy is not None:
        dy = np.asarray(dy, np.float64)
        if dy.ndim < (2 if unbatched else 3):
            d_output[-1] = dy
        else:
            d_output[...] = dy[:, None] if unbatched else turned(dy)

    found: dict[str, Array | None] = {}
    for layer in reversed(range(num_layers)):
        parts = np.split(d_output, directions, axis=-1)
        d_output = np.zeros_like(inputs[layer])
        for direction, part in enumerate(parts):  # both directions read the same input
            index, reverse = layer * directions + direction, direction == 1
            w, initial = weights(parameters, layer, reverse), tuple(states[:, index])
            dx, dstates[:, index], dw = sequence_backward(
                cell_name, inputs[layer], initial, w, f, reverse, part, tuple(dstates[:, index])
            )
            d_output += dx
            suffix = f"_l{layer}" + "_reverse" * reverse
            found |= {field.name + suffix: getattr(dw, field.name) for field in fields(dw)}

    if cell_name == "leaky":  # one layer only, so that nothing has an index of the layer
        found, dstates = {"alpha": found["alpha_l0"]}, dstates[:, 0]
    if unbatched:
        d_output, dstates = d_output[:, 0], dstates[..., 0, :]
    return Gradients(
        turned(d_output),
        tuple(dstates) if cell.states > 1 else dstates[0],
        {name: found[name] for name in parameters},
    )
