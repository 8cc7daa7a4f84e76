"""The float64 oracle: the equations of csrc/fastrnn.h, one step at a time, as plainly as they go.

A cell is a function of one step, ``cell(x, state, w, f) -> (h, state)``, with x [B, I], state a
tuple of arrays [B, H], w the `Weights` of one layer in one direction and f the activation; h [B, H]
is the output. `run` does for every cell the same: time, directions, layers, layouts of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = tuple[Array, ...]
Activation = Callable[[Array], Array]


# ---- Cells ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """One layer in one direction; G gates. What the cell does not have is None."""

    weight_ih: Array | None = None  # [G * H, I]
    weight_hh: Array | None = None  # [G * H, H]
    bias_ih: Array | None = None  # [G * H]
    bias_hh: Array | None = None  # [G * H]
    alpha: Array | None = None  # [H]

    def preactivation(self, x: Array, h: Array) -> Array:
        """Wx + Uh + b [B, G * H]."""
        bias = 0.0 if self.bias_ih is None else self.bias_ih + self.bias_hh
        return x @ self.weight_ih.T + h @ self.weight_hh.T + bias


def sigmoid(v: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-v) = inf gives the right 0
        return 1.0 / (1.0 + np.exp(-v))


def relu(v: Array) -> Array:
    return np.maximum(v, 0.0)


def identity(v: Array) -> Array:
    return v


ACTIVATIONS: dict[str, Activation] = {"tanh": np.tanh, "relu": relu, "identity": identity}


def lstm(x: Array, state: State, w: Weights, f: Activation) -> tuple[Array, State]:
    h, c = state
    i, forget, g, o = np.split(w.preactivation(x, h), 4, axis=-1)
    c = sigmoid(forget) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, (h, c)


def rnn(x: Array, state: State, w: Weights, f: Activation) -> tuple[Array, State]:
    (h,) = state
    h = f(w.preactivation(x, h))
    return h, (h,)


def leaky_rate(x: Array, state: State, w: Weights, f: Activation) -> tuple[Array, State]:
    (h,) = state
    h = w.alpha * h + (1.0 - w.alpha) * f(w.preactivation(x, h))
    return h, (h,)


def leaky_potential(x: Array, state: State, w: Weights, f: Activation) -> tuple[Array, State]:
    (u,) = state
    u = w.alpha * u + (1.0 - w.alpha) * w.preactivation(x, f(u))
    return f(u), (u,)


def leaky(x: Array, state: State, w: Weights, f: Activation) -> tuple[Array, State]:
    (h,) = state
    h = w.alpha * h + (1.0 - w.alpha) * x
    return h, (h,)


@dataclass(frozen=True)
class Cell:
    """A cell of the table in csrc/cells.def."""

    step: Callable[[Array, State, Weights, Activation], tuple[Array, State]]
    gates: int = 1
    states: int = 1


CELLS = {
    "lstm": Cell(lstm, gates=4, states=2),
    "rnn": Cell(rnn),
    "leaky_rate": Cell(leaky_rate),
    "leaky_potential": Cell(leaky_potential),
    "leaky": Cell(leaky, gates=0),
}


# ---- Time, directions, layers -----------------------------------------------------------------


def sequence(
    cell: Cell, x: Array, state: State, w: Weights, f: Activation, reverse: bool
) -> tuple[Array, State]:
    """One layer in one direction: x [T, B, I] -> h [T, B, H] and the state after the last step."""
    h = np.empty((*x.shape[:2], state[0].shape[-1]))
    times = range(len(x))
    for t in reversed(times) if reverse else times:
        h[t], state = cell.step(x[t], state, w, f)
    return h, state


def weights(parameters: Mapping[str, Any], layer: int, reverse: bool) -> Weights:
    """Those of one layer in one direction, from PyTorch's names (or just "alpha")."""
    suffix = f"_l{layer}" + "_reverse" * reverse
    found = {}
    for name in Weights.__dataclass_fields__:
        value = parameters.get(name + suffix, parameters.get(name))
        found[name] = None if value is None else np.asarray(value, np.float64)
    return Weights(**found)


def run(
    cell_name: str,
    parameters: Mapping[str, Any],
    x: Any,
    state: Any = None,
    *,
    nonlinearity: str = "tanh",
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> tuple[Array, Any]:
    """What a layer of fastrnn gives for x and state: y and the final state, in float64."""
    cell, f = CELLS[cell_name], ACTIVATIONS[nonlinearity]
    x = np.asarray(x, np.float64)
    unbatched = x.ndim == 2
    if unbatched:
        x = x[:, None]
    elif batch_first:
        x = x.swapaxes(0, 1)

    directions = 2 if bidirectional else 1
    hidden = x.shape[-1] if cell_name == "leaky" else parameters["weight_hh_l0"].shape[-1]
    shape = (num_layers * directions, x.shape[1], hidden)
    if state is None:
        state = np.zeros((cell.states, *shape))
    states = np.asarray(state, np.float64).reshape(cell.states, *shape).copy()

    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            index, reverse = layer * directions + direction, direction == 1
            w = weights(parameters, layer, reverse)
            h, last = sequence(cell, x, tuple(states[:, index]), w, f, reverse)
            states[:, index] = last
            outputs.append(h)
        x = np.concatenate(outputs, axis=-1)

    if unbatched:
        x, states = x[:, 0], states[:, :, 0]
    elif batch_first:
        x = x.swapaxes(0, 1)
    if cell_name == "leaky":  # one layer only, so its state has no axis for layers
        states = states[:, 0]
    return x, tuple(states) if cell.states > 1 else states[0]
