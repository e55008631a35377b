"""Both real detectors against ONNX Runtime and an independent post-process, on real pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pictures
import pytest
import reference_postprocess
from assertions import assert_detections_close
from reference_postprocess import Found

from tvmdet.detections import Detections

# Low enough that most pictures have boxes; raised for the pictures that would fill all rows.
LOW = {"nudenet": 0.004, "layout": 0.03}


@functools.cache
def _pictures() -> dict[str, np.ndarray]:
    return pictures.variants()


def _reference(built: Any, name: str, image: np.ndarray, score: float) -> Found:
    if name == "nudenet":
        return reference_postprocess.yolov8(built.network, image, size_hw=(320, 320), score=score)
    return reference_postprocess.picodet(built.network, image, size_hw=(800, 608), score=score)


def _reference_with_room(
    built: Any, name: str, image: np.ndarray, score: float
) -> tuple[float, Found]:
    """The lowest threshold from ``score`` up at which rows are left over, and what it finds."""
    rows = built.detector.spec.postprocess.max_detections
    for used in (score, 2 * score, 4 * score):
        found = _reference(built, name, image, used)
        if len(found.scores) < rows:
            return used, found
    raise AssertionError(f"{rows} rows are full at {used}")


def _as_detections(found: Found, like: Detections, labels: tuple[str, ...]) -> Detections:
    return Detections(
        boxes_xyxy=found.boxes,
        scores=found.scores,
        class_ids=found.classes,
        labels=tuple(labels[i] for i in found.classes),
        image_size_hw=like.image_size_hw,
    )


def _with_area(found: Detections) -> Detections:
    """Without boxes that were clipped to nothing: they overlap not even themselves."""
    sides = found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2]
    rows = np.flatnonzero(sides.min(axis=1, initial=np.inf) > 0.5)
    return Detections(
        boxes_xyxy=found.boxes_xyxy[rows],
        scores=found.scores[rows],
        class_ids=found.class_ids[rows],
        labels=tuple(found.labels[i] for i in rows),
        image_size_hw=found.image_size_hw,
    )


def _assert_same(found: Detections, reference: Found, labels: tuple[str, ...], score: float) -> int:
    expected = _as_detections(reference, found, labels)
    rows = 0.5 * len(expected)
    got, want = _with_area(found), _with_area(expected)
    assert len(want) >= rows, "too few boxes are left to compare"
    assert_detections_close(got, want, score_threshold=score)
    assert found.labels == tuple(labels[i] for i in found.class_ids)
    assert np.all(np.diff(found.scores) <= 0), "best score first"
    return len(want)


@pytest.fixture(params=("nudenet", "layout"))
def case(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, request.getfixturevalue(request.param)


@pytest.mark.parametrize("threshold", ["default", "low"])
def test_every_picture_has_the_same_detections(case: tuple[str, Any], threshold: str) -> None:
    name, built = case
    defaults = {"nudenet": 0.25, "layout": 0.4}
    score = LOW[name] if threshold == "low" else defaults[name]
    images = _pictures()
    assert len(images) >= 20
    compared, failures = {}, []
    for title, image in images.items():
        used, reference = _reference_with_room(built, name, image, score)
        found = built.detector.detect(image, score=used)
        assert found.image_size_hw == image.shape[:2]
        try:
            compared[title] = _assert_same(found, reference, built.detector.labels, used)
        except AssertionError as error:
            failures.append(f"{title}: {error}")
    assert not failures, "\n".join(failures)
    # Otherwise the test compares nothing with nothing.
    least = {"default": 2, "low": 15}[threshold]
    assert sum(count > 0 for count in compared.values()) >= least, compared


def test_default_thresholds_are_those_of_the_families(case: tuple[str, Any]) -> None:
    name, built = case
    spec = built.detector.spec.postprocess
    assert (spec.score_threshold, spec.iou_threshold) == {
        "nudenet": (0.25, 0.7),
        "layout": (0.4, 0.5),
    }[name]


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_batches_of_mixed_sizes_are_as_single_images(nudenet: Any, count: int) -> None:
    images = list(_pictures().values())[2 : count + 2]
    assert len({image.shape for image in images}) > 1
    score = LOW["nudenet"]
    together = nudenet.detector.detect(images, score=score)
    assert len(together) == count
    for image, found in zip(images, together, strict=True):
        reference = _reference(nudenet, "nudenet", image, score)
        _assert_same(found, reference, nudenet.detector.labels, score)


def test_scores_and_overlaps_are_taken_from_the_call(nudenet: Any) -> None:
    image = pictures.read("astronaut.png")
    for score, iou in ((0.01, 0.2), (0.05, 0.7), (0.2, 1.0)):
        found = nudenet.detector.detect(image, score=score, iou=iou)
        reference = reference_postprocess.yolov8(
            nudenet.network, image, size_hw=(320, 320), score=score, iou=iou
        )
        assert _assert_same(found, reference, nudenet.detector.labels, score) > 0


def test_the_certificate_says_what_was_compared(case: tuple[str, Any]) -> None:
    _, built = case
    (certificate,) = built.report.parity.values()
    assert certificate["boxes"] > 100
    assert certificate["worst_iou"] >= 0.99
    assert certificate["worst_score_drift"] <= 1e-3
    assert certificate["reference"].startswith("onnxruntime ")
    assert certificate["batch_sizes"] == list(built.report.batch_sizes)
    assert len(certificate["images"]) >= 8
    assert built.detector.manifest["parity"] == built.report.parity
    assert all(planned > 0 for planned in built.detector.memory.values())
    assert list(built.detector.memory) == list(built.report.batch_sizes)


def test_a_face_is_found_where_it_is(nudenet: Any) -> None:
    found = nudenet.detector.detect(pictures.read("astronaut.png"))
    faces = [one for one in found if one.label == "FACE_FEMALE"]
    assert len(faces) == 1
    x1, y1, x2, y2 = faces[0].box_xyxy
    # The face of Eileen Collins in the 512 x 512 picture.
    assert 150 < x1 < 200 and 30 < y1 < 90 and 250 < x2 < 300 and 150 < y2 < 220


def test_a_page_has_lines_of_writing(layout: Any) -> None:
    found = layout.detector.detect(pictures.read("page.png"))
    assert found.labels and set(found.labels) <= {"text", "title"}


CALLERS: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "one": lambda detector, image: detector.detect(image, score=0.004),
    "list of one": lambda detector, image: detector.detect([image], score=0.004)[0],
    "in a batch of four": lambda detector, image: detector.detect([image] * 4, score=0.004)[3],
}


@pytest.mark.parametrize("way", CALLERS)
def test_repeated_calls_answer_the_same_bytes(nudenet: Any, way: str) -> None:
    image = pictures.read("coffee.png")
    first, other = (CALLERS[way](nudenet.detector, image) for _ in range(2))
    np.testing.assert_array_equal(first.boxes_xyxy, other.boxes_xyxy)
    np.testing.assert_array_equal(first.scores, other.scores)
    np.testing.assert_array_equal(first.class_ids, other.class_ids)
