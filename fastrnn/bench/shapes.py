"""The shapes that everything measures, and how a command line names them.

``python fastrnn/bench/shapes.py [NAMES]`` prints shapes for a shell loop; for that this file
imports the standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple


class Shape(NamedTuple):
    """Sizes of one forward: x is [steps, batch, input_size]."""

    input_size: int
    hidden_size: int
    batch: int
    steps: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


SHAPES = (
    Shape(1, 20, 1, 1000),
    Shape(1, 40, 1, 1000),
    Shape(40, 64, 1, 100),
    Shape(128, 128, 1, 100),
    Shape(256, 256, 1, 100),
    Shape(512, 512, 1, 50),
    Shape(1024, 1024, 1, 25),
    Shape(2048, 2048, 1, 10),
    Shape(64, 64, 8, 100),
    Shape(256, 256, 8, 100),
    Shape(64, 64, 32, 100),
    Shape(128, 128, 32, 100),
    Shape(256, 256, 32, 50),
    Shape(512, 512, 32, 25),
    Shape(1024, 1024, 32, 25),
    Shape(256, 256, 128, 25),
    Shape(1024, 1024, 128, 10),
)

# Leaky has one channel per unit, so its input size is its hidden size.
LEAKY_SHAPES = (Shape(256, 256, 1, 20_000), Shape(1, 1, 1, 1_000_000))

GROUPS: dict[str, Callable[[Shape], bool]] = {
    "all": lambda shape: True,
    "small": lambda shape: shape.batch == 1 and shape.hidden_size <= 64,
    "large": lambda shape: shape.hidden_size >= 512,
    "batch1": lambda shape: shape.batch == 1,
    "batched": lambda shape: shape.batch > 1,
}


def parse(text: str, cell: str = "lstm") -> tuple[Shape, ...]:
    """Return the shapes that `text` names, each once.

    `text` holds items separated by semicolons: names of GROUPS, or four positive integers
    I,H,B,T. ValueError says which item is neither.

    >>> parse("small")
    (Shape(input_size=1, hidden_size=20, batch=1, steps=1000), \
Shape(input_size=1, hidden_size=40, batch=1, steps=1000), \
Shape(input_size=40, hidden_size=64, batch=1, steps=100))
    >>> [str(shape) for shape in parse("8,16,1,5; 8,16,2,5")]
    ['8,16,1,5', '8,16,2,5']
    """
    found: dict[Shape, None] = {}
    for item in (part.strip() for part in text.split(";")):
        if item in GROUPS:
            known = LEAKY_SHAPES if cell == "leaky" else SHAPES
            found.update(dict.fromkeys(filter(GROUPS[item], known)))
            continue
        numbers = item.split(",")
        if len(numbers) != 4 or not all(n.strip().isdecimal() and int(n) > 0 for n in numbers):
            names = ", ".join(GROUPS)
            raise ValueError(f"shapes: expected I,H,B,T, each >= 1, or {names}; got {item!r}")
        shape = Shape(*map(int, numbers))
        if cell == "leaky" and shape.input_size != shape.hidden_size:
            raise ValueError(f"shapes: for leaky I must equal H; got {item!r}")
        found[shape] = None
    if not found:
        raise ValueError(f"shapes: expected at least one shape; {text!r} names none for {cell}")
    return tuple(found)


if __name__ == "__main__":
    print(*parse(";".join(sys.argv[1:]) or "all"))
