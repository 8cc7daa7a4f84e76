"""Files of Keras 3, read without Keras: `.weights.h5`, and `.keras`, a zip of that and a
configuration in JSON.

A layer's variables are the data sets <path>/cell/vars/0, 1, 2; in a Bidirectional
<path>/forward_layer/cell/vars/0, ... Paths are made from class names; what the user called a layer
is the attribute "name" of <path>/vars.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any

from .._arrays import Array
from ..gated import GRU, LSTM
from ..layers import RNN
from ._keras import CLASSES, Options, from_arrays, of_config

_VARIABLE = re.compile(
    r"(?P<path>.+?)(?P<direction>/forward_layer|/backward_layer)?/cell/vars/(?P<index>[0-2])"
)
_CELLS = {"lstm_cell": 4, "gru_cell": 3, "simple_rnn_cell": 1}


def from_keras_file(
    path: str | os.PathLike[str],
    *,
    layer: str | None = None,
    activation: str | None = None,
    recurrent_activation: str | None = None,
    reset_after: bool | None = None,
    go_backwards: bool | None = None,
    dtype: Any = None,
) -> LSTM | GRU | RNN:
    """A layer from a file that Keras 3 wrote: `model.save` or `model.save_weights`.

    Args:
        path: of a `.keras` file, which holds the configuration of its layers, or of a
            `.weights.h5` file, which does not.
        layer: its name in the model, as "gru", inside another model "encoder/gru"; or its path in
            the file. None takes the only one.
        activation, recurrent_activation, reset_after, go_backwards: as of `from_keras`, for
            `.weights.h5`; must be None for `.keras`.
        dtype: float32 or float64; None for that of the file.

    Raises:
        ValueError: if the file is damaged, there is no such layer, or several, or it has what
            fastrnn does not.
        OSError: if the file cannot be read.
        ImportError: without h5py.

    Example:
        >>> import fastrnn, h5py, tempfile
        >>> from fastrnn.convert import to_keras
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with h5py.File(folder + "/net.weights.h5", "w") as file:
        ...         for k, array in enumerate(to_keras(fastrnn.GRU(3, 8))):
        ...             file[f"layers/gru/cell/vars/{k}"] = array
        ...     options = {"activation": "tanh", "recurrent_activation": "sigmoid"}
        ...     from_keras_file(folder + "/net.weights.h5", **options)
        GRU(3, 8, batch_first=True)
    """
    options = Options(activation, recurrent_activation, reset_after, go_backwards)
    with open(path, "rb") as file:
        data = file.read()
    configs: dict[str, tuple[str, Mapping[str, Any]]] | None = None
    if zipfile.is_zipfile(io.BytesIO(data)):
        options.refuse_any("a .keras file")
        config, data = _unzipped(data)
        configs = {}
        try:
            _find_configs(config.get("config"), "", configs)
        except RecursionError as error:
            raise ValueError("config.json: nested too deeply") from error
    label, arrays, bidirectional, gates = _read(data, layer)
    if configs is not None:
        if label not in configs:
            raise ValueError(
                f"layer: the configuration has no LSTM, GRU, SimpleRNN or Bidirectional {label!r}; "
                "load the model with Keras, and use from_keras on the layer"
            )
        options, gates = of_config(*configs[label])
        if (options.bidirectional or False) != bidirectional:
            raise ValueError(f"layer: weights and configuration of {label!r} do not fit")
    else:
        options = Options(**{**vars(options), "bidirectional": bidirectional})
    return from_arrays(arrays, options, gates, dtype)


def _unzipped(data: bytes) -> tuple[Mapping[str, Any], bytes]:
    """The configuration of the model and its weights."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            config = json.loads(archive.read("config.json"))
            weights = archive.read("model.weights.h5")
    except (KeyError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
        raise ValueError(f"not a file of Keras 3: {error}") from error
    if not isinstance(config, dict):
        raise ValueError("config.json: expected an object")
    return config, weights


def _find_configs(node: Any, path: str, configs: dict[str, Any]) -> None:
    """Class name and configuration of each recurrent layer, by the names of what it is in."""
    if isinstance(node, list):
        for each in node:
            _find_configs(each, path, configs)
        return
    if not isinstance(node, dict):
        return
    config, class_name = node.get("config"), node.get("class_name")
    if isinstance(config, dict) and isinstance(class_name, str) and "name" in config:
        path = f"{path}/{config['name']}".removeprefix("/")
        # A class of the user is registered under another name, and may compute anything.
        known = (*CLASSES, "Bidirectional")
        if class_name in known and node.get("registered_name") in (None, class_name):
            configs[path] = class_name, config
            return
    for each in node.values():
        _find_configs(each, path, configs)


def _read(data: bytes, layer: str | None) -> tuple[str, list[Array], bool, int | None]:
    """The names of what the layer is in, or else its path; its arrays, whether they are of both
    directions, and its gates if the name of its cell tells them."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ImportError("files of Keras need h5py: pip install 'fastrnn[keras]'") from error
    try:
        file = h5py.File(io.BytesIO(data), "r")
        return _read_open(file, layer)
    # h5py tells of damage by whichever of these comes up where it is met.
    except (OSError, RuntimeError, LookupError, TypeError, MemoryError) as error:
        raise ValueError(f"not a file of Keras 3: {error}") from error


def _read_open(file: Any, layer: str | None) -> tuple[str, list[Array], bool, int | None]:
    with file:
        objects: dict[str, Any] = {}
        # Visits no links that lead out of the file, or round in it.
        file.visititems(lambda name, value: objects.update({name: value}))
        matches = [m for m in map(_VARIABLE.fullmatch, objects) if m]
        labels: dict[str, str] = {}
        for path in dict.fromkeys(match["path"] for match in matches):
            label = _label(objects, path)
            labels[path if label in labels else label] = path
        label = _chosen(labels, layer)
        path = labels[label]
        own: dict[str, dict[str, str]] = {}
        for match in matches:
            if match["path"] == path:
                own.setdefault(match["direction"] or "", {})[match["index"]] = match[0]
        if set(own) not in ({""}, {"/forward_layer", "/backward_layer"}):
            raise ValueError(f"{path}: expected both directions of a Bidirectional, got {set(own)}")
        ways = sorted(own, reverse=True)
        arrays = [
            _data(own[way][k], objects[own[way][k]]) for way in ways for k in sorted(own[way])
        ]
        cells = {_name(objects, f"{path}{way}/cell") for way in ways}
    return label, arrays, len(own) == 2, _gates(path, cells)


def _data(name: str, dataset: Any) -> Array:
    """The values of a data set that lie in the file as they are, as Keras writes them."""
    if not hasattr(dataset, "shape"):
        raise ValueError(f"{name}: expected a data set")
    if dataset.chunks is not None or dataset.is_virtual or dataset.external:
        raise ValueError(f"{name}: stored in a way that Keras does not use")
    if dataset.dtype.kind not in "fiu" or dataset.id.get_storage_size() != dataset.nbytes:
        raise ValueError(f"{name}: expected numbers, got {dataset.dtype} of shape {dataset.shape}")
    return dataset[()]


def _name(objects: Mapping[str, Any], path: str) -> str | None:
    """What the user called the object at a path; None in files of the first versions."""
    group = objects.get(f"{path}/vars")
    name = None if group is None else group.attrs.get("name")
    return name if isinstance(name, str) else None


def _label(objects: Mapping[str, Any], path: str) -> str:
    """The names of a layer and of what it is in."""
    if _name(objects, path) is None:
        return path
    steps = path.split("/")
    prefixes = ["/".join(steps[:k]) for k in range(1, len(steps) + 1)]
    return "/".join(filter(None, (_name(objects, prefix) for prefix in prefixes)))


def _gates(path: str, names: set[str | None]) -> int | None:
    """By the name that Keras gives to a cell; other cells may compute anything."""
    if names == {None}:
        return None
    known = {_CELLS.get(name or "", 0) for name in names}
    if len(known) > 1 or 0 in known:
        raise ValueError(f"{path}: expected a cell of LSTM, GRU or SimpleRNN, got {names}")
    return known.pop()


def _chosen(found: Mapping[str, Any], layer: str | None) -> str:
    listed = ", ".join(map(repr, found)) or "none"
    if layer is None:
        if len(found) != 1:
            raise ValueError(f"layer: expected the only recurrent one, there are {listed}")
        return next(iter(found))
    if layer not in found:
        raise ValueError(f"layer: no recurrent layer {layer!r}, there are {listed}")
    return layer
