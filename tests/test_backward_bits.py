"""The bits promise of gradients: the same input gives the same bits, however it is computed.

Every comparison is of bytes. Each of the random nets meets each of the tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bits_worker import large_nets
from support import (
    BATCHES,
    CELLS,
    FLAVOURS,
    STEPS,
    Net,
    at_offset,
    draw_net,
    map_state,
    picker,
    run_python,
    same_bits,
    same_gradients,
    take_rows,
)

import fastrnn

PER_CELL = 40

# Segments of one step, of some, of a block of the sums at most and of several; more than all.
CHECKPOINTS = (1, 2, 3, 5, 16, 100, 10_000, "auto")

# Nets and sizes of several segments each, however large a block of steps may be.
DEEP = {"num_layers": 3, "bidirectional": True}
LONG = [
    (Net(cell, 5, 5, dtype=dtype, **options), 400, 2)
    for cell in CELLS
    for dtype, options in (("float64", {}), ("float32", {"num_layers": 2}), ("float32", DEEP))
    if not (options and cell == "leaky")
]


@dataclass(frozen=True)
class Case:
    """A net with its arrays, and its gradients without checkpoints: what all else must equal."""

    net: Net
    layer: Any
    x: np.ndarray
    state: Any
    dy: np.ndarray
    dstate: Any
    tape: Any
    g: Any
    batch: int

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.net.seed)

    @property
    def last(self) -> np.ndarray:
        """The part of dy of the last step."""
        return np.ascontiguousarray(self.dy[:, -1] if self.net.batch_first else self.dy[-1])

    def rows(self, array: np.ndarray, rows: Any) -> np.ndarray:
        taken = array[rows] if self.net.batch_first else array[:, rows]
        return np.ascontiguousarray(taken)


def make_case(net: Net, steps: int, batch: int) -> Case:
    rng = np.random.default_rng(net.seed)
    layer, x, state = net.build(), net.input(rng, steps, batch), net.state(rng, batch)
    dy, dstate = net.output_gradient(rng, steps, batch), net.state(rng, batch)
    _, _, tape = layer.forward_train(x, state)
    return Case(net, layer, x, state, dy, dstate, tape, layer.backward(tape, dy, dstate), batch)


def random_cases(cell: str) -> Iterator[Case]:
    pick = picker(np.random.default_rng(CELLS.index(cell)))
    for _ in range(PER_CELL):
        yield make_case(draw_net(pick, cell), pick(STEPS), pick(BATCHES))


@pytest.fixture(scope="module", params=[*CELLS, "large", "long"])
def cases(request: pytest.FixtureRequest) -> list[Case]:
    if request.param == "large":
        return [make_case(*large) for large in large_nets("float32", batch_first=True)]
    if request.param == "long":
        return [make_case(*long) for long in LONG]
    return list(random_cases(request.param))


def test_again(cases: list[Case]) -> None:
    """From the same tape, and from a forward by another layer of the same weights."""
    for case in cases:
        assert same_gradients(case.layer.backward(case.tape, case.dy, case.dstate), case.g)
        layer = case.net.build()
        _, _, tape = layer.forward_train(case.x, case.state)
        assert same_gradients(layer.backward(tape, case.dy, case.dstate), case.g), case.net


def test_with_checkpoints(cases: list[Case]) -> None:
    for case in cases:
        last = case.layer.backward(case.tape, case.last)
        for checkpoint in CHECKPOINTS:
            y, final, tape = case.layer.forward_train(case.x, case.state, checkpoint=checkpoint)
            assert same_bits((y, final), case.layer(case.x, case.state))
            g = case.layer.backward(tape, case.dy, case.dstate)
            assert same_gradients(g, case.g), (case.net, checkpoint)
            assert same_gradients(case.layer.backward(tape, case.last), last), checkpoint


def test_rows_alone_or_in_a_batch(cases: list[Case]) -> None:
    """The gradients of x and state, which are not sums over the batch."""
    for case in cases:
        some = case.rng.permutation(case.batch)[: 1 + case.batch // 2]
        for rows in ([int(case.rng.integers(case.batch))], some):
            x, state = case.rows(case.x, rows), take_rows(case.state, rows)
            _, _, tape = case.layer.forward_train(x, state)
            dstate = take_rows(case.dstate, rows)
            g = case.layer.backward(tape, case.rows(case.dy, rows), dstate)
            assert same_bits(g.x, case.rows(case.g.x, rows)), (case.net, rows)
            assert same_bits(g.state, take_rows(case.g.state, rows)), (case.net, rows)


def test_one_sequence_without_a_batch_axis(cases: list[Case]) -> None:
    for case in cases:
        x, state = case.rows(case.x, [0]), take_rows(case.state, [0])
        dy, dstate = case.rows(case.dy, [0]), take_rows(case.dstate, [0])
        batch = case.layer.backward(case.layer.forward_train(x, state)[2], dy, dstate)
        axis = 0 if case.net.batch_first else 1
        state, dstate = (map_state(lambda a: a[..., 0, :], s) for s in (state, dstate))
        _, _, tape = case.layer.forward_train(x.squeeze(axis), state)
        g = case.layer.backward(tape, dy.squeeze(axis), dstate)
        assert same_bits(g.x, batch.x.squeeze(axis)), case.net
        assert same_bits(g.state, map_state(lambda a: a[..., 0, :], batch.state)), case.net
        assert all(same_bits(g.params[name], array) for name, array in batch.params.items())


def test_layout_of_input(cases: list[Case]) -> None:
    for case in cases:
        flavour = picker(case.rng)(list(FLAVOURS))
        for name in {flavour, "strided everywhere", "misaligned"}:
            make = FLAVOURS[name]
            for checkpoint in (None, 2):
                _, _, tape = case.layer.forward_train(
                    make(case.x), map_state(make, case.state), checkpoint=checkpoint
                )
                g = case.layer.backward(tape, make(case.dy), map_state(make, case.dstate))
                assert same_gradients(g, case.g), (case.net, name, checkpoint)


def test_batch_first_or_time_first(cases: list[Case]) -> None:
    for case in cases:
        turned = Net(**vars(case.net) | {"batch_first": not case.net.batch_first})
        layer, x = turned.build(), np.ascontiguousarray(case.x.swapaxes(0, 1))
        _, _, tape = layer.forward_train(x, case.state)
        g = layer.backward(tape, np.ascontiguousarray(case.dy.swapaxes(0, 1)), case.dstate)
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
        _, _, tape = layer.forward_train(moved(case.x), map_state(moved, case.state))
        out = {name: moved(np.zeros_like(array)) for name, array in case.g.params.items()}
        dstate = map_state(moved, case.dstate)
        g = layer.backward(tape, moved(case.dy), dstate, out=out)
        assert all(np.array_equal(g.params[name], a) for name, a in case.g.params.items())
        assert same_bits((g.x, g.state), (case.g.x, case.g.state)), (case.net, offset)
        assert same_gradients(layer.backward(tape, moved(case.dy), dstate), case.g), case.net


def test_parts_that_are_not_needed(cases: list[Case]) -> None:
    """What is left out changes no bit of the rest."""
    for case in cases:
        arguments = (case.tape, case.dy, case.dstate)
        some = case.layer.backward(*arguments, need_x=False)
        assert all(same_bits(some.params[name], a) for name, a in case.g.params.items())
        rest = case.layer.backward(*arguments, need_params=False)
        assert same_bits((rest.x, rest.state, some.state), (case.g.x, case.g.state, case.g.state))


def test_on_every_isa() -> None:
    worker = str(Path(__file__).with_name("bits_backward_worker.py"))
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
