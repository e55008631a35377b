"""The kernel for oriented boxes against the definition: whatever overlaps and scores more drops."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import tvm

from tvmdet.oriented import probiou_matrix
from tvmdet.passes.suppress_oriented_kernel import suppress_oriented_func
from tvmdet.spec import PostprocessSpec

ANCHORS, CLASSES = 60, 3
SPECS = {
    "plain": PostprocessSpec(max_detections=40),
    "several labels": PostprocessSpec(max_detections=90, multi_label=True),
    "class agnostic": PostprocessSpec(max_detections=40, class_agnostic=True),
    "few candidates": PostprocessSpec(max_detections=40, pre_nms_top_k=9),
    "few rows": PostprocessSpec(max_detections=3),
}
# Pairs whose overlap is as near as this to the threshold may go either way in float32.
_EDGE = 1e-4


@functools.cache
def _kernel(name: str, batch: int) -> Any:
    func = suppress_oriented_func(batch, ANCHORS, CLASSES, _candidates(SPECS[name]), SPECS[name])
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    return tvm.tirx.build(module, tvm.target.Target("llvm"))


def _candidates(spec: PostprocessSpec) -> int:
    return min(spec.pre_nms_top_k, ANCHORS * (CLASSES if spec.multi_label else 1))


def _order(spec: PostprocessSpec, scores: np.ndarray) -> np.ndarray:
    flat = scores.reshape(len(scores), -1) if spec.multi_label else scores.max(axis=2)
    return np.argsort(-flat, axis=1, kind="stable")[:, : _candidates(spec)].astype("int32")


def _run(name: str, boxes: Any, angles: Any, scores: Any, score: float, iou: float) -> list[Any]:
    batch, rows = len(boxes), SPECS[name].max_detections
    outputs = [
        np.full((batch, rows, 4), np.nan, "float32"),
        np.full((batch, rows), np.nan, "float32"),
        np.full((batch, rows), -77, "int32"),
        np.full((batch, rows), -77, "int32"),
        np.full((batch,), -77, "int32"),
    ]
    order = _order(SPECS[name], scores)
    given = (boxes, angles, scores, order, np.array([score, iou], "float32"), *outputs)
    tensors = [tvm.runtime.tensor(array) for array in given]
    _kernel(name, batch)["main"](*tensors)
    return [tensor.numpy() for tensor in tensors[5:]]


def _expected(
    spec: PostprocessSpec, boxes: Any, angles: Any, scores: Any, score: float, iou: float
) -> list[tuple[int, int]] | None:
    """The (anchor, class) pairs that stay; None where a pair is at the threshold."""
    pairs = []
    for flat in _order(spec, scores[None])[0].tolist():
        anchor, label = divmod(flat, CLASSES) if spec.multi_label else (flat, None)
        label = int(np.argmax(scores[anchor])) if label is None else label
        if scores[anchor, label] > np.float32(score):
            pairs.append((anchor, label))
    kept: list[tuple[int, int]] = []
    for at, (anchor, label) in enumerate(pairs):
        rivals = [a for a, c in pairs[:at] if spec.class_agnostic or c == label]
        overlaps = probiou_matrix(boxes[[anchor]], angles[[anchor]], boxes[rivals], angles[rivals])
        if np.any(np.abs(overlaps - iou) < _EDGE):
            return None
        if not np.any(overlaps > iou):
            kept.append((anchor, label))
    return kept[: spec.max_detections]


def _random(seed: int, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, 120, (batch, ANCHORS, 2))
    half = rng.uniform(2, 25, (batch, ANCHORS, 2))
    boxes = np.concatenate([centers - half, centers + half], axis=-1).astype("float32")
    angles = rng.uniform(-4, 8, (batch, ANCHORS)).astype("float32")
    scores = rng.uniform(0, 1, (batch, ANCHORS, CLASSES)).astype("float32")
    return boxes, angles, scores


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("iou", [0.2, 0.5, 0.9])
def test_random_boxes(name: str, iou: float) -> None:
    compared = dropped = 0
    for seed in range(8):
        boxes, angles, scores = _random(seed, batch=2)
        got = _run(name, boxes, angles, scores, 0.3, iou)
        for n in range(2):
            want = _expected(SPECS[name], boxes[n], angles[n], scores[n], 0.3, iou)
            if want is None:
                continue
            compared += 1
            anchors = np.array([a for a, _ in want], int)
            labels = np.array([c for _, c in want], int)
            count = len(want)
            assert got[4][n] == count
            np.testing.assert_array_equal(got[3][n, :count], anchors)
            np.testing.assert_array_equal(got[2][n, :count], labels)
            np.testing.assert_array_equal(got[1][n, :count], scores[n][anchors, labels])
            np.testing.assert_array_equal(got[0][n, :count], boxes[n][anchors])
            for array in got[:4]:
                assert not np.any(array[n, count:]), "rows past the count are zero"
            dropped += ANCHORS - count
    assert compared >= 8 and dropped


def test_what_is_dropped_drops_others() -> None:
    # A chain, each box over its neighbours only: greedy suppression would keep the third.
    boxes = np.zeros((1, ANCHORS, 4), "float32")
    for at in range(3):
        boxes[0, at] = [4 * at, 0, 4 * at + 20, 20]
    scores = np.zeros((1, ANCHORS, CLASSES), "float32")
    scores[0, :3, 1] = [0.9, 0.8, 0.7]
    angles = np.zeros((1, ANCHORS), "float32")
    overlaps = probiou_matrix(boxes[0, :1], [0], boxes[0, 1:3], [0, 0])[0]
    iou = float(overlaps.mean())
    assert overlaps[0] > iou > overlaps[1]
    assert _run("plain", boxes, angles, scores, 0.3, iou)[4][0] == 1


@pytest.mark.parametrize("iou", [0.0, 1.0])
def test_the_ends_of_the_threshold(iou: float) -> None:
    boxes, angles, scores = _random(0, batch=1)
    boxes[0, 1:] = boxes[0, 0]
    angles[0, 1:] = angles[0, 0]
    found = _run("class agnostic", boxes, angles, scores, 0.0, iou)[4][0]
    assert found == (1 if iou == 0.0 else SPECS["class agnostic"].max_detections)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e20])
@pytest.mark.parametrize("where", ["box", "angle"])
def test_what_is_no_number_drops_nothing(wrong: float, where: str) -> None:
    boxes, angles, scores = _random(5, batch=1)
    usual = _run("class agnostic", boxes, angles, scores, 0.3, 0.5)
    best = int(usual[3][0, 0])
    (boxes if where == "box" else angles)[0, best] = wrong
    scores[0, best] = 1.0  # it comes first
    got = _run("class agnostic", boxes, angles, scores, 0.3, 0.5)
    if where == "box" or not np.isfinite(np.float32(wrong)):
        others = _expected(
            SPECS["class agnostic"],
            np.delete(boxes[0], best, 0),
            np.delete(angles[0], best),
            np.delete(scores[0], best, 0),
            0.3,
            0.5,
        )
        assert others is not None
        rows = [anchor + (anchor >= best) for anchor, _ in others]
        assert got[3][0, : got[4][0]].tolist() == [best, *rows][: len(got[3][0])]


def test_thin_boxes_far_apart_drop_nothing() -> None:
    boxes, angles, scores = _random(6, batch=1)
    centers = np.arange(ANCHORS) * 4000.0
    boxes[0] = np.stack([centers, centers, centers + 1500, centers + 0.01], axis=1)
    assert _run("class agnostic", boxes, angles, scores, 0.0, 0.5)[4][0] == 40


def test_extents_may_be_negative_huge_or_nothing() -> None:
    boxes, angles, scores = _random(3, batch=1)
    boxes[0, :5] *= 1e9
    boxes[0, 5:10, 2:] = boxes[0, 5:10, :2]
    boxes[0, 10:20] = boxes[0, 10:20][:, [2, 3, 0, 1]]
    got = _run("plain", boxes, angles, scores, 0.0, 0.5)
    turned = boxes.copy()
    turned[0, 10:20] = boxes[0, 10:20][:, [2, 3, 0, 1]]
    same = _run("plain", turned, angles, scores, 0.0, 0.5)
    np.testing.assert_array_equal(got[3], same[3])
    assert set(range(5)) & set(got[3][0].tolist()), "far apart, they drop nothing"
