"""What the learning examples share: a net with a readout, Adam, clipping, progress, a plot."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import fastrnn

Array = np.ndarray
Batch = tuple[Array, Array]  # x [T, B, I] and the targets
Draw = Callable[[np.random.Generator, int, int], Batch]  # rng, length, how many sequences
Loss = Callable[[Array, Array], tuple[float, Array]]  # outputs, targets -> value, its gradient
# Joint norm of the gradients of one step, at most. So small that many a step is clipped: Adam, used
# to short gradients, answers a rare long one with a leap that can undo all that was learned.
CLIP = 0.1
WINDOW = 50  # steps that progress and plot average over


class Adam:
    """Adam (Kingma and Ba 2015): steps along the mean gradient over its root mean square."""

    def __init__(self, parameters: dict[str, Array], rate: float) -> None:
        self.parameters, self.rate, self.count = parameters, rate, 0
        self.mean = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.square = {name: np.zeros_like(value) for name, value in parameters.items()}

    def step(self, gradients: Mapping[str, Array]) -> None:
        """Change the parameters in place."""
        self.count += 1
        rate, spread = self.rate / (1 - 0.9**self.count), 1 / (1 - 0.999**self.count)
        for name, gradient in gradients.items():
            mean, square = self.mean[name], self.square[name]
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            self.parameters[name] -= rate * mean / (np.sqrt(spread * square) + 1e-8)


def clip(gradients: Mapping[str, Array], limit: float) -> dict[str, Array]:
    """Return the gradients, scaled together if need be to a joint norm of at most the limit."""
    norm = sum(float(np.vdot(gradient, gradient)) for gradient in gradients.values()) ** 0.5
    scale = limit / max(norm, limit)
    return {name: scale * gradient for name, gradient in gradients.items()}


def remembering_lstm(input_size: int, hidden_size: int, span: int, seed: int) -> fastrnn.LSTM:
    """Return an LSTM whose units remember for times drawn between 1 and `span` steps at first.

    A unit forgets in some 1 / (1 - sigmoid(b)) = 1 + exp(b) steps, b being its forget gate's bias;
    so b = log u with u uniform on [1, span], and -b for the input gate, so that little is
    overwritten (Tallec and Ollivier 2018). Without it learning has to find long memory by chance.
    """
    lstm = fastrnn.LSTM(input_size, hidden_size, seed=seed)
    forget = np.log(np.random.default_rng(seed).uniform(1, span, hidden_size))
    bias = lstm.bias_ih_l0.copy()  # gates i, f, g, o
    bias[: 2 * hidden_size] = np.concatenate([-forget, forget])
    lstm.bias_ih_l0 = bias
    return lstm


class Reader:
    """A recurrent layer, a linear readout of its outputs, and the Adam that trains both.

    Args:
        layer: any layer of float32, with y [T, B, H].
        outputs: K, size of the readout.
        last: whether only the last output is read, y[T-1], instead of all T.
        rate: Adam's.
        seed: for the readout's initial weights.
    """

    def __init__(
        self, layer: fastrnn.LSTM | fastrnn.RNN, outputs: int, last: bool, rate: float, seed: int
    ) -> None:
        rng, hidden = np.random.default_rng(seed), layer.hidden_size
        self.layer, self.last = layer, last
        self.recurrent = layer.state_dict()
        self.readout = {
            "weight": fastrnn.init.uniform(rng, (outputs, hidden), hidden, np.float32),
            "bias": np.zeros(outputs, np.float32),
        }
        self.adam = Adam(self.recurrent | self.readout, rate)

    def read(self, y: Array) -> Array:
        """Return the readout [..., K] of y [..., H]."""
        return y @ self.readout["weight"].T + self.readout["bias"]

    def __call__(self, x: Array) -> Array:
        """Return the outputs for x [T, B, I]: [B, K] if only the last is read, else [T, B, K]."""
        y, _ = self.layer(x)
        return self.read(y[-1] if self.last else y)

    def learn(self, batch: Batch, loss: Loss) -> float:
        """Take one step down the gradient of the loss on a batch; return the loss before it."""
        x, targets = batch
        y, _, tape = self.layer.forward_train(x)
        if self.last:
            y = y[-1]
        value, d_outputs = loss(self.read(y), targets)
        dy = d_outputs @ self.readout["weight"]  # [T, B, H], or [B, H] for the last step alone
        gradients = dict(self.layer.backward(tape, dy, need_x=False).params)
        d_rows = d_outputs.reshape(-1, d_outputs.shape[-1])
        gradients["weight"] = d_rows.T @ y.reshape(len(d_rows), -1)
        gradients["bias"] = d_rows.sum(axis=0)
        self.adam.step(clip(gradients, CLIP))
        self.layer.load_state_dict(self.recurrent)
        return value


def learn(
    cell: str,
    args: argparse.Namespace,
    sizes: tuple[int, int],
    span: int,
    last: bool,
    draw: Draw,
    loss: Loss,
) -> tuple[Reader, list[float]]:
    """Train a net on batches that are all new; return it and the loss of each step.

    Adam's rate falls to 0 in the second half, in a straight line.

    Args:
        cell: "lstm" or "rnn".
        args: what `parse` returned.
        sizes: I and K.
        span: how long the LSTM remembers at first, see `remembering_lstm`.
        last: whether only the last output is read.
        draw: returns a batch of so many sequences.
        loss: returns the loss of outputs and targets, and its gradient by the outputs.
    """
    inputs, outputs = sizes
    layer: fastrnn.LSTM | fastrnn.RNN
    if cell == "lstm":
        layer = remembering_lstm(inputs, args.hidden, span, args.seed)
    else:
        layer = fastrnn.RNN(inputs, args.hidden, seed=args.seed)
    reader = Reader(layer, outputs, last, args.rate, args.seed)
    rng = np.random.default_rng(args.seed)
    losses: list[float] = []
    bar = None
    if sys.stderr.isatty() and find_spec("tqdm") is not None:
        from tqdm import tqdm

        bar = tqdm(total=args.steps, desc=cell, unit="step")
    start = time.perf_counter()
    for step in range(1, args.steps + 1):
        reader.adam.rate = args.rate * min(1, 2 * (1 - step / args.steps))
        losses.append(reader.learn(draw(rng, args.length, args.batch), loss))
        recent = np.mean(losses[-WINDOW:])
        if bar is not None:
            bar.set_postfix(loss=f"{recent:.5f}", refresh=False)
            bar.update()
        elif step * 10 // args.steps > (step - 1) * 10 // args.steps:
            print(f"{cell}: step {step} of {args.steps}, loss {recent:.5f}", file=sys.stderr)
    if bar is not None:
        bar.close()
    print(f"{cell}: {args.steps} steps in {time.perf_counter() - start:.0f} s", flush=True)
    return reader, losses


def plot(path: Path, curves: Mapping[str, Sequence[float]], baseline: float, title: str) -> None:
    """Draw the loss over the steps, each point a mean of some steps, and the baseline."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for label, losses in curves.items():
        width = min(WINDOW, len(losses))
        means = np.convolve(losses, np.full(width, 1 / width), mode="valid")
        axes.plot(np.arange(width, len(losses) + 1), means, label=label)
    axes.axhline(baseline, color="black", linestyle=":", label="baseline")
    axes.set(yscale="log", xlabel="step", ylabel="loss", title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse(
    description: str, length: str, defaults: Mapping[str, float], argv: Sequence[str] | None
) -> argparse.Namespace:
    """Return the options that the examples have in common; `length` says what theirs is."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--length", type=_positive, help=length)
    parser.add_argument("--hidden", type=_positive, help="units of the net")
    parser.add_argument("--steps", type=_positive, help="training steps")
    parser.add_argument("--batch", type=_positive, help="sequences in a training step")
    parser.add_argument("--rate", type=float, help="learning rate of Adam at first")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--cells", nargs="+", choices=("lstm", "rnn"), help="nets to train")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the loss (matplotlib)")
    parser.set_defaults(**defaults)
    args = parser.parse_args(argv)
    if args.plot is not None:  # before the work, not after it
        if find_spec("matplotlib") is None:
            parser.error("--plot needs matplotlib")
        if not args.plot.absolute().parent.is_dir():
            parser.error(f"--plot: no directory {args.plot.parent}")
    return args
