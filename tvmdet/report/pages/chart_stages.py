"""Where the time of a call from image file to boxes goes."""

from __future__ import annotations

from collections.abc import Sequence

from tvmdet.report.pages.canvas import PATTERNS, Canvas, text_width
from tvmdet.report.pages.frame import LABEL, WIDTH, draw_x_axis, name_room, name_row
from tvmdet.report.pages.names import Names, milliseconds
from tvmdet.report.pages.runs import Run
from tvmdet.report.pages.scales import linear

__all__ = ["STAGES", "stage_style", "stages_chart"]

STAGES = ("network", "decode", "resize", "map", "queue")
"""Parts of a call, by the hatchings that they have."""

_ROW, _BAR = 46.0, 18.0
_LEFT, _RIGHT = 12.0, WIDTH - 14.0


def stage_style(stage: str) -> int:
    """Returns the index of the hatching of a part."""
    return STAGES.index(stage) if stage in STAGES else len(PATTERNS) - 1


def stages_chart(runs: Sequence[Run], names: Names, title: str) -> str:
    """Returns a drawing with a bar for each run that has stages; empty without any."""
    rows = [run for run in runs if run.stages_ms]
    if not rows:
        return ""
    extra = name_room(((names.row(run), _sum(run)) for run in rows), _LEFT, _RIGHT)
    height = _ROW + extra
    bottom = height * len(rows) + 6.0
    scale = linear((sum(run.stages_ms.values()) for run in rows), _LEFT, _RIGHT, zero=True)
    told = "; ".join(f"{names.row(run)}: {_in_words(run)}" for run in rows)
    canvas = Canvas(WIDTH, bottom + 44.0, title, told)
    draw_x_axis(canvas, scale, 4.0, bottom, "median milliseconds of each part")
    for index, run in enumerate(rows):
        top = index * height + extra
        name_row(canvas, top + 15.0, _LEFT, _RIGHT, names.row(run), _sum(run))
        done = 0.0
        for stage, ms in run.stages_ms.items():
            x0, x1 = scale(done), scale(done + ms)
            style = stage_style(stage)
            tip = f"{stage}: {milliseconds(ms)} ms"
            canvas.rectangle(x0, top + 21.0, x1 - x0, _BAR, f"hatched h{style}", tip=tip)
            words = f"{stage} {milliseconds(ms)}"
            if text_width(words, LABEL) + 10.0 < x1 - x0:
                width = text_width(words, LABEL) + 4.0
                middle = (x0 + x1) / 2
                canvas.rectangle(middle - width / 2, top + 23.5, width, _BAR - 5.0, "plate")
                canvas.text(middle, top + 34.0, words, "label", anchor="middle")
            done += ms
    return str(canvas)


def _sum(run: Run) -> str:
    return f"{milliseconds(sum(run.stages_ms.values()))} ms"


def _in_words(run: Run) -> str:
    return ", ".join(f"{name} {milliseconds(ms)} ms" for name, ms in run.stages_ms.items())
