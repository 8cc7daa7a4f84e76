"""Modules with time structures for tests, and what they give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nets import pack, unpack
from structure_layers import IN, VARIANTS, H
from torch_support import tensor

import fastrnn
import fastrnn.torch as ft
from fastrnn.training import Gradients

LAYERS = {name: make for name, make in VARIANTS.items() if not make().go_backwards}
LAYERS["full"] = lambda: fastrnn.GRU(
    IN, H, periods=(4, 1), group_sizes=(2, 4), connectivity="full", seed=0
)
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def module_of(layer: Any, **options: Any) -> Any:
    return getattr(ft, type(layer).__name__).from_fastrnn(layer, **options)


def both(make: Any) -> tuple[Any, Any]:
    """A module, and the layer with its parameters: from the logits, alpha has other last bits."""
    module = module_of(make())
    return module, module.to_fastrnn()


def tensors_of(state: Any) -> Any:
    return pack([torch.tensor(array) for array in unpack(state)])


def arrays_of(state: Any) -> Any:
    return pack([t.detach().numpy() for t in unpack(state)])


def gradients(
    module: Any, x: Any, state: Any, dy: Any, dstate: Any, **call: Any
) -> tuple[Any, Any, Gradients]:
    """y, the final state and the gradients; alpha's in place of its logit's."""
    parameters = dict(module.named_parameters())
    before = [tensor(array) for array in unpack(state)]
    inputs = [tensor(x), *[t for t in before if t.is_floating_point()]]
    for t in inputs:
        t.requires_grad_()
    y, final = module(inputs[0], pack([*inputs[1:], *before[len(inputs) - 1 :]]), **call)
    moving = [t for t in unpack(final) if t.is_floating_point()]
    assert [t.requires_grad for t in unpack(final)[len(moving) :]] in ([], [False])
    arriving = [tensor(a) for a in (dy, *unpack(dstate))]
    found = torch.autograd.grad([y, *moving], [*inputs, *parameters.values()], arriving)
    dx, *rest = (t.numpy() for t in found)
    states = len(inputs) - 1
    params = {}
    for name, gradient in zip(parameters, rest[states:], strict=True):
        if name.startswith("alpha_logit"):
            alpha = torch.sigmoid(parameters[name]).detach().numpy()
            slope = alpha * (1 - alpha)
            gradient = np.divide(gradient, slope, out=np.zeros_like(gradient), where=slope > 0)
            name = name.replace("alpha_logit", "alpha")
        params[name] = gradient
    return y.detach().numpy(), arrays_of(final), Gradients(dx, pack(rest[:states]), params)
