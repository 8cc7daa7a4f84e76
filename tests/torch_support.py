"""Modules of fastrnn.torch for the nets of support.py, and what they give."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from reference_backward import Gradients
from support import Net, pack, unpack

import fastrnn.torch as ft


def module_of(net: Net, layer: Any, **options: Any) -> Any:
    """The module with the layer's weights."""
    return getattr(ft, type(layer).__name__).from_fastrnn(layer, **options)


def tensor(array: np.ndarray, dtype: Any = None) -> torch.Tensor:
    return torch.tensor(np.asarray(array), dtype=dtype)


def problem(net: Net, rng: np.random.Generator, steps: int, batch: int | None) -> list[Any]:
    """x, a state, and gradients with respect to y and to the final state."""
    x, state = net.input(rng, steps, batch), net.state(rng, batch)
    return [x, state, net.output_gradient(rng, steps, batch), net.state(rng, batch)]


def module_gradients(
    module: Any, x: Any, state: Any, dy: Any, dstate: Any, **call: Any
) -> tuple[np.ndarray, Any, Gradients]:
    """y, the final state and the gradients, of a module of torch.nn or of ours, in its dtype."""
    parameters = dict(module.named_parameters())
    dtype = next(iter(parameters.values())).dtype
    inputs = [tensor(a, dtype).requires_grad_() for a in (x, *unpack(state))]
    y, final = module(inputs[0], pack(inputs[1:]), **call)
    found = torch.autograd.grad(
        [y, *unpack(final)],
        [*inputs, *parameters.values()],
        [tensor(a, dtype) for a in (dy, *unpack(dstate))],
    )
    dx, *rest = (t.numpy() for t in found)
    states = len(inputs) - 1
    params = dict(zip(parameters, rest[states:], strict=True))
    arrays = [t.detach().numpy() for t in (y, *unpack(final))]
    return arrays[0], pack(arrays[1:]), Gradients(dx, pack(rest[:states]), params)
