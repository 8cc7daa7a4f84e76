"""What all layers share: parameters, calls, states, copies. The layers are in layers.py, gated.py
and leaky.py."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from . import _core, _sequences, _structure
from ._activations import SIGMOID, TANH, Activation
from ._arrays import (
    Array,
    as_input,
    as_real,
    check_dtype,
    check_flag,
    check_out,
    check_size,
    describe,
)
from ._states import Pieces, as_state, checked_state
from .stream import Stream
from .training import Gradients, Tape, backward, forward_train

State = Array | tuple[Array, ...]


# What copies make anew.
_OF_THE_MOMENT = (
    *("_plain", "_packed", "_ready", "_piece_nets", "_lock"),
    *("_net_kind", "_connections"),  # known from their first use on
)


class Layer:
    """Base of the layers: named parameters that are packed once per change, and the call.

    Parameters live in plain read-only arrays. They change as a whole: by assigning to the
    attribute of that name, or through `load_state_dict`. The packed form for the kernels is made at
    the next call after a change, once.
    """

    _cell: ClassVar[str]
    _states: ClassVar[int] = 1  # arrays of a state
    _parallel_time: bool = False

    # Options of the net, as they are in a layer that has none.
    activation: Activation = TANH
    gate_activation: Activation = SIGMOID
    output_activation: Activation = TANH
    clip: float | None = None
    cell_clip: float | None = None
    proj_size: int = 0
    peephole: bool = False
    dropout: float = 0.0
    go_backwards: bool = False

    # Its time structure, likewise.
    delays: tuple[float, ...] = _structure.PLAIN_DELAYS
    periods: tuple[int, ...] | None = None
    group_sizes: tuple[int, ...] | None = None
    connectivity: str = "slower"
    recurrent_mask: Array | None = None  # [L * D, H, O]
    _dilated: bool = False  # delays are those of the layers, one each

    def __init__(self, input_size: int, hidden_size: int, batch_first: bool, dtype: Any) -> None:
        self.input_size = check_size("input_size", input_size)
        self.hidden_size = check_size("hidden_size", hidden_size)
        self.batch_first = check_flag("batch_first", batch_first)
        self.dtype = check_dtype(dtype)
        self.num_layers = 1
        self.bidirectional = False
        self._parameters: dict[str, Array] = {}
        self._plain: _core.Net | None = None  # without weights
        self._packed: _core.Net | None = None
        # What a plain call needs, in one attribute: Net.call, batch_first and _parallel_time.
        self._ready: tuple[Any, bool, bool] | None = None
        self._piece_nets: dict[int, list[_core.Net]] = {}
        self._lock = threading.Lock()

    # ---- Parameters

    def _set_parameter(self, name: str, value: Any) -> None:
        """Takes a copy of a value that has been checked for shape and meaning."""
        array = np.array(value, self.dtype, order="C")
        array.flags.writeable = False
        with self._lock:
            self._parameters[name] = array
            self._packed = self._ready = None
            self._piece_nets = {}

    def _check_parameter(self, name: str, value: Any) -> Array:
        expected = self._parameters[name].shape
        array = as_real(name, value, self.dtype)
        if array.shape != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")
        if name.startswith("alpha") and not np.all((array >= 0) & (array <= 1)):
            raise ValueError(f"{name}: expected values in [0, 1] (retention)")
        return array

    def __getattr__(self, name: str) -> Array:
        parameters = self.__dict__.get("_parameters", {})
        if name in parameters:
            return parameters[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_parameters", {}):
            self._set_parameter(name, self._check_parameter(name, value))
        else:
            self.__dict__["_ready"] = None
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parameters]

    def parameters(self) -> dict[str, Array]:
        """The parameters by PyTorch's names, as read-only arrays."""
        return dict(self._parameters)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by PyTorch's names."""
        return {name: array.copy() for name, array in self._parameters.items()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> tuple[list[str], list[str]]:
        """Takes over parameters by name: arrays, or tensors of PyTorch.

        Args:
            state_dict: values by parameter name, of the parameters' shapes.
            strict: whether every parameter must be there and nothing else.

        Returns:
            The names that were missing and those that were not expected.

        Raises:
            KeyError: with `strict`, if names are missing or unexpected.
            ValueError, TypeError: if a value does not fit. The layer is then unchanged.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {describe(state_dict)}")
        missing = [name for name in self._parameters if name not in state_dict]
        unexpected = [name for name in state_dict if name not in self._parameters]
        if strict and (missing or unexpected):
            raise KeyError(f"state_dict: missing {missing}, unexpected {unexpected}")
        checked = {
            name: self._check_parameter(name, _detached(value))
            for name, value in state_dict.items()
            if name in self._parameters
        }
        for name, value in checked.items():
            self._set_parameter(name, value)
        return missing, unexpected

    def _parts(self) -> list[tuple[int, str]]:
        """Layer and suffix of the parameters of each layer and direction, in order."""
        return [(0, "")]

    def _in_parts(self, arrays: Mapping[str, Array]) -> list[tuple[Array | None, ...]]:
        """Arrays by parameter name in the order of the C library: a tuple per layer, direction."""
        raise NotImplementedError

    def _net_options(self) -> dict[str, Any]:
        """The options of the net in the words of the core."""
        return {
            "proj_size": self.proj_size,
            "peephole": self.peephole,
            "clip": self.clip or 0.0,
            "cell_clip": self.cell_clip or 0.0,
            "activation": self.activation,
            "gate_activation": self.gate_activation,
            "output_activation": self.output_activation,
        }

    @functools.cached_property
    def _net_kind(self) -> tuple[Any, ...]:
        names = ("input_size", "hidden_size", "num_layers", "bidirectional", "dtype")
        sizes = (getattr(self, name) for name in names)
        options = (*self._net_options().values(), self.go_backwards)
        mask = self.recurrent_mask
        mask_bits = None if mask is None else np.packbits(mask).tobytes()
        structure = (self.delays, self._dilated, self.periods, self.group_sizes, self.connectivity)
        return (self._cell, *sizes, *options, *structure, mask_bits, tuple(self._parameters))

    def _kind(self) -> tuple[Any, ...]:
        """What two layers have in common if a tape of one serves the other."""
        return self._net_kind, self.batch_first

    def _new_net(
        self, input_size: int, num_layers: int, directions: int, parts: slice | None = None
    ) -> _core.Net:
        """A net of this kind without weights, of these parts if it is not the whole."""
        return _core.Net(
            self._cell,
            self.dtype.name,
            input_size,
            self.hidden_size,
            num_layers,
            directions,
            **self._net_options(),
            **_structure.core_options(self, parts),
        )

    def _check_sizes(self) -> _core.Net:
        """The net without its weights, or an error if it could not be held in memory."""
        return self._new_net(self.input_size, self.num_layers, 1 + self.bidirectional)

    def _net(self) -> _core.Net:
        """The net with packed weights, packed again if a parameter has changed."""
        with self._lock:
            if self._packed is None:
                self._plain = self._plain or self._check_sizes()
                self._packed = self._with_weights(self._plain, slice(None))
            if self._ready is None and not self.go_backwards:
                self._ready = self._packed.call, self.batch_first, self._parallel_time
            return self._packed

    def _with_weights(self, net: _core.Net, parts: slice) -> _core.Net:
        """The net of these parts with their packed weights."""
        weights = self._in_parts(self._parameters)[parts]
        if self.recurrent_mask is None:
            return net.pack(weights)
        return net.pack(weights, list(self.recurrent_mask[parts]))

    def _pieces(self, directions: int) -> list[_core.Net]:
        """Each layer as a net of its own, or with `directions` 1 each direction of each layer;
        packed again after a change."""
        with self._lock:
            nets = self._piece_nets.get(directions)
            if nets is None:
                nets = []
                for start in range(0, len(self._parts()), directions):
                    inputs = self.input_size if start <= self.bidirectional else self._output_size
                    parts = slice(start, start + directions)
                    net = self._new_net(inputs, 1, directions, parts)
                    nets.append(self._with_weights(net, parts))
                self._piece_nets[directions] = nets
            return nets

    def _state_pieces(self, directions: int) -> Pieces:
        """How a state is cut into those of the nets of `_pieces`."""
        slots = np.array(_structure.slots(self))
        return Pieces(slots.reshape(-1, directions, slots.shape[1]).sum(axis=1).tolist())

    # ---- Calls

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        out: Array | None = None,
        lengths: Any = None,
        reset: Any = None,
        mask: Any = None,
        zero_output_for_mask: bool = False,
    ) -> tuple[Array, State]:
        """Runs whole sequences.

        Args:
            x: [T, B, I], or [B, T, I] with `batch_first`, or [T, I] for one sequence. Anything
                array-like whose values the layer's dtype holds exactly.
            state: what a call returned, to carry on from there; zeros if None. For LSTM (h, c), for
                LeakyRNN of form potential u, else h; arrays [L * D, B, H] ([L * D, H] for one
                sequence; h of an LSTM with a projection has P values), ordered layer 0, layer 0
                reverse, layer 1, ... For Leaky [B, H] or [H]. With `delays` each layer and
                direction has as many steps there as it looks back, the oldest first: of h and u
                those of its longest delay, of c of its shortest. With `periods` the state is a
                tuple with one more array, clock: integers [B] (of shape () for one sequence), the
                steps that each row has done.
            out: an array for y, of y's shape and dtype; must not overlap x.
            lengths: B integers from 0 to T, in any order: row b has only its first lengths[b]
                steps, in which both directions start and end. After them y is 0, and the state is
                that after the row's last step; what stands in x, or in a backward in dy, is not
                looked at.
            reset: booleans of the shape of x without I. Where True, the row starts anew at that
                step, from the initial state of this call. Directions that read backwards do so
                before they visit the step before: the row is as if cut in two there.
            mask: booleans likewise, not together with lengths or reset. Where False, the row skips
                that step as in Keras: its state stays, and y repeats the output before, for a
                reverse direction the one after (0 if there is none).
            zero_output_for_mask: y is 0 at skipped steps instead.

        Returns:
            y, [T, B, D * H] in the layout of x ([T, B, D * P] with a projection), the outputs of
            the last layer, forward units first; and the state after the last step, in the form of
            `state`. With `go_backwards` y is in the order in which the steps were read.

        Raises:
            TypeError, ValueError: if an argument does not fit; nothing has been computed then.

        Example:
            >>> from fastrnn import RNN
            >>> x = np.ones((5, 2, 3), np.float32)
            >>> y, h = RNN(3, 8, seed=0)(x, lengths=[5, 2])
            >>> bool(y[1, 1].any()), bool(y[2, 1].any()), bool((h[0, 1] == y[1, 1]).all())
            (True, False, True)
        """
        ready = self._ready
        plain = lengths is None and reset is None and mask is None and not zero_output_for_mask
        if plain and ready is not None:
            call, batch_first, parallel_time = ready
            result = call(x, state, out, batch_first, parallel_time)
            if result is not None:
                return result
        forms = _sequences.Forms(lengths, reset, mask, zero_output_for_mask)
        run = _sequences.runner(self._net(), self._parallel_time, None)
        y, final, _ = _sequences.run(self, run, x, state, out, forms)
        return y, final

    def forward_train(
        self,
        x: Any,
        state: Any = None,
        *,
        out: Array | None = None,
        checkpoint: int | str | None = None,
        lengths: Any = None,
        reset: Any = None,
        mask: Any = None,
        zero_output_for_mask: bool = False,
        rng: Any = None,
    ) -> tuple[Array, State, Tape]:
        """Runs whole sequences as a call does, bit for bit, and keeps what `backward` needs.

        Only here `dropout` acts: outputs of every layer but the last become 0 with that
        probability, else 1 / (1 - dropout) of themselves.

        Args:
            x, state, out, lengths, reset, mask, zero_output_for_mask: as of a call. The tape refers
                to x, which must not change before the backward; y may.
            checkpoint: None keeps the activations of every step (for LSTM 5 H values). A number k
                keeps the state before every k-th step, from which the backward runs the steps once
                more: less memory for about a third more time, and the same gradients, bit for bit.
                k is rounded up to whole blocks of 128 rows of the batch. "auto" takes k near
                sqrt(T). Of bidirectional layers on layers the outputs of the inner ones are kept
                too. Not together with lengths, reset, mask or dropout.
            rng: a seed or a Generator, from which what is dropped is drawn; None draws anew.

        Returns:
            y and the state as of a call, and a tape for any number of calls of `backward`.

        Raises:
            TypeError, ValueError: if an argument does not fit; nothing has been computed then.

        Source: Chen et al. (2016) for checkpoints; Zaremba et al. (2014) for dropout.
        """
        forms = _sequences.PLAIN
        if not (lengths is reset is mask is None) or zero_output_for_mask:
            forms = _sequences.Forms(lengths, reset, mask, zero_output_for_mask)
        return forward_train(self, x, state, out, checkpoint, forms, rng)

    def backward(
        self,
        tape: Tape,
        dy: Any,
        dstate: Any = None,
        *,
        out: Mapping[str, Array] | None = None,
        need_x: bool = True,
        need_params: bool = True,
    ) -> Gradients:
        """Backpropagation through time: the exact gradients of a loss.

        Args:
            tape: of a `forward_train` of this layer; the parameters are those of that call.
            dy: the gradient of the loss with respect to y, in y's shape; or without the axis of
                time, [B, D * H] ([D * H] for one sequence), if the loss sees only y at the last
                time step; or None for zeros.
            dstate: likewise of the final state, in its form but without a clock; an entry or all
                of it may be None.
            out: arrays by parameter name, to which the gradients are added.
            need_x, need_params: whether these gradients are wanted.

        Returns:
            `x`, `state` and `params` by name, with the shapes of what they belong to.

        Raises:
            TypeError, ValueError: if an argument does not fit; nothing has been computed then.

        Source: Werbos (1990).

        Example:
            >>> from fastrnn import LSTM
            >>> lstm = LSTM(3, 8, seed=0)
            >>> y, state, tape = lstm.forward_train(np.ones((5, 2, 3), np.float32))
            >>> g = lstm.backward(tape, y)  # of the loss (y ** 2).sum() / 2
            >>> g.x.shape, g.params["weight_hh_l0"].shape
            ((5, 2, 3), (32, 8))
        """
        return backward(self, tape, dy, dstate, out, need_x, need_params)

    @property
    def _output_size(self) -> int:
        """The values of y at one step."""
        return (1 + self.bidirectional) * (self.proj_size or self.hidden_size)

    def _state_shapes(self, batch: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """The shapes of a state's arrays but for its clock, which has that of batch: (B,), or ()
        for one unbatched sequence."""
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)
        slots = map(sum, zip(*_structure.slots(self), strict=True))
        return tuple((n, *batch, size) for n, size in zip(slots, sizes, strict=False))

    def _check_state(self, name: str, state: Any, batch: tuple[int, ...]) -> tuple[Any, ...]:
        """The arrays of a state or of its gradient, contiguous; none of them for None."""
        return checked_state(self, name, state, batch)

    def _batch(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(B,) of the shape of x or y, or () if it is of one unbatched sequence."""
        return () if len(shape) == 2 else (shape[0 if self.batch_first else 1],)

    def _converted(self, x: Any, state: Any, out: Any) -> tuple[Any, Any, Any]:
        """The arguments of a call as arrays that the kernels take, or an error that names one."""
        x = as_input("x", x, self.dtype)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "[B, T, I]" if self.batch_first else "[T, B, I]"
            raise ValueError(
                f"x: expected {axes} or [T, I] with I = {self.input_size}, got shape {x.shape}"
            )
        arrays = self._check_state("state", state, self._batch(x.shape))
        if out is not None:
            out = check_out(out, (*x.shape[:-1], self._output_size), self.dtype)
        return x, as_state(arrays) if arrays else None, out

    def stream(self, batch_size: int = 1) -> Stream:
        """A state of its own over this layer's present weights, to be run one step at a time.

        Args:
            batch_size: B, sequences that step together.

        Raises:
            ValueError: if the layer is bidirectional or goes backwards.

        Example:
            >>> from fastrnn import LSTM
            >>> s = LSTM(3, 8, seed=0).stream()
            >>> s.step(np.ones(3, np.float32)).shape
            (8,)
        """
        return Stream(self, batch_size)

    # ---- Files and copies

    def rescaled(self, k: float) -> Self:
        """A new layer for input that has k times as many steps in the same time.

        Delays (dilations) become k times as long. A fraction of a step is interpolated linearly:
        2.25 reads 0.75 h_{t-2} + 0.25 h_{t-3}; such a layer only runs forward. The periods of one
        with clocks become k times as long instead, and must stay whole. What a unit keeps of
        itself then comes from as many steps back, so that alpha of a LeakyRNN stays as it is; alpha
        of Leaky, which has no delays, becomes alpha ** (1 / k).

        Args:
            k: a number > 0; the steps of the new layer in one of this.

        Raises:
            ValueError: if a delay would be shorter than a step, two would have the same whole part,
                or a period would not be whole.

        Example:
            >>> from fastrnn import GRU
            >>> GRU(3, 8, delays=(1, 10)).rescaled(2.5)
            GRU(3, 8, delays=(2.5, 25))
        """
        return _structure.rescaled(self, k)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the layer as a safetensors file, which `fastrnn.load` and the C library read."""
        from . import io

        io.save(self, path)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in _OF_THE_MOMENT:
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        nets: dict[str, Any] = {"_plain": None, "_packed": None, "_ready": None, "_piece_nets": {}}
        self.__dict__.update(state, **nets, _lock=threading.Lock())
        masks = [] if self.recurrent_mask is None else [self.recurrent_mask]
        for array in (*self._parameters.values(), *masks):
            array.flags.writeable = False

    def __copy__(self) -> Self:
        copy = type(self).__new__(type(self))
        copy.__setstate__({**self.__getstate__(), "_parameters": self.parameters()})
        return copy


def _detached(value: Any) -> Any:
    """A tensor of PyTorch without its history: a parameter requires grad, its values do not."""
    detach = getattr(value, "detach", None)
    return detach() if callable(detach) else value
