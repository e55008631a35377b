from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvmdet.detections import Detections
from tvmdet.errors import InputError
from tvmdet.keypoints import Keypoints
from tvmdet.masks import InstanceMasks, SmallMask
from tvmdet.runtime.drawing import class_color_bgr


def found(*boxes: tuple[float, float, float, float], label: str = "cat") -> Detections:
    return Detections(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, len(boxes)).astype(np.float32),
        class_ids=np.arange(len(boxes), dtype=np.int32),
        labels=(label,) * len(boxes),
        image_size_hw=(200, 300),
    )


def test_without_boxes_the_picture_is_a_copy() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    drawn = found().draw(image)
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_box_and_label_are_drawn_and_the_rest_is_left() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = found((100, 100, 180, 160)).draw(image)
    assert not image.any()
    assert tuple(drawn[160, 140]) == class_color_bgr(0)
    assert tuple(drawn[130, 180]) == class_color_bgr(0)
    assert drawn[80:98, 100:130].any(axis=-1).mean() > 0.5, "the label lies above the box"
    assert not drawn[110:150, 110:170].any()
    assert not drawn[:60].any()


def ring(frame_xyxy: tuple[float, float, float, float]) -> Detections:
    """One object, a ring in its box."""
    y, x = np.mgrid[:28, :28] - 13.5
    values = (np.abs(np.hypot(y, x) - 9) < 4).astype(np.float32)
    small = SmallMask(values=values, frame_xyxy=frame_xyxy)
    plain = found(frame_xyxy)
    return Detections(
        boxes_xyxy=plain.boxes_xyxy,
        scores=plain.scores,
        class_ids=plain.class_ids,
        labels=plain.labels,
        image_size_hw=plain.image_size_hw,
        instance_masks=InstanceMasks(small=(small,), threshold=0.5, image_size_hw=(200, 300)),
    )


def pointed(*xy: tuple[float, float], scores: list[float] | None = None) -> Detections:
    """One object with points that are joined one to the next."""
    points = Keypoints(
        xy=np.array([xy], np.float32),
        scores=None if scores is None else np.array([scores], np.float32),
        names=tuple(f"p{index}" for index in range(len(xy))),
        skeleton=tuple((index, index + 1) for index in range(len(xy) - 1)),
    )
    return replace(found((40, 40, 260, 180)), keypoints=points)


def test_keypoints_are_drawn_and_joined() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = pointed((80, 100), (200, 100), (200, 160)).draw(image)
    for x, y in ((80, 100), (140, 100), (200, 130), (200, 160)):
        # Lines are smoothed, and may lie between two rows of pixels.
        np.testing.assert_allclose(drawn[y, x], class_color_bgr(0), atol=30, err_msg=f"{x} {y}")
    assert not drawn[110:150, 60:190].any()


def test_keypoints_that_are_not_seen_are_not_drawn() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = pointed((80, 100), (140, 100), (200, 100), scores=[0.9, 0.5, 0.4]).draw(image)
    assert drawn[100, 80].any() and drawn[100, 110].any()
    assert not drawn[100, 150:220].any()


def test_of_oriented_boxes_the_four_sides_are_drawn() -> None:
    corners = np.array([[[150, 40], [220, 110], [150, 180], [80, 110]]], np.float32)
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = replace(found((80, 40, 220, 180)), corners=corners).draw(image)
    for x, y in ((185, 75), (185, 145), (115, 145)):
        assert tuple(drawn[y, x]) == class_color_bgr(0)
    assert not drawn[70:90, 215:223].any(), "no side of the box around it"


@pytest.mark.parametrize("far", [1e9, np.inf, -np.inf, np.nan])
def test_keypoints_far_outside_are_drawn_without_harm(far: float) -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = pointed((80, 100), (far, far)).draw(image)
    assert tuple(drawn[100, 80]) == class_color_bgr(0)


def test_masks_are_tinted_and_outlined_and_the_rest_is_left() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    masked = ring((100, 50, 240, 190))
    drawn = masked.draw(image)
    assert (image == 100).all()
    color = np.array(class_color_bgr(0))
    inside = masked.masks[0]
    tint = np.rint(0.55 * 100 + 0.45 * color)
    # Along the middle row: box, ground, ring, hole, ring, ground, box.
    row, tinted = drawn[120], (np.abs(drawn[120] - tint) <= 1).all(axis=-1)
    assert tinted[inside[120]].mean() > 0.8
    assert not tinted[~inside[120]].any()
    starts, ends = (np.flatnonzero(np.diff(inside[120].astype(int)) == sign) for sign in (1, -1))
    assert len(starts) == len(ends) == 2
    assert (row[[*(starts + 1), *ends]] == color).all(), "the outline"
    assert (drawn[120, 170] == 100).all(), "the hole"
    assert (drawn[60:70, 110:120] == 100).all(), "a corner of the box"


def test_masks_on_a_smaller_picture_are_cut() -> None:
    whole = ring((100, 50, 240, 190)).draw(np.full((200, 300, 3), 100, np.uint8))
    for size_hw in ((120, 170), (40, 300), (1, 1)):
        drawn = ring((100, 50, 240, 190)).draw(np.full((*size_hw, 3), 100, np.uint8))
        assert drawn.shape == (*size_hw, 3)
    cut = ring((100, 50, 240, 190)).draw(np.full((130, 180, 3), 100, np.uint8))
    # Outlines may close along the cut.
    np.testing.assert_array_equal(cut[80:120, 90:170], whole[80:120, 90:170])


@pytest.mark.parametrize("frame", [(-50, -50, 400, 300), (290, 190, 310, 210), (5, 5, 5, 5)])
def test_masks_beyond_the_picture(frame: tuple[float, float, float, float]) -> None:
    drawn = ring(frame).draw(np.zeros((200, 300, 3), np.uint8))
    assert drawn.shape == (200, 300, 3)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((200, 300), np.uint8), id="grey"),
        pytest.param(np.zeros((200, 300, 1), np.uint8), id="grey with a channel"),
        pytest.param(np.zeros((200, 300, 4), np.uint8), id="BGRA"),
        pytest.param(np.zeros((200, 300, 3), np.uint16), id="16 bit"),
    ],
)
def test_every_kind_of_image_comes_out_as_bgr(image: np.ndarray) -> None:
    image.setflags(write=False)
    drawn = found((10, 50, 180, 160)).draw(image)
    assert drawn.shape == (200, 300, 3)
    assert drawn.dtype == np.uint8
    assert drawn.any()


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 5), (40, 30), (2000, 3000)])
def test_labels_stay_on_the_picture(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    corners = found((0, 0, width, height), (width - 1, height - 1, width, height), label="x" * 20)
    drawn = corners.draw(np.zeros((*size_hw, 3), np.uint8))
    assert drawn.shape == (*size_hw, 3)
    assert drawn.any()


def test_refuses_what_is_no_image() -> None:
    with pytest.raises(InputError, match="dtype float64"):
        found().draw(np.zeros((2, 2, 3)))


def test_classes_have_colours_of_their_own() -> None:
    assert len({class_color_bgr(class_id) for class_id in range(80)}) == 80
