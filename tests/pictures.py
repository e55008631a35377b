"""Real pictures for tests: the photographs and pages inside scikit-image's wheel, and variants.

Only files that the wheel holds are used, read with OpenCV: ``skimage.data`` would download what
is missing.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

PHOTOGRAPHS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg")
PAGES = ("page.png", "text.png", "coins.png")


def folder() -> Path:
    """Where scikit-image keeps its pictures; skips the test where it is not installed."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        pytest.skip("scikit-image is not installed: pip install scikit-image")
    return Path(found.origin).parent / "data"


@functools.cache
def read(name: str) -> np.ndarray:
    """One picture as OpenCV reads it: uint8 [H, W, 3], BGR; do not write to it."""
    image = cv2.imread(str(folder() / name), cv2.IMREAD_COLOR)
    assert image is not None, f"scikit-image has no {name} that OpenCV can read"
    image.setflags(write=False)
    return image


def variants() -> dict[str, np.ndarray]:
    """At least twenty pictures of many sizes, by a name that says what was done to them."""
    made = {"grey 114": np.full((240, 320, 3), 114, np.uint8)}
    made |= {name: read(name) for name in (*PHOTOGRAPHS, *PAGES)}
    astronaut, coffee, page = read("astronaut.png"), read("coffee.png"), read("page.png")
    rocket, cat, text = read("rocket.jpg"), read("chelsea.png"), read("text.png")
    made |= {
        "astronaut turned left": np.ascontiguousarray(np.rot90(astronaut)),
        "astronaut upside down": np.ascontiguousarray(astronaut[::-1]),
        "astronaut's face": np.ascontiguousarray(astronaut[0:221, 120:333]),
        "astronaut, 161 x 97": cv2.resize(astronaut, (97, 161), interpolation=cv2.INTER_AREA),
        "astronaut in a wide frame": pad(astronaut, 10, 10, 300, 401),
        "coffee, larger": cv2.resize(coffee, (1201, 803)),
        "coffee mirrored": np.ascontiguousarray(coffee[:, ::-1]),
        "page, larger": cv2.resize(page, None, fx=3.1, fy=3.1, interpolation=cv2.INTER_CUBIC),
        "page's first lines": np.ascontiguousarray(page[:97]),
        "page in a white frame": pad(page, 200, 333, 57, 58, 255),
        "page turned a little": turn(page, 7.0),
        "rocket, a strip": np.ascontiguousarray(rocket[:, 300:341]),
        "cat turned right": np.ascontiguousarray(np.rot90(cat, -1)),
        "cat, a corner": np.ascontiguousarray(cat[-151:, -203:]),
        "text over a page": np.concatenate([page, cv2.resize(text, (page.shape[1], 140))]),
        "two photographs": np.hstack(
            [cv2.resize(astronaut, (400, 400)), cv2.resize(coffee, (600, 400))]
        ),
    }
    assert len(made) >= 20
    return made


def pad(
    image: np.ndarray, top: int, bottom: int, left: int, right: int, grey: int = 0
) -> np.ndarray:
    """The picture in a frame."""
    border = (grey, grey, grey)
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=border)


def turn(image: np.ndarray, degrees: float) -> np.ndarray:
    """The picture turned about its centre, in a frame of its own size."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return cv2.warpAffine(image, matrix, (width, height), borderValue=(255, 255, 255))
