"""The whole report: results read, put side by side, written in the form that the name asks for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tvmdet.errors import InputError
from tvmdet.files import whole_file
from tvmdet.report.pages.comparison import Comparison, compare_sources
from tvmdet.report.pages.data import to_json_values
from tvmdet.report.pages.html import to_html
from tvmdet.report.pages.markdown import to_markdown
from tvmdet.report.pages.read import read_baseline, read_sources
from tvmdet.report.result_file import holds_result

__all__ = ["FORMS", "ReportOptions", "Written", "write_report"]


def _json_text(comparison: Comparison) -> str:
    return json.dumps(to_json_values(comparison), ensure_ascii=False, allow_nan=False) + "\n"


FORMS: Mapping[str, Callable[[Comparison], str]] = {
    ".html": to_html,
    ".md": to_markdown,
    ".json": _json_text,
}
"""Forms of a report by the suffix of its file."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What to report, and how.

    Attributes:
        group: Whether several models may be in one report, a part each.
        prices: Of an hour of a machine, by target, in any one currency.
        baseline: Files of earlier results, or an earlier report's JSON.
    """

    group: bool = False
    prices: Mapping[str, float] = field(default_factory=dict)
    baseline: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written.

    Attributes:
        path: The file.
        comparison: What is in it.
    """

    path: Path
    comparison: Comparison

    @property
    def regressions(self) -> int:
        """Rows that are slower beyond doubt, wrong, or less accurate than before."""
        return sum(len(part.regressions) for part in self.comparison.models)


def write_report(
    results: Sequence[str | Path], output: str | Path, options: ReportOptions | None = None
) -> Written:
    """Writes a report of results.

    Args:
        results: Files that ``tvmdet bench --json`` wrote.
        output: The file to write; its suffix chooses the form: .html, .md or .json.
        options: How.

    Raises:
        InputError: A result cannot be used, results do not belong in one report, the suffix is
            unknown, or the file cannot be written or is itself a result or read.
    """
    path = Path(output)
    form = _form(path)
    asked = options or ReportOptions()
    _keep_measurements(path, (*results, *asked.baseline))
    comparison = compare_sources(
        read_sources(results),
        group=asked.group,
        prices=asked.prices,
        baseline=read_baseline(asked.baseline),
    )
    text = form(comparison)
    try:
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "place with -o"
        ) from error
    return Written(path=path, comparison=comparison)


def _form(path: Path) -> Callable[[Comparison], str]:
    form = FORMS.get(path.suffix.lower())
    if form is None:
        got = f"ends in {path.suffix!r}" if path.suffix else "has no suffix"
        raise InputError(f"{path} {got}, and reports are {', '.join(FORMS)}; name the file with -o")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} for {path.name}; make it first")
    return form


def _keep_measurements(path: Path, read: Sequence[str | Path]) -> None:
    """Refuses a place that holds what was measured: it cannot be had again from a report."""
    if os.path.realpath(path) in {os.path.realpath(one) for one in read}:
        raise InputError(
            f"{path} is one of the files that the report is made from, and would be written over; "
            "name another file with -o"
        )
    if holds_result(path):
        raise InputError(
            f"{path} is a result of `tvmdet bench`, which the report would write over; name "
            "another file with -o"
        )
