"""Masks in the image, against definitions written pixel by pixel."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from assertions import assert_close

from tvmdet.boxes import ImageTransform
from tvmdet.errors import InputError
from tvmdet.masks import InstanceMasks, place_masks
from tvmdet.rle import decode_rle
from tvmdet.spec import InputSpec, MaskSpec

Box = tuple[float, float, float, float]


def tents(low: float, high: float, count: int, size: int, *, edge: bool) -> np.ndarray:
    """How much each of ``size`` pixels takes from each of ``count`` values, ``[size, count]``.

    Bilinear interpolation is a tent around the centre of each value, one value wide on each side.
    """
    places = (np.arange(size) + 0.5 - low) / (high - low) * count - 0.5
    if edge:
        places = places.clip(0, count - 1)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(count)), 0)


def by_definition(
    values: np.ndarray, frame: Box, size_hw: tuple[int, int], *, edge: bool
) -> np.ndarray:
    """The value of every pixel of the image."""
    # Boxes are float32: of a thin box, whose values are close together, that shows.
    x1, y1, x2, y2 = np.asarray(frame, np.float32).astype(float)
    rows = tents(y1, y2, values.shape[0], size_hw[0], edge=edge)
    columns = tents(x1, x2, values.shape[1], size_hw[1], edge=edge)
    return rows @ values @ columns.T


def in_place(size_hw: tuple[int, int]) -> ImageTransform:
    """The image is the network's input."""
    return ImageTransform.for_image(size_hw, InputSpec(size_hw=size_hw))


def placed(values: np.ndarray, box: Box, size_hw: tuple[int, int], **spec: object) -> InstanceMasks:
    return place_masks(values[None], [box], in_place(size_hw), MaskSpec(**spec))


def whole(masks: InstanceMasks, size_hw: tuple[int, int]) -> np.ndarray:
    """The values at every pixel."""
    sampled = masks.small[0].sample(size_hw)
    out = np.zeros(size_hw, np.float32)
    out[sampled.slices] = sampled.pixels
    return out


BOXES = {
    "inside": (5.2, 3.7, 20.9, 17.1),
    "whole pixels": (4, 6, 18, 20),
    "at the borders": (0, 0, 31, 23),
    "over every border": (-7.5, -3.25, 40.5, 30.0),
    "over the corner": (25.0, 18.5, 60.0, 44.0),
    "one pixel": (9, 9, 10, 10),
    "less than a pixel": (9.3, 9.2, 9.8, 9.7),
    "a line": (2, 11.1, 29, 11.6),
    "outside": (40, 3, 50, 9),
    "left of it": (-30, 3, -20, 9),
}


@pytest.mark.parametrize("shape", [(28, 28), (7, 5), (1, 1), (1, 9)])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_masks_of_the_box_are_bilinear_with_nothing_around(
    box: Box, shape: tuple[int, int]
) -> None:
    size_hw = (23, 31)
    values = np.random.default_rng(3).random(shape, np.float32)
    masks = placed(values, box, size_hw, threshold=0.3)
    want = by_definition(values, box, size_hw, edge=False)
    assert_close(whole(masks, size_hw), want, atol=2e-6)
    far = np.abs(want - 0.3) > 1e-5
    np.testing.assert_array_equal(masks.paste(0)[far], (want > 0.3)[far])


@pytest.mark.parametrize("shape", [(20, 16), (7, 5), (1, 1), (40, 90)])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_masks_of_the_image_are_bilinear_and_cut_to_the_box(
    box: Box, shape: tuple[int, int]
) -> None:
    size_hw = (23, 31)
    values = np.random.default_rng(4).random(shape, np.float32)
    masks = placed(values, box, size_hw, frame="image")
    want = by_definition(values, (0, 0, 31, 23), size_hw, edge=True)
    y, x = np.mgrid[:23, :31] + 0.5
    inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
    assert_close(whole(masks, size_hw), np.where(inside, want, 0), atol=2e-6)
    far = np.abs(want - 0.5) > 1e-5
    np.testing.assert_array_equal(masks.paste(0)[far], (inside & (want > 0.5))[far])


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_masks_of_the_image_may_reach_out_of_their_boxes(box: Box) -> None:
    size_hw = (23, 31)
    values = np.random.default_rng(4).random((7, 5), np.float32)
    masks = placed(values, box, size_hw, frame="image", cut_to_box=False)
    assert_close(whole(masks, size_hw), by_definition(values, (0, 0, 31, 23), size_hw, edge=True))
    assert not np.shares_memory(masks.small[0].values, values)


@pytest.mark.parametrize("cut_to_box", [False, True])
def test_logits_are_interpolated_where_the_framework_does(cut_to_box: bool) -> None:
    """Ultralytics resizes the sums before their sigmoid, and holds them to zero."""
    size_hw, box = (23, 31), (5.2, 3.7, 20.9, 17.1)
    logits = np.random.default_rng(4).normal(0, 3, (7, 5)).astype(np.float32)
    values = (1 / (1 + np.exp(-logits))).astype(np.float32)
    keys = {"frame": "image", "cut_to_box": cut_to_box}
    masks = placed(values, box, size_hw, **keys, interpolate="logits")
    want = by_definition(logits, (0, 0, 31, 23), size_hw, edge=True)
    y, x = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3]) | (not cut_to_box)
    assert_close(whole(masks, size_hw)[inside], 1 / (1 + np.exp(-want[inside])), atol=1e-4)
    sure = np.abs(want) > 1e-3
    np.testing.assert_array_equal(masks.paste(0)[sure], ((want > 0) & inside)[sure])
    other = placed(values, box, size_hw, **keys).paste(0)
    assert (other != masks.paste(0)).any()  # what interpolating the values gives instead


def test_what_is_surer_than_float32_can_say_stays_sure() -> None:
    values = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    masks = placed(values, (0, 0, 8, 8), (8, 8), frame="image", interpolate="logits")
    assert np.isfinite(whole(masks, (8, 8))).all()
    assert masks.paste(0)[0].tolist() == [False] * 4 + [True] * 4


def test_there_are_no_logits_of_nothing_around_a_box() -> None:
    with pytest.raises(InputError, match='interpolate is "logits" beside frame = "box"'):
        MaskSpec(frame="box", interpolate="logits")


@pytest.mark.parametrize("frame", ["box", "image"])
@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((5, 5, 5, 9), "no width"),
        ((5, 5, 9, 5), "no height"),
        ((9, 9, 5, 5), "turned inside out"),
        ((np.nan, 1, 5, 5), "not a number"),
        ((-np.inf, 1, np.inf, 5), "endless"),
    ],
)
def test_a_box_without_an_area_has_no_pixels(frame: str, box: Box, why: str) -> None:
    masks = placed(np.ones((4, 4), np.float32), box, (12, 12), frame=frame)
    if frame == "image" and why == "endless":
        assert masks.paste(0).sum() == 4 * 12, "the rows of the box"
    else:
        assert not masks.paste(0).any(), why
    assert decode_rle(masks.rle(0)).sum() == masks.paste(0).sum()


def test_a_box_far_outside_is_cut_before_anything_is_computed() -> None:
    box = (-1e30, -1e30, 1e30, 1e30)
    masks = placed(np.ones((28, 28), np.float32), box, (12, 9), frame="box")
    assert masks.paste(0).all()
    masks = placed(np.ones((28, 28), np.float32), (1e30, 0, 2e30, 5), (12, 9), frame="box")
    assert not masks.paste(0).any()


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize("size_hw", [(40, 30), (13, 77), (1, 50), (101, 64)])
@pytest.mark.parametrize("frame", ["box", "image"])
def test_the_letterbox_is_taken_off(frame: str, size_hw: tuple[int, int], resize: str) -> None:
    network_hw = (32, 48)
    transform = ImageTransform.for_image(size_hw, InputSpec(size_hw=network_hw, resize=resize))
    values = np.random.default_rng(5).random((8, 12), np.float32)
    box = np.array([10.3, 7.2, 33.0, 29.9])
    masks = place_masks(values[None], box[None], transform, MaskSpec(frame=frame))

    def to_image(corners: np.ndarray) -> np.ndarray:
        return (corners - np.array(transform.offset_xy * 2)) / np.array(transform.scale_xy * 2)

    spanned = to_image(box if frame == "box" else np.array([0, 0, 48, 32]))
    want = by_definition(values, tuple(spanned), size_hw, edge=frame == "image")
    if frame == "image":
        x1, y1, x2, y2 = to_image(box)
        y, x = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
        want = np.where((x >= x1) & (x < x2) & (y >= y1) & (y < y2), want, 0)
    assert masks.image_size_hw == size_hw
    assert_close(whole(masks, size_hw), want, atol=2e-5)


def test_only_what_the_box_needs_is_kept() -> None:
    values = np.random.default_rng(6).random((160, 160), np.float32)
    masks = placed(values, (100, 200, 140, 260), (640, 640), frame="image")
    kept = masks.small[0].values
    assert kept.shape == (17, 12)
    assert not np.shares_memory(kept, values)


@pytest.mark.parametrize("frame", ["box", "image"])
def test_a_mask_costs_memory_where_it_lies(frame: str) -> None:
    size_hw = (20_000, 20_000)
    values = np.tile(np.linspace(0, 1, 160, dtype=np.float32), (160, 1))
    tracemalloc.start()
    try:
        masks = placed(values, (9000, 50, 9400, 450), size_hw, frame=frame, threshold=0.2)
        rle = masks.rle(0)
        region = masks.region(0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rle["size"] == [20_000, 20_000] and region.pixels.any()
    assert peak < 4e6, "the image has 400 million pixels"


def test_large_masks_come_in_blocks_and_are_the_same() -> None:
    size_hw = (700, 900)
    y, x = np.mgrid[:10, :10] / 9
    values = (y * x).astype(np.float32)
    masks = placed(values, (0, 0, 900, 700), size_hw, frame="image")
    rows = np.clip((np.arange(700) + 0.5) / 70 - 0.5, 0, 9) / 9
    columns = np.clip((np.arange(900) + 0.5) / 90 - 0.5, 0, 9) / 9
    assert_close(whole(masks, size_hw), np.outer(rows, columns), atol=1e-6)
    np.testing.assert_array_equal(masks.paste(0), whole(masks, size_hw) > 0.5)


def many(count: int = 5) -> InstanceMasks:
    rng = np.random.default_rng(count)
    corners = rng.uniform(-5, 35, (count, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    values = rng.random((count, 6, 9), np.float32)
    return place_masks(values, boxes, in_place((30, 33)), MaskSpec())


@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_way_to_ask_answers_the_same(count: int) -> None:
    masks = many(count)
    every = masks.paste_all()
    assert (every.shape, every.dtype) == ((count, 30, 33), np.bool_)
    for index in range(count):
        np.testing.assert_array_equal(masks.paste(index), every[index])
        np.testing.assert_array_equal(decode_rle(masks.rle(index)), every[index])
    rows = [index for index in (3, 0, 3) if index < count]
    np.testing.assert_array_equal(masks.take(rows).paste_all(), every[rows])


def by_torchvision(values: np.ndarray, box: Box, size_hw: tuple[int, int]) -> np.ndarray:
    """How torchvision pastes: one pixel around the mask, a box of whole pixels.

    ``paste_masks_in_image``, ``expand_boxes`` and ``paste_mask_in_image`` of
    ``torchvision/models/detection/roi_heads.py``, with ``F.interpolate`` (bilinear,
    ``align_corners=False``) written out.
    """
    side = values.shape[0]
    x1, y1, x2, y2 = box
    half_w, half_h = (x2 - x1) / 2 * (side + 2) / side, (y2 - y1) / 2 * (side + 2) / side
    center_x, center_y = (x1 + x2) / 2, (y1 + y2) / 2
    left, top = int(center_x - half_w), int(center_y - half_h)
    width = max(int(center_x + half_w) - left + 1, 1)
    height = max(int(center_y + half_h) - top + 1, 1)
    resized = by_definition(np.pad(values, 1), (0, 0, width, height), (height, width), edge=True)
    out = np.zeros(size_hw)
    for y in range(max(top, 0), min(top + height, size_hw[0])):
        for x in range(max(left, 0), min(left + width, size_hw[1])):
            out[y, x] = resized[y - top, x - left]
    return out > 0.5


@pytest.mark.parametrize(("side", "least"), [(12, 0.75), (24, 0.85), (48, 0.92), (96, 0.96)])
def test_how_far_torchvision_is(side: int, least: float) -> None:
    """docs/spec.md states these figures."""
    rng = np.random.default_rng(side)
    y, x = (np.mgrid[:28, :28] + 0.5) / 28 - 0.5
    worst = 1.0
    for _ in range(8):
        disc = 1 / (1 + np.exp(20 * (np.hypot(y, x) - rng.uniform(0.3, 0.5))))
        left, top = rng.uniform(1, 9, 2)
        width, height = rng.uniform(0.7, 1, 2) * side
        box = (left, top, left + width, top + height)
        size_hw = (side + 12, side + 12)
        mine = placed(disc.astype(np.float32), box, size_hw).paste(0)
        theirs = by_torchvision(disc, box, size_hw)
        worst = min(worst, (mine & theirs).sum() / (mine | theirs).sum())
    assert least <= worst < 1, worst
