"""The gated leak: values, gradients, bits, layouts, the time axis over lanes, refusals."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from support import (
    DTYPES,
    FLAVOURS,
    OUT_FLAVOURS,
    UNDERFLOW,
    assert_close,
    outside,
    read_only,
    refuses,
    run_python,
    same_bits,
)

import fastrnn

# Tails of vectors and strips; rows that are wide enough to be walked step by step.
SHAPES = (
    *((1, 1), (2, 3), (40, 1), (40, 15), (33, 16), (20, 17), (9, 128), (7, 300), (3, 5000)),
    *((1, 1, 1), (5, 3, 1), (6, 2, 7), (12, 4, 16), (8, 3, 33), (5, 2, 129), (4, 9, 600)),
)
EMPTY = ((0, 3), (5, 0), (0, 2, 3), (4, 0, 3), (4, 2, 0), (0, 0, 0))

# With the time over the lanes products of alpha are rounded in another order: a part of the largest
# value, for sequences whose alpha is up to 0.999, as in test_leaky.py.
PARALLEL = {"float32": 1e-5, "float64": 1e-5 * 2.0**-29}


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """alpha, v, state, dy, dstate."""
    alpha = rng.uniform(0, 1, shape)
    alpha[rng.random(shape) < 0.1] = 0
    alpha[rng.random(shape) < 0.1] = 1
    others = [rng.standard_normal(s) for s in (shape, shape[1:], shape, shape[1:])]
    return [array.astype(dtype) for array in (alpha, *others)]


# ---- Values -----------------------------------------------------------------------------------


def forward_oracle(alpha: Any, v: Any, state: Any) -> tuple[np.ndarray, np.ndarray]:
    """y in more precision, and how far the roundings of `dtype` may take each element from it."""
    unit = np.finfo(v.dtype).eps / 2
    tiny = UNDERFLOW[v.dtype.name]
    alpha, v, y = (np.asarray(array, np.longdouble) for array in (alpha, v, state))
    error = np.zeros_like(y)
    values, errors = [y], []
    for a, x in zip(alpha, v, strict=True):
        y = a * y + (1 - a) * x
        # of 1 - a, of its product with x, of the sum; and a flush
        error = np.abs(a) * error + unit * (2 * np.abs((1 - a) * x) + np.abs(y)) + tiny
        values.append(y)
        errors.append(1.01 * error)
    return np.stack(values), np.reshape(errors, v.shape)


def backward_oracle(alpha: Any, v: Any, y: Any, state: Any, dy: Any, dstate: Any) -> Any:
    """(dalpha, dv, dstate), and likewise the errors that they may have."""
    unit = np.finfo(v.dtype).eps / 2
    tiny = UNDERFLOW[v.dtype.name]
    arrays = (alpha, v, y, state, dy, dstate)
    alpha, v, y, state, dy, carry = (np.asarray(array, np.longdouble) for array in arrays)
    error = np.zeros_like(carry)
    values, errors = (np.zeros((2, *v.shape), np.longdouble) for _ in range(2))
    for t in reversed(range(len(v))):
        a, change = alpha[t], (y[t - 1] if t else state) - v[t]
        g = dy[t] + carry
        error = error + unit * np.abs(g)
        values[:, t] = g * change, (1 - a) * g
        errors[:, t] = np.abs(change) * error, np.abs(1 - a) * error
        carry = a * g
        error = np.abs(a) * error + unit * np.abs(carry) + tiny
    errors += 2 * unit * np.abs(values)
    return (*values, carry), (*(1.01 * errors), 1.01 * error)


def assert_within(actual: np.ndarray, expected: np.ndarray, errors: np.ndarray) -> None:
    assert actual.shape == expected.shape
    assert (np.abs(actual - expected) <= errors).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES + EMPTY, ids=str)
def test_values_differ_from_the_equation_by_roundings_only(
    shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    alpha, v, state, _, _ = draw(rng, shape, dtype)
    for initial in (state, np.zeros_like(state)):
        y, final = fastrnn.gated_leaky(alpha, v, initial)
        expected, errors = forward_oracle(alpha, v, initial)
        assert (y.dtype, final.dtype) == (v.dtype, v.dtype)
        assert_within(y, expected[1:], errors)
        assert same_bits(final, y[-1] if len(y) else initial)
    assert same_bits(fastrnn.gated_leaky(alpha, v), (y, final))


def test_by_hand() -> None:
    alpha, v = np.array([[0.5], [0.0], [0.75]]), np.array([[4.0], [8.0], [0.0]])
    y, state = fastrnn.gated_leaky(alpha, v, [2.0])
    assert y.tolist() == [[3.0], [8.0], [6.0]]
    assert state.tolist() == [6.0]
    dalpha, dv, dstate = fastrnn.gated_leaky_backward(alpha, v, y, np.ones((3, 1)), [2.0], [3.0])
    # g = 1.5 + ..., from the end: 4, 1 + 0.75 * 4 = 4, 1 + 0 * 4 = 1
    assert dalpha.tolist() == [[1.0 * (2 - 4)], [4.0 * (3 - 8)], [4.0 * (8 - 0)]]
    assert dv.tolist() == [[0.5], [4.0], [1.0]]
    assert dstate.tolist() == [0.5]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_alpha_is_the_leaky_unit(dtype: str, rng: np.random.Generator) -> None:
    _, v, state, _, _ = draw(rng, (30, 3, 37), dtype)
    alpha = rng.uniform(0, 1, 37).astype(dtype)
    expected = fastrnn.leaky(v, alpha, state)
    assert same_bits(fastrnn.gated_leaky(np.broadcast_to(alpha, v.shape), v, state), expected)
    assert same_bits(fastrnn.gated_leaky(np.tile(alpha, (30, 3, 1)), v, state), expected)


def test_alpha_zero_keeps_nothing_and_one_keeps_all(rng: np.random.Generator) -> None:
    _, v, state, _, _ = draw(rng, (20, 3, 5))
    y, final = fastrnn.gated_leaky(np.zeros_like(v), v, state)
    assert same_bits((y, final), (v, v[-1]))
    y, final = fastrnn.gated_leaky(np.ones_like(v), v, state)
    assert np.array_equal(y, np.broadcast_to(state, v.shape))
    assert same_bits(final, state)


def test_alpha_outside_its_range_is_computed_with() -> None:
    y, _ = fastrnn.gated_leaky([[2.0], [-1.0]], [[1.0], [3.0]], [5.0])
    assert y.tolist() == [[9.0], [-3.0]]


# ---- Gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES + EMPTY, ids=str)
def test_gradients_differ_from_the_equations_by_roundings_only(
    shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    alpha, v, state, dy, dstate = draw(rng, shape, dtype)
    y, _ = fastrnn.gated_leaky(alpha, v, state)
    for arrays in ((dy, state, dstate), (dy, None, None), (None, state, dstate)):
        actual = fastrnn.gated_leaky_backward(alpha, v, y, *arrays)
        filled = [
            np.zeros_like(b) if a is None else a
            for a, b in zip(arrays, (dy, state, dstate), strict=True)
        ]
        expected, errors = backward_oracle(alpha, v, y, filled[1], filled[0], filled[2])
        for a, b, e in zip(actual, expected, errors, strict=True):
            assert a.dtype == v.dtype
            assert_within(a, b, e)


def test_gradients_are_finite_differences(rng: np.random.Generator) -> None:
    alpha, v, state, dy, dstate = draw(rng, (11, 3, 5), "float64")
    y, _ = fastrnn.gated_leaky(alpha, v, state)
    gradients = fastrnn.gated_leaky_backward(alpha, v, y, dy, state, dstate)

    def loss(*arrays: np.ndarray) -> float:
        y, final = fastrnn.gated_leaky(*arrays)
        return float((y * dy).sum() + (final * dstate).sum())

    arrays, h = [alpha, v, state], 1e-5
    for i, gradient in enumerate(gradients):
        for _ in range(20):
            way = rng.standard_normal(arrays[i].shape)
            ends = [loss(*arrays[:i], arrays[i] + s * way, *arrays[i + 1 :]) for s in (h, -h)]
            slope = (gradient * way).sum()
            assert abs((ends[0] - ends[1]) / (2 * h) - slope) <= 1e-7 * max(1, abs(slope))


def test_gradients_are_those_of_torch(rng: np.random.Generator) -> None:
    import torch

    arrays = draw(rng, (25, 4, 19), "float64")
    alpha, v, state = (torch.from_numpy(array).requires_grad_() for array in arrays[:3])
    ys = [state]
    for a, x in zip(alpha, v, strict=True):
        ys.append(a * ys[-1] + (1 - a) * x)
    dy, dstate = arrays[3:]
    (
        (torch.stack(ys[1:]) * torch.from_numpy(dy)).sum()
        + (ys[-1] * torch.from_numpy(dstate)).sum()
    ).backward()
    y, final = fastrnn.gated_leaky(*arrays[:3])
    assert_close(y, torch.stack(ys[1:]).detach().numpy(), 1e-14)
    assert_close(final, ys[-1].detach().numpy(), 1e-14)
    gradients = fastrnn.gated_leaky_backward(*arrays[:2], y, dy, arrays[2], dstate)
    for actual, tensor in zip(gradients, (alpha, v, state), strict=True):
        assert_close(actual, tensor.grad.numpy(), 1e-14)


# ---- Bits -------------------------------------------------------------------------------------


def run_all(arrays: Any, parallel: str | None = None) -> tuple[np.ndarray, ...]:
    """y, final, dalpha, dv, dstate."""
    alpha, v, state, dy, dstate = arrays
    y, final = fastrnn.gated_leaky(alpha, v, state, parallel=parallel)
    return (
        y,
        final,
        *fastrnn.gated_leaky_backward(alpha, v, y, dy, state, dstate, parallel=parallel),
    )


def hash_of_everything() -> str:
    """Of the results for every shape and dtype, extreme numbers included; printed by a process of
    each instruction set. All NaNs count as one value."""
    digest = hashlib.sha256()
    for dtype in DTYPES:
        for i, shape in enumerate(SHAPES):
            rng = np.random.default_rng(i)
            arrays = draw(rng, shape, dtype)
            info = np.finfo(dtype)
            with np.errstate(over="ignore"):
                factors = [rng.choice([1, 1, 1, info.tiny, info.max], a.shape) for a in arrays]
                wild = [(a * f).astype(dtype) for a, f in zip(arrays, factors, strict=True)]
            wild[1].flat[0], wild[3].flat[-1] = np.inf, np.nan
            for given in (arrays, wild):
                for result in run_all(given):
                    digest.update(np.where(np.isnan(result), np.nan, result).tobytes())
    return digest.hexdigest()


def test_every_instruction_set_gives_the_same_bits() -> None:
    command = "import test_gated_leaky as t; print(t.fastrnn.isa(), t.hash_of_everything())"
    hashes = set()
    for isa in fastrnn.available_isas():
        process = run_python("-c", command, isa=isa)
        assert process.returncode == 0, process.stderr
        used, result = process.stdout.split()
        assert used == isa
        hashes.add(result)
    assert hashes == {hash_of_everything()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) == 3], ids=str)
def test_a_row_alone_or_in_a_batch(
    shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    arrays = draw(rng, shape, dtype)
    whole = run_all(arrays)
    for row in range(shape[1]):
        for rows in (row, slice(row, row + 1)):  # without an axis of rows, and with one
            given = [np.ascontiguousarray(array[..., rows, :]) for array in arrays]
            expected = [np.ascontiguousarray(array[..., rows, :]) for array in whole]
            assert same_bits(run_all(given), tuple(expected))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(50, 2, 19), (50, 1), (9, 3, 700)], ids=str)
def test_whole_or_in_stretches(
    shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    arrays = draw(rng, shape, dtype)
    alpha, v, state, dy, dstate = arrays
    y, final, dalpha, dv, first = run_all(arrays)
    cuts = [0, *sorted(rng.integers(0, shape[0] + 1, 4).tolist()), shape[0]]
    carry, before = dstate, state
    for begin, end in pairwise(cuts):
        part, before = fastrnn.gated_leaky(alpha[begin:end], v[begin:end], before)
        assert same_bits(part, y[begin:end])
    assert same_bits(before, final)
    for begin, end in reversed(list(pairwise(cuts))):
        now = slice(begin, end)
        past = y[begin - 1] if begin else state
        a, b, carry = fastrnn.gated_leaky_backward(alpha[now], v[now], y[now], dy[now], past, carry)
        assert same_bits((a, b), (dalpha[now], dv[now]))
    assert same_bits(carry, first)


@pytest.mark.parametrize("parallel", [None, "time"])
@pytest.mark.parametrize("shape", [(6, 2, 3), (6, 3, 20), (40, 1), (5, 2, 300)], ids=str)
def test_any_layout_and_kind_of_array(
    shape: tuple[int, ...], parallel: str | None, rng: np.random.Generator
) -> None:
    arrays = draw(rng, shape)
    expected = run_all(arrays, parallel)
    for flavour in FLAVOURS.values():
        assert same_bits(run_all([flavour(array) for array in arrays], parallel), expected)
        for i in range(len(arrays)):
            mixed = [*arrays[:i], flavour(arrays[i]), *arrays[i + 1 :]]
            assert same_bits(run_all(mixed, parallel), expected)
    for name in OUT_FLAVOURS:
        out = FLAVOURS[name](np.full(shape, np.nan, np.float32))
        around = outside(out).copy()
        y, final = fastrnn.gated_leaky(*arrays[:3], out=out, parallel=parallel)
        assert y is out
        assert same_bits((np.ascontiguousarray(y), final), expected[:2]), name
        assert same_bits(outside(out), around), name


@pytest.mark.parametrize("shape", [(7, 3, 40), (7, 3, 1), (7, 2, 3000)], ids=str)
def test_rows_one_after_the_other(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """Views of arrays [B, T, H], and of the halves of one array."""
    arrays = draw(rng, shape)
    expected = run_all(arrays)

    def turned(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1)

    alpha, v, state, dy, dstate = arrays
    assert same_bits(run_all([turned(alpha), turned(v), state, turned(dy), dstate]), expected)
    both = np.concatenate([alpha, v], -1)
    left, right = both[..., : shape[-1]], both[..., shape[-1] :]
    assert same_bits(run_all([left, right, state, dy, dstate]), expected)


def test_narrower_numbers_are_taken_exactly(rng: np.random.Generator) -> None:
    half = [array.astype(np.float16) for array in draw(rng, (8, 2, 5))]
    wide = [array.astype(np.float64) for array in half]
    assert same_bits(run_all(half), run_all(wide))  # what is not float32 is float64
    single = [array.astype(np.float32) for array in half]
    mixed = [array if i == 1 else half[i] for i, array in enumerate(single)]
    assert same_bits(run_all(mixed), run_all(single))
    whole = [np.round(array).astype(np.int8) for array in half]
    assert same_bits(run_all(whole), run_all([array.astype(np.float64) for array in whole]))
    assert same_bits(run_all([array.tolist() for array in wide]), run_all(wide))


def test_arguments_are_left_alone(rng: np.random.Generator) -> None:
    arrays = draw(rng, (8, 2, 5))
    copies = [array.copy() for array in arrays]
    results = run_all(arrays)
    assert same_bits(run_all([read_only(array) for array in arrays]), results)
    assert all(map(same_bits, arrays, copies))
    assert not any(np.shares_memory(a, b) for a in results for b in arrays)


def test_threads_do_not_disturb_each_other(rng: np.random.Generator) -> None:
    arrays = [draw(rng, (200, 4, 64)) for _ in range(4)]
    expected = [run_all(given) for given in arrays]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(map(same_bits, pool.map(run_all, arrays), expected))


# ---- Extremes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [None, "time"])
@pytest.mark.parametrize("shape", [(70, 2), (70, 1, 3), (20, 2, 40)], ids=str)
@pytest.mark.parametrize("argument", [0, 1, 3])
def test_a_nan_stays_in_its_channel_and_on_its_side(
    argument: int, shape: tuple[int, ...], parallel: str | None, rng: np.random.Generator
) -> None:
    arrays = draw(rng, shape)
    clean = run_all(arrays, parallel)
    at = (shape[0] // 2, *(n - 1 for n in shape[1:]))
    arrays[argument][at] = np.nan
    results = run_all(arrays, parallel)
    for result, before in zip(results, clean, strict=True):
        spoilt = np.isnan(result)
        channels = spoilt.reshape(-1, np.prod(shape[1:], dtype=int)).any(0)
        assert not channels[:-1].any()
        assert same_bits(result[~spoilt], before[~spoilt])
    y, final, dalpha, dv, dstate = results
    now, column = at[0], (slice(None), *at[1:])
    if argument < 3:
        assert np.isnan(y[column][now:]).all()
        assert not np.isnan(y[column][:now]).any()
        assert np.isnan(final[at[1:]])
    else:
        assert not np.isnan(y).any()
        assert np.isnan(dv[column][: now + 1]).all()
    if argument != 1:  # v does not come into g
        assert np.isnan(dstate[at[1:]])
    assert np.isnan((dalpha if argument else dv)[at])
    assert not np.isnan(dv[column][now + 1 :]).any()


@pytest.mark.parametrize("parallel", [None, "time"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_silence_decays_to_exact_zero(dtype: str, parallel: str | None) -> None:
    """From 1 by halves: down to the threshold exactly, then zero for ever; gradients too."""
    threshold = UNDERFLOW[dtype]
    last = int(-np.log2(threshold))
    alpha, v = np.full((last + 50, 1), 0.5, dtype), np.zeros((last + 50, 1), dtype)
    one = np.ones(1, dtype)
    y, final = fastrnn.gated_leaky(alpha, v, one, parallel=parallel)
    expected = np.exp2(-np.arange(1.0, last + 51))
    assert np.array_equal(y[:, 0], np.where(expected < threshold, 0.0, expected))
    assert final[0] == 0.0
    _, dv, dstate = fastrnn.gated_leaky_backward(alpha, v, y, None, one, one, parallel=parallel)
    assert np.array_equal(dv[::-1, 0], np.where(2 * expected < threshold, 0.0, expected))
    assert dstate[0] == 0.0


# ---- Over the lanes of time -------------------------------------------------------------------


def bounded(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    """As draw(), with alpha up to 0.999."""
    arrays = draw(rng, shape, dtype)
    return [np.minimum(arrays[0], np.asarray(0.999, dtype)), *arrays[1:]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(5000, 1), (3000, 2), (700, 3), (1003, 2, 1), (513, 3, 2), (99, 40)], ids=str
)
def test_parallel_time_is_close(
    shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    arrays = bounded(rng, shape, dtype)
    for low in (0.0, 0.99):
        arrays[0] = np.maximum(arrays[0], np.asarray(low, dtype))
        for a, b in zip(run_all(arrays, "time"), run_all(arrays), strict=True):
            assert a.dtype == b.dtype
            assert_close(a, b, PARALLEL[dtype])


def test_parallel_time_of_every_length(rng: np.random.Generator) -> None:
    """Every number of steps around a vector, and around what is gathered at once."""
    alpha, v, state, dy, dstate = bounded(rng, (1100, 2), "float64")
    for steps in (*range(70), *range(505, 520), *range(1020, 1030)):
        given = [alpha[:steps], v[:steps], state, dy[:steps], dstate]
        for a, b in zip(run_all(given, "time"), run_all(given), strict=True):
            assert_close(a, b, PARALLEL["float64"], steps)


def test_parallel_time_of_rows_beside_each_other(rng: np.random.Generator) -> None:
    arrays = bounded(rng, (300, 5, 1), "float32")
    turned = [
        np.ascontiguousarray(array.swapaxes(0, 1)).swapaxes(0, 1) if array.ndim == 3 else array
        for array in arrays
    ]
    for a, b in zip(run_all(turned, "time"), run_all(arrays), strict=True):
        assert_close(a, b, PARALLEL["float32"])


def test_full_lanes_are_left_as_they_are(rng: np.random.Generator) -> None:
    arrays = draw(rng, (50, 3, 16))
    assert same_bits(run_all(arrays, "time"), run_all(arrays))


# ---- Refusals ---------------------------------------------------------------------------------


def test_forward_refuses_bad_arguments(rng: np.random.Generator) -> None:
    alpha, v, state, _, _ = good = draw(rng, (6, 2, 3))
    copies = [array.copy() for array in good]
    for error, facts, wrong in (
        (ValueError, ("v", (3,)), {"v": v[0, 0]}),
        (ValueError, ("v", (1, 6, 2, 3)), {"v": v[None]}),
        (TypeError, ("v", "complex64"), {"v": v.astype(np.complex64)}),
        (TypeError, ("v",), {"v": None}),
        (TypeError, ("v",), {"v": np.ma.masked_array(v)}),
        (ValueError, ("alpha", (6, 2, 3), (6, 3)), {"alpha": alpha[:, 0]}),
        (ValueError, ("alpha", (6, 2, 3), (5, 2, 3)), {"alpha": alpha[:5]}),
        (ValueError, ("alpha", (6, 2, 3), ()), {"alpha": 0.5}),
        (TypeError, ("alpha", "float32", "float64"), {"alpha": alpha.astype(np.float64)}),
        (TypeError, ("alpha",), {"alpha": None}),
        (ValueError, ("state", (2, 3), (2, 4)), {"state": np.zeros((2, 4), v.dtype)}),
        (ValueError, ("state", (2, 3), (3,)), {"state": np.zeros(3, v.dtype)}),
        (TypeError, ("state", "float32", "float64"), {"state": np.zeros((2, 3))}),
        (ValueError, ("out", (6, 2, 3), (6, 3)), {"out": np.zeros((6, 3), v.dtype)}),
        (TypeError, ("out", "float32", "float64"), {"out": np.zeros((6, 2, 3))}),
        (ValueError, ("out", "read-only"), {"out": read_only(v)}),
        (ValueError, ("out", "contiguous"), {"out": np.zeros((6, 2, 6), v.dtype)[..., ::2]}),
        (ValueError, ("out", "v"), {"out": v}),
        (ValueError, ("out", "alpha"), {"out": alpha}),
        (ValueError, ("parallel", "space"), {"parallel": "space"}),
        (ValueError, ("parallel",), {"parallel": True}),
    ):
        with refuses(error, *facts):
            fastrnn.gated_leaky(**{"alpha": alpha, "v": v, "state": state} | wrong)
        assert all(map(same_bits, good, copies))


def test_backward_refuses_bad_arguments(rng: np.random.Generator) -> None:
    alpha, v, state, dy, dstate = good = draw(rng, (6, 2, 3))
    y, _ = fastrnn.gated_leaky(alpha, v, state)
    copies = [array.copy() for array in good]
    names = {"alpha": alpha, "v": v, "y": y, "dy": dy, "state": state, "dstate": dstate}
    for error, facts, wrong in (
        (ValueError, ("v", (3,)), {"v": v[0, 0]}),
        (ValueError, ("alpha", (6, 2, 3), (7, 2, 3)), {"alpha": np.ones((7, 2, 3), v.dtype)}),
        (ValueError, ("y", (6, 2, 3), (5, 2, 3)), {"y": y[1:]}),
        (TypeError, ("y", "float32", "float64"), {"y": y.astype(np.float64)}),
        (TypeError, ("y",), {"y": None}),
        (ValueError, ("dy", (6, 2, 3), (2, 3)), {"dy": dy[0]}),
        (TypeError, ("dy", "complex64"), {"dy": dy.astype(np.complex64)}),
        (ValueError, ("state", (2, 3), (1, 3)), {"state": state[:1]}),
        (ValueError, ("dstate", (2, 3), (2, 2)), {"dstate": dstate[:, :2]}),
        (TypeError, ("dstate", "float32", "float64"), {"dstate": dstate.astype(np.float64)}),
        (ValueError, ("parallel", 1), {"parallel": 1}),
    ):
        with refuses(error, *facts):
            fastrnn.gated_leaky_backward(**names | wrong)
        assert all(map(same_bits, good, copies))
