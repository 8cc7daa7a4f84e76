"""Time structures in Python: states, streams, and nets that run in pieces."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from structure_layers import IN, VARIANTS, H, each_variant, inputs, random_state
from support import map_state, refuses, same_bits, unpack

from fastrnn import GRU, LSTM, RNN, DilatedRNN, LeakyRNN, MinGRU, _structure

# ---- States -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda: RNN(IN, H, 2, delays=4), [(8, H)]),
        (lambda: RNN(IN, H, bidirectional=True, delays=(2, 5)), [(10, H)]),
        (lambda: LSTM(IN, H, 2, delays=(2, 5)), [(10, H), (4, H)]),
        (lambda: LSTM(IN, H, delays=(2, 5), proj_size=4), [(5, 4), (2, H)]),
        (lambda: LeakyRNN(IN, H, delays=(2, 5), form="potential"), [(5, H)]),
        (lambda: MinGRU(IN, H, 2, delays=3), [(6, H)]),
        (lambda: DilatedRNN("gru", IN, H, (4, 1)), [(5, H)]),
        (lambda: DilatedRNN("lstm", IN, H, (1, 2, 3), bidirectional=True), [(12, H), (12, H)]),
        (lambda: RNN(IN, H, 2, periods=(1, 2)), [(2, H), None]),
        (lambda: LSTM(IN, H, periods=(1, 2)), [(1, H), (1, H), None]),
    ],
)
def test_shapes_of_states(make: Any, shapes: Any) -> None:
    layer = make()
    for rows in ((), (2,), (0,)):
        x = np.ones((9, *rows, IN), np.float32)
        expected = [rows if shape is None else (shape[0], *rows, shape[1]) for shape in shapes]
        y, state, tape = layer.forward_train(x)
        assert isinstance(state, tuple) == (len(shapes) > 1)
        assert [array.shape for array in unpack(state)] == expected
        assert same_bits(layer(x), (y, state))
        real = [array.shape for array in unpack(state) if array.dtype.kind == "f"]
        gradient = layer.backward(tape, y).state
        assert isinstance(gradient, tuple) == (len(real) > 1)
        assert [array.shape for array in unpack(gradient)] == real
        if layer.periods is not None:
            assert state[-1].dtype == np.int64
            assert (state[-1] == 9).all()


def test_h_of_the_final_state_is_the_end_of_y() -> None:
    x = inputs(RNN(IN, H))
    y, h = RNN(IN, H, delays=(1, 3), seed=0)(x)
    assert same_bits(h, y[-3:].copy())
    y, (h, c) = LSTM(IN, H, delays=(2, 20), seed=0)(x)
    assert same_bits(h[-7:], y)
    assert not h[:-7].any()
    assert c.shape == (2, 2, H)


@each_variant
def test_chunks_and_streams(make: Any) -> None:
    layer = make()
    if layer.bidirectional or layer.go_backwards:
        with refuses(ValueError, "stream"):
            layer.stream()
        return
    x, state = inputs(layer), random_state(layer)
    y, final = layer(x, state)
    time = 1 if layer.batch_first else 0
    first, middle = layer(np.take(x, [0, 1, 2], time), state)
    second, end = layer(np.take(x, [3, 4, 5, 6], time), middle)
    assert same_bits(np.concatenate((first, second), time), y)
    assert same_bits(end, final)
    stream = layer.stream(2)
    assert same_bits(stream.state, map_state(np.zeros_like, final))
    stream.state = state
    assert same_bits(stream.state, state)
    steps = [stream.step(np.ascontiguousarray(x_t)) for x_t in np.moveaxis(x, time, 0)]
    assert same_bits(np.stack(steps, time), y)
    assert same_bits(stream.state, final)
    stream.state = None
    assert same_bits(stream.state, map_state(np.zeros_like, final))


def row_of(array: Any, row: int) -> Any:
    """The part of one sequence in an array of a state."""
    return np.array(array[row] if array.ndim == 1 else array[:, row])


@each_variant
@pytest.mark.parametrize("skips", [False, True])
def test_one_sequence_is_a_row_of_a_batch(make: Any, skips: bool) -> None:
    layer = make()
    x, state = inputs(layer), random_state(layer)
    mask = np.random.default_rng(4).random(x.shape[:2]) < 0.6 if skips else None
    y, final, tape = layer.forward_train(x, state, mask=mask)
    dstate = final if layer.periods is None else None
    g = layer.backward(tape, y, dstate)
    for row in range(2):
        place = row if layer.batch_first else (slice(None), row)
        own = map_state(lambda a, row=row: row_of(a, row), state)
        own_mask = None if mask is None else mask[place]
        own_y, own_final, own_tape = layer.forward_train(x[place].copy(), own, mask=own_mask)
        assert same_bits(own_y, y[place].copy())
        assert same_bits(own_final, map_state(lambda a, row=row: row_of(a, row), final))
        own_g = layer.backward(own_tape, own_y, own_final if layer.periods is None else None)
        assert same_bits(own_g.x, g.x[place].copy())
        assert same_bits(own_g.state, map_state(lambda a, row=row: row_of(a, row), g.state))


def test_clocks_of_states() -> None:
    lstm, rnn = LSTM(IN, H, periods=(1, 2)), RNN(IN, H, periods=(1, 2))
    x = np.ones((4, 2, IN), np.float32)
    h, c, clock = lstm(x)[1]
    for given in (clock.astype(np.uint8), clock.tolist(), clock.astype(">i4")):
        assert same_bits(lstm(x, (h, c, given)), lstm(x, (h, c, clock)))
    assert int(rnn(x[:, 0], (h[:, 0], 5))[1][1]) == 9
    for state in (h, (h, c), (h, c, clock, clock), "state"):
        with refuses(TypeError, "state", "clock"):
            lstm(x, state)
    with refuses(TypeError, "state", "clock"):
        rnn(x, h)
    for wrong in (clock.astype(float), [0.0, 1.0], [True, False], None, "12"):
        with refuses(TypeError, "state[2] (clock)"):
            lstm(x, (h, c, wrong))
        with refuses(TypeError, "state[1] (clock)"):
            rnn(x, (h, wrong))
    for wrong in (clock[:1], clock[0], [[1, 2]], [-1, 2], np.array([2**63, 0], np.uint64)):
        with refuses(ValueError, "state[2] (clock)"):
            lstm(x, (h, c, wrong))
    stream = rnn.stream(2)
    with refuses(TypeError, "state[1] (clock)"):
        stream.state = (h, clock / 2)
    y, _, tape = rnn.forward_train(x)
    assert rnn.backward(tape, y, h).state.shape == h.shape
    with refuses(TypeError, "dstate"):
        rnn.backward(tape, y, (h, clock))


def test_states_of_other_delays_are_refused() -> None:
    x = inputs(RNN(IN, H))
    layer = LSTM(IN, H, delays=(2, 3))
    h, c = layer(x)[1]
    with refuses(ValueError, "state[0] (h)", (3, 2, H), (2, 2, H)):
        layer(x, (c, c))
    with refuses(ValueError, "state[1] (c)", (2, 2, H), (3, 2, H)):
        layer(x, (h, h))


# ---- Training in pieces -----------------------------------------------------------------------


@each_variant
@pytest.mark.parametrize("checkpoint", [1, "auto"])
def test_checkpoints(make: Any, checkpoint: Any) -> None:
    layer = make()
    x, state = inputs(layer, 300), random_state(layer)
    y, final, tape = layer.forward_train(x, state)
    assert same_bits((y, final), layer(x, state))
    short_y, short_final, short = layer.forward_train(x, state, checkpoint=checkpoint)
    assert same_bits((short_y, short_final), (y, final))
    dstate = map_state(lambda a: a, final) if layer.periods is None else None
    a, b = layer.backward(tape, y, dstate), layer.backward(short, y, dstate)
    assert same_bits((a.x, *unpack(a.state)), (b.x, *unpack(b.state)))
    assert all(same_bits(a.params[name], b.params[name]) for name in a.params)


@each_variant
def test_layer_by_layer(make: Any) -> None:
    """With a dropout that never drops, whose layers run one by one."""
    layer = make()
    if layer.num_layers == 1:
        return
    pieces = copy.copy(layer)
    pieces.dropout = 1e-12
    x, state = inputs(layer), random_state(layer)
    y, final, tape = layer.forward_train(x, state)
    other_y, other_final, other = pieces.forward_train(x, state, rng=0)
    if layer.dtype == np.float64:  # in which 1 - 1e-12 is not 1
        np.testing.assert_allclose(other_y, y, rtol=1e-9)
        return
    assert same_bits((other_y, other_final), (y, final))
    dstate = map_state(lambda a: a, final) if layer.periods is None else None
    a, b = layer.backward(tape, y, dstate), pieces.backward(other, y, dstate)
    assert same_bits((a.x, *unpack(a.state)), (b.x, *unpack(b.state)))
    assert all(same_bits(a.params[name], b.params[name]) for name in a.params)


@each_variant
def test_gradients_outside_a_mask_are_zero(make: Any) -> None:
    layer = make()
    y, _, tape = layer.forward_train(inputs(layer))
    gradients = layer.backward(tape, y).params
    assert list(gradients) == list(layer.parameters())
    allowed = _structure.connections(layer)
    if allowed is None:
        return
    for number, (_, suffix) in enumerate(layer._parts()):
        for end in _structure.delay_ends(layer):
            name = f"weight_hh{suffix}{end}"
            if name in gradients:
                each = gradients[name].reshape(-1, *allowed.shape[1:])
                assert not each[:, ~allowed[number]].any(), name
                assert each.any(), name


def test_tapes_of_other_structures_are_refused() -> None:
    layers = [make() for make in VARIANTS.values()]
    tapes = [layer.forward_train(inputs(layer))[2] for layer in layers]
    for layer in layers:
        for other, tape in zip(layers, tapes, strict=True):
            if layer is not other:
                with refuses(ValueError, "tape"):
                    layer.backward(tape, None)


def test_skipped_steps_do_not_count() -> None:
    """A row that skips steps is the row of those that are left, whatever its clock."""
    layer = GRU(IN, H, periods=(1, 2, 3), seed=0)
    x = inputs(layer, 8)
    mask = np.ones((8, 2), bool)
    mask[[1, 4, 5], 0] = False
    y, (h, clock) = layer(x, mask=mask)
    kept, last = layer(np.ascontiguousarray(x[mask[:, 0], :1]))
    assert clock.tolist() == [5, 8]
    assert same_bits(y[mask[:, 0], :1], kept)
    assert same_bits(h[:, :1].copy(), last[0])
    lengths = layer(x, lengths=[3, 8])[1][1]
    assert lengths.tolist() == [3, 8]
    reset = np.zeros((8, 2), bool)
    reset[6, 0] = True
    again = layer(x, (np.zeros((1, 2, H), np.float32), [4, 0]), reset=reset)[1][1]
    assert again.tolist() == [6, 8]
