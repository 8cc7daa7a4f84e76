"""The gated leak beside copies: it is bound by memory, so a copy of as many bytes is its limit.

`gated_leaky` reads alpha and v and writes y; its backward reads alpha, v, y and dy and writes
dalpha and dv. `MinGRU` with as many inputs as units is that on top of a product: a forward must
read x and write y; a training step does that, then reads x, y and dy and writes dx. All are timed
in one process, in interleaved rounds: a copy, then what it is the limit of, then the next copy...
Forwards write to arrays that are there, gradients are new arrays in each call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from .reference import TOLERANCE
from .report import aligned, microseconds
from .shapes import Shape
from .worker import WorkerError, time_round

SHAPE = Shape(256, 256, 32, 2000)

LEAK, LEAK_BACK, MINGRU, MINGRU_TRAIN = (
    "gated_leaky forward",
    "gated_leaky backward",
    "MinGRU forward",
    "MinGRU forward + backward",
)
# How many arrays [T, B, H] each must read or write.
ARRAYS = {LEAK: 3, LEAK_BACK: 6, MINGRU: 2, MINGRU_TRAIN: 6}

Call = Callable[[], Any]


def arrays(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return alpha and v, [T, B, H] each."""
    rng = np.random.default_rng(0)
    size = (shape.steps, shape.batch, shape.hidden_size)
    return rng.random(size, np.float32), rng.standard_normal(size, np.float32)


def loop(alpha: np.ndarray, v: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write the equation to out, step by step."""
    y = np.zeros_like(v[0])
    for a, x, into in zip(alpha, v, out, strict=True):
        y = np.add(a * y, (1 - a) * x, out=into)
    return out


def loop_backward(
    alpha: np.ndarray, v: np.ndarray, y: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dalpha, dv and the gradient of the state before the first step, which is zeros."""
    dalpha, dv, g = np.empty_like(v), np.empty_like(v), np.zeros_like(v[0])
    for t in reversed(range(len(v))):
        g = g + dy[t]
        dalpha[t] = g * ((y[t - 1] if t else 0) - v[t])
        dv[t] = (1 - alpha[t]) * g
        g = alpha[t] * g
    return dalpha, dv, g


def copies(count: int, shape: Shape) -> Call:
    """Return a copy that moves as many bytes as lie in that many arrays [T, B, H]."""
    source = np.ones(count * shape.steps * shape.batch * shape.hidden_size // 2, np.float32)
    return partial(np.copyto, np.zeros_like(source), source)


@dataclass(frozen=True)
class GatedResult:
    """Seconds of a call and of the copy, by name and round; how far results were off."""

    shape: Shape
    seconds: dict[str, list[float]]
    copy_seconds: dict[str, list[float]]
    difference: float

    def of_copy(self, name: str) -> float:
        """Return the speed relative to the copy's: the median of the rounds' ratios."""
        pairs = zip(self.copy_seconds[name], self.seconds[name], strict=True)
        return median(copy / ours for copy, ours in pairs)


def measure_gated(rounds: int, min_time: float, shape: Shape = SHAPE) -> GatedResult:
    """Measure the gated leak and MinGRU.

    WorkerError: what one of them computes is off by more than allowed.
    """
    calls, difference = _calls(shape)
    for name, off in difference.items():
        if not off <= TOLERANCE:
            raise WorkerError(
                f"{name}: a result at {shape} differs from NumPy's by {off:.1e} of its largest "
                f"value, allowed is {TOLERANCE:.0e}"
            )
    of_count = {count: copies(count, shape) for count in set(ARRAYS.values())}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    copy_seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            copy_seconds[name].append(time_round(of_count[ARRAYS[name]], min_time))
            seconds[name].append(time_round(call, min_time))
    return GatedResult(shape, seconds, copy_seconds, max(difference.values()))


# What is compared with NumPy: these rows and units, or rows of a layer.
_ROWS = slice(3)
_FEW = slice(None), _ROWS, slice(9)


def _calls(shape: Shape) -> tuple[dict[str, Call], dict[str, float]]:
    """Return the call of each name, and how far what it computes is off."""
    import fastrnn

    alpha, v = arrays(shape)
    dy = v[::-1].copy()
    y, out = np.zeros_like(v), np.zeros_like(v)
    layer = fastrnn.MinGRU(*shape[:2], seed=1)
    gradients: Any = None

    def train() -> None:
        nonlocal gradients
        gradients = None  # written afresh, into memory that the allocator knows
        _, _, tape = layer.forward_train(v, out=out)
        gradients = layer.backward(tape, dy)

    fastrnn.gated_leaky(alpha, v, out=y)
    back = fastrnn.gated_leaky_backward(alpha, v, y, dy)
    layer(v, out=out)
    mingru = out[:, _ROWS].copy()
    train()

    a, u, du = (array[_FEW].astype(np.float64) for array in (alpha, v, dy))
    expected = loop(a, u, np.empty_like(u))
    expected_back = loop_backward(a, u, expected, du)
    found_back = back[0][_FEW], back[1][_FEW], back[2][_FEW[1:]]
    rows = v[:, _ROWS], dy[:, _ROWS]
    expected_mingru, expected_dx = _mingru(layer.parameters(), *rows)
    difference = {
        LEAK: _off(y[_FEW], expected),
        LEAK_BACK: max(map(_off, found_back, expected_back)),
        MINGRU: _off(mingru, expected_mingru),
        MINGRU_TRAIN: max(
            _off(out[:, _ROWS], expected_mingru), _off(gradients.x[:, _ROWS], expected_dx)
        ),
    }
    calls: dict[str, Call] = {
        LEAK: partial(fastrnn.gated_leaky, alpha, v, out=y),
        LEAK_BACK: partial(fastrnn.gated_leaky_backward, alpha, v, y, dy),
        MINGRU: partial(layer, v, out=out),
        MINGRU_TRAIN: train,
    }
    return calls, difference


def _mingru(
    parameters: dict[str, np.ndarray], x: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return y and the gradient of x of a MinGRU, in float64."""
    w, b = (parameters[name].astype(np.float64) for name in ("weight_ih_l0", "bias_ih_l0"))
    z, n = np.split(x @ w.T + b, 2, axis=-1)
    z = 0.5 + 0.5 * np.tanh(0.5 * z)
    y = loop(1 - z, n, np.empty_like(n))
    dalpha, dn, _ = loop_backward(1 - z, n, y, dy)
    return y, np.concatenate([-dalpha * z * (1 - z), dn], axis=-1) @ w


def _off(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference relative to the largest value expected."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# ---- Text and file --------------------------------------------------------------------------


def table(result: GatedResult) -> list[str]:
    """Return lines: the heads, then a row for each."""
    rows = [["T,B,H " + _sizes(result.shape), "us", "copy us", "arrays copied", "speed of copy"]]
    for name, seconds in result.seconds.items():
        copy = median(result.copy_seconds[name])
        rows.append(
            [
                name,
                microseconds(median(seconds)),
                microseconds(copy),
                str(ARRAYS[name]),
                f"{result.of_copy(name):.2f}",
            ]
        )
    return [
        *aligned(rows),
        "",
        f"results agree with NumPy's within {result.difference:.1e} of the largest value of each "
        "array",
    ]


def record(result: GatedResult) -> dict[str, Any]:
    """Return everything that was measured for a JSON file."""
    return {
        "shape": list(result.shape),
        "seconds": result.seconds,
        "copy_seconds": result.copy_seconds,
        "of_copy": {name: result.of_copy(name) for name in result.seconds},
        "difference": result.difference,
    }


def _sizes(shape: Shape) -> str:
    return f"{shape.steps},{shape.batch},{shape.hidden_size}"
