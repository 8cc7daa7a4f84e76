"""Gradients by PyTorch's autograd, of modules and of loops over the equations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from reference_backward import Gradients
from support import Net, pack, unpack

Values = Mapping[str, Any]


def stack(
    net: Net, one_layer: Callable[..., Any], concatenate: Callable[..., Any], x: Any, state: Any
) -> tuple[Any, list[Any]]:
    """Layers and directions, for arrays of any library: x [T, B, I], state a list of [L * D, B, H].

    one_layer(suffix, x, state of that layer and direction, reverse) -> (h, final state).
    """
    finals = []
    for index in range(net.num_layers):
        outputs = []
        for direction in range(net.directions):
            part = index * net.directions + direction
            suffix = f"_l{index}" + "_reverse" * direction
            h, final = one_layer(suffix, x, [s[part] for s in state], direction == 1)
            outputs.append(h)
            finals.append(final)
        x = concatenate(outputs, -1)
    return x, finals


# ---- PyTorch ----------------------------------------------------------------------------------

TORCH_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "identity": lambda v: v}


def torch_module(net: Net, layer: Any, dtype: str) -> torch.nn.Module:
    """torch.nn.LSTM or RNN with the layer's weights."""
    options: dict[str, Any] = {} if net.cell == "lstm" else {"nonlinearity": net.nonlinearity}
    module = getattr(torch.nn, net.cell.upper())(
        net.input_size,
        net.hidden_size,
        net.num_layers,
        bias=net.bias,
        batch_first=net.batch_first,
        bidirectional=net.bidirectional,
        dtype=getattr(torch, dtype),
        **options,
    )
    module.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
    return module


def leaky_loop(net: Net, p: dict[str, torch.Tensor], x: torch.Tensor, state: Any) -> Any:
    """The leaky cells, by torch's own operations: y and final state, of time-major batches."""
    f = TORCH_ACTIVATIONS[net.nonlinearity]

    def one_layer(suffix: str, x: torch.Tensor, state: Any, reverse: bool) -> Any:
        (s,), y = state, []
        a = p["alpha" if net.cell == "leaky" else "alpha" + suffix]
        for x_t in x.flip(0) if reverse else x:
            v = x_t
            if net.cell != "leaky":
                past = s if net.cell == "leaky_rate" else f(s)
                names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
                wi, bi, wh, bh = (p.get(name + suffix) for name in names)
                linear = torch.nn.functional.linear
                v = linear(x_t, wi, bi) + linear(past, wh, bh)
            s = a * s + (1 - a) * (f(v) if net.cell == "leaky_rate" else v)
            y.append(f(s) if net.cell == "leaky_potential" else s)
        return torch.stack(y[::-1] if reverse else y), s

    s = state[0][None] if net.cell == "leaky" else state[0]
    y, finals = stack(net, one_layer, torch.cat, x, [s])
    return y, finals[0] if net.cell == "leaky" else torch.stack(finals)


def torch_gradients(
    net: Net, layer: Any, x: Any, state: Any, dy: Any, dstate: Any, dtype: str = "float64"
) -> Gradients:
    """By autograd, of the same weights and batched arrays in `dtype`; dy full or of the last step.

    LSTM and RNN run as PyTorch's modules, the leaky cells as a loop.
    """

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array, dtype))

    def turned(t: torch.Tensor) -> torch.Tensor:
        return t.transpose(0, 1) if net.batch_first else t

    inputs = [tensor(x), *map(tensor, unpack(state))]
    for t in inputs:
        t.requires_grad_()
    if net.cell in ("lstm", "rnn"):
        module = torch_module(net, layer, dtype)
        p = dict(module.named_parameters())
        y, final = module(inputs[0], pack(inputs[1:]))
    else:
        p = {name: tensor(v).requires_grad_() for name, v in layer.parameters().items()}
        y, final = leaky_loop(net, p, turned(inputs[0]), inputs[1:])
        y = turned(y)
    last = turned(y)[-1] if dy.ndim < 3 else y
    found = torch.autograd.grad(
        [last, *unpack(final)], [*inputs, *p.values()], [tensor(dy), *map(tensor, unpack(dstate))]
    )
    dx, *rest = (t.numpy() for t in found)
    params = dict(zip(p, rest[net.states :], strict=True))
    return Gradients(
        dx, pack(rest[: net.states]), {name: params[name] for name in layer.parameters()}
    )
