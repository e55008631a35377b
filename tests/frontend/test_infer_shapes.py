"""Shapes are inferred as ONNX does it, without handing it the weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmdet.frontend.infer_shapes import infer_shapes


def _shapes(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    return {v.name: v.type for v in (*model.graph.value_info, *model.graph.output)}


@pytest.mark.parametrize("make", [onnx_models.yolov8, onnx_models.picodet])
def test_infers_what_onnx_infers(make) -> None:
    model = make()
    before = model.SerializeToString()
    found = infer_shapes(model, strict_mode=True, data_prop=True)
    expected = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert _shapes(found) == _shapes(expected)
    assert model.SerializeToString() == before


def _reshaped(shape: list[int], *, listed: bool) -> onnx.ModelProto:
    """A product with a large weight, in a shape that an initializer says."""
    weight = numpy_helper.from_array(np.zeros((64, 32), np.float32), "weight")
    wanted = numpy_helper.from_array(np.array(shape, np.int64), "shape")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 64])]
    if listed:
        inputs.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [64, 32]))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Reshape", ["product", "shape"], ["y"]),
        ],
        "g",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight, wanted],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


@pytest.mark.parametrize("listed", [False, True])
def test_weights_stay_here_and_shapes_are_read(listed: bool) -> None:
    found = infer_shapes(_reshaped([2, 2, -1], listed=listed))
    (y,) = found.graph.output
    assert [dim.dim_value for dim in y.type.tensor_type.shape.dim] == [2, 2, 32]
    assert [tensor.name for tensor in found.graph.initializer] == ["shape"]
    assert [value.name for value in found.graph.input] == ["x", "weight"]


def test_tables_of_sizes_are_read_however_long() -> None:
    table = numpy_helper.from_array(np.arange(300), "table")
    places = numpy_helper.from_array(np.array([5, 6]), "places")
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "places"], ["shape"]),
            helper.make_node("Expand", ["x", "shape"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [table, places],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    (y,) = infer_shapes(model, data_prop=True).graph.output
    assert [dim.dim_value for dim in y.type.tensor_type.shape.dim] == [5, 6]


def test_a_weight_that_does_not_fit_is_found() -> None:
    model = _reshaped([128], listed=False)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 63
    with pytest.raises(onnx.shape_inference.InferenceError, match=r"[Ii]ncompatible"):
        infer_shapes(model, strict_mode=True)
