"""Time structures: which past steps feed a step (delays), which units take it (periods), and which
recurrent connections there are (recurrent_mask). What they mean for the states, the parameters and
the core's net of a layer stands here, and here only."""

from __future__ import annotations

import copy
import itertools
import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ._activations import finite
from ._arrays import Array, as_array, check_choice, check_size, describe

if TYPE_CHECKING:
    from ._base import Layer

Net = TypeVar("Net", bound="Layer")

# The limits of csrc/fastrnn.h, and the units of a block there.
MAX_DELAYS, MAX_GROUPS = 16, 64
MAX_DELAY = 2**32 - 1
BLOCK = 16

# Of csrc/pack_lists.c: one input for each of 16 units costs what so many do that they share, and
# units must have numbers of 16 bits.
LANES_COST = 6
MOST_OF_LANES = 2**16 - BLOCK

PLAIN_DELAYS = (1,)


class Structure(NamedTuple):
    """The arguments of a layer; once checked, its attributes of these names."""

    delays: Any = PLAIN_DELAYS
    periods: Any = None
    group_sizes: Any = None
    connectivity: Any = "slower"
    recurrent_mask: Any = None


# ---- What is accepted -------------------------------------------------------------------------


def checked(given: Structure, layer: Layer) -> Structure:
    """The structure of a layer whose sizes and options are set."""
    delays = given.delays if layer._dilated else checked_delays(given.delays)
    if layer._cell == "mingru" and len(delays) > 1 and not layer._dilated:
        raise ValueError(
            f"delays: expected a single one, as MinGRU has no recurrent weights, got {delays}"
        )
    check_choice("connectivity", given.connectivity, ("slower", "full"))
    periods = group_sizes = None
    if given.periods is not None:
        periods = _integers("periods", given.periods, MAX_GROUPS)
        _check_alone(layer, delays)
        group_sizes = _checked_sizes(given.group_sizes, len(periods), layer.hidden_size)
    elif given.group_sizes is not None:
        raise ValueError("group_sizes: expected None without periods")
    elif given.connectivity != "slower":
        raise ValueError("connectivity: expected 'slower' without periods")
    mask = given.recurrent_mask
    mask = None if mask is None else _checked_mask(mask, layer)
    return Structure(delays, periods, group_sizes, given.connectivity, mask)


def checked_delays(value: Any) -> tuple[int, ...]:
    """Distinct steps, ascending, of an int or an iterable."""
    single = isinstance(value, (int, np.integer))
    delays = _delays("delays", (value,) if single else value)
    if len(set(delays)) < len(delays):
        raise ValueError(f"delays: expected distinct integers, got {delays}")
    return tuple(sorted(delays))


def checked_dilations(value: Any) -> tuple[int, ...]:
    """A delay for each layer."""
    return _delays("dilations", value)


def _delays(name: str, value: Any) -> tuple[int, ...]:
    delays = _integers(name, value, MAX_DELAYS)
    if max(delays) > MAX_DELAY:
        raise ValueError(f"{name}: expected 1 to {MAX_DELAY}, got {max(delays)}")
    return delays


def _integers(name: str, value: Any, most: int) -> tuple[int, ...]:
    try:
        items = tuple(itertools.islice(iter(value), most + 1))
    except TypeError:
        raise TypeError(f"{name}: expected integers, got {value!r}") from None
    numbers = tuple(check_size(name, item) for item in items)
    if not 1 <= len(numbers) <= most:
        count = "none" if not numbers else f"more than {most}"
        raise ValueError(f"{name}: expected 1 to {most} integers, got {count}")
    return numbers


def _check_alone(layer: Layer, delays: tuple[int, ...]) -> None:
    """What clocks do not go together with."""
    if delays != PLAIN_DELAYS:
        raise ValueError(f"periods: not together with delays={delays}")
    if layer.proj_size:
        raise ValueError(f"periods: not together with proj_size={layer.proj_size}")
    if layer._cell == "gru_reset_before":
        raise ValueError("periods: not together with reset_after=False")


def even_sizes(hidden_size: int, groups: int) -> tuple[int, ...]:
    """As `numpy.array_split` cuts so many units."""
    size, longer = divmod(hidden_size, groups)
    return (size + 1,) * longer + (size,) * (groups - longer)


def _checked_sizes(value: Any, groups: int, hidden_size: int) -> tuple[int, ...]:
    if value is None:
        if groups > hidden_size:
            raise ValueError(
                f"periods: expected at most hidden_size = {hidden_size} groups, got {groups}"
            )
        return even_sizes(hidden_size, groups)
    sizes = _integers("group_sizes", value, MAX_GROUPS)
    if len(sizes) != groups:
        raise ValueError(f"group_sizes: expected {groups} as of periods, got {len(sizes)}")
    if sum(sizes) != hidden_size:
        raise ValueError(
            f"group_sizes: expected a sum of hidden_size = {hidden_size}, got {sum(sizes)}"
        )
    return sizes


def _checked_mask(value: Any, layer: Layer) -> Array:
    """A read-only array [L * D, H, O] of a mask for all parts, or of one for each."""
    array = as_array("recurrent_mask", value)
    if array.dtype != np.bool_:
        raise TypeError(f"recurrent_mask: expected booleans, got {describe(array)}")
    one = (layer.hidden_size, layer.proj_size or layer.hidden_size)
    every = (layer.num_layers * (1 + layer.bidirectional), *one)
    if array.shape not in (one, every):
        raise ValueError(f"recurrent_mask: expected shape {one} or {every}, got {array.shape}")
    for number, part in enumerate(array.reshape(-1, *one)):
        name = "recurrent_mask" if array.ndim == 2 else f"recurrent_mask[{number}]"
        if not part.any():
            raise ValueError(f"{name}: expected some True, got none: no unit reads any")
        silent = ~part.any(axis=1)
        if layer._cell == "rnn" and silent.any():
            raise ValueError(
                f"{name}: unit {silent.argmax()} reads no unit: it would have no memory and its "
                "recurrent weights could never train"
            )
    mask = np.array(np.broadcast_to(array, every), order="C")
    mask.flags.writeable = False
    return mask


# ---- What it means ----------------------------------------------------------------------------


def slots(layer: Layer) -> list[tuple[int, ...]]:
    """Of each part, how many past steps each array of its state holds: h (or u), and c."""
    each: list[tuple[int, ...]] = []
    for number in range(layer.num_layers):
        delays = (layer.delays[number],) if layer._dilated else layer.delays
        steps = (math.ceil(delays[-1]), math.ceil(delays[0]))
        each += [steps[: layer._states]] * (1 + layer.bidirectional)
    return each


def delay_ends(layer: Layer) -> list[str]:
    """What the names of the recurrent matrices of one part end with, those of the delays in order;
    of fractional ones the whole part."""
    return ["", *([] if layer._dilated else [f"_d{int(delay)}" for delay in layer.delays[1:]])]


def is_fractional(layer: Layer) -> bool:
    """Whether a delay lies between two steps."""
    return any(delay != int(delay) for delay in layer.delays)


def clock_connections(periods: tuple[int, ...], group_sizes: tuple[int, ...]) -> Array:
    """[H, H] booleans: which units a unit reads, those of groups at least as slow as its own.

    Example:
        >>> clock_connections((1, 2), (1, 2)).astype(int).tolist()
        [[1, 1, 1], [0, 1, 1], [0, 1, 1]]
    """
    of_unit = np.repeat(np.array(periods), group_sizes)
    return of_unit >= of_unit[:, None]


def connections(layer: Layer) -> Array | None:
    """[L * D, H, O] booleans: the recurrent connections by mask and clocks; None if all are."""
    mask = layer.recurrent_mask
    if layer.periods is None or layer.group_sizes is None or layer.connectivity == "full":
        return mask
    clocks = clock_connections(layer.periods, layer.group_sizes)
    if mask is not None:
        return mask & clocks
    return np.broadcast_to(clocks, (layer.num_layers * (1 + layer.bidirectional), *clocks.shape))


def mask_blocks(mask: Array) -> int:
    """The blocks of 16 rows by a column of a mask [H, O] that are not empty.

    Example:
        >>> mask_blocks(np.eye(17, dtype=bool))
        17
    """
    blocks = np.logical_or.reduceat(mask, np.arange(0, len(mask), BLOCK))
    return int(np.count_nonzero(blocks))


def mask_entries(mask: Array) -> int:
    """How often a kernel multiplies the inputs of 16 units with a mask [H, O]: once for each block,
    or where a sixth of that suffices with columns of its own for each unit, once for each
    connection of that unit which has the most of 16 (the same choice as in csrc/pack_lists.c).

    Example:
        >>> mask_entries(np.eye(32, dtype=bool))
        2
    """
    connections = np.sort(np.count_nonzero(mask, axis=1))[::-1]
    blocks, lanes = mask_blocks(mask), int(connections[::BLOCK].sum())
    return lanes if LANES_COST * lanes <= blocks and max(mask.shape) <= MOST_OF_LANES else blocks


def core_options(layer: Layer, parts: slice | None = None) -> dict[str, Any]:
    """The structure of the layer's net in the words of the core, or of a net of those parts, which
    are of one layer. Empty for a plain net."""
    options: dict[str, Any] = {}
    if layer._dilated and parts is None:
        options = {"delays": layer.delays, "dilated": True}
    else:
        delays = layer.delays
        if layer._dilated and parts is not None:
            delays = (layer.delays[parts.start // (1 + layer.bidirectional)],)
        if delays != PLAIN_DELAYS:
            options["delays"] = delays
    if layer.periods is not None:
        options |= {"periods": layer.periods, "group_sizes": layer.group_sizes}
        options |= {"full": True} if layer.connectivity == "full" else {}
    if layer.recurrent_mask is not None:
        masks = layer.recurrent_mask[parts or slice(None)]
        options["mask_blocks"] = max(map(mask_blocks, masks))
    return options


def shown(layer: Layer) -> list[str]:
    """The arguments that differ from their defaults, for repr; of a mask how much is True."""
    given = []
    if layer.delays != PLAIN_DELAYS and not layer._dilated:
        given.append(f"delays={layer.delays}")
    if layer.periods is not None:
        given.append(f"periods={layer.periods}")
        if layer.group_sizes != even_sizes(layer.hidden_size, len(layer.periods)):
            given.append(f"group_sizes={layer.group_sizes}")
        if layer.connectivity != "slower":
            given.append(f"connectivity={layer.connectivity!r}")
    if layer.recurrent_mask is not None:
        given.append(f"recurrent_mask={100 * layer.recurrent_mask.mean():.3g} %")
    return given


# ---- Layers of another structure --------------------------------------------------------------


def restructured(layer: Net, **attributes: Any) -> Net:
    """A copy with these attributes of structure, of as many delays: weights whose connections there
    are not become 0, and those of delays get the names of the new ones."""
    new = copy.copy(layer)
    for name, value in attributes.items():
        setattr(new, name, value)
    new._parameters = {}
    names = dict(zip(_recurrent_names(layer), _recurrent_names(new), strict=True))
    for name, array in layer.parameters().items():
        new._set_parameter(names.get(name, name), array)
    new._check_sizes()
    return new


def _recurrent_names(layer: Layer) -> list[str]:
    return ["weight_hh" + s + end for _, s in layer._parts() for end in delay_ends(layer)]


def checked_scale(name: str, value: Any) -> float:
    """A number > 0."""
    scale = finite(name, value)
    if scale <= 0:
        raise ValueError(f"{name}: expected a number > 0, got {value!r}")
    return scale


def rescaled(layer: Net, k: Any) -> Net:
    """See `Layer.rescaled`."""
    scale = checked_scale("k", k)
    if scale == 1:
        return copy.copy(layer)
    new = restructured(layer, **_rescaled_structure(layer, scale))
    if layer._cell == "leaky":  # others remember the step that their delay or period reaches
        new._set_parameter("alpha", new.alpha.astype(np.float64) ** (1 / scale))
    return new


def _rescaled_structure(layer: Layer, scale: float) -> dict[str, Any]:
    if layer._cell == "leaky":
        return {}
    if layer.periods is not None:
        periods = tuple(_multiple("periods", p, scale, sys.maxsize) for p in layer.periods)
        if any(not isinstance(period, int) for period in periods):
            raise ValueError(f"periods: {layer.periods} times {scale:g} are not all whole")
        return {"periods": periods}
    name = "dilations" if layer._dilated else "delays"
    delays = tuple(_multiple(name, delay, scale, MAX_DELAY) for delay in layer.delays)
    if not layer._dilated and len({int(delay) for delay in delays}) < len(delays):
        raise ValueError(
            f"delays: {layer.delays} times {scale:g} would not differ in their whole parts"
        )
    return {"delays": delays}


def _multiple(name: str, steps: float, scale: float, limit: int) -> float:
    """So many steps times `scale`, whole but for rounding as an int."""
    product = steps * scale
    if product > limit:
        raise ValueError(f"{name}: {steps} times {scale:g} is more than {limit}")
    whole = round(product)
    product = whole if abs(product - whole) <= 1e-9 * product else product
    if product < 1:
        raise ValueError(f"{name}: {steps} times {scale:g} is less than one step")
    return product
