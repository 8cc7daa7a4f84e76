"""What is written is true: every doctest and every Python block of these pages runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import fastrnn

README = Path(__file__).parents[1] / "README.md"
MODULES = ["fastrnn"] + [
    module.name
    for module in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.")
    if not module.name.endswith("__main__")  # importing it runs the program
]


def public() -> dict[str, Any]:
    """The functions, classes and methods that users are meant to call, by name."""
    found = {}
    for name in fastrnn.__all__:
        thing = getattr(fastrnn, name)
        if inspect.isclass(thing):
            found[name] = thing
            for attribute, value in inspect.getmembers(thing):
                if not attribute.startswith("_") and callable(value):
                    found[f"{name}.{attribute}"] = value
        elif callable(thing):
            found[name] = thing
    return found


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # examples may write files
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0, "the failing examples are in the captured output"


def test_every_public_name_is_explained() -> None:
    assert {"LSTM", "RNN", "LeakyRNN", "Leaky", "leaky", "load"} <= set(fastrnn.__all__)
    unexplained = [name for name, thing in public().items() if not inspect.getdoc(thing)]
    assert not unexplained


def test_every_public_class_and_function_has_an_example() -> None:
    without = [
        name
        for name, thing in public().items()
        if "." not in name and ">>>" not in (inspect.getdoc(thing) or "")
    ]
    assert not without


@pytest.mark.parametrize("name", ["README.md", "docs/time_scales.md"])
def test_pages(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their Python blocks run from top to bottom as one program, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    text = (README.parent / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{name}, block {number}", "exec"), names)
