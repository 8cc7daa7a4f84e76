"""Bad and odd input: taken and right, or refused with a sentence; never half done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import (
    CELLS,
    DTYPES,
    FLAVOURS,
    OUT_FLAVOURS,
    Net,
    assert_close,
    bound,
    map_state,
    one_of_each,
    outside,
    pack,
    read_only,
    refuses,
    same_bits,
    stacked,
    swapped,
    unharmed,
    unpack,
)

NETS = one_of_each()
STACKS = stacked() + stacked(batch_first=True)
each_cell = pytest.mark.parametrize("net", NETS, ids=str)
each_stack = pytest.mark.parametrize("net", STACKS, ids=str)

# ---- x: rank and size -------------------------------------------------------------------------


@each_cell
@pytest.mark.parametrize("shape", [(), (5,), (5, 5, 5, 5), (0,), (1, 1, 1, 5)])
def test_wrong_rank(net: Net, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 4, 2)
    with unharmed(layer, x), refuses(ValueError, "x", shape):
        layer(np.zeros(shape, np.float32))


@each_cell
@pytest.mark.parametrize("shape", [(4, 2, 6), (4, 2, 4), (4, 2, 0), (4, 1), (5, 2, 1), (0, 0, 4)])
def test_wrong_size(net: Net, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 4, 2)
    with unharmed(layer, x), refuses(ValueError, "x", 5, shape):
        layer(np.zeros(shape, np.float32))


# ---- x: types ---------------------------------------------------------------------------------


@each_cell
@pytest.mark.parametrize(
    "dtype", ["float64", "longdouble", "complex64", "complex128", "object", "U5", "S5", "M8[s]"]
)
def test_wrong_dtype(net: Net, dtype: str, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 4, 2)
    with unharmed(layer, x), refuses(TypeError, "x", "float32"):
        layer(np.ones((4, 2, 5)).astype(dtype))


def test_double_for_a_single_layer_names_both_types(rng: np.random.Generator) -> None:
    net = Net("lstm", 5, 5)
    with refuses(TypeError, "x", "float32", "float64"):
        net.build()(rng.standard_normal((4, 2, 5)))


@each_cell
@pytest.mark.parametrize(
    "x",
    [None, "x", b"x", 3.5, object(), {}, {1.0}, [[1.0, 2.0], [3.0]], [["a"] * 5] * 4, len],
    ids=lambda x: type(x).__name__,
)
def test_no_array(net: Net, x: Any, rng: np.random.Generator) -> None:
    layer = net.build()
    with unharmed(layer, net.input(rng, 4, 2)), refuses((TypeError, ValueError), "x"):
        layer(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "given", ["float16", "float32", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"]
)
def test_types_that_are_converted(given: str, dtype: str, rng: np.random.Generator) -> None:
    for net in one_of_each(dtype=dtype):
        layer = net.build()
        x = rng.integers(0, 100, net.input_shape(4, 2)).astype(given)
        before = x.copy()
        for flavour in FLAVOURS.values():
            assert same_bits(layer(flavour(x)), layer(x.astype(dtype)))
        assert same_bits(x, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lists(dtype: str, rng: np.random.Generator) -> None:
    for net in one_of_each(dtype=dtype):
        layer, x, state = net.build(), net.input(rng, 4, 2), net.state(rng, 2)
        assert same_bits(layer(x.tolist()), layer(x))
        assert same_bits(layer(list(x)), layer(x))
        assert same_bits(layer(x, map_state(np.ndarray.tolist, state)), layer(x, state))
        whole = rng.integers(-9, 9, x.shape)
        assert same_bits(layer(whole.tolist()), layer(whole.astype(dtype)))


class ArrayLike:
    """Has __array__ and nothing else."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values if dtype is None else self.values.astype(dtype)


class DLPackOnly:
    """Has the DLPack protocol and nothing else."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class Unwilling:
    """An array-like object whose conversion fails."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("not today")


@each_cell
@pytest.mark.parametrize("wrap", [torch.from_numpy, ArrayLike, DLPackOnly, memoryview])
def test_arrays_of_others(net: Net, wrap: Callable, rng: np.random.Generator) -> None:
    layer, x, state = net.build(), net.input(rng, 4, 2), net.state(rng, 2)
    expected = layer(x, state)
    assert same_bits(layer(wrap(x), state), expected)
    assert same_bits(layer(x, map_state(wrap, state)), expected)


@each_cell
def test_torch_tensors(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 4, 2)
    tensor = torch.from_numpy(x)
    turned = tensor.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert same_bits(layer(turned), layer(x))
    with unharmed(layer, x), refuses(TypeError, "x", "float32", "float64"):
        layer(tensor.double())
    with unharmed(layer, x), refuses((TypeError, ValueError), "x", "detach"):
        layer(tensor.clone().requires_grad_())
    with unharmed(layer, x), refuses((TypeError, ValueError), "x"):
        layer(tensor.to_sparse())
    with unharmed(layer, x), refuses((TypeError, ValueError), "x"):
        layer(tensor.to("meta"))


@each_cell
def test_an_array_that_cannot_be_had(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 4, 2)
    with unharmed(layer, x), pytest.raises((TypeError, ValueError, RuntimeError)):
        layer(Unwilling())


# ---- x: layout --------------------------------------------------------------------------------


@each_stack
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_layouts(net: Net, flavour: str, rng: np.random.Generator) -> None:
    layer = net.build()
    for batch in (None, 1, 3):
        x, state = net.input(rng, 4, batch), net.state(rng, batch)
        expected = layer(x, state)
        odd, odd_state = FLAVOURS[flavour](x), map_state(FLAVOURS[flavour], state)
        odd.flags.writeable = False
        for values in unpack(odd_state):
            values.flags.writeable = False
        assert same_bits(layer(odd, odd_state), expected)
        assert np.array_equal(odd, x)
        assert all(map(np.array_equal, unpack(odd_state), unpack(state)))


@each_cell
def test_one_row_for_all(net: Net, rng: np.random.Generator) -> None:
    """Strides of zero, as np.broadcast_to makes them."""
    layer, row = net.build(), net.input(rng, 1, 1)
    x = np.broadcast_to(row, (6, 4, 5))
    assert same_bits(layer(x), layer(x.copy()))


@each_cell
def test_results_are_new_arrays(net: Net, rng: np.random.Generator) -> None:
    layer, x, state = net.build(), net.input(rng, 4, 2), net.state(rng, 2)
    results = [layer(x, state), layer(x[:0], state)]
    for y, final in results:
        for values in (y, *unpack(final)):
            assert values.flags.c_contiguous
            assert values.flags.writeable
            for other in (x, *unpack(state)):
                assert not np.shares_memory(values, other)


# ---- Nothing to do ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [None, 0, 1, 3])
@pytest.mark.parametrize("steps", [0, 4])
def test_no_steps_or_no_rows(
    steps: int, batch: int | None, dtype: str, rng: np.random.Generator
) -> None:
    for net in stacked(dtype=dtype) + stacked(dtype=dtype, batch_first=True):
        layer = net.build()
        x, state = net.input(rng, steps, batch), net.state(rng, batch)
        out = np.empty(net.output_shape(steps, batch), dtype)
        for initial in (None, state):
            for y, final in (layer(x, initial), layer(x, initial, out=out)):
                assert y.shape == net.output_shape(steps, batch)
                assert y.dtype == np.dtype(dtype)
                if steps == 0 or batch == 0:
                    assert same_bits(final, net.zero_state(batch) if initial is None else initial)


# ---- state ------------------------------------------------------------------------------------


@each_stack
def test_state_of_wrong_shape(net: Net, rng: np.random.Generator) -> None:
    layer, x, right = net.build(), net.input(rng, 4, 2), net.state(rng, 2)
    for position in range(net.states):
        shape = net.state_shape(2, position)
        for wrong in (
            shape[:-1],
            (1, *shape),
            (*shape[:-1], shape[-1] + 1),
            (*shape[:-2], shape[-2] + 1, shape[-1]),
            (*shape[:-2], 1, shape[-1]),
            (*shape[:-2], shape[-1], shape[-2]),
            net.state_shape(None, position),
        ):
            state = list(unpack(right))
            state[position] = np.zeros(wrong, np.float32)
            with unharmed(layer, x, *unpack(right)), refuses(ValueError, "state", shape, wrong):
                layer(x, pack(state))
    shape = net.state_shape(2)
    with unharmed(layer, x), refuses(ValueError, "state", net.state_shape(None), shape):
        layer(x[0] if net.batch_first else x[:, 0], right)


@each_stack
@pytest.mark.parametrize("dtype", ["float64", "complex64", "object", "U5"])
def test_state_of_wrong_dtype(net: Net, dtype: str, rng: np.random.Generator) -> None:
    layer, x, right = net.build(), net.input(rng, 4, 2), net.state(rng, 2)
    for position in range(net.states):
        state = list(unpack(right))
        state[position] = state[position].astype(dtype)
        with unharmed(layer, x, *unpack(right)), refuses(TypeError, "state", "float32"):
            layer(x, pack(state))


@each_cell
def test_state_of_wrong_structure(net: Net, rng: np.random.Generator) -> None:
    layer, x, right = net.build(), net.input(rng, 4, 2), net.state(rng, 2)
    arrays = unpack(right)
    wrong: list[Any] = ["state", 0.0, {}, object(), (), (*arrays, arrays[0])]
    if net.states == 2:
        wrong += [arrays[0], arrays[:1], (arrays[0], None), (None, arrays[1])]
    else:
        wrong += [(arrays[0], arrays[0])]
    for state in wrong:
        with unharmed(layer, x, *arrays), refuses((TypeError, ValueError), "state"):
            layer(x, state)


@pytest.mark.parametrize("given", ["float16", "int8"])
def test_state_that_is_converted(given: str, rng: np.random.Generator) -> None:
    for net in NETS:
        layer, x = net.build(), net.input(rng, 4, 2)
        state = pack(rng.integers(-1, 2, (net.states, *net.state_shape(2))).astype(given))
        expected = layer(x, map_state(lambda a: a.astype(np.float32), state))
        assert same_bits(layer(x, state), expected)


# ---- out --------------------------------------------------------------------------------------


@each_stack
def test_out_of_wrong_shape_or_type(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 4, 2)
    shape, z = net.output_shape(4, 2), np.zeros
    for error, out, facts in (
        (ValueError, z((*shape[:-1], shape[-1] + 1), "f4"), (shape, (*shape[:-1], shape[-1] + 1))),
        (ValueError, z((3, *shape[1:]), "f4"), (shape, (3, *shape[1:]))),
        (ValueError, z(shape[1:], "f4"), (shape, shape[1:])),
        (ValueError, z((1, *shape), "f4"), (shape, (1, *shape))),
        (TypeError, z(shape, "f8"), ("float32", "float64")),
        (TypeError, z(shape, "f2"), ("float32", "float16")),
        (TypeError, z(shape, "i4"), ("float32", "int32")),
        (TypeError, swapped(z(shape, "f4")), ("float32",)),
        (TypeError, z(shape, object), ("float32", "object")),
        (TypeError, z(shape, "f4").tolist(), ("list",)),
        (TypeError, "out", ("str",)),
        (ValueError, read_only(z(shape, "f4")), ()),
    ):
        with unharmed(layer, x), refuses(error, "out", *facts):
            layer(x, out=out)
        if isinstance(out, np.ndarray):
            assert not out.any()


@each_stack
@pytest.mark.parametrize("flavour", OUT_FLAVOURS)
def test_out_of_any_strides(net: Net, flavour: str, rng: np.random.Generator) -> None:
    layer = net.build()
    for batch in (None, 1, 3):
        x = net.input(rng, 4, batch)
        expected, final = layer(x)
        out = FLAVOURS[flavour](np.full_like(expected, np.nan))
        around = outside(out)
        y, again = layer(x, out=out)
        assert y is out
        assert same_bits(out, expected)
        assert same_bits(again, final)
        assert same_bits(outside(out), around)


@each_stack
@pytest.mark.parametrize("flavour", ["fortran", "strided features", "misaligned"])
def test_out_of_odd_layout_is_right_or_refused(
    net: Net, flavour: str, rng: np.random.Generator
) -> None:
    layer, x = net.build(), net.input(rng, 4, 3)
    expected, _ = layer(x)
    out = FLAVOURS[flavour](np.zeros_like(expected))
    around = outside(out)
    try:
        y, _ = layer(x, out=out)
    except ValueError as error:
        assert "out" in str(error)
        assert not out.any()
    else:
        assert y is out
        assert same_bits(out, expected)
    assert same_bits(outside(out), around)


@each_cell
def test_out_over_x(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 8, 3)
    with unharmed(layer, x), refuses(ValueError, "out"):
        layer(x, out=x)
    with unharmed(layer, x), refuses(ValueError, "out"):
        layer(x[1:], out=x[:-1])
    with unharmed(layer, x), refuses(ValueError, "out"):
        layer(x[:-1], out=x[1:])
    with unharmed(layer, x), refuses(ValueError, "out"):
        layer(x[:, ::-1], out=x)
    expected, _ = layer(x[:4])
    assert same_bits(layer(x[:4], out=x[4:])[0], expected)


@each_cell
def test_out_over_the_state(net: Net, rng: np.random.Generator) -> None:
    """It may be refused; if it is taken, the state is read before out is written."""
    layer, x, state = net.build(), net.input(rng, 2, 1), net.state(rng, 1)
    expected, _ = layer(x[:1], state)
    first, *others = unpack(state)
    out = first.reshape(1, 1, 5)
    try:
        y, _ = layer(x[:1], pack([first, *others]), out=out)
    except ValueError as error:
        assert "out" in str(error)
    else:
        assert same_bits(y, expected)


# ---- NaN --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_nan_stays_in_its_row_and_future(cell: str, dtype: str, rng: np.random.Generator) -> None:
    """For several batches, so that the bad row comes to sit in every place of a tile of rows."""
    for hidden in (5, 33):
        net = Net(cell, hidden if cell == "leaky" else 3, hidden, dtype=dtype)
        layer = net.build()
        for batch in (2, 5, 13):
            x = net.input(rng, 6, batch)
            clean, clean_final = layer(x)
            for row in range(batch):
                spoilt = x.copy()
                spoilt[3, row] = np.nan
                y, final = layer(spoilt)
                others = np.delete(np.arange(batch), row)
                assert same_bits(y[:, others], clean[:, others])
                assert same_bits(y[:3, row], clean[:3, row])
                for values, kept in zip(unpack(final), unpack(clean_final), strict=True):
                    assert same_bits(values[..., others, :], kept[..., others, :])
                changing = layer.parameters().get("alpha_l0", np.zeros(hidden)) < 1
                assert np.isnan(y[3:, row, changing]).all()


@pytest.mark.parametrize("net", [n for n in stacked() if n.num_layers > 1], ids=str)
def test_nan_stays_in_its_row_of_a_stack(net: Net, rng: np.random.Generator) -> None:
    layer, x = net.build(), net.input(rng, 6, 4)
    clean, _ = layer(x)
    x[2, 1, 0] = np.nan
    y, _ = layer(x)
    assert same_bits(y[:, [0, 2, 3]], clean[:, [0, 2, 3]])
    assert np.isnan(y[:, 1]).any()


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "identity"])
def test_no_activation_hides_a_nan(nonlinearity: str) -> None:
    for cell in ("rnn", "leaky_rate", "leaky_potential"):
        layer = Net(cell, 5, 5, nonlinearity=nonlinearity).build()
        assert np.isnan(layer(np.full((1, 1, 5), np.nan, np.float32))[0]).all()


# ---- Special values ---------------------------------------------------------------------------


def test_subnormal_and_signed_zero_input(rng: np.random.Generator) -> None:
    for net in NETS:
        layer, x = net.build(), net.input(rng, 4, 2)
        for special in (np.float32(1e-42) * x, 0.0 * x, -0.0 * x):
            special = special.astype(np.float32)
            y, _ = layer(special)
            assert_close(y, net.oracle(layer, special)[0], bound(net, 4))
