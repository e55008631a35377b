"""Distributions: GFL and NanoDet level by level, NanoDet-Plus in one output."""

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

from tvmdet.errors import ModelError
from tvmdet.heads import GraphSummary, get_head

GFL = summary(level_maps({"c": 3, "b": 68}))
NANODET = summary(
    {
        f"{kind}_pred_stride_{stride}": (1, rows, channels)
        for stride, rows in ((8, 96), (16, 24), (32, 6))
        for kind, channels in (("cls", 3), ("dis", 32))
    }
)
SOURCES = {"output": frozenset({"Sigmoid", "Conv"})}
PLUS_GRIDS = PYRAMID[:4]
MAPS = {
    "output": tuple((1, count, *grid) for grid in PLUS_GRIDS for count in (3, 32)),
}


def _plus(**metadata: str) -> GraphSummary:
    return summary({"output": (1, 128, 35)}, sources=SOURCES, maps=MAPS, **metadata)


def test_gfl_is_claimed_by_its_levels_and_bins() -> None:
    found = claim(GFL)
    assert found.family == "gfl"
    assert found.spec.options["reg_max"] == 16
    assert found.spec.options["offset"] == 0
    assert claim(GFL, family="picodet").spec.options["reg_max"] == 16


def test_gfl_of_coco_is_told_from_distances_to_19() -> None:
    """80 channels are as many as 4 sides of distances 0 to 19."""
    found = claim(summary(level_maps({"c": 80, "b": 68})))
    assert found.family == "gfl"
    assert found.spec.options["reg_max"] == 16
    assert len(found.spec.labels) == 80
    network = summary(level_maps({"c": 68, "b": 80}))
    labels = [f"class {index}" for index in range(68)]
    swapped = claim(network, family="gfl", labels=labels, options={"style": "mmdetection"})
    assert swapped.spec.options["reg_max"] == 19
    with pytest.raises(ModelError, match=r"give labels, or options\.class_outputs"):
        claim(summary(level_maps({"c": 80, "b": 64})), family="gfl")


def test_gfl_of_four_classes_is_known_by_its_distances() -> None:
    found = claim(summary(level_maps({"c": 4, "b": 68})))
    assert (found.family, len(found.spec.labels)) == ("gfl", 4)


def test_nanodet_is_claimed_by_its_names() -> None:
    found = claim(NANODET)
    assert found.spec.options["style"] == "nanodet"
    assert found.spec.options["offset"] == 0.5
    assert found.spec.input.color == "bgr"


def test_nanodet_plus_is_claimed_by_scores_and_distributions_in_one_output() -> None:
    found = claim(_plus())
    assert found.family == "nanodet_plus"
    assert found.spec.options["reg_max"] == 7
    assert found.spec.options["strides"] == [8, 16, 32, 64]
    assert len(found.spec.labels) == 3


@pytest.mark.parametrize("network", [GFL, _plus()], ids=["gfl", "plus"])
def test_decodes(network: GraphSummary) -> None:
    assert_decodes(network, claim(network).spec)


@pytest.mark.parametrize(
    ("network", "offset"), [(GFL, 0.0), (NANODET, 0.5), (_plus(), 0.0)], ids=["gfl", "n", "plus"]
)
def test_decodes_a_known_box(network: GraphSummary, offset: float) -> None:
    spec = claim(network).spec
    bins = spec.options["reg_max"] + 1
    outputs = zeros(network)
    # Row 1, column 3 of stride 16; distances 1, 0, 2, 1.5 (half of it 1, half of it 2).
    logits = np.zeros((4, bins), np.float32)
    for side, distances in enumerate(((1,), (0,), (2,), (1, 2))):
        logits[side, list(distances)] = 100
    if network is GFL:
        outputs["b1"][0, :, 1, 3] = logits.ravel()
    elif network is NANODET:
        outputs["dis_pred_stride_16"][0, 1 * 6 + 3] = logits.ravel()
    else:
        outputs["output"][0, 96 + 9] = [0.5, 0.25, 0, *logits.ravel()]
    boxes, scores = reference(spec, outputs)
    x, y = (3 + offset) * 16, (1 + offset) * 16
    np.testing.assert_allclose(boxes[0, 96 + 9], [x - 16, y, x + 32, y + 24], atol=1e-4)
    if network not in (GFL, NANODET):
        assert scores[0, 96 + 9].tolist() == [0.5, 0.25, 0]


def test_nanodet_plus_needs_to_know_which_columns_are_classes() -> None:
    blind = summary({"output": (1, 128, 35)}, sources=SOURCES)
    with pytest.raises(ModelError, match=r"give labels or options\.reg_max"):
        claim(blind)
    assert claim(blind, labels=["a", "b", "c"]).spec.options["reg_max"] == 7
    assert len(claim(blind, options={"reg_max": 7}).spec.labels) == 3
    with pytest.raises(ModelError, match="gives 2 labels"):
        claim(_plus(), labels=["a", "b"])


@pytest.mark.parametrize(
    ("family", "network", "reason"),
    [
        ("gfl", summary(level_maps({"c": 3, "b": 36})), "36 box channels are few"),
        ("gfl", summary(level_maps({"c": 3, "b": 68}, PYRAMID[:4])), "as PicoDet may"),
        ("gfl", summary(level_maps({"c": 3, "b": 4})), "channels"),
        # FSAF and FoveaBox of COCO, not four classes with distances to 19.
        ("gfl", summary(level_maps({"c": 80, "b": 4})), "b0 has 4 channels, which are a box"),
        ("picodet", GFL, "which family gfl reads"),
        ("nanodet_plus", GFL, "10 outputs"),
        ("nanodet_plus", summary({"o": (1, 35, 8, 12)}), "boxes, channels"),
        ("nanodet_plus", summary({"o": (1, 128, 35)}), "come from Conv;"),
        (
            "nanodet_plus",
            summary({"o": (1, 128, 35)}, sources={"o": frozenset({"Sigmoid"})}),
            "come from Sigmoid;",
        ),
    ],
)
def test_refuses(family: str, network: GraphSummary, reason: str) -> None:
    answer = get_head(family).examine(network, SIZE_HW, {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer
