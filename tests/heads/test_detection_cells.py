"""Rows of a box, its best score and its class for every cell, as DeepStream-Yolo exports them."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest
from detections_samples import CORNERS, SCORE, claimed
from head_tools import ANY, number_range, summary_of

from tvmdet.heads import GraphSummary, get_head
from tvmdet.heads.base import ColumnRun, Question

SIZE = (64, 96)
ROWS = 126  # cells of strides 8, 16 and 32
TOLD = {
    "postprocess": {"iou_threshold": 0.45},
    "input": {"mean": [0, 0, 0], "std": [255, 255, 255]},
}


def _rows(corners: bool, size_hw: tuple[int, int] = SIZE) -> np.ndarray:
    rows = []
    for stride in (8, 16, 32):
        down, across = np.mgrid[0 : size_hw[0] // stride, 0 : size_hw[1] // stride]
        x, y = (across.ravel() + 0.5) * stride, (down.ravel() + 0.5) * stride
        side = np.full(x.shape, 12.0)
        box = [x - 6, y - 6, x + 6, y + 6] if corners else [x, y, side, side]
        rows.append(np.stack([*box, side * 0 + 0.5, side * 0], axis=1))
    return np.concatenate(rows)[None].astype(np.float32)


def _summary(corners: bool = True, **facts: Any) -> GraphSummary:
    values = _rows(corners)
    usual: dict[str, Any] = {
        "sample": lambda: {"output": values},
        "output_ranges": {"output": (*CORNERS, SCORE, number_range(2))},
    }
    return summary_of({"output": values.shape}, **{**usual, **facts})


@pytest.mark.parametrize("corners", [True, False])
def test_rows_of_every_cell_are_asked_about_and_suppressed(corners: bool) -> None:
    got = _summary(corners)
    answer = get_head("detections").examine(got, SIZE, {})
    assert isinstance(answer, Question)
    assert "output has a row for every cell" in answer
    assert "how pictures are normalised" in answer
    given = tomllib.loads(answer.spec_text)
    assert given["input"]["pad_position"] == "center"
    spec = claimed(got, given)
    sides = ["x1", "y1", "x2", "y2"] if corners else ["cx", "cy", "w", "h"]
    assert list(spec.options["columns"]) == [*sides, "score", "class"]
    assert spec.options["box_frame"] == "pixels"
    assert claimed(got, TOLD).input.pad_position == "center"


def test_pictures_are_not_asked_about_where_they_are_known() -> None:
    given = {"input": TOLD["input"]}
    answer = get_head("detections").examine(_summary(), SIZE, given)
    assert isinstance(answer, Question)
    assert tomllib.loads(answer.spec_text) == {
        "family": "detections",
        "postprocess": {"iou_threshold": 0.45},
    }


def test_a_score_is_proven_by_what_made_its_column() -> None:
    """ReduceMax of a slice: the ranges of whole values do not say it."""
    ranges = {"output": (*CORNERS, ANY, number_range(2))}
    runs = (ColumnRun(start=4, stop=5, operators=frozenset({"Sigmoid"}), low=0.0, high=1.0),)
    got = _summary(output_ranges=ranges, columns={("output", 2): runs})
    assert claimed(got, TOLD).options["columns"][4] == "score"


def test_rows_that_no_suppression_chose_are_no_finished_ones() -> None:
    """More than a network ever returns, of cells that no picture shows."""
    shape, ranges = (1, 8400, 6), {"output": (*CORNERS, SCORE, number_range(2))}
    got = summary_of({"output": shape}, output_ranges=ranges)
    answer = get_head("detections").examine(got, (640, 640), {})
    assert answer == "output has 8400 rows, and nothing inside has chosen or suppressed any"
    chosen = summary_of({"output": shape}, output_ranges=ranges, operators={"TopK": 1})
    assert isinstance(get_head("detections").examine(chosen, (640, 640), {}), Question)
