"""The axes of a chart: grid, labels, titles, and texts that do not cover each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tvmdet.report.pages.canvas import Canvas, Point, fitted, text_width
from tvmdet.report.pages.scales import Scale, number

__all__ = ["LABEL", "WIDTH", "Labels", "draw_x_axis", "draw_y_axis", "name_room", "name_row"]

WIDTH = 430.0
"""Units across of every chart: on a phone a unit is a little less than a pixel."""

LABEL = 12.0
"""Size of texts."""

_LINE = LABEL + 3.0


def draw_x_axis(canvas: Canvas, scale: Scale, top: float, bottom: float, title: str) -> None:
    """Draws upright grid lines, their values below, and what they are values of."""
    for value in scale.ticks:
        x = scale(value)
        canvas.line((x, top), (x, bottom), "grid")
        canvas.text(x, bottom + LABEL + 3, number(value), "tick", anchor="middle")
    canvas.line((scale.start, bottom), (scale.end, bottom), "axis")
    middle = (scale.start + scale.end) / 2
    canvas.text(middle, bottom + 2 * LABEL + 9, title, "axis-title", anchor="middle")


def draw_y_axis(canvas: Canvas, scale: Scale, left: float, right: float, title: str) -> None:
    """Draws level grid lines, their values at the left, and what they are values of."""
    for value in scale.ticks:
        y = scale(value)
        canvas.line((left, y), (right, y), "grid")
        canvas.text(left - 5, y + LABEL / 3, number(value), "tick", anchor="end")
    canvas.line((left, scale.start), (left, scale.end), "axis")
    middle = (scale.start + scale.end) / 2
    canvas.text(LABEL, middle, title, "axis-title", anchor="middle", turned=True)


def name_room(rows: Iterable[tuple[str, str]], left: float, right: float) -> float:
    """Returns how much taller than for one line of words the rows of a chart must be.

    Args:
        rows: What each row is, and what it says.
        left: Where the former begins.
        right: Where the latter ends.
    """
    lines = max((len(_lines(name, told, right - left)) for name, told in rows), default=1)
    return (lines - 1) * _LINE


def name_row(canvas: Canvas, y: float, left: float, right: float, name: str, told: str) -> None:
    """Writes what a row is at the left and what it says at the right, above the line ``y``.

    A name that does not fit beside it takes two lines, so that rows stay distinguishable; only
    what is wider than the whole chart is cut.
    """
    lines = _lines(name, told, right - left)
    top = y - (len(lines) - 1) * _LINE
    for index, line in enumerate(lines):
        canvas.text(left, top + index * _LINE, line, "row")
    if told:
        canvas.text(right, top, told, "row", anchor="end")


def _lines(name: str, told: str, width: float) -> list[str]:
    room = width - text_width(told, LABEL) - LABEL
    if text_width(name, LABEL) <= room:
        return [name]
    first, between, rest = name.partition(" · ")
    if not between or text_width(first, LABEL) > room:
        words = name.split(" ")
        fits = [n for n in range(len(words)) if text_width(" ".join(words[:n]), LABEL) <= room]
        first, rest = " ".join(words[: max(fits)]), " ".join(words[max(fits) :])
    return [first, fitted(rest, LABEL, width)]


@dataclass(kw_only=True)
class Labels:
    """Texts beside points, each where nothing else is yet.

    Attributes:
        left: Where the drawing begins.
        right: Where it ends.
        top: Its upper end.
        bottom: Its lower end.
        taken: Rectangles that are in use: left, top, right, bottom.
    """

    left: float
    right: float
    top: float
    bottom: float
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def block(self, points: Sequence[Point], reach: float = 5.0) -> None:
        """Keeps texts off points."""
        self.taken += [(x - reach, y - reach, x + reach, y + reach) for x, y in points]

    def put(
        self,
        canvas: Canvas,
        x: float,
        y: float,
        words: str,
        kind: str = "label",
        *,
        above: bool = False,
    ) -> bool:
        """Writes a text beside a point, or rather above or below it.

        Returns:
            False, and writes none, where there is no room.
        """
        width, half = text_width(words, LABEL), LABEL / 2
        gap = 8.0
        places = (
            (x + gap, y, "start"),
            (x - gap, y, "end"),
            (x, y - half - gap, "middle"),
            (x, y + half + gap, "middle"),
            (x + gap, y - LABEL, "start"),
            (x + gap, y + LABEL, "start"),
            (x - gap, y - LABEL, "end"),
            (x - gap, y + LABEL, "end"),
        )
        for at, middle, anchor in places[2:] + places[:2] if above else places:
            begin = at - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            area = (begin, middle - half, begin + width, middle + half)
            if self._is_free(area):
                self.taken.append(area)
                canvas.text(at, middle + LABEL / 3, words, kind, anchor=anchor)
                return True
        return False

    def _is_free(self, area: tuple[float, float, float, float]) -> bool:
        left, top, right, bottom = area
        if left < self.left or right > self.right or top < self.top or bottom > self.bottom:
            return False
        return not any(
            left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
            for other in self.taken
        )
