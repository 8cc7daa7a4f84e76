"""Nodes with random weights, shapes, lengths, states and attributes, against three witnesses."""

import numpy as np
import onnx_cases
import pytest
from onnx_cases import Case

CASES = onnx_cases.cases(60)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_text_of_onnx(case: Case):
    actual, expected = onnx_cases.ours(case), onnx_cases.by_text(case)
    assert onnx_cases.agrees(case, actual, expected), list(onnx_cases.differences(actual, expected))


@pytest.mark.parametrize(
    "case", [case for case in CASES if onnx_cases.runs_on_onnxruntime(case)], ids=str
)
def test_agrees_with_onnx_runtime(case: Case):
    actual, expected = onnx_cases.ours(case), onnx_cases.by_onnxruntime(case)
    assert onnx_cases.agrees(case, actual, expected), list(onnx_cases.differences(actual, expected))


PYTORCH = [c for c in onnx_cases.cases(150, seed=1) if onnx_cases.runs_on_pytorch(c)]


@pytest.mark.parametrize("case", PYTORCH, ids=str)
def test_agrees_with_pytorch(case: Case):
    actual, expected = onnx_cases.ours(case), onnx_cases.by_pytorch(case)
    assert onnx_cases.agrees(case, actual, expected), list(onnx_cases.differences(actual, expected))


def test_the_cases_have_everything():
    """Every option is drawn with every operator that has it, for each witness."""
    for op in ("LSTM", "GRU", "RNN"):
        for runs in (lambda c: True, onnx_cases.runs_on_onnxruntime):
            some = [c for c in CASES if c.op == op and runs(c)]
            assert {c.attributes["direction"] for c in some} == {
                "forward",
                "reverse",
                "bidirectional",
            }
            for name in ("b", "lengths", "h"):
                assert {getattr(c, name) is None for c in some} == {True, False}
            for name in ("clip", "activations", "activation_alpha", "activation_beta"):
                assert {name in c.attributes for c in some} == {True, False}
        every = [c for c in CASES if c.op == op]
        assert {c.x.dtype.name for c in every} == {"float32", "float64"}
        assert {c.batchwise for c in every} == {True, False}
        assert {c.opset for c in every} == {7, 9, 11, 13, 14, 17, 21, 22, onnx_cases.NEWEST}
    for name in ("c", "p"):
        assert {getattr(c, name) is None for c in CASES if c.op == "LSTM"} == {True, False}
    assert {c.attributes.get("input_forget") for c in CASES if c.op == "LSTM"} == {0, 1}
    assert {c.attributes.get("linear_before_reset") for c in CASES if c.op == "GRU"} == {0, 1}
    names = {n.lower() for c in CASES for n in c.attributes.get("activations", ())}
    assert names == set(onnx_cases.onnx_text.FUNCTIONS)
    assert {c.op for c in PYTORCH} == {"LSTM", "GRU", "RNN"}
    assert {c.lengths is None for c in PYTORCH} == {True, False}


def test_a_row_of_length_0_keeps_its_state_and_gives_zeros():
    for case in CASES:
        if case.lengths is None or case.h is None:
            continue
        lengths = case.lengths.copy()
        lengths[0] = 0
        empty = onnx_cases.replace(case, lengths=lengths)
        outputs = onnx_cases.ours(empty)
        assert onnx_cases.agrees(empty, outputs, onnx_cases.by_text(empty))
        first = outputs[1][0] if case.batchwise else outputs[1][:, 0]
        assert np.array_equal(first, case.h[0] if case.batchwise else case.h[:, 0])
