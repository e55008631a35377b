"""YOLO of every generation: heads as their authors export them, on a small backbone.

Formulas are those of the repositories named at each class. What an export decodes itself is read
back without any; raw maps are decoded here in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from blocks import (
    STRIDES,
    Backbone,
    conv_unit,
    draw_weights,
    grid,
    images_like,
    prefer_short,
)
from built import Arrays, Built, Candidates, centered, sigmoid, softmax
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ANCHORS", "NETWORKS", "UltralyticsHead", "ultralytics_metadata"]

CLASSES = 6
SIZE_HW = (96, 128)
WIDTH = 16
# YOLOv5 and YOLOv7 of 640 pixels, width and height of each level's three.
ANCHORS = (
    (10, 13, 16, 30, 33, 23),
    (30, 61, 62, 45, 59, 119),
    (116, 90, 156, 198, 373, 326),
)
BINS = 16
POINTS = 5


def _head(outputs: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(WIDTH, outputs, 1) for _ in STRIDES)


class AnchorRows(nn.Module):
    """Decoded rows of centre, size, objectness, classes.

    With ``power`` as in ultralytics/yolov5 (models/yolo.py, Detect), WongKinYiu/yolov7 and
    YOLOR: sizes are (2 sigmoid)^2 anchors. Without, as in ultralytics/yolov3 before that: exp.
    """

    def __init__(self, *, style: str = "split", raw_maps: bool = False) -> None:
        super().__init__()
        self.backbone, self.style, self.raw_maps = Backbone(WIDTH), style, raw_maps
        self.last = _head(3 * (5 + CLASSES))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        rows, maps = [], []
        for features, layer, stride, anchors in zip(
            self.backbone(images), self.last, STRIDES, ANCHORS, strict=True
        ):
            batch, _, height, width = features.shape
            raw = layer(features).view(batch, 3, 5 + CLASSES, height, width)
            raw = raw.permute(0, 1, 3, 4, 2).contiguous()
            maps.append(raw)
            sizes = torch.tensor(anchors).float().view(1, 3, 1, 1, 2)
            cells = grid(height, width).view(1, 1, height, width, 2)
            if self.style == "inplace":
                y = raw.sigmoid()
                y[..., 0:2] = (y[..., 0:2] * 2.0 - 0.5 + cells) * stride
                y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * sizes
            elif self.style == "exp":
                y = torch.cat(
                    (
                        (raw[..., 0:2].sigmoid() + cells) * stride,
                        raw[..., 2:4].exp() * sizes,
                        raw[..., 4:].sigmoid(),
                    ),
                    -1,
                )
            else:
                xy, wh, rest = raw.sigmoid().split((2, 2, CLASSES + 1), 4)
                y = torch.cat(((xy * 2 - 0.5 + cells) * stride, (wh * 2) ** 2 * sizes, rest), 4)
            rows.append(y.view(batch, -1, 5 + CLASSES))
        return tuple(maps) if self.raw_maps else torch.cat(rows, 1)


class Yolov4(nn.Module):
    """Boxes ``[N, A, 1, 4]`` from 0 to 1 and confidences (pytorch-YOLOv4, yolo_layer)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.last = Backbone(WIDTH), _head(3 * (5 + CLASSES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for level, features in enumerate(self.backbone(images)):
            raw, scale = self.last[level](features), (1.2, 1.1, 1.05)[level]
            batch, _, height, width = raw.shape
            sizes = torch.tensor(ANCHORS[level]).float().view(1, 3, 1, 1, 2) / STRIDES[level]
            raw = raw.view(batch, 3, 5 + CLASSES, height, width).permute(0, 1, 3, 4, 2)
            cells = grid(height, width).view(1, 1, height, width, 2)
            whole = torch.tensor([width, height]).float()
            xy = (raw[..., :2].sigmoid() * scale - 0.5 * (scale - 1) + cells) / whole
            wh = raw[..., 2:4].exp() * sizes / whole
            corner = (xy - wh * 0.5).reshape(batch, -1, 1, 2)
            boxes.append(torch.cat((corner, corner + wh.reshape(batch, -1, 1, 2)), 3))
            both = raw[..., 5:].sigmoid() * raw[..., 4:5].sigmoid()
            scores.append(both.reshape(batch, -1, CLASSES))
        return torch.cat(boxes, 1), torch.cat(scores, 1)


class Yolov6(nn.Module):
    """Rows of centre, size, a one, classes (meituan/YOLOv6, effidehead.py)."""

    def __init__(self, *, distribution: bool) -> None:
        super().__init__()
        self.backbone, self.distribution = Backbone(WIDTH, nn.ReLU), distribution
        self.moves, self.scores = _head(4 * 17 if distribution else 4), _head(CLASSES)
        self.bins = 17 if distribution else 1
        self.register_buffer("steps", torch.linspace(0, 16, 17).view(1, 17, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scores, sides, points, strides = [], [], [], []
        for level, features in enumerate(self.backbone(images)):
            batch, _, height, width = features.shape
            side = self.moves[level](features)
            if self.distribution:
                side = side.reshape([-1, 4, 17, height * width]).permute(0, 2, 1, 3)
                side = F.conv2d(F.softmax(side, dim=1), self.steps)
            sides.append(side.reshape([batch, 4, height * width]))
            score = torch.sigmoid(self.scores[level](features))
            scores.append(score.reshape([batch, CLASSES, height * width]))
            points.append(grid(height, width, 0.5).view(-1, 2))
            strides.append(torch.full((height * width, 1), float(STRIDES[level])))
        side = torch.cat(sides, -1).permute(0, 2, 1)
        anchors, stride = torch.cat(points), torch.cat(strides)
        first, second = torch.split(side, 2, -1)
        low, high = anchors - first, anchors + second
        box = torch.cat([(low + high) / 2, high - low], -1) * stride
        ones = torch.ones((box.shape[0], box.shape[1], 1), dtype=box.dtype)
        return torch.cat([box, ones, torch.cat(scores, -1).permute(0, 2, 1)], -1)


class Yolox(nn.Module):
    """Rows of centre, size, objectness, classes (Megvii YOLOX, yolo_head.py, tools/export_onnx.py).

    export_onnx.py leaves the rows raw (decode_in_inference False) unless asked.
    """

    def __init__(self, *, decoded: bool) -> None:
        super().__init__()
        self.backbone, self.decoded = Backbone(WIDTH), decoded
        self.moves, self.objects, self.scores = _head(4), _head(1), _head(CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        rows, cells, strides = [], [], []
        for level, features in enumerate(self.backbone(images)):
            parts = (
                self.moves[level](features),
                self.objects[level](features).sigmoid(),
                self.scores[level](features).sigmoid(),
            )
            rows.append(torch.cat(parts, 1).flatten(start_dim=2))
            height, width = features.shape[-2:]
            cells.append(grid(height, width).view(1, -1, 2))
            strides.append(torch.full((1, height * width, 1), STRIDES[level]))
        y = torch.cat(rows, dim=2).permute(0, 2, 1)
        if not self.decoded:
            return y
        cell, stride = torch.cat(cells, 1), torch.cat(strides, 1).float()
        return torch.cat(
            [(y[..., 0:2] + cell) * stride, torch.exp(y[..., 2:4]) * stride, y[..., 4:]], dim=-1
        )


class UltralyticsHead(nn.Module):
    """``[N, 4 + C, A]`` of centre, size, classes (ultralytics nn/modules/head.py, Detect).

    Args:
        one_to_one: YOLOv10's and YOLO26's choice inside: ``[N, K, 6]``, corners, score, class.
        coefficients: Of a mask, added to each row, with the prototypes as a second output.
        maps: What the RKNN and Hailo exports cut out: raw box and class maps of each level.
        bins: Of a side's distribution; 1 as in YOLO26, which has none.
        keypoints: Points with a score that end each row, decoded (Pose.kpts_decode).
    """

    def __init__(
        self,
        *,
        one_to_one: int = 0,
        coefficients: int = 0,
        maps: bool = False,
        bins: int = BINS,
        keypoints: int = 0,
    ) -> None:
        super().__init__()
        self.backbone, self.one_to_one, self.maps, self.bins = (
            Backbone(WIDTH),
            one_to_one,
            maps,
            bins,
        )
        self.moves, self.scores = _head(4 * bins), _head(CLASSES)
        self.masks = _head(coefficients) if coefficients else None
        self.points = _head(3 * keypoints) if keypoints else None
        if coefficients:
            self.prototypes = nn.Sequential(
                conv_unit(WIDTH, WIDTH, 3),
                nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2, 0),
                conv_unit(WIDTH, coefficients),
            )
        self.register_buffer("steps", torch.arange(bins).float().view(1, bins, 1, 1))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        features = self.backbone(images)
        moves = [layer(level) for layer, level in zip(self.moves, features, strict=True)]
        scores = [layer(level) for layer, level in zip(self.scores, features, strict=True)]
        if self.maps:
            return tuple(part for pair in zip(moves, scores, strict=True) for part in pair)
        joined = [torch.cat(pair, 1) for pair in zip(moves, scores, strict=True)]
        batch = joined[0].shape[0]
        y = torch.cat([x.view(batch, 4 * self.bins + CLASSES, -1) for x in joined], 2)
        box, score = y.split((4 * self.bins, CLASSES), 1)
        points = [grid(*x.shape[2:], 0.5).view(-1, 2) for x in joined]
        anchors = torch.cat(points).transpose(0, 1).unsqueeze(0)
        stride = torch.cat(
            [torch.full((len(p), 1), float(s)) for p, s in zip(points, STRIDES, strict=True)]
        ).transpose(0, 1)
        if self.bins > 1:
            box = box.view(batch, 4, self.bins, box.shape[2]).transpose(2, 1).softmax(1)
            box = F.conv2d(box, self.steps).view(batch, 4, -1)
        first, second = box.chunk(2, 1)
        low, high = anchors - first, anchors + second
        points = None if self.points is None else self._points(features, anchors, stride)
        if self.one_to_one:
            return self._choose(torch.cat((low, high), 1) * stride, score.sigmoid(), points)
        rows = torch.cat(
            (torch.cat(((low + high) / 2, high - low), 1) * stride, score.sigmoid()), 1
        )
        if points is not None:
            return torch.cat((rows, points), 1)
        if self.masks is None:
            return rows
        masks = [
            layer(level).view(batch, -1, level.shape[2] * level.shape[3])
            for layer, level in zip(self.masks, features, strict=True)
        ]
        return torch.cat([rows, torch.cat(masks, 2)], 1), self.prototypes(features[0])

    def _points(self, features: list[Tensor], anchors: Tensor, stride: Tensor) -> Tensor:
        """Keypoints ``[N, 3 * P, A]`` in pixels, with their scores."""
        raw = [layer(level).flatten(2) for layer, level in zip(self.points, features, strict=True)]
        kpts = torch.cat(raw, 2)
        y = kpts.view(kpts.shape[0], -1, 3, kpts.shape[2])
        xy = (y[:, :, :2] * 2.0 + (anchors - 0.5).unsqueeze(1)) * stride
        return torch.cat((xy, y[:, :, 2:3].sigmoid()), 2).view(kpts.shape[0], -1, kpts.shape[2])

    def _choose(self, boxes: Tensor, scores: Tensor, points: Tensor | None) -> Tensor:
        """The best boxes, then the best of their classes (Detect.postprocess)."""
        boxes, scores = boxes.permute(0, 2, 1), scores.permute(0, 2, 1)
        count = self.one_to_one
        index = scores.amax(dim=-1).topk(count)[1].unsqueeze(-1)
        boxes = boxes.gather(dim=1, index=index.repeat(1, 1, 4))
        scores = scores.gather(dim=1, index=index.repeat(1, 1, CLASSES))
        best, which = scores.flatten(1).topk(count)
        rows = torch.arange(boxes.shape[0])[..., None]
        found = [boxes[rows, which // CLASSES], best[..., None]]
        found.append((which % CLASSES)[..., None].float())
        if points is not None:
            points = points.permute(0, 2, 1)
            points = points.gather(dim=1, index=index.repeat(1, 1, points.shape[2]))
            found.append(points[rows, which // CLASSES])
        return torch.cat(found, dim=-1)


def _rows_with_objects(outputs: Arrays) -> Candidates:
    (rows,) = outputs.values()
    return Candidates(boxes=centered(rows[0, :, :4]), scores=rows[0, :, 4:5] * rows[0, :, 5:])


def _raw_yolox(outputs: Arrays) -> Candidates:
    (rows,) = outputs.values()
    cells = [grid(SIZE_HW[0] // s, SIZE_HW[1] // s).view(-1, 2).numpy() for s in STRIDES]
    stride = np.concatenate([np.full((len(c), 1), s) for c, s in zip(cells, STRIDES, strict=True)])
    center = (rows[0, :, :2] + np.concatenate(cells)) * stride
    boxes = centered(np.concatenate([center, np.exp(rows[0, :, 2:4]) * stride], axis=1))
    return Candidates(boxes=boxes, scores=rows[0, :, 4:5] * rows[0, :, 5:])


def _anchor_maps(outputs: Arrays) -> Candidates:
    boxes, scores = [], []
    for raw, stride, anchors in zip(outputs.values(), STRIDES, ANCHORS, strict=True):
        y = sigmoid(raw[0])
        cells = grid(*y.shape[1:3]).numpy()[None]
        sizes = np.asarray(anchors, np.float32).reshape(3, 1, 1, 2)
        center, size = (y[..., :2] * 2 - 0.5 + cells) * stride, (y[..., 2:4] * 2) ** 2 * sizes
        boxes.append(centered(np.concatenate([center, size], -1)).reshape(-1, 4))
        scores.append((y[..., 4:5] * y[..., 5:]).reshape(-1, CLASSES))
    return Candidates(boxes=np.concatenate(boxes), scores=np.concatenate(scores))


def _yolov4(outputs: Arrays) -> Candidates:
    boxes, scores = outputs.values()
    whole = np.asarray([SIZE_HW[1], SIZE_HW[0]] * 2, np.float32)
    return Candidates(boxes=boxes[0, :, 0] * whole, scores=scores[0])


def _columns(outputs: Arrays) -> Candidates:
    rows = next(iter(outputs.values()))[0].T
    return Candidates(boxes=centered(rows[:, :4]), scores=rows[:, 4 : 4 + CLASSES])


def _chosen(outputs: Arrays) -> Candidates:
    (rows,) = outputs.values()
    return Candidates.chosen(rows[0, :, :4], rows[0, :, 4], rows[0, :, 5], CLASSES)


def _distribution_maps(outputs: Arrays) -> Candidates:
    boxes, scores = [], []
    parts = list(outputs.values())
    for stride, moves, logits in zip(STRIDES, parts[0::2], parts[1::2], strict=True):
        bins = softmax(moves[0].reshape(4, BINS, *moves.shape[2:]), axis=1)
        sides = (bins * np.arange(BINS, dtype=np.float32).reshape(1, -1, 1, 1)).sum(axis=1)
        center = grid(*moves.shape[2:], 0.5).numpy()
        sides = sides.transpose(1, 2, 0)
        both = np.concatenate([center - sides[..., :2], center + sides[..., 2:]], -1) * stride
        boxes.append(both.reshape(-1, 4))
        scores.append(sigmoid(logits[0]).reshape(CLASSES, -1).T)
    return Candidates(boxes=np.concatenate(boxes), scores=np.concatenate(scores))


def _points_of(rows: np.ndarray) -> np.ndarray:
    """Returns the points that end rows ``[A, V]``."""
    return rows[:, -3 * POINTS :].reshape(len(rows), POINTS, 3)[..., :2]


def _pose_columns(outputs: Arrays) -> Candidates:
    return replace(_columns(outputs), points=_points_of(outputs["output0"][0].T))


def _pose_chosen(outputs: Arrays) -> Candidates:
    rows = outputs["output0"][0]
    return replace(_chosen({"output0": rows[None, :, :6]}), points=_points_of(rows))


def _pose_metadata() -> dict[str, str]:
    return {**ultralytics_metadata("pose"), "kpt_shape": str([POINTS, 3])}


def ultralytics_metadata(task: str = "detect") -> dict[str, str]:
    """What ultralytics' exporter writes into the file (engine/exporter.py)."""
    return {
        "description": "Ultralytics YOLO model",
        "author": "Ultralytics",
        "task": task,
        "stride": "32",
        "batch": "1",
        "imgsz": str(list(SIZE_HW)),
        "names": str({number: f"class {number}" for number in range(CLASSES)}),
    }


# YOLOX is trained on BGR bytes that nothing is subtracted from (data_augment.py, preproc).
_BYTES_BGR: dict[str, object] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "color": "bgr"}


def _build(
    make: Callable[[], nn.Module],
    decode: Callable[[Arrays], Candidates],
    outputs: tuple[str, ...] = ("output0",),
    metadata: Mapping[str, str] | None = None,
    scores: tuple[str, ...] = ("scores",),
    moves: tuple[str, ...] = ("moves",),
    **more: object,
) -> Callable[[], Built]:
    def build() -> Built:
        model = make()
        images = images_like(SIZE_HW)
        if more.get("color") == "bgr":
            images = images * 255
        layers = [list(getattr(model, name)) for name in (*scores, *moves) if hasattr(model, name)]
        count = len([name for name in scores if hasattr(model, name)])
        draw_weights(
            model,
            images,
            scores=[layer for level in layers[:count] for layer in level],
            moves=[layer for level in layers[count:] for layer in level],
        )
        bins = getattr(model, "bins", 1)
        for layer in model.moves if bins > 1 else ():
            prefer_short(layer, bins)
        return Built(
            model=model,
            arguments=(images[:1],),
            outputs=outputs,
            size_hw=SIZE_HW,
            classes=CLASSES,
            decode=decode,
            metadata=metadata or {},
            **more,
        )

    return build


_LEVELS = ("p3", "p4", "p5")
_PAIRS = tuple(f"{kind}{level}" for level in _LEVELS for kind in ("box_", "cls_"))

NETWORKS = {
    "yolov3": _build(
        lambda: AnchorRows(style="exp"), _rows_with_objects, scores=(), moves=("last",)
    ),
    "yolov4": _build(Yolov4, _yolov4, outputs=("boxes", "confs"), scores=(), moves=("last",)),
    "yolov5": _build(AnchorRows, _rows_with_objects, scores=(), moves=("last",)),
    "yolov5_maps": _build(
        lambda: AnchorRows(raw_maps=True),
        _anchor_maps,
        outputs=_LEVELS,
        scores=(),
        moves=("last",),
    ),
    "yolov5_maps_named": _build(
        lambda: AnchorRows(raw_maps=True),
        _anchor_maps,
        outputs=_LEVELS,
        scores=(),
        moves=("last",),
    ),
    "yolov7": _build(
        lambda: AnchorRows(style="inplace"),
        _rows_with_objects,
        outputs=("output",),
        scores=(),
        moves=("last",),
    ),
    "yolov6": _build(lambda: Yolov6(distribution=False), _rows_with_objects, outputs=("outputs",)),
    "yolov6_distribution": _build(
        lambda: Yolov6(distribution=True), _rows_with_objects, outputs=("outputs",)
    ),
    "yolox": _build(
        lambda: Yolox(decoded=True),
        _rows_with_objects,
        outputs=("output",),
        scores=("objects", "scores"),
        **_BYTES_BGR,
    ),
    "yolox_raw": _build(
        lambda: Yolox(decoded=False),
        _raw_yolox,
        outputs=("output",),
        scores=("objects", "scores"),
        **_BYTES_BGR,
    ),
    "yolov8": _build(UltralyticsHead, _columns, metadata=ultralytics_metadata()),
    "yolov8_plain": _build(UltralyticsHead, _columns),
    "yolov8_maps": _build(lambda: UltralyticsHead(maps=True), _distribution_maps, outputs=_PAIRS),
    "yolov8_seg": _build(
        lambda: UltralyticsHead(coefficients=8),
        _columns,
        outputs=("output0", "output1"),
        metadata=ultralytics_metadata("segment"),
    ),
    "yolov10": _build(
        lambda: UltralyticsHead(one_to_one=50), _chosen, metadata=ultralytics_metadata()
    ),
    "yolo26": _build(
        lambda: UltralyticsHead(one_to_one=50, bins=1), _chosen, metadata=ultralytics_metadata()
    ),
    "yolov8_pose": _build(
        lambda: UltralyticsHead(keypoints=POINTS), _pose_columns, metadata=_pose_metadata()
    ),
    "yolo26_pose": _build(
        lambda: UltralyticsHead(one_to_one=50, bins=1, keypoints=POINTS),
        _pose_chosen,
        metadata=_pose_metadata(),
    ),
}
