"""Kernels under the roof of the machine that ran them.

The roofline model: Williams, Waterman and Patterson, CACM 52 (4), 2009.
"""

from __future__ import annotations

from tvmdet.report.pages.canvas import Canvas
from tvmdet.report.pages.frame import WIDTH, Labels, draw_x_axis, draw_y_axis
from tvmdet.report.pages.runs import Profiled, intensity
from tvmdet.report.pages.scales import Scale, logarithmic
from tvmdet.report.result_kernels import Kernel

__all__ = ["roofline_chart"]

_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 310.0, 62.0, WIDTH - 10.0, 12.0, 262.0
_NAMED = 6
_LEAST_SHARE = 0.002  # of the call's time, to be drawn


def roofline_chart(profiled: Profiled, title: str) -> str:
    """Returns a drawing of the kernels of one place; empty where no operations are known.

    Marks are as large as the kernel's share of the time, and numbered by it. Above the roof of
    main memory lie kernels whose data stays in a cache, which has a roof of its own.
    """
    whole = profiled.profile.whole_ms
    known = [
        (rank, kernel, found, kernel.flop / kernel.ms / 1e6)
        for rank, kernel in enumerate(profiled.profile.layers, 1)
        if (found := intensity(kernel)) and kernel.flop and kernel.ms >= _LEAST_SHARE * whole
    ]
    if not known:
        return ""
    roof = profiled.peak.f32_gflops
    rates = {int(size): rate for size, rate in profiled.peak.read_gb_per_s.items()}
    ridge = roof / rates[max(rates)]
    x = logarithmic([ridge, *(found for _, _, found, _ in known)], _LEFT, _RIGHT, slack=0.1)
    y = logarithmic([roof, *(rate for *_, rate in known)], _BOTTOM, _TOP, slack=0.08)
    told = "; ".join(
        f"{rank} {_told(kernel)}: {rate:.0f} GFLOP/s at {found:.1f} operations per byte, "
        f"{kernel.ms / whole:.0%} of the time"
        for rank, kernel, found, rate in known[:_NAMED]
    )
    canvas = Canvas(WIDTH, _HEIGHT, title, told)
    draw_x_axis(canvas, x, _TOP, _BOTTOM, "operations per byte of arguments, logarithmic")
    draw_y_axis(canvas, y, _LEFT, _RIGHT, "GFLOP/s, logarithmic")
    labels = Labels(left=_LEFT, right=_RIGHT, top=_TOP - 8.0, bottom=_BOTTOM)
    _draw_roofs(canvas, x, y, labels, roof, rates)
    places = [(x(found), y(rate)) for _, _, found, rate in known]
    labels.block(places)
    for (rank, kernel, _, _), place in zip(known, places, strict=True):
        share = kernel.ms / whole
        tip = f"{rank}. {_told(kernel)}: {share:.1%} of the time"
        canvas.marker(0, *place, "mark s0", scale=0.7 + 4.0 * share**0.5, tip=tip)
    for (rank, kernel, _, _), place in list(zip(known, places, strict=True))[:_NAMED]:
        labels.put(canvas, *place, f"{rank} ({kernel.ms / whole:.0%})")
    return str(canvas)


def _draw_roofs(
    canvas: Canvas, x: Scale, y: Scale, labels: Labels, roof: float, rates: dict[int, float]
) -> None:
    canvas.line((x.start, y(roof)), (x.end, y(roof)), "roof")
    labels.put(canvas, x.start, y(roof) + 2.0, f"float32 peak {roof:.0f} GFLOP/s", "label strong")
    for name, size in (("memory", max(rates)), ("nearest cache", min(rates))):
        rate = rates[size]
        ends = []
        for at in (x.low, x.high):
            height = at * rate
            if height < y.low:
                at, height = y.low / rate, y.low
            if height > roof:
                at, height = roof / rate, roof
            ends.append((at, height))
        (x0, y0), (x1, y1) = ends
        if x0 < x1 <= x.high and y0 < y1:
            canvas.line((x(x0), y(y0)), (x(x1), y(y1)), "roof slope")
            middle = ((x(x0) + x(x1)) / 2, (y(y0) + y(y1)) / 2)
            labels.put(canvas, *middle, f"{name} {rate:.0f} GB/s", "label")


def _told(kernel: Kernel) -> str:
    return kernel.anchor or kernel.name
