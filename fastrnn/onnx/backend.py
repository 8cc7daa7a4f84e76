"""An implementation of ONNX's backend interface for LSTM, GRU and RNN.

    import fastrnn.onnx.backend as backend

    outputs = backend.run_model(model, [x])

It runs what `fastrnn.onnx.load` reads, and also models whose weights are inputs, as those of ONNX's
own tests are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from .._arrays import Array
from ._cells import GATES
from ._graph import Graph, read
from ._reader import build_model

_WEIGHTS = (1, 2, 3, 7)  # the inputs W, R, B and P of a node


class FastrnnRep(BackendRep):
    """A model that has been prepared."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = read(model)
        self._weights = _weights(self._graph)
        self._model = None if self._weights else build_model(self._graph)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs, a named tuple, from the inputs in order, or by name."""
        names = list(self._graph.inputs)
        if not isinstance(inputs, Mapping):
            if isinstance(inputs, np.ndarray) or not isinstance(inputs, Sequence):
                inputs = [inputs]
            if len(inputs) != len(names):
                raise ValueError(f"inputs: expected {len(names)}, got {len(inputs)}")
            inputs = dict(zip(names, inputs, strict=True))
        model, feeds = self._model, dict(inputs)
        if model is None:
            missing = self._weights - feeds.keys()
            if missing:
                raise ValueError(f"inputs: missing {sorted(missing)}")
            weights: dict[str, Array] = {n: np.asarray(feeds.pop(n)) for n in self._weights}
            model = build_model(self._graph.bind(weights))
        outputs = model.run(feeds)
        return namedtupledict("Outputs", list(outputs))(*outputs.values())


def _weights(graph: Graph) -> set[str]:
    """The inputs of a graph that are weights of its nodes."""
    names: set[str] = set()
    for op in graph.ops:
        if op.kind in GATES and not op.domain:
            names |= {graph.origin(op.input(slot)) for slot in _WEIGHTS}
    return names & graph.inputs.keys()


class FastrnnBackend(Backend):
    """`prepare`, `run_model` and `run_node` for graphs that fastrnn runs."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` would take the model."""
        try:
            FastrnnRep(model)
        except (ValueError, TypeError):
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> FastrnnRep:
        super().prepare(model, device, **kwargs)
        if not cls.supports_device(device):
            raise ValueError(f"device: expected 'CPU', got {device!r}")
        return FastrnnRep(model)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Any = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """The outputs of one node; `opset_version` says of which version it is."""
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        names = [name for name in node.input if name]
        arrays = [np.asarray(array) for array in inputs]
        if len(arrays) != len(names):
            raise ValueError(f"inputs: expected {len(names)}, got {len(arrays)}")
        of_type = onnx.helper.np_dtype_to_tensor_dtype
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [
                onnx.helper.make_tensor_value_info(name, of_type(array.dtype), array.shape)
                for name, array in zip(names, arrays, strict=True)
            ],
            [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        model = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", version)], ir_version=10
        )
        if not cls.supports_device(device):
            raise ValueError(f"device: expected 'CPU', got {device!r}")
        return FastrnnRep(model).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        try:
            return Device(device).type == DeviceType.CPU
        except (AttributeError, ValueError):
            return False


is_compatible = FastrnnBackend.is_compatible
prepare = FastrnnBackend.prepare
run_model = FastrnnBackend.run_model
run_node = FastrnnBackend.run_node
supports_device = FastrnnBackend.supports_device
