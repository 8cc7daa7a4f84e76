"""Gradients by others: PyTorch's autograd and JAX's, of modules and of loops over the equations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from reference_backward import Gradients
from support import Net, map_state, pack, unpack

jax.config.update("jax_platforms", "cpu")

Values = Mapping[str, Any]


def stack(
    net: Net, one_layer: Callable[..., Any], concatenate: Callable[..., Any], x: Any, state: Any
) -> tuple[Any, list[Any]]:
    """Layers and directions, for arrays of any library: x [T, B, I], state a list of [L * D, B, H].

    one_layer(suffix, x, state of that layer and direction, reverse) -> (h, final state).
    """
    finals = []
    for index in range(net.num_layers):
        outputs = []
        for direction in range(net.directions):
            part = index * net.directions + direction
            suffix = f"_l{index}" + "_reverse" * direction
            h, final = one_layer(suffix, x, [s[part] for s in state], direction == 1)
            outputs.append(h)
            finals.append(final)
        x = concatenate(outputs, -1)
    return x, finals


# ---- PyTorch ----------------------------------------------------------------------------------

TORCH_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "identity": lambda v: v}


def torch_module(net: Net, layer: Any, dtype: str) -> torch.nn.Module:
    """torch.nn.LSTM or RNN with the layer's weights."""
    options: dict[str, Any] = {} if net.cell == "lstm" else {"nonlinearity": net.nonlinearity}
    module = getattr(torch.nn, net.cell.upper())(
        net.input_size,
        net.hidden_size,
        net.num_layers,
        bias=net.bias,
        batch_first=net.batch_first,
        bidirectional=net.bidirectional,
        dtype=getattr(torch, dtype),
        **options,
    )
    module.load_state_dict({k: torch.from_numpy(v) for k, v in layer.state_dict().items()})
    return module


def leaky_loop(net: Net, p: dict[str, torch.Tensor], x: torch.Tensor, state: Any) -> Any:
    """The leaky cells, by torch's own operations: y and final state, of time-major batches."""
    f = TORCH_ACTIVATIONS[net.nonlinearity]

    def one_layer(suffix: str, x: torch.Tensor, state: Any, reverse: bool) -> Any:
        (s,), y = state, []
        a = p["alpha" if net.cell == "leaky" else "alpha" + suffix]
        for x_t in x.flip(0) if reverse else x:
            v = x_t
            if net.cell != "leaky":
                past = s if net.cell == "leaky_rate" else f(s)
                names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
                wi, bi, wh, bh = (p.get(name + suffix) for name in names)
                linear = torch.nn.functional.linear
                v = linear(x_t, wi, bi) + linear(past, wh, bh)
            s = a * s + (1 - a) * (f(v) if net.cell == "leaky_rate" else v)
            y.append(f(s) if net.cell == "leaky_potential" else s)
        return torch.stack(y[::-1] if reverse else y), s

    s = state[0][None] if net.cell == "leaky" else state[0]
    y, finals = stack(net, one_layer, torch.cat, x, [s])
    return y, finals[0] if net.cell == "leaky" else torch.stack(finals)


def torch_gradients(
    net: Net, layer: Any, x: Any, state: Any, dy: Any, dstate: Any, dtype: str = "float64"
) -> Gradients:
    """By autograd, of the same weights and batched arrays in `dtype`; dy full or of the last step.

    LSTM and RNN run as PyTorch's modules, the leaky cells as a loop.
    """

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array, dtype))

    def turned(t: torch.Tensor) -> torch.Tensor:
        return t.transpose(0, 1) if net.batch_first else t

    inputs = [tensor(x), *map(tensor, unpack(state))]
    for t in inputs:
        t.requires_grad_()
    if net.cell in ("lstm", "rnn"):
        module = torch_module(net, layer, dtype)
        p = dict(module.named_parameters())
        y, final = module(inputs[0], pack(inputs[1:]))
    else:
        p = {name: tensor(v).requires_grad_() for name, v in layer.parameters().items()}
        y, final = leaky_loop(net, p, turned(inputs[0]), inputs[1:])
        y = turned(y)
    last = turned(y)[-1] if dy.ndim < 3 else y
    found = torch.autograd.grad(
        [last, *unpack(final)], [*inputs, *p.values()], [tensor(dy), *map(tensor, unpack(dstate))]
    )
    dx, *rest = (t.numpy() for t in found)
    params = dict(zip(p, rest[net.states :], strict=True))
    return Gradients(
        dx, pack(rest[: net.states]), {name: params[name] for name in layer.parameters()}
    )


# ---- JAX --------------------------------------------------------------------------------------

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
