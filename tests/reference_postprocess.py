"""A second opinion on detections: pre- and post-processing of two families in plain numpy.

Written from the published descriptions, and sharing no code with tvmdet:

* YOLOv8: ``LetterBox``, ``non_max_suppression`` and ``scale_boxes`` of Ultralytics 8.4.
* PicoDet: ``PicoDetPostProcess`` of PaddleDetection's deployment code, and Generalized Focal
  Loss (Li et al. 2020, section 3) for the distance distribution.

Both take OpenCV's BGR images, and return boxes in the pixels of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Network = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""float32 NCHW to the network's outputs by name."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Boxes ``[n, 4]`` x1 y1 x2 y2 in image pixels, scores ``[n]``, class ids ``[n]``."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def letterbox(
    image: np.ndarray, size_hw: tuple[int, int]
) -> tuple[np.ndarray, tuple[float, float], tuple[int, int]]:
    """Ultralytics' LetterBox(auto=False, scaleup=True): image, ratios and start, x and y."""
    height, width = image.shape[:2]
    ratio = min(size_hw[0] / height, size_hw[1] / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    half_x, half_y = (size_hw[1] - new_width) / 2, (size_hw[0] - new_height) / 2
    if (new_height, new_width) != (height, width):
        image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    left, top = round(half_x - 0.1), round(half_y - 0.1)
    right, bottom = round(half_x + 0.1), round(half_y + 0.1)
    border = (114, 114, 114)
    image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=border)
    return image, (new_width / width, new_height / height), (left, top)


def hard_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Greedy suppression of one class, by rows; ties go to the lower row."""
    boxes = boxes.astype(np.float64)
    area = np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)
    order = list(np.argsort(-scores.astype(np.float64), kind="stable"))
    kept: list[int] = []
    while order:
        best = order.pop(0)
        kept.append(int(best))
        survivors = []
        for other in order:
            width = min(boxes[best, 2], boxes[other, 2]) - max(boxes[best, 0], boxes[other, 0])
            height = min(boxes[best, 3], boxes[other, 3]) - max(boxes[best, 1], boxes[other, 1])
            shared = max(width, 0.0) * max(height, 0.0)
            union = area[best] + area[other] - shared
            if union <= 0 or shared / union <= threshold:
                survivors.append(other)
        order = survivors
    return kept


def suppress_by_class(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    *,
    iou: float,
    limit: int,
) -> np.ndarray:
    """Rows kept when each class is suppressed by itself, best first, at most ``limit``."""
    kept: list[int] = []
    for one in np.unique(classes):
        rows = np.flatnonzero(classes == one)
        kept += [int(rows[i]) for i in hard_nms(boxes[rows], scores[rows], iou)]
    kept.sort(key=lambda row: (-float(scores[row]), row))
    return np.array(kept[:limit], np.int64)


def yolov8(
    network: Network,
    image: np.ndarray,
    *,
    size_hw: tuple[int, int],
    score: float = 0.25,
    iou: float = 0.7,
    max_det: int = 300,
    max_nms: int = 30000,
) -> Found:
    """Ultralytics' predict: letterbox, RGB / 255, best class per box, class-aware NMS."""
    padded, ratios, start = letterbox(image, size_hw)
    blob = np.ascontiguousarray(padded[:, :, ::-1].transpose(2, 0, 1)[None], np.float32) / 255.0
    (output,) = network(blob.astype(np.float32)).values()
    rows = output[0].T.astype(np.float64)
    scores, classes = rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1)
    order = np.flatnonzero(scores > score)
    order = order[np.argsort(-scores[order], kind="stable")][:max_nms]
    rows, scores, classes = rows[order], scores[order], classes[order]
    half = rows[:, 2:4] / 2
    boxes = np.hstack([rows[:, :2] - half, rows[:, :2] + half])
    kept = suppress_by_class(boxes, scores, classes, iou=iou, limit=max_det)
    boxes = (boxes[kept] - np.array(start * 2)) / np.array(ratios * 2)
    return _clipped(boxes, scores[kept], classes[kept], image)


def picodet(
    network: Network,
    image: np.ndarray,
    *,
    size_hw: tuple[int, int],
    strides: Sequence[int] = (8, 16, 32, 64),
    score: float = 0.4,
    iou: float = 0.5,
    nms_top_k: int = 1000,
    keep_top_k: int = 100,
) -> Found:
    """PaddleDetection's deployment: stretched RGB, ImageNet statistics, multi-class NMS.

    Scores are tensors of few channels, distributions have ``4 * (reg_max + 1)``; for both the
    level with most cells comes first.
    """
    height, width = image.shape[:2]
    resized = cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)
    pixels = resized[:, :, ::-1].astype(np.float32) / 255.0
    pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    outputs = network(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32))
    levels = sorted(outputs.values(), key=lambda array: -array.shape[1])
    all_boxes, all_scores = [], []
    for level, stride in enumerate(strides):
        pair = sorted(levels[2 * level : 2 * level + 2], key=lambda array: array.shape[2])
        class_scores, raw = (array[0].astype(np.float64) for array in pair)
        bins = raw.shape[1] // 4
        exponentials = np.exp(raw.reshape(-1, bins) - raw.reshape(-1, bins).max(1, keepdims=True))
        distances = exponentials @ np.arange(bins) / exponentials.sum(axis=1) * stride
        columns, rows = np.meshgrid(
            np.arange(np.ceil(size_hw[1] / stride)), np.arange(np.ceil(size_hw[0] / stride))
        )
        x, y = ((axis.ravel() + 0.5) * stride for axis in (columns, rows))
        sides = distances.reshape(-1, 4)
        corners = (x - sides[:, 0], y - sides[:, 1], x + sides[:, 2], y + sides[:, 3])
        all_boxes.append(np.stack(corners, axis=1))
        all_scores.append(class_scores)
    boxes, scores = np.concatenate(all_boxes), np.concatenate(all_scores)
    row, column = np.nonzero(scores > score)
    values = scores[row, column]
    order = np.argsort(-values, kind="stable")[:nms_top_k]
    row, column, values = row[order], column[order], values[order]
    kept = suppress_by_class(boxes[row], values, column, iou=iou, limit=keep_top_k)
    scale = np.array([width / size_hw[1], height / size_hw[0]] * 2)
    return _clipped(boxes[row[kept]] * scale, values[kept], column[kept], image)


def _clipped(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, image: np.ndarray
) -> Found:
    height, width = image.shape[:2]
    boxes = np.clip(boxes, 0, [width, height, width, height])
    return Found(
        boxes=boxes.astype(np.float32),
        scores=scores.astype(np.float32),
        classes=classes.astype(np.int32),
    )
