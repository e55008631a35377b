"""Finished detections: formats that are told apart, what is asked for, and the decoding."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
from head_tools import ANY, UNIT, assert_decodes_as_reference, decode, number_range, summary_of

import tvmdet
from tvmdet.errors import InputError, ModelError, ShapeError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, Recognition, TensorSummary, get_head
from tvmdet.heads.base import BOX_MASKS, Normalisation, Question, Range
from tvmdet.spec import DetectorSpec

ULTRALYTICS = {"names": "{0: 'a', 1: 'b'}", "task": "detect", "stride": "32"}
INSIDE = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TOLD = {"input": {"mean": [0, 0, 0], "std": [255, 255, 255]}}
CORNERS = (ANY,) * 4
SIDES = ["x1", "y1", "x2", "y2"]
SCORE, BATCH = UNIT, number_range(0)


def _claim(
    summary: GraphSummary, given: Mapping[str, Any] | None = None, size: tuple[int, int] = (64, 96)
) -> DetectorSpec:
    found = get_head("detections").examine(summary, size, given or {})
    assert isinstance(found, Recognition), found
    return found.spec


def _torchvision(classes: int = 3, **facts: Any) -> GraphSummary:
    usual: dict[str, Any] = {
        "normalisation": INSIDE,
        "operators": {"BoundedNonMaxSuppression": 1, "RoiAlign": 2},
        "output_ranges": {"labels": (number_range(classes - 1),), "scores": (UNIT,)},
    }
    outputs = {"boxes": (7, 4), "labels": (7,), "scores": (7,), **facts.pop("more", {})}
    return summary_of(outputs, dtypes={"labels": "int64"}, **{**usual, **facts})


def _joined(ranges: tuple[Range, ...], rank: int = 3, **facts: Any) -> GraphSummary:
    shape = (1, 7, len(ranges)) if rank == 3 else (7, len(ranges))
    return summary_of({"output0": shape}, output_ranges={"output0": ranges}, **facts)


YOLOV10 = (*CORNERS, SCORE, number_range(1))
YOLOV7 = (BATCH, *CORNERS, number_range(1), SCORE)
YOLO_NAS = (BATCH, *CORNERS, SCORE, number_range(1))
PADDLE = (number_range(1), SCORE, *CORNERS)
RT_DETR = {"boxes": (1, 7, 4), "labels": (1, 7), "scores": (1, 7)}


def _tensorflow(**facts: Any) -> GraphSummary:
    outputs = {
        "detection_boxes:0": (1, 7, 4),
        "detection_classes:0": (1, 7),
        "detection_scores:0": (1, 7),
        "num_detections:0": (1,),
        "raw_detection_boxes:0": (1, 90, 4),
    }
    picture = {"images": TensorSummary(shape=(1, 3, 64, 96), dtype="uint8")}
    return summary_of(outputs, **{"inputs": picture, **facts})


@pytest.mark.parametrize(
    ("summary", "given", "columns", "frame", "labels", "offset"),
    [
        (_torchvision(), {}, "x1 y1 x2 y2", "pixels", ["class_0", "class_1", "class_2"], 0),
        (_torchvision(), {"labels": ["__background__", "a", "b"]}, "x1 y1 x2 y2", "pixels", 3, 0),
        (_torchvision(), {"labels": ["a", "b"]}, "x1 y1 x2 y2", "pixels", 2, 1),
        (
            summary_of(
                {"11": (7, 4), "12": (7,), "13": (7,)},
                dtypes={"12": "int64"},
                normalisation=INSIDE,
                operators={"NonMaxSuppression": 1},
                output_ranges={"12": (number_range(2),), "13": (UNIT,)},
            ),
            {},
            "x1 y1 x2 y2",
            "pixels",
            3,
            0,
        ),
        (
            summary_of(
                RT_DETR,
                dtypes={"labels": "int64"},
                operators={"GridSample": 6, "TopK": 2},
                gates=9,
                constants={"orig_target_sizes": [96, 64]},
                output_ranges={"labels": (number_range(4),)},
            ),
            {},
            "x1 y1 x2 y2",
            "pixels",
            5,
            0,
        ),
        (
            summary_of({"dets": (1, 7, 5), "labels": (1, 7)}, dtypes={"labels": "int64"}),
            {**TOLD, "labels": ["a", "b"]},
            "x1 y1 x2 y2 score",
            "pixels",
            2,
            0,
        ),
        (
            summary_of(
                {
                    "num_dets": (1, 1),
                    "det_boxes": (1, 7, 4),
                    "det_scores": (1, 7),
                    "det_classes": (1, 7),
                },
                dtypes={"num_dets": "int32", "det_classes": "int32"},
            ),
            {**TOLD, "labels": ["a", "b"]},
            "x1 y1 x2 y2",
            "pixels",
            2,
            0,
        ),
        (_joined(YOLOV10, metadata=ULTRALYTICS), {}, "x1 y1 x2 y2 score class", "pixels", 2, 0),
        (
            _joined((ANY,) * 6, metadata=ULTRALYTICS),
            {},
            "x1 y1 x2 y2 score class",
            "pixels",
            2,
            0,
        ),
        (
            _joined(YOLOV10),
            {**TOLD, "options": {"columns": [*SIDES, "score", "class"], "box_frame": "pixels"}},
            "x1 y1 x2 y2 score class",
            "pixels",
            2,
            0,
        ),
        (_joined(YOLOV7, rank=2), {}, "batch x1 y1 x2 y2 class score", "pixels", 2, 0),
        (_joined(YOLO_NAS, rank=2), {}, "batch x1 y1 x2 y2 score class", "pixels", 2, 0),
        (_joined(PADDLE, rank=2), TOLD, "class score x1 y1 x2 y2", "pixels", 2, 0),
        (_tensorflow(), {"labels": ["a"], "options": {"label_offset": 1}}, "y1 x1 y2 x2",
         "normalized", 1, 1),
        (
            summary_of(
                {"bboxes": (1, 7, 4), "labels": (1, 7), "scores": (1, 7)},
                dtypes={"labels": "int64"},
                output_ranges={"bboxes": (UNIT,), "labels": (number_range(80),)},
            ),
            {**TOLD, "options": {"columns": ["cx", "cy", "w", "h"]}},
            "cx cy w h",
            "normalized",
            81,
            0,
        ),
    ],
)  # fmt: skip
def test_claims(
    summary: GraphSummary,
    given: Mapping[str, Any],
    columns: str,
    frame: str,
    labels: int | list[str],
    offset: int,
) -> None:
    spec = _claim(summary, given)
    assert list(spec.options["columns"]) == columns.split()
    assert spec.options["box_frame"] == frame
    assert spec.options["label_offset"] == offset
    assert len(spec.labels) == (labels if isinstance(labels, int) else len(labels))
    assert spec.postprocess.iou_threshold == 1.0
    assert spec.postprocess.multi_label
    assert spec.postprocess.max_detections == 7
    merged = recognise(summary, (64, 96), {"family": "detections", **given}).spec
    assert merged.options["columns"] == spec.options["columns"]


@pytest.mark.parametrize(
    ("summary", "given", "reason"),
    [
        (summary_of({}), {}, "no output is one row"),
        (summary_of({"logits": (1, 9, 4), "pred_boxes": (1, 9, 4)}), {}, "no scores and class"),
        (summary_of({"dets": (1, 9, 4), "labels": (1, 9, 3)}), {}, "no scores and class numbers"),
        (summary_of({"output0": (1, 300, 6)}), {}, "does not prove which"),
        (summary_of({"output0": (1, 8400, 6)}), {}, "does not prove which"),
        (_joined(PADDLE, rank=2), {}, "nothing in the graph says how pictures are normalised"),
        (_joined(YOLOV10), {}, "nothing says of output0 in which order"),
        (_torchvision(output_ranges={}), {}, "does not say how many classes"),
        (
            _torchvision(output_ranges={}),
            {"labels": ["a", "b"]},
            "which number has the first label",
        ),
        (_torchvision(classes=9), {"labels": ["a", "b"]}, "class numbers may be 0 to 8"),
        (
            summary_of(RT_DETR, output_ranges={"labels": (number_range(4),)}),
            TOLD,
            "in which order its columns are, nor the unit",
        ),
        (
            summary_of(
                {
                    "num_detections": (1, 1),
                    "detection_boxes": (1, 7, 4),
                    "detection_scores": (1, 7),
                    "detection_classes": (1, 7),
                }
            ),
            TOLD,
            "nothing says of detection_boxes in which order",
        ),
        (_torchvision(more={"masks": (7, 1, 40, 40)}), {}, "masks of 40x40"),
    ],
)
def test_asks_or_refuses(summary: GraphSummary, given: Mapping[str, Any], reason: str) -> None:
    answer = get_head("detections").examine(summary, (64, 96), given)
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


@pytest.mark.parametrize(
    "summary",
    [
        summary_of({"output0": (1, 300, 6)}),
        summary_of({"output0": (300, 7)}),
        _joined(YOLOV10),
        _torchvision(output_ranges={}),
        _torchvision(more={"masks": (7, 1, 40, 40)}),
        summary_of(RT_DETR, output_ranges={"labels": (number_range(4),)}, normalisation=INSIDE),
    ],
)
def test_what_is_asked_for_settles_it(summary: GraphSummary) -> None:
    given: dict[str, Any] = {}
    for _ in range(4):
        answer = get_head("detections").examine(summary, (64, 96), given)
        if isinstance(answer, Recognition):
            break
        assert isinstance(answer, Question), answer
        told = tomllib.loads(answer.spec_text)
        assert any(key not in given for key in told) or told["options"], answer
        given |= {**told, "options": {**given.get("options", {}), **told.get("options", {})}}
    assert given["family"] == "detections"
    assert recognise(summary, (64, 96), given).family == "detections"


@pytest.mark.parametrize(
    ("shape", "told", "frame"),
    [
        ((7, 1, 28, 28), {}, "box"),
        ((7, 1, 64, 96), {}, "image"),
        ((7, 64, 96), {}, "image"),
        ((7, 1, 40, 40), {"masks": {"frame": "box"}}, "box"),
    ],
)
def test_masks_lie_in_the_box_or_on_the_image(
    shape: tuple[int, ...], told: Mapping[str, Any], frame: str
) -> None:
    spec = _claim(_torchvision(more={"masks": shape}), told)
    assert spec.masks is not None
    assert spec.masks.frame == frame
    rng = np.random.default_rng(0)
    values = {
        "boxes": rng.random((7, 4), np.float32),
        "labels": rng.integers(0, 4, 7),
        "scores": rng.random(7, np.float32),
        "masks": rng.random(shape, np.float32),
    }
    assert_decodes_as_reference(spec, values)


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        # A DETR's boxes, cx cy w h as its authors have them, or made corners by a wrapper.
        (
            summary_of(
                {"pred_boxes": (1, 7, 4), "scores": (1, 7), "labels": (1, 7)},
                dtypes={"labels": "int64"},
                output_ranges={"pred_boxes": (UNIT,), "labels": (number_range(4),)},
            ),
            "in which order its columns are .they are normalized",
        ),
        (
            summary_of(
                RT_DETR,
                dtypes={"labels": "int64"},
                output_ranges={
                    "boxes": (Range(low=-0.5, high=1.5),),
                    "labels": (number_range(4),),
                },
            ),
            "in which order its columns are .they are normalized",
        ),
        # Boxes cut at the input's sides prove no order.
        (
            summary_of(
                RT_DETR,
                dtypes={"labels": "int64"},
                output_ranges={
                    "boxes": (Range(low=0, high=96), Range(low=0, high=64)) * 2,
                    "labels": (number_range(4),),
                },
            ),
            "in which order its columns are .they are pixels",
        ),
        (
            _torchvision(
                output_ranges={
                    "boxes": (UNIT,),
                    "labels": (number_range(2),),
                    "scores": (UNIT,),
                }
            ),
            "proves that they are normalized",
        ),
        (_joined((UNIT,) * 5 + (number_range(1),), metadata=ULTRALYTICS), "are normalized"),
        (
            summary_of(
                {"dets": (1, 7, 5), "labels": (1, 7)},
                dtypes={"labels": "int64"},
                output_ranges={"dets": (UNIT,) * 5},
            ),
            "are normalized",
        ),
    ],
)
def test_an_order_or_unit_that_nothing_proves_is_asked_for(
    summary: GraphSummary, reason: str
) -> None:
    answer = get_head("detections").examine(summary, (64, 96), {**TOLD, "labels": ["a", "b"]})
    assert isinstance(answer, Question)
    assert re.search(reason, answer), answer
    told = tomllib.loads(answer.spec_text)
    given = {**TOLD, "labels": ["a", "b"], **told}
    given["options"]["label_offset"] = 0
    spec = _claim(summary, given)
    assert spec.options["box_frame"] == told["options"]["box_frame"]
    assert list(spec.options["columns"]) == told["options"]["columns"]


def test_outputs_without_names_are_told_by_type() -> None:
    summary = summary_of(
        {"5": (7, 4), "6": (7,), "7": (7,), "8": (7, 1, 28, 28), "9": (2,)},
        dtypes={"7": "int64", "9": "int64"},
        operators={"NonMaxSuppression": 2, "RoiAlign": 5},
        normalisation=Normalisation(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0)),
        output_ranges={"6": (UNIT,), "7": (number_range(2),)},
    )
    spec = _claim(summary)
    assert (spec.options["score_output"], spec.options["class_output"]) == ("6", "7")
    assert (spec.input.color, spec.input.std) == ("bgr", (1, 1, 1))
    assert spec.masks is not None
    assert spec.masks.frame == "box"


@pytest.mark.parametrize(
    ("normalisation", "operators", "border"),
    [
        (INSIDE, {"RoiAlign": 2, "Softmax": 1}, (124, 116, 104)),
        (INSIDE, {"Sigmoid": 1}, (124, 116, 104)),
        (
            Normalisation(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0)),
            {"RoiAlign": 2, "Softmax": 1},
            (104, 116, 124),
        ),
        (Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3), {"Sigmoid": 1}, (128, 128, 128)),
        (Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3), {"Softmax": 1}, None),
        (
            Normalisation(mean=(0.48235, 0.45882, 0.40784), std=(1 / 255,) * 3),
            {"Softmax": 1},
            None,
        ),
    ],
)
def test_the_border_is_what_the_network_normalises_to_zero(
    normalisation: Normalisation,
    operators: Mapping[str, int],
    border: tuple[int, int, int] | None,
) -> None:
    counts = {"BoundedNonMaxSuppression": 1, **operators}
    spec = _claim(_torchvision(normalisation=normalisation, operators=counts))
    if border is None:
        assert spec.input.resize == "stretch"
    else:
        assert (spec.input.resize, spec.input.pad_position) == ("letterbox", "top_left")
        assert spec.input.pad_value == border


MASKS = {"more": {"masks": (7, 1, 28, 28)}}
POOLED = {"BoundedNonMaxSuppression": 1}
SMALL_MASKS = {"dets": (1, 7, 5), "labels": (1, 7), "masks": (1, 7, 28, 28)}


@pytest.mark.parametrize(
    ("summary", "known"),
    [
        (_torchvision(**MASKS), True),
        (_torchvision(**MASKS, operators=POOLED), False),
        (_torchvision(**MASKS, operators=POOLED, metadata={BOX_MASKS: "masks"}), True),
        (_torchvision(**MASKS, operators=POOLED, metadata={BOX_MASKS: "others"}), False),
        (_torchvision(more={"masks": (7, 1, 20, 28)}), False),
        (summary_of(SMALL_MASKS, dtypes={"labels": "int64"}), True),
    ],
)
def test_masks_span_their_boxes_only_where_something_says_so(
    summary: GraphSummary, known: bool
) -> None:
    given = {**TOLD, "labels": ["a", "b", "c"]}
    answer = get_head("detections").examine(summary, (64, 96), given)
    if known:
        assert isinstance(answer, Recognition), answer
        assert answer.spec.masks is not None
        assert answer.spec.masks.frame == "box"
    else:
        assert isinstance(answer, Question)
        assert 'frame = "box"' in answer.spec_text


def _random(summary: GraphSummary, batch: int, classes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    made = {}
    for name, value in summary.outputs.items():
        shape = [int(dim or 0) for dim in value.shape]
        if len(shape) != 2 or name in ("labels", "det_classes"):
            shape[0] = batch if shape[0] == 1 else shape[0]
        if value.dtype == "float32":
            made[name] = rng.uniform(0, 1, shape).astype(np.float32)
            if shape[-1] in (6, 7):
                made[name][..., [0, 5]] = rng.integers(0, classes + 2, (*shape[:-1], 2))
        else:
            made[name] = rng.integers(0, classes + 2, shape).astype(value.dtype)
    return made


@pytest.mark.parametrize(
    ("summary", "given", "batch"),
    [
        (_torchvision(), {"labels": ["a", "b"]}, 1),
        (_joined(YOLOV10, metadata=ULTRALYTICS), {}, 2),
        (_joined(PADDLE, rank=2), TOLD, 1),
        (_joined(YOLOV7, rank=2), {}, 1),
        (
            summary_of({"dets": (1, 7, 5), "labels": (1, 7)}, dtypes={"labels": "int64"}),
            {**TOLD, "labels": ["a", "b", "c"]},
            3,
        ),
    ],
)
def test_decodes(summary: GraphSummary, given: Mapping[str, Any], batch: int) -> None:
    spec = _claim(summary, given)
    assert_decodes_as_reference(spec, _random(summary, batch, len(spec.labels)))


@pytest.mark.parametrize(
    ("columns", "row", "box"),
    [
        (["x1", "y1", "x2", "y2"], [10, 20, 30, 60], [10, 20, 30, 60]),
        (["y1", "x1", "y2", "x2"], [20, 10, 60, 30], [10, 20, 30, 60]),
        (["cx", "cy", "w", "h"], [20, 40, 20, 40], [10, 20, 30, 60]),
        (["x1", "y1", "w", "h"], [10, 20, 20, 40], [10, 20, 30, 60]),
        (["unused", "h", "w", "cy", "cx"], [9, 40, 20, 40, 20], [10, 20, 30, 60]),
    ],
)
@pytest.mark.parametrize("frame", ["pixels", "normalized"])
def test_decodes_known_boxes(
    columns: list[str], row: list[float], box: list[float], frame: str
) -> None:
    summary = summary_of({"b": (1, 2, len(columns)), "s": (1, 2), "c": (1, 2, 1)})
    options = {
        "box_output": "b",
        "score_output": "s",
        "class_output": "c",
        "columns": columns,
        "box_frame": frame,
        "label_offset": 1,
    }
    given = {"family": "detections", "labels": ["a", "b"], "options": options, **TOLD}
    spec = recognise(summary, (64, 96), given).spec
    scale = np.ones(len(columns), np.float32)
    if frame == "normalized":
        sides = {"x": 96, "w": 96, "y": 64, "h": 64}
        scale = np.array([sides.get(name.replace("c", "")[0], 1) for name in columns], np.float32)
    table = np.zeros((1, 2, len(columns)), np.float32)
    table[0, 1] = np.array(row) / scale
    values = {"b": table, "s": np.array([[0, 0.75]], "f4"), "c": np.array([[[0], [2]]], "f4")}
    boxes, scores = decode(spec, values)
    np.testing.assert_allclose(boxes[0, 1], box, rtol=1e-5)
    assert scores[0].tolist() == [[0, 0], [0, 0.75]]
    assert_decodes_as_reference(spec, values)


def test_rows_past_the_count_are_nothing() -> None:
    summary = summary_of(
        {"num_dets": (1, 1), "det_boxes": (1, 3, 4), "det_scores": (1, 3), "det_classes": (1, 3)},
        dtypes={"num_dets": "int64", "det_classes": "int32"},
    )
    spec = _claim(summary, {**TOLD, "labels": ["a", "b"]})
    values = {
        "num_dets": np.array([[2], [0]]),
        "det_boxes": np.ones((2, 3, 4), np.float32),
        "det_scores": np.full((2, 3), 0.5, np.float32),
        "det_classes": np.array([[0, 1, 1], [0, 0, 0]], np.int32),
    }
    _, scores = decode(spec, values)
    assert scores.tolist() == [[[0.5, 0], [0, 0.5], [0, 0]], [[0, 0], [0, 0], [0, 0]]]
    assert_decodes_as_reference(spec, values)


def test_many_classes() -> None:
    labels = [f"c{index}" for index in range(1203)]
    summary = _torchvision(classes=1203)
    spec = _claim(summary, {"labels": labels})
    rng = np.random.default_rng(0)
    values = {
        "boxes": rng.random((300, 4), np.float32),
        "labels": rng.integers(0, 1203, 300),
        "scores": rng.random(300, np.float32),
    }
    assert_decodes_as_reference(spec, values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_frame": "metres"}, "allowed: normalized, pixels"),
        ({"label_offset": -1}, "a whole number from 0 to 1000"),
        ({"columns": ["x1", "y1", "x2"]}, "x1 y1 x2 y2, x1 y1 w h or cx cy w h among them"),
        ({"columns": ["x1", "y1", "x2", "y3"]}, "options.columns is"),
        ({"columns": ["x1", "y1", "x2", "y2", "score"]}, "need .N, rows, 5. or"),
        ({"score_output": "nowhere"}, "options.score_output is 'nowhere'"),
        ({"score_output": ""}, "no scores and class numbers of its rows"),
        ({"rows": 3}, "unknown options.rows"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], message: str) -> None:
    given = {"family": "detections", "options": options}
    with pytest.raises((InputError, ModelError), match=message):
        recognise(_torchvision(), (64, 96), given)


def test_wrong_outputs_are_refused() -> None:
    spec = _claim(_torchvision())
    with pytest.raises(ShapeError, match="the network's outputs: other"):
        decode(spec, {"other": np.zeros((1, 3, 3), np.float32)})


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


@pytest.mark.parametrize("kind", ["torchvision", pytest.param("yolov10", marks=pytest.mark.slow)])
def test_a_network_compiles_with_parity(kind: str, tmp_path: Path) -> None:
    path = onnx_models.save(network(kind), tmp_path / "m.onnx")
    # No suppression tells that the small network is torchvision's.
    options = {"columns": SIDES, "box_frame": "pixels"} if kind == "torchvision" else {}
    model = tvmdet.import_onnx(path, spec={"options": options} if options else None)
    assert model.spec.family == "detections"
    assert len(model.spec.labels) == 3
    report = tvmdet.compile(model, output=tmp_path / "m.tvmdet")
    (certificate,) = report.parity.values()
    assert certificate["boxes"] > 0
