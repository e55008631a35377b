"""The metadata block of Ultralytics' exports."""

from __future__ import annotations

import pytest

from tvmdet.heads.ultralytics import UltralyticsExport, read_ultralytics, refuse_export

BLOCK = {
    "description": "Ultralytics YOLO11n model trained on coco.yaml",
    "author": "Ultralytics",
    "stride": "32",
    "task": "detect",
    "batch": "1",
    "imgsz": "[480, 640]",
    "names": "{0: 'person'}",
    "args": "{'batch': 1, 'half': False, 'nms': False}",
    "end2end": "False",
}


@pytest.mark.parametrize(
    ("changed", "field", "value"),
    [
        ({}, "size_hw", (480, 640)),
        ({}, "task", "detect"),
        ({}, "stride", 32),
        ({}, "by_ultralytics", True),
        ({"imgsz": "320"}, "size_hw", (320, 320)),
        ({"imgsz": "[0, 3]"}, "size_hw", None),
        ({"imgsz": "[480, 640, 3]"}, "size_hw", None),
        ({"imgsz": "__import__('os').getcwd()"}, "size_hw", None),
        ({"imgsz": "(" * 5000}, "size_hw", None),
        ({"imgsz": "9" * 20_000}, "size_hw", None),
        ({"stride": "True"}, "stride", None),
        ({"stride": "-8"}, "stride", None),
        ({"end2end": "True"}, "end2end", True),
        ({"end2end": "yes"}, "end2end", False),
        ({"args": "{'nms': True}"}, "nms", True),
        ({"args": "['nms']"}, "nms", False),
        ({"author": "", "description": ""}, "by_ultralytics", False),
    ],
)
def test_reads(changed: dict[str, str], field: str, value: object) -> None:
    assert getattr(read_ultralytics({**BLOCK, **changed}), field) == value


def test_nothing_is_known_of_other_files() -> None:
    assert read_ultralytics({}) == UltralyticsExport()


@pytest.mark.parametrize(
    ("metadata", "masks", "reason"),
    [
        ({}, False, ""),
        (BLOCK, False, ""),
        ({"task": "segment"}, True, ""),
        ({"task": "segment"}, False, "no output of mask prototypes"),
        ({"task": "pose", "kpt_shape": "[17, 3]"}, False, "this family's rows have no keypoints"),
        ({"task": "point"}, False, "it finds points; tvmdet finds boxes"),
        ({"task": "obb"}, False, ""),
        ({"task": "classify"}, False, "whole images"),
        ({"task": "dance"}, False, "only 'detect', 'segment', 'pose' and 'obb' are known"),
        ({"end2end": "True"}, False, "chosen already"),
    ],
)
def test_refuses(metadata: dict[str, str], masks: bool, reason: str) -> None:
    answer = refuse_export(metadata, masks=masks)
    assert (reason in answer) if reason else answer == ""


def test_poses_need_the_shape_of_their_points() -> None:
    said = {"task": "pose", "kpt_shape": "[17, 3]"}
    assert refuse_export(said, masks=False, keypoints=True) == ""
    told = refuse_export({"task": "pose"}, masks=False, keypoints=False)
    assert "give the table keypoints in a spec" in told
    assert refuse_export({"task": "pose"}, masks=False, keypoints=True) == "", "the table is given"
    for wrong in [
        "[17]",
        "[17, 4]",
        "[0, 3]",
        "[17, 3.0]",
        "17",
        "x",
        "[True, 3]",
        "[30000000, 3]",
    ]:
        assert read_ultralytics({"kpt_shape": wrong}).kpt_shape is None, wrong


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{0: ['nose', 'tail']}", ("nose", "tail")),
        ("['nose', 'tail']", ("nose", "tail")),
        ("{0: ['nose', 'tail'], 1: ['a', 'b']}", ("nose", "tail")),
        ("{}", ()),
        ("[1, 2]", ()),
        ("nose", ()),
    ],
)
def test_names_of_keypoints(text: str, names: tuple[str, ...]) -> None:
    assert read_ultralytics({"kpt_names": text}).kpt_names == names
