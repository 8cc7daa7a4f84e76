"""fastrnn bench --mode options: what it compares, what it derives, and a short run."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import bench
from fastrnn.bench import gated, options, options_report
from fastrnn.bench.cases import FORWARD, MODES, TRAIN
from fastrnn.bench.options import LENGTHS, PLAIN, RESET, VARIANTS, OptionsResult
from fastrnn.bench.shapes import SHAPES, Shape

TINY = Shape(5, 18, 3, 7)
FEW = Shape(8, 8, 5, 40)  # of the gated leak


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(["--mode", "options", "--quick", *given])


def example(shape: Shape) -> OptionsResult:
    """Variant k, counted from 0 which is the plain layer, takes k + 1 times as long as that."""
    seconds = {
        mode: {
            name: [1e-3 * noise * (k + 1) for noise in (1, 5, 2)]
            for k, name in enumerate((PLAIN, *options.variants(shape)))
        }
        for mode in MODES
    }
    return OptionsResult(shape, seconds, 1e-7)


def test_work_counts_the_products() -> None:
    assert options.multiply_adds(PLAIN, TINY) == 4 * 18 * (5 + 18)
    assert options.multiply_adds("coupled", TINY) == 3 * 18 * (5 + 18)
    assert options.multiply_adds("projection", TINY) == 4 * 18 * (5 + 9) + 9 * 18
    assert len({options.multiply_adds(v, TINY) for v in (PLAIN, "peephole", LENGTHS, RESET)}) == 1


def test_lengths_are_half_of_the_steps_and_resets_one_in_twenty() -> None:
    shape = Shape(1, 4, 128, 1000)
    lengths = options.call_options(LENGTHS, shape)[LENGTHS]
    assert lengths.shape == (128,) and lengths.min() >= 1 and lengths.max() <= 1000
    assert options.valid_share(LENGTHS, shape) == lengths.sum() / 128_000
    assert options.valid_share(LENGTHS, shape) == pytest.approx(0.5, abs=0.1)
    reset = options.call_options(RESET, shape)[RESET]
    assert reset.shape == (1000, 128) and reset.mean() == pytest.approx(0.05, abs=0.005)


def test_one_row_has_no_lengths() -> None:
    assert options.variants(TINY) == VARIANTS
    assert set(VARIANTS) - set(options.variants(Shape(5, 18, 1, 7))) == {LENGTHS}


@pytest.mark.parametrize("variant", [PLAIN, *VARIANTS])
def test_the_numpy_witness_agrees_with_the_layer_in_float64(variant: str) -> None:
    made = options.layer_options(variant, TINY)
    layer = fastrnn.LSTM(*TINY[:2], dtype=np.float64, seed=2, **made)
    given = options.call_options(variant, TINY)
    x = np.random.default_rng(0).standard_normal((TINY.steps, TINY.batch, TINY.input_size))
    y = layer(x, lengths=given.get(LENGTHS), reset=given.get(RESET))[0]
    expected = options.forward(layer.parameters(), x, **given)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)
    plain = options.forward(layer.parameters(), x)
    assert np.array_equal(plain, expected) == (not given)


def test_figures_are_relative_to_the_plain_layer() -> None:
    result = example(TINY)
    assert result.variants == list(VARIANTS)
    assert result.ratio(TRAIN, "coupled") == pytest.approx(4)
    assert result.per_step(FORWARD, "coupled") == pytest.approx(4)
    assert result.per_multiply_add(FORWARD, "coupled") == pytest.approx(4 * 4 / 3)
    share = options.valid_share(LENGTHS, TINY)
    assert result.per_step(FORWARD, LENGTHS) == pytest.approx(5 / share)
    assert result.per_multiply_add(FORWARD, LENGTHS) == pytest.approx(5 / share)


def test_text_has_a_row_for_every_shape_and_variant() -> None:
    results = [example(shape) for shape in SHAPES]
    report = options_report.OptionsReport(1, 3, 0.01, "2000-01-01", results)
    lines = options_report.text(report).splitlines()
    assert max(map(len, lines)) <= 120
    rows = [line.split()[:2] for line in lines]
    for shape in SHAPES:
        for variant in (PLAIN, *options.variants(shape)):
            assert rows.count([str(shape), variant]) == 1
    for variant in VARIANTS:
        for mode in MODES:
            assert sum(line.startswith(f"{variant}, {mode}: per valid step") for line in lines) == 1


def test_gated_leak_is_compared_with_a_copy_of_its_bytes() -> None:
    alpha, _ = gated.arrays(FEW)
    for count in gated.ARRAYS.values():
        copy = gated.copies(count, FEW)
        assert isinstance(copy, partial)
        assert [array.nbytes * 2 for array in copy.args] == [count * alpha.nbytes] * 2
    rounds = {gated.LEAK: [1.0, 2.0, 1.0]}
    result = gated.GatedResult(FEW, rounds, {gated.LEAK: [0.5, 4.0, 0.7]}, 0.0)
    assert result.of_copy(gated.LEAK) == 0.7
    assert str(gated.SHAPE) == "256,256,32,2000"


def test_gradients_of_the_loop_are_slopes() -> None:
    alpha, v, dy, alpha_step, v_step = np.random.default_rng(1).random((5, 6, 2, 3))

    def loss(scale: float) -> float:
        a, x = alpha + scale * alpha_step, v + scale * v_step
        return float((gated.loop(a, x, np.empty_like(x)) * dy).sum())

    y = gated.loop(alpha, v, np.empty_like(v))
    dalpha, dv, dstate = gated.loop_backward(alpha, v, y, dy)
    predicted = float((dalpha * alpha_step).sum() + (dv * v_step).sum())
    assert (loss(1e-5) - loss(-1e-5)) / 2e-5 == pytest.approx(predicted, rel=1e-8)
    np.testing.assert_allclose(dstate * (1 - alpha[0]), alpha[0] * dv[0], rtol=1e-12)


def test_short_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gated, "SHAPE", FEW)
    path = tmp_path / "out.json"
    threads = fastrnn.get_num_threads()
    assert bench.main(arguments("--shapes", str(TINY), "--json", str(path))) == 0
    assert fastrnn.get_num_threads() == threads
    text = capsys.readouterr().out
    assert all(name in text for name in (*VARIANTS, *gated.ARRAYS))
    document = json.loads(path.read_text())
    (record,) = document["results"]
    assert record["shape"] == list(TINY) and set(record["options"]) == set(VARIANTS)
    assert {len(s) for mode in MODES for s in record["seconds"][mode].values()} == {3}
    assert set(document["gated"]["of_copy"]) == set(gated.ARRAYS)
    assert max(record["difference"], document["gated"]["difference"]) < 2e-6


@pytest.mark.parametrize(
    ("module", "name"), [(options, "plain: y"), (gated, "gated_leaky forward: a result")]
)
def test_a_difference_is_an_error(
    module: object, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gated, "SHAPE", FEW)
    monkeypatch.setattr(module, "TOLERANCE", 0.0)
    assert bench.main(arguments("--shapes", str(TINY))) == 1
    assert f"fastrnn bench: {name} at " in capsys.readouterr().err


def test_interruption_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gated, "measure_gated", interrupt)
    assert bench.main(arguments("--shapes", str(TINY))) == 130
    out, err = capsys.readouterr()
    assert "coupled" in out and "interrupted: not everything was measured" in err
    monkeypatch.setattr(options_report, "measure_shape", interrupt)
    assert bench.main(arguments("--shapes", str(TINY))) == 130
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--cell", "gru"], "cell: expected lstm in mode options; got gru"),
        (["--peers", "torch"], "peers: expected none in mode options; got torch"),
        (["--plot", "x.png"], "plot: expected none in mode options; got x.png"),
    ],
)
def test_wrong_options(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(arguments(*given)) == 2
    assert capsys.readouterr().err == f"fastrnn bench: {message}\n"
