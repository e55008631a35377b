"""Accuracy against latency, with the front of what nothing beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvmdet.report.pages.canvas import Canvas, Point
from tvmdet.report.pages.frame import WIDTH, Labels, draw_x_axis, draw_y_axis
from tvmdet.report.pages.names import milliseconds
from tvmdet.report.pages.scales import linear, logarithmic

__all__ = ["Trade", "accuracy_chart", "pareto_front"]

_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 300.0, 62.0, WIDTH - 10.0, 10.0, 252.0


@dataclass(frozen=True, kw_only=True)
class Trade:
    """What is had for what.

    Attributes:
        name: Of the point.
        latency_ms: Median of a call.
        accuracy: COCO's AP, 0 to 1.
        style: Index of its mark.
    """

    name: str
    latency_ms: float
    accuracy: float
    style: int


def pareto_front(trades: Sequence[Trade]) -> list[Trade]:
    """Returns those that no other equals in one respect and beats in the other, fastest first."""
    front: list[Trade] = []
    for trade in sorted(trades, key=lambda one: (one.latency_ms, -one.accuracy)):
        if not front or trade.accuracy > front[-1].accuracy:
            front.append(trade)
    return front


def accuracy_chart(trades: Sequence[Trade], title: str) -> str:
    """Returns a drawing of points and the front; empty without points."""
    if not trades:
        return ""
    x = logarithmic((one.latency_ms for one in trades), _LEFT, _RIGHT, slack=0.15)
    y = linear((100 * one.accuracy for one in trades), _BOTTOM, _TOP, slack=0.15)
    front = pareto_front(trades)
    told = "; ".join(
        f"{one.name}: AP {100 * one.accuracy:.1f} at {milliseconds(one.latency_ms)} ms"
        + (", on the front" if one in front else "")
        for one in trades
    )
    canvas = Canvas(WIDTH, _HEIGHT, title, told)
    draw_x_axis(canvas, x, _TOP, _BOTTOM, "median milliseconds per image, logarithmic")
    draw_y_axis(canvas, y, _LEFT, _RIGHT, "AP of boxes, %")
    steps: list[Point] = []
    for one in front:
        at = (x(one.latency_ms), y(100 * one.accuracy))
        if steps:
            steps.append((at[0], steps[-1][1]))
        steps.append(at)
    canvas.lines([*steps, (_RIGHT, steps[-1][1])], "front")
    labels = Labels(left=_LEFT, right=_RIGHT, top=_TOP - 6.0, bottom=_BOTTOM)
    places = [(x(one.latency_ms), y(100 * one.accuracy)) for one in trades]
    labels.block(places)
    for one, place in zip(trades, places, strict=True):
        kind = "mark" if one in front else "mark hollow"
        canvas.marker(one.style, *place, f"{kind} s{one.style}", tip=one.name)
        labels.put(canvas, *place, one.name)
    return str(canvas)
