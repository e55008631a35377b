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
    if not _OWN_CODE:
        picture[...] = resize_in_own_code(image, (height, width), flag)
        return
    resized = cv2.resize(image, (width, height), dst=picture, interpolation=flag)
    # OpenCV writes into dst when it fits, which a version of it may see otherwise.
    if resized.ctypes.data != picture.ctypes.data:
        picture[...] = resized


def _flag(interpolation: Interpolation, image_hw: tuple[int, ...], size_hw: tuple[int, int]) -> int:
    """Returns OpenCV's number of an interpolation: areas have a mean where both sides shrink."""
    if interpolation != "area":
        return _FLAGS[interpolation]
    shrinks = all(new <= old for new, old in zip(size_hw, image_hw, strict=True))
    return cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR


def resize_in_own_code(
    image: Image, size_hw: tuple[int, int], flag: int = cv2.INTER_LINEAR
) -> Image:
    """Returns a BGR image resized by OpenCV's own code, whatever the machine.

    The same pixels as those of ``cv2.resize`` on x86-64, but for some where a picture grows
    bicubically; its ``INTER_LINEAR`` takes the mean of four where both sides are halved.

    Args:
        image: uint8 ``[H, W, 3]``.
        size_hw: Its new height and width.
        flag: OpenCV's number of the interpolation.
    """
    height, width = size_hw
    is_halved = image.shape[:2] == (2 * height, 2 * width)
    if is_halved and flag in (cv2.INTER_AREA, cv2.INTER_LINEAR):
        halved: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return halved
    wide = np.empty((*image.shape[:2], 5), np.uint8)
    cv2.mixChannels([image], [wide], [0, 0, 1, 1, 2, 2, 0, 3, 0, 4])
    resized: Image = cv2.resize(wide, (width, height), interpolation=flag)[..., :3]
    return resized
