"""Parts of a result: tables of contestants that were timed in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tvmdet.report.result_quantities import Amount, Count, Duration, Positive, Verdict

__all__ = [
    "AgreementFacts",
    "Contestant",
    "Latency",
    "Load",
    "Noise",
    "Ratio",
    "ResultTable",
    "Stage",
]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Percentiles of the timed calls of one contestant, interpolated linearly.

    Attributes:
        count: Timed calls.
        median_ms: Half were faster.
        p90_ms: Nine of ten were faster.
        p95_ms: 95 of 100 were faster.
        p99_ms: 99 of 100 were faster; of fewer than 100 calls nearly the slowest.
        p999_ms: 999 of 1000 were faster; of fewer than 1000 calls nearly the slowest.
        min_ms: The fastest.
        max_ms: The slowest.
        mean_ms: The arithmetic mean.
        outliers: Calls that were slower than three interquartile ranges above the third quartile
            (Tukey's far out). They are kept in every figure.
    """

    count: Count
    median_ms: Duration
    p90_ms: Duration
    p99_ms: Duration
    min_ms: Duration
    mean_ms: Duration
    p95_ms: Duration
    p999_ms: Duration
    max_ms: Duration
    outliers: Count = 0


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """tvmdet's time over another's, from rounds in which both were timed.

    Attributes:
        ratio: Under 1 tvmdet is faster.
        interval_95: Between what it lies with 95 % confidence.
        verdict: Of tvmdet. ``undecided`` unless the whole interval is off 1 by more than the
            noise floor.
        noise_floor: Share of the time that is noise: no smaller difference is called. Null in
            results of schema 1, which had none.
        could_see: Smallest difference, as a share of the time, that this run would have called in
            four of five cases. Null where that is not known, as in results of schema 1.
    """

    ratio: Amount
    interval_95: tuple[float, float]
    verdict: Verdict
    noise_floor: Amount | None = None
    could_see: Amount | None = None


@dataclass(frozen=True, kw_only=True)
class AgreementFacts:
    """How a contestant's answers relate to the reference.

    Attributes:
        ok: Whether they are right.
        worst_relative: Greatest error, relative to the greatest value; null where not finite.
        output: What it is in.
        tolerance: What was allowed.
        off_share: Share of the values that are off by more.
        spared_share: Share that may be.
        reason: In words, when the number says too little.
    """

    ok: bool
    worst_relative: float | None
    output: str
    tolerance: float
    off_share: float = 0.0
    spared_share: float = 0.0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of the calls of one contestant.

    Attributes:
        name: ``decode``, ``resize``, ``queue``, ``network`` or ``map`` (post-processing).
        median_ms: Half were faster.
        rounds_us: Of every timed call, in the order of ``Contestant.rounds_us``; empty in results
            of schema 1.
    """

    name: str
    median_ms: Duration
    rounds_us: tuple[Duration, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One runtime in one table.

    Attributes:
        name: The runtime with its mode; ``tvmdet`` is the compiled file.
        precision: What it computed in.
        version: Of the runtime; empty when it could not be loaded.
        settings: How it was set up.
        latency: Of the timed calls; null when it was not timed.
        tvmdet_over_this: How tvmdet compares; null for tvmdet itself and what was not timed.
        agreement: Of its answers with the reference; null where there was none.
        gflops: The ONNX file's operations per second at the median.
        share_of_f32_peak: The same over the machine's measured peak.
        memory_peak_bytes: Most resident memory of its process, from its start to after the last
            call, the interpreter included.
        stages: Of end-to-end calls, in the order in which they happen.
        problem: Why it is not ranked; empty when it is.
        rounds_us: Microseconds of every timed call, outliers included, in the order of the rounds.
        warm_up_us: Of the calls before them, which are in no figure; empty in results of schema 1.
    """

    name: str
    precision: str
    version: str = ""
    settings: str = ""
    latency: Latency | None = None
    tvmdet_over_this: Ratio | None = None
    agreement: AgreementFacts | None = None
    gflops: Amount | None = None
    share_of_f32_peak: Amount | None = None
    memory_peak_bytes: Count | None = None
    stages: tuple[Stage, ...] = ()
    problem: str = ""
    rounds_us: tuple[Duration, ...] = ()
    warm_up_us: tuple[Duration, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What two copies of tvmdet, timed in the same rounds, differ by: an A/A comparison.

    Attributes:
        ratio: The second copy's time over the first one's.
        interval_95: Between what it lies with 95 % confidence.
        verdict: ``undecided`` when the comparison is sound.
        floor: Share of the time below which no difference is called in this table.
        rounds_us: Of the second copy, in the order of the rounds.
    """

    ratio: Amount
    interval_95: tuple[float, float]
    verdict: Verdict
    floor: Amount
    rounds_us: tuple[Duration, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Load:
    """What else the machine did while a table was measured.

    Attributes:
        others_cpus: CPUs' worth of work of other processes.
        stolen_cpus: CPUs' worth of time that the hypervisor gave to other guests.
        waiting_share: Share of the time that some runnable thread waited for a CPU (PSI).
        involuntary_switches: How often contestants gave a CPU to another thread, by yielding too.
        throttled_s: Seconds that the contestants' cgroup was stopped by its CPU quota.
        thermal_events: How often the CPUs slowed down for heat, as the kernel counts.
        clock_mhz: Least, median and greatest clock of the CPUs seen meanwhile; null where the
            kernel does not say.
        yardstick_us: Microseconds of a fixed piece of arithmetic that was timed in every round.
            It shows how fast the machine itself was; empty where it was not timed.
        findings: What of this makes the figures less trustworthy, in words.
    """

    others_cpus: Amount
    stolen_cpus: Amount
    waiting_share: Amount | None = None
    involuntary_switches: Count | None = None
    throttled_s: Amount | None = None
    thermal_events: Count | None = None
    clock_mhz: tuple[float, float, float] | None = None
    yardstick_us: tuple[Duration, ...] = ()
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """Contestants that were timed in turn.

    Attributes:
        what: ``network`` (arrays in, arrays out), ``end to end`` (image file in, boxes out), or
            ``array to boxes`` (resized pixels in, boxes out: what is compiled of a detector).
        batch_size: Rows of one call.
        entries: tvmdet first.
        disturbance: What else the machine did meanwhile.
        restless: Contestants whose threads spun into the next one's turn.
        note: What a reader must know of this table.
        noise: The A/A comparison; null in results of schema 1.
        answers: What tvmdet answered, for a repetition to compare: ``boxes_xyxy`` (four for each
            box), ``scores`` and ``class_ids`` in the picture, or evenly spaced values of each of
            the network's outputs on seeded random inputs. Empty in results of schema 1.
    """

    what: Literal["network", "end to end", "array to boxes"]
    batch_size: Positive
    entries: tuple[Contestant, ...]
    disturbance: Load
    restless: tuple[str, ...] = ()
    note: str = ""
    noise: Noise | None = None
    answers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
