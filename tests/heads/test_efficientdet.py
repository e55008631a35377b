"""EfficientDet: anchors of four strides, boxes y first."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dense_summaries import SIZE_HW, assert_decodes, claim, level_maps, reference, summary, zeros

from tvmdet.heads import Question, get_head

LEVELS = summary(level_maps({"class_out": 27, "box_out": 36}))
JOINED = summary(
    {"regression": (1, 1161, 4), "classification": (1, 1161, 3)},
    sources={"classification": frozenset({"Sigmoid"})},
)


def test_is_asked_for() -> None:
    answer = get_head("efficientdet").examine(LEVELS, SIZE_HW, {})
    assert isinstance(answer, Question)
    assert (
        'style = "tensorflow"  # or "effdet", "tensorflow_d7", "tensorflow_lite"'
        in answer.spec_text
    )


def test_decodes() -> None:
    given = {"family": "efficientdet", "options": {"style": "effdet"}}
    assert_decodes(LEVELS, claim(LEVELS, **given).spec)
    joined = claim(JOINED, **given).spec
    assert joined.options["score_activation"] == "none"


@pytest.mark.parametrize(
    ("style", "wide"), [("tensorflow", (1.4, 0.7)), ("effdet", (math.sqrt(2), math.sqrt(0.5)))]
)
def test_decodes_a_known_box(style: str, wide: tuple[float, float]) -> None:
    spec = claim(LEVELS, family="efficientdet", options={"style": style}).spec
    outputs = zeros(LEVELS)
    # Anchor 4, the second octave step's wide one, at row 2, column 6 of stride 8: 4 strides times
    # 2^(1/3) large at (52, 20). Half its height down, half as wide.
    outputs["box_out0"][0, 16:20, 2, 6] = [0.5, 0, 0, math.log(0.5)]
    boxes, _ = reference(spec, outputs)
    width, height = (32 * 2 ** (1 / 3) * side for side in wide)
    want = [52 - width / 4, 20, 52 + width / 4, 20 + height]
    np.testing.assert_allclose(boxes[0, (2 * 12 + 6) * 9 + 4], want, atol=1e-4)


def test_lite_models_have_smaller_anchors_and_pixels_around_zero() -> None:
    spec = claim(LEVELS, family="efficientdet", options={"style": "tensorflow_lite"}).spec
    assert (spec.input.mean, spec.input.std) == ((127.5,) * 3, (127.5,) * 3)
    assert spec.options["anchors"][0][0] == [24.0, 24.0]
