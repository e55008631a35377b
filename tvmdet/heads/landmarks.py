"""Landmarks of faces beside the boxes: where they are, and the network as it is without them."""

from __future__ import annotations

from dataclasses import replace

from tvmdet.heads.base import GraphSummary, TensorSummary

__all__ = ["FACE_LANDMARKS", "without_landmarks"]

FACE_LANDMARKS = 10  # x and y of eyes, nose and corners of the mouth
_BOX = 4


def without_landmarks(summary: GraphSummary) -> tuple[GraphSummary, tuple[str, ...]]:
    """Returns a network of faces without its landmarks, as dense heads are looked for.

    Outputs of five landmarks are those that hold 10 numbers wherever another output holds the 4 of
    a box: rows ``[N, A, 10]`` beside ``[N, A, 4]``, or maps ``[N, k * 10, H, W]`` beside
    ``[N, k * 4, H, W]``. Rows of one image, ``[A, C]``, as insightface's exporter writes them, get
    their dimension of images.

    Args:
        summary: The network at batch size 1.

    Returns:
        The network with the other outputs only, and the names of the landmarks, in graph order.
    """
    values = {name: _with_images(value) for name, value in summary.outputs.items()}
    boxes = {value.shape for value in values.values()}
    landmarks = tuple(name for name, value in values.items() if _box_beside(value) in boxes)
    kept = {name: value for name, value in values.items() if name not in landmarks}
    return replace(summary, outputs=kept), landmarks


def _with_images(value: TensorSummary) -> TensorSummary:
    return replace(value, shape=(1, *value.shape)) if len(value.shape) == 2 else value


def _box_beside(value: TensorSummary) -> tuple[int | None, ...] | None:
    """Returns the shape of the boxes that landmarks of this shape belong to, or None."""
    shape, axis = value.shape, 1 if len(value.shape) == 4 else 2
    if len(shape) not in (3, 4) or not (channels := shape[axis]) or channels % FACE_LANDMARKS:
        return None
    if axis == 2 and channels != FACE_LANDMARKS:
        return None
    return (*shape[:axis], channels // FACE_LANDMARKS * _BOX, *shape[axis + 1 :])
