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
from ._activations import SIGMOID, TANH, as_text
from ._arrays import Array
from ._base import Layer
from .gated import GRU, LSTM, MinGRU
from .layers import RNN, LeakyRNN
from .leaky import Leaky

_DTYPES = {"F32": "<f4", "F64": "<f8"}


def save(layer: Layer, path: str | os.PathLike[str]) -> None:
    """Writes a layer to a file that `load`, the C library and the safetensors package read.

    The file appears under its name only when it is complete. It holds the net and its weights;
    `dropout`, which only training has, is not kept.

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
    header: dict[str, Any] = {"__metadata__": {"fastrnn": json.dumps(_described(layer))}}
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


def _described(layer: Layer) -> dict[str, Any]:
    """The architecture; options that the layer does not use are left out."""
    config: dict[str, Any] = {
        "format": 1,
        "cell": layer._cell,
        "activation": as_text(layer.activation),
        "input_size": layer.input_size,
        "hidden_size": layer.hidden_size,
        "num_layers": layer.num_layers,
        "bidirectional": layer.bidirectional,
        "bias": getattr(layer, "bias", True),
        "batch_first": layer.batch_first,
    }
    if layer.gate_activation != SIGMOID:
        config["gate_activation"] = as_text(layer.gate_activation)
    if layer.output_activation != TANH:
        config["output_activation"] = as_text(layer.output_activation)
    for name, limit in (("clip", layer.clip), ("cell_clip", layer.cell_clip)):
        if limit is not None:
            config[name] = limit.hex()
    for name in ("proj_size", "peephole", "go_backwards"):
        if getattr(layer, name):
            config[name] = getattr(layer, name)
    return config


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
    layer = _built(config)
    layer.load_state_dict(arrays)
    return layer


def _built(config: dict[str, Any]) -> Layer:
    """A layer of that architecture."""
    cell, activation = config["cell"], config["activation"]
    sizes = (config["input_size"], config["hidden_size"], config["num_layers"])
    if cell == "leaky":
        return Leaky(sizes[1], batch_first=config["batch_first"], dtype=config["dtype"])
    names = ("bias", "batch_first", "bidirectional", "go_backwards", "dtype")
    options: dict[str, Any] = {name: config[name] for name in names}
    options["clip"] = config["clip"] or None
    if cell == "mingru":
        return MinGRU(*sizes, activation=activation, **options)
    if cell == "rnn":
        return RNN(*sizes, nonlinearity=activation, **options)
    if cell.startswith("leaky_"):
        form = cell.removeprefix("leaky_")
        return LeakyRNN(*sizes, nonlinearity=activation, form=form, **options)
    options |= {"activation": activation, "gate_activation": config["gate_activation"]}
    if cell.startswith("gru"):
        return GRU(*sizes, reset_after=cell == "gru", **options)
    options |= {k: config[k] for k in ("proj_size", "peephole", "output_activation")}
    options["cell_clip"] = config["cell_clip"] or None
    return LSTM(*sizes, coupled=cell == "lstm_coupled", **options)
