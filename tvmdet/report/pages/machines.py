"""On what, with what and when a model was measured: a line for each machine and its sessions."""

from __future__ import annotations

from collections.abc import Iterator

from tvmdet.counted import counted
from tvmdet.report.contest import OURS
from tvmdet.report.pages.comparison import ModelPart
from tvmdet.report.pages.names import Names
from tvmdet.report.pages.rows import place_of
from tvmdet.report.pages.runs import Source
from tvmdet.report.result_format import Result

__all__ = ["machine_lines"]

_OURS = ("tvmdet", "apache-tvm")


def machine_lines(part: ModelPart, names: Names) -> list[str]:
    """Returns one line for all results of equal machine, threads and versions, with their dates."""
    sessions: dict[str, list[Source]] = {}
    for source in part.sources:
        sessions.setdefault(_conditions(source.result), []).append(source)
    return [f"{told}: {_covered(alike, names)}" for told, alike in sessions.items()]


def _conditions(result: Result) -> str:
    machine = result.machine
    gpu = machine.accelerator
    hardware = f"{gpu['name']}, {machine.cpu}" if gpu and "name" in gpu else machine.cpu
    kind = ", virtual" if machine.virtual else ""
    parts = [
        f"{hardware} ({machine.cpus_usable} of {counted(machine.cpus_online, 'CPU')}{kind})",
        " ".join(machine.features),
        f"{counted(result.threads, 'thread')} each" if result.tables else "emulated, never timed",
        ", ".join(_versions(result)),
    ]
    return "; ".join(one for one in parts if one)


def _versions(result: Result) -> Iterator[str]:
    for name in _OURS:
        if name in result.versions:
            yield f"{name} {result.versions[name]}"
    rivals: dict[str, str] = {}
    for table in result.tables:
        for entry in table.entries:
            if entry.name != OURS and entry.version:
                rivals.setdefault(entry.name.removesuffix(f" {entry.precision}"), entry.version)
    for name, version in rivals.items():
        # Some runtimes name themselves in what they call their version.
        yield version if version.startswith(name) else f"{name} {version}"


def _covered(sources: list[Source], names: Names) -> str:
    """Returns whose code was measured and when, each day once."""
    found: dict[str, dict[str, None]] = {}
    for source in sources:
        result, place = source.result, place_of(source.result)
        session = names.session(place, result.target.precision, source.file)
        name = f"{place.target} {result.target.precision}"
        day = result.created.partition("T")[0] or "on a day not recorded"
        found.setdefault(day, {})[f"{name} ({session})" if session else name] = None
    return "; ".join(f"{', '.join(covered)}, {day}" for day, covered in found.items())
