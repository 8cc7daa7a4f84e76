"""Model files that are refused, each with a sentence that names what is wrong."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from model_files import (
    CODES,
    Arrays,
    Config,
    build,
    config_of,
    join,
    read,
    read_tensors,
    split,
    tensors_of,
)
from nets import DTYPES, RICH, Net
from support import refuses, same_bits

MAX_HEADER = 256 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


# ---- Files that are refused -------------------------------------------------------------------

NET = Net("rnn", 3, 2)
LEAKY_NET = Net("leaky_rate", 3, 2, 2, bidirectional=True)
LSTM_NET = Net("lstm", 3, 4, 2, bidirectional=True, **RICH["lstm"])
COUPLED_NET = Net("lstm_coupled", 3, 4, **RICH["lstm_coupled"])
DELAYED_NET = Net("gru", 3, 4, bidirectional=True, delays=(2, 3, 8))
CLOCKED_NET = Net("rnn", 3, 4, periods=(1, 4, 2))
MASKED_NET = Net("leaky_rate", 3, 4, 2, delays=(1, 4), recurrent_mask=("random", 0.5, True))


def parts(net: Net = NET) -> tuple[Config, Arrays]:
    return config_of(net), tensors_of(net)


def refused(path: Path, file: bytes, *facts: Any, bare: bool = True) -> None:
    """Neither function may accept the file; bare: nor is it a file of mere tensors."""
    with refuses(ValueError, *facts):
        read(path, file)
    if bare:
        with refuses(ValueError, *facts):
            read_tensors(path, file)
    else:
        read_tensors(path, file)


def test_a_file_cut_short(path: Path) -> None:
    file = build(*parts())
    data_begin = 8 + int.from_bytes(file[:8], "little")
    for size in range(len(file)):
        with pytest.raises(ValueError, match="header" if size < data_begin else "tensor"):
            read(path, file[:size])
        with pytest.raises(ValueError):
            read_tensors(path, file[:size])
    read(path, file)


@pytest.mark.parametrize(
    "file",
    [
        b"",
        bytes(64),
        b"\xff" * 64,
        b"PK\x03\x04" + bytes(64),
        pickle.dumps({"weight": np.ones(3)}),
        json.dumps({"weight": [1, 2, 3]}).encode(),
    ],
    ids=["empty", "zeros", "ones", "zip", "pickle", "json"],
)
def test_other_files(path: Path, file: bytes) -> None:
    refused(path, file, "header")


@pytest.mark.parametrize("length", [2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1, 2**32, MAX_HEADER + 1])
def test_a_header_length_past_the_end(path: Path, length: int) -> None:
    refused(path, length.to_bytes(8, "little") + build(*parts())[8:], "header")


def test_an_oversized_header(path: Path) -> None:
    header, data = split(build(*parts()))
    text = json.dumps(header)
    read(path, join(text.ljust(MAX_HEADER), data))
    refused(path, join(text.ljust(MAX_HEADER + 1), data), "header", MAX_HEADER, MAX_HEADER + 1)


def test_too_many_tensors(path: Path) -> None:
    arrays = {str(i): np.zeros((), np.float32) for i in range(1025)}
    refused(path, build(None, arrays), "tensors", 1024)
    del arrays["0"]
    assert len(read_tensors(path, build(None, arrays))) == 1024


Edit = Callable[[str], str]


def replace(old: str, new: str) -> Edit:
    def edit(text: str) -> str:
        assert text.count(old) == 1, old
        return text.replace(old, new)

    return edit


# Edits of the header's text for a file of two tensors, left [2, 3] at 0..24, right [4] at 24..40.
LEFT = '"left": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}'
HEADERS: dict[str, tuple[Edit, tuple[Any, ...]]] = {
    "duplicate tensor": (lambda text: f"{text[:-1]}, {LEFT}}}", ("left", "twice")),
    "duplicate empty tensor": (
        lambda text: (
            f'{text[:-1]}, "left": {{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}}}'
        ),
        ("left", "twice"),
    ),
    "duplicate metadata": (
        lambda text: f'{{"__metadata__": {{}}, "__metadata__": {{}}, {text[1:]}',
        ("__metadata__", "twice"),
    ),
    "duplicate metadata key": (
        lambda text: f'{{"__metadata__": {{"k": "1", "k": "2"}}, {text[1:]}',
        ("k", "twice"),
    ),
    "number in the metadata": (
        lambda text: f'{{"__metadata__": {{"epoch": 3}}, {text[1:]}',
        ("epoch", "string"),
    ),
    "duplicate key": (
        replace('"left": {', '"left": {"dtype": "F32", '),
        ("left", "dtype", "twice"),
    ),
    "unknown key": (replace('"left": {', '"left": {"strides": [3, 1], '), ("left", "strides")),
    "missing shape": (replace('"shape": [2, 3], ', ""), ("left", "shape")),
    "missing data_offsets": (replace(', "data_offsets": [0, 24]', ""), ("left", "data_offsets")),
    "one offset": (replace("[0, 24]", "[0]"), ("left", "data_offsets", 1, 2)),
    "three offsets": (replace("[0, 24]", "[0, 24, 24]"), ("left",)),
    "negative dimension": (replace("[2, 3]", "[-2, -3]"), ("left", "number")),
    "fraction": (replace("[2, 3]", "[2.0, 3]"), ("left",)),
    "exponent": (replace("[2, 3]", "[2e0, 3]"), ("left",)),
    "leading zero": (replace("[2, 3]", "[02, 3]"), ("left", "zero")),
    "huge dimension": (replace("[2, 3]", f"[{2**64 + 2}, 3]"), ("left", "large")),
    "product that wraps": (replace("[2, 3]", f"[{2**62 + 2}, 3]"), ("left", "large")),
    "rank 9": (replace("[2, 3]", "[2, 3, 1, 1, 1, 1, 1, 1, 1]"), ("left",)),
    "other shape": (replace("[2, 3]", "[2, 4]"), ("left", (2, 4), 24, 32)),
    "unknown dtype": (replace('"F32", "shape": [2, 3]', '"F33", "shape": [2, 3]'), ("left", "F33")),
    "other dtype": (replace('"F32", "shape": [2, 3]', '"F64", "shape": [2, 3]'), ("left", 24, 48)),
    "escape in a name": (replace('"left"', '"lef\\u0074"'), ("escape",)),
    "control character in a name": (replace('"left"', '"left\x01"'), ("control",)),
    "gap": (replace("[24, 40]", "[25, 41]"), ("right", 40, 41)),
    "overlap": (replace("[24, 40]", "[20, 36]"), ("left", "right", "overlap")),
    "overlap of all": (replace("[24, 40]", "[0, 16]"), ("left", "right", "overlap")),
    "offsets past the end": (replace("[24, 40]", "[28, 44]"), ("right", 40, 44)),
    "offsets turned round": (replace("[24, 40]", "[40, 24]"), ("right", 24, 40)),
    "list": (lambda text: f"[{text}]", ("header",)),
    "space before": (lambda text: f" {text}", ("header",)),
    "text behind": (lambda text: f"{text} {{}}", ("header",)),
    "line feed behind": (lambda text: f"{text}\n", ("header",)),
    "comma at the end": (lambda text: f"{text[:-1]},}}", ("header",)),
    "null": (replace(LEFT, '"left": null'), ("left",)),
}


def two_tensors() -> tuple[str, bytes]:
    arrays = {"left": np.zeros((2, 3), np.float32), "right": np.zeros(4, np.float32)}
    header, data = split(build(None, arrays))
    return json.dumps(header), data


@pytest.mark.parametrize("what", HEADERS)
def test_a_bad_header(path: Path, what: str) -> None:
    edit, facts = HEADERS[what]
    text, data = two_tensors()
    assert len(read_tensors(path, join(text, data))) == 2
    refused(path, join(edit(text), data), *facts)


def test_invalid_utf8(path: Path) -> None:
    text, data = two_tensors()
    for bad in (b"\xff", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"):
        refused(path, join(text.encode().replace(b'"left"', b'"left' + bad + b'"'), data), "UTF-8")


def test_data_that_no_tensor_covers(path: Path) -> None:
    text, data = two_tensors()
    refused(path, join(text, data + b"\0"), 1, "after the last tensor")
    hole = text.replace("[24, 40]", "[28, 44]")
    refused(path, join(hole, data + bytes(4)), 4, "between")
    late = text.replace("[0, 24]", "[40, 64]")
    refused(path, join(late, data + bytes(24)), 24, "between")
    empty = text.replace("[4]", "[0]").replace("[24, 40]", "[12, 12]")
    refused(path, join(empty, data[:24]), "left", "right", "overlap")


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_is_what_the_reference_reads(path: Path, seed: int) -> None:
    """Damaged headers: refused, or read as the safetensors package reads them."""
    rng = np.random.default_rng(seed)
    text, data = two_tensors()
    pieces = [*'"{}[],:\\0148 ', "F64", '"left"', "\\n", "é", "1.0", "-1", "null"]
    accepted = 0
    for _ in range(500):
        damaged = text
        for _ in range(rng.integers(1, 3)):
            at = int(rng.integers(len(damaged)))
            piece = pieces[rng.integers(len(pieces))]
            end = at + int(rng.choice([0, 1, len(piece)]))
            damaged = damaged[:at] + piece + damaged[end:]
        try:
            arrays = read_tensors(path, join(damaged, data))
        except ValueError:
            continue
        expected = safetensors.numpy.load_file(path)
        accepted += 1
        assert arrays.keys() == expected.keys(), damaged
        assert all(same_bits(arrays[name], expected[name]) for name in arrays), damaged
    assert accepted > 0


# ---- Nets that are refused --------------------------------------------------------------------


def names_of(net: Net) -> list[str]:
    return list(tensors_of(net))


EACH_NAME = [
    pytest.param(net, name, id=f"{net}-{name}")
    for net in (NET, Net("leaky", 5, 5), LEAKY_NET, Net("gru", 3, 2), Net("mingru", 3, 2))
    + (LSTM_NET, COUPLED_NET, DELAYED_NET, CLOCKED_NET, MASKED_NET)
    for name in names_of(net)
]


@pytest.mark.parametrize(("net", "name"), EACH_NAME)
def test_a_missing_tensor(path: Path, net: Net, name: str) -> None:
    config, arrays = parts(net)
    del arrays[name]
    refused(path, build(config, arrays), name, bare=False)


@pytest.mark.parametrize(("net", "name"), EACH_NAME)
def test_a_tensor_of_another_shape(path: Path, net: Net, name: str) -> None:
    config, arrays = parts(net)
    array = arrays[name]
    for wrong in (array[:-1], array[None], array.ravel()[0], np.concatenate([array, array])):
        changed = arrays | {name: np.asarray(wrong)}
        refused(path, build(config, changed), name, array.shape, wrong.shape, bare=False)


@pytest.mark.parametrize(("net", "name"), EACH_NAME)
def test_a_tensor_of_another_dtype(path: Path, net: Net, name: str) -> None:
    config, arrays = parts(net)
    for dtype in ("float16", "int32"):
        changed = arrays | {name: arrays[name].astype(dtype)}
        refused(path, build(config, changed), name, CODES[dtype])
    if len(arrays) > 1:
        first, second = list(arrays)[:2]
        odd = second if name == first else name  # the first tensor sets the dtype
        changed = arrays | {name: arrays[name].astype(np.float64)}
        expected = "BOOL" if name.startswith("recurrent_mask") else "F32"
        refused(path, build(config, changed), odd, expected, "F64", bare=False)


@pytest.mark.parametrize(
    "name",
    [
        "extra",
        "alpha",
        "alpha_l0",
        "weight_ih_l1",
        "weight_ih_l0_reverse",
        "weight_ih_l00",
        "weight_ih_l-1",
        "weight_ih",
        "weight_hr_l0",
        "peephole_l0",
        "weight_hh_l0_d1",
        "weight_hh_l0_d8",
        "Weight_ih_l0",
        "rnn.weight_ih_l0",
    ],
)
def test_a_tensor_too_many(path: Path, name: str) -> None:
    config, arrays = parts()
    for extra in (arrays["weight_ih_l0"], np.zeros(0, np.float32)):
        refused(path, build(config, arrays | {name: extra}), name, bare=False)


def test_biases_that_the_architecture_denies(path: Path) -> None:
    config, arrays = parts()
    refused(path, build(config | {"bias": False}, arrays), "bias_ih_l0", bare=False)
    for name in ("bias_ih_l0", "bias_hh_l0"):
        del arrays[name]
    refused(path, build(config, arrays), "bias_ih_l0", bare=False)
    assert read(path, build(config | {"bias": False}, arrays)).bias is False


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"format": 2}, ("format", 2, 1)),
        ({"format": "1"}, ("format",)),
        ({"format": 1.0}, ()),
        ({"cell": "elman"}, ("cell", "elman")),
        ({"cell": "gru"}, ("weight_ih_l0", (2, 3), (6, 3))),
        ({"cell": "mingru"}, ("weight_ih_l0", (2, 3), (4, 3))),
        ({"cell": "RNN"}, ("cell", "RNN")),
        ({"cell": 1}, ("cell",)),
        ({"cell": None}, ("cell",)),
        ({"cell": "lstm"}, ("weight_ih_l0", (2, 3), (8, 3))),
        ({"cell": "leaky"}, ("leaky", "input_size", "hidden_size")),
        ({"cell": "leaky_rate"}, ("alpha_l0",)),
        ({"activation": "gelu"}, ("activation", "gelu")),
        ({"activation": "elu"}, ("activation", "elu", "one parameter")),
        ({"activation": "tanh(0x1.0p+0)"}, ("activation", "no parameters")),
        ({"activation": "elu(-0x1.0p+0)"}, ("activation", "elu(-0x1.0p+0)", "rnn")),
        ({"activation": "affine(0x1.0p+0)"}, ("activation", "two parameters")),
        ({"activation": ["elu", 1.0]}, ("activation", "string")),
        ({"gate_activation": "tanh"}, ("gate_activation", "tanh", "rnn")),
        ({"output_activation": "relu"}, ("output_activation", "relu", "rnn")),
        ({"activation": ""}, ("activation",)),
        ({"input_size": 0}, ("input_size", 0)),
        ({"input_size": -3}, ("input_size",)),
        ({"input_size": "3"}, ("input_size",)),
        ({"input_size": [3]}, ("input_size",)),
        ({"input_size": True}, ("input_size",)),
        ({"input_size": 4}, ("weight_ih_l0", (2, 3), (2, 4))),
        ({"hidden_size": 0}, ("hidden_size", 0)),
        ({"hidden_size": 3}, ("weight_ih_l0", (2, 3), (3, 3))),
        ({"hidden_size": 2**63}, (2**63,)),
        ({"hidden_size": 2**64}, ("hidden_size",)),
        ({"num_layers": 0}, ("num_layers", 0)),
        ({"num_layers": 2}, ("weight_ih_l1",)),
        ({"num_layers": 2**60}, ("weight_ih_l1",)),
        ({"bidirectional": True}, ("weight_ih_l0_reverse",)),
        ({"bidirectional": 1}, ("bidirectional",)),
        ({"bias": "true"}, ("bias",)),
        ({"batch_first": None}, ("batch_first",)),
        ({"proj_size": 1}, ("proj_size", 1, "rnn")),
        ({"proj_size": -1}, ("proj_size",)),
        ({"proj_size": None}, ("proj_size",)),
        ({"peephole": True}, ("peephole", "rnn")),
        ({"peephole": 1}, ("peephole",)),
        ({"go_backwards": "false"}, ("go_backwards",)),
        ({"go_backwards": True, "bidirectional": True}, ("go_backwards", "bidirectional")),
        ({"clip": 3}, ("clip", "string")),
        ({"clip": 3.0}, ("clip", "string")),
        ({"clip": None}, ("clip", "string")),
        ({"clip": "3.0"}, ("clip", "3.0", "0x1.8p+1")),
        ({"clip": "inf"}, ("clip", "inf")),
        ({"clip": "nan"}, ("clip", "nan")),
        ({"clip": "0x1.8p+1024"}, ("clip", "0x1.8p+1024")),
        ({"clip": "-0x1.8p+1"}, ("clip", "-0x1.8p+1", "rnn")),
        ({"cell_clip": "0x1.8p+1"}, ("cell_clip", "0x1.8p+1", "rnn")),
        ({"dropout": 0.5}, ("dropout",)),
        ({"": 1}, ()),
    ],
    ids=str,
)
def test_a_bad_architecture(path: Path, change: Config, facts: tuple[Any, ...]) -> None:
    config, arrays = parts()
    refused(path, build(config | change, arrays), *facts, bare=False)


@pytest.mark.parametrize("key", ["format", "cell", "input_size", "hidden_size"])
def test_an_architecture_without_a_required_key(path: Path, key: str) -> None:
    config, arrays = parts()
    del config[key]
    refused(path, build(config, arrays), key, "missing", bare=False)


def test_options_that_the_tensors_deny(path: Path) -> None:
    config, arrays = parts(LSTM_NET)
    for change, facts in [
        ({"proj_size": 0}, ("weight_hh_l0", (16, 3), (16, 4))),
        ({"proj_size": 2}, ("weight_hh_l0", (16, 3), (16, 2))),
        ({"proj_size": 2**62}, ("weight_hh_l0", (16, 3), (16, 2**62))),
        ({"peephole": False}, ("peephole_l0",)),
        ({"cell": "lstm_coupled"}, ("weight_ih_l0", (16, 3), (12, 3))),
        ({"cell": "gru"}, ("proj_size", 3, "gru")),
    ]:
        with refuses(ValueError, *facts):
            read(path, build(config | change, arrays))


def test_fractions_are_those_of_float_hex(path: Path) -> None:
    """Any text: what is read is what float.fromhex reads of float.hex's own forms, or refused."""
    rng = np.random.default_rng(0)
    config, arrays = parts()
    pieces = [*"0123456789abcdefABCDEFxXpP+-. ", "0x1.", "0x0.", "p-1022", "p+1023", "p+0"]
    accepted = 0
    for _ in range(2000):
        number = float(np.ldexp(rng.uniform(0, 1), int(rng.integers(-1074, 1024))))
        text = number.hex()
        for _ in range(rng.integers(1, 3)):
            at, end = sorted(rng.integers(0, len(text) + 1, 2))
            text = text[:at] + pieces[rng.integers(len(pieces))] + text[min(end, at + 2) :]
        try:
            clip = read(path, build(config | {"clip": text}, arrays)).clip
        except ValueError:
            continue
        accepted += 1
        expected = float.fromhex(text)
        assert (clip or 0.0) == expected
        whole, exponent = expected.hex().split("p")
        assert text.split("p")[1] == exponent and whole.startswith(text.split("p")[0].rstrip("0"))
    assert accepted > 100


def test_an_architecture_that_is_no_object_of_single_keys(path: Path) -> None:
    config, arrays = parts()
    header, data = split(build(config, arrays))
    good = json.dumps(config)
    twice = good.replace("{", '{"cell": "rnn", ')
    for text, facts in [
        ("", ()),
        ("rnn", ()),
        ("[]", ()),
        (good[:-1], ()),
        (good + good, ()),
        (twice, ("cell", "twice")),
        (good.ljust(4097), (4096,)),
        (good.replace("rnn", "r\\u006en"), ("cell",)),
    ]:
        header["__metadata__"] = {"fastrnn": text}
        refused(path, join(header, data), "fastrnn", *facts, bare=False)
    for metadata in ({}, {"format": "pt"}, {"Fastrnn": good}):
        header["__metadata__"] = metadata
        refused(path, join(header, data), "fastrnn", bare=False)
    del header["__metadata__"]
    refused(path, join(header, data), "fastrnn", bare=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [-1e-6, 1.000001, 2.0, -1.0, np.nan, np.inf, -np.inf])
def test_alpha_out_of_range(path: Path, value: float, dtype: str) -> None:
    for net in (
        Net("leaky", 5, 5, dtype=dtype),
        Net("leaky_potential", 3, 2, 2, True, dtype=dtype),
    ):
        config, arrays = parts(net)
        for name in arrays:
            arrays[name].flat[-1] = value
            if name.startswith("alpha"):
                refused(path, build(config, arrays), name, arrays[name].size - 1, bare=False)
                arrays[name].flat[-1] = 1
        # The last values of the other parameters stay as they are: any number will do there.
        read(path, build(config, arrays))
