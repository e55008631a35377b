"""Landmarks of faces beside the boxes: where they are, what they are called, and the rest.

They become keypoints. Left and right are the person's own, as in COCO's keypoints: the eye on the
left of a picture is the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tvmdet.heads.base import GraphSummary, TensorSummary
from tvmdet.spec import KeypointSpec

__all__ = [
    "FACE_LANDMARKS",
    "FACE_POINTS",
    "keypoints_line",
    "landmark_spec",
    "landmarks_of",
    "without_landmarks",
]

# WIDER FACE's five points, in the order of RetinaFace's annotations, from the left of the picture.
FACE_POINTS = ("right_eye", "left_eye", "nose", "right_mouth", "left_mouth")
FACE_LANDMARKS = 2 * len(FACE_POINTS)
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


def landmarks_of(summary: GraphSummary, boxes: Sequence[str]) -> tuple[str, ...]:
    """Returns the outputs of landmarks that belong to outputs of boxes, in the order of those.

    Empty where one of the boxes has none.
    """
    values = {name: _with_images(value) for name, value in summary.outputs.items()}
    landmarks = {_box_beside(values[name]): name for name in without_landmarks(summary)[1]}
    found = [landmarks.get(values[name].shape, "") for name in boxes]
    return tuple(found) if all(found) else ()


def landmark_spec(columns: int) -> KeypointSpec:
    """Returns what points of so many coordinates are: a face's, or ones without known names."""
    if columns == FACE_LANDMARKS:
        return KeypointSpec(names=FACE_POINTS)
    return KeypointSpec(names=tuple(f"point_{index}" for index in range(columns // 2)))


def keypoints_line(points: KeypointSpec, outputs: Sequence[str]) -> str:
    """Returns a line on what was found, for people."""
    return f"{len(points.names)} keypoints in {', '.join(outputs)}: {', '.join(points.names)}"


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
