"""SSD: a background column, default boxes, and their orders of numbers."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from dense_summaries import assert_decodes, claim, reference, summary, zeros

from tvmdet.errors import ModelError
from tvmdet.heads import GraphSummary, Question, get_head
from tvmdet.heads.base import Range

SIZE_HW = (320, 320)
GRIDS = ((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))
SSDLITE = summary({"cls_logits": (1, 3234, 4), "bbox_regression": (1, 3234, 4)}, size_hw=SIZE_HW)
SSD300_OUTPUTS = {"cls_logits": (1, 8732, 3), "bbox_regression": (1, 8732, 4)}
SSD300 = summary(SSD300_OUTPUTS, size_hw=(300, 300), operators={"Conv": 35, "MaxPool": 5})


def _levels(counts: tuple[int, ...], columns: int) -> GraphSummary:
    outputs = {}
    for level, (count, grid) in enumerate(zip(counts, GRIDS, strict=True)):
        outputs[f"score{level}"] = (1, count * columns, *grid)
        outputs[f"loc{level}"] = (1, count * 4, *grid)
    return summary(outputs, size_hw=SIZE_HW)


def test_torchvisions_are_claimed() -> None:
    found = claim(SSD300, (300, 300))
    assert found.family == "ssd"
    assert found.spec.labels == ("class_0", "class_1")  # the first of three is the background
    assert found.spec.options["style"] == "torchvision_ssd300"
    assert found.spec.options["strides"] == [8, 16, 32, 64, 100, 300]
    assert found.spec.input.resize == "stretch"
    lite = claim(SSDLITE, SIZE_HW)
    assert lite.spec.options["style"] == "torchvision_ssdlite320"
    assert lite.spec.options["score_activation"] == "softmax"
    assert lite.spec.postprocess.iou_threshold == 0.55


def test_ssd300_with_another_backbone_is_asked_for() -> None:
    # Its boxes are those of VGG16's, its mean is not.
    answer = get_head("ssd").examine(summary(SSD300_OUTPUTS), (300, 300), {})
    assert isinstance(answer, Question)
    assert 'style = "torchvision_ssd300"  # or "torchvision", "mmdetection"' in answer.spec_text
    given = {"family": "ssd", "options": {"style": "torchvision"}}
    assert claim(summary(SSD300_OUTPUTS), (300, 300), **given).spec.input.std[0] == 58.395


def test_grids_come_from_the_maps_that_were_joined() -> None:
    # 512x384, of which no table knows the grids: (16 x 12 + 8 x 6 + 4 x 3 + 2 x 2 + 1 + 1) x 6.
    grids = ((16, 12), (8, 6), (4, 3), (2, 2), (1, 1), (1, 1))
    rows = 6 * sum(height * width for height, width in grids)
    outputs = {"cls_logits": (1, rows, 3), "bbox_regression": (1, rows, 4)}
    with pytest.raises(ModelError, match="of no pyramid"):
        claim(summary(outputs), (512, 384))
    maps = {
        "cls_logits": tuple((1, 18, *grid) for grid in grids),
        "bbox_regression": tuple((1, 24, *grid) for grid in grids),
    }
    spec = claim(summary(outputs, maps=maps), (512, 384)).spec
    assert spec.options["grids"] == [list(grid) for grid in grids]
    assert spec.options["strides"][0] == [32, 32]


@pytest.mark.parametrize(
    ("network", "style"),
    [
        (SSDLITE, "torchvision_ssdlite320"),
        (_levels((6,) * 6, 4), "mmdetection_ssdlite"),
        (_levels((3, 6, 6, 6, 6, 6), 4), "tensorflow"),
    ],
)
def test_decodes(network: GraphSummary, style: str) -> None:
    spec = claim(network, SIZE_HW, family="ssd", options={"style": style}).spec
    assert len(spec.labels) == 3
    assert_decodes(network, spec)


def test_decodes_a_known_box() -> None:
    spec = claim(SSDLITE, SIZE_HW).spec
    outputs = zeros(SSDLITE)
    # Row 4, column 7 of 20x20 cells of 16 pixels, the first box: a square of 64 at (120, 72).
    # Variances 0.1 and 0.2: 2.5 moves a quarter, log(2) / 0.2 doubles.
    row = (4 * 20 + 7) * 6
    outputs["bbox_regression"][0, row] = [2.5, -2.5, math.log(0.5) / 0.2, math.log(2) / 0.2]
    outputs["cls_logits"][0, row] = [math.log(5), math.log(2), 0, math.log(2)]
    boxes, scores = reference(spec, outputs)
    np.testing.assert_allclose(boxes[0, row], [120, 0, 152, 120], atol=1e-4)
    np.testing.assert_allclose(scores[0, row], [0.2, 0.1, 0.2], atol=1e-6)


def test_tensorflows_boxes_come_y_first() -> None:
    network = _levels((3, 6, 6, 6, 6, 6), 4)
    spec = claim(network, SIZE_HW, family="ssd", options={"style": "tensorflow"}).spec
    outputs = zeros(network)
    # Second level, row 3, column 5, box 1: scale 0.35, twice as wide as high, at (176, 112).
    outputs["loc1"][0, 4:8, 3, 5] = [1, 0, math.log(0.5) / 0.2, 0]
    outputs["score1"][0, 4:8, 3, 5] = [9, 0, math.log(3), 0]
    boxes, scores = reference(spec, outputs)
    row = 400 * 3 + (3 * 10 + 5) * 6 + 1
    width, height = 0.35 * math.sqrt(2) * 320, 0.35 / math.sqrt(2) * 320
    y = 112 + height / 10
    want = [176 - width / 2, y - height / 4, 176 + width / 2, y + height / 4]
    np.testing.assert_allclose(boxes[0, row], want, atol=1e-3)
    np.testing.assert_allclose(scores[0, row], [0.5, 0.75, 0.5], atol=1e-6)


def test_mmdetections_background_is_last() -> None:
    network = _levels((6,) * 6, 3)
    spec = claim(network, SIZE_HW, family="ssd", options={"style": "mmdetection_ssdlite"}).spec
    outputs = zeros(network)
    outputs["score5"][0, :3, 0, 0] = [math.log(2), 0, math.log(7)]
    _, scores = reference(spec, outputs)
    np.testing.assert_allclose(scores[0, -6], [0.2, 0.1], atol=1e-6)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (summary({"a": (1, 3234, 4)}), "1 outputs"),
        (summary({"a": (1, 3233, 9), "b": (1, 3233, 4)}), "of no pyramid"),
        (_levels((9,) * 6, 3), "9/9/9/9/9/9 boxes; this family's have 3 to 6"),
        (_levels((1,) * 6, 3), "1/1/1/1/1/1 boxes"),
        (_levels((4, 5, 5, 5, 5, 4), 3), "of no style known here"),
    ],
)
def test_refuses(network: GraphSummary, reason: str) -> None:
    answer = get_head("ssd").examine(network, SIZE_HW, {})
    assert not isinstance(answer, Question)
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


def test_other_families_do_not_take_it_for_theirs() -> None:
    answer = get_head("picodet").examine(_levels((6,) * 6, 3), SIZE_HW, {})
    assert isinstance(answer, Question)
    assert "24 box and 18 class channels on 6 levels may as well be 6 boxes a cell" in answer
    with pytest.raises(ModelError, match='family = "ssd"'):
        claim(_levels((6,) * 6, 3), SIZE_HW)


def test_asks_which_framework() -> None:
    answer = get_head("ssd").examine(_levels((6,) * 6, 3), SIZE_HW, {})
    assert isinstance(answer, Question)
    assert 'style = "torchvision_ssdlite320"  # or "mmdetection_ssdlite"' in answer.spec_text


def test_mmdetections_ssdlite_is_fed_as_its_config_says() -> None:
    given = {"family": "ssd", "options": {"style": "mmdetection_ssdlite"}}
    spec = claim(_levels((6,) * 6, 3), SIZE_HW, **given).spec
    assert (spec.input.color, spec.input.resize) == ("rgb", "stretch")
    assert spec.input.mean == (123.675, 116.28, 103.53)
    assert spec.input.std == (58.395, 57.12, 57.375)
    hinted = _levels((6,) * 6, 3)
    hinted = replace(hinted, metadata={"mmdeploy.model": "singlestagedetector"})
    assert claim(hinted, SIZE_HW).spec.options["style"] == "mmdetection_ssdlite"
    # SSD300 has the mean alone.
    given = {"family": "ssd", "options": {"style": "mmdetection"}}
    assert claim(SSD300, (300, 300), **given).spec.input.std == (1.0, 1.0, 1.0)
    with pytest.raises(ModelError, match="300x300 or 512x512"):
        claim(_levels((6,) * 6, 3), SIZE_HW, **given)


def test_landmarks_of_other_things_ask_for_anchors() -> None:
    outputs = {"loc": (1, 504, 4), "conf": (1, 504, 2), "landms": (1, 504, 8)}
    ranges = {"conf": (Range(low=0.0, high=1.0),)}
    plates = replace(summary(outputs, size_hw=(96, 128)), output_ranges=ranges)
    for given in ({}, {"family": "ssd", "options": {"style": "retinaface"}}):
        asked = get_head("ssd").examine(plates, (96, 128), given)
        assert isinstance(asked, Question)
        assert "4 landmarks" in asked
    told = tomllib.loads(asked.spec_text)
    assert claim(plates, (96, 128), **told).spec.options["anchors"][0] == [[16, 16], [32, 32]]
    told["options"]["anchors"][0] = [[24, 24], [48, 48]]
    spec = claim(plates, (96, 128), **told).spec
    assert spec.options["anchors"][0] == [[24, 24], [48, 48]]
    assert spec.keypoints.names == ("point_0", "point_1", "point_2", "point_3")
    assert spec.options["strides"] == [8, 16, 32]
    odd = replace(plates, outputs={**plates.outputs, "landms": plates.outputs["loc"]})
    assert not isinstance(get_head("ssd").examine(odd, (96, 128), {}), Question)


def test_retinaface_is_claimed_by_its_landmarks() -> None:
    # 2 boxes at each of 12 x 16, 6 x 8 and 3 x 4 cells.
    outputs = {"output0": (1, 504, 4), "585": (1, 504, 2), "586": (1, 504, 10)}
    ranges = {"585": (Range(low=0.0, high=1.0),)}
    faces = replace(summary(outputs, size_hw=(96, 128)), output_ranges=ranges)
    spec = claim(faces, (96, 128)).spec
    assert spec.options["style"] == "retinaface"
    assert spec.options["strides"] == [8, 16, 32]
    assert spec.options["anchors"][1] == [[64, 64], [128, 128]]
    assert spec.options["score_activation"] == "none"
    assert spec.labels == ("class_0",)
    assert (spec.input.color, spec.input.mean) == ("bgr", (104.0, 117.0, 123.0))
    assert (spec.options["landmark_outputs"], len(spec.keypoints.names)) == (["586"], 5)
    assert_decodes(faces, spec)
    values = {name: np.zeros(shape, np.float32) for name, shape in outputs.items()}
    values["586"][0, 3, 2:4] = [0.5, -1]  # box_utils.py, decode_landm: of 0.1 widths
    points = get_head("ssd").decode_reference(values, spec).keypoints
    # The second box, 32 pixels wide, of the second cell, whose middle is at 12, 4.
    np.testing.assert_allclose(points[0, 3, :4], [12, 4, 12 + 0.05 * 32, 4 - 0.1 * 32], atol=1e-5)
    asked = get_head("ssd").examine(
        replace(faces, outputs={n: v for n, v in faces.outputs.items() if n != "586"}),
        (96, 128),
        {},
    )
    assert isinstance(asked, Question)
    assert "retinaface" in asked.spec_text


def test_faces_without_a_softmax_ask_how_they_are_fed() -> None:
    outputs = {"loc": (1, 504, 4), "conf": (1, 504, 2), "landms": (1, 504, 10)}
    faces = summary(outputs, size_hw=(96, 128))
    asked = get_head("ssd").examine(faces, (96, 128), {})
    assert isinstance(asked, Question)
    assert "no softmax" in asked
    told = tomllib.loads(asked.spec_text)
    spec = claim(faces, (96, 128), **told).spec
    assert spec.options["score_activation"] == "softmax"
    del told["input"]  # Pytorch_Retinaface's own
    assert claim(faces, (96, 128), **told).spec.input.color == "bgr"
