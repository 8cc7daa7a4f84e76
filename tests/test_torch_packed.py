"""fastrnn.torch with PackedSequence: in and out as torch.nn has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference_backward import Gradients
from support import (
    PLAIN,
    Net,
    assert_close,
    assert_gradients_close,
    bound,
    draw_net,
    gradient_bound,
    one_of_each,
    pack,
    picker,
    refuses,
    unpack,
)
from torch import nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)
from torch_support import module_of, tensor
from witnesses import torch_module

import fastrnn.torch as ft
from fastrnn.torch import _sequences


def packed_gradients(
    module: Any, x: Any, state: Any, weight: Any, dstate: Any, lengths: Any, sort: bool
) -> tuple[Any, Any, Any]:
    """The packed output, the final state, and the gradients, of x [T, B, I] padded."""
    parameters = dict(module.named_parameters())
    dtype = next(iter(parameters.values())).dtype
    states = () if state is None else unpack(state)
    inputs = [tensor(a, dtype).requires_grad_() for a in (x, *states)]
    sequence = pack_padded_sequence(inputs[0], tensor(lengths), enforce_sorted=sort)
    y, final = module(sequence, pack(inputs[1:]) if states else None)
    arriving = [tensor(a, dtype) for a in (weight[: len(y.data)], *unpack(dstate))]
    found = torch.autograd.grad([y.data, *unpack(final)], [*inputs, *parameters.values()], arriving)
    dx, *rest = (t.numpy() for t in found)
    params = dict(zip(parameters, rest[len(states) :], strict=True))
    final = pack([t.detach().numpy() for t in unpack(final)])
    return y, final, Gradients(dx, pack(rest[: len(states)] or [np.zeros(0)]), params)


@pytest.mark.parametrize("seed", range(36))
def test_outputs_and_gradients_are_those_of_torch_nn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pick = picker(rng)
    cell = ("lstm", "gru", "rnn")[seed % 3]
    net = draw_net(pick, cell, **PLAIN, nonlinearity="tanh", batch_first=False)
    steps, batch, sort = pick((1, 3, 8, 13)), pick((1, 2, 5, 9)), pick((False, True))
    lengths = rng.integers(1, steps, batch, endpoint=True)
    lengths = np.sort(lengths)[::-1].copy() if sort else lengths
    x, dstate = net.input(rng, steps, batch), net.state(rng, batch)
    state = net.state(rng, batch) if pick((True, False)) else None
    weight = rng.standard_normal((steps * batch, net.output_size))
    layer = net.build()
    arguments = (x, state, weight, dstate, lengths, sort)
    y, final, found = packed_gradients(module_of(net, layer), *arguments)
    theirs = torch_module(net, layer, "float64")
    expected_y, expected_final, expected = packed_gradients(theirs, *arguments)
    assert type(y) is PackedSequence
    for index in range(1, 4):
        assert (y[index] is None) == (expected_y[index] is None)
        assert y[index] is None or torch.equal(y[index], expected_y[index])
    data, expected_data = (t.data.detach().numpy() for t in (y, expected_y))
    assert_close(data, expected_data, bound(net, steps), net)
    assert_close(final, expected_final, bound(net, steps), net)
    assert_gradients_close(found, expected, gradient_bound(net, steps, batch), net)


@pytest.mark.parametrize("net", one_of_each(), ids=str)
def test_bits_are_those_of_each_sequence_alone(net: Net, rng: np.random.Generator) -> None:
    module = module_of(net, net.build())
    sequences = [tensor(net.input(rng, steps, None)) for steps in (3, 1, 6, 6, 2)]
    state = [tensor(s) for s in unpack(net.state(rng, len(sequences)))]
    with torch.no_grad():
        y, final = module(pack_sequence(sequences, enforce_sorted=False), pack(state))
        for row, (x, found) in enumerate(
            zip(sequences, nn.utils.rnn.unpack_sequence(y), strict=True)
        ):
            expected, last = module(x, pack([s[..., row, :].contiguous() for s in state]))
            assert torch.equal(found, expected)
            for a, b in zip(unpack(final), unpack(last), strict=True):
                assert torch.equal(a[..., row, :], b)


def test_batch_first_does_not_matter(rng: np.random.Generator) -> None:
    x = pack_sequence([torch.randn(steps, 3) for steps in (4, 2)])
    net, twin = ft.GRU(3, 4), ft.GRU(3, 4, batch_first=True)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(net(x)[0].data, twin(x)[0].data)


def test_sequences_of_one_length_are_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = ft.GRU(3, 4), torch.randn(5, 2, 3)
    monkeypatch.setattr(_sequences, "Gather", None)
    y, h = net(pack_padded_sequence(x, torch.tensor([5, 5])))
    assert torch.equal(pad_packed_sequence(y)[0], net(x)[0])
    assert torch.equal(h, net(x)[1])
    with pytest.raises(AttributeError):  # it would have been used
        net(pack_padded_sequence(x, torch.tensor([5, 4])))


def test_packed_data_of_any_layout() -> None:
    net = ft.GRU(3, 4)
    for lengths in ([4, 4, 4], [4, 3, 1]):
        x = pack_padded_sequence(torch.randn(4, 3, 3), torch.tensor(lengths))
        apart = PackedSequence(x.data.t().contiguous().t(), x.batch_sizes)
        assert torch.equal(net(apart)[0].data, net(x)[0].data)


def test_gradcheck() -> None:
    torch.manual_seed(0)
    sizes = pack_padded_sequence(torch.zeros(4, 3, 1), torch.tensor([4, 2, 1])).batch_sizes
    order = torch.tensor([2, 0, 1])
    net = ft.LSTM(2, 3, 2, proj_size=2, bidirectional=True, dtype=torch.float64)
    data = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    h = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    c = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(data: Any, h: Any, c: Any, *weights: Any) -> Any:
        x = PackedSequence(data, sizes, order)
        parameters = dict(zip(net._names, weights, strict=True))
        y, final = torch.func.functional_call(net, parameters, (x, (h, c)))
        return (y.data, *final)

    assert torch.autograd.gradcheck(run, (data, h, c, *net.parameters()))


def test_the_second_derivative_is_refused() -> None:
    net, x = ft.GRU(3, 4), pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    data = x.data.requires_grad_()
    y = net(PackedSequence(data, x.batch_sizes))[0].data
    (dx,) = torch.autograd.grad(y.sum(), data, create_graph=True)
    with refuses(RuntimeError, "second derivative"):
        dx.square().sum().backward()


def test_autocast_runs_in_the_dtype_of_the_weights() -> None:
    net, x = ft.GRU(3, 4), pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    with torch.autocast("cpu", torch.bfloat16):
        y, h = net(x.to(torch.bfloat16))
    assert (y.data.dtype, h.dtype) == (torch.float32, torch.float32)


def test_a_bad_call_is_refused_by_name() -> None:
    net = ft.GRU(3, 4)
    x = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    with refuses(ValueError, "lengths", "PackedSequence"):
        net(x, lengths=[4, 2])
    with refuses(ValueError, "reset", "PackedSequence"):
        net(x, reset=torch.zeros(4, 2, dtype=torch.bool))
    with refuses(RuntimeError, "input", 3, 5):
        net(pack_sequence([torch.randn(4, 5)]))
    with refuses(ValueError, "input", "torch.float32", "torch.float64"):
        net(x.double())
    with refuses(RuntimeError, "hx", (1, 2, 4), (1, 3, 4)):
        net(x, torch.zeros(1, 3, 4))
    with refuses(RuntimeError, "hx", (1, 2, 4), (1, 4)):
        net(x, torch.zeros(1, 4))
    with refuses(ValueError, "input", "batch_sizes", 6):
        net(PackedSequence(x.data, torch.tensor([2, 2, 1])))
    with refuses(ValueError, "input", "batch_sizes"):
        net(PackedSequence(x.data, torch.tensor([1, 2, 2, 1])))
    with refuses(ValueError, "input", "dimensions", 1):
        net(pack_sequence([torch.randn(4)]))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_model_packs_and_unpacks() -> None:
    torch._dynamo.reset()
    net = ft.GRU(3, 4, 2)

    def run(x: Any, lengths: Any) -> Any:
        y, h = net(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(y)[0], h

    compiled = torch.compile(run, backend="aot_eager")
    for lengths in ([5, 2], [1, 5], [5, 5]):
        x = torch.randn(5, 2, 3, requires_grad=True)
        for a, b in zip(
            compiled(x, torch.tensor(lengths)), run(x, torch.tensor(lengths)), strict=True
        ):
            assert torch.equal(a, b)
