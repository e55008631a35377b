"""From results to the rows of the matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tvmdet.counted import counted
from tvmdet.report.contest import OURS
from tvmdet.report.pages.runs import Place, Profiled, Run, Source
from tvmdet.report.result_format import Result
from tvmdet.report.result_kernels import Member
from tvmdet.report.result_subject import PeakFacts
from tvmdet.report.result_tables import Contestant, ResultTable

__all__ = ["is_empty", "place_of", "profiles_of", "runs_of"]

_EMULATED = "network"
_LEAST_RATE = 1e-6  # GFLOP/s or GB/s; none is that slow
_SHORTEST_MS = 1e-6  # what a clock may call nothing


def place_of(result: Result) -> Place:
    """Returns whose code a result is of, and where it ran."""
    machine = result.machine
    gpu = machine.accelerator
    name = machine.cpu if gpu is None else str(gpu.get("name", "GPU"))
    kind = " (virtual)" if machine.virtual else ""
    return Place(target=result.target.name, machine=f"{name}{kind}", threads=result.threads)


def is_empty(result: Result) -> bool:
    """Whether a result has no row to show: nothing was tried, and nothing emulated."""
    tried = any(table.entries for table in result.tables)
    return not tried and not any(member.emulation for member in result.members)


def runs_of(source: Source) -> Iterator[Run]:
    """Yields a row for each contestant of each table, and for each emulated batch."""
    for table in source.result.tables:
        for entry in table.entries:
            yield _run(source, table, entry)
    for member in source.result.members:
        yield from _emulated(source, member)


def profiles_of(source: Source) -> Iterator[Profiled]:
    """Yields the profiles of kernels; none where there is no roof to hold them under."""
    result = source.result
    if result.peak is None or not _is_roof(result.peak):
        return
    for profile in result.layers:
        if profile.whole_ms < _SHORTEST_MS:
            continue
        yield Profiled(
            file=source.file,
            place=place_of(result),
            precision=result.target.precision,
            peak=result.peak,
            profile=profile,
        )


def _is_roof(peak: PeakFacts) -> bool:
    rates = peak.read_gb_per_s
    known = all(size.isdecimal() and rate > _LEAST_RATE for size, rate in rates.items())
    return peak.f32_gflops > _LEAST_RATE and bool(rates) and known


def _run(source: Source, table: ResultTable, entry: Contestant) -> Run:
    result, setup = source.result, source.result.setup
    is_ours = entry.name == OURS
    is_right, parity = _parity(result, table, entry)
    accuracy = result.accuracy if is_ours else None
    return Run(
        file=source.file,
        place=place_of(result),
        what=table.what,
        batch_size=table.batch_size,
        runtime=entry.name.removesuffix(f" {entry.precision}"),
        precision=entry.precision,
        beside=result.target.precision,
        version=entry.version,
        latencies_ms=np.maximum(np.asarray(entry.rounds_us, np.float64) / 1e3, _SHORTEST_MS),
        stages_ms={stage.name: stage.median_ms for stage in entry.stages},
        over_rival=entry.tvmdet_over_this,
        noise_floor=None if table.noise is None else table.noise.floor,
        is_right=is_right,
        parity=parity,
        size_bytes=result.artifact.target_bytes if is_ours else None,
        memory_bytes=entry.memory_peak_bytes,
        accuracy=None if accuracy is None else accuracy.ap,
        price_per_hour=None if result.prices is None else result.prices.per_hour,
        currency="" if result.prices is None else result.prices.currency,
        problem=entry.problem,
        table=table,
        entry_name=entry.name,
        picture=(setup.picture_sha256 or "") if setup and table.what == "end to end" else "",
    )


def _parity(result: Result, table: ResultTable, entry: Contestant) -> tuple[bool | None, str]:
    """Returns whether a contestant's answers are right, by its own comparison or the build's."""
    found = entry.agreement
    if found is not None:
        if found.reason:
            return found.ok, found.reason
        if found.worst_relative is None:
            return found.ok, "max error ?"
        if table.what == "end to end":
            return found.ok, f"tvmdet's boxes, IoU ≥ {1 - found.worst_relative:.4f}"
        return found.ok, f"max error {found.worst_relative:.1e}"
    if entry.name == OURS and result.parity:
        return _certified(result.parity)
    # The rows of a table of rivals are held against tvmdet's own answers.
    return None, ""


def _certified(parity: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Returns what the certificate in the compiled file says: a breach would have no file."""
    if "skipped" in parity:
        return None, f"not checked: {parity['skipped']}"
    if "worst_relative" in parity:
        worst = max(parity["worst_relative"].values(), default=0.0)
        return True, f"max error {worst:.1e}"
    boxes, iou = parity.get("boxes"), parity.get("worst_iou")
    return True, f"{counted(boxes or 0, 'box', 'boxes')}, IoU ≥ {iou}"


def _emulated(source: Source, member: Member) -> Iterator[Run]:
    # Not the machine that emulated: what is counted does not depend on it.
    for counts in member.emulation:
        yield Run(
            file=source.file,
            place=Place(target=member.target, machine=f"emulated ({counts.emulator})", threads=1),
            what=_EMULATED,
            batch_size=counts.batch_size,
            runtime=OURS,
            precision=source.result.target.precision,
            beside=source.result.target.precision,
            size_bytes=member.bytes,
            emulation=counts,
            problem="emulated: instructions are counted, and no latency can be had from them",
        )
