"""Batches of drawn shapes for training, prepared as the networks will see pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import shapes
import torch
from torch import Tensor

SIZE = 128  # height and width of every network's input, in pixels
FIRST_SEED = 1  # of the training pictures; no test draws with it
_PADDINGS = ("stretch", "center", "top_left")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Prepared pictures and what is in them.

    Attributes:
        images: float32 ``[N, 3, SIZE, SIZE]``, RGB, 0 to 1.
        boxes: Per picture float32 ``[n, 4]``, x1 y1 x2 y2 in pixels.
        classes: Per picture int64 ``[n]``.
        masks: Per picture bool ``[n, SIZE, SIZE]``.
    """

    images: Tensor
    boxes: list[Tensor]
    classes: list[Tensor]
    masks: list[Tensor]


class Pool:
    """Pictures that are drawn once, and turned and recoloured every time they are used."""

    def __init__(self, count: int) -> None:
        self._rng = np.random.default_rng(FIRST_SEED)
        self._pictures = [self._prepare(shapes.draw((FIRST_SEED, i))) for i in range(count)]

    def batch(self, size: int) -> Batch:
        """Returns random pictures."""
        images, boxes, classes, masks = [], [], [], []
        for index in self._rng.integers(0, len(self._pictures), size):
            pixels, seen, ids = self._pictures[index]
            turns, flip = self._rng.integers(4), self._rng.integers(2)
            pixels = pixels[..., self._rng.permutation(3)]
            pixels, seen = np.rot90(pixels, turns), np.rot90(seen, turns, axes=(1, 2))
            if flip:
                pixels, seen = pixels[:, ::-1], seen[:, :, ::-1]
            images.append(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))))
            masks.append(torch.from_numpy(np.ascontiguousarray(seen)))
            boxes.append(torch.from_numpy(_boxes_of(seen)))
            classes.append(torch.from_numpy(ids))
        return Batch(
            images=torch.stack(images).float() / 255, boxes=boxes, classes=classes, masks=masks
        )

    def _prepare(self, picture: shapes.Picture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns RGB bytes, masks ``[n, SIZE, SIZE]`` and class ids."""
        height, width = picture.pixels.shape[:2]
        how = _PADDINGS[self._rng.integers(len(_PADDINGS))]
        ratio = SIZE / max(height, width)
        sides = (SIZE, SIZE) if how == "stretch" else (round(height * ratio), round(width * ratio))
        top, left = ((SIZE - side) // 2 if how == "center" else 0 for side in sides)
        pixels = np.full((SIZE, SIZE, 3), self._rng.choice((0, 114)), np.uint8)
        inside = np.s_[top : top + sides[0], left : left + sides[1]]
        pixels[inside] = cv2.resize(picture.pixels, sides[::-1])[..., ::-1]
        masks = np.zeros((len(picture.shapes), SIZE, SIZE), bool)
        for mask, shape in zip(masks, picture.shapes, strict=True):
            mask[inside] = cv2.resize(shape.mask.astype(np.float32), sides[::-1]) > 0.5
        kept = masks.any(axis=(1, 2))
        ids = np.array([shape.class_id for shape in picture.shapes], np.int64)
        return pixels, masks[kept], ids[kept]


def _boxes_of(masks: np.ndarray) -> np.ndarray:
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
