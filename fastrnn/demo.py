"""``fastrnn demo``: classify real handwritten digits with an LSTM that PyTorch trained.

Each image of 8 x 8 pixels is read as a sequence of 8 rows; a linear readout of the last output
gives the digit. The same net runs in fastrnn and in NumPy. The data and its licence are described
in ``fastrnn/data/README.md``.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import NamedTuple

import numpy as np

import fastrnn
from fastrnn._children import child_environment
from fastrnn._numpy_rnn import Forward, numpy_lstm

ACCURACY = 0.97  # what the net has to reach
REPEATS = 20
PIXEL_MAX = 16
INK = " .:-=+*#@"  # one character for two levels of grey
BAR_WIDTH = 30

_CHILD = "from fastrnn.demo import measure_here; measure_here()"


class Digits(NamedTuple):
    """What the demo works on."""

    images: np.ndarray  # [N, 8, 8] uint8, 0..16
    labels: np.ndarray  # [N]
    lstm: fastrnn.LSTM
    weight: np.ndarray  # readout [10, H]
    bias: np.ndarray  # readout [10]

    def sequences(self) -> np.ndarray:
        """Return the images as input of the net, x [T = 8, B = N, I = 8] float32 in [0, 1]."""
        x = self.images.transpose(1, 0, 2) / np.float32(PIXEL_MAX)
        return np.ascontiguousarray(x, dtype=np.float32)

    def scores(self, forward: Forward, x: np.ndarray) -> np.ndarray:
        """Return the scores [B, 10] of x [T, B, I] from an LSTM's forward and the readout."""
        _, (h, _) = forward(x)
        return h[-1] @ self.weight.T + self.bias


def load() -> Digits:
    """Load images, labels and weights from the package's data."""
    with resources.as_file(resources.files("fastrnn") / "data") as directory:
        lstm = fastrnn.load(directory / "digits_lstm.safetensors")
        assert isinstance(lstm, fastrnn.LSTM)
        readout = fastrnn.load_tensors(directory / "digits_readout.safetensors")
        with np.load(directory / "digits_test.npz", allow_pickle=False) as test:
            return Digits(test["images"], test["labels"], lstm, readout["weight"], readout["bias"])


def draw(images: np.ndarray) -> str:
    """Draw images [N, 8, 8] side by side as text, two characters to a pixel."""
    levels = images.astype(int) * len(INK) // (PIXEL_MAX + 1)
    lines = []
    for rows in levels.transpose(1, 0, 2):
        lines.append("   ".join("".join(2 * INK[level] for level in row) for row in rows))
    return "\n".join(lines)


def progress(items: Iterable[int], total: int, shown: bool) -> Iterator[int]:
    """Yield the items; if shown, with a bar on stderr that disappears at the end."""
    if not shown:
        yield from items
        return
    try:
        from tqdm import tqdm
    except ImportError:
        pass
    else:
        yield from tqdm(items, total=total, desc="measuring", leave=False)
        return
    for count, item in enumerate(items):
        bar = "#" * (BAR_WIDTH * count // total)
        print(f"\rmeasuring [{bar:<{BAR_WIDTH}}] {count}/{total}", end="", file=sys.stderr)
        sys.stderr.flush()
        yield item
    print("\r" + " " * (BAR_WIDTH + 30) + "\r", end="", file=sys.stderr, flush=True)


def measure(shown: bool) -> list[float]:
    """Return the seconds that :func:`measure_here` measures in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-P", "-c", _CHILD, str(REPEATS), str(int(shown))],
        env=child_environment(threads=1),
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(result.stdout)


def measure_here() -> None:
    """Print the median seconds of fastrnn and NumPy for all images, one by one and as a batch.

    As JSON, in the order each fastrnn, each NumPy, batch fastrnn, batch NumPy. The four are
    measured in turns after a warm-up, as often as the first argument says; the second is 1 for a
    progress bar.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    repeats, shown = map(int, sys.argv[1:])
    fastrnn.set_num_threads(1)
    digits = load()
    batch = digits.sequences()
    singles = [np.ascontiguousarray(batch[:, k : k + 1]) for k in range(batch.shape[1])]
    forwards = (digits.lstm, numpy_lstm(digits.lstm.parameters()))
    contenders = [(forward, inputs) for inputs in (singles, [batch]) for forward in forwards]
    seconds: list[list[float]] = [[] for _ in contenders]
    for repeat in progress(range(repeats + 1), repeats + 1, bool(shown)):
        for (forward, inputs), record in zip(contenders, seconds, strict=True):
            start = time.perf_counter()
            for x in inputs:
                digits.scores(forward, x).argmax(axis=1)
            elapsed = time.perf_counter() - start
            if repeat > 0:
                record.append(elapsed)
    print(json.dumps([statistics.median(record) for record in seconds]))


def show_examples(digits: Digits, predictions: np.ndarray) -> None:
    """Draw three images and the first one that was misread, with prediction and label."""
    wrong = np.flatnonzero(predictions != digits.labels)
    chosen = [0, 1, 2, wrong[0] if len(wrong) else 3]
    captions = [f"read {predictions[k]}, is {digits.labels[k]}" for k in chosen]
    print(draw(digits.images[chosen]))
    print("   ".join(f"{caption:<16}" for caption in captions).rstrip() + "\n")


def main() -> int:
    """Run the demo; return 0 if the net is accurate and NumPy agrees with fastrnn, else 1."""
    terminal = sys.stdout.isatty()
    digits = load()
    x = digits.sequences()
    count = x.shape[1]
    scores = digits.scores(digits.lstm, x)
    numpy_scores = digits.scores(numpy_lstm(digits.lstm.parameters()), x)
    predictions = scores.argmax(axis=1)
    right = int(np.sum(predictions == digits.labels))
    same = int(np.sum(predictions == numpy_scores.argmax(axis=1)))

    print(f"{count} handwritten digits that were held out from training,")
    print(f"read row by row by an LSTM of {digits.lstm.hidden_size} units\n")
    if terminal:
        show_examples(digits, predictions)
    sys.stdout.flush()
    seconds = measure(terminal and sys.stderr.isatty())
    print(f"{'images per second':<20}{'fastrnn':>12}{'NumPy':>12}{'ratio':>10}   (one thread)")
    for k, name in enumerate(("one at a time", f"batch of {count}")):
        ours, theirs = seconds[2 * k : 2 * k + 2]
        print(f"{name:<20}{count / ours:>12,.0f}{count / theirs:>12,.0f}{theirs / ours:>9.1f}x")
    difference = np.max(np.abs(scores - numpy_scores))
    verdict = "agree" if same == count else "DISAGREE"
    print(f"\naccuracy {right / count:.1%} ({right} of {count})")
    print(f"predictions {verdict}: {same} of {count} are the same in NumPy,")
    print(f"scores differ by at most {difference:.1e}")
    return 0 if right / count >= ACCURACY and same == count else 1
