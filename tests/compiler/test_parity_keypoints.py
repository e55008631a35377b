"""Keypoints of a whole build: found, mapped, certified, and refused where they are wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pose_detector
import pytest
from assertions import assert_close

import tvmdet
from tvmdet.boxes import ImageTransform
from tvmdet.compiler import compile as compiler_compile
from tvmdet.compiler import parity
from tvmdet.compiler.images import draw_images
from tvmdet.compiler.parity import check_detector
from tvmdet.compiler.parity_keypoints import KeypointTally
from tvmdet.compiler.reference import Reference
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.errors import InputError, ModelError, ParityError
from tvmdet.keypoints import Keypoints


@pytest.fixture(scope="module", params=[3, 2], ids=["scored", "plain"])
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """A model with keypoints and the report of its build for batch size 2."""
    folder = tmp_path_factory.mktemp("pose")
    model = pose_detector.import_pose_network(folder, request.param)
    output = folder / "out.tvmdet"
    return model, compiler_compile(model, batch_sizes=(2,), output=output, logs=folder / "logs")


def test_the_certificate_says_what_was_compared(built: tuple[Any, Any]) -> None:
    _, report = built
    (certificate,) = report.parity.values()
    # Those of boxes that are clipped to nothing are left out.
    most = pose_detector.POINTS * certificate["boxes"]
    assert 500 < certificate["keypoints"] <= most
    assert certificate["keypoints"] > 0.9 * most
    assert certificate["worst_keypoint_shift"] < 1e-3
    assert certificate["worst_keypoint_score_drift"] < 1e-4
    assert certificate["tolerance"]["keypoint"] == 0.005


def test_points_are_those_of_onnx_runtime_in_pixels_of_the_image(built: tuple[Any, Any]) -> None:
    model, report = built
    numbers = 3 if model.spec.keypoints.scored else 2
    # Twice the network's size, and a border of 32 pixels on the left and on the right.
    image = np.ascontiguousarray(draw_images((128, 128))[4].pixels)
    with tvmdet.load(report.output) as detector:
        found = detector.detect(image, score=0.3, iou=1.0)
    network = np.full((64, 96, 3), 114, np.uint8)
    import cv2

    network[:, 16:80] = cv2.resize(image, (64, 64), interpolation=cv2.INTER_LINEAR)
    blob = network[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255
    session = onnxruntime.InferenceSession(
        model.onnx_at(1).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (rows,) = session.run(None, {session.get_inputs()[0].name: blob})
    rows = rows[0].T
    # Scores that are all but equal may come in either order: the rows are told by their boxes.
    centers = (found.boxes_xyxy[:, :2] + found.boxes_xyxy[:, 2:]) / 4 + [16, 0]
    inside = np.all((found.boxes_xyxy > 0) & (found.boxes_xyxy < 128), axis=1)
    away = np.abs(centers[:, None] - rows[None, :, :2]).max(axis=2)
    order = np.argmin(away, axis=1)
    assert inside.sum() > 20
    assert away.min(axis=1)[inside].max() < 1e-2
    assert_close(found.scores[inside], rows[order, 4:6].max(axis=1)[inside], rtol=1e-4)
    points = rows[order, 6:].reshape(len(order), pose_detector.POINTS, numbers)
    want = (points[..., :2] - [16, 0]) * 2
    assert_close(found.keypoints.xy[inside], want[inside], rtol=1e-4, atol=0.02)
    assert np.ptp(want[..., 0]) > 50, "points that are all the same prove nothing"
    if numbers == 3:
        got = found.keypoints.scores[inside]
        assert_close(got, points[..., 2][inside], rtol=1e-4, atol=1e-5)
    else:
        assert found.keypoints.scores is None
    one = next(iter(found))
    assert one.keypoints["point_0"][:2] == tuple(found.keypoints.xy[0, 0].tolist())


def test_images_that_cannot_be_read_have_no_points(built: tuple[Any, Any]) -> None:
    _, report = built
    with tvmdet.load(report.output) as detector:
        found = detector.detect(["nothing.jpg"])
    assert found[0].error is not None
    assert found[0].keypoints.xy.shape == (0, pose_detector.POINTS, 2)


class _Spoilt(Reference):
    """A reference whose points are others."""

    shift, drift = 0.0, 0.0

    def candidates(self, *args: Any, **more: Any) -> Any:
        return tuple(self._spoil(found) for found in super().candidates(*args, **more))

    def _spoil(self, found: Any) -> Any:
        numbers = 3 if self.spec.keypoints.scored else 2
        points = found.keypoints.reshape(*found.keypoints.shape[:2], -1, numbers).copy()
        points[..., 1, 0] += self.shift
        points[..., 2:] += self.drift
        return replace(found, keypoints=points.reshape(found.keypoints.shape))


def _check(model: Any, report: Any, reference: Reference, **tolerance: float) -> Any:
    pictures = draw_images(pose_detector.SIZE_HW)[4:7]
    with tvmdet.load(report.output) as detector:
        return check_detector(detector, reference, pictures, Tolerance(**tolerance))


def test_points_elsewhere_are_refused(built: tuple[Any, Any]) -> None:
    model, report = built
    reference = _Spoilt(model, 1)
    _check(model, report, reference)
    reference.shift = 2.0
    with pytest.raises(ParityError, match=r"point_1 is 0.\d+ of its longer side from the ref"):
        _check(model, report, reference)
    _check(model, report, reference, keypoint=0.5)
    reference.shift = float("nan")
    with pytest.raises(ParityError, match=r"point_1 is nan of its longer side"):
        _check(model, report, reference, keypoint=0.5)


def test_other_scores_are_refused(built: tuple[Any, Any]) -> None:
    model, report = built
    reference = _Spoilt(model, 1)
    reference.drift = 0.01
    if not model.spec.keypoints.scored:
        _check(model, report, reference)
        return
    with pytest.raises(ParityError, match=r"scores of its points are up to 0.01 from"):
        _check(model, report, reference)


def _points(*xy: tuple[float, float]) -> Keypoints:
    return Keypoints(xy=np.array(xy, np.float32)[:, None], scores=None, names=("tip",))


def test_another_candidate_of_the_same_box_will_do() -> None:
    tally = KeypointTally()
    sides = {0: 100.0, 1: 10.0}
    found, expected = _points((10, 10), (3, 3)), _points((40, 10), (3.019, 3))
    rivals = {0: _points((70, 0), (10.1, 10))}
    wrong = tally.compare(found, sides, expected, {0: 0, 1: 1}, rivals.__getitem__, Tolerance())
    assert not wrong
    assert tally.keypoints == 2
    assert tally.worst_shift == pytest.approx(0.001, rel=1e-3), "what nobody sees does not count"
    rivals = {0: _points((70, 0))}
    wrong = tally.compare(found, sides, expected, {0: 0}, rivals.__getitem__, Tolerance())
    assert wrong == {0: "its tip is 0.3 of its longer side from the reference's (allowed: 0.005)"}


def test_of_rivals_one_that_fits_will_do() -> None:
    def points(*values: tuple[float, float, float]) -> Keypoints:
        table = np.array(values, np.float32)
        return Keypoints(xy=table[:, None, :2], scores=table[:, 2:], names=("tip",))

    rivals = points((10, 10, 0.2), (10.3, 10, 0.9))  # nearer, and of the same score
    found, expected = points((10, 10, 0.9)), points((50, 10, 0.9))
    tally = KeypointTally()
    assert not tally.compare(found, {0: 100.0}, expected, {0: 0}, lambda _: rivals, Tolerance())
    assert tally.keypoints == 1
    assert not tally.compare(found, {0: None}, expected, {0: 0}, lambda _: expected, Tolerance())
    assert tally.keypoints == 1, "of a box that is clipped to nothing"
    nowhere = points((np.nan, 10, 0.9), (50, 10, 0.9))
    wrong = tally.compare(found, {0: 100.0}, expected, {0: 0}, lambda _: nowhere, Tolerance())
    assert "0.4 of its longer side" in wrong[0]


@pytest.mark.parametrize(("precision", "most"), [("fp32", 0.01), ("fp16", 0.05), ("bf16", 0.2)])
def test_points_may_be_off_by_less_than_anybody_sees(precision: str, most: float) -> None:
    assert 0 < Tolerance.at_precision(precision).keypoint <= most


def test_the_reference_keeps_the_points_of_what_it_keeps(built: tuple[Any, Any]) -> None:
    model, _ = built
    reference = Reference(model, 1)
    image = draw_images(pose_detector.SIZE_HW)[4].pixels
    transform = ImageTransform.for_image(image.shape[:2], model.spec.input)
    every, _ = reference.candidates(image, transform)
    some = every.take([3, 8, 5]).compact()
    assert_close(some.keypoint_values(), every.keypoint_values()[[3, 8, 5]])
    assert some.keypoints.shape[1] == 3
    reference.spec = replace(model.spec, keypoints=None)
    assert reference.candidates(image, transform)[0].keypoints is None


def test_the_certificate_is_printed_and_the_points_are_inspected(
    built: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from tvmdet.cli import main

    _, report = built
    assert main(["inspect", str(report.output)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "point_0, point_1, point_2" in told
    assert "keypoints, " in told and "of a box's side (allowed 0.005)" in told


def test_a_rivals_pipeline_finds_the_same_points(built: tuple[Any, Any], tmp_path: Path) -> None:
    import cv2

    from tvmdet.report.pipeline import Pipeline

    model, report = built
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), draw_images(pose_detector.SIZE_HW)[4].pixels)
    pipeline = Pipeline(model.spec)
    blob, transform, _ = pipeline.prepare(str(picture))
    outputs = Reference(model, 1).run({model.input_names[0]: blob})
    right, _ = pipeline.finish(outputs, transform)
    with tvmdet.load(report.output) as detector:
        found = detector.detect(picture)
    order = np.argsort(-right.scores, kind="stable")
    assert len(found) == len(right.scores) > 3
    assert_close(found.keypoints.xy, right.keypoints.xy[order], rtol=1e-3, atol=0.05)


def test_a_spec_can_name_points_or_leave_them_out(tmp_path: Path) -> None:
    named = pose_detector.import_pose_network(
        tmp_path, keypoints={"names": pose_detector.NAMES, "skeleton": [[0, 1], [0, 2]]}
    )
    assert named.spec.keypoints.names == pose_detector.NAMES
    assert named.spec.keypoints.scored
    model = pose_detector.import_pose_network(tmp_path, keypoints=False)
    assert model.spec.keypoints is None
    report = compiler_compile(model, output=tmp_path / "out.tvmdet", logs=tmp_path / "logs")
    assert "keypoints" not in next(iter(report.parity.values()))
    with tvmdet.load(report.output) as detector:
        assert detector.detect(draw_images((64, 96))[4].pixels).keypoints is None


def test_metadata_that_say_nothing_leave_it_to_the_spec(tmp_path: Path) -> None:
    path = pose_detector.pose_network(tmp_path / "bare.onnx", task="", kpt_shape="")
    with pytest.raises(ModelError, match="no scores"):
        tvmdet.import_onnx(path)
    table = {"names": pose_detector.NAMES, "scored": True}
    model = tvmdet.import_onnx(path, spec={"keypoints": table})
    assert (model.spec.family, model.spec.labels) == ("yolov8", pose_detector.LABELS)
    assert model.spec.options["keypoint_columns"] == 15
    with pytest.raises((InputError, ModelError), match="no scores"):
        tvmdet.import_onnx(path, spec={"keypoints": {"names": pose_detector.NAMES}})


def test_masks_and_points_of_one_detector_come_out_apart(tmp_path: Path) -> None:
    path = pose_detector.pose_network(tmp_path / "both.onnx", masks=4)
    model = tvmdet.import_onnx(path)
    assert model.spec.masks is not None and len(model.spec.keypoints.names) == 5
    report = compiler_compile(model, output=tmp_path / "both.tvmdet", logs=tmp_path / "logs")
    (certificate,) = report.parity.values()
    assert certificate["masks"] > 50 and certificate["keypoints"] > 500
    with tvmdet.load(report.output) as detector:
        found = detector.detect(draw_images(pose_detector.SIZE_HW)[4].pixels, score=0.3)
    assert found.masks.shape[0] == found.keypoints.xy.shape[0] == len(found) > 10
    assert found.keypoints.scores.min() >= 0 and found.keypoints.scores.max() <= 1


def test_a_case_knows_the_cut_and_asks_for_classes_that_tie(
    built: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = built
    asked: list[Any] = []
    plain = Reference.candidates

    def candidates(self: Reference, *args: Any, **more: Any) -> Any:
        asked.append(more.get("alike"))
        return plain(self, *args, **more)

    monkeypatch.setattr(Reference, "candidates", candidates)
    reference, tolerance = Reference(model, 1), Tolerance()
    image = draw_images(pose_detector.SIZE_HW)[4]
    assert parity._prepare(image, reference, tolerance).cut is None
    post = replace(model.spec.postprocess, pre_nms_top_k=3)
    reference.spec = replace(model.spec, postprocess=post)
    case = parity._prepare(image, reference, tolerance)
    assert case.cut == np.sort(case.candidates.scores)[-3] or case.cut > case.score
    assert asked == [tolerance.score_near] * 2
