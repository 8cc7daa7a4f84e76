"""Progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol


class Progress(Protocol):
    """Says which of so many pieces of work is under way."""

    def show(self, text: str) -> None:
        """Name the piece that begins."""

    def advance(self) -> None:
        """Count it as done."""


class _Lines:
    """Progress where nobody watches: one line per shape."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    def show(self, text: str) -> None:
        print(f"{self._done + 1}/{self._total} {text}", file=sys.stderr, flush=True)

    def advance(self) -> None:
        self._done += 1


class _Bar:
    """Progress in a terminal, by tqdm."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit="shape", file=sys.stderr, leave=False)

    def show(self, text: str) -> None:
        self._bar.set_description(text)

    def advance(self) -> None:
        self._bar.update()

    def close(self) -> None:
        self._bar.close()


@contextmanager
def progress(total: int) -> Iterator[Progress]:
    """Show progress on stderr: a bar of tqdm in a terminal that has it, otherwise lines."""
    if not sys.stderr.isatty() or find_spec("tqdm") is None:
        yield _Lines(total)
        return
    bar = _Bar(total)
    try:
        yield bar
    finally:
        bar.close()
