"""Random nets with time structures: delays, clocks, masks, dilated stacks, and both of two."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nets import CELLS, HIDDENS, INPUTS, Net, Pick, draw_net

KINDS = ("delay", "delays", "clocks", "mask", "mask and delays", "mask and clocks", "dilated")

Numbers = tuple[tuple[int, ...], ...]

# Some with multiples of the shortest only, some without; the longest exceed most sequences.
SINGLE: Numbers = ((2,), (3,), (4,), (7,), (12,))
SEVERAL: Numbers = (
    *((1, 2), (1, 2, 4), (2, 4), (2, 6, 8), (3, 6), (3, 12)),
    *((1, 3), (2, 3), (3, 4), (2, 5, 7), (1, 2, 3, 5, 8, 13), tuple(range(1, 17))),
)
DILATIONS: Numbers = ((1, 2, 4), (1, 2), (2, 3), (4, 1), (3,), (1, 1, 5))

# Of groups in their order: periods that divide each other and others, from slow to fast, from fast
# to slow, mixed, equal.
PERIODS: Numbers = (
    *((1,), (3,), (1, 2), (2, 1), (4, 2, 1), (1, 2, 4, 8), (8, 4, 2, 1), (2, 8, 1, 4)),
    *((3, 5), (5, 1, 3), (1, 2, 3), (7, 3, 2, 1), (5, 100, 1)),
    *((2, 2), (1, 1, 1), (3, 1, 3, 1)),
)
GROUPS = (1, 2, 3, 5, 8, 15, 16, 17, 20)

MASKS = ("random", "blocks", "tiles", "scattered")
DENSITIES = (0.05, 0.2, 0.5, 0.9, 1.0)

# Smaller than those of plain nets, as there are more kinds.
LAYERS = (1, 1, 2)


def kinds_of(cell: str) -> tuple[str, ...]:
    """MinGRU has no recurrent matrix; at rest the reset gate before the product cannot be kept."""
    if cell == "leaky":
        return ()
    if cell == "mingru":
        return ("delay", "clocks", "dilated")
    if cell == "gru_reset_before":
        return tuple(kind for kind in KINDS if "clocks" not in kind)
    return KINDS


STRUCTURED = tuple(cell for cell in CELLS if kinds_of(cell))
CASES = tuple((cell, kind) for cell in STRUCTURED for kind in kinds_of(cell))


def draw_groups(pick: Pick, hidden_size: int) -> dict[str, Any]:
    """Periods, sizes of the groups, or none of them, and the connectivity."""
    periods = pick([p for p in PERIODS if len(p) <= hidden_size])
    sizes, left = [], hidden_size
    for others in reversed(range(len(periods))):
        size = pick([n for n in GROUPS if n <= left - others]) if others else left
        sizes.append(size)
        left -= size
    return {
        "periods": periods,
        "group_sizes": pick((None, tuple(sizes), tuple(sizes[::-1]))),
        "connectivity": pick(("slower", "slower", "full")),
    }


def draw_structured(pick: Pick, kind: str, cell: str | None = None, **fixed: Any) -> Net:
    """A net of such a kind, whose every option is one that pick(choices) picked."""
    cell = cell or pick([c for c in STRUCTURED if kind in kinds_of(c)])
    sizes = {"hidden_size": pick(HIDDENS), "input_size": pick(INPUTS), "num_layers": pick(LAYERS)}
    if "clocks" in kind and cell.startswith("lstm"):
        sizes["proj_size"] = 0
    net = draw_net(pick, cell, **sizes | fixed)
    drawn: dict[str, Any] = {}
    if kind == "delay":
        drawn["delays"] = pick(SINGLE)
    elif "delays" in kind:
        drawn["delays"] = pick(SEVERAL + SINGLE if "mask" in kind else SEVERAL)
    elif "clocks" in kind:
        drawn = draw_groups(pick, net.hidden_size)
    elif kind == "dilated":
        dilations = pick(DILATIONS)
        drawn = {"dilations": dilations, "num_layers": len(dilations)}
        if "proj_size" not in fixed:
            drawn["proj_size"] = 0
        if cell != "mingru":
            drawn["recurrent_mask"] = pick((None, None, draw_mask(pick)))
    if "mask" in kind:
        drawn["recurrent_mask"] = draw_mask(pick)
    return replace(net, **drawn)


def draw_mask(pick: Pick) -> tuple[str, float, bool]:
    return pick(MASKS), pick(DENSITIES), pick((False, True))
