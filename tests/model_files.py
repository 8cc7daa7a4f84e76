"""Helpers of the tests of model files: files that are written without fastrnn, and read by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from nets import DEFAULTS, Net

import fastrnn

Config = dict[str, Any]
Arrays = dict[str, np.ndarray]

CODES = {"float32": "F32", "float64": "F64", "float16": "F16", "int32": "I32", "bool": "BOOL"}
CODES |= {"uint8": "U8"}


def join(header: Any, data: bytes = b"") -> bytes:
    """A file from its two parts; the header as a dict, a text or bytes."""
    if isinstance(header, dict):
        header = json.dumps(header, ensure_ascii=False)
    if isinstance(header, str):
        header = header.encode()
    return len(header).to_bytes(8, "little") + header + data


def split(file: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a file."""
    end = 8 + int.from_bytes(file[:8], "little")
    return json.loads(file[8:end]), file[end:]


def entry(array: np.ndarray, begin: int) -> dict[str, Any]:
    """What the header says of an array that lies at that byte of the data."""
    return {
        "dtype": CODES[array.dtype.name],
        "shape": list(array.shape),
        "data_offsets": [begin, begin + array.nbytes],
    }


def build(config: Config | None, arrays: Arrays) -> bytes:
    """A file of those arrays, with the metadata key "fastrnn" unless config is None."""
    header: dict[str, Any] = {}
    if config is not None:
        header["__metadata__"] = {"fastrnn": json.dumps(config)}
    data = b""
    for name, array in arrays.items():
        header[name] = entry(array, len(data))
        data += array.tobytes()
    return join(header, data)


PARAMETERS = {"hard_sigmoid": 2, "affine": 2, "scaled_tanh": 2}
PARAMETERS |= {"leaky_relu": 1, "thresholded_relu": 1, "elu": 1}


def as_text(activation: Any) -> str:
    """An activation as it stands in a file; without parameters, those of fastrnn's defaults."""
    if isinstance(activation, str):
        activation = (activation, *fastrnn.RNN(1, 1, nonlinearity=activation).activation[1:])
    name, *parameters = activation
    wanted = [value.hex() for value in parameters[: PARAMETERS.get(name, 0)]]
    return f"{name}({', '.join(wanted)})" if wanted else name


def config_of(net: Net) -> Config:
    """The architecture as a file tells it, every key but those of time structures spelled out."""
    return {
        "format": 1,
        "cell": net.cell,
        "activation": as_text(net.nonlinearity),
        "gate_activation": as_text(net.gate_activation),
        "output_activation": as_text(net.output_activation),
        "input_size": net.input_size,
        "hidden_size": net.hidden_size,
        "proj_size": net.proj_size,
        "num_layers": net.num_layers,
        "bidirectional": net.bidirectional,
        "bias": net.bias,
        "peephole": net.peephole,
        "clip": (net.clip or 0.0).hex(),
        "cell_clip": (net.cell_clip or 0.0).hex(),
        "batch_first": net.batch_first,
        "go_backwards": False,
    } | structure_of(net)


def structure_of(net: Net) -> Config:
    """The keys of the time structure that a net has."""
    config: Config = {}
    if net.dilations is not None:
        config = {"delays": list(net.dilations), "dilated": True}
    elif net.delays != (1,):
        config = {"delays": list(net.delays)}
    if net.periods is not None:
        groups = np.array_split(np.arange(net.hidden_size), len(net.periods))
        sizes = net.group_sizes or [len(group) for group in groups]
        config = {"periods": list(net.periods), "group_sizes": list(sizes)}
    if net.connectivity != "slower":
        config["connectivity"] = net.connectivity
    return config


def parts_of(net: Net) -> list[str]:
    """The names of layers and directions, as those of tensors end."""
    directions = ("", "_reverse")[: net.directions]
    return [f"_l{layer}{direction}" for layer in range(net.num_layers) for direction in directions]


def tensors_of(net: Net) -> Arrays:
    """The tensors of a file of the net: its parameters, and the masks that it may have."""
    arrays: Arrays = net.build().state_dict()
    if net.recurrent_mask is not None:
        shape = (net.num_layers * net.directions, net.hidden_size, net.unit_outputs)
        masks = np.broadcast_to(net.mask(), shape)
        names = [f"recurrent_mask{part}" for part in parts_of(net)]
        arrays |= dict(zip(names, map(np.array, masks), strict=True))
    return arrays


def old_config_of(net: Net) -> Config:
    """The same for a net without options, as it was written before there were any."""
    return {key: value for key, value in config_of(net).items() if key not in NEW_KEYS}


NEW_KEYS = (*DEFAULTS, "go_backwards")


def read(path: Path, file: bytes) -> Any:
    path.write_bytes(file)
    return fastrnn.load(path)


def read_tensors(path: Path, file: bytes) -> Arrays:
    path.write_bytes(file)
    return fastrnn.load_tensors(path)
