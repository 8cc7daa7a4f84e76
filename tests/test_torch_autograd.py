"""fastrnn.torch under autograd: what is computed, what is refused, what may change meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import Net, one_of_each, refuses, stacked, unpack
from torch import nn
from torch_support import module_of, problem, tensor

import fastrnn.torch as ft
from fastrnn.torch import _ops

# PyTorch's own use of what it deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """For each backward, whether it computed the gradient of x, and of which weights."""
    found: list[Any] = []
    backward = _ops._backward

    def noted(*arguments: Any) -> Any:
        *_, need_x, need_weights = arguments
        found.append((need_x, [bool(need) for need in need_weights]))
        return backward(*arguments)

    monkeypatch.setattr(_ops, "_backward", noted)
    return found


def grads(module: nn.Module) -> list[Any]:
    return [parameter.grad for parameter in module.parameters()]


# ---- Derivatives


@pytest.mark.parametrize("net", stacked(dtype="float64"), ids=str)
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("with_state", [False, True])
def test_gradcheck(net: Net, batch: int | None, with_state: bool) -> None:
    rng = np.random.default_rng(3)
    module = module_of(net, net.build())
    x, state, _, _ = problem(net, rng, 4, batch)
    states = [tensor(s).requires_grad_() for s in unpack(state)]

    def run(x: Any, *rest: Any) -> Any:
        given = rest[: net.states] if with_state else ()
        hx = None if not given else given if net.states == 2 else given[0]
        parameters = dict(zip(module._names, rest[len(given) :], strict=True))
        y, h = torch.func.functional_call(module, parameters, (x, hx))
        return (y, *h) if net.states == 2 else (y, h)

    inputs = [tensor(x).requires_grad_(), *(states if with_state else []), *module.parameters()]
    assert torch.autograd.gradcheck(run, inputs)


def test_gradients_are_only_computed_where_they_are_needed(backwards: list[Any]) -> None:
    net, x = ft.LSTM(3, 4, 2), torch.randn(5, 2, 3)
    hx = (torch.randn(2, 2, 4, requires_grad=True), torch.randn(2, 2, 4))
    net(x, hx)[0].sum().backward()
    expected, dh = grads(net), hx[0].grad.clone()
    assert backwards.pop() == (False, [True] * 8)

    net.zero_grad()
    net.weight_ih_l0.requires_grad_(False)
    net.bias_hh_l1.requires_grad_(False)
    net(x, hx)[0].sum().backward()
    needed = [name not in ("weight_ih_l0", "bias_hh_l1") for name in net._names]
    assert backwards.pop() == (False, needed)
    for need, a, b in zip(needed, grads(net), expected, strict=True):
        assert torch.equal(a, b) if need else a is None
    assert torch.equal(hx[0].grad, 2 * dh)
    assert hx[1].grad is None

    net.requires_grad_(False)
    net(x.requires_grad_())[0].sum().backward()
    assert backwards.pop() == (True, [False] * 8)
    y, (h, c) = net(x.detach())
    assert not (y.requires_grad or h.requires_grad or c.requires_grad)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_there_is_no_tape(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = ft.LSTM(3, 4), torch.randn(5, 2, 3)
    expected = net(x)[0].detach()
    monkeypatch.setattr(_ops, "Run", None)
    with mode():
        assert torch.equal(net(x)[0], expected)
    with pytest.raises(AttributeError):  # it would have been used
        net(x)


def test_outputs_that_do_not_matter_have_no_gradient() -> None:
    ours = ft.LSTM(3, 4, dtype=torch.float64)
    theirs = nn.LSTM(3, 4, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    losses: list[Callable[[Any, Any, Any], Any]] = [
        lambda y, h, c: y[-1].sum(),
        lambda y, h, c: y[:, 0].mean(),
        lambda y, h, c: h.sum(),
        lambda y, h, c: (c * c).sum(),
        lambda y, h, c: y.transpose(0, 2)[1].sum() + c[0, 1, 2],
        lambda y, h, c: (y[2] * h).sum(),
    ]
    for loss in losses:
        for module in (ours, theirs):
            module.zero_grad()
            y, (h, c) = module(x)
            loss(y, h, c).backward()
        for a, b in zip(grads(ours), grads(theirs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


CONTIGUOUS = torch.contiguous_format


def misaligned(t: torch.Tensor) -> torch.Tensor:
    """A copy whose address is no multiple of 4."""
    raw = np.zeros(t.numel() * 4 + 8, np.uint8)
    offset = -raw.ctypes.data % 4 + 1
    raw[offset : offset + t.numel() * 4].view(np.float32)[...] = t.numpy().ravel()
    return torch.frombuffer(raw, dtype=torch.float32, count=t.numel(), offset=offset).view(t.shape)


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "batch before time": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "features apart": lambda t: t.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "part of longer rows": lambda t: nn.functional.pad(t, (1, 2))[..., 1:-2],
    "one row for all": lambda t: t[:, :1].expand(t.shape),
    "one value for all": lambda t: t[0, 0, 0].expand(t.shape),
    "misaligned": misaligned,
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("hidden", [4, 1])
def test_any_layout_of_tensors(name: str, hidden: int) -> None:
    """Of the input, the initial state, and the gradients that arrive."""
    net, layout = ft.RNN(4, hidden), LAYOUTS[name]
    shapes = [(6, 3, 4), (1, 3, hidden), (6, 3, hidden), (1, 3, hidden)]
    laid_out = [layout(torch.randn(shape)) for shape in shapes]
    results = []
    for x, h, dy, dh in (laid_out, [t.clone(memory_format=CONTIGUOUS) for t in laid_out]):
        outputs = net(x.requires_grad_(), h.requires_grad_())
        found = torch.autograd.grad(outputs, [x, h, *net.parameters()], [dy, dh])
        with torch.no_grad():
            results.append([*outputs, *found, *net(x, h)])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("name", ["transposed", "misaligned"])
def test_any_layout_of_weights(name: str) -> None:
    layout = {"transposed": lambda p: p.t().contiguous().t(), "misaligned": misaligned}[name]
    net, x = ft.RNN(4, 5), torch.randn(6, 3, 4)
    twins = {n: layout(2 * p.detach()).requires_grad_() for n, p in net.named_parameters()}
    doubled = ft.RNN(4, 5)
    doubled.load_state_dict(twins)
    for _ in range(2):
        y = torch.func.functional_call(net, twins, (x,))[0]
        assert torch.equal(y, doubled(x)[0])
        found = torch.autograd.grad(y.sum(), list(twins.values()))
        expected = torch.autograd.grad(doubled(x)[0].sum(), list(doubled.parameters()))
        assert all(map(torch.equal, found, expected))
        with torch.no_grad():
            for twin, parameter in zip(twins.values(), doubled.parameters(), strict=True):
                parameter.copy_(twin.mul_(-1))


@pytest.mark.parametrize("steps, batch", [(0, 2), (3, 0), (0, 0)])
def test_nothing_to_do(steps: int, batch: int) -> None:
    net = ft.LSTM(3, 4)
    x = torch.zeros(steps, batch, 3, requires_grad=True)
    h, c = (torch.randn(1, batch, 4, requires_grad=True) for _ in range(2))
    y, (h_n, c_n) = net(x, (h, c))
    assert y.shape == (steps, batch, 4)
    (y.sum() + h_n.sum() + 2 * c_n.sum()).backward()
    assert x.grad.shape == x.shape
    assert all(not g.any() for g in grads(net))
    if steps == 0:
        assert torch.equal(h_n, h) and torch.equal(c_n, c)
        assert torch.equal(h.grad, torch.ones_like(h))
        assert torch.equal(c.grad, torch.full_like(c, 2))


@pytest.mark.parametrize("net", one_of_each(), ids=str)
def test_the_second_derivative_is_refused(net: Net, rng: np.random.Generator) -> None:
    module = module_of(net, net.build())
    x = tensor(net.input(rng, 4, 2)).requires_grad_()
    (plain,) = torch.autograd.grad(module(x)[0].sum(), x)
    (dx,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
    assert torch.equal(dx, plain)
    with refuses(RuntimeError, "second derivative"):
        dx.square().sum().backward()


def test_forward_mode_and_function_transforms_are_refused() -> None:
    net, x = ft.RNN(3, 4), torch.randn(5, 2, 3)
    for transform in (torch.func.vmap, torch.func.jacrev, torch.func.jacfwd):
        with refuses(NotImplementedError, "torch.func"):
            transform(lambda x: net(x)[0].sum())(x)
    with torch.autograd.forward_ad.dual_level(), refuses(NotImplementedError, "forward-mode"):
        net(torch.autograd.forward_ad.make_dual(x, x))


# ---- Changes in place


def test_weights_changed_before_the_backward_are_autograds_error() -> None:
    net, x = ft.LSTM(3, 4), torch.randn(5, 2, 3)
    for parameter in net.parameters():
        y = net(x)[0]
        with torch.no_grad():
            parameter.mul_(2)
        with refuses(RuntimeError, "modified by an inplace operation"):
            y.sum().backward()
    net(x)[0].sum().backward()


def test_input_changed_before_the_backward_is_autograds_error() -> None:
    net, x = ft.LSTM(3, 4), torch.randn(5, 2, 3)
    y = net(x)[0]
    x.add_(1)
    with refuses(RuntimeError, "modified by an inplace operation"):
        y.sum().backward()


def test_output_and_state_may_be_changed() -> None:
    net, x = ft.LSTM(3, 4), torch.randn(5, 2, 3)
    h, c = torch.randn(1, 2, 4), torch.randn(1, 2, 4)
    (3 * net(x, (h, c))[0]).sum().backward()
    expected = grads(net)
    net.zero_grad()
    y, _ = net(x, (h, c))
    h.zero_()
    y.mul_(3).sum().backward()
    assert all(map(torch.equal, grads(net), expected))


def test_a_graph_can_be_used_again_and_keeps_its_weights() -> None:
    net, x = ft.LSTM(3, 4), torch.randn(5, 2, 3)
    y = net(x)[0]
    y.sum().backward(retain_graph=True)
    first = [g.clone() for g in grads(net)]
    y.sum().backward()
    assert all(torch.equal(g, 2 * f) for g, f in zip(grads(net), first, strict=True))
    with refuses(RuntimeError, "backward through the graph a second time"):
        y.sum().backward()


def test_saved_tensors_may_travel() -> None:
    def offset(t: torch.Tensor) -> torch.Tensor:
        """A copy, of bytes at an odd address."""
        if t.dtype != torch.uint8:
            return t.clone()
        moved = torch.empty(t.numel() + 1, dtype=torch.uint8)
        moved[1:] = t
        return moved[1:]

    net, x = ft.LSTM(3, 4, 2), torch.randn(5, 2, 3)
    net(x)[0].sum().backward()
    expected = grads(net)
    for context in (
        torch.autograd.graph.save_on_cpu(),
        torch.autograd.graph.saved_tensors_hooks(offset, lambda t: t),
    ):
        net.zero_grad()
        with context:
            y = net(x)[0]
        y.sum().backward()
        assert all(map(torch.equal, grads(net), expected))
    net.zero_grad()
    run = torch.utils.checkpoint.checkpoint(lambda x: net(x)[0], x, use_reentrant=False)
    run.sum().backward()
    assert all(map(torch.equal, grads(net), expected))


# ---- Company


def test_threads_share_a_module() -> None:
    net = ft.LSTM(8, 16, 2)
    inputs = [torch.randn(20, 3, 8) for _ in range(8)]
    expected = [torch.autograd.grad(net(x)[0].sum(), net.weight_hh_l0)[0] for x in inputs]
    failures: list[Any] = []

    def work(index: int) -> None:
        for _ in range(20):
            (found,) = torch.autograd.grad(net(inputs[index])[0].sum(), net.weight_hh_l0)
            if not torch.equal(found, expected[index]):
                failures.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("kind", [ft.LSTM, ft.GRU])
def test_autocast_runs_in_the_dtype_of_the_weights(kind: Any) -> None:
    model = nn.Sequential(nn.Linear(5, 3), kind(3, 4))
    with torch.autocast("cpu", torch.bfloat16):
        y, state = model(torch.randn(6, 2, 5))
    assert {t.dtype for t in (y, *unpack(state))} == {torch.float32}
    y.sum().backward()
    assert model[0].weight.grad is not None


def test_another_default_device() -> None:
    net, x = ft.LSTM(3, 4), torch.randn(5, 2, 3)
    expected = torch.autograd.grad(net(x)[0].sum(), list(net.parameters()))
    with torch.device("meta"):
        found = torch.autograd.grad(net(x)[0].sum(), list(net.parameters()))
        with refuses(ValueError, "device", "cpu", "meta"):
            ft.LSTM(3, 4)
    assert all(map(torch.equal, found, expected))
