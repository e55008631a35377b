from __future__ import annotations

import numpy as np
import pytest
from assertions import assert_close

from tvmdet.boxes import ImageTransform, clip_boxes, iou_matrix
from tvmdet.errors import InputError
from tvmdet.spec import InputSpec

SIZES_HW = [(1, 1), (1, 9000), (9000, 1), (480, 640), (641, 333), (9000, 12000), (7, 5)]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param([], [], np.zeros((0, 0)), id="no boxes"),
        pytest.param([[0, 0, 1, 1]], [], np.zeros((1, 0)), id="none on one side"),
        pytest.param([[0, 0, 2, 2]], [[0, 0, 2, 2]], [[1.0]], id="equal"),
        pytest.param([[0, 0, 2, 2]], [[1, 1, 3, 3]], [[1 / 7]], id="corner"),
        pytest.param([[0, 0, 2, 2]], [[2, 0, 4, 2]], [[0.0]], id="touching"),
        pytest.param([[1, 1, 1, 1]], [[1, 1, 1, 1]], [[0.0]], id="no area"),
        pytest.param([[3, 3, 1, 1]], [[0, 0, 4, 4]], [[0.0]], id="inverted"),
        pytest.param([[0, 0, 1e5, 1e5]], [[0, 0, 1e5, 5e4]], [[0.5]], id="large"),
    ],
)
def test_iou_matrix(a: list, b: list, expected: object) -> None:
    result = iou_matrix(a, b)
    assert result.dtype == np.float32
    assert_close(result, expected)


def test_clip_boxes_copies() -> None:
    boxes = np.array([[-1, -2, 30, 40], [3, 4, 5, 6]], np.float32)
    before = boxes.copy()
    assert_close(clip_boxes(boxes, (10, 20)), [[0, 0, 20, 10], [3, 4, 5, 6]])
    assert_close(boxes, before)


@pytest.mark.parametrize(
    ("image_hw", "network_hw", "resized_hw", "offset_xy"),
    [
        # Computed by hand after LetterBox: r = min(n / i), round, round(d / 2 - 0.1).
        pytest.param((640, 640), (640, 640), (640, 640), (0, 0), id="same"),
        pytest.param((720, 1280), (640, 640), (360, 640), (0, 140), id="wide"),
        pytest.param((1280, 721), (640, 640), (640, 360), (140, 0), id="tall, half to even"),
        pytest.param((427, 640), (640, 640), (427, 640), (0, 106), id="odd border: less on top"),
        pytest.param((1, 1), (640, 640), (640, 640), (0, 0), id="one pixel"),
        pytest.param((1, 9000), (640, 640), (1, 640), (0, 319), id="a line keeps one pixel"),
        pytest.param((100, 50), (32, 48), (32, 16), (16, 0), id="not square"),
    ],
)
def test_letterbox_is_that_of_ultralytics(
    image_hw: tuple[int, int],
    network_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    offset_xy: tuple[int, int],
) -> None:
    transform = ImageTransform.for_image(image_hw, InputSpec(size_hw=network_hw))
    assert (transform.resized_size_hw, transform.offset_xy) == (resized_hw, offset_xy)
    top_left = ImageTransform.for_image(
        image_hw, InputSpec(size_hw=network_hw, pad_position="top_left")
    )
    assert (top_left.resized_size_hw, top_left.offset_xy) == (resized_hw, (0, 0))


@pytest.mark.parametrize(
    ("image_hw", "network_hw", "resized_hw"),
    [
        # Computed by hand after YOLOX's preproc: r = min(n / i), int.
        pytest.param((191, 384), (416, 416), (206, 416), id="206.9"),
        pytest.param((592, 1190), (416, 416), (206, 416), id="206.95"),
        pytest.param((640, 427), (320, 320), (320, 213), id="tall, 213.5"),
        pytest.param((427, 640), (640, 640), (427, 640), id="whole already"),
        pytest.param((1, 9000), (640, 640), (1, 640), id="a line keeps one pixel"),
    ],
)
def test_a_letterbox_rounds_down_as_yolox_does(
    image_hw: tuple[int, int], network_hw: tuple[int, int], resized_hw: tuple[int, int]
) -> None:
    spec = InputSpec(size_hw=network_hw, pad_position="top_left", rounding="down")
    transform = ImageTransform.for_image(image_hw, spec)
    assert (transform.resized_size_hw, transform.offset_xy) == (resized_hw, (0, 0))
    ratio = min(n / i for n, i in zip(network_hw, image_hw, strict=True))
    box = np.array([[0.0, 0.0, 40.0, 1.0]]) * ratio  # what the framework divides by, on both axes
    assert_close(transform.to_image(box), [[0, 0, 40, 1]], rtol=1e-5)


@pytest.mark.parametrize(
    ("image_hw", "resized_hw"),
    [
        # int(side * ratio + 0.5) in MMCV's rescale_size and Detectron2's ResizeShortestEdge.
        pytest.param((853, 1280), (427, 640), id="426.5, which is nearest to 426 as an even one"),
        pytest.param((855, 1280), (428, 640), id="427.5"),
        pytest.param((1280, 854), (640, 427), id="whole already"),
        pytest.param((852, 1281), (426, 640), id="425.7"),
    ],
)
def test_a_letterbox_rounds_halves_up_as_mmdetection_does(
    image_hw: tuple[int, int], resized_hw: tuple[int, int]
) -> None:
    spec = InputSpec(size_hw=(640, 640), pad_position="top_left", rounding="half_up")
    transform = ImageTransform.for_image(image_hw, spec)
    assert transform.resized_size_hw == resized_hw
    (corner,) = transform.points_to_image([resized_hw[::-1]])
    assert_close(corner, image_hw[::-1], atol=1e-3)


@pytest.mark.parametrize(
    ("rounding", "scale", "expected_xy"),
    [
        # 427 x 1000 into 640 x 640: 273.28 rows are 273 (border 183 of 367) or, cut, 273; the
        # corner of the picture in the network's input is (640, 183 + 273).
        pytest.param("nearest", "auto", (1000, 427), id="Ultralytics"),
        pytest.param("nearest", "sides", (1000, 427), id="the same, said"),
        pytest.param("nearest", "ratio", (1000, 273 / 0.64), id="YOLO-NAS"),
        pytest.param("nearest", "exact", (1000, 273 / 0.64), id="PaddleDetection"),
        pytest.param("nearest", "unrounded", (1000, (456 - 183.36) / 0.64), id="YOLOv5"),
        pytest.param("nearest", "height", (640 * 427 / 273, 427), id="SCRFD"),
        pytest.param("down", "auto", (1000, 273 / 0.64), id="YOLOX"),
        pytest.param("down", "sides", (1000, 427), id="MMYOLO"),
    ],
)
def test_boxes_are_divided_as_the_spec_says(
    rounding: str, scale: str, expected_xy: tuple[float, float]
) -> None:
    spec = InputSpec(size_hw=(640, 640), rounding=rounding, scale=scale)  # type: ignore[arg-type]
    transform = ImageTransform.for_image((427, 1000), spec)
    assert transform.resized_size_hw == (273, 640)
    assert transform.offset_xy == (0, 183)
    (corner,) = transform.points_to_image([[640, 456]])
    assert_close(corner, expected_xy, atol=1e-3)
    boxes = np.array([[3, 5, 700, 400]])
    assert_close(transform.to_image(transform.to_network(boxes)), boxes, atol=1e-3)


def test_a_warp_rounds_no_side_of_a_letterbox() -> None:
    spec = InputSpec(size_hw=(640, 640), interpolation="warp")
    transform = ImageTransform.for_image((427, 1000), spec)
    (corner,) = transform.points_to_image([[640, 320 + 427 * 0.32]])
    assert_close(corner, [1000, 427], atol=1e-3)


@pytest.mark.parametrize("size_hw", SIZES_HW)
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_boxes_come_back(size_hw: tuple[int, int], resize: str) -> None:
    spec = InputSpec(size_hw=(320, 416), resize=resize)  # type: ignore[arg-type]
    transform = ImageTransform.for_image(size_hw, spec)
    height, width = size_hw
    boxes = np.array([[0, 0, width, height], [width / 4, height / 3, width / 2, height / 2]])
    there = transform.to_network(boxes)
    assert_close(transform.to_image(there), boxes, rtol=1e-4, atol=1e-3)
    assert there[0, 2] <= 416.5
    assert there[0, 3] <= 320.5


def test_a_letterbox_divides_each_side_by_what_was_rounded() -> None:
    # 427 rows times 0.64 are 273.28, of which the picture has 273.
    transform = ImageTransform.for_image((427, 1000), InputSpec(size_hw=(640, 640)))
    assert transform.resized_size_hw == (273, 640)
    (bottom_right,) = transform.points_to_image([[640, transform.offset_xy[1] + 273]])
    assert_close(bottom_right, [1000, 427], atol=1e-3)


def test_boxes_are_clipped_to_the_image() -> None:
    transform = ImageTransform.for_image((100, 200), InputSpec(size_hw=(64, 64)))
    assert_close(transform.to_image([[-5, -5, 80, 80]]), [[0, 0, 200, 100]])


def test_stretch_scales_each_axis() -> None:
    spec = InputSpec(size_hw=(800, 608), resize="stretch")
    transform = ImageTransform.for_image((400, 304), spec)
    assert_close(transform.to_image([[10, 20, 30, 40]]), [[5, 10, 15, 20]])
    assert transform.resized_size_hw == (800, 608)


@pytest.mark.parametrize("size_hw", [(0, 5), (5, 0)])
def test_refuses_an_image_without_pixels(size_hw: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="allowed: 1x1 and larger"):
        ImageTransform.for_image(size_hw, InputSpec(size_hw=(64, 64)))


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_points_go_where_the_corners_of_boxes_go(resize: str) -> None:
    transform = ImageTransform.for_image((90, 70), InputSpec(size_hw=(64, 96), resize=resize))
    boxes = np.random.default_rng(4).uniform(-20, 120, (5, 4)).astype(np.float32)
    points = transform.points_to_image(boxes.reshape(5, 2, 2))
    assert_close(points.reshape(5, 4), transform.to_image_unclipped(boxes))
    far = transform.points_to_image(np.full((1, 2), 3e38, np.float32))
    assert far.shape == (1, 2)
