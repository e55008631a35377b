"""Distributions of latencies, one row each: every call has a part in it, outliers are crosses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvmdet.report.pages.canvas import Canvas
from tvmdet.report.pages.frame import WIDTH, draw_x_axis, name_room, name_row
from tvmdet.report.pages.names import Names, milliseconds
from tvmdet.report.pages.runs import Floats, Run
from tvmdet.report.pages.scales import Scale, logarithmic
from tvmdet.report.pages.thin import outline
from tvmdet.report.statistics import far_out

__all__ = ["latency_chart"]

_ROW, _BAND = 48.0, 18.0
_LEFT, _RIGHT = 12.0, WIDTH - 12.0
_BELOW = 44.0


def latency_chart(runs: Sequence[Run], names: Names, title: str) -> str:
    """Returns a drawing with a row for each run that was timed; empty without any.

    A row has a box from the 25th to the 75th percentile, a stroke at the median, another at the
    99th percentile, and above them the calls: strokes, or a histogram where they are many.
    Crosses are outliers.
    """
    timed = [run for run in runs if run.is_timed]
    if not timed:
        return ""
    extra = name_room(((names.row(run), _in_words(run)) for run in timed), _LEFT, _RIGHT)
    row = _ROW + extra
    bottom = row * len(timed) + 6.0
    ends = [float(end) for run in timed for end in (run.latencies_ms.min(), run.latencies_ms.max())]
    scale = logarithmic(ends, _LEFT, _RIGHT, slack=0.03)
    told = "; ".join(
        f"{names.row(run)}: median {milliseconds(run.median_ms)} ms, "
        f"p99 {milliseconds(run.percentiles_ms['p99'])} ms"
        for run in timed
    )
    canvas = Canvas(WIDTH, bottom + _BELOW, title, told)
    draw_x_axis(canvas, scale, 4.0, bottom, "milliseconds per call, logarithmic")
    for index, run in enumerate(timed):
        _draw_row(canvas, run, names, scale, top=index * row + extra)
    return str(canvas)


def _draw_row(canvas: Canvas, run: Run, names: Names, scale: Scale, top: float) -> None:
    values = run.latencies_ms
    places = _places(values, scale)
    shape = outline(values, places, scale.start, scale.end)
    style, base = f"s{names.side(run)}", top + _ROW - 10.0
    p25, p50, p75, p99 = (scale(float(v)) for v in np.percentile(values, (25, 50, 75, 99)))
    name_row(canvas, top + 15.0, _LEFT, _RIGHT, names.row(run), _in_words(run))
    canvas.ticks(shape.strokes, base - _BAND, _BAND - 3.0, f"stroke {style}")
    if shape.density.size:
        points = [(float(shape.edges[0]), base - 2.0)]
        for index, share in enumerate(shape.density):
            height = base - 2.0 - float(share) * (_BAND - 2.0)
            points += [(float(shape.edges[index]), height), (float(shape.edges[index + 1]), height)]
        points.append((float(shape.edges[-1]), base - 2.0))
        canvas.area(points, f"wash {style}")
    canvas.crosses(((float(x), base - _BAND / 2) for x in shape.outliers), f"cross {style}")
    canvas.rectangle(p25, base - 2.0, max(p75 - p25, 1.0), 6.0, f"ink {style}")
    canvas.line((p50, base - _BAND - 1.0), (p50, base + 6.0), "median")
    canvas.line((p99, base - 4.0), (p99, base + 6.0), "tail", tip="99th percentile")


def _in_words(run: Run) -> str:
    odd = int(far_out(run.latencies_ms).sum())
    told = f"{milliseconds(run.median_ms)} ms, {run.latencies_ms.size:,} calls"
    return f"{told}, {odd:,} out" if odd else told


def _places(values: Floats, scale: Scale) -> Floats:
    share = np.log(values / scale.low) / np.log(scale.high / scale.low)
    return np.asarray(scale.start + share * (scale.end - scale.start), np.float64)
