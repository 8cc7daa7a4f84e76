"""The bits promise: the same input gives the same bits, however it is cut, laid out or computed.

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
    OUT_FLAVOURS,
    STEPS,
    Net,
    at_offset,
    draw_net,
    map_state,
    outside,
    picker,
    run_python,
    same_bits,
    take_rows,
)

import fastrnn

CONFIGURATIONS = 1000


@dataclass(frozen=True)
class Case:
    """A net with its arrays, and the result of running it in one call: what all else must equal."""

    net: Net
    layer: Any
    x: np.ndarray
    state: Any
    y: np.ndarray
    final: Any
    steps: int
    batch: int

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.net.seed)

    def time_major(self, array: np.ndarray) -> np.ndarray:
        return array.swapaxes(0, 1) if self.net.batch_first else array

    def rows(self, array: np.ndarray, rows: Any) -> np.ndarray:
        return array[rows] if self.net.batch_first else array[:, rows]

    def times(self, array: np.ndarray, times: slice) -> np.ndarray:
        return array[:, times] if self.net.batch_first else array[times]


def make_case(net: Net, steps: int, batch: int) -> Case:
    rng = np.random.default_rng(net.seed)
    layer, x, state = net.build(), net.input(rng, steps, batch), net.state(rng, batch)
    y, final = layer(x, state)
    return Case(net, layer, x, state, y, final, steps, batch)


def random_cases(cell: str) -> Iterator[Case]:
    pick = picker(np.random.default_rng(CELLS.index(cell)))
    for _ in range(CONFIGURATIONS // len(CELLS)):
        yield make_case(draw_net(pick, cell), pick(STEPS), pick(BATCHES))


@pytest.fixture(scope="module", params=[*CELLS, "large"])
def cases(request: pytest.FixtureRequest) -> list[Case]:
    if request.param == "large":
        return [make_case(*large) for large in large_nets("float32", batch_first=True)]
    return list(random_cases(request.param))


def test_again(cases: list[Case]) -> None:
    for case in cases:
        assert same_bits(case.layer(case.x, case.state), (case.y, case.final)), case.net


def test_alone_or_in_a_batch(cases: list[Case]) -> None:
    """One row alone, as a batch of one and without a batch axis; some rows, in another order."""
    for case in cases:
        row = int(case.rng.integers(case.batch))
        some = case.rng.permutation(case.batch)[: 1 + case.batch // 2]
        for rows in ([row], some):
            x = np.ascontiguousarray(case.rows(case.x, rows))
            y, final = case.layer(x, take_rows(case.state, rows))
            assert same_bits(y, case.rows(case.y, rows)), (case.net, rows)
            assert same_bits(final, take_rows(case.final, rows)), (case.net, rows)
        y, final = case.layer(case.rows(case.x, row), take_rows(case.state, row))
        assert same_bits(y, case.rows(case.y, row)), (case.net, row)
        assert same_bits(final, take_rows(case.final, row)), (case.net, row)


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
    for case in cases:
        if case.net.bidirectional:
            continue
        stream = case.layer.stream(batch_size=case.batch)
        stream.state = case.state
        x = np.ascontiguousarray(case.time_major(case.x))
        y = np.stack([stream.step(x_t) for x_t in x])
        assert same_bits(y, case.time_major(case.y)), case.net
        assert same_bits(stream.state, case.final), case.net


def test_layout_of_input(cases: list[Case]) -> None:
    for case in cases:
        flavour = picker(case.rng)(list(FLAVOURS))
        for name in {flavour, "strided everywhere", "misaligned"}:
            result = case.layer(FLAVOURS[name](case.x), map_state(FLAVOURS[name], case.state))
            assert same_bits(result, (case.y, case.final)), (case.net, name)


def test_layout_of_output(cases: list[Case]) -> None:
    for case in cases:
        flavour = picker(case.rng)(OUT_FLAVOURS)
        out = FLAVOURS[flavour](np.full_like(case.y, np.nan))
        around = outside(out) if out.size < 1000 else None
        y, final = case.layer(case.x, case.state, out=out)
        assert y is out
        assert same_bits(out, case.y), (case.net, flavour)
        assert same_bits(final, case.final), (case.net, flavour)
        assert around is None or same_bits(around, outside(out)), (case.net, flavour)


def test_alignment_of_everything(cases: list[Case]) -> None:
    """Weights, x, state and out at every multiple of the element size within 64 bytes in turn."""
    for number, case in enumerate(cases):
        offset = number * case.x.itemsize % 64
        layer = case.net.build()
        layer.load_state_dict({k: at_offset(v, offset) for k, v in case.layer.state_dict().items()})
        state = map_state(lambda array, offset=offset: at_offset(array, offset), case.state)
        result = layer(at_offset(case.x, offset), state, out=at_offset(case.y * 0, offset))
        assert same_bits(result, (case.y, case.final)), (case.net, offset)


def test_on_every_isa() -> None:
    worker = str(Path(__file__).with_name("bits_worker.py"))
    found = {}
    for isa in fastrnn.available_isas():
        process = run_python(worker, isa=isa)
        assert process.returncode == 0, process.stderr
        answer = json.loads(process.stdout)
        assert answer["isa"] == isa
        found[isa] = answer["hashes"]
    reference = found[fastrnn.isa()]
    assert len(reference) > 400
    for isa, hashes in found.items():
        differ = [net for net, value in reference.items() if hashes[net] != value]
        assert not differ, f"{isa} differs on {len(differ)} nets, first {differ[0]}"
