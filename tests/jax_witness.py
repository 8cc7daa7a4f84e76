"""Gradients by JAX, of lax.scan over the equations.

JAX starts threads, with which a later fork could hang: whoever wants gradients of it calls
jax_gradients in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from reference_backward import Gradients
from support import Net, map_state, pack, unpack
from witnesses import stack

jax.config.update("jax_platforms", "cpu")

JAX_ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "identity": lambda v: v}


def jax_step(net: Net, p: dict[str, Any], suffix: str) -> Callable[..., Any]:
    """The step of a cell as lax.scan wants it: (state, x) -> (state, output)."""
    f = JAX_ACTIVATIONS[net.nonlinearity]
    a = p.get("alpha" + suffix, p.get("alpha"))

    def v(x: Any, h: Any) -> Any:
        wx = jnp.einsum("bi,ji->bj", x, p["weight_ih" + suffix])
        uh = jnp.einsum("bh,jh->bj", h, p["weight_hh" + suffix])
        bias = p["bias_ih" + suffix] + p["bias_hh" + suffix] if net.bias else 0.0
        return wx + uh + bias

    def lstm(state: Any, x: Any) -> Any:
        h, c = state
        i, forget, g, o = jnp.split(v(x, h), 4, axis=-1)
        c = jax.nn.sigmoid(forget) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return [h, c], h

    def rnn(state: Any, x: Any) -> Any:
        h = f(v(x, state[0]))
        return [h], h

    def leaky_rate(state: Any, x: Any) -> Any:
        h = a * state[0] + (1 - a) * f(v(x, state[0]))
        return [h], h

    def leaky_potential(state: Any, x: Any) -> Any:
        u = a * state[0] + (1 - a) * v(x, f(state[0]))
        return [u], f(u)

    def leaky(state: Any, x: Any) -> Any:
        h = a * state[0] + (1 - a) * x
        return [h], h

    steps = {step.__name__: step for step in (lstm, rnn, leaky_rate, leaky_potential, leaky)}
    return steps[net.cell]


def jax_gradients(net: Net, layer: Any, x: Any, state: Any, dy: Any, dstate: Any) -> Gradients:
    """By jax.grad in float64, of lax.scan over the equations; for time-major batches."""

    def loss(p: dict[str, Any], x: Any, state: list[Any], dy: Any, dstate: list[Any]) -> Any:
        def one_layer(suffix: str, x: Any, state: Any, reverse: bool) -> Any:
            final, h = jax.lax.scan(jax_step(net, p, suffix), state, x, reverse=reverse)
            return h, final

        y, finals = stack(net, one_layer, jnp.concatenate, x, state)
        total = jnp.sum(y * dy)
        for part, final in enumerate(finals):
            total += sum(jnp.sum(a * d[part]) for a, d in zip(final, dstate, strict=True))
        return total

    def double(array: np.ndarray) -> Any:
        return jnp.asarray(np.asarray(array, np.float64))

    def parts(state: Any) -> list[Any]:
        """Of the state, each [L * D, B, H]."""
        return [double(s if net.cell != "leaky" else s[None]) for s in unpack(state)]

    with jax.enable_x64(True):
        p = {name: double(value) for name, value in layer.parameters().items()}
        gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
        dp, dx, ds = gradients(p, double(x), parts(state), double(dy), parts(dstate))
    ds = map_state(lambda s: np.asarray(s[0] if net.cell == "leaky" else s), pack(ds))
    return Gradients(np.asarray(dx), ds, {name: np.asarray(dp[name]) for name in p})
