"""Model files of nets with time structures: which are refused, and what is read of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import Config, build, config_of, parts_of, read, tensors_of
from nets import Net
from support import refuses, same_bits


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


DEEP: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
RANDOM: dict[str, Any] = {"recurrent_mask": ("random", 0.5, True)}
NETS = [
    Net("lstm", 3, 5, delays=(4,)),
    Net("lstm", 3, 5, delays=(1, 8), proj_size=3, **RANDOM),
    Net("gru", 3, 5, delays=(2, 3, 1000), **DEEP),
    Net("gru_reset_before", 3, 5, delays=(2,)),
    Net("mingru", 3, 5, delays=(2,), **DEEP),
    Net("leaky_rate", 3, 5, delays=tuple(range(1, 17))),
    Net("rnn", 3, 5, num_layers=3, bidirectional=True, dilations=(4, 1, 4)),
    Net("lstm", 3, 5, periods=(1, 8, 2), group_sizes=(1, 1, 3), **DEEP),
    Net("mingru", 3, 5, periods=(3,)),
    Net("leaky_potential", 3, 5, periods=(4, 1), connectivity="full"),
    Net("rnn", 3, 18, recurrent_mask=("random", 0.2, False), **DEEP),
    Net("gru", 3, 5, periods=(2, 1), **RANDOM, **DEEP),
]
RECURRENT = [net for net in NETS if net.cell != "mingru"]


@pytest.mark.parametrize("net", NETS, ids=str)
def test_what_is_read(net: Net, path: Path, rng: np.random.Generator) -> None:
    layer = net.build()
    loaded = read(path, build(config_of(net), tensors_of(net)))
    assert type(loaded) is type(layer) and repr(loaded) == repr(layer)
    for name in ("delays", "periods", "group_sizes", "connectivity"):
        assert getattr(loaded, name) == getattr(layer, name), name
    assert (loaded.recurrent_mask is None) == (net.recurrent_mask is None)
    if net.recurrent_mask is not None:
        assert same_bits(loaded.recurrent_mask, layer.recurrent_mask)
    assert list(loaded.parameters()) == list(layer.parameters())
    assert all(map(same_bits, loaded.parameters().values(), layer.parameters().values()))
    x, state = net.input(rng, 9, 2), net.state(rng, 2)
    assert same_bits(loaded(x, state), layer(x, state))


def test_defaults_may_be_spelled_out(path: Path) -> None:
    net = Net("rnn", 3, 2)
    defaults = {"delays": [1], "dilated": False, "connectivity": "slower"}
    loaded = read(path, build(config_of(net) | defaults, tensors_of(net)))
    assert repr(loaded) == repr(net.build()) and loaded.delays == (1,)
    loaded = read(path, build(config_of(net) | {"delays": [(1.0).hex()]}, tensors_of(net)))
    assert loaded.delays == (1,)


def test_delays_with_fractions(path: Path) -> None:
    net = Net("rnn", 3, 2, delays=(1, 2, 7))
    config, arrays = config_of(net), tensors_of(net)
    for delays in [(1.5, 2.0, 7.999), (1, 2 + 2**-40, 7), (1.0, 2.0, 7.5)]:
        written = [d if isinstance(d, int) else d.hex() for d in delays]
        assert read(path, build(config | {"delays": written}, arrays)).delays == delays
    with refuses(ValueError, "weight_hh_l0_d7", "does not belong"):
        read(path, build(config | {"delays": [1, 2, (8.5).hex()]}, arrays))


# ---- The architecture ---------------------------------------------------------------------------

CLOCKS = {"periods": [1, 2], "group_sizes": [3, 1]}
WHOLE, HEX, PARTS = "a whole number", "0x1.8p+1", "whole parts ascend"


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"delays": []}, ("at least one number",)),
        ({"delays": 2}, ("'[' is expected",)),
        ({"delays": None}, ("'[' is expected",)),
        ({"delays": {"1": 2}}, ("'[' is expected",)),
        ({"delays": "12"}, ("'[' is expected",)),
        ({"delays": [0]}, ("[0]", "from 1")),
        ({"delays": [-1]}, (WHOLE,)),
        ({"delays": [True]}, (WHOLE,)),
        ({"delays": [[1]]}, (WHOLE,)),
        ({"delays": [2.0]}, ("']' is expected",)),
        ({"delays": [2.5]}, ("']' is expected",)),
        ({"delays": ["2"]}, (HEX,)),
        ({"delays": ["2.5"]}, (HEX,)),
        ({"delays": ["inf"]}, (HEX,)),
        ({"delays": [(0.5).hex()]}, ("from 1",)),
        ({"delays": [(-2.5).hex()]}, ("negative",)),
        ({"delays": [(2.0**64).hex()]}, ("too large",)),
        ({"delays": [2**64]}, ("too large",)),
        ({"delays": [2**32]}, (2**32, "rnn")),
        ({"delays": [(2.0**32).hex()]}, ("rnn",)),
        ({"delays": [2, 1]}, ("[2, 1]", PARTS)),
        ({"delays": [2, 2]}, (PARTS,)),
        ({"delays": [2, (2.5).hex()]}, (PARTS,)),
        ({"delays": [(2.25).hex(), (2.5).hex()]}, (PARTS,)),
        ({"delays": list(range(1, 18))}, ("too many",)),
        ({"delays": [2], "dilated": 1}, ("true or false",)),
        ({"dilated": True}, ("dilated", "no 'delays'")),
        ({"delays": [1, 2], "dilated": True}, ("[1, 2]", "layers")),
        ({"periods": [1, 2]}, ("periods", "no 'group_sizes'")),
        ({"group_sizes": [3, 1]}, ("group_sizes", "no 'periods'")),
        ({"connectivity": "full"}, ("connectivity", "no 'periods'")),
        (CLOCKS | {"connectivity": "faster"}, ("connectivity", "faster", "slower", "full")),
        (CLOCKS | {"connectivity": True}, ("connectivity", "string")),
        (CLOCKS | {"periods": []}, ("periods", "at least one number")),
        (CLOCKS | {"periods": 2}, ("periods", "'[' is expected")),
        (CLOCKS | {"periods": [0, 1]}, ("periods", "[0, 1]", "from 1")),
        (CLOCKS | {"periods": [1, (2.0).hex()]}, ("periods", WHOLE)),
        (CLOCKS | {"periods": [1, 2**64]}, ("periods", "too large")),
        (CLOCKS | {"periods": [1]}, ("group_sizes", "[3, 1]", "periods")),
        (CLOCKS | {"periods": [1, 2, 3]}, ("group_sizes", "[3, 1]", "periods")),
        (CLOCKS | {"group_sizes": [4, 0]}, ("group_sizes", "[4, 0]", "from 1")),
        (CLOCKS | {"group_sizes": [3, 2]}, ("group_sizes", "[3, 2]", "hidden_size")),
        (CLOCKS | {"group_sizes": [3, 2**64 - 1]}, ("group_sizes", "hidden_size")),
        ({"periods": [1] * 65, "group_sizes": [4]}, ("periods", "too many")),
        (CLOCKS | {"delays": [1, 2]}, ("periods", "[1, 2]", "delays")),
        (CLOCKS | {"delays": [3]}, ("periods", "[1, 2]", "delays")),
        (CLOCKS | {"delays": [1], "dilated": True}, ("periods", "[1, 2]", "delays")),
    ],
    ids=str,
)
def test_a_bad_architecture(path: Path, change: Config, facts: tuple[Any, ...]) -> None:
    net = Net("rnn", 3, 4)
    if "delays" in change and not change.keys() & {"dilated", "periods"}:
        facts = ("delays", *facts)
    with refuses(ValueError, *facts):
        read(path, build(config_of(net) | change, tensors_of(net)))


@pytest.mark.parametrize(
    ("net", "change", "facts"),
    [
        (Net("mingru", 3, 4), {"delays": [1, 2]}, ("delays", "[1, 2]", "mingru")),
        (Net("gru_reset_before", 3, 4), CLOCKS, ("periods", "[1, 2]", "gru_reset_before")),
        (Net("lstm", 3, 4, proj_size=2), CLOCKS, ("periods", "[1, 2]", "lstm", "proj_size")),
        (Net("leaky", 4, 4), {"delays": [2]}, ("delays", "[2]", "leaky")),
        (Net("leaky", 4, 4), {"delays": [1], "dilated": True}, ("delays", "[1]", "leaky")),
        (Net("leaky", 4, 4), CLOCKS, ("periods", "[1, 2]", "leaky")),
    ],
    ids=str,
)
def test_a_structure_that_the_cell_has_not(
    path: Path, net: Net, change: Config, facts: tuple[Any, ...]
) -> None:
    with refuses(ValueError, *facts):
        read(path, build(config_of(net) | change, tensors_of(net)))


# ---- The tensors --------------------------------------------------------------------------------


@pytest.mark.parametrize("net", [n for n in RECURRENT if n.hidden_size < 9], ids=str)
def test_weights_of_no_connection(path: Path, net: Net) -> None:
    """Each recurrent weight in turn: any number where there is a connection, else only 0."""
    config, arrays = config_of(net), tensors_of(net)
    for part, structure in zip(parts_of(net), net.structures(), strict=True):
        connected = structure.connected
        if connected is None:
            connected = np.ones((net.hidden_size, net.unit_outputs), bool)
        names = [f"weight_hh{part}", *(f"weight_hh{part}_d{d}" for d in structure.delays[1:])]
        for name in names[:1] + names[-1:]:
            matrix = arrays[name]
            for row, column in np.ndindex(matrix.shape):
                held = matrix[row, column]
                legal = connected[row % net.hidden_size, column]
                for value in (1e-45, np.nan) if not legal else (np.nan,):
                    matrix[row, column] = value
                    if legal:
                        read(path, build(config, arrays))
                        continue
                    with refuses(ValueError, name, (row, column), "not 0"):
                        read(path, build(config, arrays))
                matrix[row, column] = held
                if not legal:
                    matrix[row, column] = -0.0
                    read(path, build(config, arrays))
                    matrix[row, column] = held


MASKED = Net(
    "rnn", 3, 4, 2, bidirectional=True, delays=(1, 3), recurrent_mask=("random", 0.5, True)
)


def test_what_a_mask_may_hold(path: Path) -> None:
    config, arrays = config_of(MASKED), tensors_of(MASKED)
    changes: list[tuple[Any, int, tuple[Any, ...]]] = [
        ((2, 3), 2, (11, "0 or 1")),
        ((0, 0), 255, (0, "0 or 1")),
        (..., 0, ("no unit reads any",)),
        (1, 0, ("unit 1", "no unit")),
    ]
    for part in parts_of(MASKED):
        name = f"recurrent_mask{part}"
        for place, value, facts in changes:
            mask = arrays[name].view(np.uint8).copy()
            mask[place] = value
            changed = arrays | {name: mask.view(bool)}
            for delay in ("", "_d3"):
                matrix = arrays[f"weight_hh{part}{delay}"].copy()
                matrix[mask == 0] = 0
                changed[f"weight_hh{part}{delay}"] = matrix
            with refuses(ValueError, name, *facts):
                read(path, build(config, changed))


def test_a_row_without_connections_of_other_cells(path: Path) -> None:
    net = Net("leaky_rate", 3, 4, recurrent_mask=("random", 0.5, False))
    arrays = tensors_of(net)
    arrays["recurrent_mask_l0"][2] = False
    arrays["recurrent_mask_l0"][3, 3] = True
    arrays["weight_hh_l0"][2] = 0
    loaded = read(path, build(config_of(net), arrays))
    assert same_bits(loaded.recurrent_mask[0], arrays["recurrent_mask_l0"])


def test_masks_of_some_parts(path: Path) -> None:
    config, arrays = config_of(MASKED), tensors_of(MASKED)
    for part in parts_of(MASKED):
        others = {name: a for name, a in arrays.items() if name != f"recurrent_mask{part}"}
        with refuses(ValueError, f"recurrent_mask{part}", "missing"):
            read(path, build(config, others))
    read(path, build(config, {k: a for k, a in arrays.items() if "mask" not in k}))


@pytest.mark.parametrize("cell", ["mingru", "leaky"])
def test_masks_of_cells_without_a_matrix(path: Path, cell: str) -> None:
    net = Net(cell, 4, 4)
    arrays = tensors_of(net) | {"recurrent_mask_l0": np.ones((4, 4), bool)}
    with refuses(ValueError, "recurrent_mask_l0", "does not belong"):
        read(path, build(config_of(net), arrays))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_masks_of_another_dtype(path: Path, dtype: str) -> None:
    config, arrays = config_of(MASKED), tensors_of(MASKED)
    for part in parts_of(MASKED):
        name = f"recurrent_mask{part}"
        with refuses(ValueError, name, "BOOL"):
            read(path, build(config, arrays | {name: arrays[name].astype(dtype)}))


def test_the_first_tensor_may_be_a_mask(path: Path, rng: np.random.Generator) -> None:
    for dtype in ("float32", "float64"):
        net = Net("lstm", 3, 4, dtype=dtype, recurrent_mask=("random", 0.5, False))
        arrays = dict(reversed(tensors_of(net).items()))
        assert next(iter(arrays)).startswith("recurrent_mask")
        x = net.input(rng, 5, 2)
        assert same_bits(read(path, build(config_of(net), arrays))(x), net.build()(x))
