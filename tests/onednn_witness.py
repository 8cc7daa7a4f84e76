"""oneDNN's RNN primitives through the C interface of its library (pip: onednn-cpu-gomp)."""

from __future__ import annotations

import ctypes
import importlib.metadata
from collections.abc import Sequence
from typing import Any

import numpy as np

# Values of enumerators in dnnl_types.h of oneDNN 3.
CPU, STREAM_DEFAULT, INFERENCE, F32 = 1, 1, 96, 3
DIRECTIONS = {"left2right": 1, "right2left": 2, "concat": 3}
ELTWISE = {"relu": 32, "tanh": 33, "logistic": 41}
TAGS = {"tnc": 4, "ldnc": 5, "ldgo": 5, "ldio": 5, "ldigo": 6, "ldoi": 20, "ldgoi": 31}
SRC, SRC_LAYER, SRC_ITER, SRC_ITER_C = 1, 1, 2, 3
DST, DST_LAYER, DST_ITER, DST_ITER_C = 17, 17, 18, 19
WEIGHTS_LAYER, WEIGHTS_ITER, WEIGHTS_PEEPHOLE, WEIGHTS_PROJECTION, BIAS = 33, 34, 35, 36, 41

# Not every primitive takes these: oneDNN itself puts them in the plain order.
PLAIN = {"ldgoi": "ldigo", "ldoi": "ldio"}


# Arrays by the number of the argument, each with its description.
Memories = dict[int, tuple[ctypes.c_void_p, np.ndarray]]


class ExecArg(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_int), ("memory", ctypes.c_void_p))


def _library() -> ctypes.CDLL:
    files = importlib.metadata.files("onednn-cpu-gomp") or []
    return ctypes.CDLL(str(next(f for f in files if f.name == "libdnnl.so.3").locate()))


class OneDNN:
    """One engine and one stream on the CPU."""

    def __init__(self) -> None:
        self.library = _library()
        self.engine, self.stream = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("engine_create", ctypes.byref(self.engine), CPU, ctypes.c_size_t(0))
        self._call("stream_create", ctypes.byref(self.stream), self.engine, STREAM_DEFAULT)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, "dnnl_" + name)(*arguments)
        if status:
            raise RuntimeError(f"dnnl_{name}: status {status}")

    def _made(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self._call(name, ctypes.byref(made), *arguments)
        return made

    def _desc(self, shape: Sequence[int], tag: str) -> ctypes.c_void_p:
        dims = (ctypes.c_int64 * 12)(*shape)
        return self._made("memory_desc_create_with_tag", len(shape), dims, F32, TAGS[tag])

    def run(
        self,
        kind: str,
        x: np.ndarray,
        weights: dict[str, np.ndarray],
        *,
        h: np.ndarray,
        c: np.ndarray | None = None,
        layout: str = "ldigo",
        direction: str = "left2right",
        activation: str = "tanh",
        alpha: float = 0.0,
    ) -> list[np.ndarray]:
        """Outputs and final states of one primitive.

        Args:
            kind: lstm, gru, lbr_gru or vanilla_rnn.
            x: [T, B, I].
            weights: layer and iter, [L, D, I, G, H] in the order of `layout`; bias [L, D, G, H];
                peephole [L, D, 3, H]; projection [L, D, H, P], or [L, D, P, H] with "ldgoi".
            h, c: [L, D, B, H or P] and [L, D, B, H].
            activation, alpha: of vanilla_rnn.
        """
        memories: Memories = {}

        def given(arg: int, array: np.ndarray | None, tag: str) -> ctypes.c_void_p:
            if array is None:
                return ctypes.c_void_p()
            array = np.ascontiguousarray(array, np.float32)
            if tag in PLAIN:
                array, tag = self._reordered(array, tag, PLAIN[tag]), PLAIN[tag]
            desc = self._desc(array.shape, tag)
            memories[arg] = (desc, array)
            return desc

        width = h.shape[-1] * (2 if direction == "concat" else 1)
        y = np.empty((*x.shape[:2], width), np.float32)
        outputs = [y, np.empty(h.shape, np.float32)]
        source = [given(SRC_LAYER, x, "tnc"), given(SRC_ITER, h, "ldnc")]
        matrices = [
            given(WEIGHTS_LAYER, weights["layer"], layout),
            given(WEIGHTS_ITER, weights["iter"], layout),
        ]
        bias = given(BIAS, weights["bias"], "ldgo")
        target = [given(DST_LAYER, y, "tnc"), given(DST_ITER, outputs[1], "ldnc")]
        first: list[Any] = [INFERENCE]
        flags: list[Any] = [0]
        if kind == "vanilla_rnn":
            first.append(ELTWISE[activation])
            flags += [ctypes.c_float(alpha), ctypes.c_float(0)]
        first.append(DIRECTIONS[direction])
        if kind == "lstm":
            assert c is not None
            outputs.append(np.empty(c.shape, np.float32))
            source.append(given(SRC_ITER_C, c, "ldnc"))
            target.append(given(DST_ITER_C, outputs[2], "ldnc"))
            matrices += [
                given(WEIGHTS_PEEPHOLE, weights.get("peephole"), "ldgo"),
                given(
                    WEIGHTS_PROJECTION,
                    weights.get("projection"),
                    "ldoi" if layout == "ldgoi" else "ldio",
                ),
            ]
        create = f"{kind}_forward_primitive_desc_create"
        tail = [*source, *matrices, bias, *target, *flags, ctypes.c_void_p()]
        self._execute(self._made(create, self.engine, *first, *tail), memories)
        return [memories[arg][1] for arg in (DST_LAYER, DST_ITER, DST_ITER_C)[: len(outputs)]]

    def _execute(self, desc: ctypes.c_void_p, memories: Memories) -> None:
        """Runs the primitive of that description on arrays in the memory of NumPy."""
        primitive = self._made("primitive_create", desc)
        arguments = (ExecArg * len(memories))()
        for slot, (arg, (array_desc, array)) in zip(arguments, memories.items(), strict=True):
            data = ctypes.c_void_p(array.ctypes.data)
            slot.arg = arg
            slot.memory = self._made("memory_create", array_desc, self.engine, data).value
        self._call("primitive_execute", primitive, self.stream, len(memories), arguments)
        self._call("stream_wait", self.stream)
        for slot in arguments:
            self._call("memory_destroy", ctypes.c_void_p(slot.memory))
        self._call("primitive_destroy", primitive)

    def _reordered(self, array: np.ndarray, source: str, target: str) -> np.ndarray:
        """The array, stored in the order of one tag, in that of the other."""
        axes = [source.index(axis) for axis in target]
        result = np.empty([array.shape[axis] for axis in axes], np.float32)
        descs = [self._desc(result.shape, tag) for tag in (source, target)]
        places = (descs[0], self.engine, descs[1], self.engine)
        reorder = self._made("reorder_primitive_desc_create", *places, ctypes.c_void_p())
        self._execute(reorder, {SRC: (descs[0], array), DST: (descs[1], result)})
        return result
