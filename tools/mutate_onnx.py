"""The mutation gate of fastrnn.onnx: faults that the conformance suite must notice, each of them.

    python tools/mutate_onnx.py            prints a table; fails if a fault passes unnoticed

A fault is put into the importer itself (its tables and functions are replaced), into what it reads
(the node that fastrnn is given is not the one that the witness has), or into what it gives back.
Then the cases of tests/onnx_cases.py run against the text of ONNX until one differs. An error is
not taken for a difference: a fault must show in the numbers.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import onnx_cases
from onnx_cases import GATES, Case

from fastrnn.onnx import _cells, _model

COUNT = 60  # cases of each operator, those of the tests
Outputs = list[np.ndarray]


@dataclass(frozen=True)
class Fault:
    """One fault: of reading (another case), of what is given back, or of the importer."""

    name: str
    reads: Callable[[Case], Case | None] | None = None  # None: the case does not show it
    gives: Callable[[Case, Outputs], Outputs | None] | None = None
    patch: Callable[[], Any] = contextlib.nullcontext
    applies: Callable[[Case], bool] = lambda case: True

    def outputs(self, case: Case) -> Outputs | None:
        """What fastrnn with the fault gives for a case; None if it cannot show there."""
        given = case if self.reads is None else self.reads(case)
        if given is None or not self.applies(case):
            return None
        with self.patch():
            outputs = onnx_cases.ours(given)
        return outputs if self.gives is None else self.gives(case, outputs)


# ---- Faults of the importer's own tables and functions ----------------------------------------


def wrong_orders(right: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return (order for order in itertools.permutations(right) if order != right)


def in_table(table: str, key: str, value: Any) -> Callable[[], Any]:
    return functools.partial(mock.patch.dict, getattr(_cells, table), {key: value})


def replaced(module: Any, name: str, value: Any) -> Callable[[], Any]:
    return functools.partial(mock.patch.object, module, name, value)


def is_op(op: str) -> Callable[[Case], bool]:
    return lambda case: case.op == op


def is_coupled(case: Case) -> bool:
    return bool(case.attributes.get("input_forget"))


def gate_orders() -> Iterator[Fault]:
    kinds = {
        "lstm": lambda c: c.op == "LSTM" and not is_coupled(c),
        "lstm_coupled": is_coupled,
        "gru": is_op("GRU"),
    }
    for kind, applies in kinds.items():
        for order in wrong_orders(_cells.ROWS[kind]):
            name = f"{kind}: gates in the order {order}"
            yield Fault(name, patch=in_table("ROWS", kind, order), applies=applies)
    yield Fault(
        "lstm_coupled: rows of the forget gate instead of the input gate",
        patch=in_table("ROWS", "lstm_coupled", (2, 3, 1)),
        applies=is_coupled,
    )
    for kind in ("lstm", "lstm_coupled"):
        for order in wrong_orders(_cells.PEEPHOLES[kind]):
            name = f"{kind}: peepholes in the order {order}"
            yield Fault(name, patch=in_table("PEEPHOLES", kind, order), applies=kinds[kind])
    yield Fault(
        "lstm_coupled: peephole of the forget gate instead of the output gate",
        patch=in_table("PEEPHOLES", "lstm_coupled", (0, 2)),
        applies=is_coupled,
    )


def defaults(name: str, *values: float) -> Callable[[], Any]:
    return in_table("ACTIVATIONS", name, (*_cells.ACTIVATIONS[name][:2], values))


def turned_as_a_whole(x: np.ndarray, lengths: Any, batch_first: bool) -> np.ndarray:
    return np.flip(x, 1 if batch_first else 0)


IMPORTER = [
    *gate_orders(),
    Fault(
        "reverse: neither x nor Y is turned",
        patch=replaced(_model, "turned", lambda x, lengths, first: x),
    ),
    Fault(
        "reverse: rows are turned as a whole, not within their lengths",
        patch=replaced(_model, "turned", turned_as_a_whole),
    ),
    Fault(
        "layout 1: a state is [D, B, H]",
        patch=replaced(
            _model,
            "onnx_state",
            lambda a, first: a.reshape(a.shape[1], a.shape[0], -1) if first else a,
        ),
    ),
    Fault("HardSigmoid: the defaults of Keras", patch=defaults("hardsigmoid", 1 / 6, 0.5)),
    Fault("LeakyRelu: default 0.1", patch=defaults("leakyrelu", 0.1)),
    Fault("Elu: default 0.5", patch=defaults("elu", 0.5)),
    Fault(
        "Softsign is taken for Tanh",
        patch=in_table("ACTIVATIONS", "softsign", ("Softsign", "tanh", ())),
    ),
    Fault(
        "Softplus is taken for Relu",
        patch=in_table("ACTIVATIONS", "softplus", ("Softplus", "relu", ())),
    ),
    Fault(
        "HardSigmoid is taken for Sigmoid",
        patch=in_table("ACTIVATIONS", "hardsigmoid", ("HardSigmoid", "sigmoid", ())),
        applies=lambda case: "activation_alpha" not in case.attributes,
    ),
]


# ---- Faults of what is read -------------------------------------------------------------------


def field(name: str, change: Callable[[Case, np.ndarray], Any]) -> Callable[[Case], Case | None]:
    """The case with one of its arrays changed, if it has it."""

    def reads(case: Case) -> Case | None:
        array = getattr(case, name)
        return None if array is None else replace(case, **{name: change(case, array)})

    return reads


def attribute(name: str, change: Callable[[Any], Any]) -> Callable[[Case], Case | None]:
    """The case with one of its attributes changed, if it has it."""

    def reads(case: Case) -> Case | None:
        if name not in case.attributes:
            return None
        return case.with_attributes(**{name: change(case.attributes[name])})

    return reads


def transposed(case: Case, r: np.ndarray) -> np.ndarray:
    blocks = r.reshape(case.directions, GATES[case.op], case.hidden, case.hidden)
    return blocks.swapaxes(2, 3).reshape(r.shape)


def halves(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    of_w, of_r = np.split(b, 2, axis=1)
    return of_w, of_r


def folded(case: Case, b: np.ndarray) -> np.ndarray:
    """Both biases as one."""
    of_w, of_r = halves(b)
    return np.concatenate([of_w + of_r, np.zeros_like(of_r)], axis=1)


def without(k: int) -> Callable[[Case, np.ndarray], np.ndarray]:
    def change(case: Case, b: np.ndarray) -> np.ndarray:
        parts = list(halves(b))
        parts[k] = np.zeros_like(parts[k])
        return np.concatenate(parts, axis=1)

    return change


def swapped_directions(*names: str) -> Callable[[Case], Case | None]:
    def reads(case: Case) -> Case | None:
        arrays = {n: getattr(case, n) for n in names}
        if case.directions == 1 or any(a is None for a in arrays.values()):
            return None
        axis = 1 if names[0] in "hc" and case.batchwise else 0
        return replace(case, **{n: np.flip(a, axis) for n, a in arrays.items()})

    return reads


def rows_of_state(case: Case, h: np.ndarray) -> np.ndarray:
    return np.roll(h, 1, axis=0 if case.batchwise else 1)


def first_for_all(case: Case, array: np.ndarray) -> np.ndarray:
    return np.repeat(array[:1], case.directions, axis=0)


def forget_drives_input(case: Case) -> Case | None:
    """i = 1 - f instead of f = 1 - i: sigmoid(-v) = 1 - sigmoid(v)."""
    if not is_coupled(case) or "activations" in case.attributes or case.p is not None:
        return None

    def change(array: np.ndarray | None, copies: int) -> np.ndarray | None:
        if array is None:
            return None
        blocks = np.split(array, 4 * copies, axis=1)
        for k in range(copies):
            blocks[4 * k] = -blocks[4 * k + 2]
        return np.concatenate(blocks, axis=1)

    return replace(case, w=change(case.w, 1), r=change(case.r, 1), b=change(case.b, 2))


def reordered(*order: int) -> Callable[[Any], Any]:
    """The activations of each direction in another order."""

    def change(names: list[str]) -> list[str]:
        each = len(order)
        return [names[d + k] for d in range(0, len(names), each) for k in order]

    return change


def functions(*order: int) -> Callable[[Case], Case | None]:
    """f, g, h in another order, where their parameters do not tell."""

    def reads(case: Case) -> Case | None:
        a = case.attributes
        names = a.get("activations", ())
        if len(names) != len(order) * case.directions or "activation_alpha" in a:
            return None
        return case.with_attributes(activations=reordered(*order)(names))

    return reads


def as_time_major(case: Case) -> Case | None:
    """x of layout 1 as if its memory were [T, B, I]."""
    if not case.batchwise:
        return None
    rows, steps, inputs = case.x.shape
    x = case.x.reshape(steps, rows, inputs).swapaxes(0, 1)
    return replace(case, x=np.ascontiguousarray(x))


def rounded(name: str) -> Callable[[Case], Case | None]:
    def reads(case: Case) -> Case | None:
        array = getattr(case, name)
        if case.x.dtype != np.float64 or array is None:
            return None
        return replace(case, **{name: array.astype(np.float32).astype(np.float64)})

    return reads


def alpha_for_beta(case: Case) -> Case | None:
    a = case.attributes
    if len(a.get("activation_alpha", ())) != len(a.get("activation_beta", ())):
        return None
    if "activation_alpha" not in a:
        return None
    return case.with_attributes(
        activation_alpha=a["activation_beta"], activation_beta=a["activation_alpha"]
    )


def swapped_states(case: Case) -> Case | None:
    return None if case.h is None or case.c is None else replace(case, h=case.c, c=case.h)


def dropped(name: str) -> Fault:
    return Fault(f"{name} is ignored", reads=field(name, lambda case, array: None))


def forward_only(case: Case) -> Case | None:
    """A reverse node run forward."""
    return case.with_attributes(direction="forward") if case.directions == 1 else None


READ = [
    Fault("R is transposed", reads=field("r", transposed)),
    Fault(
        "the blocks of R are those of W, rolled",
        reads=field("r", lambda c, r: np.roll(r, c.hidden, 1)),
    ),
    Fault("the inputs of W are reversed", reads=field("w", lambda c, w: w[..., ::-1])),
    dropped("b"),
    Fault("Wb is ignored", reads=field("b", without(0))),
    Fault("Rb is ignored", reads=field("b", without(1))),
    Fault(
        "Wb and Rb are swapped", reads=field("b", lambda c, b: np.concatenate(halves(b)[::-1], 1))
    ),
    Fault("Rb is added to Wb", reads=field("b", folded)),
    Fault(
        "Wb and Rb are read in turns",
        reads=field(
            "b", lambda c, b: b.reshape(c.directions, -1, 2).swapaxes(1, 2).reshape(b.shape)
        ),
    ),
    Fault("the reverse direction has the forward W", reads=field("w", first_for_all)),
    Fault("the reverse direction has the forward R", reads=field("r", first_for_all)),
    Fault("the reverse direction has the forward B", reads=field("b", first_for_all)),
    Fault("the reverse direction has the forward P", reads=field("p", first_for_all)),
    Fault("the directions are swapped", reads=swapped_directions("w", "r")),
    Fault("the directions of B are swapped", reads=swapped_directions("b")),
    Fault("the directions of P are swapped", reads=swapped_directions("p")),
    Fault("the directions of initial_h are swapped", reads=swapped_directions("h")),
    Fault("the directions of initial_c are swapped", reads=swapped_directions("c")),
    Fault("direction is ignored", reads=forward_only),
    Fault(
        "linear_before_reset is flipped", reads=attribute("linear_before_reset", lambda v: 1 - v)
    ),
    dropped("p"),
    dropped("lengths"),
    Fault("lengths are one too small", reads=field("lengths", lambda c, n: n - 1)),
    Fault("lengths are those of other rows", reads=field("lengths", lambda c, n: np.roll(n, 1))),
    Fault("lengths are sorted", reads=field("lengths", lambda c, n: np.sort(n)[::-1].copy())),
    Fault(
        "all rows are as long as the longest",
        reads=field("lengths", lambda c, n: np.full_like(n, n.max())),
    ),
    dropped("h"),
    dropped("c"),
    Fault("initial_h and initial_c are swapped", reads=swapped_states),
    Fault("initial_h is that of another row", reads=field("h", rows_of_state)),
    Fault("initial_c is that of another row", reads=field("c", rows_of_state)),
    Fault("clip is ignored", reads=attribute("clip", lambda v: None)),
    Fault("clip is a tenth larger", reads=attribute("clip", lambda v: v * 1.1)),
    Fault("input_forget is ignored", reads=attribute("input_forget", lambda v: 0)),
    Fault("input_forget: i = 1 - f", reads=forget_drives_input),
    Fault(
        "activations are ignored",
        reads=lambda c: c.with_attributes(
            activations=None, activation_alpha=None, activation_beta=None
        ),
    ),
    Fault("f and g are swapped (GRU)", reads=functions(1, 0)),
    Fault("f and g are swapped (LSTM)", reads=functions(1, 0, 2)),
    Fault("g and h are swapped", reads=functions(0, 2, 1)),
    Fault("h is that of g", reads=functions(0, 1, 1)),
    Fault(
        "activation_alpha is twice as large",
        reads=attribute("activation_alpha", lambda v: [2 * a for a in v]),
    ),
    Fault(
        "activation_beta is twice as large",
        reads=attribute("activation_beta", lambda v: [2 * a for a in v]),
    ),
    Fault(
        "activation_alpha in reverse order",
        reads=attribute("activation_alpha", lambda v: v[: len(v)][::-1]),
        applies=lambda c: c.directions == 1,
    ),
    Fault("alpha and beta are swapped", reads=alpha_for_beta),
    Fault("layout 1 is read as layout 0", reads=as_time_major),
    *(Fault(f"{name} of double is rounded to float", reads=rounded(name)) for name in "xwrbhcp"),
]


# ---- Faults of what is given back -------------------------------------------------------------


def of_output(k: int, change: Callable[[Case, np.ndarray], Any]) -> Callable[..., Outputs | None]:
    def gives(case: Case, outputs: Outputs) -> Outputs | None:
        if k >= len(outputs):
            return None
        changed = change(case, outputs[k])
        return None if changed is None else [*outputs[:k], changed, *outputs[k + 1 :]]

    return gives


def time_major(case: Case, y: np.ndarray) -> np.ndarray:
    """Y as [T, D, B, H], for reading and writing."""
    return y.transpose(1, 2, 0, 3) if case.batchwise else y


def not_turned(case: Case, y: np.ndarray) -> np.ndarray | None:
    """Directions that read backwards in the order in which they read."""
    backwards = {"forward": [], "reverse": [0], "bidirectional": [1]}
    y = y.copy()
    for d in backwards[case.attributes["direction"]]:
        view = time_major(case, y)
        view[:, d] = view[::-1, d].copy()
    return y


def last_repeated(case: Case, y: np.ndarray) -> np.ndarray | None:
    """Outputs after a row's end as at its end."""
    if case.lengths is None:
        return None
    y = y.copy()
    view = time_major(case, y)
    for row, length in enumerate(case.lengths):
        view[length:, :, row] = view[length - 1, :, row]
    return y


def last_output(case: Case, outputs: Outputs) -> Outputs:
    """Y_h as Y at the last step of all."""
    final = time_major(case, outputs[0])[-1]
    return [outputs[0], final.swapaxes(0, 1) if case.batchwise else final, *outputs[2:]]


def swapped_axis(case: Case, array: np.ndarray) -> np.ndarray:
    """The directions of an output the other way round."""
    return np.flip(
        array,
        2 if array.ndim == 4 and case.batchwise else 1 if case.batchwise or array.ndim == 4 else 0,
    )


def swapped_finals(case: Case, outputs: Outputs) -> Outputs | None:
    return None if case.op != "LSTM" else [outputs[0], outputs[2], outputs[1]]


def side_by_side(case: Case, y: np.ndarray) -> np.ndarray:
    """Y with the directions inside a row, [T, B, D, H], in the shape that is expected."""
    inside = y if case.batchwise else y.transpose(0, 2, 1, 3)
    return np.ascontiguousarray(inside).reshape(time_major(case, y).shape).reshape(y.shape)


GIVEN = [
    Fault("Y of a reverse direction is not turned back", gives=of_output(0, not_turned)),
    Fault("Y goes on after a row's end", gives=of_output(0, last_repeated)),
    Fault("Y_h is Y at the last step", gives=last_output),
    Fault("Y: the directions are swapped", gives=of_output(0, swapped_axis)),
    Fault("Y_h: the directions are swapped", gives=of_output(1, swapped_axis)),
    Fault("Y_c: the directions are swapped", gives=of_output(2, swapped_axis)),
    Fault("Y_h and Y_c are swapped", gives=swapped_finals),
    Fault("Y is [T, B, D, H] in memory", gives=of_output(0, side_by_side)),
    Fault("Y_h is that of another row", gives=of_output(1, rows_of_state)),
    Fault("Y_c is that of another row", gives=of_output(2, rows_of_state)),
    Fault("outputs are double", gives=lambda c, o: [a.astype(np.float64) for a in o]),
]

FAULTS = [*IMPORTER, *READ, *GIVEN]


# ---- The gate ---------------------------------------------------------------------------------


def run() -> Iterator[tuple[str, str]]:
    """Each fault, and the case that shows it; "" for a fault that none does.

    Raises:
        AssertionError: if a case fails without any fault.
    """
    cases = onnx_cases.cases(COUNT)
    expected = {id(case): onnx_cases.by_text(case) for case in cases}
    for case in cases:
        assert onnx_cases.agrees(case, onnx_cases.ours(case), expected[id(case)]), str(case)
    for fault in FAULTS:
        shown = ""
        for case in cases:
            outputs = fault.outputs(case)
            if outputs is not None and not onnx_cases.agrees(case, outputs, expected[id(case)]):
                shown = str(case)
                break
        yield fault.name, shown


def main() -> int:
    results = list(run())
    width = max(len(name) for name, _ in results)
    for name, shown in results:
        print(f"{name:{width}}  {shown or '*** NOT NOTICED ***'}")
    missed = sum(not shown for _, shown in results)
    print(f"{len(results)} faults, {len(results) - missed} noticed, {missed} not")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
