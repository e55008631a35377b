"""Outputs of finished detections in the forms of their exporters, and a network that has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_models
from head_tools import ANY, UNIT, number_range, summary_of

from tvmdet.heads import GraphSummary, Recognition, TensorSummary, get_head
from tvmdet.heads.base import Normalisation, Range
from tvmdet.spec import DetectorSpec

ULTRALYTICS = {"names": "{0: 'a', 1: 'b'}", "task": "detect", "stride": "32"}
ULTRALYTICS_RTDETR = {
    **ULTRALYTICS,
    "description": "Ultralytics rtdetr-l model",
    "head": "RTDETRDecoder",
}
INSIDE = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TOLD = {"input": {"mean": [0, 0, 0], "std": [255, 255, 255]}}
CORNERS = (ANY,) * 4
SIDES = ["x1", "y1", "x2", "y2"]
SCORE, BATCH = UNIT, number_range(0)


def claimed(
    summary: GraphSummary, given: Mapping[str, Any] | None = None, size: tuple[int, int] = (64, 96)
) -> DetectorSpec:
    found = get_head("detections").examine(summary, size, given or {})
    assert isinstance(found, Recognition), found
    return found.spec


def torchvision(classes: int = 3, **facts: Any) -> GraphSummary:
    usual: dict[str, Any] = {
        "normalisation": INSIDE,
        "operators": {"BoundedNonMaxSuppression": 1, "RoiAlign": 2},
        "output_ranges": {"labels": (number_range(classes - 1),), "scores": (UNIT,)},
    }
    outputs = {"boxes": (7, 4), "labels": (7,), "scores": (7,), **facts.pop("more", {})}
    return summary_of(outputs, dtypes={"labels": "int64"}, **{**usual, **facts})


def easydeploy(**facts: Any) -> GraphSummary:
    """MMYOLO's projects/easydeploy, whichever suppression is inside."""
    outputs = {"num_dets": (1, 1), "boxes": (1, 7, 4), "scores": (1, 7), "labels": (1, 7)}
    usual: dict[str, Any] = {"operators": {"BoundedNonMaxSuppression": 1}}
    dtypes = {"num_dets": "int64", "labels": "int32"}
    return summary_of(outputs, dtypes=dtypes, **{**usual, **facts})


def joined(ranges: tuple[Range, ...], rank: int = 3, **facts: Any) -> GraphSummary:
    shape = (1, 7, len(ranges)) if rank == 3 else (7, len(ranges))
    return summary_of({"output0": shape}, output_ranges={"output0": ranges}, **facts)


def poses(points: int = 3, numbers: int = 2, **metadata: str) -> GraphSummary:
    """Ultralytics' YOLO26-pose: the points' numbers after the six of YOLOv10."""
    said = {"task": "pose", "kpt_shape": f"[{points}, {numbers}]", **metadata}
    shape = (1, 7, 6 + points * numbers)
    return summary_of({"output0": shape}, metadata={**ULTRALYTICS, **said})


YOLOV10 = (*CORNERS, SCORE, number_range(1))
QUERIES = (UNIT, UNIT, UNIT, UNIT, SCORE, number_range(1))
YOLOV7 = (BATCH, *CORNERS, number_range(1), SCORE)
YOLO_NAS = (BATCH, *CORNERS, SCORE, number_range(1))
PADDLE = (number_range(1), SCORE, *CORNERS)
RT_DETR = {"boxes": (1, 7, 4), "labels": (1, 7), "scores": (1, 7)}


def of_paddle(ranges: tuple[Range, ...] = PADDLE, **facts: Any) -> GraphSummary:
    """Rows and their number, of a suppression inside, as Paddle2ONNX writes multiclass_nms3."""
    return summary_of(
        {"save_infer_model/scale_0.tmp_0": (7, 6), "save_infer_model/scale_1.tmp_0": (1,)},
        dtypes={"save_infer_model/scale_1.tmp_0": "int32"},
        output_ranges={"save_infer_model/scale_0.tmp_0": ranges},
        **{"operators": {"NonMaxSuppression": 1}, **facts},
    )


def tensorflow(**facts: Any) -> GraphSummary:
    outputs = {
        "detection_boxes:0": (1, 7, 4),
        "detection_classes:0": (1, 7),
        "detection_scores:0": (1, 7),
        "num_detections:0": (1,),
        "raw_detection_boxes:0": (1, 90, 4),
    }
    picture = {"images": TensorSummary(shape=(1, 3, 64, 96), dtype="uint8")}
    return summary_of(outputs, **{"inputs": picture, **facts})


def network(kind: str) -> onnx.ModelProto:
    """A detector that chooses its best cells by a TopK, in the form of one exporter."""
    graph = onnx_models.Graph(seed=4)
    data, size = "images", 12
    if kind == "torchvision":
        for operator, values in (("Sub", INSIDE.mean), ("Div", INSIDE.std)):
            data = graph.node(operator, data, graph.constant(np.reshape(values, (3, 1, 1))))
        data = graph.node("Unsqueeze", data, graph.constant([0], np.int64))
    features = graph.node("Relu", graph.conv(data, (3, 16), 8, strides=[8, 8]))
    flat = graph.node("Reshape", graph.conv(features, (16, 7), 1), graph.constant([0, 7, -1], int))
    table = graph.node("Transpose", flat, perm=[0, 2, 1])
    parts = graph.node("Split", table, graph.constant([4, 3], int), outputs=2, axis=2)
    scores = graph.node("Sigmoid", f"{parts}.1")
    flat_scores = graph.node("Reshape", scores, graph.constant([0, -1], int))
    top = graph.node("TopK", flat_scores, graph.constant([size], int), outputs=2)
    three = graph.constant(3, np.int64)
    classes = graph.node("Mod", f"{top}.1", three)
    rows = graph.node("Unsqueeze", graph.node("Div", f"{top}.1", three), graph.constant([2], int))
    sides = graph.node("Mul", graph.node("Sigmoid", parts), graph.constant([48.0, 32, 96, 64]))
    every = graph.node("Expand", rows, graph.constant([1, size, 4], int))
    boxes = graph.node("GatherElements", sides, every, axis=1)
    if kind == "torchvision":
        outputs = {"boxes": boxes, "labels": classes, "scores": top}
        for name, value in outputs.items():
            outputs[name] = graph.node("Squeeze", value, graph.constant([0], int))
    else:
        last = graph.constant([2], int)
        number = graph.node("Unsqueeze", graph.node("Cast", classes, to=1), last)
        score = graph.node("Unsqueeze", top, last)
        outputs = {"output0": graph.node("Concat", boxes, score, number, axis=2)}
    for node in graph.nodes:
        for name, value in outputs.items():
            node.output[:] = [name if one == value else one for one in node.output]
    shape: list[int | str] = [3, 64, 96] if kind == "torchvision" else ["n", 3, 64, 96]
    metadata = ULTRALYTICS | {"names": "['a', 'b', 'c']"} if kind == "yolov10" else {}
    model = graph.model({"images": shape}, dict.fromkeys(outputs), metadata=metadata)
    for value in model.graph.output:
        if value.name == "labels":
            value.type.tensor_type.elem_type = onnx.TensorProto.INT64
    return model
