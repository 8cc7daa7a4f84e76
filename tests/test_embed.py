"""The C library by itself: the documented command line, and the same bits as Python."""

import shutil
import subprocess
from glob import glob
from pathlib import Path

import numpy as np
import pytest

import fastrnn

ROOT = Path(__file__).resolve().parents[1]
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
SOURCES = sorted(glob(str(ROOT / "csrc/*.c")) + glob(str(ROOT / "csrc/simd/*.c")))


def compilers():
    """gcc and clang where there are, else the system's compiler."""
    return [name for name in ("gcc", "clang") if shutil.which(name)] or ["cc"]


@pytest.fixture(scope="session", params=compilers())
def embed(request, tmp_path_factory):
    program = tmp_path_factory.mktemp("embed") / "embed"
    # the documented command with the first compiler; with the other one it need not take as long
    level = ["-O3"] if request.param == compilers()[0] else ["-O1", "-DUNROLL="]
    command = [request.param, *level, "-ffp-contract=off", f"-I{ROOT / 'csrc'}", *STRICT]
    subprocess.run(
        [*command, str(ROOT / "examples/embed/embed.c"), *SOURCES, "-o", str(program)], check=True
    )
    return program


LAYERS = {
    "lstm": lambda: fastrnn.LSTM(5, 37, 2, seed=1),
    "projection": lambda: fastrnn.LSTM(5, 37, proj_size=20, peephole=True, cell_clip=0.1, seed=1),
    "coupled": lambda: fastrnn.LSTM(5, 37, coupled=True, gate_activation="hard_sigmoid", seed=1),
    "gru": lambda: fastrnn.GRU(5, 37, 2, clip=0.3, seed=6),
    "gru_before": lambda: fastrnn.GRU(5, 37, reset_after=False, activation=("elu", 0.5), seed=6),
    "mingru": lambda: fastrnn.MinGRU(5, 37, 2, seed=7),
    "rnn": lambda: fastrnn.RNN(1, 16, nonlinearity="relu", seed=2),
    "rate": lambda: fastrnn.LeakyRNN(3, 50, alpha=np.linspace(0, 1, 50), seed=3),
    "potential": lambda: fastrnn.LeakyRNN(3, 50, alpha=0.8, form="potential", seed=4),
    "leaky": lambda: fastrnn.Leaky(23, alpha=0.9),
}


@pytest.mark.parametrize("name", LAYERS)
def test_same_bits_as_python(embed, tmp_path, name):
    layer = LAYERS[name]()
    layer.save(tmp_path / "model.safetensors")
    x = np.random.default_rng(5).standard_normal((40, layer.input_size)).astype(np.float32)
    done = subprocess.run(
        [embed, tmp_path / "model.safetensors"], input=x.tobytes(), capture_output=True, check=True
    )
    y = layer(x)[0]
    assert np.array_equal(np.frombuffer(done.stdout, np.float32).reshape(y.shape), y)


def test_message_for_a_bad_file(embed, tmp_path):
    (tmp_path / "bad").write_bytes(b"not a model")
    done = subprocess.run([embed, tmp_path / "bad"], input=b"", capture_output=True)
    assert done.returncode == 1
    assert done.stderr.startswith(b"embed: ")
    assert done.stderr.count(b"\n") == 1


def test_library_needs_nothing_but_memory_functions(tmp_path):
    """No libm, no malloc, no stdio: what the objects leave undefined is named here."""
    options = ["-std=c11", "-O1", "-ffp-contract=off", "-DUNROLL=", "-DFRNN_FREESTANDING"]
    for source in SOURCES:
        subprocess.run(["cc", *options, "-c", source], cwd=tmp_path, check=True)
    objects = sorted(map(str, tmp_path.glob("*.o")))
    table = subprocess.run(["nm", *objects], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in table.splitlines() if line and not line.endswith(":")]
    defined = {row[-1] for row in rows if row[-2] in "TDRBCV"}
    undefined = {row[-1] for row in rows if row[-2] == "U"} - defined
    memory = {"memcpy", "memset", "memcmp", "memmove", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}
    assert undefined <= memory
    assert all(name.startswith("frnn_") for name in defined)
