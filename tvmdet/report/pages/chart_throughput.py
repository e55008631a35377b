"""Throughput against latency: what a larger batch buys, and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tvmdet.report.pages.canvas import Canvas, fitted
from tvmdet.report.pages.frame import LABEL, WIDTH, Labels, draw_x_axis, draw_y_axis
from tvmdet.report.pages.names import Names, milliseconds
from tvmdet.report.pages.runs import Run
from tvmdet.report.pages.scales import linear, logarithmic

__all__ = ["throughput_chart"]

_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 300.0, 62.0, WIDTH - 10.0, 10.0, 252.0
_KEY_ROW = 18.0
_STROKES = 4  # that the style sheet knows


def throughput_chart(runs: Sequence[Run], names: Names, title: str) -> str:
    """Returns a drawing with a line through the batches of each side; empty below two batches.

    Where a side was measured in several sessions its lines have strokes of their own, and a key
    below the axis in place of labels, which would have no room beside lines that are nearly equal.

    Args:
        runs: Of one place and one kind of table.
        names: Of the sides.
        title: What it shows.
    """
    lines: dict[str, list[Run]] = {}
    for run in runs:
        if run.is_timed:
            lines.setdefault(names.label(run), []).append(run)
    found = [run for line in lines.values() for run in line]
    if len({run.batch_size for run in found}) < 2:
        return ""
    x = logarithmic((run.median_ms or 0.0 for run in found), _LEFT, _RIGHT)
    y = linear((run.images_per_s or 0.0 for run in found), _BOTTOM, _TOP, zero=True)
    told = "; ".join(
        f"{names.label(run)} batch {run.batch_size}: {run.images_per_s:.1f} images/s at "
        f"{milliseconds(run.median_ms)} ms"
        for run in found
    )
    strokes = _strokes(line[0].side for line in lines.values())
    keyed = max(strokes, default=0) > 0
    canvas = Canvas(WIDTH, _HEIGHT + keyed * len(lines) * _KEY_ROW, title, told)
    draw_x_axis(canvas, x, _TOP, _BOTTOM, "median milliseconds per call, logarithmic")
    draw_y_axis(canvas, y, _LEFT, _RIGHT, "images per second")
    labels = Labels(left=_LEFT, right=_RIGHT, top=_TOP - 6.0, bottom=_BOTTOM)
    places = {id(run): (x(run.median_ms or 0.0), y(run.images_per_s or 0.0)) for run in found}
    labels.block(list(places.values()))
    for stroke, (label, line) in zip(strokes, lines.items(), strict=True):
        line.sort(key=lambda run: run.batch_size)
        style = f"s{names.side(line[0])}"
        canvas.lines([places[id(run)] for run in line], f"series d{stroke} {style}")
        for run in line:
            tip = f"{label}, batch {run.batch_size}"
            canvas.marker(names.side(run), *places[id(run)], f"mark {style}", tip=tip)
    for index, (stroke, (label, line)) in enumerate(zip(strokes, lines.items(), strict=True)):
        if keyed:
            _draw_key(canvas, _HEIGHT + index * _KEY_ROW, names.side(line[0]), stroke, label)
        else:
            labels.put(canvas, *places[id(line[-1])], label, "label strong")
    for run in found:
        labels.put(canvas, *places[id(run)], f"x{run.batch_size}", above=True)
    return str(canvas)


def _strokes(sides: Iterable[str]) -> list[int]:
    """Returns for each line how many of its side come before it, as long as there are strokes."""
    seen: Counter[str] = Counter()
    found = []
    for side in sides:
        found.append(min(seen[side], _STROKES - 1))
        seen[side] += 1
    return found


def _draw_key(canvas: Canvas, top: float, side: int, stroke: int, label: str) -> None:
    y = top + _KEY_ROW / 2
    canvas.lines([(_LEFT, y), (_LEFT + 40.0, y)], f"series d{stroke} s{side}")
    canvas.marker(side, _LEFT + 20.0, y, f"mark s{side}")
    room = _RIGHT - _LEFT - 48.0
    canvas.text(_LEFT + 48.0, y + LABEL / 3, fitted(label, LABEL, room), "label strong")
