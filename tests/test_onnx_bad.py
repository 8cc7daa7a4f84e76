"""Models that are refused: by name what is not supported, as a ValueError what is wrong."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_cases
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from support import refuses

import fastrnn.onnx as fo
from fastrnn import GRU, LSTM

READ = pytest.mark.parametrize("read", [fo.load, fo.layers])


def lstm(**options: Any) -> onnx.ModelProto:
    return fo.to_model(LSTM(3, 4, seed=0), **options)


def attribute(model: onnx.ModelProto, **values: Any) -> onnx.ModelProto:
    """The model with attributes of its first node set."""
    node = model.graph.node[0]
    kept = [a for a in node.attribute if a.name not in values]
    node.ClearField("attribute")
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(k, v) for k, v in values.items())
    return model


def tensor(model: onnx.ModelProto, name: str) -> TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


# ---- Attributes -------------------------------------------------------------------------------


@READ
@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"direction": "sideways"}, ["direction", "sideways"]),
        ({"direction": "bidirectional"}, ["W", (2, 16, 3), (1, 16, 3)]),
        ({"direction": 1}, ["direction"]),
        ({"hidden_size": 5}, ["W", (1, 20, 3), (1, 16, 3)]),
        ({"hidden_size": -4}, ["lstm_l0"]),
        ({"hidden_size": 4.0}, ["hidden_size"]),
        ({"clip": -1.0}, ["clip", -1.0]),
        ({"clip": 0.0}, ["clip", 0.0]),
        ({"clip": float("inf")}, ["clip", "inf"]),
        ({"clip": 1}, ["clip"]),
        ({"input_forget": 2}, ["input_forget", 2]),
        ({"layout": 2}, ["layout", 2]),
        ({"linear_before_reset": 1}, ["linear_before_reset"]),
        ({"output_sequence": 1}, ["output_sequence"]),
        ({"zoneout": 0.5}, ["zoneout"]),
        ({"activations": ["Sigmoid", "Tanh"]}, ["activations", 3]),
        ({"activations": ["Sigmoid", "Tanh", "Gelu"]}, ["Gelu"]),
        ({"activations": [1.0, 2.0, 3.0]}, ["activations"]),
        ({"activations": "Tanh"}, ["activations"]),
        ({"activation_alpha": [0.5]}, ["activation_alpha"]),
        (
            {"activations": ["Elu", "Tanh", "Tanh"], "activation_alpha": [float("nan")]},
            ["activation_alpha"],
        ),
        ({"activations": ["Elu", "Tanh", "Tanh"], "activation_alpha": [-1.0]}, ["alpha"]),
        ({"activations": ["Elu", "Tanh", "Tanh"], "activation_beta": [1.0]}, ["activation_beta"]),
    ],
    ids=str,
)
def test_attributes_are_refused_by_name(read: Any, values: dict[str, Any], facts: list[Any]):
    with refuses(ValueError, *facts):
        read(attribute(lstm(), **values))


@READ
def test_layout_is_refused_before_opset_14(read: Any):
    with refuses(ValueError, "layout"):
        read(attribute(lstm(opset=13), layout=0))


@READ
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_different_activations_in_the_two_directions_are_refused(read: Any, op: str):
    case = onnx_cases.draw(np.random.default_rng(0), op, 2)
    each = len(onnx_cases.onnx_text.DEFAULTS[op])
    names = ["Sigmoid"] * each + ["Tanh"] * each
    case = case.with_attributes(activations=names, activation_alpha=None, activation_beta=None)
    with refuses(ValueError, "activations", "directions"):
        read(onnx_cases.model(case))


@READ
def test_an_attribute_twice_or_of_a_function_is_refused(read: Any):
    model = lstm()
    model.graph.node[0].attribute.append(helper.make_attribute("hidden_size", 4))
    with refuses(ValueError, "hidden_size", "twice"):
        read(model)
    model = attribute(lstm(), clip=1.0)
    model.graph.node[0].attribute[-1].ref_attr_name = "outer"
    with refuses(ValueError, "clip", "function"):
        read(model)
    model.graph.node[0].attribute[-1].CopyFrom(AttributeProto(name="clip"))
    with refuses(ValueError, "clip"):
        read(model)


# ---- Weights ----------------------------------------------------------------------------------


def with_array(name: str, array: np.ndarray) -> onnx.ModelProto:
    model = lstm()
    tensor(model, name).CopyFrom(numpy_helper.from_array(array, name))
    return model


@READ
@pytest.mark.parametrize(
    ("name", "array", "facts"),
    [
        ("W_l0", np.zeros((1, 16), np.float32), ["W", (1, 16)]),
        ("W_l0", np.zeros((1, 15, 3), np.float32), ["W", (1, 15, 3)]),
        ("W_l0", np.zeros((1, 16, 0), np.float32), ["input", (1, 16, 0)]),
        ("W_l0", np.zeros((0, 16, 3), np.float32), ["W", (0, 16, 3)]),
        ("W_l0", np.zeros((1, 16, 3), np.int64), ["int64"]),
        ("W_l0", np.zeros((1, 16, 3), np.float16), ["W_l0", "FLOAT16"]),
        ("W_l0", np.zeros((1, 16, 3), np.float64), ["R", "float32", "float64"]),
        ("R_l0", np.zeros((1, 16, 5), np.float32), ["R", (1, 16, 5)]),
        ("R_l0", np.zeros((1, 16, 4, 1), np.float32), ["R", (1, 16, 4, 1)]),
        ("B_l0", np.zeros((1, 16), np.float32), ["B", (1, 32), (1, 16)]),
        ("B_l0", np.zeros((2, 32), np.float32), ["B", (1, 32), (2, 32)]),
        ("B_l0", np.zeros((1, 32), np.float64), ["B", "float64"]),
    ],
    ids=str,
)
def test_wrong_weights_are_refused(read: Any, name: str, array: np.ndarray, facts: list[Any]):
    with refuses(ValueError, *facts):
        read(with_array(name, array))


@READ
@pytest.mark.parametrize("size", [11, 13])
def test_wrong_peepholes_are_refused(read: Any, size: int):
    model = fo.to_model(LSTM(3, 4, peephole=True))
    array = np.zeros((1, size), np.float32)
    tensor(model, "P_l0").CopyFrom(numpy_helper.from_array(array, "P_l0"))
    with refuses(ValueError, "P", (1, 12), (1, size)):
        read(model)


@READ
@pytest.mark.parametrize("kind", ["Cast", "Transpose", "Mul", "QuantizeLinear"])
def test_weights_out_of_other_nodes_are_refused_by_their_name(read: Any, kind: str):
    model = lstm()
    model.graph.node.insert(0, helper.make_node(kind, ["W_l0"], ["W_made"], "maker"))
    model.graph.node[1].input[1] = "W_made"
    with refuses(ValueError, kind, "maker"):
        read(model)


@READ
def test_weights_that_are_inputs_are_refused(read: Any):
    model = lstm()
    model.graph.initializer.remove(tensor(model, "R_l0"))
    model.graph.input.append(helper.make_tensor_value_info("R_l0", TensorProto.FLOAT, [1, 16, 4]))
    with refuses(ValueError, "R", "initializer"):
        read(model)


@READ
def test_sparse_weights_are_refused(read: Any):
    model = lstm()
    values = tensor(model, "W_l0")
    model.graph.initializer.remove(values)
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values))
    with refuses(ValueError, "sparse", "W_l0"):
        read(model)


def fields(model: onnx.ModelProto, **values: Any) -> onnx.ModelProto:
    """The model with fields of the tensor W set."""
    w = tensor(model, "W_l0")
    for name, value in values.items():
        w.ClearField(name)
        if isinstance(value, list):
            getattr(w, name).extend(value)
        else:
            setattr(w, name, value)
    return model


@READ
@pytest.mark.parametrize(
    "values",
    [
        {"dims": [1, 16, -3]},
        {"dims": [2**62, 2**62, 2**62]},
        {"dims": [1, 2**40, 3]},
        {"dims": [1, 16, 4]},
        {"raw_data": b""},
        {"raw_data": bytes(4 * 47)},
        {"raw_data": bytes(4 * 49)},
        {"float_data": [1.0] * 48},
        {"raw_data": b"", "float_data": [1.0] * 47},
        {"raw_data": b"", "double_data": [1.0] * 48},
        {"data_type": TensorProto.STRING},
        {"data_type": 1000},
        {"data_type": TensorProto.BFLOAT16},
        {"data_location": TensorProto.EXTERNAL},
    ],
    ids=lambda values: "-".join(values),
)
def test_tensors_whose_numbers_do_not_fit_are_refused(read: Any, values: dict[str, Any]):
    with refuses(ValueError, "W_l0"):
        read(fields(lstm(), **values))


@READ
def test_a_segment_of_a_tensor_is_refused(read: Any):
    model = lstm()
    tensor(model, "W_l0").segment.begin = 0
    with refuses(ValueError, "W_l0", "segments"):
        read(model)


# ---- Graphs -----------------------------------------------------------------------------------


def test_other_operators_are_refused_by_name():
    for kind, domain in (("Relu", ""), ("LSTM", "com.example"), ("Loop", "")):
        model = lstm()
        model.graph.node.append(helper.make_node(kind, ["y"], ["z"], "other", domain=domain))
        with refuses(ValueError, "other", kind, "layers"):
            fo.load(model)
        assert list(fo.layers(model)) == ["lstm_l0"]


def test_arithmetic_on_values_is_refused():
    model = lstm()
    model.graph.node.append(helper.make_node("Mul", ["y", "y"], ["z"], "square"))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    net = fo.load(model)
    with refuses(ValueError, "square", "Mul", "float32"):
        net.run({"x": np.ones((5, 2, 3), np.float32)})
    model.graph.node[-1].CopyFrom(helper.make_node("Cast", ["y"], ["z"], "double", to=11))
    with refuses(ValueError, "double", "Cast"):
        fo.load(model).run({"x": np.ones((5, 2, 3), np.float32)})


def test_a_graph_without_recurrent_nodes_is_refused():
    model = lstm()
    model.graph.ClearField("node")
    model.graph.ClearField("output")
    with refuses(ValueError, "no LSTM, GRU or RNN"):
        fo.load(model)
    assert fo.layers(model) == {}


def test_values_without_an_origin_or_with_two_are_refused():
    model = lstm()
    model.graph.node[0].input[0] = "nothing"
    with refuses(ValueError, "nothing", "nowhere"):
        fo.load(model)
    model = lstm()
    model.graph.output[0].name = "nothing"
    with refuses(ValueError, "nothing", "nowhere"):
        fo.load(model)
    model = lstm()
    model.graph.node.append(helper.make_node("Identity", ["x"], ["y"]))
    with refuses(ValueError, "y", "two"):
        fo.load(model)


def test_circles_are_refused():
    model = lstm()
    model.graph.node[0].input[0] = "y"
    with refuses(ValueError, "outputs"):
        fo.load(model)
    model = lstm()
    model.graph.node.append(helper.make_node("Identity", ["b"], ["a"], "one"))
    model.graph.node.append(helper.make_node("Identity", ["a"], ["b"], "two"))
    model.graph.node[0].input[1] = "a"
    for read in (fo.load, fo.layers):
        with pytest.raises(ValueError, match="output"):
            read(model)


@READ
def test_missing_inputs_of_a_node_are_refused(read: Any):
    model = lstm()
    model.graph.node[0].input[1] = ""
    with refuses(ValueError, "X, W, R"):
        read(model)
    del model.graph.node[0].input[:]
    with refuses(ValueError, "X, W, R"):
        read(model)
    model = fo.to_model(GRU(3, 4), state=True)
    model.graph.node[0].input.append("h")
    with refuses(ValueError, "X, W, R"):
        read(model)


def test_two_nodes_of_one_name_are_refused_where_names_matter():
    model = fo.to_model(LSTM(3, 4, 2))
    for node in model.graph.node:
        node.name = "same"
    assert fo.load(model).layer.num_layers == 2
    with refuses(ValueError, "same"):
        fo.layers(model)


def test_results_that_would_fill_memory_are_refused():
    """Doubling with Concat, and a state of 2^60 elements."""
    model = lstm()
    names = ["x", *(f"x{k}" for k in range(60))]
    for source, target in itertools.pairwise(names):
        model.graph.node.append(helper.make_node("Concat", [source, source], [target], axis=1))
    model.graph.output.append(helper.make_tensor_value_info("x59", TensorProto.FLOAT, None))
    # checked before any of them is as large as that
    large = np.broadcast_to(np.float32(0), (2**20, 2**9, 3))
    with refuses(ValueError, "Concat", "elements"):
        fo.load(model).run({"x": large})
    model = lstm()
    shape = numpy_helper.from_array(np.array([1, 2**50, 4], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["h"]))
    model.graph.node[1].input.extend(["", "h"])
    with refuses(ValueError, "h", (1, 2, 4), (1, 2**50, 4)):
        fo.load(model).run({"x": np.ones((5, 2, 3), np.float32)})


GLUE: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("Squeeze", {}, [[5]]),
    ("Unsqueeze", {}, [[9]]),
    ("Unsqueeze", {}, []),
    ("Transpose", {"perm": [0, 0, 1]}, []),
    ("Transpose", {"perm": [0, 1]}, []),
    ("Reshape", {}, [[7, -1]]),
    ("Reshape", {}, [[-1, -1]]),
    ("Reshape", {}, [[-2, 4]]),
    ("Reshape", {}, [[0, 0, 0, 0]]),
    ("Reshape", {}, []),
    ("Concat", {}, []),
    ("Concat", {"axis": 7}, []),
    ("Split", {"axis": 9}, []),
    ("Split", {}, [[3]]),
    ("Slice", {}, [[0], [1], [7]]),
    ("Slice", {}, [[0], [1, 2]]),
    ("Slice", {}, [[0], [1], [0], [0]]),
    ("Gather", {}, [[99]]),
    ("Expand", {}, [[-1]]),
    ("Expand", {}, [[3, 3]]),
    ("ConstantOfShape", {}, []),
]


@pytest.mark.parametrize(("kind", "attributes", "rows"), GLUE, ids=str)
def test_rearrangements_that_cannot_be_are_refused(
    kind: str, attributes: dict[str, Any], rows: list[Any]
):
    model = lstm()
    names = [f"i{k}" for k in range(len(rows))]
    for name, row in zip(names, rows, strict=True):
        array = np.array(row, np.int64)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.node.append(helper.make_node(kind, ["y", *names], ["z"], "glue", **attributes))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    with refuses(ValueError, "glue", kind):
        fo.load(model).run({"x": np.ones((5, 2, 3), np.float32)})


# ---- Files ------------------------------------------------------------------------------------


@READ
@pytest.mark.parametrize("source", [None, 3, ["a"], object()], ids=str)
def test_what_is_no_model_is_a_type_error(read: Any, source: Any):
    with refuses(TypeError, "model"):
        read(source)


@READ
@pytest.mark.parametrize("data", [b"", b"\0", b"not a model", b"\xff" * 100], ids=str)
def test_what_is_no_file_of_onnx_is_refused(read: Any, data: bytes):
    with pytest.raises(ValueError, match="not an ONNX file"):
        read(data)


@READ
def test_a_file_that_is_not_there_is_an_os_error(read: Any, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.onnx")


@READ
def test_truncated_and_damaged_files_give_a_value_error_or_a_model(read: Any):
    """Whatever is cut off or changed: a model, or a ValueError."""
    data = fo.to_model(GRU(3, 4, 2, seed=0), state=True).SerializeToString()
    for end in range(0, len(data), 3):
        with pytest.raises(ValueError):
            fo.load(data[:end])
    draw = random.Random(0)
    refused = 0
    for _ in range(1500):
        changed = bytearray(data)
        for _ in range(draw.choice([1, 1, 2, 8])):
            changed[draw.randrange(len(data))] = draw.choice([0, 1, 127, 255, draw.randrange(256)])
        try:
            read(bytes(changed))
        except ValueError:
            refused += 1
    assert 100 < refused < 1500


@READ
@pytest.mark.parametrize("versions", [[6], [0], [-1], [10000], [], [17, 18]], ids=str)
def test_opsets_that_are_not_known_are_refused(read: Any, versions: list[int]):
    model = lstm()
    model.ClearField("opset_import")
    model.opset_import.extend(helper.make_opsetid("", v) for v in versions)
    with refuses(ValueError, "opset"):
        read(model)


@READ
def test_local_functions_are_refused_with_what_to_do(read: Any):
    model = lstm()
    node = helper.make_node("Neg", ["a"], ["b"])
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("my", "twist", ["a"], ["b"], [node], imports))
    with refuses(ValueError, "twist", "inline_local_functions"):
        read(model)


def test_the_package_onnx_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    import importlib
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "onnx"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("fastrnn.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"fastrnn\[onnx\]"):
        importlib.import_module("fastrnn.onnx")
