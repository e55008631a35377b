"""Oriented boxes: rectangles that are turned about their centres, as detectors of DOTA find them.

An oriented box is ``x1 y1 x2 y2`` as it lies before it is turned, and an angle in radians by which
it is turned from the x axis towards the y axis: clockwise, as pictures have y downwards.

The overlap of two is that of two normal distributions of their extent, ProbIoU (Llerena et al.,
"Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object Detection",
arXiv 2106.06072, 2021): from 0 to 1 as an IoU, and what Ultralytics suppresses by.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform, clip_boxes

__all__ = [
    "PROBIOU_EPS",
    "boxes_around",
    "corners_of",
    "place_corners",
    "probiou_matrix",
    "undropped",
]

PROBIOU_EPS = 1e-7  # as in ``batch_probiou`` of ``ultralytics/utils/metrics.py``
_FARTHEST = 100.0  # likewise, of the distance of Bhattacharyya

Float32 = npt.NDArray[np.float32]


def corners_of(boxes_xyxy: npt.ArrayLike, angles: npt.ArrayLike) -> Float32:
    """Returns where the corners of oriented boxes lie.

    Args:
        boxes_xyxy: ``[n, 4]``, before they are turned.
        angles: ``[n]``, in radians.

    Returns:
        float32 ``[n, 4, 2]``: what was the top left corner first, then clockwise.
    """
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    turn = np.asarray(angles, np.float64).reshape(-1, 1)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    right, down = np.array([-1, 1, 1, -1]) * half[:, :1], np.array([-1, -1, 1, 1]) * half[:, 1:]
    x = centers[:, :1] + right * np.cos(turn) - down * np.sin(turn)
    y = centers[:, 1:] + right * np.sin(turn) + down * np.cos(turn)
    return np.stack([x, y], axis=-1).astype(np.float32)


def boxes_around(corners_xy: Float32, size_hw: tuple[int, int]) -> Float32:
    """Returns the smallest boxes ``[n, 4]`` around corners ``[n, 4, 2]``, cut to an image."""
    boxes = np.concatenate([corners_xy.min(axis=1), corners_xy.max(axis=1)], axis=1)
    return clip_boxes(boxes, size_hw)


def place_corners(
    boxes_xyxy: npt.ArrayLike, angles: npt.ArrayLike, transform: ImageTransform
) -> Float32:
    """Returns where in an image the corners of a network's oriented boxes lie.

    In a letterbox the sides of the box that is not turned yet are brought back, and its angle is
    left, as Ultralytics has it (``scale_boxes`` with ``xywh``): what whole pixels make of the one
    ratio, other for each axis, does not skew the box. Where a picture was stretched its corners
    are brought back.

    Args:
        boxes_xyxy: ``[n, 4]`` in pixels of the network's input, before they are turned.
        angles: ``[n]``, in radians.
        transform: How the image lies in the network's input.

    Returns:
        float32 ``[n, 4, 2]``, as of :func:`corners_of`; they are not clipped.
    """
    if not transform.keeps_shape:
        return transform.points_to_image(corners_of(boxes_xyxy, angles))
    with np.errstate(over="ignore", invalid="ignore"):  # of what a network puts beyond all bounds
        return corners_of(transform.to_image_unclipped(boxes_xyxy), angles)


def probiou_matrix(
    boxes_a: npt.ArrayLike, angles_a: npt.ArrayLike, boxes_b: npt.ArrayLike, angles_b: npt.ArrayLike
) -> Float32:
    """Returns the ProbIoU of every oriented box of ``a`` with every one of ``b``.

    Args:
        boxes_a: ``[n, 4]``, before they are turned.
        angles_a: ``[n]``, in radians.
        boxes_b: ``[m, 4]``, in the same pixels.
        angles_b: ``[m]``.

    Returns:
        float32 ``[n, m]``; 0 where a box is no number or endless.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return _probiou(boxes_a, angles_a, boxes_b, angles_b)


def _probiou(
    boxes_a: npt.ArrayLike, angles_a: npt.ArrayLike, boxes_b: npt.ArrayLike, angles_b: npt.ArrayLike
) -> Float32:
    mean_a, spread_a = _normal_distributions(boxes_a, angles_a)
    mean_b, spread_b = _normal_distributions(boxes_b, angles_b)
    away = mean_a[:, None] - mean_b[None]
    xx, yy, xy = np.moveaxis(spread_a[:, None] + spread_b[None], -1, 0)
    shared = np.maximum(xx * yy - xy**2, 0)
    near = (yy * away[..., 0] ** 2 + xx * away[..., 1] ** 2) / 4 - xy * away.prod(axis=-1) / 2
    own = _roots(boxes_a)[:, None] * _roots(boxes_b)[None]
    alike = np.log(shared / (4 * own + PROBIOU_EPS) + PROBIOU_EPS) / 2
    distance = np.clip(near / (shared + PROBIOU_EPS) + alike, PROBIOU_EPS, _FARTHEST)
    overlaps = 1 - np.sqrt(1 - np.exp(-distance) + PROBIOU_EPS)
    return np.where(np.isnan(overlaps), 0, overlaps).astype(np.float32)


def undropped(overlaps: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Returns which boxes no better one overlaps, whether that one stays or not.

    Args:
        overlaps: ``[n, n]``, whether two boxes overlap by more than the threshold; best first.
    """
    return np.flatnonzero(~np.triu(overlaps, k=1).any(axis=0))


def _normal_distributions(
    boxes_xyxy: npt.ArrayLike, angles: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns means ``[n, 2]`` and covariances ``[n, 3]`` (xx, yy, xy) of uniform rectangles."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    turn = np.asarray(angles, np.float64).reshape(-1)
    along, across = np.moveaxis((boxes[:, 2:] - boxes[:, :2]) ** 2 / 12, -1, 0)
    cos, sin = np.cos(turn), np.sin(turn)
    spread = [
        along * cos**2 + across * sin**2,
        along * sin**2 + across * cos**2,
        (along - across) * cos * sin,
    ]
    return (boxes[:, :2] + boxes[:, 2:]) / 2, np.stack(spread, axis=-1)


def _roots(boxes_xyxy: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Returns the square roots of the determinants of the covariances ``[n]``."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    sides = (boxes[:, 2:] - boxes[:, :2]) ** 2 / 12
    roots: npt.NDArray[np.float64] = np.sqrt(sides.prod(axis=-1))
    return roots
