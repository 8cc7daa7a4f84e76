"""Data-parallel training of a fastrnn LSTM with PyTorch's DistributedDataParallel.

On one machine, two processes:

    torchrun --nproc-per-node=2 examples/ddp.py

On two machines, of which the first one is called node0 and can be reached on port 29500, on each:

    torchrun --nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d --rdzv-endpoint=node0:29500 \\
        examples/ddp.py

The net learns to say, at every step, the sum of the numbers that were marked so far.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastrnn.torch as ft


class Adder(nn.Module):
    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.rnn = ft.LSTM(2, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0]).squeeze(-1)


def batch(size: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers in [0, 1] with marks [B, T, 2], and the sums of the marked ones [B, T]."""
    values = torch.rand(size, steps)
    marks = (torch.rand(size, steps) < 0.1).float()
    return torch.stack([values, marks], -1), (values * marks).cumsum(1)


def train(options: argparse.Namespace) -> None:
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(Adder(options.hidden_size))
    torch.manual_seed(1 + rank)  # each process draws data of its own
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(1, options.steps + 1):
        x, target = batch(options.batch_size, 50)
        loss = nn.functional.mse_loss(model(x), target)
        optimizer.zero_grad()
        loss.backward()  # gradients are averaged over the processes in here
        optimizer.step()
        if rank == 0 and (step == 1 or step % 20 == 0):
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    if rank == 0 and options.save:
        model.module.rnn.to_fastrnn().save(options.save)


def main() -> None:
    parser = argparse.ArgumentParser(description="data-parallel training of an LSTM")
    parser.add_argument("--steps", type=int, default=300, help="steps of the optimizer")
    parser.add_argument("--batch-size", type=int, default=32, help="sequences per process and step")
    parser.add_argument("--hidden-size", type=int, default=32, help="units of the LSTM")
    parser.add_argument("--save", help="file for the LSTM, to be loaded by fastrnn.load")
    options = parser.parse_args()

    # One thread per process: the processes share the cores between them.
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")  # the address is in what torchrun sets
    train(options)
    # Gloo aborts now and then if a model outlives the group, or one process leaves before another.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
