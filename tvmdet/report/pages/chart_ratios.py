"""Ratios with their intervals around 1, and a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvmdet.report.pages.canvas import Canvas
from tvmdet.report.pages.frame import WIDTH, draw_x_axis, name_room, name_row
from tvmdet.report.pages.runs import ratio_text
from tvmdet.report.pages.scales import Scale, logarithmic
from tvmdet.report.result_tables import Ratio

__all__ = ["RatioRow", "ratios_chart"]

_ROW = 36.0
_LEFT, _RIGHT = 12.0, WIDTH - 12.0
_MARKS = {"faster": (0, "mark good"), "slower": (2, "mark bad"), "undecided": (1, "mark hollow")}


@dataclass(frozen=True, kw_only=True)
class RatioRow:
    """One line of the chart."""

    name: str
    ratio: Ratio


def ratios_chart(rows: Sequence[RatioRow], title: str, axis: str) -> str:
    """Returns a drawing of ratios; empty without any.

    A filled circle is faster beyond doubt, a filled triangle slower, a hollow square undecided.
    The shaded band around 1 is the noise floor of the row: no difference inside is called.

    Args:
        rows: From top to bottom.
        title: What it shows.
        axis: What is divided by what.
    """
    if not rows:
        return ""
    extra = name_room(((row.name, ratio_text(row.ratio)) for row in rows), _LEFT, _RIGHT)
    height = _ROW + extra
    bottom = height * len(rows) + 6.0
    ends = [end for row in rows for end in (*row.ratio.interval_95, row.ratio.ratio, 1.0)]
    scale = logarithmic(ends, _LEFT, _RIGHT)
    told = "; ".join(f"{row.name}: {ratio_text(row.ratio)}, {row.ratio.verdict}" for row in rows)
    canvas = Canvas(WIDTH, bottom + 44.0, title, told)
    draw_x_axis(canvas, scale, 4.0, bottom, axis)
    canvas.line((scale(1.0), 4.0), (scale(1.0), bottom), "unity")
    for index, row in enumerate(rows):
        _draw_row(canvas, row, scale, index * height + extra)
    return str(canvas)


def _draw_row(canvas: Canvas, row: RatioRow, scale: Scale, top: float) -> None:
    ratio, y = row.ratio, top + 26.0
    floor = ratio.noise_floor
    if floor:
        x0, x1 = scale(1.0 / (1.0 + floor)), scale(1.0 + floor)
        canvas.rectangle(x0, y - 8.0, x1 - x0, 16.0, "noise", tip=f"noise floor {floor:.1%}")
    name_row(canvas, top + 14.0, _LEFT, _RIGHT, row.name, ratio_text(ratio))
    low, high = ratio.interval_95
    canvas.line((scale(low), y), (scale(high), y), "whisker")
    for end in (low, high):
        canvas.line((scale(end), y - 4.0), (scale(end), y + 4.0), "whisker")
    shape, kind = _MARKS[ratio.verdict]
    canvas.marker(shape, scale(ratio.ratio), y, kind)
