"""Rows of a batch as the sequences that they stand for, each one run alone.

A witness of lengths, resets and masks, with every time structure: of the oracle, and of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from reference_backward import Gradients
from support import Net, assert_close, assert_gradients_close, pack, take_rows, unpack

# Two float64 programs that sum in different orders.
FLOAT64 = 1e-12

# Steps and rows of every case, and how often a row is cut or skips a step.
STEPS, BATCH = 9, 6
OFTEN = 0.3


@dataclass(frozen=True)
class Oracle:
    """What is asked for values and gradients: with the weights of a layer, or with bare ones."""

    net: Net
    layer: Any = None

    def values(self, x: Any, state: Any, **call: Any) -> tuple[np.ndarray, Any]:
        return self.net.oracle(self.layer or self.net.bare(), x, state, **call)

    def gradients(self, x: Any, state: Any, dy: Any, dstate: Any, **call: Any) -> Any:
        layer = self.layer or self.net.bare()
        return self.net.oracle_backward(layer, x, state, dy, dstate, **call)


@dataclass(frozen=True)
class Layer:
    """The same of a layer of the package."""

    layer: Any

    def values(self, x: Any, state: Any, **call: Any) -> tuple[np.ndarray, Any]:
        return self.layer(x, state, **call)

    def gradients(self, x: Any, state: Any, dy: Any, dstate: Any, **call: Any) -> Any:
        return self.layer.backward(self.layer.forward_train(x, state, **call)[2], dy, dstate)


@dataclass(frozen=True)
class Case:
    """Time-major: a net, its arrays, and what a program makes of them with `call`."""

    net: Net
    program: Oracle | Layer
    x: np.ndarray
    state: Any
    dy: np.ndarray
    dstate: Any
    call: dict[str, Any]

    def values(self) -> tuple[np.ndarray, Any]:
        return self.program.values(self.x, self.state, **self.call)

    def gradients(self) -> Any:
        return self.program.gradients(self.x, self.state, self.dy, self.dstate, **self.call)


def make_case(net: Net, rng: np.random.Generator, program: Any = None, **call: Any) -> Case:
    x, dy = net.input(rng, STEPS, BATCH), net.output_gradient(rng, STEPS, BATCH)
    state, dstate = net.state(rng, BATCH), net.state_gradient(rng, BATCH)
    return Case(net, program or Oracle(net), x, state, dy, dstate, call)


def some_lengths(rng: np.random.Generator, least: int = 0) -> np.ndarray:
    """In any order, and among them an empty row (if that may be) and a full one."""
    lengths = rng.integers(least, STEPS + 1, BATCH)
    lengths[:2] = least, STEPS
    return rng.permutation(lengths)


def some_flags(rng: np.random.Generator) -> np.ndarray:
    """[T, B], with a row of all and one of none."""
    flags = rng.random((STEPS, BATCH)) < OFTEN
    flags[:, 0], flags[:, 1] = True, False
    return flags


@dataclass(frozen=True)
class Piece:
    """Steps of one row that are a sequence of their own.

    y of the row at time t is that of the piece's step places[d][t] in direction d, or 0 for -1.
    first and last: whether the piece is the first and the last one of its row: a reverse direction
    ends in the one, a forward direction in the other.
    """

    row: int
    times: np.ndarray
    places: np.ndarray
    first: bool = True
    last: bool = True


def expected_values(case: Case, pieces: list[Piece]) -> tuple[np.ndarray, Any]:
    net, y = case.net, np.zeros_like(case.dy)
    finals = [array.copy() for array in unpack(case.state)]
    for piece in pieces:
        x, state = case.x[piece.times, piece.row].copy(), take_rows(case.state, piece.row)
        found, final = case.program.values(x, state)
        for d, units in enumerate(halves(net)):
            seen = piece.places[d] >= 0
            y[seen, piece.row, units] = found[piece.places[d][seen], units]
        for index, (array, value) in enumerate(zip(finals, unpack(final), strict=True)):
            if index < net.states:
                for at in kept(net, piece, index):
                    array[(*at, piece.row)] = value[at]
            elif piece.last:  # the clock, which is that of the forward direction
                array[piece.row] = value
    return y, pack(finals)


def expected_gradients(case: Case, pieces: list[Piece]) -> Gradients:
    net, dx = case.net, np.zeros_like(case.x)
    dstates = [np.zeros_like(array) for array in unpack(case.dstate)]
    params: dict[str, Any] = {}
    for piece in pieces:
        dy = np.zeros((len(piece.times), net.output_size), net.dtype)
        for d, units in enumerate(halves(net)):
            for t in np.flatnonzero(piece.places[d] >= 0):
                dy[piece.places[d][t], units] += case.dy[t, piece.row, units]
        arriving = [np.zeros_like(array[..., piece.row, :]) for array in unpack(case.dstate)]
        for index, (array, given) in enumerate(zip(arriving, unpack(case.dstate), strict=True)):
            for at in kept(net, piece, index):
                array[at] = given[(*at, piece.row)]
        x, state = case.x[piece.times, piece.row].copy(), take_rows(case.state, piece.row)
        g = case.program.gradients(x, state, dy, pack(arriving))
        dx[piece.times, piece.row] += g.x
        for total, share in zip(dstates, unpack(g.state), strict=True):
            total[..., piece.row, :] += share
        for name, share in g.params.items():
            params[name] = params.get(name, 0.0) + share
    return Gradients(dx, pack(dstates), params)


def halves(net: Net) -> list[slice]:
    """The outputs of each direction."""
    return [slice(d * net.unit_outputs, (d + 1) * net.unit_outputs) for d in range(net.directions)]


def kept(net: Net, piece: Piece, index: int) -> list[tuple[int, ...]]:
    """The layers and directions, step by step of their histories, that end with the piece."""
    if net.cell == "leaky":
        return [()] if piece.last else []
    found: list[bool] = []
    for number, part in enumerate(net.structures()):
        ends = piece.first if number % net.directions else piece.last
        found += [ends] * part.slots[index]
    return [(int(i),) for i in np.flatnonzero(found)]


def check(case: Case, pieces: list[Piece]) -> None:
    """Of the oracle."""
    (y, final), (expected, expected_final) = case.values(), expected_values(case, pieces)
    assert_close(y, expected, FLOAT64, case)
    assert_close(final, expected_final, FLOAT64, case)
    assert_gradients_close(case.gradients(), expected_gradients(case, pieces), FLOAT64, case)


def pieces_of(lengths: Any, reset: np.ndarray) -> list[Piece]:
    found = []
    for row, length in enumerate(lengths):
        cuts = [t for t in range(1, length) if reset[t, row]]
        for start, stop in zip([0, *cuts], [*cuts, length], strict=True):
            times, places = np.arange(start, stop), np.full((2, STEPS), -1)
            places[:, times] = times - start
            found.append(Piece(row, times, places, start == 0, stop == length))
    return found


def taken(mask: np.ndarray, zeros: bool) -> list[Piece]:
    """Of each row the steps that it takes; between them its outputs stay, or are 0."""
    found = []
    for row in range(BATCH):
        times = np.flatnonzero(mask[:, row])
        # The last step taken at t or before it, and the first one at t or after it.
        places = np.searchsorted(times, [np.arange(1, STEPS + 1), np.arange(STEPS)])
        places[0] -= 1
        places[1][places[1] == len(times)] = -1
        if zeros:
            places[:, ~mask[:, row]] = -1
        found.append(Piece(row, times, places))
    return found


def calls(rng: np.random.Generator, net: Net) -> list[dict[str, Any]]:
    lengths, flags = some_lengths(rng), some_flags(rng)
    found: list[dict[str, Any]] = [{"lengths": lengths}, {"reset": flags}, {"mask": flags}]
    found += [{"lengths": lengths, "reset": flags}, {"mask": flags, "zero_output_for_mask": True}]
    if not net.bidirectional:
        found += [{"go_backwards": True}, {"go_backwards": True, "mask": flags}]
        found += [{"go_backwards": True, "reset": flags}]
    return found
