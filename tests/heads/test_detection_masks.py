"""Masks of finished detections: whether they span their boxes or the whole input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from detections_samples import TOLD, claimed, torchvision
from head_tools import assert_decodes_as_reference, summary_of

from tvmdet.heads import GraphSummary, Recognition, get_head
from tvmdet.heads.base import BOX_MASKS, Question

POOLED = {"BoundedNonMaxSuppression": 1}
MASKS = {"more": {"masks": (7, 1, 28, 28)}}
SMALL_MASKS = {"dets": (1, 7, 5), "labels": (1, 7), "masks": (1, 7, 28, 28)}


@pytest.mark.parametrize(
    ("shape", "told", "frame"),
    [
        ((7, 1, 28, 28), {}, "box"),
        ((7, 1, 64, 96), {}, "image"),
        ((7, 64, 96), {}, "image"),
        ((7, 1, 40, 40), {"masks": {"frame": "box"}}, "box"),
    ],
)
def test_masks_lie_in_the_box_or_on_the_image(
    shape: tuple[int, ...], told: Mapping[str, Any], frame: str
) -> None:
    spec = claimed(torchvision(more={"masks": shape}), told)
    assert spec.masks is not None
    assert spec.masks.frame == frame
    rng = np.random.default_rng(0)
    values = {
        "boxes": rng.random((7, 4), np.float32),
        "labels": rng.integers(0, 4, 7),
        "scores": rng.random(7, np.float32),
        "masks": rng.random(shape, np.float32),
    }
    assert_decodes_as_reference(spec, values)


@pytest.mark.parametrize(
    ("summary", "known"),
    [
        (torchvision(**MASKS), True),
        (torchvision(**MASKS, operators=POOLED), False),
        (torchvision(**MASKS, operators=POOLED, metadata={BOX_MASKS: "masks"}), True),
        (torchvision(**MASKS, operators=POOLED, metadata={BOX_MASKS: "others"}), False),
        (torchvision(more={"masks": (7, 1, 20, 28)}), False),
        (summary_of(SMALL_MASKS, dtypes={"labels": "int64"}), True),
    ],
)
def test_masks_span_their_boxes_only_where_something_says_so(
    summary: GraphSummary, known: bool
) -> None:
    given = {**TOLD, "labels": ["a", "b", "c"]}
    answer = get_head("detections").examine(summary, (64, 96), given)
    if known:
        assert isinstance(answer, Recognition), answer
        assert answer.spec.masks is not None
        assert answer.spec.masks.frame == "box"
    else:
        assert isinstance(answer, Question)
        assert 'frame = "box"' in answer.spec_text
