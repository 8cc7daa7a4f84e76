"""Swapping the layers of torch.nn inside a model."""

from __future__ import annotations

import warnings
from typing import TypeVar

from torch import nn

from .._activations import checked_activation
from ._config import DTYPES, Config
from ._recurrent import Recurrent
from .modules import GRU, LSTM, RNN

Model = TypeVar("Model", bound=nn.Module)

CLASSES: dict[type[nn.Module], type[Recurrent]] = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN}


def replace(model: Model) -> Model:
    """Swaps every torch.nn.LSTM, GRU and RNN in a model for the one of fastrnn.torch.

    The new modules have the same Parameter objects, so that an optimizer goes on with them, the
    same hooks, names and mode (training or evaluation). A module that the model has in several
    places stays one.

    Left as they are, with a warning for each that says why: those on another device than the CPU or
    of other dtypes than float32 and float64, and instances of subclasses, of which nothing is
    known.

    Args:
        model: any module; changed in place, unless it is itself an LSTM, GRU or RNN.

    Returns:
        The model, or the new module for it.

    Example:
        >>> import torch, fastrnn.torch as ft
        >>> ft.replace(torch.nn.Sequential(torch.nn.LSTM(3, 8)))
        Sequential(
          (0): LSTM(3, 8)
        )
        >>> type(ft.replace(torch.nn.RNN(3, 8)))
        <class 'fastrnn.torch.modules.RNN'>
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    new: dict[nn.Module, nn.Module] = {}
    for path, module in model.named_modules():
        if isinstance(module, tuple(CLASSES)):
            reason = _obstacle(module)
            if reason is None:
                new[module] = _converted(module)
            else:
                warnings.warn(f"{path or 'model'}: left as it is, {reason}", stacklevel=2)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in new:
                parent._modules[name] = new[child]
    return new.get(model, model)


def _obstacle(module: nn.Module) -> str | None:
    """Why a module cannot be taken over, if so."""
    if type(module) not in CLASSES:
        name = type(module).__name__
        return f"expected torch.nn's own LSTM, GRU or RNN, got a subclass, {name}"
    for name, tensor in module.named_parameters():
        if tensor.dtype not in DTYPES or not tensor.is_cpu:
            return (
                f"{name}: expected torch.float32 or torch.float64 on the cpu, "
                f"got {tensor.dtype} on {tensor.device}"
            )
    return None


def _converted(old: nn.Module) -> Recurrent:
    """A module that takes over everything that one of torch.nn is: parameters, hooks, mode."""
    cell, function = type(old).__name__.lower(), getattr(old, "nonlinearity", "tanh")
    config = Config(
        cell,
        old.bias,
        old.num_layers,
        old.bidirectional,
        proj_size=old.proj_size,
        activation=checked_activation("nonlinearity", function),
    )
    new = CLASSES[type(old)].__new__(CLASSES[type(old)])
    nn.Module.__init__(new)
    # of torch.nn's own, its lists of weights; the rest is here under the same names
    own = {"mode", "nonlinearity", "proj_size", "_all_weights"}
    new.__dict__ |= {
        name: value
        for name, value in old.__dict__.items()
        if name not in own and not name.startswith("_flat_weight")
    }
    new._set_config(config)
    return new
