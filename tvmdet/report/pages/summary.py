"""What a reader in a hurry must know of a model: figures, verdicts, doubts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tvmdet.counted import counted
from tvmdet.report.detectable import missed
from tvmdet.report.pages.comparison import ModelPart
from tvmdet.report.pages.names import Names, milliseconds
from tvmdet.report.pages.overview import first_figures
from tvmdet.report.pages.rivalry import VERDICT_KINDS, fastest_rival
from tvmdet.report.pages.runs import Run, ratio_text

__all__ = ["Card", "Remark", "cards", "doubts", "findings"]

_SMALL_CHANGE = 0.1
"""What a comparison must have been able to see to be called good where it is undecided."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """The figure of one place.

    Attributes:
        where: Target, and machine where it matters.
        figure: The median, in milliseconds.
        what: What took so long.
        more: p99 and throughput.
        rival: How the fastest rival compares; empty without any.
        kind: Style of that: ``good``, ``bad`` or ``unsure``.
    """

    where: str
    figure: str
    what: str
    more: str
    rival: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Remark:
    """One sentence with its style: ``good``, ``bad`` or ``unsure``."""

    text: str
    kind: str


def cards(part: ModelPart, names: Names) -> list[Card]:
    """Returns the first figure of each session: end to end before network alone."""
    return [_card(run, part, names) for run in first_figures(part)]


def findings(part: ModelPart) -> list[Remark]:
    """Returns what was found: verdicts, answers, regressions."""
    found = []
    counts = Counter(run.over_rival.verdict for run in part.rivalries if run.over_rival)
    if counts:
        told = ", ".join(
            f"{word} in {counts[word]}"
            for word in ("faster", "slower", "undecided")
            if word in counts
        )
        kind = "bad" if counts["slower"] else "good" if counts["faster"] else "unsure"
        total = sum(counts.values())
        text = f"Of {counted(total, 'comparison')} with rivals, tvmdet is {told}."
        again = total - len({run.key for run in part.rivalries})
        if again:
            verb = "repeats" if again == 1 else "repeat"
            text += f" {again} of them {verb} another of the same setup, in a further session."
        found.append(Remark(text=text, kind=kind))
    wrong = [run for run in part.runs if run.is_right is False]
    ours_wrong = [run for run in wrong if run.is_ours]
    checked = sum(run.is_right is True for run in part.ours)
    if ours_wrong:
        text = f"{counted(len(ours_wrong), 'row')} of tvmdet with wrong answers."
        found.append(Remark(text=text, kind="bad"))
    elif checked:
        rows = counted(checked, "checked row")
        text = f"Answers of all {rows} of tvmdet are those of ONNX Runtime."
        found.append(Remark(text=text, kind="good"))
    if len(wrong) > len(ours_wrong):
        rows = counted(len(wrong) - len(ours_wrong), "row")
        text = f"{rows} of rivals with wrong answers, and no rank."
        found.append(Remark(text=text, kind="unsure"))
    if part.changes:
        found.append(_changes(part))
    return found


def doubts(part: ModelPart) -> list[str]:
    """Returns what makes the figures less trustworthy, each once, with the file."""
    found: dict[str, None] = dict.fromkeys((*part.drifts, *part.without_figures))
    for source in part.sources:
        for warning in source.result.warnings:
            found[f"{source.file}: {warning}" if len(part.sources) > 1 else warning] = None
    return list(found)


def _changes(part: ModelPart) -> Remark:
    compared = sum(change.ratio is not None for change in part.changes)
    if part.regressions:
        text = f"{counted(len(part.regressions), 'regression')} against the earlier results."
        return Remark(text=text, kind="bad")
    if not compared:
        return Remark(text="No row compares with the earlier results.", kind="unsure")
    text = f"No regression was seen: {counted(compared, 'row')} compared with earlier ones"
    undecided = [
        change.ratio.could_see
        for change in part.changes
        if change.kind == "undecided" and change.ratio is not None
    ]
    if not undecided:
        return Remark(text=f"{text}.", kind="good")
    is_small = all(share is not None and share <= _SMALL_CHANGE for share in undecided)
    return Remark(
        text=f"{text}, {len(undecided)} undecided: {missed(undecided)} could have been missed.",
        kind="good" if is_small else "unsure",
    )


def _card(run: Run, part: ModelPart, names: Names) -> Card:
    rival = fastest_rival(run, part.runs)
    told, kind = "", ""
    if rival is not None and rival.over_rival is not None:
        verdict = rival.over_rival.verdict
        kind = VERDICT_KINDS[verdict]
        told = (
            f"{verdict}: {ratio_text(rival.over_rival)} of {rival.side}, the fastest rival "
            f"({milliseconds(rival.median_ms)} ms)"
        )
    images = "" if run.batch_size == 1 else f", {run.batch_size} images a call"
    return Card(
        where=f"{names.where(run)} · {run.precision}",
        figure=milliseconds(run.median_ms),
        what=f"median, {run.what}, batch {run.batch_size}{images}",
        more=f"p99 {milliseconds(run.percentiles_ms['p99'])} ms, {run.images_per_s:,.1f} images/s",
        rival=told,
        kind=kind,
    )
