"""The nouns of a comparison: what one contestant took in one place, and where its time went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tvmdet.report.contest import OURS
from tvmdet.report.result_format import Result
from tvmdet.report.result_kernels import Emulation, Kernel, Profile
from tvmdet.report.result_subject import PeakFacts
from tvmdet.report.result_tables import Ratio, ResultTable

__all__ = ["PERCENTILES", "Floats", "Place", "Profiled", "Run", "Source", "intensity", "ratio_text"]

Floats = npt.NDArray[np.float64]

PERCENTILES: Mapping[str, float] = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p99.9": 99.9}
"""Of latencies, by what they are called."""


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """Whose code ran, and where.

    Attributes:
        target: Of the compiled file.
        machine: The hardware in few words; empty for code that nobody ran on hardware.
        threads: Of every contestant.
    """

    target: str
    machine: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """One result, and the file that it came from."""

    file: str
    result: Result

    @property
    def model_key(self) -> str:
        """What is equal where two results are of one model: the ONNX file's digest, if known."""
        return self.result.model.sha256 or self.result.model.name


@dataclass(frozen=True, kw_only=True)
class Run:
    """One contestant in one table of one result: a row of the matrix.

    Attributes:
        file: Of the result.
        place: Whose code tvmdet ran, and where; a rival's row has that of the table.
        what: ``network`` (arrays in, arrays out) or ``end to end`` (image file in, boxes out).
        batch_size: Rows of one call.
        runtime: ``tvmdet`` or a rival.
        precision: What it computed in.
        beside: What tvmdet computed in, in the same table.
        version: Of the runtime.
        latencies_ms: Of every timed call, in their order; empty where nothing was timed.
        stages_ms: Median of each part of a call, in their order.
        over_rival: tvmdet's time over this one's; None for tvmdet itself.
        noise_floor: Share of the time below which its table calls no difference; None where it
            was not measured.
        is_right: Whether the outputs are those of ONNX Runtime; None where nobody compared.
        parity: The same in words.
        size_bytes: Of code and weights in the compiled file; None for rivals.
        memory_bytes: Most resident memory of the process.
        accuracy: COCO's AP of boxes, 0 to 1.
        price_per_hour: Of the machine, as its result says; None where nobody said.
        currency: Of that price, as its result says.
        emulation: What stands in place of latencies where code was emulated.
        problem: Why there is no figure; empty where there is one.
        table: Where it was timed, with all that was timed beside it; None where nothing was.
        entry_name: What the table calls it.
        picture: Digest of the picture that was decoded; empty for arrays, and for a drawn one.
    """

    file: str
    place: Place
    what: str
    batch_size: int
    runtime: str
    precision: str
    beside: str = ""
    version: str = ""
    latencies_ms: Floats = field(default_factory=lambda: np.zeros(0))
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    over_rival: Ratio | None = None
    noise_floor: float | None = None
    is_right: bool | None = None
    parity: str = ""
    size_bytes: int | None = None
    memory_bytes: int | None = None
    accuracy: float | None = None
    price_per_hour: float | None = None
    currency: str = ""
    emulation: Emulation | None = None
    problem: str = ""
    table: ResultTable | None = None
    entry_name: str = ""
    picture: str = ""

    @property
    def is_timed(self) -> bool:
        """Whether there are latencies."""
        return self.latencies_ms.size > 0

    @property
    def findings(self) -> tuple[str, ...]:
        """What makes its figures less trustworthy."""
        return () if self.table is None else self.table.disturbance.findings

    @property
    def is_ours(self) -> bool:
        """Whether tvmdet ran, not a rival."""
        return self.runtime == OURS

    @property
    def state(self) -> Literal["measured", "emulated", "not measured"]:
        """Where the figures come from."""
        if self.is_timed:
            return "measured"
        return "emulated" if self.emulation is not None else "not measured"

    @property
    def side(self) -> str:
        """Runtime and precision, as legends name them."""
        return f"{self.runtime} {self.precision}"

    @property
    def key(self) -> tuple[object, ...]:
        """What is equal where two runs of one model measured the same thing."""
        return (
            *(self.place, self.what, self.batch_size, self.runtime, self.precision),
            *(self.beside, self.picture),
        )

    @cached_property
    def percentiles_ms(self) -> Mapping[str, float]:
        """Percentiles of the latencies, interpolated linearly; empty without latencies."""
        if not self.is_timed:
            return {}
        found = np.percentile(self.latencies_ms, tuple(PERCENTILES.values()))
        return dict(zip(PERCENTILES, (float(value) for value in found), strict=True))

    @property
    def median_ms(self) -> float | None:
        """Half of the calls were faster."""
        return self.percentiles_ms.get("p50")

    @property
    def images_per_s(self) -> float | None:
        """Images that calls one after the other get through in a second, at the median."""
        median = self.median_ms
        return None if median is None else self.batch_size / median * 1e3

    def is_sparse(self, percentile: str) -> bool:
        """Whether so few calls were timed that this percentile is about the slowest of them."""
        # 100 - 99.9 is less than 0.1 in binary.
        left = round(100.0 - PERCENTILES[percentile], 6)
        return self.latencies_ms.size * left < 100.0

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, without the latencies, which the results hold."""
        emulated = self.emulation
        return {
            "file": self.file,
            "target": self.place.target,
            "machine": self.place.machine,
            "threads": self.place.threads,
            "what": self.what,
            "batch_size": self.batch_size,
            "runtime": self.runtime,
            "precision": self.precision,
            "tvmdet_precision": self.beside,
            "version": self.version,
            "state": self.state,
            "calls": int(self.latencies_ms.size),
            "latency_ms": {name: round(ms, 6) for name, ms in self.percentiles_ms.items()},
            "images_per_s": _rounded(self.images_per_s, 3),
            "is_right": self.is_right,
            "parity": self.parity,
            "size_bytes": self.size_bytes,
            "memory_bytes": self.memory_bytes,
            "accuracy": self.accuracy,
            "instructions": None if emulated is None else emulated.instructions,
            "predicted_cycles": None if emulated is None else emulated.predicted_cycles,
            "predicted_for": None if emulated is None else emulated.model,
            "problem": self.problem,
            "findings": list(self.findings),
        }


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """The kernels of a network in one place.

    Attributes:
        file: Of the result.
        place: Whose code ran, and where.
        precision: What the file was compiled in.
        peak: What the machine can do at most.
        profile: The kernels, slowest first.
    """

    file: str
    place: Place
    precision: str
    peak: PeakFacts
    profile: Profile

    @property
    def winnable_ms(self) -> float:
        """What tuning all kernels could save at the very most."""
        return sum(kernel.winnable_ms for kernel in self.profile.layers)


def intensity(kernel: Kernel) -> float | None:
    """Returns a kernel's operations per byte of its arguments; None where they are not known."""
    if kernel.flop is None or kernel.flop < 1 or not kernel.bytes:
        return None
    return kernel.flop / kernel.bytes


def ratio_text(ratio: Ratio) -> str:
    """Returns ``0.68 [0.53, 0.77]``."""
    low, high = ratio.interval_95
    return f"{ratio.ratio:.2f} [{low:.2f}, {high:.2f}]"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
