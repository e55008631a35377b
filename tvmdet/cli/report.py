"""``tvmdet report``: results of benchmarks side by side, as a page, Markdown or JSON."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmdet.cli import output
from tvmdet.cli.json_output import Json, check_json, deliver, is_printed
from tvmdet.cli.options import Debug
from tvmdet.cli.progress import Phases

if TYPE_CHECKING:
    from tvmdet.report.pages import Written

__all__ = ["report"]


def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RESULT.json...", help="What `tvmdet bench --json` wrote."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The report to write: .html, .md or .json."
        ),
    ] = None,
    baseline: Annotated[
        list[Path] | None,
        typer.Option(
            "--baseline",
            metavar="OLD.json",
            help="Earlier results, or an earlier report's .json: what became slower? Repeatable.",
        ),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            metavar="TARGET=P",
            help="What an hour of the machine costs, for the cost of 1,000 images. Repeatable.",
        ),
    ] = None,
    group: Annotated[
        bool, typer.Option("--group", help="Several models in one report, a part for each.")
    ] = False,
    fail: Annotated[
        bool, typer.Option("--fail", help="Exit with 1 where --baseline shows a regression.")
    ] = False,
    json: Json = None,
    debug: Debug = False,
) -> int:
    """Put results of benchmarks side by side: targets, batches, precisions, rivals.

    The HTML page needs no network, the Markdown fits a pull request, the JSON is the merged data.
    """
    if not results:
        raise typer.BadParameter("give results of `tvmdet bench --json`", param_hint="RESULT.json")
    if to is None:
        raise typer.BadParameter("name the report with -o: .html, .md or .json", param_hint="-o")
    check_json(json)
    _keep_files(json, to, (*(results or ()), *(baseline or ())))
    with Phases() as phase:
        phase("reading results")
        from tvmdet.report.pages import ReportOptions, write_report

        options = ReportOptions(
            group=group,
            prices=_prices(price or ()),
            baseline=tuple(baseline or ()),
        )
        written = write_report(results or (), to, options)
    deliver(json, _summary(written), lambda: _print(written))
    if not is_printed(json) and written.path.suffix.lower() != ".json":
        output.next_step(
            "tvmdet", "report", "NEW.json", "--baseline", "OLD.json", "-o", written.path
        )
    return 1 if fail and written.regressions else 0


def _keep_files(json: str | None, to: Path, read: tuple[Path, ...]) -> None:
    """Refuses to write over a result or the report: what follows ``--json`` was to be read."""
    from tvmdet.report.result_file import holds_result

    if json is None or is_printed(json):
        return
    place = os.path.realpath(json)
    if place == os.path.realpath(to):
        raise typer.BadParameter(
            f"{json} is the report itself, which -o names; name another file, or write --json=-",
            param_hint="--json",
        )
    if holds_result(Path(json)) or place in {os.path.realpath(one) for one in read}:
        raise typer.BadParameter(
            f"{json} is a result of `tvmdet bench` or an earlier report, which --json would write "
            "over; put --json behind the results, or write --json=-",
            param_hint="--json",
        )


def _prices(texts: list[str] | tuple[str, ...]) -> dict[str, float]:
    """Reads ``x86-64-v4=0.17``."""
    prices: dict[str, float] = {}
    for text in texts:
        target, equals, word = text.partition("=")
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not (target and equals and math.isfinite(value) and value >= 0):
            raise typer.BadParameter(
                f"{text!r} is no price; give a target and what an hour of its machine costs, "
                "such as x86-64-v4=0.17",
                param_hint="--price",
            )
        if target in prices:
            raise typer.BadParameter(f"{target} has two prices", param_hint="--price")
        prices[target] = value
    return prices


def _summary(written: Written) -> dict[str, Any]:
    from tvmdet.report.pages.summary import doubts, findings

    return {
        "report": str(written.path),
        "regressions": written.regressions,
        "models": [
            {
                "model": part.model.name,
                "findings": [remark.text for remark in findings(part)],
                "warnings": doubts(part),
            }
            for part in written.comparison.models
        ],
    }


def _print(written: Written) -> None:
    from tvmdet.report.pages.summary import findings

    for part in written.comparison.models:
        output.stdout().print(part.model.name, style="bold", soft_wrap=True)
        for remark in findings(part):
            output.stdout().print(f"  {remark.text}", soft_wrap=True)
        for line in part.drifts:
            output.warning(f"{part.model.name}: {line}")
    output.stdout().print(f"\nthe report is in {written.path}", soft_wrap=True)
