"""``fastrnn bench --mode structures`` as a run, its text and its JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from . import reservoir
from .progress import progress
from .report import aligned, machine, machine_text, microseconds, threads_text
from .shapes import Shape
from .structures import QUICK_STEPS, SPEED, Asked, Comparison, groups, measure_group

# Steps of a quick look at reservoirs.
QUICK_SERIES = 1000

ASKED = {reservoir.STATES: Asked(SPEED, 20), reservoir.FIT: Asked(SPEED, 5)}


@dataclass
class StructuresReport:
    """A run: what was measured of it so far."""

    threads: int
    rounds: int
    min_time: float
    quick: bool
    date: str
    peer: str | None  # the version of reservoirpy, if it is installed
    results: list[Comparison] = field(default_factory=list)
    interrupted: bool = False


def measure_structures(
    threads: int, rounds: int, min_time: float, quick: bool = False
) -> StructuresReport:
    """Measure all structures, then the reservoirs if reservoirpy is installed. A quick look has
    fewer steps.

    WorkerError: what something computes is not what it must be.
    """
    import fastrnn

    date = datetime.now().astimezone().isoformat(" ", "minutes")
    peer = version(reservoir.PEER) if reservoir.installed() else None
    report = StructuresReport(threads, rounds, min_time, quick, date, peer)
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(threads)
    makers = list(groups(QUICK_STEPS if quick else None))
    try:
        with progress(len(makers) + (peer is not None)) as shown:
            for make in makers:
                group = make()
                shown.show(f"{', '.join(group.candidates)}, {group.cell}")
                report.results += measure_group(group, rounds, min_time)
                shown.advance()
            if peer is not None:
                shown.show("reservoirs")
                report.results += _reservoirs(threads, rounds, min_time, quick)
                shown.advance()
    except KeyboardInterrupt:
        report.interrupted = True
    finally:
        fastrnn.set_num_threads(before)
    return report


def _reservoirs(threads: int, rounds: int, min_time: float, quick: bool) -> Iterable[Comparison]:
    steps = QUICK_SERIES if quick else reservoir.STEPS
    sizes = reservoir.SIZES
    found = reservoir.measure(sizes, steps, threads, rounds, min_time)
    for (units, density, group), (seconds, differences) in zip(sizes, found, strict=True):
        scattered = ", scattered" if group == 1 else ""
        for call, taken in seconds.items():
            yield Comparison(
                f"reservoir {100 * density:g} %{scattered}",
                "leaky_rnn",
                reservoir.PEER,
                Shape(1, units, 1, steps),
                call,
                taken[reservoir.FASTRNN],
                taken[reservoir.PEER],
                differences[call],
                ASKED[call],
            )


def text(report: StructuresReport) -> str:
    """Return the report as lines of at most 120 columns."""
    return "\n".join([*_preamble(report), "", *_table(report.results), "", *_summary(report)])


def write_json(report: StructuresReport, path: Path) -> None:
    """Write everything that was measured, and what the text derives from it."""
    import fastrnn

    versions = {"fastrnn": fastrnn.__version__}
    document = {
        "date": report.date,
        "machine": machine(),
        "isa": fastrnn.isa(),
        "versions": versions | ({reservoir.PEER: report.peer} if report.peer else {}),
        "mode": "structures",
        "dtype": "float32",
        "threads": report.threads,
        "rounds": report.rounds,
        "min_time": report.min_time,
        "quick": report.quick,
        "results": [_record(result) for result in report.results],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _record(result: Comparison) -> dict[str, Any]:
    return {
        "structure": result.structure,
        "cell": result.cell,
        "beside": result.beside,
        "shape": list(result.shape),
        "call": result.call,
        "seconds": result.seconds,
        "beside_seconds": result.beside_seconds,
        "difference": result.difference,
        "speed": result.speed,
        "time": result.time,
        "asked": result.asked._asdict() if result.asked is not None else None,
        "reached": result.reached,
    }


def _preamble(report: StructuresReport) -> Iterable[str]:
    import fastrnn

    yield (
        f"fastrnn {fastrnn.__version__} ({fastrnn.isa()}), time structures, float32, "
        f"{threads_text(report.threads)}, {report.date}"
    )
    yield machine_text()
    yield "speed, time: how many times faster than what stands beside, and how many times longer;"
    yield "of whole calls, of which the product of x, which no structure changes, is a part"
    yield f"microseconds a call, medians of {report.rounds} interleaved rounds"
    if report.quick:
        yield "a quick look at short sequences: what is asked is asked of long ones"


_HEAD = ["I,H,B,T", "structure", "cell", "beside", "call", "us", "beside us", "speed", "time"]


def _table(results: list[Comparison]) -> list[str]:
    """Return lines: the heads, then a row for every comparison."""
    rows = [[*_HEAD, "asked", "reached"]]
    for result in results:
        rows.append(
            [
                str(result.shape),
                result.structure,
                result.cell,
                result.beside,
                result.call,
                microseconds(median(result.seconds)),
                microseconds(median(result.beside_seconds)),
                f"{result.speed:.2f}",
                f"{result.time:.2f}",
                str(result.asked or "-"),
                {None: "-", True: "yes", False: "no"}[result.reached],
            ]
        )
    return aligned(rows)


def _summary(report: StructuresReport) -> Iterable[str]:
    asked = [result for result in report.results if result.asked is not None]
    short = [f"{r.structure} {r.cell} {r.call}" for r in asked if not r.reached]
    yield f"reached: {len(asked) - len(short)} of {len(asked)}"
    yield from (f"not reached: {name}" for name in short)
    furthest = max(result.difference for result in report.results)
    yield f"y agrees within {furthest:.1e}: with NumPy's, that of plain layers (0), or of the peer"
    if report.peer is None:
        yield f"reservoirs: not measured, {reservoir.PEER} is not installed"
