"""What ``tvmdet detect`` tells people at the end."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tvmdet.cli import output
from tvmdet.counted import counted
from tvmdet.sizes import size_text

if TYPE_CHECKING:
    from tvmdet.detections import Detections

__all__ = ["Tally"]

_ROWS = 20  # sources named one by one; the classes are counted over all


@dataclass
class _Row:
    source: str
    size_hw: tuple[int, int]
    frames: int | None = None
    classes: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The source, and of a video how many frames it had."""
        frames = "" if self.frames is None else f" ({counted(self.frames, 'frame')})"
        return self.source + frames


class Tally:
    """Counts per source and per class; keeps boxes of the first image only.

    Attributes:
        objects: Boxes found so far.
        failures: Sources that cannot be used, or saved.
    """

    def __init__(self) -> None:
        """Starts at nothing."""
        self.objects = 0
        self.failures = 0
        self._sources = 0
        self._rows: list[_Row] = []
        self._row: _Row | None = None
        self._classes: Counter[str] = Counter()
        self._first: Detections | None = None

    def add_image(self, source: str, found: Detections) -> None:
        """Counts one image."""
        if self._first is None and not self._sources:
            self._first = found
        self._begin(_Row(source=source, size_hw=found.image_size_hw))
        self._count(found)

    def add_frame(self, source: str, found: Detections) -> None:
        """Counts one frame of a video."""
        if self._row is None or self._row.source != source or self._row.frames is None:
            self._begin(_Row(source=source, size_hw=found.image_size_hw, frames=0))
        assert self._row is not None
        self._row.frames = (self._row.frames or 0) + 1
        self._count(found)

    def fail(self, reason: str) -> None:
        """Says that a source cannot be used, or its picture not saved, and why."""
        self.failures += 1
        print(f"skipped: {reason}", file=sys.stderr)

    def print(self) -> None:
        """Prints the boxes of a single image, or counts of several."""
        if self._sources == 1 and self._first is not None:
            self._print_boxes(self._first)
        elif self._sources:
            self._print_counts()

    def _begin(self, row: _Row) -> None:
        self._sources += 1
        self._row = row
        if len(self._rows) < _ROWS:
            self._rows.append(row)

    def _count(self, found: Detections) -> None:
        assert self._row is not None
        self.objects += len(found)
        self._row.classes.update(found.labels)
        self._classes.update(found.labels)

    def _print_boxes(self, found: Detections) -> None:
        size = size_text(found.image_size_hw)
        title = f"{found.source}, {size}: {counted(len(found), 'object')}"
        if not len(found):
            output.stdout().print(title)
            return
        output.table(
            ("class", "score", "x1", "y1", "x2", "y2"),
            [
                (one.label, f"{one.score:.3f}", *(f"{side:.1f}" for side in one.box_xyxy))
                for one in found
            ],
            title=title,
            right=("score", "x1", "y1", "x2", "y2"),
        )

    def _print_counts(self) -> None:
        output.table(
            ("source", "height x width", "objects", "classes"),
            [
                (
                    row.source
                    if row.frames is None
                    else f"{row.source} ({counted(row.frames, 'frame')})",
                    "x".join(str(side) for side in row.size_hw),
                    row.classes.total(),
                    _most_common(row.classes),
                )
                for row in self._rows
            ],
            right=("objects",),
        )
        if self._sources > len(self._rows):
            more = counted(self._sources - len(self._rows), "more source")
            output.stdout().print(f"... and {more}\n")
        output.stdout().print(
            f"{counted(self.objects, 'object')} in {counted(self._sources, 'source')}: "
            f"{_most_common(self._classes)}"
        )


def _most_common(classes: Counter[str]) -> str:
    return ", ".join(f"{count} {label}" for label, count in classes.most_common()) or "none"
