"""Tensors of a model file as arrays. Every number in them is checked before it is used."""

from __future__ import annotations

import math
import os
import stat

import numpy as np
from onnx import TensorProto

from .._arrays import Array

# dtype, and the field that holds values which are not in raw_data
_TYPES = {
    TensorProto.FLOAT: ("<f4", "float_data"),
    TensorProto.DOUBLE: ("<f8", "double_data"),
    TensorProto.INT32: ("<i4", "int32_data"),
    TensorProto.INT64: ("<i8", "int64_data"),
}
_FIELDS = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


def type_name(number: int) -> str:
    """The name of an element type, for messages."""
    known = TensorProto.DataType.values()
    return TensorProto.DataType.Name(number) if number in known else f"type {number}"


def dtype_of(number: int, what: str) -> np.dtype:
    """The dtype of an element type, or an error that names `what` has it."""
    if number not in _TYPES:
        raise ValueError(
            f"{what}: expected FLOAT, DOUBLE, INT32 or INT64, {type_name(number)} is not supported"
        )
    return np.dtype(_TYPES[number][0]).newbyteorder("=")


def tensor(proto: TensorProto, folder: str | None) -> Array:
    """The values of a tensor, as a read-only array in native byte order."""
    what = f"tensor {proto.name!r}"
    dtype_of(proto.data_type, what)
    code, field = _TYPES[proto.data_type]
    dims = tuple(proto.dims)
    if any(size < 0 for size in dims):
        raise ValueError(f"{what}: dimensions {dims} are negative")
    if proto.HasField("segment"):
        raise ValueError(f"{what}: segments are not supported")
    count = math.prod(dims)
    size = count * np.dtype(code).itemsize
    filled = [name for name in _FIELDS if len(getattr(proto, name))]
    external = proto.data_location == TensorProto.EXTERNAL
    if len(filled) + external + bool(proto.raw_data) > 1 or any(name != field for name in filled):
        raise ValueError(f"{what}: data in more than one place, or in that of another type")
    if filled:
        values = getattr(proto, field)
        if len(values) != count:
            raise ValueError(f"{what}: expected {count} values for {dims}, got {len(values)}")
        array = np.array(values, np.dtype(code)).reshape(dims)
    else:
        data = _external(proto, size, folder) if external else proto.raw_data
        if len(data) != size:
            raise ValueError(f"{what}: expected {size} bytes for {dims}, got {len(data)}")
        array = np.frombuffer(data, code).reshape(dims)
    array = array.astype(array.dtype.newbyteorder("="))
    array.flags.writeable = False
    return array


def _external(proto: TensorProto, size: int, folder: str | None) -> bytes:
    """`size` bytes from the file that a tensor names, which must be inside `folder`."""
    what = f"tensor {proto.name!r}"
    entries: dict[str, str] = {}
    for entry in proto.external_data:
        if entry.key in entries:
            raise ValueError(f"{what}: external data with {entry.key!r} twice")
        entries[entry.key] = entry.value
    location = entries.pop("location", "")
    offset, length = (_number(what, key, entries.pop(key, None)) for key in ("offset", "length"))
    entries.pop("checksum", None)
    if entries:
        raise ValueError(f"{what}: external data with unknown keys {sorted(entries)}")
    if folder is None:
        raise ValueError(
            f"{what}: its data is in another file, {location!r}; external_data= must name the "
            "folder from which such files may be read"
        )
    if length is not None and length != size:
        raise ValueError(f"{what}: expected {size} bytes of external data, got length {length}")
    path = _inside(what, folder, location)
    try:
        with open(path, "rb") as file:
            information = os.fstat(file.fileno())
            if not stat.S_ISREG(information.st_mode):
                raise ValueError(f"{what}: external data {location!r} is not a regular file")
            if (offset or 0) + size > information.st_size:
                raise ValueError(
                    f"{what}: expected {size} bytes at {offset or 0} of {location!r}, which has "
                    f"{information.st_size}"
                )
            file.seek(offset or 0)
            return file.read(size)
    except OSError as error:
        raise ValueError(f"{what}: external data {location!r}: {error.strerror}") from error


def _number(what: str, key: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(f"{what}: expected a number as {key} of external data, got {text!r}")
    return int(text)


def _inside(what: str, folder: str, location: str) -> str:
    """The path of a file below a folder, also after symbolic links; refuses anything else."""
    parts = location.split("/")
    if not location or "\\" in location or "\0" in location or os.path.isabs(location):
        raise ValueError(f"{what}: external data {location!r} is not a relative path")
    if ".." in parts or os.path.splitdrive(location)[0]:
        raise ValueError(f"{what}: external data {location!r} leaves the folder")
    root = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(root, location))
    if os.path.commonpath([root, path]) != root or path == root:
        raise ValueError(f"{what}: external data {location!r} leaves the folder")
    if not os.path.isfile(path):  # before opening: opening a pipe would wait
        raise ValueError(f"{what}: external data {location!r} is not a regular file")
    return path
