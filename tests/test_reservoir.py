"""Reservoir: its matrices, states, forms of series, streams, free runs and parameters."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from support import assert_close, run_python, same_bits
from tasks import delayed

import fastrnn
from fastrnn import init
from fastrnn.reservoir import Reservoir

UNITS = 40


def made(**options: Any) -> Reservoir:
    return Reservoir(2, UNITS, **{"alpha": 0.3, "warmup": 3, "seed": 0} | options)


def series(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Two inputs, and three outputs that depend on them and on the steps before."""
    x = rng.uniform(-1, 1, (*shape, 2)).astype(np.float32)
    y = np.stack([x[..., 0], np.roll(x[..., 1], 1, 0), np.roll(x.prod(-1), 2, 0)], -1)
    return x, y + np.float32(0.5)


# ---- Matrices ---------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [1, 16, None])
@pytest.mark.parametrize(("units", "density"), [(300, 0.1), (100, 0.1), (50, 1.0)])
def test_what_is_drawn(units: int, density: float, group: int | None) -> None:
    net = Reservoir(3, units, density=density, group=group, spectral_radius=0.7, seed=1)
    u = net.layer.weight_hh_l0
    reads = max(1, round(density * units))
    assert ((u != 0).sum(1) == reads).all()
    used = (u != 0).sum(0)
    assert used.max() - used.min() <= (16 if group != 1 else 1)
    assert np.abs(np.linalg.eigvals(u.astype(float))).max() == pytest.approx(0.7, rel=1e-5)
    together = group or (16 if reads >= 16 else 1)
    for start in range(0, units, together):
        rows = u[start : start + together] != 0
        assert (rows == rows[0]).all()
    masked = density < 1  # with so few connections, grouped or not
    if masked:
        assert (net.layer.recurrent_mask[0] == (u != 0)).all()
        dense = Reservoir(3, units, density=density, group=group, spectral_radius=0.7, seed=1)
        dense._layer = fastrnn.LeakyRNN(3, units, alpha=0.0)
        dense.layer.load_state_dict(net.layer.state_dict())
        x = np.random.default_rng(0).normal(size=(30, 3))
        assert same_bits(dense.run(x), net.run(x))
    else:
        assert net.layer.recurrent_mask is None


def test_scales_of_what_is_drawn() -> None:
    options = {"input_scale": [0.5, 2.0], "bias_scale": 3.0, "feedback_scale": 0.25}
    net = Reservoir(2, 400, output_size=1, input_density=0.5, seed=0, **options)
    w, b = net.layer.weight_ih_l0, net.layer.bias_ih_l0
    assert w.shape == (400, 3)
    for values, scale in ((w[:, 0], 0.5), (w[:, 1], 2.0), (w[:, 2], 0.25), (b, 3.0)):
        assert 0.95 * scale < np.abs(values).max() <= scale
        assert abs(values.mean()) < 0.15 * scale
    assert 0.4 < (w[:, :2] != 0).mean() < 0.6
    assert w[:, 2].all()


def test_matrices_are_drawn_apart_and_again() -> None:
    one, two = Reservoir(2, 30, seed=5), Reservoir(2, 30, seed=5, bias_scale=1.0, input_scale=2.0)
    assert same_bits(one.layer.weight_hh_l0, two.layer.weight_hh_l0)
    assert same_bits(2 * one.layer.weight_ih_l0, two.layer.weight_ih_l0)
    assert not same_bits(one.layer.weight_hh_l0, Reservoir(2, 30, seed=6).layer.weight_hh_l0)
    generator = np.random.default_rng(5)
    assert same_bits(one.layer.weight_hh_l0, Reservoir(2, 30, seed=generator).layer.weight_hh_l0)
    unseeded = [Reservoir(2, 30).layer.weight_hh_l0 for _ in range(2)]
    assert not same_bits(*unseeded)


def test_no_recurrence() -> None:
    net = Reservoir(1, 20, spectral_radius=0, seed=0)
    assert not net.layer.weight_hh_l0.any()
    x = np.ones((4, 1), np.float32)
    assert same_bits(net.run(x)[0], np.repeat(net.run(x[:1])[0], 4, 0))


def test_given_matrices(rng: np.random.Generator) -> None:
    w, u, b = rng.normal(size=(20, 2)), rng.normal(size=(20, 20)) / 9, rng.normal(size=20)
    u[rng.random(u.shape) < 0.7] = 0
    u[3] = 0  # this unit reads none
    sparse = scipy.sparse.csr_matrix(u)
    net = Reservoir.from_matrices(w, sparse, b, 0.4, dtype=np.float64, nonlinearity="relu")
    x, h = rng.normal(size=(6, 2)), np.zeros(20)
    states, final = net.run(x)
    for t in range(6):
        h = 0.4 * h + 0.6 * np.maximum(w @ x[t] + u @ h + b, 0)
        assert_close(states[t], h, 1e-14)
    assert same_bits(final, states[-1])
    assert "weights=..." in repr(net)


def test_the_equation_with_feedback(rng: np.random.Generator) -> None:
    """Teacher forcing, its own outputs, and a readout that sees the input."""
    w, u, back = rng.normal(size=(10, 2)), rng.normal(size=(10, 10)) / 5, rng.normal(size=(10, 1))
    out, b = rng.normal(size=(1, 12)) / 9, np.array([0.1])
    options = {"weight_fb": back, "weight_out": out, "bias_out": b, "readout_input": True}
    net = Reservoir.from_matrices(w, u, None, 0.2, dtype=np.float64, **options)
    x, y, h = rng.normal(size=(7, 2)), rng.normal(size=(7, 1)), np.zeros(10)
    forced, state = net.run(x, y=y)
    last = np.zeros(1)
    for t in range(7):
        h = 0.2 * h + 0.8 * np.tanh(w @ x[t] + back @ last + u @ h)
        last = y[t]
        assert_close(forced[t], h, 1e-14)
    assert same_bits(state, (forced[-1], y[-1]))
    found = net.predict(x, state)
    for t in range(7):
        h = 0.2 * h + 0.8 * np.tanh(w @ x[t] + back @ last + u @ h)
        last = out @ np.concatenate([h, x[t]]) + b
        assert_close(found[t], last, 1e-14)
    states, (h_end, y_end) = net.run(x, state)
    assert_close(h_end, h, 1e-14)
    assert same_bits((states[-1], found[-1]), (h_end, y_end))


# ---- States -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["rate", "potential"])
@pytest.mark.parametrize("feedback", [False, True])
def test_run_in_pieces_and_in_batches(form: str, feedback: bool, rng: np.random.Generator) -> None:
    options = {"feedback_scale": 0.1, "output_size": 3} if feedback else {}
    net = made(form=form, **options)
    x, y = series(rng, 20, 4)
    forced = {"y": y} if feedback else {}
    states, state = net.run(x, **forced)
    h = state[0] if feedback else state
    assert states.shape == (20, 4, UNITS)
    assert h.shape == (4, UNITS)
    assert same_bits(h, states[-1]) == (form == "rate")
    one, end = net.run(x[:, 2], **({"y": y[:, 2]} if feedback else {}))
    assert same_bits(one, states[:, 2])
    assert same_bits(end, (h[2], state[1][2]) if feedback else h[2])
    carried, parts = None, []
    for cut in (slice(0, 1), slice(1, 13), slice(13, 13), slice(13, 20)):
        part, carried = net.run(x[cut], carried, **({"y": y[cut]} if feedback else {}))
        parts.append(part)
    assert same_bits(np.concatenate(parts), states)
    assert same_bits(carried, state)


def test_states_are_those_of_the_layer(rng: np.random.Generator) -> None:
    alpha = init.alpha_from_tau(np.geomspace(1, 50, UNITS))
    net = made(alpha=alpha, bias_scale=0.2)
    x, _ = series(rng, 30)
    states, state = net.run(x)
    y, h = net.layer(x)
    assert same_bits((states, state), (y, h[0]))
    assert isinstance(net.layer, fastrnn.LeakyRNN)


# ---- Fitting and predicting -------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with input": {"readout_input": True},
    "potential": {"form": "potential", "nonlinearity": "relu"},
    "float64": {"dtype": np.float64},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("rows", [1, 7, 10**6])
def test_chunks_do_not_matter(
    kind: str, rows: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = series(rng, 60)
    net, other = made(**KINDS[kind]).fit(x, y), made(**KINDS[kind])
    chunks = Reservoir._chunks
    monkeypatch.setattr(
        Reservoir, "_chunks", lambda self, block, _, *state: chunks(self, block, rows, *state)
    )
    other.fit(x, y)
    assert_close(other.weight_out, net.weight_out, 1e-6)
    assert_close(other.bias_out, net.bias_out, 1e-6)
    found = other.predict(x)
    monkeypatch.undo()
    assert same_bits(found, other.predict(x))


@each_kind
def test_forms_of_series_are_one_regression(kind: str, rng: np.random.Generator) -> None:
    """A padded batch, a list, and calls one after the other, against all states at once."""
    x, y = series(rng, 50, 20)
    lengths = rng.integers(0, 51, 20)
    lengths[:3] = 0, 2, 50  # one is empty, one shorter than the warm-up
    listed = [x[:n, b] for b, n in enumerate(lengths)], [y[:n, b] for b, n in enumerate(lengths)]
    x[np.arange(50)[:, None] >= lengths] = np.nan  # what is not looked at
    nets = [made(**KINDS[kind]) for _ in range(4)]
    nets[0].fit(x, y, lengths=lengths)
    nets[1].fit(*listed)
    for pair in zip(*listed, strict=True):
        nets[2].partial_fit(*pair)
    nets[2].solve()
    states = [nets[3].run(part)[0][3:] for part in listed[0]]
    if nets[3].readout_input:
        states = [np.hstack([h, part[3:]]) for h, part in zip(states, listed[0], strict=True)]
    rows = np.concatenate(states).astype(float)
    wanted = np.concatenate([part[3:] for part in listed[1]]).astype(float)
    centred = rows - rows.mean(0)
    gram = centred.T @ centred + 1e-6 * np.eye(rows.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (wanted - wanted.mean(0))).T
    predicted = rows @ weights.T + (wanted.mean(0) - weights @ rows.mean(0))
    for net in nets[:3]:
        assert_close(net.weight_out, weights, 1e-5)
    expected = nets[0].predict(listed[0])
    assert [part.shape for part in expected] == [(n, 3) for n in lengths]
    assert_close(np.concatenate([part[3:] for part in expected]), predicted, 1e-5)
    padded = nets[0].predict(x, lengths=lengths)
    for b, n in enumerate(lengths):
        assert same_bits(padded[:n, b], expected[b])
        assert not padded[n:, b].any()
        assert same_bits(nets[0].predict(listed[0][b]), expected[b])
    scores = [nets[0].score(*listed), nets[0].score(x, y, lengths=lengths)]
    total = np.square(wanted - wanted.mean(0)).sum(0)
    assert scores[0] == pytest.approx(np.mean(1 - np.square(wanted - predicted).sum(0) / total))
    assert scores[1] == pytest.approx(scores[0])


def test_warmup(rng: np.random.Generator) -> None:
    """What is skipped acts on the states, and its targets on nothing."""
    x, y = series(rng, 60)
    net = made(warmup=10).fit(x, y)
    y[:10] = np.nan
    again = made(warmup=0).fit(x, y, warmup=10)
    assert same_bits(again.weight_out, net.weight_out)
    assert again.score(x, y, 10) == net.score(x, y)
    _, state = net.run(x[:10])
    whole, rest = net.predict(x), net.predict(x[10:], state)
    assert same_bits(whole[10:], rest)


def test_feedback_is_forced_to_fit_and_free_to_predict(rng: np.random.Generator) -> None:
    """A sum that only its own past tells."""
    x = rng.uniform(-0.1, 0.1, (400, 1)).astype(np.float32)
    y = np.zeros((400, 1))
    for t in range(1, 400):
        y[t] = 0.95 * y[t - 1] + x[t]
    without = Reservoir(1, 60, warmup=20, seed=0).fit(x, y).score(x, y)
    net = Reservoir(1, 60, feedback_scale=0.5, warmup=20, seed=0).fit(x, y)
    forced, _ = net.run(x, y=y)
    fitted = forced[20:] @ net.weight_out.T + net.bias_out
    assert_close(fitted, y[20:], 1e-3)
    assert net.score(x, y) > max(0.98, without)
    stream = net.stream()
    assert same_bits(np.stack([stream.step(x_t) for x_t in x]), net.predict(x))
    assert same_bits(stream.state[1][0], net.predict(x)[-1])
    # Another number of outputs is another matrix.
    assert net.fit(x, np.hstack([y, y])).layer.input_size == 3


def test_many_outputs(rng: np.random.Generator) -> None:
    x, _ = series(rng, 200)
    y = delayed(x[:, :1], 40)
    net = made().fit(x, y)
    states, _ = net.run(x)
    expected = states @ net.weight_out.T + net.bias_out
    assert_close(net.predict(x), expected, 1e-5)


def test_partial_fit_goes_on_after_fit(rng: np.random.Generator) -> None:
    x, y = series(rng, 80)
    net = made().fit(x[:40], y[:40]).partial_fit(x[40:], y[40:])
    assert same_bits(net.weight_out, made().fit(x[:40], y[:40]).weight_out)  # not solved yet
    both = made().fit([x[:40], x[40:]], [y[:40], y[40:]])
    assert_close(net.solve().weight_out, both.weight_out, 1e-6)
    ridge = net.set_params(ridge=10.0).solve().weight_out
    assert_close(ridge, both.set_params(ridge=10.0).solve().weight_out, 1e-9)
    net.reset()
    assert net.readout is None


def test_states_are_not_kept(rng: np.random.Generator) -> None:
    x, y = series(rng, 40_000)
    net = Reservoir(2, 200, seed=0).fit(x[:99], y[:99])
    tracemalloc.start()
    net.fit(x, y).predict(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.25 * len(x) * 200 * x.itemsize


def test_a_singular_fit_warns(rng: np.random.Generator) -> None:
    x, y = series(rng, 20)
    net = made(ridge=0.0)
    with pytest.warns(RuntimeWarning, match="ridge: with 0 .* 40 features from 17 steps"):
        net.fit(x, y)
    assert_close(net.predict(x)[3:], y[3:], 1e-4)


def test_nan(rng: np.random.Generator) -> None:
    """In a prediction it stays in its series and in later steps; also in a stream."""
    x, y = series(rng, 300, 3)
    net = made().fit(x[:200], y[:200])
    clean = net.predict(x)
    x[150, 1] = np.nan
    found = net.predict(x)
    assert np.isnan(found[150:, 1]).all()
    found[150:, 1] = clean[150:, 1]
    assert same_bits(found, clean)
    stream = net.stream()
    stream.step(x[150, 1])
    stream.reset()
    assert same_bits(stream.step(x[0, 0]), clean[0, 0])


@pytest.mark.parametrize("feedback", [0.0, 0.1])
def test_no_steps(feedback: float, rng: np.random.Generator) -> None:
    x, y = series(rng, 30)
    net = made(feedback_scale=feedback).fit(x, y)
    assert net.predict(x[:0]).shape == (0, 3)
    assert net.predict(np.zeros((0, 5, 2))).shape == (0, 5, 3)
    states, state = net.run(x[:0])
    assert states.shape == (0, UNITS)
    assert not np.concatenate(state if feedback else [state]).any()
    if feedback:
        assert same_bits(net.run(x[:0], y=y[:0])[1], state)
    _, state = net.run(x)
    assert same_bits(net.run(x[:0], state)[1], state)
    assert [part.shape for part in net.predict([x[:0], x])] == [(0, 3), (30, 3)]


# ---- Streams and free runs --------------------------------------------------------------------


@each_kind
def test_streams(kind: str, rng: np.random.Generator) -> None:
    x, y = series(rng, 30, 4)
    net = made(**KINDS[kind]).fit(x, y)
    whole, stream = net.predict(x), net.stream(4)
    assert same_bits(np.stack([stream.step(x_t) for x_t in x]), whole)
    state = stream.state
    assert same_bits(state, net.run(x)[1])
    stream.reset()
    out = np.empty((4, 3), whole.dtype)
    assert stream.step(x[0].astype(float), out) is out  # rounded, as in predict
    assert same_bits(out, whole[0])
    stream.state = state
    assert same_bits(stream.step(x[0]), net.predict(x[:1], state)[0])
    net.set_params(ridge=5.0).solve()
    stream.state = None
    assert same_bits(stream.step(x[0]), whole[0])  # the readout of its beginning


@pytest.mark.parametrize("feedback", [0.0, 0.1])
@pytest.mark.parametrize("readout_input", [False, True])
def test_generate(feedback: float, readout_input: bool, rng: np.random.Generator) -> None:
    """Each output is the next input, from a series or from the state after it."""
    x = np.sin(np.arange(200)[:, None, None] / 4 + rng.uniform(0, 6, (3, 2))).astype(np.float32)
    net = made(feedback_scale=feedback, readout_input=readout_input, warmup=20)
    net.fit(x[:-1], x[1:])
    free = net.generate(25, x)
    assert free.shape == (25, 3, 2)
    assert same_bits(net.generate(25, x[:, 1]), free[:, 1])
    assert same_bits(net.predict(x)[-1], free[0])
    fed = np.concatenate([x, free[:-1]])
    assert same_bits(net.predict(fed)[len(x) - 1 :], free)
    _, state = net.run(x[:50])
    assert same_bits(net.generate(9, x[50:], state), free[:9])
    if not readout_input:
        _, state = net.run(x)
        assert same_bits(net.generate(25, state=state), free)
        assert same_bits(net.generate(25, x[:0], state), free)
    assert net.generate(0, x).shape == (0, 3, 2)


# ---- Parameters and copies --------------------------------------------------------------------


def test_parameters() -> None:
    net = made(alpha=np.full(UNITS, 0.5))
    params = net.get_params()
    other = Reservoir(**params)
    assert all(value is params[name] for name, value in other.get_params().items())
    assert same_bits(other.layer.weight_hh_l0, net.layer.weight_hh_l0)
    layer = net.layer
    assert net.set_params(ridge=1.0, warmup=2, readout_input=True) is net
    assert net.layer is layer
    net.spectral_radius = 0.5
    assert_close(net.layer.weight_hh_l0, layer.weight_hh_l0 * np.float32(0.5 / 0.9), 1e-6)
    assert repr(Reservoir(3, 50)) == "Reservoir(3, 50)"
    other = Reservoir(2, 40, alpha=params["alpha"], density=0.5, dtype=np.float64, seed=0)
    assert repr(other) == "Reservoir(2, 40, alpha=..., density=0.5, dtype=float64, seed=0)"


def test_changes_forget_the_readout(rng: np.random.Generator) -> None:
    x, y = series(rng, 40)
    net = made().fit(x, y)
    for change in ({"ridge": 2.0}, {"warmup": 4}, {"alpha": net.alpha}):
        assert net.set_params(**change).readout is not None
    for change in ({"alpha": 0.5}, {"readout_input": True}, {"seed": 3}):
        assert net.fit(x, y).set_params(**change).readout is None
        with pytest.raises(RuntimeError, match="predict: no readout yet"):
            net.predict(x)


def test_copies(rng: np.random.Generator) -> None:
    x, y = series(rng, 40)
    net = made(feedback_scale=0.1).fit(x, y)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert same_bits(other.predict(x), net.predict(x))
        other.partial_fit(x, y).solve()
        assert other.set_params(alpha=0.1).readout is None
    assert net.alpha == 0.3
    assert net.readout is not None


def test_the_parts_are_layers(rng: np.random.Generator, tmp_path: Any) -> None:
    """Saved one by one they compute what the Reservoir does."""
    x, y = series(rng, 40)
    net = made().fit(x, y)
    for name, part in (("units", net.layer), ("readout", net.readout)):
        part.save(tmp_path / f"{name}.safetensors")
    units, readout = (fastrnn.load(tmp_path / f"{n}.safetensors") for n in ("units", "readout"))
    states, _ = units(x)
    found = readout(states[None].astype(float))[0][0]
    assert same_bits(found.astype(np.float32), net.predict(x))


BITS = """
import hashlib, numpy as np
from fastrnn.reservoir import Reservoir
rng = np.random.default_rng(0)
u = rng.normal(size=(70, 70)) * (rng.random((70, 70)) < 0.2) / 5
net = Reservoir.from_matrices(rng.normal(size=(70, 2)), u, None, 0.5, weight_out=rng.normal(
    size=(20, 70)))
print(hashlib.sha256(net.predict(rng.normal(size=(50, 3, 2))).tobytes()).hexdigest())
"""


def test_predictions_have_the_same_bits_everywhere() -> None:
    isas = fastrnn.available_isas()
    found = {run_python("-c", BITS, isa=isa).stdout for isa in isas}
    assert len(found) == 1
    assert len(found.pop()) == 65
