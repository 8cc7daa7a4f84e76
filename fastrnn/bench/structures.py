"""``fastrnn bench --mode structures``: what delays, clocks, masks and dilations save or cost.

All are layers of fastrnn in one process, each beside the plain layer of its sizes, timed in
interleaved rounds: plain, delay 32, delays 1, 8, plain, ... Ratios are taken inside a round.
Before anything is timed, y is compared with what it must be:

* of a single delay d with that of d plain runs over every d-th step, bit for bit; of a dilated
  stack likewise, layer by layer;
* of a mask with that of the dense layer of the same weights, which are 0 outside, bit for bit;
* of clocks and of several delays with that of a loop in NumPy in float64;
* and y of a training step with that of the forward, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from .cases import FORWARD, MODES, TRAIN
from .numpy_structures import interleaved, loop
from .reference import TOLERANCE
from .shapes import Shape
from .worker import WorkerError, time_round

CELLS = ("rnn", "lstm", "gru")

# The sizes and the structures; a quick look runs fewer steps.
CLOCKWORK = Shape(40, 512, 1, 1000)
DELAYED = Shape(40, 256, 1, 1000)
MASKED = Shape(40, 512, 1, 1000)
STACKED = Shape(40, 256, 1, 1000)
QUICK_STEPS = 128

PERIODS = (1, 2, 4, 8, 16, 32, 64, 128)
DELAY = 32
DELAYS = (1, 8)
DENSITY = 0.1  # of blocks of 16 units by one column
SCATTERED = 0.02  # of single connections
DILATIONS = (1, 2, 4, 8, 16)

Call = Callable[[], Any]


class Asked(NamedTuple):
    """A bound: a speed of at least so many times that of what stands beside, or a time of at most
    so many times its."""

    kind: str
    bound: float

    def __str__(self) -> str:
        return f"{self.kind} {'<=' if self.kind == TIME else '>='} {self.bound:g}"


SPEED, TIME = "speed", "time"


class Candidate(NamedTuple):
    """A layer with a structure, what y must be for x, and whether to the last bit."""

    layer: Any
    expected: Callable[[np.ndarray], np.ndarray]
    exact: bool
    asked: dict[str, Asked]


@dataclass(frozen=True)
class Group:
    """Layers that are timed together with a plain one."""

    shape: Shape
    cell: str
    beside: str
    plain: Any
    candidates: dict[str, Candidate]


@dataclass(frozen=True)
class Comparison:
    """Seconds of a call of something, and of what stands beside it, by round."""

    structure: str
    cell: str
    beside: str
    shape: Shape
    call: str
    seconds: list[float]
    beside_seconds: list[float]
    difference: float  # of the largest value of y; 0 if it must be the same to the last bit
    asked: Asked | None

    @property
    def speed(self) -> float:
        """How many times faster it is: the median of the rounds' ratios."""
        pairs = zip(self.beside_seconds, self.seconds, strict=True)
        return median(beside / ours for beside, ours in pairs)

    @property
    def time(self) -> float:
        """How many times longer it takes."""
        pairs = zip(self.beside_seconds, self.seconds, strict=True)
        return median(ours / beside for beside, ours in pairs)

    @property
    def reached(self) -> bool | None:
        """Whether it is what was asked, if something was."""
        if self.asked is None:
            return None
        if self.asked.kind == TIME:
            return self.time <= self.asked.bound
        return self.speed >= self.asked.bound


# ---- What is compared -------------------------------------------------------------------------


def groups(steps: int | None = None) -> Iterator[Callable[[], Group]]:
    """Yield what makes each group, of that many steps if they are given."""
    for make, shape, cells in (
        (_clocks, CLOCKWORK, ("rnn",)),
        (_delays, DELAYED, CELLS),
        (_mask, MASKED, CELLS),
        (_scattered, MASKED, CELLS),
        (_dilated, STACKED, ("gru",)),
    ):
        for cell in cells:
            yield partial(make, cell, shape if steps is None else shape._replace(steps=steps))


def _layer(cell: str, shape: Shape, *given: int, **options: Any) -> Any:
    import fastrnn

    return getattr(fastrnn, cell.upper())(*shape[:2], *given, seed=1, **options)


def _output(layer: Any, x: np.ndarray) -> np.ndarray:
    y: np.ndarray = layer(x)[0]
    return y


def _clocks(cell: str, shape: Shape) -> Group:
    layer = _layer(cell, shape, periods=PERIODS)
    expected = partial(loop, cell, layer.parameters(), periods=PERIODS)
    asked = {FORWARD: Asked(SPEED, 8), TRAIN: Asked(SPEED, 5)}
    candidate = Candidate(layer, expected, False, asked)
    name = f"{len(PERIODS)} clocks {PERIODS[0]}..{PERIODS[-1]}"
    return Group(shape, cell, "dense", _layer(cell, shape), {name: candidate})


def _delays(cell: str, shape: Shape) -> Group:
    plain = _layer(cell, shape)
    single = _layer(cell, shape, delays=DELAY)
    single.load_state_dict(plain.parameters())
    several = _layer(cell, shape, delays=DELAYS)
    candidates = {
        f"delay {DELAY}": Candidate(
            single,
            partial(interleaved, partial(_output, plain), delay=DELAY),
            True,
            {FORWARD: Asked(SPEED, 3)},
        ),
        "delays " + ", ".join(map(str, DELAYS)): Candidate(
            several,
            partial(loop, cell, several.parameters(), delays=DELAYS),
            False,
            dict.fromkeys(MODES, Asked(TIME, 2.1)),
        ),
    }
    return Group(shape, cell, "delay 1", plain, candidates)


def _mask(cell: str, shape: Shape) -> Group:
    name = f"mask {100 * DENSITY:g} %"
    return _pruned(cell, shape, name, DENSITY, (16, 1), {FORWARD: Asked(SPEED, 5)})


def _scattered(cell: str, shape: Shape) -> Group:
    return _pruned(cell, shape, f"scattered {100 * SCATTERED:g} %", SCATTERED, (1, 1), {})


def _pruned(
    cell: str,
    shape: Shape,
    name: str,
    density: float,
    block: tuple[int, int],
    asked: dict[str, Asked],
) -> Group:
    import fastrnn

    plain = _layer(cell, shape)
    layer = fastrnn.prune(plain, density, block)
    plain.load_state_dict(layer.parameters())  # the dense layer that computes the same
    candidate = Candidate(layer, partial(_output, plain), True, asked)
    return Group(shape, cell, "dense", plain, {name: candidate})


def _dilated(cell: str, shape: Shape) -> Group:
    import fastrnn

    plain = _layer(cell, shape, len(DILATIONS))
    layer = fastrnn.DilatedRNN(cell, *shape[:2], dilations=DILATIONS)
    layer.load_state_dict(plain.parameters())
    candidate = Candidate(layer, partial(_stack, cell, layer), True, {})
    name = f"dilated {DILATIONS[0]}..{DILATIONS[-1]}"
    return Group(shape, cell, f"{len(DILATIONS)} layers", plain, {name: candidate})


def _stack(cell: str, layer: Any, x: np.ndarray) -> np.ndarray:
    """Return y of a dilated stack from plain layers."""
    for number, dilation in enumerate(layer.dilations):
        plain = _layer(cell, Shape(x.shape[-1], layer.hidden_size, *x.shape[1::-1]))
        end = f"_l{number}"
        own = {n: a for n, a in layer.parameters().items() if n.endswith(end)}
        plain.load_state_dict({n.removesuffix(end) + "_l0": a for n, a in own.items()})
        x = interleaved(partial(_output, plain), x, dilation)
    return x


# ---- How it is measured -----------------------------------------------------------------------


def measure_group(group: Group, rounds: int, min_time: float) -> list[Comparison]:
    """Measure all layers of a group.

    WorkerError: what one of them computes is not what it must be.
    """
    calls: dict[str, dict[str, Call]] = {mode: {} for mode in MODES}
    differences = {}
    i, _, b, t = group.shape
    x = np.random.default_rng(2).standard_normal((t, b, i), dtype=np.float32)
    layers = {group.beside: group.plain} | {n: c.layer for n, c in group.candidates.items()}
    for name, layer in layers.items():
        calls[FORWARD][name], calls[TRAIN][name], y = _prepare(layer, x, name)
        if name != group.beside:
            differences[name] = _difference(group, name, y, x)
    seconds: dict[str, dict[str, list[float]]] = {
        mode: {name: [] for name in layers} for mode in MODES
    }
    for _ in range(rounds):
        for mode, of_mode in calls.items():
            for name, call in of_mode.items():
                seconds[mode][name].append(time_round(call, min_time))
    return [
        Comparison(
            name,
            group.cell,
            group.beside,
            group.shape,
            mode,
            seconds[mode][name],
            seconds[mode][group.beside],
            differences[name],
            candidate.asked.get(mode),
        )
        for name, candidate in group.candidates.items()
        for mode in MODES
    ]


def _prepare(layer: Any, x: np.ndarray, name: str) -> tuple[Call, Call, np.ndarray]:
    """Return a forward, a training step, and y of the forward."""
    y = np.empty((*x.shape[:2], layer.hidden_size), np.float32)
    dy = np.random.default_rng(3).standard_normal(y.shape, dtype=np.float32)
    gradients = None

    def run() -> None:
        layer(x, out=y)

    def train() -> None:
        nonlocal gradients
        gradients = None  # written afresh, into memory that the allocator knows
        _, _, tape = layer.forward_train(x, out=y)
        gradients = layer.backward(tape, dy)

    run()
    first = y.copy()
    train()
    if not np.array_equal(first, y):
        raise WorkerError(f"{name}: y of a training step differs from that of the forward")
    return run, train, first


def _difference(group: Group, name: str, y: np.ndarray, x: np.ndarray) -> float:
    """Return how far y is off, relative to the largest value, or raise WorkerError."""
    candidate = group.candidates[name]
    expected = candidate.expected(x)
    off = float(np.abs(y - expected).max() / np.abs(expected).max())
    allowed = 0.0 if candidate.exact else TOLERANCE
    if not off <= allowed:
        raise WorkerError(
            f"{name}: y of {group.cell} at {group.shape} is off by {off:.1e} of its largest "
            f"value, allowed is {allowed:.0e}"
        )
    return off
