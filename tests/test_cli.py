"""The command line: what it prints, what it writes, and how it fails."""

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import fastrnn
import fastrnn.onnx
from fastrnn import cli, convert

COMMANDS = ("info", "demo", "run", "convert", "bench")


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


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (fastrnn.Leaky(4, dtype="float64"), {"dtype": "float64", "state": "h [B, 4]"}),
        (
            fastrnn.LSTM(3, 5, 2, delays=(8, 1), bidirectional=True),
            {"delays": "1, 8", "state": "h [32, B, 5]; c [4, B, 5]"},
        ),
        (
            fastrnn.LSTM(3, 5, periods=(1, 4), group_sizes=(2, 3), connectivity="full"),
            {
                "periods": "1, 4",
                "group sizes": "2, 3",
                "connectivity": "full",
                "state": "h [1, B, 5]; c [1, B, 5]; clock [B]",
            },
        ),
        (
            fastrnn.prune(fastrnn.GRU(3, 64, seed=0), 0.25),
            {"recurrent mask": "25 % of the connections", "state": "h [1, B, 64]"},
        ),
        (
            fastrnn.DilatedRNN("lstm", 3, 5, (1, 3)),
            {"dilations": "1, 3", "state": "h [4, B, 5]; c [4, B, 5]"},
        ),
        (fastrnn.GRU(3, 5, delays=(1, 10)).rescaled(2.5), {"delays": "2.5, 25"}),
    ],
    ids=repr,
)
def test_info_of_a_model(layer, expected, tmp_path, capsys):
    path = str(tmp_path / "m.safetensors")
    layer.save(path)
    assert cli.main(["info", path]) == 0
    out, err = capsys.readouterr()
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    assert err == ""
    assert rows.pop("layer") == repr(layer)
    assert rows.pop("parameters") == str(sum(a.size for a in layer.parameters().values()))
    assert rows.items() >= expected.items()
    assert rows.keys() - expected.keys() <= {"dtype", "state"}


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


STATES = {
    "h c": fastrnn.LSTM(3, 5, seed=3),
    "h": fastrnn.RNN(3, 5, delays=(1, 3), seed=3),
    "Leaky: h": fastrnn.Leaky(3),
    "h c clock": fastrnn.LSTM(3, 5, 2, periods=(1, 2, 3), seed=3),
    "h clock": fastrnn.LeakyRNN(3, 5, periods=(3, 2), form="potential", seed=3),
    "LSTMs: h c": fastrnn.DilatedRNN("lstm", 3, 5, (1, 2), seed=3),
    "GRUs: h": fastrnn.DilatedRNN("gru", 3, 5, (1, 2), seed=3),
}


@pytest.mark.parametrize("row", [slice(None), 0], ids=["batch", "one sequence"])
@pytest.mark.parametrize("name", STATES)
def test_run_continues_from_a_state(name, row, files):
    layer = STATES[name]
    layer.save("m.safetensors")
    x = np.load("x.npy")[:, row]
    np.save("first.npy", x[:4])
    np.save("second.npy", x[4:])
    run = ["run", "m.safetensors", "--quiet"]
    assert cli.main([*run, "first.npy", "-o", "y1.npy", "--state-out", "s.npz"]) == 0
    with np.load("s.npz") as archive:
        assert archive.files == name.rpartition(": ")[2].split()
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
    fastrnn.RNN(3, 5, periods=(1, 2)).save("clocks.safetensors")
    np.savez("late.npz", h=state, clock=np.array([0.5, 1.0]))


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
        ("clocks.safetensors x.npy --state only_h.npz -o y.npy", ["h, clock, got h"]),
        ("clocks.safetensors x.npy --state late.npz -o y.npy", ["clock", "integers", "float64"]),
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


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """Leave a directory with files of other systems as the current one."""
    monkeypatch.chdir(tmp_path)
    model = torch.nn.ModuleDict({"a": torch.nn.RNN(3, 4), "b": torch.nn.GRU(3, 4)})
    save_file(model.state_dict(), "two.safetensors")
    save_file(model["a"].state_dict(), "rnn.safetensors")
    torch.save(model.state_dict(), "two.pt")
    fastrnn.onnx.save(fastrnn.LSTM(3, 4, 2, seed=4), "stack.onnx")
    fastrnn.onnx.save(fastrnn.LSTM(3, 4, seed=5), "net.onnx")
    with h5py.File("net.weights.h5", "w") as file:
        arrays = convert.to_keras(fastrnn.GRU(3, 4, bias=False, reset_after=False, seed=6))
        file.update({f"layers/gru/cell/vars/{k}": array for k, array in enumerate(arrays)})
    Path("garbage.onnx").write_bytes(b"no protobuf")
    Path("garbage.keras").write_bytes(b"no zip")
    return model


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("two.safetensors out.safetensors --prefix b --batch-first", "GRU(3, 4, batch_first=True)"),
        (
            "two.safetensors out.safetensors --prefix a. --nonlinearity relu",
            "RNN(3, 4, nonlinearity='relu')",
        ),
        ("rnn.safetensors out.onnx --nonlinearity tanh", "RNN(3, 4)"),
        ("net.onnx out.safetensors", "LSTM(3, 4)"),
        ("stack.onnx out.safetensors --layer lstm_l1", "LSTM(4, 4)"),
        ("stack.onnx out.onnx", "LSTM(3, 4, num_layers=2)"),
        (
            "net.weights.h5 out.safetensors --activation relu --recurrent-activation sigmoid "
            "--no-reset-after",
            "GRU(3, 4, reset_after=False, activation='relu', bias=False, batch_first=True)",
        ),
    ],
)
def test_convert(arguments, expected, foreign, capsys):
    source, target, *options = arguments.split()
    assert cli.main(["convert", *arguments.split()]) == 0
    assert capsys.readouterr() == (f"{expected} in {target}\n", "")
    given = dict(zip(options[::2], options[1::2], strict=False))
    names = {"--prefix": "prefix", "--nonlinearity": "nonlinearity", "--layer": "layer"}
    names |= {"--activation": "activation", "--recurrent-activation": "recurrent_activation"}
    loaded = {names[option]: value for option, value in given.items() if option in names}
    loaded |= {"batch_first": True} if "--batch-first" in options else {}
    loaded |= {"reset_after": False} if "--no-reset-after" in options else {}
    layer, written = convert.load(source, **loaded), convert.load(target)
    assert repr(written) == repr(layer) == expected
    x = random_input(7, 2, layer.input_size)
    np.testing.assert_array_equal(written(x)[0], layer(x)[0])
    assert cli.main(["convert", *arguments.split(), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("two.pt out.onnx", ["two.pt: ", "pickle", "safetensors.torch.save_file"]),
        ("missing.onnx out.onnx", ["missing.onnx: No such file"]),
        ("missing.safetensors out.onnx", ["missing.safetensors: No such file"]),
        ("garbage.onnx out.onnx", ["garbage.onnx: "]),
        ("garbage.keras out.onnx", ["garbage.keras: "]),
        ("two.safetensors out.onnx", ["two.safetensors: prefix: ", "'a.', 'b.'"]),
        ("two.safetensors out.onnx --prefix c", ["two.safetensors: prefix: ", "'c.'"]),
        ("two.safetensors out.onnx --prefix a", ["nonlinearity: "]),
        ("two.safetensors out.onnx --nonlinearity elu", ["--nonlinearity", "elu"]),
        ("two.safetensors out.onnx --layer a", ["layer: not for .safetensors files"]),
        ("stack.onnx out.onnx --layer x", ["stack.onnx: layer: ", "lstm_l0"]),
        ("stack.onnx out.onnx --prefix x", ["prefix: not for .onnx files"]),
        ("net.weights.h5 out.onnx", ["net.weights.h5: ", "reset_after: "]),
        ("net.weights.h5 out.onnx --reset-after", ["net.weights.h5: ", "activation: "]),
        ("net.onnx out.txt", ["out.txt: ", ".safetensors or .onnx"]),
        ("net.onnx none/out.onnx", ["none/out.onnx: No such file"]),
        ("net.onnx none/out.safetensors", ["none/out.safetensors: No such file"]),
        ("net.onnx", ["OUT", "fastrnn convert --help"]),
    ],
)
def test_convert_errors(arguments, parts, foreign, capsys):
    assert cli.main(["convert", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastrnn: error: ")
    assert err.count("\n") == 1
    assert all(part in err for part in parts)
    assert not any(map(os.path.exists, ("out.onnx", "out.safetensors", "out.txt")))


def test_convert_what_onnx_does_not_have(files, capsys):
    fastrnn.LSTM(3, 5, proj_size=2).save("proj.safetensors")
    assert cli.main(["convert", "proj.safetensors", "out.onnx"]) == 2
    assert "out.onnx: " in (err := capsys.readouterr().err)
    assert "proj_size" in err
    assert not Path("out.onnx").exists()


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
