"""Layers made of others, with another structure: rescaled and pruned ones; time constants."""

from __future__ import annotations

import copy
import itertools
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structure_layers import IN, H, inputs, mask_of, same_layer
from support import refuses, same_bits

import fastrnn
from fastrnn import GRU, LSTM, RNN, DilatedRNN, Leaky, LeakyRNN, MinGRU, init, prune

# ---- Rescaled layers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "k", "delays"),
    [
        (lambda: RNN(IN, H), 1, (1,)),
        (lambda: RNN(IN, H), 3, (3,)),
        (lambda: LSTM(IN, H), 1.5, (1.5,)),
        (lambda: GRU(IN, H, delays=(1, 10)), 2.5, (2.5, 25)),
        (lambda: GRU(IN, H, delays=(2, 4)), 0.5, (1, 2)),
        (lambda: GRU(IN, H, delays=(3, 6)), 1 / 3, (1, 2)),
        (lambda: GRU(IN, H, delays=(1, 10)), 1.1, (1.1, 11)),
        (lambda: MinGRU(IN, H, delays=2), 2, (4,)),
        (lambda: DilatedRNN("gru", IN, H, (4, 1)), 1.25, (5, 1.25)),
        (lambda: DilatedRNN("gru", IN, H, (2, 2)), 0.75, (1.5, 1.5)),
    ],
)
def test_delays(make: Any, k: float, delays: Any) -> None:
    layer = make()
    before = copy.deepcopy(layer)
    new = layer.rescaled(k)
    assert type(new) is type(layer)
    assert new.delays == pytest.approx(delays, rel=1e-12)
    assert [type(delay) for delay in new.delays] == [type(delay) for delay in delays]
    assert same_layer(layer, before)
    arrays = zip(layer.parameters().values(), new.parameters().values(), strict=True)
    assert all(same_bits(a, b) for a, b in arrays)
    slots = [math.ceil(delay) for delay in delays]
    steps = sum(slots) if isinstance(layer, DilatedRNN) else slots[-1]
    state = new(inputs(new))[1]
    assert (state[0] if isinstance(state, tuple) else state).shape == (steps, 2, H)


def test_names_and_repr_of_rescaled_layers() -> None:
    layer = GRU(IN, H, 2, delays=(1, 8)).rescaled(3)
    assert repr(layer) == "GRU(3, 6, num_layers=2, delays=(3, 24))"
    assert [n for n in layer.parameters() if "_d" in n] == ["weight_hh_l0_d24", "weight_hh_l1_d24"]
    layer = layer.rescaled(0.6)
    assert repr(layer) == "GRU(3, 6, num_layers=2, delays=(1.7999999999999998, 14.399999999999999))"
    assert [n for n in layer.parameters() if "_d" in n] == ["weight_hh_l0_d14", "weight_hh_l1_d14"]
    assert repr(DilatedRNN("gru", IN, H, (1, 2)).rescaled(1.5)).endswith("dilations=(1.5, 3))")


@pytest.mark.parametrize("k", [2, 5])
def test_whole_scales_are_exact(k: int) -> None:
    """Each step k times over gives every k-th step what it gave before."""
    for layer in (
        LSTM(IN, H, 2, delays=(1, 3), seed=0),
        GRU(IN, H, bidirectional=True, recurrent_mask=mask_of(H, H), seed=0),
        DilatedRNN("rnn", IN, H, (1, 2), seed=0),
        RNN(IN, H, periods=(1, 2, 3), seed=0),
    ):
        x = inputs(layer)
        y, slow = layer(x)[0], layer.rescaled(k)(np.repeat(x, k, axis=0))[0]
        assert same_bits(slow[::k].copy(), y)


def test_fractions_are_interpolated() -> None:
    layer = RNN(IN, H, delays=(1, 2), seed=0).rescaled(1.25)
    assert layer.delays == (1.25, 2.5)
    x = inputs(layer, 6).astype(np.float64)
    weights = {name: array.astype(np.float64) for name, array in layer.parameters().items()}
    h = np.zeros((3 + 6, 2, H))
    for t in range(3, 9):
        near, far = 0.75 * h[t - 1] + 0.25 * h[t - 2], 0.5 * h[t - 2] + 0.5 * h[t - 3]
        z = x[t - 3] @ weights["weight_ih_l0"].T + weights["bias_ih_l0"] + weights["bias_hh_l0"]
        z += near @ weights["weight_hh_l0"].T + far @ weights["weight_hh_l0_d2"].T
        h[t] = np.tanh(z)
    y, final = layer(inputs(layer, 6))
    np.testing.assert_allclose(y, h[3:], rtol=0, atol=1e-6)
    assert same_bits(final, y[-3:].copy())
    stream = layer.stream(2)
    assert same_bits(np.stack([stream.step(x_t) for x_t in inputs(layer, 6)]), y)


def test_fractions_only_run_forward() -> None:
    layer = GRU(IN, H, delays=(1, 4)).rescaled(1.5)
    with refuses(ValueError, "delays", "fractional"):
        layer.forward_train(inputs(layer))
    y, _, tape = (whole := layer.rescaled(2)).forward_train(inputs(layer))
    assert whole.backward(tape, y).params["weight_hh_l0_d12"].shape == (3 * H, H)


def test_clocks_and_leaks() -> None:
    layer = LSTM(IN, H, periods=(2, 4), group_sizes=(1, 5), recurrent_mask=mask_of(H, H))
    new = layer.rescaled(1.5)
    assert (new.periods, new.group_sizes, new.delays) == ((3, 6), (1, 5), (1,))
    assert same_bits(new.recurrent_mask, layer.recurrent_mask)
    assert layer.rescaled(0.5).periods == (1, 2)
    for k in (0.25, 1.25, 1e30):
        with refuses(ValueError, "periods"):
            layer.rescaled(k)
    alpha = np.array([0, 0.25, 0.5, 0.9, 0.99, 1])
    leaky = Leaky(H, alpha=alpha)
    expected = leaky.alpha.astype(np.float64) ** 0.5
    assert same_bits(leaky.rescaled(2).alpha, expected.astype(np.float32))
    assert same_bits(leaky.alpha, alpha.astype(np.float32))
    assert leaky.rescaled(2).delays == (1,)


@pytest.mark.parametrize("form", ["rate", "potential"])
@pytest.mark.parametrize("structure", [{}, {"delays": (1, 3)}, {"periods": (1, 2)}])
def test_a_leaky_net_keeps_its_time_scales(form: str, structure: dict[str, Any]) -> None:
    """On input whose steps are repeated every second output is that of before, bit for bit."""
    alpha = np.linspace(0, 1, H)
    layer = LeakyRNN(IN, H, alpha=alpha, form=form, seed=0, **structure)
    x = inputs(layer, 9)
    y, _ = layer.rescaled(2)(np.repeat(x, 2, axis=0))
    assert same_bits(np.ascontiguousarray(y[::2]), layer(x)[0])


def test_scales_that_are_refused() -> None:
    layer = GRU(IN, H, delays=(1, 4))
    for k in ("2", None, True, 1j):
        with refuses(TypeError, "k"):
            layer.rescaled(k)
    for k in (0, -1, math.nan, math.inf):
        with refuses(ValueError, "k"):
            layer.rescaled(k)
    for k in (0.5, 0.99, 1e10, 1e300):
        with refuses(ValueError, "delays"):
            layer.rescaled(k)
    with refuses(ValueError, "delays", (2, 3)):
        GRU(IN, H, delays=(2, 3)).rescaled(0.5)
    with refuses(ValueError, "dilations"):
        DilatedRNN("gru", IN, H, (1, 4)).rescaled(0.5)


def test_files_of_rescaled_layers(tmp_path: Path) -> None:
    for layer in (
        GRU(IN, H, delays=(1, 4), seed=0),
        DilatedRNN("lstm", IN, H, (1, 2), seed=0),
        LeakyRNN(IN, H, bidirectional=True, recurrent_mask=mask_of(2, H, H), seed=0),
    ):
        for k in (1, 3, 1.7):
            scaled = layer.rescaled(k)
            layer.save(tmp_path / "old")
            scaled.save(tmp_path / "new")
            assert same_layer(fastrnn.load(tmp_path / "new"), scaled)
            assert same_layer(fastrnn.load(tmp_path / "old", delay_scale=k), scaled)
    for wrong, error in (("2", TypeError), (0, ValueError), (math.nan, ValueError)):
        with refuses(error, "delay_scale"):
            fastrnn.load(tmp_path / "old", delay_scale=wrong)
    with refuses(ValueError, "delays"):
        fastrnn.load(tmp_path / "old", delay_scale=0.25)


# ---- Time constants ---------------------------------------------------------------------------


def test_time_constants() -> None:
    for spacing, spread in (("log", np.geomspace), ("linear", np.linspace)):
        alpha = init.time_constants(20, 2, 500, spacing)
        assert alpha.shape == (20,)
        np.testing.assert_allclose(-1 / np.log(alpha), spread(2, 500, 20), rtol=1e-9)
        assert LeakyRNN(IN, 20, alpha=alpha).alpha_l0.shape == (20,)
    assert same_bits(init.time_constants(4, 3, 30), init.time_constants(4, 3, 30, spacing="log"))
    np.testing.assert_allclose(init.time_constants(1, 5, 9), [math.exp(-1 / 5)])
    for low, high in ((0, 1), (-1, 1), (2, 1), (1, math.inf), (math.nan, 1)):
        with refuses(ValueError, "high" if high == math.inf else "low"):
            init.time_constants(4, low, high)
    with refuses(TypeError, "high"):
        init.time_constants(4, 1, "9")
    with refuses(ValueError, "spacing"):
        init.time_constants(4, 1, 9, "even")
    with refuses(ValueError, "hidden_size"):
        init.time_constants(0, 1, 9)


# ---- Pruning ----------------------------------------------------------------------------------


def norms(layer: Any, suffix: str, rows: int, columns: int) -> dict[tuple[int, int], float]:
    """The squared norm of each block, by its place."""
    size, found = layer.hidden_size, defaultdict(float)
    stem = "weight_hh" + suffix
    for name, array in layer.parameters().items():
        if name == stem or name.startswith(stem + "_d"):
            for gate in np.split(array.astype(np.float64), len(array) // size):
                for i, j in itertools.product(range(size), range(gate.shape[1])):
                    found[i // rows, j // columns] += gate[i, j] ** 2
    return found


@pytest.mark.parametrize(("rows", "columns"), [(16, 1), (4, 3), (1, 1), (100, 100), (7, 20)])
@pytest.mark.parametrize("density", [0.01, 0.25, 0.6, 1])
@pytest.mark.parametrize(
    "make",
    [
        lambda: LSTM(IN, 20, 2, proj_size=9, seed=0),
        lambda: GRU(IN, 20, bidirectional=True, delays=(1, 4), seed=0),
        lambda: LeakyRNN(IN, 20, batch_first=True, seed=0),
        lambda: DilatedRNN("gru", IN, 20, (1, 2), dropout=0.5, seed=0),
    ],
)
def test_the_largest_blocks_are_kept(make: Any, density: float, rows: int, columns: int) -> None:
    layer = make()
    before = {name: array.copy() for name, array in layer.parameters().items()}
    pruned = prune(layer, density, (rows, columns))
    assert type(pruned) is type(layer)
    assert (pruned.delays, pruned.dropout) == (layer.delays, layer.dropout)
    assert layer.recurrent_mask is None
    assert not pruned.recurrent_mask.flags.writeable
    for number, (_, suffix) in enumerate(layer._parts()):
        sizes = norms(layer, suffix, rows, columns)
        count = math.ceil(density * len(sizes))
        kept = sorted(sizes, key=lambda block: -sizes[block])[:count]
        expected = np.zeros(pruned.recurrent_mask.shape[1:], bool)
        for i, j in kept:
            expected[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns] = True
        assert same_bits(pruned.recurrent_mask[number], expected)
    for name, array in pruned.parameters().items():
        assert same_bits(layer.parameters()[name], before[name])
        if not name.startswith("weight_hh"):
            assert same_bits(array, before[name])
    again = type(pruned).__name__
    assert repr(pruned).startswith(again)
    pruned(inputs(pruned))


def test_units_of_rnn_keep_a_block() -> None:
    layer = RNN(IN, 40, 2, seed=0)
    pruned = prune(layer, 0.001)
    for number in (0, 1):
        sizes = norms(layer, f"_l{number}", 16, 1)
        for block in range(3):
            best = max((j for i, j in sizes if i == block), key=lambda j: sizes[block, j])
            rows = pruned.recurrent_mask[number, 16 * block : 16 * (block + 1)]
            assert np.flatnonzero(rows.all(axis=0)).tolist() == [best]
            assert rows.any(axis=0).sum() == 1
    third = prune(layer, 1 / 3).recurrent_mask
    assert (third[:, ::16].sum(axis=(1, 2)) == 40).all()
    assert third.any(axis=2).all()
    assert prune(DilatedRNN("rnn", IN, 40, (1, 2)), 0.001).recurrent_mask.any(axis=2).all()


def test_masks_and_clocks_stay() -> None:
    rng = np.random.default_rng(0)
    for make in (LSTM, RNN, LeakyRNN):
        mask = rng.random((2, 40, 40)) < 0.1
        mask |= np.eye(40, dtype=bool)
        layer = make(IN, 40, 2, recurrent_mask=mask, seed=0)
        pruned = prune(layer, 0.3)
        assert not (pruned.recurrent_mask & ~mask).any()
        assert same_bits(prune(layer, 1).recurrent_mask, mask)
        for number in range(2):
            blocks = np.logical_or.reduceat(mask[number], [0, 16, 32])
            left = np.logical_or.reduceat(pruned.recurrent_mask[number], [0, 16, 32])
            count = math.ceil(0.3 * blocks.sum())
            assert left.sum() >= count if make is RNN else left.sum() == count
            assert same_bits(left & blocks, left)
        clocked = make(IN, 40, periods=(1, 2), group_sizes=(8, 32), seed=0)
        pruned = prune(clocked, 0.5)
        assert (pruned.periods, pruned.group_sizes) == ((1, 2), (8, 32))
        # of 3 x 40 blocks, 2 x 8 would only read faster units
        blocks = np.logical_or.reduceat(pruned.recurrent_mask[0], [0, 16, 32])
        assert blocks.sum() == math.ceil(0.5 * (3 * 40 - 2 * 8))
        assert not blocks[1:, :8].any()
    both = RNN(IN, 40, periods=(1, 2), recurrent_mask=mask[0], seed=0)
    assert prune(both, 0.1).recurrent_mask.any(axis=2).all()


def test_pruned_layers_save_and_prune_again(tmp_path: Path) -> None:
    layer = prune(GRU(IN, H, delays=(1, 2), seed=0), 0.5, (2, 2))
    layer.save(tmp_path / "model")
    assert same_layer(fastrnn.load(tmp_path / "model"), layer)
    twice = prune(layer, 0.5, (2, 2))
    assert not (twice.recurrent_mask & ~layer.recurrent_mask).any()
    assert twice.recurrent_mask.sum() == 12


def test_what_prune_refuses() -> None:
    layer = GRU(IN, H)
    for density in (0, -0.1, 1.01, math.nan):
        with refuses(ValueError, "density"):
            prune(layer, density)
    for density in ("1", None, True):
        with refuses(TypeError, "density"):
            prune(layer, density)
    for block in (16, "ab", (16,), (1, 2, 3), None, (1.0, 2), ("a", "b")):
        with refuses(TypeError, "block"):
            prune(layer, 0.5, block)
    for block in ((0, 1), (16, -1)):
        with refuses(ValueError, "block"):
            prune(layer, 0.5, block)
    for other in (MinGRU(IN, H), DilatedRNN("mingru", IN, H), Leaky(H), None, "layer"):
        with refuses(TypeError, "layer"):
            prune(other, 0.5)
