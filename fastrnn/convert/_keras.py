"""Keras 3: its layers and their arrays. Shapes and gates:

               kernel     recurrent    bias                             gates
    LSTM       [I, 4H]    [H, 4H]      [4H]                             i f c o
    GRU        [I, 3H]    [H, 3H]      [2, 3H] (input's, recurrent's)   z r h
                                       if reset_after, else [3H]
    SimpleRNN  [I, H]     [H, H]       [H]

z is the weight of the old state, as in fastrnn. In an LSTM `activation` is both that of the
candidate and that of the output.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._activations import Activation, checked_activation
from .._arrays import Array, check_flag, describe
from ..gated import GRU, LSTM
from ..layers import RNN
from ._parts import (
    BY_GATES,
    Part,
    assembled,
    check_axes,
    check_exportable,
    count_gates,
    in_one_dtype,
    one_bias,
    parts_at,
    reordered,
    with_one_bias,
)

# fastrnn's gates, by their places in Keras; each order leads back, too.
ORDERS = {4: (0, 1, 2, 3), 3: (1, 0, 2), 1: (0,)}

# Keras' names of activations.
ACTIVATIONS: dict[str, Activation] = {
    name: checked_activation("activation", function)
    for name, function in {
        "tanh": "tanh",
        "relu": "relu",
        "linear": "identity",
        "sigmoid": "sigmoid",
        "hard_sigmoid": "hard_sigmoid",
        "leaky_relu": ("leaky_relu", 0.2),
        "elu": "elu",
        "softsign": "softsign",
        "softplus": "softplus",
    }.items()
}
CLASSES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


@dataclass(frozen=True)
class Options:
    """What the arrays of a layer do not tell; None for what is not known."""

    activation: Any = None
    recurrent_activation: Any = None
    reset_after: Any = None
    go_backwards: Any = None
    bidirectional: Any = None

    def refuse_any(self, known: str) -> None:
        """For a source that tells all of them."""
        for name, value in vars(self).items():
            if value is not None:
                raise ValueError(f"{name}: expected None for {known}, which tells it")


def from_keras(
    source: Any,
    *,
    activation: str | None = None,
    recurrent_activation: str | None = None,
    reset_after: bool | None = None,
    go_backwards: bool | None = None,
    bidirectional: bool | None = None,
    dtype: Any = None,
) -> LSTM | GRU | RNN:
    """A layer from one of Keras 3: LSTM, GRU, SimpleRNN, or Bidirectional around one of them.

    The result has `batch_first`, and returns what Keras returns with `return_sequences=True` and
    `return_state=True`. What matters in training only, as dropout, is left out; `stateful` is up
    to the caller, who passes the state.

    Args:
        source: a layer of Keras that has been built, or its arrays as `get_weights()` has them:
            kernel, recurrent kernel and, with biases, bias; those of both directions, forward
            first, for a Bidirectional.
        activation, recurrent_activation: Keras' names, needed for arrays, which do not tell them:
            tanh, relu, linear, sigmoid, hard_sigmoid, leaky_relu, elu, softsign or softplus. A
            SimpleRNN has no recurrent_activation.
        reset_after: needed only for the arrays of a GRU without biases.
        go_backwards: of a layer given as arrays; False if None.
        bidirectional: whether arrays are of a Bidirectional with merge_mode "concat"; False if
            None.
        dtype: float32 or float64; None for that of the arrays.

    Raises:
        TypeError: if the source is something else, or has another dtype.
        ValueError: if shapes do not fit, an option is needed, or the layer has something that
            fastrnn does not: another activation or merge_mode, directions that differ.

    Example:
        >>> arrays = [np.ones((3, 8)), np.ones((2, 8)), np.zeros(8)]
        >>> from_keras(arrays, activation="tanh", recurrent_activation="hard_sigmoid")
        LSTM(3, 2, gate_activation='hard_sigmoid', batch_first=True, dtype=float64)
    """
    options = Options(activation, recurrent_activation, reset_after, go_backwards, bidirectional)
    if hasattr(source, "get_config") and hasattr(source, "get_weights"):
        options.refuse_any("a layer")
        options, gates = _of_layer(source)
        source = source.get_weights()
        if not source:
            raise ValueError("source: the layer has no weights yet; build or call it first")
    elif isinstance(source, (list, tuple)):
        gates = None
    else:
        raise TypeError(f"source: expected a layer or a list of arrays, got {describe(source)}")
    return from_arrays(source, options, gates, dtype)


def from_arrays(
    source: Sequence[Any], options: Options, gates: int | None, dtype: Any
) -> LSTM | GRU | RNN:
    """A layer from arrays and what they do not tell; gates are known from its class, if at all."""
    two = check_flag("bidirectional", options.bidirectional or False)
    counts = (4, 6) if two else (2, 3)
    if len(source) not in counts:
        kind = "both directions" if two else "one direction"
        raise ValueError(f"source: expected {counts} arrays for {kind}, got {len(source)}")
    half = len(source) // (1 + two)
    names = [f"source[{k}]" for k in range(len(source))]
    arrays, native = in_one_dtype(dict(zip(names, source, strict=True)), dtype)
    values = list(arrays.items())
    directions = [dict(values[k : k + half]) for k in range(0, len(source), half)]
    read = [_read_part(direction, options.reset_after) for direction in directions]
    if len({(n, after) for n, after, _ in read}) > 1 or gates not in (None, read[0][0]):
        raise ValueError(f"source: the shapes are those of {BY_GATES[read[0][0]].__name__}")
    gates, after, _ = read[0]
    functions = _functions(gates, options)
    if gates == 3:
        functions["reset_after"] = after
    return assembled(
        BY_GATES[gates],
        [part for _, _, part in read],
        native,
        bidirectional=two,
        batch_first=True,
        go_backwards=check_flag("go_backwards", options.go_backwards or False),
        **functions,
    )


def _read_part(arrays: Mapping[str, Array], reset_after: Any) -> tuple[int, bool, Part]:
    """Gates, whether reset_after, and the arrays of one direction."""
    (first, kernel), (second, recurrent), *biases = arrays.items()
    check_axes(second, recurrent, "H columns")
    hidden = recurrent.shape[0]
    gates = count_gates(second, recurrent, recurrent.shape[1], hidden)
    check_axes(first, kernel, "I columns", {"columns": gates * hidden})
    order = ORDERS[gates]
    part = {
        "weight_ih": reordered(kernel.T, order),
        "weight_hh": reordered(recurrent.T, order),
    }
    if gates != 3:
        if reset_after is not None:
            raise ValueError(f"reset_after: expected None for {BY_GATES[gates].__name__}")
        for name, bias in biases:
            check_axes(name, bias, "columns", {"columns": gates * hidden})
        one = reordered(biases[0][1], order) if biases else None
        return gates, True, with_one_bias(part, one)
    if not biases:
        if reset_after is None:
            raise ValueError("reset_after: needed for a GRU without biases, whose arrays are alike")
        return gates, check_flag("reset_after", reset_after), part
    name, bias = biases[0]
    after = bias.ndim == 2
    if reset_after not in (None, after):
        raise ValueError(f"reset_after: {name} of shape {bias.shape} is that of {after}")
    if after:
        check_axes(name, bias, "2 columns", {"2": 2, "columns": 3 * hidden})
        pair = [reordered(row, order) for row in bias]
        return gates, True, part | {"bias_ih": pair[0], "bias_hh": pair[1]}
    check_axes(name, bias, "columns", {"columns": 3 * hidden})
    return gates, False, with_one_bias(part, reordered(bias, order))


def _functions(gates: int, options: Options) -> dict[str, Any]:
    """The activations as arguments of the layer."""
    main = _activation("activation", options.activation)
    if gates == 1:
        if options.recurrent_activation is not None:
            raise ValueError("recurrent_activation: expected None for a SimpleRNN")
        return {"nonlinearity": main}
    gate = _activation("recurrent_activation", options.recurrent_activation)
    functions: dict[str, Any] = {"activation": main, "gate_activation": gate}
    return functions | ({"output_activation": main} if gates == 4 else {})


def _activation(argument: str, name: Any) -> Activation:
    if isinstance(name, str) and name in ACTIVATIONS:
        return ACTIVATIONS[name]
    raise ValueError(f"{argument}: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")


# ---- Layers and their configurations ----------------------------------------------------------


def _of_layer(layer: Any) -> tuple[Options, int]:
    """What a live layer says of itself."""
    known = _is_keras(layer)
    inner = [layer]
    if known and type(layer).__name__ == "Bidirectional":
        inner = [layer.forward_layer, layer.backward_layer]
    for each in inner:
        if not _is_keras(each) or type(each).__name__ not in CLASSES:
            wrapped = "Bidirectional around a " * (each is not layer)
            raise TypeError(
                "source: expected a LSTM, GRU or SimpleRNN of Keras, or a Bidirectional around "
                f"one, got a {wrapped}{type(each).__name__} of {type(each).__module__}"
            )
        for name in ("activation", "recurrent_activation"):
            function = getattr(each, name, None)
            # A function of the user may have the name of one of Keras'.
            own = getattr(sys.modules["keras"].activations, getattr(function, "__name__", ""), None)
            if function is not None and own is not function:
                raise ValueError(f"{name}: expected one of Keras' own, got {function!r}")
    return of_config(type(layer).__name__, layer.get_config())


def _is_keras(layer: Any) -> bool:
    return type(layer).__module__.startswith("keras.")


def of_config(class_name: str, config: Mapping[str, Any]) -> tuple[Options, int]:
    """What the configuration of a layer says of it."""
    if class_name == "Bidirectional":
        return _of_bidirectional(config)
    if class_name not in CLASSES:
        raise ValueError(f"layer: expected LSTM, GRU, SimpleRNN or Bidirectional, got {class_name}")
    gates = CLASSES[class_name]
    names = ["activation"] + ["recurrent_activation"] * (gates > 1) + ["go_backwards"]
    try:
        values = {name: config[name] for name in names}
        if gates == 3 and not config["use_bias"]:
            values["reset_after"] = config["reset_after"]
    except KeyError as error:
        raise ValueError(f"{class_name}: its configuration has no {error}") from None
    return Options(**values), gates


def _of_bidirectional(config: Mapping[str, Any]) -> tuple[Options, int]:
    mode = config.get("merge_mode")
    if mode != "concat":
        raise ValueError(f"merge_mode: expected 'concat', got {mode!r}")
    found = []
    for name in ("layer", "backward_layer"):
        inner = config.get(name) or {}
        if not isinstance(inner, Mapping) or not isinstance(inner.get("config"), Mapping):
            raise ValueError(f"Bidirectional: its configuration has no {name}")
        found.append(of_config(inner.get("class_name", ""), inner["config"]))
    (forward, gates), (backward, others) = found
    turned = Options(**{**vars(backward), "go_backwards": not backward.go_backwards})
    if forward.go_backwards or (forward, gates) != (turned, others):
        raise ValueError(
            "Bidirectional: expected a forward layer and one that goes backwards and is like it, "
            f"got {forward} and {backward}"
        )
    return Options(**{**vars(forward), "bidirectional": True}), gates


# ---- To Keras ---------------------------------------------------------------------------------


def to_keras(layer: LSTM | GRU | RNN, index: int = 0) -> list[Array]:
    """The arrays of a layer for `set_weights` of Keras' layer of that kind.

    Keras' layer is LSTM, GRU with `reset_after` as here, or SimpleRNN, with the same activations;
    inside a Bidirectional if the layer has two directions. Each layer of a stack is one of Keras.

    Args:
        layer: an LSTM, GRU or RNN.
        index: which one of the stack, 0 for the lowest.

    Raises:
        TypeError, ValueError: if Keras has no such layer, naming what it does not have.

    Example:
        >>> import fastrnn
        >>> [array.shape for array in to_keras(fastrnn.GRU(3, 2))]
        [(3, 6), (2, 6), (2, 6)]
    """
    names = ("activation", "gate_activation", "output_activation")
    cells = ("lstm", "gru", "gru_reset_before", "rnn")
    check_exportable(layer, "Keras", cells, (*names, "go_backwards"))
    for name in names:
        value = getattr(layer, name)
        if value not in ACTIVATIONS.values():
            raise ValueError(f"{name}: Keras has no {value!r}")
    if layer._cell == "lstm" and layer.activation != layer.output_activation:
        raise ValueError(
            f"output_activation: expected {layer.activation!r} as activation, of which Keras has "
            f"one, got {layer.output_activation!r}"
        )
    arrays = []
    for part in parts_at(layer, index):
        back = ORDERS[layer._gates]
        arrays += [reordered(part[name], back).T.copy() for name in ("weight_ih", "weight_hh")]
        if layer._cell == "gru" and layer.bias:
            arrays.append(np.stack([reordered(part[f"bias_{k}"], back) for k in ("ih", "hh")]))
        elif (bias := one_bias(part)) is not None:
            arrays.append(reordered(bias, back))
    return arrays
