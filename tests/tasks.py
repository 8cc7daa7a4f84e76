"""Series on which reservoirs are compared in the literature."""

from __future__ import annotations

import numpy as np


def delayed(x: np.ndarray, count: int) -> np.ndarray:
    """[T, count]: x [T, 1] of 1, 2, ... steps ago; zeros before the first."""
    y = np.zeros((len(x), count), x.dtype)
    for k in range(1, count + 1):
        y[k:, k - 1] = x[:-k, 0]
    return y


def narma10(steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Input [T, 1] and output [T, 1] of the tenth-order system of Atiya and Parlos (2000)."""
    u, y = rng.uniform(0, 0.5, steps), np.zeros(steps)
    for t in range(9, steps - 1):
        past = y[t - 9 : t + 1].sum()
        y[t + 1] = 0.3 * y[t] + 0.05 * y[t] * past + 1.5 * u[t - 9] * u[t] + 0.1
    return u[:, None], y[:, None]


def mackey_glass(steps: int, rng: np.random.Generator, tau: int = 17) -> np.ndarray:
    """[T, 1]: x' = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x, sampled once per unit of time;
    Runge-Kutta of fourth order with steps of 0.1, what is delayed interpolated linearly."""
    parts, settle = 10, 1000
    delay = tau * parts
    x = np.empty((settle + steps) * parts + delay + 1)
    x[: delay + 1] = 1.2 + rng.uniform(-0.1, 0.1, delay + 1)
    dt = 1 / parts
    for n in range(delay, len(x) - 1):
        old, new = x[n - delay], x[n - delay + 1]
        gain = [0.2 * d / (1 + d**10) for d in (old, (old + new) / 2, new)]
        k1 = gain[0] - 0.1 * x[n]
        k2 = gain[1] - 0.1 * (x[n] + dt / 2 * k1)
        k3 = gain[1] - 0.1 * (x[n] + dt / 2 * k2)
        k4 = gain[2] - 0.1 * (x[n] + dt * k3)
        x[n + 1] = x[n] + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x[-steps * parts :: parts, None]


def nrmse(wanted: np.ndarray, found: np.ndarray) -> float:
    """Root of the mean squared error over the variance of what is wanted."""
    return float(np.sqrt(np.mean(np.square(wanted - found)) / np.var(wanted)))
