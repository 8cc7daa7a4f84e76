"""``fastrnn bench``: fastrnn beside NumPy and the installed peers, against the machine's limit.

What is measured is a forward, or (``--mode train``) a forward and the gradients of everything, or
(``--mode options``) what the options of the LSTM and the gated leak cost: see `options.py`, or
(``--mode structures``) what delays, clocks and masks save or cost: see `structures.py`.
Every engine runs in a process of its own. For each shape all get the same weights and input, what
they compute is compared, then they are timed in interleaved rounds: A B C A B C ... Noise that
lasts longer than a round hits all of them, so ratios are taken inside a round and their median
reported.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import options_report, structures_report
from . import report as _report
from .cases import CELLS, FORWARD, MODES, Case
from .engines import COPY, ENGINES, FASTRNN, case_of, choices
from .limits import Limits
from .progress import progress
from .reference import TOLERANCE, difference, reference
from .report import Report, Result
from .shapes import SHAPES, Shape, parse
from .worker import Worker, WorkerError

__all__ = ["SHAPES", "TOLERANCE", "Shape", "add_arguments", "main", "measure"]

# Modes of the command line that measure fastrnn beside itself, without cells or peers to choose.
OPTIONS, STRUCTURES = BESIDE_ITSELF = ("options", "structures")

_ROUNDS, _MIN_TIME = 11, 0.03
_QUICK_ROUNDS, _QUICK_MIN_TIME = 3, 0.005

_PLOT_FORMATS = (".png", ".svg", ".pdf")

# With several threads an engine's workers spin for a while after a call.
_SETTLE_SECONDS = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``fastrnn bench``."""
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument(
        "--mode",
        choices=(*MODES, *BESIDE_ITSELF),
        default=FORWARD,
        help="train: forward and backward, gradients of x, state and parameters; options: those of "
        "the LSTM beside the plain one, and the gated leak beside a copy; structures: delays, "
        "clocks, masks and dilations beside plain layers, reservoirs beside reservoirpy's "
        f"(default: {FORWARD})",
    )
    parser.add_argument(
        "--shapes",
        default="all",
        metavar="LIST",
        help='"I,H,B,T;I,H,B,T;..." or names: all, small, large, batch1, batched (default: all)',
    )
    parser.add_argument(
        "--peers",
        metavar="LIST",
        help="numpy,torch,jax,onnxruntime,openvino (for leaky: lfilter), "
        "to train: fastrnn.torch,torch,jax; or none (default: those installed)",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default: {_ROUNDS}")
    parser.add_argument(
        "--min-time",
        type=float,
        metavar="SECONDS",
        help=f"of calls per engine in each round (default: {_MIN_TIME})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few short rounds: a look, not a measurement"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="needs matplotlib")


def main(args: argparse.Namespace) -> int:
    """Run ``fastrnn bench``; return its exit code.

    0: done. 1: an engine failed, or outputs differ. 2: wrong options. 130: interrupted; the
    shapes that were finished are printed.
    """
    try:
        shapes = parse(args.shapes, args.cell)
        peers: list[str] = []
        if args.mode not in BESIDE_ITSELF:
            peers = _select_peers(args.peers, args.mode, args.cell)
        rounds, min_time = (_QUICK_ROUNDS, _QUICK_MIN_TIME) if args.quick else (_ROUNDS, _MIN_TIME)
        rounds = rounds if args.rounds is None else args.rounds
        min_time = min_time if args.min_time is None else args.min_time
        _check(args, rounds, min_time)
    except ValueError as error:
        return _fail(str(error), 2)
    try:
        if args.mode == OPTIONS:
            found = options_report.measure_options(shapes, args.threads, rounds, min_time)
            return _finish(args, found, options_report)
        if args.mode == STRUCTURES:
            measured = structures_report.measure_structures(
                args.threads, rounds, min_time, args.quick
            )
            return _finish(args, measured, structures_report)
        report, interrupted = measure(
            args.cell, shapes, peers, args.threads, rounds, min_time, args.mode
        )
    except WorkerError as error:
        return _fail(str(error), 1)
    if not report.results:
        return _fail("interrupted", 130)
    print(_report.table(report))
    if args.json is not None:
        _report.write_json(report, args.json)
    if args.plot is not None:
        _report.plot(report, args.plot)
    return _fail("interrupted: not all shapes were measured", 130) if interrupted else 0


def _finish(args: argparse.Namespace, report: Any, module: Any) -> int:
    """Print and write a report of fastrnn beside itself by the functions of its module."""
    if not report.results:
        return _fail("interrupted", 130)
    print(module.text(report))
    if args.json is not None:
        module.write_json(report, args.json)
    return _fail("interrupted: not everything was measured", 130) if report.interrupted else 0


def measure(
    cell: str,
    shapes: Sequence[Shape],
    peers: Sequence[str],
    threads: int = 1,
    rounds: int = _ROUNDS,
    min_time: float = _MIN_TIME,
    mode: str = FORWARD,
) -> tuple[Report, bool]:
    """Measure fastrnn and peers; return the report and whether Ctrl-C cut it short.

    WorkerError: an engine failed, or what it computes is off by more than TOLERANCE of the largest
    value of an array.
    """
    import fastrnn

    engines = [FASTRNN, *([COPY] if cell == "leaky" else []), *peers]
    versions: dict[str, str] = {}
    results: list[Result] = []
    limits: Limits | None = None
    interrupted = False
    date = datetime.now().astimezone().isoformat(" ", "minutes")
    with ExitStack() as stack, progress(len(shapes)) as shown:
        try:
            workers = {name: stack.enter_context(Worker(name, threads)) for name in engines}
            for worker in workers.values():
                versions.update(worker.versions())
            for shape in shapes:
                case = Case(cell, shape, mode)
                shown.show(str(shape))
                if cell != "leaky":
                    now = workers[FASTRNN].limits()
                    limits = now if limits is None else limits.best(now)
                results.append(_measure_case(case, workers, rounds, min_time))
                shown.advance()
        except KeyboardInterrupt:
            interrupted = True
    isa = fastrnn.isa() or "none"
    report = Report(cell, mode, threads, rounds, min_time, date, isa, versions, limits, results)
    return report, interrupted


def _measure_case(case: Case, workers: dict[str, Worker], rounds: int, min_time: float) -> Result:
    references = {run: reference(run) for run in {case, case.plain()}}
    differences: dict[str, float] = {}
    for name, worker in workers.items():
        found = worker.load(case)
        if name == COPY:
            continue
        off = difference(found, references[case_of(name, case)])
        for array, value in off.items():
            if not value <= TOLERANCE:  # NaN too
                raise WorkerError(
                    f"{name}: {array} at {case.shape} differs from NumPy's by {value:.1e} of its "
                    f"largest value, allowed is {TOLERANCE:.0e}"
                )
        differences[name] = max(off.values())
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            if worker.threads > 1:
                time.sleep(_SETTLE_SECONDS)
            seconds[name].append(worker.round(min_time))
    return Result(case, seconds, differences)


def _select_peers(text: str | None, mode: str, cell: str) -> list[str]:
    known = choices(mode, cell)
    if text is None:
        return [name for name in known if ENGINES[name].installed]
    if text == "none":
        return []
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in known:
            raise ValueError(
                f"peers: expected some of {', '.join(known)} for {cell}, {mode}; got {name!r}"
            )
        if not ENGINES[name].installed:
            packages = " and ".join(ENGINES[name].packages)
            raise ValueError(f"peers: {name} needs {packages}, which cannot be imported here")
    return names


def _check(args: argparse.Namespace, rounds: int, min_time: float) -> None:
    """Raise ValueError now for what would fail after minutes of measuring."""
    if args.mode in BESIDE_ITSELF:
        if args.cell != "lstm":
            expected = "lstm" if args.mode == OPTIONS else "none"
            raise ValueError(f"cell: expected {expected} in mode {args.mode}; got {args.cell}")
        if args.mode == STRUCTURES and args.shapes != "all":
            raise ValueError(f"shapes: expected none in mode structures; got {args.shapes}")
        for name in ("peers", "plot"):
            given = getattr(args, name)
            if given is not None:
                raise ValueError(f"{name}: expected none in mode {args.mode}; got {given}")
    if args.threads < 1:
        raise ValueError(f"threads: expected at least 1; got {args.threads}")
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1; got {rounds}")
    if not min_time > 0:
        raise ValueError(f"min-time: expected more than 0 seconds; got {min_time}")
    for name in ("json", "plot"):
        path = getattr(args, name)
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"{name}: the folder of {path} does not exist")
    if args.plot is not None and args.plot.suffix not in _PLOT_FORMATS:
        formats = ", ".join(_PLOT_FORMATS)
        raise ValueError(f"plot: expected a file name that ends in {formats}; got {args.plot}")
    if args.plot is not None and find_spec("matplotlib") is None:
        raise ValueError('plot: needs matplotlib: pip install "fastrnn[plot]"')


def _fail(message: str, code: int) -> int:
    print(f"fastrnn bench: {message}", file=sys.stderr)
    return code
