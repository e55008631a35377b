"""What a benchmark found, as values that become JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tvmdet.report.agreement import Agreement
from tvmdet.report.load import LoadFound
from tvmdet.report.peak import Peak
from tvmdet.report.per_layer import LayerTable
from tvmdet.report.result_format import FORMAT, SCHEMA
from tvmdet.report.result_subject import Accuracy, Prices, Setup
from tvmdet.report.statistics import Comparison, Summary
from tvmdet.report.subject import Subject
from tvmdet.report.typed_json import to_json

__all__ = ["BenchReport", "Entry", "Table"]

_US = 1e6
_UNEXPLAINED = 0.05
_COSTLY = 0.1
_OUTSIDE_STAGES = 0.02


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
        stages_s: Of each stage of an end-to-end call its seconds, in the order of ``seconds``.
        warm_up_s: Calls before the timed ones, which count nowhere.
        memory_peak_bytes: Most resident memory of its process; None where it is not known.
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
    stages_s: Mapping[str, Sequence[float]] = field(default_factory=dict)
    warm_up_s: Sequence[float] = ()
    memory_peak_bytes: int | None = None
    problem: str = ""

    @property
    def flop_per_s(self) -> float | None:
        """Operations per second at the median."""
        if self.flop is None or self.summary is None:
            return None
        return self.flop / self.summary.median_s

    @property
    def staged_share(self) -> float | None:
        """The share of a call that its stages add up to, at the median; None without stages."""
        if not (self.stages_s and self.seconds):
            return None
        calls = zip(zip(*self.stages_s.values(), strict=True), self.seconds, strict=True)
        return float(median(sum(stages) / whole for stages, whole in calls))

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
            "memory_peak_bytes": self.memory_peak_bytes,
            "stages": [
                {"name": name, "median_ms": round(median(s) * 1e3, 4), "rounds_us": _us(s)}
                for name, s in self.stages_s.items()
            ],
            "problem": self.problem,
            "rounds_us": _us(self.seconds),
            "warm_up_us": _us(self.warm_up_s),
        }


def _us(seconds: Sequence[float]) -> list[float]:
    return [round(value * _US, 1) for value in seconds]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What two copies of tvmdet in one table differ by: an A/A comparison.

    Attributes:
        seconds: Of the second copy, one a round.
        comparison: Its time over the first copy's.
        floor: Share of the time below which no difference is called in this table.
    """

    seconds: Sequence[float]
    comparison: Comparison
    floor: float

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        found = self.comparison.to_dict()
        kept = {key: found[key] for key in ("ratio", "interval_95", "verdict")}
        return {**kept, "floor": round(self.floor, 5), "rounds_us": _us(self.seconds)}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Contestants that were timed in turn.

    Attributes:
        what: ``network`` (arrays in, arrays out), ``end to end`` (image file in, boxes out), or
            ``array to boxes`` (resized pixels in, boxes out: what is compiled of a detector).
        batch_size: Rows of one call.
        entries: tvmdet first.
        load: What else the machine did meanwhile.
        noise: The A/A comparison; None where one of the copies failed.
        restless: Contestants whose threads spun into the next one's turn.
        note: What a reader must know of this table.
        answers: What tvmdet answered, as :mod:`tvmdet.report.answers` samples it.
    """

    what: str
    batch_size: int
    entries: tuple[Entry, ...]
    load: LoadFound
    noise: Noise | None = None
    restless: tuple[str, ...] = ()
    note: str = ""
    answers: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def to_dict(self, peak: Peak | None) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "what": self.what,
            "batch_size": self.batch_size,
            "entries": [entry.to_dict(peak) for entry in self.entries],
            "disturbance": self.load.to_dict(),
            "noise": None if self.noise is None else self.noise.to_dict(),
            "restless": list(self.restless),
            "note": self.note,
            "answers": {name: list(values) for name, values in self.answers.items()},
        }


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Everything that a benchmark found.

    Attributes:
        subject: The compiled file, and whose code of it ran.
        threads: Of every contestant.
        machine: As :func:`tvmdet.report.machine.describe_machine` returns it.
        versions: Of what took part, by name.
        peak: What the machine can do at most, when it was measured.
        tables: Network and end to end, per batch size.
        setup: What was asked for.
        layers: The profile, when it was asked for.
        accuracy: Of the same file, when it was given.
        prices: Of the machine, when they were given.
        command: What was typed.
        created: When the last timing was done, UTC, ISO 8601.
        remarks: What else makes the figures less trustworthy, in words.
    """

    subject: Subject
    threads: int
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    peak: Peak | None
    tables: tuple[Table, ...]
    setup: Setup
    layers: tuple[LayerTable, ...] = ()
    accuracy: Accuracy | None = None
    prices: Prices | None = None
    command: tuple[str, ...] = ()
    created: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def is_slower(self) -> bool:
        """Whether some rival that answers right is faster beyond doubt."""
        return any(
            entry.comparison is not None and entry.comparison.verdict == "slower"
            for table in self.tables
            for entry in table.entries
        )

    @property
    def failures(self) -> list[str]:
        """Why tvmdet itself was not timed, by table; nothing when all is well."""
        return [
            f"{table.what}, batch {table.batch_size}: {entry.problem}"
            for table in self.tables
            for entry in table.entries
            if entry.name == "tvmdet" and entry.problem
        ]

    @property
    def warnings(self) -> list[str]:
        """What makes the figures less trustworthy."""
        said = list(self.remarks)
        if self.peak is not None and self.peak.disturbed:
            said.append("the machine was never quiet while its peak was measured; it may be higher")
        for table in self.tables:
            where = f"{table.what}, batch {table.batch_size}"
            said += [f"{where}: {finding}" for finding in table.load.findings]
            if table.noise is not None and table.noise.comparison.verdict != "undecided":
                said.append(
                    f"{where}: two copies of tvmdet differ by "
                    f"{abs(table.noise.comparison.ratio - 1):.1%}; the noise is not even"
                )
            staged = ((entry.name, entry.staged_share) for entry in table.entries)
            said += [
                f"{where}: the stages of {name} add up to {share:.1%} of its calls"
                for name, share in staged
                if share is not None and abs(share - 1) > _OUTSIDE_STAGES
            ]
            if table.restless:
                names = ", ".join(table.restless)
                said.append(
                    f"{where}: threads of {names} went on spinning into the next one's turn"
                )
        for profile in self.layers:
            where = f"kernels, batch {profile.batch_size}"
            if abs(profile.explained - 1) > _UNEXPLAINED:
                said.append(
                    f"{where}: with built-in functions they add up to {profile.explained:.0%} of a "
                    "call that nobody watches; trust shares more than milliseconds"
                )
            if abs(profile.watched_s / profile.whole_s - 1) > _COSTLY:
                said.append(
                    f"{where}: a call took {profile.watched_s / profile.whole_s - 1:+.0%} while "
                    "kernels were timed; they are short, or the machine was not quiet"
                )
        return said

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values: a result of the newest schema."""
        return {
            "format": FORMAT,
            "schema": SCHEMA,
            "created": self.created,
            "command": list(self.command),
            "setup": to_json(self.setup),
            **self.subject.to_dict(),
            "threads": self.threads,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "peak": None if self.peak is None else self.peak.to_dict(),
            "tables": [table.to_dict(self.peak) for table in self.tables],
            "layers": [table.to_dict() for table in self.layers],
            "accuracy": to_json(self.accuracy),
            "prices": to_json(self.prices),
            "warnings": self.warnings,
        }
