"""An image written into its place in the network's input, the same on every machine.

OpenCV resizes bilinearly in whole numbers of 11 bits, which is what most detectors are trained
with. On ARM its wheels leave that to KleidiCV, which rounds otherwise: up to a third of the pixels
is one level off, which moved the scores of a YOLOv8n by 0.015. KleidiCV takes up to four channels;
with five, OpenCV's own code runs there too. Where a picture grows bicubically Intel's library does
it on x86-64, and one pixel in twenty is a level off elsewhere.

Bilinear values of a picture that shrinks a lot come of few of its pixels. Frameworks that resize
with Pillow or with torchvision's antialias weigh all of them; OpenCV's mean over areas is nearest.
"""

from __future__ import annotations

import platform
from typing import Final

import cv2
import numpy as np

from tvmdet.boxes import ImageTransform
from tvmdet.runtime.images import Image
from tvmdet.spec import Interpolation

__all__ = ["place_image", "resize_in_own_code"]

# Where OpenCV resizes three channels by its own code.
_OWN_CODE: Final = platform.machine() == "x86_64"

_FLAGS: Final = {
    "bicubic": cv2.INTER_CUBIC,
    "bilinear": cv2.INTER_LINEAR,
    "nearest": cv2.INTER_NEAREST,
}


def place_image(
    image: Image,
    transform: ImageTransform,
    border: int | tuple[int, int, int],
    out: Image,
    interpolation: Interpolation = "bilinear",
) -> None:
    """Resizes an image into ``out`` and fills the border around it.

    Every pixel of ``out`` is written, and nothing is allocated.

    Args:
        image: BGR, of the size that the transform was made for.
        transform: Where the picture goes.
        border: Its grey level, 0 to 255, or blue, green and red.
        out: uint8 ``[H, W, 3]`` of the network's size, such as one row of a batch.
        interpolation: Where its pixels come from; see :class:`tvmdet.spec.InputSpec`.
    """
    if interpolation == "warp":
        _warp(image, transform, border, out)
        return
    (height, width), (left, top) = transform.resized_size_hw, transform.offset_xy
    bottom, right = top + height, left + width
    out[:top] = border
    out[bottom:] = border
    out[top:bottom, :left] = border
    out[top:bottom, right:] = border
    picture = out[top:bottom, left:right]
    if image.shape[:2] == (height, width):
        picture[...] = image
        return
    flag = _flag(interpolation, image.shape[:2], (height, width))
    scale = transform.picture_scale or 0.0
    if not _OWN_CODE:
        picture[...] = resize_in_own_code(image, (height, width), flag, scale)
        return
    resized = _resize(image, (height, width), flag, scale, picture)
    # OpenCV writes into dst when it fits, which a version of it may see otherwise.
    if resized.ctypes.data != picture.ctypes.data:
        picture[...] = resized


def _resize(
    image: Image, size_hw: tuple[int, int], flag: int, scale: float = 0.0, out: Image | None = None
) -> Image:
    """Returns an image resized to a size, or by a scale that gives this size, into ``out``."""
    # OpenCV rounds half to even as well; what that makes nothing of has its least size.
    exact = bool(scale) and size_hw == tuple(round(side * scale) for side in image.shape[:2])
    size, by = (None, scale) if exact else (size_hw[::-1], 0.0)
    resized: Image = cv2.resize(image, size, dst=out, fx=by, fy=by, interpolation=flag)
    return resized


def _warp(
    image: Image, transform: ImageTransform, border: int | tuple[int, int, int], out: Image
) -> None:
    """Fills ``out`` as CenterNet and NanoDet do: pixel centres, not corners, are scaled."""
    (scale_x, scale_y), (left, top) = transform.scale_xy, transform.box_offset_xy
    matrix = np.array([[scale_x, 0, left], [0, scale_y, top]], np.float64)
    levels = (border, border, border) if isinstance(border, int) else border
    height, width = transform.network_size_hw
    warped = cv2.warpAffine(
        image, matrix, (width, height), dst=out, flags=cv2.INTER_LINEAR, borderValue=levels
    )
    if warped.ctypes.data != out.ctypes.data:
        out[...] = warped


def _flag(interpolation: Interpolation, image_hw: tuple[int, ...], size_hw: tuple[int, int]) -> int:
    """Returns OpenCV's number of an interpolation: areas have a mean where both sides shrink."""
    if interpolation != "area":
        return _FLAGS[interpolation]
    shrinks = all(new <= old for new, old in zip(size_hw, image_hw, strict=True))
    return cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR


def resize_in_own_code(
    image: Image, size_hw: tuple[int, int], flag: int = cv2.INTER_LINEAR, scale: float = 0.0
) -> Image:
    """Returns a BGR image resized by OpenCV's own code, whatever the machine.

    The same pixels as those of ``cv2.resize`` on x86-64, but for some where a picture grows
    bicubically; its ``INTER_LINEAR`` takes the mean of four where both sides are halved.

    Args:
        image: uint8 ``[H, W, 3]``.
        size_hw: Its new height and width.
        flag: OpenCV's number of the interpolation.
        scale: By what it is resized, where that is not what the size says.
    """
    height, width = size_hw
    is_halved = image.shape[:2] == (2 * height, 2 * width)
    if is_halved and flag in (cv2.INTER_AREA, cv2.INTER_LINEAR):
        halved: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return halved
    wide = np.empty((*image.shape[:2], 5), np.uint8)
    cv2.mixChannels([image], [wide], [0, 0, 1, 1, 2, 2, 0, 3, 0, 4])
    return _resize(wide, size_hw, flag, scale)[..., :3]
