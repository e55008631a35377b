"""Oriented boxes of a whole build: found, mapped, certified, and refused where they are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oriented_detector
import pytest
from assertions import assert_close

import tvmdet
from tvmdet.boxes import ImageTransform
from tvmdet.compiler import compile as compiler_compile
from tvmdet.compiler.images import draw_images
from tvmdet.compiler.parity import check_detector
from tvmdet.compiler.parity_ties import rank_swaps
from tvmdet.compiler.reference import Candidates, Reference, suppress, to_image
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.errors import ParityError
from tvmdet.report.pipeline import Pipeline
from tvmdet.spec import PostprocessSpec


@pytest.fixture(scope="module", params=[0, 40], ids=["rows", "chosen"])
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """A model of oriented boxes and the report of its build for batch size 2."""
    folder = tmp_path_factory.mktemp("oriented")
    model = oriented_detector.import_oriented(folder, chosen=request.param)
    output = folder / "out.tvmdet"
    return model, compiler_compile(model, batch_sizes=(2,), output=output, logs=folder / "logs")


def test_the_certificate_says_what_was_compared(built: tuple[Any, Any]) -> None:
    _, report = built
    (certificate,) = report.parity.values()
    assert certificate["boxes"] > 100
    assert 2 * certificate["boxes"] < certificate["corners"] <= 4 * certificate["boxes"]
    assert certificate["worst_corner_shift"] < 1e-3
    assert certificate["tolerance"]["corner"] == 0.005


def test_boxes_are_those_of_the_reference_in_pixels_of_the_image(built: tuple[Any, Any]) -> None:
    model, report = built
    image = np.ascontiguousarray(draw_images((128, 128))[4].pixels)
    with tvmdet.load(report.output) as detector:
        found = detector.detect(image, score=0.3, iou=0.5)
    transform = ImageTransform.for_image((128, 128), model.spec.input)
    reference = Reference(model, threads=1)
    every, _ = reference.candidates(image, transform)
    wanted = every.take(suppress(every, model.spec.postprocess, 0.3, 0.5))
    assert len(found) == len(wanted.scores) > 10
    corners = wanted.corners(transform)
    assert corners is not None
    # Scores that are all but equal may come in either order.
    away = np.abs(found.corners[:, None] - corners[None]).max(axis=(2, 3))
    assert sorted(away.argmin(axis=1)) == list(range(len(found)))
    assert away.min(axis=1).max() < 0.05
    around = np.concatenate([found.corners.min(axis=1), found.corners.max(axis=1)], axis=1)
    assert_close(found.boxes_xyxy, np.clip(around, 0, 128))
    sides = found.corners[:, 1] - found.corners[:, 0]
    assert np.ptp(np.arctan2(sides[:, 1], sides[:, 0])) > 0.5, "boxes turned alike prove nothing"


def test_the_rivals_pipeline_finds_the_same(built: tuple[Any, Any], tmp_path: Path) -> None:
    import cv2

    model, report = built
    image = np.ascontiguousarray(draw_images((128, 128))[4].pixels)
    cv2.imwrite(str(tmp_path / "picture.png"), image)
    pipeline = Pipeline(model.spec)
    blob, transform, _ = pipeline.prepare(str(tmp_path / "picture.png"))
    reference = Reference(model, threads=1)
    found, _ = pipeline.finish(reference.run({reference.input_names[0]: blob}), transform)
    with tvmdet.load(report.output) as detector:
        ours = detector.detect(image)
    assert len(ours) == len(found.scores) > 0
    assert_close(np.sort(ours.scores), np.sort(found.scores), rtol=1e-4)
    away = np.abs(ours.boxes_xyxy[:, None] - found.boxes_xyxy[None]).max(axis=2)
    assert away.min(axis=1).max() < 0.05


class _Turned:
    """A detector whose boxes are turned a little further."""

    def __init__(self, detector: Any, model: Any, by: float) -> None:
        self._detector, self._model, self._by = detector, model, by
        self.batch_sizes, self.target = detector.batch_sizes, detector.target

    def detect(self, images: Any, *, score: float) -> list[Any]:
        cos, sin = np.cos(self._by), np.sin(self._by)
        turn = np.array([[cos, sin], [-sin, cos]], np.float32)
        answers = []
        for found in self._detector.detect(images, score=score):
            centers = found.corners.mean(axis=1, keepdims=True)
            answers.append(replace(found, corners=centers + (found.corners - centers) @ turn))
        return answers


def test_a_wrong_angle_is_refused(built: tuple[Any, Any]) -> None:
    model, report = built
    images = draw_images(oriented_detector.SIZE_HW)[:3]
    with tvmdet.load(report.output) as detector:
        check_detector(_Turned(detector, model, 0.0), Reference(model, 1), images)  # type: ignore[arg-type]
        with pytest.raises(ParityError, match=r"corner \d is .* of its longer side"):
            check_detector(_Turned(detector, model, 0.1), Reference(model, 1), images)  # type: ignore[arg-type]


def test_json_and_supervision_have_the_corners(built: tuple[Any, Any]) -> None:
    _, report = built
    image = np.ascontiguousarray(draw_images((128, 128))[4].pixels)
    with tvmdet.load(report.output) as detector:
        found = detector.detect(image)
        nothing = detector.detect(image, score=1.0)
    assert_close(
        json.loads(json.dumps(found.to_dict()))["detections"][0]["corners_xy"], found.corners[0]
    )
    assert_close(found[0].corners, found.corners[0])
    assert nothing.corners.shape == (0, 4, 2) and not len(nothing)
    best = found.filter(score=float(found.scores[1]))
    assert_close(best.corners, found.corners[:1])
    assert_close(found.to_supervision().data["xyxyxyxy"], found.corners)


def _row(count: int, score_step: float) -> Candidates:
    """Boxes in a row, each over its neighbours only."""
    left = 4 * np.arange(count, dtype=np.float32)
    flat = np.zeros(count, np.float32)
    return Candidates(
        boxes_xyxy=np.stack([left, flat, left + 20, flat + 20], axis=1),
        scores=(0.9 - score_step * np.arange(count)).astype(np.float32),
        class_ids=np.zeros(count, np.int32),
        anchors=np.arange(count),
        angles=flat,
    )


@pytest.mark.parametrize(("step", "settled"), [(0.0, True), (0.05, False)])
def test_a_chain_of_ties_is_a_matter_of_rounding(step: float, settled: bool) -> None:
    # Of equal scores either end of the row may be all that stays; of others only the first.
    every = _row(4, step)
    spec = PostprocessSpec(iou_threshold=0.7)
    assert list(suppress(every, spec, 0.1, 0.7)) == [0]
    fits = {"compiled": np.eye(4, dtype=bool)[[3]], "reference": np.eye(4, dtype=bool)[[0]]}
    alone = [("compiled", 0)]
    swapped = rank_swaps(alone, fits, every, None, spec, Tolerance())
    assert swapped == (set(alone) if settled else set())


def test_what_is_dropped_for_sure_is_no_matter_of_rounding() -> None:
    # The first two score alike and may change places; the third is under both of them.
    every = replace(_row(3, 0.0), scores=np.array([0.9, 0.9, 0.6], np.float32))
    spec = PostprocessSpec(iou_threshold=0.5)
    assert list(suppress(every, spec, 0.1, 0.5)) == [0]
    # Found: the second and the third, as if only what is kept dropped others.
    fits = {"compiled": np.eye(3, dtype=bool)[[1, 2]], "reference": np.eye(3, dtype=bool)[[0]]}
    alone = [("compiled", 0), ("compiled", 1), ("reference", 0)]
    swapped = rank_swaps(alone, fits, every, None, spec, Tolerance())
    assert swapped == {("compiled", 0), ("reference", 0)}


def test_what_is_around_a_turned_box_is_compared() -> None:
    every = replace(_row(1, 0.0), angles=np.array([np.pi / 4], np.float32))
    transform = ImageTransform(
        image_size_hw=(100, 100),
        network_size_hw=(100, 100),
        resized_size_hw=(100, 100),
        offset_xy=(-50, -50),
        scale_xy=(1.0, 1.0),
        box_offset_xy=(-50.0, -50.0),
    )
    reach = 10 * np.sqrt(2)
    placed = to_image(every, transform)
    assert placed.angles is None
    assert_close(placed.boxes_xyxy[0], [60 - reach, 60 - reach, 60 + reach, 60 + reach], rtol=1e-5)
