"""The geometry of oriented boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from assertions import assert_close

from tvmdet.boxes import ImageTransform
from tvmdet.oriented import boxes_around, corners_of, place_corners, probiou_matrix
from tvmdet.spec import InputSpec

FLAT = (10.0, 20.0, 30.0, 26.0)


def test_corners_go_around_clockwise_from_the_top_left() -> None:
    assert_close(corners_of([FLAT], [0.0])[0], [[10, 20], [30, 20], [30, 26], [10, 26]])
    # A quarter from the x axis to the y axis: what was at the top is on the right.
    turned = [[23, 13], [23, 33], [17, 33], [17, 13]]
    assert_close(corners_of([FLAT], [math.pi / 2])[0], turned, atol=1e-5)


def test_the_box_around_is_cut_to_the_image() -> None:
    corners = corners_of([FLAT, (0, 0, 20, 20)], [math.pi / 2, math.pi / 4])
    reach = 10 * math.sqrt(2)
    around = [[17, 13, 23, 25], [0, 0, 10 + reach, 10 + reach]]
    assert_close(boxes_around(corners, (25, 40)), around, atol=1e-5)


def test_corners_are_mapped_through_a_letterbox() -> None:
    transform = ImageTransform.for_image((50, 100), InputSpec(size_hw=(100, 100)))
    placed = place_corners([(10, 45, 30, 51)], [0.0], transform)
    assert_close(placed[0], [[10, 20], [30, 20], [30, 26], [10, 26]])


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.5])
def test_a_letterbox_rounded_to_other_ratios_does_not_skew_corners(angle: float) -> None:
    # 101 x 1280 become 25 x 320: 0.2475 and 0.25 of their sides, from row 3 of 32 on.
    transform = ImageTransform.for_image((101, 1280), InputSpec(size_hw=(32, 320)))
    (x, y), (right, down) = transform.scale_xy, (80.0, 6.0)
    center = np.array([150 / x, (20 - 3) / y])
    # scale_boxes(xywh=True) of ultralytics/utils/ops.py 8.4, then xywhr2xyxyxyxy
    along = right / x / 2 * np.array([math.cos(angle), math.sin(angle)])
    across = down / y / 2 * np.array([-math.sin(angle), math.cos(angle)])
    expected = [center - along - across, center + along - across, center + along + across]
    expected.append(center - along + across)
    placed = place_corners([(110, 17, 190, 23)], [angle], transform)[0]
    assert_close(placed, expected, atol=1e-3)
    assert_close(np.dot(placed[1] - placed[0], placed[3] - placed[0]), 0, atol=0.01)


def test_corners_are_mapped_one_by_one_where_the_picture_was_stretched() -> None:
    stretched = InputSpec(size_hw=(100, 100), resize="stretch")
    transform = ImageTransform.for_image((50, 200), stretched)
    placed = place_corners([FLAT], [math.pi / 2], transform)
    assert_close(placed[0], [[46, 6.5], [46, 16.5], [34, 16.5], [34, 6.5]], atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0, 3.0])
@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
def test_overlap_of_equal_boxes_is_that_of_their_distance(share: float, angle: float) -> None:
    # Moved along its own side w by d, a box has the distance of Bhattacharyya 1.5 (d / w)^2.
    along = 20 * share * np.array([math.cos(angle), math.sin(angle)])
    moved = np.array(FLAT) + np.tile(along, 2)
    expected = 1 - math.sqrt(1 - math.exp(-1.5 * share**2))
    got = probiou_matrix([FLAT], [angle], [moved], [angle])
    assert_close(got, [[expected]], atol=1e-3)


def test_overlap_of_crossed_boxes() -> None:
    # Of variances a, b and b, a: half of log((a + b)^2 / (4 a b)).
    a, b = 20.0**2, 6.0**2
    expected = 1 - math.sqrt(1 - math.exp(-0.5 * math.log((a + b) ** 2 / (4 * a * b))))
    got = probiou_matrix([FLAT], [0.3], [FLAT], [0.3 + math.pi / 2])
    assert_close(got, [[expected]], atol=1e-4)
    # A box is the same when it is turned by half a turn.
    assert probiou_matrix([FLAT], [0.3], [FLAT], [0.3 + math.pi])[0, 0] > 0.999


def test_boxes_without_an_extent_overlap_nothing_else() -> None:
    got = probiou_matrix([(5, 5, 5, 5)], [0.0], [FLAT, (5, 5, 5, 5)], [0.0, 1.0])
    assert np.all(np.isfinite(got)) and got[0, 0] < 0.1
