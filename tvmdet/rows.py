"""Rows of outputs that a network has sorted, brought into the order of a reference.

A network that picks its best candidates (TopK) writes them in the order of their scores. Rounding
decides which of two nearly equal ones comes first; when two change places, whole rows differ
although both answers are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.differences import scale_of

__all__ = ["SELECTING_OPERATORS", "SPARED_SHARE", "in_reference_order", "selects"]

Arrays = Mapping[str, npt.NDArray[Any]]

SELECTING_OPERATORS = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "BoundedNonMaxSuppression",
        "NonMaxSuppression",
        "NonZero",
        "TopK",
    }
)
"""Operators of a network whose result a rounding can change by more than itself."""

SPARED_SHARE = 0.01
"""Share of the rows that may be others: the last one picked and the first one left out may tie."""

_MOST_ROWS = 2000  # beyond which the table of distances is no longer small


def selects(operators: Iterable[str]) -> bool:
    """Returns whether a network with these operators picks or sorts candidates."""
    return not SELECTING_OPERATORS.isdisjoint(operators)


def in_reference_order(
    got: Arrays,
    reference: Arrays,
    tolerance: float,
    ranked: Callable[[Sequence[str]], Sequence[npt.NDArray[Any]]] | None = None,
) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """Moves rows that are right but elsewhere to where the reference has them.

    A row is what all outputs ``[batch, rows, ...]`` with the same batch and number of rows say
    under one number, all of it: boxes move with their scores. A row is moved only to one that it
    agrees with within the tolerance; the others are left over, and will differ.

    Args:
        got: Outputs by name.
        reference: The right ones.
        tolerance: Greatest difference, as a share of the greatest value of an output.
        ranked: Gives the values ``[batch, rows]`` that the reference sorted the rows of these
            outputs by. Rows move only between ranks of which all these values are within the
            tolerance of each other then, and none moves where there are no such values.

    Returns:
        The outputs, and how many rows were moved.
    """
    ordered = {name: array.copy() for name, array in got.items()}
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, right in reference.items():
        if right.ndim >= 2 and name in got and got[name].shape == right.shape:
            groups.setdefault(right.shape[:2], []).append(name)
    moved = 0
    for (batch, rows), names in groups.items():
        if not 0 < rows <= _MOST_ROWS:
            continue
        sorted_by = None if ranked is None else ranked(names)
        for item in range(batch):
            place = _places(
                _table(got, reference, names, item),
                _table(reference, reference, names, item),
                tolerance,
                None if sorted_by is None else _tied(sorted_by, rows, item, tolerance),
            )
            moved += int((place != np.arange(rows)).sum())
            for name in names:
                ordered[name][item] = got[name][item][place]
    return ordered, moved


def _table(
    arrays: Arrays, reference: Arrays, names: list[str], item: int
) -> npt.NDArray[np.float64]:
    """Returns the rows of one batch item, each output as shares of its greatest value."""
    columns = []
    for name in names:
        values = arrays[name][item].astype(np.float64).reshape(arrays[name].shape[1], -1)
        columns.append(values / scale_of(reference[name]))
    return np.concatenate(columns, axis=1)


def _tied(
    sorted_by: Sequence[npt.NDArray[Any]], rows: int, item: int, tolerance: float
) -> npt.NDArray[np.bool_]:
    """Returns between which ranks of one batch item rounding may have chosen, ``[rows, rows]``.

    Each pair for itself: of a hundred scores that fall in small steps the first is no tie with the
    last.
    """
    tied = np.full((rows, rows), bool(sorted_by))
    for values in sorted_by:
        own = values[item].astype(np.float64) / scale_of(values)
        with np.errstate(invalid="ignore"):  # of infinities, which do not tie
            tied &= np.abs(own[:, None] - own) <= tolerance
    return tied


def _places(
    got: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    tolerance: float,
    tied: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.intp]:
    """Returns which row of ``got`` belongs to each row of ``right``; each is used once.

    Where ranks are said to tie, all rows find a place or none moves.
    """
    place = np.arange(len(right))
    off = np.flatnonzero(~(np.abs(got - right).max(axis=1, initial=0.0) <= tolerance))
    if not len(off):
        return place
    distance = np.stack([np.abs(got[off] - right[row]).max(axis=1) for row in off])
    if tied is not None:
        distance[~tied[np.ix_(off, off)]] = np.inf
    free_rows, free_places = np.ones(len(off), bool), np.ones(len(off), bool)
    for flat in np.argsort(distance, axis=None):
        to, source = divmod(int(flat), len(off))
        if not distance[to, source] <= tolerance:
            break
        if free_places[to] and free_rows[source]:
            place[off[to]] = off[source]
            free_places[to] = free_rows[source] = False
    if tied is not None and free_places.any():
        # Rows differ in any case; to the places that are left they might move between any ranks.
        return np.arange(len(right))
    place[off[free_places]] = off[free_rows]
    return place
