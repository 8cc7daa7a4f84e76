"""Model files: safetensors with PyTorch's parameter names, the architecture as one JSON string.

The format is described in csrc/fastrnn.h. Files are read and validated by the C library, so that
Python and a device accept the same files.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from typing import Any

import numpy as np

from . import _core
from ._arrays import Array
from ._base import Layer
from .layers import LSTM, RNN, LeakyRNN
from .leaky import Leaky

_DTYPES = {"F32": "<f4", "F64": "<f8"}


def save(layer: Layer, path: str | os.PathLike[str]) -> None:
    """Writes a layer to a file that `load`, the C library and the safetensors package read.

    The file appears under its name only when it is complete.

    Example:
        >>> import fastrnn, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(fastrnn.RNN(3, 8, seed=0), folder + "/rnn.safetensors")
        ...     fastrnn.load(folder + "/rnn.safetensors")
        RNN(3, 8)
    """
    data = dumps(layer)
    target = os.path.abspath(os.fspath(path))
    temporary = f"{target}.{secrets.token_hex(4)}"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def dumps(layer: Layer) -> bytes:
    """The bytes of a layer's model file."""
    config = {
        "format": 1,
        "cell": layer._cell,
        "activation": layer.activation,
        "input_size": layer.input_size,
        "hidden_size": layer.hidden_size,
        "num_layers": layer.num_layers,
        "bidirectional": layer.bidirectional,
        "bias": getattr(layer, "bias", True),
        "batch_first": layer.batch_first,
    }
    header: dict[str, Any] = {"__metadata__": {"fastrnn": json.dumps(config)}}
    chunks, end = [], 0
    code = "F32" if layer.dtype == np.float32 else "F64"
    for name, array in layer.parameters().items():
        data = array.astype(_DTYPES[code]).tobytes()
        header[name] = {
            "dtype": code,
            "shape": list(array.shape),
            "data_offsets": [end, end + len(data)],
        }
        chunks.append(data)
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def _read(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _arrays(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> dict[str, Array]:
    arrays = {}
    for name, (dtype, shape, data) in tensors.items():
        if dtype not in _DTYPES:
            raise ValueError(f"tensor {name!r}: expected dtype F32 or F64, got {dtype}")
        array = np.frombuffer(data, _DTYPES[dtype]).reshape(shape)
        arrays[name] = array.astype(array.dtype.newbyteorder("="))
    return arrays


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The tensors of any safetensors file of float32 and float64 data, by name.

    A `state_dict` of PyTorch saved with the safetensors package is read this way without PyTorch:
    `layer.load_state_dict(fastrnn.load_tensors(path))`.

    Raises:
        ValueError: if the file is not valid safetensors, or has tensors of another dtype.
        OSError: if it cannot be read.

    Example:
        >>> import fastrnn, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fastrnn.RNN(3, 8, bias=False).save(folder + "/rnn.safetensors")
        ...     {name: a.shape for name, a in load_tensors(folder + "/rnn.safetensors").items()}
        {'weight_ih_l0': (8, 3), 'weight_hh_l0': (8, 8)}
    """
    _, tensors = _core.open_model(_read(path), True)
    return _arrays(tensors)


def load(path: str | os.PathLike[str]) -> Layer:
    """The layer in a model file: what `layer.save(path)` wrote, or PyTorch's names with metadata.

    Raises:
        ValueError: if anything about the file is not as it must be; the message says what.
        OSError: if it cannot be read.

    Example:
        >>> import fastrnn, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fastrnn.LSTM(3, 8, num_layers=2).save(folder + "/net.safetensors")
        ...     load(folder + "/net.safetensors")
        LSTM(3, 8, num_layers=2)
    """
    return loads(_read(path))


def loads(data: bytes) -> Layer:
    """The layer in the bytes of a model file; see `load`."""
    config, tensors = _core.open_model(data)
    arrays = _arrays(tensors)
    cell, dtype = config["cell"], config["dtype"]
    sizes = (config["input_size"], config["hidden_size"], config["num_layers"])
    options = {key: config[key] for key in ("bias", "batch_first", "bidirectional", "dtype")}
    layer: Layer
    if cell == "leaky":
        layer = Leaky(sizes[1], batch_first=config["batch_first"], dtype=dtype)
    elif cell == "lstm":
        layer = LSTM(*sizes, **options)
    elif cell == "rnn":
        layer = RNN(*sizes, nonlinearity=config["activation"], **options)
    else:
        form = cell.removeprefix("leaky_")
        layer = LeakyRNN(*sizes, nonlinearity=config["activation"], form=form, **options)
    layer.load_state_dict(arrays)
    return layer
