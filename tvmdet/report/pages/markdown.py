"""A report as Markdown that fits a pull request: verdicts, one table a model, what to beware of."""

from __future__ import annotations

import re
import shlex

from tvmdet.counted import counted
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
_LONGEST = 65_536
"""Characters that a description or a comment of a pull request may have on GitHub."""


def to_markdown(comparison: Comparison) -> str:
    """Returns the text of a report, cut to what a pull request holds.

    Commands go first, which the results hold too, then the end.
    """
    text = _text(comparison, with_commands=True)
    if len(text) > _LONGEST:
        text = _text(comparison, with_commands=False)
    return text if len(text) <= _LONGEST else _cut(text, comparison)


def _cut(text: str, comparison: Comparison) -> str:
    """Returns as many lines as fit, with what must be known of the others."""
    regressions = sum(len(part.regressions) for part in comparison.models)
    found = f" It found {counted(regressions, 'regression')} in all." if regressions else ""
    end = (
        f"\n\n**The rest is left out: a pull request holds {_LONGEST:,} characters, and this "
        f"report has {len(text):,}.{found} Write it as .html or .json, or give fewer results.**\n"
    )
    return text[: text.rindex("\n", 0, _LONGEST - len(end))] + end


def _text(comparison: Comparison, *, with_commands: bool) -> str:
    names, shared = Names.of_report([part.runs for part in comparison.models])
    blocks = ["# Latency report"]
    if len(names) > 1:
        blocks += _table(overview_sheet(comparison, shared))
    for part, named in zip(comparison.models, names, strict=True):
        blocks += _part(part, comparison, named)
        blocks += _commands(part) if with_commands else []
    if not with_commands:
        blocks.append("_Commands that repeat it are left out for length: the results hold them_")
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
    return blocks


def _commands(part: ModelPart) -> list[str]:
    commands = dict.fromkeys(
        shlex.join(source.result.command) for source in part.sources if source.result.command
    )
    if not commands:
        return []
    # A fence longer than any run of backticks in it.
    runs = re.findall("`+", " ".join(commands))
    fence = "`" * max([3, *(len(run) + 1 for run in runs)])
    lines = "\n".join((fence, *commands, fence))
    summary = "<summary>Commands that repeat it</summary>"
    return [f"<details>{summary}\n\n{lines}\n\n</details>"]


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
