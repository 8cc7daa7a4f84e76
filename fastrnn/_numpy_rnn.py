"""Recurrent layers in plain NumPy, as fast as plain NumPy makes them.

The baseline of ``fastrnn demo`` and ``fastrnn bench``, and no oracle: its rounding is whatever the
BLAS and the ufuncs of this NumPy do. Each factory takes the parameters of a layer with one
layer and one direction (:meth:`fastrnn.LSTM.parameters`, or arrays of the same names), does once
what depends on the weights only, and returns ``forward(x, state=None) -> (y, state)`` over
time-major x [T, B, I]. What a forward does about speed:

* the input projection of all steps is one matrix product,
* a step is one matrix product into a buffer and point-wise work in place, without allocation,
* LSTM's sigmoids are ``(1 + tanh(z / 2)) / 2`` with the halving of z folded into the weights, and
  its gates lie in the order i f o g: one tanh does all four, one scaling the three sigmoids,
* buffers are kept for the next call of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Parameters = Mapping[str, np.ndarray]
State = Any  # h [1, B, H], or (h, c)
Forward = Callable[..., tuple[np.ndarray, State]]

_NAMES = {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "alpha_l0"}


def numpy_lstm(parameters: Parameters) -> Forward:
    """Return the forward of an LSTM with these parameters; its state is (h, c)."""
    weights = _Weights(parameters, gates=4)
    size = weights.hidden_size
    order = np.arange(4 * size).reshape(4, size)[[0, 1, 3, 2]].ravel()  # i f g o -> i f o g
    scale = np.repeat(np.array([0.5, 0.5, 0.5, 1], weights.dtype), size)
    weights.permute(order, scale)

    def forward(x: np.ndarray, state: State = None) -> tuple[np.ndarray, State]:
        projected, z, y = weights.project(x)
        h0, c0 = (None, None) if state is None else state
        h, c = weights.start(h0, y), weights.start(c0, y).copy()
        sigmoids, g = z[:, : 3 * size], z[:, 3 * size :]
        i, f, o = (z[:, k * size : (k + 1) * size] for k in range(3))
        for z_t, y_t in zip(projected, y, strict=True):
            np.matmul(h, weights.recurrent, out=z)
            np.add(z, z_t, out=z)
            np.tanh(z, out=z)
            np.multiply(sigmoids, 0.5, out=sigmoids)
            np.add(sigmoids, 0.5, out=sigmoids)
            np.multiply(c, f, out=c)
            np.multiply(i, g, out=i)
            np.add(c, i, out=c)
            np.tanh(c, out=g)
            np.multiply(o, g, out=y_t)
            h = y_t
        return y, (h[None].copy(), c[None])

    return forward


def numpy_rnn(parameters: Parameters, nonlinearity: str = "tanh") -> Forward:
    """Return the forward of an Elman net with these parameters; its state is h."""
    weights = _Weights(parameters, gates=1)
    activate = _activation(nonlinearity)

    def forward(x: np.ndarray, state: State = None) -> tuple[np.ndarray, State]:
        projected, z, y = weights.project(x)
        h = weights.start(state, y)
        for z_t, y_t in zip(projected, y, strict=True):
            np.matmul(h, weights.recurrent, out=z)
            np.add(z, z_t, out=z)
            activate(z, y_t)
            h = y_t
        return y, h[None].copy()

    return forward


def numpy_leaky_rnn(parameters: Parameters, nonlinearity: str = "tanh") -> Forward:
    """Return the forward of a leaky net in the form "rate"; its state is h."""
    weights = _Weights(parameters, gates=1)
    activate = _activation(nonlinearity)
    keep = np.asarray(parameters["alpha_l0"])
    gain = 1 - keep

    def forward(x: np.ndarray, state: State = None) -> tuple[np.ndarray, State]:
        projected, z, y = weights.project(x)
        h = weights.start(state, y)
        for z_t, y_t in zip(projected, y, strict=True):
            np.matmul(h, weights.recurrent, out=z)
            np.add(z, z_t, out=z)
            activate(z, z)
            np.multiply(z, gain, out=z)
            np.multiply(h, keep, out=y_t)
            np.add(y_t, z, out=y_t)
            h = y_t
        return y, h[None].copy()

    return forward


class _Weights:
    """Weights in the layout of the products, and the buffers of one input shape."""

    def __init__(self, parameters: Parameters, gates: int) -> None:
        unknown = sorted(set(parameters) - _NAMES)
        if unknown:
            raise ValueError(f"parameters: expected one layer, one direction; got {unknown[0]}")
        self.input = np.ascontiguousarray(np.transpose(parameters["weight_ih_l0"]))  # [I, G * H]
        self.recurrent = np.ascontiguousarray(np.transpose(parameters["weight_hh_l0"]))
        self.dtype = self.input.dtype
        self.hidden_size = self.input.shape[1] // gates
        self.bias = np.zeros(self.input.shape[1], self.dtype)
        for name in ("bias_ih_l0", "bias_hh_l0"):
            if name in parameters:
                self.bias += parameters[name]
        self._shape: tuple[int, ...] = ()

    def permute(self, order: np.ndarray, scale: np.ndarray) -> None:
        """Reorder the gates' columns, then scale each."""
        self.input = self.input[:, order] * scale
        self.recurrent = self.recurrent[:, order] * scale
        self.bias = self.bias[order] * scale

    def project(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return Wx + b [T, B, G * H], a buffer [B, G * H] and a new y [T, B, H]."""
        steps, batch, input_size = x.shape
        columns = self.input.shape[1]
        if x.shape != self._shape:
            self._projected = np.empty((steps, batch, columns), self.dtype)
            self._z = np.empty((batch, columns), self.dtype)
            self._shape = x.shape
        rows = self._projected.reshape(steps * batch, columns)
        np.matmul(x.reshape(steps * batch, input_size), self.input, out=rows)
        np.add(rows, self.bias, out=rows)
        y = np.empty((steps, batch, self.hidden_size), self.dtype)
        return self._projected, self._z, y

    def start(self, state: np.ndarray | None, y: np.ndarray) -> np.ndarray:
        """Return a state array [1, B, H] as [B, H]; zeros for None."""
        return np.zeros(y.shape[1:], self.dtype) if state is None else np.asarray(state)[0]


def _activation(name: str) -> Callable[[np.ndarray, np.ndarray], object]:
    """Return a function (z, out) that writes the activation of z to out."""
    if name == "tanh":
        return np.tanh
    if name == "relu":
        return lambda z, out: np.maximum(z, 0, out=out)
    if name == "identity":
        return lambda z, out: np.copyto(out, z)
    raise ValueError(f'nonlinearity: expected "tanh", "relu" or "identity", got {name!r}')
