"""What all modules share: the call and its checks, changes of weights, conversions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from .._base import Layer
from .._structure import is_fractional
from ._config import DTYPES, Config
from ._ops import run
from ._packing import forget
from ._sequences import INTEGERS, WHOLE, Cuts, Layout, checked_cuts


class Base(nn.Module):
    """A net whose tensors are the parameters that its configuration names."""

    _counterpart: ClassVar[type[Layer]]
    _common: ClassVar[tuple[str, ...]]  # the arguments that it shares with its counterpart
    _parallel_time: bool = False
    input_size: int
    hidden_size: int
    batch_first: bool

    def _set_config(self, config: Config) -> None:
        self._config = config
        self._names = config.names()
        self._mask_names = config.mask_names()
        self._state_names = config.state_names()

    def _make_parameters(self, device: Any, dtype: Any) -> None:
        """Parameters without values."""
        device = torch.get_default_device() if device is None else torch.device(device)
        if device.type != "cpu":
            raise ValueError(f"device: expected cpu, got {device}")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if dtype not in DTYPES:
            raise TypeError(f"dtype: expected torch.float32 or torch.float64, got {dtype!r}")
        shapes = self._config.shapes(self.input_size, self.hidden_size)
        for name, shape in zip(self._names, shapes, strict=True):
            values = torch.empty(shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(values))

    def _weights(self) -> list[Tensor]:
        """The parameters, and behind them the masks."""
        try:  # the attributes of a module take long to find
            weights: list[Any] = list(map(self._parameters.__getitem__, self._names))
        except KeyError:  # what torch.nn.utils has parametrized is no longer a parameter
            weights = [getattr(self, name) for name in self._names]
        return weights + self._masks() if self._mask_names else weights

    def _masks(self) -> list[Any]:
        return [self._buffers[name] for name in self._mask_names]

    # ---- Calls

    def forward(
        self, input: Any, hx: Any = None, *, lengths: Any = None, reset: Any = None
    ) -> tuple[Any, Any]:
        """Runs whole sequences.

        Args:
            input: [T, B, I], or [B, T, I] with `batch_first`, or [T, I] for one sequence; or a
                PackedSequence, as of torch.nn.
            hx: the state before the first step, zeros if None; for LSTM a tuple (h_0, c_0).
                Each is [L * D, B, H], or [L * D, H] for one sequence (h_0 with a projection P
                instead of H); for Leaky [B, H] or [H]. With `delays` each layer and direction has
                as many steps there as it looks back, the oldest first: h_0 those of its longest
                delay, c_0 of its shortest. With `periods` it is a tuple with one more tensor,
                clock: integers [B] (of shape () for one sequence), the steps that each row has
                done. It has no gradient.
            lengths: [B] integers from 0 to T, in any order, a tensor or a list: sequence b has only
                its first lengths[b] steps, in both directions. After them the output is 0, and the
                final state is that after its last step. Not with a PackedSequence, which has its
                own.
            reset: bool [T, B] ([B, T] with `batch_first`, [T] for one sequence): at these steps a
                sequence starts anew, from its state in hx. Not with a PackedSequence.

        Returns:
            The outputs of the last layer, [T, B, D * H] in the layout of input, and the state
            after the last step in the form of hx.

        Raises:
            TypeError, ValueError, RuntimeError: if an argument does not fit, as of torch.nn.
        """
        weights = self._weights()
        if not isinstance(input, Tensor):
            return self._forward_packed(input, hx, lengths, reset, weights)
        input, state = self._checked(input, hx, weights[0].dtype, self.batch_first)
        cuts = WHOLE
        if lengths is not None or reset is not None:
            cuts = checked_cuts(lengths, reset, input, self.batch_first)
        outputs = self._outputs(input, state, weights, cuts)
        return outputs if len(outputs) == 2 else (outputs[0], outputs[1:])

    def _outputs(
        self, x: Tensor, state: tuple[Tensor, ...], weights: list[Tensor], cuts: Cuts
    ) -> tuple[Tensor, ...]:
        return run(self._config, x, state, weights, self.batch_first, self._parallel_time, cuts)

    def _forward_packed(
        self, packed: Any, hx: Any, lengths: Any, reset: Any, weights: list[Tensor]
    ) -> tuple[nn.utils.rnn.PackedSequence, Any]:
        """As forward, of a PackedSequence: of the padded batch, longest sequence first."""
        if not isinstance(packed, nn.utils.rnn.PackedSequence):
            name = type(packed).__name__
            raise TypeError(f"input: expected a Tensor or a PackedSequence, got {name}")
        for name, value in (("lengths", lengths), ("reset", reset)):
            if value is not None:
                got = type(value).__name__
                raise ValueError(f"{name}: expected None with a PackedSequence, got {got}")
        data = _suited("input", packed.data, weights[0].dtype)
        layout = Layout(packed)
        x, state = self._checked(layout.padded(data), hx, weights[0].dtype, False)
        y, *final = self._outputs_of_layout(x, layout.to_sorted(state), weights, layout)
        last = layout.to_unsorted(tuple(final))
        return layout.sequence(y), last if len(last) > 1 else last[0]

    def _outputs_of_layout(
        self, x: Tensor, state: tuple[Tensor, ...], weights: list[Tensor], layout: Layout
    ) -> tuple[Tensor, ...]:
        return run(self._config, x, state, weights, False, self._parallel_time, layout.cuts)

    def _checked(
        self, x: Tensor, hx: Any, dtype: torch.dtype, batch_first: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The input, and the state as a tuple."""
        shape = x.shape
        if len(shape) != 3 and len(shape) != 2:
            raise ValueError(f"input: expected 2 or 3 dimensions, got {len(shape)}")
        if shape[-1] != self.input_size:
            raise RuntimeError(
                f"input: expected size {self.input_size} (input_size) of the last dimension, "
                f"got {shape[-1]} in {tuple(shape)}"
            )
        x = _suited("input", x, dtype)
        if hx is None:
            return x, ()
        names = self._state_names
        state = (hx,) if len(names) == 1 else hx
        if not isinstance(state, (tuple, list)) or len(state) != len(names):
            count = f" of {len(hx)}" if isinstance(hx, (tuple, list)) else ""
            form = ", ".join([name.split()[1][1:-1] for name in names])
            raise TypeError(f"hx: expected a tuple ({form}), got {type(hx).__name__}{count}")
        batch = () if len(shape) == 2 else (shape[0 if batch_first else 1],)
        shapes = self._config.state_shapes(batch, self.hidden_size)
        tensors = []
        for name, tensor, expected in zip(names, state, shapes, strict=False):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}: expected a Tensor, got {type(tensor).__name__}")
            if tensor.shape != expected:
                raise RuntimeError(f"{name}: expected size {expected}, got {tuple(tensor.shape)}")
            tensors.append(_suited(name, tensor, dtype))
        if len(names) > len(shapes):
            tensors.append(_checked_clock(names[-1], state[-1], batch))
        return x, tuple(tensors)

    # ---- Changes of weights as a whole: PyTorch does not swap tensors with weak references

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        forget(self._parameters.values())
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        forget(self._parameters.values())
        super()._load_from_state_dict(state_dict, prefix, *args)

    # ---- To and from the layers of fastrnn

    def to_fastrnn(self) -> Any:
        """The layer of fastrnn with these weights (copied), which gives the bits that this gives.

        It needs no PyTorch, and is light to pickle and to send.

        Example:
            >>> import torch, fastrnn.torch as ft
            >>> net = ft.LSTM(3, 8)
            >>> x = torch.randn(5, 3)
            >>> bool((net.to_fastrnn()(x.numpy())[0] == net(x)[0].detach().numpy()).all())
            True
        """
        weights = self._weights()
        self._config.check(weights)
        values = {}
        for name, tensor in zip(self._names, weights, strict=False):  # masks are behind
            if name.startswith("alpha_logit"):
                tensor = torch.sigmoid(tensor)
                name = name.replace("alpha_logit", "alpha")
            values[name] = tensor
        arguments = {name: getattr(self, name) for name in self._shared(self)}
        layer = self._counterpart(**arguments, dtype=DTYPES[weights[0].dtype])
        layer.load_state_dict(values)
        return layer

    @classmethod
    def _shared(cls, source: Any) -> tuple[str, ...]:
        """The arguments that a module, or a layer of the counterpart, has in common with it."""
        return cls._common

    @classmethod
    def from_fastrnn(cls, layer: Layer, **options: Any) -> Self:
        """A module with the weights (copied) of the layer of fastrnn with the same name.

        Args:
            layer: a layer of fastrnn.
            options: arguments of the module to use instead of those of the layer.

        Raises:
            TypeError: if it is a layer of another class.
            ValueError: if it reads its input backwards (go_backwards), or has delays of parts of a
                step (`rescaled`), which only run forward.

        Example:
            >>> import fastrnn, fastrnn.torch as ft
            >>> ft.LSTM.from_fastrnn(fastrnn.LSTM(3, 8, num_layers=2), dropout=0.1)
            LSTM(3, 8, num_layers=2, dropout=0.1)
        """
        if type(layer) is not cls._counterpart:
            raise TypeError(
                f"layer: expected a fastrnn.{cls._counterpart.__name__}, got {type(layer)}"
            )
        if getattr(layer, "go_backwards", False):
            raise ValueError("layer: expected go_backwards=False (flip the input), got True")
        if is_fractional(layer):
            raise ValueError(f"layer: expected delays of whole steps, got {layer.delays}")
        dtype = torch.float32 if layer.dtype == np.float32 else torch.float64
        arguments = {name: getattr(layer, name) for name in cls._shared(layer)} | options
        module = cls(**arguments, dtype=dtype)
        module.load_state_dict({k: torch.tensor(v) for k, v in layer.parameters().items()})
        return module


def _suited(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor, under autocast in the dtype of the weights; an error if it is of another kind."""
    if tensor.dtype != dtype:
        if not torch.is_autocast_enabled("cpu") or not tensor.is_floating_point():
            raise ValueError(f"{name}: expected {dtype} as the weights, got {tensor.dtype}")
        tensor = tensor.to(dtype)
    if not tensor.is_cpu or tensor.layout != torch.strided:
        raise RuntimeError(
            f"{name}: expected a dense tensor on the cpu, got {tensor.layout} on {tensor.device}"
        )
    return tensor


def _checked_clock(name: str, tensor: Any, batch: tuple[int, ...]) -> Tensor:
    """The clock of a state as int64; its values are for the run, as a tracer has none."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a Tensor, got {type(tensor).__name__}")
    if tensor.shape != batch:
        raise RuntimeError(f"{name}: expected size {batch}, got {tuple(tensor.shape)}")
    if tensor.dtype not in INTEGERS:
        raise TypeError(f"{name}: expected torch.int64, got {tensor.dtype}")
    if not tensor.is_cpu or tensor.layout != torch.strided:
        raise RuntimeError(
            f"{name}: expected a dense tensor on the cpu, got {tensor.layout} on {tensor.device}"
        )
    return tensor.to(torch.int64)
