"""How far a compiled detector is from what ONNX Runtime and the framework's own code find.

Nothing is suppressed here on either side (an IoU threshold of 1), so that what is compared is what
the network says and what its outputs mean. Suppression has tests of its own, and the parity check
of every build compares it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from drawn import PICTURES, draw

from tvmdet.boxes import iou_matrix
from tvmdet.runtime.detector import Detector

__all__ = ["Agreement", "compare"]

WANTED = 100  # candidates to compare in each picture
SAME_BOX = 0.98  # IoU of two boxes that are the same
SAME_SCORE = 2e-3
SPARE = 20  # rows of a detector that stay free, so that none is cut off


@dataclass(kw_only=True)
class Agreement:
    """Counts over all pictures.

    Attributes:
        boxes: Pairs compared.
        worst_iou: Least overlap of a pair.
        worst_score_drift: Greatest difference of its scores.
        class_flips: Pairs whose classes differ though their scores say nothing of a tie.
        alone: Boxes of one side without a partner, well above the threshold.
        points: Keypoints compared, of pairs.
        worst_point_px: The farthest that two of them are apart.
    """

    boxes: int = 0
    worst_iou: float = 1.0
    worst_score_drift: float = 0.0
    class_flips: int = 0
    alone: int = 0
    points: int = 0
    worst_point_px: float = 0.0


def compare(detector: Detector, expected: Mapping[str, npt.NDArray[np.float32]]) -> Agreement:
    """Runs a detector on the drawn pictures and compares its boxes with the candidates stored."""
    tally = Agreement()
    height, width = (int(side) for side in expected["size_hw"])
    room = detector.spec.postprocess.max_detections
    for number in range(PICTURES):
        picture = draw(height, width, number)[..., ::-1]
        boxes, scores, classes, rows = _candidates(
            expected[f"boxes_{number}"],
            expected[f"scores_{number}"],
            each_class=detector.spec.postprocess.multi_label,
        )
        # Networks clip, and pictures end: what lies outside is the same box clipped.
        limit = np.asarray([width, height, width, height], np.float32)
        boxes = np.clip(boxes, 0, limit)
        wanted = WANTED if len(scores) <= room else min(WANTED, room - SPARE)
        score = float(scores[wanted]) if len(scores) > wanted else 0.0
        found = detector.detect(picture, score=score, iou=1.0)
        pairs = _match(
            tally,
            (boxes, scores, classes),
            (found.boxes_xyxy, found.scores, found.class_ids),
            score,
        )
        if found.keypoints is not None:
            points = expected[f"points_{number}"][rows]
            _compare_points(tally, points, found.keypoints.xy, pairs)
    return tally


_Table = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]


def _candidates(
    boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], *, each_class: bool
) -> tuple[*_Table, npt.NDArray[np.intp]]:
    """Returns boxes, scores, classes and rows, best first, scores of zero left out."""
    if each_class:
        rows, classes = np.nonzero(scores > 0)
    else:
        rows = np.flatnonzero(scores.max(axis=1, initial=0) > 0)
        classes = scores[rows].argmax(axis=1) if len(rows) else np.zeros(0, np.int64)
    values = scores[rows, classes]
    order = np.argsort(-values, kind="stable")
    return boxes[rows[order]], values[order], classes[order], rows[order]


def _areas(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas: npt.NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return areas


def _compare_points(
    tally: Agreement,
    expected: npt.NDArray[np.float32],
    found: npt.NDArray[np.float32],
    pairs: list[tuple[int, int]],
) -> None:
    """Compares the keypoints of pairs."""
    for row, other in pairs:
        away = np.hypot(*(expected[row] - found[other]).T)
        tally.points += len(away)
        tally.worst_point_px = max(tally.worst_point_px, float(away.max()))


def _match(
    tally: Agreement, expected: _Table, found: _Table, score: float
) -> list[tuple[int, int]]:
    """Pairs both sides best first, and counts what has no partner above the threshold.

    Returns:
        The pairs, by their rows on both sides.
    """
    pairs = []
    overlaps = iou_matrix(expected[0], found[0])
    # A box clipped to nothing, or turned inside out, overlaps nothing, itself neither: equal
    # corners are the same box.
    same = np.all(np.abs(expected[0][:, None] - found[0][None]) < 0.5, axis=-1)
    empty = (_areas(expected[0]) < 1)[:, None] & (_areas(found[0]) < 1)[None]
    overlaps = np.where(empty, same, overlaps)
    drift = np.abs(expected[1][:, None] - found[1][None])
    free = np.ones(len(found[1]), bool)
    for row in range(len(expected[1])):
        near = free & (drift[row] <= SAME_SCORE) & (overlaps[row] >= SAME_BOX)
        if not near.any():
            # Boxes outside of the picture are clipped to nothing; some heads drop them.
            inside = _sides(expected[0][row]) >= 1
            tally.alone += bool(inside and expected[1][row] > score + SAME_SCORE)
            continue
        alike = near & (found[2] == expected[2][row])
        options = np.flatnonzero(alike if alike.any() else near)
        best = options[np.argmax(overlaps[row, options] - drift[row, options])]
        free[best] = False
        pairs.append((row, int(best)))
        tally.boxes += 1
        tally.class_flips += not alike.any()
        tally.worst_iou = min(tally.worst_iou, float(overlaps[row, best]))
        tally.worst_score_drift = max(tally.worst_score_drift, float(drift[row, best]))
    left = free & (_sides(found[0]) >= 1)
    tally.alone += int((found[1][left] > score + SAME_SCORE).sum())
    return pairs


def _sides(boxes: npt.NDArray[np.float32]) -> Any:
    """Returns the shorter side of each box, in pixels."""
    return np.minimum(boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1])
