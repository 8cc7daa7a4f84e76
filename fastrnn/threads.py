"""How many threads a call may use."""

from __future__ import annotations

from ._arrays import check_size

_num_threads = 1


def set_num_threads(n: int) -> None:
    """Sets how many threads a call may use. Calls run on one thread in this version, whatever is set."""
    global _num_threads
    _num_threads = check_size("n", n)


def get_num_threads() -> int:
    """What `set_num_threads` was given last; 1 at first."""
    return _num_threads
