"""The conformance suite of `fastrnn.onnx`: nodes with random numbers everywhere, and witnesses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_text
import onnxruntime
import torch
from onnx import helper, numpy_helper

import fastrnn.onnx

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
NEWEST = onnx.defs.onnx_opset_version()
Pick = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class Case:
    """One node, its inputs, and the opset of its model."""

    op: str
    x: np.ndarray
    w: np.ndarray
    r: np.ndarray
    b: np.ndarray | None = None
    lengths: np.ndarray | None = None
    h: np.ndarray | None = None
    c: np.ndarray | None = None
    p: np.ndarray | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 22
    number: int = 0

    def __str__(self) -> str:
        names = [str(self.attributes.get("direction", "forward"))]
        names += [n for n in ("b", "lengths", "h", "c", "p") if getattr(self, n) is not None]
        plain = ("direction", "hidden_size", "activation_alpha", "activation_beta")
        names += [n for n in self.attributes if n not in plain and self.attributes[n] != 0]
        return f"{self.op}{self.number}-{self.x.dtype}-{'-'.join(names)}"

    @property
    def directions(self) -> int:
        return len(self.w)

    @property
    def hidden(self) -> int:
        return self.r.shape[2]

    @property
    def batchwise(self) -> bool:
        return self.attributes.get("layout", 0) == 1

    def arrays(self) -> dict[str, np.ndarray | None]:
        """The inputs by the names of the operator, in its order."""
        arrays = {"X": self.x, "W": self.w, "R": self.r, "B": self.b}
        arrays |= {"sequence_lens": self.lengths, "initial_h": self.h}
        return arrays | ({"initial_c": self.c, "P": self.p} if self.op == "LSTM" else {})

    def with_attributes(self, **changes: Any) -> Case:
        """Another case with some attributes changed, or taken away if None."""
        attributes = {k: v for k, v in (self.attributes | changes).items() if v is not None}
        return replace(self, attributes=attributes)


# ---- Drawing cases ----------------------------------------------------------------------------

GATE_FUNCTIONS = ("Sigmoid", "HardSigmoid", "sigmoid", "HARDSIGMOID", "Softsign", "Affine")
FUNCTIONS = ("Tanh", "Relu", "Sigmoid", "LeakyRelu", "Elu", "ScaledTanh", "Softsign", "Softplus")
FUNCTIONS += ("HardSigmoid", "ThresholdedRelu", "Affine", "tanh", "RELU", "scaledtanh")


def _functions(pick: Pick, rng: np.random.Generator, op: str, directions: int) -> dict[str, Any]:
    """activations and their parameters; defaults that ONNX Runtime shares are left out at times."""
    names = [pick(GATE_FUNCTIONS)] if op != "RNN" else [pick(FUNCTIONS)]
    names += [pick(FUNCTIONS) for _ in onnx_text.DEFAULTS[op][1:]]
    explicit = pick((True, True, False))
    attributes: dict[str, Any] = {"activations": names * directions}
    for key, position, (low, high) in (
        ("activation_alpha", 0, (0.3, 0.9)),
        ("activation_beta", 1, (0.2, 0.7)),
    ):
        takers = [n for n in names if len(onnx_text.FUNCTIONS[n.lower()][1]) > position]
        required = [n for n in takers if n.lower() in ("affine", "scaledtanh", "thresholdedrelu")]
        if takers and (explicit or required):
            values = [float(np.float32(v)) for v in rng.uniform(low, high, len(takers))]
            attributes[key] = values * directions
    return attributes


def draw(rng: np.random.Generator, op: str, number: int) -> Case:
    """A case of an operator; together, some tens of them have everything that there is."""

    def pick(choices: Sequence[Any]) -> Any:
        return choices[int(rng.integers(len(choices)))]

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(dtype)

    dtype = pick(("float32", "float32", "float64"))
    direction = ("forward", "reverse", "bidirectional")[number % 3]
    d, gates = 1 + (direction == "bidirectional"), GATES[op]
    steps, rows = pick((1, 2, 5, 8)), pick((1, 2, 3, 5))
    inputs, hidden = pick((1, 2, 3, 5)), pick((2, 3, 4, 7, 18))
    opset = pick((7, 9, 11, 13, 14, 17, 21, 22, NEWEST))
    attributes: dict[str, Any] = {"direction": direction, "hidden_size": hidden}
    if opset >= 14:
        attributes["layout"] = pick((0, 0, 1))
    if pick((True, False)):
        attributes |= _functions(pick, rng, op, d)
    if pick((True, False, False)):
        attributes["clip"] = float(np.float32(rng.uniform(0.2, 0.8)))
    if op == "LSTM":
        attributes["input_forget"] = pick((0, 0, 1))
    if op == "GRU":
        attributes["linear_before_reset"] = pick((0, 1))
    batchwise = attributes.get("layout", 0) == 1
    lead = (rows, steps) if batchwise else (steps, rows)
    state = (rows, d, hidden) if batchwise else (d, rows, hidden)
    lengths = rng.integers(1, steps + 1, rows).astype(np.int32) if pick((True, False)) else None
    return Case(
        op,
        normal(*lead, inputs),
        normal(d, gates * hidden, inputs, scale=0.8),
        normal(d, gates * hidden, hidden, scale=0.8 / np.sqrt(hidden)),
        normal(d, 2 * gates * hidden, scale=0.5) if pick((True, True, False)) else None,
        lengths,
        normal(*state) if pick((True, False)) else None,
        normal(*state) if op == "LSTM" and pick((True, False)) else None,
        normal(d, 3 * hidden, scale=0.7) if op == "LSTM" and pick((True, False)) else None,
        attributes,
        opset,
        number,
    )


def cases(count: int, ops: Sequence[str] = ("LSTM", "GRU", "RNN"), seed: int = 0) -> list[Case]:
    """`count` cases of each operator, the same in every run."""
    return [
        draw(np.random.default_rng((seed, k, len(op), ord(op[0]))), op, k)
        for op in ops
        for k in range(count)
    ]


# ---- Models -----------------------------------------------------------------------------------


def model(
    case: Case, *, opset: int | None = None, constants: Sequence[str] = ()
) -> onnx.ModelProto:
    """The node alone. Weights are initializers, and so are the inputs named in `constants`."""
    stored = {"W", "R", "B", "P", *constants}
    given = {name: array for name, array in case.arrays().items() if array is not None}
    names = [name if name in given else "" for name in case.arrays()]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if case.op == "LSTM" else 2]
    node = helper.make_node(case.op, names, outputs, case.op.lower(), **case.attributes)
    of_type = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [node],
        "case",
        [
            helper.make_tensor_value_info(name, of_type(array.dtype), array.shape)
            for name, array in given.items()
            if name not in stored
        ],
        [
            helper.make_tensor_value_info(name, of_type(case.x.dtype), [None] * rank)
            for name, rank in zip(outputs, (4, 3, 3), strict=False)
        ],
        [numpy_helper.from_array(given[name], name) for name in given if name in stored],
    )
    imports = [helper.make_opsetid("", case.opset if opset is None else opset)]
    version = max(4, helper.find_min_ir_version_for(imports))  # before 4 weights were inputs too
    return helper.make_model(graph, opset_imports=imports, ir_version=version)


def feeds(case: Case) -> dict[str, np.ndarray]:
    weights = ("W", "R", "B", "P")
    return {k: a for k, a in case.arrays().items() if a is not None and k not in weights}


# ---- Who runs them ----------------------------------------------------------------------------


def ours(case: Case) -> list[np.ndarray]:
    return list(fastrnn.onnx.load(model(case)).run(feeds(case)).values())


def by_text(case: Case) -> list[np.ndarray]:
    arrays = (case.b, case.lengths, case.h, case.c, case.p)
    return onnx_text.run(case.op, case.attributes, case.x, case.w, case.r, *arrays)


def runs_on_onnxruntime(case: Case) -> bool:
    """It has neither double nor layout 1."""
    return case.x.dtype == np.float32 and not case.batchwise


# As ONNX Runtime's RNN wants them spelled; its LSTM and GRU take any letters.
SPELLED = {"leakyrelu": "LeakyRelu", "thresholdedrelu": "ThresholdedRelu"}
SPELLED |= {"hardsigmoid": "HardSigmoid", "scaledtanh": "ScaledTanh"}


def by_onnxruntime(case: Case) -> list[np.ndarray]:
    names = [n.lower() for n in case.attributes.get("activations", ())]
    spelled = [SPELLED.get(name, name.capitalize()) for name in names] or None
    case = case.with_attributes(layout=None, activations=spelled)
    data = model(case, opset=min(case.opset, 22)).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, feeds(case))


def runs_on_pytorch(case: Case) -> bool:
    """It has two directions or forward, and the plain cells."""
    a = case.attributes
    plain = "clip" not in a and case.p is None and not a.get("input_forget")
    relu = case.op == "RNN" and {n.lower() for n in a.get("activations", ())} <= {"relu", "tanh"}
    return (
        plain
        and (relu or "activations" not in a)
        and a["direction"] != "reverse"
        and (case.op != "GRU" or a["linear_before_reset"] == 1)
    )


def by_pytorch(case: Case) -> list[np.ndarray]:
    """A module of torch.nn with the node's weights in PyTorch's order of gates."""
    order = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}[case.op]
    options: dict[str, Any] = {"bidirectional": case.directions == 2, "batch_first": case.batchwise}
    if case.op == "RNN":
        options["nonlinearity"] = case.attributes.get("activations", ["tanh"])[0].lower()
    double = case.x.dtype == np.float64
    module = getattr(torch.nn, case.op)(
        case.x.shape[2],
        case.hidden,
        bias=case.b is not None,
        dtype=torch.float64 if double else torch.float32,
        **options,
    )
    with torch.no_grad():
        for d, suffix in zip(range(case.directions), ("", "_reverse"), strict=False):
            arrays = {"weight_ih": case.w[d], "weight_hh": case.r[d]}
            if case.b is not None:
                arrays["bias_ih"], arrays["bias_hh"] = np.split(case.b[d], 2)
            for name, array in arrays.items():
                blocks = np.split(array, len(order))
                rows = np.concatenate([blocks[k] for k in order])
                getattr(module, f"{name}_l0{suffix}").copy_(torch.from_numpy(rows))
        return _call_module(case, module)


def _call_module(case: Case, module: Any) -> list[np.ndarray]:
    rows = case.x.shape[0 if case.batchwise else 1]
    zeros = np.zeros((case.directions, rows, case.hidden), case.x.dtype)
    states = []
    for given in (case.h, case.c):
        state = zeros if given is None else given.swapaxes(0, 1) if case.batchwise else given
        states.append(torch.from_numpy(np.ascontiguousarray(state)))
    x: Any = torch.from_numpy(case.x)
    if case.lengths is not None:
        x = torch.nn.utils.rnn.pack_padded_sequence(
            x, case.lengths.tolist(), case.batchwise, enforce_sorted=False
        )
    y, final = module(x, tuple(states) if case.op == "LSTM" else states[0])
    if case.lengths is not None:
        total = case.x.shape[1 if case.batchwise else 0]
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, case.batchwise, total_length=total)
    view = y.numpy().reshape(*y.shape[:2], case.directions, case.hidden)
    outputs = [view if case.batchwise else view.transpose(0, 2, 1, 3)]
    for state in final if case.op == "LSTM" else (final,):
        outputs.append(state.numpy().swapaxes(0, 1) if case.batchwise else state.numpy())
    return outputs


# ---- Comparing --------------------------------------------------------------------------------

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}


def differences(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Iterator[float]:
    """Of each output the largest error, as a part of its largest value or of 1."""
    for a, b in zip(actual, expected, strict=True):
        if a.shape != b.shape:
            yield np.inf
        else:
            error = np.abs(a.astype(np.float64) - b).max(initial=0.0)
            yield float(error / max(1.0, np.abs(b).max(initial=0.0)))


def agrees(case: Case, actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> bool:
    """Whether the outputs are those of a witness, and of the case's dtype."""
    same_type = all(a.dtype == case.x.dtype for a in actual)
    return same_type and max(differences(actual, expected)) <= TOLERANCE[str(case.x.dtype)]
