from __future__ import annotations

import platform

import cv2
import numpy as np
import pictures
import pytest

from tvmdet.boxes import ImageTransform
from tvmdet.runtime import resize
from tvmdet.runtime.resize import place_image, resize_in_own_code
from tvmdet.spec import InputSpec, Interpolation

SIZES_HW = [(1, 1), (1, 3000), (3000, 1), (64, 96), (33, 47), (500, 20), (20, 500), (720, 1280)]


def letterbox(image: np.ndarray, new_hw: tuple[int, int], value: int) -> np.ndarray:
    """Ultralytics's LetterBox, written down again from its source (center=True, scaleup=True)."""
    shape = image.shape[:2]
    ratio = min(new_hw[0] / shape[0], new_hw[1] / shape[1])
    unpadded = max(round(shape[1] * ratio), 1), max(round(shape[0] * ratio), 1)
    dw, dh = (new_hw[1] - unpadded[0]) / 2, (new_hw[0] - unpadded[1]) / 2
    if shape[::-1] != unpadded:
        image = cv2.resize(image, unpadded, interpolation=cv2.INTER_LINEAR)
    top, bottom = round(dh - 0.1), round(dh + 0.1)
    left, right = round(dw - 0.1), round(dw + 0.1)
    border = cv2.BORDER_CONSTANT
    return cv2.copyMakeBorder(image, top, bottom, left, right, border, value=(value,) * 3)


def place(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Places the image into the second row of a poisoned batch; the others stay poisoned."""
    batch = np.full((3, *spec.size_hw, 3), 201, np.uint8)
    transform = ImageTransform.for_image(image.shape[:2], spec)
    place_image(image, transform, spec.border_bgr, batch[1], spec.interpolation)
    assert (batch[[0, 2]] == 201).all()
    return batch[1]


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_letterbox_pixels_are_those_of_ultralytics(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    placed = place(image, InputSpec(size_hw=(64, 96)))
    np.testing.assert_array_equal(placed, letterbox(image, (64, 96), 114))


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_stretch_fills_the_input(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    placed = place(image, InputSpec(size_hw=(64, 96), resize="stretch"))
    expected = cv2.resize(image, (96, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(placed, expected)


def test_top_left_pads_below_and_to_the_right() -> None:
    image = np.full((10, 10, 3), 7, np.uint8)
    placed = place(image, InputSpec(size_hw=(20, 40), pad_position="top_left", pad_value=0))
    assert (placed[:, :20] == 7).all()
    assert (placed[:, 20:] == 0).all()


def test_a_border_of_three_levels() -> None:
    image = np.full((10, 10, 3), 90, np.uint8)
    spec = InputSpec(size_hw=(20, 40), pad_position="top_left", pad_value=(1, 2, 3))
    placed = place(image, spec)
    assert (placed[:, 20:] == [3, 2, 1]).all()
    assert (placed[:, :20] == 90).all()


@pytest.mark.parametrize(
    ("interpolation", "size_hw", "flag"),
    [
        ("bilinear", (64, 96), cv2.INTER_LINEAR),
        ("bicubic", (64, 96), cv2.INTER_CUBIC),
        ("bicubic", (200, 300), cv2.INTER_CUBIC),
        ("nearest", (64, 96), cv2.INTER_NEAREST),
        ("area", (64, 96), cv2.INTER_AREA),
        ("area", (100, 150), cv2.INTER_AREA),
        ("area", (200, 300), cv2.INTER_LINEAR),  # what grows has no areas to take a mean of
        ("area", (64, 300), cv2.INTER_LINEAR),
    ],
)
def test_other_interpolations_are_opencvs(
    interpolation: Interpolation, size_hw: tuple[int, int], flag: int
) -> None:
    image = np.random.default_rng(3).integers(0, 256, (100, 151, 3), dtype=np.uint8)
    placed = place(image, InputSpec(size_hw=size_hw, resize="stretch", interpolation=interpolation))
    np.testing.assert_array_equal(placed, cv2.resize(image, size_hw[::-1], interpolation=flag))


@pytest.mark.parametrize("flag", [cv2.INTER_LINEAR, cv2.INTER_CUBIC])
def test_a_picture_may_be_resized_by_the_ratio_itself(flag: int) -> None:
    image = np.random.default_rng(6).integers(0, 256, (853, 1280, 3), dtype=np.uint8)
    name = "bicubic" if flag == cv2.INTER_CUBIC else "bilinear"
    spec = InputSpec(size_hw=(320, 320), pad_position="top_left", scale="exact", interpolation=name)
    want = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=flag)
    assert want.shape[:2] == (213, 320)  # 213.25: to 213 by another ratio are other pixels
    np.testing.assert_array_equal(place(image, spec)[:213], want)
    own = resize_in_own_code(image, (213, 320), flag, 0.25)
    np.testing.assert_array_equal(own, want)
    assert (cv2.resize(image, (320, 213), interpolation=flag) != want).any()


def test_a_line_resized_by_its_ratio_keeps_one_pixel() -> None:
    image = np.full((1, 900, 3), 90, np.uint8)
    placed = place(image, InputSpec(size_hw=(32, 32), pad_position="top_left", scale="exact"))
    assert (placed[0] == 90).all()
    assert (placed[1:] == 114).all()


@pytest.mark.parametrize("border", [0, (9, 8, 7)])
def test_a_warp_scales_from_the_middle_of_the_first_pixel(
    border: int | tuple[int, int, int],
) -> None:
    image = np.random.default_rng(5).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    spec = InputSpec(size_hw=(20, 40), resize="stretch", interpolation="warp")
    np.testing.assert_array_equal(place(image, spec), image[::2, ::2])
    # In a letterbox the middle of the picture comes to that of the input: (40 - 40 / 2) / 2 rows.
    spec = InputSpec(size_hw=(40, 40), interpolation="warp", pad_value=border, color="bgr")
    placed = place(image, spec)
    np.testing.assert_array_equal(placed[10:30], image[::2, ::2])
    assert (placed[:10] == border).all()
    assert (placed[30:] == border).all()


def test_area_is_nearest_to_what_pillow_makes_of_a_photograph() -> None:
    """Its bilinear filter, a triangle over all that falls on a pixel, written out."""
    photo = pictures.read("astronaut.png")[:, :510]

    def filtered(values: np.ndarray, size: int) -> np.ndarray:
        scale = len(values) / size
        centres = (np.arange(size) + 0.5) * scale
        away = np.abs(np.arange(len(values)) + 0.5 - centres[:, None]) / scale
        weights = np.clip(1 - away, 0, None)
        return np.tensordot(weights / weights.sum(1, keepdims=True), values, 1)

    want = filtered(filtered(photo, 160).transpose(1, 0, 2), 160).transpose(1, 0, 2)
    off = {}
    for name in ("area", "bilinear", "bicubic", "nearest"):
        spec = InputSpec(size_hw=(160, 160), resize="stretch", interpolation=name)
        off[name] = float(np.abs(place(photo, spec) - want).mean())
    assert min(off, key=off.__getitem__) == "area"
    assert off["area"] < 0.5 * off["bilinear"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="OpenCV's own code is the standard")
@pytest.mark.parametrize(
    "flag", [cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_NEAREST], ids=["cubic", "area", "nearest"]
)
@pytest.mark.parametrize("size_hw", [(64, 96), (45, 35), (30, 70), (200, 300)])
def test_own_code_gives_the_same_pixels_by_other_interpolations(
    size_hw: tuple[int, int], flag: int
) -> None:
    image = np.random.default_rng(4).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    want = cv2.resize(image, size_hw[::-1], interpolation=flag)
    got = resize_in_own_code(image, size_hw, flag)
    if flag == cv2.INTER_CUBIC and max(size_hw) > 90:  # Intel's library, which others have not
        assert np.abs(got.astype(int) - want).max() <= 1
        assert (got != want).mean() < 0.06
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="OpenCV's own code is the standard")
@pytest.mark.parametrize(
    ("image_hw", "size_hw"),
    [
        ((512, 512), (320, 320)),
        ((512, 512), (300, 300)),
        ((512, 512), (640, 640)),
        ((720, 1280), (360, 640)),  # both halved
        ((720, 1280), (360, 600)),
        ((720, 1280), (180, 320)),
        ((1080, 1920), (360, 640)),
        ((187, 333), (640, 360)),
        ((3, 1000), (1, 640)),
        ((1, 1), (7, 5)),
    ],
)
def test_own_code_gives_the_same_pixels_as_resizing_three_channels(
    image_hw: tuple[int, int], size_hw: tuple[int, int]
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*image_hw, 3), dtype=np.uint8)
    want = cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_in_own_code(image, size_hw), want)
    smooth = cv2.GaussianBlur(image, (9, 9), 3)
    want = cv2.resize(smooth, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_in_own_code(smooth, size_hw), want)


def test_other_machines_resize_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(2).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    spec = InputSpec(size_hw=(64, 96))
    transform = ImageTransform.for_image((90, 70), spec)
    here, there = (np.empty((64, 96, 3), np.uint8) for _ in range(2))
    place_image(image, transform, 114, here)
    monkeypatch.setattr(resize, "_OWN_CODE", False)
    called = []
    monkeypatch.setattr(
        resize,
        "resize_in_own_code",
        lambda *given: called.append(given[1]) or resize_in_own_code(*given),
    )
    place_image(image, transform, 114, there)
    assert called == [transform.resized_size_hw]
    np.testing.assert_array_equal(here, there)
