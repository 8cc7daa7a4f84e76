"""fastrnn.bench: what it reads, what it derives, and a short run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fastrnn import bench
from fastrnn.bench import report, shapes
from fastrnn.bench.cases import CELLS, FORWARD, MODES, TRAIN, Case
from fastrnn.bench.engines import (
    COPY,
    ENGINES,
    FASTRNN,
    FASTRNN_TORCH,
    case_of,
    choices,
    first_results,
)
from fastrnn.bench.limits import Limits, cache_sizes
from fastrnn.bench.reference import difference, reference
from fastrnn.bench.worker import Worker, WorkerError, time_round

TINY = shapes.Shape(5, 17, 3, 7)
LIMITS = Limits(
    1,
    1e11,
    {"L1": 2e11, "L2": 1e11, "L3": 2e10},
    1e-9,
    {"L1": 48 << 10, "L2": 2 << 20, "L3": 1 << 25},
)


Workers = Callable[[str], Worker]

# Of the largest value: float32, and sums as short as those of TINY.
EXACT = 2e-6


def tiny(cell: str, mode: str = FORWARD) -> Case:
    return Case(cell, TINY if cell != "leaky" else shapes.Shape(17, 17, 3, 7), mode)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """One process per engine for the whole file: some libraries do not get on in one process."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(Worker(name, 1)))


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
    ("mode", "cell", "name"),
    [
        (mode, cell, name)
        for mode in MODES
        for cell in CELLS
        for name in (FASTRNN, *choices(mode, cell))
    ],
)
def test_engines_agree(workers: Workers, mode: str, cell: str, name: str) -> None:
    assert ENGINES[name].installed
    case = tiny(cell, mode)
    off = difference(workers(name).load(case), reference(case_of(name, case)))
    assert max(off.values()) < EXACT


@pytest.mark.parametrize("name", [FASTRNN, FASTRNN_TORCH, "torch"])
def test_each_step_writes_its_gradients_afresh(name: str) -> None:
    case = tiny("leaky_rnn", TRAIN)
    step = ENGINES[name].prepare(case_of(name, case), 1)
    first = first_results(case, step)
    second = first_results(case, step)
    assert set(first) == set(second)
    for array, values in first.items():
        assert np.array_equal(values, second[array]), array


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_has_a_gradient_of_everything(cell: str) -> None:
    case = tiny(cell, TRAIN)
    expected = reference(case)
    states = ("h0", "c0")[: len(case.state())]
    assert set(expected) == {"y", "dx"} | {"d" + n for n in (*states, *case.parameters())}
    for name, array in case.parameters().items():
        assert expected["d" + name].shape == array.shape
    for name, array in zip(states, case.state(), strict=True):
        assert expected["d" + name].shape == array.shape


@pytest.mark.parametrize("cell", CELLS)
def test_reference_gradients_are_slopes(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference of a training step against its own y, by a small step in everything at once."""
    case = tiny(cell, TRAIN)
    arrays = {"x": case.x(), **dict(zip(("h0", "c0"), case.state(), strict=False))}
    arrays |= case.parameters()
    rng = np.random.default_rng(5)
    step = 2.0**-7
    directions = {n: step * rng.standard_normal(a.shape) for n, a in arrays.items()}
    expected = reference(case)

    def loss(scale: float) -> float:
        moved = {n: (a + scale * directions[n]).astype(np.float64) for n, a in arrays.items()}
        monkeypatch.setattr(Case, "x", lambda self: moved["x"])
        monkeypatch.setattr(
            Case, "state", lambda self: tuple(moved[n] for n in ("h0", "c0") if n in moved)
        )
        names = set(moved) - {"x", "h0", "c0"}
        monkeypatch.setattr(Case, "parameters", lambda self: {n: moved[n] for n in names})
        return float((reference(case)["y"] * case.dy()).sum(dtype=np.float64))

    # Central differences of two widths, combined so that the error is of the fourth order.
    wide, narrow = (loss(s) - loss(-s) for s in (1.0, 0.5))
    slope = (8 * narrow - wide) / 6
    predicted = sum(float((expected["d" + n] * d).sum()) for n, d in directions.items())
    assert slope == pytest.approx(predicted, rel=1e-3)


def test_flops() -> None:
    assert Case("lstm", TINY).flops == 2 * 4 * 17 * (5 + 17) * 3 * 7
    assert Case("leaky_rnn", TINY).flops == Case("lstm", TINY).flops / 4
    assert Case("lstm", TINY, TRAIN).flops == 3 * Case("lstm", TINY).flops


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


def test_limit_of_training_is_that_of_forward_and_backward() -> None:
    reading = Case("lstm", shapes.Shape(512, 512, 1, 10))
    assert LIMITS.seconds(replace(reading, mode=TRAIN)) == 2 * LIMITS.seconds(reading)
    chain = Case("rnn", shapes.Shape(1, 20, 1, 10), TRAIN)
    assert LIMITS.seconds(chain) == pytest.approx(10 * (20 + 17 + 3 + 20 + 3) * 1e-9)
    arithmetic = Case("lstm", shapes.Shape(512, 512, 128, 10), TRAIN)
    assert LIMITS.seconds(arithmetic) == pytest.approx(arithmetic.flops / 1e11)


def test_a_unit_without_weights_touches_two_arrays_forward_and_five_to_train() -> None:
    forward, train = (tiny("leaky", mode) for mode in MODES)
    assert forward.touched_bytes == forward.x().nbytes + forward.dy().nbytes
    assert train.touched_bytes == 5 * train.x().nbytes


def test_limits_measured() -> None:
    measured = Limits.measure(1)
    assert list(measured.bandwidth)[: len(cache_sizes())] == list(cache_sizes())
    assert measured.flops > 0 and measured.chain > 0
    assert measured.best(replace(measured, flops=2 * measured.flops)).flops == 2 * measured.flops


def test_time_round_counts_calls() -> None:
    calls = []
    assert time_round(lambda: calls.append(1), 0.002) < 1e-4
    assert calls


def example(cell: str, engines: list[str], mode: str = FORWARD) -> report.Report:
    seconds = {
        name: [2e-6 * (k + 1), 3e-6 * (k + 1), 1e-6 * (k + 1)] for k, name in enumerate(engines)
    }
    off = {name: 1e-7 for name in engines if name != COPY}
    results = [
        report.Result(Case(cell, shape, mode), seconds, off) for shape in shapes.parse("all", cell)
    ]
    limits = None if cell == "leaky" else LIMITS
    versions = dict.fromkeys(engines, "10.20.30")
    return report.Report(cell, mode, 1, 3, 0.01, "2000-01-01", "avx512", versions, limits, results)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cell", CELLS)
def test_table(cell: str, mode: str) -> None:
    engines = [name for name, engine in ENGINES.items() if engine.runs(mode, cell)]
    shown = example(cell, engines, mode)
    text = report.table(shown)
    assert max(map(len, text.splitlines())) <= 120
    title = {FORWARD: "forward", TRAIN: "forward + backward"}[mode]
    assert f"{cell} {title}, float32, 1 thread" in text
    for place, peer in enumerate(engines):  # the engine at each place is so many times slower
        assert peer in text
        if peer in shown.results[0].peers:
            assert f"{peer} {place + 1:.2f}" in text
    best = shown.results[0].best_peer
    if best is not None:
        ratio = engines.index(best) + 1
        assert f"geometric mean {ratio:.2f}, worst {ratio:.2f}" in text


def test_summary_names_the_libraries_and_pytorch_alone() -> None:
    shown = example("gru", [FASTRNN, "numpy", "torch", "onnxruntime"])  # each slower than the last
    text = report.table(shown)
    first = shapes.SHAPES[0]
    for peer in ("the fastest of torch, onnxruntime", "torch"):
        line = f"ratio to {peer}: geometric mean 3.00, worst 3.00 at {first}"
        assert text.count(line + "\n  batch 1, H <= 64: geometric mean 3.00") == 1
    assert {m.where for m in shown.margins()} == {"all", "batch 1, H <= 64", "batch 1, H <= 128"}
    assert [m.peer for m in example("gru", [FASTRNN, "torch"]).margins()] == ["torch"] * 3
    assert example("gru", [FASTRNN, "numpy"]).margins() == []


def test_worst_of_the_small_shapes_is_one_of_them() -> None:
    small, large = shapes.Shape(1, 64, 1, 9), shapes.Shape(1, 65, 1, 9)
    results = [
        report.Result(Case("gru", shape), {FASTRNN: [1.0], "torch": [ratio]}, {FASTRNN: 0.0})
        for shape, ratio in ((small, 4.0), (large, 2.0))
    ]
    shown = replace(example("gru", [FASTRNN]), results=results)
    assert {m.where: (m.worst, m.worst_shape) for m in shown.margins()} == {
        "all": (2.0, large),
        "batch 1, H <= 64": (4.0, small),
        "batch 1, H <= 128": (2.0, large),
    }


def test_fastrnn_itself_is_not_its_best_peer() -> None:
    shown = example("lstm", [FASTRNN, FASTRNN_TORCH, "torch"], TRAIN)
    assert shown.results[0].best_peer == "torch"
    assert list(shown.peer_means()) == ["torch"]
    first = shown.results[0].case.shape
    assert f"fastrnn.torch / fastrnn: geometric mean 2.00; +2.0 us a call at {first}" in (
        report.table(shown)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cell", CELLS)
def test_plot(cell: str, mode: str, tmp_path: Path) -> None:
    engines = [name for name, engine in ENGINES.items() if engine.runs(mode, cell)]
    path = tmp_path / "plot.svg"
    report.plot(example(cell, engines, mode), path)
    text = path.read_text(encoding="utf-8")
    assert "<svg" in text and f"<!-- {engines[-1]} -->" in text


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
        (["--mode", "train", "--peers", "numpy"], "peers: expected some of fastrnn.torch, torch"),
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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cell", CELLS)
def test_short_run(
    mode: str, cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.json"
    case = tiny(cell, mode)
    arguments = ["--cell", cell, "--mode", mode, "--quick", "--shapes", str(case.shape)]
    arguments += ["--json", str(path), "--peers", choices(mode, cell)[0]]
    assert bench.main(options(*arguments)) == 0
    assert str(case.shape) in capsys.readouterr().out
    document = json.loads(path.read_text())
    (record,) = document["results"]
    assert document["mode"] == mode
    assert record["shape"] == list(case.shape)
    assert record["flops"] == case.flops
    assert len(record["seconds"][FASTRNN]) == document["rounds"] == 3
    assert max(record["difference"].values()) < EXACT


def test_differing_output_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"y": np.full((7, 3, 17), np.nan, np.float32)}
    monkeypatch.setattr(bench, "reference", lambda case: wrong)
    assert bench.main(options("--quick", "--shapes", str(TINY), "--peers", "none")) == 1
    assert "fastrnn: y at 5,17,3,7 differs" in capsys.readouterr().err


def test_differing_gradient_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(case: Case) -> dict[str, np.ndarray]:
        found = reference(case)
        found["dweight_hh_l0"][-1, -1] += 1e-3 * np.abs(found["dweight_hh_l0"]).max()
        return found

    monkeypatch.setattr(bench, "reference", wrong)
    arguments = ["--mode", "train", "--quick", "--shapes", str(TINY), "--peers", "none"]
    assert bench.main(options(*arguments)) == 1
    assert "fastrnn: dweight_hh_l0 at 5,17,3,7 differs" in capsys.readouterr().err


def test_failing_worker() -> None:
    with Worker("numpy", 1) as worker:
        with pytest.raises(WorkerError, match="numpy: AssertionError"):
            worker.round(0.001)
        with pytest.raises(WorkerError, match="numpy: KeyError"):
            worker.load(Case("mystery", TINY))
        assert worker.load(Case("rnn", TINY))["y"].shape == (7, 3, 17)
        worker._process.kill()
        with pytest.raises(WorkerError, match="numpy: its process ended"):
            worker.round(0.001)
