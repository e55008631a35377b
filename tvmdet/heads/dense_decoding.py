"""The boxes and scores of one-stage families, from outputs that a layout describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tvmdet.errors import ShapeError
from tvmdet.heads import box_coding
from tvmdet.heads.base import Decoded
from tvmdet.heads.dense_layout import Coding, DenseLayout
from tvmdet.heads.levels import emit_rows, reference_rows

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["emit_decoded", "output_kinds", "reference_decoded"]

Float64 = npt.NDArray[np.float64]


def emit_decoded(
    bb: relax.BlockBuilder,
    outputs: Mapping[str, relax.Expr],
    layout: DenseLayout,
    coding: Coding,
) -> Decoded:
    """Emits the boxes and scores of every prediction.

    Args:
        bb: Where to emit.
        outputs: Of the network, by name.
        layout: Which of them hold what.
        coding: What a box is coded as.

    Raises:
        ShapeError: The layout names an output that is not there.
    """
    from tvm import relax

    def read(names: tuple[str, ...], channels: int) -> relax.Expr:
        parts = [
            emit_rows(bb, _pick(outputs, name), grid, rows, channels)
            for name, grid, rows in layout.parts(names)
        ]
        return parts[0] if len(parts) == 1 else bb.emit(relax.op.concat(parts, axis=1))

    if layout.joint:
        both = read(layout.class_outputs, layout.columns + layout.box_channels)
        parts = bb.emit(relax.op.split(both, [layout.columns], axis=2))
        classes, boxes = (bb.emit(relax.TupleGetItem(parts, at)) for at in (0, 1))
    else:
        classes = read(layout.class_outputs, layout.columns)
        boxes = read(layout.box_outputs, layout.box_channels)
    scores = _emit_scores(bb, classes, layout)
    if layout.quality_outputs:
        scores = _emit_quality(bb, scores, read(layout.quality_outputs, 1), layout)
    boxes = _emit_boxes(bb, boxes, layout, coding)
    boxes = box_coding.emit_clip(bb, boxes, layout.size_hw)
    points = None
    if layout.landmark_outputs:
        shifts = read(layout.landmark_outputs, layout.landmark_channels)
        points = box_coding.emit_points(bb, shifts, *_reach(layout, coding))
    return Decoded(
        boxes=boxes,
        scores=box_coding.emit_without_empty(bb, boxes, scores),
        keypoints=points,
    )


def reference_decoded(
    outputs: Mapping[str, np.ndarray], layout: DenseLayout, coding: Coding
) -> Decoded:
    """Computes in float64 what :func:`emit_decoded` emits, and rounds it to float32.

    Raises:
        ShapeError: The layout names an output that is not there.
    """

    def read(names: tuple[str, ...], channels: int) -> Float64:
        parts = [
            reference_rows(_pick(outputs, name), grid, rows, channels)
            for name, grid, rows in layout.parts(names)
        ]
        return np.concatenate(parts, axis=1)

    if layout.joint:
        both = read(layout.class_outputs, layout.columns + layout.box_channels)
        classes, boxes = both[..., : layout.columns], both[..., layout.columns :]
    else:
        classes = read(layout.class_outputs, layout.columns)
        boxes = read(layout.box_outputs, layout.box_channels)
    scores = _reference_scores(classes, layout)
    if layout.quality_outputs:
        quality = read(layout.quality_outputs, 1)
        quality = _sigmoid(quality) if layout.quality_activation == "sigmoid" else quality
        scores = scores * quality
        scores = np.sqrt(scores) if layout.score_rule == "sqrt" else scores
    boxes = box_coding.reference_clip(_reference_boxes(boxes, layout, coding), layout.size_hw)
    scores = box_coding.reference_without_empty(boxes, scores)
    points = None
    if layout.landmark_outputs:
        shifts = read(layout.landmark_outputs, layout.landmark_channels)
        points = box_coding.reference_points(shifts, *_reach(layout, coding)).astype(np.float32)
    return Decoded(
        boxes=boxes.astype(np.float32), scores=scores.astype(np.float32), keypoints=points
    )


def output_kinds(layout: DenseLayout) -> list[tuple[tuple[str, ...], int]]:
    """Returns the outputs of each kind and the numbers of a prediction in them."""
    if layout.joint:
        return [(layout.class_outputs, layout.columns + layout.box_channels)]
    kinds = [
        (layout.class_outputs, layout.columns),
        (layout.box_outputs, layout.box_channels),
        (layout.quality_outputs, 1),
        (layout.landmark_outputs, layout.landmark_channels),
    ]
    return [kind for kind in kinds if kind[0]]


def _reach(layout: DenseLayout, coding: Coding) -> tuple[Float64, Float64]:
    """Returns where the shifts of points start from, and the pixels in a shift of 1, ``[A, 2]``."""
    if coding != "deltas":
        return layout.points()
    anchors = layout.anchors()
    return anchors[:, :2], anchors[:, 2:] * np.asarray(layout.box_stds[:2])


def _emit_scores(bb: relax.BlockBuilder, classes: relax.Expr, layout: DenseLayout) -> relax.Expr:
    from tvm import relax

    if layout.score_activation == "sigmoid":
        classes = bb.emit(relax.op.sigmoid(classes))
    elif layout.score_activation == "softmax":
        classes = bb.emit(relax.op.nn.softmax(classes, axis=-1))
    if layout.background == "none":
        return classes
    first = layout.background == "first"
    parts = bb.emit(relax.op.split(classes, [1 if first else layout.columns - 1], axis=2))
    return bb.emit(relax.TupleGetItem(parts, 1 if first else 0))


def _reference_scores(classes: Float64, layout: DenseLayout) -> Float64:
    if layout.score_activation == "sigmoid":
        classes = _sigmoid(classes)
    elif layout.score_activation == "softmax":
        power = np.exp(classes - classes.max(axis=-1, keepdims=True))
        classes = power / power.sum(axis=-1, keepdims=True)
    if layout.background == "none":
        return classes
    return classes[..., 1:] if layout.background == "first" else classes[..., :-1]


def _emit_quality(
    bb: relax.BlockBuilder, scores: relax.Expr, quality: relax.Expr, layout: DenseLayout
) -> relax.Expr:
    from tvm import relax

    if layout.quality_activation == "sigmoid":
        quality = bb.emit(relax.op.sigmoid(quality))
    scores = bb.emit(relax.op.multiply(scores, quality))
    return bb.emit(relax.op.sqrt(scores)) if layout.score_rule == "sqrt" else scores


def _emit_boxes(
    bb: relax.BlockBuilder, boxes: relax.Expr, layout: DenseLayout, coding: Coding
) -> relax.Expr:
    from tvm import relax

    if coding == "deltas":
        return box_coding.emit_deltas(
            bb,
            boxes,
            layout.anchors(),
            stds=layout.box_stds,
            limits=layout.size_limits,
            swapped=layout.swapped,
        )
    if coding == "distribution":
        boxes = box_coding.emit_expectation(bb, boxes, layout.box_channels // 4)
    elif layout.distance_activation == "relu":
        boxes = bb.emit(relax.op.nn.relu(boxes))
    elif layout.distance_activation == "exp":
        boxes = bb.emit(relax.op.exp(boxes))
    return box_coding.emit_distances(bb, boxes, *layout.points())


def _reference_boxes(boxes: Float64, layout: DenseLayout, coding: Coding) -> Float64:
    if coding == "deltas":
        return box_coding.reference_deltas(
            boxes,
            layout.anchors(),
            stds=layout.box_stds,
            limits=layout.size_limits,
            swapped=layout.swapped,
        )
    if coding == "distribution":
        boxes = box_coding.reference_expectation(boxes, layout.box_channels // 4)
    elif layout.distance_activation == "relu":
        boxes = np.where(boxes > 0, boxes, 0.0)
    elif layout.distance_activation == "exp":
        with np.errstate(over="ignore"):
            boxes = np.exp(boxes)
    return box_coding.reference_distances(boxes, *layout.points())


def _sigmoid(values: Float64) -> Float64:
    # tanh does not overflow where exp(-x) would.
    return 0.5 * (1.0 + np.tanh(0.5 * values))


def _pick(outputs: Mapping[str, Any], name: str) -> Any:
    if name not in outputs:
        raise ShapeError(
            f"the spec's options name an output {name!r}; the network's outputs: "
            f"{', '.join(outputs)}"
        )
    return outputs[name]
