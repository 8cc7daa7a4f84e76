"""A GRU in plain NumPy, as fast as plain NumPy makes it: see `fastrnn._numpy_rnn` for how."""

from __future__ import annotations

import numpy as np

from .._numpy_rnn import Forward, Parameters, State, _Weights


def numpy_gru(parameters: Parameters) -> Forward:
    """Return the forward of a GRU with biases (r after the product); its state is h."""
    weights = _Weights(parameters, gates=3)
    size = weights.hidden_size
    n_bias = parameters["bias_hh_l0"][2 * size :]
    weights.bias[2 * size :] -= n_bias  # it belongs to the product that r scales
    # Sigmoids are (1 + tanh(z / 2)) / 2.
    scale = np.repeat(np.array([0.5, 0.5, 1], weights.dtype), size)
    weights.permute(np.arange(3 * size), scale)

    def forward(x: np.ndarray, state: State = None) -> tuple[np.ndarray, State]:
        projected, z, y = weights.project(x)
        h = weights.start(state, y)
        sigmoids, n = z[:, : 2 * size], z[:, 2 * size :]
        r, keep = z[:, :size], z[:, size : 2 * size]
        for z_t, y_t in zip(projected, y, strict=True):
            np.matmul(h, weights.recurrent, out=z)
            np.add(sigmoids, z_t[:, : 2 * size], out=sigmoids)
            np.tanh(sigmoids, out=sigmoids)
            np.multiply(sigmoids, 0.5, out=sigmoids)
            np.add(sigmoids, 0.5, out=sigmoids)
            np.add(n, n_bias, out=n)
            np.multiply(n, r, out=n)
            np.add(n, z_t[:, 2 * size :], out=n)
            np.tanh(n, out=n)
            np.subtract(h, n, out=y_t)
            np.multiply(y_t, keep, out=y_t)
            np.add(y_t, n, out=y_t)
            h = y_t
        return y, h[None].copy()

    return forward
