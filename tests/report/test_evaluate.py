"""Average precision of the toy detector, whose boxes and scores are known, against sums by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oriented_detector
import pytest
from coco_files import BLUE, GREEN, RED, thing, write

import tvmdet
from tvmdet.errors import InputError
from tvmdet.report import EvalOptions, EvalReport, evaluate
from tvmdet.report.coco_metrics import find_backend

RECALLS = 101  # points at which COCO reads precision: 0, 0.01, ... 1


@pytest.fixture(params=["faster-coco-eval", "pycocotools"])
def measured(
    request: pytest.FixtureRequest, toy_path: Path, tmp_path: Path
) -> Callable[..., EvalReport]:
    """Evaluates the toy detector on annotations, by either package."""

    def run(annotations: list[Any], *, names: Any = None, **options: Any) -> EvalReport:
        named = {} if names is None else {"names": names}
        path = write(tmp_path / "pictures", annotations, **named)
        return evaluate(
            toy_path,
            EvalOptions(
                annotations=path,
                images=path.parent,
                threads=1,
                backend=request.param,
                **options,
            ),
        )

    return run


def aps(report: EvalReport) -> dict[str, float | None]:
    return {one.name: one.ap for one in report.boxes.classes}


def test_everything_found_is_one(measured: Callable[..., EvalReport]) -> None:
    boxes = (BLUE, GREEN, RED)
    report = measured([thing(i, c + 1, boxes[c]) for i in (1, 2) for c in range(3)])
    assert aps(report) == pytest.approx({"blue": 1.0, "green": 1.0, "red": 1.0})
    values = report.boxes.values
    # All three boxes are smaller than 32 x 32 pixels.
    assert (values["AP"], values["AP small"], values["AR100"]) == pytest.approx((1.0, 1.0, 1.0))
    assert values["AP medium"] is None
    assert (report.images, report.objects) == (2, 6)


def test_precision_falls_with_wrong_boxes_of_higher_score(
    measured: Callable[..., EvalReport],
) -> None:
    # Green scores 150/255 in the first picture and 170/255 in the second; only the first is right.
    # Of two objects one is found, after one wrong box: precision 1/2 up to recall 1/2.
    elsewhere = (0, 20, 8, 8)
    report = measured([thing(1, 2, GREEN), thing(2, 2, elsewhere)])
    assert aps(report)["green"] == pytest.approx(0.5 * 51 / RECALLS)
    assert aps(report)["blue"] is None, "nothing blue is annotated"
    # The other way round the right box comes first: precision 1 up to recall 1/2.
    report = measured([thing(2, 2, GREEN), thing(1, 2, elsewhere)])
    assert aps(report)["green"] == pytest.approx(51 / RECALLS)
    (_, green, _) = report.boxes.classes
    assert (green.objects, green.detections) == (2, 2)


def test_loose_boxes_count_up_to_their_overlap(measured: Callable[..., EvalReport]) -> None:
    x, y, width, height = RED
    shift = width * (1 - 0.72) / (1 + 0.72)  # IoU 0.72: right at 0.50 to 0.70, wrong from 0.75
    report = measured([thing(i, 3, (x - shift, y, width, height)) for i in (1, 2)])
    values = report.boxes.values
    assert (values["AP50"], values["AP75"]) == pytest.approx((1.0, 0.0))
    assert values["AP"] == pytest.approx(0.5)


def test_crowds_count_neither_way(measured: Callable[..., EvalReport]) -> None:
    # Without the crowd, the better green box is wrong, as above.
    crowd = thing(2, 2, (0, 0, 48, 32), iscrowd=1, area=1536)
    report = measured([thing(1, 2, GREEN), crowd])
    assert aps(report)["green"] == pytest.approx(1.0)
    assert report.objects == 1


def test_pictures_without_objects_count_what_is_found_there(
    measured: Callable[..., EvalReport],
) -> None:
    # Blue scores 200/255 in the first picture, 190/255 in the second.
    assert aps(measured([thing(2, 1, BLUE)]))["blue"] == pytest.approx(0.5)
    assert aps(measured([thing(1, 1, BLUE)]))["blue"] == pytest.approx(1.0)


def test_no_objects_at_all_is_said(measured: Callable[..., EvalReport]) -> None:
    report = measured([])
    assert set(report.boxes.values.values()) == {None}
    assert any("no objects in the pictures" in line for line in report.warnings)
    assert report.to_dict()["boxes"]["ap"] is None


def test_a_score_threshold_leaves_out_what_is_below(measured: Callable[..., EvalReport]) -> None:
    report = measured([thing(1, 3, RED), thing(2, 3, RED)], score=0.41)
    # Red scores 100/255 = 0.392 and 110/255 = 0.431.
    assert aps(report)["red"] == pytest.approx(51 / RECALLS)


def test_limit_takes_the_first_pictures(measured: Callable[..., EvalReport]) -> None:
    report = measured([thing(1, 1, BLUE), thing(2, 1, (0, 20, 8, 8))], limit=1)
    assert (report.images, report.objects, aps(report)["blue"]) == (1, 1, pytest.approx(1.0))


def test_names_may_differ_in_case_and_spaces(measured: Callable[..., EvalReport]) -> None:
    report = measured([thing(1, 1, BLUE)], names=["Blue ", "GREEN", "r-e_d"])
    assert report.boxes.values["AP"] == pytest.approx(1.0)
    assert report.warnings == (
        "the file reports at most 4 objects of a picture, and COCO's figures count 100 of each "
        "class; compile it with a greater max_detections in --spec where pictures have more",
    )


def test_categories_without_a_class_count_as_missed_and_are_named(
    measured: Callable[..., EvalReport],
) -> None:
    report = measured(
        [thing(1, 1, BLUE), thing(1, 2, (0, 0, 5, 5))], names=["blue", "violet", "grey"]
    )
    assert report.boxes.values["AP"] == pytest.approx(0.5)
    said = "\n".join(report.warnings)
    assert "1 annotated category without a class of the detector" in said and "violet" in said
    assert "grey" not in said, "nothing grey is annotated"
    assert "2 classes of the detector left out, no category" in said and "green, red" in said


@pytest.mark.parametrize(
    ("rule", "category"),
    [("id", {0: "zero", 1: "one", 2: "two"}), ("order", {7: "a", 11: "b", 90: "c"})],
)
def test_classes_may_be_told_by_id_or_order(
    toy_path: Path, tmp_path: Path, rule: str, category: dict[int, str]
) -> None:
    ids = list(category)
    path = write(
        tmp_path / "pictures",
        [thing(1, ids[0], BLUE), thing(2, ids[2], RED)],
        categories=[{"id": key, "name": name} for key, name in reversed(category.items())],
    )
    options = EvalOptions(annotations=path, images=path.parent, classes_by=rule, threads=1)
    report = evaluate(toy_path, options)
    found = {one.category_id: one.ap for one in report.boxes.classes}
    # Blue is there once and found twice, the better one right; of red the better one is right.
    assert found == {ids[0]: pytest.approx(1.0), ids[1]: None, ids[2]: pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("names", "rule", "says"),
    [
        (["dog", "cat", "cow"], "name", r"no class .*: blue, green, red\. Categories: dog"),
        (
            ["blue", "blue", "red"],
            "name",
            "several categories .* are called 'blue'",
        ),
        (["blue", "red"], "order", "3 classes and the annotations have 2 categories"),
        (["blue"], "colour", "cannot be told by 'colour'; allowed: name, id, order"),
    ],
)
def test_classes_that_do_not_match_are_refused(
    measured: Callable[..., EvalReport], names: list[str], rule: str, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        measured([], names=names, classes_by=rule)


def test_raw_networks_have_no_boxes(raw_path: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "pictures", [])
    with pytest.raises(InputError, match="compiled with --raw and finds no boxes"):
        evaluate(raw_path, EvalOptions(annotations=path, images=path.parent))


def test_oriented_boxes_are_not_judged_by_cocos_figures(tmp_path: Path) -> None:
    model = oriented_detector.import_oriented(tmp_path)
    output = tmp_path / "oriented.tvmdet"
    tvmdet.compile(model, target="host", batch_sizes=(1,), output=output, logs=tmp_path / "logs")
    path = write(tmp_path / "pictures", [])
    with pytest.raises(InputError, match="finds oriented boxes"):
        evaluate(output, EvalOptions(annotations=path, images=path.parent))


def test_damaged_pictures_stop_it(toy_path: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "pictures", [thing(1, 1, BLUE)])
    (path.parent / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1\.png cannot be decoded.*take it out of the annot"):
        evaluate(toy_path, EvalOptions(annotations=path, images=path.parent))


@pytest.mark.parametrize(
    ("size", "says"), [((32, 47), "give --images the pictures"), ((48, 32), "EXIF orientation")]
)
def test_pictures_of_another_size_are_refused(
    toy_path: Path, tmp_path: Path, size: tuple[int, int], says: str
) -> None:
    images = [{"id": 1, "file_name": "0.png", "height": size[0], "width": size[1]}]
    path = write(tmp_path / "pictures", [], images=images)
    with pytest.raises(InputError, match=rf"is 32x48 .* say {size[0]}x{size[1]}.*{says}"):
        evaluate(toy_path, EvalOptions(annotations=path, images=path.parent))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("faster_coco_eval", "pycocotools", "pycocotools.coco"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="pip install faster-coco-eval"):
        find_backend()
    with pytest.raises(InputError, match="pip install pycocotools"):
        find_backend("pycocotools")


def test_either_package_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_backend().name.startswith("faster-coco-eval ")
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert find_backend().name.startswith("pycocotools ")


def full(box: tuple[float, ...]) -> list[list[float]]:
    """A polygon around a whole box."""
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def test_masks_are_compared_with_masks(masks_path: Path, tmp_path: Path) -> None:
    import tvmdet

    wanted = [thing(i, 2, GREEN, segmentation=full(GREEN)) for i in (1, 2)]
    path = write(tmp_path / "pictures", wanted)
    options = EvalOptions(annotations=path, images=path.parent, threads=1)
    by_hand = []
    with tvmdet.load(masks_path, threads=1) as detector:
        for image in ("0.png", "1.png"):
            found = detector.detect(path.parent / image)
            assert found.masks is not None
            mask = found.masks[found.class_ids.tolist().index(1)]
            right = mask[8:24, 12:36].sum()
            by_hand.append(right / (mask.sum() + 16 * 24 - right))
    report = evaluate(masks_path, options)
    assert report.boxes.values["AP"] == pytest.approx(1.0)
    assert report.masks is not None
    overlaps = [0.5 + 0.05 * step for step in range(10)]
    assert by_hand[0] < 0.6 < by_hand[1], "otherwise the test tells nothing"
    # The score in the second picture is higher: right in front of wrong, wrong in front of right.
    aps_by_overlap = {
        (True, True): 1.0,
        (False, True): 51 / RECALLS,
        (True, False): 0.5 * 51 / RECALLS,
        (False, False): 0.0,
    }
    expected = [aps_by_overlap[by_hand[0] >= t, by_hand[1] >= t] for t in overlaps]
    assert report.masks.values["AP"] == pytest.approx(sum(expected) / len(expected))


@pytest.mark.parametrize("backend", ["faster-coco-eval", "pycocotools"])
def test_masks_may_be_polygons_or_run_lengths(
    masks_path: Path, tmp_path: Path, backend: str
) -> None:
    # Columns 12 to 35, rows 8 to 23: the green box.
    counts = [12 * 32 + 8, *[16, 16] * 24]
    counts[-1] = 8 + 12 * 32
    forms = [full(GREEN), {"size": [32, 48], "counts": counts}]
    figures = []
    for form in forms:
        path = write(tmp_path / "pictures", [thing(1, 2, GREEN, segmentation=form)])
        options = EvalOptions(annotations=path, images=path.parent, threads=1, backend=backend)
        report = evaluate(masks_path, options)
        assert report.masks is not None
        figures.append(report.masks.values)
    assert figures[0] == pytest.approx(figures[1])
    assert figures[0]["AR1"] is not None and figures[0]["AR1"] > 0


@pytest.mark.parametrize("backend", ["faster-coco-eval", "pycocotools"])
@pytest.mark.parametrize(
    "form", [[[5, 6]], {"size": [32, 48], "counts": [32 * 48]}, {"size": [32, 48], "counts": "zz"}]
)
def test_masks_of_nothing_are_never_found(
    masks_path: Path, tmp_path: Path, backend: str, form: Any
) -> None:
    path = write(tmp_path / "pictures", [thing(1, 2, GREEN, segmentation=form)])
    options = EvalOptions(annotations=path, images=path.parent, threads=1, backend=backend)
    report = evaluate(masks_path, options)
    assert report.masks is not None
    assert (report.masks.values["AP"], report.masks.values["AR100"]) == (0.0, 0.0)


def test_masks_of_another_size_are_refused(masks_path: Path, tmp_path: Path) -> None:
    form = {"size": [48, 32], "counts": [32 * 48]}
    path = write(tmp_path / "pictures", [thing(1, 2, GREEN, segmentation=form)])
    with pytest.raises(InputError, match=r"size \[48, 32\] in picture 1, which is \[32, 48\]"):
        evaluate(masks_path, EvalOptions(annotations=path, images=path.parent, threads=1))


def test_annotations_without_masks_leave_boxes(masks_path: Path, tmp_path: Path) -> None:
    wanted = [thing(1, 1, BLUE, segmentation=full(BLUE)), thing(2, 1, BLUE)]
    path = write(tmp_path / "pictures", wanted)
    report = evaluate(masks_path, EvalOptions(annotations=path, images=path.parent, threads=1))
    assert report.masks is None
    assert report.boxes.values["AP"] == pytest.approx(1.0)
    assert any("1 annotation without a segmentation" in line for line in report.warnings)
