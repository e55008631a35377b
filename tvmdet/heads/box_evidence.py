"""Whether boxes are two corners or a centre and a size, read off what the network answers.

The arithmetic behind both is the same: exporters subtract and add distances to the middle of a
cell, or halve sizes and add them to a centre. But over the cells of a map the second corner moves
along with the cell, and a size does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tvmdet.heads.base import GraphSummary

__all__ = [
    "CENTER_SIZE",
    "CORNERS",
    "CORNER_SIZE",
    "are_likely_corners",
    "are_on_priors",
    "are_shares",
    "columns_in_order",
    "columns_of_cells",
    "columns_of_pyramid",
    "growth",
    "pyramids",
]

Floats = npt.NDArray[np.float64]

_STRIDES = (4, 8, 16, 32, 64, 128)
_MOST_PER_CELL = 9
_FEWEST_BOXES = 5

CORNERS = ("x1", "y1", "x2", "y2")
CORNER_SIZE = ("x1", "y1", "w", "h")
CENTER_SIZE = ("cx", "cy", "w", "h")

_FROM_CENTER = 0.25  # of a size: between a cell's way from a centre and from a first corner
_VARIED = 0.2  # least deviation of sizes from their mean that says something
_NEARLY_ALL = 0.95
_CELLS = 2.0  # least size of a box in cells
_FOLLOWS = 0.9  # least correlation of centres with their cells


def columns_of_cells(
    summary: GraphSummary,
    output: str,
    axis: int,
    size_hw: tuple[int, int],
    strides: Sequence[int],
    per_cell: int,
    *,
    columns: Sequence[int] = (0, 1, 2, 3),
    shares: bool = False,
) -> tuple[str, ...] | None:
    """Returns what four values of a row are, by how they move along with the cells.

    Args:
        summary: The network.
        output: Its rows, ``[N, V, A]`` or ``[N, A, V]``: a map after the other, the largest first
            or last, each row by row.
        axis: The dimension along which a row lies.
        size_hw: Height and width of the input.
        strides: Of the maps.
        per_cell: Boxes of each cell, one after the other or one map after the other.
        columns: Which four: across and down, twice.
        shares: Whether they are in shares of the picture, not in pixels.

    Returns:
        :data:`CORNERS`, :data:`CORNER_SIZE` or :data:`CENTER_SIZE`; None where the values follow
        none of these, so that rows may lie in another order.
    """
    boxes = _boxes(summary, output, axis, columns)
    if boxes is None:
        return None
    if shares:
        boxes = boxes * np.array(size_hw[::-1] * 2)
    for cells in _orders(size_hw, strides, per_cell):
        if cells.shape[0] != boxes.shape[0]:
            continue
        slopes = [_slope(cells, boxes, at) for at in range(4)]
        if not all(0.5 < slope < 1.5 for slope in slopes[:2]):
            continue
        if all(0.5 < slope < 1.5 for slope in slopes[2:]):
            return CORNERS
        if all(-0.5 < slope < 0.5 for slope in slopes[2:]):
            return CORNER_SIZE if _begin_at_corners(cells, boxes) else CENTER_SIZE
    return None


def columns_in_order(
    summary: GraphSummary,
    output: str,
    axis: int,
    size_hw: tuple[int, int],
    strides: Sequence[int],
    per_cell: int,
) -> tuple[str, ...] | None:
    """Returns what the first four values of a row are, across or down first.

    Arguments are those of :func:`columns_of_cells`.
    """
    rows = (summary, output, axis, size_hw, strides, per_cell)
    turned = (1, 0, 3, 2)
    if straight := columns_of_cells(*rows):
        return straight
    names = columns_of_cells(*rows, columns=turned)
    return None if names is None else tuple(names[place] for place in turned)


def _begin_at_corners(cells: Floats, boxes: Floats) -> bool:
    """Returns whether boxes with a size begin at their first two values.

    Within a map, the way from a first corner to its cell grows by half of what the size does, and
    that from a centre not at all, however far the network moves it. Where sizes hardly differ, a
    cell lies inside of its boxes, and so behind nearly every first corner, half a box away; but a
    centre may lie half a cell before, which of boxes not much larger than cells is as much.
    """
    away, size = cells[:, :2] - boxes[:, :2], boxes[:, 2:]
    wide = (size > 0).all(axis=1)
    if not wide.any():
        return False
    own_away, own_size, strides = away.copy(), size.copy(), np.ones(len(cells))
    for index in np.unique(cells[:, 2]):
        own = cells[:, 2] == index
        own_away[own] -= away[own].mean(axis=0)
        own_size[own] -= size[own].mean(axis=0)
        strides[own] = np.diff(np.unique(cells[own, 0])).min(initial=np.inf)
    spread = (own_size**2).sum(axis=0)
    if (np.sqrt(spread / len(size)) > _VARIED * np.abs(size).mean(axis=0)).all():
        return bool(((own_away * own_size).sum(axis=0) / spread > _FROM_CENTER).all())
    along = away[wide] / size[wide]
    inside = ((along >= 0) & (along <= 1)).mean(axis=0)
    larger = np.median(size[wide] / strides[wide, None], axis=0) > _CELLS
    behind = np.median(along, axis=0) > _FROM_CENTER
    return bool(((inside >= _NEARLY_ALL) & larger & behind).all())


def are_shares(
    summary: GraphSummary,
    output: str,
    axis: int,
    size_hw: tuple[int, int],
    strides: Sequence[int],
    per_cell: int,
) -> bool:
    """Returns whether the first two values of a row are centres in shares of the picture.

    Then they move along with the cells, but by as much less as the picture is wide and high.

    Args:
        summary: The network; one that cannot be run says nothing.
        output: As for :func:`columns_of_cells`.
        axis: Likewise.
        size_hw: Likewise.
        strides: Likewise.
        per_cell: Likewise.
    """
    boxes = _boxes(summary, output, axis)
    if boxes is None:
        return False
    pixels = boxes[:, :2] * np.array(size_hw[::-1])
    return any(
        all(0.5 < _slope(cells, pixels, at) < 1.5 for at in (0, 1))
        for cells in _orders(size_hw, strides, per_cell)
        if cells.shape[0] == pixels.shape[0]
    )


def growth(
    summary: GraphSummary,
    output: str,
    axis: int,
    size_hw: tuple[int, int],
    strides: Sequence[int],
    per_cell: int,
) -> tuple[float, float] | None:
    """Returns by how much the first two values grow across and down, for each pixel of a cell's.

    Boxes in pixels of the input grow by about 1, those in pixels of a larger picture by more.

    Args:
        summary: The network; one that cannot be run says nothing.
        output: As for :func:`columns_of_cells`.
        axis: Likewise.
        size_hw: Likewise.
        strides: Likewise.
        per_cell: Likewise.

    Returns:
        None where the values do not follow their cells closely.
    """
    boxes = _boxes(summary, output, axis)
    if boxes is None:
        return None
    for cells in _orders(size_hw, strides, per_cell):
        if cells.shape[0] != boxes.shape[0]:
            continue
        pairs = [(cells[:, at], boxes[:, at]) for at in (0, 1)]
        if any(one.std() == 0 for pair in pairs for one in pair):
            continue
        if all(np.corrcoef(*pair)[0, 1] >= _FOLLOWS for pair in pairs):
            return _slope(cells, boxes, 0), _slope(cells, boxes, 1)
    return None


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
    boxes = _boxes(summary, output, 2)
    if boxes is None:
        return None
    parts = []
    for index, (rows, columns, per_cell) in enumerate(maps):
        down, across = np.mgrid[0:rows, 0:columns]
        places = [(across + 0.5) / columns, (down + 0.5) / rows, np.full(down.shape, index)]
        cells = np.stack([place.ravel() for place in places], axis=1).astype(np.float64)
        parts.append(np.repeat(cells, per_cell, axis=0))
    cells = np.concatenate(parts)
    along = all(0.5 < _slope(cells, boxes, at) < 1.5 for at in range(4))
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


def _boxes(
    summary: GraphSummary, output: str, axis: int, columns: Sequence[int] = (0, 1, 2, 3)
) -> Floats | None:
    """Returns four values of each row; None where none are known."""
    if summary.sample is None:
        return None
    values = np.asarray(summary.sample()[output][0], np.float64)
    boxes: Floats = (values.T if axis == 1 else values)[:, list(columns)]
    return boxes if np.isfinite(boxes).all() else None


def columns_of_pyramid(
    summary: GraphSummary, output: str, size_hw: tuple[int, int]
) -> tuple[str, ...] | None:
    """Returns what boxes in pixels an output ``[N, A, 4]`` or ``[N, 4, A]`` holds, of any pyramid.

    Args:
        summary: The network.
        output: The name.
        size_hw: Height and width of the input.

    Returns:
        As :func:`columns_of_cells`; None where the values move along with no cells, as differences
        to anchors and distances do not.
    """
    shape = summary.outputs[output].shape
    if len(shape) != 3 or 4 not in shape[1:]:
        return None
    axis = 2 if shape[2] == 4 else 1
    rows = shape[3 - axis]
    if not rows:
        return None
    answers = (
        columns_of_cells(summary, output, axis, size_hw, strides, per_cell)
        for strides, per_cell in pyramids(rows, size_hw)
    )
    return next((answer for answer in answers if answer is not None), None)


def pyramids(anchors: int, size_hw: tuple[int, int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yields the strides of neighbouring maps, and the boxes of a cell, that give so many rows.

    Args:
        anchors: The rows.
        size_hw: Height and width of the input.
    """
    for first, last in itertools.combinations(range(len(_STRIDES) + 1), 2):
        strides = _STRIDES[first:last]
        cells = sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in strides)
        if cells and anchors % cells == 0 and anchors // cells <= _MOST_PER_CELL:
            yield strides, anchors // cells


def _orders(size_hw: tuple[int, int], strides: Sequence[int], per_cell: int) -> Iterator[Floats]:
    """Yields the middles of the rows' cells, ``x y map``, in the orders that exporters have."""
    maps = []
    for index, stride in enumerate(strides):
        down, across = np.mgrid[0 : size_hw[0] // stride, 0 : size_hw[1] // stride]
        places = [(across + 0.5) * stride, (down + 0.5) * stride, np.full(down.shape, index)]
        maps.append(np.stack([place.ravel() for place in places], axis=1).astype(np.float64))
    for ordered in (maps, maps[::-1]) if len(maps) > 1 else (maps,):
        yield np.concatenate([np.tile(cells, (per_cell, 1)) for cells in ordered])
        if per_cell > 1:
            yield np.concatenate([np.repeat(cells, per_cell, axis=0) for cells in ordered])


def _slope(cells: Floats, boxes: Floats, column: int) -> float:
    """Returns by how much a column grows with its cell's place, within the maps."""
    covariance = variance = 0.0
    for index in np.unique(cells[:, 2]):
        own = cells[:, 2] == index
        place = cells[own, column % 2]
        away = place - place.mean()
        covariance += float(away @ boxes[own, column])
        variance += float(away @ away)
    return covariance / variance if variance else 0.0
