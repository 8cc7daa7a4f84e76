"""Calls whose rows differ: lengths, resets, masks, layers that go backwards, dropout."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import gradient_arrays, map_state, pack, same_bits, same_gradients, take_rows, unpack
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

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
    return map_state(lambda a: rng.uniform(-1, 1, a.shape).astype(layer.dtype), final)


class Case:
    """A layer with everything that a training step needs."""

    def __init__(self, layer: Any, rng: np.random.Generator, steps: int = STEPS) -> None:
        self.layer = layer
        self.x = rng.standard_normal((steps, ROWS, layer.input_size)).astype(layer.dtype)
        self.state = state_of(layer, rng)
        y, final = layer(self.x, self.state)
        self.dy = rng.standard_normal(y.shape).astype(layer.dtype)
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
        pairs = zip((y, *unpack(final)), (case.dy, *unpack(case.dstate)), strict=True)
        return sum(float((a * d).sum()) for a, d in pairs)

    layer, eps = case.layer, 1e-6
    _, _, g = case.trained(**options)
    start = {"x": case.x, **layer.parameters()}
    start |= {f"state {i}": array for i, array in enumerate(unpack(case.state))}
    found = {"x": g.x, **g.params}
    found |= {f"state {i}": array for i, array in enumerate(unpack(g.state))}
    for name, value in start.items():
        direction = draw.uniform(-1, 1, value.shape)
        if name.startswith("alpha"):
            direction *= (value > 0) & (value < 1)
        values = []
        for sign in (1, -1):
            moved = start | {name: value + sign * eps * direction}
            other = copy.copy(layer)
            other.load_state_dict({k: moved[k] for k in layer.parameters()})
            state = pack([moved[f"state {i}"] for i in range(len(unpack(case.state)))])
            values.append(loss(other, moved["x"], state))
        slope = (values[0] - values[1]) / (2 * eps)
        product = float((found[name] * direction).sum())
        assert abs(slope - product) <= 1e-7 * max(1.0, abs(slope)), (name, slope, product)


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


def draw_reset(rng: np.random.Generator) -> np.ndarray:
    reset = rng.random((STEPS, ROWS)) < 0.3
    reset[:, 0] = False
    reset[:, 1] = True
    return reset


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


# ---- Masks ------------------------------------------------------------------------------------


def one_direction(layer: Any, number: int, reverse: bool) -> Any:
    """A layer of a stack in one direction as a layer of its own."""
    part = copy.copy(layer)
    names = {n: v for n, v in layer.state_dict().items() if "_l0" in n and "reverse" not in n}
    suffix = f"_l{number}" + "_reverse" * reverse
    values = {n: layer.state_dict()[n.replace("_l0", suffix)] for n in names}
    inputs = values["weight_ih_l0"].shape[1]
    vars(part).update(input_size=inputs, num_layers=1, bidirectional=False, _parameters=values)
    return part


def as_keras(
    layer: Any, x: np.ndarray, state: Any, mask: np.ndarray, zero_output: bool
) -> tuple[np.ndarray, Any]:
    """Keras' loop over time: steps without a mask carry the state and repeat the output."""
    finals: list[tuple[np.ndarray, ...]] = []
    for number in range(layer.num_layers):
        outputs = []
        for reverse in (False, True)[: 1 + layer.bidirectional]:
            step, index = one_direction(layer, number, reverse), len(finals)
            held = [array[index : index + 1] for array in unpack(state)]
            y = np.zeros((STEPS, ROWS, step(x[:1])[0].shape[-1]), layer.dtype)
            previous = np.zeros_like(y[0])
            for t in reversed(range(STEPS)) if reverse else range(STEPS):
                out, after = step(x[t : t + 1], pack(held))
                taken = mask[t][:, None]
                pairs = zip(unpack(after), held, strict=True)
                held = [np.where(taken, new, old) for new, old in pairs]
                previous = np.where(taken, out[0], previous)
                y[t] = np.where(taken, previous, 0) if zero_output else previous
            outputs.append(y)
            finals.append(tuple(held))
        x = np.concatenate(outputs, axis=-1)
    return x, pack([np.concatenate(arrays) for arrays in zip(*finals, strict=True)])


def draw_mask(rng: np.random.Generator) -> np.ndarray:
    mask = rng.random((STEPS, ROWS)) < 0.6
    mask[:, 0], mask[:, 1] = False, True
    return mask


@each_maker
@each_stack
@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masks_are_those_of_keras(
    maker: str, stack: dict[str, Any], zero_output: bool, dtype: str, rng: np.random.Generator
) -> None:
    case, mask = Case(build(maker, dtype=dtype, **stack), rng), draw_mask(rng)
    options = {"mask": mask, "zero_output_for_mask": zero_output}
    expected = as_keras(case.layer, case.x, case.state, mask, zero_output)
    assert same_bits(case.layer(case.x, case.state, **options), expected)
    case.x[~mask] = np.nan  # what is skipped is not looked at
    assert same_bits(case.layer(case.x, case.state, **options), expected)
    assert same_bits(case.trained(**options)[:2], expected)


@each_maker
@each_stack
@pytest.mark.parametrize("zero_output", [False, True])
def test_gradients_with_masks_are_slopes(
    maker: str, stack: dict[str, Any], zero_output: bool, rng: np.random.Generator
) -> None:
    case, mask = Case(build(maker, **stack), rng), draw_mask(rng)
    options = {"mask": mask, "zero_output_for_mask": zero_output}
    assert_gradients_are_slopes(case, rng, **options)
    _, _, g = case.trained(**options)
    assert not g.x[~mask].any()


@each_maker
@each_stack
def test_a_mask_without_holes_is_a_length(
    maker: str, stack: dict[str, Any], rng: np.random.Generator
) -> None:
    case = Case(build(maker, **stack), rng)
    mask = np.arange(STEPS)[:, None] < np.array(LENGTHS)
    y, final, g = case.trained(mask=mask, zero_output_for_mask=True)
    by_length = case.trained(lengths=LENGTHS)
    assert same_bits((y, final), by_length[:2])
    assert same_gradients(g, by_length[2])


@each_maker
@pytest.mark.parametrize("zero_output", [False, True])
def test_nothing_but_holes(maker: str, zero_output: bool, rng: np.random.Generator) -> None:
    case = Case(build(maker, bidirectional=True), rng)
    mask = np.zeros((STEPS, ROWS), bool)
    y, final, g = case.trained(mask=mask, zero_output_for_mask=zero_output)
    assert not y.any()
    assert same_bits(final, case.state)
    assert same_bits(g.state, case.dstate)
    assert not g.x.any()


@each_stack
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_last_step_of_a_masked_sequence(
    batch_first: bool, stack: dict[str, Any], rng: np.random.Generator
) -> None:
    """Its gradient alone, without the axis of time, also where y repeats an earlier output."""
    layer = build("gru", batch_first=batch_first, **stack)
    mask = draw_mask(rng)
    x = rng.standard_normal((STEPS, ROWS, 3))
    if batch_first:
        x, mask = x.swapaxes(0, 1), mask.T
    y, _, tape = layer.forward_train(x, mask=mask)
    last = (slice(None), -1) if batch_first else (-1,)
    dy = np.zeros_like(y)
    dy[last] = rng.standard_normal(dy[last].shape)
    assert same_gradients(layer.backward(tape, dy[last].copy()), layer.backward(tape, dy))


@each_maker
@pytest.mark.parametrize("options", [{"steps": 0}, {"rows": 0}], ids=["steps", "rows"])
def test_masks_of_nothing(maker: str, options: dict[str, int]) -> None:
    layer = build(maker)
    steps, rows = options.get("steps", STEPS), options.get("rows", ROWS)
    x, mask = np.zeros((steps, rows, 3)), np.ones((steps, rows), bool)
    y, final, tape = layer.forward_train(x, mask=mask)
    assert y.shape[:2] == (steps, rows)
    assert same_bits((y, final), layer(x))
    assert layer.backward(tape, y).x.shape == x.shape


# ---- Backwards --------------------------------------------------------------------------------


@each_maker
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("batch_first", [False, True])
def test_going_backwards_is_a_turned_sequence(
    maker: str, num_layers: int, batch_first: bool, rng: np.random.Generator
) -> None:
    options = {"num_layers": num_layers, "batch_first": batch_first}
    layer, forwards = build(maker, go_backwards=True, **options), build(maker, **options)
    time = 1 if batch_first else 0
    x = rng.standard_normal((ROWS, STEPS, 3) if batch_first else (STEPS, ROWS, 3))
    state = state_of(layer, rng)
    y, final, tape = layer.forward_train(x, state)
    assert same_bits((y, final), layer(x, state))
    other, other_final, other_tape = forwards.forward_train(np.flip(x, time), state)
    assert same_bits((y, final), (other, other_final))
    dy = rng.standard_normal(y.shape)
    g, g_other = layer.backward(tape, dy, state), forwards.backward(other_tape, dy, state)
    assert same_bits(g.x, np.flip(g_other.x, time).copy())
    assert same_bits(g.state, g_other.state)
    assert all(same_bits(g.params[name], array) for name, array in g_other.params.items())
    assert layer.backward(tape, dy, need_x=False).x is None


@each_maker
def test_going_backwards_is_the_reverse_direction(maker: str, rng: np.random.Generator) -> None:
    """In the order in which it visits the steps; with lengths of its own by a mask."""
    both, layer = build(maker, bidirectional=True), build(maker, go_backwards=True)
    values = both.state_dict()
    layer.load_state_dict({name: values[name + "_reverse"] for name in layer.parameters()})
    x = rng.standard_normal((STEPS, ROWS, 3))
    reset, mask = draw_reset(rng), draw_mask(rng)
    for options in ({}, {"reset": reset}, {"mask": mask}):
        y, _ = both(x, **options)
        own, _ = layer(x, **options)
        assert same_bits(own, y[::-1, :, y.shape[-1] // 2 :].copy())
    case = Case(layer, rng)
    assert_gradients_are_slopes(case, rng, reset=reset)
    assert_gradients_are_slopes(case, rng, mask=mask)


@each_maker
def test_going_backwards_one_sequence(maker: str, rng: np.random.Generator) -> None:
    layer, x = build(maker, go_backwards=True), rng.standard_normal((STEPS, ROWS, 3))
    mask = draw_mask(rng)
    y, _ = layer(x, mask=mask)
    for row in range(ROWS):
        assert same_bits(layer(x[:, row], mask=mask[:, row])[0], y[:, row].copy())


@each_maker
@pytest.mark.parametrize("checkpoint", [1, "auto"])
def test_going_backwards_with_checkpoints(
    maker: str, checkpoint: Any, rng: np.random.Generator
) -> None:
    layer = build(maker, go_backwards=True)
    case = Case(layer, rng, steps=300)
    plain, short = case.trained(), case.trained(checkpoint=checkpoint)
    assert same_bits(plain[:2], short[:2])
    assert same_gradients(plain[2], short[2])


# ---- Dropout ----------------------------------------------------------------------------------


@each_maker
def test_dropout_is_of_training_only(maker: str, rng: np.random.Generator) -> None:
    dropping = build(maker, num_layers=2, dropout=0.5)
    x = rng.standard_normal((STEPS, ROWS, 3))
    assert same_bits(dropping(x), build(maker, num_layers=2)(x))
    y, _, _ = dropping.forward_train(x, rng=0)
    assert not np.array_equal(y, dropping(x)[0])
    assert not np.array_equal(dropping.forward_train(x)[0], dropping.forward_train(x)[0])


@each_maker
@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_repeats_with_its_seed(
    maker: str, bidirectional: bool, rng: np.random.Generator
) -> None:
    layer = build(maker, num_layers=3, bidirectional=bidirectional, dropout=0.3)
    case = Case(layer, rng)
    first, again, other = (case.trained(rng=seed) for seed in (1, np.random.default_rng(1), 2))
    assert same_bits(first[:2], again[:2])
    assert same_gradients(first[2], again[2])
    assert not np.array_equal(first[0], other[0])
    shared = np.random.default_rng(1)
    assert not np.array_equal(case.trained(rng=shared)[0], case.trained(rng=shared)[0])


@each_stack
def test_what_is_dropped_does_not_depend_on_the_layout(
    stack: dict[str, Any], rng: np.random.Generator
) -> None:
    options = stack | {"num_layers": 2, "dropout": 0.5}
    layer, other = build("lstm", **options), build("lstm", batch_first=True, **options)
    x = rng.standard_normal((STEPS, ROWS, 3))
    y, final, _ = layer.forward_train(x, rng=5)
    turned, turned_final, _ = other.forward_train(x.swapaxes(0, 1), rng=5)
    assert same_bits(turned.swapaxes(0, 1).copy(), y)
    assert same_bits(turned_final, final)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropped_and_scaled(dtype: str) -> None:
    """Two layers that do nothing show what came between them."""
    layer = fastrnn.RNN(50, 50, 2, nonlinearity="identity", dropout=0.25, dtype=dtype, bias=False)
    for name in layer.parameters():
        values = np.eye(50) if name.startswith("weight_ih") else np.zeros((50, 50))
        setattr(layer, name, values.astype(dtype))
    y, _, tape = layer.forward_train(np.ones((40, 30, 50), dtype), rng=0)
    kept = np.dtype(dtype).type(1) / np.dtype(dtype).type(0.75)
    assert set(np.unique(y)) == {0, kept}
    rate = np.mean(y == 0)
    assert abs(rate - 0.25) < 5 * np.sqrt(0.25 * 0.75 / y.size)
    assert np.array_equal(layer.backward(tape, np.ones_like(y)).x, y)


def test_everything_dropped(rng: np.random.Generator) -> None:
    layer = build("rnn", num_layers=2, dropout=1.0)
    case = Case(layer, rng)
    y, _, g = case.trained(rng=0)
    above = one_direction(layer, 1, False)
    silent = np.zeros((STEPS, ROWS, 5))
    assert same_bits(y, above(silent, case.state[1:])[0])
    assert not g.params["weight_ih_l1"].any()


@each_maker
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_with_dropout_are_slopes(
    maker: str, bidirectional: bool, rng: np.random.Generator
) -> None:
    layer = build(maker, num_layers=3, bidirectional=bidirectional, dropout=0.4)
    assert_gradients_are_slopes(Case(layer, rng), rng, rng=7)


@pytest.mark.parametrize("name", ["lengths", "reset", "mask", "go_backwards"])
def test_dropout_together_with(name: str, rng: np.random.Generator) -> None:
    layer = build("lstm", num_layers=2, dropout=0.4, go_backwards=name == "go_backwards")
    given = {"lengths": LENGTHS, "reset": draw_reset(rng), "mask": draw_mask(rng)}
    options = {name: given[name]} if name in given else {}
    assert_gradients_are_slopes(Case(layer, rng), rng, rng=7, **options)


def test_a_tape_of_dropout_serves_again_and_adds_up(rng: np.random.Generator) -> None:
    layer = build("gru", num_layers=2, dropout=0.5)
    case = Case(layer, rng)
    _, _, tape = layer.forward_train(case.x, case.state, rng=0)
    g = layer.backward(tape, case.dy, case.dstate)
    out = {name: np.ones_like(array) for name, array in g.params.items()}
    again = layer.backward(tape, case.dy, case.dstate, out=out)
    assert same_bits(again.x, g.x)
    assert_same_sums(out, {name: array + 1 for name, array in g.params.items()})
    none = layer.backward(tape, case.dy, need_x=False, need_params=False)
    assert (none.x, none.params) == (None, {})
    assert tape.nbytes > 2 * STEPS * ROWS * 5 * 8


@each_stack
def test_no_dropout_is_a_plain_forward(stack: dict[str, Any], rng: np.random.Generator) -> None:
    case = Case(build("lstm", dropout=0.0, **stack), rng)
    y, final, g = case.trained()
    seeded = case.trained(rng=3)
    assert same_bits(seeded[:2], (y, final))
    assert same_gradients(seeded[2], g)
