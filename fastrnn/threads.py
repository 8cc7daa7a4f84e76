"""How many threads a call may use."""

from __future__ import annotations

from ._arrays import check_size

_num_threads = 1


def set_num_threads(n: int) -> None:
    """Sets how many threads a call may use; in this version a call runs on one, whatever is set.

    Args:
        n: at least 1.

    Raises:
        TypeError, ValueError: if n is not a positive integer.

    Example:
        >>> set_num_threads(1)
        >>> get_num_threads()
        1
    """
    global _num_threads
    _num_threads = check_size("n", n)


def get_num_threads() -> int:
    """What `set_num_threads` was given last; 1 at first.

    Example:
        >>> get_num_threads() >= 1
        True
    """
    return _num_threads
