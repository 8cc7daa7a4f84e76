"""The experiments on time scales: their quick versions show what docs/time_scales.md says."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import run_python
from tasks import nrmse

import fastrnn

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "time_scales"
SHARED = ("_time_scales", "_training", "adding", "copy_memory")  # imported by their plain names

Load = Callable[[str], ModuleType]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a script as it would start; under a name of its own, as tests have a tasks.py too."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"time_scales_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in SHARED:
        sys.modules.pop(name, None)


# ---- What they show ---------------------------------------------------------------------------


def test_gradients_fade_per_delay(script: Load) -> None:
    """Delay 8 keeps after 64 steps what delay 1 keeps after 8; leaks, clocks and gates more."""
    found = script("gradients").main(["--quick"])
    one, eight = found["delay 1"], found["delay 8"]
    np.testing.assert_allclose(np.log(eight[64]), np.log(one[8]), rtol=0.2)
    assert eight[64] > 1e8 * one[64]
    assert not eight[1:8].any()  # the net is eight that never meet
    assert found["delays 1, 8"][1:9].all()
    assert found["delays 1, 8"][64] > 1e8 * one[64]
    for name in ("leaky, alpha 0.99", "clocks 1, 2 ... 64", "dilated 1, 2 ... 64"):
        assert found[name][64] > 0.05, name
    assert found["LSTM, chrono 2 ... 128"][64] > 1e8 * found["LSTM"][64]


def test_gradients_fade_by_the_largest_eigenvalue(script: Load) -> None:
    gradients = script("gradients")
    for name in gradients.PREDICTED:
        net = gradients.NETS[name](3)
        found = gradients.norms(net, 3)
        measured = (found[128] / found[64]) ** (1 / 64)
        assert gradients.per_step(net, 3) == pytest.approx(measured, rel=0.08), name


def test_largest_eigenvalue(script: Load, rng: np.random.Generator) -> None:
    """Without input the slopes are 1, and the companion matrix can be written down."""
    gradients = script("gradients")
    gradients.INPUTS = 1
    units = gradients.UNITS
    net = fastrnn.RNN(1, units, delays=(2, 3), bias=False, dtype=np.float64, seed=0)
    net.weight_ih_l0 = np.zeros((units, 1))
    companion = np.eye(3 * units, k=-units)
    companion[:units, units : 2 * units] = net.weight_hh_l0
    companion[:units, 2 * units :] = net.weight_hh_l0_d3
    expected = np.abs(np.linalg.eigvals(companion)).max()
    assert gradients.per_step(net, 0) == pytest.approx(expected, rel=0.01)


def test_units_remember_as_their_alpha_says(script: Load) -> None:
    found = script("memory").main(["--quick"])
    np.testing.assert_allclose(found["half"], found["half, theory"], rtol=1e-9)
    np.testing.assert_allclose(found["tau"], found["tau, theory"], rtol=1e-9)
    np.testing.assert_allclose(found["averaged"], found["averaged, theory"], rtol=0.15)
    # the mean of a spectrum falls as a power of the distance, about the first
    kept = found["spectrum"]  # at 1, 3, 10, 30, 100, 300
    assert kept[2] / kept[4] == pytest.approx(10, rel=0.15)


def test_structures_bridge_what_a_plain_rnn_does_not(script: Load) -> None:
    tasks = script("tasks")
    found = tasks.main(["--quick"])
    distance = 16
    assert not found["adding", "RNN", distance].solved
    solved = {name for name in tasks.NETS if found["adding", name, distance].solved}
    assert {
        n for n in tasks.NETS if "LSTM, chrono" in n or "Leaky" in n or "quarter" in n
    } <= solved
    # a connection that fits the lag is there at once; a plain net may find it, later
    assert found["copying", "RNN, delays 1, distance", distance].solved <= 2 * tasks.EVERY
    assert (found["copying", "RNN", distance].solved or 9999) > 2 * tasks.EVERY
    for outcome in found.values():
        assert outcome.parameters <= tasks.BUDGET


def test_reservoirs_reach_what_the_literature_reports(script: Load) -> None:
    """NRMSE of NARMA-10 0.2 to 0.4; reservoirpy with the same matrices the same."""
    series = script("series")
    found = series.main(["--quick"])
    limits = {"Mackey-Glass, next": 3e-3, "Mackey-Glass, 84 ahead": 0.15, "NARMA-10": 0.4}
    for name, errors in found["tasks"].items():
        assert np.mean([each[0] for each in errors]) < limits[name], name
        for ours, *peer in errors:
            assert peer == pytest.approx([ours] * len(peer), rel=0.05), name
    assert all(len(each) == 2 for each in found["tasks"]["NARMA-10"])
    # several scales: no single alpha serves them
    several = found["averages"]
    assert several["tau 1 ... 400"].max() < 0.1 * min(
        each.min() for name, each in several.items() if name.startswith("alpha")
    )
    # sunspots: without a choice a spectrum is near the best alpha, and far below their mean
    yearly = found["sunspots"]
    single = np.array([e.mean(axis=0) for name, e in yearly.items() if name.startswith("alpha")])
    spectrum = yearly[series.SPECTRUM].mean(axis=0)
    assert (spectrum < 0.9 * single.mean(axis=0)).all()
    assert (spectrum < 1.2 * single.min(axis=0)).all()
    assert (spectrum < yearly["the last value"][0]).all()


# ---- Their parts ------------------------------------------------------------------------------


def test_series_are_those_of_their_equations(script: Load, rng: np.random.Generator) -> None:
    series = script("series")
    u, y = series.narma10(300, rng)
    assert 0 <= u.min() <= u.max() <= 0.5
    for t in range(20, 300):
        past = y[t - 10 : t].sum()
        wanted = 0.3 * y[t - 1] + 0.05 * y[t - 1] * past + 1.5 * u[t - 10] * u[t - 1] + 0.1
        assert y[t] == pytest.approx(wanted)
    x = series.mackey_glass(2000, rng)
    assert 0.2 < x.min() < 0.5  # the attractor's bounds, and its mean
    assert 1.2 < x.max() < 1.4
    assert x.mean() == pytest.approx(0.93, abs=0.03)
    middle = (x[2:] - x[:-2]) / 2  # central differences of its equation
    delayed = x[1:-18]
    wanted = 0.2 * delayed / (1 + delayed**10) - 0.1 * x[18:-1]
    assert nrmse(wanted, middle[17:]) < 0.05
    years, numbers = series.sunspots()
    assert (years[0], years[-1], numbers.shape) == (1700, 2008, (309, 1))
    assert numbers[years == 1957].item() == pytest.approx(190.2, abs=0.1)  # the highest of them


@pytest.mark.parametrize("name", ["autoregression", "reservoir"])
def test_forecasts_know_nothing_of_the_future(script: Load, name: str) -> None:
    series = script("series")
    outlook = series.autoregression if name == "autoregression" else series.reservoir(0.5, 0.1, 0)
    x = np.sin(np.arange(120.0) / 3)[:, None] + 0.1
    known, ahead = 80, 3
    said = outlook(x, known, ahead)
    later = x.copy()
    later[known + 1 :] = 7
    np.testing.assert_array_equal(outlook(later, known, ahead)[: known + 1], said[: known + 1])
    assert np.abs(said[known:-ahead] - x[known + ahead :, 0]).max() < 0.3  # they foresee a sine


def test_rolling_errors(script: Load) -> None:
    """What stays as it is errs by what the series changes in so many years."""
    series = script("series")
    asked: list[tuple[int, int]] = []

    def last(x: np.ndarray, known: int, ahead: int) -> np.ndarray:
        asked.append((len(x), known))
        return x[:, 0]

    x = np.arange(45.0)[:, None]
    assert series.rolling(last, x, 20, 3) == 3
    assert asked == [(30, 20), (40, 30), (42, 40)]


def test_alpha_is_not_trained(script: Load, rng: np.random.Generator) -> None:
    tasks = script("tasks")
    layer = tasks.Leaky(2, 20, 0)
    assert layer.parameters()["alpha_l0"].max() == pytest.approx(np.exp(-1 / 500))
    plain = fastrnn.LeakyRNN(2, 20, seed=0).weight_ih_l0
    gain = 1 - layer.parameters()["alpha_l0"]
    np.testing.assert_allclose(layer.weight_ih_l0 * gain[:, None], plain, rtol=1e-5)
    y, _, tape = layer.forward_train(rng.standard_normal((5, 3, 2)).astype(np.float32))
    assert set(layer.backward(tape, y).params) == set(layer.parameters()) - {"alpha_l0"}


def test_masks_have_whole_blocks(script: Load) -> None:
    mask = script("tasks").quarter(48, 0)
    assert mask.shape == (48, 48)
    assert mask.mean() == 0.25
    assert (mask == mask[::16].repeat(16, axis=0)).all()


# ---- As programs ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gradients", "memory"])
def test_programs_print_tables_and_draw(name: str, tmp_path: Path) -> None:
    done = run_python(str(FOLDER / f"{name}.py"), "--quick", "--seed", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^(\|---)+\|$", done.stdout, re.MULTILINE)
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    if name == "gradients":
        assert re.findall(r"^gradients: (\d+) of 10$", done.stderr, re.MULTILINE)[-1] == "10"


def test_what_cannot_be_done_is_refused_before_the_work(
    script: Load,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shared = script("_time_scales")
    cases: list[tuple[list[Any], str]] = [
        (["--out", str(tmp_path / "missing")], "no directory"),
        (["--out", str(tmp_path)], "matplotlib is needed"),
        ([], "statsmodels is needed"),
    ]
    monkeypatch.setattr(shared, "find_spec", lambda name: None)
    for arguments, word in cases:
        with pytest.raises(SystemExit):
            shared.parse("", ("statsmodels",) if not arguments else (), arguments)
        assert word in capsys.readouterr().err


def test_in_a_terminal_there_is_a_bar(
    script: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(script("_time_scales").progress([1, 2, 3], "label")) == [1, 2, 3]
    assert re.search(r"label: 100%.*3/3", capsys.readouterr().err)
