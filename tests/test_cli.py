"""The command line: what it prints, what it writes, and how it fails."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import cli

COMMANDS = ("info", "demo", "run", "bench")


def python(*arguments, stdout=subprocess.PIPE, **environment):
    """Run Python in the current directory with the package under test, wherever it lies."""
    package = str(Path(fastrnn.__file__).parents[1])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": package, **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )


def random_input(*shape, dtype=np.float32):
    return np.random.default_rng(5).standard_normal(shape).astype(dtype)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Leave a directory with a model and an input that fits it as the current one."""
    monkeypatch.chdir(tmp_path)
    fastrnn.LSTM(3, 5, seed=1).save("lstm.safetensors")
    np.save("x.npy", random_input(7, 2, 3))
    return tmp_path


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fastrnn {fastrnn.__version__}\n"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"] if name else ["--help"])
    assert stop.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: fastrnn {name}".rstrip())
    assert err == ""
    assert name or all(each in out for each in COMMANDS)


def test_info(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    assert rows["fastrnn"] == fastrnn.__version__
    assert rows["NumPy"] == np.__version__
    assert rows["ISA in use"] == fastrnn.isa()
    assert rows["ISA available"] == ", ".join(fastrnn.available_isas())
    assert rows["threads"] == str(fastrnn.get_num_threads())


def test_as_a_module(files):
    result = python("-m", "fastrnn", "run", "lstm.safetensors", "x.npy", "-o", "y.npy")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    assert "[7, 2, 3] -> [7, 2, 5] float32 in y.npy" in result.stdout
    y, _ = fastrnn.load("lstm.safetensors")(np.load("x.npy"))
    assert (np.load("y.npy") == y).all()

    result = python("-m", "fastrnn", "run", "missing.safetensors", "x.npy", "-o", "y.npy")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "fastrnn: error: missing.safetensors: No such file or directory\n"


def test_isa_of_the_environment():
    for isa in fastrnn.available_isas():
        result = python("-m", "fastrnn", "info", FASTRNN_ISA=isa)
        assert re.search(rf"^ISA in use +{isa}$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("layer_class", "options"),
    [
        (fastrnn.LSTM, {"num_layers": 2, "bidirectional": True}),
        (fastrnn.LSTM, {"batch_first": True}),
        (fastrnn.RNN, {"nonlinearity": "relu"}),
        (fastrnn.LeakyRNN, {"alpha": 0.5, "form": "potential"}),
    ],
)
@pytest.mark.parametrize("shape", [(7, 2, 3), (7, 3), (0, 2, 3)])
def test_run_equals_the_layer(layer_class, options, shape, dtype, tmp_path, capsys):
    model, source, target, final = (
        str(tmp_path / name) for name in ("m.safetensors", "x.npy", "y.npy", "s.npz")
    )
    layer = layer_class(3, 5, dtype=dtype, seed=2, **options)
    layer.save(model)
    x = random_input(*shape, dtype=dtype)
    np.save(source, x)
    assert cli.main(["run", model, source, "-o", target, "--state-out", final, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")

    y, state = layer(x)
    written = np.load(target)
    assert written.dtype == dtype
    np.testing.assert_array_equal(written, y, strict=True)
    arrays = state if isinstance(state, tuple) else (state,)
    with np.load(final) as archive:
        assert archive.files == ["h", "c"][: len(arrays)]
        for name, array in zip(archive.files, arrays, strict=True):
            np.testing.assert_array_equal(archive[name], array, strict=True)


@pytest.mark.parametrize("name", ["LSTM", "RNN", "Leaky"])
def test_run_continues_from_a_state(name, files):
    layer = fastrnn.Leaky(3) if name == "Leaky" else getattr(fastrnn, name)(3, 5, seed=3)
    layer.save("m.safetensors")
    x = np.load("x.npy")
    np.save("first.npy", x[:4])
    np.save("second.npy", x[4:])
    run = ["run", "m.safetensors", "--quiet"]
    assert cli.main([*run, "first.npy", "-o", "y1.npy", "--state-out", "s.npz"]) == 0
    assert cli.main([*run, "second.npy", "-o", "y2.npy", "--state", "s.npz"]) == 0
    y, _ = layer(x)
    assert (np.concatenate([np.load("y1.npy"), np.load("y2.npy")]) == y).all()


def write_bad_files():
    Path("garbage").write_bytes(b"\x93NUMPY, but not quite" * 9)
    Path("empty").touch()
    Path("truncated.npy").write_bytes(Path("x.npy").read_bytes()[:-5])
    Path("truncated.safetensors").write_bytes(Path("lstm.safetensors").read_bytes()[:-5])
    np.save("objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.save("scalar.npy", np.float32(1))
    np.save("wide.npy", random_input(7, 2, 4))
    np.save("double.npy", random_input(7, 2, 3, dtype=np.float64))
    state = random_input(1, 2, 5)
    np.savez("archive.npz", x=state)
    np.savez("only_h.npz", h=state)
    np.savez("three_rows.npz", h=random_input(1, 3, 5), c=random_input(1, 3, 5))
    np.savez("objects.npz", h=np.array([{}]), c=state)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("missing.safetensors x.npy -o y.npy", ["missing.safetensors: No such file"]),
        (". x.npy -o y.npy", [".: Is a directory"]),
        ("garbage x.npy -o y.npy", ["garbage: "]),
        ("empty x.npy -o y.npy", ["empty: "]),
        ("truncated.safetensors x.npy -o y.npy", ["truncated.safetensors: "]),
        ("lstm.safetensors missing.npy -o y.npy", ["missing.npy: No such file"]),
        ("lstm.safetensors garbage -o y.npy", ["garbage: "]),
        ("lstm.safetensors empty -o y.npy", ["empty: "]),
        ("lstm.safetensors truncated.npy -o y.npy", ["truncated.npy: "]),
        ("lstm.safetensors objects.npy -o y.npy", ["objects.npy: ", "allow_pickle"]),
        ("lstm.safetensors archive.npz -o y.npy", ["archive.npz: expected one array"]),
        ("lstm.safetensors scalar.npy -o y.npy", ["x"]),
        ("lstm.safetensors wide.npy -o y.npy", ["x", "3", "4"]),
        ("lstm.safetensors double.npy -o y.npy", ["float32", "float64"]),
        ("lstm.safetensors x.npy -o none/y.npy", ["none/y.npy: No such file"]),
        ("lstm.safetensors x.npy --state x.npy -o y.npy", ["x.npy: expected an archive"]),
        ("lstm.safetensors x.npy --state none.npz -o y.npy", ["none.npz: No such file"]),
        ("lstm.safetensors x.npy --state only_h.npz -o y.npy", ["only_h.npz: ", "h, c, got h"]),
        ("lstm.safetensors x.npy --state objects.npz -o y.npy", ["objects.npz: "]),
        ("lstm.safetensors x.npy --state three_rows.npz -o y.npy", ["state", "2", "3"]),
        ("lstm.safetensors x.npy", ["-o", "fastrnn run --help"]),
        ("lstm.safetensors x.npy -o y.npy --loud", ["--loud"]),
    ],
)
def test_run_errors(arguments, parts, files, capsys):
    write_bad_files()
    assert cli.main(["run", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastrnn: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert all(part in err for part in parts)
    assert not Path("y.npy").exists()


@pytest.mark.parametrize("argv", [[], ["fly"], ["info", "extra"], ["--fast"]])
def test_wrong_command_line(argv, capsys):
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastrnn: error: ")
    assert err.count("\n") == 1


def test_demo_is_delegated(monkeypatch):
    monkeypatch.setattr("fastrnn.demo.main", lambda: 1)
    assert cli.main(["demo"]) == 1


def test_bench_is_delegated(monkeypatch):
    monkeypatch.setattr("fastrnn.bench.main", lambda args: 7)
    assert cli.main(["bench"]) == 7


def test_other_commands_do_not_import_bench_or_demo():
    code = (
        "import sys; from fastrnn.cli import main; main(['info']);"
        "sys.exit('fastrnn.bench' in sys.modules or 'fastrnn.demo' in sys.modules)"
    )
    assert python("-c", code).returncode == 0


def test_interrupt(monkeypatch, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "info", interrupt)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGPIPE")
@pytest.mark.parametrize("argument", ["info", "--help"])
def test_closed_pipe_is_quiet(argument):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = python("-m", "fastrnn", argument, stdout=writing)
    finally:
        os.close(writing)
    assert result.stderr == ""
    # argparse itself may swallow the error while it prints the help.
    assert result.returncode in ((141,) if argument == "info" else (0, 141))
