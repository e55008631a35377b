"""Finds out which outputs of a dense head are classes, boxes and qualities, and on which grids."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.labels import fits_classes
from tvmdet.heads.options import names_of

__all__ = ["FoundOutputs", "describe_found", "find_outputs", "hint_of"]

# Names of outputs that say what they are; a quality's may hold "bbox" too, so it is asked first.
_HINTS = (
    ("quality", re.compile(r"ctr|cent(er|re)|iou|quality|obj", re.IGNORECASE)),
    ("box", re.compile(r"box|reg|loc|delta|offset|dist", re.IGNORECASE)),
    ("class", re.compile(r"cls|class|logit|score|conf|prob", re.IGNORECASE)),
)


@dataclass(frozen=True, kw_only=True)
class FoundOutputs:
    """The outputs of a dense head.

    Attributes:
        names: By kind (``class``, ``box``, ``quality``), finest level first or one for all.
        grids: Rows and columns of each level; empty where joined outputs do not tell.
        rows: Predictions of each level; of all where ``grids`` is empty.
        columns: Class columns, the background's too.
        box_channels: Numbers of a box.
    """

    names: Mapping[str, tuple[str, ...]]
    grids: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    columns: int
    box_channels: int

    @property
    def per_cell(self) -> tuple[int, ...]:
        """Predictions at a cell of each level."""
        return tuple(
            rows // (grid[0] * grid[1]) for rows, grid in zip(self.rows, self.grids, strict=False)
        )


@dataclass(frozen=True, kw_only=True)
class _Level:
    """Outputs of one level: names and channels, and how many predictions a cell may have."""

    grid: tuple[int, int] | None
    rows: int
    entries: tuple[tuple[str, int], ...]


def hint_of(name: str) -> str:
    """Returns the kind that an output's name speaks of, or ''."""
    return next((kind for kind, pattern in _HINTS if pattern.search(name)), "")


def describe_found(found: FoundOutputs) -> str:
    """Returns a line on levels, anchors and channels."""
    if not found.grids:
        return f"{sum(found.rows)} boxes, {found.columns} class columns"
    grids = ", ".join(f"{height}x{width}" for height, width in found.grids)
    counts = "/".join(str(count) for count in found.per_cell)
    if len(set(found.per_cell)) == 1:
        counts = str(found.per_cell[0])
    boxes = "1 box" if counts == "1" else f"{counts} boxes"
    return f"levels of {grids} cells, {boxes} at each, {found.columns} class columns"


def find_outputs(
    summary: GraphSummary,
    given: Mapping[str, Any],
    kinds: Sequence[str],
    box_channels: int = 4,
    usual_channels: int = 0,
) -> FoundOutputs | str:
    """Finds the outputs of a head by their shapes; names and the user's options settle doubt.

    Args:
        summary: The network.
        given: The user's spec.
        kinds: What the head has: ``class``, ``box``, and maybe ``quality``.
        box_channels: Numbers of a box; 0 for those of a distribution, 4 times some bins.
        usual_channels: Numbers of a box that the family usually has, where it may have others.

    Returns:
        The outputs, or why they are not such a head's.
    """
    options = given.get("options", {})
    fixed = {kind: names_of(options, f"{kind}_outputs", summary.outputs) for kind in kinds}
    named = {name for names in fixed.values() for name in names or ()}
    considered = [n for n in summary.outputs if not all(fixed.values()) or n in named]
    levels = _group(summary, considered, len(kinds))
    if isinstance(levels, str):
        return levels
    solutions = list(_solve(levels, kinds, box_channels))
    for keep, certain in (
        (lambda found: _obeys(found, fixed), True),
        (lambda found: _fits_labels(found, given.get("labels")), True),
        (_obeys_hints, False),
        (lambda found: found.box_channels == usual_channels, False),
    ):
        fitting = [found for found in solutions if keep(found)]
        if fitting or certain:
            solutions = fitting
    if not solutions:
        return "the channels of its outputs are not those of classes and boxes of one anchor each"
    if len(solutions) > 1:
        keys = " and ".join(f"options.{kind}_outputs" for kind in kinds)
        return (
            "its outputs cannot be told apart as " + ", ".join(kinds) + f": give labels, or {keys}"
        )
    return _with_grids(solutions[0], summary)


def _group(summary: GraphSummary, names: Sequence[str], kinds: int) -> list[_Level] | str:
    """Returns the levels, finest first, or why the outputs are no levels."""
    if len(names) < kinds or len(names) % kinds:
        return f"it has {len(names)} outputs; this family has {kinds} for each level, or {kinds}"
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        value = summary.outputs[name]
        if None in value.shape or len(value.shape) not in (3, 4):
            return f"{name} is {value}; this family's are [N, boxes, C] or [N, C, H, W]"
        shapes[name] = tuple(int(dim or 0) for dim in value.shape)
    if len({len(shape) for shape in shapes.values()}) > 1:
        return "its outputs differ in rank"
    # Channels last is tried second: a square map of as many channels fits both.
    for last in (False, True):
        grouped: dict[tuple[int, ...], list[tuple[str, int]]] = {}
        for name, shape in shapes.items():
            flat = len(shape) == 3
            place = shape[1:-1] if last != flat else shape[2:]
            channels = shape[-1] if last != flat else shape[1]
            grouped.setdefault(place, []).append((name, channels))
        if all(len(entries) == kinds for entries in grouped.values()):
            found = [
                _Level(
                    grid=(place[0], place[1]) if len(place) == 2 else None,
                    rows=place[0] * (place[1] if len(place) == 2 else 1),
                    entries=tuple(entries),
                )
                for place, entries in grouped.items()
            ]
            return sorted(found, key=lambda level: -level.rows)
    return f"its outputs do not share grids; this family has {kinds} on each"


def _solve(
    levels: Sequence[_Level], kinds: Sequence[str], box_channels: int
) -> Iterator[FoundOutputs]:
    """Yields the ways to read the outputs, the same roles of channels at every level."""
    choices = [list(_read(level, kinds, box_channels)) for level in levels]
    keys = [{(columns, size) for _, columns, size, _ in ways} for ways in choices]
    for columns, size in sorted(set.intersection(*keys)):
        fitting = [[way for way in ways if way[1:3] == (columns, size)] for ways in choices]
        for combination in itertools.islice(itertools.product(*fitting), 64):
            grids = tuple(level.grid for level in levels if level.grid is not None)
            yield FoundOutputs(
                names={kind: tuple(way[0][kind] for way in combination) for kind in kinds},
                grids=grids,
                rows=tuple(
                    level.rows * way[3] for level, way in zip(levels, combination, strict=True)
                ),
                columns=columns,
                box_channels=size,
            )


def _read(
    level: _Level, kinds: Sequence[str], box_channels: int
) -> Iterator[tuple[dict[str, str], int, int, int]]:
    """Yields roles, class columns, numbers of a box and anchors at a cell."""
    for order in itertools.permutations(level.entries):
        channels = {kind: count for kind, (_, count) in zip(kinds, order, strict=True)}
        size = box_channels or channels["box"]
        if not box_channels and not (size % 4 == 0 and 4 <= size // 4 <= 33):
            continue
        at_cell, rest = divmod(channels["box"], size)
        if rest or not at_cell or (level.grid is None and at_cell > 1):
            continue
        if channels.get("quality", at_cell) != at_cell or channels["class"] % at_cell:
            continue
        roles = {kind: name for kind, (name, _) in zip(kinds, order, strict=True)}
        yield roles, channels["class"] // at_cell, size, at_cell


def _fits_labels(found: FoundOutputs, labels: Sequence[str] | None) -> bool:
    return not labels or any(fits_classes(labels, found.columns - more) for more in (0, 1))


def _obeys(found: FoundOutputs, fixed: Mapping[str, tuple[str, ...] | None]) -> bool:
    return all(names is None or found.names[kind] == names for kind, names in fixed.items())


def _obeys_hints(found: FoundOutputs) -> bool:
    return all(hint_of(name) in ("", kind) for kind, names in found.names.items() for name in names)


def _with_grids(found: FoundOutputs, summary: GraphSummary) -> FoundOutputs:
    """Returns joined outputs with the grids of the maps that were joined, where they are known."""
    if found.grids or len(found.rows) != 1:
        return found
    boxes = summary.output_maps.get(found.names["box"][0], ())
    classes = summary.output_maps.get(found.names["class"][0], ())
    for axes in ((1, 2, 3), (3, 1, 2)):
        channel, height, width = axes
        grids = tuple((shape[height], shape[width]) for shape in boxes)
        counts = [shape[channel] // found.box_channels for shape in boxes]
        same = [(shape[height], shape[width], shape[channel]) for shape in classes] == [
            (*grid, count * found.columns) for grid, count in zip(grids, counts, strict=True)
        ]
        rows = tuple(grid[0] * grid[1] * count for grid, count in zip(grids, counts, strict=True))
        if grids and same and sum(rows) == found.rows[0]:
            return FoundOutputs(
                names=found.names,
                grids=grids,
                rows=rows,
                columns=found.columns,
                box_channels=found.box_channels,
            )
    return found
