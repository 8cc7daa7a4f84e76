"""``fastrnn bench --mode options`` as a run, its text and its JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from . import gated
from .cases import MODES
from .options import (
    PLAIN,
    RESET_SHARE,
    VARIANTS,
    OptionsResult,
    measure_shape,
    multiply_adds,
    valid_share,
)
from .progress import progress
from .report import aligned, machine, machine_text, microseconds, threads_text
from .shapes import Shape


@dataclass
class OptionsReport:
    """A run: what was measured of it so far."""

    threads: int
    rounds: int
    min_time: float
    date: str
    results: list[OptionsResult] = field(default_factory=list)
    gated: gated.GatedResult | None = None
    interrupted: bool = False


def measure_options(
    shapes: Sequence[Shape], threads: int, rounds: int, min_time: float
) -> OptionsReport:
    """Measure the options of the LSTM at these shapes, then the gated leak at its own.

    WorkerError: what something computes is off by more than allowed.
    """
    import fastrnn

    date = datetime.now().astimezone().isoformat(" ", "minutes")
    report = OptionsReport(threads, rounds, min_time, date)
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(threads)
    try:
        with progress(len(shapes) + 1) as shown:
            for shape in shapes:
                shown.show(str(shape))
                report.results.append(measure_shape(shape, rounds, min_time))
                shown.advance()
            shown.show("gated leak")
            report.gated = gated.measure_gated(rounds, min_time, gated.SHAPE)
            shown.advance()
    except KeyboardInterrupt:
        report.interrupted = True
    finally:
        fastrnn.set_num_threads(before)
    return report


def text(report: OptionsReport) -> str:
    """Return the report as lines of at most 120 columns."""
    lines = [*_preamble(report), "", *_table(report.results), "", *_summary(report.results)]
    if report.gated is not None:
        lines += ["", *gated.table(report.gated)]
    return "\n".join(lines)


def write_json(report: OptionsReport, path: Path) -> None:
    """Write everything that was measured, and what the text derives from it."""
    import fastrnn

    document = {
        "date": report.date,
        "machine": machine(),
        "isa": fastrnn.isa(),
        "versions": {"fastrnn": fastrnn.__version__},
        "cell": "lstm",
        "mode": "options",
        "dtype": "float32",
        "threads": report.threads,
        "rounds": report.rounds,
        "min_time": report.min_time,
        "results": [_record(result) for result in report.results],
        "gated": gated.record(report.gated) if report.gated is not None else None,
        "summary": list(_means(report.results)),
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _preamble(report: OptionsReport) -> Iterable[str]:
    import fastrnn

    yield (
        f"fastrnn {fastrnn.__version__} ({fastrnn.isa()}), options of the LSTM, float32, "
        f"{threads_text(report.threads)}, {report.date}"
    )
    yield machine_text()
    yield (
        "projection: P = H / 2; lengths: uniform in 1..T; "
        f"reset: {RESET_SHARE:.0%} of steps; each against the plain LSTM of these sizes"
    )
    yield (
        "valid: share of the steps that are no padding; work: multiply-adds of their products, "
        "relative to plain's"
    )
    yield "/step, /mul-add: time relative to plain's per valid step, and per multiply-add of them"
    yield f"microseconds a call, medians of {report.rounds} interleaved rounds"


_HEAD = ("I,H,B,T", "option", "valid", "work")
_FIGURES = ("/step", "/mul-add")


def _table(results: list[OptionsResult]) -> list[str]:
    """Return lines: the heads, then a row for every shape and variant."""
    rows = [[*_HEAD, *(name for mode in MODES for name in (f"{mode} us", *_FIGURES))]]
    for result in results:
        for variant in (PLAIN, *result.variants):
            work = multiply_adds(variant, result.shape) / multiply_adds(PLAIN, result.shape)
            valid = valid_share(variant, result.shape)
            row = [str(result.shape), variant, f"{valid:.2f}", f"{valid * work:.2f}"]
            for mode in MODES:
                row += [
                    microseconds(median(result.seconds[mode][variant])),
                    f"{result.per_step(mode, variant):.2f}",
                    f"{result.per_multiply_add(mode, variant):.2f}",
                ]
            rows.append(row)
    return aligned(rows)


def _summary(results: list[OptionsResult]) -> Iterable[str]:
    """Say of each variant and mode what it costs: the geometric mean and the worst shape."""
    for figures in _means(results):
        yield (
            f"{figures['option']}, {figures['mode']}: per valid step {figures['step_mean']:.2f}, "
            f"worst {figures['step_worst']:.2f} at {figures['step_worst_shape']}; "
            f"per multiply-add {figures['multiply_add_mean']:.2f}, "
            f"worst {figures['multiply_add_worst']:.2f}"
        )
    furthest = max(result.difference for result in results)
    yield f"y agrees with NumPy's within {furthest:.1e} of the largest value"


def _record(result: OptionsResult) -> dict[str, Any]:
    return {
        "shape": list(result.shape),
        "seconds": result.seconds,
        "difference": result.difference,
        "options": {
            variant: {
                "valid": valid_share(variant, result.shape),
                "multiply_adds": multiply_adds(variant, result.shape),
                "per_step": {mode: result.per_step(mode, variant) for mode in MODES},
                "per_multiply_add": {m: result.per_multiply_add(m, variant) for m in MODES},
            }
            for variant in result.variants
        },
    }


def _means(results: list[OptionsResult]) -> Iterable[dict[str, Any]]:
    for variant in VARIANTS:
        having = [result for result in results if variant in result.variants]
        for mode in MODES if having else ():
            steps = {str(r.shape): r.per_step(mode, variant) for r in having}
            products = [r.per_multiply_add(mode, variant) for r in having]
            worst = max(steps, key=steps.__getitem__)
            yield {
                "option": variant,
                "mode": mode,
                "step_mean": geometric_mean(steps.values()),
                "step_worst": steps[worst],
                "step_worst_shape": worst,
                "multiply_add_mean": geometric_mean(products),
                "multiply_add_worst": max(products),
            }
