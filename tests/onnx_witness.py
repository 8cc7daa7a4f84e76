"""Values by ONNX Runtime, float32: a stack of LSTM, GRU or RNN nodes with a layer's weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from support import Net, unpack
from witnesses import parametric

OPERATORS = {
    "lstm": "LSTM",
    "lstm_coupled": "LSTM",
    "gru": "GRU",
    "gru_reset_before": "GRU",
    "rnn": "RNN",
}
# Which of a layer's blocks comes at each place; None: one that is not used, whatever is in it.
GATES: dict[str, list[int | None]] = {
    "lstm": [0, 3, 1, 2],  # i f g o -> i o f c
    "lstm_coupled": [0, 2, None, 1],  # i g o -> i o f c
    "gru": [1, 0, 2],  # r z n -> z r h
    "gru_reset_before": [1, 0, 2],
    "rnn": [0],
}
PEEPHOLES: dict[str, list[int | None]] = {
    "lstm": [0, 2, 1],  # i f o -> i o f
    "lstm_coupled": [0, 1, None],  # i o -> i o f
}
FUNCTIONS = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "hard_sigmoid": "HardSigmoid"}
FUNCTIONS |= {"identity": "Affine", "affine": "Affine", "leaky_relu": "LeakyRelu", "elu": "Elu"}
FUNCTIONS |= {"thresholded_relu": "ThresholdedRelu", "scaled_tanh": "ScaledTanh"}
FUNCTIONS |= {"softsign": "Softsign", "softplus": "Softplus"}


def activations(net: Net) -> dict[str, list[Any]]:
    """The attributes of that name; parameters only where a function has them, in their order."""
    given = {
        "LSTM": (net.gate_activation, net.nonlinearity, net.output_activation),
        "GRU": (net.gate_activation, net.nonlinearity),
        "RNN": (net.nonlinearity,),
    }[OPERATORS[net.cell]] * net.directions
    found: dict[str, list[Any]] = {"activations": []}
    for name, parameters in map(parametric, given):
        found["activations"].append(FUNCTIONS[name])
        values = [1.0, 0.0] if name == "identity" else parameters
        for key, value in zip(("activation_alpha", "activation_beta"), values, strict=False):
            found.setdefault(key, []).append(float(value))
    return found


class OnnxStack:
    """One node per layer, with the nodes between them that reshape Y for the next."""

    def __init__(self, net: Net, layer: Any, lengths: Any = None) -> None:
        self.op, self.lengths = OPERATORS[net.cell], lengths
        self.states = ["h", "c"][: net.states]
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {"rows": np.array([0, 0, -1])}
        info = onnx.helper.make_tensor_value_info
        inputs = [info("x0", onnx.TensorProto.FLOAT, None)]
        if lengths is not None:
            inputs.append(info("lengths", onnx.TensorProto.INT32, None))
        outputs = [info(f"x{net.num_layers}", onnx.TensorProto.FLOAT, None)]
        for index in range(net.num_layers):
            self.add_layer(net, layer.parameters(), index)
            for s in self.states:
                inputs.append(info(f"{s}{index}", onnx.TensorProto.FLOAT, None))
                outputs.append(info(f"{s}{index}_end", onnx.TensorProto.FLOAT, None))
        tensors = [onnx.numpy_helper.from_array(v, k) for k, v in self.constants.items()]
        graph = onnx.helper.make_graph(self.nodes, "net", inputs, outputs, tensors)
        model = onnx.helper.make_model(
            graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)]
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def add_layer(self, net: Net, parameters: dict[str, np.ndarray], index: int) -> None:
        suffixes = [f"_l{index}" + r for r in ("", "_reverse")[: net.directions]]

        def of_gates(name: str, suffix: str) -> np.ndarray:
            order = (PEEPHOLES if name == "peephole" else GATES)[net.cell]
            values = parameters[name + suffix]
            blocks = np.split(values, len(values) // net.hidden_size)
            unused = np.full_like(blocks[0], 9.0)
            return np.concatenate([unused if gate is None else blocks[gate] for gate in order])

        def constant(name: str, *names: str) -> str:
            stacked = [np.concatenate([of_gates(n, s) for n in names]) for s in suffixes]
            self.constants[f"{name}{index}"] = np.stack(stacked)
            return f"{name}{index}"

        inputs = [f"x{index}", constant("W", "weight_ih"), constant("R", "weight_hh")]
        inputs.append(constant("B", "bias_ih", "bias_hh") if net.bias else "")
        inputs.append("" if self.lengths is None else "lengths")
        inputs += [f"{s}{index}" for s in self.states]
        if net.peephole:
            inputs.append(constant("P", "peephole"))
        attributes: dict[str, Any] = activations(net)
        if net.clip:
            attributes["clip"] = net.clip
        if net.cell == "lstm_coupled":
            attributes["input_forget"] = 1
        if self.op == "GRU":
            attributes["linear_before_reset"] = int(net.cell == "gru")
        self.nodes += [
            onnx.helper.make_node(
                self.op,
                inputs,
                [f"y{index}"] + [f"{s}{index}_end" for s in self.states],
                hidden_size=net.hidden_size,
                direction="bidirectional" if net.bidirectional else "forward",
                **attributes,
            ),
            onnx.helper.make_node("Transpose", [f"y{index}"], [f"t{index}"], perm=[0, 2, 1, 3]),
            onnx.helper.make_node("Reshape", [f"t{index}", "rows"], [f"x{index + 1}"]),
        ]

    def __call__(self, net: Net, x: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        """For batched x; state is not None."""
        feed = {"x0": x.swapaxes(0, 1) if net.batch_first else x}
        if self.lengths is not None:
            feed["lengths"] = np.asarray(self.lengths, np.int32)
        for s, array in zip(self.states, unpack(state), strict=True):
            layers = np.split(array, net.num_layers)
            feed |= {f"{s}{index}": layers[index] for index in range(net.num_layers)}
        y, *ends = self.session.run(None, {k: np.ascontiguousarray(v) for k, v in feed.items()})
        final = [np.concatenate(ends[i :: net.states]) for i in range(net.states)]
        y = y.swapaxes(0, 1) if net.batch_first else y
        return y, tuple(final) if net.states > 1 else final[0]
