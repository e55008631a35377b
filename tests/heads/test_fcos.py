"""FCOS and ATSS: the same outputs, read as distances or as differences to an anchor."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from dense_summaries import SIZE_HW, assert_decodes, claim, level_maps, reference, summary, zeros

from tvmdet.errors import InputError, ModelError
from tvmdet.heads import GraphSummary, Question, get_head

JOINED = {"cls_logits": (1, 129, 3), "bbox_regression": (1, 129, 4), "bbox_ctrness": (1, 129, 1)}
TORCHVISION = summary(JOINED)
LEVELS = summary(level_maps({"c": 3, "b": 4, "q": 1}))


def test_torchvisions_is_claimed() -> None:
    found = claim(TORCHVISION)
    assert found.family == "fcos"
    assert found.spec.options["quality_outputs"] == ["bbox_ctrness"]
    assert found.spec.options["score_rule"] == "sqrt"
    assert found.spec.postprocess.score_threshold == 0.2
    # As torchvision counts them, where the grids do not divide the image.
    assert found.spec.options["strides"] == [[8, 8], [16, 16], [32, 32], [64, 48], [64, 96]]
    assert found.spec.options["distance_unit"] == [8, 16, 32, 64, 128]


@pytest.mark.parametrize("unit", ["cells", [8, 16], [8, 16, 32, 64, -1]])
def test_distance_units_are_checked(unit: object) -> None:
    options = {"style": "mmdetection", "distance_unit": unit}
    with pytest.raises(InputError, match=r"options.distance_unit is .*; allowed: strides, pixels"):
        claim(LEVELS, family="fcos", options=options)


def test_torchvisions_centers_where_grids_do_not_divide() -> None:
    # torchvision 0.29: BoxLinearCoder on AnchorGenerator's last anchor but one, the second cell
    # of a 1x2 grid on 64x96: a square of 64 at (48, 0), whose distances are 0.5, 0, 0.25, 0.75.
    spec = claim(TORCHVISION).spec
    outputs = zeros(TORCHVISION)
    outputs["bbox_regression"][0, 127] = [0.5, 0, 0.25, 0.75]
    boxes, _ = reference(spec, outputs)
    assert boxes[0, 127].tolist() == [16, 0, 64, 48]


@pytest.mark.parametrize(
    ("network", "family", "style"),
    [
        (TORCHVISION, "fcos", "torchvision"),
        (LEVELS, "fcos", "detectron2"),
        (LEVELS, "atss", "mmdetection"),
    ],
)
def test_decodes(network: GraphSummary, family: str, style: str) -> None:
    spec = claim(network, family=family, options={"style": style}).spec
    assert_decodes(network, spec)


@pytest.mark.parametrize(
    ("style", "box"),
    [
        # Row 2, column 4 of stride 8. torchvision: the centre is (32, 16), distances in strides.
        ("torchvision", [32 - 8, 16 - 4, 32 + 16, 16 + 24]),
        # Detectron2: the middle of the cell; what would be negative is 0.
        ("detectron2", [36 - 8, 20 - 4, 36 + 16, 20 + 24]),
        # MMDetection: in pixels.
        ("mmdetection", [36 - 1, 20 - 0.5, 36 + 2, 20 + 3]),
    ],
)
def test_decodes_a_known_box(style: str, box: list[float]) -> None:
    spec = claim(LEVELS, family="fcos", options={"style": style}).spec
    outputs = zeros(LEVELS)
    outputs["b0"][0, :, 2, 4] = [1, 0.5, 2, 3]
    outputs["b0"][0, :, 2, 5] = [-1, 0.5, 2, 3]
    outputs["c0"][0, :, 2, 4] = [0, math.log(3), 0]
    outputs["q0"][0, 0, 2, 4] = math.log(3)
    boxes, scores = reference(spec, outputs)
    row = 2 * 12 + 4
    np.testing.assert_allclose(boxes[0, row], box, atol=1e-4)
    share = 0.75 * 0.75
    want = share if style == "mmdetection" else math.sqrt(share)
    np.testing.assert_allclose(scores[0, row, 1], want, atol=1e-6)
    if style == "detectron2":
        assert boxes[0, row + 1, 0] == 44  # no distance to the left


def test_atss_decodes_a_known_box() -> None:
    spec = claim(LEVELS, family="atss", options={"style": "mmdetection"}).spec
    outputs = zeros(LEVELS)
    # Row 2, column 4 of stride 8: a square of 64 at (32, 16), deviations 0.1 and 0.2.
    outputs["b0"][0, :, 2, 4] = [2.5, 5, math.log(0.5) / 0.2, math.log(0.25) / 0.2]
    outputs["c0"][0, :, 2, 4] = [0, math.log(3), 0]
    boxes, scores = reference(spec, outputs)
    np.testing.assert_allclose(boxes[0, 28], [32, 40, 64, 56], atol=1e-4)
    np.testing.assert_allclose(scores[0, 28], [0.25, 0.375, 0.25], atol=1e-6)


def test_neither_is_claimed_without_names() -> None:
    with pytest.raises(ModelError, match=r'family = "atss"\n(.*\n)+.*family = "fcos"'):
        claim(LEVELS)
    assert claim(LEVELS, family="atss", options={"style": "mmdetection_paa"}).family == "atss"


@pytest.mark.parametrize("family", ["fcos", "atss"])
@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (summary(level_maps({"c": 3, "b": 4})), "10 outputs"),
        (summary(level_maps({"c": 6, "b": 8, "q": 2})), "several boxes"),
        (summary(level_maps({"c": 3, "b": 4, "q": 1}, ((8, 12), (4, 6), (2, 3)))), "3 levels"),
        (summary(level_maps({"c": 3, "b": 5, "q": 1})), "channels"),
    ],
)
def test_refuses(family: str, network: GraphSummary, reason: str) -> None:
    answer = get_head(family).examine(network, SIZE_HW, {})
    assert not isinstance(answer, Question)
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer
