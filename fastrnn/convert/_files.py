"""Model files of every kind that can be converted, by what their names end with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from copy import copy
from typing import Any

from .. import _core, io
from .._base import Layer
from ._keras_files import from_keras_file
from ._torch import from_torch, own_names

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


def load(
    path: str | os.PathLike[str],
    *,
    layer: str | None = None,
    prefix: str | None = None,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    activation: str | None = None,
    recurrent_activation: str | None = None,
    reset_after: bool | None = None,
) -> Layer:
    """The layer in a file of fastrnn or of another system.

    Args:
        path: `.safetensors`, of fastrnn or with a state_dict of PyTorch; `.onnx`; `.keras` or
            `.weights.h5`.
        layer: for ONNX the name of a node, for Keras that of a layer; None for the only one.
        prefix, batch_first, nonlinearity: of a state_dict, see `from_torch`.
        activation, recurrent_activation, reset_after: of `.weights.h5`, see `from_keras_file`.

    Raises:
        ValueError: if the file is none of these, is damaged, or holds what cannot be one layer of
            fastrnn; or if an argument is not for such files. Pickles (`.pt`) are never read: that
            would run whatever code is in them.
        OSError: if it cannot be read.
        ImportError: if a package is missing that such files need.

    Example:
        >>> import fastrnn, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fastrnn.LSTM(3, 8).save(folder + "/net.safetensors")
        ...     load(folder + "/net.safetensors")
        LSTM(3, 8)
    """
    name = os.fspath(path).lower()
    given = {"prefix": prefix, "batch_first": batch_first, "nonlinearity": nonlinearity}
    keras = {"activation": activation, "recurrent_activation": recurrent_activation}
    given |= keras | {"reset_after": reset_after, "layer": layer}
    arguments = {argument: value for argument, value in given.items() if value is not None}
    readers: dict[str, tuple[Callable[..., Layer], tuple[str, ...]]] = {
        ".safetensors": (_from_safetensors, ("prefix", "batch_first", "nonlinearity")),
        ".onnx": (_from_onnx, ("layer",)),
        ".weights.h5": (from_keras_file, ("layer", *keras, "reset_after")),
        ".keras": (from_keras_file, ("layer",)),
    }
    for ending, (reader, known) in readers.items():
        if name.endswith(ending):
            for argument in arguments:
                if argument not in known:
                    raise ValueError(f"{argument}: not for {ending} files")
            return reader(path, **arguments)
    expected = f"expected a file ending with {', '.join(readers)}"
    if name.endswith(_PICKLES):
        raise ValueError(
            f"{expected}; a pickle can run any code when it is read. For PyTorch: "
            "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        )
    raise ValueError(expected)


def save(layer: Layer, path: str | os.PathLike[str]) -> None:
    """Writes a layer as `.safetensors`, for `fastrnn.load` and the C library, or as `.onnx`.

    Raises:
        TypeError, ValueError: if the name ends with neither, or ONNX has no such layer.
        OSError: if the file cannot be written.
        ImportError: if a package is missing that such files need.

    Example:
        >>> import fastrnn, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(fastrnn.RNN(3, 8), folder + "/net.safetensors")
        ...     fastrnn.load(folder + "/net.safetensors")
        RNN(3, 8)
    """
    name = os.fspath(path).lower()
    if name.endswith(".safetensors"):
        layer.save(path)
    elif name.endswith(".onnx"):
        from .. import onnx

        onnx.save(layer, path)
    else:
        raise ValueError("expected a name that ends with .safetensors or .onnx")


def _from_safetensors(path: str | os.PathLike[str], **arguments: Any) -> Layer:
    """Of fastrnn, or with a state_dict of PyTorch; only its own tensors need a known dtype."""
    with open(path, "rb") as file:
        data = file.read()
    if _is_ours(data):
        for argument in arguments:
            raise ValueError(f"{argument}: the file says it, it is one of fastrnn")
        return io.loads(data)
    _, tensors = _core.open_model(data, True)
    names = own_names(tensors, arguments.get("prefix"))
    return from_torch(io._arrays({name: tensors[name] for name in names}), **arguments)


def _is_ours(data: bytes) -> bool:
    """Whether the header has the configuration of a net; a damaged one is for the reader."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return "fastrnn" in header["__metadata__"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _from_onnx(path: str | os.PathLike[str], layer: str | None = None) -> Layer:
    """The layer of a whole graph, or of a node of any graph."""
    from .. import onnx

    if layer is None:
        try:
            model = onnx.load(path)
        except ValueError:
            parts = list(onnx.layers(path).values())
            if len(parts) > 1:
                raise
            batch_first = None
        else:
            parts, batch_first = list(model.parts), model.batch_first
    else:
        nodes = onnx.layers(path)
        if layer not in nodes:
            raise ValueError(f"layer: no recurrent node {layer!r}, there are {', '.join(nodes)}")
        parts, batch_first = [nodes[layer]], None
    if len(parts) != 1:
        names = "; ".join(", ".join(part.names) for part in parts)
        raise ValueError(f"layer: expected one, the graph has several: {names}")
    (part,) = parts
    held = {"reverse": part.reverse or None, "state": part.state, "lengths": part.lengths}
    for what, value in held.items():
        if value is not None:
            raise ValueError(f"node {part.names[0]}: it has a {what}, which a layer does not keep")
    result = copy(part.layer)
    if batch_first is not None:
        result.batch_first = batch_first
    return result
