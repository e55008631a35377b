"""YuNet: boxes from a cell's corner and the root of two scores, against OpenCV's decoding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from dense_summaries import assert_decodes, claim, decode, summary

from tvmdet.heads import GraphSummary, Question, get_head
from tvmdet.heads.base import Range

SIZE_HW = (64, 96)
STRIDES = (8, 16, 32)
CELLS = (96, 24, 6)
UNIT = (Range(low=0.0, high=1.0),)
FACES = {
    f"{kind}_{stride}": (1, cells, columns)
    for kind, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
    for cells, stride in zip(CELLS, STRIDES, strict=True)
}
NUMBERS = {str(400 + at): shape for at, shape in enumerate(FACES.values())}


def _network(outputs: Mapping[str, tuple[int, ...]]) -> GraphSummary:
    ones = [name for name, shape in outputs.items() if shape[-1] == 1]
    return replace(summary(outputs), output_ranges=dict.fromkeys(ones, UNIT))


def _published(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores, points as ``FaceDetectorYNImpl::postProcess`` finds them, cell by cell."""
    boxes, scores, points = [], [], []
    for level, stride in enumerate(STRIDES):
        classes, objects, shifts, kps = (values[level + 3 * kind][0] for kind in range(4))
        for row in range(SIZE_HW[0] // stride):
            for column in range(SIZE_HW[1] // stride):
                at = row * (SIZE_HW[1] // stride) + column
                x, y = (column + shifts[at, 0]) * stride, (row + shifts[at, 1]) * stride
                width, height = np.exp(shifts[at, 2:]) * stride
                boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
                scores.append(np.sqrt(classes[at, 0] * objects[at, 0]))
                points.append([])
                for n in range(5):
                    points[-1].append((kps[at, 2 * n] + column) * stride)
                    points[-1].append((kps[at, 2 * n + 1] + row) * stride)
    return np.array(boxes), np.array(scores), np.array(points)


@pytest.mark.parametrize("outputs", [FACES, NUMBERS], ids=["names", "numbers"])
def test_decodes_as_opencv_does(outputs: dict[str, tuple[int, ...]]) -> None:
    found = claim(_network(outputs))
    spec, names = found.spec, list(outputs)
    assert spec.family == "yunet"
    assert spec.options["class_outputs"] == names[:3]
    assert spec.options["quality_outputs"] == names[3:6]
    assert spec.options["box_outputs"] == names[6:9]
    rng = np.random.default_rng(6)
    values = {
        name: rng.uniform(0, 1, shape).astype(np.float32)
        if shape[-1] == 1
        else rng.normal(0, 1, shape).astype(np.float32)
        for name, shape in outputs.items()
    }
    boxes, scores, points = decode(spec, values)
    want_boxes, want_scores, want_points = _published(list(values.values()))
    np.testing.assert_allclose(points[0], want_points, atol=1e-4)
    want_boxes = np.clip(want_boxes, 0, [96, 64, 96, 64])
    inside = (want_boxes[:, 2:] - want_boxes[:, :2] > 0.01).all(axis=1)
    assert inside.sum() > 100
    np.testing.assert_allclose(boxes[0], want_boxes, atol=1e-4)
    np.testing.assert_allclose(scores[0, :, 0], want_scores * inside, atol=1e-6)


def test_compiled_and_reference_agree() -> None:
    # Random outputs are no scores: logits, so that a root has no negative number.
    network = summary(FACES)
    spec = claim(network).spec
    assert (spec.options["score_activation"], spec.options["quality_activation"]) == (
        "sigmoid",
        "sigmoid",
    )
    assert_decodes(network, spec)


def test_is_fed_as_opencv_does() -> None:
    spec = claim(_network(FACES)).spec
    assert (spec.input.color, spec.input.mean, spec.input.std) == ("bgr", (0.0,) * 3, (1.0,) * 3)
    assert (spec.input.pad_position, spec.input.pad_value) == ("top_left", 0)
    assert (spec.postprocess.score_threshold, spec.postprocess.iou_threshold) == (0.9, 0.3)


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ({}, "five landmarks"),
        ({**FACES, "cls_8": (1, 96, 3), "cls_16": (1, 24, 3), "cls_32": (1, 6, 3)}, "3 class"),
        ({name: (1, 2 * cells, width) for name, (_, cells, width) in FACES.items()}, "no pyramid"),
    ],
)
def test_refuses(outputs: dict[str, tuple[int, ...]], reason: str) -> None:
    answer = get_head("yunet").examine(summary(outputs), SIZE_HW, {})
    assert isinstance(answer, str)
    assert not isinstance(answer, Question)
    assert re.search(reason, answer), answer


def test_boxes_without_landmarks_are_yunets_when_the_spec_says_so() -> None:
    # Three outputs a level are those of a YOLOX before its maps are joined, too.
    network = _network({n: shape for n, shape in FACES.items() if not n.startswith("kps")})
    answer = get_head("yunet").examine(network, SIZE_HW, {})
    assert not isinstance(answer, Question)
    assert answer == "its boxes have not five landmarks each"
    given = {"family": "yunet", "options": {"style": "opencv"}}
    assert claim(network, **given).spec.options["strides"] == [8, 16, 32]
