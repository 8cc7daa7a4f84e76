"""``fastrnn bench --mode options``: what each option of the LSTM costs beside the plain one.

All are layers of the same sizes in one process, timed in interleaved rounds: plain, projection,
peephole, ... For each, the time of a call relative to the plain layer's in the same round is
divided by what it had to do, in two ways:

* per valid step: a step of a row that is not padding. All have all of them but `lengths`.
* per multiply-add of those steps' products: a projection to P = H / 2 needs
  4 H (I + P) + P H of them a step instead of 4 H (I + H), coupled gates 3 H (I + H).

1.00 is the price of the plain layer. Before anything is timed, the forward of each is compared with
plain NumPy in float64, and y of a training step with that of the forward, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from .cases import FORWARD, MODES, TRAIN
from .reference import TOLERANCE
from .shapes import Shape
from .worker import WorkerError, time_round

PLAIN = "plain"
LENGTHS, RESET = "lengths", "reset"
VARIANTS = ("projection", "peephole", "coupled", LENGTHS, RESET)

RESET_SHARE = 0.05

Call = Callable[[], Any]


def variants(shape: Shape) -> tuple[str, ...]:
    """Return what is measured at a shape: a batch of one row has no padding."""
    return VARIANTS if shape.batch > 1 else tuple(v for v in VARIANTS if v != LENGTHS)


def projected_size(shape: Shape) -> int:
    """Return P."""
    return max(1, shape.hidden_size // 2)


def layer_options(variant: str, shape: Shape) -> dict[str, Any]:
    """Return the arguments with which the layer is made."""
    known: dict[str, dict[str, Any]] = {
        "projection": {"proj_size": projected_size(shape)},
        "peephole": {"peephole": True},
        "coupled": {"coupled": True},
    }
    return known.get(variant, {})


def call_options(variant: str, shape: Shape) -> dict[str, np.ndarray]:
    """Return the arguments of a call beside x: lengths from 1 to T, or resets."""
    rng = np.random.default_rng(5)
    if variant == LENGTHS:
        return {LENGTHS: rng.integers(1, shape.steps + 1, shape.batch)}
    if variant == RESET:
        return {RESET: rng.random((shape.steps, shape.batch)) < RESET_SHARE}
    return {}


def valid_share(variant: str, shape: Shape) -> float:
    """Return which part of all steps of all rows is no padding."""
    if variant != LENGTHS:
        return 1.0
    lengths = call_options(variant, shape)[LENGTHS]
    return float(lengths.sum()) / (shape.batch * shape.steps)


def multiply_adds(variant: str, shape: Shape) -> int:
    """Return the multiply-adds in the products of one row's step."""
    i, h, _, _ = shape
    if variant == "projection":
        p = projected_size(shape)
        return 4 * h * (i + p) + p * h
    return (3 if variant == "coupled" else 4) * h * (i + h)


@dataclass(frozen=True)
class OptionsResult:
    """A shape: seconds of a call, by mode, variant and round; how far results were off."""

    shape: Shape
    seconds: dict[str, dict[str, list[float]]]
    difference: float

    @property
    def variants(self) -> list[str]:
        """What was measured beside the plain layer."""
        return [variant for variant in self.seconds[FORWARD] if variant != PLAIN]

    def ratio(self, mode: str, variant: str) -> float:
        """Return the time of a call relative to the plain layer's."""
        taken = self.seconds[mode]
        return median(v / p for v, p in zip(taken[variant], taken[PLAIN], strict=True))

    def per_step(self, mode: str, variant: str) -> float:
        """Return the same per valid step."""
        return self.ratio(mode, variant) / valid_share(variant, self.shape)

    def per_multiply_add(self, mode: str, variant: str) -> float:
        """Return the same per multiply-add of the valid steps."""
        work = multiply_adds(variant, self.shape) / multiply_adds(PLAIN, self.shape)
        return self.per_step(mode, variant) / work


def measure_shape(shape: Shape, rounds: int, min_time: float) -> OptionsResult:
    """Measure all variants at a shape.

    WorkerError: what one of them computes is off by more than allowed.
    """
    calls: dict[str, dict[str, Call]] = {mode: {} for mode in MODES}
    layers: dict[str, Any] = {}
    off = 0.0
    for variant in (PLAIN, *variants(shape)):
        made = str(layer_options(variant, shape))
        if made not in layers:  # so that plain, lengths and resets share theirs
            layers[made] = _layer(variant, shape)
        calls[FORWARD][variant], calls[TRAIN][variant], found = _prepare(
            layers[made], variant, shape
        )
        off = max(off, found)
    seconds: dict[str, dict[str, list[float]]] = {
        mode: {variant: [] for variant in calls[mode]} for mode in MODES
    }
    for _ in range(rounds):
        for mode, of_mode in calls.items():
            for variant, call in of_mode.items():
                seconds[mode][variant].append(time_round(call, min_time))
    return OptionsResult(shape, seconds, off)


def _layer(variant: str, shape: Shape) -> Any:
    import fastrnn

    return fastrnn.LSTM(*shape[:2], **layer_options(variant, shape), seed=1)


def _prepare(layer: Any, variant: str, shape: Shape) -> tuple[Call, Call, float]:
    """Return a forward and a training step, and how far the forward is off."""
    i, _, b, t = shape
    given: dict[str, Any] = call_options(variant, shape)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((t, b, i), dtype=np.float32)
    expected = forward(layer.parameters(), x, **given)
    y, dy = (np.empty(expected.shape, np.float32) for _ in range(2))
    rng.standard_normal(out=dy, dtype=np.float32)
    gradients = None

    def run() -> None:
        layer(x, out=y, **given)

    def train() -> None:
        nonlocal gradients
        gradients = None  # written afresh, into memory that the allocator knows
        _, _, tape = layer.forward_train(x, out=y, **given)
        gradients = layer.backward(tape, dy)

    run()
    first = y.copy()
    train()
    off = float(np.abs(first - expected).max() / np.abs(expected).max())
    if not off <= TOLERANCE or not np.array_equal(first, y):
        raise WorkerError(
            f"{variant}: y at {shape} differs from NumPy's by {off:.1e} of its largest value, "
            f"allowed is {TOLERANCE:.0e}, or y of the training step differs from it"
        )
    return run, train, off


def _sigmoid(v: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * v)


def forward(
    parameters: dict[str, np.ndarray],
    x: np.ndarray,
    lengths: np.ndarray | None = None,
    reset: np.ndarray | None = None,
) -> np.ndarray:
    """Return y of an LSTM with whatever options its parameters show, in float64, from zeros."""
    p = {name: array.astype(np.float64) for name, array in parameters.items()}
    w, u, project = p["weight_ih_l0"], p["weight_hh_l0"], p.get("weight_hr_l0")
    units = u.shape[1] if project is None else project.shape[1]
    gates = len(w) // units
    coupled = gates == 3
    see = np.split(p.get("peephole_l0", np.zeros((gates - 1) * units)), gates - 1)
    h, c = np.zeros((x.shape[1], u.shape[1])), np.zeros((x.shape[1], units))
    z = x @ w.T + p["bias_ih_l0"] + p["bias_hh_l0"]
    y = np.zeros((*x.shape[:2], u.shape[1]))
    for t, z_t in enumerate(z):
        if reset is not None:
            h, c = (np.where(reset[t, :, None], 0.0, a) for a in (h, c))
        parts = np.split(z_t + h @ u.T, gates, axis=-1)
        i = _sigmoid(parts[0] + see[0] * c)
        f = 1 - i if coupled else _sigmoid(parts[1] + see[1] * c)
        c = f * c + i * np.tanh(parts[-2])
        h = _sigmoid(parts[-1] + see[-1] * c) * np.tanh(c)
        h = h if project is None else h @ project.T
        y[t] = h if lengths is None else np.where(t < lengths[:, None], h, 0.0)
    return y
