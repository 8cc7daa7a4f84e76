"""The oracle's rows that end, begin anew, skip steps or go backwards; its gated leak.

The witness is the same oracle on the sequences that such a row stands for, each one alone; and
PyTorch's packed sequences, ONNX Runtime and finite differences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
import reference_backward
import torch
from differences import SMOOTH_STEP, check_differences, draw_smooth
from onnx_witness import OPERATORS, OnnxStack
from reference_backward import Gradients
from support import (
    CELLS,
    PLAIN,
    Net,
    assert_close,
    assert_gradients_close,
    bound,
    draw_net,
    pack,
    picker,
    take_rows,
    unpack,
)
from witnesses import MODULES, torch_gradients, torch_values

NETS = 12
DIFFERENCE_NETS = 2
TORCH_NETS = 20
ONNX_NETS = 25

# Two float64 programs that sum in different orders.
FLOAT64 = 1e-12

# Steps and rows of every case, and how often a row is cut or skips a step.
STEPS, BATCH = 9, 6
OFTEN = 0.3

each_cell = pytest.mark.parametrize("cell", CELLS)


# ---- The parts of rows ------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Time-major: a net, its arrays, and what the oracle makes of them with `call`."""

    net: Net
    x: np.ndarray
    state: Any
    dy: np.ndarray
    dstate: Any
    call: dict[str, Any]

    def values(self) -> tuple[np.ndarray, Any]:
        return self.net.oracle(self.net.bare(), self.x, self.state, **self.call)

    def gradients(self) -> Gradients:
        arrays = (self.x, self.state, self.dy, self.dstate)
        return self.net.oracle_backward(self.net.bare(), *arrays, **self.call)


def make_case(net: Net, rng: np.random.Generator, **call: Any) -> Case:
    x, dy = net.input(rng, STEPS, BATCH), net.output_gradient(rng, STEPS, BATCH)
    return Case(net, x, net.state(rng, BATCH), dy, net.state(rng, BATCH), call)


def nets(cell: str, rng: np.random.Generator, count: int = NETS) -> Iterator[Net]:
    for _ in range(count):
        yield draw_net(picker(rng), cell, dtype="float64", batch_first=False)


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
        x, state = case.x[piece.times, piece.row], take_rows(case.state, piece.row)
        found, final = net.oracle(net.bare(), x, state)
        for d, units in enumerate(halves(net)):
            seen = piece.places[d] >= 0
            y[seen, piece.row, units] = found[piece.places[d][seen], units]
        for array, value in zip(finals, unpack(final), strict=True):
            for part in kept(net, piece):
                array[(*part, piece.row)] = value[part]
    return y, pack(finals)


def expected_gradients(case: Case, pieces: list[Piece]) -> Gradients:
    net, dx = case.net, np.zeros_like(case.x)
    dstates = [np.zeros_like(array) for array in unpack(case.state)]
    params = {name: np.zeros_like(v) for name, v in net.bare().parameters().items()}
    for piece in pieces:
        dy = np.zeros((len(piece.times), net.output_size))
        for d, units in enumerate(halves(net)):
            for t in np.flatnonzero(piece.places[d] >= 0):
                dy[piece.places[d][t], units] += case.dy[t, piece.row, units]
        arriving = [np.zeros_like(array[..., piece.row, :]) for array in unpack(case.dstate)]
        for array, given in zip(arriving, unpack(case.dstate), strict=True):
            for part in kept(net, piece):
                array[part] = given[(*part, piece.row)]
        x, state = case.x[piece.times, piece.row], take_rows(case.state, piece.row)
        g = net.oracle_backward(net.bare(), x, state, dy, pack(arriving))
        dx[piece.times, piece.row] += g.x
        for total, share in zip(dstates, unpack(g.state), strict=True):
            total[..., piece.row, :] += share
        for name, share in g.params.items():
            params[name] += share
    return Gradients(dx, pack(dstates), params)


def halves(net: Net) -> list[slice]:
    """The outputs of each direction."""
    return [slice(d * net.unit_outputs, (d + 1) * net.unit_outputs) for d in range(net.directions)]


def kept(net: Net, piece: Piece) -> list[tuple[int, ...]]:
    """The layers and directions whose final state is that of the piece."""
    if net.cell == "leaky":
        return [()] if piece.last else []
    parts = range(net.num_layers * net.directions)
    return [(p,) for p in parts if (piece.first if p % net.directions else piece.last)]


def check(case: Case, pieces: list[Piece]) -> None:
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


# ---- Lengths and resets -----------------------------------------------------------------------

NEVER = np.zeros((STEPS, BATCH), bool)
WHOLE = [STEPS] * BATCH


@each_cell
def test_a_length_is_a_shorter_sequence(cell: str, rng: np.random.Generator) -> None:
    for net in nets(cell, rng):
        lengths = some_lengths(rng)
        check(make_case(net, rng, lengths=lengths), pieces_of(lengths, NEVER))


@each_cell
def test_a_reset_cuts_a_row_in_two(cell: str, rng: np.random.Generator) -> None:
    for net in nets(cell, rng):
        reset = some_flags(rng)
        check(make_case(net, rng, reset=reset), pieces_of(WHOLE, reset))


@each_cell
def test_resets_within_lengths(cell: str, rng: np.random.Generator) -> None:
    for net in nets(cell, rng):
        lengths, reset = some_lengths(rng), some_flags(rng)
        check(make_case(net, rng, lengths=lengths, reset=reset), pieces_of(lengths, reset))


@each_cell
def test_what_stands_after_the_end_is_not_read(cell: str, rng: np.random.Generator) -> None:
    for net in nets(cell, rng, 3):
        lengths = some_lengths(rng)
        case = make_case(net, rng, lengths=lengths)
        values, gradients = case.values(), case.gradients()
        padding = np.arange(STEPS)[:, None] >= lengths
        case.x[padding], case.dy[padding] = np.nan, np.nan
        assert_close(case.values()[0], values[0], 0.0)
        assert_gradients_close(case.gradients(), gradients, 0.0)


@pytest.mark.parametrize("cell", MODULES)
def test_lengths_of_torch(cell: str, rng: np.random.Generator) -> None:
    """PyTorch's packed sequences, which have no empty rows."""
    for net in nets(cell, rng, TORCH_NETS):
        plain = PLAIN | {"nonlinearity": "tanh", "batch_first": False}
        net = Net(**vars(net) | plain)
        lengths = some_lengths(rng, least=1)
        case = make_case(net, rng, lengths=lengths)
        y, final = torch_values(net, net.bare(), case.x, case.state, "float64", lengths=lengths)
        assert_close(case.values()[0], y, FLOAT64, case)
        assert_close(case.values()[1], final, FLOAT64, case)
        arrays = (case.x, case.state, case.dy, case.dstate)
        expected = torch_gradients(net, net.bare(), *arrays, lengths=lengths)
        assert_gradients_close(case.gradients(), expected, FLOAT64, case)


@pytest.mark.parametrize("cell", OPERATORS)
def test_lengths_of_onnx_runtime(cell: str, rng: np.random.Generator) -> None:
    """Of rows of one step at least: at the end of an empty one its state is 0, not the initial."""
    for _ in range(ONNX_NETS):
        net = draw_net(picker(rng), cell, proj_size=0, cell_clip=None, batch_first=False)
        net = Net(**vars(net) | {"dtype": "float32"})
        lengths = some_lengths(rng, least=1)
        case = make_case(net, rng, lengths=lengths)
        y, final = OnnxStack(net, net.bare(), lengths)(net, case.x, case.state)
        assert_close(y, case.values()[0], bound(net, STEPS), case)
        assert_close(final, case.values()[1], bound(net, STEPS), case)


# ---- Masks and going backwards ----------------------------------------------------------------


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


@pytest.mark.parametrize("zeros", [False, True])
@each_cell
def test_a_masked_step_is_left_out(cell: str, zeros: bool, rng: np.random.Generator) -> None:
    """And its output is the one before it in its direction, or 0."""
    for net in nets(cell, rng):
        mask = ~some_flags(rng)
        call = {"mask": mask, "zero_output_for_mask": zeros}
        check(make_case(net, rng, **call), taken(mask, zeros))


@each_cell
def test_backwards_is_the_reversed_sequence(cell: str, rng: np.random.Generator) -> None:
    for net in nets(cell, rng):
        net = Net(**vars(net) | {"bidirectional": False})
        flags = some_flags(rng)
        turned = np.concatenate([np.zeros((1, BATCH), bool), flags[:0:-1]])
        calls = [({}, {}), ({"mask": flags}, {"mask": flags[::-1]})]
        calls += [({"reset": flags}, {"reset": turned})]
        for call, same in calls:
            case = make_case(net, rng, go_backwards=True, **call)
            other = Case(net, case.x[::-1], case.state, case.dy, case.dstate, same)
            assert_close(case.values()[0], other.values()[0], 0.0)
            assert_close(case.values()[1], other.values()[1], 0.0)
            g = other.gradients()
            expected = Gradients(g.x[::-1], g.state, g.params)
            assert_gradients_close(case.gradients(), expected, 0.0)


# ---- Layouts and finite differences -----------------------------------------------------------


def calls(rng: np.random.Generator, net: Net) -> list[dict[str, Any]]:
    lengths, flags = some_lengths(rng), some_flags(rng)
    found: list[dict[str, Any]] = [{"lengths": lengths}, {"reset": flags}, {"mask": flags}]
    found += [{"lengths": lengths, "reset": flags}, {"mask": flags, "zero_output_for_mask": True}]
    if not net.bidirectional:
        found += [{"go_backwards": True}, {"go_backwards": True, "mask": flags}]
        found += [{"go_backwards": True, "reset": flags}]
    return found


@each_cell
def test_finite_differences(cell: str, rng: np.random.Generator) -> None:
    for _ in range(DIFFERENCE_NETS):
        net = Net(**vars(draw_smooth(picker(rng), cell)) | {"batch_first": False})
        for call in calls(rng, net):
            case = make_case(net, rng)
            arrays = (case.x, case.state, case.dy, case.dstate)
            check_differences(net, rng, SMOOTH_STEP, arrays, **call)


@each_cell
def test_layouts(cell: str, rng: np.random.Generator) -> None:
    """Rows first, and one sequence alone."""
    for net in nets(cell, rng, 4):
        rows_first = Net(**vars(net) | {"batch_first": True})
        for call in calls(rng, net):
            case = make_case(net, rng, **call)
            y, g = case.values()[0], case.gradients()
            flags = {k: v.swapaxes(0, 1) if np.ndim(v) == 2 else v for k, v in call.items()}
            x, dy = case.x.swapaxes(0, 1), case.dy.swapaxes(0, 1)
            other = Case(rows_first, x, case.state, dy, case.dstate, flags)
            assert_close(other.values()[0].swapaxes(0, 1), y, FLOAT64)
            h = other.gradients()
            turned = Gradients(h.x.swapaxes(0, 1), h.state, h.params)
            assert_gradients_close(turned, g, FLOAT64)
            for row in range(BATCH):
                one = {k: v[..., row] if k in ("reset", "mask") else v for k, v in call.items()}
                one |= {k: v[row : row + 1] for k, v in call.items() if k == "lengths"}
                arrays = (case.x[:, row], take_rows(case.state, row))
                found, final = net.oracle(net.bare(), *arrays, **one)
                assert_close(found, y[:, row], FLOAT64)
                assert_close(final, take_rows(case.values()[1], row), FLOAT64)


# ---- The gated leak ---------------------------------------------------------------------------


def leak_arrays(rng: np.random.Generator, shape: tuple[int, ...]) -> list[np.ndarray]:
    """alpha, v, dy, state and dstate."""
    alpha = rng.uniform(0.0, 1.0, shape)
    v, dy = rng.standard_normal((2, *shape))
    return [alpha, v, dy, *rng.standard_normal((2, *shape[1:]))]


@pytest.mark.parametrize("shape", [(7, 3, 5), (7, 5), (1, 1), (0, 2, 3)])
def test_gated_leak_of_torch(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    alpha, v, dy, state, dstate = leak_arrays(rng, shape)
    y, final = reference.gated_leaky(alpha, v, state)
    inputs = [torch.tensor(a, requires_grad=True) for a in (alpha, v, state)]
    h, outputs = inputs[2], []
    for a, v_t in zip(*inputs[:2], strict=True):
        h = torch.lerp(v_t, h, a)
        outputs.append(h)
    expected = torch.stack(outputs) if outputs else torch.zeros(shape)
    assert np.allclose(y, expected.detach().numpy(), FLOAT64, FLOAT64)
    assert np.allclose(final, h.detach().numpy(), FLOAT64, FLOAT64)
    found = reference_backward.gated_leaky(alpha, v, y, dy, state, dstate)
    loss = (expected * torch.tensor(dy)).sum() + (h * torch.tensor(dstate)).sum()
    grads = torch.autograd.grad(loss, inputs, materialize_grads=True)
    for g, e in zip(found, grads, strict=True):
        assert np.allclose(g, e.numpy(), FLOAT64, FLOAT64)


def test_gated_leak_without_states_begins_and_ends_at_zero(rng: np.random.Generator) -> None:
    alpha, v, dy, state, _ = leak_arrays(rng, (6, 2, 3))
    zeros = np.zeros_like(state)
    y, final = reference.gated_leaky(alpha, v)
    assert np.array_equal(y, reference.gated_leaky(alpha, v, zeros)[0])
    assert np.array_equal(final, y[-1])
    some = reference_backward.gated_leaky(alpha, v, y, dy)
    full = reference_backward.gated_leaky(alpha, v, y, dy, zeros, zeros)
    assert all(map(np.array_equal, some, full))


def test_leaky_and_mingru_are_gated_leaks(rng: np.random.Generator) -> None:
    net = Net("leaky", 5, 5, dtype="float64", seed=2)
    layer, x, state = net.bare(), net.input(rng, 6, 2), net.state(rng, 2)
    alpha = np.broadcast_to(layer.parameters()["alpha"], x.shape)
    expected = net.oracle(layer, x, state)
    assert_close(reference.gated_leaky(alpha, x, state), expected, FLOAT64)

    net = Net("mingru", 4, 5, dtype="float64")
    layer, x, state = net.bare(), net.input(rng, 6, 2), net.state(rng, 2)
    p = layer.parameters()
    z, n = np.split(x @ p["weight_ih_l0"].T + p["bias_ih_l0"], 2, axis=-1)
    y, final = reference.gated_leaky(1.0 / (1.0 + np.exp(z)), n, state[0])
    expected = net.oracle(layer, x, state)
    assert_close((y, final[None]), expected, FLOAT64)
