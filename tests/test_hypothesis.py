"""Random combinations of net, sizes and kinds of array: either the oracle's values, or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import (
    BATCHES,
    FLAVOURS,
    OUT_FLAVOURS,
    STEPS,
    Pick,
    assert_close,
    bound,
    draw_net,
    map_state,
    pack,
    read_only,
    same_bits,
    swapped,
    unpack,
)

# Kinds of array besides those of FLAVOURS that a layer must take, ...
TAKEN: dict[str, Callable[[np.ndarray], Any]] = {
    **FLAVOURS,
    "float16": lambda a: (np.round(a * 8) / 8).astype(np.float16),
    "int": lambda a: np.round(a).astype(np.int32),
    "list": np.ndarray.tolist,
    "torch": lambda a: torch.from_numpy(a.copy()),
}
# ... must refuse, ...
REFUSED: dict[str, Callable[[np.ndarray], Any]] = {
    "a feature more": lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 1)]),
    "two axes more": lambda a: a[None, None],
    "no axis": lambda a: np.zeros((), a.dtype),
    "longdouble": lambda a: a.astype(np.longdouble),
    "complex": lambda a: a.astype(np.complex64),
    "object": lambda a: a.astype(object),
    "str": str,
    "needs gradient": lambda a: torch.from_numpy(a.copy()).requires_grad_(),
}
# ... or may do either with, as long as what comes out is right.
EITHER: dict[str, Callable[[np.ndarray], Any]] = {
    "bool": lambda a: a > 0,
    "float64": lambda a: a.astype(np.float64),
    "bfloat16": lambda a: torch.from_numpy(a.copy()).bfloat16(),
    "rolled": lambda a: np.moveaxis(a, -1, 0),
    "masked": lambda a: np.ma.masked_array(a),
}
REFUSED_OUT: dict[str, Callable[[np.ndarray], Any]] = {
    "read-only": read_only,
    "big-endian": swapped,
    "other float": lambda a: a.astype(np.float16),
    "int": lambda a: a.astype(np.int32),
    "an axis more": lambda a: a[None],
    "a feature more": lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 1)]),
    "list": np.ndarray.tolist,
}
EITHER_OUT = ("fortran", "misaligned", "strided features", "strided everywhere")


def pick_from(data: st.DataObject) -> Pick:
    return lambda choices: data.draw(st.sampled_from(list(choices)))


def plain(values: Any) -> np.ndarray:
    """What a converted argument says, for the oracle."""
    if isinstance(values, torch.Tensor):
        values = values.double().numpy()
    return np.asarray(values, np.float64)


@given(data=st.data())
def test_layer_is_right_or_refuses(data: st.DataObject) -> None:
    pick = pick_from(data)
    net = draw_net(pick)
    layer, rng = net.build(), net.rng()
    steps, batch = pick((0, *STEPS)), pick((None, 0, *BATCHES))
    x, state = net.input(rng, steps, batch), net.state(rng, batch)
    arguments = [x, *unpack(state)]

    kinds = TAKEN | EITHER | REFUSED
    odd = pick(range(len(arguments)))
    names = [pick(list(TAKEN)) for _ in arguments]
    names[odd] = pick(list(kinds))
    given = [kinds[name](a) for name, a in zip(names, arguments, strict=True)]
    must_refuse = names[odd] in REFUSED
    may_refuse = must_refuse or names[odd] in EITHER
    if not all(a.size for a in arguments):  # an empty list or string tells nothing of its shape
        may_refuse = may_refuse or bool({"list", "str"} & set(names))
        must_refuse = False

    out = None
    if pick((False, True)):
        out_kinds = FLAVOURS | REFUSED_OUT
        name = pick((*OUT_FLAVOURS, *EITHER_OUT, *REFUSED_OUT))
        out = out_kinds[name](np.zeros(net.output_shape(steps, batch), net.dtype))
        must_refuse = must_refuse or name in REFUSED_OUT
        may_refuse = may_refuse or must_refuse or name in EITHER_OUT

    before = layer(x, state)
    try:
        y, final = layer(given[0], pack(given[1:]), out=out)
    except (TypeError, ValueError) as error:
        assert may_refuse, (net, names, error)
        assert str(error)
        assert not np.any(out if isinstance(out, np.ndarray) else 0)
    else:
        assert not must_refuse, (net, names)
        expected, expected_final = net.oracle(
            layer, plain(given[0]), pack([plain(a) for a in given[1:]])
        )
        assert out is None or y is out
        assert_close(y, expected, bound(net, steps), (net, names))
        assert_close(final, expected_final, bound(net, steps), (net, names))
    assert same_bits(layer(x, state), before)
    for name, converted, original in zip(names, given, arguments, strict=True):
        if name in FLAVOURS:
            assert np.array_equal(converted, original)


@given(data=st.data())
def test_stream_is_right_or_refuses(data: st.DataObject) -> None:
    pick = pick_from(data)
    net = draw_net(pick, bidirectional=False, batch_first=False)
    layer, rng = net.build(), net.rng()
    steps, batch = pick(STEPS), pick(BATCHES)
    x, state = net.input(rng, steps, batch), net.state(rng, batch)
    expected, final = layer(x, state)
    stream = layer.stream(batch_size=batch)
    stream.state = map_state(FLAVOURS[pick(list(FLAVOURS))], state)

    kinds, out_kinds = TAKEN | EITHER | REFUSED, FLAVOURS | REFUSED_OUT
    for x_t, y_t in zip(x, expected, strict=True):
        odd = kinds[pick(list(kinds))](x_t)
        out = out_kinds[pick(list(out_kinds))](np.zeros_like(y_t))
        before = stream.state
        try:
            y = stream.step(odd, out=out)
        except (TypeError, ValueError):
            assert same_bits(stream.state, before)
            y = stream.step(x_t)
        else:
            assert y is out
        assert same_bits(np.array(y), y_t)
    assert same_bits(stream.state, final)


@given(data=st.data())
def test_constructors_build_or_refuse(data: st.DataObject) -> None:
    """Any small mixture of good and bad values of the options; what is built also runs."""
    pick = pick_from(data)
    good = draw_net(pick)
    options: dict[str, Any] = {"alpha": 0.5, "seed": pick((0, None, 7))}
    if good.cell != "leaky":
        options |= {"bias": good.bias, "bidirectional": good.bidirectional}
    options |= {"batch_first": good.batch_first, "dtype": good.dtype}
    bad = {
        "alpha": (2.0, None, "a", [0.5, 0.5], np.nan),
        "seed": ("seed", -1, 1.5),
        "nonlinearity": ("sigmoid", 1, None),
        "form": ("linear", 0),
        "dtype": ("float16", None, object),
        "parallel": ("space", 1),
    }
    name = pick(list(bad))
    if pick((False, True)):
        options[name] = pick(bad[name])
    sizes = [pick((good.hidden_size, 0, -1, 2.5, "4", None)) for _ in range(pick((1, 2, 3)))]
    try:
        layer = good.layer_class(*sizes, **options)
    except (TypeError, ValueError) as error:
        assert str(error)
    else:
        y, _ = layer(np.zeros((3, 2, sizes[0]), layer.dtype))
        directions = 1 + options.get("bidirectional", False)
        assert y.shape == (3, 2, directions * layer.hidden_size)
