"""fastrnn.torch as operators: torch.compile, torch.export and other tracers see through it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import Net, draw_net, picker, stacked, unpack
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch_support import module_of, problem, tensor

import fastrnn.torch as ft
from fastrnn.torch import _ops, _packing

# PyTorch's own use of what it deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

# inductor writes C++; where no compiler is, it is what stands before it that is tested
BACKENDS = ["aot_eager", "inductor" if shutil.which("g++") else "aot_eager_decomp_partition"]


class Model(nn.Module):
    def __init__(self, kind: str = "LSTM", **options: Any) -> None:
        super().__init__()
        self.rnn = getattr(ft, kind)(3, 8, 2, **options)
        outputs = self.rnn._config.output_size(8)
        self.leaky = ft.LeakyRNN(outputs, 6, form="potential")
        self.units = ft.Leaky(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, hx: Any = None, **call: Any) -> Any:
        y, state = self.rnn(x, hx, **call)
        y = self.leaky(torch.relu(y), **call)[0]
        return self.head(self.units(y, **call)[0]), *unpack(state)


def results(
    model: Any, of: nn.Module, x: torch.Tensor, hx: Any = None, **call: Any
) -> list[torch.Tensor]:
    """Outputs and gradients of a call, with dropout of a fixed seed."""
    torch.manual_seed(5)
    inputs = [x, *(() if hx is None else unpack(hx)), *of.parameters()]
    outputs = model(x, hx, **call)
    loss = sum(output.square().sum() for output in outputs)
    return [*outputs, *torch.autograd.grad(loss, [t for t in inputs if t.requires_grad])]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No graphs of other tests; what is compiled goes to a directory of the test."""
    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")


@pytest.mark.parametrize("net", stacked(dtype="float64"), ids=str)
@pytest.mark.parametrize("cut", [False, True])
def test_opcheck(net: Net, cut: bool, rng: np.random.Generator) -> None:
    module = module_of(net, net.build())
    x, state, dy, dstate = problem(net, rng, 4, 2)
    x, dy = tensor(x), tensor(dy)
    states = [tensor(s) for s in unpack(state)] if net.num_layers > 1 else []
    weights = [p.detach().clone() for p in module.parameters()]
    cuts = (torch.tensor([1, 3]), torch.ones(4, 2, dtype=torch.bool)) if cut else (None, None)
    options = (*cuts, *module._config.flat(), False, False)
    checked = torch.library.opcheck(_ops.run_op, (x, states, weights, *options, False))
    assert set(checked.values()) == {"SUCCESS"}

    *_, saved = _ops.run_op(x, states, weights, *options, True)
    arriving = [tensor(s) for s in unpack(dstate)]
    dh, dc = arriving[0], arriving[1] if net.states == 2 else None
    for needs in ([True], [False]):
        needs *= 1 + net.states + len(weights)
        needs[-1] = True
        arguments = (x, saved, weights, dy, dh, dc, needs, *options, True)
        checked = torch.library.opcheck(_ops.backward_op, arguments)
        assert set(checked.values()) == {"SUCCESS"}

    for t in (x, *states, *weights):
        t.requires_grad_()
    checked = torch.library.opcheck(_ops.run_op, (x, states, weights, *options, True))
    assert set(checked.values()) == {"SUCCESS"}


KINDS: dict[str, dict[str, Any]] = {
    "LSTM": {},
    "LSTM with options": {
        "proj_size": 5,
        "peephole": True,
        "clip": 1.5,
        "gate_activation": ("hard_sigmoid", 0.2, 0.5),
    },
    "GRU": {},
    "GRU with options": {"reset_after": False, "clip": 0.75},
    "MinGRU": {"activation": ("elu", 0.5)},
    "RNN": {"nonlinearity": "softsign"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_model_gives_the_same_without_a_graph_break(kind: str) -> None:
    model = Model(kind.split()[0], **KINDS[kind])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for steps in (5, 7, 9):  # from the second length on, the graph is for any
        x = torch.randn(steps, 4, 3, requires_grad=True)
        found, expected = results(compiled, model, x), results(model, model, x)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x)[0], model(x)[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_every_backend_gives_the_same(backend: str, kind: str) -> None:
    net, x = getattr(ft, kind)(3, 4), torch.randn(5, 2, 3)

    def run(x: torch.Tensor) -> torch.Tensor:
        return net(torch.tanh(x) + 1)[0].square()

    compiled = torch.compile(run, fullgraph=True, backend=backend)
    found = torch.autograd.grad(compiled(x).sum(), list(net.parameters()))
    expected = torch.autograd.grad(run(x).sum(), list(net.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dynamic", [None, True])
def test_lengths_and_resets_are_inputs_of_the_graph(
    batch_first: bool, dynamic: bool | None
) -> None:
    model = Model("GRU", bidirectional=True, dropout=0.5)
    model.rnn.batch_first = model.leaky.batch_first = model.units.batch_first = batch_first
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=dynamic)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = torch.from_numpy(rng.standard_normal((6, 6, 3), np.float32))
        call = {
            "lengths": torch.from_numpy(rng.integers(0, 6, 6, endpoint=True)),
            "reset": torch.from_numpy(rng.random((6, 6)) < 0.3),
        }
        found, expected = results(compiled, model, x, **call), results(model, model, x, **call)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert len(graphs) == 1
    with pytest.raises(ValueError, match="lengths: expected 0 to 6"):
        compiled(x, lengths=torch.full((6,), 7))


OPTIONS: list[dict[str, Any]] = [
    {"bidirectional": True},
    {"batch_first": True, "bias": False},
    {"dropout": 0.5},
    {"dropout": 0.5, "batch_first": True},
    {"dropout": 0.5, "proj_size": 5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_every_option_can_be_compiled(options: dict[str, Any]) -> None:
    model = Model(**options)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 4, 3)
    shapes = model.rnn._config.state_shapes((4,), 8)
    hx = tuple(torch.randn(shape, requires_grad=True) for shape in shapes)
    for a, b in zip(results(compiled, model, x, hx), results(model, model, x, hx), strict=True):
        torch.testing.assert_close(a, b)


def test_one_graph_serves_all_lengths() -> None:
    model = Model()
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, backend=backend, dynamic=True)
    for steps in (5, 7, 9, 11):
        x = torch.randn(steps, 3, 3)
        torch.testing.assert_close(compiled(x)[0], model(x)[0])
    assert len(graphs) == 1


def test_a_compiled_model_packs_once_per_change(monkeypatch: pytest.MonkeyPatch) -> None:
    net = ft.LSTM(3, 4)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 2, 3)
    compiled(x)
    packs: list[Any] = []
    init = _packing.Packed.__init__
    monkeypatch.setattr(
        _packing.Packed, "__init__", lambda self, *args: packs.append(args) or init(self, *args)
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        y = compiled(x)[0]
        torch.testing.assert_close(y, net(x)[0])
        y.sum().backward()
        optimizer.step()
    assert len(packs) == 2


def test_errors_are_the_same_when_compiled() -> None:
    compiled = torch.compile(ft.LSTM(3, 4), backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"input: expected size 3 .* got 5"):
        compiled(torch.zeros(5, 2, 5))


def test_compiled_double_backward_is_refused() -> None:
    compiled = torch.compile(ft.LSTM(3, 4), fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 2, 3, requires_grad=True)
    (dx,) = torch.autograd.grad(compiled(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        dx.sum().backward()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_other_tracers() -> None:
    model, x = Model(), torch.randn(5, 4, 3)
    expected = model(x)[0]
    exported = torch.export.export(model, (x,))
    torch.testing.assert_close(exported.module()(x)[0], expected)
    assert "fastrnn.run" in exported.graph_module.code
    traced = make_fx(lambda x: model(x)[0])(x)
    torch.testing.assert_close(traced(x + 1), model(x + 1)[0])
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            script = torch.jit.trace(model, (x,), check_trace=False)
            torch.testing.assert_close(script(x + 1)[0], model(x + 1)[0])


def test_tensor_subclasses() -> None:
    class Tagged(torch.Tensor):
        pass

    net, x = ft.LSTM(3, 4), torch.randn(5, 2, 3)
    y, _ = net(x.as_subclass(Tagged))
    assert type(y) is Tagged
    assert torch.equal(y.as_subclass(torch.Tensor), net(x)[0])
    y.sum().backward()
    learned = nn.Parameter(x)
    net(learned)[0].sum().backward()
    assert learned.grad.shape == x.shape


@pytest.mark.parametrize("seed", range(20))
def test_room_for_what_is_saved(seed: int) -> None:
    """The formula for tracers is what the core says."""
    pick = picker(np.random.default_rng(seed))
    net = draw_net(pick)
    module = module_of(net, net.build())
    config, weights = module._config, list(module.parameters())
    sizes, dtype = config.sizes(weights), weights[0].dtype
    core = _packing.plain_net(config, net.dtype, *sizes)
    for steps in (0, 1, 2, 63, 64, 65, 500):
        for batch in (0, 1, 2, 7, 33):
            room = _ops._room(config, dtype, sizes, steps, batch)
            assert room == core.saved_size(steps, batch)
