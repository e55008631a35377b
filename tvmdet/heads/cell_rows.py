"""Rows that may be one for each cell of some maps, and what their first four values are.

Read off what the network answers to a picture. The arithmetic behind two corners and a centre with
a size is the same: exporters subtract and add distances to the middle of a cell, or halve sizes and
add them to a centre. But over the cells of a map the second corner moves along with the cell, and a
size does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tvmdet.heads.base import GraphSummary

__all__ = [
    "CENTER_SIZE",
    "CORNERS",
    "CORNER_SIZE",
    "X_FIRST",
    "Y_FIRST",
    "CellRows",
    "Floats",
    "finite_values",
    "pyramids",
    "slope",
]

Floats = npt.NDArray[np.float64]

CORNERS = ("x1", "y1", "x2", "y2")
CORNER_SIZE = ("x1", "y1", "w", "h")
CENTER_SIZE = ("cx", "cy", "w", "h")

_STRIDES = (4, 8, 16, 32, 64, 128)
_MOST_PER_CELL = 9

X_FIRST, Y_FIRST = (0, 1, 2, 3), (1, 0, 3, 2)
"""Where a row of four values has those across and down, twice."""

_FROM_CENTER = 0.25  # of a size: between a cell's way from a centre and from a first corner
_VARIED = 0.2  # least deviation of sizes from their mean that says something
_NEARLY_ALL = 0.95
_CELLS = 2.0  # least size of a box in cells
_FOLLOWS = 0.9  # least correlation of centres with their cells


@dataclass(frozen=True, kw_only=True)
class CellRows:
    """Rows of an output that may be one for each cell of some maps.

    Attributes:
        summary: The network; of one that cannot be run nothing is known.
        output: Its rows, ``[N, V, A]`` or ``[N, A, V]``: a map after the other, the largest first
            or last, each row by row.
        axis: The dimension along which a row lies.
        size_hw: Height and width of the input.
        strides: Of the maps.
        per_cell: Boxes of each cell, one after the other or one map after the other.
    """

    summary: GraphSummary
    output: str
    axis: int
    size_hw: tuple[int, int]
    strides: Sequence[int]
    per_cell: int

    @classmethod
    def of_pyramids(
        cls, summary: GraphSummary, output: str, axis: int, size_hw: tuple[int, int]
    ) -> Iterator[CellRows]:
        """Yields an output's rows as those of each pyramid of usual maps that has so many."""
        rows = summary.outputs[output].shape[3 - axis]
        for strides, per_cell in pyramids(rows or 0, size_hw):
            yield cls(
                summary=summary,
                output=output,
                axis=axis,
                size_hw=size_hw,
                strides=strides,
                per_cell=per_cell,
            )

    def columns(
        self, places: Sequence[int] = X_FIRST, *, shares: bool = False
    ) -> tuple[str, ...] | None:
        """Returns what four values of a row are, by how they move along with the cells.

        Args:
            places: Which four: across and down, twice.
            shares: Whether they are in shares of the picture, not in pixels.

        Returns:
            :data:`CORNERS`, :data:`CORNER_SIZE` or :data:`CENTER_SIZE`; None where the values
            follow none of these, so that rows may lie in another order.
        """
        for cells, boxes in self._placed(places, shares=shares):
            slopes = [slope(cells, boxes, at) for at in range(4)]
            if not all(0.5 < one < 1.5 for one in slopes[:2]):
                continue
            if all(0.5 < one < 1.5 for one in slopes[2:]):
                return CORNERS
            if all(-0.5 < one < 0.5 for one in slopes[2:]):
                return CORNER_SIZE if _begin_at_corners(cells, boxes) else CENTER_SIZE
        return None

    def columns_in_order(self) -> tuple[str, ...] | None:
        """Returns what the first four values of a row are, whether across or down comes first."""
        if straight := self.columns():
            return straight
        names = self.columns(Y_FIRST)
        return None if names is None else tuple(names[place] for place in Y_FIRST)

    def are_shares(self) -> bool:
        """Returns whether the first two values of a row are centres in shares of the picture.

        Then they move along with the cells, but by as much less as the picture is wide and high.
        """
        return any(
            all(0.5 < slope(cells, boxes, at) < 1.5 for at in (0, 1))
            for cells, boxes in self._placed(shares=True)
        )

    def growth(self) -> tuple[float, float] | None:
        """Returns by how much the first two values grow, across and down, a pixel of their cells'.

        Boxes in pixels of the input grow by about 1, those in pixels of a larger picture by more.

        Returns:
            None where the values do not follow their cells closely.
        """
        for cells, boxes in self._placed():
            pairs = [(cells[:, at], boxes[:, at]) for at in (0, 1)]
            if any(one.std() == 0 for pair in pairs for one in pair):
                continue
            if all(np.corrcoef(*pair)[0, 1] >= _FOLLOWS for pair in pairs):
                return slope(cells, boxes, 0), slope(cells, boxes, 1)
        return None

    def _placed(
        self, places: Sequence[int] = X_FIRST, *, shares: bool = False
    ) -> Iterator[tuple[Floats, Floats]]:
        """Yields the middles of the rows' cells, in each order that fits, and boxes in pixels."""
        values = finite_values(self.summary, self.output, self.axis, places)
        if values is None:
            return
        boxes = values * np.array(self.size_hw[::-1] * 2) if shares else values
        for cells in self._orders():
            if len(cells) == len(boxes):
                yield cells, boxes

    def _orders(self) -> Iterator[Floats]:
        """Yields the cells' middles, ``x y map``, in the orders that exporters have."""
        maps = []
        for index, stride in enumerate(self.strides):
            down, across = np.mgrid[0 : self.size_hw[0] // stride, 0 : self.size_hw[1] // stride]
            places = [(across + 0.5) * stride, (down + 0.5) * stride, np.full(down.shape, index)]
            maps.append(np.stack([place.ravel() for place in places], axis=1).astype(np.float64))
        for ordered in (maps, maps[::-1]) if len(maps) > 1 else (maps,):
            yield np.concatenate([np.tile(cells, (self.per_cell, 1)) for cells in ordered])
            if self.per_cell > 1:
                yield np.concatenate([np.repeat(cells, self.per_cell, axis=0) for cells in ordered])


def finite_values(
    summary: GraphSummary, output: str, axis: int, places: Sequence[int] = X_FIRST
) -> Floats | None:
    """Returns four values of each row ``[A, 4]``; None where none are known, or not all finite.

    Args:
        summary: The network.
        output: Its rows, ``[N, V, A]`` or ``[N, A, V]``, of which the first picture's are taken.
        axis: The dimension along which a row lies.
        places: Which four.
    """
    if summary.sample is None:
        return None
    values = np.asarray(summary.sample()[output][0], np.float64)
    found: Floats = (values.T if axis == 1 else values)[:, list(places)]
    return found if np.isfinite(found).all() else None


def pyramids(anchors: int, size_hw: tuple[int, int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yields the strides of neighbouring maps, and the boxes of a cell, that give so many rows.

    Args:
        anchors: The rows.
        size_hw: Height and width of the input.
    """
    for first, last in itertools.combinations(range(len(_STRIDES) + 1), 2):
        strides = _STRIDES[first:last]
        cells = sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in strides)
        if cells and anchors % cells == 0 and 0 < anchors // cells <= _MOST_PER_CELL:
            yield strides, anchors // cells


def slope(cells: Floats, boxes: Floats, column: int) -> float:
    """Returns by how much a column grows with its cell's place, within the maps.

    Args:
        cells: A row's place across and down, and the number of its map, ``[A, 3]``.
        boxes: The rows, ``[A, 4]``: across and down, twice.
        column: Of these.
    """
    covariance = variance = 0.0
    for index in np.unique(cells[:, 2]):
        own = cells[:, 2] == index
        place = cells[own, column % 2]
        away = place - place.mean()
        covariance += float(away @ boxes[own, column])
        variance += float(away @ away)
    return covariance / variance if variance else 0.0


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
