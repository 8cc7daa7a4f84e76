"""The forward of fastrnn, of NumPy, and of the libraries that are installed.

Each function prepares a case once (weights, buffers, a compiled model) and gives back a call
without arguments: one forward from a zero state. What the call returns is y, as anything that NumPy
turns into an array of T * B * H values. A library is imported when a case is prepared, never
before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .cases import ALPHA, Case
from .reference import numpy_forward

Call = Callable[[], Any]


def fastrnn_layer(case: Case, threads: int) -> Any:
    """Return the layer of a case."""
    import fastrnn

    fastrnn.set_num_threads(threads)
    i, h, _, _ = case.shape
    if case.cell == "leaky":
        return fastrnn.Leaky(h, alpha=ALPHA, parallel=case.parallel)
    make = {
        "lstm": fastrnn.LSTM,
        "gru": fastrnn.GRU,
        "rnn": fastrnn.RNN,
        "leaky_rnn": fastrnn.LeakyRNN,
    }
    layer: Any = make[case.cell](i, h)
    layer.load_state_dict(case.parameters())
    return layer


def prepare_fastrnn(case: Case, threads: int) -> Call:
    """Call the layer with arrays that need no conversion, writing to out."""
    layer = fastrnn_layer(case, threads)
    _, h, b, t = case.shape
    x, y = case.x(), np.empty((t, b, h), np.float32)

    def call() -> np.ndarray:
        layer(x, out=y)
        return y

    return call


def prepare_numpy(case: Case, threads: int) -> Call:
    """Run good NumPy; its BLAS takes the number of threads from the environment."""
    forward, x = numpy_forward(case), case.x()
    return lambda: forward(x)[0]


def torch_layer(case: Case, threads: int) -> Any:
    """Return torch.nn.LSTM, torch.nn.GRU or torch.nn.RNN with the weights of a case."""
    import torch

    torch.set_num_threads(threads)
    case = case.plain()
    i, h, _, _ = case.shape
    make = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
    layer = make[case.cell](i, h)
    layer.load_state_dict({n: torch.from_numpy(a) for n, a in case.parameters().items()})
    return layer


def prepare_torch(case: Case, threads: int) -> Call:
    """Run torch in inference mode."""
    import torch

    layer = torch_layer(case, threads).eval()
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
    # PyTorch's i f g o -> ONNX's i o f c, r z n -> z r h.
    order = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn": [0]}[case.cell]
    # PyTorch's GRU applies r to the finished product; ONNX calls that linear_before_reset.
    attributes = {"linear_before_reset": 1} if case.cell == "gru" else {}

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
        case.cell.upper(),
        ["x", "w", "r", "b", *(["", *(v.name for v in before)] if stateful else [])],
        ["y", *(v.name for v in after)],
        hidden_size=h,
        **attributes,
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


def prepare_lfilter(case: Case, threads: int) -> Call:
    """Run scipy.signal.lfilter along time, as a filter with one pole."""
    from scipy.signal import lfilter

    x = case.x()
    b, a = np.array([1 - ALPHA], np.float32), np.array([1, -ALPHA], np.float32)
    return lambda: lfilter(b, a, x, axis=0)
