"""The suppression kernel against the definition of greedy suppression, case by case."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import tvm
from assertions import assert_close

from tvmdet.passes.suppress_boxes_kernel import suppress_boxes_func
from tvmdet.spec import PostprocessSpec

FEW_ROWS = PostprocessSpec(max_detections=10, pre_nms_top_k=1000)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a kernel is compiled for."""

    batch: int = 1
    anchors: int = 40
    classes: int = 3
    spec: PostprocessSpec = FEW_ROWS


PLAIN = Shape()
SHAPES = {
    "plain": PLAIN,
    "multi label": replace(PLAIN, spec=replace(PLAIN.spec, multi_label=True)),
    "class agnostic": replace(PLAIN, spec=replace(PLAIN.spec, class_agnostic=True)),
    "both": replace(PLAIN, spec=replace(PLAIN.spec, multi_label=True, class_agnostic=True)),
    "few candidates": replace(PLAIN, spec=replace(PLAIN.spec, pre_nms_top_k=7)),
    "one row": replace(PLAIN, spec=replace(PLAIN.spec, max_detections=1)),
    "more rows than boxes": replace(PLAIN, spec=replace(PLAIN.spec, max_detections=200)),
    "batch 3": replace(PLAIN, batch=3),
    "batch 3, multi label": replace(
        PLAIN, batch=3, spec=replace(PLAIN.spec, multi_label=True, pre_nms_top_k=20)
    ),
    "one class": replace(PLAIN, classes=1),
    "one anchor": replace(PLAIN, anchors=1),
    "two anchors": replace(PLAIN, anchors=2, classes=1),
    "many": Shape(anchors=300, classes=18, spec=PostprocessSpec(max_detections=50)),
}


@functools.cache
def _kernel(shape: Shape) -> Any:
    func = suppress_boxes_func(shape.batch, shape.anchors, shape.classes, shape.spec)
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    # The library owns the function; both must live.
    return tvm.tirx.build(module, tvm.target.Target("llvm"))


def _run(
    shape: Shape, boxes: np.ndarray, scores: np.ndarray, score: float, iou: float
) -> tuple[np.ndarray, ...]:
    rows = shape.spec.max_detections
    outputs = [
        np.full((shape.batch, rows, 4), np.nan, "float32"),
        np.full((shape.batch, rows), np.nan, "float32"),
        np.full((shape.batch, rows), -77, "int32"),
        np.full((shape.batch, rows), -77, "int32"),
        np.full((shape.batch,), -77, "int32"),
    ]
    tensors = [
        tvm.runtime.tensor(array)
        for array in (boxes, scores, np.array([score, iou], "float32"), *outputs)
    ]
    _kernel(shape)["main"](*tensors)
    return tuple(tensor.numpy() for tensor in tensors[3:])


def _overlap_exceeds(a: np.ndarray, b: np.ndarray, iou: float) -> bool:
    """Intersection over union of two boxes against a threshold, in the kernel's precision."""
    zero, f4 = np.float32(0), np.float32
    width = max(f4(min(a[2], b[2]) - max(a[0], b[0])), zero)
    height = max(f4(min(a[3], b[3]) - max(a[1], b[1])), zero)
    shared = f4(width * height)
    areas = [f4(max(f4(box[2] - box[0]), zero) * max(f4(box[3] - box[1]), zero)) for box in (a, b)]
    return bool(shared > f4(f4(iou) * f4(f4(areas[0] + areas[1]) - shared)))


def _expected(
    spec: PostprocessSpec, boxes: np.ndarray, scores: np.ndarray, score: float, iou: float
) -> list[tuple[int, int]]:
    """The (anchor, class) pairs that survive, by the definition."""
    pairs = [
        (a, c)
        for a in range(len(scores))
        for c in (range(scores.shape[1]) if spec.multi_label else [int(np.nanargmax(scores[a]))])
        if scores[a, c] > np.float32(score)
    ]
    pairs.sort(key=lambda pair: (-scores[pair], pair))
    kept: list[tuple[int, int]] = []
    for a, c in pairs[: spec.pre_nms_top_k]:
        rivals = [k for k in kept if spec.class_agnostic or k[1] == c]
        if not any(_overlap_exceeds(boxes[a], boxes[k[0]], iou) for k in rivals):
            kept.append((a, c))
    return kept[: spec.max_detections]


def _check(shape: Shape, boxes: np.ndarray, scores: np.ndarray, score: float, iou: float) -> int:
    got = _run(shape, boxes, scores, score, iou)
    total = 0
    for n in range(shape.batch):
        kept = _expected(shape.spec, boxes[n], scores[n], score, iou)
        count = len(kept)
        total += count
        assert got[4][n] == count
        rows = np.array([a for a, _ in kept], int)
        classes = np.array([c for _, c in kept], int)
        np.testing.assert_array_equal(got[0][n, :count], boxes[n][rows])
        np.testing.assert_array_equal(got[1][n, :count], scores[n][rows, classes])
        np.testing.assert_array_equal(got[2][n, :count], classes)
        np.testing.assert_array_equal(got[3][n, :count], rows)
        for array in got[:4]:
            assert not np.any(array[n, count:]), "rows past the count are zero"
    return total


def _boxes(rng: np.random.Generator, shape: Shape, room: int) -> np.ndarray:
    corner = rng.integers(0, room, (shape.batch, shape.anchors, 2))
    sides = rng.integers(1, 12, (shape.batch, shape.anchors, 2))
    return np.concatenate([corner, corner + sides], axis=-1).astype("float32")


def _scores(rng: np.random.Generator, shape: Shape, levels: int) -> np.ndarray:
    drawn = rng.integers(0, levels + 1, (shape.batch, shape.anchors, shape.classes))
    return (drawn / np.float32(levels)).astype("float32")


@pytest.mark.parametrize("name", SHAPES)
def test_random_boxes(name: str) -> None:
    shape, found = SHAPES[name], 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        # Few levels make ties, little room makes overlaps.
        levels = int(rng.choice([1, 3, 10, 1000]))
        boxes = _boxes(rng, shape, int(rng.choice([4, 12, 60])))
        scores = _scores(rng, shape, levels)
        score = float(rng.choice([0.0, 0.25, 0.5, 0.9]))
        found += _check(shape, boxes, scores, score, float(rng.choice([0.0, 0.1, 0.45, 0.8, 1.0])))
    assert found > 9, "the cases must find something"


def _zeros(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.zeros((shape.batch, shape.anchors, 4), "float32"),
        np.zeros((shape.batch, shape.anchors, shape.classes), "float32"),
    )


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_above_the_threshold(name: str) -> None:
    boxes, scores = _zeros(SHAPES[name])
    assert _check(SHAPES[name], boxes, scores, 0.0, 0.5) == 0


def test_a_score_equal_to_the_threshold_is_not_above_it() -> None:
    boxes, scores = _zeros(PLAIN)
    scores[0, 5, 1] = 0.25
    assert _check(PLAIN, boxes, scores, 0.25, 0.5) == 0
    scores[0, 5, 1] = np.nextafter(np.float32(0.25), np.float32(1))
    assert _check(PLAIN, boxes, scores, 0.25, 0.5) == 1


def test_equal_boxes_leave_one_of_each_class() -> None:
    boxes, scores = _zeros(PLAIN)
    boxes[...] = [1, 2, 30, 40]
    scores[...] = np.random.default_rng(0).random(scores.shape, "float32")
    _check(PLAIN, boxes, scores, 0.0, 0.5)
    counts = _run(PLAIN, boxes, scores, 0.0, 0.5)[4]
    assert counts[0] == 3
    agnostic = SHAPES["class agnostic"]
    assert _check(agnostic, boxes, scores, 0.0, 0.5) == 1


def test_an_iou_of_one_keeps_equal_boxes() -> None:
    boxes, scores = _zeros(PLAIN)
    boxes[...] = [1, 2, 30, 40]
    scores[...] = 0.5
    assert _check(PLAIN, boxes, scores, 0.0, 1.0) == PLAIN.spec.max_detections


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [9, 9, 2, 2], [3, 8, 9, 8]], ids=str)
def test_boxes_without_area_suppress_nothing(box: list[int]) -> None:
    boxes, scores = _zeros(PLAIN)
    boxes[...] = box
    scores[..., 1] = 0.9
    assert _check(PLAIN, boxes, scores, 0.5, 0.0) == PLAIN.spec.max_detections


def test_touching_boxes_do_not_overlap() -> None:
    boxes, scores = _zeros(PLAIN)
    boxes[0, 0], boxes[0, 1] = [0, 0, 10, 10], [10, 0, 20, 10]
    scores[0, :2, 0] = 0.9, 0.8
    assert _check(PLAIN, boxes, scores, 0.5, 0.0) == 2


def test_ties_go_to_the_first_anchor_and_the_first_class() -> None:
    shape = SHAPES["both"]
    boxes, scores = _zeros(shape)
    boxes[...] = [0, 0, 10, 10]
    scores[...] = 0.5
    found = _run(shape, boxes, scores, 0.1, 0.5)
    assert found[4][0] == 1 and found[2][0, 0] == 0
    single = _run(PLAIN, boxes, scores, 0.1, 0.5)
    assert single[4][0] == 1 and single[2][0, 0] == 0


def test_infinite_boxes_and_huge_ones_end() -> None:
    boxes, scores = _zeros(PLAIN)
    boxes[0, 0] = [-np.inf, -np.inf, np.inf, np.inf]
    boxes[0, 1] = [-1e30, -1e30, 1e30, 1e30]
    scores[0, :3, 0] = 0.9, 0.8, 0.7
    assert 1 <= _run(PLAIN, boxes, scores, 0.5, 0.5)[4][0] <= 3


@pytest.mark.parametrize("name", ["plain", "multi label", "class agnostic"])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_scores_that_are_no_numbers_are_never_reported(name: str, column: int) -> None:
    shape = SHAPES[name]
    rng = np.random.default_rng(3)
    boxes, scores = _boxes(rng, shape, 60), _scores(rng, shape, 1000)
    scores[0, ::3, column] = np.nan
    assert _check(shape, boxes, scores, 0.25, 0.45) > 0


def test_a_box_of_all_nan_scores_is_no_candidate() -> None:
    boxes, scores = _zeros(PLAIN)
    scores[...] = np.nan
    found = _run(PLAIN, boxes, scores, 0.0, 0.5)
    assert found[4][0] == 0 and not np.any(found[1])


def test_boxes_that_are_no_numbers_do_not_hide_others() -> None:
    boxes, scores = _zeros(PLAIN)
    boxes[0] = _boxes(np.random.default_rng(4), PLAIN, 200)[0]
    scores[0, :, 1] = np.linspace(0.9, 0.5, PLAIN.anchors)
    boxes[0, 0] = np.nan
    found = _run(PLAIN, boxes, scores, 0.3, 0.99)
    assert found[4][0] == PLAIN.spec.max_detections
    assert_close(found[1][0, 1:], scores[0, 1 : PLAIN.spec.max_detections, 1])
