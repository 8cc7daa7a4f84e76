"""The command ``fastrnn``.

Exit codes: 0 done; 1 the demo or the benchmark found something wrong; 2 an error of the user, told
in one line on stderr; 130 interrupted; 141 the reader of the output went away.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import fastrnn
from fastrnn import _core, _structure
from fastrnn._base import Layer

INTERRUPTED = 130  # as a shell reports SIGINT
PIPE_CLOSED = 141  # and SIGPIPE


class UserError(Exception):
    """Something the user can put right; its text is the whole message."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line like any other error: in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (try: {self.prog} --help)")


@contextmanager
def _concerning(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn these errors, and those of the operating system, into a UserError about the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except errors as error:
        raise UserError(f"{path}: {error}") from error


# np.load has no exception of its own for a broken file: it may raise any.


def _load_array(path: Path) -> np.ndarray:
    with _concerning(path, Exception):
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("expected one array (.npy), got an archive of arrays (.npz)")
    return array


def _load_state(path: Path, names: tuple[str, ...]) -> Any:
    with _concerning(path, Exception):
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("expected an archive of arrays (.npz), got one array (.npy)")
        with archive:
            if sorted(archive.files) != sorted(names):
                found = ", ".join(archive.files) or "none"
                raise ValueError(f"expected the arrays {', '.join(names)}, got {found}")
            arrays = tuple(archive[name] for name in names)
    return arrays if len(arrays) > 1 else arrays[0]


def _state_names(layer: Layer) -> tuple[str, ...]:
    """The arrays of a state, in their order."""
    return ("h", "c")[: layer._states] + (("clock",) if layer.periods is not None else ())


def info(args: argparse.Namespace) -> int:
    """Print versions, instruction sets and build, or what is in a model file."""
    rows = _build_rows() if args.model is None else _model_rows(args.model)
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        print(f"{name:<{width}}{value}")
    return 0


def _build_rows() -> dict[str, object]:
    rows: dict[str, object] = {
        "fastrnn": fastrnn.__version__,
        "Python": f"{platform.python_version()} ({platform.machine()}, {platform.system()})",
        "NumPy": np.__version__,
        "ISA in use": fastrnn.isa(),
        "ISA available": ", ".join(fastrnn.available_isas()),
        "threads": fastrnn.get_num_threads(),
    }
    rows.update((name.replace("_", " "), value) for name, value in _core.build_info().items())
    return rows


def _model_rows(path: Path) -> dict[str, object]:
    """What a model file holds, with its time structure and the state that it takes."""
    with _concerning(path, ValueError):
        layer = fastrnn.load(path)
    rows: dict[str, object] = {
        "layer": repr(layer),
        "dtype": layer.dtype.name,
        "parameters": sum(array.size for array in layer.parameters().values()),
    }
    if isinstance(layer, fastrnn.DilatedRNN):
        rows["dilations"] = _listed(layer.dilations)
    elif layer.delays != _structure.PLAIN_DELAYS:
        rows["delays"] = _listed(layer.delays)
    if layer.periods is not None and layer.group_sizes is not None:
        rows["periods"] = _listed(layer.periods)
        rows["group sizes"] = _listed(layer.group_sizes)
        rows["connectivity"] = layer.connectivity
    if layer.recurrent_mask is not None:
        rows["recurrent mask"] = f"{100 * layer.recurrent_mask.mean():.3g} % of the connections"
    batch: Any = ("B",)
    shapes = [*layer._state_shapes(batch), batch]
    rows["state"] = "; ".join(
        f"{name} [{_listed(shape)}]"
        for name, shape in zip(_state_names(layer), shapes, strict=False)
    )
    return rows


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def demo(args: argparse.Namespace) -> int:
    """Classify handwritten digits."""
    from fastrnn import demo

    return demo.main()


def run(args: argparse.Namespace) -> int:
    """Run a model file over an input file."""
    with _concerning(args.model, ValueError):
        layer = fastrnn.load(args.model)
    names = _state_names(layer)
    x = _load_array(args.input)
    state = _load_state(args.state, names) if args.state else None
    try:
        y, state = layer(x, state)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    with _concerning(args.output), open(args.output, "wb") as file:
        np.save(file, y, allow_pickle=False)
    if args.state_out:
        arrays = state if isinstance(state, tuple) else (state,)
        with _concerning(args.state_out), open(args.state_out, "wb") as file:
            np.savez(file, **dict(zip(names, arrays, strict=True)))  # type: ignore[arg-type]
    if not args.quiet:
        print(f"{layer!r}: {list(x.shape)} -> {list(y.shape)} {y.dtype} in {args.output}")
    return 0


def convert(args: argparse.Namespace) -> int:
    """Write the layer in a file of one kind as a file of another."""
    from fastrnn import convert

    names = ["layer", "prefix", "batch_first", "nonlinearity"]
    names += ["activation", "recurrent_activation", "reset_after"]
    with _concerning(args.input, ValueError, TypeError, ImportError):
        layer = convert.load(args.input, **{name: getattr(args, name) for name in names})
    with _concerning(args.output, ValueError, TypeError, ImportError):
        convert.save(layer, args.output)
    if not args.quiet:
        print(f"{layer!r} in {args.output}")
    return 0


def _add_convert(command: argparse.ArgumentParser) -> None:
    """The arguments of ``convert``."""
    command.add_argument(
        "input",
        type=Path,
        metavar="IN",
        help=".safetensors of fastrnn or with a state_dict of PyTorch, .onnx, .keras, .weights.h5",
    )
    command.add_argument(
        "output", type=Path, metavar="OUT", help=".safetensors of fastrnn, or .onnx"
    )
    command.add_argument(
        "--layer", metavar="NAME", help="ONNX, Keras: which node or layer, if there are several"
    )
    torch = command.add_argument_group("a state_dict of PyTorch, which tells its weights only")
    torch.add_argument(
        "--prefix", metavar="NAME", help="where in the model the layer is, as encoder.rnn"
    )
    torch.add_argument(
        "--batch-first",
        action="store_const",
        const=True,
        help="the layer reads and writes [B, T, ...]",
    )
    torch.add_argument("--nonlinearity", choices=("tanh", "relu"), help="needed for an RNN")
    keras = command.add_argument_group(".weights.h5, which tells its weights only")
    keras.add_argument("--activation", metavar="NAME", help="Keras' name; needed")
    keras.add_argument(
        "--recurrent-activation", metavar="NAME", help="likewise; needed but for a SimpleRNN"
    )
    keras.add_argument(
        "--reset-after",
        action=argparse.BooleanOptionalAction,
        help="needed for a GRU without biases",
    )
    command.add_argument("--quiet", action="store_true", help="print nothing")
    command.set_defaults(function=convert)


def _make_parser(commands: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser; the options of ``bench`` are filled in if commands has it."""
    parser = _Parser(prog="fastrnn", description="Recurrent networks on the CPU.")
    parser.add_argument("--version", action="version", version=f"fastrnn {fastrnn.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    text = "print version, instruction sets and build, or what a model file holds"
    command = subparsers.add_parser("info", help=text, description=text.capitalize() + ".")
    command.add_argument(
        "model",
        type=Path,
        metavar="MODEL.safetensors",
        nargs="?",
        help="print this layer's options, its time structure and the arrays of its state",
    )
    command.set_defaults(function=info)

    text = "classify handwritten digits with an LSTM, in fastrnn and in NumPy"
    command = subparsers.add_parser(
        "demo",
        help=text,
        description=text[0].upper() + text[1:] + ". Exit code 0: accurate, and both agree; else 1.",
    )
    command.set_defaults(function=demo)

    command = subparsers.add_parser(
        "run",
        help="run a model file over an input file",
        description="Run a model file over an input file. The input has the model's dtype, or "
        "one that converts to it without loss.",
    )
    command.add_argument(
        "model", type=Path, metavar="MODEL.safetensors", help="as layer.save() writes it"
    )
    command.add_argument(
        "input",
        type=Path,
        metavar="IN.npy",
        help="[T, B, I], [T, I], or [B, T, I] for a model with batch_first",
    )
    command.add_argument(
        "-o", "--output", type=Path, metavar="OUT.npy", required=True, help="where the output goes"
    )
    command.add_argument(
        "--state",
        type=Path,
        metavar="IN.npz",
        help="initial state: array h, of an LSTM also c, with clocks also clock, each as the "
        "layer takes it; default: zeros",
    )
    command.add_argument(
        "--state-out", type=Path, metavar="OUT.npz", help="where the final state goes"
    )
    command.add_argument("--quiet", action="store_true", help="print nothing")
    command.set_defaults(function=run)

    text = "convert a layer of PyTorch, ONNX or Keras to a model file, or to ONNX"
    command = subparsers.add_parser(
        "convert",
        help=text,
        description=text[0].upper() + text[1:] + ". What fastrnn cannot do exactly is an error. "
        "Pickles, as .pt files, are not read: that would run whatever code is in them.",
    )
    _add_convert(command)

    text = "measure the speed of fastrnn, NumPy and the peers that are installed"
    command = subparsers.add_parser(
        "bench", help=text, description=text[0].upper() + text[1:] + "."
    )
    if "bench" in commands:
        from fastrnn import bench

        bench.add_arguments(command)
        command.set_defaults(function=bench.main)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, ``sys.argv`` by default, and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        try:
            args = _make_parser(argv).parse_args(argv)
            return args.function(args)
        finally:
            sys.stdout.flush()
    except UserError as error:
        print("fastrnn: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout again at exit: leave it nothing that can fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
