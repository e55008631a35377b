"""Which charts a model's part of a report has, in the order to be read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tvmdet.report.pages.chart_accuracy import Trade, accuracy_chart
from tvmdet.report.pages.chart_latency import latency_chart
from tvmdet.report.pages.chart_ratios import RatioRow, ratios_chart
from tvmdet.report.pages.chart_roofline import roofline_chart
from tvmdet.report.pages.chart_stages import stages_chart
from tvmdet.report.pages.chart_throughput import throughput_chart
from tvmdet.report.pages.chart_winnable import winnable_chart
from tvmdet.report.pages.comparison import Comparison, ModelPart
from tvmdet.report.pages.names import Names
from tvmdet.report.pages.runs import Place, Profiled, Run

__all__ = [
    "Figure",
    "accuracy_figures",
    "change_figures",
    "kernel_figures",
    "latency_figures",
    "overview_figures",
    "rival_figures",
    "stage_figures",
    "throughput_figures",
]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with the words above it."""

    title: str
    svg: str


def latency_figures(part: ModelPart, names: Names) -> list[Figure]:
    """Returns distributions of latencies, one drawing per kind of call and batch."""
    found = []
    for (what, batch), runs in _grouped(part.runs, lambda run: (run.what, run.batch_size)):
        title = f"Latency, {what}, batch {batch}"
        found.append(Figure(title=title, svg=latency_chart(runs, names, title)))
    return _drawn(found)


def throughput_figures(part: ModelPart, names: Names) -> list[Figure]:
    """Returns throughput against latency, one drawing per place."""
    found = []
    for (place, what), runs in _grouped(part.runs, lambda run: (run.place, run.what)):
        title = f"Throughput, {what}, {names.place(place)}"
        found.append(Figure(title=title, svg=throughput_chart(runs, names, title)))
    return _drawn(found)


def accuracy_figures(part: ModelPart, names: Names) -> list[Figure]:
    """Returns accuracy against latency of one model's places and precisions."""
    title = "Accuracy against latency"
    trades = [
        Trade(
            name=f"{names.where(run)} · {run.precision}",
            latency_ms=run.median_ms,
            accuracy=run.accuracy,
            style=names.side(run),
        )
        for run in _batch_1(part.ours)
        if run.accuracy is not None and run.median_ms is not None
    ]
    return _drawn([Figure(title=title, svg=accuracy_chart(trades, title))])


def rival_figures(part: ModelPart, names: Names) -> list[Figure]:
    """Returns the ratios to rivals, one drawing per place, precision of tvmdet and session."""
    found = []
    setups = _grouped(part.rivalries, lambda run: (run.place, run.beside, run.file))
    for (place, precision, file), runs in setups:
        rows = [
            RatioRow(name=f"{run.side}, {run.what} x{run.batch_size}", ratio=run.over_rival)
            for run in runs
            if run.over_rival is not None
        ]
        title = f"Against rivals, tvmdet {precision} · {names.place(place)}"
        if session := names.session(place, precision, file):
            title += f" ({session})"
        svg = ratios_chart(
            rows, title, "tvmdet's time over the rival's: left of 1, tvmdet is faster"
        )
        found.append(Figure(title=title, svg=svg))
    return _drawn(found)


def change_figures(part: ModelPart, names: Names) -> list[Figure]:
    """Returns the ratios to earlier results, one drawing per place."""
    found = []
    for place, changes in _grouped(part.changes, lambda change: change.run.place):
        rows = [
            RatioRow(
                name=f"{names.label(change.run)}, {change.run.what} x{change.run.batch_size}",
                ratio=change.ratio,
            )
            for change in changes
            if change.ratio is not None
        ]
        title = f"Now against before, {names.place(place)}"
        axis = "time now over time before: left of 1, it became faster"
        found.append(Figure(title=title, svg=ratios_chart(rows, title, axis)))
    return _drawn(found)


def stage_figures(part: ModelPart, names: Names) -> list[Figure]:
    """Returns the parts of calls."""
    title = "Where the time goes, end to end"
    return _drawn([Figure(title=title, svg=stages_chart(part.runs, names, title))])


def kernel_figures(profiled: Profiled) -> list[Figure]:
    """Returns the roofline of one place, and what tuning could win there."""
    titles = ("Roofline of the kernels", "What tuning could win at most")
    return _drawn(
        [
            Figure(title=titles[0], svg=roofline_chart(profiled, titles[0])),
            Figure(title=titles[1], svg=winnable_chart(profiled, titles[1])),
        ]
    )


def overview_figures(comparison: Comparison, names: Names) -> list[Figure]:
    """Returns accuracy against latency of all models of a report, one drawing per place.

    Marks are those of tvmdet in its precisions; models have their names beside them.
    """
    found: dict[Place, list[Trade]] = {}
    for part in comparison.models:
        for run in _batch_1(part.ours):
            if run.accuracy is not None and run.median_ms is not None:
                session = names.session(run.place, run.beside, run.file)
                trade = Trade(
                    name=f"{part.model.name} {run.precision} {session}".rstrip(),
                    latency_ms=run.median_ms,
                    accuracy=run.accuracy,
                    style=names.side(run),
                )
                found.setdefault(run.place, []).append(trade)
    figures = []
    for place, trades in found.items():
        if len(trades) > 1:
            title = f"Accuracy against latency of all models, {names.place(place)}"
            figures.append(Figure(title=title, svg=accuracy_chart(trades, title)))
    return _drawn(figures)


def _batch_1(runs: Sequence[Run]) -> list[Run]:
    """Returns the first row of batch 1 of each session: end to end where it was run."""
    found: dict[tuple[object, ...], Run] = {}
    for run in runs:
        if run.batch_size == 1 and run.is_timed:
            found.setdefault((run.place, run.precision, run.file), run)
    return list(found.values())


def _grouped(runs: Iterable[T], key: Callable[[T], K]) -> list[tuple[K, list[T]]]:
    """Returns rows with equal keys together, keys in the order of their first rows."""
    found: dict[K, list[T]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return list(found.items())


def _drawn(figures: Sequence[Figure]) -> list[Figure]:
    return [figure for figure in figures if figure.svg]
