"""fastrnn.torch with lengths and reset: padded batches, and sequences that start anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import (
    Net,
    assert_gradients_close,
    gradient_bound,
    one_of_each,
    pack,
    refuses,
    same_bits,
    same_gradients,
    stacked,
    unpack,
)
from torch_support import module_gradients, module_of, problem, tensor

import fastrnn.torch as ft
from fastrnn.torch import _ops

STEPS, BATCH = 7, 5
LENGTHS = [3, 7, 0, 1, 7]


def resets(batch_first: bool = False) -> torch.Tensor:
    found = torch.from_numpy(np.random.default_rng(5).random((STEPS, BATCH)) < 0.3)
    return found.t() if batch_first else found


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes calls take the way of programs that are traced."""
    return lambda: monkeypatch.setattr(_ops, "is_compiling", lambda: True)


# ---- The same as fastrnn, and as each sequence alone


@pytest.mark.parametrize("net", stacked() + stacked(dtype="float64", batch_first=True), ids=str)
@pytest.mark.parametrize("form", ["lengths", "reset", "both"])
@pytest.mark.parametrize("way", ["autograd", "operators"])
def test_bits_are_those_of_the_layer(
    net: Net, form: str, way: str, rng: np.random.Generator, traced: Callable[[], None]
) -> None:
    call: dict[str, Any] = {"lengths": LENGTHS, "reset": resets(net.batch_first)}
    call = {key: call[key] for key in call if form in (key, "both")}
    module = module_of(net, net.build())
    layer = module.to_fastrnn()  # from the logits, alpha has other last bits
    x, state, dy, dstate = problem(net, rng, STEPS, BATCH)
    if way == "operators":
        traced()
    y, final, found = module_gradients(module, x, state, dy, dstate, **call)
    expected_y, expected_final, tape = layer.forward_train(x, state, **call)
    expected = layer.backward(tape, dy, dstate)
    for name, alpha in layer.parameters().items():
        if name.startswith("alpha"):
            found.params[name] = found.params.pop(name.replace("alpha", "alpha_logit"))
            expected.params[name] *= alpha * (1 - alpha)
    assert same_bits(y, expected_y)
    assert same_bits(final, expected_final)
    params = {name: found.params[name] for name in expected.params}
    assert same_gradients(type(found)(found.x, found.state, params), expected)
    with torch.no_grad():
        assert same_bits(
            module(tensor(x), pack([*map(tensor, unpack(state))]), **call)[0].numpy(), y
        )


@pytest.mark.parametrize("net", stacked(dtype="float64"), ids=str)
def test_a_row_is_as_if_it_were_alone(net: Net, rng: np.random.Generator) -> None:
    module = module_of(net, net.build())
    x, state, dy, dstate = problem(net, rng, STEPS, BATCH)
    y, final, found = module_gradients(module, x, state, dy, dstate, lengths=LENGTHS)
    sums = {name: np.zeros_like(value) for name, value in found.params.items()}
    for row, steps in enumerate(LENGTHS):
        assert not y[steps:, row].any() and not found.x[steps:, row].any()
        own = [pack([s[..., row, :] for s in unpack(states)]) for states in (state, dstate)]
        alone = (x[:steps, row], own[0], dy[:steps, row], own[1])
        expected_y, expected_final, expected = module_gradients(module, *alone)
        assert np.array_equal(y[:steps, row], expected_y)
        assert np.array_equal(found.x[:steps, row], expected.x)
        pairs = [(final, expected_final), (found.state, expected.state)]
        for batch, single in pairs:
            for a, b in zip(unpack(batch), unpack(single), strict=True):
                assert np.array_equal(a[..., row, :], b)
        for name, value in expected.params.items():
            sums[name] += value
    expected = type(found)(found.x, found.state, sums)
    assert_gradients_close(found, expected, gradient_bound(net, STEPS, BATCH), net)


def test_a_reset_cuts_a_sequence_in_two() -> None:
    net, x = ft.GRU(3, 4, 2, bidirectional=True), torch.randn(7, 2, 3)
    h = torch.randn(4, 2, 4)
    reset = torch.zeros(7, 2, dtype=torch.bool)
    reset[4] = True
    y, last = net(x, h, reset=reset)
    first, second = net(x[:4], h), net(x[4:], h)
    assert torch.equal(y, torch.cat([first[0], second[0]]))
    assert torch.equal(last[0::2], second[1][0::2])  # forward
    assert torch.equal(last[1::2], first[1][1::2])  # reverse


def test_what_is_padding_does_not_matter() -> None:
    net = ft.LSTM(3, 4, 2, bidirectional=True)
    x = torch.randn(STEPS, BATCH, 3)
    padding = torch.arange(STEPS)[:, None] >= torch.tensor(LENGTHS)
    results = []
    for value in (0.0, float("nan")):
        x = x.masked_fill(padding[..., None], value).requires_grad_()
        y, _ = net(x, lengths=LENGTHS)
        weight = torch.ones_like(y).masked_fill(padding[..., None], value)
        results.append([y, *torch.autograd.grad(y, [x, *net.parameters()], weight)])
    assert all(map(torch.equal, *results))


# ---- Forms of the arguments


LISTS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "int64": torch.tensor,
    "int32": lambda v: torch.tensor(v, dtype=torch.int32),
    "uint8": lambda v: torch.tensor(v, dtype=torch.uint8),
    "array": np.array,
    "strided": lambda v: torch.tensor([v, v]).t().contiguous().t()[0],
}


@pytest.mark.parametrize("form", LISTS)
def test_lengths_of_any_form(form: str) -> None:
    net, x = ft.GRU(3, 4), torch.randn(STEPS, BATCH, 3)
    expected = net(x, lengths=torch.tensor(LENGTHS))[0]
    assert torch.equal(net(x, lengths=LISTS[form](LENGTHS))[0], expected)


def test_layouts_of_the_batch() -> None:
    net, turned = ft.GRU(3, 4), ft.GRU(3, 4, batch_first=True)
    turned.load_state_dict(net.state_dict())
    x, reset = torch.randn(STEPS, BATCH, 3), resets()
    y, h = net(x, lengths=LENGTHS, reset=reset)
    found, last = turned(x.transpose(0, 1), lengths=LENGTHS, reset=reset.t())
    assert torch.equal(found.transpose(0, 1), y) and torch.equal(last, h)
    assert torch.equal(net(x, reset=reset.numpy())[0], net(x, reset=reset.tolist())[0])
    for module in (net, turned):
        for lengths in ([3], 3, torch.tensor(3)):
            found, last = module(x[:, 0], lengths=lengths, reset=reset[:, 0])
            assert torch.equal(found, y[:, 0]) and torch.equal(last, h[:, 0])
    empty = net(torch.zeros(4, 0, 3), lengths=[], reset=torch.zeros(4, 0, dtype=torch.bool))
    assert empty[0].shape == (4, 0, 4)


def test_full_lengths_and_no_reset_are_a_plain_call() -> None:
    net, x = ft.LSTM(3, 4, 2, bidirectional=True), torch.randn(STEPS, BATCH, 3)
    none = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    y, (h, c) = net(x, lengths=[STEPS] * BATCH, reset=none)
    expected, (h_n, c_n) = net(x)
    assert torch.equal(y, expected) and torch.equal(h, h_n) and torch.equal(c, c_n)


def test_the_callers_tensors_may_change() -> None:
    net, x = ft.GRU(3, 4), torch.randn(STEPS, BATCH, 3)
    lengths, reset = torch.tensor(LENGTHS), resets()
    expected = torch.autograd.grad(net(x, lengths=LENGTHS, reset=reset)[0].sum(), net.weight_hh_l0)
    y, _ = net(x, lengths=lengths, reset=reset)
    lengths.fill_(10**9)
    reset.fill_(True)
    assert torch.equal(torch.autograd.grad(y.sum(), net.weight_hh_l0)[0], expected[0])


def test_dropout_acts_on_what_is_there() -> None:
    net, x = ft.GRU(3, 8, 2, dropout=0.5), torch.randn(STEPS, BATCH, 3)
    torch.manual_seed(1)
    y, h = net(x, lengths=LENGTHS, reset=resets())
    torch.manual_seed(1)
    again, _ = net(x, lengths=LENGTHS, reset=resets())
    assert torch.equal(y, again)
    plain, last = net.eval()(x, lengths=LENGTHS, reset=resets())
    assert not torch.equal(y, plain)
    assert torch.equal(h[0], last[0])
    assert torch.equal(y == 0, plain == 0)


@pytest.mark.parametrize("net", one_of_each(dtype="float64"), ids=str)
def test_gradcheck(net: Net, rng: np.random.Generator) -> None:
    module = module_of(net, net.build())
    x, state, _, _ = problem(net, rng, STEPS, BATCH)
    inputs = [tensor(a).requires_grad_() for a in (x, *unpack(state))]

    def run(x: Any, *rest: Any) -> Any:
        parameters = dict(zip(module._names, rest[net.states :], strict=True))
        call = {"lengths": LENGTHS, "reset": resets()}
        y, h = torch.func.functional_call(module, parameters, (x, pack(rest[: net.states])), call)
        return (y, *unpack(h))

    assert torch.autograd.gradcheck(run, [*inputs, *module.parameters()])


# ---- Errors


X = torch.zeros(STEPS, BATCH, 3)
BAD_CALLS: dict[str, tuple[dict[str, Any], type, tuple[Any, ...]]] = {
    "too few": ({"lengths": [1, 2]}, ValueError, ("lengths", (5,), (2,))),
    "2-D": ({"lengths": [LENGTHS]}, ValueError, ("lengths", (5,), (1, 5))),
    "floats": ({"lengths": [1.0] * 5}, TypeError, ("lengths", "torch.float32")),
    "booleans": ({"lengths": [True] * 5}, TypeError, ("lengths", "torch.bool")),
    "words": ({"lengths": "all"}, TypeError, ("lengths",)),
    "too long": ({"lengths": [1, 2, 3, 4, 8]}, ValueError, ("lengths", 7, 8)),
    "negative": ({"lengths": [1, 2, 3, 4, -1]}, ValueError, ("lengths", 0, -1)),
    "elsewhere": (
        {"lengths": torch.tensor(LENGTHS, device="meta")},
        RuntimeError,
        ("lengths", "cpu", "meta"),
    ),
    "numbers": ({"reset": resets().int()}, TypeError, ("reset", "torch.bool", "torch.int32")),
    "turned": ({"reset": resets().t()}, ValueError, ("reset", (7, 5), (5, 7))),
    "one row": ({"reset": resets()[:, 0]}, ValueError, ("reset", (7, 5), (7,))),
}


@pytest.mark.parametrize("case", BAD_CALLS)
@pytest.mark.parametrize("way", ["autograd", "plain", "operators"])
def test_a_bad_call_is_refused_by_name(case: str, way: str, traced: Callable[[], None]) -> None:
    call, error, facts = BAD_CALLS[case]
    if way == "operators":
        traced()
    with torch.set_grad_enabled(way != "plain"), refuses(error, *facts):
        ft.GRU(3, 4)(X, **call)


def test_an_operators_backward_does_not_trust_lengths_either() -> None:
    net = ft.GRU(3, 4)
    weights = [p.detach() for p in net.parameters()]
    options = (*net._config.flat(), False, False, True)
    lengths = torch.tensor(LENGTHS)
    y, h, _, saved = _ops.run_op(X, [], weights, lengths, None, *options)
    needs = [True] * 6
    with refuses(ValueError, "lengths", 7, 8):
        _ops.backward_op(X, saved, weights, y, h, None, needs, lengths + 1, None, *options)
