"""How a dense head's numbers become boxes: differences to anchors, distances, distributions.

Every function has two forms: one emits Relax operators, one computes in numpy by other steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tvm import relax

__all__ = [
    "emit_clip",
    "emit_deltas",
    "emit_distances",
    "emit_expectation",
    "emit_points",
    "emit_without_empty",
    "reference_clip",
    "reference_deltas",
    "reference_distances",
    "reference_expectation",
    "reference_points",
    "reference_without_empty",
]

Float64 = npt.NDArray[np.float64]

# Pixels. Boxes outside the image are cut to nothing, and below a hundredth of a pixel rounding
# decides where a box ends.
_THINNEST = 0.01


def emit_deltas(
    bb: relax.BlockBuilder,
    deltas: relax.Expr,
    anchors: Float64,
    *,
    stds: Sequence[float],
    limits: tuple[float, float] | None,
    swapped: bool,
) -> relax.Expr:
    """Emits boxes from differences to anchors (Girshick et al. 2014, appendix C).

    Args:
        bb: Where to emit.
        deltas: ``[N, A, 4]``: shift of the centre in widths and heights of the anchor, logarithm
            of the growth.
        anchors: ``[A, 4]`` as centre x, centre y, width, height.
        stds: What the four numbers are multiplied by first (x, y, width, height).
        limits: Smallest and largest growth, 0 for none; None for neither.
        swapped: Whether the numbers come as y, x, height, width.

    Returns:
        ``[N, A, 4]`` as ``x1 y1 x2 y2``.
    """
    from tvm import relax

    if swapped:
        order = relax.const(np.array([1, 0, 3, 2], "int64"))
        deltas = bb.emit(relax.op.take(deltas, order, axis=2, mode="clip"))
    parts = bb.emit(relax.op.split(deltas, 2, axis=2))
    shift, growth = (bb.emit(relax.TupleGetItem(parts, index)) for index in (0, 1))
    extent = anchors[:, 2:]
    reach = relax.const((extent * np.asarray(stds[:2]))[None].astype("float32"))
    center = bb.emit(relax.op.multiply(shift, reach))
    center = bb.emit(relax.op.add(center, relax.const(anchors[None, :, :2].astype("float32"))))
    if any(std != 1 for std in stds[2:]):
        scale = relax.const(np.asarray(stds[2:], "float32").reshape(1, 1, 2))
        growth = bb.emit(relax.op.multiply(growth, scale))
    for limit, bound in zip(limits or (), (relax.op.maximum, relax.op.minimum), strict=False):
        if limit > 0:
            growth = bb.emit(bound(growth, relax.const(math.log(limit), "float32")))
    half = relax.const((extent / 2)[None].astype("float32"))
    half = bb.emit(relax.op.multiply(bb.emit(relax.op.exp(growth)), half))
    corners = [
        bb.emit(relax.op.subtract(center, half)),
        bb.emit(relax.op.add(center, half)),
    ]
    return bb.emit(relax.op.concat(corners, axis=2))


def reference_deltas(
    deltas: Float64,
    anchors: Float64,
    *,
    stds: Sequence[float],
    limits: tuple[float, float] | None,
    swapped: bool,
) -> Float64:
    """Does in numpy what :func:`emit_deltas` does."""
    x, y, w, h = (deltas[..., at] for at in ((1, 0, 3, 2) if swapped else (0, 1, 2, 3)))
    anchor_x, anchor_y, anchor_w, anchor_h = anchors.T
    low, high = limits or (0.0, 0.0)
    high = high or np.inf
    center_x, center_y = anchor_x + x * stds[0] * anchor_w, anchor_y + y * stds[1] * anchor_h
    with np.errstate(over="ignore"):  # what grows beyond all bounds is cut to the image later
        width = np.clip(np.exp(w * stds[2]), low, high) * anchor_w
        height = np.clip(np.exp(h * stds[3]), low, high) * anchor_h
    sides = (
        center_x - width / 2,
        center_y - height / 2,
        center_x + width / 2,
        center_y + height / 2,
    )
    return np.stack(sides, axis=-1)


def emit_distances(
    bb: relax.BlockBuilder, distances: relax.Expr, centers: Float64, units_xy: Float64
) -> relax.Expr:
    """Emits boxes from distances of a point to the sides (FCOS, Tian et al. 2019, section 3.1).

    Args:
        bb: Where to emit.
        distances: ``[N, A, 4]``: left, top, right, bottom.
        centers: ``[A, 2]`` as x, y in pixels.
        units_xy: ``[A, 2]``, pixels in a distance of 1.
    """
    from tvm import relax

    signed = relax.const(np.concatenate([-units_xy, units_xy], axis=1)[None].astype("float32"))
    points = relax.const(np.concatenate([centers, centers], axis=1)[None].astype("float32"))
    return bb.emit(relax.op.add(bb.emit(relax.op.multiply(distances, signed)), points))


def reference_distances(distances: Float64, centers: Float64, units_xy: Float64) -> Float64:
    """Does in numpy what :func:`emit_distances` does."""
    x, y = centers.T
    left, top, right, bottom = (distances[..., side] * units_xy[:, side % 2] for side in range(4))
    return np.stack([x - left, y - top, x + right, y + bottom], axis=-1)


def emit_points(
    bb: relax.BlockBuilder, shifts: relax.Expr, centers: Float64, units_xy: Float64
) -> relax.Expr:
    """Emits points from shifts, as RetinaFace (Deng et al. 2020, section 3.1) has landmarks.

    Args:
        bb: Where to emit.
        shifts: ``[N, A, 2 * P]``: x and y of each point.
        centers: ``[A, 2]`` as x, y in pixels.
        units_xy: ``[A, 2]``, pixels in a shift of 1.

    Returns:
        ``[N, A, 2 * P]`` in pixels.
    """
    from tvm import relax

    count = int(shifts.ty.shape[2]) // 2
    reach, start = (
        relax.const(np.tile(one, (1, count))[None].astype("float32")) for one in (units_xy, centers)
    )
    return bb.emit(relax.op.add(bb.emit(relax.op.multiply(shifts, reach)), start))


def reference_points(shifts: Float64, centers: Float64, units_xy: Float64) -> Float64:
    """Does in numpy what :func:`emit_points` does."""
    points = np.empty_like(shifts)
    for axis in (0, 1):
        center, unit = centers[:, axis, None], units_xy[:, axis, None]
        points[..., axis::2] = center + shifts[..., axis::2] * unit
    return points


def emit_expectation(bb: relax.BlockBuilder, logits: relax.Expr, bins: int) -> relax.Expr:
    """Emits distances ``[N, A, 4]`` from distributions over 0 to bins - 1, ``[N, A, 4 * bins]``.

    Generalized Focal Loss, Li et al. 2020, section 3.
    """
    from tvm import relax

    batch, anchors = [int(dim) for dim in logits.ty.shape][:2]
    logits = bb.emit(relax.op.reshape(logits, (batch, anchors, 4, bins)))
    weights = bb.emit(relax.op.nn.softmax(logits, axis=-1))
    ramp = relax.const(np.arange(bins, dtype=np.float32))
    return bb.emit(relax.op.sum(bb.emit(relax.op.multiply(weights, ramp)), axis=[-1]))


def reference_expectation(logits: Float64, bins: int) -> Float64:
    """Does in numpy what :func:`emit_expectation` does."""
    sides = []
    for logit in np.split(logits, 4, axis=-1):
        power = np.exp(logit - logit.max(axis=-1, keepdims=True))
        sides.append(power @ np.arange(bins) / power.sum(axis=-1))
    return np.stack(sides, axis=-1)


def emit_clip(bb: relax.BlockBuilder, boxes: relax.Expr, size_hw: tuple[int, int]) -> relax.Expr:
    """Emits boxes cut to the network's input."""
    from tvm import relax

    height, width = size_hw
    most = relax.const(np.array([[[width, height, width, height]]], "float32"))
    boxes = bb.emit(relax.op.maximum(boxes, relax.const(0.0, "float32")))
    return bb.emit(relax.op.minimum(boxes, most))


def reference_clip(boxes: Float64, size_hw: tuple[int, int]) -> Any:
    """Does in numpy what :func:`emit_clip` does."""
    x = np.clip(boxes[..., 0::2], 0, size_hw[1])
    y = np.clip(boxes[..., 1::2], 0, size_hw[0])
    return np.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], axis=-1)


def emit_without_empty(bb: relax.BlockBuilder, boxes: relax.Expr, scores: relax.Expr) -> relax.Expr:
    """Emits scores of 0 for boxes without area, as MMDetection's ``min_bbox_size`` drops them."""
    from tvm import relax

    parts = bb.emit(relax.op.split(boxes, 2, axis=2))
    first, second = (bb.emit(relax.TupleGetItem(parts, index)) for index in (0, 1))
    extent = bb.emit(relax.op.subtract(second, first))
    shorter = bb.emit(relax.op.min(extent, axis=[2], keepdims=True))
    there = bb.emit(relax.op.greater(shorter, relax.const(_THINNEST, "float32")))
    return bb.emit(relax.op.multiply(scores, bb.emit(relax.op.astype(there, "float32"))))


def reference_without_empty(boxes: Float64, scores: Float64) -> Float64:
    """Does in numpy what :func:`emit_without_empty` does."""
    wide = boxes[..., 2] - boxes[..., 0] > _THINNEST
    high = boxes[..., 3] - boxes[..., 1] > _THINNEST
    return np.where((wide & high)[..., None], scores, 0.0)
