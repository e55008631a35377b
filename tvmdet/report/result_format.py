"""What ``tvmdet bench --json`` writes: one benchmark, with all that is needed to believe it.

A unit is in every name, and nothing is rounded to less than a tenth of a microsecond. Places for
what was not measured hold null and never a zero. Unknown keys are passed over, so that a file may
say more than its reader knows; what changes its meaning makes another schema number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeAlias

from tvmdet.report.typed_json import AtLeast

__all__ = [
    "FORMAT",
    "SCHEMA",
    "Accuracy",
    "AgreementFacts",
    "ArtifactFacts",
    "Contestant",
    "CountedKernel",
    "Emulation",
    "Kernel",
    "Latency",
    "Load",
    "Machine",
    "Member",
    "ModelFacts",
    "Noise",
    "PeakFacts",
    "Prices",
    "Profile",
    "Ratio",
    "Result",
    "ResultTable",
    "Setup",
    "Stage",
    "TargetFacts",
]

FORMAT: Final = "tvmdet benchmark"
"""What the key ``format`` says in every result."""

SCHEMA: Final = 2
"""The schema that this module describes. Results without the key are of schema 1."""

Amount: TypeAlias = Annotated[float, AtLeast(0)]
Count: TypeAlias = Annotated[int, AtLeast(0)]
Verdict: TypeAlias = Literal["faster", "slower", "undecided"]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The network that was compiled.

    Attributes:
        name: As its file was called.
        sha256: Of the ONNX file.
    """

    name: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ArtifactFacts:
    """The compiled file.

    Attributes:
        path: Where it was.
        sha256: Of the whole file; null in results of schema 1.
        bytes: Size of the whole file.
        target_bytes: What the measured target needs of it: its library and all weights.
        family: The kind of detector, or ``raw``.
        batch_sizes: Those that were compiled.
        made_by: Versions of tvmdet and TVM that compiled it.
    """

    path: str
    sha256: str | None = None
    bytes: Count | None = None
    target_bytes: Count | None = None
    family: str = ""
    batch_sizes: tuple[int, ...] = ()
    made_by: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TargetFacts:
    """Whose code ran.

    Attributes:
        name: Of the target.
        arch: As ``platform.machine()`` names it.
        required_features: CPU features that the code needs.
        precision: That the file was compiled in: ``fp32``, ``bf16``.
        bf16_layers: How many convolutions of it do compute in bfloat16.
    """

    name: str
    arch: str = ""
    required_features: tuple[str, ...] = ()
    precision: str = "fp32"
    bf16_layers: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine that was measured on.

    Attributes:
        cpu: Model name.
        arch: As ``platform.machine()`` names it.
        cpus_usable: CPUs that the process may use.
        cpus_online: CPUs that there are.
        features: CPU features that matter to kernels.
        virtual: Whether a hypervisor is below.
        system: Kernel and its release.
        python: Version of the interpreter.
        load_average: Of 1, 5 and 15 minutes before the run.
        memory_bytes: Main memory.
        clock: What the kernel says of clocks: ``governor``, ``min_mhz``, ``max_mhz``, ``boost``;
            what it does not say is left out.
        accelerator: Name, driver, memory and clocks of a GPU that ran the code; null for CPUs.
    """

    cpu: str
    arch: str
    cpus_usable: Count
    cpus_online: Count
    features: tuple[str, ...]
    virtual: bool
    system: str
    python: str = ""
    load_average: tuple[float, ...] = ()
    memory_bytes: Count | None = None
    clock: Mapping[str, Any] = field(default_factory=dict)
    accelerator: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What was asked for, which repeats it.

    Attributes:
        onnx: Path of the ONNX file that rivals were given.
        against: Names of rivals.
        precisions: What rivals might compute in.
        batch_sizes: Rows of one call, one table each.
        picture: Path of the picture of end-to-end calls; null for a drawn one.
        picture_sha256: Of that file.
        rounds: Timed calls of each; null for a time.
        duration_s: Seconds for each table, when ``rounds`` is null.
        warm_up: Rounds that were not counted.
        per_layer: Whether kernels were timed.
        logs: Folder of further tuning records.
        tolerance: Greatest error of a contestant; null for what is usual.
    """

    onnx: str | None = None
    against: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)
    batch_sizes: tuple[int, ...] = (1,)
    picture: str | None = None
    picture_sha256: str | None = None
    rounds: Count | None = None
    duration_s: Amount = 20.0
    warm_up: Count = 3
    per_layer: bool = False
    logs: str | None = None
    tolerance: Amount | None = None


@dataclass(frozen=True, kw_only=True)
class PeakFacts:
    """What the machine can do at most, measured.

    Attributes:
        threads: Threads that it was measured with.
        f32_gflops: float32 operations in registers.
        read_gb_per_s: Reading arrays again and again, by their size in bytes.
        disturbed: Whether others used the machine each time that it was measured.
    """

    threads: Count
    f32_gflops: Amount
    read_gb_per_s: Mapping[str, Amount]
    disturbed: bool = False


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
    median_ms: Amount
    p90_ms: Amount
    p99_ms: Amount
    min_ms: Amount
    mean_ms: Amount
    p95_ms: Amount
    p999_ms: Amount
    max_ms: Amount
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
            four of five cases. Null in results of schema 1.
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
    median_ms: Amount
    rounds_us: tuple[Amount, ...] = ()


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
    rounds_us: tuple[Amount, ...] = ()
    warm_up_us: tuple[Amount, ...] = ()


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
    rounds_us: tuple[Amount, ...] = ()


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
    yardstick_us: tuple[Amount, ...] = ()
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """Contestants that were timed in turn.

    Attributes:
        what: ``network`` (arrays in, arrays out) or ``end to end`` (image file in, boxes out).
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

    what: Literal["network", "end to end"]
    batch_size: Annotated[int, AtLeast(1)]
    entries: tuple[Contestant, ...]
    disturbance: Load
    restless: tuple[str, ...] = ()
    note: str = ""
    noise: Noise | None = None
    answers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel of the network, all its calls together.

    Attributes:
        name: Of the compiled function.
        calls: In one call of the network.
        ms: Of all of them.
        gflops: Operations per second.
        flop: Operations of all of them.
        bytes: Of all their arguments.
        attainable_ms: Least time by the roofline.
        winnable_ms: What tuning could save at the very most.
        anchor: The operator and its shape.
        template: What scheduled it.
        knobs: The decision.
        source: Where that came from: tuned, borrowed, near, predicted, default or
            single.
    """

    name: str
    calls: Count
    ms: Amount
    gflops: Amount | None
    flop: Amount | None
    bytes: Count
    attainable_ms: Amount
    winnable_ms: Amount
    anchor: str = ""
    template: str = ""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of one compiled function goes.

    Attributes:
        batch_size: Rows of one call.
        whole_ms: Of a call that nobody watches; as all here, the mean of the quietest quarter.
        watched_ms: The same while every kernel is timed.
        kernels_ms: All kernels added up.
        built_in_ms: The virtual machine's own functions, such as allocation.
        closure: The kernels' share of the whole.
        layers: Slowest first.
    """

    batch_size: Annotated[int, AtLeast(1)]
    whole_ms: Amount
    watched_ms: Amount
    kernels_ms: Amount
    built_in_ms: Amount
    closure: Amount
    layers: tuple[Kernel, ...]


@dataclass(frozen=True, kw_only=True)
class CountedKernel:
    """What one kernel executes on an emulated CPU, all its calls together.

    Attributes:
        name: Of the compiled function.
        calls: In one call of the network.
        instructions: Executed, by class: ``all``, ``fma_f32``, ``loads`` and others.
        l1_misses: Lines that were not in the simulated first cache.
        l2_misses: Those of them that were not in the second either.
        predicted_cycles: By the static model and the misses; null where there is no model.
        least_cycles: Those that its operations need at the core's peak rate; null where the file
            does not say how many they are.
        flop: Operations, as the kernel does them.
        anchor: The operator and its shape.
        template: What scheduled it.
        knobs: The decision.
        source: Where that came from: tuned, borrowed, near, predicted, default or single.
    """

    name: str
    calls: Count
    instructions: Mapping[str, Count]
    l1_misses: Count
    l2_misses: Count
    predicted_cycles: Amount | None
    least_cycles: Amount | None
    flop: Count | None
    anchor: str = ""
    template: str = ""
    knobs: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Emulation:
    """What an emulated CPU counts. It is no latency, and none can be had from it.

    Attributes:
        emulator: With its version.
        model: The CPU whose cycles are predicted, such as ``cortex-a76``.
        batch_size: Rows of one call.
        instructions: Executed in one call.
        predicted_cycles: By the static model of the CPU's pipelines; null where there is none.
        how: How both were found.
        kernels: The same by kernel, the most cycles first; empty where they were not told apart.
    """

    emulator: str
    model: str
    batch_size: Annotated[int, AtLeast(1)]
    instructions: Count
    predicted_cycles: Amount | None = None
    how: str = ""
    kernels: tuple[CountedKernel, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Member:
    """One target that the compiled file holds, and whether it was run.

    Attributes:
        target: Its name.
        arch: As ``platform.machine()`` names it.
        state: ``measured`` is the one that the tables are of. ``emulated`` has instruction counts
            and never a latency. ``not run`` has nothing.
        reason: Why it was not measured.
        bytes: Of its library.
        emulation: Counts of an emulated run; null unless ``state`` is ``emulated``.
    """

    target: str
    arch: str
    state: Literal["measured", "emulated", "not run"]
    reason: str = ""
    bytes: Count | None = None
    emulation: tuple[Emulation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What ``tvmdet eval --json`` found of the same file.

    Attributes:
        file: The evaluation's own file.
        images: Pictures that were looked at.
        ap: COCO's average precision of boxes, IoU 0.50 to 0.95, 0 to 1.
        ap50: At IoU 0.50.
        mask_ap: Of masks; null where there are none.
        reference_ap: Of boxes, in ONNX Runtime on the same pictures.
        target: Whose code was evaluated.
    """

    file: str
    images: Count
    ap: Amount | None
    ap50: Amount | None = None
    mask_ap: Amount | None = None
    reference_ap: Amount | None = None
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What the user says the machine costs.

    Attributes:
        per_hour: Of the whole machine, however many of its CPUs were used.
        currency: As the user wrote it.
    """

    per_hour: Amount
    currency: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark of one compiled file's code for one target on one machine.

    Attributes:
        format: Always ``tvmdet benchmark``.
        schema: Number of this schema.
        created: When it was done, UTC, ISO 8601; empty in results of schema 1.
        command: What was typed.
        setup: What was asked for; null in results of schema 1, which cannot be repeated.
        artifact: The compiled file.
        model: What it was compiled from.
        target: Whose code ran.
        threads: Of every contestant.
        machine: What it ran on.
        versions: Of what took part, by name.
        peak: What the machine can do at most; null when it was not measured.
        tables: Network and end to end, by batch size.
        layers: Profiles of kernels, when they were asked for.
        members: All targets that the file holds.
        parity: The file's certificate: how the code compares with ONNX Runtime.
        accuracy: On annotated pictures, when it was given.
        prices: When they were given.
        warnings: What makes the figures less trustworthy.
    """

    format: Literal["tvmdet benchmark"]
    schema: Literal[2]
    created: str
    command: tuple[str, ...]
    setup: Setup | None
    artifact: ArtifactFacts
    model: ModelFacts
    target: TargetFacts
    threads: Annotated[int, AtLeast(1)]
    machine: Machine
    versions: Mapping[str, str]
    peak: PeakFacts | None
    tables: tuple[ResultTable, ...]
    layers: tuple[Profile, ...] = ()
    members: tuple[Member, ...] = ()
    parity: Mapping[str, Any] | None = None
    accuracy: Accuracy | None = None
    prices: Prices | None = None
    warnings: tuple[str, ...] = ()
