"""Calls whose rows have lengths of their own, or start anew in between."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sequences import (
    ALPHA,
    LENGTHS,
    ROWS,
    STEPS,
    Case,
    add_up,
    assert_gradients_are_slopes,
    assert_same_sums,
    build,
    draw_reset,
    each_maker,
    each_stack,
)
from support import gradient_arrays, map_state, pack, same_bits, same_gradients, take_rows, unpack
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastrnn

# ---- Lengths ----------------------------------------------------------------------------------


@each_maker
@each_stack
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_is_as_if_it_were_alone(
    maker: str, stack: dict[str, Any], dtype: str, rng: np.random.Generator
) -> None:
    case = Case(build(maker, dtype=dtype, **stack), rng)
    y, final = case.layer(case.x, case.state, lengths=LENGTHS)
    trained, trained_final, g = case.trained(lengths=LENGTHS)
    assert same_bits((trained, trained_final), (y, final))
    for row, n in enumerate(LENGTHS):
        at = slice(row, row + 1)
        start, end = take_rows(case.state, at), take_rows(case.dstate, at)
        alone, alone_final, tape = case.layer.forward_train(case.x[:n, at], start)
        assert same_bits(y[:n, at].copy(), alone)
        assert not y[n:, row].any()
        assert same_bits(take_rows(final, at), alone_final)
        own = case.layer.backward(tape, case.dy[:n, at].copy(), end)
        assert same_bits(g.x[:n, at].copy(), own.x)
        assert not g.x[n:, row].any()
        assert same_bits(take_rows(g.state, at), own.state)


@each_maker
@each_stack
def test_gradients_of_parameters_are_sums_over_rows(
    maker: str, stack: dict[str, Any], rng: np.random.Generator
) -> None:
    case = Case(build(maker, **stack), rng)
    _, _, g = case.trained(lengths=LENGTHS)
    total: dict[str, np.ndarray] = {}
    for row, n in enumerate(LENGTHS):
        at = slice(row, row + 1)
        _, _, tape = case.layer.forward_train(case.x[:n, at], take_rows(case.state, at))
        ends = take_rows(case.dstate, at)
        add_up(total, case.layer.backward(tape, case.dy[:n, at].copy(), ends).params)
    assert_same_sums(g.params, total)


@each_maker
@each_stack
def test_padding_is_not_looked_at(
    maker: str, stack: dict[str, Any], rng: np.random.Generator
) -> None:
    case = Case(build(maker, **stack), rng)
    y, final, g = case.trained(lengths=LENGTHS)
    for row, n in enumerate(LENGTHS):
        case.x[n:, row] = np.nan
        case.dy[n:, row] = np.nan
    again, final_again, g_again = case.trained(lengths=LENGTHS)
    assert same_bits((again, final_again), (y, final))
    assert same_gradients(g_again, g)


TORCH = [
    ("LSTM", {}),
    ("LSTM", {"proj_size": 2}),
    ("GRU", {}),
    ("RNN", {"nonlinearity": "relu"}),
]


@each_stack
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("name", "options"), TORCH)
def test_packed_sequences_of_torch(
    name: str,
    options: dict[str, Any],
    batch_first: bool,
    stack: dict[str, Any],
    rng: np.random.Generator,
) -> None:
    torch.manual_seed(1)
    options = options | stack | {"batch_first": batch_first}
    module = getattr(torch.nn, name)(3, 5, **options, dtype=torch.float64)
    layer = getattr(fastrnn, name)(3, 5, **options, dtype="float64")
    layer.load_state_dict(module.state_dict())
    lengths = [n for n in LENGTHS if n > 0]  # torch has no empty sequences
    shape = (len(lengths), STEPS, 3) if batch_first else (STEPS, len(lengths), 3)
    x = rng.standard_normal(shape)
    state = map_state(lambda a: rng.uniform(-1, 1, a.shape), layer(x)[1])

    x_t = torch.from_numpy(x).requires_grad_()
    state_t = map_state(lambda a: torch.from_numpy(a).requires_grad_(), state)
    packed = pack_padded_sequence(x_t, torch.tensor(lengths), batch_first, enforce_sorted=False)
    packed_y, final_t = module(packed, state_t)
    y_t, _ = pad_packed_sequence(packed_y, batch_first)
    y, final, tape = layer.forward_train(x, state, lengths=lengths)
    for a, b in zip((y, *unpack(final)), (y_t, *unpack(final_t)), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=0, atol=1e-13)

    dy = rng.standard_normal(y.shape)
    dstate = map_state(lambda a: rng.standard_normal(a.shape), final)
    outputs = (y_t, *unpack(final_t))
    torch.autograd.backward(outputs, [torch.from_numpy(d) for d in (dy, *unpack(dstate))])
    g = layer.backward(tape, dy, dstate)
    expected = {"x": x_t.grad, "state": unpack(state_t)[0].grad}
    expected |= {name: p.grad for name, p in module.named_parameters()}
    arrays = gradient_arrays(g)
    for key, values in expected.items():
        np.testing.assert_allclose(arrays[key], values.numpy(), rtol=0, atol=1e-12, err_msg=key)


@each_maker
@each_stack
def test_full_lengths_are_a_plain_call(
    maker: str, stack: dict[str, Any], rng: np.random.Generator
) -> None:
    case = Case(build(maker, **stack), rng)
    plain, full = case.trained(), case.trained(lengths=[STEPS] * ROWS)
    assert same_bits(full[:2], plain[:2])
    assert same_gradients(full[2], plain[2])


@each_maker
def test_no_steps_at_all(maker: str, rng: np.random.Generator) -> None:
    case = Case(build(maker), rng)
    y, final, g = case.trained(lengths=[0] * ROWS)
    assert not y.any()
    assert same_bits(final, case.state)
    assert same_bits(g.state, case.dstate)
    assert not g.x.any()
    assert not any(array.any() for array in g.params.values())


@each_maker
@each_stack
def test_lengths_with_the_batch_first(
    maker: str, stack: dict[str, Any], rng: np.random.Generator
) -> None:
    case, other = Case(build(maker, **stack), rng), build(maker, batch_first=True, **stack)
    y, final, g = case.trained(lengths=LENGTHS)
    y_other, final_other, tape = other.forward_train(
        case.x.swapaxes(0, 1), case.state, lengths=LENGTHS
    )
    g_other = other.backward(tape, case.dy.swapaxes(0, 1), case.dstate)
    assert same_bits(y_other.swapaxes(0, 1).copy(), y)
    assert same_bits(final_other, final)
    assert same_bits(g_other.x.swapaxes(0, 1).copy(), g.x)
    assert all(same_bits(g_other.params[name], array) for name, array in g.params.items())


KINDS_OF_LENGTHS: list[Callable[[list[int]], Any]] = [
    list,
    tuple,
    *(lambda v, t=t: np.array(v, t) for t in ("int8", "uint8", "int32", "int64", "uint64", ">i4")),
    lambda v: np.array(v)[::-1][::-1],
    torch.tensor,
]


@pytest.mark.parametrize("kind", KINDS_OF_LENGTHS)
def test_lengths_of_any_kind(kind: Any, rng: np.random.Generator) -> None:
    case = Case(build("lstm"), rng)
    expected = case.layer(case.x, lengths=np.array(LENGTHS, np.intp))
    assert same_bits(case.layer(case.x, lengths=kind(LENGTHS)), expected)


@each_maker
@pytest.mark.parametrize("n", [0, 1, 4, 7])
def test_length_of_one_sequence(maker: str, n: int, rng: np.random.Generator) -> None:
    layer = build(maker, bidirectional=True)
    x = rng.standard_normal((STEPS, 3))
    y, final = layer(x[:n])
    for lengths in (n, [n], np.int32(n)):
        padded, padded_final = layer(x, lengths=lengths)
        assert same_bits(padded[:n].copy(), y)
        assert not padded[n:].any()
        assert same_bits(padded_final, final)


@each_maker
@pytest.mark.parametrize("option", [{"lengths": []}, {"lengths": np.zeros(0, int)}])
def test_lengths_of_no_rows(maker: str, option: dict[str, Any]) -> None:
    y, final = build(maker)(np.zeros((STEPS, 0, 3)), **option)
    assert y.shape[:2] == (STEPS, 0)
    assert unpack(final)[0].shape[1] == 0


@each_stack
@pytest.mark.parametrize(
    "options", [{"lengths": LENGTHS}, {"mask": True}, {"mask": True, "zero_output_for_mask": True}]
)
def test_out(options: dict[str, Any], stack: dict[str, Any], rng: np.random.Generator) -> None:
    """It is filled whole, whatever stood there."""
    case = Case(build("gru", **stack), rng)
    if "mask" in options:
        options = options | {"mask": rng.random((STEPS, ROWS)) < 0.5}
    expected = case.layer(case.x, case.state, **options)
    out = np.full_like(expected[0], np.nan)
    y, final = case.layer(case.x, case.state, out=out, **options)
    assert y is out
    assert same_bits((y, final), expected)
    y, final, _ = case.layer.forward_train(case.x, case.state, out=out, **options)
    assert y is out
    assert same_bits((y, final), expected)


def test_plain_leaky_units_with_lengths_resets_and_masks(rng: np.random.Generator) -> None:
    leaky = fastrnn.Leaky(5, alpha=ALPHA, dtype="float64")
    x, state = rng.standard_normal((STEPS, ROWS, 5)), rng.standard_normal((ROWS, 5))
    y, final = leaky(x, state, lengths=LENGTHS)
    for row, n in enumerate(LENGTHS):
        alone = leaky(x[:n, row], state[row])
        assert same_bits((y[:n, row].copy(), final[row].copy()), alone)
        assert not y[n:, row].any()
    reset = np.zeros((STEPS, ROWS), bool)
    reset[3] = True
    y, final = leaky(x, state, reset=reset)
    parts = leaky(x[:3], state), leaky(x[3:], state)
    assert same_bits((y, final), (np.concatenate([part[0] for part in parts]), parts[1][1]))
    mask = np.ones((STEPS, ROWS), bool)
    mask[2:5] = False
    y, final = leaky(x, state, mask=mask)
    kept, kept_final = leaky(x[[0, 1, 5, 6]], state)
    assert same_bits((y, final), (kept[[0, 1, 1, 1, 1, 2, 3]], kept_final))


# ---- Resets -----------------------------------------------------------------------------------


def runs(reset: np.ndarray, n: int) -> list[slice]:
    """The runs of the first n steps of a row between its resets; one at least."""
    cuts = [0, *(t for t in range(1, n) if reset[t]), n]
    return [slice(a, b) for a, b in itertools.pairwise(cuts)]


def ends(layer: Any, first: Any, last: Any) -> Any:
    """Forward parts of the state from `last`, reverse parts from `first`."""

    def chosen(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        early, late = pair
        whole = late.copy()
        if layer.bidirectional:
            whole[1::2] = early[1::2]
        return whole

    return pack([chosen(pair) for pair in zip(unpack(first), unpack(last), strict=True)])


@each_maker
@each_stack
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_a_reset_is_a_cut(
    maker: str, stack: dict[str, Any], lengths: list[int] | None, rng: np.random.Generator
) -> None:
    """Outputs, state and gradients are those of separate runs from the initial state."""
    case, reset = Case(build(maker, **stack), rng), draw_reset(rng)
    layer = case.layer
    y, final = layer(case.x, case.state, lengths=lengths, reset=reset)
    trained, trained_final, g = case.trained(lengths=lengths, reset=reset)
    assert same_bits((trained, trained_final), (y, final))
    total: dict[str, np.ndarray] = {}
    for row in range(ROWS):
        at, n = slice(row, row + 1), STEPS if lengths is None else lengths[row]
        start, end = take_rows(case.state, at), take_rows(case.dstate, at)
        pieces = runs(reset[:, row], n)
        finals, dstart = [], map_state(np.zeros_like, start)
        for number, piece in enumerate(pieces):
            alone, alone_final, tape = layer.forward_train(case.x[piece, at], start)
            assert same_bits(y[piece, at].copy(), alone)
            finals.append(alone_final)
            none = map_state(np.zeros_like, end)
            early = end if number == 0 else none
            late = end if number == len(pieces) - 1 else none
            own = layer.backward(tape, case.dy[piece, at].copy(), ends(layer, early, late))
            np.testing.assert_allclose(g.x[piece, at], own.x, rtol=0, atol=1e-14)
            add_up(total, own.params)
            sums = zip(unpack(dstart), unpack(own.state), strict=True)
            dstart = pack([a + b for a, b in sums])
        assert same_bits(take_rows(final, at), ends(layer, finals[0], finals[-1]))
        for a, b in zip(unpack(take_rows(g.state, at)), unpack(dstart), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)
    assert_same_sums(g.params, total)


@each_maker
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resets_as_an_environment_gives_them(
    maker: str, dtype: str, rng: np.random.Generator
) -> None:
    """Step by step, with the state set back by hand where an episode begins."""
    layer = build(maker, dtype=dtype, num_layers=2)
    case, reset = Case(layer, rng), draw_reset(rng)
    y, final = layer(case.x, case.state, reset=reset)
    stream = layer.stream(ROWS)
    stream.state = case.state
    for t in range(STEPS):
        held = map_state(np.copy, stream.state)
        for now, initial in zip(unpack(held), unpack(case.state), strict=True):
            now[:, reset[t]] = initial[:, reset[t]]
        stream.state = held
        assert same_bits(stream.step(case.x[t]), y[t].copy())
    assert same_bits(stream.state, final)


@each_maker
@each_stack
def test_no_reset_and_one_at_the_first_step_are_a_plain_call(
    maker: str, stack: dict[str, Any], rng: np.random.Generator
) -> None:
    case = Case(build(maker, **stack), rng)
    reset = np.zeros((STEPS, ROWS), bool)
    y, final, g = case.trained()
    for _ in range(2):
        again, final_again, g_again = case.trained(reset=reset)
        assert same_bits((again, final_again), (y, final))
        assert same_gradients(g_again, g)
        reset[0] = True


@each_maker
@each_stack
def test_gradients_with_resets_are_slopes(
    maker: str, stack: dict[str, Any], rng: np.random.Generator
) -> None:
    case = Case(build(maker, **stack), rng)
    assert_gradients_are_slopes(case, rng, reset=draw_reset(rng), lengths=LENGTHS)


@pytest.mark.parametrize("batch_first", [False, True])
def test_reset_and_mask_in_the_layout_of_x(batch_first: bool, rng: np.random.Generator) -> None:
    layer = build("lstm", batch_first=batch_first, bidirectional=True)
    x, steps = rng.standard_normal((STEPS, ROWS, 3)), rng.random((STEPS, ROWS)) < 0.4
    turned = (x.swapaxes(0, 1), steps.swapaxes(0, 1)) if batch_first else (x, steps)
    for name in ("reset", "mask"):
        y, _ = layer(turned[0], **{name: turned[1]})
        for row in range(ROWS):
            alone, _ = layer(x[:, row].copy(), **{name: steps[:, row].tolist()})
            assert same_bits((y[row] if batch_first else y[:, row]).copy(), alone)
