"""The adding problem: an LSTM learns to use what it saw 200 steps ago, a plain RNN does not.

A sequence holds T random numbers from [0, 1], each with a mark of 0 or 1. Two numbers are marked,
one in each half; the net has to give their sum after the last step. The mean squared error of
always answering 1 is 1/6 = 0.167, and 1/12 if only the second number is known: a net that does
better remembers the first one, 3/4 T steps on average.

Hochreiter and Schmidhuber (1997), experiment 4, in the form that later work uses (numbers from
[0, 1] and the plain sum). Needs NumPy and fastrnn; tqdm and matplotlib if they are there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from _training import Array, Batch, learn, parse, plot

BASELINE = 1 / 6  # variance of the sum of two numbers that are uniform on [0, 1]
TEST_SEQUENCES = 1000


def draw(rng: np.random.Generator, length: int, count: int) -> Batch:
    """Return x [T, B, 2], the numbers and their marks, and the sums of the marked ones [B, 1]."""
    x = np.zeros((length, count, 2), np.float32)
    x[..., 0] = rng.random((length, count))
    rows = np.arange(count)
    first = rng.integers(length // 2, size=count)
    second = rng.integers(length // 2, length, size=count)
    x[first, rows, 1] = x[second, rows, 1] = 1
    return x, (x[first, rows, 0] + x[second, rows, 0])[:, None]


def squared_error(outputs: Array, targets: Array) -> tuple[float, Array]:
    """Return the mean square of the error and its gradient with respect to the outputs."""
    error = outputs - targets
    return float(np.mean(error * error)), 2 / error.size * error


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train each net; print and return its mean squared error on sequences it has not seen."""
    args = parse(
        __doc__.splitlines()[0],
        "T, numbers in a sequence (at least 2)",
        {
            "length": 200,
            "hidden": 64,
            "steps": 2000,
            "batch": 32,
            "rate": 0.005,
            "cells": ("lstm", "rnn"),
        },
        argv,
    )
    if args.length < 2:
        raise SystemExit(f"adding.py: --length: expected at least 2, got {args.length}")
    errors, curves = {}, {}
    rng = np.random.default_rng([args.seed, 1])  # not the stream that training draws from
    x, sums = draw(rng, args.length, TEST_SEQUENCES)
    print(f"adding, {args.length} steps; always answering 1: error {BASELINE:.4f}", flush=True)
    for cell in args.cells:
        reader, curves[cell] = learn(cell, args, (2, 1), args.length, True, draw, squared_error)
        errors[cell], _ = squared_error(reader(x), sums)
        print(f"{cell}: mean squared error {errors[cell]:.5f}", flush=True)
    if args.plot is not None:
        plot(args.plot, curves, BASELINE, f"adding problem, {args.length} steps")
    return errors


if __name__ == "__main__":
    main()
