"""DetectorSpec: what it accepts and refuses, and that it survives being written and read."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tvmdet.errors import InputError
from tvmdet.spec import DetectorSpec, InputSpec, KeypointSpec, MaskSpec, PostprocessSpec


def _plain(**changes: Any) -> dict[str, Any]:
    return {
        "family": "yolov8",
        "labels": ["a", "b"],
        "input": {"size_hw": [64, 96]},
        "options": {"strides": [8, 16, 32], "layout": "channels_first"},
        **changes,
    }


def _with(table: str, **values: Any) -> dict[str, Any]:
    plain = _plain()
    return {**plain, table: {**plain.get(table, {}), **values}}


NAMES = r"spec labels is .*; allowed: a list of class names"
SIZE = r"spec input\.size_hw is .*; allowed: height and width in whole pixels"
COUNT = r"allowed: a whole number from 1 to 10000"


@pytest.mark.parametrize(
    ("data", "message", "reason"),
    [
        (_plain(labels=5), NAMES, "no list"),
        (_plain(labels="abc"), NAMES, "text would be split into letters"),
        (_plain(labels=[1, 2]), NAMES, "numbers are no names"),
        (_plain(labels=["a", ""]), NAMES, "nothing to print"),
        (_plain(labels=["a", "  "]), NAMES, "nothing to print"),
        (_plain(labels=None), NAMES, "no list"),
        (_plain(labels=["a", *range(1000)]), r"\.\.\.; allowed", "the message stays short"),
        (_plain(family=8), "allowed: the name of a detector family", "no text"),
        (_plain(family=""), "allowed: the name of a detector family", "empty"),
        (_plain(options=[8, 16]), "spec options is .*; allowed: a table", "no table"),
        (_plain(options={"x": math.nan}), "allowed: a table of plain values", "JSON has no NaN"),
        (_plain(options={"x": object()}), "allowed: a table of plain values", "not JSON"),
        (_plain(options={8: "x"}), "allowed: a table of plain values", "JSON keys are text"),
        (_plain(input=640), "spec input is 640; give a table", "no table"),
        (_plain(postprocess=[0.5]), "spec postprocess is .*; give a table", "no table"),
        (_plain(size=3), "unknown key 'size'; allowed: family", "a typo"),
        (_plain(input={}), "size_hw", "nothing says the size"),
        (_plain(masks=True), "spec masks is True; give a table", "no table"),
        (_with("masks", frame="picture"), "spec masks.frame is 'picture'; allowed: box, image", ""),
        (_with("masks", threshold=1.5), r"spec masks.threshold is 1.5; allowed", "no share"),
        (
            _with("masks", size=28),
            "unknown key 'size'; allowed: frame, threshold, cut_to_box",
            "a typo",
        ),
        (_with("input", size=3), "unknown key 'size'", "a typo"),
        (_with("input", size_hw=640), SIZE, "one number"),
        (_with("input", size_hw=[640]), SIZE, "one side"),
        (_with("input", size_hw=[640, 640, 3]), SIZE, "three sides"),
        (_with("input", size_hw=[640.0, 640.0]), SIZE, "pixels are whole"),
        (_with("input", size_hw=[0, 640]), SIZE, "no pixels"),
        (_with("input", size_hw=[True, True]), SIZE, "true is no number"),
        (_with("input", size_hw="640x640"), SIZE, "text"),
        (_with("input", color="grey"), "input.color is 'grey'; allowed: rgb, bgr", "a typo"),
        (_with("input", color=["rgb"]), "allowed: rgb, bgr", "a list"),
        (_with("input", resize=None), "allowed: letterbox, stretch", "no text"),
        (_with("input", rounding="up"), "allowed: down, half_up, nearest", "no framework does"),
        (
            _with("input", scale=2),
            "allowed: auto, exact, height, ratio, sides, unrounded",
            "a number",
        ),
        (
            _with("input", interpolation="warp", scale="sides"),
            "input.scale is 'sides' beside a warp.*allowed: auto, unrounded",
            "no side is rounded",
        ),
        (_with("input", pad_value=1.5), "allowed: a whole number from 0 to 255", "grey levels"),
        (_with("input", pad_value=256), "allowed: a whole number from 0 to 255", "grey levels"),
        (_with("input", pad_value=[1, 2]), "or three of them", "two levels"),
        (_with("input", pad_value=[1, 2, 256]), "or three of them", "a level out of range"),
        (_with("input", pad_value=True), "allowed: a whole number from 0 to 255", "a switch"),
        (_with("input", mean=["a", "b", "c"]), r"mean is .*three finite numbers", "text"),
        (_with("input", mean=[0, 0]), r"mean is .*three finite numbers", "two channels"),
        (_with("input", mean=114), r"mean is .*three finite numbers", "one number"),
        (_with("input", mean=[0, 0, math.nan]), r"mean is .*three finite numbers", "NaN"),
        (_with("input", std=[1, 1, math.inf]), r"std is .*three finite numbers", "infinite"),
        (_with("input", std=[1, 1, 0]), r"std is .*none of them zero", "divided by"),
        (_with("postprocess", score_threshold="0.5"), "a number, 0 to 1", "text"),
        (_with("postprocess", iou_threshold="high"), "a number, 0 to 1", "text"),
        (_with("postprocess", iou_threshold=1.5), "a number, 0 to 1", "above 1"),
        (_with("postprocess", iou_threshold=math.nan), "a number, 0 to 1", "NaN"),
        (_with("postprocess", score_threshold=True), "a number, 0 to 1", "a switch"),
        (_with("postprocess", max_detections=2.5), COUNT, "half a row"),
        (_with("postprocess", max_detections=10**9), COUNT, "gigabytes of rows"),
        (_with("postprocess", max_detections=0), COUNT, "no rows"),
        (_with("postprocess", max_detections=True), COUNT, "a switch"),
        (_with("postprocess", pre_nms_top_k=10**7), "from 1 to 1000000", "gigabytes"),
        (_with("postprocess", pre_nms_top_k=False), "from 1 to 1000000", "a switch"),
        (_with("postprocess", multi_label="no"), "allowed: true or false", "text is true"),
        (_with("postprocess", class_agnostic="false"), "allowed: true or false", "text is true"),
        (_with("postprocess", class_agnostic=1), "allowed: true or false", "a number"),
        ([1, 2], "the spec is .*; give a table", "no table"),
    ],
)
def test_refuses(data: Any, message: str, reason: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        DetectorSpec.from_dict(data)
    assert len(str(caught.value)) < 300, reason


@pytest.mark.parametrize("missing", ["family", "labels", "input"])
def test_refuses_a_spec_without(missing: str) -> None:
    data = _plain()
    del data[missing]
    with pytest.raises(InputError, match=f"no '{missing}'; needed: family, labels, input"):
        DetectorSpec.from_dict(data)


def test_dataclasses_check_themselves() -> None:
    with pytest.raises(InputError, match="size_hw"):
        InputSpec(size_hw=(640,))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="an InputSpec"):
        DetectorSpec(family="raw", labels=(), input={"size_hw": (1, 1)})  # type: ignore[arg-type]
    assert InputSpec(size_hw=[64, 96]) == InputSpec(size_hw=(64, 96))  # type: ignore[arg-type]


def test_extremes_are_accepted() -> None:
    spec = PostprocessSpec(
        score_threshold=0, iou_threshold=1, max_detections=10_000, pre_nms_top_k=1_000_000
    )
    assert spec.max_detections == 10_000
    assert InputSpec(size_hw=(1, 1), pad_value=0, mean=(0, -1.5, 255)).mean == (0, -1.5, 255)
    assert DetectorSpec(family="raw", labels=(), input=InputSpec(size_hw=(1, 1))).labels == ()


def test_round_trip_through_json() -> None:
    spec = DetectorSpec.from_dict(_with("postprocess", iou_threshold=0.7, multi_label=True))
    again = DetectorSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again.to_dict() == spec.to_dict()
    assert again.labels == ("a", "b")
    assert again.input.size_hw == (64, 96)
    assert again.postprocess.multi_label is True


def test_override_merges_tables_and_replaces_lists() -> None:
    spec = DetectorSpec.from_dict(_plain())
    changed = spec.override(
        {"labels": ["x"], "input": {"color": "bgr"}, "options": {"strides": [4]}}
    )
    assert changed.labels == ("x",)
    assert changed.input == InputSpec(size_hw=(64, 96), color="bgr")
    assert changed.options == {"strides": [4], "layout": "channels_first"}
    assert spec.override({}).to_dict() == spec.to_dict()
    assert spec.labels == ("a", "b")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"input": 640}, "spec input is 640; give a table"),
        ({"options": [1]}, "spec options is"),
        ({"postprocess": {"iou": 0.5}}, "unknown key 'iou'"),
        ({"labels": 5}, "spec labels is 5"),
        (5, "the spec is 5"),
    ],
)
def test_override_refuses(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DetectorSpec.from_dict(_plain()).override(data)


@pytest.mark.parametrize("masks", [{}, {"frame": "image"}, {"threshold": 0}])
def test_masks_survive(masks: dict[str, Any]) -> None:
    spec = DetectorSpec.from_dict(_plain(masks=masks))
    assert spec.masks == MaskSpec(**masks)
    assert DetectorSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_keypoints_survive_and_can_be_left_out() -> None:
    table = {"names": ["eye", "nose"], "scored": True, "skeleton": [[0, 1]]}
    spec = DetectorSpec.from_dict(_plain(keypoints=table))
    points = KeypointSpec(names=("eye", "nose"), scored=True, skeleton=((0, 1),))
    assert spec.keypoints == points
    assert points.columns == 6
    assert DetectorSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.override({"keypoints": False}).keypoints is None
    named = spec.override({"keypoints": {"names": ["a", "b"]}}).keypoints
    assert named == KeypointSpec(names=("a", "b"), scored=True, skeleton=((0, 1),))
    assert DetectorSpec.from_dict(_plain()).keypoints is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "keypoints: .*missing .*names"),
        ({"names": []}, "keypoints.names is .*; allowed: a list of 1 to 1000 different names"),
        ({"names": ["a", "a"]}, "different names"),
        ({"names": ["a", " "]}, "different names"),
        ({"names": "nose"}, "different names"),
        ({"names": ["a"], "scored": 1}, "keypoints.scored is 1; allowed: true or false"),
        ({"names": ["a"], "skeleton": [[0, 1, 0]]}, "skeleton is .*; allowed: a list of pairs"),
        ({"names": ["a"], "skeleton": [[0, -1]]}, "a list of pairs"),
        ({"names": ["a"], "skeleton": [[0, True]]}, "a list of pairs"),
        ({"names": ["a"], "skeleton": [[0, 1]]}, r"joins \[0, 1\]; allowed: indices from 0 to 0"),
        ({"names": ["a"], "count": 1}, "unknown key 'count'"),
        (True, "spec keypoints is True; give a table"),
    ],
)
def test_keypoints_that_are_none(table: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DetectorSpec.from_dict(_plain(keypoints=table))


def test_masks_can_be_left_out() -> None:
    spec = DetectorSpec.from_dict(_plain(masks={}))
    assert spec.override({"masks": False}).masks is None
    assert spec.override({"labels": ["c"]}).masks == MaskSpec()
    assert DetectorSpec.from_dict(_plain(masks=False)).masks is None
    assert DetectorSpec.from_dict(_plain()).masks is None


def test_border_is_written_in_the_order_of_opencv() -> None:
    assert InputSpec(size_hw=(1, 1), pad_value=7).border_bgr == 7
    levels = InputSpec(size_hw=(1, 1), pad_value=(1, 2, 3))
    assert levels.border_bgr == (3, 2, 1)
    assert InputSpec(size_hw=(1, 1), color="bgr", pad_value=(1, 2, 3)).border_bgr == (1, 2, 3)
