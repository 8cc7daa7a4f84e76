"""Reservoir beside reservoirpy, scikit-learn and the errors that the literature reports."""

from __future__ import annotations

import numpy as np
import pytest
import reservoirpy.nodes
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from support import assert_close
from tasks import mackey_glass, narma10, nrmse

from fastrnn.reservoir import Reservoir


def peer_of(net: Reservoir, ridge: float) -> tuple[reservoirpy.nodes.Reservoir, object]:
    """reservoirpy's node with the same matrices, in float64, and a model of it and a readout."""
    layer = net.layer
    node = reservoirpy.nodes.Reservoir(
        W=layer.weight_hh_l0.astype(float),
        Win=layer.weight_ih_l0.astype(float),
        bias=layer.bias_ih_l0.astype(float),
        lr=1 - layer.alpha_l0.astype(float),
    )
    return node, node >> reservoirpy.nodes.Ridge(ridge=ridge)


# ---- reservoirpy ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_states_stay_beside_those_of_reservoirpy(dtype: type, rng: np.random.Generator) -> None:
    """10000 steps near the edge: errors of float32 do not add up."""
    alpha = rng.uniform(0, 0.9, 300)
    net = Reservoir(2, 300, alpha=alpha, density=0.06, bias_scale=0.1, dtype=dtype, seed=0)
    x = rng.uniform(-1, 1, (10_000, 2)).astype(np.float32)
    states, _ = net.run(x)
    node, _ = peer_of(net, 1e-6)
    difference = np.abs(states - node.run(x.astype(float))).max(1)
    assert difference.max() < (1e-5 if dtype == np.float32 else 1e-13)
    assert difference[9000:].max() < 2 * difference[:1000].max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fit_and_predict_as_reservoirpy(dtype: type, rng: np.random.Generator) -> None:
    net = Reservoir(1, 100, alpha=0.3, bias_scale=0.2, ridge=1e-4, dtype=dtype, seed=0)
    node, model = peer_of(net, 1e-4)
    u, y = narma10(1500, rng)
    net.fit(u[:1000], y[:1000], warmup=100)
    model.fit(u[:1000], y[:1000], warmup=100)
    node.reset()
    found, expected = net.predict(u), model.run(u)
    single = dtype == np.float32
    assert_close(found, expected, 2e-4 if single else 1e-7)
    errors = [nrmse(y[1000:], each[1000:]) for each in (found, expected)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3 if single else 1e-7)


# ---- scikit-learn -----------------------------------------------------------------------------


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 10.0])
@pytest.mark.parametrize("readout_input", [False, True])
def test_ridge_as_in_scikit_learn(
    ridge: float, readout_input: bool, rng: np.random.Generator
) -> None:
    options = {"ridge": ridge, "readout_input": readout_input, "dtype": np.float64}
    net = Reservoir(3, 80, alpha=0.5, bias_scale=1.0, warmup=30, seed=0, **options)
    x = rng.normal(size=(1000, 3))
    y = np.tanh(np.cumsum(x, 0)[:, :2] / 10) + [3.0, -50.0]
    net.fit(x, y)
    states, _ = net.run(x)
    rows = np.hstack([states, x]) if readout_input else states
    peer = Ridge(ridge, solver="svd").fit(rows[30:], y[30:])
    assert_close(net.weight_out, peer.coef_, 1e-6)
    assert_close(net.bias_out, peer.intercept_, 1e-6)
    assert_close(net.predict(x), peer.predict(rows), 1e-8)
    assert net.score(x, y) == pytest.approx(r2_score(y[30:], peer.predict(rows)[30:]), abs=1e-9)


def test_scores_as_in_scikit_learn(rng: np.random.Generator) -> None:
    """Also of outputs that do not vary."""
    net = Reservoir(1, 20, seed=0)
    x = rng.normal(size=(50, 1))
    y = np.hstack([rng.normal(size=(50, 1)), np.full((50, 1), 2.0), np.zeros((50, 1))])
    net.fit(x, y)
    for wanted in (y, y + [0, 0, 1]):
        expected = r2_score(wanted, net.predict(x))
        assert net.score(x, wanted) == pytest.approx(expected, abs=1e-12)


def test_clone_and_grid_search(rng: np.random.Generator) -> None:
    u, y = narma10(600, rng)
    net = Reservoir(1, 50, alpha=np.full(50, 0.1), ridge=1e-4, warmup=20, seed=0)
    net.fit(u, y)
    other = clone(net)
    assert other.readout is None
    assert (other.fit(u, y).weight_out == net.weight_out).all()
    given = Reservoir.from_matrices(net.layer.weight_ih_l0, net.layer.weight_hh_l0, alpha=0.1)
    assert (clone(given).layer.weight_hh_l0 == net.layer.weight_hh_l0).all()
    grid = {"spectral_radius": [0.01, 0.9], "ridge": np.geomspace(1e-6, 1e3, 2)}
    search = GridSearchCV(net, grid, cv=TimeSeriesSplit(3)).fit(u, y)
    assert search.best_params_ == {"spectral_radius": 0.9, "ridge": 1e-6}
    assert search.best_estimator_.predict(u).shape == y.shape
    several = GridSearchCV(net, grid, cv=3).fit(
        [u[i : i + 100] for i in range(0, 600, 100)], [y[i : i + 100] for i in range(0, 600, 100)]
    )
    assert several.best_params_["ridge"] == 1e-6


# ---- The literature ---------------------------------------------------------------------------


def test_narma10(rng: np.random.Generator) -> None:
    """NRMSE of 200 units: 0.2 to 0.4 in Jaeger (2003) and the reviews since."""
    u, y = narma10(6000, rng)
    options = {"input_scale": 0.2, "bias_scale": 0.2, "spectral_radius": 0.95, "ridge": 1e-8}
    net = Reservoir(1, 200, warmup=100, seed=0, **options)
    net.fit(u[:4000], y[:4000])
    found = nrmse(y[4100:], net.predict(u[4000:])[100:])
    node, model = peer_of(net, 1e-8)
    model.fit(u[:4000], y[:4000], warmup=100)
    node.reset()
    expected = nrmse(y[4100:], model.run(u[4000:])[100:])
    assert found < 0.4
    assert found == pytest.approx(expected, rel=0.02)


def test_mackey_glass(rng: np.random.Generator) -> None:
    """tau = 17: the next value, and 84 steps ahead by running freely from 40 places. Jaeger and
    Haas (2004) report an NRMSE of 10^-4.2 for 1000 units; the 400 here reach 10^-2.9."""
    series = np.tanh(mackey_glass(7000, rng) - 1)
    options = {"input_scale": 1.0, "bias_scale": 0.2, "spectral_radius": 0.95, "ridge": 1e-9}
    net = Reservoir(1, 400, alpha=0.7, density=0.05, seed=0, **options)
    net.fit(series[:4000], series[1:4001], warmup=200)
    ahead = net.predict(series[4000:-1])[200:]
    assert nrmse(series[4201:], ahead) < 5e-4
    starts = np.arange(4400, 6800, 60)
    free = net.generate(84, np.stack([series[s - 300 : s] for s in starts], 1))[83]
    error = np.sqrt(np.mean(np.square(free - series[starts + 83])) / series.var())
    assert error < 5e-3
    node, model = peer_of(net, 1e-9)
    model.fit(series[:4000], series[1:4001], warmup=200)
    node.reset()
    expected = model.run(series[4000:-1])[200:]
    assert nrmse(series[4201:], ahead) == pytest.approx(nrmse(series[4201:], expected), rel=0.1)


def test_memory_of_groups(rng: np.random.Generator) -> None:
    """Units that read the same units remember nearly as much as those that do not (Jaeger 2001,
    "Short term memory in echo state networks")."""
    x = rng.uniform(-0.8, 0.8, (6000, 1))
    y = np.hstack([np.roll(x, k, 0) for k in range(1, 101)])
    capacity = {}
    for group in (1, 16):
        options = {"input_scale": 0.1, "spectral_radius": 0.95, "ridge": 1e-8, "group": group}
        net = Reservoir(1, 400, density=0.05, warmup=200, seed=1, **options)
        found = net.fit(x[:4000], y[:4000]).predict(x[4000:])[200:]
        pairs = zip(found.T, y[4200:].T, strict=True)
        capacity[group] = sum(np.corrcoef(a, b)[0, 1] ** 2 for a, b in pairs)
    assert capacity[16] > 0.85 * capacity[1]
    assert capacity[1] > 35
