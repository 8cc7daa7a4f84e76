"""PyTorch: its modules and state_dicts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._arrays import describe
from ..gated import GRU, LSTM
from ..layers import RNN
from ._parts import BY_GATES, check_axes, check_exportable, count_gates, in_one_dtype

if TYPE_CHECKING:
    import torch

_PARAMETER = re.compile(
    r"(?P<prefix>(?:.*\.)?)(?P<kind>(?:weight|bias)_(?:ih|hh)|weight_hr)"
    r"(?:_l(?P<layer>0|[1-9][0-9]*)(?P<reverse>_reverse)?)?"
)
_MODULES = ("LSTM", "GRU", "RNN")
_NAMES = (*_MODULES, *(f"{name}Cell" for name in _MODULES))


def from_torch(
    source: Any,
    *,
    prefix: str | None = None,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    dtype: Any = None,
) -> LSTM | GRU | RNN:
    """A layer from `torch.nn.LSTM`, `GRU` or `RNN`, or from one of their cells.

    Names, shapes, the order of gates (i f g o; r z n) and both biases are those of fastrnn. Which
    of the three it is, layers, directions, biases and proj_size are found from names and shapes.

    Args:
        source: a module, or a state_dict: arrays or tensors by name, as `fastrnn.load_tensors` has
            them too. Either may be of a whole model; what is not recurrent is not looked at.
        prefix: where in the model the layer is: "rnn" or "encoder.rnn.". None takes the only one.
        batch_first: x and y are [B, T, ...]; None for what the module has, False for a state_dict.
        nonlinearity: "tanh" or "relu", for the weights of an RNN, which do not tell it; None for a
            module, and for LSTM and GRU.
        dtype: float32 or float64; None for that of the weights.

    Returns:
        The layer, with the module's dropout.

    Raises:
        TypeError: if the source is something else, or has another dtype.
        ValueError: if there is no such layer, or several; if its names or shapes do not fit; if
            it is parametrized; if nonlinearity is needed, or given where it is known.

    Example:
        >>> import numpy as np
        >>> weights = {"rnn.weight_ih_l0": np.ones((6, 3)), "rnn.weight_hh_l0": np.ones((6, 2))}
        >>> from_torch(weights)
        GRU(3, 2, bias=False, dtype=float64)
        >>> from_torch({name: w[:2] for name, w in weights.items()}, nonlinearity="relu")
        RNN(3, 2, nonlinearity='relu', bias=False, dtype=float64)
    """
    options: dict[str, Any] = {}
    if _is_module(source):
        module = _submodule(source, prefix)
        if nonlinearity is not None:
            raise ValueError("nonlinearity: expected None for a module, which tells it")
        source, prefix = module.state_dict(), ""
        if not type(module).__name__.endswith("Cell"):
            options = {"batch_first": module.batch_first}
            options["dropout"] = module.dropout if module.num_layers > 1 else 0.0
        nonlinearity = getattr(module, "nonlinearity", None)
    elif not isinstance(source, Mapping):
        raise TypeError(f"source: expected a module or a state_dict, got {describe(source)}")
    if batch_first is not None:
        options["batch_first"] = batch_first
    names = own_names(source, prefix)
    arrays, found = in_one_dtype({name: source[name] for name in names}, dtype)
    return _built(
        {names[name]: array for name, array in arrays.items()}, arrays, found, nonlinearity, options
    )


def own_names(names: Iterable[str], prefix: str | None) -> dict[str, str]:
    """The parameters of the layer at a prefix by their names in the model: each with its name in
    a layer, that of a cell with the suffix "_l0"."""
    names = list(names)
    matches = [match for match in map(_PARAMETER.fullmatch, names) if match]
    prefixes = sorted({match["prefix"] for match in matches if match["kind"] == "weight_hh"})
    listed = ", ".join(repr(each) for each in prefixes) or "none"
    if prefix is None:
        if len(prefixes) != 1:
            raise ValueError(f"prefix: expected the only LSTM, GRU or RNN, there are {listed}")
        prefix = prefixes[0]
    else:
        prefix = prefix if prefix.endswith(".") or not prefix else f"{prefix}."
    for name in names:
        rest = name.removeprefix(prefix)
        if name.startswith(f"{prefix}parametrizations."):
            raise ValueError(f"{name}: parametrized; remove the parametrization in PyTorch first")
        if name.startswith(prefix) and "." not in rest and not _PARAMETER.fullmatch(rest):
            raise ValueError(f"{name}: not a parameter of torch.nn.LSTM, GRU or RNN")
    if prefix not in prefixes:
        raise ValueError(f"prefix: no LSTM, GRU or RNN at {prefix!r}, there are {listed}")
    own = [match for match in matches if match["prefix"] == prefix]
    if len({match["layer"] is None for match in own}) > 1:
        raise ValueError(
            f"{prefix!r}: names of a layer and of a cell, {own[0][0]} and {own[-1][0]}"
        )
    return {m[0]: f"{m['kind']}_l{m['layer'] or 0}{m['reverse'] or ''}" for m in own}


def _built(
    arrays: Mapping[str, Any],
    given: Mapping[str, Any],
    dtype: Any,
    nonlinearity: str | None,
    options: dict[str, Any],
) -> LSTM | GRU | RNN:
    """A layer of parameters by its own names; `given` has them by those of the source."""
    called = dict(zip(arrays, given, strict=True))
    layers = sorted({int(name.split("_l")[-1].removesuffix("_reverse")) for name in arrays})
    for name in ("weight_ih_l0", "weight_hh_l0"):
        if name not in arrays or layers != list(range(len(layers))):
            raise ValueError(f"source: no {name}, or a gap in the layers {layers}: {list(given)}")
        check_axes(called[name], arrays[name], "rows columns")
    recurrent = arrays["weight_hh_l0"]
    hidden_size, proj_size = recurrent.shape[1], 0
    if "weight_hr_l0" in arrays:
        check_axes(called["weight_hr_l0"], arrays["weight_hr_l0"], "P H", {"P": hidden_size})
        proj_size, hidden_size = arrays["weight_hr_l0"].shape
    gates = count_gates(called["weight_hh_l0"], recurrent, recurrent.shape[0], hidden_size)
    if gates == 4:
        options["proj_size"] = proj_size
    if gates == 1:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                "nonlinearity: expected 'tanh' or 'relu' for the weights of an RNN, which do not "
                f"tell it, got {nonlinearity!r}"
            )
        options["nonlinearity"] = nonlinearity
    elif nonlinearity is not None:
        raise ValueError(f"nonlinearity: expected None for {BY_GATES[gates].__name__}")
    layer = BY_GATES[gates](
        arrays["weight_ih_l0"].shape[1],
        hidden_size,
        len(layers),
        bias="bias_ih_l0" in arrays,
        bidirectional="weight_ih_l0_reverse" in arrays,
        dtype=dtype,
        seed=0,
        **options,
    )
    expected = layer.parameters()
    missing = [name for name in expected if name not in arrays]
    unexpected = [called[name] for name in arrays if name not in expected]
    if missing or unexpected:
        raise ValueError(f"source: missing {missing}, unexpected {unexpected} of {layer!r}")
    for name, array in arrays.items():
        if array.shape != expected[name].shape:
            raise ValueError(
                f"{called[name]}: expected shape {expected[name].shape}, got {array.shape}"
            )
    layer.load_state_dict(arrays)
    return layer


def _is_module(source: Any) -> bool:
    # Whoever has a module has imported torch: it need not be imported to tell.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def _submodule(model: Any, prefix: str | None) -> Any:
    """The recurrent module at a prefix of a model."""
    known = tuple(getattr(sys.modules["torch"].nn, name) for name in _NAMES)
    # Subclasses too, to be refused: they may compute anything.
    found = {path: each for path, each in model.named_modules() if isinstance(each, known)}
    listed = ", ".join(map(repr, found)) or "none"
    path = prefix.removesuffix(".") if prefix is not None else None
    if path is None:
        if len(found) != 1:
            raise ValueError(f"prefix: expected the only LSTM, GRU or RNN, there are {listed}")
        path = next(iter(found))
    if path not in found:
        raise ValueError(f"prefix: no LSTM, GRU or RNN at {path!r}, there are {listed}")
    module = found[path]
    if type(module) not in known:
        raise TypeError(
            f"source: expected one of torch.nn's {', '.join(_NAMES)}, got its subclass "
            f"{type(module).__name__}, which may compute something else"
        )
    return module


def to_torch(layer: LSTM | GRU | RNN) -> dict[str, torch.Tensor]:
    """The state_dict of the module of torch.nn with the same name and arguments.

    Raises:
        ValueError: if torch.nn has no such module, naming the option that it does not have.
        ImportError: without PyTorch. Files need none: `layer.save(path)` writes the same names.

    Example:
        >>> import fastrnn, torch
        >>> net = torch.nn.LSTM(3, 8, proj_size=2)
        >>> net.load_state_dict(to_torch(fastrnn.LSTM(3, 8, proj_size=2)))
        <All keys matched successfully>
    """
    allowed = ["proj_size"]
    if getattr(layer, "activation", ("",))[0] == "relu" and getattr(layer, "_cell", "") == "rnn":
        allowed.append("activation")
    check_exportable(layer, "torch.nn", ("lstm", "gru", "rnn"), allowed)
    import torch

    return {name: torch.from_numpy(array) for name, array in layer.state_dict().items()}
