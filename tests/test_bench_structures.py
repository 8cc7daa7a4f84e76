"""fastrnn bench --mode structures: what it compares, what it derives, and a short run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import bench
from fastrnn.bench import numpy_structures, reservoir, structures, structures_report
from fastrnn.bench.cases import FORWARD, MODES, TRAIN
from fastrnn.bench.shapes import Shape
from fastrnn.bench.structures import CELLS, SPEED, TIME, Asked, Comparison
from fastrnn.bench.worker import WorkerError

TINY = Shape(5, 32, 2, 40)
NAMES = {
    "8 clocks 1..128",
    "delay 32",
    "delays 1, 8",
    "mask 10 %",
    "dilated 1..16",
    "scattered 2 %",
}
SIZES = {"CLOCKWORK": 512, "DELAYED": 256, "MASKED": 512, "STACKED": 256}

each_cell = pytest.mark.parametrize("cell", CELLS)


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(["--mode", "structures", "--quick", *given])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all nets small, and leave out reservoirs."""
    for name in SIZES:
        monkeypatch.setattr(structures, name, TINY)
    monkeypatch.setattr(structures_report, "QUICK_STEPS", TINY.steps)
    monkeypatch.setattr(reservoir, "installed", lambda: False)


def comparison(asked: Asked | None = None, call: str = FORWARD) -> Comparison:
    """Something twice as fast as what stands beside, in two of three rounds."""
    rounds, beside = [1e-3, 5e-3, 2e-3], [2e-3, 10e-3, 1e-3]
    return Comparison("mask 10 %", "lstm", "dense", TINY, call, rounds, beside, 0.0, asked)


# ---- What is compared -------------------------------------------------------------------------


def test_what_was_asked_is_compared() -> None:
    for name, size in SIZES.items():
        assert getattr(structures, name) == Shape(40, size, 1, 1000)
    made = [make() for make in structures.groups()]
    found = {(g.cell, n): c for g in made for n, c in g.candidates.items()}
    assert [(g.cell, *g.candidates) for g in made] == [
        ("rnn", "8 clocks 1..128"),
        *((cell, "delay 32", "delays 1, 8") for cell in CELLS),
        *((cell, "mask 10 %") for cell in CELLS),
        *((cell, "scattered 2 %") for cell in CELLS),
        ("gru", "dilated 1..16"),
    ]
    clocks = found["rnn", "8 clocks 1..128"]
    assert clocks.layer.periods == (1, 2, 4, 8, 16, 32, 64, 128)
    assert clocks.asked == {FORWARD: Asked(SPEED, 8), TRAIN: Asked(SPEED, 5)}
    for cell in CELLS:
        assert found[cell, "delay 32"].asked == {FORWARD: Asked(SPEED, 3)}
        assert found[cell, "mask 10 %"].asked == {FORWARD: Asked(SPEED, 5)}
        assert found[cell, "delays 1, 8"].asked == dict.fromkeys(MODES, Asked(TIME, 2.1))
        mask = found[cell, "mask 10 %"].layer.recurrent_mask
        assert mask.reshape(-1, 16, 512).any(axis=1).mean() == pytest.approx(0.1, abs=1e-4)
        mask = found[cell, "scattered 2 %"].layer.recurrent_mask
        assert mask.mean() == pytest.approx(0.02, abs=1e-4)
    assert {group.shape.steps for group in (make() for make in structures.groups(9))} == {9}


@each_cell
@pytest.mark.parametrize("options", [{}, {"delays": (2, 3, 7)}, {"periods": (4, 1, 3)}], ids=str)
def test_the_numpy_loop_agrees_with_the_layer_in_float64(
    cell: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    layer = getattr(fastrnn, cell.upper())(5, 8, dtype="float64", seed=1, **options)
    x = rng.standard_normal((12, 2, 5))
    y = numpy_structures.loop(cell, layer.parameters(), x, **options)
    np.testing.assert_allclose(layer(x)[0], y, rtol=0, atol=1e-14)


def test_the_numpy_loop_leaves_out_what_clocks_do_not_connect() -> None:
    layer = fastrnn.RNN(5, 8, dtype="float64", periods=(1, 2), seed=1)
    parameters = layer.parameters() | {"weight_hh_l0": layer.weight_hh_l0 + 0.1}
    x = np.ones((6, 1, 5))
    kept = {n: np.where(a, a + 0.1, 0.0) for n, a in [("weight_hh_l0", layer.weight_hh_l0)]}
    layer.load_state_dict(kept, strict=False)
    y = numpy_structures.loop("rnn", parameters, x, periods=(1, 2))
    np.testing.assert_allclose(layer(x)[0], y, rtol=0, atol=1e-14)


@pytest.mark.parametrize("steps", [3, 8, 10])
def test_steps_of_a_delay_are_interleaved(steps: int) -> None:
    x = np.arange(2.0 * steps).reshape(steps, 2)
    y = numpy_structures.interleaved(partial(np.cumsum, axis=0), x, 4)
    expected = x.copy()
    for t in range(4, steps):
        expected[t] += expected[t - 4]
    assert (y == expected).all()


# ---- What is derived --------------------------------------------------------------------------


def test_figures_are_medians_of_the_ratios() -> None:
    assert comparison().speed == 2 and comparison().time == 0.5
    assert comparison().reached is None
    for asked, reached in [
        (Asked(SPEED, 2), True),
        (Asked(SPEED, 2.1), False),
        (Asked(TIME, 0.5), True),
        (Asked(TIME, 0.4), False),
    ]:
        assert comparison(asked).reached is reached


def test_text_tells_what_was_asked() -> None:
    results = [comparison(Asked(SPEED, 5)), comparison(Asked(TIME, 2.1), TRAIN), comparison()]
    report = structures_report.StructuresReport(1, 3, 0.01, False, "2000-01-01", None, results)
    lines = structures_report.text(report).splitlines()
    assert max(map(len, lines)) <= 120
    rows = [line.split() for line in lines if line.startswith(str(TINY))]
    assert [row[-5:] for row in rows[:2]] == [
        ["0.50", "speed", ">=", "5", "no"],
        ["0.50", "time", "<=", "2.1", "yes"],
    ]
    assert rows[2][-4:] == ["2.00", "0.50", "-", "-"]
    assert "reached: 1 of 2" in lines
    assert "not reached: mask 10 % lstm forward" in lines
    assert "reservoirs: not measured, reservoirpy is not installed" in lines
    assert not any("quick" in line for line in lines)


# ---- Runs -------------------------------------------------------------------------------------


def test_short_run(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    threads = fastrnn.get_num_threads()
    assert bench.main(arguments("--rounds", "2", "--json", str(path))) == 0
    assert fastrnn.get_num_threads() == threads
    text = capsys.readouterr().out
    assert "quick" in text and all(name in text for name in NAMES)
    document = json.loads(path.read_text())
    assert (document["mode"], document["rounds"], document["threads"]) == ("structures", 2, 1)
    assert document["quick"] is True and set(document["versions"]) == {"fastrnn"}
    results = document["results"]
    assert len(results) == 2 * 14
    assert {r["structure"] for r in results} == NAMES
    for record in results:
        assert record["shape"] == list(TINY) and record["call"] in MODES
        assert len(record["seconds"]) == len(record["beside_seconds"]) == 2
        assert min(record["speed"], record["time"]) > 0
        assert (record["asked"] is None) == (record["reached"] is None)
        exact = record["structure"] not in ("8 clocks 1..128", "delays 1, 8")
        assert (record["difference"] == 0) == exact
        assert record["difference"] < 2e-6


def test_reservoirs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("reservoirpy")
    monkeypatch.setattr(structures_report, "groups", lambda steps: iter(()))
    monkeypatch.setattr(structures_report, "QUICK_SERIES", 400)
    monkeypatch.setattr(reservoir, "SIZES", ((60, 0.1, None), (40, 0.2, 1)))
    path = tmp_path / "out.json"
    assert bench.main(arguments("--json", str(path))) == 0
    assert "reservoir 20 %, scattered" in capsys.readouterr().out
    document = json.loads(path.read_text())
    assert set(document["versions"]) == {"fastrnn", "reservoirpy"}
    asked = [(r["shape"], r["call"], r["asked"]["bound"]) for r in document["results"]]
    assert asked == [
        ([1, units, 1, 400], call, bound)
        for units in (60, 40)
        for call, bound in (("states", 20), ("fit + predict", 5))
    ]
    assert {len(r["seconds"]) for r in document["results"]} == {3}


def test_reservoirs_that_fail() -> None:
    with pytest.raises(WorkerError, match="reservoir: ValueError: hidden_size"):
        reservoir.measure(((0, 0.1, None),), 200, 1, 1, 0.001)


def test_reservoirs_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("reservoirpy")
    monkeypatch.setitem(reservoir.ALLOWED, reservoir.STATES, 0.0)
    with pytest.raises(ValueError, match=r"states of 20 units are .* apart"):
        reservoir._measure_size((20, 0.2, None), 200, 1, 0.001)


def shifted(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda *given, **options: np.roll(function(*given, **options), 1, axis=0)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("loop", "8 clocks 1..128: y of rnn"),
        ("interleaved", "delay 32: y of rnn"),
        ("_output", "mask 10 %: y of rnn"),
        ("_stack", "dilated 1..16: y of gru"),
    ],
)
def test_a_difference_is_an_error(
    function: str,
    name: str,
    tiny: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    makers = list(structures.groups(TINY.steps))
    chosen = {"loop": 0, "interleaved": 1, "_output": 4, "_stack": -1}[function]
    monkeypatch.setattr(structures_report, "groups", lambda steps: iter([makers[chosen]]))
    monkeypatch.setattr(structures, function, shifted(getattr(structures, function)))
    assert bench.main(arguments()) == 1
    assert f"fastrnn bench: {name} at {TINY} is off by " in capsys.readouterr().err


def test_interruption_keeps_what_was_measured(
    tiny: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    makers = list(structures.groups(TINY.steps))
    monkeypatch.setattr(structures_report, "groups", lambda steps: [makers[0], interrupt])
    assert bench.main(arguments()) == 130
    out, err = capsys.readouterr()
    assert "8 clocks" in out and "interrupted: not everything was measured" in err
    monkeypatch.setattr(structures_report, "groups", lambda steps: [interrupt])
    assert bench.main(arguments()) == 130
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--cell", "gru"], "cell: expected none in mode structures; got gru"),
        (["--shapes", "small"], "shapes: expected none in mode structures; got small"),
        (["--peers", "torch"], "peers: expected none in mode structures; got torch"),
        (["--plot", "x.png"], "plot: expected none in mode structures; got x.png"),
        (["--rounds", "0"], "rounds: expected at least 1; got 0"),
        (["--json", "none/x.json"], "json: the folder of none/x.json does not exist"),
    ],
)
def test_wrong_options(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(arguments(*given)) == 2
    assert capsys.readouterr().err == f"fastrnn bench: {message}\n"
