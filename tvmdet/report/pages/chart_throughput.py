"""Throughput against latency: what a larger batch buys, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from tvmdet.report.pages.canvas import Canvas
from tvmdet.report.pages.frame import WIDTH, Labels, draw_x_axis, draw_y_axis
from tvmdet.report.pages.names import Names, milliseconds
from tvmdet.report.pages.runs import Run
from tvmdet.report.pages.scales import linear, logarithmic

__all__ = ["throughput_chart"]

_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 300.0, 62.0, WIDTH - 10.0, 10.0, 252.0


def throughput_chart(runs: Sequence[Run], names: Names, title: str) -> str:
    """Returns a drawing with a line through the batches of each side; empty below two batches.

    Args:
        runs: Of one place and one kind of table.
        names: Of the sides.
        title: What it shows.
    """
    lines: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.is_timed:
            lines.setdefault((run.file, run.side), []).append(run)
    found = [run for line in lines.values() for run in line]
    if len({run.batch_size for run in found}) < 2:
        return ""
    x = logarithmic((run.median_ms or 0.0 for run in found), _LEFT, _RIGHT)
    y = linear((run.images_per_s or 0.0 for run in found), _BOTTOM, _TOP, zero=True)
    told = "; ".join(
        f"{run.side} batch {run.batch_size}: {run.images_per_s:.1f} images/s at "
        f"{milliseconds(run.median_ms)} ms"
        for run in found
    )
    canvas = Canvas(WIDTH, _HEIGHT, title, told)
    draw_x_axis(canvas, x, _TOP, _BOTTOM, "median milliseconds per call, logarithmic")
    draw_y_axis(canvas, y, _LEFT, _RIGHT, "images per second")
    labels = Labels(left=_LEFT, right=_RIGHT, top=_TOP - 6.0, bottom=_BOTTOM)
    places = {id(run): (x(run.median_ms or 0.0), y(run.images_per_s or 0.0)) for run in found}
    labels.block(list(places.values()))
    for (_, side), line in lines.items():
        line.sort(key=lambda run: run.batch_size)
        style = f"s{names.side(line[0])}"
        canvas.lines([places[id(run)] for run in line], f"series {style}")
        for run in line:
            tip = f"{side}, batch {run.batch_size}"
            canvas.marker(names.side(run), *places[id(run)], f"mark {style}", tip=tip)
    for (_, side), line in lines.items():
        labels.put(canvas, *places[id(line[-1])], side, "label strong")
    for run in found:
        labels.put(canvas, *places[id(run)], f"x{run.batch_size}", above=True)
    return str(canvas)
