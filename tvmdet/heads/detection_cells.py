"""Rows of a box, its best score and its class, one for every cell: finished but for suppression.

DeepStream-Yolo's exporters of YOLOs write them (``utils/export_yolo*.py``: ``DeepStreamOutput``;
older ones as three outputs), and YOLOv5-Lite's. They look like the rows of a network that
suppresses inside. What tells them apart is that on a picture the boxes move along with the cells of
a pyramid; where no picture shows it, that there are as many rows as a pyramid has cells, or more
than a network ever returns, and nothing inside chooses any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tvmdet.heads.base import GraphSummary, Question
from tvmdet.heads.cell_rows import X_FIRST, Y_FIRST, CellRows, pyramids
from tvmdet.heads.chosen_rows import chooses_rows
from tvmdet.heads.detection_outputs import DetectionOutputs

__all__ = ["ask_whether_to_suppress", "with_cells"]

_FEWEST, _MOST = 100, 1000  # rows; fewer are no pyramid's, and more no chosen ones
_FINEST = 16  # stride of a single map with a row for each cell; coarser ones are by chance
# Places of x and y twice among the four columns of a box, where nothing says which are which.
_ACROSS, _DOWN = (("x1", "cx"), ("x2", "w")), (("y1", "cy"), ("y2", "h"))


def with_cells(
    summary: GraphSummary,
    found: DetectionOutputs,
    size_hw: tuple[int, int],
    options: Mapping[str, Any],
) -> DetectionOutputs:
    """Returns the outputs with whether rows are one for every cell, and what a picture shows.

    Where a picture shows whose cells they are, it says the order and the unit of boxes, too. Where
    none does, the rows of a pyramid that nothing chose are taken for cells as well: the order and
    the unit are left to the spec then, whatever the exporter.

    Args:
        summary: The network.
        found: Its outputs.
        size_hw: Height and width of the input.
        options: Of the user's spec; its columns are kept.
    """
    if found.rows < _FEWEST:
        return found
    shown = _shown(summary, found, size_hw, options)
    if shown is not None:
        return shown
    if not chooses_rows(summary) and (found.rows > _MOST or _fits_cells(found.rows, size_hw)):
        return replace(found, of_cells=True)
    return found


def _shown(
    summary: GraphSummary,
    found: DetectionOutputs,
    size_hw: tuple[int, int],
    options: Mapping[str, Any],
) -> DetectionOutputs | None:
    """Returns the outputs with the cells that boxes move along with on a picture, if they do."""
    if summary.sample is None or len(summary.outputs[found.boxes].shape) != 3:
        return None
    told = bool(options.get("columns"))
    for rows in CellRows.of_pyramids(summary, found.boxes, 2, size_hw):
        for places in _box_places(found.columns):
            for shares in (False, True):
                read = rows.columns(places, shares=shares)
                if read is None:
                    continue
                cells = f"of every cell, strides {', '.join(map(str, rows.strides))}"
                if told:
                    why = f"{found.why}, {cells}"
                    return replace(found, of_cells=True, are_cells_shown=True, why=why)
                columns = _named(found.columns, places, read)
                why = f"{found.boxes} has the columns {' '.join(columns)} {cells}"
                frame = "normalized" if shares else "pixels"
                return replace(
                    found,
                    of_cells=True,
                    columns=columns if found.columns else (),
                    are_cells_shown=True,
                    cell_frame=(columns, frame),
                    why=why,
                )
    return None


def _box_places(columns: tuple[str, ...]) -> Iterator[tuple[int, ...]]:
    """Yields where the columns of a box may be: across and down, twice."""
    if not columns:
        yield X_FIRST
        yield Y_FIRST
        return
    pairs = zip(_ACROSS, _DOWN, strict=True)
    names = [names for pair in pairs for names in pair]
    places = [next((columns.index(n) for n in either if n in columns), -1) for either in names]
    if min(places) >= 0:
        yield tuple(places)


def _named(
    columns: tuple[str, ...], places: tuple[int, ...], read: tuple[str, ...]
) -> tuple[str, ...]:
    """Returns the columns with the names of a box in their places."""
    names = list(columns or ("",) * 4)
    for place, name in zip(places, read, strict=True):
        names[place] = name
    return tuple(names)


def _fits_cells(rows: int, size_hw: tuple[int, int]) -> bool:
    """Returns whether a pyramid of usual strides, or a fine map, has so many cells."""
    return any(
        len(strides) > 1 or (strides[0] <= _FINEST and per_cell == 1)
        for strides, per_cell in pyramids(rows, size_hw)
    )


def ask_whether_to_suppress(
    found: DetectionOutputs, given: Mapping[str, Any], further: Question | None
) -> Question | None:
    """Asks for the IoU threshold of rows that are one for every cell; None where it is given.

    Args:
        found: The outputs.
        given: The user's spec.
        further: What is to be asked beside it, of boxes or of how pictures are fed.
    """
    if not found.of_cells or "iou_threshold" in given.get("postprocess", {}):
        return None
    text = (
        'family = "detections"\n[postprocess]\n'
        "iou_threshold = 0.45    # or 1.0: none, where it was trained without (YOLOv10)"
    )
    more = further.spec_text.removeprefix('family = "detections"') if further else ""
    cells = "a row for every cell"
    if not found.are_cells_shown:
        cells = f"{found.rows} rows that nothing inside has chosen or suppressed"
    return Question(
        f"{found.boxes} has {cells}, and nothing says whether overlapping boxes are "
        f"still to be suppressed{f'; {further}' if further else ''}",
        spec_text=f"{text}{more}",
    )
