"""An image written into its place in the network's input."""

from __future__ import annotations

import cv2

from tvmdet.boxes import ImageTransform
from tvmdet.runtime.images import Image

__all__ = ["place_image"]


def place_image(
    image: Image,
    transform: ImageTransform,
    border: int | tuple[int, int, int],
    out: Image,
) -> None:
    """Resizes an image bilinearly into ``out`` and fills the border around it.

    Every pixel of ``out`` is written, and nothing is allocated.

    Args:
        image: BGR, of the size that the transform was made for.
        transform: Where the picture goes.
        border: Its grey level, 0 to 255, or blue, green and red.
        out: uint8 ``[H, W, 3]`` of the network's size, such as one row of a batch.
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
    resized = cv2.resize(image, (width, height), dst=picture, interpolation=cv2.INTER_LINEAR)
    # OpenCV writes into dst when it fits, which a version of it may see otherwise.
    if resized.ctypes.data != picture.ctypes.data:
        picture[...] = resized
