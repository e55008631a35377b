"""Exports that end in the rows of a suppression return boxes, scores and class numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_models import Graph

import tvmdet
from tvmdet.errors import ModelError
from tvmdet.frontend.gather_selected import gather_selected
from tvmdet.frontend.load import load_onnx

CLASSES = 3
SPEC = {
    "family": "detections",
    "input": {"mean": [0, 0, 0], "std": [255, 255, 255]},
    "options": {"columns": ["y1", "x1", "y2", "x2"], "box_frame": "pixels"},
}


def _model(
    *outputs: str, inputs: dict[str, list[int]] | None = None, opset: int = 17
) -> onnx.ModelProto:
    """A network of 64 boxes; outputs are among boxes, scores and rows."""
    graph = Graph()
    features = graph.conv("images", (3, 4 + CLASSES), 8, strides=[8, 8])
    flat = graph.node("Reshape", features, graph.constant([1, 4 + CLASSES, 64], np.int64))
    sides = graph.constant([4, CLASSES], np.int64)
    split = {"outputs": 2, "axis": 1}
    parts = (
        graph.node("Split", flat, sides, **split)
        if opset >= 13
        else graph.node("Split", flat, **split, split=[4, CLASSES])
    )
    boxes = graph.node("Transpose", graph.node("Relu", parts), perm=[0, 2, 1])
    boxes = graph.node("Mul", boxes, graph.constant(30.0))
    if inputs:
        size = graph.node("Concat", "image_shape", "image_shape", axis=1)
        boxes = graph.node("Mul", boxes, graph.node("Div", size, graph.constant(64.0)))
    scores = graph.node("Sigmoid", f"{parts}.1")
    limits = (graph.constant([7], np.int64), graph.constant([0.5]), graph.constant([0.3]))
    rows = graph.node("NonMaxSuppression", boxes, scores, *limits)
    named = {"boxes": boxes, "scores": scores, "rows": graph.node("Cast", rows, to=6)}
    shapes = {"boxes": [1, 64, 4], "scores": [1, CLASSES, 64], "rows": [None, 3]}
    for name in outputs:
        graph.nodes.append(onnx.helper.make_node("Identity", [named[name]], [name]))
    model = graph.model(
        {"images": [1, 3, 64, 64], **(inputs or {})},
        {name: shapes[name] for name in outputs},
        opset=opset,
    )
    for value in model.graph.output:
        if value.name == "rows":
            value.type.tensor_type.elem_type = TensorProto.INT32
    return model


def _loaded(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    onnx.save(model, folder / "model.onnx")
    return gather_selected(load_onnx(folder / "model.onnx")).proto


@pytest.mark.parametrize("outputs", [("boxes", "scores", "rows"), ("rows",), ("rows", "scores")])
def test_rows_are_looked_up(outputs: tuple[str, ...], tmp_path: Path) -> None:
    model = _model("boxes", "scores", "rows")
    gathered = _loaded(_model(*outputs), tmp_path)
    feed = {"images": np.random.default_rng(1).random((1, 3, 64, 64), np.float32)}
    run = [
        onnxruntime.InferenceSession(one.SerializeToString()).run(None, feed)
        for one in (model, gathered)
    ]
    (boxes, scores, rows), found = run
    assert len(rows) > 1
    np.testing.assert_array_equal(found[0], boxes[0, rows[:, 2]])
    np.testing.assert_array_equal(found[1], scores[0, rows[:, 1], rows[:, 2]])
    np.testing.assert_array_equal(found[2], rows[:, 1])


@pytest.mark.parametrize("outputs", [("boxes", "scores"), ("boxes",)])
def test_outputs_without_rows_stay(outputs: tuple[str, ...], tmp_path: Path) -> None:
    gathered = _loaded(_model(*outputs), tmp_path)
    assert [value.name for value in gathered.graph.output] == list(outputs)


@pytest.mark.parametrize("opset", [10, 17])
def test_rows_of_a_suppression_are_detections(opset: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(_model("boxes", "scores", "rows", opset=opset), path)
    with pytest.raises(ModelError, match="nothing says of selected_boxes in which order"):
        tvmdet.import_onnx(path)
    found = tvmdet.import_onnx(path, spec=SPEC)
    assert any("which of them a suppression chose" in line for line in found.recognition)
    assert found.spec.labels == ("class_0", "class_1", "class_2")
    assert found.output_names[:3] == ("selected_boxes", "selected_scores", "selected_classes")


def test_outputs_stay_without_a_head(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(_model("boxes", "scores", "rows"), path)
    assert tvmdet.import_onnx(path, raw=True).output_names[:3] == ("boxes", "scores", "rows")


def test_keras_yolo_is_known_by_its_second_input(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(_model("boxes", "scores", "rows", inputs={"image_shape": [1, 2]}), path)
    spec = tvmdet.import_onnx(path).spec
    assert spec.options["columns"] == ["y1", "x1", "y2", "x2"]
    assert spec.options["box_frame"] == "pixels"
    assert (spec.input.pad_value, spec.input.resize) == (128, "letterbox")


@pytest.mark.parametrize(("center", "first"), [(0, "selected_boxes"), (1, "boxes")], ids=str)
def test_centres_are_not_taken_for_corners(center: int, first: str, tmp_path: Path) -> None:
    model = _model("boxes", "scores", "rows")
    (node,) = (one for one in model.graph.node if one.op_type == "NonMaxSuppression")
    node.attribute.append(helper.make_attribute("center_point_box", center))
    assert _loaded(model, tmp_path).graph.output[0].name == first
