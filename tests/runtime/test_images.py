from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from tvmdet.errors import InputError
from tvmdet.runtime.images import as_bgr, load_image, source_name

RNG = np.random.default_rng(3)
BGR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)


def test_bgr_is_passed_on_without_a_copy() -> None:
    assert as_bgr(BGR) is BGR or np.shares_memory(as_bgr(BGR), BGR)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        pytest.param(GREY, np.dstack([GREY] * 3), id="grey"),
        pytest.param(GREY[:, :, None], np.dstack([GREY] * 3), id="grey with a channel"),
        pytest.param(np.dstack([BGR, GREY]), BGR, id="BGRA"),
        pytest.param(DEEP, (DEEP // 256).astype(np.uint8), id="16 bit"),
        pytest.param(
            DEEP[:, :, 0],
            np.dstack([(DEEP[:, :, 0] // 256).astype(np.uint8)] * 3),
            id="16 bit grey",
        ),
        pytest.param(BGR[::-1, ::-2, ::-1], BGR[::-1, ::-2, ::-1], id="strided"),
        pytest.param(np.full((1, 1), 9, np.uint8), np.full((1, 1, 3), 9), id="one pixel"),
    ],
)
def test_arrays(array: np.ndarray, expected: np.ndarray) -> None:
    image = as_bgr(array)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param(BGR.astype(np.float32), r"dtype float32; .*astype\(np.uint8\)", id="float"),
        pytest.param(BGR > 5, "dtype bool", id="bool"),
        pytest.param(BGR.astype(np.int64), "dtype int64", id="int64"),
        pytest.param(BGR[None], "pass a list", id="batch"),
        pytest.param(BGR[0, 0], r"shape \(3,\)", id="vector"),
        pytest.param(BGR[:, :, :2], r"shape \(5, 7, 2\)", id="two channels"),
        pytest.param(np.zeros((0, 7, 3), np.uint8), "without a pixel", id="no rows"),
        pytest.param(np.zeros((7, 0), np.uint8), "without a pixel", id="no columns"),
        pytest.param(None, "a source is a NoneType", id="None"),
        pytest.param(7, "a source is a int", id="int"),
        pytest.param([[1, 2]], "a source is a list", id="list"),
    ],
)
def test_refuses(source: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_image(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param(BGR, BGR, id="BGR"),
        pytest.param(GREY, np.dstack([GREY] * 3), id="grey"),
        pytest.param(np.dstack([BGR, GREY]), BGR, id="BGRA"),
        pytest.param(DEEP, (DEEP >> 8).astype(np.uint8), id="16 bit"),
        pytest.param(
            DEEP[:, :, 0], np.dstack([(DEEP[:, :, 0] >> 8).astype(np.uint8)] * 3), id="16 bit grey"
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_files(tmp_path: Path, written: np.ndarray, expected: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"ä image{suffix}"
    path.write_bytes(cv2.imencode(suffix, written)[1].tobytes())
    np.testing.assert_array_equal(load_image(path), expected)
    np.testing.assert_array_equal(load_image(str(path)), expected)


def test_exif_orientation_turns_the_image(tmp_path: Path) -> None:
    upright = np.zeros((40, 16, 3), np.uint8)
    upright[:20] = 255
    # Orientation 6: the stored picture must be turned clockwise.
    stored = cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE)
    jpeg = cv2.imencode(".jpg", stored)[1].tobytes()
    tiff = b"MM\0\x2a" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"Exif\0\0" + tiff
    app1 = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + app1 + jpeg[2:])
    image = load_image(path)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() < 30


@pytest.mark.parametrize("content", [b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_refuses_a_file_that_is_no_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.png cannot be decoded"):
        load_image(path)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_bytes_of_a_file_are_an_image(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(cv2.imencode(".png", BGR)[1].tobytes())
    np.testing.assert_array_equal(load_image(kind(path.read_bytes())), load_image(path))
    with pytest.raises(InputError, match=r"the image cannot be decoded \(5 bytes"):
        load_image(kind(b"noise"))
    with pytest.raises(InputError, match="a source has no bytes"):
        load_image(kind(b""))


def test_refuses_a_floating_point_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tiff"
    path.write_bytes(cv2.imencode(".tiff", BGR.astype(np.float32))[1].tobytes())
    with pytest.raises(InputError, match=r"x.tiff holds float32 pixels; allowed: 8 or 16 bits"):
        load_image(path)


def test_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match="is an empty file"):
        load_image(tmp_path / "empty.png")
    with pytest.raises(InputError, match="No such file"):
        load_image(tmp_path / "missing.png")
    with pytest.raises(InputError, match=r"Is a directory.*takes folders"):
        load_image(tmp_path)
    (tmp_path / "clip.MP4").write_bytes(b"frames")
    with pytest.raises(InputError, match=r"is a video: detect_video\(path\)"):
        load_image(tmp_path / "clip.MP4")
    with pytest.raises(InputError, match="null byte"):
        load_image("a\0b.png")


def test_source_name() -> None:
    assert source_name(Path("a/b.png")) == "a/b.png"
    assert source_name(BGR) is None
