"""What all layers share: parameters, calls, states, copies. The layers are in layers.py."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from . import _core
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
from .stream import Stream
from .training import Gradients, Tape, backward, forward_train

State = Array | tuple[Array, Array]


class Layer:
    """Base of the layers: named parameters that are packed once per change, and the call.

    Parameters live in plain read-only arrays. They change as a whole: by assigning to the
    attribute of that name, or through `load_state_dict`. The packed form for the kernels is made at
    the next call after a change, once.
    """

    _cell: ClassVar[str]
    activation: str = "tanh"
    _parallel_time: bool = False

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
        self._directions: list[_core.Net] | None = None  # each part as a net of its own
        self._lock = threading.Lock()

    # ---- Parameters

    def _set_parameter(self, name: str, value: Any) -> None:
        """Takes a copy of a value that has been checked for shape and meaning."""
        array = np.array(value, self.dtype, order="C")
        array.flags.writeable = False
        with self._lock:
            self._parameters[name] = array
            self._packed = self._directions = None

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

    def _in_parts(self, arrays: Mapping[str, Array]) -> list[tuple[Array | None, ...]]:
        """Arrays by parameter name in the order of the C library: a tuple per layer, direction."""
        raise NotImplementedError

    def _kind(self) -> tuple[Any, ...]:
        """What two layers have in common if a tape of one serves the other."""
        names = ("input_size", "hidden_size", "num_layers", "bidirectional", "batch_first", "dtype")
        options = (getattr(self, name) for name in names)
        return (self._cell, self.activation, *options, tuple(self._parameters))

    def _check_sizes(self) -> _core.Net:
        """The net without its weights, or an error if it could not be held in memory."""
        return _core.Net(
            self._cell,
            self.activation,
            self.dtype.name,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            1 + self.bidirectional,
        )

    def _net(self) -> _core.Net:
        """The net with packed weights, packed again if a parameter has changed."""
        with self._lock:
            if self._packed is None:
                self._plain = self._plain or self._check_sizes()
                self._packed = self._plain.pack(self._in_parts(self._parameters))
            return self._packed

    def _direction_nets(self) -> list[_core.Net]:
        """Each direction of each layer as a net of its own, packed again after a change."""
        with self._lock:
            if self._directions is None:
                nets, width = [], (1 + self.bidirectional) * self.hidden_size
                for index, weights in enumerate(self._in_parts(self._parameters)):
                    inputs = self.input_size if index <= self.bidirectional else width
                    net = _core.Net(
                        self._cell,
                        self.activation,
                        self.dtype.name,
                        inputs,
                        self.hidden_size,
                        1,
                        1,
                    )
                    nets.append(net.pack([weights]))
                self._directions = nets
            return self._directions

    # ---- Calls

    def __call__(
        self, x: Any, state: Any = None, *, out: Array | None = None
    ) -> tuple[Array, State]:
        """Runs whole sequences.

        Args:
            x: [T, B, I], or [B, T, I] with `batch_first`, or [T, I] for one sequence. Anything
                array-like whose values the layer's dtype holds exactly.
            state: what a call returned, to carry on from there; zeros if None. For LSTM (h, c), for
                LeakyRNN of form potential u, else h; arrays [L * D, B, H] ([L * D, H] for one
                sequence), ordered layer 0, layer 0 reverse, layer 1, ... For Leaky [B, H] or [H].
            out: an array for y, of y's shape and dtype; must not overlap x.

        Returns:
            y, [T, B, D * H] in the layout of x, the outputs of the last layer, forward units
            first; and the state after the last step, in the form of `state`.

        Raises:
            TypeError, ValueError: if an argument does not fit; nothing has been computed then.
        """
        net = self._packed or self._net()
        result = net.call(x, state, out, self.batch_first, self._parallel_time)
        if result is None:
            x, state, out = self._converted(x, state, out, net.states)
            result = net.call(x, state, out, self.batch_first, self._parallel_time)
            assert result is not None
        return result

    def forward_train(
        self,
        x: Any,
        state: Any = None,
        *,
        out: Array | None = None,
        checkpoint: int | str | None = None,
    ) -> tuple[Array, State, Tape]:
        """Runs whole sequences as a call does, bit for bit, and keeps what `backward` needs.

        Args:
            x, state, out: as of a call. The tape refers to x, which must not change before the
                backward; y may.
            checkpoint: None keeps the activations of every step (for LSTM 5 H values). A number k
                keeps the state before every k-th step, from which the backward runs the steps once
                more: less memory for about a third more time, and the same gradients, bit for bit.
                k is rounded up to whole blocks of 128 rows of the batch. "auto" takes k near
                sqrt(T). Of bidirectional layers on layers the outputs of the inner ones are kept
                too.

        Returns:
            y and the state as of a call, and a tape for any number of calls of `backward`.

        Raises:
            TypeError, ValueError: if an argument does not fit; nothing has been computed then.

        Source: Chen et al. (2016) for checkpoints.
        """
        return forward_train(self, x, state, out, checkpoint)

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
                time, [B, D * H] ([D * H] for one sequence), if the loss sees only the output of
                the last time step; or None for zeros.
            dstate: likewise of the final state, in its form; an entry or all of it may be None.
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

    def _state_shape(self, batch: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a state array; batch is (B,), or () for one unbatched sequence."""
        return (self.num_layers * (1 + self.bidirectional), *batch, self.hidden_size)

    def _check_state(self, state: Any, count: int, batch: tuple[int, ...]) -> tuple[Array, ...]:
        """The state's arrays, contiguous; none of them for None."""
        if state is None:
            return ()
        names: tuple[str, ...] = ("state",)
        if count == 1:
            state = (state,)
        else:
            names = ("state[0] (h)", "state[1] (c)")
            if not isinstance(state, (tuple, list)) or len(state) != count:
                raise TypeError(f"state: expected a tuple (h, c), got {describe(state)}")
        shape = self._state_shape(batch)
        arrays = []
        for name, value in zip(names, state, strict=True):
            array = as_real(name, value, self.dtype)
            if array.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
            arrays.append(np.require(array, requirements=["C", "A"]))
        return tuple(arrays)

    def _converted(self, x: Any, state: Any, out: Any, states: int) -> tuple[Any, Any, Any]:
        """The arguments of a call as arrays that the kernels take, or an error that names one."""
        x = as_input("x", x, self.dtype)
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "[B, T, I]" if self.batch_first else "[T, B, I]"
            raise ValueError(
                f"x: expected {axes} or [T, I] with I = {self.input_size}, got shape {x.shape}"
            )
        batch = () if x.ndim == 2 else (x.shape[0 if self.batch_first else 1],)
        arrays = self._check_state(state, states, batch)
        if out is not None:
            shape = (*x.shape[:-1], (1 + self.bidirectional) * self.hidden_size)
            out = check_out(out, shape, self.dtype)
        if state is not None:
            state = arrays if states > 1 else arrays[0]
        return x, state, out

    def stream(self, batch_size: int = 1) -> Stream:
        """A state of its own over this layer's present weights, to be run one step at a time.

        Args:
            batch_size: B, sequences that step together.

        Raises:
            ValueError: if the layer is bidirectional.

        Example:
            >>> from fastrnn import LSTM
            >>> s = LSTM(3, 8, seed=0).stream()
            >>> s.step(np.ones(3, np.float32)).shape
            (8,)
        """
        return Stream(self, batch_size)

    # ---- Files and copies

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the layer as a safetensors file, which `fastrnn.load` and the C library read."""
        from . import io

        io.save(self, path)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_plain"], state["_packed"], state["_directions"], state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(
            state, _plain=None, _packed=None, _directions=None, _lock=threading.Lock()
        )
        for array in self._parameters.values():
            array.flags.writeable = False

    def __copy__(self) -> Self:
        copy = type(self).__new__(type(self))
        copy.__setstate__({**self.__getstate__(), "_parameters": self.parameters()})
        return copy


def _detached(value: Any) -> Any:
    """A tensor of PyTorch without its history: a parameter requires grad, its values do not."""
    detach = getattr(value, "detach", None)
    return detach() if callable(detach) else value
