"""How the gradient fades with distance in time, by the structure of the recurrent connections.

The gradient of a random function of the last output with respect to the input k steps before it,
relative to that of the last input, in nets that have not been trained. Far back it fades per step
by the largest |z| of the net's step, made linear with the mean slopes F = diag(mean f'):

    delays d:  z^D I - sum_d z^(D-d) F U_d is singular, D being the longest
    leaky:     z is an eigenvalue of a I + (1 - a) F U

so that a single delay d fades per d steps as delay 1 does per step (El Hihi and Bengio 1996, Lin
et al. 1996). Needs NumPy and fastrnn; tqdm and matplotlib if they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from _time_scales import axes, parse, progress, save, table

import fastrnn

Array = np.ndarray
UNITS, INPUTS, ROWS = 64, 8, 16
SETTLE = 1000  # steps until the largest eigenvalue is all that is left
DISTANCES = (8, 16, 32, 64, 128)
CLOCKS = (1, 2, 4, 8, 16, 32, 64)
# In float64: states and gradients below 2^-100 become 0 in float32.
OPTIONS: Any = {"dtype": np.float64}

Build = Callable[[int], Any]  # of a seed
NETS: dict[str, Build] = {
    "delay 1": lambda seed: fastrnn.RNN(INPUTS, UNITS, seed=seed, **OPTIONS),
    "delay 8": lambda seed: fastrnn.RNN(INPUTS, UNITS, delays=8, seed=seed, **OPTIONS),
    "delays 1, 8": lambda seed: fastrnn.RNN(INPUTS, UNITS, delays=(1, 8), seed=seed, **OPTIONS),
    "dilated 1, 2 ... 64": lambda seed: fastrnn.DilatedRNN(
        "rnn", INPUTS, UNITS, CLOCKS, seed=seed, **OPTIONS
    ),
    "leaky, alpha 0.9": lambda seed: fastrnn.LeakyRNN(
        INPUTS, UNITS, alpha=0.9, seed=seed, **OPTIONS
    ),
    "leaky, alpha 0.99": lambda seed: fastrnn.LeakyRNN(
        INPUTS, UNITS, alpha=0.99, seed=seed, **OPTIONS
    ),
    "leaky, tau 1 ... 128": lambda seed: fastrnn.LeakyRNN(
        INPUTS, UNITS, alpha=fastrnn.init.time_constants(UNITS, 1, 128), seed=seed, **OPTIONS
    ),
    "clocks 1, 2 ... 64": lambda seed: fastrnn.RNN(
        INPUTS, UNITS, periods=CLOCKS, seed=seed, **OPTIONS
    ),
    "LSTM": lambda seed: fastrnn.LSTM(INPUTS, UNITS, seed=seed, **OPTIONS),
    "LSTM, chrono 2 ... 128": lambda seed: fastrnn.LSTM(
        INPUTS, UNITS, chrono=(2, 128), seed=seed, **OPTIONS
    ),
}
PREDICTED = ("delay 1", "delay 8", "delays 1, 8", "leaky, alpha 0.9", "leaky, alpha 0.99")


def norms(layer: Any, seed: int) -> Array:
    """Norm of the gradient by x at distance 0, 1 ... from the last step, relative to the first.

    The last step is one at which all clocks tick.
    """
    rng = np.random.default_rng(seed)
    steps = 2 * DISTANCES[-1] + 1
    x = rng.standard_normal((steps, ROWS, INPUTS))
    y, _, tape = layer.forward_train(x)
    dx = layer.backward(tape, rng.standard_normal(y[-1].shape), need_params=False).x
    found = np.sqrt(np.mean(np.square(dx), axis=(1, 2)))[::-1]
    return found[: DISTANCES[-1] + 1] / found[0]


def per_step(layer: Any, seed: int) -> float:
    """Largest |z| of the formulas above, of an RNN or LeakyRNN whose units have one alpha."""
    x = np.random.default_rng(seed).standard_normal((200, ROWS, INPUTS))
    weights = {
        int(name.partition("_d")[2] or layer.delays[0]): value
        for name, value in layer.parameters().items()
        if name.startswith("weight_hh")
    }
    leak = float(layer.parameters().get("alpha_l0", np.zeros(1))[0])
    y, _ = layer(x)
    if leak:  # f of a leaky unit is what it goes to: (h_t - a h_{t-1}) / (1 - a)
        y = (y[1:] - leak * y[:-1]) / (1 - leak)
    slopes = np.mean(1 - y * y, axis=(0, 1))
    past = [np.ones(UNITS)] * max(weights)  # what the linear net makes of anything, newest last
    growth = []
    for _ in range(2 * SETTLE):
        new = leak * past[-1]
        for delay, weight in weights.items():
            new = new + (1 - leak) * slopes * (weight @ past[-delay])
        growth.append(np.linalg.norm(new) / np.linalg.norm(past[-1]))
        past = [old / np.linalg.norm(new) for old in [*past[1:], new]]
    return float(np.exp(np.mean(np.log(growth[SETTLE:]))))


def main(argv: Sequence[str] | None = None) -> dict[str, Array]:
    """Print the table; return the norms at each distance by net."""
    args = parse(__doc__.splitlines()[0], (), argv)
    seeds = range(args.seed, args.seed + (2 if args.quick else 10))
    found: dict[str, Array] = {}
    rows = []
    near, far = DISTANCES[-2:]
    for name in progress(list(NETS), "gradients"):
        nets = [NETS[name](seed) for seed in seeds]
        each = [norms(net, seed) for net, seed in zip(nets, seeds, strict=True)]
        with np.errstate(divide="ignore"):  # between the multiples of a delay there is none
            found[name] = np.exp(np.mean(np.log(each), axis=0))
        factor = (found[name][far] / found[name][near]) ** (1 / (far - near))
        expected = ""
        if name in PREDICTED:
            roots = [per_step(net, seed) for net, seed in zip(nets, seeds, strict=True)]
            expected = f"{np.mean(roots):.3f}"
        shown = [f"{found[name][k]:.1e}" for k in DISTANCES]
        rows.append([name, *shown, f"{factor:.3f}", expected])
    print(f"Norm of the gradient at a distance, that at 0 being 1; {len(seeds)} nets each.\n")
    table(["net", *map(str, DISTANCES), f"per step, {near} to {far}", "eigenvalue"], rows)
    if args.out is not None:
        figure, plot = axes()
        for name, values in found.items():
            # a net with a single delay has gradients at its multiples only
            at = np.flatnonzero(values > 0)
            if name.startswith("clocks"):  # where all clocks tick
                at = np.arange(0, len(values), CLOCKS[-1])
            plot.plot(at, values[at], label=name, marker="." if len(at) < 20 else None)
        plot.set(yscale="log", ylim=(1e-20, 10), xlabel="distance, steps", ylabel="gradient")
        save(figure, plot, args.out / "gradients.png")
    return found


if __name__ == "__main__":
    main()
