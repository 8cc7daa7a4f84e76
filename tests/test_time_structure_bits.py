"""The bits promise with time structures: however a sequence is cut, laid out or computed.

Every comparison is of bytes. Each of the random nets meets each of the tests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structure_bits_worker import LARGE
from structured import CASES, KINDS, draw_structured
from support import (
    BATCHES,
    FLAVOURS,
    OUT_FLAVOURS,
    STEPS,
    Net,
    at_offset,
    map_state,
    outside,
    picker,
    run_python,
    same_bits,
    same_gradients,
    take_rows,
    unpack,
)

import fastrnn

PER_CASE = 6

CHECKPOINTS = (1, 2, 3, 5, 16, 10_000, "auto")


@dataclass(frozen=True)
class Case:
    """A net with its arrays, and what one call and its backward gave: what all else must equal."""

    net: Net
    layer: Any
    x: np.ndarray
    state: Any
    dy: np.ndarray
    dstate: Any
    y: np.ndarray
    final: Any
    tape: Any
    g: Any
    steps: int
    batch: int

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.net.seed)

    def time_major(self, array: np.ndarray) -> np.ndarray:
        return array.swapaxes(0, 1) if self.net.batch_first else array

    def rows(self, array: np.ndarray, rows: Any) -> np.ndarray:
        taken = array[rows] if self.net.batch_first else array[:, rows]
        return np.ascontiguousarray(taken)

    def times(self, array: np.ndarray, times: slice) -> np.ndarray:
        return array[:, times] if self.net.batch_first else array[times]


def make_case(net: Net, steps: int, batch: int) -> Case:
    rng = np.random.default_rng(net.seed)
    layer, x, state = net.build(), net.input(rng, steps, batch), net.state(rng, batch)
    dy, dstate = net.output_gradient(rng, steps, batch), net.state_gradient(rng, batch)
    if net.periods is not None and net.seed % 2:  # all at one step, as they mostly are
        state = (*state[:-1], np.full_like(state[-1], net.seed % 13))
    y, final = layer(x, state)
    _, _, tape = layer.forward_train(x, state)
    g = layer.backward(tape, dy, dstate)
    return Case(net, layer, x, state, dy, dstate, y, final, tape, g, steps, batch)


@pytest.fixture(scope="module", params=[*KINDS, "large"])
def cases(request: pytest.FixtureRequest) -> list[Case]:
    if request.param == "large":
        return [make_case(*large) for large in LARGE]
    found = []
    for cell, kind in CASES:
        if kind == request.param:
            pick = picker(np.random.default_rng(CASES.index((cell, kind))))
            for _ in range(PER_CASE):
                net = draw_structured(pick, kind, cell)
                found.append(make_case(net, pick((*STEPS, 21)), pick(BATCHES)))
    return found


def test_again(cases: list[Case]) -> None:
    """Also by the forward of training, and from a tape that has been used."""
    for case in cases:
        assert same_bits(case.layer(case.x, case.state), (case.y, case.final)), case.net
        layer = case.net.build()
        y, final, tape = layer.forward_train(case.x, case.state)
        assert same_bits((y, final), (case.y, case.final)), case.net
        assert same_gradients(layer.backward(tape, case.dy, case.dstate), case.g), case.net
        assert same_gradients(layer.backward(case.tape, case.dy, case.dstate), case.g), case.net


def test_alone_or_in_a_batch(cases: list[Case]) -> None:
    """One row alone, as a batch of one and without a batch axis; some rows, in another order."""
    for case in cases:
        row = int(case.rng.integers(case.batch))
        some = case.rng.permutation(case.batch)[: 1 + case.batch // 2]
        for rows in ([row], some, row):
            x, state = case.rows(case.x, rows), take_rows(case.state, rows)
            y, final, tape = case.layer.forward_train(x, state)
            assert same_bits((y, final), case.layer(x, state)), (case.net, rows)
            assert same_bits(y, case.rows(case.y, rows)), (case.net, rows)
            assert same_bits(final, take_rows(case.final, rows)), (case.net, rows)
            g = case.layer.backward(tape, case.rows(case.dy, rows), take_rows(case.dstate, rows))
            assert same_bits(g.x, case.rows(case.g.x, rows)), (case.net, rows)
            assert same_bits(g.state, take_rows(case.g.state, rows)), (case.net, rows)


def test_whole_or_chunked(cases: list[Case]) -> None:
    for case in cases:
        if case.net.bidirectional:
            continue  # its reverse half starts at the end, so it has to be given whole
        cuts = np.sort(case.rng.integers(0, case.steps + 1, 3))
        state, ys = case.state, []
        for start, stop in zip([0, *cuts], [*cuts, case.steps], strict=True):
            y, state = case.layer(case.times(case.x, slice(start, stop)), state)
            ys.append(case.time_major(y))
        assert same_bits(np.concatenate(ys), case.time_major(case.y)), (case.net, cuts)
        assert same_bits(state, case.final), (case.net, cuts)


def test_whole_or_stepped(cases: list[Case]) -> None:
    """As a stream, whose state is taken out and set again now and then."""
    for case in cases:
        if case.net.bidirectional:
            continue
        stream = case.layer.stream(batch_size=case.batch)
        stream.state = case.state
        assert same_bits(stream.state, case.state), case.net
        out, cut = None, int(case.rng.integers(case.steps + 1))
        for t, x_t in enumerate(np.ascontiguousarray(case.time_major(case.x))):
            if t == cut:
                middle = stream.state
                stream.reset()
                stream.step(x_t)
                stream.state = middle
            out = stream.step(x_t)
            assert same_bits(out, np.ascontiguousarray(case.time_major(case.y)[t])), (case.net, t)
        assert same_bits(stream.state, case.final), case.net


def test_pieces_of_a_stream_and_chunks(cases: list[Case]) -> None:
    """A stream goes on where a call ended, and a call where a stream did."""
    for case in cases:
        if case.net.bidirectional or case.steps < 2:
            continue
        middle = case.steps // 2
        y, state = case.layer(case.times(case.x, slice(middle)), case.state)
        stream = case.layer.stream(batch_size=case.batch)
        stream.state = state
        x = np.ascontiguousarray(case.time_major(case.x))
        assert same_bits(stream.step(x[middle]), case.time_major(case.y)[middle].copy()), case.net
        y, final = case.layer(case.times(case.x, slice(middle + 1, None)), stream.state)
        assert same_bits(case.time_major(y).copy(), case.time_major(case.y)[middle + 1 :].copy())
        assert same_bits(final, case.final), case.net


def test_with_checkpoints(cases: list[Case]) -> None:
    for case in cases:
        last = np.ascontiguousarray(case.time_major(case.dy)[-1])
        g_last = case.layer.backward(case.tape, last)
        for checkpoint in CHECKPOINTS:
            y, final, tape = case.layer.forward_train(case.x, case.state, checkpoint=checkpoint)
            assert same_bits((y, final), (case.y, case.final)), (case.net, checkpoint)
            g = case.layer.backward(tape, case.dy, case.dstate)
            assert same_gradients(g, case.g), (case.net, checkpoint)
            assert same_gradients(case.layer.backward(tape, last), g_last), (case.net, checkpoint)


def test_layout_of_input(cases: list[Case]) -> None:
    for case in cases:
        flavour = picker(case.rng)(list(FLAVOURS))
        for name in {flavour, "strided everywhere"}:
            make = FLAVOURS[name]
            state = map_state(make, case.state)
            result = case.layer(make(case.x), state)
            assert same_bits(result, (case.y, case.final)), (case.net, name)
            _, _, tape = case.layer.forward_train(make(case.x), state)
            g = case.layer.backward(tape, make(case.dy), map_state(make, case.dstate))
            assert same_gradients(g, case.g), (case.net, name)


def test_layout_of_output(cases: list[Case]) -> None:
    for case in cases:
        flavour = picker(case.rng)(OUT_FLAVOURS)
        out = FLAVOURS[flavour](np.full_like(case.y, np.nan))
        around = outside(out) if out.size < 500 else None
        y, final = case.layer(case.x, case.state, out=out)
        assert y is out
        assert same_bits(out, case.y), (case.net, flavour)
        assert same_bits(final, case.final), (case.net, flavour)
        assert around is None or same_bits(around, outside(out)), (case.net, flavour)


def test_batch_first_or_time_first(cases: list[Case]) -> None:
    for case in cases:
        layer = replace(case.net, batch_first=not case.net.batch_first).build()
        x, dy = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (case.x, case.dy))
        y, final, tape = layer.forward_train(x, case.state)
        assert same_bits(np.ascontiguousarray(y.swapaxes(0, 1)), case.y), case.net
        assert same_bits(final, case.final), case.net
        g = layer.backward(tape, dy, case.dstate)
        assert same_bits(np.ascontiguousarray(g.x.swapaxes(0, 1)), case.g.x), case.net
        assert same_bits(g.state, case.g.state), case.net
        assert all(same_bits(g.params[name], a) for name, a in case.g.params.items()), case.net


def test_alignment_of_everything(cases: list[Case]) -> None:
    """Weights and all arrays at every multiple of the element size within 64 bytes in turn."""
    for number, case in enumerate(cases):
        offset = number * case.x.itemsize % 64

        def moved(array: np.ndarray, offset: int = offset) -> np.ndarray:
            return at_offset(array, offset)

        layer = case.net.build()
        layer.load_state_dict({k: moved(v) for k, v in case.layer.state_dict().items()})
        state = map_state(moved, case.state)
        result = layer(moved(case.x), state, out=moved(case.y * 0))
        assert same_bits(result, (case.y, case.final)), (case.net, offset)
        _, _, tape = layer.forward_train(moved(case.x), state)
        g = layer.backward(tape, moved(case.dy), map_state(moved, case.dstate))
        assert same_gradients(g, case.g), case.net


def test_parts_that_are_not_needed(cases: list[Case]) -> None:
    """What is left out changes no bit of the rest."""
    for case in cases:
        arguments = (case.tape, case.dy, case.dstate)
        some = case.layer.backward(*arguments, need_x=False)
        assert all(same_bits(some.params[name], a) for name, a in case.g.params.items()), case.net
        rest = case.layer.backward(*arguments, need_params=False)
        assert same_bits((rest.x, rest.state, some.state), (case.g.x, case.g.state, case.g.state))


def test_states_are_copies(cases: list[Case]) -> None:
    for case in cases[:8]:
        given = map_state(np.copy, case.state)
        _, final = case.layer(case.x, given)
        assert same_bits(given, case.state)
        for array in unpack(final):
            array.fill(9)
        assert same_bits(case.layer(case.x, given), (case.y, case.final)), case.net


def test_on_every_isa() -> None:
    worker = str(Path(__file__).with_name("structure_bits_worker.py"))
    found = {}
    for isa in fastrnn.available_isas():
        process = run_python(worker, isa=isa)
        assert process.returncode == 0, process.stderr
        answer = json.loads(process.stdout)
        assert answer["isa"] == isa
        found[isa] = answer["hashes"]
    reference = found[fastrnn.isa()]
    assert len(reference) > 200
    for isa, hashes in found.items():
        differ = [net for net, value in reference.items() if hashes[net] != value]
        assert not differ, f"{isa} differs on {len(differ)} nets, first {differ[0]}"
