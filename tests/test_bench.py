"""fastrnn.bench: what it reads, what it derives, and a short run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastrnn import bench
from fastrnn.bench import report, shapes
from fastrnn.bench.cases import CELLS, Case
from fastrnn.bench.limits import Limits, cache_sizes
from fastrnn.bench.peers import COPY, ENGINES, FASTRNN, case_of
from fastrnn.bench.worker import Worker, WorkerError, time_round

TINY = shapes.Shape(5, 17, 3, 7)
LIMITS = Limits(
    1,
    1e11,
    {"L1": 2e11, "L2": 1e11, "L3": 2e10},
    1e-9,
    {"L1": 48 << 10, "L2": 2 << 20, "L3": 1 << 25},
)


def tiny(cell: str) -> Case:
    return Case(cell, TINY if cell != "leaky" else shapes.Shape(17, 17, 3, 7))


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(arguments)


def test_shapes_are_those_of_the_issue() -> None:
    assert len(bench.SHAPES) == len(set(bench.SHAPES)) == 17
    assert shapes.parse("all") == bench.SHAPES
    assert set(shapes.parse("batch1;batched")) == set(bench.SHAPES)
    assert shapes.parse("1,20,1,1000;small")[0] == bench.SHAPES[0]
    assert len(shapes.parse("1,20,1,1000;small")) == 3


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,0", "1,2,3,-4", "tiny", "1,2,3,4;", "1,2,3,x"]
)
def test_shapes_refused(text: str) -> None:
    with pytest.raises(ValueError, match="shapes: expected"):
        shapes.parse(text)


def test_shapes_of_leaky_have_equal_sizes() -> None:
    with pytest.raises(ValueError, match="I must equal H"):
        shapes.parse("1,2,3,4", "leaky")


def test_shapes_as_a_program() -> None:
    command = [sys.executable, shapes.__file__, "small"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.split() == [str(shape) for shape in shapes.parse("small")]


@pytest.mark.parametrize(
    ("name", "cell"),
    [(name, cell) for name in ENGINES if name != COPY for cell in ENGINES[name].cells],
)
def test_engines_agree(name: str, cell: str) -> None:
    engine, case = ENGINES[name], tiny(cell)
    assert engine.installed
    case = case_of(name, case)
    expected = case.reference()
    y = np.asarray(engine.prepare(case, 1)()).reshape(expected.shape)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)


def test_flops() -> None:
    assert Case("lstm", TINY).flops == 2 * 4 * 17 * (5 + 17) * 3 * 7
    assert Case("leaky_rnn", TINY).flops == Case("lstm", TINY).flops / 4


def test_limit_is_the_largest_of_three() -> None:
    chain = Case("rnn", shapes.Shape(1, 20, 1, 10))
    assert LIMITS.seconds(chain) == pytest.approx(10 * (20 + 17 + 3) * 1e-9)
    reading = Case("lstm", shapes.Shape(512, 512, 1, 10))
    assert LIMITS.level(reading.recurrent_bytes) == "L3"
    assert LIMITS.seconds(reading) == pytest.approx(10 * 16 * 512**2 / 2e10)
    arithmetic = Case("lstm", shapes.Shape(512, 512, 128, 10))
    assert LIMITS.seconds(arithmetic) == pytest.approx(arithmetic.flops / 1e11)
    assert LIMITS.level(1 << 30) == "L3"
    assert replace(LIMITS, threads=2).level(4 << 20) == "L2"


def test_limits_measured() -> None:
    measured = Limits.measure(1)
    assert list(measured.bandwidth)[: len(cache_sizes())] == list(cache_sizes())
    assert measured.flops > 0 and measured.chain > 0
    assert measured.best(replace(measured, flops=2 * measured.flops)).flops == 2 * measured.flops


def test_time_round_counts_calls() -> None:
    calls = []
    assert time_round(lambda: calls.append(1), 0.002) < 1e-4
    assert calls


def example(cell: str, engines: list[str]) -> report.Report:
    seconds = {
        name: [2e-6 * (k + 1), 3e-6 * (k + 1), 1e-6 * (k + 1)] for k, name in enumerate(engines)
    }
    difference = {name: 1e-7 for name in engines if name != COPY}
    results = [
        report.Result(Case(cell, shape), seconds, difference) for shape in shapes.parse("all", cell)
    ]
    limits = None if cell == "leaky" else LIMITS
    versions = dict.fromkeys(engines, "10.20.30")
    return report.Report(cell, 1, 3, 0.01, "2000-01-01", "avx512", versions, limits, results)


@pytest.mark.parametrize("cell", CELLS)
def test_table(cell: str) -> None:
    engines = [name for name, engine in ENGINES.items() if cell in engine.cells]
    text = report.table(example(cell, engines))
    assert max(map(len, text.splitlines())) <= 120
    peer, ratio = ("lfilter", "3.00") if cell == "leaky" else ("numpy", "2.00")
    assert f"geometric mean {ratio}, worst {ratio}" in text
    assert peer in text


def test_ratio_is_the_median_of_the_rounds() -> None:
    result = report.Result(
        Case("lstm", TINY), {FASTRNN: [1.0, 2.0, 1.0], "torch": [3.0, 2.0, 4.0]}, {}
    )
    assert result.ratio("torch") == 3.0
    assert result.best_peer == "torch"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "x"], "shapes: expected"),
        (["--peers", "tensorflow"], "peers: expected some of"),
        (["--cell", "leaky", "--peers", "torch"], "peers: expected some of lfilter"),
        (["--threads", "0"], "threads: expected at least 1; got 0"),
        (["--rounds", "0"], "rounds: expected at least 1; got 0"),
        (["--min-time", "nan"], "min-time: expected more than 0 seconds"),
        (["--json", "no/such/folder/x.json"], "json: the folder of"),
        (["--plot", "x.jpeg"], "plot: expected a file name"),
    ],
)
def test_wrong_options(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(options(*arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"fastrnn bench: {message}") and err.count("\n") == 1


@pytest.mark.parametrize("cell", CELLS)
def test_short_run(cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    case = tiny(cell)
    arguments = ["--cell", cell, "--quick", "--shapes", str(case.shape), "--json", str(path)]
    if cell != "leaky":
        arguments += ["--peers", "numpy"]
    assert bench.main(options(*arguments)) == 0
    assert str(case.shape) in capsys.readouterr().out
    document = json.loads(path.read_text())
    (record,) = document["results"]
    assert record["shape"] == list(case.shape)
    assert len(record["seconds"][FASTRNN]) == document["rounds"] == 3
    assert max(record["difference"].values()) < 1e-6


def test_differing_output_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Case, "reference", lambda self: np.full((7, 3, 17), np.nan, np.float32))
    assert bench.main(options("--quick", "--shapes", str(TINY), "--peers", "none")) == 1
    assert "fastrnn: output at 5,17,3,7 differs" in capsys.readouterr().err


def test_failing_worker() -> None:
    with Worker("numpy", 1) as worker:
        with pytest.raises(WorkerError, match="numpy: AssertionError"):
            worker.round(0.001)
        with pytest.raises(WorkerError, match="numpy: KeyError"):
            worker.load(Case("gru", TINY))
        assert worker.load(Case("rnn", TINY)).shape == (7, 3, 17)
        worker._process.kill()
        with pytest.raises(WorkerError, match="numpy: its process ended"):
            worker.round(0.001)
