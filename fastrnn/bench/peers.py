"""The engines that are measured: fastrnn, NumPy, and the libraries that are installed.

An engine prepares a case once (weights, buffers, a compiled model) and gives back a call without
arguments: one forward from a zero state. What the call returns is y, as anything that NumPy
turns into an array of T * B * H values. A library is imported when its engine prepares a case,
never before.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from .cases import ALPHA, Case, numpy_forward

Call = Callable[[], Any]


def prepare_fastrnn(case: Case, threads: int) -> Call:
    """Call the layer with arrays that need no conversion, writing to out."""
    import fastrnn

    fastrnn.set_num_threads(threads)
    i, h, b, t = case.shape
    x, y = case.x(), np.empty((t, b, h), np.float32)
    layer: Any
    if case.cell == "leaky":
        layer = fastrnn.Leaky(h, alpha=ALPHA, parallel=case.parallel)
    else:
        make = {"lstm": fastrnn.LSTM, "rnn": fastrnn.RNN, "leaky_rnn": fastrnn.LeakyRNN}
        layer = make[case.cell](i, h)
        layer.load_state_dict(case.parameters())

    def call() -> np.ndarray:
        layer(x, out=y)
        return y

    return call


def prepare_numpy(case: Case, threads: int) -> Call:
    """Run good NumPy; its BLAS takes the number of threads from the environment."""
    forward, x = numpy_forward(case), case.x()
    return lambda: forward(x)[0]


def prepare_torch(case: Case, threads: int) -> Call:
    """Run torch.nn.LSTM or torch.nn.RNN in inference mode."""
    import torch

    torch.set_num_threads(threads)
    case = case.plain()
    i, h, _, _ = case.shape
    layer = {"lstm": torch.nn.LSTM, "rnn": torch.nn.RNN}[case.cell](i, h)
    layer.load_state_dict({n: torch.from_numpy(a) for n, a in case.parameters().items()})
    layer.eval()
    x = torch.from_numpy(case.x())

    def call() -> Any:
        with torch.inference_mode():
            return layer(x)[0]

    return call


def onnx_model(case: Case, stateful: bool = False) -> bytes:
    """Return a serialized ONNX model of the case: x [T, B, I] to y [T, 1, B, H].

    A stateful model also takes and gives the state: h, and c for an LSTM, [1, B, H] each.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    case = case.plain()
    i, h, b, t = case.shape
    operator = {"lstm": "LSTM", "rnn": "RNN"}[case.cell]
    order = {"lstm": [0, 3, 1, 2], "rnn": [0]}[case.cell]  # PyTorch's i f g o -> ONNX's i o f c

    def reorder(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array.reshape(len(order), h, -1)[gate] for gate in order])

    p = {name: reorder(array) for name, array in case.parameters().items()}
    constants = {
        "w": p["weight_ih_l0"][None],
        "r": p["weight_hh_l0"][None],
        "b": np.concatenate([p["bias_ih_l0"], p["bias_hh_l0"]]).reshape(1, -1),
    }

    def value(name: str, shape: list[int]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    states = ["h", "c"] if case.cell == "lstm" else ["h"]
    before = [value(f"{s}_in", [1, b, h]) for s in states] if stateful else []
    after = [value(f"{s}_out", [1, b, h]) for s in states] if stateful else []
    node = helper.make_node(
        operator,
        ["x", "w", "r", "b", *(["", *(v.name for v in before)] if stateful else [])],
        ["y", *(v.name for v in after)],
        hidden_size=h,
    )
    graph = helper.make_graph(
        [node],
        case.cell,
        [value("x", [t, b, i]), *before],
        [value("y", [t, 1, b, h]), *after],
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in constants.items()],
    )
    opset = [helper.make_opsetid("", 14)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    checker.check_model(model)
    return bytes(model.SerializeToString())


def onnxruntime_session(model: bytes, threads: int) -> Any:
    """Return a session of onnxruntime with that many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def prepare_onnxruntime(case: Case, threads: int) -> Call:
    """Run ONNX Runtime with input and output bound once."""
    session = onnxruntime_session(onnx_model(case), threads)
    _, h, b, t = case.shape
    x, y = case.x(), np.empty((t, 1, b, h), np.float32)
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def call(x: np.ndarray = x) -> np.ndarray:  # the binding holds addresses: keep x alive
        session.run_with_iobinding(binding)
        return y

    return call


def prepare_openvino(case: Case, threads: int) -> Call:
    """Run OpenVINO on the ONNX model, in f32, with input and output tensors set once."""
    import openvino

    config = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = openvino.Core()
    model = core.read_model(onnx_model(case))
    request = core.compile_model(model, "CPU", config).create_infer_request()
    _, h, b, t = case.shape
    y = np.empty((t, 1, b, h), np.float32)
    request.set_input_tensor(openvino.Tensor(case.x()))
    request.set_output_tensor(openvino.Tensor(y, shared_memory=True))

    def call() -> np.ndarray:
        request.infer(share_outputs=True)
        return y

    return call


def prepare_copy(case: Case, threads: int) -> Call:
    """Copy the input with NumPy: the least that a unit without weights can cost."""
    x = case.x()
    y = np.empty_like(x)

    def call() -> np.ndarray:
        np.copyto(y, x)
        return y

    return call


def prepare_lfilter(case: Case, threads: int) -> Call:
    """Run scipy.signal.lfilter along time, as a filter with one pole."""
    from scipy.signal import lfilter

    x = case.x()
    b, a = np.array([1 - ALPHA], np.float32), np.array([1, -ALPHA], np.float32)
    return lambda: lfilter(b, a, x, axis=0)


class Engine(NamedTuple):
    """How to prepare a case, and what that needs."""

    prepare: Callable[[Case, int], Call]
    packages: tuple[str, ...]
    cells: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether the packages can be found; does not import them."""
        return all(find_spec(package) is not None for package in self.packages)


_PRODUCT = ("lstm", "rnn", "leaky_rnn")

FASTRNN = "fastrnn"
COPY = "copy"  # no peer, since it computes nothing: the limit of leaky

ENGINES = {
    FASTRNN: Engine(prepare_fastrnn, ("fastrnn", "numpy"), (*_PRODUCT, "leaky")),
    "numpy": Engine(prepare_numpy, ("numpy",), _PRODUCT),
    "torch": Engine(prepare_torch, ("torch",), _PRODUCT),
    "onnxruntime": Engine(prepare_onnxruntime, ("onnxruntime", "onnx"), _PRODUCT),
    "openvino": Engine(prepare_openvino, ("openvino", "onnx"), _PRODUCT),
    COPY: Engine(prepare_copy, ("numpy",), ("leaky",)),
    "lfilter": Engine(prepare_lfilter, ("scipy",), ("leaky",)),
}

# Those that have leaky layers; the others run a plain RNN in their place.
LEAKY_ENGINES = (FASTRNN, "numpy")


def peers_of(cell: str) -> list[str]:
    """Return the names of the peers that can run a cell, installed or not."""
    return [n for n, e in ENGINES.items() if cell in e.cells and n not in (FASTRNN, COPY)]


def case_of(name: str, case: Case) -> Case:
    """Return the case that an engine really runs."""
    return case if name in LEAKY_ENGINES else case.plain()
