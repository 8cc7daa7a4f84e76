"""Time structures in Python: what constructors take and refuse, parameters, copies, files."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from structure_layers import IN, H, each_variant, inputs, mask_of, same_layer
from support import refuses, same_bits

import fastrnn
from fastrnn import GRU, LSTM, RNN, DilatedRNN, LeakyRNN, MinGRU, _structure

LAYERS = (LSTM, GRU, RNN, LeakyRNN, MinGRU)
WITH_WEIGHTS = LAYERS[:-1]


# ---- Constructors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "delays"),
    [
        (1, (1,)),
        (np.int64(7), (7,)),
        ((8, 1), (1, 8)),
        ([4], (4,)),
        (range(1, 17), tuple(range(1, 17))),
        (np.array([2, 1]), (1, 2)),
        ((n for n in (3, 2)), (2, 3)),
    ],
)
def test_delays(given: Any, delays: tuple[int, ...]) -> None:
    layer = RNN(IN, H, delays=given)
    assert layer.delays == delays
    assert all(type(delay) is int for delay in layer.delays)


@pytest.mark.parametrize("make", LAYERS)
def test_delays_that_are_refused(make: Any) -> None:
    for given in (1.0, "1", (1, 2.5), None, [True], True, (1, "a"), [[1, 2]]):
        with refuses(TypeError, "delays"):
            make(IN, H, delays=given)
    for given in (0, -1, (), (1, 1), (0, 2), range(1, 18), 2**32):
        with refuses(ValueError, "delays"):
            make(IN, H, delays=given)


def test_mingru_has_one_delay() -> None:
    assert MinGRU(IN, H, delays=5).delays == (5,)
    with refuses(ValueError, "delays", "MinGRU", (1, 2)):
        MinGRU(IN, H, delays=(1, 2))
    with pytest.raises(TypeError, match="recurrent_mask"):
        MinGRU(IN, H, recurrent_mask=np.ones((H, H), bool))


@pytest.mark.parametrize("make", LAYERS)
def test_periods(make: Any) -> None:
    layer = make(IN, 8, periods=[1, 2, 4])
    assert (layer.periods, layer.group_sizes, layer.connectivity) == (
        (1, 2, 4),
        (3, 3, 2),
        "slower",
    )
    layer = make(IN, 8, periods=np.array([5, 1]), group_sizes=(7, 1), connectivity="full")
    assert (layer.periods, layer.group_sizes, layer.connectivity) == ((5, 1), (7, 1), "full")
    plain = make(IN, 8)
    assert (plain.delays, plain.periods, plain.group_sizes) == ((1,), None, None)


@pytest.mark.parametrize("make", LAYERS)
def test_clocks_that_are_refused(make: Any) -> None:
    for given in (2, "12", (1, 2.0), [True], 1.5):
        with refuses(TypeError, "periods"):
            make(IN, H, periods=given)
    for given in ((), (0,), (1, -2), range(1, 8)):
        with refuses(ValueError, "periods"):
            make(IN, H, periods=given)
    with refuses(ValueError, "periods", 64):
        make(IN, 100, periods=range(1, 66))
    with refuses(TypeError, "group_sizes"):
        make(IN, H, periods=(1, 2), group_sizes=(3.0, 3.0))
    for sizes in ((H,), (2, 2, 2), (1, 4), (0, H), (H, H)):
        with refuses(ValueError, "group_sizes"):
            make(IN, H, periods=(1, 2), group_sizes=sizes)
    with refuses(ValueError, "group_sizes", "periods"):
        make(IN, H, group_sizes=(H,))
    with refuses(ValueError, "connectivity", "periods"):
        make(IN, H, connectivity="full")
    for name in ("faster", None, True):
        with refuses(ValueError, "connectivity"):
            make(IN, H, periods=(1, 2), connectivity=name)
    with refuses(ValueError, "periods", "delays"):
        make(IN, H, periods=(1, 2), delays=2)


def test_clocks_do_not_go_with_everything() -> None:
    with refuses(ValueError, "periods", "proj_size"):
        LSTM(IN, H, periods=(1, 2), proj_size=2)
    with refuses(ValueError, "periods", "reset_after"):
        GRU(IN, H, periods=(1, 2), reset_after=False)
    assert GRU(IN, H, reset_after=False, delays=(1, 2)).delays == (1, 2)


@pytest.mark.parametrize("make", WITH_WEIGHTS)
def test_recurrent_mask(make: Any) -> None:
    one, each = mask_of(H, H), mask_of(4, H, H)
    options: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
    layer = make(IN, H, **options, recurrent_mask=one.tolist())
    assert same_bits(layer.recurrent_mask, np.array([one] * 4))
    assert same_bits(make(IN, H, **options, recurrent_mask=each).recurrent_mask, each)
    with pytest.raises(ValueError, match="read-only"):
        layer.recurrent_mask[0, 0, 0] = False
    one[:] = False
    assert layer.recurrent_mask.any()
    assert make(IN, H).recurrent_mask is None


@pytest.mark.parametrize("make", WITH_WEIGHTS)
def test_masks_that_are_refused(make: Any) -> None:
    for given in (np.ones((H, H)), np.ones((H, H), int), [[1] * H] * H, "mask"):
        with refuses(TypeError, "recurrent_mask"):
            make(IN, H, recurrent_mask=given)
    for shape in ((H,), (H, H + 1), (2, H, H), (1, 1, H, H), ()):
        with refuses(ValueError, "recurrent_mask", (H, H), (1, H, H), shape):
            make(IN, H, recurrent_mask=np.ones(shape, bool))
    with refuses(ValueError, "recurrent_mask"):
        make(IN, H, recurrent_mask=np.zeros((H, H), bool))
    second = np.ones((2, H, H), bool)
    second[1] = False
    with refuses(ValueError, "recurrent_mask[1]"):
        make(IN, H, 2, recurrent_mask=second)


def test_units_of_rnn_must_read_one() -> None:
    mask = np.ones((H, H), bool)
    mask[3] = False
    for make in (LSTM, GRU, LeakyRNN):
        assert not make(IN, H, recurrent_mask=mask).recurrent_mask[0, 3].any()
    with refuses(ValueError, "recurrent_mask", "unit 3 reads no unit"):
        RNN(IN, H, recurrent_mask=mask)
    with refuses(ValueError, "recurrent_mask", "unit 3 reads no unit"):
        DilatedRNN("rnn", IN, H, recurrent_mask=mask)


def test_masks_of_projections() -> None:
    assert LSTM(IN, H, proj_size=2, recurrent_mask=mask_of(H, 2)).recurrent_mask.shape == (1, H, 2)
    with refuses(ValueError, "recurrent_mask", (H, 2), (H, H)):
        LSTM(IN, H, proj_size=2, recurrent_mask=mask_of(H, H))


# ---- Parameters -------------------------------------------------------------------------------


def test_names_and_order_of_parameters() -> None:
    layer = RNN(IN, H, 2, bidirectional=True, delays=(8, 1, 3))
    expected = []
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        expected += ["weight_ih" + suffix]
        expected += ["weight_hh" + suffix + end for end in ("", "_d3", "_d8")]
        expected += ["bias_ih" + suffix, "bias_hh" + suffix]
    assert list(layer.parameters()) == list(layer.state_dict()) == expected
    assert layer.weight_hh_l1_reverse_d8.shape == layer.weight_hh_l0.shape == (H, H)
    assert LSTM(IN, H, delays=(1, 2), proj_size=2).weight_hh_l0_d2.shape == (4 * H, 2)
    assert "weight_hh_l0_d8" in dir(layer)


def test_seeds_give_the_weights_that_they_gave() -> None:
    plain = GRU(IN, H, 2, seed=3).parameters()
    assert all(
        same_bits(v, plain[k]) for k, v in GRU(IN, H, 2, delays=9, seed=3).parameters().items()
    )
    dilated = DilatedRNN("gru", IN, H, (1, 2), seed=3).parameters()
    assert all(same_bits(v, plain[k]) for k, v in dilated.items())
    rng = np.random.default_rng(5)
    for name, values in RNN(IN, H, delays=(1, 2), seed=5).parameters().items():
        drawn = rng.uniform(-(H**-0.5), H**-0.5, values.shape).astype(np.float32)
        assert same_bits(values, drawn), name


@pytest.mark.parametrize("make", WITH_WEIGHTS)
def test_weights_outside_a_mask_are_zero(make: Any, tmp_path: Path) -> None:
    mask = mask_of(2, H, H)
    layer = make(IN, H, 2, delays=(1, 2), recurrent_mask=mask, seed=0)
    whole = make(IN, H, 2, delays=(1, 2), seed=0)
    names = [name for name in layer.parameters() if name.startswith("weight_hh")]
    gates = layer.weight_hh_l0.shape[0] // H

    def check(layer: Any, values: Any) -> None:
        for name in names:
            outside = ~np.tile(mask[int(name[11])], (gates, 1))
            expected = np.where(outside, np.float32(0), values(name))
            assert same_bits(getattr(layer, name), expected), name
            assert same_bits(layer.state_dict()[name], expected)

    check(layer, lambda name: whole.parameters()[name])
    layer.save(tmp_path / "model")
    tensors = fastrnn.load_tensors(tmp_path / "model")
    assert all(same_bits(tensors[name], getattr(layer, name)) for name in names)
    for name in names:
        setattr(layer, name, np.full((gates * H, H), np.nan, np.float32))
    check(layer, lambda name: np.full((gates * H, H), np.nan, np.float32))
    layer.load_state_dict(whole.state_dict())
    check(layer, lambda name: whole.parameters()[name])


def test_weights_between_clocks_are_zero() -> None:
    slower = np.array([[1, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]], bool)
    assert same_bits(_structure.clock_connections((1, 9, 2), (1, 1, 2)), slower)
    options: dict[str, Any] = {"periods": (1, 9, 2), "group_sizes": (1, 1, 2)}
    for make in WITH_WEIGHTS:
        layer = make(IN, 4, **options)
        gates = layer.weight_hh_l0.shape[0] // 4
        assert same_bits(layer.weight_hh_l0 != 0, np.tile(slower, (gates, 1)))
        assert make(IN, 4, **options, connectivity="full").weight_hh_l0.all()
        mask = mask_of(4, 4)
        masked = make(IN, 4, **options, recurrent_mask=mask)
        assert same_bits(masked.weight_hh_l0 != 0, np.tile(slower & mask, (gates, 1)))


def test_blocks_of_masks() -> None:
    mask = np.zeros((33, 5), bool)
    for place, blocks in (((0, 0), 1), ((15, 0), 1), ((16, 0), 2), ((32, 4), 3), ((31, 4), 4)):
        mask[place] = True
        assert _structure.mask_blocks(mask) == blocks


def test_scattered_masks_cost_their_connections() -> None:
    """Of 16 units the one with the most, if that is a sixth of the blocks at most."""
    mask = np.eye(160, dtype=bool)
    assert (_structure.mask_blocks(mask), _structure.mask_entries(mask)) == (160, 10)
    mask[3, :10] = True  # with units of one block that share no column with it
    assert (_structure.mask_blocks(mask), _structure.mask_entries(mask)) == (160, 19)
    mask[:16, :20] = True  # too many of one block
    assert _structure.mask_entries(mask) == _structure.mask_blocks(mask) == 164
    rng = np.random.default_rng(0)
    layer = RNN(5, 1000, recurrent_mask=rng.random((1000, 1000)) < 0.02)
    connections = np.count_nonzero(layer.recurrent_mask)
    assert connections < layer.step_cost().mean - 5 * 1000 < 1.1 * connections


def test_state_dicts_must_have_the_delays() -> None:
    layer, other = GRU(IN, H, delays=(1, 4)), GRU(IN, H, delays=(1, 5))
    with refuses(KeyError, "weight_hh_l0_d4", "weight_hh_l0_d5"):
        layer.load_state_dict(other.state_dict())
    assert layer.load_state_dict(other.state_dict(), strict=False) == (
        ["weight_hh_l0_d4"],
        ["weight_hh_l0_d5"],
    )
    with refuses(ValueError, "weight_hh_l0_d4", (3 * H, H)):
        layer.weight_hh_l0_d4 = np.ones((H, H), np.float32)


# ---- repr, copies, files ----------------------------------------------------------------------


REPRS = [
    (lambda: LSTM(2, 4, delays=(3, 1)), "LSTM(2, 4, delays=(1, 3))"),
    (lambda: RNN(2, 4, delays=2, dtype="float64"), "RNN(2, 4, delays=(2,), dtype=float64)"),
    (lambda: GRU(2, 4, periods=[1, 2]), "GRU(2, 4, periods=(1, 2))"),
    (
        lambda: GRU(2, 4, 2, periods=[1, 2], group_sizes=[1, 3], connectivity="full"),
        "GRU(2, 4, num_layers=2, periods=(1, 2), group_sizes=(1, 3), connectivity='full')",
    ),
    (lambda: GRU(2, 4, periods=[1, 2], group_sizes=[2, 2]), "GRU(2, 4, periods=(1, 2))"),
    (lambda: RNN(2, 10, recurrent_mask=np.eye(10, dtype=bool)), "RNN(2, 10, recurrent_mask=10 %)"),
    (lambda: RNN(2, 3, recurrent_mask=np.eye(3) > 0), "RNN(2, 3, recurrent_mask=33.3 %)"),
    (
        lambda: DilatedRNN("gru", 40, 128, dilations=(1, 2, 4)),
        "DilatedRNN('gru', 40, 128, dilations=(1, 2, 4))",
    ),
    (lambda: DilatedRNN("rnn", 2, 3), "DilatedRNN('rnn', 2, 3, dilations=(1, 2, 4, 8))"),
    (
        lambda: DilatedRNN("lstm", 2, 3, [2], coupled=True, batch_first=True),
        "DilatedRNN('lstm', 2, 3, dilations=(2,), coupled=True, batch_first=True)",
    ),
    (
        lambda: DilatedRNN("leaky", 2, 3, (1, 1), alpha=0.5, nonlinearity="relu"),
        "DilatedRNN('leaky', 2, 3, dilations=(1, 1), alpha=0.5, nonlinearity='relu')",
    ),
]


@pytest.mark.parametrize(("make", "text"), REPRS)
def test_repr(make: Any, text: str) -> None:
    assert repr(make()) == text


@each_variant
def test_copies(make: Any) -> None:
    layer = make()
    tape = layer.forward_train(inputs(layer))[2]
    for twin in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert same_layer(twin, layer)
        assert twin.backward(tape, None).x.shape == inputs(layer).shape
        if twin.recurrent_mask is not None:
            assert not twin.recurrent_mask.flags.writeable
    twin = copy.copy(layer)
    twin.weight_ih_l0 = 0 * twin.weight_ih_l0
    assert layer.weight_ih_l0.any()


@each_variant
def test_files(make: Any, tmp_path: Path) -> None:
    layer = make()
    layer.save(tmp_path / "model")
    assert same_layer(fastrnn.load(tmp_path / "model"), layer)


def described(layer: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metadata of a layer's file, and the tensors by name."""
    layer.save(folder / "model")
    with safetensors.safe_open(folder / "model", "np") as file:
        config = json.loads(file.metadata()["fastrnn"])
        return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_what_files_say(tmp_path: Path) -> None:
    keys = ("delays", "dilated", "periods", "group_sizes", "connectivity")

    def said(layer: Any) -> dict[str, Any]:
        config, _ = described(layer, tmp_path)
        return {key: config[key] for key in keys if key in config}

    assert said(LSTM(IN, H)) == {}
    assert said(LSTM(IN, H, delays=(1, 8))) == {"delays": [1, 8]}
    assert said(DilatedRNN("rnn", IN, H, (1, 8))) == {"delays": [1, 8], "dilated": True}
    assert said(DilatedRNN("rnn", IN, H, (1,))) == {"delays": [1], "dilated": True}
    assert said(GRU(IN, H, periods=(3, 1))) == {"periods": [3, 1], "group_sizes": [3, 3]}
    full = said(GRU(IN, H, periods=(3, 1), connectivity="full"))
    assert full == {"periods": [3, 1], "group_sizes": [3, 3], "connectivity": "full"}
    scaled = GRU(IN, H, delays=(1, 4)).rescaled(2.125)
    assert said(scaled) == {"delays": ["0x1.1000000000000p+1", "0x1.1000000000000p+3"]}
    masks = mask_of(2, H, H)
    config, tensors = described(RNN(IN, H, bidirectional=True, recurrent_mask=masks), tmp_path)
    assert not set(keys) & config.keys()
    assert same_bits(tensors["recurrent_mask_l0"], masks[0])
    assert same_bits(tensors["recurrent_mask_l0_reverse"], masks[1])


# ---- DilatedRNN -------------------------------------------------------------------------------

CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN, "mingru": MinGRU, "leaky": LeakyRNN}


@pytest.mark.parametrize("cell", CELLS)
def test_dilated_is_a_stack_of_delayed_layers(cell: str) -> None:
    net = DilatedRNN(cell, IN, H, (2, 1, 3), seed=0)
    assert isinstance(net, fastrnn.layers.Recurrent)
    assert (net.cell, net.num_layers, net.hidden_size) == (cell, 3, H)
    assert net.dilations == net.delays == (2, 1, 3)
    x = inputs(net)
    expected, sizes = x, [(2, IN), (1, H), (3, H)]
    for number, (delay, size) in enumerate(sizes):
        layer = CELLS[cell](size, H, delays=delay)
        ends = {name: name.replace("_l0", f"_l{number}") for name in layer.parameters()}
        layer.load_state_dict({name: net.parameters()[end] for name, end in ends.items()})
        expected, _ = layer(expected)
    assert same_bits(net(x)[0], expected)


def test_arguments_of_dilated() -> None:
    parameters = list(inspect.signature(DilatedRNN).parameters)
    assert parameters == ["cell", "input_size", "hidden_size", "dilations", "options"]
    assert DilatedRNN("gru", IN, H).dilations == (1, 2, 4, 8)
    assert DilatedRNN("gru", IN, H, reset_after=False).reset_after is False
    assert DilatedRNN("rnn", IN, H, nonlinearity="relu").nonlinearity == "relu"
    assert DilatedRNN("rnn", IN, H, [3, 3], dropout=0.5).dropout == 0.5
    assert (DilatedRNN("lstm", IN, H, forget_bias=2).bias_ih_l2[H : 2 * H] == 2).all()
    for cell in ("LSTM", "leaky_rate", None, LSTM):
        with refuses(ValueError, "cell"):
            DilatedRNN(cell, IN, H)
    for given in (4, (1, 2.0), "12", [True], None):
        with refuses(TypeError, "dilations"):
            DilatedRNN("gru", IN, H, given)
    for given in ((), (0, 1), (1, -1), [1] * 17):
        with refuses(ValueError, "dilations"):
            DilatedRNN("gru", IN, H, given)
    options = ("num_layers", "delays", "periods", "group_sizes", "connectivity", "proj_size")
    for name in (*options, "nonsense"):
        with refuses(TypeError, name):
            DilatedRNN("lstm", IN, H, **{name: 1})
    with pytest.raises(AttributeError, match="nonlinearity"):
        _ = DilatedRNN("gru", IN, H).nonlinearity
