"""Results: ratios, the text table, the JSON file and the plot."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from .cases import FORWARD, TRAIN, Case
from .engines import COPY, FASTRNN, FASTRNN_TORCH, LEAKY_ENGINES, LIBRARIES
from .limits import Limits
from .shapes import Shape

_TITLES = {FORWARD: "forward", TRAIN: "forward + backward"}

# Where the cost of a call and of a step weighs most.
_SMALL = (64, 128)


@dataclass(frozen=True)
class Result:
    """One case: seconds of a call, by engine and round, and how far results were off."""

    case: Case
    seconds: dict[str, list[float]]
    difference: dict[str, float]

    def median(self, engine: str) -> float:
        """Return the median over rounds."""
        return median(self.seconds[engine])

    def ratio(self, peer: str) -> float:
        """Return how many times faster fastrnn is: the median of the rounds' ratios."""
        pairs = zip(self.seconds[peer], self.seconds[FASTRNN], strict=True)
        return median(theirs / ours for theirs, ours in pairs)

    def excess(self, engine: str) -> float:
        """Return how many seconds more than fastrnn it takes: the median of the rounds."""
        pairs = zip(self.seconds[engine], self.seconds[FASTRNN], strict=True)
        return median(theirs - ours for theirs, ours in pairs)

    @property
    def peers(self) -> list[str]:
        """The engines of others that compute the same."""
        return [e for e in self.seconds if e not in (FASTRNN, FASTRNN_TORCH, COPY)]

    @property
    def best_peer(self) -> str | None:
        """The peer with the least median."""
        return min(self.peers, key=self.median, default=None)


@dataclass(frozen=True)
class Margin:
    """By how much fastrnn is faster than somebody on some shapes."""

    peer: str
    where: str
    mean: float
    worst: float
    worst_shape: Shape

    @classmethod
    def of(cls, peer: str, where: str, ratios: dict[Shape, float]) -> Margin:
        """Return the geometric mean and the worst."""
        shape = min(ratios, key=ratios.__getitem__)
        return cls(peer, where, geometric_mean(ratios.values()), ratios[shape], shape)

    def __str__(self) -> str:
        which = f"ratio to {self.peer}" if self.where == "all" else f"  {self.where}"
        return f"{which}: geometric mean {self.mean:.2f}, worst {self.worst:.2f} at " + str(
            self.worst_shape
        )


@dataclass(frozen=True)
class Report:
    """A whole run."""

    cell: str
    mode: str
    threads: int
    rounds: int
    min_time: float
    date: str
    isa: str
    versions: dict[str, str]
    limits: Limits | None  # None for leaky: there it is the copy
    results: list[Result]

    def limit(self, result: Result) -> float:
        """Return the fraction of the machine's limit that fastrnn reaches, 1 being all of it."""
        if self.limits is None:
            return result.ratio(COPY)
        return self.limits.seconds(result.case) / result.median(FASTRNN)

    def ratios(self) -> list[float]:
        """Return the ratio to the best peer of each result that has one."""
        return [r.ratio(r.best_peer) for r in self.results if r.best_peer is not None]

    def against(self, peers: Sequence[str]) -> list[Margin]:
        """Return fastrnn's ratio to the fastest of some peers, over all shapes and small ones."""
        names = [p for p in peers if self.results and p in self.results[0].seconds]
        if not names:
            return []
        whom = names[0] if len(names) == 1 else "the fastest of " + ", ".join(names)
        ratios = {r.case.shape: r.ratio(min(names, key=r.median)) for r in self.results}
        parts = {"all": ratios}
        for size in _SMALL:
            parts[f"batch 1, H <= {size}"] = {
                s: v for s, v in ratios.items() if s.batch == 1 and s.hidden_size <= size
            }
        return [Margin.of(whom, where, part) for where, part in parts.items() if part]

    def margins(self) -> list[Margin]:
        """Return `against` for the libraries together, and for PyTorch alone."""
        together, torch = self.against(LIBRARIES), self.against(LIBRARIES[:1])
        return together + [m for m in torch if m not in together]

    def peer_means(self) -> dict[str, float]:
        """Return peer -> geometric mean of fastrnn's ratio to it."""
        peers = self.results[0].peers if self.results else []
        return {p: geometric_mean(r.ratio(p) for r in self.results) for p in peers}


# ---- Text -----------------------------------------------------------------------------------


def table(report: Report) -> str:
    """Return the report as lines of at most 120 columns."""
    engines = list(report.results[0].seconds) if report.results else [FASTRNN]
    head = ["I,H,B,T", *engines, "best peer", "ratio", "GFLOP/s", "of limit"]
    rows = [[*_row(report, result, engines)] for result in report.results]
    return "\n".join([*_preamble(report), "", *aligned([head, *rows]), "", *_summary(report)])


def aligned(rows: list[list[str]]) -> list[str]:
    """Return rows as lines with columns below one another: the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([row[0].ljust(len(first)), *others]))
    return lines


def _row(report: Report, result: Result, engines: list[str]) -> Iterable[str]:
    yield str(result.case.shape)
    for engine in engines:
        yield microseconds(result.median(engine))
    peer = result.best_peer
    yield peer or "-"
    yield f"{result.ratio(peer):.2f}" if peer else "-"
    rate = result.case.flops / result.median(FASTRNN) / 1e9
    yield f"{rate:.1f}" if rate >= 1 else f"{rate:.2f}"
    yield f"{report.limit(result):.0%}"


def microseconds(seconds: float) -> str:
    """Return a time in microseconds with a few digits."""
    value = seconds * 1e6
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _preamble(report: Report) -> Iterable[str]:
    yield (
        f"fastrnn {report.versions[FASTRNN]} ({report.isa}), {_title(report)}, float32, "
        f"{threads_text(report.threads)}, {report.date}"
    )
    yield machine_text()
    yield ", ".join(f"{name} {v}" for name, v in report.versions.items() if name != FASTRNN)
    if report.limits is not None:
        rates = ", ".join(f"{k} {v / 1e9:.0f}" for k, v in report.limits.bandwidth.items())
        yield f"limits: {report.limits.flops / 1e9:.0f} GFLOP/s; reading {rates} GB/s"
    else:
        yield "limit: a NumPy copy of as many bytes as the call must read and write"
    if report.cell == "leaky_rnn" and report.results:
        others = [p for p in report.results[0].peers if p not in LEAKY_ENGINES]
        if others:
            yield f"no leaky layers, so running RNN(tanh) of the same size: {', '.join(others)}"
    yield (
        f"microseconds a call, medians of {report.rounds} interleaved rounds; "
        "ratio = best peer / fastrnn"
    )


def _title(report: Report) -> str:
    return f"{report.cell} {_TITLES[report.mode]}"


def threads_text(threads: int) -> str:
    """Return a number of threads in words."""
    return "1 thread" if threads == 1 else f"{threads} threads"


def _summary(report: Report) -> Iterable[str]:
    ratios = report.ratios()
    if ratios:
        mean, worst = geometric_mean(ratios), min(ratios)
        yield f"ratio to the best peer: geometric mean {mean:.2f}, worst {worst:.2f}"
        means = ", ".join(f"{peer} {mean:.2f}" for peer, mean in report.peer_means().items())
        yield f"ratio to each peer: geometric mean {means}"
    yield from map(str, report.margins())
    if not report.results:
        return
    if FASTRNN_TORCH in report.results[0].seconds:
        mean = geometric_mean(r.ratio(FASTRNN_TORCH) for r in report.results)
        least = min(report.results, key=lambda r: r.median(FASTRNN))
        more = least.excess(FASTRNN_TORCH) * 1e6
        yield (
            f"{FASTRNN_TORCH} / {FASTRNN}: geometric mean {mean:.2f}; "
            f"{more:+.1f} us a call at {least.case.shape}"
        )
    furthest = max(max(result.difference.values()) for result in report.results)
    what = "results agree with" if report.mode == FORWARD else "results and gradients agree with"
    yield f"{what} NumPy's within {furthest:.1e} of the largest value of each array"


# ---- Files ----------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Return what is known about this machine."""
    cpu = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return {"cpu": cpu, "cpus": os.cpu_count(), "system": system}


def machine_text() -> str:
    """Return `machine` as a line."""
    return "{cpu}, {cpus} CPUs, {system}".format(**machine())


def write_json(report: Report, path: Path) -> None:
    """Write everything that was measured, and what the table derives from it."""
    ratios = report.ratios()
    document = {
        "date": report.date,
        "machine": machine(),
        "isa": report.isa,
        "versions": report.versions,
        "cell": report.cell,
        "mode": report.mode,
        "dtype": "float32",
        "threads": report.threads,
        "rounds": report.rounds,
        "min_time": report.min_time,
        "limits": asdict(report.limits) if report.limits is not None else None,
        "results": [_record(report, result) for result in report.results],
        "summary": {
            "geometric_mean_ratio": geometric_mean(ratios) if ratios else None,
            "worst_ratio": min(ratios, default=None),
            "peers": report.peer_means(),
            "margins": [asdict(margin) for margin in report.margins()],
        },
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _record(report: Report, result: Result) -> dict[str, Any]:
    peer = result.best_peer
    return {
        "shape": list(result.case.shape),
        "seconds": result.seconds,
        "median": {engine: result.median(engine) for engine in result.seconds},
        "difference": result.difference,
        "best_peer": peer,
        "ratio": result.ratio(peer) if peer else None,
        "flops": result.case.flops,
        "flops_per_second": result.case.flops / result.median(FASTRNN),
        "fraction_of_limit": report.limit(result),
    }


def plot(report: Report, path: Path) -> None:
    """Draw GFLOP/s of each engine, one line per shape, with the machine's limit as a bar."""
    from matplotlib.figure import Figure

    results = report.results[::-1]
    lines = range(len(results))
    figure = Figure(figsize=(9, 1.5 + 0.32 * len(results)), layout="constrained")
    axes = figure.subplots()
    for engine, marker in zip(results[0].seconds, "os^Dvx", strict=False):
        rates = [r.case.flops / r.median(engine) / 1e9 for r in results]
        ours = engine == FASTRNN
        axes.plot(rates, lines, marker, label=engine, markersize=9 if ours else 6, zorder=3)
    limits = [r.case.flops / r.median(FASTRNN) / report.limit(r) / 1e9 for r in results]
    axes.plot(limits, lines, "|", color="black", markersize=14, label="limit")
    axes.set_xscale("log")
    axes.set_yticks(lines, [str(r.case.shape) for r in results])
    axes.set_xlabel("GFLOP/s")
    axes.set_ylabel("I,H,B,T")
    axes.set_title(f"{_title(report)}, {threads_text(report.threads)}, {report.isa}, {report.date}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=120)
