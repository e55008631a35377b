"""Sources become BGR uint8 images: files are decoded, arrays are checked and converted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from tvmdet.errors import InputError
from tvmdet.files import check_no_address
from tvmdet.suffixes import VIDEO_SUFFIXES

__all__ = ["Image", "Source", "as_bgr", "decode_file", "load_image", "source_name"]

Image: TypeAlias = npt.NDArray[np.uint8]
"""HxWx3 uint8, BGR, contiguous."""

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | npt.NDArray[Any]
"""A path of an image file, the bytes of one, or an image as an array in OpenCV's channel order."""

_WHOLE = (np.uint8, np.uint16)
_ALLOWED = "allowed: HxWx3 BGR, HxWx4 BGRA, HxWx1 or HxW grey, uint8 or uint16"


def load_image(source: Source) -> Image:
    """Returns the image of a source as BGR uint8.

    Args:
        source: A path, or an array as :func:`as_bgr` takes it.

    Raises:
        InputError: The file cannot be read or decoded, or the array is not an image.
    """
    if isinstance(source, np.ndarray):
        return as_bgr(source)
    if isinstance(source, bytes | bytearray | memoryview):
        if not source:
            raise InputError("a source has no bytes; give those of an image file")
        return _decode(bytes(source), "the image")
    if isinstance(source, str | os.PathLike):
        return decode_file(source)
    raise InputError(
        f"a source is a {type(source).__name__}; allowed: a path (str or Path), the bytes of an "
        "image file or a numpy array (from other libraries: np.asarray(image), in BGR order)"
    )


def source_name(source: object) -> str | None:
    """Returns the path of a source, or None when it is not a path."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None


def decode_file(path: str | os.PathLike[str]) -> Image:
    """Decodes an image file as OpenCV does, turned upright by its EXIF orientation.

    16-bit files are brought to 8 bits by dropping the low byte; transparency is dropped.

    Raises:
        InputError: The file cannot be read, or is no image that OpenCV knows.
    """
    check_no_address(os.fspath(path))
    path = Path(path)
    try:
        encoded = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        advice = "give the path of an image file"
        if isinstance(error, IsADirectoryError):
            advice = "give the paths of the images in it; the command `tvmdet detect` takes folders"
        raise InputError(f"image {path} cannot be read: {reason}; {advice}") from error
    if not encoded:
        raise InputError(f"image {path} is an empty file; give the path of an image file")
    video = ""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        video = f"{path} is a video: detect_video(path) goes through its frames"
    return _decode(encoded, f"image {path}", video)


def _decode(encoded: bytes, name: str, otherwise: str = "") -> Image:
    """Decodes the bytes of a file; ``otherwise`` says what they are when they are no image."""
    # IMREAD_ANYDEPTH keeps 16 bits, so that files and arrays take the same way to 8.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{name} cannot be decoded: {error.err or error}; {_FORMATS}") from error
    if image is None:
        raise InputError(
            otherwise
            or f"{name} cannot be decoded ({len(encoded)} bytes, cut short or of an "
            f"unknown format); {_FORMATS}"
        )
    if image.dtype not in _WHOLE:
        raise InputError(
            f"{name} holds {image.dtype} pixels; allowed: 8 or 16 bits a channel: convert it first"
        )
    return as_bgr(image)


_FORMATS = "allowed: what OpenCV reads, such as JPEG, PNG, WebP, TIFF and BMP"


def as_bgr(array: npt.NDArray[Any]) -> Image:
    """Returns an image array as contiguous BGR uint8; the same array when it is that already.

    Args:
        array: HxWx3 BGR, HxWx4 BGRA (transparency is dropped), HxWx1 or HxW grey; uint8, or
            uint16, of which the high byte is kept.

    Raises:
        InputError: The array has another shape or type, or no pixels.
    """
    if not isinstance(array, np.ndarray):
        raise InputError(f"an image is a {type(array).__name__}, not a numpy array; {_ALLOWED}")
    if array.dtype not in _WHOLE:
        raise InputError(
            f"an image has dtype {array.dtype}; {_ALLOWED} "
            "(an image of floats 0 to 1: (image * 255).astype(np.uint8))"
        )
    if array.ndim == 4:
        raise InputError(
            f"an image has shape {array.shape}; {_ALLOWED} (several images: pass a list of them)"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(f"an image has shape {array.shape}; {_ALLOWED}")
    if array.size == 0:
        raise InputError(f"an image has shape {array.shape}, without a pixel; {_ALLOWED}")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.ndim == 2 or array.shape[2] == 1:
        array = np.broadcast_to(array.reshape(*array.shape[:2], 1), (*array.shape[:2], 3))
    return np.ascontiguousarray(array[:, :, :3])
