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
from witnesses import parametric, stack

jax.config.update("jax_platforms", "cpu")

JAX_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "identity": lambda v: v,
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": lambda v, a, b: jnp.clip(a * v + b, 0.0, 1.0),
    "affine": lambda v, a, b: a * v + b,
    "leaky_relu": jax.nn.leaky_relu,
    "thresholded_relu": lambda v, a: jnp.where(v > a, v, 0.0),
    "scaled_tanh": lambda v, a, b: a * jnp.tanh(b * v),
    "elu": jax.nn.elu,
    "softsign": jax.nn.soft_sign,
    "softplus": jax.nn.softplus,
}


def jax_function(given: Any, limit: float | None) -> Callable[[Any], Any]:
    name, parameters = parametric(given)
    limit = limit or jnp.inf
    return lambda v: JAX_FUNCTIONS[name](jnp.clip(v, -limit, limit), *parameters)


def jax_step(net: Net, p: dict[str, Any], suffix: str) -> Callable[..., Any]:
    """The step of a cell as lax.scan wants it: (state, x) -> (state, output)."""
    f, s = jax_function(net.nonlinearity, net.clip), jax_function(net.gate_activation, net.clip)
    e = jax_function(net.output_activation, None)
    a = p.get("alpha" + suffix, p.get("alpha"))

    def bias(name: str) -> Any:
        return p.get(name + suffix, 0.0)

    def wx(x: Any) -> Any:
        return jnp.einsum("bi,ji->bj", x, p["weight_ih" + suffix]) + bias("bias_ih")

    def uh(h: Any) -> Any:
        return jnp.einsum("bh,jh->bj", h, p["weight_hh" + suffix]) + bias("bias_hh")

    def lstm(state: Any, x: Any) -> Any:
        h, c = state
        looks = jnp.split(p.get("peephole" + suffix, jnp.zeros(3 * net.hidden_size)), 3)
        i, forget, g, o = jnp.split(wx(x) + uh(h), 4, axis=-1)
        c = s(forget + c * looks[1]) * c + s(i + c * looks[0]) * f(g)
        return lstm_output(o, looks[2], c)

    def lstm_coupled(state: Any, x: Any) -> Any:
        h, c = state
        looks = jnp.split(p.get("peephole" + suffix, jnp.zeros(2 * net.hidden_size)), 2)
        i, g, o = jnp.split(wx(x) + uh(h), 3, axis=-1)
        i = s(i + c * looks[0])
        return lstm_output(o, looks[1], c + i * (f(g) - c))

    def lstm_output(o: Any, look: Any, c: Any) -> Any:
        if net.cell_clip:
            c = jnp.clip(c, -net.cell_clip, net.cell_clip)
        h = s(o + c * look) * e(c)
        if net.proj_size:
            h = jnp.einsum("bh,ph->bp", h, p["weight_hr" + suffix])
        return [h, c], h

    def gru(state: Any, x: Any) -> Any:
        (r, z, n), (ur, uz, un) = jnp.split(wx(x), 3, axis=-1), jnp.split(uh(state[0]), 3, axis=-1)
        z = s(z + uz)
        h = (1 - z) * f(n + s(r + ur) * un) + z * state[0]
        return [h], h

    def gru_reset_before(state: Any, x: Any) -> Any:
        (r, z, n), (ur, uz, _) = jnp.split(wx(x), 3, axis=-1), jnp.split(uh(state[0]), 3, axis=-1)
        z = s(z + uz)
        un = jnp.split(uh(s(r + ur) * state[0]), 3, axis=-1)[2]
        h = (1 - z) * f(n + un) + z * state[0]
        return [h], h

    def mingru(state: Any, x: Any) -> Any:
        z, n = jnp.split(wx(x), 2, axis=-1)
        z = jax.nn.sigmoid(z)
        h = (1 - z) * state[0] + z * f(n)
        return [h], h

    def rnn(state: Any, x: Any) -> Any:
        h = f(wx(x) + uh(state[0]))
        return [h], h

    def leaky_rate(state: Any, x: Any) -> Any:
        h = a * state[0] + (1 - a) * f(wx(x) + uh(state[0]))
        return [h], h

    def leaky_potential(state: Any, x: Any) -> Any:
        u = a * state[0] + (1 - a) * (wx(x) + uh(f(state[0])))
        return [u], f(u)

    def leaky(state: Any, x: Any) -> Any:
        h = a * state[0] + (1 - a) * x
        return [h], h

    lstms, grus = (lstm, lstm_coupled), (gru, gru_reset_before, mingru)
    others = (rnn, leaky_rate, leaky_potential, leaky)
    return {step.__name__: step for step in (*lstms, *grus, *others)}[net.cell]


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
