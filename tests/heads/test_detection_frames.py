"""In which order and unit rows of finished detections hold boxes: proven, known, or asked for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from detections_samples import (
    RT_DETR,
    SCORE,
    SIDES,
    TOLD,
    ULTRALYTICS,
    YOLOV10,
    claimed,
    easydeploy,
    joined,
    of_paddle,
    torchvision,
)
from head_tools import ANY, UNIT, number_range, summary_of

from tvmdet.heads import GraphSummary, TensorSummary, get_head
from tvmdet.heads.base import Question, Range
from tvmdet.heads.paddledetection import ARCH


@pytest.mark.parametrize(
    "facts",
    [
        {"metadata": {ARCH: "YOLO"}},
        {
            "constants": {"scale_factor": 1},
            "inputs": {"image": TensorSummary(shape=(1, 3, 64, 96), dtype="float32")},
        },
    ],
)
def test_paddledetections_rows_are_known_by_its_file_or_its_inputs(
    facts: Mapping[str, Any],
) -> None:
    unproven = (number_range(1), *[ANY] * 5)
    spec = claimed(of_paddle(unproven, **facts), TOLD)
    assert spec.options["columns"] == ["class", "score", *SIDES]
    assert spec.options["box_frame"] == "pixels"
    other = get_head("detections").examine(of_paddle(unproven), (64, 96), TOLD)
    assert isinstance(other, Question)
    assert "does not prove which column is what" in other


@pytest.mark.parametrize(
    ("low", "are_corners", "offered"),
    [
        (-48.0, True, SIDES),
        (-48.0, False, ["x1", "y1", "w", "h"]),  # kornia's RT-DETR
        (0.0, False, ["cx", "cy", "w", "h"]),
    ],
)
def test_class_and_score_first_are_not_only_paddledetections(
    low: float, are_corners: bool, offered: list[str]
) -> None:
    boxes = (Range(low=low, high=96.0),) * 2 + (Range(low=0.0, high=96.0),) * 2
    rows = np.zeros((1, 7, 6), np.float32)  # the last one is none
    rows[0, :6, :4] = [[1, 0.9, x, 60 - x // 2] for x in (9, 30, 18, 70, 50, 40)]
    rows[0, :6, 4:] = [
        [30, 2],
        [5, 30],
        [10, 9],
        [8, 20],
        [20, 6],
        [3, 4],
    ]
    rows[0, :6, 4:] += are_corners * (rows[0, :6, 2:4] - 8)  # some sides are negative
    summary = joined((number_range(1), SCORE, *boxes), sample=lambda: {"output0": rows})
    answer = get_head("detections").examine(summary, (64, 96), TOLD)
    assert isinstance(answer, Question), answer
    assert "in which order" in answer
    told = tomllib.loads(answer.spec_text)["options"]
    assert told["columns"] == ["class", "score", *offered]


def test_names_of_easydeploy_say_nothing_without_a_suppression() -> None:
    answer = get_head("detections").examine(easydeploy(operators={}), (64, 96), TOLD)
    assert isinstance(answer, Question)
    assert "nothing says of boxes in which order" in answer


def test_an_order_that_the_graph_proves_is_no_convention_of_a_framework() -> None:
    summary = of_paddle(YOLOV10, metadata={ARCH: "YOLO"})
    answer = get_head("detections").examine(summary, (64, 96), TOLD)
    assert isinstance(answer, Question)
    told = tomllib.loads(answer.spec_text)["options"]
    assert told["columns"] == [*SIDES, "score", "class"]


@pytest.mark.parametrize(
    ("ranges", "frame"),
    [
        ((ANY,) * 6, "pixels"),
        ((*(UNIT,) * 5, ANY), "normalized"),  # a class number that is not proven whole
        ((ANY, UNIT, *(ANY,) * 4), "pixels"),
    ],
)
def test_the_unit_that_is_offered_is_what_the_graph_proves(
    ranges: tuple[Range, ...], frame: str
) -> None:
    answer = get_head("detections").examine(joined(ranges), (64, 96), {})
    assert isinstance(answer, Question), answer
    assert tomllib.loads(answer.spec_text)["options"]["box_frame"] == frame


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
            torchvision(
                output_ranges={
                    "boxes": (UNIT,),
                    "labels": (number_range(2),),
                    "scores": (UNIT,),
                }
            ),
            "proves that they are normalized",
        ),
        (joined((UNIT,) * 5 + (number_range(1),), metadata=ULTRALYTICS), "are normalized"),
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
    spec = claimed(summary, given)
    assert spec.options["box_frame"] == told["options"]["box_frame"]
    assert list(spec.options["columns"]) == told["options"]["columns"]
