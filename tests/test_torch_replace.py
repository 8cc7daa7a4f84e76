"""fastrnn.torch.replace: models go on with our modules in the places of torch.nn's."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from support import refuses
from torch import nn
from torch.nn.utils import parametrizations, prune

import fastrnn.torch as ft


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(6, 5, 2, nonlinearity="relu", bidirectional=True, dropout=0.5)
        self.norm = nn.LayerNorm(10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.rnn(x)[0])


class Model(nn.Module):
    """All that can be swapped, at several depths; one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.LSTM(3, 6, batch_first=True, bias=False)
        self.parts = nn.ModuleDict({"encoder": Encoder(), "again": self.shared})
        self.layers = nn.ModuleList([nn.LSTM(10, 6, proj_size=4), nn.GRU(4, 4, 2, dropout=0.5)])
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.parts["again"](x)[0] + self.shared(x)[0]
        x = self.parts["encoder"](x)
        for layer in self.layers:
            x = layer(x)[0]
        return self.head(x)


def test_all_are_swapped_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    model = Model().eval()
    twin = copy.deepcopy(model)
    parameters = dict(model.named_parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ft.replace(model) is model
    kinds = {path: type(module) for path, module in model.named_modules(remove_duplicate=False)}
    assert kinds["shared"] is kinds["parts.again"] is kinds["layers.0"] is ft.LSTM
    assert kinds["parts.encoder.rnn"] is ft.RNN
    assert kinds["layers.1"] is ft.GRU
    assert model.shared is model.parts["again"]
    assert list(kinds) == [path for path, _ in twin.named_modules(remove_duplicate=False)]
    now = dict(model.named_parameters())
    assert list(now) == list(parameters)
    assert all(now[name] is parameters[name] for name in now)
    assert not any(module.training for module in model.modules())
    assert repr(model).replace(", nonlinearity=relu", "") == repr(twin)

    x = torch.randn(5, 4, 3)
    torch.testing.assert_close(model(x), twin(x))
    for m in (model, twin):
        m.train()
        torch.manual_seed(1)
        m(x).square().sum().backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_model_that_is_an_lstm_itself() -> None:
    lstm = nn.LSTM(3, 4, 2, dropout=0.5, batch_first=True).train()
    new = ft.replace(lstm)
    assert type(new) is ft.LSTM
    assert new.weight_hh_l1 is lstm.weight_hh_l1
    assert (new.dropout, new.batch_first, new.training) == (0.5, True, True)
    assert ft.replace(new) is new
    linear = nn.Linear(2, 2)
    assert ft.replace(linear) is linear


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_an_optimizer_goes_on(kind: Any) -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(kind(3, 4))]
    models.append(copy.deepcopy(models[0]))
    x = torch.randn(5, 2, 3)
    for model, swap in zip(models, (True, False), strict=True):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for step in range(6):
            if step == 3 and swap:
                ft.replace(model)
            optimizer.zero_grad()
            model(x)[0].square().sum().backward()
            optimizer.step()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_hooks_stay() -> None:
    lstm, calls = nn.LSTM(3, 4), []
    handle = lstm.register_forward_hook(lambda module, *_: calls.append(module))
    new = ft.replace(lstm)
    new(torch.zeros(2, 3))
    assert calls == [new]
    handle.remove()
    new(torch.zeros(2, 3))
    assert calls == [new]


def test_pruned_weights_stay_pruned() -> None:
    lstm = nn.LSTM(3, 4)
    prune.random_unstructured(lstm, "weight_hh_l0", 0.5)
    x = torch.randn(5, 2, 3)
    expected = lstm(x)[0]
    new = ft.replace(lstm)
    torch.testing.assert_close(new(x)[0], expected)
    new(x)[0].sum().backward()
    assert (new.weight_hh_l0_orig.grad[new.weight_hh_l0_mask == 0] == 0).all()


class Tagger(nn.Module):
    """Sentences of several lengths, as programs have them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 5)
        self.gru = nn.GRU(5, 6, 2, batch_first=True, bidirectional=True, dropout=0.5)
        self.lstm = nn.LSTM(12, 7, proj_size=4)
        self.head = nn.Linear(4, 3)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> Any:
        x = nn.utils.rnn.pack_padded_sequence(
            self.embedding(words), lengths, batch_first=True, enforce_sorted=False
        )
        x, h = self.gru(x)
        x, (_, c) = self.lstm(x, (h[:1, :, :4].contiguous(), self.start(len(words))))
        y, found = nn.utils.rnn.pad_packed_sequence(x, batch_first=True, padding_value=-1.0)
        return self.head(y), h, c, found

    def start(self, batch: int) -> torch.Tensor:
        return torch.arange(batch * 7.0).view(1, batch, 7) / 10


def test_a_model_with_packed_sequences_goes_on() -> None:
    torch.manual_seed(0)
    model = Tagger()
    twin = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ft.replace(model)
    assert (type(model.gru), type(model.lstm)) == (ft.GRU, ft.LSTM)
    words, lengths = torch.randint(10, (4, 8)), torch.tensor([3, 8, 1, 8])
    results = []
    for module in (model, twin):
        torch.manual_seed(1)
        y, h, c, found = module(words, lengths)
        loss = y.square().sum() + h.sum() + c.square().sum()
        results.append([y, h, c, found, *torch.autograd.grad(loss, list(module.parameters()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


class Special(nn.GRU):
    pass


LEFT: dict[str, tuple[Any, str]] = {
    "dtype": (lambda: nn.RNN(3, 4, dtype=torch.bfloat16), "weight_ih_l0: .*torch.bfloat16 on cpu"),
    "device": (lambda: nn.RNN(3, 4, device="meta"), "weight_ih_l0: .*torch.float32 on meta"),
    "subclass": (lambda: Special(3, 4), "Special"),
    "parametrized": (
        lambda: parametrizations.weight_norm(nn.LSTM(3, 4), "weight_hh_l0"),
        "ParametrizedLSTM",
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_cannot_be_taken_is_left_with_a_warning(case: str) -> None:
    make, message = LEFT[case]
    model = nn.Sequential(nn.Sequential(make()), nn.LSTM(3, 4))
    left = model[0][0]
    with pytest.warns(UserWarning, match=f"^0.0: left as it is.*{message}"):
        ft.replace(model)
    assert model[0][0] is left
    assert type(model[1]) is ft.LSTM
    with pytest.warns(UserWarning, match="^model: left as it is"):
        assert ft.replace(left) is left


def test_what_is_no_module_is_refused() -> None:
    with refuses(TypeError, "model", "torch.nn.Module", "list"):
        ft.replace([nn.LSTM(3, 4)])
