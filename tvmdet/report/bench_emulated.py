"""The benchmark of code for an ARM core on a machine that is none: counts, and no latency."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tvmdet.artifact import Artifact, TargetEntry
from tvmdet.errors import InputError
from tvmdet.report.emulated import count_network
from tvmdet.report.machine import describe_machine, describe_versions
from tvmdet.report.results import BenchReport
from tvmdet.report.subject import describe_subject
from tvmdet.runtime.loader import Host

if TYPE_CHECKING:
    from tvmdet.report.bench import BenchOptions

__all__ = ["bench_emulated", "emulated_entry"]

_ARCH = "aarch64"


def emulated_entry(artifact: Artifact, target: str | None) -> TargetEntry | None:
    """Returns the target that was named, if it is code for ARM and this machine is not."""
    found = [entry for entry in artifact.targets if entry.name == target]
    if not found or found[0].arch != _ARCH or found[0].gpu or platform.machine() == _ARCH:
        return None
    return found[0]


def bench_emulated(
    artifact: Artifact,
    entry: TargetEntry,
    options: BenchOptions,
    say: Callable[[str], None],
    command: tuple[str, ...],
) -> BenchReport:
    """Counts what the code executes under QEMU; see :mod:`tvmdet.report.emulated`.

    Args:
        artifact: A compiled file.
        entry: The target that is counted.
        options: Batch sizes, and what the report repeats; nothing in it may ask for a time.
        say: Called with one line at the start of each step.
        command: What was typed, for the report.

    Raises:
        InputError: An option asks for something that only hardware can give.
        TargetError: QEMU or something that it needs is missing.
        ArtifactError: The code fails under emulation.
    """
    _check(options, entry)
    emulation = count_network(artifact, entry, options.batch_sizes, say)
    subject = describe_subject(artifact, entry.name, Host.this_machine())
    members = tuple(
        dataclasses.replace(
            member,
            state="emulated",
            reason=f"{platform.machine()} here: instructions are counted, and nothing is timed",
            emulation=emulation,
        )
        if member.target == entry.name
        else member
        for member in subject.members
    )
    return BenchReport(
        subject=dataclasses.replace(subject, members=members),
        threads=1,
        machine=describe_machine(),
        versions=describe_versions(),
        peak=None,
        tables=(),
        setup=options.setup(),
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _check(options: BenchOptions, entry: TargetEntry) -> None:
    asked = {
        "--against": options.against,
        "--per-layer": options.per_layer,
        "--threads": options.threads is not None,
        "--price": options.prices is not None,
        "--eval": options.evaluation is not None,
        "--picture": options.picture is not None,
    }
    named = [name for name, value in asked.items() if value]
    if named:
        raise InputError(
            f"{entry.name} is emulated on this {platform.machine()} machine: instructions of one "
            f"thread are counted, kernel by kernel, and nothing is timed; leave out "
            f"{' and '.join(named)}, or measure on the board"
        )
