"""Leaky units: values, retention, the parallel scan, and how a silent state ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import (
    DTYPES,
    FLAVOURS,
    OUT_FLAVOURS,
    Net,
    assert_close,
    bound,
    gradient_arrays,
    map_state,
    refuses,
    same_bits,
    unharmed,
    unpack,
)

import fastrnn

# parallel="time" adds in another order than the plain scan. With alpha up to 0.999 a value is the
# sum of about 1000 others, whose roundings may differ in either order by this part of the largest.
PARALLEL = {"float32": 1e-5, "float64": 1e-5 * 2.0**-29}  # 29 more bits of precision

# Below this a state becomes zero.
THRESHOLD = {"float32": 2.0**-100, "float64": 2.0**-900}


def values(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


# ---- Values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 15, 16, 17, 33, 100])
def test_function_is_the_layer(channels: int, dtype: str, rng: np.random.Generator) -> None:
    alpha = rng.uniform(0, 1, channels).astype(dtype)
    layer = fastrnn.Leaky(channels, alpha=alpha, dtype=dtype)
    for shape in ((40, channels), (40, 3, channels)):
        v, state = values(rng, *shape, dtype=dtype), values(rng, *shape[1:], dtype=dtype)
        for initial in (None, state):
            expected = layer(v, initial)
            assert same_bits(fastrnn.leaky(v, alpha, initial), expected)
            out = np.empty_like(v)
            y, final = fastrnn.leaky(v, alpha, initial, out=out)
            assert y is out
            assert same_bits((y, final), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha_for_all_or_for_each(dtype: str, rng: np.random.Generator) -> None:
    v = values(rng, 50, 3, 17, dtype=dtype)
    for alpha in (0.0, 0.3, 0.9, 1.0):
        each = np.full(17, alpha, dtype)
        assert same_bits(fastrnn.leaky(v, alpha), fastrnn.leaky(v, each))
        layers = [fastrnn.Leaky(17, alpha=a, dtype=dtype) for a in (alpha, each, each.tolist())]
        assert same_bits(layers[0](v), layers[1](v))
        assert same_bits(layers[0](v), layers[2](v))
        assert same_bits(layers[0](v), fastrnn.leaky(v, alpha))


def test_alpha_zero_keeps_nothing_and_one_keeps_all(rng: np.random.Generator) -> None:
    v, state = values(rng, 20, 3, 5), values(rng, 3, 5)
    y, final = fastrnn.leaky(v, 0.0, state)
    assert np.array_equal(y, v)
    assert np.array_equal(final, v[-1])
    y, final = fastrnn.leaky(v, 1.0, state)
    assert np.array_equal(y, np.broadcast_to(state, v.shape))
    assert np.array_equal(final, state)


def test_by_hand() -> None:
    v = np.array([[8.0], [8.0], [0.0]])
    y, state = fastrnn.leaky(v, 0.5)
    assert y.tolist() == [[4.0], [6.0], [3.0]]
    assert state.tolist() == [3.0]
    y, state = fastrnn.leaky(v, 0.75, np.array([4.0]))
    assert y.tolist() == [[5.0], [5.75], [4.3125]]


@pytest.mark.parametrize("parallel", [None, "time"])
def test_state_carries_on(parallel: str | None, rng: np.random.Generator) -> None:
    net = Net("leaky", 6, 6, seed=3)
    alpha = net.build().parameters()["alpha"]
    layer = fastrnn.Leaky(6, alpha=alpha, parallel=parallel)
    v = net.input(rng, 300, 2)
    expected, expected_final = net.oracle(layer, v)
    state, ys = None, []
    for part in np.split(v, [1, 2, 17, 130]):
        y, state = layer(part, state)
        ys.append(y)
    assert_close(np.concatenate(ys), expected, bound(net, 300))
    assert_close(state, expected_final, bound(net, 300))


# ---- Over blocks of time ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5000, 1), (5000, 3), (1003, 1, 1), (1003, 2, 5), (997, 40)])
def test_parallel_time_is_close(
    shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    v, state = values(rng, *shape, dtype=dtype), values(rng, *shape[1:], dtype=dtype)
    each = rng.uniform(0, 0.999, shape[-1])
    for alpha in (0.0, 0.5, 0.9, 0.999, 1.0, each):
        serial = fastrnn.leaky(v, alpha, state)
        for result in (
            fastrnn.leaky(v, alpha, state, parallel="time"),
            fastrnn.Leaky(shape[-1], alpha=alpha, dtype=dtype, parallel="time")(v, state),
        ):
            for actual, expected in zip(result, serial, strict=True):
                assert actual.dtype == np.dtype(dtype)
                assert_close(actual, expected, PARALLEL[dtype], alpha)


def test_parallel_time_of_every_length(rng: np.random.Generator) -> None:
    """Every number of steps around the blocks, the values of all of them and the final state."""
    v, state = values(rng, 150, 2), values(rng, 2)
    serial, _ = fastrnn.leaky(v, 0.9, state)
    for steps in range(len(v) + 1):
        y, final = fastrnn.leaky(v[:steps], 0.9, state, parallel="time")
        assert_close(y, serial[:steps], PARALLEL["float32"], steps)
        assert_close(final, serial[steps - 1] if steps else state, PARALLEL["float32"], steps)


def test_parallel_time_is_causal(rng: np.random.Generator) -> None:
    """A NaN reaches neither the steps before it nor the other channels."""
    v = values(rng, 200, 3)
    clean, _ = fastrnn.leaky(v, 0.9, parallel="time")
    for t in (0, 1, 63, 64, 101, 199):
        spoilt = v.copy()
        spoilt[t, 1] = np.nan
        y, final = fastrnn.leaky(spoilt, 0.9, parallel="time")
        assert same_bits(y[:t], clean[:t])
        assert same_bits(y[:, [0, 2]], clean[:, [0, 2]])
        assert np.isnan(y[t:, 1]).all()
        assert np.isnan(final).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "last"), [((333, 1), 0), ((64, 3), 1), ((65, 2, 3), 0), ((7, 5), 1)]
)
def test_gradients_of_parallel_time_are_close(
    shape: tuple[int, ...], last: int, dtype: str, rng: np.random.Generator
) -> None:
    """To the oracle's, for dy of all steps or of the last."""
    net = Net("leaky", shape[-1], shape[-1], dtype=dtype, seed=2)
    layer = fastrnn.Leaky(
        shape[-1], alpha=rng.uniform(0, 0.999, shape[-1]), parallel="time", dtype=dtype
    )
    v, state = values(rng, *shape, dtype=dtype), values(rng, *shape[1:], dtype=dtype)
    dy = values(rng, *shape[last:], dtype=dtype)
    g = layer.backward(layer.forward_train(v, state)[2], dy, state)
    expected = net.oracle_backward(layer, v, state, dy, state)
    for name, array in gradient_arrays(g).items():
        assert_close(array, gradient_arrays(expected)[name], PARALLEL[dtype], name)


@pytest.mark.parametrize("parallel", ["space", "", 1, True])
def test_bad_parallel(parallel: Any, rng: np.random.Generator) -> None:
    with refuses((TypeError, ValueError), "parallel"):
        fastrnn.Leaky(3, parallel=parallel)
    with refuses((TypeError, ValueError), "parallel"):
        fastrnn.leaky(values(rng, 5, 3), 0.9, parallel=parallel)


# ---- Retention --------------------------------------------------------------------------------

BAD_ALPHAS = (-0.1, 1.1, np.nan, np.inf, [0.5, 0.5, 1.5], [0.5, np.nan, 0.5])


@pytest.mark.parametrize("alpha", BAD_ALPHAS, ids=repr)
def test_alpha_outside_its_range(alpha: Any, rng: np.random.Generator) -> None:
    with refuses(ValueError, "alpha"):
        fastrnn.Leaky(3, alpha=alpha)
    with refuses(ValueError, "alpha"):
        fastrnn.leaky(values(rng, 5, 3), alpha)
    with refuses(ValueError, "alpha"):
        fastrnn.LeakyRNN(2, 3, alpha=alpha)
    layer = fastrnn.Leaky(3, alpha=0.5)
    with unharmed(layer, values(rng, 5, 3)), refuses(ValueError, "alpha"):
        layer.load_state_dict({"alpha": np.broadcast_to(np.float32(alpha), 3)})


@pytest.mark.parametrize("alpha", [np.full(4, 0.5), np.full((3, 1), 0.5), np.full((1, 3), 0.5), []])
def test_alpha_of_wrong_shape(alpha: Any, rng: np.random.Generator) -> None:
    for make in (
        lambda: fastrnn.Leaky(3, alpha=alpha),
        lambda: fastrnn.LeakyRNN(2, 3, alpha=alpha),
        lambda: fastrnn.leaky(values(rng, 5, 3), alpha),
    ):
        with refuses(ValueError, "alpha", 3, np.shape(alpha)):
            make()


@pytest.mark.parametrize("alpha", [None, "0.5", 0.5j, object()], ids=lambda a: type(a).__name__)
def test_alpha_of_wrong_type(alpha: Any, rng: np.random.Generator) -> None:
    for make in (
        lambda: fastrnn.Leaky(3, alpha=alpha),
        lambda: fastrnn.LeakyRNN(2, 3, alpha=alpha),
        lambda: fastrnn.leaky(values(rng, 5, 3), alpha),
    ):
        with refuses((TypeError, ValueError), "alpha"):
            make()


# ---- The function's other arguments -----------------------------------------------------------


def test_function_refuses_bad_arguments(rng: np.random.Generator) -> None:
    v = values(rng, 6, 2, 3)
    before = v.copy()
    for error, facts, wrong in (
        (ValueError, ("v", (3,)), {"v": v[0, 0]}),
        (ValueError, ("v", (1, 6, 2, 3)), {"v": v[None]}),
        (TypeError, ("v", "complex64"), {"v": v.astype(np.complex64)}),
        (TypeError, ("v",), {"v": None}),
        (ValueError, ("state", (2, 3), (2, 4)), {"state": np.zeros((2, 4), v.dtype)}),
        (ValueError, ("state", (2, 3), (3,)), {"state": np.zeros(3, v.dtype)}),
        (TypeError, ("state", "float32", "float64"), {"state": np.zeros((2, 3))}),
        (ValueError, ("out", (6, 2, 3), (6, 3)), {"out": np.zeros((6, 3), v.dtype)}),
        (TypeError, ("out", "float32", "float64"), {"out": np.zeros((6, 2, 3))}),
        (ValueError, ("out",), {"out": v}),
    ):
        with refuses(error, *facts):
            fastrnn.leaky(**{"v": v, "alpha": 0.9} | wrong)
        assert same_bits(v, before)


def test_function_takes_any_layout(rng: np.random.Generator) -> None:
    v = values(rng, 6, 2, 3)
    expected = fastrnn.leaky(v, 0.9)
    for flavour in FLAVOURS.values():
        assert same_bits(fastrnn.leaky(flavour(v), 0.9), expected)
    for name in OUT_FLAVOURS:
        out = FLAVOURS[name](np.full_like(v, np.nan))
        assert same_bits(fastrnn.leaky(v, 0.9, out=out), expected), name


def test_nothing_to_do() -> None:
    state = np.ones((2, 3), np.float32)
    for parallel in (None, "time"):
        y, final = fastrnn.leaky(np.zeros((0, 2, 3), np.float32), 0.9, state, parallel=parallel)
        assert y.shape == (0, 2, 3)
        assert same_bits(final, state)
        y, final = fastrnn.leaky(np.zeros((4, 0, 3), np.float32), 0.9, parallel=parallel)
        assert (y.shape, final.shape) == ((4, 0, 3), (0, 3))


# ---- Silence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_silence_decays_to_exact_zero(dtype: str) -> None:
    """From 1 by halves: down to the threshold exactly, then zero for ever."""
    threshold = THRESHOLD[dtype]
    last = int(-np.log2(threshold))
    y, final = fastrnn.leaky(np.zeros((last + 50, 1), dtype), 0.5, np.ones(1, dtype))
    expected = np.exp2(-np.arange(1.0, last + 51))
    assert np.array_equal(y[:, 0], np.where(expected < threshold, 0.0, expected))
    assert final[0] == 0.0


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_state_is_ever_tiny(dtype: str) -> None:
    """Nets whose weights are zero only forget; each of their states ends in zero, not beside it."""
    threshold = THRESHOLD[dtype]
    for cell in ("lstm", "leaky_rate", "leaky_potential", "leaky"):
        net = Net(cell, 17, 17, dtype=dtype)
        layer = net.build()
        zeros = {k: np.zeros_like(v) for k, v in layer.parameters().items()}
        layer.load_state_dict(zeros | {k: v + 0.5 for k, v in zeros.items() if "alpha" in k})
        stream = layer.stream()
        stream.state = map_state(np.ones_like, net.zero_state(1))
        x, seen = np.zeros(17, dtype), []
        for _ in range(1000 if dtype == "float64" else 200):
            stream.step(x)
            seen.append(np.abs(np.stack(unpack(stream.state))))
        sizes = np.stack(seen)
        assert (sizes[0] > 0.1).all()
        assert ((sizes == 0.0) | (sizes >= threshold)).all(), net
        assert (sizes[-1] == 0.0).all(), net


def test_negative_states_decay_too() -> None:
    y, _ = fastrnn.leaky(np.zeros((200, 5), np.float32), 0.5, -np.ones(5, np.float32))
    assert (y[:100] < 0).all()
    assert (y[101:] == 0).all()


def test_the_callers_floating_point_mode_is_left_alone(rng: np.random.Generator) -> None:
    """NumPy still computes with subnormal numbers after the library ran."""
    tiny = np.full(64, np.finfo(np.float32).smallest_normal, np.float32)
    before = tiny / np.float32(8)
    assert (before > 0).all()
    fastrnn.leaky(values(rng, 100, 5), 0.9)
    fastrnn.LSTM(5, 8)(values(rng, 100, 5))
    assert same_bits(tiny / np.float32(8), before)
