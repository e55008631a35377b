"""Results for tests of reports: drawn from a seed, and labelled as what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tvmdet.report.result_file import dump_result
from tvmdet.report.result_format import FORMAT, SCHEMA, Result
from tvmdet.report.result_kernels import Emulation, Kernel, Member, Profile
from tvmdet.report.result_subject import (
    Accuracy,
    ArtifactFacts,
    Machine,
    ModelFacts,
    PeakFacts,
    TargetFacts,
)
from tvmdet.report.result_tables import (
    AgreementFacts,
    Contestant,
    Latency,
    Load,
    Noise,
    Ratio,
    ResultTable,
    Stage,
)
from tvmdet.report.statistics import compare, summarise
from tvmdet.report.typed_json import to_json

SYNTHETIC = "synthetic: made by a test, nothing was measured"
RIVALS = ("onnxruntime", "openvino", "ncnn")

_STAGES = {"decode": 0.12, "resize": 0.05, "network": 0.8, "map": 0.03}
_RATES = {str(1 << power): 900.0 / power for power in (17, 19, 21, 23, 25, 28)}


def made_result(
    *,
    model: str = "made_detector",
    target: str = "x86-64-v4",
    precision: str = "fp32",
    batches: Sequence[int] = (1, 4),
    rivals: Sequence[str] = RIVALS,
    rounds: int = 60,
    median_ms: float = 20.0,
    noise: float = 0.02,
    seed: int = 0,
    cpu: str = "Synthetic CPU 9000",
    accuracy: float | None = 0.41,
    layers: bool = True,
    members: Sequence[Member] = (),
    warnings: Sequence[str] = (),
) -> Result:
    """Returns a result whose latencies have a tail and some outliers."""
    rng = np.random.default_rng(seed)
    tables = [
        _table("network", batch, median_ms, rivals, precision, rounds, noise, rng)
        for batch in batches
    ]
    tables.append(_table("end to end", 1, median_ms * 1.25, rivals, precision, rounds, noise, rng))
    own = Member(target=target, arch="x86_64", state="measured", bytes=3_200_000)
    return Result(
        format=FORMAT,
        schema=SCHEMA,
        created="2026-01-02T03:04:05Z",
        command=("tvmdet", "bench", f"{model}.tvmdet", "--json", f"{target}.json"),
        setup=None,
        artifact=ArtifactFacts(
            path=f"{model}.tvmdet", sha256="ab" * 32, bytes=9_000_000, target_bytes=6_100_000
        ),
        model=ModelFacts(name=model, sha256=f"{sum(model.encode()):064x}"),
        target=TargetFacts(name=target, arch="x86_64", precision=precision),
        threads=2,
        machine=Machine(
            cpu=cpu,
            arch="x86_64",
            cpus_usable=2,
            cpus_online=2,
            features=("avx2", "fma"),
            virtual=True,
            system=SYNTHETIC,
            load_average=(0.5, 0.4, 0.3),
            memory_bytes=24 << 30,
        ),
        versions={"tvmdet": "0.1.0", "note": SYNTHETIC},
        peak=PeakFacts(threads=2, f32_gflops=229.0, read_gb_per_s=_RATES),
        tables=tuple(tables),
        layers=tuple(_profile(batch, median_ms, rng) for batch in batches[:1]) if layers else (),
        members=(own, *members),
        parity={"boxes": 31, "worst_iou": 0.9998, "batch_sizes": list(batches)},
        accuracy=None
        if accuracy is None
        else Accuracy(file="eval.json", images=500, ap=accuracy, target=target),
        warnings=tuple(warnings),
    )


def emulated(target: str = "aarch64-neon", instructions: int = 812_000_000) -> Member:
    """Returns a target of the file that was counted under emulation."""
    counts = Emulation(
        emulator="qemu 7.2",
        model="cortex-a76",
        batch_size=1,
        instructions=instructions,
        predicted_cycles=instructions / 2.1,
    )
    return Member(
        target=target, arch="aarch64", state="emulated", bytes=2_000_000, emulation=(counts,)
    )


def never_run(target: str = "cuda-sm90") -> Member:
    """Returns a target of the file that nobody ran."""
    return Member(target=target, arch="", state="not run", reason="never run here: it needs CUDA")


def slowed(result: Result, factor: float, seed: int = 77) -> Result:
    """Returns a result whose tvmdet rows are slower by a factor, with noise of its own."""
    rng = np.random.default_rng(seed)
    tables = []
    for table in result.tables:
        entries = [
            _timed_again(entry, factor if entry.name == "tvmdet" else 1.0, rng)
            for entry in table.entries
        ]
        ours = np.asarray(entries[0].rounds_us)
        entries[1:] = [
            replace(entry, tvmdet_over_this=_ratio(ours, np.asarray(entry.rounds_us)))
            if entry.rounds_us
            else entry
            for entry in entries[1:]
        ]
        tables.append(replace(table, entries=tuple(entries)))
    return replace(result, tables=tuple(tables), created="2026-02-03T04:05:06Z")


def written(result: Result, path: Path, **changed: Any) -> Path:
    """Writes a result, with some of its keys changed, and returns the path."""
    values: dict[str, Any] = {**to_json(result), **changed}
    path.write_text(dump_result(values), encoding="utf-8")
    return path


def _timed_again(entry: Contestant, factor: float, rng: np.random.Generator) -> Contestant:
    if not entry.rounds_us:
        return entry
    rounds = np.asarray(entry.rounds_us) * factor * rng.normal(1.0, 0.004, len(entry.rounds_us))
    return replace(
        entry,
        rounds_us=tuple(float(one) for one in np.round(rounds, 1)),
        latency=_latency(rounds),
    )


def _latency(rounds_us: np.ndarray[Any, Any]) -> Latency:
    values: Mapping[str, Any] = summarise(rounds_us * 1e-6).to_dict()
    known = {field: values[field] for field in Latency.__dataclass_fields__ if field in values}
    return Latency(**known)


def _table(
    what: Any,
    batch: int,
    median_ms: float,
    rivals: Sequence[str],
    precision: str,
    rounds: int,
    noise: float,
    rng: np.random.Generator,
) -> ResultTable:
    base = median_ms * batch**0.93
    ours = _rounds(base, rounds, noise, rng)
    entries = [_entry("tvmdet", precision, ours, None, what)]
    for index, name in enumerate(rivals):
        theirs = _rounds(base * (1.0 + 0.35 * index), rounds, noise, rng)
        entries.append(_entry(name, "fp32", theirs, ours, what))
    entries.append(
        Contestant(name="broken", precision="fp32", problem="failed: it has no such operator")
    )
    again = _rounds(base, rounds, noise, rng)
    return ResultTable(
        what=what,
        batch_size=batch,
        entries=tuple(entries),
        disturbance=Load(others_cpus=0.01, stolen_cpus=0.0),
        noise=Noise(
            ratio=1.001,
            interval_95=(0.995, 1.006),
            verdict="undecided",
            floor=0.01,
            rounds_us=tuple(float(one) for one in again),
        ),
    )


def _rounds(
    median_ms: float, count: int, noise: float, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    tail = 1.0 + noise * rng.gamma(2.0, 1.0, count)
    outliers = np.where(rng.random(count) < 0.015, rng.uniform(1.3, 2.5, count), 1.0)
    return np.round(median_ms * 1e3 * tail * outliers, 1)


def _ratio(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> Ratio:
    # Of the first calls: these are no tests of the bootstrap, which takes its time.
    found = compare(ours[:40] * 1e-6, theirs[:40] * 1e-6)
    ratio = float(np.exp(np.median(np.log(ours) - np.log(theirs))))
    low, high = (end * ratio / found.ratio for end in (found.low, found.high))
    return Ratio(
        ratio=ratio,
        interval_95=(low, high),
        verdict="faster" if high < 0.99 else "slower" if low > 1.01 else "undecided",
        noise_floor=found.noise_floor,
        could_see=found.could_see,
    )


def _entry(
    name: str,
    precision: str,
    rounds: np.ndarray[Any, Any],
    ours: np.ndarray[Any, Any] | None,
    what: str,
) -> Contestant:
    ratio = None if ours is None else _ratio(ours, rounds)
    median_ms = float(np.median(rounds)) / 1e3
    stages = [Stage(name=key, median_ms=share * median_ms) for key, share in _STAGES.items()]
    agreement = AgreementFacts(ok=True, worst_relative=3.1e-6, output="boxes", tolerance=1e-3)
    return Contestant(
        name=name,
        precision=precision,
        version="1.2.3",
        latency=_latency(rounds),
        tvmdet_over_this=ratio,
        agreement=agreement,
        memory_peak_bytes=101_000_000,
        stages=tuple(stages) if what == "end to end" else (),
        rounds_us=tuple(float(one) for one in rounds),
    )


def _profile(batch: int, whole_ms: float, rng: np.random.Generator) -> Profile:
    shares = np.sort(rng.dirichlet(np.full(24, 0.6)))[::-1] * 0.97
    layers = []
    for index, share in enumerate(shares):
        ms = max(float(share) * whole_ms, 1e-4)
        rate = float(rng.uniform(30.0, 220.0))
        flop = int(rate * ms * 1e6) or 1
        size = max(int(flop / rng.uniform(2.0, 120.0)), 1)
        attainable = max(flop / 229e6, 1e-6)
        layers.append(
            Kernel(
                name=f"fused_conv2d_{index}",
                calls=1 + index % 3,
                ms=ms,
                gflops=rate,
                flop=flop,
                bytes=size,
                attainable_ms=attainable,
                winnable_ms=max(ms - attainable, 0.0),
                anchor=f"conv2d 1x{80 >> index % 4}x{80 >> index % 4}x{16 << index % 4}, 3x3",
                template="conv2d_nhwc",
                source=("tuned", "borrowed", "default")[index % 3],
            )
        )
    kernels = sum(layer.ms for layer in layers)
    return Profile(
        batch_size=batch,
        whole_ms=whole_ms,
        watched_ms=whole_ms * 1.02,
        kernels_ms=kernels,
        built_in_ms=0.1,
        closure=kernels / whole_ms,
        layers=tuple(layers),
    )
