"""Rows of a box, its best score and its class for every cell, as DeepStream-Yolo exports them."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest
from detections_samples import CORNERS, SCORE, ULTRALYTICS, claimed
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


def test_a_first_corner_with_a_size_is_no_centre() -> None:
    values = _rows(corners=False)
    values[..., 2:4] = np.random.default_rng(4).gamma(2.0, 8.0, (1, ROWS, 2))
    values[..., :2] -= values[..., 2:4] / 2
    got = _summary(sample=lambda: {"output": values})
    assert claimed(got, TOLD).options["columns"][:4] == ["x1", "y1", "w", "h"]


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


SIDES = {
    True: ("x1", "y1", "x2", "y2"),
    False: ("cx", "cy", "w", "h"),
}
RANGES = {"score": SCORE, "class": number_range(2)}
NOT_ASKED = {"input": TOLD["input"], "labels": ["a", "b", "c"]}
ORDERS = ("0 1 2 3 4 5", "5 4 0 1 2 3", "4 0 1 2 3 5", "5 4 1 0 3 2")


def _ordered(order: str, corners: bool, unit: float = 1.0) -> tuple[GraphSummary, tuple[str, ...]]:
    """Rows in another order of columns, and the names of the columns in that order."""
    at = [int(one) for one in order.split()]
    names = tuple((*SIDES[corners], "score", "class")[one] for one in at)
    sizes = np.array([*(SIZE[::-1] * 2), 1, 1]) if unit != 1 else np.ones(6)
    values = (_rows(corners) / sizes).astype(np.float32)[..., at]
    ranges = tuple(RANGES.get(name, ANY) for name in names)
    return _summary(
        corners, sample=lambda: {"output": values}, output_ranges={"output": ranges}
    ), names


@pytest.mark.parametrize("told_frame", ["pixels", "normalized"])
@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("order", ORDERS)
def test_cells_are_found_wherever_a_box_is(order: str, corners: bool, told_frame: str) -> None:
    """Told columns are kept; the threshold is asked for all the same."""
    got, names = _ordered(order, corners, unit=1.0 if told_frame == "pixels" else 0.0)
    given = {**NOT_ASKED, "options": {"columns": list(names), "box_frame": told_frame}}
    answer = get_head("detections").examine(got, SIZE, given)
    assert isinstance(answer, Question)
    assert "output has a row for every cell" in answer
    spec = claimed(got, {**given, **tomllib.loads(answer.spec_text)})
    assert tuple(spec.options["columns"]) == names


@pytest.mark.parametrize(("unit", "frame"), [(1.0, "pixels"), (0.0, "normalized")])
@pytest.mark.parametrize("order", ["0 1 2 3 4 5", "5 4 0 1 2 3"])
def test_a_picture_shows_order_and_unit_of_told_scores(order: str, unit: float, frame: str) -> None:
    got, names = _ordered(order, True, unit)
    answer = get_head("detections").examine(got, SIZE, NOT_ASKED)
    assert isinstance(answer, Question)
    assert set(tomllib.loads(answer.spec_text)) == {"family", "postprocess"}
    spec = claimed(got, {**NOT_ASKED, "postprocess": {"iou_threshold": 0.45}})
    assert (tuple(spec.options["columns"]), spec.options["box_frame"]) == (names, frame)


@pytest.mark.parametrize("swapped", [False, True], ids=["x first", "y first"])
@pytest.mark.parametrize("told", [{}, {"columns": ["x1", "y1", "x2", "y2"], "box_frame": "pixels"}])
@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_cells_in_three_outputs_are_asked_about(
    dtype: str, told: dict[str, Any], swapped: bool
) -> None:
    """DeepStream-Yolo's older exports: boxes, scores, classes."""
    values = _rows(True)
    boxes = values[..., [1, 0, 3, 2] if swapped else [0, 1, 2, 3]]
    if told and swapped:
        told = {**told, "columns": ["y1", "x1", "y2", "x2"]}
    outputs = {"boxes": boxes, "scores": values[..., 4:5], "classes": values[..., 5:]}
    got = summary_of(
        {name: value.shape for name, value in outputs.items()},
        dtypes={"classes": dtype},
        sample=lambda: outputs,
        output_ranges={"scores": (SCORE,), "classes": (number_range(2),)},
    )
    given = {**NOT_ASKED, "options": told}
    answer = get_head("detections").examine(got, SIZE, given)
    assert isinstance(answer, Question)
    assert "boxes has a row for every cell" in answer
    spec = claimed(got, {**given, "postprocess": {"iou_threshold": 0.45}})
    sides = ["y1", "x1", "y2", "x2"] if swapped else list(SIDES[True])
    assert (spec.options["columns"], spec.options["box_frame"]) == (sides, "pixels")


COLUMNS = {"options": {"columns": [*SIDES[True], "score", "class"], "box_frame": "pixels"}}


@pytest.mark.parametrize(
    ("rows", "size", "operators", "asked"),
    [
        (8400, (640, 640), {}, True),
        (8401, (640, 640), {}, True),  # no pyramid's, but more than a network returns
        (525, (160, 160), {}, True),
        (126, SIZE, {}, True),
        (8400, (640, 640), {"TopK": 1}, False),
        (525, (160, 160), {"EfficientNMS_TRT": 1}, False),
        (525, (160, 160), {"BoundedNonMaxSuppression": 1}, False),
        (300, (640, 640), {}, False),  # queries; three of each cell of stride 64 by chance
        (100, (640, 640), {}, False),
        (99, (640, 640), {}, False),
    ],
)
def test_rows_that_nothing_chose_are_asked_about_where_no_picture_shows_cells(
    rows: int, size: tuple[int, int], operators: dict[str, int], asked: bool
) -> None:
    flat = np.zeros((1, rows, 6), np.float32)
    got = summary_of(
        {"output": flat.shape},
        operators=operators,
        output_ranges={"output": (*CORNERS, SCORE, number_range(2))},
        sample=lambda: {"output": flat},
    )
    told = {**NOT_ASKED, **COLUMNS}
    answer = get_head("detections").examine(got, size, told)
    assert isinstance(answer, Question) == asked
    line = f"output has {rows} rows that nothing inside has chosen or suppressed"
    if isinstance(answer, Question):
        assert line in answer
        given = tomllib.loads(answer.spec_text)
        assert given == {"family": "detections", "postprocess": {"iou_threshold": 0.45}}
    # What is told is heeded, however many rows there are.
    spec = claimed(got, {**told, "postprocess": {"iou_threshold": 0.45}}, size)
    assert list(spec.options["columns"]) == COLUMNS["options"]["columns"]
    # Order and unit are asked for in one with it.
    untold = get_head("detections").examine(got, size, NOT_ASKED)
    assert isinstance(untold, Question)
    assert ("postprocess" in tomllib.loads(untold.spec_text)) == asked
    assert "columns" in tomllib.loads(untold.spec_text)["options"]


def test_no_exporter_says_the_order_of_rows_that_nothing_chose() -> None:
    """Their metadata is Ultralytics', who returns no such rows."""
    got = _summary(sample=None, metadata=ULTRALYTICS)
    answer = get_head("detections").examine(got, SIZE, {})
    assert isinstance(answer, Question)
    assert {"options", "postprocess"} <= set(tomllib.loads(answer.spec_text))
