"""What the experiments on time scales share: options, progress, tables, plots."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for the other examples


def parse(
    text: str, needs: Sequence[str], argv: Sequence[str] | None, plots: bool = True
) -> argparse.Namespace:
    """Return the options; refuse what cannot be done before the work, not after it.

    Args:
        text: what the experiment shows.
        needs: modules beyond NumPy and fastrnn.
        argv: arguments; None for those of the program.
        plots: whether it draws any.
    """
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--quick", action="store_true", help="a smaller run, of some seconds")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default: 0)")
    parser.set_defaults(out=None)
    if plots:
        parser.add_argument("--out", type=Path, metavar="FOLDER", help="draw plots (matplotlib)")
    args = parser.parse_args(argv)
    if args.out is not None and not args.out.is_dir():
        parser.error(f"--out: no directory {args.out}")
    for module in (*needs, *(["matplotlib"] if args.out is not None else [])):
        if find_spec(module) is None:
            parser.error(f"{module} is needed")
    return args


def progress(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Go through the items: with a bar in a terminal that has tqdm, else with a few lines."""
    if sys.stderr.isatty() and find_spec("tqdm") is not None:
        from tqdm import tqdm

        yield from tqdm(items, desc=label)
        return
    for number, item in enumerate(items, 1):
        yield item
        if number * 5 // len(items) > (number - 1) * 5 // len(items):
            print(f"{label}: {number} of {len(items)}", file=sys.stderr, flush=True)


def one_thread() -> AbstractContextManager[Any]:
    """A context in which NumPy's products keep to one thread, where threadpoolctl is there.

    Matrices here are so small that threads would wait for each other for most of the time.
    """
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, as docs/time_scales.md has it."""
    print(f"| {' | '.join(head)} |")
    print("|---" * len(head) + "|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def axes(width: float = 7, height: float = 4) -> tuple[Any, Any]:
    """Return a figure, without a window, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def save(figure: Any, axes: Any, path: Path) -> None:
    """Write the figure with a legend and a grid."""
    axes.legend(fontsize="small", ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
