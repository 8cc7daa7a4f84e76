"""fastrnn.torch packs weights once per change, and sees every change."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import fastrnn.torch as ft
from fastrnn.torch import _packing

# PyTorch's own use of what it deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry for each time that weights are packed."""
    found: list[Any] = []
    init = _packing.Packed.__init__

    def counted(self: Any, config: Any, weights: Any) -> None:
        found.append(config)
        init(self, config, weights)

    monkeypatch.setattr(_packing.Packed, "__init__", counted)
    return found


def agrees(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> bool:
    """Whether both give the same outputs, up to roundings, with their weights as they are."""
    with torch.no_grad():
        return torch.allclose(ours(x)[0], theirs(x)[0], rtol=0, atol=1e-5)


KINDS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: nn.LSTM(3, 4, 2),
    "projection": lambda: nn.LSTM(3, 4, 2, proj_size=2),
    "GRU": lambda: nn.GRU(3, 4, 2),
}


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """Ours, and a module of torch.nn that has the very same parameters."""
    theirs = KINDS[request.param]()
    return ft.replace(theirs), theirs


CHANGES: dict[str, Callable[[Any], None]] = {
    "in place": lambda p: p.add_(0.5),
    "one value": lambda p: p[0].mul_(-3),
    "data in place": lambda p: p.data.add_(0.5),
    "data, one value": lambda p: p.data[0].mul_(-3),
    "other data": lambda p: setattr(p, "data", torch.rand_like(p)),
    "numpy": lambda p: np.negative(p.detach().numpy(), out=p.detach().numpy()),
    "in inference mode": lambda p: p.mul_(-1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_seen_and_packed_once(
    name: str, pair: tuple[Any, Any], packs: list[Any]
) -> None:
    ours, theirs = pair
    x = torch.randn(5, 2, 3)
    mode = torch.inference_mode if name == "in inference mode" else torch.no_grad
    assert agrees(ours, theirs, x)
    for parameter in ours.parameters():
        del packs[:]
        with mode():
            CHANGES[name](parameter)
        assert agrees(ours, theirs, x)
        assert agrees(ours, theirs, x)
        assert len(packs) == 1


def test_changes_of_large_weights_are_seen() -> None:
    theirs = nn.LSTM(100, 120)
    ours = ft.replace(theirs)
    x = torch.randn(3, 2, 100)
    for parameter in ours.parameters():
        assert agrees(ours, theirs, x)
        with torch.no_grad():
            parameter[1] += 1  # where no sample is taken
        assert agrees(ours, theirs, x)
    for _ in range(3):  # behind the back of autograd, but everywhere
        ours(x)[0].sum().backward()
        for parameter in ours.parameters():
            parameter.data.add_(parameter.grad.data, alpha=-0.1)
        assert agrees(ours, theirs, x)


def test_training_packs_once_a_step(packs: list[Any]) -> None:
    net = ft.LSTM(3, 4)
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(4):
        for _ in range(3):  # gradients add up
            net(torch.randn(5, 2, 3))[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len(packs) == 4


def test_a_change_of_kind_is_seen(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    x = torch.randn(5, 2, 3)
    ours(x)
    ours.double()
    theirs.double()
    assert agrees(ours, theirs, x.double())
    ours.float().load_state_dict({k: v + 0.25 for k, v in ours.state_dict().items()})
    theirs.float().load_state_dict(ours.state_dict())
    assert agrees(ours, theirs, x)
    ours.share_memory()
    theirs.load_state_dict(ours.state_dict())
    assert agrees(ours, theirs, x)
    ours.batch_first = theirs.batch_first = True
    assert agrees(ours, theirs, x)


def test_tensors_can_be_swapped_under_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch does that with torch.__future__, and not to tensors with weak references."""
    net, x = ft.LSTM(3, 4), torch.randn(5, 2, 3)
    expected = net(x)[0].detach()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        net.double()
        assert net(x.double())[0].dtype == torch.float64
        net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()})
        assert torch.equal(net.float()(x)[0], expected)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def test_weights_that_are_not_parameters(packs: list[Any]) -> None:
    net, x = ft.LSTM(3, 4), torch.randn(5, 2, 3)
    twice = {name: (2 * p).detach() for name, p in net.named_parameters()}
    theirs = nn.LSTM(3, 4)
    theirs.load_state_dict(twice)
    plain = net(x)[0]
    for _ in range(3):
        found = torch.func.functional_call(net, twice, (x,))[0]
        assert torch.allclose(found, theirs(x)[0], rtol=0, atol=1e-6)
        assert torch.equal(net(x)[0], plain)
    assert len(packs) == 2


def test_an_alias_with_the_version_of_an_older_time_is_not_taken_for_it() -> None:
    """p.data has a version counter of its own, which starts where the parameter's once was."""
    net, x = ft.LSTM(3, 4), torch.randn(5, 2, 3)
    net(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.25)
    aliases = {name: p.data for name, p in net.named_parameters()}
    assert torch.equal(torch.func.functional_call(net, aliases, (x,))[0], net(x)[0])


def test_memory_that_is_used_again_is_not_taken_for_what_it_was() -> None:
    x = torch.randn(5, 2, 3)
    for _ in range(100):
        theirs = nn.LSTM(3, 4)
        ours = ft.LSTM(3, 4)
        for name, p in theirs.named_parameters():
            getattr(ours, name).data = p.data.clone()
            assert agrees(ours, theirs, x) or name != "bias_hh_l0"


def test_what_was_packed_goes_with_the_weights() -> None:
    gc.collect()
    before = len(_packing._entries)
    nets = [ft.LSTM(3, 4) for _ in range(5)]
    for net in nets:
        net(torch.randn(5, 2, 3))
    assert len(_packing._entries) == before + 5
    del nets, net
    gc.collect()
    assert len(_packing._entries) == before


def test_tensors_of_inference_mode_are_packed_at_every_call() -> None:
    """They have no version counter, so a change could be missed."""
    with torch.inference_mode():
        theirs = nn.LSTM(3, 4)
        ours = ft.replace(theirs)
        x = torch.randn(5, 2, 3)
        for parameter in ours.parameters():
            assert agrees(ours, theirs, x)
            parameter[0].add_(1)
            assert agrees(ours, theirs, x)


def test_reparametrized_weights() -> None:
    """weight_norm and pruning turn a parameter into a tensor that is computed at each call."""
    x = torch.randn(5, 2, 3)
    for reparametrize in (
        lambda m: parametrizations.weight_norm(m, "weight_hh_l0"),
        lambda m: prune.l1_unstructured(m, "weight_ih_l0", 0.5),
    ):
        ours, theirs = ft.LSTM(3, 4), nn.LSTM(3, 4)
        theirs.load_state_dict(ours.state_dict())
        for module in (ours, theirs):
            reparametrize(module)
        assert agrees(ours, theirs, x)
        for module in (ours, theirs):
            optimizer = torch.optim.SGD(module.parameters(), 0.5)
            module(x)[0].square().sum().backward()
            optimizer.step()
        assert agrees(ours, theirs, x)
