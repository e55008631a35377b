"""Further tables of a report: kernels, changes, problems and conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tvmdet.counted import counted
from tvmdet.report.contest import OURS
from tvmdet.report.pages.comparison import ModelPart
from tvmdet.report.pages.names import Names, milliseconds
from tvmdet.report.pages.rivalry import VERDICT_KINDS
from tvmdet.report.pages.rows import place_of
from tvmdet.report.pages.runs import Profiled, Source, ratio_text
from tvmdet.report.pages.sheets import Cell, Column, Sheet
from tvmdet.report.result_format import Result
from tvmdet.report.result_kernels import Kernel

__all__ = ["changes_sheet", "conditions", "kernels_sheet", "problems"]

_KERNELS = 20
_CHANGE_KINDS = {**VERDICT_KINDS, "broken": "bad", "mended": "good"}


def kernels_sheet(profiled: Profiled) -> Sheet:
    """Returns the kernels of one place, slowest first."""
    profile = profiled.profile
    layers = profile.layers[:_KERNELS]
    left_out = profile.layers[_KERNELS:]
    explained = (profile.kernels_ms + profile.built_in_ms) / profile.whole_ms
    below = [
        f"Kernels add up to {profile.kernels_ms:.3f} ms, {profile.closure:.1%} of a call that "
        f"nobody watched ({profile.whole_ms:.3f} ms), and with built-in functions, "
        f"{profile.built_in_ms:.3f} ms, to {explained:.1%}",
        f"Tuning could win {profiled.winnable_ms:.3f} ms at the very most, "
        f"{profiled.winnable_ms / profile.whole_ms:.0%} of the call: what lies above the roofline",
    ]
    if left_out:
        rest = sum(kernel.ms for kernel in left_out)
        below.append(
            f"left out: {counted(len(left_out), 'smaller kernel')}, {rest:.3f} ms together"
        )
    return Sheet(
        title="Kernels",
        columns=(
            Column(name="no."),
            Column(name="operator", is_number=False, is_wide=True),
            Column(name="calls"),
            Column(name="ms", hint="of all its calls"),
            Column(name="share"),
            Column(name="GFLOP/s"),
            Column(name="attainable ms", hint="by the roofline"),
            Column(name="could win ms", hint="at the very most"),
            Column(name="schedule", hint="and whether it was tuned", is_number=False, is_wide=True),
        ),
        rows=tuple(_kernel(i, kernel, profile.whole_ms) for i, kernel in enumerate(layers, 1)),
        below=tuple(below),
    )


def _kernel(rank: int, kernel: Kernel, whole_ms: float) -> tuple[Cell, ...]:
    rate, share = kernel.gflops, kernel.ms / whole_ms
    return (
        Cell.of(str(rank), rank),
        Cell.of(kernel.anchor or kernel.name),
        Cell.of(str(kernel.calls), kernel.calls),
        Cell.of(f"{kernel.ms:.3f}", kernel.ms),
        Cell.of(f"{share:.1%}", share),
        Cell.of("" if rate is None else f"{rate:.0f}", rate),
        Cell.of(f"{kernel.attainable_ms:.3f}", kernel.attainable_ms),
        Cell.of(f"{kernel.winnable_ms:.3f}", kernel.winnable_ms),
        Cell.of(f"{kernel.template} {kernel.source}".strip()),
    )


def changes_sheet(part: ModelPart, names: Names, *, ours_only: bool = False) -> Sheet:
    """Returns how rows relate to earlier ones, regressions first.

    Rows that have nothing to compare with are only counted.
    """
    rows = []
    found = [change for change in part.changes if change.run.is_ours or not ours_only]
    told = [change for change in found if not change.is_silent]
    silent = Counter(change.note for change in found if change.is_silent)
    for change in sorted(told, key=lambda one: not one.is_regression):
        run, ratio, gap = change.run, change.ratio, change.accuracy_change
        before = None if change.before is None else change.before.median_ms
        now = None if change.now is None else change.now.median_ms
        word = f"regression: {change.kind}" if change.is_regression else change.kind
        kind = "bad" if change.is_regression else _CHANGE_KINDS.get(change.kind, "muted")
        could_see = None if ratio is None else ratio.could_see
        rows.append(
            (
                Cell.of(names.row(run)),
                Cell.of(run.what),
                Cell.of(str(run.batch_size), run.batch_size),
                Cell.of(milliseconds(before), before),
                Cell.of(milliseconds(now), now),
                Cell.of("") if ratio is None else Cell.of(ratio_text(ratio), ratio.ratio),
                Cell.of("" if could_see is None else f"{could_see:.1%}", could_see),
                Cell.of("" if gap is None else f"{100 * gap:+.2f}", gap),
                Cell.of(word, kind=kind),
                Cell.of(change.note),
            )
        )
    return Sheet(
        title="Against the earlier results",
        columns=(
            Column(name="row", is_number=False),
            Column(name="what", is_number=False),
            Column(name="batch"),
            Column(name="before ms", hint="median"),
            Column(name="now ms", hint="median"),
            Column(name="now / before", hint="with its 95 % interval", is_number=False),
            Column(name="could have seen", hint="no smaller difference would have been called"),
            Column(name="AP change", hint="points"),
            Column(name="verdict", is_number=False),
            Column(name="note", is_number=False, in_brief=False, is_wide=True),
        ),
        rows=tuple(rows),
        below=tuple(f"{counted(count, 'row')}: {note}" for note, count in silent.items()),
    ).without_empty_columns()


def problems(part: ModelPart, names: Names) -> list[str]:
    """Returns why rows have no figures, each reason once with how many rows have it."""
    found = Counter(
        f"{names.place(run.place)} · {run.side}: {run.problem}"
        for run in part.runs
        if run.problem and run.emulation is None
    )
    return [text if count == 1 else f"{text} ({count} tables)" for text, count in found.items()]


def conditions(source: Source, names: Names) -> list[tuple[str, str]]:
    """Returns what was measured, on what, and how, as pairs of a name and a value."""
    result = source.result
    machine, artifact, timed = result.machine, result.artifact, bool(result.tables)
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    clock = ", ".join(f"{name} {value}" for name, value in machine.clock.items())
    memory = "" if machine.memory_bytes is None else f", {machine.memory_bytes / 2**30:.0f} GiB"
    pairs = [
        ("code for", f"{names.place(place_of(result))}, {result.target.precision}"),
        ("machine", f"{machine.cpu}, {machine.cpus_usable} of {machine.cpus_online} CPUs{memory}"),
        (
            "GPU",
            ", ".join(f"{name} {value}" for name, value in (machine.accelerator or {}).items()),
        ),
        ("virtual", "yes" if machine.virtual else "no"),
        ("features", " ".join(machine.features)),
        ("clocks", clock or "not told by the kernel"),
        ("load before", " ".join(f"{value:g}" for value in machine.load_average)),
        ("threads", f"{result.threads}, {'of every contestant' if timed else 'never timed'}"),
        ("system", machine.system),
        ("versions", versions),
        ("compiled file", f"{artifact.path} {_digest(artifact.sha256)}".strip()),
        ("model", f"{result.model.name} {_digest(result.model.sha256)}".strip()),
        ("measured" if timed else "counted", result.created),
        *_rivals(result),
    ]
    return [(name, value) for name, value in pairs if value]


def _rivals(result: Result) -> Iterator[tuple[str, str]]:
    """Yields each rival's version and how it was set up."""
    entries = [entry for table in result.tables for entry in table.entries if entry.name != OURS]
    for entry in {entry.name: entry for entry in reversed(entries)}.values():
        yield entry.name, ", ".join(text for text in (entry.version, entry.settings) if text)


def _digest(sha256: str | None) -> str:
    return f"(sha256 {sha256})" if sha256 else ""
