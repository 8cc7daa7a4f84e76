"""What forward_train and backward refuse: with a sentence, before any work, and harmlessly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from support import (
    CELLS,
    RICH,
    Net,
    map_state,
    one_of_each,
    read_only,
    refuses,
    same_bits,
    same_gradients,
    stacked,
    swapped,
    unpack,
)

NETS = one_of_each()
each_cell = pytest.mark.parametrize("net", NETS, ids=str)
each_checkpoint = pytest.mark.parametrize("checkpoint", [None, 2])
each_stack = pytest.mark.parametrize("net", stacked() + stacked(batch_first=True), ids=str)


class Call:
    """A layer with a tape of 4 steps and 2 rows (or one sequence), and a good dy and dstate."""

    def __init__(
        self, net: Net, rng: np.random.Generator, batch: int | None = 2, checkpoint: Any = None
    ) -> None:
        self.net, self.layer = net, net.build()
        self.x, self.state = net.input(rng, 4, batch), net.state(rng, batch)
        self.dy, self.dstate = net.output_gradient(rng, 4, batch), net.state(rng, batch)
        self.forward = self.layer(self.x, self.state)
        self.tape = self.layer.forward_train(self.x, self.state, checkpoint=checkpoint)[2]
        self.g = self.layer.backward(self.tape, self.dy, self.dstate)

    def backward(self, dy: Any = None, dstate: Any = None, **options: Any) -> Any:
        return self.layer.backward(self.tape, self.dy if dy is None else dy, dstate, **options)

    def grads(self) -> dict[str, np.ndarray]:
        """Arrays that are good for out."""
        return {name: np.zeros_like(array) for name, array in self.layer.parameters().items()}

    @contextmanager
    def refuses(self, error: Any, *facts: Any) -> Iterator[None]:
        """Expects an error that names these facts, and that all works as before after it."""
        with refuses(error, *facts):
            yield
        assert same_bits(self.layer(self.x, self.state), self.forward)
        assert same_gradients(self.layer.backward(self.tape, self.dy, self.dstate), self.g)


# ---- dy ---------------------------------------------------------------------------------------


@each_cell
@pytest.mark.parametrize(
    "shape",
    [(), (5,), (4, 5), (2, 4, 5), (4, 2, 6), (4, 2, 4), (3, 2, 5), (4, 3, 5), (4, 2, 0), (1, 2, 5)]
    + [(4, 1, 5), (0, 2, 5), (2, 6), (1, 5), (1, 4, 2, 5), (40,)],
)
def test_wrong_shape_of_dy(net: Net, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    call = Call(net, rng)
    with call.refuses(ValueError, "dy", (4, 2, 5), shape):
        call.backward(np.zeros(shape, np.float32))


@each_cell
@pytest.mark.parametrize("shape", [(), (6,), (4,), (3, 5), (5, 5), (4, 6), (4, 1, 5), (1, 5)])
def test_wrong_shape_of_dy_of_one_sequence(
    net: Net, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    call = Call(net, rng, None)
    with call.refuses(ValueError, "dy", (4, 5), shape):
        call.backward(np.zeros(shape, np.float32))


def test_dy_in_the_other_layout(rng: np.random.Generator) -> None:
    for net in stacked(batch_first=True):
        call = Call(net, rng)
        with call.refuses(ValueError, "dy", (2, 4, net.output_size), (4, 2, net.output_size)):
            call.backward(call.dy.swapaxes(0, 1))


@each_stack
@each_checkpoint
def test_double_for_a_single_layer(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    for batch in (None, 2):
        call = Call(net, rng, batch, checkpoint)
        for dy in (call.dy.astype(np.float64), call.dy[-1:].sum(0, np.float64)):
            with call.refuses(TypeError, "dy", "float32", "float64"):
                call.backward(dy)


@each_cell
@pytest.mark.parametrize("dtype", ["longdouble", "complex64", "complex128", "object", "U5", "S5"])
def test_wrong_dtype_of_dy(net: Net, dtype: str, rng: np.random.Generator) -> None:
    call = Call(net, rng)
    for dy in (call.dy.astype(dtype), call.dy[-1].astype(dtype)):
        with call.refuses(TypeError, "dy", "float32"):
            call.backward(dy)


@each_cell
@pytest.mark.parametrize(
    "dy",
    ["dy", b"dy", 3.5, object(), {}, {1.0}, [[1.0, 2.0], [3.0]], [["a"] * 5] * 4, len],
    ids=lambda dy: type(dy).__name__,
)
def test_no_array_for_dy(net: Net, dy: Any, rng: np.random.Generator) -> None:
    call = Call(net, rng)
    with call.refuses((TypeError, ValueError), "dy"):
        call.backward(dy)


def test_tensors_that_have_no_values_here(rng: np.random.Generator) -> None:
    call = Call(Net("lstm", 5, 5), rng)
    tensor = torch.from_numpy(call.dy.copy())
    for dy in (tensor.clone().requires_grad_(), tensor.to("meta"), tensor.to_sparse()):
        with call.refuses((TypeError, ValueError), "dy"):
            call.backward(dy)


# ---- dstate -----------------------------------------------------------------------------------


@each_stack
@each_checkpoint
def test_wrong_shape_of_dstate(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    call = Call(net, rng, checkpoint=checkpoint)
    shape = net.state_shape(2)
    wrong: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda a: a[..., :-1],
        lambda a: a[..., :1, :],
        lambda a: a[None],
        lambda a: a.reshape(-1),
        lambda a: np.concatenate([a, a]),
    ]
    for change in wrong:
        dstate = map_state(change, call.dstate)
        with call.refuses(ValueError, "dstate", shape, unpack(dstate)[0].shape):
            call.backward(dstate=dstate)


def test_one_wrong_part_of_dstate_is_named(rng: np.random.Generator) -> None:
    call = Call(Net("lstm", 5, 5), rng)
    h, c = call.dstate
    for index, name in ((0, "dh"), (1, "dc")):
        bad = [h, c]
        for other in (bad[1 - index], None):
            bad[1 - index], bad[index] = other, (h, c)[index][:, :1]
            with call.refuses(ValueError, "dstate", name, (1, 2, 5), (1, 1, 5)):
                call.backward(dstate=tuple(bad))
            bad[index] = (h, c)[index].astype(np.float64)
            with call.refuses(TypeError, "dstate", name, "float32", "float64"):
                call.backward(dstate=tuple(bad))


def test_dstate_of_the_wrong_form(rng: np.random.Generator) -> None:
    for net in NETS:
        call = Call(net, rng)
        array = unpack(call.dstate)[0]
        for bad in ("dstate", 3.5, object(), {}, (), (array, array, array), [None]):
            with call.refuses((TypeError, ValueError), "dstate"):
                call.backward(dstate=bad)
    lstm, rnn = Call(Net("lstm", 5, 5), rng), Call(Net("rnn", 5, 5), rng)
    with lstm.refuses((TypeError, ValueError), "dstate"):
        lstm.backward(dstate=rnn.dstate)
    with rnn.refuses((TypeError, ValueError), "dstate"):
        rnn.backward(dstate=lstm.dstate)


# ---- tape -------------------------------------------------------------------------------------


@each_cell
@pytest.mark.parametrize(
    "tape", [None, "tape", 1, object(), (), np.zeros(9, np.uint8)], ids=lambda t: type(t).__name__
)
def test_no_tape(net: Net, tape: Any, rng: np.random.Generator) -> None:
    call = Call(net, rng)
    with call.refuses(TypeError, "tape"):
        call.layer.backward(tape, call.dy)


@each_checkpoint
def test_a_tape_of_another_configuration(checkpoint: Any, rng: np.random.Generator) -> None:
    """Each differs from the first in one option, or in the cell."""
    base = {"input_size": 5, "hidden_size": 5}
    changes = [{"input_size": 6}, {"hidden_size": 6}, {"num_layers": 2}, {"bidirectional": True}]
    changes += [{"dtype": "float64"}, {"bias": False}, {"batch_first": True}]
    for cell in (c for c in CELLS if c != "leaky"):
        call = Call(Net(cell, **base), rng)
        others = [Net(cell, **base | change) for change in changes]
        others += [net for net in NETS if net.cell != cell]
        others += [Net(cell, **base, **{name: value}) for name, value in RICH[cell].items()]
        for other in others:
            tape = Call(other, rng, checkpoint=checkpoint).tape
            with call.refuses(ValueError, "tape"):
                call.layer.backward(tape, None)
    call = Call(Net("leaky", 5, 5), rng)
    for other in (Net("leaky", 6, 6), Net("leaky", 5, 5, batch_first=True), NETS[0]):
        with call.refuses(ValueError, "tape"):
            call.layer.backward(Call(other, rng).tape, None)


def test_dy_of_another_call_is_measured_by_the_tape(rng: np.random.Generator) -> None:
    for net in NETS:
        call = Call(net, rng)
        longer = call.layer.forward_train(net.input(rng, 9, 2))[2]
        with call.refuses(ValueError, "dy", (9, 2, 5), (4, 2, 5)):
            call.layer.backward(longer, call.dy)


# ---- out --------------------------------------------------------------------------------------


@each_stack
@each_checkpoint
def test_unknown_names_in_out(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    call = Call(net, rng, checkpoint=checkpoint)
    one = np.zeros(5, np.float32)
    for name in ("weight_hh_l9", "alpha_l7", "x", "", "weight_ih", 3, None):
        out: dict[Any, Any] = call.grads() | {name: one}
        with call.refuses((ValueError, KeyError, TypeError), "out"):
            call.backward(out=out)
        assert not any(array.any() for array in out.values())


@each_stack
@each_checkpoint
def test_wrong_arrays_in_out(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    """Whichever it is, and whatever comes before it: nothing has been added to any of them."""
    call = Call(net, rng, checkpoint=checkpoint)
    for name, shape in {k: v.shape for k, v in call.grads().items()}.items():
        longer = (*shape[:-1], shape[-1] + 1)
        wrong: list[tuple[Any, Any, tuple[Any, ...]]] = [
            (ValueError, np.zeros(longer, net.dtype), (shape, longer)),
            (ValueError, np.zeros((1, *shape), net.dtype), (shape, (1, *shape))),
            (ValueError, read_only(np.zeros(shape, net.dtype)), ()),
            (ValueError, np.zeros((*shape, 2), net.dtype)[..., 0], ()),
            (TypeError, np.zeros(shape, np.float64), ("float32", "float64")),
            (TypeError, np.zeros(shape, np.int32), ("float32", "int32")),
            (TypeError, swapped(np.zeros(shape, net.dtype)), ()),
            (TypeError, np.zeros(shape, net.dtype).tolist(), ()),
            (TypeError, None, ()),
        ]
        for error, array, facts in wrong:
            out = call.grads() | {name: array}
            with call.refuses(error, "out", name, *facts):
                call.backward(out=out)
            others = [value for key, value in out.items() if key != name]
            assert not any(np.any(value) for value in others)
            assert array is None or not np.any(array)


def test_misaligned_arrays_in_out(rng: np.random.Generator) -> None:
    """Are refused, or added into like any other."""
    for net in NETS:
        call = Call(net, rng)
        name, array = list(call.grads().items())[-1]
        raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
        odd = raw.view(array.dtype).reshape(array.shape)
        try:
            g = call.backward(out={name: odd})
        except ValueError as error:
            assert name in str(error)
            assert not raw.any()
        else:
            assert g.params[name] is odd
            assert np.array_equal(odd, call.backward().params[name])


def test_arrays_in_out_that_overlap_each_other(rng: np.random.Generator) -> None:
    for net in NETS[:-1]:
        call = Call(net, rng)
        same = np.zeros_like(call.layer.parameters()["bias_ih_l0"])
        with call.refuses(ValueError, "out"):
            call.backward(out={"bias_ih_l0": same, "bias_hh_l0": same})
        long = np.zeros(same.size + 1, net.dtype)
        with call.refuses(ValueError, "out"):
            call.backward(out={"bias_ih_l0": long[1:], "bias_hh_l0": long[:-1]})
        assert not same.any()
        assert not long.any()


@each_checkpoint
def test_arrays_in_out_that_overlap_what_is_read(checkpoint: Any, rng: np.random.Generator) -> None:
    """dy, dstate, or the x of the tape."""
    for net in stacked():
        call = Call(net, rng, checkpoint=checkpoint)
        name, array = next(reversed(call.layer.parameters().items()))

        def part(of: np.ndarray, like: np.ndarray = array) -> np.ndarray:
            return of.reshape(-1)[: like.size].reshape(like.shape)

        room = call.dy.ravel()
        dy = room.reshape(call.dy.shape)
        before = room.copy()
        with call.refuses(ValueError, "out"):
            call.backward(dy, out={name: part(room)})
        assert same_bits(room, before)

        x = np.array(call.x)
        before = x.copy()
        tape = call.layer.forward_train(x, call.state, checkpoint=checkpoint)[2]
        with call.refuses(ValueError, "out"):
            call.layer.backward(tape, call.dy, out={name: part(x)})
        assert same_bits(x, before)

        dstate = map_state(np.array, call.dstate)
        shared = unpack(dstate)[-1]
        if shared.size >= array.size:
            before = shared.copy()
            with call.refuses(ValueError, "out"):
                call.backward(dstate=dstate, out={name: part(shared)})
            assert same_bits(shared, before)


@each_cell
@pytest.mark.parametrize(
    "out", ["out", 3, [], (), np.zeros(3), object()], ids=lambda o: repr(o)[:9]
)
def test_no_mapping_for_out(net: Net, out: Any, rng: np.random.Generator) -> None:
    call = Call(net, rng)
    with call.refuses(TypeError, "out"):
        call.backward(out=out)


# ---- Options ----------------------------------------------------------------------------------


@each_cell
@pytest.mark.parametrize(
    "checkpoint", [0, -1, "x", "", 1.5, True, False, [2], 2.0, np.nan, b"auto"]
)
def test_bad_checkpoint(net: Net, checkpoint: Any, rng: np.random.Generator) -> None:
    call = Call(net, rng)
    out = np.full_like(call.dy, 7)
    with call.refuses((TypeError, ValueError), "checkpoint"):
        call.layer.forward_train(call.x, call.state, out=out, checkpoint=checkpoint)
    assert (out == 7).all()


def test_error_of_checkpoint_tells_type_from_value(rng: np.random.Generator) -> None:
    call = Call(NETS[0], rng)
    for error, values in ((ValueError, (0, -1)), (TypeError, (1.5, True))):
        for value in values:
            with call.refuses(error, "checkpoint"):
                call.layer.forward_train(call.x, checkpoint=value)


@each_cell
def test_any_number_of_steps_is_a_checkpoint(net: Net, rng: np.random.Generator) -> None:
    call = Call(net, rng)
    for checkpoint in (1, np.int64(2), np.uint8(3), 2**31, 2**62):
        tape = call.layer.forward_train(call.x, call.state, checkpoint=checkpoint)[2]
        assert same_gradients(call.layer.backward(tape, call.dy, call.dstate), call.g)


@each_cell
@pytest.mark.parametrize("name", ["need_x", "need_params"])
@pytest.mark.parametrize("value", [None, 1, "yes", np.zeros(2)], ids=lambda v: type(v).__name__)
def test_bad_flags(net: Net, name: str, value: Any, rng: np.random.Generator) -> None:
    call = Call(net, rng)
    with call.refuses(TypeError, name):
        call.backward(**{name: value})


# ---- forward_train ----------------------------------------------------------------------------


@each_stack
@each_checkpoint
def test_forward_refuses_what_a_call_refuses(
    net: Net, checkpoint: Any, rng: np.random.Generator
) -> None:
    call = Call(net, rng, checkpoint=checkpoint)
    x, state = call.x, call.state
    y = np.zeros_like(call.dy)
    cases: list[tuple[Any, str, tuple[Any, ...]]] = [
        (ValueError, "x", (x[..., :-1], state)),
        (TypeError, "x", (x.astype(np.float64), state)),
        ((TypeError, ValueError), "x", (None, state)),
        (ValueError, "state", (x, map_state(lambda a: a[..., :-1], state))),
        (TypeError, "state", (x, map_state(lambda a: a.astype(np.float64), state))),
    ]
    for error, name, arguments in cases:
        with call.refuses(error, name):
            call.layer.forward_train(*arguments, out=y, checkpoint=checkpoint)
    outs: list[tuple[Any, Any]] = [
        (ValueError, y[..., :-1]),
        (ValueError, read_only(y)),
        (TypeError, y.astype(np.float64)),
        (TypeError, y.tolist()),
    ]
    for error, out in outs:
        with call.refuses(error, "out"):
            call.layer.forward_train(x, state, out=out, checkpoint=checkpoint)
    assert not y.any()


@each_checkpoint
def test_out_that_overlaps_x(checkpoint: Any, rng: np.random.Generator) -> None:
    for net in NETS + one_of_each(bidirectional=True)[:-1]:
        call = Call(net, rng)
        room = np.concatenate([call.x, call.x], -1)
        x = room[..., :5]
        before = room.copy()
        with call.refuses(ValueError, "out"):
            out = room[..., : net.output_size]
            call.layer.forward_train(x, call.state, out=out, checkpoint=checkpoint)
        assert same_bits(room, before)


@each_cell
def test_a_refused_part_does_not_hide_the_others(net: Net, rng: np.random.Generator) -> None:
    """Good arguments, right after each kind of error, in the same arrays."""
    call = Call(net, rng)
    out = call.grads()
    for bad in ({"dy": call.dy[:-1]}, {"dstate": "x"}, {"out": {"x": call.dy}}):
        with call.refuses((TypeError, ValueError, KeyError)):
            call.backward(**{"out": out} | bad)
    g = call.backward(dstate=call.dstate, out=out)
    assert same_bits((g.x, g.state), (call.g.x, call.g.state))
    assert all(np.array_equal(out[name], array) for name, array in call.g.params.items())
