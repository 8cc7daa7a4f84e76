"""What PyTorch's two exporters write, read back as one layer."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from support import assert_close, unpack

import fastrnn.onnx as fo


class WithState(torch.nn.Module):
    """A module whose state is an argument of the model."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any, h: Any, c: Any) -> Any:
        state = (h, c) if isinstance(self.module, torch.nn.LSTM) else h
        return self.module(x, state)


def exported(module: Any, arguments: Any, dynamo: bool, dynamic: bool) -> bytes:
    file, options = io.BytesIO(), {}
    if dynamic and dynamo:
        sizes = {0: torch.export.Dim("one"), 1: torch.export.Dim("two")}
        options["dynamic_shapes"] = (sizes,)
    elif dynamic:
        options["dynamic_axes"] = {"x": {0: "one", 1: "two"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            arguments,
            file,
            input_names=["x"],
            dynamo=dynamo,
            verbose=False,
            **options,
        )
    return file.getvalue()


@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {}),
        ("LSTM", {"num_layers": 3, "bidirectional": True, "batch_first": True}),
        ("GRU", {"num_layers": 2, "batch_first": True}),
        ("GRU", {"num_layers": 2, "bidirectional": True}),
    ],
    ids=str,
)
def test_what_pytorch_exports_is_one_layer(
    kind: str, options: dict[str, Any], dynamo: bool, dynamic: bool
):
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(3, 4, **options)
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        y, state = module(x)
        net = fo.load(exported(module, (x,), dynamo, dynamic))
        expected = tuple(a.numpy() for a in (y, *(state if kind == "LSTM" else (state,))))
        assert_close(tuple(net.run({"x": x.numpy()}).values()), expected, 1e-6)
        assert len(net.parts) == 1
        assert net.layer.num_layers == module.num_layers
        assert net.batch_first == module.batch_first
        y, state = net(x.numpy())
        assert_close((y, *unpack(state)), expected, 1e-6)
        larger = torch.randn(8, 7, 3)
        zeros = [
            np.zeros((*s.shape[:1], 8 if net.batch_first else 7, 4), "f") for s in unpack(state)
        ]
        y, _ = net(larger.numpy(), tuple(zeros) if kind == "LSTM" else zeros[0])
        assert_close(y, module(larger)[0].numpy(), 1e-6)


def test_rnn_of_pytorch():
    torch.manual_seed(0)
    module = torch.nn.RNN(3, 4, 2, nonlinearity="relu", bidirectional=True)
    x = torch.randn(5, 2, 3)
    net = fo.load(exported(module, (x,), False, True))
    assert repr(net.layer) == "RNN(3, 4, nonlinearity='relu', num_layers=2, bidirectional=True)"
    assert_close(net(x.numpy())[0], module(x)[0].detach().numpy(), 1e-6)


@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
def test_state_of_pytorch_is_an_input(dynamo: bool):
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 4, 2)
    arguments = (torch.randn(5, 2, 3), torch.randn(2, 2, 4), torch.randn(2, 2, 4))
    net = fo.load(exported(WithState(module), arguments, dynamo, False))
    assert len(net.parts) == 1
    x, h, c = (a.numpy() for a in arguments)
    y, state = module(arguments[0], arguments[1:])
    assert_close(net(x, (h, c))[0], y.detach().numpy(), 1e-6)
    outputs = net.run(dict(zip(net.inputs, (x, h, c), strict=True)))
    expected = tuple(a.detach().numpy() for a in (y, *state))
    assert_close(tuple(outputs.values()), expected, 1e-6)
