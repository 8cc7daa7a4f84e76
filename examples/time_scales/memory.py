"""How long a leaky unit remembers, by alpha, and what a spectrum of alphas adds.

A unit h_t = a h_{t-1} + (1 - a) v_t answers an impulse v_0 = 1 with h_k = (1 - a) a^k: it forgets
half in -log 2 / log a steps and all but 1/e in its time constant tau = -1 / log a. Of noise of
variance 1 it keeps a variance of (1 - a) / (1 + a), as a mean of (1 + a) / (1 - a) steps does. The
mean answer of units whose tau are spaced in equal ratios from 1 to T is, in between, near
1 / (k log T): it falls as a power of the distance, not exponentially (Mozer 1992). Needs NumPy and
fastrnn; matplotlib if it is there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from _time_scales import axes, parse, save, table

import fastrnn

Array = np.ndarray
ALPHAS = (0.5, 0.9, 0.99, 0.999)
LONGEST = 1000  # tau of the slowest unit of the spectrum, in steps
UNITS = 200
DISTANCES = (1, 3, 10, 30, 100, 300)


def impulse(alpha: Array, steps: int) -> Array:
    """[steps, H]: what units of these alphas keep of an impulse at step 0."""
    v = np.zeros((steps, len(alpha)))
    v[0] = 1
    return fastrnn.leaky(v, alpha)[0]


def falls_to(kept: Array, part: float) -> float:
    """Steps in which a curve [steps] falls to this part of its start, between steps in its log."""
    after = int(np.argmax(kept <= part * kept[0]))
    above, below = np.log(kept[after - 1 : after + 1] / kept[0])
    return float(after - 1 + (above - np.log(part)) / (above - below))


def main(argv: Sequence[str] | None = None) -> dict[str, Array]:
    """Print the tables; return half-lives and averaged steps as measured and as they should be, and
    the mean answer of the spectrum at each of DISTANCES."""
    args = parse(__doc__.splitlines()[0], (), argv)
    alpha = np.array(ALPHAS)
    kept = impulse(alpha, 8000)
    noise = np.random.default_rng(args.seed).standard_normal((10**5 if args.quick else 10**6, 4))
    variance = fastrnn.leaky(noise, alpha)[0][10_000:].var(axis=0)
    result = {
        "half": np.array([falls_to(unit, 0.5) for unit in kept.T]),
        "half, theory": -np.log(2) / np.log(alpha),
        "tau": np.array([falls_to(unit, np.exp(-1)) for unit in kept.T]),
        "tau, theory": -1 / np.log(alpha),
        "averaged": 1 / variance,
        "averaged, theory": (1 + alpha) / (1 - alpha),
    }
    print("A unit alone, in steps: measured, and by the formula in brackets.\n")
    names = ("half", "tau", "averaged")
    table(
        ["alpha", "half-life", "time constant", "steps averaged"],
        [
            [str(a), *(f"{result[n][i]:.4g} ({result[n + ', theory'][i]:.4g})" for n in names)]
            for i, a in enumerate(ALPHAS)
        ],
    )
    spectrum = fastrnn.init.time_constants(UNITS, 1, LONGEST)
    answers = {f"tau 1 ... {LONGEST}": impulse(spectrum, LONGEST).mean(axis=1)}
    answers |= {f"alpha {a}": kept[:LONGEST, i] for i, a in enumerate(ALPHAS)}
    result["spectrum"] = answers[f"tau 1 ... {LONGEST}"][list(DISTANCES)]
    print(
        "What is kept of an impulse after so many steps; of the spectrum the mean of all units.\n"
    )
    rows = [[name, *(f"{each[k]:.1e}" for k in DISTANCES)] for name, each in answers.items()]
    rows.append([f"1 / (k log {LONGEST})", *(f"{1 / k / np.log(LONGEST):.1e}" for k in DISTANCES)])
    table(["units", *map(str, DISTANCES)], rows)
    if args.out is not None:
        figure, plot = axes()
        for name, each in answers.items():
            plot.plot(np.arange(1, LONGEST), each[1:], label=name)
        limits = {"xscale": "log", "yscale": "log", "ylim": (1e-5, 1)}
        plot.set(xlabel="steps since the impulse", ylabel="kept", **limits)
        save(figure, plot, args.out / "memory.png")
    return result


if __name__ == "__main__":
    main()
