"""One process of test_torch_training: trains on its half of every batch and saves its weights."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn

import fastrnn.torch as ft

STEPS = 20


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = ft.LSTM(5, 16, 2, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0])


def model() -> nn.Module:
    torch.manual_seed(0)
    return Model()


def train(module: nn.Module, rows: slice) -> dict[str, torch.Tensor]:
    """The weights after some steps on these rows of batches of 8 sequences."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        x = torch.randn(8, 10, 5, generator=generator)
        target = x[..., :3].cumsum(1)
        optimizer.zero_grad()
        nn.functional.mse_loss(module(x[rows]), target[rows]).backward()
        optimizer.step()
    return module.state_dict()


def main(directory: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    ddp = nn.parallel.DistributedDataParallel(model())
    train(ddp, slice(4 * rank, 4 * rank + 4))
    torch.save(ddp.module.state_dict(), directory / f"{rank}.pt")
    # Gloo aborts now and then if a model outlives the group, or one process leaves before another.
    del ddp
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert os.environ["WORLD_SIZE"] == "2"
    main(Path(sys.argv[1]))
