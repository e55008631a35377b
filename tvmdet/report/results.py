"""What a benchmark found, as values that become JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvmdet.report.agreement import Agreement
from tvmdet.report.machine import Disturbance
from tvmdet.report.peak import Peak
from tvmdet.report.per_layer import LayerTable
from tvmdet.report.statistics import Comparison, Summary

__all__ = ["BenchReport", "Entry", "Table"]

_US = 1e6


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One contestant in one table.

    Attributes:
        name: The runtime, with its mode.
        precision: What it computed in.
        version: Of the runtime, empty when it could not be loaded.
        settings: How it was set up.
        seconds: Timed calls in the order of the rounds; empty when it was not timed.
        summary: Of ``seconds``.
        comparison: tvmdet's time over this one's; None for tvmdet itself.
        agreement: How its outputs relate to the reference; None for the reference.
        flop: Operations of one call, as the ONNX file defines them.
        phases_s: Median seconds of each phase of an end-to-end call.
        problem: Why it is not ranked; empty when it is.
    """

    name: str
    precision: str = "fp32"
    version: str = ""
    settings: str = ""
    seconds: Sequence[float] = ()
    summary: Summary | None = None
    comparison: Comparison | None = None
    agreement: Agreement | None = None
    flop: int | None = None
    phases_s: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""

    @property
    def flop_per_s(self) -> float | None:
        """Operations per second at the median."""
        if self.flop is None or self.summary is None:
            return None
        return self.flop / self.summary.median_s

    def to_dict(self, peak: Peak | None) -> dict[str, Any]:
        """Returns plain JSON values."""
        rate = self.flop_per_s
        share = rate / peak.flop_per_s if rate is not None and peak is not None else None
        return {
            "name": self.name,
            "precision": self.precision,
            "version": self.version,
            "settings": self.settings,
            "latency": None if self.summary is None else self.summary.to_dict(),
            "tvmdet_over_this": None if self.comparison is None else self.comparison.to_dict(),
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "gflops": None if rate is None else round(rate / 1e9, 2),
            "share_of_f32_peak": None if share is None else round(share, 4),
            "phases_ms": {name: round(s * 1e3, 4) for name, s in self.phases_s.items()},
            "problem": self.problem,
            "rounds_us": [round(value * _US, 1) for value in self.seconds],
        }


@dataclass(frozen=True, kw_only=True)
class Table:
    """Contestants that were timed in turn.

    Attributes:
        what: ``network`` (arrays in, arrays out) or ``end to end`` (image file in, boxes out).
        batch_size: Rows of one call.
        entries: tvmdet first.
        disturbance: What else the machine did meanwhile.
        restless: Contestants whose threads spun into the next one's turn.
        note: What a reader must know of this table.
    """

    what: str
    batch_size: int
    entries: tuple[Entry, ...]
    disturbance: Disturbance
    restless: tuple[str, ...] = ()
    note: str = ""

    def to_dict(self, peak: Peak | None) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "what": self.what,
            "batch_size": self.batch_size,
            "entries": [entry.to_dict(peak) for entry in self.entries],
            "disturbance": self.disturbance.to_dict(),
            "restless": list(self.restless),
            "note": self.note,
        }


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Everything that a benchmark found.

    Attributes:
        artifact: The file.
        model: Name and SHA-256 of the network.
        target: Whose code ran.
        threads: Of every contestant.
        machine: As :func:`tvmdet.report.machine.describe_machine` returns it.
        peak: What the machine can do at most, when it was measured.
        tables: Network and end to end, per batch size.
        layers: The profile, when it was asked for.
        command: What was typed.
    """

    artifact: str
    model: Mapping[str, Any]
    target: str
    threads: int
    machine: Mapping[str, Any]
    peak: Peak | None
    tables: tuple[Table, ...]
    layers: tuple[LayerTable, ...] = ()
    command: tuple[str, ...] = ()

    @property
    def is_slower(self) -> bool:
        """Whether some rival that answers right is faster beyond doubt."""
        return any(
            entry.comparison is not None and entry.comparison.verdict == "slower"
            for table in self.tables
            for entry in table.entries
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "artifact": self.artifact,
            "model": dict(self.model),
            "target": self.target,
            "threads": self.threads,
            "machine": dict(self.machine),
            "peak": None if self.peak is None else self.peak.to_dict(),
            "tables": [table.to_dict(self.peak) for table in self.tables],
            "layers": [table.to_dict() for table in self.layers],
            "command": list(self.command),
        }
