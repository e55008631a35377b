"""What the arithmetic behind an output says about its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvmdet.heads.base import ColumnRun, GraphSummary, Near, Question
from tvmdet.heads.cell_rows import CENTER_SIZE, CORNERS, CellRows
from tvmdet.heads.input_defaults import UNIT, fed_input
from tvmdet.heads.yolo_find_rows import FoundRows

__all__ = [
    "box_runs",
    "doubt_boxes",
    "doubt_scores",
    "is_constant_one",
    "show_operators",
    "unit_input",
]


# Of centres along with their cells. Objects that many cells see pull them together, never apart.
_LARGEST_GROWTH = 1.5
_LEAST_GROWTH = 0.5
_ALIKE = 0.9
_LARGEST_SHARE = 2.0  # of centres in shares of the image; those in pixels reach its size


def box_runs(summary: GraphSummary, found: FoundRows) -> tuple[ColumnRun, ...]:
    """Returns what is known of the four box values."""
    return summary.column_runs(found.output, found.axis, 0, 4)


def doubt_scores(summary: GraphSummary, found: FoundRows, start: int, stop: int) -> str:
    """Says why the values of a row from ``start`` to ``stop`` are no scores, or ''."""
    name = found.output
    runs = summary.column_runs(name, found.axis, start, stop)
    for run in runs:
        if not run.operators:
            return Near(
                f"value {run.start} of each row of {name} is a constant ({run.low:g}), as the "
                "objectness of YOLOv6 is"
            )
        if not run.is_score:
            return Near(
                f"{_span(run)} of each row of {name} come from "
                f"{show_operators(run)} and are not bounded by 0 and 1, so they are no scores"
            )
    if not runs:
        sources = summary.output_sources.get(name, frozenset())
        if sources and "Sigmoid" not in sources:
            return Near(
                f"the values of {name} come from {', '.join(sorted(sources))}; "
                "class scores of this family come from a Sigmoid"
            )
    return ""


def doubt_boxes(
    summary: GraphSummary,
    found: FoundRows,
    size_hw: tuple[int, int],
    per_cell: int,
    *,
    only_scores: bool = False,
) -> str:
    """Says why the first four values of a row are no ``cx cy w h`` in pixels, or ''.

    Args:
        summary: The network.
        found: Its rows.
        size_hw: Height and width of the input.
        per_cell: Boxes of each cell.
        only_scores: Whether nothing but the scores of classes follows in a row. Family ``decoded``
            takes such rows with boxes in shares of the image or in another order, which is asked
            then.
    """
    name, runs = found.output, box_runs(summary, found)
    if any(run.is_raw for run in runs):
        return Near(f"{name} holds boxes straight from a Conv; this family's boxes are decoded")
    sources = summary.output_sources.get(name, frozenset())
    if not runs and not found.coefficients and "Conv" in sources:
        return Near(f"{name} holds values straight from a Conv; this family's boxes are decoded")
    rows = CellRows(
        summary=summary,
        output=name,
        axis=found.axis,
        size_hw=size_hw,
        strides=found.strides,
        per_cell=per_cell,
    )
    centers = summary.column_runs(name, found.axis, 0, 2)
    small = all(-_LARGEST_SHARE <= run.low <= run.high <= _LARGEST_SHARE for run in centers)
    if (centers and small) or rows.are_shares():
        how = "on a picture of shapes"
        if centers and small:
            how = f"never above {max(run.high for run in centers):g}"
        reason = (
            f"the box centres of {name} are shares of the image, {how}; this family's are pixels"
        )
        text = _as_decoded(found, CENTER_SIZE, "normalized")
        return Question(reason, spec_text=text) if only_scores else Near(reason)
    columns = rows.columns_in_order()
    if columns == CORNERS:
        return Near(
            f"the boxes of {name} are two corners, x1 y1 x2 y2, on a picture of shapes; this "
            "family's are cx cy w h"
        )
    if columns is not None and columns != CENTER_SIZE:
        reason = (
            f"the boxes of {name} are {' '.join(columns)}, on a picture of shapes; this family's "
            "are cx cy w h"
        )
        text = _as_decoded(found, columns, "pixels")
        return Question(reason, spec_text=text) if only_scores else Near(reason)
    grown = rows.growth()
    if grown is not None and (max(grown) > _LARGEST_GROWTH or _shrink_alike(grown)):
        height, width = (side * by for side, by in zip(size_hw, grown[::-1], strict=True))
        return Near(
            f"the boxes of {name} are in pixels of a picture of about {height:.0f}x{width:.0f}, on "
            f"one of {size_hw[0]}x{size_hw[1]}; this family's are in pixels of the network's "
            "input: leave out what scales them"
        )
    return ""


def _shrink_alike(grown: tuple[float, float]) -> bool:
    """Returns whether centres are in smaller units, such as cells: those of objects differ more."""
    return max(grown) < _LEAST_GROWTH and min(grown) > _ALIKE * max(grown)


def _as_decoded(found: FoundRows, columns: Sequence[str], frame: str) -> str:
    listed = ", ".join(f'"{column}"' for column in columns)
    return (
        f'family = "decoded"\n[options]\nbox_output = "{found.output}"\n'
        f'score_output = "{found.output}"\nlayout = "{found.layout}"\n'
        f'columns = [{listed}]\nbox_frame = "{frame}"\nbackground = "none"\n'
        "[input]    # what the network was trained with\n"
        'resize = "letterbox"             # or "stretch"\n'
        "mean = [0.0, 0.0, 0.0]           # in pixel units\n"
        "std = [255.0, 255.0, 255.0]"
    )


def is_constant_one(summary: GraphSummary, found: FoundRows, at: int) -> bool | None:
    """Returns whether a value of every row is 1 by construction, or None if unknown."""
    runs = summary.column_runs(found.output, found.axis, at, at + 1)
    if not runs:
        return None
    return not runs[0].operators and runs[0].low == runs[0].high == 1.0


def _span(run: ColumnRun) -> str:
    if run.stop == run.start + 1:
        return f"value {run.start}"
    return f"values {run.start} to {run.stop - 1}"


def unit_input(
    summary: GraphSummary, usual: str, family: str, given: Mapping[str, Any]
) -> tuple[dict[str, Any], str] | Question:
    """Returns how RGB pixels are fed to a network trained on pixels from 0 to 1.

    Args:
        summary: The network.
        usual: What the family does beyond that, for people.
        family: The family.
        given: The user's spec.

    Returns:
        Arguments of an InputSpec and a line for people, or what to ask.
    """
    line = f"input RGB / 255, {usual}: the family's default"
    return fed_input(summary, UNIT, line, family, given)


def show_operators(run: ColumnRun) -> str:
    """Returns the operators of a run for a message."""
    return ", ".join(sorted(run.operators)) or "constants"
