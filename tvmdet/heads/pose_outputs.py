"""Keypoints in outputs of their own beside the boxes, as super-gradients' YoloNASPose has them.

Suppressed in batch format they are ``post_nms_joints``, ``[N, K, P, 3]``: x, y and a score of each
point. Without suppression they are ``[N, A, P, 2]``, and their scores ``[N, A, P]``. In flat format
they end the rows of the boxes: see :mod:`tvmdet.heads.pose`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.coco_names import COCO_KEYPOINTS, COCO_SKELETON
from tvmdet.errors import InputError
from tvmdet.heads.base import GraphSummary
from tvmdet.heads.names import plain_name
from tvmdet.heads.options import choice
from tvmdet.spec import DetectorSpec, KeypointSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = [
    "POINT_OPTIONS",
    "PointOutputs",
    "check_points",
    "emit_points",
    "find_points",
    "flat_pose_points",
    "point_spec",
    "reference_points",
]

POINT_OPTIONS = ("keypoint_output", "keypoint_score_output")
_JOINTS = "post_nms_joints"
_FLAT = "flat_predictions"
_BEFORE_POINTS = 6  # batch x1 y1 x2 y2 score
_NUMBERS = 3  # x, y and a score


@dataclass(frozen=True, kw_only=True)
class PointOutputs:
    """Where the points are.

    Attributes:
        output: Name of ``[N, A, P, 2]``, or of ``[N, A, P, 3]`` with a score of each point.
        scores: Name of the scores ``[N, A, P]`` where they are apart, else the empty string.
        count: How many points an object has.
        is_scored: Whether each has a score.
    """

    output: str
    scores: str
    count: int
    is_scored: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs, the points first."""
        return (self.output, self.scores) if self.scores else (self.output,)

    @property
    def options(self) -> dict[str, str]:
        """Options of a spec that say so."""
        return dict(zip(POINT_OPTIONS, self.names, strict=False))


def find_points(summary: GraphSummary, options: Mapping[str, Any]) -> PointOutputs | None:
    """Finds the outputs of points: those that the options name, else those of YoloNASPose.

    Without names they are told by their shapes: only one output has four dimensions, of which the
    last is x and y, and only one has a number for each point of each box.

    Args:
        summary: The network.
        options: Of the user's spec.

    Raises:
        InputError: An option names no output, or one that cannot be points.
    """
    outputs = summary.exported_outputs
    told, told_scores = (choice(options, key, tuple(outputs)) for key in POINT_OPTIONS)
    if told is not None:
        shape = outputs[told].shape
        if len(shape) != 4 or not shape[2] or shape[3] not in (2, _NUMBERS):
            raise InputError(
                f"the spec's options.keypoint_output is {told}, {outputs[told]}; keypoints are "
                "[N, A, P, 2], or [N, A, P, 3] with a score of each"
            )
        scored = bool(told_scores) or shape[3] == _NUMBERS
        return PointOutputs(output=told, scores=told_scores or "", count=shape[2], is_scored=scored)
    tables = {
        name: value.shape
        for name, value in outputs.items()
        if len(value.shape) == 4 and value.dtype.startswith("float") and value.shape[2]
    }
    if len(tables) != 1:
        return None
    ((name, shape),) = tables.items()
    count = int(shape[2] or 0)
    if plain_name(name) == _JOINTS and shape[3] == _NUMBERS:
        return PointOutputs(output=name, scores="", count=count, is_scored=True)
    beside = [one for one, value in outputs.items() if value.shape == shape[:3]]
    boxes = any(value.shape == (*shape[:2], 4) for value in outputs.values())
    proven = boxes and shape[3] == 2 and len(beside) == 1 and _is_unit(summary, beside[0])
    if not proven:
        return None
    return PointOutputs(output=name, scores=beside[0], count=count, is_scored=True)


def flat_pose_points(summary: GraphSummary) -> int:
    """Returns how many points end each row of YoloNASPose's flat format; 0 for anything else."""
    outputs = summary.exported_outputs
    if len(outputs) != 1 or plain_name(next(iter(outputs))) != _FLAT:
        return 0
    shape = next(iter(outputs.values())).shape
    numbers = (shape[-1] or 0) - _BEFORE_POINTS
    return numbers // _NUMBERS if len(shape) == 2 and numbers % _NUMBERS == 0 else 0


def point_spec(count: int, given: Mapping[str, Any], *, scored: bool) -> KeypointSpec:
    """Returns what so many points are: a person's of COCO where the spec says that it is one."""
    person = tuple(given.get("labels") or ()) == ("person",)
    if person and count == len(COCO_KEYPOINTS):
        return KeypointSpec(names=COCO_KEYPOINTS, scored=scored, skeleton=COCO_SKELETON)
    return KeypointSpec(names=tuple(f"point_{index}" for index in range(count)), scored=scored)


def check_points(spec: DetectorSpec, summary: GraphSummary) -> None:
    """Checks that the outputs of points which a whole spec names belong to its boxes.

    Raises:
        InputError: They have not a row for each.
    """
    if "keypoint_output" not in spec.options:
        return
    found = find_points(summary, spec.options)
    assert found is not None  # the option names it
    boxes = summary.outputs[spec.options["box_output"]].shape
    for name, wanted in zip(found.names, (4, 3), strict=False):
        shape = summary.outputs[name].shape
        if len(shape) != wanted or shape[:3] != (*boxes[:2], found.count):
            raise InputError(
                f"{name} is {summary.outputs[name]}; {found.count} keypoints of each of the boxes "
                f"{list(boxes)} need {[*boxes[:2], found.count]}, and x and y of each beside"
            )


def emit_points(bb: relax.BlockBuilder, outputs: Mapping[str, Any], spec: DetectorSpec) -> Any:
    """Emits the points ``[N, A, P * D]`` of outputs of their own; None where there are none."""
    from tvm import relax

    if not _are_wanted(spec):
        return None
    points = outputs[spec.options["keypoint_output"]]
    batch, rows, count, numbers = (int(dim) for dim in points.ty.shape)
    if scores := spec.options.get("keypoint_score_output"):
        apart = bb.emit(relax.op.expand_dims(outputs[scores], 3))
        points = bb.emit(relax.op.concat([points, apart], axis=3))
        numbers += 1
    return bb.emit(relax.op.reshape(points, (batch, rows, count * numbers)))


def reference_points(outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> np.ndarray | None:
    """Does in numpy what :func:`emit_points` does."""
    if not _are_wanted(spec):
        return None
    points = np.asarray(outputs[spec.options["keypoint_output"]], np.float32)
    if scores := spec.options.get("keypoint_score_output"):
        points = np.dstack([points.reshape(-1, 1, 2), np.reshape(outputs[scores], (-1, 1, 1))])
        points = points.reshape(*np.shape(outputs[scores]), _NUMBERS).astype(np.float32)
    return points.reshape(*points.shape[:2], -1)


def _are_wanted(spec: DetectorSpec) -> bool:
    return spec.keypoints is not None and POINT_OPTIONS[0] in spec.options


def _is_unit(summary: GraphSummary, name: str) -> bool:
    ranges = summary.output_ranges.get(name, ())
    runs = summary.columns.get((name, 2), ())
    return (bool(ranges) and all(one.is_unit for one in ranges)) or (
        bool(runs) and all(run.is_score for run in runs)
    )
