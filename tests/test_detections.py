from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from assertions import assert_close

from tvmdet.detections import Detection, Detections
from tvmdet.errors import InputError
from tvmdet.keypoints import Keypoint, Keypoints
from tvmdet.masks import InstanceMasks, SmallMask
from tvmdet.rle import decode_rle
from tvmdet.spec import DetectorSpec, InputSpec, KeypointSpec, MaskSpec


def two() -> Detections:
    return Detections(
        boxes_xyxy=np.array([[1, 2, 30.5, 40], [5, 6, 7, 8]], np.float32),
        scores=np.array([0.75, 0.5], np.float32),
        class_ids=np.array([1, 0], np.int32),
        labels=("cat", "dog"),
        image_size_hw=(50, 60),
        source="a.jpg",
    )


def masked_spec() -> DetectorSpec:
    return DetectorSpec(family="raw", labels=(), input=InputSpec(size_hw=(4, 4)), masks=MaskSpec())


def with_points(*, scored: bool = True) -> Detections:
    """The two with an eye and a nose each; the second's nose lies outside of the image."""
    xy = np.array([[[2, 3], [4.5, 5]], [[6, 7], [-8, 70]]], np.float32)
    scores = np.array([[1, 0.75], [0.5, 0]], np.float32) if scored else None
    points = Keypoints(xy=xy, scores=scores, names=("eye", "nose"), skeleton=((0, 1),))
    return dataclasses.replace(two(), keypoints=points)


def with_masks() -> Detections:
    """The two with masks: the whole of the first box, the left half of the second."""
    small = (
        SmallMask(values=np.ones((28, 28), np.float32), frame_xyxy=(1, 2, 30.5, 40)),
        SmallMask(values=np.array([[1, 0]], np.float32), frame_xyxy=(5, 6, 9, 8)),
    )
    plain = two()
    return Detections(
        boxes_xyxy=plain.boxes_xyxy,
        scores=plain.scores,
        class_ids=plain.class_ids,
        labels=plain.labels,
        image_size_hw=plain.image_size_hw,
        source=plain.source,
        instance_masks=InstanceMasks(small=small, threshold=0.5, image_size_hw=(50, 60)),
    )


def test_masks_are_made_once_when_asked_for() -> None:
    found = with_masks()
    assert found.masks.shape == (2, 50, 60) and found.masks.dtype == np.bool_
    assert found.masks is found.masks
    assert np.argwhere(found.masks[0]).tolist()[0] == [2, 1]
    assert found.masks[1].sum() == 4
    for one, mask, rle in zip(found, found.masks, found.mask_rles(), strict=True):
        np.testing.assert_array_equal(one.mask, mask)
        assert one.mask is one.mask
        np.testing.assert_array_equal(decode_rle(rle), mask)


def test_without_masks_they_are_none() -> None:
    assert two().masks is None and two().mask_rles() is None
    assert [found.mask for found in two()] == [None, None]
    nothing = Detections.empty((3, 4), spec=masked_spec())
    assert nothing.masks.shape == (0, 3, 4) and nothing.mask_rles() == []
    assert Detections.empty((3, 4)).masks is None


def test_one_detection_with_a_mask_is_still_a_tuple_of_four() -> None:
    found = next(iter(with_masks()))
    box, score, class_id, label = found
    assert (box, score, class_id, label) == ((1.0, 2.0, 30.5, 40.0), 0.75, 1, "cat")
    assert found == Detection(box, score, class_id, label)
    assert Detection(box, score, class_id, label).mask is None
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).mask, found.mask)


def test_filter_and_json_keep_masks_with_their_boxes() -> None:
    one = with_masks().filter(score=0.5)
    assert one.masks.shape == (1, 50, 60) and one.masks[0, 2, 1]
    data = json.loads(json.dumps(with_masks().to_dict()))
    rle = data["detections"][1]["mask_rle"]
    assert rle["size"] == [50, 60]
    np.testing.assert_array_equal(decode_rle(rle), with_masks().masks[1])
    assert set(two().to_dict()["detections"][0]) == {"label", "class_id", "score", "box_xyxy"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"boxes_xyxy": [[0, 0, 1, 1]]},
            r"boxes_xyxy is \[\[0, 0, 1, 1\]\] \(list\); give a numpy",
        ),
        ({"scores": None}, "scores is None; give a numpy array"),
        ({"labels": "a"}, "labels is 'a'"),
        ({"image_size_hw": 5}, "image_size_hw is 5"),
    ],
)
def test_refuses_what_is_of_another_type(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        dataclasses.replace(two(), **changes)


def test_refuses_masks_of_another_picture_or_number() -> None:
    masks = with_masks().instance_masks
    for wrong, size_hw in ((masks.take([0]), (50, 60)), (masks, (60, 50))):
        with pytest.raises(InputError, match=r"masks? in an image of .*allowed: 2 in one of"):
            Detections(
                boxes_xyxy=two().boxes_xyxy,
                scores=two().scores,
                class_ids=two().class_ids,
                labels=two().labels,
                image_size_hw=size_hw,
                instance_masks=wrong,
            )


def test_empty() -> None:
    nothing = Detections.empty((3, 4), source="x", error="why")
    assert len(nothing) == 0
    assert list(nothing) == []
    assert nothing.boxes_xyxy.shape == (0, 4)
    assert nothing.to_dict() == {
        "source": "x",
        "error": "why",
        "image_size_hw": [3, 4],
        "detections": [],
    }


def test_refuses_arrays_that_do_not_belong_together() -> None:
    with pytest.raises(InputError, match=r"beside 1 label; allowed: \(1, 4\)"):
        Detections(
            boxes_xyxy=np.zeros((2, 4), np.float32),
            scores=np.zeros(2, np.float32),
            class_ids=np.zeros(2, np.int32),
            labels=("one",),
            image_size_hw=(1, 1),
        )


def test_yields_boxes_one_by_one() -> None:
    assert list(two()) == [
        Detection((1.0, 2.0, 30.5, 40.0), 0.75, 1, "cat"),
        Detection((5.0, 6.0, 7.0, 8.0), 0.5, 0, "dog"),
    ]


def test_to_dict_survives_json() -> None:
    data = json.loads(json.dumps(two().to_dict()))
    assert data["image_size_hw"] == [50, 60]
    assert data["detections"][0] == {
        "label": "cat",
        "class_id": 1,
        "score": 0.75,
        "box_xyxy": [1.0, 2.0, 30.5, 40.0],
    }


def test_keypoints_come_with_their_detection() -> None:
    first, second = with_points()
    assert first.keypoints == {"eye": Keypoint(2, 3, 1), "nose": Keypoint(4.5, 5, 0.75)}
    assert second.keypoints["nose"] == (-8, 70, 0)
    assert [one.keypoints for one in two()] == [None, None]
    assert two().keypoints is None
    plain = next(iter(with_points(scored=False)))
    assert plain.keypoints["eye"] == Keypoint(2, 3) == (2, 3, None)
    again = pickle.loads(pickle.dumps(first))
    assert (again, again.keypoints) == (first, first.keypoints)


def test_filter_keeps_the_keypoints_of_what_stays() -> None:
    kept = with_points().filter(score=0.6)
    assert kept.keypoints.xy.tolist() == [[[2, 3], [4.5, 5]]]
    assert kept.keypoints.scores.tolist() == [[1, 0.75]]
    assert (kept.keypoints.names, kept.keypoints.skeleton) == (("eye", "nose"), ((0, 1),))
    plain = with_points(scored=False).filter(score=0.9)
    assert plain.keypoints.xy.shape == (0, 2, 2)
    assert plain.keypoints.scores is None


@pytest.mark.parametrize("scored", [True, False])
def test_nothing_found_has_no_keypoints(scored: bool) -> None:
    points = KeypointSpec(names=("a", "b", "c"), scored=scored)
    spec = dataclasses.replace(masked_spec(), keypoints=points)
    nothing = Detections.empty((3, 4), spec=spec)
    assert nothing.keypoints.xy.shape == (0, 3, 2)
    assert (nothing.keypoints.scores is not None) == scored
    assert Detections.empty((3, 4), spec=masked_spec()).keypoints is None


def test_keypoints_as_json() -> None:
    data = json.loads(json.dumps(with_points().to_dict()))
    assert data["detections"][1]["keypoints"] == [
        {"name": "eye", "xy": [6, 7], "score": 0.5},
        {"name": "nose", "xy": [-8, 70], "score": 0},
    ]
    plain = json.loads(json.dumps(with_points(scored=False).to_dict()))
    assert plain["detections"][0]["keypoints"][0] == {"name": "eye", "xy": [2, 3], "score": None}
    assert "keypoints" not in two().to_dict()["detections"][0]


def test_points_that_are_no_numbers_are_null_in_json() -> None:
    found = with_points()
    found.keypoints.xy[0, 0] = [np.inf, np.nan]
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["detections"][0]["keypoints"][0]["xy"] == [None, None]


def test_what_is_found_is_one_line() -> None:
    assert repr(two()) == "<Detections of 'a.jpg', 50x60: 2 objects: cat 0.75, dog 0.50>"
    none = Detections.empty((0, 0), error="image b.jpg is empty")
    assert repr(none) == "<Detections of an array, 0x0: 0 objects; error: image b.jpg is empty>"
    many = dataclasses.replace(
        two(),
        boxes_xyxy=np.zeros((7, 4), np.float32),
        scores=np.linspace(0.9, 0.3, 7).astype(np.float32),
        class_ids=np.zeros(7, np.int32),
        labels=("cat",) * 7,
    )
    assert repr(many).endswith("7 objects: cat 0.90, cat 0.80, cat 0.70, cat 0.60, cat 0.50, ...>")
    assert repr(with_points().keypoints) == "<Keypoints of 2 objects: eye, nose, scored>"
    assert repr(with_points(scored=False).keypoints) == "<Keypoints of 2 objects: eye, nose>"


def test_keypoints_go_to_supervision() -> None:
    converted = with_points().to_supervision()
    np.testing.assert_array_equal(converted.data["keypoints_xy"], with_points().keypoints.xy)
    np.testing.assert_array_equal(converted.data["keypoint_scores"], with_points().keypoints.scores)
    assert converted[1:].data["keypoints_xy"].tolist() == [[[6, 7], [-8, 70]]]
    assert set(with_points(scored=False).to_supervision().data) == {"class_name", "keypoints_xy"}


@pytest.mark.parametrize(
    ("xy", "scores", "names", "message"),
    [
        ((2, 2), None, ("a", "b"), r"shape \(2, 2\) beside 2 names; allowed: \(n, 2, 2\)"),
        ((2, 3, 2), None, ("a", "b"), r"shape \(2, 3, 2\)"),
        ((2, 2, 2), (2, 3), ("a", "b"), r"scores have the shape \(2, 3\); allowed: \(2, 2\)"),
    ],
)
def test_keypoints_that_do_not_belong_together(
    xy: tuple[int, ...], scores: tuple[int, ...] | None, names: tuple[str, ...], message: str
) -> None:
    values = None if scores is None else np.zeros(scores, np.float32)
    with pytest.raises(InputError, match=message):
        Keypoints(xy=np.zeros(xy, np.float32), scores=values, names=names)


def test_keypoints_of_other_objects_are_refused() -> None:
    with pytest.raises(InputError, match="keypoints of 1 object; allowed: of 2"):
        dataclasses.replace(two(), keypoints=with_points().keypoints.take([0]))


def test_filter_keeps_what_scores_more() -> None:
    assert two().filter(score=0.5).labels == ("cat",)
    assert len(two().filter(score=0.0)) == 2
    assert len(two().filter(score=1.0)) == 0
    with pytest.raises(InputError, match=r"score is 1.5; allowed: 0 to 1"):
        two().filter(score=1.5)


@pytest.mark.parametrize(
    "found",
    [Detections.empty((5, 5)), two(), Detections.empty((5, 5), spec=masked_spec()), with_masks()],
    ids=["none", "two", "none with masks", "two with masks"],
)
def test_to_supervision(found: Detections) -> None:
    converted = found.to_supervision()
    assert_close(converted.xyxy, found.boxes_xyxy)
    assert_close(converted.confidence, found.scores)
    assert converted.class_id.tolist() == found.class_ids.tolist()
    assert tuple(converted.data["class_name"]) == found.labels
    if found.masks is None:
        assert converted.mask is None
    else:
        np.testing.assert_array_equal(converted.mask, found.masks)
        assert not np.shares_memory(converted.mask, found.masks)


def test_to_supervision_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match="pip install supervision"):
        two().to_supervision()


def test_importing_it_loads_no_opencv_and_no_tvm() -> None:
    code = (
        "import sys, tvmdet.detections;"
        "print([m for m in ('cv2', 'tvm', 'tvm_ffi', 'supervision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_endless_corners_are_null_in_json() -> None:
    corners = np.zeros((2, 4, 2), np.float32)
    corners[0, 1], corners[1, 2, 0] = [7.5, np.inf], np.nan
    found = dataclasses.replace(two(), corners=corners).to_dict()["detections"]
    assert found[0]["corners_xy"] == [[0, 0], [7.5, None], [0, 0], [0, 0]]
    assert found[1]["corners_xy"][2] == [None, 0]
    with pytest.raises(
        InputError, match=r"corners have the shape \(1, 4, 2\); allowed: \(2, 4, 2\)"
    ):
        dataclasses.replace(two(), corners=corners[:1])
