"""What a training step keeps in memory: fastrnn's tape beside PyTorch's saved tensors.

    python bench/train_memory.py [-c lstm|gru|rnn] [I,H,B,T ...]

For each engine and shape a new process runs one forward and one backward and prints, in KiB:

* saved: what is kept for the backward beside x, y, the initial state and the parameters. For
  fastrnn `tape.nbytes`; for PyTorch the tensors that autograd saves, each storage once.
* held: by how much the process has grown after the forward, so with y.
* peak: by how much it had grown at most when the backward is done, so with all gradients.

held and peak are the system's figures in pages (Linux), and include what an allocator did not give
back; on small shapes they are noise. Packed weights are made before the first figure is taken.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastrnn.bench.cases import TRAIN, Case
from fastrnn.bench.peers import fastrnn_layer, torch_layer
from fastrnn.bench.shapes import Shape, parse
from fastrnn.bench.training import as_argument

KIB = 1024
COLUMNS = ("saved", "held", "peak")

# Arrays above this size come straight from the system and go straight back, in every engine.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}


def resident(name: str = "VmRSS") -> int:
    """Return the bytes of this process in memory: now, or with "VmHWM" at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * KIB
    raise RuntimeError(f"the system does not tell {name}")


def start() -> int:
    """Begin a measurement: return what is in memory, and forget the peak before."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def fastrnn_figures(case: Case) -> list[int]:
    """Run a step of the layer."""
    layer: Any = fastrnn_layer(case, 1)
    x, dy, state = case.x(), case.dy(), as_argument(case.state())
    first = layer.forward_train(x[:1], state)
    layer.backward(first[2], dy[:1])  # packs the weights
    del first
    before = start()
    y, _, tape = layer.forward_train(x, state)
    held = resident() - before
    gradients = layer.backward(tape, dy)
    peak = resident("VmHWM") - before
    assert y.shape == dy.shape and gradients.x.shape == x.shape
    return [tape.nbytes, held, peak]


def torch_figures(case: Case) -> list[int]:
    """Run a step of the same layer of PyTorch."""
    import torch

    net = torch_layer(case, 1)
    x, dy = torch.from_numpy(case.x()).requires_grad_(), torch.from_numpy(case.dy())
    states = [torch.from_numpy(a).requires_grad_() for a in case.state()]
    state = as_argument(tuple(states))
    given = [x, *states, *net.parameters()]
    net(x[:1], state)[0].backward(dy[:1])
    for leaf in given:
        leaf.grad = None

    before = start()
    y, _ = net(x, state)
    held = resident() - before
    y.backward(dy)
    peak = resident("VmHWM") - before

    saved: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y, _ = net(x, state)
    for tensor in [*given, y]:
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    return [sum(saved.values()), held, peak]


ENGINES = {"fastrnn": fastrnn_figures, "torch": torch_figures}


def in_a_process(engine: str, case: Case) -> list[int]:
    """Return the figures of an engine in a process of its own."""
    command = [sys.executable, __file__, "-c", case.cell, "--engine", engine, str(case.shape)]
    environment = os.environ | ENVIRONMENT
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
    figures: list[int] = json.loads(output)
    return figures


def main() -> None:
    """Print a table, or as a child the figures of one engine."""
    parser = argparse.ArgumentParser(description="Memory of a training step, in KiB.")
    parser.add_argument("-c", "--cell", choices=("lstm", "gru", "rnn"), default="lstm")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("shapes", nargs="*", default=["all"], metavar="I,H,B,T")
    arguments = parser.parse_args()
    shapes: tuple[Shape, ...] = parse(";".join(arguments.shapes))
    if arguments.engine:
        print(json.dumps(ENGINES[arguments.engine](Case(arguments.cell, shapes[0], TRAIN))))
        return
    heads = [f"{engine} {column}" for engine in ENGINES for column in COLUMNS]
    print(f"{arguments.cell}, KiB".ljust(16) + "".join(head.rjust(15) for head in heads))
    for shape in shapes:
        case = Case(arguments.cell, shape, TRAIN)
        figures = [value for engine in ENGINES for value in in_a_process(engine, case)]
        row = "".join(f"{value / KIB:15,.0f}" for value in figures)
        print(f"{shape!s:16}{row}", flush=True)


if __name__ == "__main__":
    main()
