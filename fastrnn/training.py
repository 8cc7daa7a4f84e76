"""Forward for training and backward: what `Layer.forward_train` and `Layer.backward` do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, _sequences, _structure
from ._arrays import Array, as_input, check_flag, describe
from ._bidirectional import BidirectionalTape
from ._dropout import DropoutTape, checked_rng
from ._states import as_state
from ._tape import TapeLike

if TYPE_CHECKING:
    from ._base import Layer, State


@dataclass(frozen=True)
class Gradients:
    """What `Layer.backward` finds.

    Attributes:
        x: with respect to the input, in its shape; None if not wanted.
        state: with respect to the state before the first step, in its form without a clock.
        params: with respect to the parameters, by name; empty if not wanted.

    Example:
        >>> from fastrnn import RNN
        >>> rnn = RNN(3, 8, seed=0)
        >>> y, h, tape = rnn.forward_train(np.ones((5, 3), np.float32))
        >>> rnn.backward(tape, y, need_x=False).params["bias_ih_l0"].shape
        (8,)
    """

    x: Array | None
    state: State
    params: dict[str, Array] = field(default_factory=dict)


class Tape:
    """What `Layer.forward_train` keeps for `Layer.backward`.

    Attributes:
        nbytes: bytes that are held, without the input, which is only referred to.

    Example:
        >>> from fastrnn import RNN
        >>> rnn, x = RNN(3, 8, seed=0), np.ones((9999, 3), np.float32)
        >>> whole, short = (rnn.forward_train(x, checkpoint=k)[2] for k in (None, "auto"))
        >>> whole.nbytes > 50 * short.nbytes
        True
    """

    def __init__(self, core: TapeLike, layer: Layer, y_shape: tuple[int, ...]) -> None:
        self._core, self._y_shape = core, y_shape
        self._kind = layer._kind()

    @property
    def nbytes(self) -> int:
        return self._core.nbytes


def forward_train(
    layer: Layer,
    x: Any,
    state: Any,
    out: Array | None,
    checkpoint: int | str | None,
    forms: _sequences.Forms,
    rng: Any,
) -> tuple[Array, State, Tape]:
    """See `Layer.forward_train`."""
    if _structure.is_fractional(layer):
        raise ValueError(f"delays: fractional delays only run forward, got {layer.delays}")
    segment = _segment(checkpoint)
    drops = layer.dropout > 0 and layer.num_layers > 1
    if rng is not None:
        rng = checked_rng(rng)
    if segment != 0:
        _check_checkpoint(forms, drops)
    net = layer._packed or layer._net()
    if segment != 0 and layer.bidirectional:
        x, state, out = layer._converted(x, state, out)
        both = BidirectionalTape(layer, segment)
        y, final = both.forward(x, state, out)
        return y, final, Tape(both, layer, y.shape)
    if drops:
        dropout = DropoutTape(layer, rng)
        y, final, wrap = _sequences.run(layer, dropout.call, x, state, out, forms)
        return y, final, Tape(wrap(dropout), layer, y.shape)
    core = _core.Tape(segment)
    if forms is _sequences.PLAIN and not layer.go_backwards:
        result = net.call(x, state, out, layer.batch_first, layer._parallel_time, core)
        if result is not None:
            return *result, Tape(core, layer, result[0].shape)
    call = _sequences.runner(net, layer._parallel_time, core)
    y, final, wrap = _sequences.run(layer, call, x, state, out, forms)
    return y, final, Tape(wrap(core), layer, y.shape)


def _check_checkpoint(forms: _sequences.Forms, drops: bool) -> None:
    """Checkpoints are for whole sequences, the same twice."""
    given = [name for name in ("lengths", "reset", "mask") if getattr(forms, name) is not None]
    if given or drops:
        raise ValueError(f"checkpoint: not together with {', '.join(given) or 'dropout'}")


def _segment(checkpoint: int | str | None) -> int:
    if checkpoint is None:
        return 0
    if isinstance(checkpoint, str):
        if checkpoint == "auto":
            return -1
    elif isinstance(checkpoint, (int, np.integer)) and not isinstance(checkpoint, bool):
        if checkpoint >= 1:
            return min(int(checkpoint), 2**62)
        raise ValueError(f"checkpoint: expected at least 1, got {checkpoint}")
    raise TypeError(f"checkpoint: expected None, a number of steps or 'auto', got {checkpoint!r}")


def backward(
    layer: Layer,
    tape: Tape,
    dy: Any,
    dstate: Any,
    out: Mapping[str, Array] | None,
    need_x: bool,
    need_params: bool,
) -> Gradients:
    """See `Layer.backward`."""
    if not isinstance(tape, Tape):
        raise TypeError(f"tape: expected what forward_train returned, got {describe(tape)}")
    core = tape._core
    if tape._kind != layer._kind():
        raise ValueError(f"tape: expected one of a layer like {layer!r}")
    check_flag("need_x", need_x)
    check_flag("need_params", need_params)
    dy = _check_dy(layer, dy, tape._y_shape)
    arrays = layer._check_state("dstate", dstate, layer._batch(tape._y_shape))
    targets = _check_out(layer, out, (dy, *arrays, *core.inputs()))
    if not need_params:
        dx, final = core.backward(dy, arrays, need_x, None)
        return Gradients(dx, as_state(final))
    fresh = np.zeros if targets else np.empty  # what is not overwritten is added to
    params = {
        name: targets[name] if name in targets else fresh(value.shape, layer.dtype)
        for name, value in layer._parameters.items()
    }
    dx, final = core.backward(dy, arrays, need_x, layer._in_parts(params), bool(targets))
    return Gradients(dx, as_state(final), params)


def _check_dy(layer: Layer, dy: Any, shape: tuple[int, ...]) -> Array | None:
    if dy is None:
        return None
    array = as_input("dy", dy, layer.dtype)
    time = 1 if layer.batch_first and len(shape) == 3 else 0
    last = shape[:time] + shape[time + 1 :]
    if array.shape not in (shape, last):
        raise ValueError(
            f"dy: expected shape {shape}, or {last} for the last step only, got {array.shape}"
        )
    return array


def _check_out(
    layer: Layer, out: Mapping[str, Array] | None, others: tuple[Array | None, ...]
) -> dict[str, Array]:
    """Arrays to add gradients to, by name; `others` are read meanwhile."""
    if out is None:
        return {}
    if not isinstance(out, Mapping):
        raise TypeError(f"out: expected arrays by parameter name, got {describe(out)}")
    for name, array in out.items():
        if name not in layer._parameters:
            raise ValueError(f"out: expected some of {', '.join(layer._parameters)}, got {name!r}")
        shape = layer._parameters[name].shape
        if not isinstance(array, np.ndarray) or array.dtype != layer.dtype:
            raise TypeError(
                f"out: {name}: expected an array of {layer.dtype}, got {describe(array)}"
            )
        if array.shape != shape:
            raise ValueError(f"out: {name}: expected shape {shape}, got {array.shape}")
        if not array.flags.writeable:
            raise ValueError(f"out: {name}: expected a writeable array, got a read-only one")
        if not (array.flags.c_contiguous and array.flags.aligned):
            raise ValueError(
                f"out: {name}: expected an aligned C-contiguous array, got strides {array.strides}"
            )
        apart = [*(other for other in others if other is not None)]
        apart += [other for key, other in out.items() if key != name]
        if any(np.may_share_memory(array, other) for other in apart):
            raise ValueError(f"out: {name}: must not overlap another array of this call")
    return dict(out)
