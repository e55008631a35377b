"""Finished detections: formats that are told apart, and what is asked for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from detections_samples import (
    INSIDE,
    PADDLE,
    QUERIES,
    RT_DETR,
    SIDES,
    TOLD,
    ULTRALYTICS,
    ULTRALYTICS_RTDETR,
    YOLO_NAS,
    YOLOV7,
    YOLOV10,
    claimed,
    easydeploy,
    joined,
    of_paddle,
    tensorflow,
    torchvision,
)
from head_tools import ANY, UNIT, number_range, summary_of

from tvmdet.errors import ModelError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, Recognition, TensorSummary, get_head
from tvmdet.heads.base import Normalisation, Question, Range
from tvmdet.heads.paddledetection import ARCH

STRETCHED = {"resize": "stretch"}


@pytest.mark.parametrize(
    ("summary", "given", "columns", "frame", "labels", "offset"),
    [
        (torchvision(), {}, "x1 y1 x2 y2", "pixels", ["class_0", "class_1", "class_2"], 0),
        (torchvision(), {"labels": ["__background__", "a", "b"]}, "x1 y1 x2 y2", "pixels", 3, 0),
        (torchvision(), {"labels": ["a", "b"]}, "x1 y1 x2 y2", "pixels", 2, 1),
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
            summary_of(
                RT_DETR,
                dtypes={"labels": "int64"},
                operators={"GatherElements": 8, "TopK": 2},
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
        (easydeploy(), {**TOLD, "labels": ["a", "b"]}, "x1 y1 x2 y2", "pixels", 2, 0),
        (
            easydeploy(output_ranges={"labels": (Range(low=-1, high=2, whole=True),)}),
            TOLD,
            "x1 y1 x2 y2",
            "pixels",
            3,
            0,
        ),
        (joined(YOLOV10, metadata=ULTRALYTICS), {}, "x1 y1 x2 y2 score class", "pixels", 2, 0),
        (
            joined((ANY,) * 6, metadata=ULTRALYTICS),
            {},
            "x1 y1 x2 y2 score class",
            "pixels",
            2,
            0,
        ),
        (
            joined(QUERIES, metadata=ULTRALYTICS_RTDETR),
            {},
            "cx cy w h score class",
            "normalized",
            2,
            0,
        ),
        (
            joined(YOLOV10),
            {**TOLD, "options": {"columns": [*SIDES, "score", "class"], "box_frame": "pixels"}},
            "x1 y1 x2 y2 score class",
            "pixels",
            2,
            0,
        ),
        (joined(YOLOV7, rank=2), {}, "batch x1 y1 x2 y2 class score", "pixels", 2, 0),
        (joined(YOLO_NAS, rank=2), {}, "batch x1 y1 x2 y2 score class", "pixels", 2, 0),
        (joined(PADDLE, rank=2, metadata={ARCH: "RTDETR"}), TOLD,
         "class score x1 y1 x2 y2", "pixels", 2, 0),
        (tensorflow(), {"labels": ["a"], "options": {"label_offset": 1}, "input": STRETCHED},
         "y1 x1 y2 x2", "normalized", 1, 1),
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
    spec = claimed(summary, given)
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
    ("ranges", "family"),
    [
        (QUERIES, "detections"),  # since 8.4: score and class number
        ((*QUERIES[:5], Range(low=-599.0, high=600.0)), "detections"),  # as far as it is proven
        ((UNIT,) * 6, "rtdetr"),  # before: the scores of two classes
    ],
)
def test_two_classes_of_an_rtdetr_of_ultralytics(ranges: tuple[Range, ...], family: str) -> None:
    summary = joined(
        ranges, metadata=ULTRALYTICS_RTDETR, operators={"Softmax": 1, "MatMul": 2, "GridSample": 1}
    )
    assert recognise(summary, (64, 96), {}).family == family


def test_more_labels_than_class_numbers_do_not_fit() -> None:
    given = {**TOLD, "labels": ["a", "b", "c"]}  # PaddleDetection writes COCO's 80 by default
    with pytest.raises(ModelError, match=r"does not fit it(?s:.*)3 labels, but class numbers are"):
        recognise(of_paddle(metadata={ARCH: "YOLO"}), (64, 96), given)


@pytest.mark.parametrize(
    ("summary", "given", "reason"),
    [
        (summary_of({}), {}, "no output is one row"),
        (summary_of({"logits": (1, 9, 4), "pred_boxes": (1, 9, 4)}), {}, "no scores and class"),
        (summary_of({"dets": (1, 9, 4), "labels": (1, 9, 3)}), {}, "no scores and class numbers"),
        (summary_of({"output0": (1, 300, 6)}), {}, "does not prove which"),
        (summary_of({"output0": (1, 8400, 6)}), {}, "does not prove which"),
        (of_paddle(metadata={ARCH: "YOLO"}), {}, "nothing in the graph says how pictures are norm"),
        (joined(PADDLE, rank=2), {}, "nothing says of output0 in which order"),
        (joined(YOLOV10), {}, "nothing says of output0 in which order"),
        (torchvision(output_ranges={}), {}, "does not say how many classes"),
        (
            torchvision(output_ranges={}),
            {"labels": ["a", "b"]},
            "which number has the first label",
        ),
        (torchvision(classes=9), {"labels": ["a", "b"]}, "class numbers may be 0 to 8"),
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
        (torchvision(more={"masks": (7, 1, 40, 40)}), {}, "masks of 40x40"),
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
        joined(YOLOV10),
        torchvision(output_ranges={}),
        torchvision(more={"masks": (7, 1, 40, 40)}),
        summary_of(RT_DETR, output_ranges={"labels": (number_range(4),)}, normalisation=INSIDE),
        tensorflow(output_ranges={"detection_classes:0": (number_range(4),)}),
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


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_outputs_of_a_joined_graph_are_known_by_their_names(dtype: str) -> None:
    """super-gradients calls what its second graph returns so: YOLO-NAS in batch format."""
    summary = summary_of(
        {
            "graph2_num_predictions": (1, 1),
            "graph2_pred_boxes": (1, 7, 4),
            "graph2_pred_scores": (1, 7),
            "graph2_pred_classes": (1, 7),
        },
        dtypes={"graph2_num_predictions": "int64", "graph2_pred_classes": "int64"},
        operators={"BoundedNonMaxSuppression": 1},
        inputs={"input": TensorSummary(shape=(1, 3, 64, 96), dtype=dtype)},
    )
    spec = claimed(summary, {"labels": ["a", "b"]})
    assert spec.options["count_output"] == "graph2_num_predictions"
    assert (spec.options["box_frame"], spec.options["label_offset"]) == ("pixels", 0)
    assert (spec.input.pad_position, spec.input.pad_value) == ("center", 114)


@pytest.mark.parametrize(
    ("opset", "operators", "inner", "said"),
    [
        (11, {"RoiAlign": 4}, Normalisation(mean=(103.53, 116.28, 123.675), std=(1.0,) * 3), True),
        (16, {"RoiAlign": 4}, Normalisation(mean=(103.53, 116.28, 123.675), std=(1.0,) * 3), False),
        (11, {}, Normalisation(mean=(103.53, 116.28, 123.675), std=(1.0,) * 3), False),
        (11, {"RoiAlign": 4}, INSIDE, False),
    ],
    ids=["Detectron2", "opset 16", "no regions", "torchvision"],
)
def test_regions_that_lost_their_half_cell_are_told(
    opset: int, operators: Mapping[str, int], inner: Normalisation, said: bool
) -> None:
    summary = replace(
        torchvision(),
        opset=opset,
        operators={"BoundedNonMaxSuppression": 1, **operators},
        normalisation=inner,
    )
    found = get_head("detections").examine(summary, (64, 96), {})
    assert isinstance(found, Recognition)
    assert any("aligned=True" in line and "opset 11" in line for line in found.reasons) == said


POOLED = {"BoundedNonMaxSuppression": 1}


@pytest.mark.parametrize(
    "inner",
    [
        None,
        Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3, reverses=True),
        replace(INSIDE, unknown=("Pow",)),
    ],
    ids=["none", "colours only", "unknown arithmetic"],
)
def test_only_a_network_that_normalises_is_fed_the_picture_as_it_is(
    inner: Normalisation | None,
) -> None:
    assert claimed(torchvision(operators=POOLED)).options["box_frame"] == "pixels"
    network = torchvision(operators=POOLED, normalisation=inner)
    answer = get_head("detections").examine(network, (64, 96), TOLD)
    assert isinstance(answer, Question)
    assert "box_frame" in answer.spec_text


def test_labels_that_the_file_has_are_not_asked_for() -> None:
    named = {"names": "['a', 'b']"}
    summary = summary_of({"output0": (1, 300, 6)}, metadata=named)
    answer = get_head("detections").examine(summary, (64, 96), {})
    assert isinstance(answer, Question)
    told = tomllib.loads(answer.spec_text)
    assert "labels" not in told
    assert claimed(summary, told).labels == ("a", "b")
