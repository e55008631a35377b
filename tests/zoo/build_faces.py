"""Detectors of faces as their authors export them: one class, and landmarks beside each box.

Each decoding here is numpy, from the code named beside it, and shares nothing with tvmdet's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from blocks import Backbone, draw_weights, grid, images_like
from built import Arrays, Built, Candidates, centered, sigmoid
from torch import Tensor, nn

__all__ = ["NETWORKS"]

SIZE_HW = (128, 192)
BLAZEFACE_HW = (128, 128)
WIDTH = 16
STRIDES = (8, 16, 32)
POINTS = 10  # coordinates of five landmarks


def _rows(features: Tensor, columns: int) -> Tensor:
    """Returns ``[N, cells * anchors, columns]`` of a map of ``anchors * columns`` channels."""
    return features.permute(0, 2, 3, 1).reshape(features.shape[0], -1, columns)


class SCRFD(nn.Module):
    """Scores, distances in strides and landmarks of two anchors a cell, without the batch.

    insightface's detection/scrfd (SCRFDHead.forward_single while exporting): a picture's rows.
    """

    anchors = 2

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(WIDTH, nn.ReLU)
        self.scores = nn.ModuleList([nn.Conv2d(WIDTH, self.anchors, 3, 1, 1)])
        self.moves = nn.ModuleList([nn.Conv2d(WIDTH, 4 * self.anchors, 3, 1, 1)])
        self.points = nn.Conv2d(WIDTH, POINTS * self.anchors, 3, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(images)
        scores = [_rows(self.scores[0](one), 1)[0].sigmoid() for one in maps]
        boxes = [_rows(self.moves[0](one).exp(), 4)[0] for one in maps]
        points = [_rows(self.points(one), POINTS)[0] for one in maps]
        return (*scores, *boxes, *points)


class YuNet(nn.Module):
    """Class, objectness, box and landmarks of every cell (ShiqiYu/libfacedetection.train)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(WIDTH, nn.ReLU)
        self.scores = nn.ModuleList(nn.Conv2d(WIDTH, 1, 3, 1, 1) for _ in range(2))
        self.moves = nn.ModuleList([nn.Conv2d(WIDTH, 4, 3, 1, 1)])
        self.points = nn.Conv2d(WIDTH, POINTS, 3, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(images)
        classes, objects = (
            [_rows(layer(one), 1).sigmoid() for one in maps] for layer in self.scores
        )
        boxes = [_rows(self.moves[0](one), 4) for one in maps]
        points = [_rows(self.points(one), POINTS) for one in maps]
        return (*classes, *objects, *boxes, *points)


class CenterFace(nn.Module):
    """Heat map, log sides, shifts and landmarks at stride 4 (Star-Clouds/CenterFace)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.up = Backbone(WIDTH, nn.ReLU), nn.Upsample(scale_factor=2)
        self.scores = nn.ModuleList([nn.Conv2d(WIDTH, 1, 1)])
        self.moves = nn.ModuleList([nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(WIDTH, 2, 1)])
        self.points = nn.Conv2d(WIDTH, POINTS, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.up(self.backbone(images)[0])
        sides, shifts = (layer(features).tanh() for layer in self.moves)
        heat = self.scores[0](features).sigmoid()
        return heat, sides * 0.5 + 1.5, shifts * 0.4, self.points(features)


class BlazeFace(nn.Module):
    """Boxes in pixels with six landmarks, and logits (hollance/BlazeFace-PyTorch, blazeface.py)."""

    anchors = (2, 6)

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(WIDTH, nn.ReLU)
        self.scores = nn.ModuleList(nn.Conv2d(WIDTH, count, 1) for count in self.anchors)
        self.moves = nn.ModuleList(nn.Conv2d(WIDTH, 16 * count, 1) for count in self.anchors)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.backbone(images)[:2]
        boxes = [_rows(layer(one), 16) for layer, one in zip(self.moves, maps, strict=True)]
        logits = [_rows(layer(one), 1) for layer, one in zip(self.scores, maps, strict=True)]
        rows = torch.cat(boxes, 1)
        sizes = rows[..., 2:4].exp() * 20
        return torch.cat([rows[..., :2] * 6, sizes, rows[..., 4:]], 2), torch.cat(logits, 1)


def _cells(size_hw: tuple[int, int], stride: int, offset: float = 0.0) -> np.ndarray:
    """Returns x and y of every cell ``[A, 2]``, in cells."""
    height, width = (side // stride for side in size_hw)
    return grid(height, width, offset).view(-1, 2).numpy()


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Candidates:
    boxes, scores, points = (np.concatenate(kind) for kind in zip(*parts, strict=True))
    return Candidates(
        boxes=boxes.astype(np.float32), scores=scores, points=points.reshape(len(boxes), -1, 2)
    )


def _scrfd(outputs: Arrays) -> Candidates:
    """python-package/insightface/model_zoo/scrfd.py: SCRFD.forward, distance2bbox, distance2kps."""
    values, parts = list(outputs.values()), []
    for level, stride in enumerate(STRIDES):
        scores, distances = values[level], values[level + 3] * stride
        points = (_cells(SIZE_HW, stride) * stride).repeat(SCRFD.anchors, axis=0)
        corners = [points - distances[:, :2], points + distances[:, 2:]]
        marks = values[level + 6].reshape(len(points), 5, 2) * stride + points[:, None]
        parts.append((np.concatenate(corners, axis=1), scores, marks))
    return _joined(parts)


def _yunet(outputs: Arrays) -> Candidates:
    """modules/objdetect/src/face_detect.cpp: FaceDetectorYNImpl::postProcess."""
    values, parts = [value[0] for value in outputs.values()], []
    for level, stride in enumerate(STRIDES):
        classes, objects, boxes, marks = (values[level + 3 * kind] for kind in range(4))
        center = (_cells(SIZE_HW, stride) + boxes[:, :2]) * stride
        size = np.exp(boxes[:, 2:]) * stride
        scores = np.sqrt(np.clip(classes, 0, 1) * np.clip(objects, 0, 1))
        marks = marks.reshape(len(boxes), 5, 2) + _cells(SIZE_HW, stride)[:, None]
        parts.append((centered(np.concatenate([center, size], axis=1)), scores, marks * stride))
    return _joined(parts)


def _centerface(outputs: Arrays) -> Candidates:
    """prj-python/centerface.py: decode, without moving boxes that start outside the picture."""
    heat, sides, shifts, marks = (
        value[0].reshape(len(value[0]), -1).T for value in outputs.values()
    )
    center = (_cells(SIZE_HW, 4) + shifts[:, ::-1] + 0.5) * 4
    size = np.exp(sides[:, ::-1]) * 4
    boxes = centered(np.concatenate([center, size], axis=1))
    points = np.stack([marks[:, 1::2], marks[:, 0::2]], axis=-1)
    points = points * size[:, None] + boxes[:, None, :2]
    return Candidates(boxes=boxes.astype(np.float32), scores=heat, points=points)


def _blazeface(outputs: Arrays) -> Candidates:
    """blazeface.py: _decode_boxes, _tensors_to_detections; anchors of a fixed size of 1."""
    rows, logits = (value[0] for value in outputs.values())
    levels = zip((8, 16), BlazeFace.anchors, strict=True)
    centers = np.concatenate(
        [(_cells(BLAZEFACE_HW, s, 0.5) * s).repeat(count, axis=0) for s, count in levels]
    )
    boxes = centered(np.concatenate([rows[:, :2] + centers, rows[:, 2:4]], axis=1))
    return Candidates(
        boxes=boxes.astype(np.float32),
        scores=sigmoid(np.clip(logits, -100, 100)),
        points=rows[:, 4:].reshape(len(rows), 6, 2) + centers[:, None],
    )


def _build(
    make: Callable[[], nn.Module],
    decode: Callable[[Arrays], Candidates],
    outputs: Sequence[str],
    *,
    mean: float = 0.0,
    std: float = 1.0,
    color: str = "rgb",
    size_hw: tuple[int, int] = SIZE_HW,
) -> Callable[[], Built]:
    def build() -> Built:
        model = make()
        images = (images_like(size_hw) * 255 - mean) / std
        draw_weights(model, images, scores=[*model.scores], moves=[*model.moves])
        return Built(
            model=model,
            arguments=(images[:1],),
            inputs=("input.1",),
            outputs=tuple(outputs),
            size_hw=size_hw,
            classes=1,
            decode=decode,
            mean=(mean,) * 3,
            std=(std,) * 3,
            color=color,
            feed=lambda pixels: {"input.1": pixels[None]},
        )

    return build


def _levels(*kinds: str) -> list[str]:
    return [f"{kind}_{stride}" for kind in kinds for stride in STRIDES]


NETWORKS = {
    # The authors' outputs have numbers for names, which say as little.
    "scrfd": _build(
        SCRFD,
        _scrfd,
        [f"o{number}" for number in (448, 471, 494, 451, 474, 497, 454, 477, 500)],
        mean=127.5,
        std=128.0,
    ),
    "yunet": _build(YuNet, _yunet, _levels("cls", "obj", "bbox", "kps"), color="bgr"),
    "centerface": _build(CenterFace, _centerface, ["o537", "o538", "o539", "o540"]),
    "blazeface": _build(
        BlazeFace,
        _blazeface,
        ["regressors", "classificators"],
        mean=127.5,
        std=127.5,
        size_hw=BLAZEFACE_HW,
    ),
}
