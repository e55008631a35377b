"""The pictures that a build is checked on: the user's own, or drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from tvmdet.errors import InputError
from tvmdet.runtime.images import decode_file
from tvmdet.suffixes import IMAGE_SUFFIXES

__all__ = ["NamedImage", "draw_images", "read_images"]

_MAX_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class NamedImage:
    """A picture and what to call it in a message.

    Attributes:
        name: File name, or what was drawn.
        pixels: uint8 ``[H, W, 3]``, BGR.
    """

    name: str
    pixels: npt.NDArray[np.uint8]


def read_images(folder: Path) -> list[NamedImage]:
    """Reads the pictures of a folder, the first 64 by name.

    Raises:
        InputError: The folder is missing, holds no picture, or one cannot be decoded.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give --images a folder of pictures")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        looked_for = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{folder} holds no picture; looked for {looked_for}")
    return [NamedImage(name=p.name, pixels=decode_file(p)) for p in paths[:_MAX_IMAGES]]


def draw_images(size_hw: tuple[int, int], seed: int = 0) -> Sequence[NamedImage]:
    """Draws eight pictures of several sizes: shapes, text, gradients, noise, and plain grey.

    They are the same on every machine. A detector finds little in them at its usual threshold;
    the check lowers it until there is something to compare.
    """
    rng = np.random.default_rng(seed)
    height, width = size_hw
    grey = np.full((height, width, 3), 114, np.uint8)
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    drawn = [
        NamedImage(name="grey", pixels=grey),
        NamedImage(name="noise", pixels=noise),
        NamedImage(name="gradient", pixels=_gradient(height // 2 + 1, width)),
        NamedImage(name="page", pixels=_page(rng, max(height, 200) * 5 // 4, max(width, 200))),
    ]
    drawn += [
        NamedImage(name=f"shapes {i}", pixels=_shapes(rng, (height * a) // b, (width * c) // d))
        for i, (a, b, c, d) in enumerate(((1, 1, 1, 1), (3, 4, 5, 4), (2, 1, 3, 2), (1, 2, 1, 3)))
    ]
    return drawn


def _gradient(height: int, width: int) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    channels = (
        rows * 255 // max(height - 1, 1),
        columns * 255 // max(width - 1, 1),
        rows ^ columns,
    )
    return np.stack([c & 255 for c in channels], axis=-1).astype(np.uint8)


def _shapes(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    height, width = max(height, 16), max(width, 16)
    picture = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for kind in range(14):
        color = [int(v) for v in rng.integers(0, 256, 3)]
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        a, b = (int(rng.integers(4, max(min(height, width) // 3, 5))) for _ in range(2))
        if kind % 3 == 0:
            cv2.rectangle(picture, (x, y), (x + a, y + b), color, cv2.FILLED)
        elif kind % 3 == 1:
            cv2.ellipse(picture, (x, y), (a, b), float(rng.integers(180)), 0, 360, color, -1)
        else:
            corners = np.array([[x, y], [x + a, y - b], [x - b, y + a]], np.int32)
            cv2.fillPoly(picture, [corners], color)
    noisy = cv2.GaussianBlur(picture, (3, 3), 0).astype(np.int16)
    noisy += rng.integers(-8, 9, noisy.shape, np.int16)
    picture[...] = np.clip(noisy, 0, 255)
    return picture


def _page(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Draws a page: a title, two columns of words, a figure and a table."""
    page = np.full((height, width, 3), 250, np.uint8)
    margin, line = width // 16, max(height // 60, 4)
    scale = line / 28
    cv2.putText(page, "A title of some words", (margin, 4 * line), 0, 2.4 * scale, (20, 20, 20), 2)
    middle = width // 2
    for left, right in ((margin, middle - margin // 2), (middle + margin // 2, width - margin)):
        for y in range(7 * line, 30 * line, 2 * line):
            x = left
            while x < right - 3 * line:
                word = int(rng.integers(line, 5 * line))
                cv2.rectangle(page, (x, y), (min(x + word, right), y + line), (40, 40, 40), -1)
                x += word + line
    figure = _gradient(18 * line, middle - 2 * margin)
    top = 33 * line
    room = page[top : top + figure.shape[0], margin : margin + figure.shape[1]]
    room[...] = figure[: room.shape[0], : room.shape[1]]
    for index in range(7):
        y, x = top + index * 3 * line, middle + index * (middle - margin) // 6
        cv2.line(page, (middle, y), (width - margin, y), (0, 0, 0), 1)
        cv2.line(page, (x, top), (x, top + 18 * line), (0, 0, 0), 1)
    return page
