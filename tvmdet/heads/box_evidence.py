"""What a network's answer to a picture proves of its boxes, beside rows that are one a cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.cell_rows import CellRows, finite_values, slope

__all__ = ["are_likely_corners", "are_on_priors", "columns_of_pyramid"]

_FEWEST_BOXES = 5


def columns_of_pyramid(
    summary: GraphSummary, output: str, size_hw: tuple[int, int]
) -> tuple[str, ...] | None:
    """Returns what boxes in pixels an output ``[N, A, 4]`` or ``[N, 4, A]`` holds, of any pyramid.

    Args:
        summary: The network.
        output: The name.
        size_hw: Height and width of the input.

    Returns:
        As :meth:`CellRows.columns`; None where the values move along with no cells, as differences
        to anchors and distances do not.
    """
    shape = summary.outputs[output].shape
    if len(shape) != 3 or 4 not in shape[1:]:
        return None
    axis = 2 if shape[2] == 4 else 1
    answers = (rows.columns() for rows in CellRows.of_pyramids(summary, output, axis, size_hw))
    return next((answer for answer in answers if answer is not None), None)


def are_on_priors(
    summary: GraphSummary, output: str, maps: Sequence[tuple[int, int, int]]
) -> bool | None:
    """Returns whether rows are two corners in shares of the picture, around the priors of an SSD.

    Args:
        summary: The network.
        output: Its rows, ``[N, A, 4]``.
        maps: Rows, columns and boxes a cell of each map, in order.

    Returns:
        False for other values, such as differences to priors; None where nothing can be run.
    """
    boxes = finite_values(summary, output, 2)
    if boxes is None:
        return None
    parts = []
    for index, (rows, columns, per_cell) in enumerate(maps):
        down, across = np.mgrid[0:rows, 0:columns]
        places = [(across + 0.5) / columns, (down + 0.5) / rows, np.full(down.shape, index)]
        cells = np.stack([place.ravel() for place in places], axis=1).astype(np.float64)
        parts.append(np.repeat(cells, per_cell, axis=0))
    cells = np.concatenate(parts)
    along = all(0.5 < slope(cells, boxes, at) < 1.5 for at in range(4))
    return along and bool((boxes[:, :2] <= boxes[:, 2:]).all())


def are_likely_corners(summary: GraphSummary, output: str, columns: Sequence[int]) -> bool | None:
    """Returns whether four values of rows in any order are rather two corners than a size.

    From box to box a second corner moves along with the first; a size does not. Of a few boxes that
    is by chance, and no proof.

    Args:
        summary: The network.
        output: Its rows, ``[N, A, V]`` or ``[A, V]``.
        columns: Which four: across and down, twice.

    Returns:
        None where nothing can be run, or the boxes of the picture do not differ.
    """
    if summary.sample is None:
        return None
    values = np.asarray(summary.sample()[output], np.float64)
    rows = values.reshape(-1, values.shape[-1])[:, list(columns)]
    rows = rows[np.isfinite(rows).all(axis=1) & rows.any(axis=1)]
    if len(rows) < _FEWEST_BOXES:
        return None
    away = rows - rows.mean(axis=0)
    variances = (away[:, :2] ** 2).sum(axis=0)
    if not (variances > 0).all():
        return None
    slopes = (away[:, :2] * away[:, 2:]).sum(axis=0) / variances
    return bool(slopes.mean() > 0.5)
