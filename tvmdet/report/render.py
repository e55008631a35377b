"""A report as tables for people: columns and rows, whoever prints them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from tvmdet.counted import counted
from tvmdet.report.contest import OURS
from tvmdet.report.peak import Peak
from tvmdet.report.per_layer import Layer, LayerTable
from tvmdet.report.render_counts import Grid, counted_grid, schedule_text
from tvmdet.report.results import BenchReport, Entry, Table

__all__ = ["Grid", "grids", "machine_lines"]

_PHASES = ("decode", "resize", "queue", "network", "map")
_LATENCY = ("median", "p90", "p99", "min")
_TITLES = {
    "network": "network alone, batch {}: arrays in, arrays out",
    "array to boxes": "detector, batch {}: resized pixels in, boxes out",
}


def machine_lines(report: BenchReport) -> list[tuple[str, str]]:
    """Returns what was measured, on what, as pairs of a name and a value."""
    machine = report.machine
    cpus = f"{machine['cpus_usable']} of {machine['cpus_online']} CPUs usable"
    kind = ", virtual" if machine["virtual"] else ""
    lines = [
        ("file", f"{report.subject.artifact.path} ({report.subject.model.name})"),
        ("machine", f"{machine['cpu']}, {cpus}{kind}"),
        ("features", " ".join(machine["features"])),
        ("system", _system(machine)),
        ("load", " ".join(str(value) for value in machine["load_average"])),
        ("code for", f"{report.subject.target.name}, {_ran(report)}"),
    ]
    if report.setup.board is not None:
        lines.insert(1, ("board", f"at {report.setup.board}, over RPC"))
    if report.peak is not None:
        rates = report.peak.bytes_per_s
        text = ", ".join(f"{rate / 1e9:.0f} ({_size(size)})" for size, rate in rates.items())
        lines.append(("peak", f"{report.peak.flop_per_s / 1e9:.0f} GFLOP/s float32, measured"))
        lines.append(("memory", f"GB/s read from arrays of a size: {text}"))
    return lines


def _system(machine: Mapping[str, Any]) -> str:
    python = f", Python {machine['python']}" if machine["python"] else ""
    return f"{machine['system']}{python}"


def _ran(report: BenchReport) -> str:
    if any(member.state == "emulated" for member in report.subject.members):
        return "emulated: counted with one thread, and never timed"
    return f"{counted(report.threads, 'thread')} each"


def grids(report: BenchReport) -> list[Grid]:
    """Returns every table of a report, in the order to be read."""
    found = [
        _end_to_end(table) if table.what == "end to end" else _network(table, report.peak)
        for table in report.tables
    ]
    found += [_layers(table) for table in report.layers]
    counted = (counts for member in report.subject.members for counts in member.emulation)
    return found + [counted_grid(counts) for counts in counted]


def _network(table: Table, peak: Peak | None) -> Grid:
    columns = (
        "",
        *(f"{name} ms" for name in _LATENCY),
        "tvmdet / this",
        "tvmdet is",
        "GFLOP/s",
        "of peak",
        "max error",
        "memory MB",
        "version",
    )
    rows = []
    for entry in table.entries:
        rate = entry.flop_per_s
        share = "" if rate is None or peak is None else f"{rate / peak.flop_per_s:.0%}"
        gflops = "" if rate is None else f"{rate / 1e9:.1f}"
        error = "" if entry.agreement is None else f"{entry.agreement.worst:.1e}"
        figures = (gflops, share, error, _memory(entry))
        rows.append((_name(entry), *_latency(entry), *_verdict(entry), *figures, entry.version))
    return Grid(
        title=f"{_TITLES[table.what].format(table.batch_size)}{_rounds(table)}",
        columns=columns,
        rows=tuple(rows),
        words=("", "tvmdet is", "version"),
        below=(*([table.note] if table.note else []), *_remarks(table)),
    )


def _end_to_end(table: Table) -> Grid:
    columns = ("", *(f"{name} ms" for name in _LATENCY), *_PHASES, "tvmdet / this", "tvmdet is")
    rows = []
    for entry in table.entries:
        phases = [
            f"{median(entry.stages_s[name]) * 1e3:.2f}" if entry.stages_s.get(name) else ""
            for name in _PHASES
        ]
        rows.append((_name(entry), *_latency(entry), *phases, *_verdict(entry)))
    return Grid(
        title=f"end to end: image file in, boxes out{_rounds(table)}",
        columns=columns,
        rows=tuple(rows),
        words=("", "tvmdet is"),
        below=(table.note, *_remarks(table)),
    )


def _layers(table: LayerTable) -> Grid:
    columns = (
        "kernel",
        "calls",
        "ms",
        "share",
        "GFLOP/s",
        "MB",
        "attainable ms",
        "could win ms",
        "schedule",
        "operator",
    )
    whole = table.whole_s
    winnable = sum(layer.winnable_s for layer in table.layers)
    below = (
        f"sum of kernels {table.kernels_s * 1e3:.3f} ms = {table.closure:.1%} of the call "
        f"({whole * 1e3:.3f} ms); with allocation and other built-ins, "
        f"{table.built_in_s * 1e3:.3f} ms, {table.explained:.1%}",
        f"timing each kernel made the call {table.watched_s / whole - 1:.1%} slower",
        f"tuning could win at the very most {winnable * 1e3:.3f} ms, {winnable / whole:.0%}",
    )
    return Grid(
        title=f"kernels, batch {table.batch_size}",
        columns=columns,
        rows=tuple(_layer(layer, whole) for layer in table.layers),
        words=("kernel", "schedule", "operator"),
        below=below,
    )


def _layer(layer: Layer, whole: float) -> tuple[str, ...]:
    schedule = schedule_text(layer.template, layer.knobs, layer.source)
    return (
        layer.name,
        str(layer.calls),
        f"{layer.seconds * 1e3:.3f}",
        f"{layer.seconds / whole:.1%}",
        "?" if layer.flop_per_s is None else f"{layer.flop_per_s / 1e9:.0f}",
        f"{layer.bytes / 1e6:.2f}",
        f"{layer.attainable_s * 1e3:.3f}",
        f"{layer.winnable_s * 1e3:.3f}",
        schedule,
        layer.anchor,
    )


def _name(entry: Entry) -> str:
    said = entry.precision == "fp32" or entry.precision in entry.name
    return entry.name if said else f"{entry.name} {entry.precision}"


def _latency(entry: Entry) -> tuple[str, ...]:
    if entry.summary is None:
        return ("",) * len(_LATENCY)
    found = entry.summary
    values = (found.median_s, found.p90_s, found.p99_s, found.min_s)
    return tuple(f"{value * 1e3:.2f}" for value in values)


def _verdict(entry: Entry) -> tuple[str, str]:
    if entry.comparison is None:
        return "", "" if entry.name == OURS else "not ranked"
    found = entry.comparison
    return f"{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}]", found.verdict


def _memory(entry: Entry) -> str:
    return "" if entry.memory_peak_bytes is None else f"{entry.memory_peak_bytes / 1e6:.0f}"


def _remarks(table: Table) -> Iterator[str]:
    far = [
        f"{entry.name} {entry.summary.outliers} (up to {entry.summary.max_s * 1e3:.2f} ms)"
        for entry in table.entries
        if entry.summary is not None and entry.summary.outliers
    ]
    if far:
        yield f"outliers, which count in every figure: {', '.join(far)}"
    yield from _noise(table)
    yield from (f"{entry.name}: {entry.problem}" for entry in table.entries if entry.problem)


def _noise(table: Table) -> Iterator[str]:
    if table.noise is None:
        return
    found = table.noise.comparison
    yield (
        f"noise: two copies of tvmdet differ by {found.ratio:.3f} [{found.low:.3f}, "
        f"{found.high:.3f}]; no difference below {table.noise.floor:.1%} is called here"
    )
    seen = [
        f"{entry.name} {entry.comparison.could_see:.1%}"
        for entry in table.entries
        if entry.comparison is not None and entry.comparison.verdict == "undecided"
    ]
    if seen:
        yield f"undecided; differences that could have been seen: {', '.join(seen)}"


def _rounds(table: Table) -> str:
    counts: Sequence[int] = [len(entry.seconds) for entry in table.entries]
    return f" ({counted(max(counts, default=0), 'round')} in turn)"


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
