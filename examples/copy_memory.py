"""The copying-memory task: an LSTM keeps ten symbols over a delay and gives them back in order.

A sequence shows S symbols out of 8, then blanks for the delay, the last of them replaced by a sign
to recall, then S more blanks. The net has to answer blanks, and at the end the S symbols. One that
knows when to answer but remembers nothing recalls 1 symbol in 8, with a cross-entropy of
log 8 = 2.08 per symbol.

Hochreiter and Schmidhuber (1997) posed tasks of this kind; this form is that of Arjovsky, Shah and
Bengio (2016). Needs NumPy and fastrnn; tqdm and matplotlib if they are there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from _training import Array, Batch, learn, parse, plot

SYMBOLS = 8  # numbered from 1; 0 is the blank
RECALL = SYMBOLS + 1
SHOWN = 10  # S
BASELINE = float(np.log(SYMBOLS))  # loss of one that guesses the symbols
TEST_SEQUENCES = 500


def draw(rng: np.random.Generator, delay: int, count: int) -> Batch:
    """Return x [T, B, 10], one-hot, and the answers [T, B] as numbers, with T = delay + 2 S."""
    symbols = rng.integers(1, SYMBOLS + 1, size=(SHOWN, count))
    seen = np.zeros((delay + 2 * SHOWN, count), np.intp)
    answers = seen.copy()
    seen[:SHOWN] = answers[-SHOWN:] = symbols
    seen[-SHOWN - 1] = RECALL
    return np.eye(RECALL + 1, dtype=np.float32)[seen], answers


def cross_entropy(outputs: Array, answers: Array) -> tuple[float, Array]:
    """Return the sum of -log softmax(outputs)[answer] per symbol to recall, and its gradient.

    Per symbol, not per step, so that the loss and the clipping of its gradients mean the same for
    any delay.
    """
    symbols = SHOWN * answers.shape[1]
    shifted = outputs - outputs.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    sums = weights.sum(axis=-1, keepdims=True)
    chosen = np.eye(outputs.shape[-1], dtype=outputs.dtype)[answers]
    value = np.sum(np.log(sums)) - np.sum(shifted * chosen)
    return float(value) / symbols, (weights / sums - chosen) / symbols


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train each net; print its loss and return the part of the symbols that it recalls."""
    args = parse(
        __doc__.splitlines()[0],
        "delay, steps from the last symbol to the sign to recall",
        {
            "length": 100,
            "hidden": 128,
            "steps": 6000,
            "batch": 32,
            "rate": 0.01,
            "cells": ("lstm",),
        },
        argv,
    )
    recalled, curves = {}, {}
    sizes, span = (RECALL + 1, SYMBOLS + 1), args.length + 2 * SHOWN
    rng = np.random.default_rng([args.seed, 1])  # not the stream that training draws from
    x, answers = draw(rng, args.length, TEST_SEQUENCES)
    print(f"{SHOWN} symbols, delay {args.length}; no memory: loss {BASELINE:.3f}", flush=True)
    for cell in args.cells:
        reader, curves[cell] = learn(cell, args, sizes, span, False, draw, cross_entropy)
        outputs = reader(x)
        loss, _ = cross_entropy(outputs, answers)
        right = outputs.argmax(axis=-1)[-SHOWN:] == answers[-SHOWN:]
        recalled[cell] = float(right.mean())
        print(f"{cell}: loss {loss:.5f}, {recalled[cell]:.2%} of the symbols recalled", flush=True)
    if args.plot is not None:
        plot(args.plot, curves, BASELINE, f"copying memory, delay {args.length}")
    return recalled


if __name__ == "__main__":
    main()
