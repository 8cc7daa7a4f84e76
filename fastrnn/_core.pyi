from typing import Any

import numpy as np
from numpy.typing import NDArray

class Net:
    gates: int
    states: int
    clocked: bool
    def __init__(
        self,
        cell: str,
        dtype: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        num_directions: int,
        proj_size: int = 0,
        peephole: bool = False,
        clip: float = 0.0,
        cell_clip: float = 0.0,
        activation: tuple[str, float, float] = ...,
        gate_activation: tuple[str, float, float] = ...,
        output_activation: tuple[str, float, float] = ...,
        delays: tuple[float, ...] = ...,
        dilated: bool = False,
        periods: tuple[int, ...] = ...,
        group_sizes: tuple[int, ...] = ...,
        full: bool = False,
        mask_blocks: int = 0,
    ) -> None: ...
    def pack(
        self,
        weights: list[tuple[NDArray[Any] | None, ...]],
        masks: list[NDArray[np.bool_]] | None = None,
    ) -> Net: ...
    def call(
        self,
        x: Any,
        state: Any,
        out: Any,
        batch_first: bool,
        parallel_time: bool,
        tape: Tape | None = None,
        lengths: NDArray[np.intp] | None = None,
        reset: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], Any] | None: ...
    def saved_size(self, steps: int, batch: int) -> int: ...
    def call_train(
        self,
        x: Any,
        state: Any,
        out: Any,
        batch_first: bool,
        saved: NDArray[Any],
        lengths: NDArray[np.intp] | None = None,
        reset: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], Any] | None: ...
    def backward(
        self,
        x: NDArray[Any],
        saved: NDArray[Any],
        dy: NDArray[Any] | None,
        dstate: tuple[NDArray[Any] | None, ...],
        batch_first: bool,
        need_x: bool,
        grads: list[tuple[NDArray[Any] | None, ...]] | None,
        accumulate: bool = False,
        lengths: NDArray[np.intp] | None = None,
        reset: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any] | None, tuple[NDArray[Any], ...]]: ...

class Tape:
    def __init__(self, checkpoint: int = 0, saved: NDArray[Any] | None = None) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def inputs(self) -> tuple[NDArray[Any], ...]: ...
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], ...]]: ...
    def backward(
        self,
        dy: NDArray[Any] | None,
        dstate: tuple[NDArray[Any] | None, ...],
        need_x: bool,
        grads: list[tuple[NDArray[Any] | None, ...]] | None,
        accumulate: bool = False,
    ) -> tuple[NDArray[Any] | None, tuple[NDArray[Any], ...]]: ...

class Stream:
    def __init__(self, net: Net, batch: int) -> None: ...
    def reset(self) -> None: ...
    def get(self, arrays: tuple[NDArray[Any], ...]) -> None: ...
    def set(self, arrays: tuple[NDArray[Any], ...]) -> None: ...
    def step(self, x: Any, out: Any = None) -> NDArray[Any]: ...

def gated_leaky(
    alpha: NDArray[Any],
    v: NDArray[Any],
    state: NDArray[Any],
    out: NDArray[Any],
    parallel_time: bool,
) -> None: ...
def gated_leaky_backward(
    alpha: NDArray[Any],
    v: NDArray[Any],
    y: NDArray[Any],
    state: NDArray[Any],
    dy: NDArray[Any] | None,
    dalpha: NDArray[Any],
    dv: NDArray[Any],
    dstate: NDArray[Any],
    parallel_time: bool,
) -> None: ...
def open_model(
    data: bytes, bare: bool = False
) -> tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...], bytes]]]: ...
def isa() -> str | None: ...
def available_isas() -> list[str]: ...
def version() -> str: ...
def build_info() -> dict[str, Any]: ...
def fma_flops(n: int) -> float: ...
def read_bytes(buffer: Any, repeats: int) -> int: ...
