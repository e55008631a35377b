"""What this machine can do at most, measured: arithmetic, and bytes by where they lie."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmdet.report.environments import environment_variables
from tvmdet.report.machine import CpuClock
from tvmdet.report.typed_json import to_json
from tvmdet.report.worker import Worker
from tvmdet.targets import Target

__all__ = ["Peak", "measure_peak"]

_SERVED = Path(__file__).with_name("serve_peak.py")
_ATTEMPTS = 6
_FOOTPRINTS = tuple(1 << power for power in (17, 19, 21, 23, 25, 28))


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Rates that no kernel on this machine exceeds, with a number of threads.

    Attributes:
        threads: Threads that they were measured with.
        flop_per_s: float32 operations of independent fused multiply-adds in registers.
        bytes_per_s: What is read of an array again and again, by the array's size in bytes.
        disturbed: Whether others used the machine each time that it was measured.
    """

    threads: int
    flop_per_s: float
    bytes_per_s: Mapping[int, float]
    disturbed: bool = False

    def bandwidth(self, footprint: int) -> float:
        """Returns the bytes per second that a kernel with so many bytes may hope for.

        It is the best rate of an array of this size or larger: data that was just written may lie
        in any cache that holds it.
        """
        larger = [rate for size, rate in self.bytes_per_s.items() if size >= footprint]
        return max(larger, default=self.bytes_per_s[max(self.bytes_per_s)])

    def attainable_s(self, flop: float, size: int) -> float:
        """Returns the least seconds for so many operations on so many bytes.

        The roofline of Williams, Waterman and Patterson (CACM 2009): arithmetic and memory at
        their peaks, and the longer of the two counts.
        """
        return max(flop / self.flop_per_s, size / self.bandwidth(size))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, in GFLOP/s and GB/s."""
        return {
            "threads": self.threads,
            "disturbed": self.disturbed,
            "f32_gflops": round(self.flop_per_s / 1e9, 1),
            "read_gb_per_s": {
                str(size): round(rate / 1e9, 1) for size, rate in self.bytes_per_s.items()
            },
        }


def measure_peak(target: Target, threads: int) -> Peak:
    """Measures this machine with the vectors of a target; takes some seconds.

    While others disturb it, it is measured again, a few times, and the best of each rate counts.

    Raises:
        WorkerError: The kernels cannot be compiled or run here.
    """
    python = Path(sys.executable)
    environment = environment_variables(python)
    flop_per_s, rates, disturbed = 0.0, [0.0] * len(_FOOTPRINTS), True
    with Worker(python, _SERVED, threads=threads, environment=environment) as worker:
        for _ in range(_ATTEMPTS):
            clock = CpuClock([worker.pid])
            found = worker.call(
                "measure", target=to_json(target), threads=threads, footprints=_FOOTPRINTS
            )
            disturbed = clock.read().is_high
            flop_per_s = max(flop_per_s, found["f32_flop_per_s"])
            rates = [max(pair) for pair in zip(rates, found["bytes_per_s"], strict=True)]
            if not disturbed:
                break
    return Peak(
        threads=threads,
        flop_per_s=flop_per_s,
        bytes_per_s=dict(zip(_FOOTPRINTS, rates, strict=True)),
        disturbed=disturbed,
    )
