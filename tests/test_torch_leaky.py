"""fastrnn.torch.LeakyRNN and Leaky: time constants that are learned and stay in [0, 1]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from support import refuses

import fastrnn
import fastrnn.torch as ft

DTYPES = (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha_is_the_sigmoid_of_its_logit(dtype: Any) -> None:
    values = torch.tensor([0.0, 1e-6, 0.25, 0.5, 0.9, 0.999999, 1.0], dtype=torch.float64)
    eps = torch.finfo(dtype).eps
    for module in (
        ft.Leaky(7, alpha=values, dtype=dtype),
        ft.LeakyRNN(2, 7, alpha=values, dtype=dtype),
    ):
        alpha = module.alpha.detach().flatten()
        assert alpha.dtype == dtype
        torch.testing.assert_close(alpha.double(), values, rtol=32 * eps, atol=2 * eps)
        assert (alpha[0], alpha[-1]) == (0, 1)
        logits = [p for n, p in module.named_parameters() if n.startswith("alpha_logit")]
        assert torch.equal(torch.sigmoid(logits[0]), alpha)
        assert logits[0].isfinite().all()


def test_alpha_can_be_set() -> None:
    net = ft.LeakyRNN(2, 3, 2, bidirectional=True, alpha=0.5)
    assert torch.equal(net.alpha, torch.full((4, 3), 0.5))
    rows = torch.linspace(0.1, 0.9, 12).view(4, 3)
    for value in (rows, rows.numpy()):
        net.alpha = value
        torch.testing.assert_close(net.alpha, rows)
    net.alpha = [0.25, 0.5, 0.75]
    torch.testing.assert_close(net.alpha, torch.tensor([0.25, 0.5, 0.75]).expand(4, 3))
    net.alpha = 1
    assert (net.alpha == 1).all()
    unit = ft.Leaky(3)
    unit.alpha = rows[0]
    torch.testing.assert_close(unit.alpha, rows[0])
    for module in (net, unit):
        with refuses(ValueError, "alpha"):
            module.alpha = 1.5
        with refuses(ValueError, "alpha", 3, 2):
            module.alpha = [0.5, 0.5]


def test_other_conventions() -> None:
    options: dict[str, dict[str, Any]] = {
        "from_leak_rate": {"leak_rate": 0.25},
        "from_tau": {"tau": 20.0, "dt": 5.0},
        "from_half_life": {"half_life": [1.0, 2.0, 4.0]},
    }
    for name, values in options.items():
        expected = torch.tensor(getattr(fastrnn.Leaky, name)(3, **values).alpha)
        torch.testing.assert_close(getattr(ft.Leaky, name)(3, **values).alpha, expected)
        net = getattr(ft.LeakyRNN, name)(2, 3, **values, nonlinearity="relu")
        torch.testing.assert_close(net.alpha[0], expected)
        assert net.nonlinearity == "relu"


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_alpha_stays_between_0_and_1_whatever_the_optimizer_does(optimizer: Any) -> None:
    net = ft.LeakyRNN(2, 3, alpha=[0.0, 0.5, 1.0], dtype=torch.float64)
    steps = optimizer(net.parameters(), lr=100.0, weight_decay=0.01)
    for sign in (1, -1, 1, 1, -1):
        steps.zero_grad()
        (sign * net(torch.randn(5, 2, 2, dtype=torch.float64))[0].sum()).backward()
        steps.step()
        assert ((net.alpha >= 0) & (net.alpha <= 1)).all()


def test_alpha_of_0_and_1_is_not_moved_by_gradients() -> None:
    unit = ft.Leaky(3, alpha=[0.0, 0.5, 1.0])
    unit(torch.ones(4, 2, 3), torch.zeros(2, 3))[0].sum().backward()
    assert unit.alpha_logit.grad[0] == unit.alpha_logit.grad[2] == 0
    assert unit.alpha_logit.grad[1] < 0


def test_a_time_constant_is_learned() -> None:
    """From a running average, the constant that made it."""
    torch.manual_seed(1)
    v = torch.randn(300, 4, 2)
    target, _ = ft.Leaky(2, alpha=[0.95, 0.3])(v)
    unit = ft.Leaky(2, alpha=0.7)
    optimizer = torch.optim.Adam(unit.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (unit(v)[0] - target.detach()).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(unit.alpha, torch.tensor([0.95, 0.3]), rtol=0, atol=1e-3)


def test_fixed_time_constants() -> None:
    net = ft.LeakyRNN(2, 3)
    net.alpha_logit_l0.requires_grad_(False)
    net(torch.randn(5, 2, 2))[0].sum().backward()
    assert net.alpha_logit_l0.grad is None
    assert net.weight_hh_l0.grad is not None


def test_a_state_dict_may_have_alpha_as_fastrnn_calls_it() -> None:
    layer = fastrnn.LeakyRNN(2, 3, 2, bidirectional=True, alpha=[0.0, 0.5, 0.9], seed=1)
    arrays = {name: torch.from_numpy(value) for name, value in layer.state_dict().items()}
    net = ft.LeakyRNN(2, 3, 2, bidirectional=True)
    assert not any(net.load_state_dict(arrays))
    torch.testing.assert_close(net.alpha[2], arrays["alpha_l1"])
    model = torch.nn.ModuleDict({"rnn": ft.Leaky(3)})
    model.load_state_dict({"rnn.alpha": torch.tensor([0.25, 0.5, 1.0])})
    torch.testing.assert_close(model["rnn"].alpha, torch.tensor([0.25, 0.5, 1.0]))
    assert list(model.state_dict()) == ["rnn.alpha_logit"]
    model.load_state_dict({"rnn.alpha": torch.tensor([0.25, 0.5, 1.0])}, assign=True)
    assert model["rnn"].alpha.dtype == torch.float32
    model.load_state_dict(model.state_dict())
    with refuses(ValueError, "rnn.alpha", "0, 1"):
        model.load_state_dict({"rnn.alpha": torch.tensor([0.25, 0.5, 1.5])})
    with refuses(RuntimeError, "Missing", "rnn.alpha_logit"):
        model.load_state_dict({})
    with refuses(KeyError, "alpha_l0", "alpha_logit_l0"):
        fastrnn.LeakyRNN(2, 3).load_state_dict(ft.LeakyRNN(2, 3).state_dict())


def test_reset_parameters_draws_weights_and_keeps_alpha() -> None:
    net = ft.LeakyRNN(2, 3, alpha=[0.25, 0.5, 0.75])
    weights, alpha = net.weight_hh_l0.clone(), net.alpha.clone()
    net.reset_parameters()
    assert not torch.equal(net.weight_hh_l0, weights)
    assert net.weight_hh_l0.abs().max() <= 1 / math.sqrt(3)
    assert torch.equal(net.alpha, alpha)


def test_a_logit_of_nan_is_refused_by_name() -> None:
    net = ft.LeakyRNN(2, 3, 2)
    with torch.no_grad():
        net.alpha_logit_l1[1] = math.nan
    with refuses(ValueError, "alpha_logit_l1", "NaN"):
        net(torch.zeros(4, 2))


def test_parallel_in_time() -> None:
    """Other last bits are allowed; with gradients it runs plainly."""
    v = torch.randn(1000, 2)
    plain, lanes = ft.Leaky(2), ft.Leaky(2, parallel="time")
    with torch.no_grad():
        torch.testing.assert_close(lanes(v)[0], plain(v)[0], rtol=1e-5, atol=1e-6)
        expected = lanes.to_fastrnn()(v.numpy())[0]
        assert np.array_equal(lanes(v)[0].numpy(), expected)
    assert torch.equal(lanes(v)[0], plain(v)[0])
    assert repr(lanes) == "Leaky(2, parallel='time')"
    assert repr(
        ft.LeakyRNN(2, 3, form="potential", nonlinearity="relu", dropout=0.5, num_layers=2)
    ) == ("LeakyRNN(2, 3, num_layers=2, dropout=0.5, nonlinearity=relu, form=potential)")
