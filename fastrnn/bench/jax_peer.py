"""JAX: the equations as one compiled function, with lax.scan over time.

The input projection of all steps is one product before the scan, which is faster nearly everywhere
than one inside it. The number of threads is set before the process starts (`worker.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .cases import Case


def net(cell: str) -> Callable[..., Any]:
    """Return net(parameters, x, state) -> y of a cell with a product; state is a tuple."""
    import jax
    import jax.numpy as jnp

    def lstm(z: Any, state: Any, p: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(z + h @ p["weight_hh_l0"].T, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return h, c

    def gru(z: Any, state: Any, p: Any) -> Any:
        (h,) = state
        r_in, u_in, n_in = jnp.split(z, 3, axis=-1)
        r_h, u_h, n_h = jnp.split(h @ p["weight_hh_l0"].T + p["bias_hh_l0"], 3, axis=-1)
        r, u = jax.nn.sigmoid(r_in + r_h), jax.nn.sigmoid(u_in + u_h)
        n = jnp.tanh(n_in + r * n_h)
        return (n + u * (h - n),)

    def rnn(z: Any, state: Any, p: Any) -> Any:
        (h,) = state
        return (jnp.tanh(z + h @ p["weight_hh_l0"].T),)

    def leaky_rnn(z: Any, state: Any, p: Any) -> Any:
        (h,) = state
        (f,) = rnn(z, state, p)
        return (p["alpha_l0"] * h + (1 - p["alpha_l0"]) * f,)

    cell_step = {"lstm": lstm, "gru": gru, "rnn": rnn, "leaky_rnn": leaky_rnn}[cell]

    def run(p: Any, x: Any, state: Any) -> Any:
        def step(state: Any, z: Any) -> Any:
            state = cell_step(z, state, p)
            return state, state[0]

        projected = x @ p["weight_ih_l0"].T + p["bias_ih_l0"]
        if cell != "gru":  # its n needs the other bias in the step
            projected += p["bias_hh_l0"]
        return jax.lax.scan(step, tuple(a[0] for a in state), projected)[1]

    return run


def prepare_jax(case: Case, threads: int) -> Callable[[], Any]:
    """Call the compiled forward."""
    import jax

    forward = jax.jit(net(case.cell))
    zeros = tuple(np.zeros_like(a) for a in case.state())
    arguments = jax.device_put((case.parameters(), case.x(), zeros))
    return lambda: jax.block_until_ready(forward(*arguments))


class JaxStep:
    """A compiled function of y and the gradients, by jax.vjp."""

    def __init__(self, case: Case, threads: int) -> None:
        import jax

        run = net(case.cell)

        def train(p: Any, x: Any, state: Any, dy: Any) -> Any:
            y, pull_back = jax.vjp(run, p, x, state)
            return y, pull_back(dy)

        self._train = jax.jit(train)
        self._wait = jax.block_until_ready
        self._arguments = jax.device_put((case.parameters(), case.x(), case.state(), case.dy()))

    def __call__(self) -> None:
        """Run one step."""
        self._found = None
        self._found = self._wait(self._train(*self._arguments))

    def results(self) -> dict[str, Any]:
        """Return what the last step gave."""
        assert self._found is not None
        y, (parameters, dx, state) = self._found
        found = {"y": y, "dx": dx} | {"d" + name: a for name, a in parameters.items()}
        return found | dict(zip(("dh0", "dc0"), state, strict=False))
