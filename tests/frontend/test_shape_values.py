"""Sizes that exporters compute in long chains become constants, and only those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from onnx_models import Graph

from tvmdet.errors import ModelError
from tvmdet.frontend import import_onnx
from tvmdet.frontend.onnx_tools import input_summary, value_summary
from tvmdet.frontend.prove import random_feeds, run_onnx
from tvmdet.frontend.shape_values import fold_shape_values


def _windows(data: str = "images") -> onnx.ModelProto:
    """Cuts an image into windows of 7, their number computed by division, as Swin exports."""
    graph = Graph()
    shape = graph.node("Shape", data)
    sides = [
        graph.node(
            "Div",
            graph.node("Gather", shape, graph.constant([axis], np.int64), axis=0),
            graph.constant([7], np.int64),
        )
        for axis in (2, 3)
    ]
    whole = [graph.constant([value], np.int64) for value in (1, 3, 7)]
    target = graph.node(
        "Concat", whole[0], whole[1], sides[0], whole[2], sides[1], whole[2], axis=0
    )
    windows = graph.node("Reshape", "images", target)
    output = graph.node("Transpose", windows, perm=[0, 2, 4, 1, 3, 5])
    return graph.model({"images": [1, 3, 14, 21]}, {output: None})


def test_size_computations_become_constants() -> None:
    model = _windows()
    folded = fold_shape_values(model)
    assert folded is not None
    reshape = next(node for node in folded.graph.node if node.op_type == "Reshape")
    (target,) = [t for t in folded.graph.initializer if t.name == reshape.input[1]]
    assert onnx.numpy_helper.to_array(target).tolist() == [1, 3, 2, 7, 3, 7]
    feeds = random_feeds(model, seed=9)
    (before,), (after,) = run_onnx(model, [feeds]), run_onnx(folded, [feeds])
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_windows_import(tmp_path: Path) -> None:
    model = import_onnx(onnx_models.save(_windows(), tmp_path / "m.onnx"), raw=True)
    feeds = random_feeds(model.onnx_at(1), seed=4)
    (expected,) = run_onnx(model.onnx_at(1), [feeds])
    (got,) = onnx_models.run_relax(model.relax_at(1), *feeds.values())
    np.testing.assert_array_equal(got, next(iter(expected.values())))


def _sized_by_the_image(operator: str) -> onnx.ModelProto:
    graph = Graph()
    if operator == "NonZero":
        found = graph.node("NonZero", "images")
    else:
        largest = graph.node("ReduceMax", "images", keepdims=0)
        count = graph.node("Cast", largest, to=onnx.TensorProto.INT64)
        found = graph.node("Range", graph.constant(0, np.int64), count, graph.constant(1, np.int64))
    size = graph.node("Cast", graph.node("Shape", found), to=onnx.TensorProto.FLOAT)
    return graph.model({"images": [1, 3, 8, 8]}, {graph.node("Relu", size): None})


@pytest.mark.parametrize("operator", ["NonZero", "Range"])
def test_sizes_that_the_image_decides_stay(operator: str) -> None:
    # Random images have no zeros and no 2, so trying two of them would not tell.
    folded = fold_shape_values(_sized_by_the_image(operator))
    if folded is not None:
        shape = next(node for node in folded.graph.node if node.op_type == "Shape")
        assert not shape.input[0].endswith(".value")
        cast = next(n for n in folded.graph.node if n.input[0] == shape.output[0])
        assert cast.op_type == "Cast"


def test_network_without_size_computations_has_none() -> None:
    assert fold_shape_values(onnx_models.picodet()) is None


def test_image_sized_output_is_still_refused(tmp_path: Path) -> None:
    graph = Graph()
    output = graph.node("Unique", "images")
    path = onnx_models.save(
        graph.model({"images": [1, 3, 8, 8]}, {output: ["n"]}), tmp_path / "m.onnx"
    )
    with pytest.raises(ModelError, match="'unique_0'"):
        import_onnx(path, raw=True)


def test_zero_is_a_size_except_in_inputs() -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [0, 3, "n"])
    inner, outer = value_summary(value), input_summary(value)
    assert inner is not None
    assert outer is not None
    assert inner.shape == (0, 3, None)
    assert outer.shape == (None, 3, None)
