"""ONNX's own runner on `fastrnn.onnx.backend`."""

import unittest
import warnings

import numpy as np
import onnx
import onnx_cases
import pytest
from onnx import helper
from onnx.backend.test import BackendTest

from fastrnn.onnx import backend

NAMES = [
    *(f"test_lstm_{name}" for name in ("defaults", "with_initial_bias", "with_peepholes")),
    *(f"test_lstm_{name}" for name in ("batchwise", "reverse", "bidirectional")),
    *(f"test_gru_{name}" for name in ("defaults", "with_initial_bias", "seq_length")),
    *(f"test_gru_{name}" for name in ("batchwise", "reverse", "bidirectional")),
    *(f"test_simple_rnn_{name}" for name in ("defaults", "with_initial_bias", "batchwise")),
    *(f"test_simple_rnn_{name}" for name in ("reverse", "bidirectional")),
    "test_rnn_seq_length",
]
PATTERN = r"^test_(lstm|gru|rnn|simple_rnn)_.*_cpu$"


def node_tests(**tolerances: float) -> type[unittest.TestCase]:
    """ONNX's test case of all nodes; those of other operators are skipped in it."""
    options = {"test_kwargs": dict.fromkeys(NAMES, tolerances)} if tolerances else {}
    with warnings.catch_warnings():  # ONNX divides by zero to make cases of other operators
        warnings.simplefilter("ignore", RuntimeWarning)
        suite = BackendTest(backend, __name__, **options)
    suite.include(PATTERN)
    return suite.test_cases["OnnxBackendNodeModelTest"]


@pytest.fixture(scope="module", params=["their tolerance", "1e-6"])
def tests(request: pytest.FixtureRequest) -> type[unittest.TestCase]:
    return node_tests(**({"rtol": 1e-6, "atol": 1e-6} if request.param == "1e-6" else {}))


@pytest.mark.parametrize("name", NAMES)
def test_node_test_of_onnx_passes(tests: type[unittest.TestCase], name: str):
    result = unittest.TestResult()
    tests(f"{name}_cpu").run(result)
    assert result.testsRun == 1
    assert (result.errors, result.failures, result.skipped) == ([], [], [])


def test_these_are_all_of_the_three_operators(tests: type[unittest.TestCase]):
    names = {name for name in dir(tests) if name.startswith("test_") and name.endswith("_cpu")}
    ran = {n for n in names if not getattr(getattr(tests, n), "__unittest_skip__", False)}
    assert ran == {f"{name}_cpu" for name in NAMES}
    assert len(NAMES) == 18


def test_a_fault_fails_the_node_tests():
    """The runner compares: at a tolerance of 0 a float32 result is not that of float64 code."""
    strict = node_tests(rtol=0.0, atol=0.0)
    result = unittest.TestResult()
    for name in NAMES:
        strict(f"{name}_cpu").run(result)
    assert len(result.failures) > 5
    assert not result.errors


def test_runs_models_with_stored_weights_and_inputs_by_name():
    case = onnx_cases.cases(3)[0]
    model, feeds = onnx_cases.model(case), onnx_cases.feeds(case)
    expected = onnx_cases.ours(case)
    assert backend.is_compatible(model)
    by_order = backend.run_model(model, list(feeds.values()))
    by_name = backend.prepare(model).run(feeds)
    for outputs in (by_order, by_name):
        assert all(np.array_equal(a, b) for a, b in zip(outputs, expected, strict=True))
    assert np.array_equal(by_name["Y_h"], expected[1])


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_runs_a_node_alone(op: str):
    case = onnx_cases.draw(np.random.default_rng(3), op, 2)
    node = onnx_cases.model(case).graph.node[0]
    arrays = [array for array in case.arrays().values() if array is not None]
    outputs = backend.run_node(node, arrays, opset_version=case.opset)
    expected = onnx_cases.ours(case)
    assert all(np.array_equal(a, b) for a, b in zip(outputs, expected, strict=True))


def test_is_for_the_cpu_and_for_recurrent_graphs_only():
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")
    assert not backend.supports_device("abacus")
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [other])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert not backend.is_compatible(model)
    with pytest.raises(ValueError, match="Relu"):
        backend.prepare(model)
    with pytest.raises(ValueError, match="CPU"):
        backend.prepare(onnx_cases.model(onnx_cases.cases(1)[0]), "CUDA")


def test_missing_inputs_are_named():
    case = onnx_cases.cases(3)[0]
    model = onnx_cases.model(case)
    with pytest.raises(ValueError, match="missing"):
        backend.prepare(model).run({})
    with pytest.raises(ValueError, match="expected"):
        backend.run_model(model, [])
