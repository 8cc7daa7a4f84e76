"""Which structures learn to bridge which distance: adding and copying, with as many parameters.

The problems are those of examples/adding.py and copy_memory.py (two symbols here): T numbers of
which two are added, and a pause of T steps before the symbols are given back. A net counts as
having solved one when, on sequences that it was not trained on, its mean squared error is below
0.01 (0.167 without memory), or 95 % of the symbols are right (12.5 % without). Each net has the
same structure at every distance, but for one that is told it. A run has one seed; the rates are in
TASKS.

El Hihi and Bengio (1996), Hochreiter and Schmidhuber (1997), Koutnik et al. (2014), Chang et al.
(2017), Tallec and Ollivier (2018). Needs NumPy and fastrnn; tqdm if it is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from _time_scales import one_thread, parse, progress, table

import fastrnn

# after _time_scales, which adds the folder of the examples to the path
import adding  # isort: skip
import copy_memory  # isort: skip
from _training import Reader  # isort: skip

Array = np.ndarray
BUDGET = 5000  # parameters that are trained, without the readout
DISTANCES = (25, 50, 100, 200)
LONGEST = 250  # steps that units with time scales of their own remember at first
DILATIONS = (1, 4, 16, 64)
CLOCKS = (1, 2, 4, 8, 16, 32, 64, 128)
BATCH, TESTED, EVERY = 32, 500, 100
copy_memory.SHOWN = 2  # few, so that all structures can be compared within minutes


class Leaky(fastrnn.LeakyRNN):
    """Leaky units that add up: h_t = a h_{t-1} + f(W x_t + b + (1 - a) U h_{t-1}) at first.

    W and b begin at 1 / (1 - a) times the usual, which undoes the gain 1 - a of f = relu: else
    slow units would hardly notice a single step. The alphas are not trained.
    """

    def __init__(self, inputs: int, hidden: int, seed: int) -> None:
        alpha = fastrnn.init.time_constants(hidden, 1, 2 * LONGEST)
        super().__init__(inputs, hidden, alpha=alpha, nonlinearity="relu", seed=seed)
        weights = self.state_dict()
        gain = (1 / (1 - alpha)).astype(np.float32)
        weights["weight_ih_l0"] *= gain[:, None]
        weights["bias_ih_l0"] *= gain
        weights["bias_hh_l0"][:] = 0
        self.load_state_dict(weights)

    def backward(self, *args: Any, **options: Any) -> fastrnn.Gradients:
        """As of any layer, without alpha's."""
        gradients = super().backward(*args, **options)
        del gradients.params["alpha_l0"]
        return gradients


def orthogonal(layer: Any, seed: int) -> Any:
    """Return the layer with orthogonal recurrent matrices, over the number of its delays: then a
    gradient fades by the slopes of tanh alone, not by U as well."""
    rng, weights = np.random.default_rng(seed), layer.state_dict()
    for name, value in weights.items():
        if name.startswith("weight_hh"):
            several = 1 if isinstance(layer, fastrnn.DilatedRNN) else len(layer.delays)
            value[:] = np.linalg.qr(rng.standard_normal(value.shape))[0] / several
    layer.load_state_dict(weights)
    return layer


def quarter(hidden: int, seed: int) -> Array:
    """[H, H]: a quarter of the blocks of 16 x 1, which the kernels can skip."""
    blocks = np.arange(hidden // 16 * hidden) < hidden // 16 * hidden // 4
    return np.random.default_rng(seed).permutation(blocks).reshape(-1, hidden).repeat(16, axis=0)


# Of inputs, units, the steps from what is to be remembered to where it is asked for, and a seed.
Build = Callable[[int, int, int, int], Any]
NETS: dict[str, Build] = {
    "RNN": lambda i, h, lag, s: orthogonal(fastrnn.RNN(i, h, seed=s), s),
    "RNN, delays 1, 16": lambda i, h, lag, s: orthogonal(
        fastrnn.RNN(i, h, delays=(1, 16), seed=s), s
    ),
    "RNN, delays 1, distance": lambda i, h, lag, s: orthogonal(
        fastrnn.RNN(i, h, delays=(1, lag), seed=s), s
    ),
    "dilated RNN, 1 ... 64": lambda i, h, lag, s: orthogonal(
        fastrnn.DilatedRNN("rnn", i, h, DILATIONS, seed=s), s
    ),
    "dilated LSTM, 1 ... 64": lambda i, h, lag, s: fastrnn.DilatedRNN(
        "lstm", i, h, DILATIONS, seed=s
    ),
    "clockwork RNN, 1 ... 128": lambda i, h, lag, s: fastrnn.RNN(i, h, periods=CLOCKS, seed=s),
    f"LeakyRNN, tau 1 ... {2 * LONGEST}": lambda i, h, lag, s: Leaky(i, h, s),
    "LSTM": lambda i, h, lag, s: fastrnn.LSTM(i, h, seed=s),
    f"LSTM, chrono 2 ... {LONGEST}": lambda i, h, lag, s: fastrnn.LSTM(
        i, h, chrono=(2, LONGEST), seed=s
    ),
    "the same, a quarter of U": lambda i, h, lag, s: fastrnn.LSTM(
        i, h, chrono=(2, LONGEST), recurrent_mask=quarter(h, s), seed=s
    ),
}
GATED = ("LSTM", "quarter", "Leaky")  # in the names of those that bear a higher rate


class Task(NamedTuple):
    """A problem, and how it is learned."""

    module: Any  # draw(rng, distance, count) of batches
    loss: Callable[[Array, Array], tuple[float, Array]]
    sizes: tuple[int, int]  # inputs, outputs
    last: bool  # whether only the last output is read
    lag: Callable[[int], int]
    score: Callable[[Array, Array], float]  # of outputs and targets
    solved: Callable[[float], bool]
    rates: tuple[float, float]  # of those in GATED, and of others
    steps: int


def right(outputs: Array, answers: Array) -> float:
    """The part of the symbols that are right."""
    shown = copy_memory.SHOWN
    return float(np.mean(outputs.argmax(axis=-1)[-shown:] == answers[-shown:]))


TASKS = {
    "adding": Task(
        adding,
        adding.squared_error,
        (2, 1),
        True,
        lambda distance: distance // 2,  # to the first number at least; 3/4 on average
        lambda outputs, sums: adding.squared_error(outputs, sums)[0],
        lambda error: error < 0.01,
        (0.005, 0.005),
        1500,
    ),
    "copying": Task(
        copy_memory,
        copy_memory.cross_entropy,
        (copy_memory.RECALL + 1, copy_memory.SYMBOLS + 1),
        False,
        lambda distance: distance + copy_memory.SHOWN,
        right,
        lambda part: part >= 0.95,
        (0.02, 0.005),
        1500,
    ),
}


def parameters(layer: Any) -> int:
    """How many are trained: connections that there are, and biases."""
    values = {n: v for n, v in layer.parameters().items() if not n.startswith("alpha")}
    return sum(
        int(np.count_nonzero(v)) if n.startswith("weight_hh") else v.size for n, v in values.items()
    )


def sized(name: str, inputs: int, lag: int, seed: int) -> Any:
    """The net with the most units that BUDGET allows."""
    step = 16 if "quarter" in name else 1
    hidden = max(step, len(CLOCKS))
    while parameters(NETS[name](inputs, hidden + step, lag, seed)) <= BUDGET:
        hidden += step
    return NETS[name](inputs, hidden, lag, seed)


class Outcome(NamedTuple):
    """What came of a net: units and parameters, when it solved the task, its last score."""

    units: int
    parameters: int
    solved: int | None
    score: float
    seconds: float

    def __str__(self) -> str:
        return str(self.solved) if self.solved else f"no, {self.score:.3f}"


def learn(task: Task, name: str, distance: int, steps: int, seed: int) -> Outcome:
    """Train until the task is solved, or for so many steps."""
    start = time.process_time()
    layer = sized(name, task.sizes[0], task.lag(distance), seed)
    rate = task.rates[0 if any(word in name for word in GATED) else 1]
    reader = Reader(layer, task.sizes[1], task.last, rate, seed)
    rng = np.random.default_rng(seed)
    x, targets = task.module.draw(np.random.default_rng([seed, 1]), distance, TESTED)
    solved, score = None, 0.0
    for step in range(1, steps + 1):
        reader.adam.rate = rate * min(1, 2 * (1 - step / steps))
        reader.learn(task.module.draw(rng, distance, BATCH), task.loss)
        if step % EVERY == 0 or step == steps:
            score = task.score(reader(x), targets)
            if task.solved(score):
                solved = step
                break
    seconds = time.process_time() - start
    return Outcome(layer.hidden_size, parameters(layer), solved, score, seconds)


def main(argv: Sequence[str] | None = None) -> dict[tuple[str, str, int], Outcome]:
    """Print the tables; return what came of each task, net and distance."""
    args = parse(__doc__.splitlines()[0], (), argv, plots=False)
    distances: Sequence[int] = (16,) if args.quick else DISTANCES
    found: dict[tuple[str, str, int], Outcome] = {}
    cases = [(t, n, d) for t in TASKS for n in NETS for d in distances]
    with one_thread():
        for task, name, distance in progress(cases, "tasks"):
            steps = 500 if args.quick else TASKS[task].steps
            found[task, name, distance] = learn(TASKS[task], name, distance, steps, args.seed)
    for task in TASKS:
        print(f"{task}: steps until solved, or what was reached by then.\n")
        rows = []
        for name in NETS:
            each = [found[task, name, distance] for distance in distances]
            size = [str(each[0].units), str(each[0].parameters)]
            rows.append([name, *size, *map(str, each), f"{sum(e.seconds for e in each):.0f} s"])
        head = ["net", "units", "parameters", *(f"T = {d}" for d in distances), "time"]
        table(head, rows)
    return found


if __name__ == "__main__":
    main()
