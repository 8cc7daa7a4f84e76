"""Choosing the instruction set, and the number of threads."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest
from support import refuses, run_python

import fastrnn

ISAS = ("scalar", "avx2", "avx512", "neon")
SHOW = "import fastrnn; print(fastrnn.isa(), *fastrnn.available_isas())"


def cpu_flags() -> set[str]:
    """What Linux says about an x86 processor; nothing elsewhere."""
    file = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not file.exists():
        return set()
    lines = file.read_text().splitlines()
    return set(next(line for line in lines if line.startswith("flags")).split())


def test_available() -> None:
    available = list(fastrnn.available_isas())
    assert available[-1] == "scalar"  # best first
    assert set(available) <= set(ISAS)
    assert len(set(available)) == len(available)
    assert fastrnn.isa() in available


def test_what_the_processor_has_is_found() -> None:
    flags, available = cpu_flags(), list(fastrnn.available_isas())
    if {"avx2", "fma"} <= flags:
        assert "avx2" in available
    if {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        assert available[0] == "avx512"


def test_default_is_the_best() -> None:
    process = run_python("-c", SHOW)
    assert process.returncode == 0, process.stderr
    used, *available = process.stdout.split()
    assert used == available[0]
    assert available == list(fastrnn.available_isas())


@pytest.mark.parametrize("isa", fastrnn.available_isas())
def test_environment_chooses(isa: str) -> None:
    process = run_python("-c", SHOW, isa=isa)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == [isa, *fastrnn.available_isas()]


@pytest.mark.parametrize(
    "isa", ["bogus", "AVX2", "avx", " avx2", *(set(ISAS) - set(fastrnn.available_isas()))]
)
def test_unknown_or_unsupported_is_an_error_at_import(isa: str) -> None:
    process = run_python("-c", SHOW, isa=isa)
    assert process.returncode == 1
    assert process.stdout == ""
    message = process.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: ")
    for word in ("FASTRNN_ISA", isa, *fastrnn.available_isas()):
        assert word in message


def test_number_of_threads() -> None:
    assert fastrnn.get_num_threads() >= 1
    fastrnn.set_num_threads(1)
    assert fastrnn.get_num_threads() == 1


@pytest.mark.parametrize("number", [0, -1, 1.0, 1.5, "1", None, [1], 2**70])
def test_bad_number_of_threads(number: Any) -> None:
    before = fastrnn.get_num_threads()
    with refuses((TypeError, ValueError), "n"):
        fastrnn.set_num_threads(number)
    assert fastrnn.get_num_threads() == before
