"""Time structures of fastrnn.torch as operators: torch.compile and other tracers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import unpack
from structure_layers import inputs, random_state
from torch_structures import LAYERS, each_layer, module_of, tensors_of
from torch_support import tensor

from fastrnn.torch import _ops, _packing

# PyTorch's own use of what it deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


COMPILED = ["delays", "clocks", "clocked rate", "clocked mingru", "masked delays", "dilated"]


@pytest.mark.parametrize("name", COMPILED)
def test_opcheck(name: str, rng: np.random.Generator) -> None:
    layer = LAYERS[name]()
    module = module_of(layer)
    x, state = tensor(inputs(layer, 4)), [*map(torch.tensor, unpack(random_state(layer)))]
    weights = [t.detach().clone() for t in module._weights()]
    cuts = (torch.tensor([1, 3]), torch.from_numpy(rng.random((4, 2)) < 0.5))
    options = (*cuts, *module._config.flat(), False, False)
    checked = [torch.library.opcheck(_ops.run_op, (x, state, weights, *options, False))]
    y, h, c, *_, saved = _ops.run_op(x, state, weights, *options, True)
    needs = [True] * (1 + module._config.states) + [t.is_floating_point() for t in weights]
    dc = torch.ones_like(c) if module._config.states == 2 else None
    arguments = (x, saved, weights, torch.ones_like(y), torch.ones_like(h), dc, needs)
    checked.append(torch.library.opcheck(_ops.backward_op, (*arguments, *options, True)))
    for t in (x, *state, *weights):
        if t.is_floating_point():
            t.requires_grad_()
    checked.append(torch.library.opcheck(_ops.run_op, (x, state, weights, *options, True)))
    assert all(set(each.values()) == {"SUCCESS"} for each in checked)


@pytest.mark.usefixtures("fresh")
@each_layer
def test_compiled_without_a_graph_break(make: Any) -> None:
    module = module_of(make())
    if module.num_layers > 1:
        module.dropout = 1e-30
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for steps, rows in ((5, 9), (7, 12), (9, 16)):  # from the second on, the graph is for any
        x = tensor(inputs(make(), steps, rows)).requires_grad_()
        hx = tensors_of(random_state(make(), rows))
        found = []
        for each in (compiled, module):
            y, final = each(x, hx, lengths=torch.arange(rows) % steps)
            loss = y.square().sum() + sum(t.sum() for t in unpack(final) if t.is_floating_point())
            grads = torch.autograd.grad(loss, [x, *module.parameters()])
            found.append([y, *unpack(final), *grads])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x)[0], module(x)[0])


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", ["clocked rate", "masked delays", "dilated"])
def test_other_tracers(name: str) -> None:
    layer = LAYERS[name]()
    module, x, hx = module_of(layer), tensor(inputs(layer)), tensors_of(random_state(layer))
    exported = torch.export.export(module, (x, hx))
    y, final = exported.module()(x, hx)
    expected, last = module(x, hx)
    for a, b in zip((y, *unpack(final)), (expected, *unpack(last)), strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        backend = "inductor" if shutil.which("g++") else "aot_eager"
        compiled = torch.compile(module, fullgraph=True, backend=backend)
        torch.testing.assert_close(compiled(x, hx), module(x, hx))


@each_layer
def test_room_for_what_is_saved(make: Any) -> None:
    module = module_of(make())
    config, weights = module._config, list(module.parameters())
    sizes, dtype = config.sizes(weights), weights[0].dtype
    core = _packing.packed(config, module._weights()).net
    for steps in (0, 1, 2, 3, 12, 63, 64, 65, 500):
        for batch in (0, 1, 2, 7, 8, 9, 33):
            room = _ops._room(config, dtype, sizes, steps, batch)
            assert room == core.saved_size(steps, batch)
