"""Series with several time scales, forecast by reservoirs: Mackey-Glass, NARMA-10 and sunspots.

Mackey-Glass with a delay of 17 and the tenth-order system NARMA-10 are those on which reservoirs
are compared in the literature; where reservoirpy is installed, it runs the same matrices on the
same data. The yearly numbers of sunspots, 1700 to 2008, are forecast one and several years ahead
from every year since 1899, with what was known then, by leaky units whose time constants spread
over a range and by as many that share one alpha. An autoregression of nine years, fitted in the
same way, is the linear forecast that the literature has of them.

Jaeger (2001), Jaeger et al. (2007), Atiya and Parlos (2000) for NARMA-10. Needs NumPy, fastrnn and
statsmodels with pandas for the sunspots; reservoirpy, tqdm and matplotlib if they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from _time_scales import axes, one_thread, parse, progress, save, table

import fastrnn
from fastrnn import Reservoir

Array = np.ndarray
SETTLE = 200  # steps of a reservoir that do not count
AHEAD = (1, 2, 5, 10)  # years
FIRST = 1899  # the first year that is forecast from; refitted every REFIT years
REFIT = 10
UNITS = 100
ALPHAS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
SLOW = (0.99, 0.995)
TAU = (0.1, 10.0)  # years, of the spectrum
SPECTRUM = f"tau {TAU[0]:g} ... {TAU[1]:g}"
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


# ---- The series -------------------------------------------------------------------------------


def mackey_glass(steps: int, rng: np.random.Generator, delay: int = 17) -> Array:
    """[T, 1]: x' = 0.2 x(t - delay) / (1 + x(t - delay)^10) - 0.1 x, once per unit of time.

    Heun's method with steps of 0.1, from a random past; the first 500 units are left out.
    """
    parts = 10
    x = np.empty((500 + steps + delay) * parts + 1)
    x[: delay * parts + 1] = 1.2 + rng.uniform(-0.1, 0.1, delay * parts + 1)
    for n in range(delay * parts, len(x) - 1):
        old = x[n - delay * parts : n - delay * parts + 2]
        gain = 0.2 * old / (1 + old**10)
        first = gain[0] - 0.1 * x[n]
        x[n + 1] = x[n] + 0.05 * (first + gain[1] - 0.1 * (x[n] + 0.1 * first))
    return x[-steps * parts :: parts, None]


def narma10(steps: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """[T, 1] each: inputs, uniform on [0, 0.5], and what the system makes of the last ten."""
    u = rng.uniform(0, 0.5, steps)
    y = np.zeros(steps)
    for t in range(10, steps):
        y[t] = 0.3 * y[t - 1] + 0.05 * y[t - 1] * y[t - 10 : t].sum()
        y[t] += 1.5 * u[t - 10] * u[t - 1] + 0.1
    return u[:, None], y[:, None]


def sunspots() -> tuple[Array, Array]:
    """Years [T], and their numbers of sunspots [T, 1]."""
    from statsmodels.datasets import sunspots as data

    frame = data.load_pandas().data
    return frame["YEAR"].to_numpy(int), frame["SUNACTIVITY"].to_numpy(float)[:, None]


def nrmse(wanted: Array, found: Array) -> float:
    """Root of the mean squared error over the variance of what is wanted."""
    return float(np.sqrt(np.mean(np.square(wanted - found)) / np.var(wanted)))


# ---- Mackey-Glass and NARMA-10 ----------------------------------------------------------------


def peer(net: Reservoir, x: Array, y: Array, rest: Array) -> Array | None:
    """What reservoirpy predicts of the rest with the same matrices; None where it is missing."""
    if find_spec("reservoirpy") is None:
        return None
    from reservoirpy.nodes import Reservoir as Node
    from reservoirpy.nodes import Ridge

    weights = {name: value.astype(float) for name, value in net.layer.parameters().items()}
    node = Node(
        W=weights["weight_hh_l0"],
        Win=weights["weight_ih_l0"],
        bias=weights["bias_ih_l0"],
        lr=1 - weights["alpha_l0"],
    )
    model: Any = node >> Ridge(ridge=net.ridge)
    model.fit(x, y, warmup=SETTLE)
    node.reset()
    return np.asarray(model.run(rest))


def compare(net: Reservoir, x: Array, y: Array, fitted: int) -> list[float]:
    """NRMSE of the steps after so many that are fitted: of the net, and of reservoirpy."""
    net.fit(x[:fitted], y[:fitted], warmup=SETTLE)
    outputs = [net.predict(x[fitted:]), peer(net, x[:fitted], y[:fitted], x[fitted:])]
    wanted = y[fitted + SETTLE :]
    return [nrmse(wanted, found[SETTLE:]) for found in outputs if found is not None]


def free_run(net: Reservoir, series: Array, starts: Array, steps: int = 84) -> float:
    """NRMSE of so many steps ahead, running freely from the given places."""
    before = np.stack([series[start - 3 * SETTLE : start] for start in starts], axis=1)
    last = net.generate(steps, before)[-1]
    return float(np.sqrt(np.mean(np.square(last - series[starts + steps - 1])) / series.var()))


def synthetic(seeds: Sequence[int], units: int, fitted: int) -> dict[str, list[list[float]]]:
    """Errors by task: for each seed that of fastrnn and, if it is there, of reservoirpy."""
    errors: dict[str, list[list[float]]] = {}
    for seed in progress(seeds, "Mackey-Glass and NARMA-10"):
        rng = np.random.default_rng(seed)
        series = np.tanh(mackey_glass(fitted + 2000, rng) - 1)  # into the units' range
        options: Any = {"spectral_radius": 0.95, "bias_scale": 0.2, "seed": seed}
        net = Reservoir(1, units, alpha=0.7, density=0.05, ridge=1e-9, **options)
        found = compare(net, series[:-1], series[1:], fitted)
        errors.setdefault("Mackey-Glass, next", []).append(found)
        starts = np.arange(fitted + 400, fitted + 1900, 50)
        far = free_run(net, series, starts)
        errors.setdefault("Mackey-Glass, 84 ahead", []).append([far])
        u, y = narma10(fitted + 2000, rng)
        net = Reservoir(1, units, input_scale=0.2, ridge=1e-8, **options)
        errors.setdefault("NARMA-10", []).append(compare(net, u, y, fitted))
    return errors


# ---- Sunspots ---------------------------------------------------------------------------------

# What an outlook makes of the series up to a year, fitted to what was known at an earlier one.
Outlook = Callable[[Array, int, int], Array]


def autoregression(series: Array, known: int, ahead: int, order: int = 9) -> Array:
    """[T]: least squares on the last nine years."""
    padded = np.concatenate([np.zeros(order - 1), series[:, 0]])
    rows = np.lib.stride_tricks.sliding_window_view(padded, order)
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    fitted = slice(order, known - ahead + 1)
    weights, *_ = np.linalg.lstsq(rows[fitted], series[order + ahead : known + 1, 0])
    return rows @ weights


def reservoir(alpha: Any, ridge: float, seed: int) -> Outlook:
    """A reservoir of UNITS units of such an alpha, as an outlook."""
    options: Any = {"spectral_radius": 0.5, "bias_scale": 0.5, "dtype": np.float64, "seed": seed}
    net = Reservoir(1, UNITS, alpha=alpha, ridge=ridge, warmup=20, **options)

    def outlook(series: Array, known: int, ahead: int) -> Array:
        net.fit(series[: known - ahead + 1], series[ahead : known + 1])
        return net.predict(series)[:, 0]

    return outlook


def rolling(outlook: Outlook, series: Array, first: int, ahead: int) -> float:
    """Root mean squared error of what is said `ahead` years after each year from the first on.

    What is said from a year is made of the series up to it, by weights fitted to the years up to
    the last one whose place is a multiple of REFIT after the first.
    """
    errors = []
    for known in range(first, len(series) - ahead, REFIT):
        stop = min(known + REFIT, len(series) - ahead)
        said = outlook(series[:stop], known, ahead)[known:stop]
        errors.append(said - series[known + ahead : stop + ahead, 0])
    return float(np.sqrt(np.mean(np.square(np.concatenate(errors)))))


def forecasts(
    seeds: Sequence[int], ahead: Sequence[int], ridges: Sequence[float]
) -> dict[str, Array]:
    """Errors [seeds, years ahead] by model, in sunspots; of the ridges the years before FIRST
    choose one for each model and distance."""
    years, numbers = sunspots()
    series = numbers / 100
    first = int(np.searchsorted(years, FIRST))
    alphas: dict[str, Any] = {f"alpha {a}": a for a in ALPHAS}
    alphas[SPECTRUM] = fastrnn.init.time_constants(UNITS, *TAU)

    def last(series: Array, known: int, ahead: int) -> Array:
        return series[:, 0]

    simple = {"the last value": last, "autoregression of 9 years": autoregression}
    errors = {
        name: np.array([[100 * rolling(each, series, first, k) for k in ahead]])
        for name, each in simple.items()
    }
    for name in progress(list(alphas), "sunspots"):
        columns = []
        for k in ahead:

            def mean(ridge: float, alpha: Any = alphas[name], k: int = k) -> float:
                nets = [reservoir(alpha, ridge, seed) for seed in seeds]
                return float(np.mean([rolling(n, series[:first], first // 2, k) for n in nets]))

            ridge = min(ridges, key=mean)
            nets = [reservoir(alphas[name], ridge, seed) for seed in seeds]
            columns.append([100 * rolling(net, series, first, k) for net in nets])
        errors[name] = np.transpose(columns)
    return errors


# ---- Averages over three scales ---------------------------------------------------------------


def averages(seeds: Sequence[int], steps: int) -> dict[str, Array]:
    """NRMSE [seeds] by model, of a sum of averages of noise over 2, 20 and 200 steps, each of
    variance 1. No single time scale serves it."""
    tau = np.array([2.0, 20.0, 200.0])
    alphas: dict[str, Any] = {f"alpha {a}": a for a in ALPHAS + SLOW}
    alphas["tau 1 ... 400"] = fastrnn.init.time_constants(UNITS, 1, 400)
    errors: dict[str, list[float]] = {name: [] for name in alphas}
    for seed in progress(seeds, "averages"):
        v = np.random.default_rng(seed).uniform(-1, 1, (steps, 1))
        kept, _ = fastrnn.leaky(np.repeat(v, 3, axis=1), np.exp(-1 / tau))
        y = (kept / kept[steps // 2 :].std(axis=0)).sum(axis=1, keepdims=True)
        half = steps // 2
        for name, alpha in alphas.items():
            options: Any = {"spectral_radius": 0.5, "bias_scale": 0.2, "dtype": np.float64}
            net = Reservoir(1, UNITS, alpha=alpha, ridge=1e-6, seed=seed, **options)
            net.fit(v[:half], y[:half], warmup=SETTLE)
            errors[name].append(nrmse(y[half:], net.predict(v)[half:]))
    return {name: np.array(each) for name, each in errors.items()}


# ---- All of them ------------------------------------------------------------------------------


def _spread(values: Any, digits: int) -> str:
    if len(values) == 1:
        return f"{np.mean(values):.{digits}f}"
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Print the tables; return the errors of each part by task or model."""
    args = parse(__doc__.splitlines()[0], ("statsmodels",), argv)
    seeds = range(args.seed, args.seed + (2 if args.quick else 10))
    ahead, ridges = (AHEAD[::2], RIDGES[::3]) if args.quick else (AHEAD, RIDGES)
    with one_thread():
        tasks = synthetic(seeds[:5], 100 if args.quick else 400, 1500 if args.quick else 4000)
        scales = averages(seeds, 4000 if args.quick else 20_000)
        yearly = forecasts(seeds, ahead, ridges)
    print("NRMSE of reservoirs, mean and spread over seeds.\n")
    rows = []
    for name, errors in tasks.items():
        columns = list(zip(*errors, strict=True))
        rows.append([name, *(_spread(each, 5) for each in columns), *[""] * (2 - len(columns))])
    table(["task", "fastrnn", "reservoirpy, the same matrices"], rows)
    print("Averages over three scales: NRMSE.\n")
    table(["units", "error"], [[name, _spread(each, 3)] for name, each in scales.items()])
    print(f"Sunspots, years ahead: root mean squared error since {FIRST}.\n")
    single = [e.mean(axis=0) for name, e in yearly.items() if name.startswith("alpha")]
    shown = yearly | {"mean of the single alphas": np.mean(single, axis=0, keepdims=True)}
    rows = [[name, *(_spread(each, 1) for each in errors.T)] for name, errors in shown.items()]
    table(["model", *map(str, ahead)], rows)
    if args.out is not None:
        _draw(yearly, ahead, args.out)
    return {"tasks": tasks, "averages": scales, "sunspots": yearly}


def _draw(errors: dict[str, Array], ahead: Sequence[int], folder: Path) -> None:
    figure, plot = axes()
    for name, each in errors.items():
        if name == "the last value":  # far above the others
            continue
        wide = 3 if name == SPECTRUM else 1
        mean, spread = each.mean(axis=0), each.std(axis=0)
        plot.errorbar(ahead, mean, spread, label=name, linewidth=wide, marker=".")
    plot.set(ylim=(10, 70), xlabel="years ahead", ylabel="root mean squared error, sunspots")
    save(figure, plot, folder / "sunspots.png")


if __name__ == "__main__":
    main()
