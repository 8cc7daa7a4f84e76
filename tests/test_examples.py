"""The learning examples: they learn what they say, and PyTorch takes the same steps."""

from __future__ import annotations

import argparse
import copy
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from support import run_python

import fastrnn

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MODULES = ("_training", "adding", "copy_memory")


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ...]]:
    """The modules of MODULES; imported as a script in that directory imports them."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield tuple(importlib.import_module(name) for name in MODULES)
    for name in MODULES:
        sys.modules.pop(name)


@pytest.fixture
def training(examples: tuple[ModuleType, ...]) -> ModuleType:
    return examples[0]


@pytest.fixture
def adding(examples: tuple[ModuleType, ...]) -> ModuleType:
    return examples[1]


@pytest.fixture
def copy_memory(examples: tuple[ModuleType, ...]) -> ModuleType:
    return examples[2]


# ---- They learn -------------------------------------------------------------------------------


def test_lstm_solves_the_adding_problem_and_a_plain_rnn_does_not(adding: ModuleType) -> None:
    options = "--length 40 --hidden 24 --steps 700 --rate 0.01"
    errors = adding.main(options.split())
    assert errors["lstm"] < 0.005
    assert errors["rnn"] > 0.12
    _, sums = adding.draw(np.random.default_rng(0), 40, 100_000)
    assert np.mean((sums - 1) ** 2) == pytest.approx(adding.BASELINE, rel=0.02)


def test_lstm_learns_to_copy_and_a_plain_rnn_does_not(
    copy_memory: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_memory, "SHOWN", 3)
    options = "--length 10 --hidden 64 --steps 1000 --rate 0.02 --cells lstm rnn"
    recalled = copy_memory.main(options.split())
    assert recalled["lstm"] > 0.95
    assert recalled["rnn"] < 0.5


def test_digits_are_learned_with_fastrnn_torch(tmp_path: Path) -> None:
    script = str(EXAMPLES / "digits" / "train.py")
    done = run_python(script, "--epochs", "25", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"^held-out accuracy +(0\.\d+) on 450 images$", done.stdout, re.MULTILINE)
    assert accuracy is not None, done.stdout
    assert float(accuracy[1]) > 0.95
    # what was written is what fastrnn loads: the same accuracy from the files alone
    lstm = fastrnn.load(tmp_path / "digits_lstm.safetensors")
    readout = fastrnn.load_tensors(tmp_path / "digits_readout.safetensors")
    test = np.load(tmp_path / "digits_test.npz")
    _, (h, _) = lstm(test["images"].transpose(1, 0, 2) / np.float32(16))
    scores = h[-1] @ readout["weight"].T + readout["bias"]
    assert np.mean(scores.argmax(axis=1) == test["labels"]) == pytest.approx(
        float(accuracy[1]), abs=1e-4
    )


# ---- Their parts ------------------------------------------------------------------------------


def test_adam_takes_the_steps_of_pytorch(training: ModuleType, rng: np.random.Generator) -> None:
    start = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(5)}
    twins = [torch.tensor(value, requires_grad=True) for value in start.values()]
    optimizer = torch.optim.Adam(twins, lr=0.01)
    adam = training.Adam(start, 0.01)
    for _ in range(20):
        gradients = {name: rng.standard_normal(value.shape) for name, value in start.items()}
        for twin, gradient in zip(twins, gradients.values(), strict=True):
            twin.grad = torch.tensor(gradient)
        optimizer.step()
        adam.step(gradients)
    for value, twin in zip(start.values(), twins, strict=True):
        np.testing.assert_allclose(value, twin.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("cell", ["LSTM", "RNN"])
def test_gradients_of_a_step_are_those_of_pytorch(
    training: ModuleType,
    adding: ModuleType,
    cell: str,
    last: bool,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = training.Reader(getattr(fastrnn, cell)(3, 7, seed=1), 2, last, rate=0.01, seed=2)
    twins = getattr(torch.nn, cell)(3, 7), torch.nn.Linear(7, 2)
    taken: dict[str, np.ndarray] = {}
    step = reader.adam.step
    monkeypatch.setattr(reader.adam, "step", lambda given: (taken.update(given), step(given)))
    monkeypatch.setattr(training, "CLIP", 1.0)
    norms = []
    for scale in (0.1, 10):  # gradients below and above the norm they are clipped to
        before = {**reader.layer.state_dict(), **copy.deepcopy(reader.readout)}
        for twin in twins:
            twin.load_state_dict({name: torch.tensor(before[name]) for name in twin.state_dict()})
            twin.zero_grad()
        x = rng.standard_normal((9, 4, 3)).astype(np.float32)
        shape = (4, 2) if last else (9, 4, 2)
        targets = scale * rng.standard_normal(shape).astype(np.float32)
        value = reader.learn((x, targets), adding.squared_error)

        y, _ = twins[0](torch.tensor(x))
        outputs = twins[1](y[-1] if last else y)
        loss = torch.nn.functional.mse_loss(outputs, torch.tensor(targets))
        loss.backward()
        named = {name: p for twin in twins for name, p in twin.named_parameters()}
        norms.append(torch.nn.utils.clip_grad_norm_(named.values(), 1.0).item())
        assert value == pytest.approx(loss.item(), rel=1e-5)
        assert taken.keys() == named.keys() == reader.adam.parameters.keys()
        for name, parameter in named.items():
            wanted = parameter.grad.numpy()
            np.testing.assert_allclose(taken[name], wanted, rtol=0, atol=1e-6, err_msg=name)
        # the step was taken, and reached the layer and the readout
        after = {**reader.layer.parameters(), **reader.readout}
        for name, values in after.items():
            assert np.array_equal(values, reader.adam.parameters[name])
            assert not np.array_equal(values, before[name])
    assert norms[0] < 1 < norms[1]


def test_losses_and_their_gradients_are_those_of_pytorch(
    adding: ModuleType, copy_memory: ModuleType, rng: np.random.Generator
) -> None:
    steps = 4 + 2 * copy_memory.SHOWN
    outputs = rng.standard_normal((steps, 5, 9)).astype(np.float32)
    answers = rng.integers(9, size=(steps, 5))
    targets = rng.standard_normal(outputs.shape).astype(np.float32)
    x = torch.tensor(outputs, requires_grad=True)
    entropy = torch.nn.functional.cross_entropy(
        x.reshape(-1, 9), torch.tensor(answers).reshape(-1), reduction="sum"
    ) / (5 * copy_memory.SHOWN)
    error = torch.nn.functional.mse_loss(x, torch.tensor(targets))
    for (value, gradient), expected in (
        (copy_memory.cross_entropy(outputs, answers), entropy),
        (adding.squared_error(outputs, targets), error),
    ):
        assert value == pytest.approx(expected.item(), rel=1e-5)
        assert gradient.dtype == np.float32
        (wanted,) = torch.autograd.grad(expected, x)
        np.testing.assert_allclose(gradient, wanted.numpy(), rtol=1e-4, atol=1e-8)


def test_units_remember_up_to_the_span(training: ModuleType) -> None:
    lstm = training.remembering_lstm(2, 500, 200, seed=0)
    gates = lstm.bias_ih_l0.reshape(4, 500)
    assert np.array_equal(gates[0], -gates[1])
    remembered = np.exp(gates[1])
    assert 1 <= remembered.min() < 5
    assert 195 < remembered.max() <= 200
    assert np.array_equal(gates[2:], fastrnn.LSTM(2, 500, seed=0).bias_ih_l0.reshape(4, 500)[2:])


def test_adding_marks_one_number_in_each_half(adding: ModuleType, rng: np.random.Generator) -> None:
    x, sums = adding.draw(rng, 7, 500)
    assert x.shape == (7, 500, 2)
    assert set(np.unique(x[..., 1])) == {0, 1}
    assert (x[:3, :, 1].sum(axis=0) == 1).all()
    assert (x[3:, :, 1].sum(axis=0) == 1).all()
    np.testing.assert_allclose((x[..., 0] * x[..., 1]).sum(axis=0), sums[:, 0], rtol=1e-6)
    assert (x[..., 1].sum(axis=1) > 0).all()  # every place is used


def test_copy_asks_for_the_symbols_after_the_delay(
    copy_memory: ModuleType, rng: np.random.Generator
) -> None:
    shown, delay = copy_memory.SHOWN, 6
    x, answers = copy_memory.draw(rng, delay, 50)
    assert x.shape == (delay + 2 * shown, 50, copy_memory.SYMBOLS + 2)
    assert (x.sum(axis=-1) == 1).all()
    seen = x.argmax(axis=-1)
    assert np.array_equal(seen[:shown], answers[-shown:])
    assert set(np.unique(seen[:shown])) == set(range(1, copy_memory.SYMBOLS + 1))
    assert (seen[shown - 1 + delay] == copy_memory.RECALL).all()
    assert np.count_nonzero(seen[shown:]) == 50  # nothing but the sign
    assert not answers[:-shown].any()


# ---- As programs ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "result"), [("adding", "error"), ("copy_memory", "recalled")])
def test_programs_report_and_plot(name: str, result: str, tmp_path: Path) -> None:
    picture = tmp_path / "loss.png"
    options = "--length 4 --hidden 3 --steps 20 --batch 2 --seed 5 --cells rnn lstm --plot"
    done = run_python(str(EXAMPLES / f"{name}.py"), *options.split(), str(picture))
    assert done.returncode == 0, done.stderr
    for cell in ("rnn", "lstm"):
        assert re.search(rf"^{cell}: 20 steps in \d+ s$", done.stdout, re.MULTILINE)
        assert re.search(rf"^{cell}: .*{result}", done.stdout, re.MULTILINE)
        lines = re.findall(rf"^{cell}: step (\d+) of 20, loss \d+\.\d+$", done.stderr, re.MULTILINE)
        assert [int(line) for line in lines] == list(range(2, 21, 2))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_in_a_terminal_there_is_a_bar(
    adding: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    options = "--length 4 --hidden 3 --steps 5 --cells lstm"
    adding.main(options.split())
    _, err = capsys.readouterr()
    assert re.search(r"lstm: 100%.*5/5 .*loss=\d+\.\d+", err)
    assert "step 5 of 5" not in err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ("--steps 0", "--steps"),
        ("--hidden -1", "--hidden"),
        ("--cells gru", "--cells"),
        ("--plot {missing}/loss.png", "no directory"),
    ],
)
def test_bad_options_are_refused_before_the_work(
    training: ModuleType,
    options: str,
    word: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = options.format(missing=tmp_path / "missing").split()
    with pytest.raises(SystemExit) as stopped:
        training.parse("what it does", "what T is", {}, arguments)
    assert stopped.value.code == 2
    assert word in capsys.readouterr().err


def test_adding_needs_two_numbers(adding: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"--length: expected at least 2, got 1"):
        adding.main(["--length", "1"])


def test_plot_without_matplotlib_is_refused_before_the_work(
    training: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    assert training.parse("", "", {}, []).plot is None
    with pytest.raises(SystemExit):
        training.parse("", "", {}, ["--plot", str(tmp_path / "loss.png")])
    assert "--plot needs matplotlib" in capsys.readouterr().err


def test_defaults_are_shown_by_help(
    training: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        training.parse("what it does", "what T is", {"steps": 1234}, ["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "what T is" in out
    assert "(default: 1234)" in out
    assert isinstance(training.parse("", "", {"steps": 1234}, []), argparse.Namespace)
