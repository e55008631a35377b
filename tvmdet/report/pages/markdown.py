"""A report as Markdown that fits a pull request: verdicts, one table a model, what to beware of."""

from __future__ import annotations

import re
import shlex

from tvmdet.report.pages.comparison import Comparison, ModelPart
from tvmdet.report.pages.machines import machine_lines
from tvmdet.report.pages.matrix import brief_sheet
from tvmdet.report.pages.more_sheets import changes_sheet, problems
from tvmdet.report.pages.names import Names
from tvmdet.report.pages.overview import overview_sheet
from tvmdet.report.pages.sheets import Sheet
from tvmdet.report.pages.summary import doubts, findings

__all__ = ["to_markdown"]

_MARKS = {"good": "✅", "bad": "❌", "unsure": "❔"}
_MOST_DOUBTS = 5


def to_markdown(comparison: Comparison) -> str:
    """Returns the text of a report."""
    names, shared = Names.of_report([part.runs for part in comparison.models])
    blocks = ["# Latency report"]
    if len(names) > 1:
        blocks += _table(overview_sheet(comparison, shared))
    for part, named in zip(comparison.models, names, strict=True):
        blocks += _part(part, comparison, named)
    return "\n\n".join(blocks) + "\n"


def _part(part: ModelPart, comparison: Comparison, names: Names) -> list[str]:
    blocks = [f"## {_escaped(part.model.name)}"]
    found = [f"- {_MARKS[remark.kind]} {_escaped(remark.text)}" for remark in findings(part)]
    if found:
        blocks.append("\n".join(found))
    if part.changes:
        blocks += _table(changes_sheet(part, names, ours_only=True))
    blocks.append("Measured on:")
    blocks.append("\n".join(f"- {_escaped(line)}" for line in machine_lines(part, names)))
    blocks += _table(brief_sheet(part, comparison, names))
    beware = doubts(part)
    left_out = len(beware) - _MOST_DOUBTS
    shown = beware[:_MOST_DOUBTS] + ([f"and {left_out} more"] if left_out > 0 else [])
    listed = [f"- ⚠️ {_escaped(text)}" for text in shown]
    listed += [f"- {_escaped(text)}" for text in problems(part, names)]
    if listed:
        blocks.append("\n".join(listed))
    commands = dict.fromkeys(
        shlex.join(source.result.command) for source in part.sources if source.result.command
    )
    if commands:
        # A fence longer than any run of backticks in it.
        runs = re.findall("`+", " ".join(commands))
        fence = "`" * max([3, *(len(run) + 1 for run in runs)])
        lines = "\n".join((fence, *commands, fence))
        summary = "<summary>Commands that repeat it</summary>"
        blocks.append(f"<details>{summary}\n\n{lines}\n\n</details>")
    return blocks


def _table(sheet: Sheet) -> list[str]:
    sheet = sheet.brief()
    if not sheet.rows:
        return []
    lines = [
        _line([column.name for column in sheet.columns]),
        "|" + "|".join("--:" if column.is_number else "---" for column in sheet.columns) + "|",
    ]
    for row in sheet.rows:
        marks = [f"{_MARKS[cell.kind]} " if cell.kind in _MARKS else "" for cell in row]
        lines.append(_line([mark + cell.text for mark, cell in zip(marks, row, strict=True)]))
    return ["\n".join(lines), *(f"_{_escaped(line)}_" for line in sheet.below)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Returns a text that Markdown shows as it is, and that cannot leave its cell."""
    for sign in "\\`*_|<>[]#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
