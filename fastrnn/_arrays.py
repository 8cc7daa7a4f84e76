"""Arrays at the border: what is accepted, what is converted, and the words for what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def describe(value: object) -> str:
    """The type, shape and dtype of a value, for an error message."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        return type(value).__name__
    return f"shape {tuple(shape)} of {dtype}"


def _as_array(name: str, value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: cannot be read as an array: {error}") from error


def as_real(name: str, value: Any, dtype: np.dtype) -> Array:
    """An array of `dtype` that holds the values exactly; the same memory where it can be.

    Accepted are arrays of `dtype` in any byte order, of narrower floats, of integers and booleans,
    and nested lists of numbers. A wider float, a complex or any other dtype is a TypeError.
    """
    array = _as_array(name, value)
    if array.dtype == dtype:
        return array
    plain = not hasattr(value, "dtype")  # lists of Python numbers have no precision to lose
    kind, native = array.dtype.kind, array.dtype.newbyteorder("=")
    if kind in "biu" or (kind == "f" and (native.itemsize <= dtype.itemsize or plain)):
        return array.astype(dtype)
    raise TypeError(f"{name}: expected {dtype}, got {describe(value)}")


def as_input(name: str, value: Any, dtype: np.dtype) -> Array:
    """As `as_real`, laid out so that the kernels can read it: features contiguous, aligned."""
    array = as_real(name, value, dtype)
    size = array.itemsize
    regular = (
        array.flags.aligned
        and (array.ndim == 0 or array.shape[-1] <= 1 or array.strides[-1] == size)
        and all(stride % size == 0 for stride in array.strides)
    )
    return array if regular else np.array(array, dtype, order="C")


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype, *inputs: Array) -> Array:
    """`out` if the result can be written straight into it, an error otherwise."""
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise TypeError(f"out: expected an array of {dtype}, got {describe(out)}")
    if out.shape != shape:
        raise ValueError(f"out: expected shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: expected a writeable array, got a read-only one")
    size = out.itemsize
    if (
        not out.flags.aligned
        or (out.ndim > 0 and out.shape[-1] > 1 and out.strides[-1] != size)
        or any(stride % size for stride in out.strides)
    ):
        raise ValueError(
            f"out: expected an aligned array with contiguous features, got strides {out.strides}"
        )
    for other in inputs:
        if np.may_share_memory(out, other):
            raise ValueError("out: must not overlap x or the state")
    return out


def check_size(name: str, value: Any, least: int = 1) -> int:
    """A Python int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return int(value)


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """One of the choices."""
    if not any(value is choice or (isinstance(value, str) and value == choice)
               for choice in choices):
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_flag(name: str, value: Any) -> bool:
    """A bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def check_dtype(value: Any) -> np.dtype:
    """float32 or float64."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        dtype = None
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype: expected float32 or float64, got {value!r}")
    return dtype
