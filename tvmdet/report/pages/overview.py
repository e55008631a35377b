"""All models of a report at a glance: one row for each place, precision and session."""

from __future__ import annotations

from tvmdet.report.pages.comparison import Comparison, ModelPart
from tvmdet.report.pages.names import Names, milliseconds
from tvmdet.report.pages.rivalry import fastest_rival, verdict_cell
from tvmdet.report.pages.runs import Run, ratio_text
from tvmdet.report.pages.sheets import Cell, Column, Sheet

__all__ = ["first_figures", "overview_sheet"]


def first_figures(part: ModelPart) -> list[Run]:
    """Returns the first figure of each session: end to end before network alone."""
    found: dict[tuple[object, ...], Run] = {}
    for run in part.ours:
        if run.is_timed:
            found.setdefault((run.place, run.precision, run.file), run)
    return list(found.values())


def overview_sheet(comparison: Comparison, names: Names) -> Sheet:
    """Returns a table of the first figures of every model, whose rows ``names`` tells apart."""
    rows = [_row(run, part, names) for part in comparison.models for run in first_figures(part)]
    return Sheet(
        title="All detectors",
        columns=(
            Column(name="detector", is_number=False),
            Column(name="target", is_number=False),
            Column(name="precision", is_number=False),
            Column(name="what", is_number=False),
            Column(name="batch"),
            Column(name="p50 ms", hint="median of a call"),
            Column(name="tvmdet / rival", hint="with its 95 % interval", is_number=False),
            Column(name="tvmdet is", is_number=False),
            Column(name="fastest rival", is_number=False),
            Column(name="p99 ms"),
            Column(name="images/s"),
            Column(name="AP", hint="COCO's average precision of boxes, %"),
        ),
        rows=tuple(rows),
    ).without_empty_columns()


def _row(run: Run, part: ModelPart, names: Names) -> tuple[Cell, ...]:
    rival = fastest_rival(run, part.runs)
    ratio = None if rival is None else rival.over_rival
    told = "" if rival is None else f"{rival.side}, {milliseconds(rival.median_ms)} ms"
    p99 = run.percentiles_ms["p99"]
    return (
        Cell.of(part.model.name),
        Cell.of(names.where(run)),
        Cell.of(run.precision),
        Cell.of(run.what),
        Cell.of(str(run.batch_size), run.batch_size),
        Cell.of(milliseconds(run.median_ms), run.median_ms),
        Cell.of("") if ratio is None else Cell.of(ratio_text(ratio), ratio.ratio),
        verdict_cell(ratio),
        Cell.of(told),
        Cell.of(milliseconds(p99), p99),
        Cell.of(f"{run.images_per_s:,.1f}", run.images_per_s),
        Cell.of("" if run.accuracy is None else f"{100 * run.accuracy:.1f}", run.accuracy),
    )
