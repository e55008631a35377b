"""YOLOv5's decoded output: claims, refusals, decoding, masks, and whole networks."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yolo_models
from yolo_cases import (
    PIXELS,
    RAW,
    SCORES,
    SIZE,
    assert_decodes,
    columns,
    compile_and_detect,
    decode,
    import_model,
    random_outputs,
    slow,
    summary,
    summary_of,
)

from tvmdet.errors import InputError, ModelError, ShapeError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import ColumnRun, GraphSummary, Question, Recognition, get_head

HEAD = get_head("yolov5")
# 64x96: three anchors in 96 + 24 + 6 cells
PLAIN = {"o": (1, 378, 8)}
RUNS = {("o", 2): columns((4, PIXELS), (4, SCORES))}


@pytest.mark.parametrize(
    "outputs",
    [
        PLAIN,
        {"o": (1, 8, 378)},
        {"o": (1, 90, 6)},  # strides 16 and 32: YOLOv3-tiny
        {"o": (1, 378, 12), "p": (1, 4, 16, 24)},
    ],
)
def test_decodes(outputs: Mapping[str, tuple[int, ...]]) -> None:
    found = HEAD.recognise(summary(outputs), SIZE)
    assert found is not None
    want = assert_decodes(found.spec, random_outputs(summary(outputs), batch=2))
    assert (want.masks is not None) == ("p" in outputs)
    assert (found.spec.masks is not None) == ("p" in outputs)


def test_decodes_a_known_box() -> None:
    found = HEAD.recognise(summary(PLAIN), SIZE)
    assert found is not None
    output = np.zeros((1, 378, 8), np.float32)
    output[0, 7] = [20, 30, 8, 4, 0.5, 0.25, 0.0, 1.0]
    assert found.spec.input.scale == "unrounded"  # scale_boxes in utils/general.py
    boxes, scores = decode(found.spec, {"o": output})
    assert boxes[0, 7].tolist() == [16, 28, 24, 32]
    assert scores[0, 7].tolist() == [0.125, 0, 0.5]


FACE = {"o": (1, 378, 16)}
FACE_RUNS = {("o", 2): columns((4, PIXELS), (1, SCORES), (10, RAW), (1, SCORES))}


@pytest.mark.parametrize("given", [{}, {"family": "yolov5"}, {"labels": ["face"]}])
@pytest.mark.parametrize("first", [False, True])
def test_landmarks_stand_before_the_class_of_a_face(given: Mapping[str, Any], first: bool) -> None:
    got = summary(
        {"o": (1, 16, 378)} if first else FACE, {("o", 1 if first else 2): FACE_RUNS["o", 2]}
    )
    spec = recognise(got, SIZE, given).spec
    assert len(spec.labels) == 1
    assert spec.keypoints is not None
    assert spec.keypoints.names[:3] == ("right_eye", "left_eye", "nose")
    rows = np.random.default_rng(0).random((2, 378, 16)).astype(np.float32)
    outputs = {"o": np.ascontiguousarray(rows.transpose(0, 2, 1)) if first else rows}
    found = assert_decodes(spec, outputs)
    np.testing.assert_array_equal(found.keypoints, rows[:, :, 5:15])
    np.testing.assert_allclose(found.scores[:, :, 0], rows[:, :, 4] * rows[:, :, 15])
    assert recognise(got, SIZE, spec.to_dict()).spec == spec
    bare = recognise(got, SIZE, {**given, "keypoints": False}).spec
    assert bare.keypoints is None
    assert_decodes(bare, outputs)


def test_eleven_classes_are_no_face() -> None:
    runs = {("o", 2): columns((4, PIXELS), (12, SCORES))}
    spec = recognise(summary(FACE, runs), SIZE, {}).spec
    assert (len(spec.labels), spec.keypoints) == (11, None)


def test_rows_of_16_without_evidence_ask_for_labels() -> None:
    answer = HEAD.examine(summary(FACE), SIZE, {"family": "yolov5"})
    assert isinstance(answer, Question)
    assert 'labels = ["face"]' in answer.spec_text
    for labels, points in ((["face"], True), ([f"c{at}" for at in range(11)], False)):
        spec = recognise(summary(FACE), SIZE, {"labels": labels}).spec
        assert (spec.keypoints is not None) == points


def test_classes_of_which_some_are_no_scores_are_refused_when_told_too() -> None:
    runs = {("o", 2): columns((4, PIXELS), (1, SCORES), (15, RAW), (1, SCORES))}
    got = summary({"o": (1, 378, 21)}, runs)
    with pytest.raises(ModelError, match=r"values 5 to 19 .* so they are no scores"):
        recognise(got, SIZE, {"family": "yolov5"})


def test_raw_maps_beside_are_left_away() -> None:
    sides = {f"m{s}": (1, 3, SIZE[0] // s, SIZE[1] // s, 8) for s in (8, 16, 32)}
    found = HEAD.recognise(summary({**sides, **PLAIN}), SIZE)
    assert found is not None
    assert found.spec.options["output"] == "o"
    assert "m8, m16, m32 not used: o holds the decoded boxes" in found.reasons


def test_areas_beside_boxes_are_another_network_and_asked_for() -> None:
    """YOLOP (hustvl) is fed with ImageNet's mean, unlike YOLOv5."""
    got = summary({**PLAIN, "drive_area_seg": (1, 2, *SIZE), "lane_line_seg": (1, 2, *SIZE)})
    for given in ({}, {"family": "yolov5"}, {"options": {"output": "o"}}):
        answer = HEAD.examine(got, SIZE, given)
        assert isinstance(answer, Question)
        assert "maps of the whole picture" in answer and "drive_area_seg, lane_line_seg" in answer
    found = HEAD.examine(got, SIZE, tomllib.loads(answer.spec_text))
    assert isinstance(found, Recognition)
    assert "drive_area_seg, lane_line_seg not used: o holds the decoded boxes" in found.reasons


@pytest.mark.parametrize(("last", "mixes"), [(SCORES, False), (RAW, True)], ids=["scores", "raw"])
def test_one_map_as_large_as_the_picture_is_mixed_from_coefficients_only(
    last: ColumnRun, mixes: bool
) -> None:
    runs = {("o", 2): columns((4, PIXELS), (2, SCORES), (2, last))}
    answer = HEAD.examine(summary({**PLAIN, "seg": (1, 2, *SIZE)}, runs), SIZE, {})
    if mixes:
        assert isinstance(answer, Recognition) and answer.spec.masks is not None
        assert answer.spec.masks.interpolate == "values"  # process_mask of its own repository
        assert answer.spec.options["prototypes"] == "seg"
    else:
        assert isinstance(answer, Question) and "maps of the whole picture" in answer


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        (summary({}), "0 outputs, none of three dimensions"),
        (summary({"o": (1, 126, 8)}), "one anchor a cell, as YOLOv6, YOLOv8 and YOLOX"),
        (summary({"o": (1, 377, 8)}), "neither dimension is a number of anchors"),
        (summary({"o": (1, 378, 5)}), "neither dimension"),
        (summary({**PLAIN, "q": (1, 378, 9)}), "several outputs fit"),
        (summary({**PLAIN, "q": (1, 7)}), "2 outputs; this family has one"),
        (summary(PLAIN, task="pose"), "task 'pose', but this family's rows have no keypoints"),
        (summary(PLAIN, task="segment"), "no output of mask prototypes"),
        (summary(PLAIN, names="['a']"), "name 1 classes"),
        (summary(PLAIN, {("o", 2): columns((4, RAW), (4, SCORES))}), "straight from a Conv"),
        (summary(PLAIN, {("o", 2): columns((8, PIXELS))}), "values 4 to 7 .* are no scores"),
    ],
)
def test_refuses(got: GraphSummary, reason: str) -> None:
    answer = HEAD.examine(got, SIZE, {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"anchors": [[1, 2]]},
            "unknown options.anchors; family yolov5 has: keypoint_columns, layout",
        ),
        ({"strides": [8, 16]}, "mean 360 anchors at 64x96"),
        ({"layout": "channels_first"}, r"in the last dimension of the output, which is \[N, 378"),
        ({"prototypes": "x"}, "options.prototypes is 'x'; allowed: o"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recognise(summary(PLAIN, RUNS), SIZE, {"family": "yolov5", "options": options})


def test_wrong_outputs_are_refused() -> None:
    found = HEAD.recognise(summary(PLAIN), SIZE)
    assert found is not None
    with pytest.raises(ShapeError, match="the network's outputs: other"):
        decode(found.spec, {"other": np.zeros((1, 378, 8), np.float32)})
    with pytest.raises(ShapeError, match="correct the spec's labels"):
        decode(found.spec, {"o": np.zeros((1, 378, 9), np.float32)})


def test_masks_of_a_spec_need_prototypes() -> None:
    with pytest.raises(InputError, match="found no output of mask prototypes"):
        recognise(summary(PLAIN, RUNS), SIZE, {"masks": {"frame": "image"}})


def test_networks_are_recognised(tmp_path: Path) -> None:
    both = import_model(yolo_models.anchor_maps(decoded=True, apart=True), tmp_path)
    assert both.spec.family == "yolov5"
    assert both.spec.postprocess.max_detections == 1000
    with pytest.raises(ModelError, match="are shares of the image, never above"):
        import_model(yolo_models.anchor_maps(decoded=True, scaled=True), tmp_path)
    found = recognise(summary_of(yolo_models.yolov5_masks()), SIZE, {})
    assert found.spec.masks is not None
    assert found.spec.labels == ("a", "b", "c")


def test_masks_end_to_end(tmp_path: Path) -> None:
    compile_and_detect(yolo_models.yolov5_masks(), tmp_path)


@slow
def test_boxes_end_to_end(tmp_path: Path) -> None:
    compile_and_detect(yolo_models.anchor_maps(decoded=True), tmp_path)
