"""The mutation gate: the conformance suite notices every fault."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import mutate_onnx


def test_every_fault_is_noticed():
    results = list(mutate_onnx.run())
    assert [name for name, shown in results if not shown] == []
    assert len({name for name, _ in results}) == len(results) >= 47
