"""Keypoints that end the row of a box, as those of Ultralytics' pose models do.

Each is x and y in pixels of the network's input, and a score where the metadata's ``kpt_shape`` or
the spec say so: how likely the point is to be seen, through a sigmoid already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.coco_names import COCO_KEYPOINTS, COCO_SKELETON
from tvmdet.errors import InputError
from tvmdet.heads.labels import labels_from_metadata
from tvmdet.heads.options import whole_number
from tvmdet.heads.ultralytics import read_ultralytics
from tvmdet.spec import MOST_KEYPOINTS, DetectorSpec, KeypointSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = [
    "KEYPOINT_COLUMNS",
    "emit_row_keypoints",
    "given_columns",
    "keypoint_columns",
    "reference_row_keypoints",
    "row_keypoints",
]

KEYPOINT_COLUMNS = "keypoint_columns"
_COCO_LABELS = ("person",)
_MOST_COLUMNS = 3 * MOST_KEYPOINTS


def row_keypoints(metadata: Mapping[str, str], given: Mapping[str, Any]) -> KeypointSpec | None:
    """Returns what points end each row: what the metadata say, else the user's spec.

    Args:
        metadata: Of the ONNX file.
        given: The user's spec.

    Raises:
        InputError: The spec's table is malformed.
    """
    shape = read_ultralytics(metadata).kpt_shape
    table = given.get("keypoints")
    if shape is None:
        return KeypointSpec.of(table) if isinstance(table, Mapping) else None
    count, numbers = shape
    names = read_ultralytics(metadata).kpt_names
    if len(names) != count or len(set(names)) != count:
        names = tuple(f"point_{index}" for index in range(count))
        if count == len(COCO_KEYPOINTS) and labels_from_metadata(metadata)[0] == _COCO_LABELS:
            names = COCO_KEYPOINTS
    skeleton = COCO_SKELETON if names == COCO_KEYPOINTS else ()
    return KeypointSpec(names=names, scored=numbers == 3, skeleton=skeleton)


def given_columns(points: KeypointSpec | None, given: Mapping[str, Any]) -> int:
    """Returns how many numbers of keypoints end each row: those of the points, else the option's.

    Raises:
        InputError: The option is no such number.
    """
    told = whole_number(given.get("options", {}), KEYPOINT_COLUMNS, 0, _MOST_COLUMNS) or 0
    return told if points is None else points.columns


def keypoint_columns(spec: DetectorSpec) -> int:
    """Returns how many numbers end each row for points, also where the spec leaves them out.

    Raises:
        InputError: The option is no number, or not that of the spec's points.
    """
    columns = whole_number(spec.options, KEYPOINT_COLUMNS, 0, _MOST_COLUMNS) or 0
    apart = "keypoint_output" in spec.options
    if spec.keypoints is not None and not apart and spec.keypoints.columns != columns:
        raise InputError(
            f"the spec's options.{KEYPOINT_COLUMNS} is {columns}; its keypoints have "
            f"{spec.keypoints.columns} numbers: correct one of them"
        )
    return columns


def emit_row_keypoints(bb: relax.BlockBuilder, rows: relax.Expr, spec: DetectorSpec) -> Any:
    """Emits the points that end rows ``[N, A, V]``; None where the spec has none."""
    from tvm import relax

    if spec.keypoints is None:
        return None
    end = int(rows.ty.shape[2])
    begin = end - spec.keypoints.columns
    return bb.emit(relax.op.strided_slice(rows, axes=[2], begin=[begin], end=[end]))


def reference_row_keypoints(rows: np.ndarray, spec: DetectorSpec) -> np.ndarray | None:
    """Does in numpy what :func:`emit_row_keypoints` does."""
    if spec.keypoints is None:
        return None
    points: np.ndarray = np.asarray(rows, np.float32)[..., -spec.keypoints.columns :]
    return points
