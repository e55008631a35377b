"""RetinaNet: torchvision's is claimed, others are asked for, each decodes by its framework."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from dense_summaries import SIZE_HW, assert_decodes, claim, level_maps, reference, summary, zeros

from tvmdet.errors import InputError, ModelError
from tvmdet.heads import GraphSummary, Question, get_head

TORCHVISION = summary({"cls_logits": (1, 1161, 3), "bbox_regression": (1, 1161, 4)})
LEVELS = summary(level_maps({"c": 27, "b": 36}))


def test_torchvisions_is_claimed() -> None:
    found = claim(TORCHVISION)
    assert found.family == "retinanet"
    assert found.spec.labels == ("class_0", "class_1", "class_2")
    assert found.spec.options["score_activation"] == "sigmoid"
    assert found.spec.options["strides"] == [[8, 8], [16, 16], [32, 32], [64, 48], [64, 96]]
    # Zeros after normalisation are the mean before it.
    assert found.spec.input.pad_value == (124, 116, 104)
    assert found.spec.input.pad_position == "top_left"
    assert any("by the names of its outputs" in reason for reason in found.reasons)


def test_keras_hubs_has_torchvisions_names_and_its_channels_last() -> None:
    found = claim(dataclasses.replace(TORCHVISION, channels_last=True))
    assert found.spec.options["style"] == "keras_hub"
    assert found.spec.options["anchors"] == claim(TORCHVISION).spec.options["anchors"]
    assert found.spec.options["size_limits"] == [0.0, 0.0]
    # Its decoder suppresses the best class of a box, whatever the class; Resizing pads with black.
    assert found.spec.postprocess.class_agnostic
    assert not found.spec.postprocess.multi_label
    assert (found.spec.input.pad_value, found.spec.input.pad_position) == (0, "center")


@pytest.mark.parametrize(
    ("network", "style"),
    [(TORCHVISION, "torchvision"), (TORCHVISION, "keras_hub"), (LEVELS, "detectron2")],
)
def test_decodes(network: GraphSummary, style: str) -> None:
    found = claim(network, family="retinanet", options={"style": style})
    assert found.spec.options["style"] == style
    assert_decodes(network, found.spec)


@pytest.mark.parametrize(
    ("style", "anchor", "shape"),
    [
        # The second anchor of a cell: torchvision lists sizes of the wide shape, halves rounded;
        # MMDetection likewise, not rounded; Detectron2 lists shapes of the first size.
        ("torchvision", 1, (56, 28)),
        ("mmdetection", 1, (math.sqrt(2) * 32 * 2 ** (1 / 3), math.sqrt(0.5) * 32 * 2 ** (1 / 3))),
        ("detectron2", 1, (32, 32)),
    ],
)
def test_decodes_a_known_box(style: str, anchor: int, shape: tuple[float, float]) -> None:
    spec = claim(LEVELS, family="retinanet", options={"style": style}).spec
    outputs = zeros(LEVELS)
    # Row 3, column 7 of stride 8: the centre lies at (56, 24). Shift a quarter of the anchor to
    # the right and half of it up, half as wide, as high.
    outputs["b0"][0, 4 * anchor : 4 * anchor + 4, 3, 7] = [0.25, -0.5, math.log(0.5), 0]
    outputs["c0"][0, 3 * anchor + 2, 3, 7] = math.log(3)
    boxes, scores = reference(spec, outputs)
    row = (3 * 12 + 7) * 9 + anchor
    width, height = shape
    x, y = 56 + width / 4, 24 - height / 2
    want = [x - width / 4, y - height / 2, x + width / 4, y + height / 2]
    np.testing.assert_allclose(boxes[0, row], np.clip(want, 0, [96, 64, 96, 64]), atol=1e-4)
    np.testing.assert_allclose(scores[0, row], [0.5, 0.5, 0.75], atol=1e-6)


def test_growth_is_limited() -> None:
    spec = claim(LEVELS, family="retinanet", options={"style": "mmdetection"}).spec
    outputs = zeros(LEVELS)
    outputs["b0"][0, 2:4, 4, 6] = -50  # the first anchor becomes 62.5 times smaller, no more
    boxes, _ = reference(spec, outputs)
    width = boxes[0, (4 * 12 + 6) * 9, 2] - boxes[0, (4 * 12 + 6) * 9, 0]
    assert width == pytest.approx(32 * math.sqrt(2) / 62.5, abs=1e-4)


def test_scores_through_a_sigmoid_are_left_alone() -> None:
    done = {"cls_logits": frozenset({"Sigmoid"}), "bbox_regression": frozenset({"Conv"})}
    network = summary({"cls_logits": (1, 1161, 3), "bbox_regression": (1, 1161, 4)}, sources=done)
    assert claim(network).spec.options["score_activation"] == "none"


def test_an_unknown_framework_is_asked_for() -> None:
    answer = get_head("retinanet").examine(LEVELS, SIZE_HW, {})
    assert isinstance(answer, Question)
    assert answer.spec_text.splitlines() == [
        'family = "retinanet"',
        "[options]",
        'style = "torchvision"  # or "detectron2", "mmdetection", "keras_hub"',
    ]
    with pytest.raises(ModelError, match=r'family = "efficientdet"\n(.*\n)+.*"retinanet"'):
        claim(LEVELS)
    with pytest.raises(ModelError, match='add this to the spec:\n  family = "retinanet"'):
        claim(LEVELS, family="retinanet")


def test_named_outputs_settle_which_are_classes() -> None:
    # 36 channels for four classes and for boxes alike.
    network = summary(level_maps({"x": 36, "y": 36}))
    assert "cannot be told apart" in str(get_head("retinanet").examine(network, SIZE_HW, {}))
    named = {"class_outputs": [f"y{i}" for i in range(5)]}
    options = {"style": "detectron2", **named}
    assert claim(network, family="retinanet", options=options).spec.options["box_outputs"] == [
        f"x{i}" for i in range(5)
    ]
    hinted = summary(level_maps({"bbox_pred": 36, "cls_score": 36}))
    found = claim(hinted, family="retinanet", options={"style": "detectron2"})
    assert found.spec.options["class_outputs"][0] == "cls_score0"


def test_anchors_of_the_spec_count() -> None:
    network = summary(level_maps({"c": 6, "b": 8}))
    anchors = [[[s, s], [s, 2 * s]] for s in (16, 32, 64, 128, 256)]
    options = {"style": "custom", "anchors": anchors, "offset": 0.5}
    spec = claim(network, family="retinanet", options=options).spec
    assert_decodes(network, spec)
    outputs = zeros(network)
    boxes, _ = reference(spec, outputs)
    assert boxes[0, (2 * 12 + 3) * 2 + 1].tolist() == [20, 4, 36, 36]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "keras"}, "allowed: torchvision, detectron2, mmdetection, keras_hub, custom"),
        ({"strides": [8, 16]}, "options.strides 2|do not hold|2 levels"),
        ({"strides": "8"}, "a number of pixels for each level"),
        ({"strides": [8, 16, 32, 64, -1]}, "a number of pixels for each level"),
        ({"grids": [[8, 12], [4, 6], [2, 3], [1, 2], [1]]}, "rows, columns"),
        ({"offset": 2}, "options.offset is 2; allowed: a number, 0 to 1"),
        ({"box_stds": [1, 1]}, "four positive numbers"),
        ({"size_limits": [1]}, "smallest and largest growth"),
        ({"box_order": "hwyx"}, "allowed: xywh, yxhw"),
        ({"anchors": [[[8, 8]]]}, "anchors are of 1 levels"),
        ({"background": "middle"}, "allowed: none, first, last"),
        ({"reg_max": 7}, "unknown options.reg_max"),
        ({"class_outputs": ["nowhere"]}, "a list of different outputs"),
        ({"class_outputs": ["c0"]}, "one for each of the 5|cannot be told|channels"),
        ({"quality_outputs": ["c0"]}, "family retinanet has none"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    given = {"style": "detectron2", **options}
    with pytest.raises((InputError, ModelError), match=message):
        claim(LEVELS, family="retinanet", options=given)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (summary({}), "0 outputs"),
        (summary({"a": (1, 9)}), "1 outputs"),
        (summary({"a": (1, 9), "b": (1, 4)}), r"\[N, boxes, C\] or \[N, C, H, W\]"),
        (summary({"a": (1, 9, 3), "b": (1, 9, 4)}), "of no pyramid"),
        (summary({"a": (1, 9, 3), "b": (1, 8, 4)}), "do not share grids"),
        (summary({"a": (1, 9, 3), "b": (1, 9, 5)}), "channels"),
        (summary(level_maps({"c": 3, "b": 4})), "this family's have 9"),
    ],
)
def test_refuses(network: GraphSummary, reason: str) -> None:
    answer = get_head("retinanet").examine(network, SIZE_HW, {})
    assert not isinstance(answer, Question)
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer
