"""Train the LSTM of ``fastrnn demo``: handwritten digits, read as sequences of eight rows.

The LSTM is one of fastrnn.torch, under PyTorch's autograd and optimizer. Needs PyTorch,
scikit-learn, safetensors and tqdm; takes less than a minute on one core.
Writes three files, by default into the package's data directory:

    digits_lstm.safetensors      the LSTM under PyTorch's names, with metadata for fastrnn.load
    digits_readout.safetensors   the linear readout of the last output: weight [10, H], bias [10]
    digits_test.npz              the held-out images [N, 8, 8] uint8 0..16 and their labels [N]

A quarter of the images is held out and looked at once, after training. Which epoch's weights are
kept is decided on a validation part of the others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from tqdm import trange

import fastrnn.torch as ft

DATA = Path(__file__).resolve().parents[2] / "fastrnn" / "data"
PIXEL_MAX = 16
CLASSES = 10


class DigitReader(nn.Module):
    """An LSTM over the rows of an image, and a linear readout of its last output."""

    def __init__(self, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.lstm = ft.LSTM(8, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden_size, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [N, 10] of images [N, 8, 8] with values in [0, 1]."""
        _, (h, _) = self.lstm(images.transpose(0, 1))
        return self.readout(self.dropout(h[-1]))


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale, shear and shift each image a little, at random."""

    def uniform(limit: float) -> Tensor:
        return limit * (2 * torch.rand(len(images), generator=generator) - 1)

    angle, shear = uniform(0.2), uniform(0.15)
    width, height = 1 + uniform(0.12), 1 + uniform(0.12)
    cos, sin = torch.cos(angle), torch.sin(angle)
    matrix = torch.stack(
        [
            torch.stack([cos * width, (shear - sin) * width, uniform(0.2)], dim=1),
            torch.stack([sin * height, cos * height, uniform(0.2)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, [len(images), 1, 8, 8], align_corners=False)
    return functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def evaluate(model: DigitReader, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean loss and the accuracy."""
    model.eval()
    with torch.no_grad():
        scores = model(images)
        loss = functional.cross_entropy(scores, labels).item()
    return loss, (scores.argmax(dim=1) == labels).double().mean().item()


def train(
    model: DigitReader,
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    args: argparse.Namespace,
) -> float:
    """Leave the weights with the lowest validation loss in the model; return their accuracy."""
    images, labels = training
    generator = torch.Generator().manual_seed(args.seed)
    steps = args.epochs * -(-len(images) // args.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=args.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, total_steps=steps)
    best_loss, best_accuracy, best = float("inf"), 0.0, model.state_dict()
    progress = trange(args.epochs, unit="epoch")
    for _ in progress:
        model.train()
        for rows in torch.randperm(len(images), generator=generator).split(args.batch):
            scores = model(distort(images[rows], generator))
            loss = functional.cross_entropy(scores, labels[rows], label_smoothing=args.smoothing)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        loss_now, accuracy = evaluate(model, *validation)
        if loss_now < best_loss:
            best_loss, best_accuracy = loss_now, accuracy
            best = {name: value.clone() for name, value in model.state_dict().items()}
        progress.set_postfix(validation=f"{accuracy:.3f}", loss=f"{loss_now:.3f}")
    model.load_state_dict(best)
    return best_accuracy


def write(directory: Path, model: DigitReader, images: np.ndarray, labels: np.ndarray) -> None:
    """Write the two weight files and the held-out images."""
    directory.mkdir(parents=True, exist_ok=True)
    description = {
        "format": 1,
        "cell": "lstm",
        "input_size": model.lstm.input_size,
        "hidden_size": model.lstm.hidden_size,
    }
    for name, module, metadata in (
        ("digits_lstm", model.lstm, {"fastrnn": json.dumps(description)}),
        ("digits_readout", model.readout, None),
    ):
        tensors = {key: value.numpy() for key, value in module.state_dict().items()}
        (directory / f"{name}.safetensors").write_bytes(save(tensors, metadata))
    np.savez_compressed(
        directory / "digits_test.npz",
        images=images.astype(np.uint8),
        labels=labels.astype(np.uint8),
    )


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=DATA, help="directory to write to")
    parser.add_argument("--hidden", type=int, default=64, help="hidden size of the LSTM")
    parser.add_argument("--epochs", type=int, default=150, help="passes over the training part")
    parser.add_argument("--batch", type=int, default=64, help="images in a training step")
    parser.add_argument("--rate", type=float, default=0.01, help="highest learning rate")
    parser.add_argument("--decay", type=float, default=0.01, help="weight decay")
    parser.add_argument("--dropout", type=float, default=0.2, help="dropout before the readout")
    parser.add_argument("--smoothing", type=float, default=0.05, help="label smoothing")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    return parser.parse_args()


def main() -> None:
    """Train, report, write."""
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(args.seed)

    pixels, digits = load_digits(return_X_y=True)
    pixels = pixels.reshape(-1, 8, 8)
    rest_pixels, test_pixels, rest_digits, test_digits = train_test_split(
        pixels, digits, test_size=0.25, stratify=digits, random_state=args.seed
    )
    parts = train_test_split(
        rest_pixels, rest_digits, test_size=0.15, stratify=rest_digits, random_state=args.seed
    )
    images, validation_images, test_images = (
        torch.tensor(part / PIXEL_MAX, dtype=torch.float32)
        for part in (parts[0], parts[1], test_pixels)
    )
    labels, validation_labels, test_labels = (
        torch.tensor(part) for part in (parts[2], parts[3], test_digits)
    )

    model = DigitReader(args.hidden, args.dropout)
    accuracy = train(model, (images, labels), (validation_images, validation_labels), args)
    print(f"validation accuracy {accuracy:.4f} on {len(validation_labels)} images")
    _, accuracy = evaluate(model, test_images, test_labels)
    print(f"held-out accuracy   {accuracy:.4f} on {len(test_labels)} images")
    write(args.out, model, test_pixels, test_digits)


if __name__ == "__main__":
    main()
