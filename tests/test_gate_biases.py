"""How the biases of gates begin: time scales, and the forget bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import map_state, same_bits, unpack

from fastrnn import GRU, LSTM, MinGRU, init


def rows(values: np.ndarray, block: int) -> np.ndarray:
    return values.reshape(-1, 500)[block]


def time_scales(biases: np.ndarray) -> np.ndarray:
    """T of b = log(T - 1)."""
    return 1 + np.exp(biases.astype(np.float64))


CHRONO: list[tuple[Any, dict[str, Any], dict[int, int]]] = [
    (LSTM, {}, {1: 1, 0: -1}),
    (LSTM, {"coupled": True}, {0: -1}),
    (GRU, {}, {1: 1}),
    (GRU, {"reset_after": False}, {1: 1}),
    (MinGRU, {}, {0: -1}),
]


@pytest.mark.parametrize(("make", "options", "gates"), CHRONO)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chrono_draws_time_scales(
    make: Any, options: dict[str, Any], gates: dict[int, int], dtype: str
) -> None:
    sizes = {"num_layers": 2, "bidirectional": True, "dtype": dtype, "seed": 1}
    plain = make(3, 500, **options, **sizes).parameters()
    layer = make(3, 500, **options, **sizes, chrono=(4, 90))
    seen = []
    for name, values in layer.parameters().items():
        if not name.startswith("bias"):
            assert same_bits(values, plain[name])
            continue
        for block in range(len(values) // 500):
            own = rows(values, block)
            if block not in gates:
                assert same_bits(own, rows(plain[name], block))
            elif name.startswith("bias_hh"):
                assert not own.any()
            else:
                scales = time_scales(gates[block] * own)
                seen.append(scales)
                assert 3.999 < scales.min() < 6
                assert 88 < scales.max() < 90.001
                # The standard error of the mean of n uniform values is width / sqrt(12 n).
                assert abs(scales.mean() - 47) < 5 * 86 / np.sqrt(12 * 500)
    assert len(seen) == 4 * len(gates)
    if make is LSTM and 1 in gates:  # rows i, then f, of the same units
        for i, f in zip(seen[::2], seen[1::2], strict=True):
            np.testing.assert_allclose(i, f, rtol=1e-5)
    assert not np.array_equal(seen[0], seen[-1])


@pytest.mark.parametrize(("make", "options", "gates"), CHRONO)
def test_a_unit_remembers_for_its_time_scale(
    make: Any, options: dict[str, Any], gates: dict[int, int]
) -> None:
    """With all weights 0, the state falls by 1 - 1/T a step."""
    layer = make(1, 4, **options, chrono=(20, 20), dtype="float64")
    for name, values in layer.parameters().items():
        if name.startswith("weight"):
            setattr(layer, name, np.zeros_like(values))
        elif name.startswith("bias"):
            kept = values.copy().reshape(-1, 4)
            kept[[block for block in range(len(kept)) if block not in gates]] = 0
            setattr(layer, name, kept.ravel())
    start = map_state(np.ones_like, layer(np.zeros((1, 1)))[1])
    _, final = layer(np.zeros((10, 1)), start)
    np.testing.assert_allclose(unpack(final)[-1], (1 - 1 / 20) ** 10, rtol=1e-12)


def test_init_chrono() -> None:
    values = init.chrono(2000, 2, 100, rng=3)
    assert (values.shape, values.dtype) == ((2000,), np.float64)
    assert values.min() >= 0
    assert time_scales(values).max() <= 100
    assert same_bits(init.chrono(5, 2, 9, rng=1), init.chrono(5, 2, 9, np.random.default_rng(1)))
    np.testing.assert_allclose(init.chrono(3, 11, 11), np.log(10.0))


def test_forget_bias() -> None:
    options = {"num_layers": 2, "bidirectional": True, "seed": 4}
    plain, layer = LSTM(3, 500, **options), LSTM(3, 500, **options, forget_bias=1.5)
    for name, values in layer.parameters().items():
        if not name.startswith("bias"):
            assert same_bits(values, plain.parameters()[name])
            continue
        assert (rows(values, 1) == (1.5 if name.startswith("bias_ih") else 0)).all()
        for block in (0, 2, 3):
            assert same_bits(rows(values, block), rows(plain.parameters()[name], block))
    coupled = LSTM(3, 500, coupled=True, forget_bias=1.5)
    assert (rows(coupled.bias_ih_l0, 0) == -1.5).all()
    assert not rows(coupled.bias_hh_l0, 0).any()
    assert not LSTM(3, 500, forget_bias=0).bias_ih_l0[500:1000].any()
