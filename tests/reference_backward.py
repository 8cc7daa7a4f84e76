"""The float64 oracle of the gradients: backward through time, one step at a time, plainly.

L is any number that is computed from y and from the final state, and d(v) stands for dL/dv. Given
are d(y) and d(final state); wanted is d of every parameter, of x and of the initial state. The
backward of one step of each cell is in reference_steps.py; here is what all cells share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from reference import CELLS, Problem, Rows, Weights, begun, one_step, recurrent_names
from reference_options import Array, Options
from reference_steps import STEPS
from reference_structure import State, Structure, pushed_backward


@dataclass(frozen=True)
class Gradients:
    """Of x and of the initial state in their shapes, and of each parameter by its name."""

    x: Array
    state: Any
    params: dict[str, Array]


def zeros_like(w: Weights) -> Weights:
    of = {f.name: getattr(w, f.name) for f in fields(w)}
    return Weights(**{name: None if v is None else np.zeros_like(v) for name, v in of.items()})


def add_to(total: Weights, share: Weights) -> None:
    for field in fields(total):
        sum_so_far = getattr(total, field.name)
        if sum_so_far is not None:
            sum_so_far += getattr(share, field.name)


def one_step_backward(
    cell_name: str,
    x: Array,
    before: State,
    w: Weights,
    o: Options,
    structure: Structure,
    dy: Array,
    dafter: State,
) -> tuple[Array, State, Weights]:
    """Of `one_step`, from d(output) and d(histories): d(x), d(histories before), d(weights).

    The newest of the histories is what the step gave, or where a unit kept its state that of the
    shortest delay ago; the step itself read the histories where `past` and `memory` say.
    """
    *histories, clock = before
    past, state = structure.past(histories), structure.memory(histories)
    active = structure.active(clock)
    dbefore, dnew = zip(*map(pushed_backward, dafter), strict=True)
    working = [np.where(active, d, 0.0) for d in (dy, *dnew)]
    resting = [np.where(active, 0.0, d) for d in (dy, *dnew)]
    dx, dpast, dstate, dw = STEPS[cell_name](x, past, state, w, o, working[0], tuple(working[1:]))

    kept = [a + b for a, b in zip(dstate, resting[1:], strict=True)]
    kept[0] += resting[0] * (o.f.slope(state[0]) if CELLS[cell_name].derived else 1.0)
    for history, d in zip(dbefore, kept, strict=True):
        history[-structure.delays[0]] += d
    for delay, d in zip(structure.delays, dpast, strict=True):
        dbefore[0][-delay] += d
    if dw.weight_hh is not None:
        dw = replace(dw, weight_hh=structure.masked(dw.weight_hh))
    return dx, dbefore, dw


def sequence_backward(
    cell_name: str,
    x: Array,
    initial: State,
    w: Weights,
    o: Options,
    structure: Structure,
    reverse: bool,
    rows: Rows,
    dy: Array,
    dstate: State,
) -> tuple[Array, State, Weights]:
    """One layer in one direction, dy [T, B, H]: d(x), d(initial histories), d(weights).

    The weights are the same at every step, so that their gradients are sums over the steps. A row
    that skips a step has no part in it: d(state) passes by, and what arrives at a repeated output
    waits for the step that gave it. A row that began anew at a step took its state there from the
    initial one, and nothing from the step before.
    """
    visits, before, state = list(rows.visits(reverse)), {}, initial
    for t, valid, anew in visits:
        before[t] = begun(state, initial, anew)
        x_t = np.where(valid, x[t], 0.0)
        _, after = one_step(CELLS[cell_name], x_t, before[t], w, o, structure)
        state = tuple(np.where(valid, a, b) for a, b in zip(after, before[t], strict=True))

    dx, total = np.empty_like(x), zeros_like(w)
    dinitial = tuple(np.zeros_like(d) for d in dstate)
    waiting = np.zeros(dy.shape[1:])
    for t, valid, anew in reversed(visits):
        d_output = np.where(valid, dy[t] + waiting, 0.0)
        waiting = np.where(valid, 0.0, dy[t] + waiting if rows.repeat else 0.0)
        d_after = tuple(np.where(valid, d, 0.0) for d in dstate)
        x_t = np.where(valid, x[t], 0.0)
        dx[t], d_before, share = one_step_backward(
            cell_name, x_t, before[t], w, o, structure, d_output, d_after
        )
        add_to(total, share)
        dstate = tuple(np.where(valid, b, d) for b, d in zip(d_before, dstate, strict=True))
        for sum_so_far, d in zip(dinitial, dstate, strict=True):
            sum_so_far += np.where(anew, d, 0.0)
        dstate = tuple(np.where(anew, 0.0, d) for d in dstate)
    return dx, tuple(a + d for a, d in zip(dinitial, dstate, strict=True)), total


def output_gradient(problem: Problem, dy: Any, y: Array) -> Array:
    """dy of the caller as [T, B, D * H], like y."""
    full = np.zeros_like(y)
    if dy is None:
        return full
    dy = np.asarray(dy, np.float64)
    if dy.ndim < (2 if problem.unbatched else 3):
        full[-1] = dy
    elif problem.unbatched:
        full[...] = dy[:, None]
    else:
        full[...] = dy.swapaxes(0, 1) if problem.batch_first else dy
    return full


def run(
    cell_name: str,
    parameters: Mapping[str, Any],
    x: Any,
    state: Any = None,
    dy: Any = None,
    dstate: Any = None,
    **options: Any,
) -> Gradients:
    """The gradients of sum(dy * y) + sum(dstate * final state), for what `reference.run` gives.

    dy is like y, or has one axis less and belongs to y at the last time, or is None for zeros;
    dstate is like the state, and it and its parts may be None for zeros; options as there.
    """
    problem = Problem(cell_name, parameters, x, **options)
    states, dstates = problem.states(state), problem.states(dstate)
    inputs = problem.forward([s.copy() for s in states])
    d_output = output_gradient(problem, dy, inputs[-1])

    found: dict[str, Array | None] = {}
    for layer in reversed(range(problem.num_layers)):
        parts = np.split(d_output, problem.directions, axis=-1)
        d_output = np.zeros_like(inputs[layer])
        for direction, part in enumerate(parts):  # both directions read the same input
            places, w, structure = problem.part(layer, direction)
            initial, final = (
                tuple(s[at] for s, at in zip(of, places, strict=False)) for of in (states, dstates)
            )
            dx, dinitial, dw = sequence_backward(
                cell_name,
                inputs[layer],
                (*initial, states[-1]),
                w,
                problem.options,
                structure,
                direction == 1,
                problem.rows,
                part,
                final,
            )
            d_output += dx
            for s, at, value in zip(dstates, places, dinitial, strict=False):
                s[at] = value
            suffix = f"_l{layer}" + "_reverse" * direction
            found |= {field.name + suffix: getattr(dw, field.name) for field in fields(dw)}
            if dw.weight_hh is not None:
                names = recurrent_names(suffix, structure.delays)
                found |= dict(zip(names, dw.weight_hh, strict=True))

    if cell_name == "leaky":  # one layer only, so that nothing has an index of the layer
        found = {"alpha": found["alpha_l0"]}
    if problem.go_backwards:
        d_output = d_output[::-1]
    return Gradients(
        problem.as_given(d_output),
        problem.states_as_given(dstates),
        {name: found[name] for name in parameters},
    )


def gated_leaky(
    alpha: Any, v: Any, y: Any, dy: Any, state: Any = None, dstate: Any = None
) -> tuple[Array, Array, Array]:
    """Of `reference.gated_leaky`, which gave y: d(alpha), d(v), d(initial state).

    d(y_t) = dy_t and what the next step says;  d(v_t) = d(y_t) (1 - alpha_t);
    d(alpha_t) = d(y_t) (y_{t-1} - v_t);  d(y_{t-1}) = d(y_t) alpha_t.
    """
    alpha, v, y, dy = (np.asarray(a, np.float64) for a in (alpha, v, y, dy))
    h = np.zeros(v.shape[1:]) if state is None else np.asarray(state, np.float64)
    d = np.zeros(v.shape[1:]) if dstate is None else np.array(dstate, np.float64)
    dalpha, dv = np.empty_like(v), np.empty_like(v)
    for t in reversed(range(len(v))):
        d = d + dy[t]
        dalpha[t] = d * ((y[t - 1] if t else h) - v[t])
        dv[t] = d * (1.0 - alpha[t])
        d = d * alpha[t]
    return dalpha, dv, d
