"""Rows of a box, its best score and its class, one for every cell: finished but for suppression.

DeepStream-Yolo's exporters of YOLOs write them (``utils/export_yolo*.py``: ``DeepStreamOutput``),
and YOLOv5-Lite's. They look like the rows of a network that suppresses inside; what tells them
apart is that on a picture the boxes move along with the cells of a pyramid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tvmdet.heads.base import GraphSummary, Question
from tvmdet.heads.box_evidence import are_corners, pyramids
from tvmdet.heads.chosen_rows import SUPPRESSION
from tvmdet.heads.detection_outputs import BOX_COLUMNS, DetectionOutputs

__all__ = ["ask_whether_to_suppress", "with_cells"]

_FEWEST, _MOST = 100, 1000  # rows; fewer are no pyramid's, and more no chosen ones
_CHOOSERS = (*SUPPRESSION, "TopK")


def with_cells(
    summary: GraphSummary, found: DetectionOutputs, size_hw: tuple[int, int]
) -> DetectionOutputs | str:
    """Returns the outputs with what a picture proves of rows that are one for every cell.

    A sentence instead where there are as many rows as only a pyramid has, and no picture shows
    whose cells they are: they would be taken for suppressed ones.

    Args:
        summary: The network.
        found: Its outputs; others than rows of box, score and class come back as they are.
        size_hw: Height and width of the input.
    """
    shape = summary.outputs[found.boxes].shape
    if found.columns[4:] != ("score", "class") or len(shape) != 3 or found.rows < _FEWEST:
        return found
    for strides, per_cell in pyramids(found.rows, size_hw):
        corners = are_corners(summary, found.boxes, 2, size_hw, strides, per_cell)
        if corners is not None:
            box = BOX_COLUMNS["corners" if corners else "center_size"]
            columns = (*box, *found.columns[4:])
            shown = ", ".join(map(str, strides))
            why = (
                f"{found.boxes} has the columns {' '.join(columns)} of every cell, strides {shown}"
            )
            return replace(found, columns=columns, of_cells=True, why=why)
    if found.rows > _MOST and not any(summary.operators.get(name) for name in _CHOOSERS):
        return (
            f"{found.boxes} has {found.rows} rows, and nothing inside has chosen or suppressed any"
        )
    return found


def ask_whether_to_suppress(
    found: DetectionOutputs, given: Mapping[str, Any], further: Question | None
) -> Question | None:
    """Asks for the IoU threshold of rows that are one for every cell; None where it is given.

    Args:
        found: The outputs.
        given: The user's spec.
        further: What is to be asked beside it, of how pictures are fed.
    """
    if not found.of_cells or "iou_threshold" in given.get("postprocess", {}):
        return None
    text = (
        'family = "detections"\n[postprocess]\n'
        "iou_threshold = 0.45    # or 1.0: none, where it was trained without (YOLOv10)"
    )
    more = further.spec_text.removeprefix('family = "detections"') if further else ""
    return Question(
        f"{found.boxes} has a row for every cell, and nothing says whether overlapping boxes are "
        f"still to be suppressed{f'; {further}' if further else ''}",
        spec_text=f"{text}{more}",
    )
