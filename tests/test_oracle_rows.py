"""The oracle's rows that end, begin anew, skip steps or go backwards; its gated leak.

The witness is the same oracle on the sequences that such a row stands for, each one alone; and
PyTorch's packed sequences, ONNX Runtime and finite differences.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import reference
import reference_backward
import torch
from differences import SMOOTH_STEP, check_differences, draw_smooth
from onnx_witness import OPERATORS, OnnxStack
from pieces import (
    BATCH,
    FLOAT64,
    STEPS,
    Case,
    Oracle,
    calls,
    check,
    make_case,
    pieces_of,
    some_flags,
    some_lengths,
    taken,
)
from reference_backward import Gradients
from support import (
    CELLS,
    PLAIN,
    Net,
    assert_close,
    assert_gradients_close,
    bound,
    draw_net,
    picker,
    take_rows,
)
from witnesses import MODULES, torch_gradients, torch_values

NETS = 8
DIFFERENCE_NETS = 2
TORCH_NETS = 20
ONNX_NETS = 25

each_cell = pytest.mark.parametrize("cell", CELLS)


def nets(cell: str, rng: np.random.Generator, count: int = NETS) -> Iterator[Net]:
    for _ in range(count):
        yield draw_net(picker(rng), cell, dtype="float64", batch_first=False)


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
            other = Case(net, case.program, case.x[::-1], case.state, case.dy, case.dstate, same)
            assert_close(case.values()[0], other.values()[0], 0.0)
            assert_close(case.values()[1], other.values()[1], 0.0)
            g = other.gradients()
            expected = Gradients(g.x[::-1], g.state, g.params)
            assert_gradients_close(case.gradients(), expected, 0.0)


# ---- Layouts and finite differences -----------------------------------------------------------


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
            other = Case(rows_first, Oracle(rows_first), x, case.state, dy, case.dstate, flags)
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
