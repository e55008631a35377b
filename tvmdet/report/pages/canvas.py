"""A small writer of SVG, for charts that a page styles.

Charts are drawn by hand rather than by a plotting library because the page has to do what such a
library's files cannot: follow the reader's light or dark theme and the printer's paper through
style sheets, keep text as text, stay readable at the width of a phone, and weigh some kilobytes
each, a hundred thousand latencies included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["MARKERS", "PATTERNS", "Canvas", "Point", "fitted", "pattern_definitions", "text_width"]

Point = tuple[float, float]

# Paths around 0, 0. Told apart by shape first: colour is only a help.
MARKERS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z",
    "M-3.7,-3.7h7.4v7.4h-7.4Z",
    "M0,-5L4.7,3.6H-4.7Z",
    "M0,-5.2L4.4,0L0,5.2L-4.4,0Z",
    "M0,5L4.7,-3.6H-4.7Z",
    "M-1.5,-4.6h3v3.1h3.1v3h-3.1v3.1h-3v-3.1h-3.1v-3h3.1Z",
    "M-4.7,0L-2.3,-4.1H2.3L4.7,0L2.3,4.1H-2.3Z",
    "M0,-5.2L1.5,-1.6L5,-1.6L2.2,0.8L3.2,4.6L0,2.3L-3.2,4.6L-2.2,0.8L-5,-1.6L-1.5,-1.6Z",
)
"""Outlines of the marks of a series."""

# Each is drawn over a light fill of the same colour, in a tile of 8 x 8.
PATTERNS = (
    "",
    "M-2,10L10,-2M-2,2L2,-2M6,10L10,6",
    "M0,4H8",
    "M-2,-2L10,10M-2,6L2,10M6,-2L10,2",
    "M4,0V8",
    "M2,2h1.6v1.6h-1.6ZM6,6h1.6v1.6h-1.6Z",
    "M0,4H8M4,0V8",
    "M-2,10L10,-2M-2,-2L10,10",
)
"""Hatchings of areas; the first is a solid fill."""

_LETTER = 0.58  # mean width of a letter of a wide sans-serif face over its size


class Canvas:
    """Collects the elements of one drawing.

    Coordinates are units of a drawing that is scaled to whatever width there is; a unit is about
    a pixel.
    """

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        """Begins a drawing.

        Args:
            width: Units across.
            height: Units down.
            title: What it shows, read out by screen readers.
            description: What can be seen in it, for those who cannot.
        """
        self.width, self.height = width, height
        self._title, self._description = title, description
        self._parts: list[str] = []

    def __str__(self) -> str:
        """Returns the ``svg`` element."""
        return (
            f'<svg viewBox="0 0 {_n(self.width)} {_n(self.height)}" role="img">'
            f"<title>{escape(self._title)}</title><desc>{escape(self._description)}</desc>"
            + "".join(self._parts)
            + "</svg>"
        )

    def path(self, path: str, kind: str, *, tip: str = "") -> None:
        """Adds a path of a style class, with a text to be shown over it."""
        self._parts.append(f'<path class="{kind}" d="{path}"{_tipped(tip, "path")}')

    def line(self, start: Point, end: Point, kind: str, *, tip: str = "") -> None:
        """Adds a straight line."""
        (x0, y0), (x1, y1) = start, end
        self.path(f"M{_n(x0)},{_n(y0)}L{_n(x1)},{_n(y1)}", kind, tip=tip)

    def lines(self, points: Sequence[Point], kind: str) -> None:
        """Adds a line through points."""
        if len(points) > 1:
            self.path("M" + "L".join(f"{_n(x)},{_n(y)}" for x, y in points), kind)

    def area(self, points: Sequence[Point], kind: str, *, tip: str = "") -> None:
        """Adds a filled outline."""
        self.path("M" + "L".join(f"{_n(x)},{_n(y)}" for x, y in points) + "Z", kind, tip=tip)

    def ticks(self, xs: Iterable[float], top: float, height: float, kind: str) -> None:
        """Adds upright strokes at places, in one path."""
        path = "".join(f"M{_n(x)},{_n(top)}v{_n(height)}" for x in xs)
        if path:
            self.path(path, kind)

    def crosses(self, points: Iterable[Point], kind: str, *, arm: float = 2.2) -> None:
        """Adds crosses at places, in one path."""
        side = _n(2 * arm)
        path = "".join(
            f"M{_n(x - arm)},{_n(y - arm)}l{side},{side}m-{side},0l{side},-{side}"
            for x, y in points
        )
        if path:
            self.path(path, kind)

    def rectangle(
        self, x: float, y: float, width: float, height: float, kind: str, *, tip: str = ""
    ) -> None:
        """Adds a rectangle; one without extent is left out."""
        if width > 0 and height > 0:
            place = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
            self._parts.append(f'<rect class="{kind}" {place}{_tipped(tip, "rect")}')

    def marker(
        self,
        index: int,
        x: float,
        y: float,
        kind: str,
        *,
        scale: float = 1.0,
        tip: str = "",
    ) -> None:
        """Adds the mark of a series around a place."""
        bigger = "" if scale == 1.0 else f" scale({_n(scale)})"
        place = f'transform="translate({_n(x)} {_n(y)}){bigger}"'
        shape = MARKERS[index % len(MARKERS)]
        self._parts.append(f'<path class="{kind}" d="{shape}" {place}{_tipped(tip, "path")}')

    def text(
        self,
        x: float,
        y: float,
        words: str,
        kind: str = "",
        *,
        anchor: str = "start",
        turned: bool = False,
    ) -> None:
        """Adds a text whose base line is at ``y``; turned ones read upwards."""
        held = {"start": "", "middle": ' text-anchor="middle"', "end": ' text-anchor="end"'}
        name = f' class="{kind}"' if kind else ""
        turn = f' transform="rotate(-90 {_n(x)} {_n(y)})"' if turned else ""
        place = f'x="{_n(x)}" y="{_n(y)}"{held[anchor]}{turn}'
        self._parts.append(f"<text{name} {place}>{escape(words)}</text>")


def pattern_definitions() -> str:
    """Returns the hatchings that every drawing of a page refers to as ``url(#h0)`` and so on."""
    tiles = "".join(_tile(index, path) for index, path in enumerate(PATTERNS))
    return f'<svg class="defs" width="0" height="0" aria-hidden="true"><defs>{tiles}</defs></svg>'


def fitted(words: str, size: float, width: float) -> str:
    """Returns a text that is cut short, with an ellipsis, where it would be wider than a width."""
    most = int(width / (_LETTER * size))
    return words if len(words) <= most else f"{words[: max(most - 1, 1)]}…"


def text_width(words: str, size: float) -> float:
    """Returns about how wide a text is, in units."""
    return _LETTER * size * len(words)


def _tile(index: int, path: str) -> str:
    hatching = f'<path class="hatch" d="{path}"/>' if path else ""
    ground = "wash" if path else "ink"
    return (
        f'<pattern id="h{index}" class="s{index}" width="8" height="8" '
        f'patternUnits="userSpaceOnUse"><rect class="{ground}" width="8" height="8"/>'
        f"{hatching}</pattern>"
    )


def _tipped(tip: str, element: str) -> str:
    """Returns the end of an element's start tag, with a tool tip in it if there is one."""
    return f"><title>{escape(tip)}</title></{element}>" if tip else "/>"


def _n(value: float) -> str:
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"
