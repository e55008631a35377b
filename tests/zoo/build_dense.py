"""Dense heads as MMDetection, PaddleDetection and the authors' repositories export them, raw.

Each decoding here is numpy, from the code named beside it, and shares nothing with tvmdet's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from blocks import Backbone, conv_unit, draw_weights, grid, images_like, prefer_short
from built import Arrays, Built, Candidates, centered, sigmoid, softmax
from torch import Tensor, nn

__all__ = ["NETWORKS"]

CLASSES = 6
SIZE_HW = (128, 192)
WIDTH = 16
FIVE = (8, 16, 32, 64, 128)
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
CAFFE = {"mean": (102.9801, 115.9465, 122.7717), "std": (1.0, 1.0, 1.0), "color": "bgr"}
RTMDET = {"mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395), "color": "bgr"}
# torch.clamp of the growth in delta2bbox: abs(log(16 / 1000)).
LARGEST_LOG = float(np.log(1000 / 16))


class DenseHeads(nn.Module):
    """A pyramid, and the same layers at each level, as one-stage detectors have them.

    Outputs are all class maps, all box maps, all quality maps, finest level first, as
    MMDetection's ``bbox_head(features)`` gives them.

    Args:
        strides: Of the levels, doubling from 8.
        boxes: Channels of a level's box map.
        anchors: Of a cell.
        quality: Whether there is a centerness or IoU.
        finish: Done to a box map of a level and stride, in the network.
        flat: Whether maps are ``[N, cells, channels]``, with scores through a sigmoid.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int] = FIVE,
        boxes: int = 4,
        anchors: int = 1,
        quality: bool = False,
        finish: Callable[[Tensor, int], Tensor] | None = None,
        flat: bool = False,
    ) -> None:
        super().__init__()
        self.strides, self.flat, self.finish, self.bins = tuple(strides), flat, finish, boxes // 4
        self.backbone = Backbone(WIDTH, nn.ReLU)
        extra = len(self.strides) - 3
        self.extra = nn.ModuleList(conv_unit(WIDTH, WIDTH, 3, 2, nn.ReLU) for _ in range(extra))
        self.towers = nn.ModuleList(conv_unit(WIDTH, WIDTH, 3, 1, nn.ReLU) for _ in range(2))
        self.scores = nn.ModuleList([nn.Conv2d(WIDTH, anchors * CLASSES, 3, 1, 1)])
        self.moves = nn.ModuleList([nn.Conv2d(WIDTH, anchors * boxes, 3, 1, 1)])
        self.quality = nn.ModuleList([nn.Conv2d(WIDTH, anchors, 3, 1, 1)]) if quality else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(images)
        for step in self.extra:
            maps.append(step(maps[-1]))
        parts: list[list[Tensor]] = [[], [], []]
        for features, stride in zip(maps, self.strides, strict=True):
            of_class, of_box = (tower(features) for tower in self.towers)
            parts[0].append(self.scores[0](of_class))
            box = self.moves[0](of_box)
            parts[1].append(self.finish(box, stride) if self.finish else box)
            if self.quality is not None:
                parts[2].append(self.quality[0](of_box))
        if self.flat:
            parts[0] = [part.sigmoid() for part in parts[0]]
            parts = [[part.flatten(2).permute(0, 2, 1) for part in kind] for kind in parts]
        return tuple(part for kind in parts for part in kind)


class CenterNet(nn.Module):
    """Heat map, sizes and offsets at stride 4 (xingyizhou/CenterNet, models/networks)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.up = Backbone(WIDTH, nn.ReLU), nn.Upsample(scale_factor=2)
        self.scores = nn.ModuleList([nn.Conv2d(WIDTH, CLASSES, 1)])
        self.moves = nn.ModuleList([nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(WIDTH, 2, 1)])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.up(self.backbone(images)[0])
        sizes, offsets = (layer(features) for layer in self.moves)
        return self.scores[0](features).sigmoid(), sizes.abs() * 6, offsets.sigmoid()


class EfficientDet(nn.Module):
    """All levels joined, boxes as y x h w (zylo117/Yet-Another-EfficientDet-Pytorch)."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = DenseHeads(boxes=4, anchors=9)
        self.scores, self.moves = self.heads.scores, self.heads.moves

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.heads(images)
        flat = [
            part.permute(0, 2, 3, 1).reshape(part.shape[0], -1, columns)
            for part, columns in zip(maps, [CLASSES] * 5 + [4] * 5, strict=True)
        ]
        return torch.cat(flat[5:], 1), torch.cat(flat[:5], 1).sigmoid()


class NanoDetPlus(nn.Module):
    """Scores and distributions of all cells in one output (RangiLyu/nanodet, export)."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = DenseHeads(strides=FIVE[:4], boxes=4 * 8)
        self.scores, self.moves, self.bins = self.heads.scores, self.heads.moves, 8

    def forward(self, images: Tensor) -> Tensor:
        maps = self.heads(images)
        rows = [
            torch.cat([score.sigmoid(), box], dim=1).flatten(start_dim=2)
            for score, box in zip(maps[:4], maps[4:], strict=True)
        ]
        return torch.cat(rows, dim=2).permute(0, 2, 1)


def _cells(strides: Sequence[int], offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the centres in pixels ``[A, 2]`` and the stride ``[A, 1]`` of every cell."""
    points, each = [], []
    for stride in strides:
        height, width = (-(-side // stride) for side in SIZE_HW)
        cells = grid(height, width, offset).view(-1, 2).numpy() * stride
        points.append(cells)
        each.append(np.full((len(cells), 1), stride, np.float32))
    return np.concatenate(points), np.concatenate(each)


def _rows(maps: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Returns maps ``[1, anchors * columns, h, w]`` as ``[A, columns]``."""
    return np.concatenate([part[0].transpose(1, 2, 0).reshape(-1, columns) for part in maps])


def _kinds(outputs: Arrays, levels: int) -> list[list[np.ndarray]]:
    values = list(outputs.values())
    return [values[first : first + levels] for first in range(0, len(values), levels)]


def _sides(points: np.ndarray, distances: np.ndarray) -> np.ndarray:
    return np.concatenate([points - distances[:, :2], points + distances[:, 2:]], axis=1)


def _integral(logits: np.ndarray) -> np.ndarray:
    """Expected bin of each side, ``[A, 4 * bins]`` to ``[A, 4]`` (gfl_head.py, Integral)."""
    bins = softmax(logits.reshape(len(logits), 4, -1), axis=2)
    steps = np.arange(bins.shape[2], dtype=np.float32)
    return (bins * steps).sum(axis=2)


def _gfl(outputs: Arrays) -> Candidates:
    """GFLHead: centres at multiples of the stride."""
    scores, boxes = _kinds(outputs, 5)
    points, stride = _cells(FIVE, 0.0)
    distances = _integral(_rows(boxes, boxes[0].shape[1])) * stride
    return Candidates(boxes=_sides(points, distances), scores=sigmoid(_rows(scores, CLASSES)))


def _picodet(outputs: Arrays) -> Candidates:
    """PicoDetPostProcess of PaddleDetection's deploy: centres in the middle of cells."""
    scores, boxes = (np.concatenate([part[0] for part in kind]) for kind in _kinds(outputs, 4))
    points, stride = _cells(FIVE[:4], 0.5)
    return Candidates(boxes=_sides(points, _integral(boxes) * stride), scores=scores)


def _nanodet_plus(outputs: Arrays) -> Candidates:
    """nanodet_plus_head.py: get_bboxes, centres at multiples of the stride."""
    (rows,) = outputs.values()
    points, stride = _cells(FIVE[:4], 0.0)
    distances = _integral(rows[0, :, CLASSES:]) * stride
    return Candidates(boxes=_sides(points, distances), scores=rows[0, :, :CLASSES])


def _fcos(outputs: Arrays) -> Candidates:
    """FCOSHead: distances in pixels from the middle of cells, class times centerness."""
    scores, boxes, quality = _kinds(outputs, 5)
    points, _ = _cells(FIVE, 0.5)
    both = sigmoid(_rows(scores, CLASSES)) * sigmoid(_rows(quality, 1))
    return Candidates(boxes=_sides(points, _rows(boxes, 4)), scores=both)


def _rtmdet(outputs: Arrays) -> Candidates:
    """RTMDetSepBNHead: distances in pixels from multiples of the stride."""
    scores, boxes = _kinds(outputs, 3)
    points, _ = _cells(FIVE[:3], 0.0)
    return Candidates(boxes=_sides(points, _rows(boxes, 4)), scores=sigmoid(_rows(scores, CLASSES)))


def _moved(anchors: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """delta2bbox: anchors as centre and size, deltas already times their deviations."""
    center = anchors[:, :2] + deltas[:, :2] * anchors[:, 2:]
    size = anchors[:, 2:] * np.exp(np.clip(deltas[:, 2:], -LARGEST_LOG, LARGEST_LOG))
    return centered(np.concatenate([center, size], axis=1))


def _atss(outputs: Arrays) -> Candidates:
    """ATSSHead: one anchor of 8 strides, deviations 0.1 and 0.2, class times centerness."""
    scores, boxes, quality = _kinds(outputs, 5)
    points, stride = _cells(FIVE, 0.0)
    anchors = np.concatenate([points, 8 * stride, 8 * stride], axis=1)
    deltas = _rows(boxes, 4) * np.asarray([0.1, 0.1, 0.2, 0.2], np.float32)
    both = sigmoid(_rows(scores, CLASSES)) * sigmoid(_rows(quality, 1))
    return Candidates(boxes=_moved(anchors, deltas), scores=both)


def _retinanet(outputs: Arrays) -> Candidates:
    """RetinaHead: three octaves from 4 strides by three ratios of height to width."""
    scores, boxes = _kinds(outputs, 5)
    points, stride = _cells(FIVE, 0.0)
    shapes = [
        (4 * 2 ** (octave / 3) / np.sqrt(ratio), 4 * 2 ** (octave / 3) * np.sqrt(ratio))
        for ratio, octave in itertools.product((0.5, 1.0, 2.0), range(3))
    ]
    anchors = [np.concatenate([points, stride * w, stride * h], axis=1) for w, h in shapes]
    table = np.stack(anchors, axis=1).reshape(-1, 4).astype(np.float32)
    return Candidates(boxes=_moved(table, _rows(boxes, 4)), scores=sigmoid(_rows(scores, CLASSES)))


def _efficientdet(outputs: Arrays) -> Candidates:
    """efficientdet/utils.py: Anchors and BBoxTransform."""
    deltas, scores = (value[0] for value in outputs.values())
    points, stride = _cells(FIVE, 0.5)
    sizes = [
        (4 * 2 ** (octave / 3) * x, 4 * 2 ** (octave / 3) * y)
        for octave, (x, y) in itertools.product(range(3), ((1, 1), (1.4, 0.7), (0.7, 1.4)))
    ]
    anchors = [np.concatenate([points, stride * w, stride * h], axis=1) for w, h in sizes]
    table = np.stack(anchors, axis=1).reshape(-1, 4).astype(np.float32)
    center = table[:, :2] + deltas[:, [1, 0]] * table[:, 2:]
    size = table[:, 2:] * np.exp(deltas[:, [3, 2]])
    return Candidates(boxes=centered(np.concatenate([center, size], axis=1)), scores=scores)


def _centernet(outputs: Arrays) -> Candidates:
    """models/decode.py, ctdet_decode, without its limit of 100: peaks of 3 by 3."""
    heat, sizes, offsets = (torch.from_numpy(value) for value in outputs.values())
    peak = nn.functional.max_pool2d(heat, 3, 1, 1) == heat
    classes, rows, columns = torch.nonzero(peak[0], as_tuple=True)
    center = torch.stack([columns, rows], 1) + offsets[0, :, rows, columns].T
    boxes = torch.cat([center, sizes[0, :, rows, columns].T], 1) * 4
    scores = heat[0, classes, rows, columns]
    return Candidates.chosen(centered(boxes.numpy()), scores.numpy(), classes.numpy(), CLASSES)


def _build(
    make: Callable[[], nn.Module],
    decode: Callable[[Arrays], Candidates],
    outputs: Sequence[str],
    **more: object,
) -> Callable[[], Built]:
    def build() -> Built:
        model = make()
        mean = torch.tensor(more.get("mean", (0.0, 0.0, 0.0))).view(3, 1, 1)
        std = torch.tensor(more.get("std", (255.0, 255.0, 255.0))).view(3, 1, 1)
        images = (images_like(SIZE_HW) * 255 - mean) / std
        quality = getattr(model, "quality", None) or ()
        draw_weights(model, images, scores=[*model.scores, *quality], moves=[*model.moves])
        if getattr(model, "bins", 1) > 1:
            for layer in model.moves:
                prefer_short(layer, model.bins)
        return Built(
            model=model,
            arguments=(images[:1],),
            inputs=("input",),
            outputs=tuple(outputs),
            size_hw=SIZE_HW,
            classes=CLASSES,
            decode=decode,
            feed=lambda pixels: {"input": pixels[None]},
            **more,
        )

    return build


def _names(levels: int, *kinds: str) -> list[str]:
    return [f"{kind}_{level}" for kind in kinds for level in range(levels)]


NETWORKS = {
    "retinanet_mm": _build(
        lambda: DenseHeads(anchors=9), _retinanet, _names(5, "cls_score", "bbox_pred"), **IMAGENET
    ),
    "atss": _build(
        lambda: DenseHeads(quality=True),
        _atss,
        _names(5, "cls_score", "bbox_pred", "centerness"),
        **IMAGENET,
    ),
    "gfl": _build(
        lambda: DenseHeads(boxes=68), _gfl, _names(5, "cls_score", "bbox_pred"), **IMAGENET
    ),
    "fcos_mm": _build(
        lambda: DenseHeads(quality=True, finish=lambda box, stride: box.exp() * stride),
        _fcos,
        _names(5, "cls_score", "bbox_pred", "centerness"),
        **CAFFE,
    ),
    "rtmdet": _build(
        lambda: DenseHeads(strides=FIVE[:3], finish=lambda box, stride: box.exp() * stride),
        _rtmdet,
        _names(3, "cls_score", "bbox_pred"),
        **RTMDET,
    ),
    "picodet": _build(
        lambda: DenseHeads(strides=FIVE[:4], boxes=32, flat=True),
        _picodet,
        _names(4, "save_infer_model_cls", "save_infer_model_reg"),
        **IMAGENET,
    ),
    "nanodet_plus": _build(NanoDetPlus, _nanodet_plus, ["output"], **RTMDET),
    "centernet": _build(
        CenterNet,
        _centernet,
        ["hm", "wh", "reg"],
        mean=(104.04, 113.985, 119.85),
        std=(73.695, 69.87, 70.89),
        color="bgr",
    ),
    "efficientdet": _build(
        EfficientDet, _efficientdet, ["regression", "classification"], **IMAGENET
    ),
}
