"""Pictures of shapes with COCO annotations, drawn from a seed: what the trained detectors learn.

Circles, rectangles and triangles of any colour, size and turn on noise, with lines that are no
objects. A shape may hide part of another, never most of it. numpy and OpenCV only: the pictures
are drawn where they are needed and never stored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

LABELS = ("circle", "rectangle", "triangle")
SIDES_PX = (96, 160)  # of a picture
RADIUS_PX = (8, 32)
MOST_SHAPES = 6
LEAST_VISIBLE = 0.6  # of each shape, as a share of its area
LEAST_CONTRAST = 70.0  # grey levels between a shape and what is behind it


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One object.

    Attributes:
        class_id: Index into ``LABELS``.
        mask: bool ``[H, W]``, the pixels that are seen of it.
        outline_xy: Corners of the whole shape, int ``[n, 2]``.
        is_whole: Whether nothing hides any of it.
    """

    class_id: int
    mask: np.ndarray
    outline_xy: np.ndarray
    is_whole: bool

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """The box around what is seen, its far edges behind the last pixel."""
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn picture.

    Attributes:
        pixels: uint8 ``[H, W, 3]``, BGR.
        shapes: The objects in it, possibly none.
    """

    pixels: np.ndarray
    shapes: tuple[Shape, ...]


def draw(seed: int | Sequence[int], size_hw: tuple[int, int] | None = None) -> Picture:
    """Draws a picture; the same seed and size make the same one.

    Args:
        seed: Where the random numbers begin.
        size_hw: Height and width; None for random ones.
    """
    rng = np.random.default_rng(seed)
    height, width = size_hw or rng.integers(SIDES_PX[0], SIDES_PX[1] + 1, 2)
    pixels = _background(rng, int(height), int(width))
    placed: list[tuple[int, np.ndarray, np.ndarray]] = []
    for _ in range(rng.integers(MOST_SHAPES + 1)):
        class_id = int(rng.integers(len(LABELS)))
        outline = _outline(rng, class_id, int(height), int(width))
        mask = _filled(outline, pixels.shape[:2])
        seen = [(old & ~mask, _filled(corners, mask.shape)) for _, corners, old in placed]
        if any(part.sum() < LEAST_VISIBLE * whole.sum() for part, whole in seen):
            continue
        placed = [(i, c, old & ~mask) for i, c, old in placed] + [(class_id, outline, mask)]
        _paint(rng, pixels, mask)
    noise = rng.normal(0, rng.uniform(2, 12), pixels.shape)
    shapes = [
        Shape(
            class_id=class_id,
            mask=mask,
            outline_xy=outline,
            is_whole=bool((mask == _filled(outline, mask.shape)).all()),
        )
        for class_id, outline, mask in placed
    ]
    return Picture(pixels=np.clip(pixels + noise, 0, 255).astype(np.uint8), shapes=tuple(shapes))


def write_coco(folder: Path, count: int, *, seed: int) -> Path:
    """Draws pictures into a folder, with their annotations beside them.

    A shape that is whole is annotated by its polygon, one that is partly hidden by run lengths.

    Args:
        folder: Receives ``0000.png``, ``0001.png``, ... and ``instances.json``; it is made.
        count: How many pictures.
        seed: Of the first one.

    Returns:
        The path of ``instances.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        picture = draw((seed, index))
        name = f"{index:04d}.png"
        assert cv2.imwrite(str(folder / name), picture.pixels)
        height, width = picture.pixels.shape[:2]
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for shape in picture.shapes:
            x1, y1, x2, y2 = shape.box_xyxy
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": shape.class_id + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(shape.mask.sum()),
                    "iscrowd": 0,
                    "segmentation": _polygon(shape) if shape.is_whole else run_lengths(shape.mask),
                }
            )
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(LABELS)]
    path = folder / "instances.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories}),
        encoding="utf-8",
    )
    return path


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Returns a mask as COCO's uncompressed run lengths: down the columns, zeros first."""
    flat = mask.T.reshape(-1).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A coarse pattern around one colour, with lines that are no objects."""
    base = rng.uniform(30, 225, 3)
    coarse = rng.normal(0, rng.uniform(5, 30), (rng.integers(2, 8), rng.integers(2, 8), 3))
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    pixels = np.clip(base + smooth, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(5)):
        ends = rng.integers(0, (width, height), (2, 2))
        color = [int(c) for c in rng.integers(0, 256, 3)]
        cv2.line(pixels, ends[0].tolist(), ends[1].tolist(), color, int(rng.integers(1, 3)))
    return pixels


def _outline(rng: np.random.Generator, class_id: int, height: int, width: int) -> np.ndarray:
    """Corners of a shape that lies within the picture."""
    radius = float(np.exp(rng.uniform(*np.log(RADIUS_PX))))
    radius = min(radius, height / 2 - 2, width / 2 - 2)
    if LABELS[class_id] == "circle":
        angles = np.arange(40) * (2 * np.pi / 40)
    elif LABELS[class_id] == "rectangle":
        half = np.arctan(rng.uniform(0.45, 1.0))
        angles = np.array([half, np.pi - half, np.pi + half, -half])
    else:
        angles = np.arange(3) * (2 * np.pi / 3) + rng.uniform(-0.35, 0.35, 3)
    angles = angles + rng.uniform(0, 2 * np.pi)
    center = rng.uniform((radius, radius), (width - 1 - radius, height - 1 - radius))
    corners = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.round(corners).astype(np.int32)


def _filled(outline_xy: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [outline_xy], 1)
    return mask.astype(bool)


def _paint(rng: np.random.Generator, pixels: np.ndarray, mask: np.ndarray) -> None:
    """Fills a mask with a colour that stands out from what was there."""
    behind = pixels[mask].mean(axis=0)
    color = rng.uniform(0, 255, 3)
    while np.linalg.norm(color - behind) < LEAST_CONTRAST:
        color = rng.uniform(0, 255, 3)
    pixels[mask] = color.astype(np.uint8)


def _polygon(shape: Shape) -> list[list[float]]:
    # OpenCV fills the pixels under the outline too, half a pixel around it.
    center = shape.outline_xy.mean(axis=0)
    outward = np.sign(shape.outline_xy - center) * 0.5
    return [(shape.outline_xy + 0.5 + outward).reshape(-1).tolist()]
