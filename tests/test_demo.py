"""The demo, its data, and PyTorch's opinion on both."""

import re
import sys
from importlib import resources

import numpy as np
import pytest
import sklearn.datasets
import torch

import fastrnn
from fastrnn import demo
from fastrnn._numpy_rnn import numpy_lstm


@pytest.fixture(scope="module")
def digits():
    return demo.load()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(demo, "REPEATS", 1)


def test_main_reports_accuracy_speed_and_agreement(quick, capsys):
    assert demo.main() == 0
    out, err = capsys.readouterr()
    assert err == ""
    accuracy = re.search(r"^accuracy (\d+\.\d)% \((\d+) of 450\)$", out, re.MULTILINE)
    assert float(accuracy[1]) >= 97
    assert int(accuracy[2]) >= 0.97 * 450
    assert "predictions agree: 450 of 450" in out
    for line in ("one at a time", "batch of 450"):
        assert re.search(rf"^{line} +[\d,]+ +[\d,]+ +\d+\.\dx$", out, re.MULTILINE)


def test_pictures_only_in_a_terminal(quick, capsys, monkeypatch):
    demo.main()
    assert "read " not in capsys.readouterr().out.replace("read row by row", "")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    demo.main()
    out, err = capsys.readouterr()
    assert len(re.findall(r"read \d, is \d", out)) == 4
    assert max(map(len, out.splitlines())) <= 80
    assert err == ""


def test_exit_code_tells_bad_accuracy(quick, capsys, monkeypatch, digits):
    monkeypatch.setattr(demo, "load", lambda: digits._replace(labels=np.roll(digits.labels, 1)))
    assert demo.main() == 1
    assert "predictions agree" in capsys.readouterr().out


def test_exit_code_tells_disagreement(quick, capsys, monkeypatch):
    def reversed_units(parameters):
        forward = numpy_lstm(parameters)

        def wrong(x, state=None):
            y, (h, c) = forward(x, state)
            return y, (h[..., ::-1], c)

        return wrong

    monkeypatch.setattr(demo, "numpy_lstm", reversed_units)
    assert demo.main() == 1
    assert "predictions DISAGREE" in capsys.readouterr().out


def test_progress_hidden_yields_the_items_silently(capsys):
    assert list(demo.progress(range(3), 3, shown=False)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_progress_without_tqdm_draws_a_bar_and_removes_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert list(demo.progress(range(3), 3, shown=True)) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"\rmeasuring \[#{20} {10}\] 2/3", err)
    assert re.search(r"\r +\r$", err)


def test_progress_with_tqdm(capsys):
    assert list(demo.progress(range(3), 3, shown=True)) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "measuring" in err


def test_draw():
    image = np.zeros((1, 8, 8), np.uint8)
    image[0, 1, 2:4] = 16
    lines = demo.draw(np.repeat(image, 2, axis=0)).split("\n")
    assert lines[0] == " " * 35
    assert lines[1] == "    @@@@           " + "    @@@@        "


def test_data_is_small_and_complete(digits):
    files = {
        file.name: file.read_bytes()
        for file in (resources.files("fastrnn") / "data").iterdir()
        if file.is_file()
    }
    assert {"README.md", "digits_test.npz", "digits_lstm.safetensors"} <= set(files)
    assert sum(map(len, files.values())) < 300_000
    assert b"CC BY 4.0" in files["README.md"]
    assert digits.images.shape == (450, 8, 8)
    assert digits.images.dtype == np.uint8
    assert digits.images.max() == 16
    assert np.bincount(digits.labels, minlength=10).min() >= 43
    assert isinstance(digits.lstm, fastrnn.LSTM)
    assert digits.weight.shape == (10, digits.lstm.hidden_size)
    assert digits.bias.shape == (10,)


def test_sequences_are_rows_over_time(digits):
    x = digits.sequences()
    assert x.shape == (8, 450, 8)
    assert x.dtype == np.float32
    assert (x[3, 7] == digits.images[7, 3] / np.float32(16)).all()


def test_images_are_those_of_scikit_learn(digits):
    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    known = {
        (image.tobytes(), label)
        for image, label in zip(pixels.astype(np.uint8), labels, strict=True)
    }
    assert all(
        (image.tobytes(), label) in known
        for image, label in zip(digits.images, digits.labels, strict=True)
    )


def test_torch_predicts_the_same(digits):
    net = torch.nn.LSTM(digits.lstm.input_size, digits.lstm.hidden_size)
    net.load_state_dict(
        {name: torch.tensor(value) for name, value in digits.lstm.parameters().items()}
    )
    x = digits.sequences()
    with torch.no_grad():
        _, (h, _) = net(torch.tensor(x))
    expected = h[-1].numpy() @ digits.weight.T + digits.bias
    scores = digits.scores(digits.lstm, x)
    assert (scores.argmax(axis=1) == expected.argmax(axis=1)).all()
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-5)


def test_batch_and_single_give_the_same_bits(digits):
    x = digits.sequences()
    y, _ = digits.lstm(x)
    for k in (0, 1, 449):
        assert (digits.lstm(x[:, k : k + 1])[0] == y[:, k : k + 1]).all()
