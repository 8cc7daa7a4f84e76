"""What a Reservoir refuses, by name and with the shape that it expects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from support import refuses

from fastrnn.reservoir import Reservoir, spectral_radius

X, Y = np.ones((9, 2), np.float32), np.ones((9, 3))
BATCH = np.ones((9, 4, 2)), np.ones((9, 4, 3))


def fitted(**options: Any) -> Reservoir:
    return Reservoir(2, 20, **{"seed": 0, "ridge": 1.0} | options).fit(X, Y)


PARAMETERS: list[tuple[dict[str, Any], type[Exception], tuple[Any, ...]]] = [
    ({"input_size": 0}, ValueError, ("input_size", 0)),
    ({"hidden_size": 2.5}, TypeError, ("hidden_size",)),
    ({"output_size": 0}, ValueError, ("output_size",)),
    ({"alpha": 1.5}, ValueError, ("alpha",)),
    ({"alpha": np.zeros(19)}, ValueError, ("alpha", (20,), (19,))),
    ({"density": 0.0}, ValueError, ("density",)),
    ({"density": 1.1}, ValueError, ("density", 1.1)),
    ({"input_density": -1.0}, ValueError, ("input_density",)),
    ({"spectral_radius": -0.1}, ValueError, ("spectral_radius",)),
    ({"spectral_radius": np.inf}, ValueError, ("spectral_radius",)),
    ({"input_scale": np.ones(3)}, ValueError, ("input_scale", (2,), (3,))),
    ({"input_scale": "1"}, TypeError, ("input_scale",)),
    ({"input_scale": np.nan}, TypeError, ("input_scale",)),
    ({"bias_scale": -1}, ValueError, ("bias_scale",)),
    ({"feedback_scale": "no"}, TypeError, ("feedback_scale",)),
    ({"readout_input": 1}, TypeError, ("readout_input",)),
    ({"ridge": -1e-9}, ValueError, ("ridge",)),
    ({"warmup": -1}, ValueError, ("warmup",)),
    ({"warmup": True}, TypeError, ("warmup",)),
    ({"warmup": 1.5}, TypeError, ("warmup",)),
    ({"nonlinearity": "sine"}, ValueError, ("nonlinearity",)),
    ({"form": "fast"}, ValueError, ("form",)),
    ({"group": 0}, ValueError, ("group",)),
    ({"dtype": np.float16}, TypeError, ("dtype",)),
    ({"seed": -3}, ValueError, ("seed",)),
    ({"seed": "a"}, TypeError, ("seed",)),
    ({"weights": [1]}, TypeError, ("weights",)),
    ({"weights": {"weight_ih": np.ones((20, 2))}}, ValueError, ("weights", "weight_hh")),
]


@pytest.mark.parametrize(("given", "error", "facts"), PARAMETERS, ids=str)
def test_parameters(given: dict[str, Any], error: type, facts: tuple[Any, ...]) -> None:
    sizes = {"input_size": 2, "hidden_size": 20}
    with refuses(error, *facts):
        Reservoir(**sizes | given)
    net = fitted()
    before = net.get_params()
    with refuses(error, *facts):
        net.set_params(**{"ridge": 5.0} | given)
    assert net.get_params() == before
    assert net.readout is not None


def test_unknown_parameters() -> None:
    with refuses(ValueError, "leak_rate", "alpha"):
        fitted().set_params(leak_rate=0.5)
    with pytest.raises(TypeError, match="leak_rate"):
        Reservoir(2, 20, leak_rate=0.5)


MATRICES: list[tuple[dict[str, Any], type[Exception], tuple[Any, ...]]] = [
    ({"weight_ih": np.ones(20)}, ValueError, ("weight_ih", (20,))),
    ({"weight_ih": np.ones((19, 2))}, ValueError, ("weight_hh", (19, 19), (20, 20))),
    ({"weight_hh": np.ones((20, 19))}, ValueError, ("weight_hh", (20, 20), (20, 19))),
    ({"weight_hh": np.full((20, 20), np.nan)}, TypeError, ("weight_hh",)),
    ({"weight_hh": 1j * np.eye(20)}, TypeError, ("weight_hh", "complex128")),
    ({"bias": np.ones((20, 1))}, ValueError, ("bias", (20,), (20, 1))),
    ({"weight_fb": np.ones(20)}, ValueError, ("weight_fb", (20,))),
    ({"weight_fb": np.ones((20, 3)), "output_size": 2}, ValueError, ("weight_fb", (20, 2))),
    ({"weight_out": np.ones((3, 21))}, ValueError, ("weight_out", 20, (3, 21))),
    ({"weight_out": np.ones((3, 20)), "output_size": 2}, ValueError, ("weight_out", (2, 20))),
    ({"weight_out": np.ones((3, 20)), "bias_out": np.ones(2)}, ValueError, ("bias_out", 3, 2)),
    ({"bias_out": np.ones(2)}, ValueError, ("bias_out", "weight_out")),
    ({"density": 0.5}, ValueError, ("density", 0.5)),
    ({"feedback_scale": 0.5}, ValueError, ("feedback_scale", 0.5)),
    ({"alpha": np.ones(3)}, ValueError, ("alpha", (20,), (3,))),
]


@pytest.mark.parametrize(("given", "error", "facts"), MATRICES, ids=lambda v: str(v)[:30])
def test_matrices(given: dict[str, Any], error: type, facts: tuple[Any, ...]) -> None:
    usual = {"weight_ih": np.ones((20, 2)), "weight_hh": np.eye(20)}
    with refuses(error, *facts):
        Reservoir.from_matrices(**usual | given)


CALLS: list[tuple[Callable[[Reservoir], Any], type[Exception], tuple[Any, ...]]] = [
    (lambda r: r.run(np.ones((9, 3))), ValueError, ("x", "I = 2", (9, 3))),
    (lambda r: r.run(np.ones(9)), ValueError, ("x", (9,))),
    (lambda r: r.run(1j * X), TypeError, ("x", "complex64")),
    (lambda r: r.run(X, np.ones(19)), ValueError, ("state", (20,), (19,))),
    (lambda r: r.run(BATCH[0], np.ones(20)), ValueError, ("state", (4, 20), (20,))),
    (lambda r: r.run(X, y=Y), ValueError, ("y", "feedback")),
    (lambda r: r.fit(X, Y[:, 0]), ValueError, ("y", (9,))),
    (lambda r: r.fit(X, Y[:8]), ValueError, ("y", 9, (8, 3))),
    (lambda r: r.fit(X, Y[:, :0]), ValueError, ("y", (9, 0))),
    (lambda r: r.fit(BATCH[0], Y), ValueError, ("y", "[T, B, O]", (9, 3))),
    (lambda r: r.fit(X, np.full((9, 1), "a")), TypeError, ("y",)),
    (lambda r: r.fit(X, Y, warmup=9), ValueError, ("x", 9)),
    (lambda r: r.fit(X, Y, warmup=-1), ValueError, ("warmup", -1)),
    (lambda r: r.fit(X[:0], Y[:0]), ValueError, ("x", "none")),
    (lambda r: r.fit([X, X[:2]], [Y, Y[:2]], warmup=10), ValueError, ("x", 10)),
    (lambda r: r.fit(X, Y, lengths=[9]), ValueError, ("lengths",)),
    (lambda r: r.fit(*BATCH, lengths=[9, 9, 9]), ValueError, ("lengths", 4)),
    (lambda r: r.fit(*BATCH, lengths=[9, 9, 9, 10]), ValueError, ("lengths", 9, 10)),
    (lambda r: r.fit(*BATCH, lengths=[9.0] * 4), ValueError, ("lengths", "float64")),
    (lambda r: r.fit([], []), ValueError, ("x", "one series")),
    (lambda r: r.fit([X], Y), ValueError, ("y", "1 series")),
    (lambda r: r.fit([X, X], [Y]), ValueError, ("y", 2, 1)),
    (lambda r: r.fit([X, X[:4]], [Y, Y]), ValueError, ("y[1]", 4, (9, 3))),
    (lambda r: r.fit([X, X[:, :1]], [Y, Y]), ValueError, ("x[1]", (9, 1))),
    (lambda r: r.fit([X, X], [Y, Y[:, :1]]), ValueError, ("y[1]", "O = 3", (9, 1))),
    (lambda r: r.fit([X], [Y], lengths=[9]), ValueError, ("lengths",)),
    (lambda r: r.partial_fit(X, Y[:, :1]), ValueError, ("y", "O = 3", (9, 1))),
    (lambda r: r.score(X, Y[:, :1]), ValueError, ("y", "O = 3", (9, 1))),
    (lambda r: r.score(X, Y, 9), ValueError, ("x", 9)),
    (lambda r: r.predict([X, X], np.ones(20)), ValueError, ("state",)),
    (lambda r: r.predict(BATCH[0], np.ones((3, 20))), ValueError, ("state", (4, 20), (3, 20))),
    (lambda r: r.generate(5, X), ValueError, ("generate", "O = 3", "I = 2")),
    (lambda r: r.stream(0), ValueError, ("batch_size",)),
    (lambda r: r.stream().step(np.ones(3)), ValueError, ("x", (1, 2), (3,))),
    (lambda r: r.stream(2).step(np.ones(2)), ValueError, ("x", (2, 2), (2,))),
    (lambda r: r.stream().step(np.ones(2) * 1j), TypeError, ("x",)),
    (lambda r: r.stream().step(np.ones(2), np.ones(3)), TypeError, ("out", "float32")),
    (lambda r: r.stream().step(np.ones(2), np.ones(2, "f")), ValueError, ("out", (3,), (2,))),
]


@pytest.mark.parametrize(("call", "error", "facts"), CALLS)
def test_calls(call: Callable[[Reservoir], Any], error: type, facts: tuple[Any, ...]) -> None:
    net = fitted()
    weights = net.weight_out
    with refuses(error, *facts):
        call(net)
    assert net.weight_out is weights
    assert net._moments.count == 9


def test_values_that_are_not_finite() -> None:
    net, gap = fitted(), np.ones((30, 3))
    x = np.ones((30, 2))
    x[7, 1] = np.nan
    with refuses(ValueError, "x", "nan", "step 7", "series 0"):
        net.fit(x, gap, warmup=10)
    with refuses(ValueError, "x", "step 7", "series 1"):
        net.fit([X, x], [Y, gap])
    gap[5, 2] = np.inf
    x[7, 1] = 1
    with refuses(ValueError, "y", "inf", "step 5"):
        net.fit(x, gap)
    net.fit(x, gap, warmup=6)
    with refuses(ValueError, "y", "step 5"):  # fed back
        fitted(feedback_scale=0.1).fit(x, gap, warmup=6)


def test_before_there_is_a_readout() -> None:
    net = Reservoir(2, 20, seed=0)
    for call in (net.predict, net.stream, net.generate, net.score):
        arguments = {"stream": (), "generate": (5, X), "score": (X, Y)}.get(call.__name__, (X,))
        with refuses(RuntimeError, call.__name__, "fit"):
            call(*arguments)
    with refuses(RuntimeError, "solve", "partial_fit"):
        net.solve()
    with refuses(RuntimeError, "solve", "partial_fit"):
        net.partial_fit(X, Y, warmup=20).solve()


def test_feedback() -> None:
    net = Reservoir(2, 20, feedback_scale=0.1, seed=0)
    with refuses(ValueError, "output_size"):
        _ = net.layer
    with refuses(RuntimeError, "run", "no readout"):
        net.run(X)
    net = Reservoir(2, 20, feedback_scale=0.1, output_size=3, seed=0)
    with refuses(ValueError, "y", "O = 3", (9, 1)):
        net.run(X, y=Y[:, :1])
    net.fit(X, Y)
    with refuses(TypeError, "state", "(h, y)"):
        net.run(X, np.ones(20))
    with refuses(ValueError, "state[1]", (3,), (2,)):
        net.run(X, (np.ones(20), np.ones(2)))


def test_generate() -> None:
    net = Reservoir(2, 20, seed=0, ridge=1.0).fit(X, X)
    with refuses(ValueError, "steps"):
        net.generate(-1, X)
    for x in (None, X[:0]):
        with refuses(ValueError, "x", "state"):
            net.generate(5, x)
    for options in ({"readout_input": True}, {"form": "potential"}):
        net = Reservoir(2, 20, seed=0, ridge=1.0, **options).fit(X, X)
        with refuses(ValueError, "x", "state"):
            net.generate(5, state=np.ones(20))


def test_spectral_radius() -> None:
    for matrix in (np.ones((3, 4)), np.ones(3), np.ones((0, 0)), scipy.sparse.eye(3, 2)):
        with refuses(ValueError, "matrix", matrix.shape):
            spectral_radius(matrix)
    with refuses(TypeError, "matrix", "complex128"):
        spectral_radius(1j * np.eye(3))
    with refuses(ValueError, "matrix", "finite"):
        spectral_radius(np.full((3, 3), np.inf))
