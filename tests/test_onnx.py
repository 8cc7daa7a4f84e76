"""Models as `fastrnn.onnx` reads them: stacks, glue, exporters, roles of inputs, data elsewhere."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_cases
import onnx_text
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import assert_close, refuses, same_bits, unpack

import fastrnn
import fastrnn.onnx as fo
from fastrnn import GRU, LSTM, RNN

FLOAT = TensorProto.FLOAT


def make_model(
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    tensors: dict[str, np.ndarray],
    opset: int = 17,
    **options: Any,
) -> onnx.ModelProto:
    """A model from nodes, shapes of inputs and outputs, and arrays."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, **options)


def weights(
    rng: np.random.Generator, op: str, inputs: int, hidden: int, directions: int = 1
) -> Any:
    """W, R, B of a node."""
    rows = onnx_cases.GATES[op] * hidden
    shapes = [(directions, rows, inputs), (directions, rows, hidden), (directions, 2 * rows)]
    return [rng.uniform(-0.7, 0.7, shape).astype(np.float32) for shape in shapes]


# ---- Stacks -----------------------------------------------------------------------------------

INTS = {"axis": [1], "joined": [0, 0, -1]}
SQUEEZE = [("Squeeze", ["{y}", "axis"], "{x}", {})]
JOIN = [
    ("Transpose", ["{y}"], "{y}_t", {"perm": [0, 2, 1, 3]}),
    ("Reshape", ["{y}_t", "joined"], "{x}", {}),
]
SCRAMBLE = [
    ("Transpose", ["{y}"], "{y}_t", {"perm": [0, 1, 2, 3]}),
    ("Reshape", ["{y}_t", "joined"], "{x}", {}),
]


def stack(
    rng: np.random.Generator,
    op: str = "LSTM",
    glue: Any = SQUEEZE,
    direction: str = "forward",
    count: int = 3,
    changes: dict[str, Any] | None = None,
) -> tuple[onnx.ModelProto, list[Any]]:
    """Nodes on one another, and their weights. `changes`: attributes of the second node."""
    directions, hidden = 1 + (direction == "bidirectional"), 4
    nodes, arrays, tensors = [], [], {k: np.array(v, np.int64) for k, v in INTS.items()}
    x = "x"
    for k in range(count):
        inputs = 3 if k == 0 else hidden * directions
        arrays.append(weights(rng, op, inputs, hidden, directions))
        names = [f"{slot}{k}" for slot in "WRB"]
        tensors |= dict(zip(names, arrays[-1], strict=True))
        options = {"hidden_size": hidden, "direction": direction} | (
            (changes or {}) if k == 1 else {}
        )
        nodes.append(helper.make_node(op, [x, *names], [f"y{k}", f"h{k}"], f"n{k}", **options))
        x = f"x{k + 1}"
        for kind, given, result, attributes in glue:
            given = [name.format(y=f"y{k}", x=x) for name in given]
            result = result.format(y=f"y{k}", x=x)
            nodes.append(helper.make_node(kind, given, [result], **attributes))
    shapes = {"x": ["T", "B", 3]}
    outputs = {x: None, **{f"h{k}": None for k in range(count)}}
    return make_model(nodes, shapes, outputs, tensors), arrays


def by_text(op: str, arrays: list[Any], x: np.ndarray, direction: str) -> list[np.ndarray]:
    """y of the last node, its directions side by side, and Y_h of all."""
    finals = []
    for w, r, b in arrays:
        y, h, *_ = onnx_text.run(op, {"direction": direction}, x, w, r, b)
        x = y.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1)
        finals.append(h)
    return [x, *finals]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("glue", [SQUEEZE, JOIN], ids=["squeeze", "join"])
def test_equal_nodes_on_one_another_are_one_layer(
    rng: np.random.Generator, op: str, direction: str, glue: Any
):
    if direction == "bidirectional" and glue is SQUEEZE:
        glue = JOIN
    model, arrays = stack(rng, op, glue, direction)
    net = fo.load(model)
    (part,) = net.parts
    assert part.names == ("n0", "n1", "n2")
    assert part.reverse == (direction == "reverse")
    assert part.layer.num_layers == 3
    x = rng.standard_normal((6, 2, 3)).astype(np.float32)
    expected = by_text(op, arrays, x, direction)
    assert_close(tuple(net.run({"x": x}).values()), tuple(expected), 1e-6)
    y, state = net(x)
    assert_close(y, expected[0], 1e-6)
    assert_close(unpack(state)[0], np.concatenate(expected[1:]), 1e-6)


@pytest.mark.parametrize(
    "changes", [{"clip": 0.5}, {"direction": "reverse"}, {"activations": ["Sigmoid"] * 3}], ids=str
)
def test_unequal_nodes_stay_apart(rng: np.random.Generator, changes: Any):
    model, arrays = stack(rng, changes=changes)
    net = fo.load(model)
    assert [part.names for part in net.parts] == [("n0",), ("n1",), ("n2",)]
    x = y = rng.standard_normal((6, 2, 3)).astype(np.float32)
    for k, (w, r, b) in enumerate(arrays):
        options = {} if k != 1 else changes
        y = onnx_text.run("LSTM", options, y, w, r, b)[0][:, 0]
    assert_close(net.run({"x": x})["x3"], y, 1e-6)
    assert_close(net(x)[0], y, 1e-6)
    with refuses(ValueError, "layer", "n0", "n1"):
        net.layer  # noqa: B018


def test_states_of_parts_go_on(rng: np.random.Generator):
    model, _ = stack(rng, changes={"clip": 0.5})
    net = fo.load(model)
    x = rng.standard_normal((6, 2, 3)).astype(np.float32)
    y, state = net(x)
    first, middle = net(x[:2])
    second, last = net(x[2:], middle)
    assert same_bits(np.concatenate([first, second]), y)
    assert all(map(same_bits, last, state))
    with refuses(TypeError, "state", 3):
        net(x, state[:2])


def test_other_glue_than_side_by_side_is_not_joined(rng: np.random.Generator):
    """Directions and rows mixed: the graph is run as it stands."""
    model, arrays = stack(rng, "GRU", SCRAMBLE, "bidirectional", count=2)
    net = fo.load(model)
    assert len(net.parts) == 2
    x = y = rng.standard_normal((6, 2, 3)).astype(np.float32)
    for w, r, b in arrays:
        y = onnx_text.run("GRU", {"direction": "bidirectional"}, y, w, r, b)[0]
        y = y.reshape(*y.shape[:2], -1)
    assert_close(net.run({"x": x})["x2"], y, 1e-6)


def test_glue_that_changes_values_is_not_joined(rng: np.random.Generator):
    cast = [*SQUEEZE, ("Cast", ["{x}"], "{x}_c", {"to": TensorProto.INT64})]
    model, _ = stack(rng, "GRU", cast, count=2)
    model.graph.node[3].input[0] = "x1_c"
    net = fo.load(model)
    assert len(net.parts) == 2
    with refuses(ValueError, "Cast", "float32"):
        net.run({"x": np.ones((6, 2, 3), np.float32)})


def test_outputs_that_others_see_are_not_joined(rng: np.random.Generator):
    model, arrays = stack(rng, "RNN", count=2)
    model.graph.output.append(helper.make_tensor_value_info("x1", FLOAT, None))
    net = fo.load(model)
    assert len(net.parts) == 2
    x = rng.standard_normal((6, 2, 3)).astype(np.float32)
    outputs = net.run({"x": x})
    for name, count in (("x1", 1), ("x2", 2)):
        assert_close(outputs[name], by_text("RNN", arrays[:count], x, "forward")[0], 1e-6)


def test_a_node_that_starts_from_the_end_of_another(rng: np.random.Generator):
    """As in a translator: not a stack, though all of Y feeds the next node."""
    model, arrays = stack(rng, "GRU", count=2)
    model.graph.node[2].input.extend(["", "h0"])
    net = fo.load(model)
    assert len(net.parts) == 2
    x = rng.standard_normal((6, 2, 3)).astype(np.float32)
    y, h = onnx_text.run("GRU", {}, x, *arrays[0])
    expected = onnx_text.run("GRU", {}, y[:, 0], *arrays[1], h=h)
    outputs = net.run({"x": x})
    assert_close(outputs["x2"], expected[0][:, 0], 1e-6)
    assert_close(outputs["h1"], expected[1], 1e-6)


def test_two_directions_as_two_nodes(rng: np.random.Generator):
    """As converters from Keras write them; a graph, but not a chain."""
    arrays = [weights(rng, "GRU", 3, 4) for _ in range(2)]
    tensors = {
        f"{s}{k}": a for k, group in enumerate(arrays) for s, a in zip("WRB", group, strict=True)
    }
    nodes = [
        helper.make_node("GRU", ["x", "W0", "R0", "B0"], ["y0"], "fw", hidden_size=4),
        helper.make_node("GRU", ["x", "W1", "R1", "B1"], ["y1"], "bw", direction="reverse"),
        helper.make_node("Concat", ["y0", "y1"], ["y"], axis=3),
    ]
    net = fo.load(make_model(nodes, {"x": [5, 2, 3]}, {"y": None}, tensors))
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    halves = [
        onnx_text.run("GRU", {"direction": d}, x, *a)[0]
        for d, a in zip(("forward", "reverse"), arrays, strict=True)
    ]
    assert_close(net.run({"x": x})["y"], np.concatenate(halves, 3), 1e-6)
    with refuses(ValueError, "chain", "run"):
        net(x)


# ---- Roles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("constants", [["initial_h"], ["initial_h", "initial_c", "sequence_lens"]])
def test_states_and_lengths_in_the_file_are_kept(constants: list[str]):
    drawn = (onnx_cases.draw(np.random.default_rng(k), "LSTM", k) for k in range(200))
    cases = [c for c in drawn if c.h is not None and c.c is not None and c.lengths is not None]
    assert len(cases) > 10
    for case in cases:
        net = fo.load(onnx_cases.model(case, constants=constants))
        feeds = onnx_cases.feeds(case)
        expected = onnx_cases.by_text(case)
        outputs = net.run({k: a for k, a in feeds.items() if k not in constants})
        assert onnx_cases.agrees(case, list(outputs.values()), expected)
        if len(constants) == 3:
            y, (_, c) = net(case.x)
            part = fo.layers(onnx_cases.model(case, constants=constants))["lstm"]
            assert same_bits(part(case.x)[0], y)
            assert_close(c.swapaxes(0, 1) if case.batchwise else c, expected[2], 1e-5)
            h0, c0 = part.state
            assert np.array_equal(h0.swapaxes(0, 1) if case.batchwise else h0, case.h)
            assert np.array_equal(c0.swapaxes(0, 1) if case.batchwise else c0, case.c)
            assert np.array_equal(part.lengths, case.lengths)


def test_a_call_takes_the_roles_of_inputs():
    layer = LSTM(3, 5, 2, batch_first=True, seed=0)
    net = fo.load(fo.to_model(layer, lengths=True, state=True))
    x = np.random.default_rng(0).standard_normal((2, 6, 3)).astype(np.float32)
    assert net.inputs == ("x", "lengths", "h", "c")
    y, state = layer(x, lengths=[6, 2])
    assert same_bits(net(x, lengths=[6, 2])[0], y)
    assert same_bits(net(x)[0], layer(x)[0])
    assert same_bits(net(x, state)[0], layer(x, state)[0])
    with refuses(ValueError, "missing", "lengths"):
        net.run({"x": x})
    with refuses(ValueError, "unknown", "z"):
        net.run({"x": x, "lengths": [6, 2], "h": state[0], "c": state[1], "z": x})


def test_inputs_must_be_as_declared():
    net = fo.load(fo.to_model(GRU(3, 5)))
    with refuses(ValueError, "x", (4, 2, 7)):
        net.run({"x": np.ones((4, 2, 7), np.float32)})
    with refuses(TypeError, "x", "float64"):
        net.run({"x": np.ones((4, 2, 3))})
    with refuses(ValueError, "x", (4, 2, 7)):
        net(np.ones((4, 2, 7), np.float32))


@pytest.mark.parametrize("lengths", [[1], [1, 7], [-1, 2], [[1, 2]]], ids=str)
def test_bad_lengths_of_a_reverse_node_are_refused(lengths: Any):
    case = onnx_cases.cases(2)[1]
    part = fo.layers(onnx_cases.model(case))["lstm"]
    assert part.reverse
    with refuses(ValueError, "lengths"):
        part(np.ones((5, 2, case.x.shape[2]), case.x.dtype), lengths=lengths)
    with refuses(TypeError, "lengths"):
        part(np.ones((5, 2, case.x.shape[2]), case.x.dtype), lengths=[0.5, 1.0])


# ---- Nodes of any graph -----------------------------------------------------------------------


def test_nodes_of_any_graph_by_name(rng: np.random.Generator):
    """A graph with other operators, a node without a name, and one inside an If."""
    arrays = [weights(rng, op, 3, 4) for op in ("LSTM", "GRU", "RNN")]
    tensors = {
        f"{s}{k}": a for k, group in enumerate(arrays) for s, a in zip("WRB", group, strict=True)
    }
    tensors["yes"] = np.array(True)
    inner = helper.make_graph(
        [helper.make_node("RNN", ["x", "W2", "R2", "B2"], ["inside"], "inner", hidden_size=4)],
        "branch",
        [],
        [helper.make_tensor_value_info("inside", FLOAT, None)],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["x_relu"]),
        helper.make_node("LSTM", ["x_relu", "W0", "R0", "B0"], ["y0"], "enc/lstm", hidden_size=4),
        helper.make_node("Identity", ["W1"], ["W1_again"]),
        helper.make_node("GRU", ["x", "W1_again", "R1", "B1"], ["", "y1"], hidden_size=4),
        helper.make_node("If", ["yes"], ["y2"], then_branch=inner, else_branch=inner),
    ]
    model = make_model(nodes[:4], {"x": [5, 2, 3]}, {"y0": None, "y1": None}, tensors)
    parts = fo.layers(model)
    assert list(parts) == ["enc/lstm", "y1"]
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    for name, op, group in (("enc/lstm", "LSTM", arrays[0]), ("y1", "GRU", arrays[1])):
        expected = onnx_text.run(op, {}, x, *group)
        y, state = parts[name](x)
        assert_close(y, expected[0][:, 0], 1e-6)
        assert_close(unpack(state)[0], expected[1], 1e-6)
        assert same_bits(parts[name].layer(x)[0], y)
    with refuses(ValueError, "Relu", "layers"):
        fo.load(model)
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "branch", [], [])
    nodes[4] = helper.make_node("If", ["yes"], ["y2"], then_branch=inner, else_branch=other)
    parts = fo.layers(make_model(nodes, {"x": [5, 2, 3]}, {"y2": None}, tensors))
    assert list(parts) == ["enc/lstm", "y1", "inner"]
    assert_close(parts["inner"](x)[0], onnx_text.run("RNN", {}, x, *arrays[2])[0][:, 0], 1e-6)


def test_a_reverse_node_gives_its_outputs_in_the_original_order(rng: np.random.Generator):
    w, r, b = weights(rng, "GRU", 3, 4)
    node = helper.make_node("GRU", ["x", "W", "R", "B"], ["y"], "g", direction="reverse")
    model = make_model([node], {"x": [5, 2, 3]}, {"y": None}, {"W": w, "R": r, "B": b})
    part = fo.layers(model)["g"]
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    y, h = part(x)
    assert same_bits(np.ascontiguousarray(y[::-1]), part.layer(x[::-1])[0])
    assert same_bits(h[0], np.ascontiguousarray(y[0]))
    with refuses(ValueError, "layer", "reverse"):
        fo.load(model).layer  # noqa: B018


@pytest.mark.parametrize("read", [fo.load, fo.layers])
@pytest.mark.parametrize("producer", ["pytorch", "keras"])
@pytest.mark.parametrize("value", [0, 1])
def test_warning_for_a_gru_of_pytorch_with_reset_before(
    rng: np.random.Generator, read: Any, producer: str, value: int
):
    w, r, b = weights(rng, "GRU", 3, 4)
    options = {"hidden_size": 4, "linear_before_reset": value}
    node = helper.make_node("GRU", ["x", "W", "R", "B"], ["y"], "g", **options)
    arrays = {"W": w, "R": r, "B": b}
    model = make_model([node], {"x": [5, 2, 3]}, {"y": None}, arrays, producer_name=producer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read(model)
    messages = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert len(messages) == (producer == "pytorch" and value == 0)
    assert all("189225" in m and "'g'" in m for m in messages)


# ---- Where a model is -------------------------------------------------------------------------


def test_paths_bytes_and_models_are_read(tmp_path: Path):
    layer = RNN(3, 4, seed=0)
    fo.save(layer, tmp_path / "rnn.onnx")
    data = (tmp_path / "rnn.onnx").read_bytes()
    x = np.ones((5, 2, 3), np.float32)
    sources = [tmp_path / "rnn.onnx", str(tmp_path / "rnn.onnx"), data, bytearray(data)]
    for source in (*sources, memoryview(data), onnx.load_model_from_string(data)):
        assert same_bits(fo.load(source)(x)[0], layer(x)[0])


def test_values_in_typed_fields_are_read():
    """What other writers than onnx.numpy_helper use instead of raw data."""
    case = next(c for c in onnx_cases.cases(20) if c.b is not None and c.lengths is None)
    model = onnx_cases.model(case)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        field = "float_data" if array.dtype == np.float32 else "double_data"
        tensor.ClearField("raw_data")
        getattr(tensor, field).extend(array.ravel().tolist())
    outputs = list(fo.load(model).run(onnx_cases.feeds(case)).values())
    assert all(map(same_bits, outputs, onnx_cases.ours(case)))


def test_weights_may_also_be_listed_as_inputs():
    """As all writers did before version 4 of the format."""
    layer = GRU(3, 4, seed=0)
    model = fo.to_model(layer, opset=7)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    net = fo.load(model)
    assert net.inputs == ("x",)
    x = np.ones((5, 2, 3), np.float32)
    assert same_bits(net(x)[0], layer(x)[0])


def test_weights_may_be_constant_nodes_and_go_through_identity():
    case = next(c for c in onnx_cases.cases(20) if c.p is not None and c.lengths is None)
    model = onnx_cases.model(case)
    for tensor in list(model.graph.initializer):
        plain = helper.make_node("Constant", [], [f"{tensor.name}_0"], value=tensor)
        same = helper.make_node("Identity", [f"{tensor.name}_0"], [f"{tensor.name}_1"])
        again = helper.make_node("Identity", [f"{tensor.name}_1"], [tensor.name])
        for node in (again, same, plain):
            model.graph.node.insert(0, node)
    model.graph.ClearField("initializer")
    outputs = list(fo.load(model).run(onnx_cases.feeds(case)).values())
    assert all(map(same_bits, outputs, onnx_cases.ours(case)))


# ---- Attributes -------------------------------------------------------------------------------


def test_defaults_of_parameters_are_those_of_onnx():
    case = replace(onnx_cases.cases(1, ["RNN"])[0], lengths=None)
    defaults = {"LeakyRelu": (0.01,), "ThresholdedRelu": (1.0,), "Elu": (1.0,)}
    for name, values in (defaults | {"HardSigmoid": (0.2, 0.5)}).items():
        bare = case.with_attributes(activations=[name])
        keys = ("activation_alpha", "activation_beta")
        lists = {k: [v] for k, v in zip(keys, values, strict=False)}
        explicit = bare.with_attributes(**lists)
        assert all(map(same_bits, onnx_cases.ours(bare), onnx_cases.ours(explicit)))
        assert onnx_cases.agrees(case, onnx_cases.ours(bare), onnx_cases.by_text(bare))
    for name in ("Affine", "ScaledTanh"):
        with refuses(ValueError, "activation_alpha", "default"):
            onnx_cases.ours(case.with_attributes(activations=[name]))


def test_parameters_for_every_activation_are_accepted_if_both_readings_agree():
    case = replace(onnx_cases.cases(1, ["GRU"])[0], lengths=None)
    short = case.with_attributes(activations=["HardSigmoid", "Tanh"], activation_alpha=[0.3])
    long = short.with_attributes(activation_alpha=[0.3, 0.7])
    assert all(map(same_bits, onnx_cases.ours(short), onnx_cases.ours(long)))
    swapped = {"activations": ["Sigmoid", "LeakyRelu"], "activation_alpha": [0.3, 0.7]}
    with refuses(ValueError, "activation_alpha", 2, 1):
        onnx_cases.ours(case.with_attributes(**swapped))


def test_reads_what_its_own_repr_says():
    net = fo.load(fo.to_model(fastrnn.GRU(3, 8, seed=0)))
    assert repr(net) == "Model(<Part gru_l0: GRU(3, 8)>)"
    assert [repr(layer) for layer in net.layers] == ["GRU(3, 8)"]
