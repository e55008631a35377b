"""Object keypoint similarity of a small pose detector, against sums by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pose_detector
import pytest

import tvmdet
from tvmdet.coco_names import COCO_KEYPOINTS
from tvmdet.compiler.images import draw_images
from tvmdet.detections import Detections
from tvmdet.errors import InputError
from tvmdet.report import EvalOptions, EvalReport, evaluate
from tvmdet.report.coco import Annotations, CocoImage, CocoObject, read_annotations
from tvmdet.report.eval_keypoints import COCO_SIGMAS, map_points
from tvmdet.spec import KeypointSpec

BACKENDS = ("faster-coco-eval", "pycocotools")
SIZE_HW = (128, 192)
AREA = 4000.0  # of medium size, whatever its box
SIGMAS = (0.05, 0.1, 0.1, 0.2, 0.3)
OVERLAPS = np.arange(0.5, 1.0, 0.05)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pose_detector.pose_network(tmp_path_factory.mktemp("pose") / "pose.onnx")


@pytest.fixture(scope="module")
def built(network: Path) -> Path:
    output = network.with_suffix(".tvmdet")
    tvmdet.compile(tvmdet.import_onnx(network), output=output, logs=network.parent / "logs")
    return output


class Best:
    """One picture, and the best object that the detector finds in it."""

    def __init__(self, folder: Path, built: Path) -> None:
        self.folder, self.built = folder, built
        picture = draw_images(SIZE_HW)[4].pixels
        assert cv2.imwrite(str(folder / "one.png"), picture)
        with tvmdet.load(built) as detector:
            self.found: Detections = detector.detect(folder / "one.png", score=0.05)
        assert self.found.keypoints is not None
        self.class_id = int(self.found.class_ids[0])
        self.box = self.found.boxes_xyxy[0].tolist()
        self.xy = self.found.keypoints.xy[0]

    def annotated(self, xy: Any, seen: Any = 2, **more: Any) -> dict[str, Any]:
        """An annotation in the place of the best box."""
        x1, y1, x2, y2 = self.box
        points = np.insert(np.asarray(xy, np.float64), 2, seen, axis=1)
        return {
            "image_id": 1,
            "category_id": self.class_id + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": AREA,
            "keypoints": points.ravel().tolist(),
            **more,
        }

    def evaluate(
        self, objects: list[Any], categories: list[Any] | None = None, **options: Any
    ) -> EvalReport:
        """Evaluates the detector on objects, of whose rivals only the best is counted."""
        names = [{"id": i + 1, "name": name} for i, name in enumerate(pose_detector.LABELS)]
        data = {
            "images": [{"id": 1, "file_name": "one.png"}],
            "annotations": objects,
            "categories": categories or names,
        }
        path = self.folder / "points.json"
        path.write_text(json.dumps(data))
        options.setdefault("score", float(self.found.scores[:2].mean()))
        options.setdefault("sigmas", SIGMAS)
        given = EvalOptions(annotations=path, images=self.folder, threads=1, **options)
        return evaluate(self.built, given)


@pytest.fixture
def best(tmp_path: Path, built: Path) -> Best:
    return Best(tmp_path, built)


def similarity(shifts: Any, sigmas: Any = SIGMAS) -> float:
    """By hand: https://cocodataset.org/#keypoints-eval."""
    squares = np.square(shifts).sum(axis=1)
    return float(np.exp(-squares / (2 * AREA * np.square(2 * np.asarray(sigmas)))).mean())


def ap(report: EvalReport, name: str = "AP") -> float | None:
    assert report.keypoints is not None
    return report.keypoints.values[name]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pixels", [0.0, 3.0, 6.0, 12.0, 40.0])
def test_points_count_up_to_their_similarity(best: Best, backend: str, pixels: float) -> None:
    shifts = np.full((5, 2), (pixels, -pixels / 2)) * np.arange(1, 6)[:, None] / 3
    expected = similarity(shifts)
    report = best.evaluate([best.annotated(best.xy + shifts)], backend=backend)
    assert ap(report) == pytest.approx((expected >= OVERLAPS).mean())
    assert ap(report, "AP medium") == pytest.approx(ap(report))
    assert ap(report, "AP large") is None
    assert ap(report, "AR20") == pytest.approx(ap(report))
    assert report.boxes.values["AP"] == pytest.approx(1.0), "boxes are judged by themselves"
    assert report.sigmas == SIGMAS


@pytest.mark.parametrize("backend", BACKENDS)
def test_points_that_are_not_annotated_are_not_judged(best: Best, backend: str) -> None:
    shifts = np.zeros((5, 2))
    shifts[3] = 500
    assert ap(best.evaluate([best.annotated(best.xy + shifts)], backend=backend)) < 1
    seen = [2, 1, 2, 0, 2]
    report = best.evaluate([best.annotated(best.xy + shifts, seen)], backend=backend)
    assert ap(report) == pytest.approx(1.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("without", [None, [], [0.0] * 15])
def test_objects_without_points_count_neither_way(best: Best, backend: str, without: Any) -> None:
    far = {"bbox": [0, 0, 4, 4], "keypoints": without}
    objects = [best.annotated(best.xy), best.annotated(best.xy, **far)]
    report = best.evaluate(objects, backend=backend)
    assert ap(report) == pytest.approx(1.0)
    assert report.boxes.values["AP"] < 0.6, "as a box it is missed"
    assert report.keypoints is not None
    one = report.keypoints.classes[best.class_id]
    assert (one.objects, report.boxes.classes[best.class_id].objects) == (1, 2)


def test_twenty_detections_of_a_picture_count(best: Best) -> None:
    # The first answers nothing; the rest is there because the threshold lets it through.
    assert len(best.found) > 25, "otherwise the test tells nothing"
    classes = best.found.class_ids.tolist()
    assert best.found.keypoints is not None
    rows = [row for row, one in enumerate(classes) if one == best.class_id]
    last = {"score": 0.05, "sigmas": (0.001,) * 5}
    for place, expected in ((19, 1.0), (20, 0.0)):
        xy = best.found.keypoints.xy[rows[place]]
        assert ap(best.evaluate([best.annotated(xy)], **last), "AR20") == expected


def test_points_are_told_by_their_names_where_both_have_them(best: Best) -> None:
    order = [4, 2, 0, 3, 1]
    points = [f"point_{index}" for index in order]
    categories = [
        {"id": i + 1, "name": name, "keypoints": points}
        for i, name in enumerate(pose_detector.LABELS)
    ]
    shifts = np.array([(20.0, 0), (0, 0), (0, 0), (0, 0), (0, 0)])
    expected = similarity(shifts)
    assert similarity(np.roll(shifts, 4, axis=0)) > expected + 0.1, "the sigma of another point"
    right = best.annotated((best.xy + shifts)[order])
    report = best.evaluate([right], categories)
    assert ap(report) == pytest.approx((expected >= OVERLAPS).mean())
    assert not any("order" in line for line in report.warnings)
    categories[best.class_id]["keypoints"] = ["a", "b", "c", "d", "e"]
    report = best.evaluate([best.annotated(best.xy)], categories)
    assert ap(report) == pytest.approx(1.0)
    assert any("taken in their order" in line and "a, b, c" in line for line in report.warnings)


def test_the_reference_is_judged_likewise(best: Best, network: Path) -> None:
    shifts = np.full((5, 2), 6.0)
    report = best.evaluate([best.annotated(best.xy + shifts)], onnx=network)
    assert report.reference is not None and report.reference.keypoints is not None
    assert report.reference.keypoints.values["AP"] == ap(report) != 1.0
    assert report.differs == ()
    plain = report.to_dict()
    assert plain["keypoints"]["ap"] == ap(report) == plain["reference"]["keypoints"]["ap"]
    assert plain["reference"]["difference"]["keypoints"]["ar20"] == 0
    assert plain["keypoint_sigmas"] == list(SIGMAS)


def test_without_annotated_points_boxes_are_left(best: Best) -> None:
    report = best.evaluate([best.annotated(best.xy, seen=0)], sigmas=None)
    assert report.keypoints is None and report.to_dict()["keypoints"] is None
    assert any("no figures of keypoints: none is annotated" in line for line in report.warnings)


@pytest.mark.parametrize(
    ("points", "sigmas", "says"),
    [
        (6, None, r"6 keypoints of '[ab]', and the detector finds 5: point_0, .*annotate"),
        (5, (0.1,) * 4, "got the sigmas 0.1, 0.1, 0.1, 0.1; allowed: 5 numbers above 0"),
        (5, (0.1, 0.1, 0.1, 0.1, 0.0), "allowed: 5 numbers above 0, one for each of point_0"),
        (5, (0.1, 0.1, 0.1, 0.1, float("nan")), "allowed: 5 numbers above 0"),
    ],
)
def test_points_that_do_not_fit_are_refused(
    best: Best, points: int, sigmas: Any, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        best.evaluate([best.annotated(np.ones((points, 2)))], sigmas=sigmas)


def test_sigmas_without_points_are_refused(toy_path: Path, tmp_path: Path) -> None:
    from coco_files import BLUE, thing, write

    path = write(tmp_path / "pictures", [thing(1, 1, BLUE)])
    options = EvalOptions(annotations=path, images=path.parent, sigmas=(0.1,))
    with pytest.raises(InputError, match=r"finds no keypoints.*leave --sigmas out"):
        evaluate(toy_path, options)


@pytest.mark.parametrize(
    "points", [5, "x", [1, 2], [1, 2, 3], [1, 2, 0.5], [1, float("nan"), 2], [[1, 2, 2]]]
)
def test_malformed_points_are_refused(tmp_path: Path, toy_path: Path, points: Any) -> None:
    from coco_files import BLUE, thing, write

    path = write(tmp_path, [thing(1, 1, BLUE, keypoints=points)])
    read = read_annotations(path, tmp_path)
    with pytest.raises(InputError, match=r"an object of picture 1 has the keypoints .*visibility"):
        map_points(KeypointSpec(names=("a",)), read, [1])
    assert map_points(KeypointSpec(names=("a",)), read, [2]) is None, "of another category"
    # A detector without keypoints does not need them.
    options = EvalOptions(annotations=path, images=tmp_path, threads=1)
    assert evaluate(toy_path, options).boxes.values["AP"] is not None


def of_points(count: int, names: tuple[str, ...] | None = None) -> Annotations:
    return Annotations(
        path=Path("points.json"),
        images=(CocoImage(id=1, path=Path("1.png"), size_hw=None),),
        objects=(
            CocoObject(
                image_id=1,
                category_id=1,
                box_xywh=(0, 0, 9, 9),
                area=81,
                is_crowd=False,
                segmentation=None,
                keypoints=[1.0, 1.0, 2.0] * count,
            ),
        ),
        categories={1: "person"},
        points={} if names is None else {1: list(names)},
    )


@pytest.mark.parametrize("spelling", [str, str.upper, lambda name: name.replace("_", " ")])
def test_sigmas_are_coco_s_for_coco_s_points(spelling: Callable[[str], str]) -> None:
    names = tuple(map(spelling, COCO_KEYPOINTS))
    found = map_points(KeypointSpec(names=names, scored=True), of_points(17, COCO_KEYPOINTS), [1])
    assert found is not None
    assert (found.sigmas, found.warnings) == (COCO_SIGMAS, ())
    from pycocotools.cocoeval import Params

    assert Params("keypoints").kpt_oks_sigmas == pytest.approx(COCO_SIGMAS)


def test_sigmas_of_other_points_are_one_over_their_number() -> None:
    names = tuple(reversed(COCO_KEYPOINTS))
    found = map_points(KeypointSpec(names=names), of_points(17), [1])
    assert found is not None and found.sigmas == (1 / 17,) * 17
    assert found.warnings[0].startswith("the points are not COCO's: each may be off by 0.0588")
    assert map_points(KeypointSpec(names=names), of_points(17), [2]) is None, "another category"
