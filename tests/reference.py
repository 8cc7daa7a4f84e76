"""The float64 oracle: the equations of csrc/fastrnn.h, one step at a time, as plainly as they go.

A cell is a function of one step, ``cell(x, past, state, w, o) -> (h, state)``, with x [B, I], past
[K, B, H] the outputs (of leaky_potential its u) of as many steps ago as each of the K delays says,
state a tuple of arrays [B, H] of as many steps ago as the shortest says, w the `Weights` of one
layer in one direction and o its `Options`; h [B, H] is the output. `run` does for every cell the
same: time and its structures, rows that end, begin anew or skip steps, directions, layers, layouts
of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from reference_options import Array, Options, limited, options
from reference_structure import State, Structure, pushed, structures

# ---- Cells ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """One layer in one direction; G gates. What the cell does not have is None."""

    weight_ih: Array | None = None  # [G * H, I]
    weight_hh: Array | None = None  # [K, G * H, H], with a projection [K, G * H, P]
    bias_ih: Array | None = None  # [G * H]
    bias_hh: Array | None = None  # [G * H]
    alpha: Array | None = None  # [H]
    weight_hr: Array | None = None  # [P, H]
    peephole: Array | None = None  # [3 * H], [2 * H] where two gates are coupled

    def of_input(self, x: Array) -> Array:
        """Wx + b_ih [B, G * H]."""
        return x @ self.weight_ih.T + (0.0 if self.bias_ih is None else self.bias_ih)

    def of_past(self, past: Array) -> Array:
        """The sum of U_k h_{t-d_k}, + b_hh [B, G * H]."""
        products = [h @ u.T for h, u in zip(past, self.weight_hh, strict=True)]
        return sum(products) + (0.0 if self.bias_hh is None else self.bias_hh)

    def preactivation(self, x: Array, past: Array) -> Array:
        """Wx + Uh + b [B, G * H]."""
        return self.of_input(x) + self.of_past(past)

    def peepholes(self) -> list[Array | float]:
        """p_i, p_f, p_o, or p_i, p_o; zeros where there are none."""
        return [0.0, 0.0, 0.0] if self.peephole is None else self.split(self.peephole)

    def split(self, blocks: Array) -> list[Array]:
        """What belongs to each gate, of blocks [..., n * H]."""
        return np.split(blocks, blocks.shape[-1] // self.hidden_size, axis=-1)

    @property
    def hidden_size(self) -> int:
        """H of an LSTM with peepholes or projection, or of any cell with a square matrix."""
        return (self.weight_hh if self.weight_hr is None else self.weight_hr).shape[-1]

    def projected(self, m: Array) -> Array:
        return m if self.weight_hr is None else m @ self.weight_hr.T


def lstm(x: Array, past: Array, state: State, w: Weights, o: Options) -> tuple[Array, State]:
    _, c = state
    vi, vf, vg, vo = w.split(w.preactivation(x, past))
    pi, pf, po = w.peepholes()
    c = limited(o.s(vf + pf * c) * c + o.s(vi + pi * c) * o.f(vg), o.cell_clip)
    h = w.projected(o.s(vo + po * c) * o.e(c))
    return h, (h, c)


def lstm_coupled(
    x: Array, past: Array, state: State, w: Weights, o: Options
) -> tuple[Array, State]:
    _, c = state
    vi, vg, vo = w.split(w.preactivation(x, past))
    pi, *_, po = w.peepholes()
    i = o.s(vi + pi * c)
    c = limited((1.0 - i) * c + i * o.f(vg), o.cell_clip)
    h = w.projected(o.s(vo + po * c) * o.e(c))
    return h, (h, c)


def gru(x: Array, past: Array, state: State, w: Weights, o: Options) -> tuple[Array, State]:
    (h,) = state
    (xr, xz, xn), (hr, hz, hn) = w.split(w.of_input(x)), w.split(w.of_past(past))
    r, z = o.s(xr + hr), o.s(xz + hz)
    h = (1.0 - z) * o.f(xn + r * hn) + z * h
    return h, (h,)


def gru_reset_before(
    x: Array, past: Array, state: State, w: Weights, o: Options
) -> tuple[Array, State]:
    (h,) = state
    (xr, xz, xn), (hr, hz, _) = w.split(w.of_input(x)), w.split(w.of_past(past))
    r, z = o.s(xr + hr), o.s(xz + hz)
    hn = w.split(w.of_past(r * past))[2]
    h = (1.0 - z) * o.f(xn + hn) + z * h
    return h, (h,)


def mingru(x: Array, past: Array, state: State, w: Weights, o: Options) -> tuple[Array, State]:
    (h,) = state
    vz, vn = np.split(w.of_input(x), 2, axis=-1)
    z = o.s(vz)
    h = (1.0 - z) * h + z * o.f(vn)
    return h, (h,)


def rnn(x: Array, past: Array, state: State, w: Weights, o: Options) -> tuple[Array, State]:
    h = o.f(w.preactivation(x, past))
    return h, (h,)


def leaky_rate(x: Array, past: Array, state: State, w: Weights, o: Options) -> tuple[Array, State]:
    (h,) = state
    h = w.alpha * h + (1.0 - w.alpha) * o.f(w.preactivation(x, past))
    return h, (h,)


def leaky_potential(
    x: Array, past: Array, state: State, w: Weights, o: Options
) -> tuple[Array, State]:
    (u,) = state
    u = w.alpha * u + (1.0 - w.alpha) * w.preactivation(x, o.f(past))
    return o.f(u), (u,)


def leaky(x: Array, past: Array, state: State, w: Weights, o: Options) -> tuple[Array, State]:
    (h,) = state
    h = w.alpha * h + (1.0 - w.alpha) * x
    return h, (h,)


@dataclass(frozen=True)
class Cell:
    """A cell of the table in csrc/cells.def."""

    step: Callable[[Array, Array, State, Weights, Options], tuple[Array, State]]
    gates: int = 1
    states: int = 1
    derived: bool = False  # the output is f of the state, else the state's first array

    def kept(self, state: State, o: Options) -> Array:
        """The output of a unit that keeps its state."""
        return o.f(state[0]) if self.derived else state[0]


CELLS = {
    "lstm": Cell(lstm, gates=4, states=2),
    "lstm_coupled": Cell(lstm_coupled, gates=3, states=2),
    "gru": Cell(gru, gates=3),
    "gru_reset_before": Cell(gru_reset_before, gates=3),
    "mingru": Cell(mingru, gates=2),
    "rnn": Cell(rnn),
    "leaky_rate": Cell(leaky_rate),
    "leaky_potential": Cell(leaky_potential, derived=True),
    "leaky": Cell(leaky, gates=0),
}


def gated_leaky(alpha: Any, v: Any, state: Any = None) -> tuple[Array, Array]:
    """y_t = alpha_t y_{t-1} + (1 - alpha_t) v_t, of [T, ..., H]: y and the last of it."""
    alpha, v = np.asarray(alpha, np.float64), np.asarray(v, np.float64)
    h = np.zeros(v.shape[1:]) if state is None else np.array(state, np.float64)
    y = np.empty_like(v)
    for t in range(len(v)):
        h = alpha[t] * h + (1.0 - alpha[t]) * v[t]
        y[t] = h
    return y, h


# ---- Time -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """What the rows of a batch do at each step; [T, B] booleans, time-major.

    Where not valid a row skips the step: its state stays, and its output is 0, or with `repeat` the
    last one that this direction gave (0 before the first). reset cuts a row in two, before the
    step: either direction begins each part with the initial state of the call.
    """

    valid: Array
    reset: Array
    repeat: bool = False

    def visits(self, reverse: bool) -> Iterator[tuple[int, Array, Array]]:
        """Each time in the order of visiting, who takes part [B, 1] and who begins anew [B, 1]."""
        steps = len(self.valid)
        none = np.zeros_like(self.valid[:1])
        anew = np.concatenate([self.reset[1:], none]) if reverse else self.reset
        for t in reversed(range(steps)) if reverse else range(steps):
            yield t, self.valid[t, :, None], (anew[t] & self.valid[t])[:, None]


def rows_of(
    steps: int,
    batch: int,
    lengths: Any = None,
    reset: Any = None,
    mask: Any = None,
    zero_output_for_mask: bool = False,
) -> Rows:
    """From lengths [B] and time-major reset and mask [T, B]."""
    nobody = np.zeros((steps, batch), bool)
    valid = ~nobody if mask is None else np.asarray(mask, bool)
    if lengths is not None:
        valid = np.arange(steps)[:, None] < np.asarray(lengths)
    repeat = mask is not None and not zero_output_for_mask
    return Rows(valid, nobody if reset is None else np.asarray(reset, bool), repeat)


def begun(state: State, initial: State, anew: Array) -> State:
    """The histories, and at their end the clock, with which a step starts."""
    return tuple(np.where(anew, i, s) for s, i in zip(state, initial, strict=True))


def one_step(
    cell: Cell, x: Array, before: State, w: Weights, o: Options, structure: Structure
) -> tuple[Array, State]:
    """The output, and the histories and the clock after the step."""
    *histories, clock = before
    past, state = structure.past(histories), structure.memory(histories)
    h, new = cell.step(x, past, state, w, o)
    active = structure.active(clock)
    h = np.where(active, h, cell.kept(state, o))
    new = tuple(np.where(active, a, b) for a, b in zip(new, state, strict=True))
    return h, (*map(pushed, histories, new), clock + 1)


def sequence(
    cell: Cell,
    x: Array,
    initial: State,
    w: Weights,
    o: Options,
    structure: Structure,
    reverse: bool,
    rows: Rows,
) -> tuple[Array, State]:
    """One layer in one direction: x [T, B, I] -> h [T, B, H], and histories and clock at the end.

    initial: histories [S, B, H] and the clock [B, 1].
    """
    h = np.empty((*x.shape[:2], initial[0].shape[-1]))
    state, output = initial, np.zeros(h.shape[1:])
    for t, valid, anew in rows.visits(reverse):
        before = begun(state, initial, anew)
        found, after = one_step(cell, np.where(valid, x[t], 0.0), before, w, o, structure)
        state = tuple(np.where(valid, a, b) for a, b in zip(after, before, strict=True))
        output = np.where(valid, found, output if rows.repeat else 0.0)
        h[t] = output
    return h, state


# ---- Directions, layers, layouts --------------------------------------------------------------


def recurrent_names(suffix: str, delays: tuple[int, ...]) -> list[str]:
    """Of the matrices of one layer in one direction, a delay each."""
    first = "weight_hh" + suffix
    return [first, *(f"{first}_d{d}" for d in delays[1:])]


def weights(
    parameters: Mapping[str, Any], layer: int, reverse: bool, structure: Structure
) -> Weights:
    """Those of one layer in one direction, from PyTorch's names (or just "alpha")."""
    suffix = f"_l{layer}" + "_reverse" * reverse
    found = {}
    for name in Weights.__dataclass_fields__:
        value = parameters.get(name + suffix, parameters.get(name))
        found[name] = None if value is None else np.asarray(value, np.float64)
    if found["weight_hh"] is not None:
        matrices = [parameters[name] for name in recurrent_names(suffix, structure.delays)]
        found["weight_hh"] = structure.masked(np.array(matrices, np.float64))
    return Weights(**found)


class Problem:
    """The arguments of a call in one layout.

    x [T, B, I], states as lists: h [S, B, H or P] and c [S1, B, H], part after part, with S the
    sum of the parts' longest delays and S1 that of the shortest; then the clock [B, 1].
    """

    def __init__(
        self,
        cell_name: str,
        parameters: Mapping[str, Any],
        x: Any,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        batch_first: bool = False,
        go_backwards: bool = False,
        lengths: Any = None,
        reset: Any = None,
        mask: Any = None,
        zero_output_for_mask: bool = False,
        structure: Mapping[str, Any] | None = None,
        **cell_options: Any,
    ) -> None:
        x = np.asarray(x, np.float64)
        self.cell_name, self.cell, self.parameters = cell_name, CELLS[cell_name], parameters
        self.options = options(cell_name, **cell_options)
        self.num_layers, self.directions = num_layers, 2 if bidirectional else 1
        self.unbatched = x.ndim == 2
        self.batch_first, self.go_backwards = batch_first and not self.unbatched, go_backwards
        self.x = self.time_major(x)
        steps, batch = self.x.shape[:2]
        if mask is not None:
            mask = self.time_major(np.asarray(mask, bool))
        if reset is not None:
            reset = self.time_major(np.asarray(reset, bool))
            if go_backwards:  # a cut before step t is one after it, read from the end
                reset = np.concatenate([np.zeros_like(reset[:1]), reset[:-1]])
        self.rows = rows_of(steps, batch, lengths, reset, mask, zero_output_for_mask)
        hidden, outputs = self.sizes()
        structure = structure or {}
        self.structures = structures(hidden, num_layers, self.directions, **structure)
        self.clocked = structure.get("periods") is not None
        self.state_shapes: list[tuple[int, ...]] = [
            (sum(part.slots[i] for part in self.structures), batch, size)
            for i, size in enumerate([outputs, hidden][: self.cell.states])
        ]

    def sizes(self) -> tuple[int, int]:
        """Units, and values of their output."""
        if self.cell_name == "leaky":
            return self.x.shape[-1], self.x.shape[-1]
        hidden = self.parameters["weight_ih_l0"].shape[0] // self.cell.gates
        projection = self.parameters.get("weight_hr_l0")
        return hidden, hidden if projection is None else projection.shape[0]

    def time_major(self, array: Array) -> Array:
        """Of [T, B, ...], [B, T, ...] or [T, ...]; also turned round if that is how it is read."""
        if self.unbatched:
            array = array[:, None]
        elif self.batch_first:
            array = array.swapaxes(0, 1)
        return array[::-1] if self.go_backwards else array

    def as_given(self, array: Array) -> Array:
        """From [T, B, ...] to the layout of the caller."""
        if self.unbatched:
            return array[:, 0]
        return array.swapaxes(0, 1) if self.batch_first else array

    def states(self, values: Any) -> list[Array]:
        """Copies; None, and a part that is None or missing, stand for zeros."""
        given = list(values) if isinstance(values, tuple | list) else [values]
        shapes = [*self.state_shapes, (self.x.shape[1], 1)]
        given += [None] * (len(shapes) - len(given))
        dtypes = [*[np.float64] * self.cell.states, np.int64]
        return [
            np.zeros(shape, dtype) if part is None else np.array(part, dtype).reshape(shape)
            for part, shape, dtype in zip(given, shapes, dtypes, strict=True)
        ]

    def states_as_given(self, states: list[Array], clocked: bool = False) -> Any:
        """Of histories and clock; the clock is given on if it is asked for."""
        *histories, clock = states
        if self.unbatched:
            histories = [s[:, 0] for s in histories]
        if self.cell_name == "leaky":  # one layer only, so its state has no axis for layers
            histories = [s[0] for s in histories]
        if clocked:
            histories.append(clock[0, 0] if self.unbatched else clock[:, 0])
        return tuple(histories) if len(histories) > 1 else histories[0]

    def part(self, layer: int, direction: int) -> tuple[list[slice], Weights, Structure]:
        """The places of a layer's direction in h and c, its weights and its time structure."""
        index = layer * self.directions + direction
        own = self.structures[index]
        starts = np.sum([part.slots for part in self.structures[:index]] or [(0, 0)], axis=0)
        places = [slice(start, start + n) for start, n in zip(starts, own.slots, strict=True)]
        w = weights(self.parameters, layer, direction == 1, own)
        return places[: self.cell.states], w, own

    def forward(self, states: list[Array]) -> list[Array]:
        """The input of every layer, x first, and the output y of the last; states become final.

        Of clocks that differ at the end, as a reset makes those of two directions, the first.
        """
        inputs, clock = [self.x], states[-1].copy()
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self.directions):
                places, w, structure = self.part(layer, direction)
                histories = [s[at].copy() for s, at in zip(states, places, strict=False)]
                h, last = sequence(
                    self.cell,
                    inputs[-1],
                    (*histories, clock),
                    w,
                    self.options,
                    structure,
                    direction == 1,
                    self.rows,
                )
                for s, at, value in zip(states, places, last, strict=False):
                    s[at] = value
                if layer == direction == 0:
                    states[-1] = last[-1]
                outputs.append(h)
            inputs.append(np.concatenate(outputs, axis=-1))
        return inputs


def run(
    cell_name: str, parameters: Mapping[str, Any], x: Any, state: Any = None, **options: Any
) -> tuple[Array, Any]:
    """What a layer of fastrnn gives for x and state: y and the final state, in float64.

    options: those of the constructor and of the call, by their names there, but time structures
    together as `structure`; sizes, bias and whether there is a projection or are peepholes are
    seen from the parameters.
    """
    problem = Problem(cell_name, parameters, x, **options)
    states = problem.states(state)
    y = problem.forward(states)[-1]
    return problem.as_given(y), problem.states_as_given(states, problem.clocked)
