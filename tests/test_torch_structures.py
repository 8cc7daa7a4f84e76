"""Time structures of fastrnn.torch: delays, clocks, masks and dilated stacks as modules."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import floats, pack, take_rows, unpack
from structure_layers import IN, H, inputs, mask_of, random_state
from structured import CASES, draw_structured
from support import (
    assert_close,
    assert_gradients_close,
    bound,
    gradient_bound,
    picker,
    refuses,
    same_bits,
    same_gradients,
)
from torch import nn
from torch_structures import LAYERS, arrays_of, both, each_layer, gradients, module_of, tensors_of
from torch_support import tensor

import fastrnn
import fastrnn.torch as ft

# PyTorch's own use of what it deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


# ---- Values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["", "lengths", "reset"])
@each_layer
def test_bits_are_those_of_the_layer(make: Any, cut: str, rng: np.random.Generator) -> None:
    module, layer = both(make)
    x, state = inputs(layer, 9), random_state(layer)
    call: dict[str, Any] = {"lengths": [9, 4]} if cut == "lengths" else {}
    if cut == "reset":
        call = {"reset": rng.random(x.shape[:2]) < 0.25}
    expected_y, expected_final, tape = layer.forward_train(x, state, **call)
    dy = rng.standard_normal(expected_y.shape).astype(layer.dtype)
    dstate = floats(expected_final)
    expected = layer.backward(tape, dy, dstate)
    y, final, found = gradients(module, x, state, dy, dstate, **call)
    assert same_bits((y, *unpack(final)), (expected_y, *unpack(expected_final)))
    of_alpha = [name for name in found.params if name.startswith("alpha")]
    for name in of_alpha:
        assert_close(found.params.pop(name), expected.params.pop(name), 1e-5)
    assert same_gradients(found, expected)
    with torch.no_grad():
        y, final = module(tensor(x), tensors_of(state), **call)
        assert same_bits(
            (y.numpy(), *unpack(arrays_of(final))), (expected_y, *unpack(expected_final))
        )
        y, final = module(tensor(x[:, 0] if not layer.batch_first else x[0]))
    alone = layer(x[:, 0] if not layer.batch_first else x[0])
    assert same_bits((y.numpy(), *unpack(arrays_of(final))), (alone[0], *unpack(alone[1])))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("cell, kind", CASES)
def test_gradients_are_those_of_the_equations(cell: str, kind: str, seed: int) -> None:
    rng = np.random.default_rng([seed, *map(ord, cell + kind)])
    pick = picker(rng)
    net = draw_structured(pick, kind, cell, dtype="float64")
    layer = net.build()
    module = module_of(layer)
    steps, batch = pick((3, 8, 17)), pick((1, 2, 5))
    x, state = net.input(rng, steps, batch), net.state(rng, batch)
    dy, dstate = net.output_gradient(rng, steps, batch), net.state_gradient(rng, batch)
    y, final, found = gradients(module, x, state, dy, dstate)
    expected_y, expected_final = net.oracle(layer, x, state)
    expected = net.oracle_backward(layer, x, state, dy, dstate)
    for name in [name for name in found.params if name.startswith("alpha")]:
        alpha = layer.parameters()[name]
        ends = (alpha == 0) | (alpha == 1)  # where a logit has no gradient
        found.params[name][ends] = expected.params[name][ends]
    found = replace(found, params={name: found.params[name] for name in expected.params})
    assert_close(y, expected_y, bound(net, steps), net)
    assert_close(floats(final), floats(expected_final), bound(net, steps), net)
    assert_gradients_close(found, expected, gradient_bound(net, steps, batch), net)


CHECKED: dict[str, Any] = {
    "lstm delays": lambda: ft.LSTM(2, 4, 2, delays=(1, 3), bidirectional=True, dtype=torch.float64),
    "gru delays": lambda: ft.GRU(2, 4, delays=(2, 3), dtype=torch.float64),
    "gru before": lambda: ft.GRU(2, 4, reset_after=False, delays=(1, 2), dtype=torch.float64),
    "leaky delays": lambda: ft.LeakyRNN(2, 4, delays=(1, 4), dtype=torch.float64),
    "lstm clocks": lambda: ft.LSTM(2, 4, 2, periods=(1, 2), dtype=torch.float64),
    "rnn clocks": lambda: ft.RNN(2, 4, periods=(3, 1), connectivity="full", dtype=torch.float64),
    "gru mask": lambda: ft.GRU(2, 4, recurrent_mask=mask_of(4, 4), dtype=torch.float64),
    "dilated": lambda: ft.DilatedRNN("mingru", 2, 4, (1, 3), dtype=torch.float64),
}


def layers_that(wanted: Callable[[Any], bool]) -> pytest.MarkDecorator:
    """Those of `each_layer` of which something is true."""
    found = {name: make for name, make in LAYERS.items() if wanted(make())}
    return pytest.mark.parametrize("make", found.values(), ids=found)


@pytest.mark.parametrize("name", CHECKED)
def test_gradcheck(name: str) -> None:
    torch.manual_seed(0)
    module = CHECKED[name]()
    x = torch.randn(5, 2, 2, dtype=torch.float64, requires_grad=True)
    _, final = module(x)
    moving = [t.detach() for t in unpack(final) if t.is_floating_point()]
    clock = [torch.tensor([1, 4])] if module.periods else []
    names = [name for name, _ in module.named_parameters()]

    def run(x: Any, *tensors: Any) -> Any:
        state, weights = tensors[: len(moving)], tensors[len(moving) :]
        y, final = torch.func.functional_call(
            module, dict(zip(names, weights, strict=True)), (x, pack([*state, *clock]))
        )
        return (y, *[t for t in unpack(final) if t.is_floating_point()])

    tensors = [*moving, *[p.detach().clone() for p in module.parameters()]]
    for t in tensors:
        t.requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *tensors))


# A reverse direction begins at the end of the whole.
@layers_that(lambda layer: not layer.bidirectional)
def test_a_state_carries_on(make: Any) -> None:
    module, layer = both(make)
    time = 1 if layer.batch_first else 0
    x = tensor(inputs(layer, 12))
    y, final = module(x)
    hx, pieces = None, []
    for piece in x.split((1, 4, 5, 2), time):
        out, hx = module(piece, hx)
        pieces.append(out)
    assert torch.equal(torch.cat(pieces, time), y)
    assert all(map(torch.equal, unpack(hx), unpack(final)))


@pytest.mark.parametrize("batch_sorted", [True, False])
@each_layer
def test_packed_sequences(make: Any, batch_sorted: bool) -> None:
    module, layer = both(make)
    lengths = [7, 5, 2] if batch_sorted else [2, 7, 5]
    x, state = inputs(layer, 7, 3), random_state(layer, 3)
    packed = nn.utils.rnn.pack_padded_sequence(
        tensor(x), torch.tensor(lengths), layer.batch_first, enforce_sorted=batch_sorted
    )
    y, final = module(packed, tensors_of(state))
    y, found = nn.utils.rnn.pad_packed_sequence(y, layer.batch_first, total_length=7)
    assert found.tolist() == lengths
    expected = layer(x, state, lengths=lengths)
    assert same_bits(
        (y.detach().numpy(), *unpack(arrays_of(final))), (expected[0], *unpack(expected[1]))
    )


@layers_that(lambda layer: layer.num_layers > 1)
def test_dropout_runs_the_layers_apart(make: Any) -> None:
    module = module_of(make(), dropout=1e-30)  # so that nothing is dropped, but it could be
    x, hx = tensor(inputs(make())), tensors_of(random_state(make()))
    outputs = []
    for training in (True, False):
        module.train(training)
        y, final = module(x, hx, lengths=[7, 3])
        loss = y.sum() + sum(t.sum() for t in unpack(final) if t.is_floating_point())
        grads = torch.autograd.grad(loss, list(module.parameters()))
        outputs.append([y, *unpack(final), *grads])
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b)
    module.train()
    module.dropout = 0.5
    assert not torch.equal(module(x, hx)[0], outputs[1][0])


def test_rows_are_independent() -> None:
    module = ft.LSTM(IN, H, periods=(1, 2, 3), bidirectional=True)
    layer = module.to_fastrnn()
    x, state = inputs(layer, 6, 3), random_state(layer, 3)
    y, final = module(tensor(x), tensors_of(state))
    alone, last = module(tensor(x[:, 1:2]), tensors_of(take_rows(state, slice(1, 2))))
    assert torch.equal(alone, y[:, 1:2])
    assert same_bits(arrays_of(last), take_rows(arrays_of(final), slice(1, 2)))


# ---- Masks ------------------------------------------------------------------------------------


def outside(module: Any) -> list[tuple[Any, Any]]:
    """The recurrent matrices, each with booleans of where no connection is."""
    connected = module.to_fastrnn()._connections
    suffixes = module._config.suffixes()
    found = []
    for suffix, part in zip(suffixes, connected, strict=True):
        for name, parameter in module.named_parameters():
            if name.startswith("weight_hh" + suffix) and "reverse" not in name[len(suffix) + 9 :]:
                gates = len(parameter) // len(part)
                found.append((parameter, ~torch.tensor(np.tile(part, (gates, 1)))))
    assert found
    return found


MASKED = ["mask", "masks", "masked delays", "clocks", "clocked rate", "dilated mask"]


@pytest.mark.parametrize("name", MASKED)
def test_what_is_not_connected_stays_0(name: str) -> None:
    layer = LAYERS[name]()
    module = module_of(layer)
    x = tensor(inputs(layer))
    module.reset_parameters()
    for make in (torch.optim.Adam, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)):
        optimizer = make(module.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            y, final = module(x)
            (y.square().sum() + unpack(final)[0].sum()).backward()
            for parameter, apart in outside(module):
                assert apart.any() and not parameter[apart].any()
                assert not parameter.grad[apart].any()
                assert parameter.grad[~apart].any()
            optimizer.step()


@pytest.mark.parametrize("name", MASKED)
def test_what_is_not_connected_is_not_read(name: str) -> None:
    module = module_of(LAYERS[name]())
    x = tensor(inputs(module.to_fastrnn())).requires_grad_()

    def results() -> list[Any]:
        y, final = module(x)
        loss = y.sum() + unpack(final)[0].sum()
        return [y, *unpack(final), *torch.autograd.grad(loss, [x, *module.parameters()])]

    expected = results()
    with torch.no_grad():
        for parameter, apart in outside(module):
            parameter[apart] = 3.0
    assert all(map(torch.equal, results(), expected))
    state = module.state_dict()
    module.load_state_dict(state)  # as a layer of fastrnn does, it takes 0 there
    assert all(not parameter[apart].any() for parameter, apart in outside(module))


CHANGES: dict[str, Any] = {
    "in place": lambda mask: mask.logical_not_(),
    "one value": lambda mask: mask[2, 3].logical_not_(),
    "data": lambda mask: mask.data.logical_not_(),
    "numpy": lambda mask: np.logical_not(mask.numpy(), out=mask.numpy()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_a_mask_is_seen(name: str) -> None:
    module = ft.GRU(IN, H, 2, recurrent_mask=mask_of(H, H))
    with torch.no_grad():
        for parameter in module.parameters():
            nn.init.uniform_(parameter)
    x = torch.randn(5, 2, IN)
    module(x)
    CHANGES[name](module.recurrent_mask_l1)
    assert same_bits(module(x)[0].detach().numpy(), module.to_fastrnn()(x.numpy())[0])
    y = module(x)[0]
    module.recurrent_mask_l1[0, 0].logical_not_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_masks_that_were_written_wrongly() -> None:
    x = torch.randn(5, 2, IN)
    module = ft.RNN(IN, H, 2, recurrent_mask=mask_of(H, H))
    module.recurrent_mask_l1[3] = False
    with refuses(ValueError, "recurrent_mask[1]", "unit 3 reads no unit"):
        module(x)
    module = ft.GRU(IN, H, recurrent_mask=mask_of(H, H))
    module.recurrent_mask_l0[:] = False
    with refuses(ValueError, "recurrent_mask[0]", "some True"):
        module(x)
    module.recurrent_mask_l0 = torch.ones(H, H)
    with refuses(ValueError, "recurrent_mask_l0", "torch.bool", "torch.float32"):
        module(x)
    module.recurrent_mask_l0 = torch.ones(H, 2, dtype=torch.bool)
    with refuses(RuntimeError, "recurrent_mask_l0", (H, H), (H, 2)):
        module(x)


def test_masks_are_in_the_state_dict() -> None:
    mask = mask_of(2, H, H)
    module = ft.LSTM(IN, H, bidirectional=True, recurrent_mask=mask, delays=(1, 8))
    names = list(module.state_dict())
    assert names[:3] == ["weight_ih_l0", "weight_hh_l0", "weight_hh_l0_d8"]
    assert names[-2:] == ["recurrent_mask_l0", "recurrent_mask_l0_reverse"]
    assert "weight_hh_l0_reverse_d8" in names
    assert same_bits(module.recurrent_mask.numpy(), mask)
    assert [len(part) for part in module.all_weights] == [5, 5]
    other = ft.LSTM(IN, H, bidirectional=True, recurrent_mask=~mask | mask_of(H, H), delays=(1, 8))
    other.load_state_dict(module.state_dict())
    assert same_bits(other.recurrent_mask.numpy(), mask)
    without = {k: v for k, v in module.state_dict().items() if not k.startswith("recurrent")}
    other.load_state_dict(without)
    assert same_bits(other.recurrent_mask.numpy(), mask)
    with pytest.raises(RuntimeError, match="weight_hh_l0_d8"):
        ft.LSTM(IN, H, bidirectional=True, delays=(1, 7)).load_state_dict(without)
    assert ft.LSTM(IN, H).recurrent_mask is None
    assert module.double().recurrent_mask_l0.dtype == torch.bool


@each_layer
def test_files_and_copies(make: Any, tmp_path: Path) -> None:
    module, layer = both(make)
    layer.save(tmp_path / "net.safetensors")
    tensors = fastrnn.load_tensors(tmp_path / "net.safetensors")
    fresh = module_of(make())
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    x, hx = tensor(inputs(layer)), tensors_of(random_state(layer))
    y = module(x, hx)[0]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), module_of(layer)):
        assert repr(other) == repr(module)
        assert torch.equal(other(x, hx)[0], y)
    torch.testing.assert_close(fresh(x, hx)[0], y)
    back = module.to_fastrnn()
    assert type(back) is type(layer)
    assert repr(back) == repr(layer)
    assert module.delays == layer.delays and module.periods == layer.periods


def test_repr() -> None:
    assert repr(ft.LSTM(2, 4, delays=[3, 1], dtype=torch.float64)) == "LSTM(2, 4, delays=(1, 3))"
    clocks = ft.GRU(2, 4, 2, periods=(1, 2), group_sizes=(1, 3), connectivity="full")
    assert repr(clocks) == (
        "GRU(2, 4, num_layers=2, periods=(1, 2), group_sizes=(1, 3), connectivity='full')"
    )
    masked = ft.RNN(2, 4, recurrent_mask=np.eye(4, dtype=bool), bias=False)
    assert repr(masked) == "RNN(2, 4, bias=False, recurrent_mask=25 %)"
    dilated = ft.DilatedRNN("rnn", 2, 4, (2, 1), nonlinearity="relu", batch_first=True)
    text = "DilatedRNN('rnn', 2, 4, dilations=(2, 1), batch_first=True, nonlinearity=relu)"
    assert repr(dilated) == text
    assert (dilated.nonlinearity, dilated.dilations, dilated.num_layers) == ("relu", (2, 1), 2)


def test_arguments_of_dilated_nets_are_those_of_fastrnn() -> None:
    ours, theirs = (inspect.signature(each.DilatedRNN) for each in (ft, fastrnn))
    assert [str(p) for p in ours.parameters.values()] == [
        str(p) for p in theirs.parameters.values()
    ]


def test_dilated_leaky_units() -> None:
    net = ft.DilatedRNN("leaky", 2, 4, (1, 3), alpha=0.25, form="potential")
    torch.testing.assert_close(net.alpha, torch.full((2, 4), 0.25))
    net.alpha = 0.5
    torch.testing.assert_close(net.alpha, torch.full((2, 4), 0.5))
    assert net.form == "potential"
    values = net.to_fastrnn().parameters()
    net.load_state_dict({name: torch.tensor(array) for name, array in values.items()})
    with pytest.raises(AttributeError, match="alpha"):
        ft.DilatedRNN("gru", 2, 4).alpha  # noqa: B018
    assert ft.DilatedRNN("lstm", 2, 4, coupled=True).coupled
    with pytest.raises(AttributeError, match="peepholes"):
        ft.DilatedRNN("lstm", 2, 4).peepholes  # noqa: B018


# ---- Errors -----------------------------------------------------------------------------------


def test_arguments_that_are_refused() -> None:
    for given in (1.0, "1", (1, 2.5), None):
        with refuses(TypeError, "delays"):
            ft.LSTM(IN, H, delays=given)
    with refuses(ValueError, "delays", "MinGRU"):
        ft.MinGRU(IN, H, delays=(1, 2))
    with refuses(ValueError, "periods", "delays"):
        ft.LSTM(IN, H, periods=(1, 2), delays=2)
    with refuses(ValueError, "periods", "proj_size"):
        ft.LSTM(IN, H, periods=(1, 2), proj_size=2)
    with refuses(ValueError, "periods", "reset_after"):
        ft.GRU(IN, H, periods=(1, 2), reset_after=False)
    with refuses(ValueError, "group_sizes"):
        ft.GRU(IN, H, periods=(1, 2), group_sizes=(1, 2))
    with refuses(TypeError, "recurrent_mask"):
        ft.GRU(IN, H, recurrent_mask=torch.ones(H, H))
    with refuses(ValueError, "recurrent_mask", (H, 2)):
        ft.LSTM(IN, H, proj_size=2, recurrent_mask=torch.ones(H, H, dtype=torch.bool))
    mask = np.ones((H, H), bool)
    mask[3] = False
    with refuses(ValueError, "recurrent_mask", "unit 3"):
        ft.RNN(IN, H, recurrent_mask=mask)
    with pytest.raises(TypeError, match="recurrent_mask"):
        ft.MinGRU(IN, H, recurrent_mask=mask)
    for name in ("delays", "periods", "num_layers", "proj_size"):
        with refuses(TypeError, name):
            ft.DilatedRNN("lstm", IN, H, **{name: 2})
    with refuses(ValueError, "cell"):
        ft.DilatedRNN("cnn", IN, H)
    with refuses(ValueError, "layer", 2.5):
        ft.GRU.from_fastrnn(fastrnn.GRU(IN, H, delays=(1, 10)).rescaled(2.5))
    with refuses(TypeError, "DilatedRNN", "GRU"):
        ft.GRU.from_fastrnn(fastrnn.DilatedRNN("gru", IN, H))


def test_states_that_are_refused() -> None:
    x, clocked = torch.randn(5, 2, IN), ft.LSTM(IN, H, periods=(1, 2))
    h = torch.zeros(1, 2, H)
    clock = torch.tensor([0, 3])
    for hx in ((h, h), h, (h, h, clock, clock)):
        with refuses(TypeError, "hx", "h_0, c_0, clock"):
            clocked(x, hx)
    with refuses(TypeError, "hx[2] (clock)", "float32"):
        clocked(x, (h, h, clock.float()))
    with refuses(RuntimeError, "hx[2] (clock)", (2,), (1,)):
        clocked(x, (h, h, clock[:1]))
    for module in (clocked, torch.compile(clocked, backend="aot_eager")):
        with refuses(ValueError, "hx[2] (clock)", -3):
            module(x, (h, h, clock - 3))
    with refuses(TypeError, "hx", "h_0, clock"):
        ft.RNN(IN, H, periods=(1, 2))(x, h)
    with refuses(RuntimeError, "hx", (5, 2, H), (1, 2, H)):
        ft.GRU(IN, H, delays=(1, 5))(x, h)
    short = clocked(x, (h, h, clock.to(torch.int32)))[1][2]
    assert short.dtype == torch.int64 and short.tolist() == [5, 8]
