"""RTMDet: distances from the corner of a cell, in pixels or in strides."""

from __future__ import annotations

import re

import numpy as np
import pytest
from dense_summaries import (
    PYRAMID,
    SIZE_HW,
    assert_decodes,
    claim,
    level_maps,
    reference,
    summary,
    zeros,
)

from tvmdet.heads import GraphSummary, Question, get_head

LEVELS = summary(level_maps({"cls": 3, "bbox": 4}, PYRAMID[:3]))


def test_is_asked_for() -> None:
    answer = get_head("rtmdet").examine(LEVELS, SIZE_HW, {})
    assert isinstance(answer, Question)
    assert 'style = "mmdetection"  # or "mmyolo"' in answer.spec_text


def test_decodes() -> None:
    spec = claim(LEVELS, family="rtmdet", options={"style": "mmyolo"}).spec
    assert spec.input.pad_position == "center"
    assert_decodes(LEVELS, spec)


@pytest.mark.parametrize(("style", "unit"), [("mmdetection", 1), ("mmyolo", 16)])
def test_decodes_a_known_box(style: str, unit: int) -> None:
    spec = claim(LEVELS, family="rtmdet", options={"style": style}).spec
    outputs = zeros(LEVELS)
    outputs["bbox1"][0, :, 2, 3] = [0.5, 1, 1, 1.5]  # from (48, 32)
    boxes, scores = reference(spec, outputs)
    want = [48 - 0.5 * unit, 32 - unit, 48 + unit, 32 + 1.5 * unit]
    np.testing.assert_allclose(boxes[0, 96 + 2 * 6 + 3], want, atol=1e-4)
    assert scores[0, 96 + 2 * 6 + 3].tolist() == [0.5, 0.5, 0.5]
    assert scores.sum() == 1.5  # boxes without area are no candidates


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (summary(level_maps({"c": 3, "b": 8}, PYRAMID[:3])), "several boxes|channels"),
        (summary(level_maps({"c": 3, "b": 4})), "not strides 8, 16 and 32"),
        (summary(level_maps({"c": 3, "b": 4, "o": 1}, PYRAMID[:3])), "9 outputs|share grids"),
    ],
)
def test_refuses(network: GraphSummary, reason: str) -> None:
    answer = get_head("rtmdet").examine(network, SIZE_HW, {})
    assert not isinstance(answer, Question)
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer
