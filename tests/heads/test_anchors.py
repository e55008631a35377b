"""Anchors and grids, against numbers that the frameworks' own generators gave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dense_summaries import claim, summary

from tvmdet.errors import InputError
from tvmdet.heads.anchors import anchor_shapes
from tvmdet.heads.dense_layout import DenseLayout
from tvmdet.heads.grids import Grid, covering_grids, doubling_strides

# Row number and x1 y1 x2 y2, then the sum of all rows, of torchvision 0.29's AnchorGenerator
# (RetinaNet's default) and DefaultBoxGenerator, run on feature maps of ceil(side / stride).
RETINANET_64X96 = (
    1161,
    {
        0: (-23, -11, 23, 11),
        1: (-28, -14, 28, 14),
        8: (-18, -35, 18, 35),
        387: (33, 13, 79, 35),
        580: (12, 20, 52, 60),
        928: (-41, -12, 73, 44),
        1160: (-287, -574, 287, 574),
    },
    (10648, -7928, 86984, 68408),
)
RETINANET_320X416 = (
    24993,
    {
        8331: (317, 113, 339, 159),
        12496: (268, 188, 308, 228),
        19994: (126, 30, 226, 130),
        24992: (25, -362, 599, 786),
    },
    (4267654, 3067459, 5836592, 4636397),
)
SSD300 = (
    8732,
    {
        0: (-6.5, -6.5, 14.5, 14.5),
        1: (-11.3704, -11.3704, 19.3704, 19.3704),
        8: (9.5, -6.5, 30.5, 14.5),
        2910: (29.1508, 148.5754, 58.8492, 163.4246),
        6985: (168.0901, 136.1802, 199.9099, 199.8198),
        8731: (57.7226, 0.0, 242.2774, 300.0),
    },
    (1157388.838, 1157388.838, 1508979.163, 1508979.163),
)
SSDLITE320 = (
    3234,
    {
        0: (-24.0, -24.0, 40.0, 40.0),
        4: (-47.4256, -10.4752, 63.4256, 26.4752),
        1078: (256.5744, 117.5248, 367.4256, 154.4752),
        3227: (166.0992, 80.0, 313.9008, 400.0),
        3233: (72.2428, 0.0, 247.7572, 320.0),
    },
    (370975.719, 370975.719, 663904.278, 663904.278),
)


@pytest.mark.parametrize(
    ("size_hw", "columns", "known"),
    [
        ((64, 96), 3, RETINANET_64X96),
        ((320, 416), 3, RETINANET_320X416),
        ((300, 300), 4, SSD300),
        ((320, 320), 4, SSDLITE320),
    ],
)
def test_torchvisions_anchors(size_hw: tuple[int, int], columns: int, known: Any) -> None:
    count, rows, total = known
    outputs = {"cls_logits": (1, count, columns), "bbox_regression": (1, count, 4)}
    vgg16 = {"Conv": 35, "MaxPool": 5}
    spec = claim(summary(outputs, operators=vgg16), size_hw).spec
    anchors = DenseLayout.of(spec, "deltas").anchors()
    corners = np.concatenate(
        [anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], axis=1
    )
    assert corners.shape == (count, 4)
    for row, box in rows.items():
        np.testing.assert_allclose(corners[row], box, atol=1e-3)
    np.testing.assert_allclose(corners.sum(axis=0), total, rtol=1e-6)


def test_orders_of_sizes_and_ratios() -> None:
    table = {"sizes": [[8, 16]], "ratios": [0.25, 1.0]}
    (ratios_first,) = anchor_shapes(table)
    assert ratios_first.tolist() == [[16, 4], [32, 8], [8, 8], [16, 16]]
    (sizes_first,) = anchor_shapes({**table, "order": "sizes_first"})
    assert sizes_first.tolist() == [[16, 4], [8, 8], [32, 8], [16, 16]]
    (rounded,) = anchor_shapes({"sizes": [[32]], "ratios": [0.5], "rounded": True})
    assert rounded.tolist() == [[46, 22]]  # halves 22.63 and 11.31


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([], "options.anchors is \\[\\]"),
        ([[1, 2]], "a list per level of"),
        ([[[1, 2, 3]]], "a list per level of"),
        ([[[1, -2]]], "a list per level of"),
        ([[[1, float("nan")]]], "a list per level of"),
        ([[["wide", 2]]], "a list per level of"),
        ("coco", "a list per level of"),
        ({"sizes": [[8]]}, "anchors.ratios is"),
        ({"ratios": [1]}, "a table of sizes"),
        ({"sizes": [[8]], "ratios": [0]}, "anchors.ratios is \\[0\\]"),
        ({"sizes": [[8]], "ratios": [1], "order": "random"}, "ratios_first or sizes_first"),
        ({"sizes": [[8]], "ratios": [1], "rounded": 1}, "and rounded"),
        ({"size": [[8]]}, "unknown options.anchors.size; allowed: order, ratios"),
    ],
)
def test_malformed_anchors_are_refused(anchors: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        anchor_shapes(anchors)


def test_centers_lie_row_by_row() -> None:
    grid = Grid(size_hw=(2, 3), stride_yx=(10.0, 4.0), offset=0.5)
    assert grid.centers().tolist() == [[2, 5], [6, 5], [10, 5], [2, 15], [6, 15], [10, 15]]


def test_grids_of_strides() -> None:
    assert covering_grids((320, 320), [(320 / 3, 320 / 3), (107, 107)]) == ((3, 3), (3, 3))
    assert doubling_strides([(8, 12), (4, 6), (2, 3)], (64, 96)) == (8, 16, 32)
    assert doubling_strides([(8, 12), (4, 6), (1, 1)], (64, 96)) is None
