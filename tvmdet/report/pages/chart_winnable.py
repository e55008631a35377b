"""What further tuning could win, kernel by kernel, at the very most."""

from __future__ import annotations

from tvmdet.report.pages.canvas import Canvas
from tvmdet.report.pages.frame import WIDTH, draw_x_axis, name_room, name_row
from tvmdet.report.pages.names import milliseconds
from tvmdet.report.pages.runs import Profiled
from tvmdet.report.pages.scales import linear

__all__ = ["winnable_chart"]

_ROW, _BAR, _ROWS = 38.0, 13.0, 10
_LEFT, _RIGHT = 12.0, WIDTH - 14.0


def winnable_chart(profiled: Profiled, title: str) -> str:
    """Returns a drawing of the kernels that have most to win; empty where none has.

    The solid part of a bar is what the roofline allows, the hatched part what lies above it.
    """
    kernels = sorted(profiled.profile.layers, key=lambda one: -one.winnable_ms)[:_ROWS]
    kernels = [kernel for kernel in kernels if kernel.winnable_ms > 0]
    if not kernels:
        return ""
    ranks = {id(kernel): rank for rank, kernel in enumerate(profiled.profile.layers, 1)}
    named = [
        (
            f"{ranks[id(kernel)]}. {kernel.anchor or kernel.name}",
            f"{milliseconds(kernel.winnable_ms)} of {milliseconds(kernel.ms)} ms",
        )
        for kernel in kernels
    ]
    extra = name_room(named, _LEFT, _RIGHT)
    height = _ROW + extra
    bottom = height * len(kernels) + 6.0
    scale = linear((kernel.ms for kernel in kernels), _LEFT, _RIGHT, zero=True)
    told = "; ".join(
        f"{kernel.anchor or kernel.name}: {milliseconds(kernel.ms)} ms, at least "
        f"{milliseconds(kernel.attainable_ms)} ms"
        for kernel in kernels
    )
    canvas = Canvas(WIDTH, bottom + 44.0, title, told)
    draw_x_axis(canvas, scale, 4.0, bottom, "milliseconds of all calls of a kernel")
    for index, (kernel, (words, told)) in enumerate(zip(kernels, named, strict=True)):
        top = index * height + extra
        name_row(canvas, top + 14.0, _LEFT, _RIGHT, words, told)
        least = min(kernel.attainable_ms, kernel.ms)
        x0, x1, x2 = scale(0.0), scale(least), scale(kernel.ms)
        tip = f"could win {milliseconds(kernel.winnable_ms)} of {milliseconds(kernel.ms)} ms"
        canvas.rectangle(x0, top + 19.0, x1 - x0, _BAR, "ink s0", tip=tip)
        canvas.rectangle(x1, top + 19.0, x2 - x1, _BAR, "hatched h1", tip=tip)
    return str(canvas)
