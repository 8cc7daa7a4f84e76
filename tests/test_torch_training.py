"""Training with fastrnn.torch: as with torch.nn, in workers, and in several processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ddp_worker
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import fastrnn
import fastrnn.torch as ft

ROOT = Path(__file__).parents[1]

# Relative error of a loss. Adam divides by the root of the squared gradient, so that roundings of
# small gradients come back as parts of a whole step; they then pass through the following steps.
LOSS_TOLERANCE = {dtype: 200 * torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}


@pytest.mark.parametrize("dtype", LOSS_TOLERANCE, ids=str)
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_adam_gives_the_losses_of_torch_nn(name: str, dtype: Any) -> None:
    losses = []
    for library in (nn, ft):
        torch.manual_seed(3)
        rnn = getattr(library, name)(4, 16, 2, bidirectional=True, dropout=0.2, dtype=dtype)
        head = nn.Linear(32, 1, dtype=dtype)
        x = torch.randn(12, 8, 4, dtype=dtype)
        target = x.cumsum(0).mean(-1, keepdim=True)
        optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()], lr=0.01)
        found = []
        for _ in range(15):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(head(rnn(x)[0]), target)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        losses.append(found)
    np.testing.assert_allclose(losses[1], losses[0], rtol=LOSS_TOLERANCE[dtype])
    assert losses[1][-1] < 0.9 * losses[1][0]


def test_truncated_backpropagation_through_time() -> None:
    """A detached state carries over, and the graph of a stretch ends there."""
    ours = ft.LSTM(3, 4, dtype=torch.float64)
    theirs = nn.LSTM(3, 4, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(12, 2, 3, dtype=torch.float64)
    for module in (ours, theirs):
        state = None
        for part in x.split(4):
            y, state = module(part, state)
            y.square().sum().backward()
            state = tuple(s.detach() for s in state)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


# ---- Dropout


def copying(p: float, batch_first: bool = False) -> ft.LeakyRNN:
    """Two layers of which each puts out its input."""
    net = ft.LeakyRNN(
        50,
        50,
        2,
        alpha=0.0,
        nonlinearity="identity",
        bias=False,
        dropout=p,
        batch_first=batch_first,
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith("weight"):
                parameter.copy_(torch.eye(50) if "_ih_" in name else torch.zeros(50, 50))
    return net


@pytest.mark.parametrize("batch_first", [False, True])
def test_dropout_drops_and_scales_between_layers(batch_first: bool) -> None:
    torch.manual_seed(2)
    x = torch.rand(100, 20, 50) + 1
    y, h = copying(0.3, batch_first)(x)
    dropped = y == 0
    torch.testing.assert_close(y[~dropped], x[~dropped] / 0.7)
    # of 100000 draws, within five standard deviations
    assert abs(dropped.double().mean() - 0.3) < 5 * (0.3 * 0.7 / 100_000) ** 0.5
    assert len(dropped.double().mean((1, 2)).unique()) > 10  # not one pattern for all steps
    last = (y, x) if not batch_first else (y.transpose(0, 1), x.transpose(0, 1))
    assert torch.equal(h[1], last[0][-1])
    torch.testing.assert_close(h[0], last[1][-1])  # the state of a layer is not dropped
    net = copying(0.3).eval()
    torch.testing.assert_close(net(x)[0], x)
    assert (copying(1.0)(x)[0] == 0).all()


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize("form", ["batched", "unbatched", "packed"])
def test_a_seed_drops_the_units_that_torch_nn_drops(
    options: dict[str, Any], name: str, form: str
) -> None:
    options = {"dropout": 0.5, "dtype": torch.float64} | options
    theirs, ours = (getattr(library, name)(3, 4, 3, **options) for library in (nn, ft))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    if form == "packed":
        x = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 5]), enforce_sorted=False)
    x = x[:, 0] if form == "unbatched" else x
    outputs = []
    for module in (ours, theirs):
        torch.manual_seed(4)
        y, final = module(x)
        y = y.data if form == "packed" else y
        found = torch.autograd.grad(y.square().sum(), list(module.parameters()))
        outputs.append((y, *(final if name == "LSTM" else [final]), *found))
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b)


# ---- Processes


class Outputs(Dataset):  # type: ignore[type-arg]
    """Items that the modules compute, in whichever process asks for them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.nets = nn.Sequential(ft.LSTM(3, 4, 2), ft.GRU(3, 4, 2))
        self.layers = [net.to_fastrnn() for net in self.nets]
        self.x = torch.randn(16, 5, 3)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        found, lengths = [], [1 + index % 5]
        for net, layer in zip(self.nets, self.layers, strict=True):
            y = net(self.x[index], lengths=lengths)[0]
            (gradient,) = torch.autograd.grad(y.sum(), net.weight_hh_l0)
            expected = layer(self.x[index].numpy(), lengths=lengths)[0]
            assert np.array_equal(expected, y.detach().numpy())
            found += [y.detach(), gradient]
        return found


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_workers_of_a_data_loader(context: str) -> None:
    data = Outputs()
    expected = [data[i] for i in range(len(data))]  # packed before the fork
    loader = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context=context)
    found = [torch.cat(parts) for parts in zip(*loader, strict=True)]
    for parts, whole in zip(zip(*expected, strict=True), found, strict=True):
        assert torch.equal(torch.stack(parts), whole)


def torchrun(script: Path, *arguments: str) -> str:
    """Runs a script in two processes that meet on a free port of this machine."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    environment |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    options = ["--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(script), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_two_processes_find_the_weights_of_one(tmp_path: Path) -> None:
    """The mean of the gradients over halves of a batch is the gradient over all of it."""
    torchrun(ROOT / "tests" / "ddp_worker.py", str(tmp_path))
    expected = ddp_worker.train(ddp_worker.model(), slice(None))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert list(first) == list(expected)
    for name, value in expected.items():
        assert torch.equal(first[name], second[name])
        assert (first[name] - value).abs().max() <= 1e-6
    start = ddp_worker.model().state_dict()
    assert all((value - start[name]).abs().max() > 1e-3 for name, value in expected.items())


def test_the_example_of_the_manual_learns() -> None:
    output = torchrun(ROOT / "examples" / "ddp.py", "--steps", "60")
    losses = [float(value) for value in re.findall(r"loss (\d+\.\d+)", output)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_snippets_of_the_manual_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    names: dict[str, Any] = {"__name__": "distributed"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"distributed.md, block {number}", "exec"), names)
    assert isinstance(names["layer"], fastrnn.LSTM)
