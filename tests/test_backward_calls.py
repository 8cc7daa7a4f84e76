"""forward_train and backward as calls: what they take, keep, leave alone and give back."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from support import (
    DTYPES,
    FLAVOURS,
    OUT_FLAVOURS,
    Net,
    assert_gradients_close,
    gradient_arrays,
    gradient_bound,
    map_state,
    one_of_each,
    outside,
    same_bits,
    same_gradients,
    stacked,
    unpack,
)

import fastrnn

STACKS = stacked() + stacked(batch_first=True)
each_cell = pytest.mark.parametrize("net", one_of_each(), ids=str)
each_stack = pytest.mark.parametrize("net", STACKS, ids=str)


class Trained:
    """A layer after forward_train, with what its backward needs and the gradients it gives."""

    def __init__(
        self, net: Net, rng: np.random.Generator, batch: int | None = 3, checkpoint: Any = None
    ) -> None:
        self.net, self.layer = net, net.build()
        self.x, self.state = net.input(rng, 5, batch), net.state(rng, batch)
        self.dy, self.dstate = net.output_gradient(rng, 5, batch), net.state(rng, batch)
        self.y, self.final, self.tape = self.layer.forward_train(
            self.x, self.state, checkpoint=checkpoint
        )
        self.g = self.layer.backward(self.tape, self.dy, self.dstate)

    def again(self, **options: Any) -> Any:
        return self.layer.backward(self.tape, self.dy, self.dstate, **options)

    def from_start(self, x: Any, state: Any, dy: Any, dstate: Any, checkpoint: Any = None) -> Any:
        """The gradients of a forward and a backward with these."""
        _, _, tape = self.layer.forward_train(x, state, checkpoint=checkpoint)
        return self.layer.backward(tape, dy, dstate)


# ---- Types and forms --------------------------------------------------------------------------


@each_stack
def test_what_comes_back(net: Net, rng: np.random.Generator) -> None:
    for batch in (None, 1, 3):
        t = Trained(net, rng, batch)
        assert isinstance(t.g, fastrnn.Gradients)
        assert isinstance(t.tape, fastrnn.Tape)
        assert isinstance(t.tape.nbytes, int)
        assert t.tape.nbytes > 0
        assert (t.g.x.shape, t.g.x.dtype) == (t.x.shape, t.x.dtype)
        assert type(t.g.state) is type(t.state)
        pairs = zip(unpack(t.g.state), unpack(t.state), strict=True)
        assert all((a.shape, a.dtype) == (b.shape, b.dtype) for a, b in pairs)
        parameters = t.layer.parameters()
        assert type(t.g.params) is dict
        assert list(t.g.params) == list(parameters)
        for name, array in t.g.params.items():
            assert (array.shape, array.dtype) == (parameters[name].shape, net.dtype)
            assert array.flags.c_contiguous
            assert array.flags.writeable


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2])
def test_no_two_gradients_share_memory(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    """Scaling each in place, as clipping does, scales none twice; the equal biases neither."""
    t = Trained(net, rng, checkpoint=checkpoint)
    arrays = list(gradient_arrays(t.g).values())
    others = [t.x, *unpack(t.state), t.dy, *unpack(t.dstate), *t.layer.parameters().values()]
    for number, array in enumerate(arrays):
        for other in [*arrays[:number], *others]:
            assert not np.shares_memory(array, other)
    equal = 2 * net.hidden_size if net.cell == "gru" else None  # r stands between those of n
    for name, array in t.g.params.items():
        if name.startswith("bias_hh"):
            assert same_bits(array[:equal], t.g.params[name.replace("hh", "ih")][:equal])


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2])
def test_parts_that_are_not_needed(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    t = Trained(net, rng, checkpoint=checkpoint)
    no_x, no_params = t.again(need_x=False), t.again(need_params=False)
    neither = t.again(need_x=False, need_params=False)
    assert no_x.x is None
    assert neither.x is None
    assert no_params.params == {}
    assert neither.params == {}
    assert same_bits(no_params.x, t.g.x)
    assert all(same_bits(no_x.params[name], array) for name, array in t.g.params.items())
    assert all(same_bits(g.state, t.g.state) for g in (no_x, no_params, neither))


# ---- y and state ------------------------------------------------------------------------------


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2, "auto"])
def test_forward_is_that_of_a_call(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    layer = net.build()
    for steps, batch in ((1, None), (9, None), (1, 1), (9, 4), (0, 2), (3, 0)):
        x = net.input(rng, steps, batch)
        for state in (None, net.state(rng, batch)):
            y, final, _ = layer.forward_train(x, state, checkpoint=checkpoint)
            assert same_bits((y, final), layer(x, state))


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("flavour", OUT_FLAVOURS)
def test_out_of_the_forward(
    net: Net, flavour: str, checkpoint: Any, rng: np.random.Generator
) -> None:
    t = Trained(net, rng)
    out = FLAVOURS[flavour](np.full_like(t.y, np.nan))
    around = outside(out)
    y, final, tape = t.layer.forward_train(t.x, t.state, out=out, checkpoint=checkpoint)
    assert y is out
    assert same_bits(out, t.y)
    assert same_bits(final, t.final)
    assert same_bits(around, outside(out))
    assert same_gradients(t.layer.backward(tape, t.dy, t.dstate), t.g)


# ---- What is kept, and what may change --------------------------------------------------------


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2, "auto"])
def test_a_tape_serves_again(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    t = Trained(net, rng, checkpoint=checkpoint)
    other = t.layer.backward(t.tape, t.dy * 2, None)
    assert same_gradients(t.again(), t.g)
    assert same_gradients(t.layer.backward(t.tape, t.dy * 2, None), other)
    assert same_gradients(t.again(), t.g)


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2, "auto"])
def test_what_is_changed_after_the_forward_changes_nothing(
    net: Net, checkpoint: Any, rng: np.random.Generator
) -> None:
    """y, the initial and the final state, and the parameters."""
    t = Trained(net, rng, checkpoint=checkpoint)
    for array in (t.y, *unpack(t.state), *unpack(t.final)):
        array[...] = 7
    assert same_gradients(t.again(), t.g)
    old = t.layer.state_dict()
    t.layer.load_state_dict({name: array * 0.5 for name, array in old.items()})
    assert same_gradients(t.again(), t.g)
    t.layer(t.x)
    assert same_gradients(t.again(), t.g)


@each_stack
def test_parameters_changed_before_the_first_backward(net: Net, rng: np.random.Generator) -> None:
    """The weights of the forward count, though none of them was packed for a backward before."""
    t, layer = Trained(net, rng), net.build()
    _, _, tape = layer.forward_train(t.x, t.state)
    layer.load_state_dict({name: array * 0.5 for name, array in layer.state_dict().items()})
    assert same_gradients(layer.backward(tape, t.dy, t.dstate), t.g)
    _, _, tape = layer.forward_train(t.x, t.state)
    expected = net.oracle_backward(layer, t.x, t.state, t.dy, t.dstate)
    g = layer.backward(tape, t.dy, t.dstate)
    assert_gradients_close(g, expected, gradient_bound(net, 5, 3))


@each_cell
def test_a_tape_knows_its_weights(net: Net, rng: np.random.Generator) -> None:
    """So that a copy of the layer, or one of other weights, finds the same gradients with it."""
    t = Trained(net, rng)
    other = net.build()
    other.load_state_dict({name: array * 0.5 for name, array in other.state_dict().items()})
    for layer in (other, copy.copy(t.layer), copy.deepcopy(t.layer)):
        assert same_gradients(layer.backward(t.tape, t.dy, t.dstate), t.g)


@each_cell
def test_gradients_handed_out_are_the_callers(net: Net, rng: np.random.Generator) -> None:
    t = Trained(net, rng)
    copies = copy.deepcopy(t.g)
    for array in gradient_arrays(t.g).values():
        array[...] = 7
    assert same_gradients(t.again(), copies)


@each_stack
def test_inputs_are_not_modified(net: Net, rng: np.random.Generator) -> None:
    t = Trained(net, rng)
    given = [t.x, *unpack(t.state), t.dy, *unpack(t.dstate), t.y, *unpack(t.final)]
    before = [array.copy() for array in given]
    Trained.from_start(t, t.x, t.state, t.dy, t.dstate)
    t.again()
    assert all(map(same_bits, given, before))


@each_cell
def test_what_the_tape_made_itself_of_x_is_its_own(net: Net, rng: np.random.Generator) -> None:
    t = Trained(net, rng)
    x = np.round(t.x * 8) / 8
    half = x.astype(np.float16)
    _, _, tape = t.layer.forward_train(half, t.state)
    half[...] = 7
    expected = t.from_start(x, t.state, t.dy, t.dstate)
    assert same_gradients(t.layer.backward(tape, t.dy, t.dstate), expected)


@each_cell
def test_a_tape_lets_go(net: Net, rng: np.random.Generator) -> None:
    """Of x, when the last reference to the tape is gone; gradients do not hold it."""
    t = Trained(net, rng)
    x = weakref.ref(t.x)
    g = t.g
    del t
    gc.collect()
    assert x() is None
    assert g.x.shape == (5, 3, 5)


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2])
def test_from_many_threads_at_once(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    t = Trained(net, rng, checkpoint=checkpoint)
    found: list[bool] = []

    def work() -> None:
        for _ in range(20):
            found.append(same_gradients(t.again(), t.g))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 80


# ---- What is taken ----------------------------------------------------------------------------


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_layouts(net: Net, flavour: str, checkpoint: Any, rng: np.random.Generator) -> None:
    """Of x, state, dy (of all steps and of the last) and dstate."""
    make = FLAVOURS[flavour]
    for batch in (None, 1, 3):
        t = Trained(net, rng, batch, checkpoint)
        given = [make(t.x), map_state(make, t.state), make(t.dy), map_state(make, t.dstate)]
        arrays = [array for values in given for array in unpack(values)]
        copies = [array.copy() for array in arrays]
        assert same_gradients(t.from_start(*given, checkpoint), t.g), batch
        last = t.dy[:, -1] if net.batch_first and batch is not None else t.dy[-1]
        odd = make(np.ascontiguousarray(last)) if last.ndim > 1 else last
        expected = t.layer.backward(t.tape, np.ascontiguousarray(last))
        assert same_gradients(t.layer.backward(t.tape, odd), expected), batch
        assert all(map(same_bits, arrays, copies))


@each_cell
def test_views_of_the_last_step(net: Net, rng: np.random.Generator) -> None:
    t = Trained(net, rng)
    expected = t.layer.backward(t.tape, t.dy[-1].copy())
    turned = np.asfortranarray(t.dy[-1])
    for last in (t.dy[-1], turned, t.dy[-1].tolist(), torch.from_numpy(t.dy[-1])):
        assert same_gradients(t.layer.backward(t.tape, last), expected)


@each_cell
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("given", ["float16", "float32", "int8", "int64", "uint32", "bool"])
def test_types_that_are_converted(
    net: Net, dtype: str, given: str, rng: np.random.Generator
) -> None:
    t = Trained(Net(**vars(net) | {"dtype": dtype}), rng)
    dy = rng.integers(0, 2, t.dy.shape).astype(given)
    dstate = map_state(lambda a: rng.integers(0, 2, a.shape).astype(given), t.dstate)
    as_layer = map_state(lambda a: a.astype(dtype), dstate)
    expected = t.layer.backward(t.tape, dy.astype(dtype), as_layer)
    assert same_gradients(t.layer.backward(t.tape, dy, dstate), expected)
    expected = t.layer.backward(t.tape, dy[-1].astype(dtype), as_layer)
    assert same_gradients(t.layer.backward(t.tape, dy[-1], dstate), expected)


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2])
def test_lists_and_tensors(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    t = Trained(net, rng)
    for convert in (np.ndarray.tolist, torch.from_numpy, list):
        given = [convert(t.x), map_state(convert, t.state), convert(t.dy)]
        given += [map_state(convert, t.dstate)]
        assert same_gradients(t.from_start(*given, checkpoint), t.g)


@each_cell
def test_one_gradient_for_all_steps(net: Net, rng: np.random.Generator) -> None:
    """Strides of zero, as y.mean() has them in its gradient."""
    t = Trained(net, rng)
    for value in (t.dy[:1], t.dy[:1, :1]):
        dy = np.broadcast_to(value, t.dy.shape)
        assert same_gradients(t.layer.backward(t.tape, dy), t.layer.backward(t.tape, dy.copy()))
    everywhere = np.broadcast_to(np.float32(0.5), t.dy.shape)
    expected = t.layer.backward(t.tape, np.full_like(t.dy, 0.5))
    assert same_gradients(t.layer.backward(t.tape, everywhere), expected)


# ---- out: accumulation ------------------------------------------------------------------------


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2])
def test_gradients_are_added_into_out(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    t = Trained(net, rng, checkpoint=checkpoint)
    start = {k: rng.standard_normal(v.shape).astype(net.dtype) for k, v in t.g.params.items()}
    out = {name: array.copy() for name, array in start.items()}
    g = t.again(out=out)
    assert list(g.params) == list(t.g.params)
    eps = gradient_bound(net, 5, 3)
    for name, array in out.items():
        assert g.params[name] is array
        expected = start[name].astype(np.float64) + t.g.params[name]
        scale = np.abs(start[name]).max() + np.abs(t.g.params[name]).max()
        assert np.abs(array - expected).max() <= eps * scale, name
    assert same_bits(g.x, t.g.x)
    assert same_bits(g.state, t.g.state)


@each_stack
@pytest.mark.parametrize("checkpoint", [None, 2])
def test_out_for_some_parameters(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    """The others come back in arrays of their own, as without out."""
    t = Trained(net, rng, checkpoint=checkpoint)
    for chosen in (list(t.g.params)[:1], list(t.g.params)[-1:], list(t.g.params)[1::2], []):
        out = {name: np.zeros_like(t.g.params[name]) for name in chosen}
        g = t.again(out=out)
        assert list(out) == chosen
        assert list(g.params) == list(t.g.params)
        for name, array in g.params.items():
            assert (array is out.get(name)) == (name in out)
            assert np.array_equal(array, t.g.params[name]), name


@each_stack
def test_out_of_two_tapes_is_their_sum(net: Net, rng: np.random.Generator) -> None:
    """Of a batch given in two halves, as the whole batch has it."""
    layer, x, state = net.build(), net.input(rng, 5, 8), net.state(rng, 8)
    dy, dstate = net.output_gradient(rng, 5, 8), net.state(rng, 8)
    axis = 0 if net.batch_first else 1
    out = {name: np.zeros_like(array) for name, array in layer.parameters().items()}
    for half in (slice(0, 4), slice(4, 8)):
        at = (half,) if axis == 0 else (slice(None), half)
        rows = map_state(lambda a, half=half: a[..., half, :], state)
        ends = map_state(lambda a, half=half: a[..., half, :], dstate)
        layer.backward(layer.forward_train(x[at], rows)[2], dy[at], ends, out=out)
    expected = net.oracle_backward(layer, x, state, dy, dstate)
    whole = layer.backward(layer.forward_train(x, state)[2], dy, dstate)
    halves = type(expected)(whole.x, whole.state, out)
    assert_gradients_close(halves, expected, 2 * gradient_bound(net, 5, 8))


@each_cell
def test_out_may_be_any_mapping_and_any_alignment(net: Net, rng: np.random.Generator) -> None:
    """A read-only mapping of arrays at odd addresses, of which nothing else is written."""
    t = Trained(net, rng)
    out = {k: FLAVOURS["element aligned"](np.zeros_like(v)) for k, v in t.g.params.items()}
    around = {name: outside(array) for name, array in out.items()}
    g = t.again(out=MappingProxyType(out))
    for name, array in out.items():
        assert g.params[name] is array
        assert np.array_equal(array, t.g.params[name])
        assert same_bits(around[name], outside(array))
