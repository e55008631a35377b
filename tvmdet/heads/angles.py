"""The angle that ends the row of an oriented box, as in Ultralytics' models for DOTA.

It is in radians, ``(sigmoid - 1/4) * pi`` in YOLOv8 and YOLO11; YOLO26 has it without bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvmdet.heads.base import ColumnRun, GraphSummary
from tvmdet.heads.ultralytics import read_ultralytics

__all__ = ["ends_in_angle", "says_oriented"]

_LEAST, _MOST = -math.pi / 4, 3 * math.pi / 4


def says_oriented(summary: GraphSummary, given: Mapping[str, Any]) -> bool | None:
    """Returns whether boxes are oriented, as the spec says, else the metadata; None if neither."""
    if isinstance(given.get("oriented"), bool):
        return bool(given["oriented"])
    task = read_ultralytics(summary.metadata).task
    return None if task is None else task == "obb"


def ends_in_angle(
    summary: GraphSummary, given: Mapping[str, Any], last: tuple[ColumnRun, ...]
) -> bool:
    """Returns whether a row ends in an angle.

    Args:
        summary: The network.
        given: The user's spec.
        last: What is known of the last value of each row: where nobody says what the boxes are, the
            bounds of YOLOv8's angles prove it.
    """
    said = says_oriented(summary, given)
    if said is not None:
        return said
    return any(
        math.isclose(run.low, _LEAST, rel_tol=1e-3) and math.isclose(run.high, _MOST, rel_tol=1e-3)
        for run in last
    )
