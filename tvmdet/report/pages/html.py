"""A report as one HTML page that needs nothing else: no network, no fonts, no other file."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from tvmdet.errors import InputError
from tvmdet.report.pages import charts
from tvmdet.report.pages.canvas import MARKERS, pattern_definitions
from tvmdet.report.pages.chart_stages import STAGES, stage_style
from tvmdet.report.pages.charts import Figure
from tvmdet.report.pages.comparison import Comparison, ModelPart
from tvmdet.report.pages.counted_sheet import counted_sheet
from tvmdet.report.pages.matrix import matrix_sheet
from tvmdet.report.pages.more_sheets import changes_sheet, conditions, kernels_sheet, problems
from tvmdet.report.pages.names import Names
from tvmdet.report.pages.overview import overview_sheet
from tvmdet.report.pages.runs import Profiled, Run
from tvmdet.report.pages.sheets import Sheet
from tvmdet.report.pages.summary import cards, doubts, findings
from tvmdet.report.statistics import FAR_OUT, LEAST_DIFFERENCE

__all__ = ["to_html"]

_HERE = files("tvmdet.report.pages")


@dataclass(frozen=True, kw_only=True)
class _Chapter:
    """A part of a model's section: charts, a table, or both; details are not printed."""

    name: str
    lead: str = ""
    figures: Sequence[Figure] = ()
    sheet: Sheet | None = None
    legend: Sequence[tuple[str, str, str]] = ()
    is_detail: bool = False


def to_html(comparison: Comparison) -> str:
    """Returns the page.

    Raises:
        InputError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            "HTML reports need jinja2: pip install 'tvmdet[report]', or write .md or .json"
        ) from error
    names, shared = Names.of_report([part.runs for part in comparison.models])
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_text("page.html.jinja"))
    return template.render(
        style=_text("page.css"),
        script=_text("page.js"),
        patterns=pattern_definitions(),
        title=_title(comparison),
        sources=[source for part in comparison.models for source in part.sources],
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        baseline=comparison.baseline,
        overview=_overview(comparison, shared) if len(names) > 1 else None,
        models=[
            _section(index, part, comparison, named)
            for index, (part, named) in enumerate(zip(comparison.models, names, strict=True))
        ],
        legend=_side_legend(shared.sides),
    )


def _overview(comparison: Comparison, names: Names) -> _Chapter:
    return _Chapter(
        name="All detectors",
        figures=charts.overview_figures(comparison, names),
        sheet=overview_sheet(comparison, names),
    )


def _text(name: str) -> str:
    return _HERE.joinpath(name).read_text(encoding="utf-8")


def _title(comparison: Comparison) -> str:
    if len(comparison.models) == 1:
        return comparison.models[0].model.name
    return f"{len(comparison.models)} detectors"


def _section(index: int, part: ModelPart, comparison: Comparison, names: Names) -> dict[str, Any]:
    return {
        "id": f"model-{index}",
        "name": part.model.name,
        "sha256": part.model.sha256 or "",
        "cards": cards(part, names),
        "findings": findings(part),
        "doubts": doubts(part),
        "problems": problems(part, names),
        "chapters": [
            chapter
            for chapter in _chapters(part, comparison, names)
            if chapter.figures or (chapter.sheet is not None and chapter.sheet.rows)
        ],
        "no_accuracy": all(run.accuracy is None for run in part.ours),
        "conditions": [
            {
                "file": source.file,
                "pairs": conditions(source, names),
                "command": shlex.join(source.result.command),
            }
            for source in part.sources
        ],
    }


def _chapters(part: ModelPart, comparison: Comparison, names: Names) -> list[_Chapter]:
    stages = dict.fromkeys(stage for run in part.runs for stage in run.stages_ms)
    found = [
        _Chapter(
            name="Changes",
            lead="Rows now and in the earlier results. A row of tvmdet is a regression when its "
            f"whole interval lies beyond {LEAST_DIFFERENCE:.0%} and nothing says that it was the "
            "machine, when its answers are no longer right, or when its average precision fell. "
            "Times are compared at equal speed of the machine, as tvmdet verify does.",
            figures=charts.change_figures(part, names),
            sheet=changes_sheet(part, names),
        ),
        _Chapter(
            name="Rivals",
            lead="Median over the rounds of tvmdet's time over the rival's, timed in turn, with "
            "the 95 % interval. A filled circle is faster, a filled triangle slower, a hollow "
            "square undecided; the band is the noise floor, which two equal sides reach.",
            figures=charts.rival_figures(part, names),
        ),
        _Chapter(name="Matrix", sheet=matrix_sheet(part, comparison, names)),
        _Chapter(
            name="Latencies",
            lead="Every timed call has a part in its row: a stroke of its own, or in a histogram "
            f"where calls are many. Crosses are outliers, more than {FAR_OUT:g} quartile ranges "
            "above the third quartile, and count in every figure. The bar spans the middle half of "
            "the calls, the long stroke is the median, the short one the 99th percentile.",
            figures=charts.latency_figures(part, names),
        ),
        _Chapter(
            name="Throughput against latency",
            lead="What larger batches buy in images a second, and cost in milliseconds a call.",
            figures=charts.throughput_figures(part, names),
        ),
        _Chapter(
            name="Accuracy against latency",
            lead="Nothing is faster and more accurate at once than what lies on the line.",
            figures=charts.accuracy_figures(part, names),
        ),
        _Chapter(
            name="Stages",
            lead="From the image file to the boxes. tvmdet's network has normalisation, box "
            "decoding and suppression inside; of rivals, resize and map have them.",
            figures=charts.stage_figures(part, names),
            legend=_stage_legend(stages),
        ),
    ]
    found += [_kernels(profiled, names) for profiled in part.profiles]
    return found + [_counted(run, names) for run in part.runs if run.emulation is not None]


def _counted(run: Run, names: Names) -> _Chapter:
    assert run.emulation is not None
    return _Chapter(
        name=f"Kernels, {names.place(run.place)} · {run.precision}, batch {run.batch_size}",
        lead="Run once under emulation of the core: instructions are counted, cycles are "
        "predicted by a model of the core, and nothing was timed.",
        sheet=counted_sheet(run.emulation),
        is_detail=True,
    )


def _kernels(profiled: Profiled, names: Names) -> _Chapter:
    where = f"{names.place(profiled.place)} · {profiled.precision}"
    if session := names.session(profiled.place, profiled.precision, profiled.file):
        where += f" ({session})"
    return _Chapter(
        name=f"Kernels, {where}, batch {profiled.profile.batch_size}",
        lead="Roof and slopes are the rates that this machine was measured to reach. Marks are "
        "kernels, numbered as in the table and as large as their share of the time. Of a bar the "
        "solid part is what the roofline allows, the hatched part what tuning could win at most.",
        figures=charts.kernel_figures(profiled),
        sheet=kernels_sheet(profiled),
        is_detail=True,
    )


def _stage_legend(stages: Iterable[str]) -> list[tuple[str, str, str]]:
    """Returns style, no outline and words of the hatchings of stages."""
    known = set(stages)
    return [(f"hatched h{stage_style(one)}", "", one) for one in STAGES if one in known]


def _side_legend(sides: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Returns style, outline and words of the marks of each runtime."""
    return [(f"mark s{index}", MARKERS[index], side) for side, index in sides.items()]
