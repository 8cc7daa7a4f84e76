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

from . import _core, _structure
from ._activations import SIGMOID, TANH, as_text
from ._arrays import Array
from ._base import Layer
from .dilated import CELLS, DilatedRNN
from .gated import GRU, LSTM, MinGRU
from .layers import RNN, LeakyRNN
from .leaky import Leaky

_DTYPES = {"F32": "<f4", "F64": "<f8", "BOOL": "|b1"}
_MASK = "recurrent_mask"


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
    real = "F32" if layer.dtype == np.float32 else "F64"
    tensors = layer.parameters()
    if layer.recurrent_mask is not None:
        suffixes = [suffix for _, suffix in layer._parts()]
        tensors |= {_MASK + s: m for s, m in zip(suffixes, layer.recurrent_mask, strict=True)}
    for name, array in tensors.items():
        code = "BOOL" if name.startswith(_MASK) else real
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
    return config | _described_structure(layer)


def _described_structure(layer: Layer) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if layer._dilated or layer.delays != _structure.PLAIN_DELAYS:
        config["delays"] = [d if isinstance(d, int) else d.hex() for d in layer.delays]
    if layer._dilated:
        config["dilated"] = True
    if layer.periods is not None and layer.group_sizes is not None:
        config["periods"] = list(layer.periods)
        config["group_sizes"] = list(layer.group_sizes)
        if layer.connectivity != "slower":
            config["connectivity"] = layer.connectivity
    return config


def _read(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _arrays(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> dict[str, Array]:
    arrays = {}
    for name, (dtype, shape, data) in tensors.items():
        if dtype not in _DTYPES:
            raise ValueError(f"tensor {name!r}: expected dtype F32, F64 or BOOL, got {dtype}")
        array = np.frombuffer(data, _DTYPES[dtype]).reshape(shape)
        arrays[name] = array.astype(array.dtype.newbyteorder("="))
    return arrays


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The tensors of any safetensors file of float32, float64 and boolean data, by name.

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


def load(path: str | os.PathLike[str], *, delay_scale: float = 1.0) -> Layer:
    """The layer in a model file: what `layer.save(path)` wrote, or PyTorch's names with metadata.

    Args:
        path: of the file.
        delay_scale: k > 0, for `layer.rescaled(k)`: the steps of the input in one step of the input
            that the layer was trained on.

    Raises:
        ValueError: if anything about the file is not as it must be, or it cannot be rescaled so;
            the message says what.
        OSError: if it cannot be read.

    Example:
        >>> import fastrnn, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fastrnn.LSTM(3, 8, num_layers=2).save(folder + "/net.safetensors")
        ...     load(folder + "/net.safetensors")
        LSTM(3, 8, num_layers=2)
    """
    scale = _structure.checked_scale("delay_scale", delay_scale)
    return loads(_read(path)).rescaled(scale)


def loads(data: bytes) -> Layer:
    """The layer in the bytes of a model file; see `load`."""
    config, tensors = _core.open_model(data)
    arrays = _arrays(tensors)
    directions = ("", "_reverse")[: 1 + config["bidirectional"]]
    names = [f"{_MASK}_l{i}{d}" for i in range(config["num_layers"]) for d in directions]
    masks = [arrays.pop(name) for name in names if name in arrays]
    layer = _built(config, np.array(masks) if masks else None)
    layer.load_state_dict(arrays)
    return layer


def _built(config: dict[str, Any], mask: Array | None) -> Layer:
    """A layer of that architecture."""
    sizes = (config["input_size"], config["hidden_size"])
    if config["cell"] == "leaky":
        return Leaky(sizes[1], batch_first=config["batch_first"], dtype=config["dtype"])
    kind, options = _kind(config)
    if mask is not None:
        options["recurrent_mask"] = mask
    delays = config["delays"] or _structure.PLAIN_DELAYS
    whole = tuple(map(int, delays))
    layer: Layer
    if config["dilated"]:
        cell = next(name for name, each in CELLS.items() if each is kind)
        layer = DilatedRNN(cell, *sizes, whole, **options)
    else:
        options |= {"num_layers": config["num_layers"], "delays": whole}
        if config["periods"]:
            options |= {k: config[k] for k in ("periods", "group_sizes", "connectivity")}
        layer = kind(*sizes, **options)
    layer.delays = delays
    return layer


def _kind(config: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The class of its layer, and the options but for those of structure."""
    cell, activation = config["cell"], config["activation"]
    names = ("bias", "batch_first", "bidirectional", "go_backwards", "dtype")
    options: dict[str, Any] = {name: config[name] for name in names}
    options["clip"] = config["clip"] or None
    if cell == "mingru":
        return MinGRU, options | {"activation": activation}
    if cell == "rnn":
        return RNN, options | {"nonlinearity": activation}
    if cell.startswith("leaky_"):
        form = cell.removeprefix("leaky_")
        return LeakyRNN, options | {"nonlinearity": activation, "form": form}
    options |= {"activation": activation, "gate_activation": config["gate_activation"]}
    if cell.startswith("gru"):
        return GRU, options | {"reset_after": cell == "gru"}
    options |= {k: config[k] for k in ("peephole", "output_activation")}
    options |= {"proj_size": config["proj_size"]} if config["proj_size"] else {}
    options |= {"cell_clip": config["cell_clip"] or None, "coupled": cell == "lstm_coupled"}
    return LSTM, options
