"""Runs of a net on tensors: for autograd as it is, and as operators for what traces programs.

There are two ways to the same kernels. `Run` is an `autograd.Function` that calls the core
directly. The operators `fastrnn::run` and `fastrnn::run_backward` are opaque to `torch.compile`,
`torch.export` and other tracers, and have a fake implementation for them. Called eagerly, an
operator costs more than the function does, because schemas, boxing and lists of tensors pass
through Python: 25 us without gradients, 120 us with them, and 300 us with the backward (PyTorch
2.13; an LSTM of 64 units takes 65 us for 100 steps). So only programs that are traced use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, from_numpy
from torch._C import (
    _are_functorch_transforms_active,
    _get_tracing_state,
    _len_torch_dispatch_stack,
)
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from .._arrays import Array
from ._config import DTYPES, Config
from ._packing import Packed, packed, plain_net
from ._sequences import WHOLE, Cuts, cut_arrays

_PLAIN = (Tensor, torch.nn.Parameter)
_CPU = torch.device("cpu")  # whatever the default device is

Arrays = tuple[Array | None, Array | None]  # lengths and reset, as the core takes them
NO_ARRAYS: Arrays = (None, None)


def run(
    config: Config,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    batch_first: bool,
    parallel_time: bool = False,
    cuts: Cuts = WHOLE,
) -> tuple[Tensor, ...]:
    """y and the final state, one to three tensors. The arguments have been checked.

    state: empty for zeros. weights: as config.names() says, and behind them config.mask_names().
    """
    tape = torch.is_grad_enabled() and _any_requires_grad(x, state, weights)
    if (
        is_compiling()
        or type(x) not in _PLAIN
        or _len_torch_dispatch_stack() > 0
        or _get_tracing_state() is not None
    ):
        options = (*config.flat(), batch_first, parallel_time, tape)
        y, h, c, *clock, _ = run_op(x, list(state), list(weights), *cuts, *options)
        return (y, h, *([c] if config.states > 1 else []), *clock)
    if _are_functorch_transforms_active() or forward_ad._current_level >= 0:
        raise NotImplementedError(
            "fastrnn.torch: transforms of torch.func and forward-mode derivatives are not there"
        )
    arrays = NO_ARRAYS
    if cuts is not WHOLE:
        arrays = cut_arrays(cuts, x.shape[1 if batch_first and x.dim() == 3 else 0])
    entry = packed(config, weights)
    if tape:
        return Run.apply(entry, (batch_first, arrays), x, *state, *weights)
    return _forward(entry, x, state, batch_first, parallel_time, arrays)[0]


def _any_requires_grad(x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor]) -> bool:
    if x.requires_grad:
        return True
    for tensor in weights:  # the first one, most often
        if tensor.requires_grad:
            return True
    return any(tensor.requires_grad for tensor in state)


# ---- Between tensors and the core


def _array(tensor: Tensor) -> Array:
    return tensor.detach().numpy() if tensor.requires_grad else tensor.numpy()


def _irregular(tensor: Tensor) -> bool:
    """Whether the kernels cannot read it: features apart from each other, or not aligned."""
    return tensor.stride(-1) != 1 or tensor.data_ptr() % tensor.itemsize != 0


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _steps_and_batch(shape: Sequence[int], batch_first: bool) -> tuple[int, int]:
    if len(shape) == 2:
        return shape[0], 1
    return (shape[1], shape[0]) if batch_first else (shape[0], shape[1])


def _call(
    net: Any,
    x: Tensor,
    state: Sequence[Tensor],
    batch_first: bool,
    parallel_time: bool,
    arrays: Arrays,
    saved: Tensor | None,
) -> tuple[Array, Any] | None:
    h: Any = None
    if state:
        before = [_array(tensor.contiguous()) for tensor in state]
        h = tuple(before) if len(before) > 1 else before[0]
    plain = arrays is NO_ARRAYS  # as most calls are; a call with a star takes longer
    if saved is None:
        if plain:
            return net.call(_array(x), h, None, batch_first, parallel_time)
        return net.call(_array(x), h, None, batch_first, parallel_time, None, *arrays)
    if plain:
        return net.call_train(_array(x), h, None, batch_first, saved.numpy())
    return net.call_train(_array(x), h, None, batch_first, saved.numpy(), *arrays)


def _forward(
    entry: Packed,
    x: Tensor,
    state: Sequence[Tensor],
    batch_first: bool,
    parallel_time: bool,
    arrays: Arrays,
    saved: Tensor | None = None,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """(y, *final state), and x as the kernels have read it; fills `saved` if there is one."""
    net = entry.net
    result = _call(net, x, state, batch_first, parallel_time, arrays, saved)
    if result is None:  # a layout that the kernels do not read, or a clock
        if net.clocked and state:
            _check_clock(entry.config.state_names()[-1], state[-1])
        x, state = _copy(x), [tensor.detach().clone() for tensor in state]
        result = _call(net, x, state, batch_first, parallel_time, arrays, saved)
        assert result is not None
    y, final = result
    if type(final) is not tuple:
        return (from_numpy(y), from_numpy(final)), x
    if len(final) == 2:  # without a star, which takes longer
        return (from_numpy(y), from_numpy(final[0]), from_numpy(final[1])), x
    return (from_numpy(y), *map(from_numpy, final)), x


def _check_clock(name: str, clock: Tensor) -> None:
    if clock.numel() > 0 and clock.min() < 0:
        raise ValueError(f"{name}: expected 0 or more, got {int(clock.min())}")


def _backward(
    entry: Packed,
    x: Tensor,
    saved: Tensor,
    dy: Tensor | None,
    dstate: Sequence[Tensor | None],
    batch_first: bool,
    arrays: Arrays,
    need_x: bool,
    need_weights: Sequence[bool],
) -> tuple[Tensor | None, list[Tensor], list[Tensor | None]]:
    """The gradients of x, of the initial state and of the weights where they are needed; masks
    among them have none.

    dy, dstate: the gradients of the outputs but for a clock, None for zeros.
    """
    if _irregular(x):
        x = _copy(x)
    if dy is not None and _irregular(dy):
        dy = _copy(dy)
    if saved.data_ptr() % 64:  # torch.autograd.graph.saved_tensors_hooks may have moved it
        saved = torch.empty_like(saved).copy_(saved)
    dtype = entry.dtype
    gradients = [
        np.empty(shape, dtype) if need else None
        for shape, need in zip(entry.shapes, need_weights, strict=True)
    ]
    dx, dh = entry.net.backward(
        _array(x),
        saved.numpy(),
        None if dy is None else _array(dy),
        tuple([None if d is None else np.require(_array(d), None, ["C", "A"]) for d in dstate]),
        batch_first,
        need_x,
        entry.by_part(gradients) if any(need_weights) else None,
        False,
        *arrays,
    )
    if entry.alphas:
        entry.through_sigmoid(gradients)
    return (
        None if dx is None else from_numpy(dx),
        [from_numpy(d) for d in dh],
        [None if g is None else from_numpy(g) for g in gradients],
    )


# ---- Autograd


class Run(torch.autograd.Function):
    """A run that keeps what its backward needs."""

    @staticmethod
    def forward(
        ctx: Any, entry: Packed, order: tuple[bool, Arrays], x: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """order: batch_first, and lengths and reset. tensors: the initial state, if it is not zero,
        then the weights and masks."""
        batch_first, arrays = order
        states = len(tensors) - len(entry.shapes)
        size = entry.net.saved_size(*_steps_and_batch(x.shape, batch_first))
        saved = torch.empty(size, dtype=torch.uint8, device=_CPU)
        outputs, x = _forward(entry, x, tensors[:states], batch_first, False, arrays, saved)
        if entry.net.clocked:
            ctx.mark_non_differentiable(outputs[-1])
        # The weights are saved for their version counters: a change in place before the backward
        # is then an error, as everywhere in PyTorch.
        ctx.save_for_backward(x, saved, *tensors[states:])
        ctx.set_materialize_grads(False)
        ctx.run = entry, order, states
        return outputs

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *dstate: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradients of the arguments of `forward`."""
        entry, (batch_first, arrays), states = ctx.run
        x, saved, *_ = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dstate = dstate[: entry.net.states]
        dx, dh, dweights = _backward(
            entry, x, saved, dy, dstate, batch_first, arrays, needs[2], needs[3 + states :]
        )
        if torch.is_grad_enabled():  # create_graph=True
            anchor = torch.zeros((), device=_CPU, requires_grad=True)
            dx, *rest = FirstDerivative.apply(anchor, dx, *dh, *dweights)
            dh, dweights = rest[: len(dh)], rest[len(dh) :]
        return (None, None, dx, *[*dh, None][:states], *dweights)


class FirstDerivative(torch.autograd.Function):
    """Gradients that refuse to be differentiated.

    `once_differentiable` lets those pass as constants whose dy does not require grad.
    """

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """anchor: requires grad, and so do the results."""
        return tuple([None if g is None else g.view_as(g) for g in gradients])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """Never returns."""
        raise RuntimeError(
            "fastrnn.torch: the second derivative is not implemented (double backward, "
            "through gradients of create_graph=True)"
        )


# ---- Operators

_FUNCTIONS = ", ".join(
    f"str {name}, float {name}_alpha, float {name}_beta"
    for name in ("activation", "gate_activation", "output_activation")
)
_OPTIONS = (
    "Tensor? lengths, Tensor? reset, str cell, bool bias, int num_layers, bool bidirectional, "
    f"int proj_size, bool peephole, float clip, float cell_clip, {_FUNCTIONS}, "
    "int[] delays, bool dilated, int[] periods, int[] group_sizes, bool full, bool masked, "
    "bool batch_first, bool parallel_time, bool tape"
)


class _Options(NamedTuple):
    """What the operators take besides their first tensors."""

    cuts: Cuts
    config: Config
    batch_first: bool
    parallel_time: bool
    tape: bool

    @classmethod
    def of(cls, values: Sequence[Any]) -> _Options:
        """From the arguments of an operator."""
        return cls(Cuts(*values[:2]), Config.of(values[2:-3]), *values[-3:])

    def arrays(self, x: Tensor) -> Arrays:
        """Lengths and reset for the core."""
        return cut_arrays(self.cuts, _steps_and_batch(x.shape, self.batch_first)[0])


def _room(
    config: Config, dtype: torch.dtype, sizes: tuple[Any, Any], steps: Any, batch: Any
) -> Any:
    """Bytes for what a run saves, by a formula: a tracer has symbols for sizes.

    It is a header, and for each sequence a constant and a multiple of the steps; of a leaky unit
    not of all steps, but of one in 64. Clocks, 8 bytes for each sequence in each part, fill up
    their last 64.
    """
    size = plain_net(config, DTYPES[dtype], int(sizes[0]), int(sizes[1])).saved_size
    unit = 64 if config.cell == "leaky" else 1
    constant, clocks = size(0, 1) - size(0, 0), 0
    if config.clocked:
        clocks = 64 * config.parts
        constant -= clocks
    every = constant + steps // unit * (size(unit, 1) - size(0, 1))
    return size(0, 0) + batch * every + (batch + 7) // 8 * clocks


@torch.library.custom_op(
    "fastrnn::run",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor x, Tensor[] state, Tensor[] weights, {_OPTIONS}) -> Tensor[]",
)
def run_op(x: Tensor, state: list[Tensor], weights: list[Tensor], *values: Any) -> list[Tensor]:
    """[y, h, c, saved], with clocks [y, h, c, clock, saved]; c is empty for cells without, and
    saved is without `tape`."""
    options = _Options.of(values)
    config, batch_first = options.config, options.batch_first
    arrays = options.arrays(x)
    saved = None
    if options.tape:
        sizes = config.sizes(weights)
        room = _room(config, x.dtype, sizes, *_steps_and_batch(x.shape, batch_first))
        # zeros: an operator gives the same bytes every time, in the padding too
        saved = torch.zeros(room, dtype=torch.uint8, device=_CPU)
    entry = packed(config, weights)
    found, _ = _forward(entry, x, state, batch_first, options.parallel_time, arrays, saved)
    if saved is None:
        saved = torch.empty(0, dtype=torch.uint8, device=_CPU)
    y, h, *rest = found
    return [y, h, *([] if config.states > 1 else [x.new_empty(0)]), *rest, saved]


@run_op.register_fake
def _(x: Tensor, state: list[Tensor], weights: list[Tensor], *values: Any) -> list[Tensor]:
    options = _Options.of(values)
    config = options.config
    inputs, hidden = config.sizes(weights)
    steps, batch = _steps_and_batch(x.shape, options.batch_first)
    rows = () if x.dim() == 2 else (batch,)
    h, *c = config.state_shapes(rows, hidden)
    room = _room(config, x.dtype, (inputs, hidden), steps, batch) if options.tape else 0
    return [
        x.new_empty((*x.shape[:-1], config.output_size(hidden))),
        x.new_empty(h),
        x.new_empty(c[0] if c else (0,)),
        *([x.new_empty(rows, dtype=torch.int64)] if config.clocked else []),
        x.new_empty((room,), dtype=torch.uint8),
    ]


@torch.library.custom_op(
    "fastrnn::run_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor saved, Tensor[] weights, Tensor? dy, Tensor? dh, Tensor? dc, "
    f"bool[] needs, {_OPTIONS}) -> Tensor[]",
)
def backward_op(
    x: Tensor,
    saved: Tensor,
    weights: list[Tensor],
    dy: Tensor | None,
    dh: Tensor | None,
    dc: Tensor | None,
    needs: list[bool],
    *values: Any,
) -> list[Tensor]:
    """The gradients of x, the initial state and the weights: those that are needed."""
    options = _Options.of(values)
    states = options.config.states
    found = _backward(
        packed(options.config, weights),
        x,
        saved,
        dy,
        (dh, dc)[:states],
        options.batch_first,
        options.arrays(x),
        needs[0],
        needs[1 + states :],
    )
    gradients = (found[0], *found[1], *found[2])
    return [gradient for gradient, need in zip(gradients, needs, strict=True) if need]


@backward_op.register_fake
def _(
    x: Tensor,
    saved: Tensor,
    weights: list[Tensor],
    dy: Tensor | None,
    dh: Tensor | None,
    dc: Tensor | None,
    needs: list[bool],
    *values: Any,
) -> list[Tensor]:
    options = _Options.of(values)
    _, hidden = options.config.sizes(weights)
    batch = () if x.dim() == 2 else (_steps_and_batch(x.shape, options.batch_first)[1],)
    states = options.config.state_shapes(batch, hidden)
    shapes = [x.shape, *states, *[tensor.shape for tensor in weights]]
    return [x.new_empty(shape) for shape, need in zip(shapes, needs, strict=True) if need]


def _op_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, state, weights, lengths, reset, *ctx.options = inputs
    if not ctx.options[-1]:
        raise RuntimeError("fastrnn::run: expected tape = True for a run with gradients, got False")
    ctx.save_for_backward(x, output[-1], lengths, reset, *weights)
    ctx.states = len(state)


def _op_backward(ctx: Any, arriving: list[Tensor]) -> tuple[Any, ...]:
    dy, dh, dc = arriving[:3]
    x, saved, lengths, reset, *weights = ctx.saved_tensors
    need_x, need_state, need_weights = ctx.needs_input_grad[:3]
    states = Config.of(ctx.options).states
    needs = [need_x, *(need_state or [False] * states)[:states], *need_weights]
    values = (lengths, reset, *ctx.options)
    dc_or_none = dc if states == 2 else None
    found = iter(backward_op(x, saved, weights, dy, dh, dc_or_none, needs, *values))
    gradients = [next(found) if need else None for need in needs]
    dstate = [*gradients[1 : 1 + states], None][: ctx.states]  # none of a clock
    # An empty list might be one of tensors: PyTorch takes only a list as its gradient.
    others: list[Any] = [[] if isinstance(value, list) and not value else None for value in values]
    return gradients[0], dstate, gradients[1 + states :], *others


run_op.register_autograd(_op_backward, setup_context=_op_context)
