"""Arrays at the border: what is accepted, what is converted, and the words for what is not."""

from __future__ import annotations

import sys
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


def as_array(name: str, value: Any) -> Array:
    """Anything array-like as an array, without a copy where that can be."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a plain array, got a masked one")
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
    array = as_array(name, value)
    if array.dtype == dtype:
        return array
    plain = not hasattr(value, "dtype")  # lists of Python numbers have no precision to lose
    kind, native = array.dtype.kind, array.dtype.newbyteorder("=")
    if kind in "biu" or (kind == "f" and (native.itemsize <= dtype.itemsize or plain)):
        return array.astype(dtype)
    raise TypeError(f"{name}: expected {dtype}, got {describe(value)}")


def as_input(name: str, value: Any, dtype: np.dtype) -> Array:
    """As `as_real`, in a layout that the kernels read: features contiguous, aligned."""
    array = as_real(name, value, dtype)
    return array if _regular(array) else np.array(array, dtype, order="C")


def _regular(array: Array) -> bool:
    size = array.itemsize
    return array.size == 0 or (
        array.flags.aligned
        and (array.ndim == 0 or array.shape[-1] == 1 or array.strides[-1] == size)
        and all(stride % size == 0 for stride in array.strides)
    )


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """`out` if the result can be written straight into it, an error otherwise."""
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise TypeError(f"out: expected an array of {dtype}, got {describe(out)}")
    if out.shape != shape:
        raise ValueError(f"out: expected shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: expected a writeable array, got a read-only one")
    if not _regular(out):
        raise ValueError(
            f"out: expected an aligned array with contiguous features, got strides {out.strides}"
        )
    return out


def check_size(name: str, value: Any) -> int:
    """A Python int of at least 1 that C can count to."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if not 1 <= value <= sys.maxsize:
        raise ValueError(f"{name}: expected 1 to {sys.maxsize}, got {value}")
    return int(value)


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """One of the choices."""
    if not any(
        value is choice or (isinstance(value, str) and value == choice) for choice in choices
    ):
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
        dtype = None if value is None else np.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in ("float32", "float64") or not dtype.isnative:
        raise TypeError(f"dtype: expected float32 or float64, got {value!r}")
    return dtype
