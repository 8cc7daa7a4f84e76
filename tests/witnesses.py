"""Values and gradients by PyTorch: its modules, and its autograd of loops over the equations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from reference import CELLS
from reference_backward import Gradients
from support import Net, pack, unpack
from torch.nn.functional import elu, leaky_relu, linear, softsign, threshold
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

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


def parametric(given: Any) -> tuple[str, list[float]]:
    """An activation's name and its parameters, with the defaults of PyTorch and of ONNX."""
    name, *parameters = (given,) if isinstance(given, str) else given
    defaults = {"hard_sigmoid": [1 / 6, 1 / 2], "affine": [1.0, 0.0], "scaled_tanh": [1.0, 1.0]}
    defaults |= {"leaky_relu": [0.01], "thresholded_relu": [1.0], "elu": [1.0]}
    return name, parameters or defaults.get(name, [])


# ---- Modules ----------------------------------------------------------------------------------

MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


def has_module(net: Net) -> bool:
    """Whether torch.nn has the cell with these options."""
    if net.cell not in MODULES or set(net.special) - {"proj_size"} or net.structure:
        return False
    return net.nonlinearity in (("tanh", "relu") if net.cell == "rnn" else ("tanh",))


def torch_module(net: Net, layer: Any, dtype: str) -> torch.nn.Module:
    """torch.nn.LSTM, GRU or RNN with the layer's weights."""
    options: dict[str, Any] = {"nonlinearity": net.nonlinearity} if net.cell == "rnn" else {}
    if net.cell == "lstm":
        options = {"proj_size": net.proj_size}
    module = MODULES[net.cell](
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


def run_packed(module: Any, x: torch.Tensor, state: Any, lengths: Any) -> Any:
    """A module on the first lengths[b] >= 1 steps of each row."""
    steps = x.shape[1 if module.batch_first else 0]
    packed = pack_padded_sequence(x, torch.tensor(lengths), module.batch_first, False)
    y, final = module(packed, state)
    return pad_packed_sequence(y, module.batch_first, total_length=steps)[0], final


# ---- Loops ------------------------------------------------------------------------------------

TORCH_FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": lambda v: v,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda v, a, b: (a * v + b).clamp(0, 1),
    "affine": lambda v, a, b: a * v + b,
    "leaky_relu": leaky_relu,
    "thresholded_relu": lambda v, a: threshold(v, a, 0.0),
    "scaled_tanh": lambda v, a, b: a * torch.tanh(b * v),
    "elu": elu,
    "softsign": softsign,
    "softplus": lambda v: torch.logaddexp(v, torch.zeros_like(v)),
}

Step = Callable[[torch.Tensor, Any, Any], tuple[torch.Tensor, list[torch.Tensor]]]


def torch_step(net: Net, p: Mapping[str, torch.Tensor], suffix: str) -> Step:
    """The step of a cell, (x, past, state) -> (output, state), by torch's own operations.

    past: what its recurrent matrices read, a tensor each; as one, they are a matrix on one vector.
    """

    def function(given: Any, limit: float | None) -> Callable[[torch.Tensor], torch.Tensor]:
        name, parameters = parametric(given)

        def apply(v: torch.Tensor) -> torch.Tensor:
            v = v if limit is None else v.clamp(-limit, limit)
            return TORCH_FUNCTIONS[name](v, *parameters)

        return apply

    f, s = function(net.nonlinearity, net.clip), function(net.gate_activation, net.clip)
    e = function(net.output_activation, None)
    names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh", "alpha", "weight_hr", "peephole")
    wi, bi, wh, bh, a, wr, peephole = (p.get(name + suffix, p.get(name)) for name in names)
    if wh is not None:
        delayed = [f"weight_hh{suffix}_d{d}" for d in net.delays[1:]]
        wh = torch.cat([wh, *(p[name] for name in delayed)], 1)

    def of_input(x: torch.Tensor, gates: int) -> Any:
        return linear(x, wi, bi).chunk(gates, -1)

    def of_past(past: Any, gates: int) -> Any:
        return linear(torch.cat([*past], -1), wh, bh).chunk(gates, -1)

    def lstm(x: torch.Tensor, past: Any, state: Any) -> Any:
        _, c = state
        gates = 3 if net.cell == "lstm_coupled" else 4
        v = [a + b for a, b in zip(of_input(x, gates), of_past(past, gates), strict=True)]
        looks = [0.0] * gates if peephole is None else [*peephole.chunk(gates - 1)]
        i = s(v[0] + looks[0] * c)
        forget = 1 - i if gates == 3 else s(v[1] + looks[1] * c)
        c = forget * c + i * f(v[-2])
        c = c if net.cell_clip is None else c.clamp(-net.cell_clip, net.cell_clip)
        h = s(v[-1] + looks[-1] * c) * e(c)
        h = h if wr is None else linear(h, wr)
        return h, [h, c]

    def gru(x: torch.Tensor, past: Any, state: Any) -> Any:
        (h,) = state
        (xr, xz, xn), (hr, hz, hn) = of_input(x, 3), of_past(past, 3)
        r, z = s(xr + hr), s(xz + hz)
        before = net.cell == "gru_reset_before"
        hn = of_past([r * h_d for h_d in past], 3)[2] if before else r * hn
        h = torch.lerp(f(xn + hn), h, z)
        return h, [h]

    def mingru(x: torch.Tensor, past: Any, state: Any) -> Any:
        z, n = of_input(x, 2)
        h = torch.lerp(state[0], f(n), torch.sigmoid(z))
        return h, [h]

    def recurrent(x: torch.Tensor, past: Any) -> torch.Tensor:
        return of_input(x, 1)[0] + of_past(past, 1)[0]

    def rnn(x: torch.Tensor, past: Any, state: Any) -> Any:
        h = f(recurrent(x, past))
        return h, [h]

    def leaky_rate(x: torch.Tensor, past: Any, state: Any) -> Any:
        h = a * state[0] + (1 - a) * f(recurrent(x, past))
        return h, [h]

    def leaky_potential(x: torch.Tensor, past: Any, state: Any) -> Any:
        u = a * state[0] + (1 - a) * recurrent(x, [f(u_d) for u_d in past])
        return f(u), [u]

    def leaky(x: torch.Tensor, past: Any, state: Any) -> Any:
        h = a * state[0] + (1 - a) * x
        return h, [h]

    steps: dict[str, Step] = {
        "lstm": lstm,
        "lstm_coupled": lstm,
        "gru": gru,
        "gru_reset_before": gru,
        "mingru": mingru,
        "rnn": rnn,
        "leaky_rate": leaky_rate,
        "leaky_potential": leaky_potential,
        "leaky": leaky,
    }
    return steps[net.cell]


Loop = tuple[torch.Tensor, list[torch.Tensor]]


def delay_loop(step: Step, delays: Any, x: torch.Tensor, state: Any) -> Loop:
    """y and final state, of x [T, B, I] and states [S, B, H] of as many steps as are read."""
    y, lists = [], [list(s) for s in state]
    for x_t in x:
        past, memory = [lists[0][-d] for d in delays], [s[-delays[0]] for s in lists]
        h, new = step(x_t, past, memory)
        for s, value in zip(lists, new, strict=True):
            s.append(value)
        y.append(h)
    finals = [s[len(s) - len(first) :] for s, first in zip(lists, state, strict=True)]
    return torch.stack(y), [torch.stack(s) for s in finals]


def clock_loop(
    net: Net, p: Mapping[str, torch.Tensor], suffix: str, x: torch.Tensor, state: Any, clock: Any
) -> Loop:
    """The same with clocks [B]: a cell for each group of units, which reads what it may of h."""
    periods, sizes = net.periods or (), net.group_sizes
    if sizes is None:
        sizes = tuple(map(len, np.array_split(range(net.hidden_size), len(periods))))
    units, groups = torch.arange(net.hidden_size).split(sizes), []
    for own, period in zip(units, periods, strict=True):
        slow = [q >= period or net.connectivity == "full" for q in periods]
        read = torch.cat([u for u, reads in zip(units, slow, strict=True) if reads])
        part = {}
        for name, value in p.items():
            if name.endswith(suffix):
                rows = value.unflatten(0, (-1, net.hidden_size))[:, own].flatten(0, 1)
                part[name] = rows[:, read] if "weight_hh" in name else rows
        groups.append((period, own, read, torch_step(net, part, suffix)))

    y, state = [], [s[0] for s in state]
    name, parameters = parametric(net.nonlinearity)
    for t, x_t in enumerate(x):
        found = []
        for period, own, read, step in groups:
            before = [s[:, own] for s in state]
            _, after = step(x_t, [state[0][:, read]], before)
            active = ((clock + t) % period == 0)[:, None]
            found.append([torch.where(active, *pair) for pair in zip(after, before, strict=True)])
        state = [torch.cat(parts, 1) for parts in zip(*found, strict=True)]
        potential = net.cell == "leaky_potential"
        y.append(TORCH_FUNCTIONS[name](state[0], *parameters) if potential else state[0])
    return torch.stack(y), [s[None] for s in state]


def torch_loop(
    net: Net, p: Mapping[str, torch.Tensor], x: torch.Tensor, state: Any, clock: Any = None
) -> Any:
    """Any net by a loop over its steps: y and final state, of x [T, B, I] and a list of states."""
    structures = net.structures()

    def one_layer(suffix: str, x: torch.Tensor, state: Any, reverse: bool) -> Any:
        number = int(suffix.split("_")[1][1:])
        x = x.flip(0) if reverse else x
        q = dict(p)
        if net.recurrent_mask is not None:
            mask = torch.from_numpy(net.mask())
            if mask.ndim == 3:
                mask = mask[number * net.directions + reverse]
            gates = CELLS[net.cell].gates
            q |= {k: v * mask.repeat(gates, 1) for k, v in p.items() if k.startswith("weight_hh")}
        if net.periods is not None:
            y, final = clock_loop(net, q, suffix, x, state, clock)
        else:
            delays = net.delays if net.dilations is None else net.dilations[number : number + 1]
            y, final = delay_loop(torch_step(net, q, suffix), delays, x, state)
        return y.flip(0) if reverse else y, final

    layers = [s[None] for s in state] if net.cell == "leaky" else state
    sizes = [[part.slots[i] for part in structures] for i in range(net.states)]
    parts = [s.split(n) for s, n in zip(layers, sizes, strict=True)]
    y, finals = stack(net, one_layer, torch.cat, x, parts)
    final = [torch.cat(histories) for histories in zip(*finals, strict=True)]
    return y, [s[0] for s in final] if net.cell == "leaky" else final


# ---- Both -------------------------------------------------------------------------------------


def torch_run(
    net: Net, layer: Any, x: Any, state: Any, dtype: str, lengths: Any = None, loop: bool = False
) -> tuple[torch.Tensor, Any, list[torch.Tensor], dict[str, torch.Tensor]]:
    """y, final state, the inputs x and state and the parameters, all as leaves of a graph.

    By a module where there is one, unless a loop is asked for; batched. A clock is in neither
    state, as it has no gradient.
    """

    def leaf(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(array, dtype)).requires_grad_()

    def turned(t: torch.Tensor) -> torch.Tensor:
        return t.transpose(0, 1) if net.batch_first else t

    inputs = [leaf(x), *map(leaf, unpack(state)[: net.states])]
    if has_module(net) and not loop:
        module = torch_module(net, layer, dtype)
        p, arguments = dict(module.named_parameters()), (inputs[0], pack(inputs[1:]))
        y, final = (
            module(*arguments) if lengths is None else run_packed(module, *arguments, lengths)
        )
    else:
        p = {name: leaf(v) for name, v in layer.parameters().items()}
        clock = None if net.periods is None else torch.from_numpy(unpack(state)[-1])
        y, final = torch_loop(net, p, turned(inputs[0]), inputs[1:], clock)
        y, final = turned(y), pack(final)
    return y, final, inputs, p


def torch_values(net: Net, layer: Any, x: Any, state: Any, dtype: str, **how: Any) -> Any:
    """y and final state as arrays of `dtype`."""
    y, final, _, _ = torch_run(net, layer, x, state, dtype, **how)
    arrays = [s.detach().numpy() for s in unpack(final)]
    if net.periods is not None:
        arrays.append(unpack(state)[-1] + x.shape[1 if net.batch_first else 0])
    return y.detach().numpy(), pack(arrays)


def torch_gradients(
    net: Net,
    layer: Any,
    x: Any,
    state: Any,
    dy: Any,
    dstate: Any,
    dtype: str = "float64",
    **how: Any,
) -> Gradients:
    """By autograd, of the same weights and batched arrays in `dtype`; dy full or of the last step.

    LSTM, GRU and RNN run as PyTorch's modules where it has the options, all else as a loop.
    """
    y, final, inputs, p = torch_run(net, layer, x, state, dtype, **how)
    if dy.ndim < 3:
        y = y[:, -1] if net.batch_first else y[-1]
    arriving = [torch.from_numpy(np.array(d, dtype)) for d in (dy, *unpack(dstate))]
    found = torch.autograd.grad([y, *unpack(final)], [*inputs, *p.values()], arriving)
    dx, *rest = (t.numpy() for t in found)
    params = dict(zip(p, rest[net.states :], strict=True))
    return Gradients(
        dx, pack(rest[: net.states]), {name: params[name] for name in layer.parameters()}
    )
