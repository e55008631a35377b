"""What else a machine did while it was measured, and whether it kept its speed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tvmdet.counted import counted
from tvmdet.cpus import listed
from tvmdet.report.machine import CpuClock, Files, LocalFiles
from tvmdet.report.yardstick import Yardstick

__all__ = ["LoadFound", "LoadWatch"]

_BUSY_CPUS = 0.1
_WAITING_SHARE = 0.1
_SLOWER = 1.1
_UNEVEN = 1.25
_FEWEST_SAMPLES = 6

_CPUS: Final = "/sys/devices/system/cpu"
_CGROUP: Final = "/sys/fs/cgroup"


@dataclass(frozen=True, kw_only=True)
class LoadFound:
    """What a machine did during one table; None is what its kernel does not tell.

    Attributes:
        others_cpus: CPUs' worth of work that other processes did on average.
        stolen_cpus: CPUs' worth of time that the hypervisor gave to other guests.
        waiting_share: Share of the time in which some runnable thread had no CPU.
        involuntary_switches: How often threads of contestants and of this process gave a CPU to
            another thread; Linux counts those that did so themselves (``sched_yield``), as the idle
            threads of pools do all the time. No disturbance by itself.
        throttled_s: Seconds that a CPU quota stopped this process's cgroup.
        thermal_events: How often CPUs slowed down for heat.
        clock_mhz: Least, median and greatest clock seen.
        yardstick_s: Seconds of :class:`tvmdet.report.yardstick.Yardstick`, one a round, or of
            what a board has in its place; empty where it has nothing.
    """

    others_cpus: float
    stolen_cpus: float
    waiting_share: float | None = None
    involuntary_switches: int | None = None
    throttled_s: float | None = None
    thermal_events: int | None = None
    clock_mhz: tuple[float, float, float] | None = None
    yardstick_s: Sequence[float] = ()

    @property
    def findings(self) -> tuple[str, ...]:
        """What makes the figures less trustworthy, in words."""
        return (*self._of_others(), *self._of_speed())

    def _of_others(self) -> Iterable[str]:
        if self.others_cpus > _BUSY_CPUS:
            yield f"busy: other processes used {self.others_cpus:.2f} CPUs"
        if self.stolen_cpus > _BUSY_CPUS:
            yield f"busy: the hypervisor gave {self.stolen_cpus:.2f} CPUs to other guests"
        if (self.waiting_share or 0.0) > _WAITING_SHARE:
            yield f"busy: threads waited for a CPU {self.waiting_share:.0%} of the time"

    def _of_speed(self) -> Iterable[str]:
        if self.throttled_s:
            yield f"throttled: the CPU quota stopped the processes for {self.throttled_s:.2f} s"
        if self.thermal_events:
            yield f"throttled: the CPUs slowed down for heat {counted(self.thermal_events, 'time')}"
        if self.clock_mhz is not None and self.clock_mhz[2] > _UNEVEN * self.clock_mhz[0] > 0:
            low, _, high = self.clock_mhz
            yield f"uneven: clocks were between {low:.0f} and {high:.0f} MHz"
        if len(self.yardstick_s) < _FEWEST_SAMPLES:
            return
        third = len(self.yardstick_s) // 3
        change = np.median(self.yardstick_s[-third:]) / np.median(self.yardstick_s[:third])
        if change > _SLOWER:
            yield f"throttled: fixed work took {change - 1:.0%} longer at the end than at the start"
        low, high = np.percentile(self.yardstick_s, (10, 90))
        if high > _UNEVEN * low:
            yield f"uneven: fixed work took up to {high / low - 1:.0%} longer in some rounds"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "others_cpus": self.others_cpus,
            "stolen_cpus": self.stolen_cpus,
            "waiting_share": self.waiting_share,
            "involuntary_switches": self.involuntary_switches,
            "throttled_s": self.throttled_s,
            "thermal_events": self.thermal_events,
            "clock_mhz": None if self.clock_mhz is None else list(self.clock_mhz),
            "yardstick_us": [round(value * 1e6, 1) for value in self.yardstick_s],
            "findings": list(self.findings),
        }


class LoadWatch:
    """Watches a machine from its making to :meth:`read`."""

    def __init__(
        self,
        processes: Iterable[int],
        files: Files | None = None,
        yardstick: Callable[[], float] | None = None,
    ) -> None:
        """Starts.

        Args:
            processes: Work of these is no disturbance.
            files: Of the machine; None for this one, whose present process is none either.
            yardstick: Seconds of a fixed piece of work there; None for ours, on this machine, and
                for none on another one.
        """
        self._processes = list(processes)
        self._clock = CpuClock(self._processes, files)
        if files is None:
            self._processes.append(os.getpid())
        self._files = files or LocalFiles()
        self._yardstick = Yardstick().time if yardstick is None and files is None else yardstick
        self._yardstick_s: list[float] = []
        self._mhz: list[float] = []
        self._cpus = listed(self._files.text(f"{_CPUS}/present"))
        self._start = time.monotonic()
        self._before = self._counters()

    def sample(self) -> None:
        """Looks at the clock and times the yardstick; to be called while contestants sleep."""
        if self._yardstick is not None:
            self._yardstick_s.append(self._yardstick())
        khz = self._of_cpus("cpufreq/scaling_cur_freq")
        self._mhz += [value / 1e3 for value in khz]

    def read(self) -> LoadFound:
        """Returns what happened since."""
        found, after = self._clock.read(), self._counters()
        gone = {
            name: max(value - self._before[name], 0.0)
            for name, value in after.items()
            if name in self._before
        }
        elapsed = max(time.monotonic() - self._start, 1e-6)
        waited, switched = gone.get("waited_s"), gone.get("switches")
        throttled, thermal = gone.get("throttled_s"), gone.get("thermal")
        return LoadFound(
            others_cpus=found.others_cpus,
            stolen_cpus=found.stolen_cpus,
            waiting_share=None if waited is None else round(min(waited / elapsed, 1.0), 4),
            involuntary_switches=None if switched is None else int(switched),
            throttled_s=None if throttled is None else round(throttled, 3),
            thermal_events=None if thermal is None else int(thermal),
            clock_mhz=self._clocks(),
            yardstick_s=tuple(self._yardstick_s),
        )

    def _clocks(self) -> tuple[float, float, float] | None:
        if not self._mhz:
            return None
        low, middle, high = (float(value) for value in np.percentile(self._mhz, (0, 50, 100)))
        return low, middle, high

    def _counters(self) -> Mapping[str, float]:
        """Returns counters that only grow; those that the kernel does not have are missing."""
        found: dict[str, float] = {}
        for line in self._files.text("/proc/pressure/cpu").splitlines():
            kind, *words = line.split()
            if kind == "some" and words and words[-1].startswith("total="):
                found["waited_s"] = int(words[-1].removeprefix("total=")) / 1e6
        if switches := self._switches():
            found["switches"] = switches
        throttled_s = self._throttled_s()
        if throttled_s is not None:
            found["throttled_s"] = throttled_s
        heat = [
            value
            for name in ("core", "package")
            for value in self._of_cpus(f"thermal_throttle/{name}_throttle_count")
        ]
        if heat:
            found["thermal"] = sum(heat)
        return found

    def _of_cpus(self, name: str) -> list[int]:
        """Returns a number that the kernel keeps for each CPU; nothing of those without it."""
        said = (self._files.text(f"{_CPUS}/cpu{cpu}/{name}").strip() for cpu in self._cpus)
        return [int(value) for value in said if value.isdecimal()]

    def _switches(self) -> int:
        """Returns involuntary context switches of all threads of the processes."""
        total = 0
        for process in self._processes:
            for thread in self._files.threads(process):
                status = self._files.text(f"/proc/{process}/task/{thread}/status")
                for line in status.splitlines():
                    name, _, value = line.partition(":")
                    if name == "nonvoluntary_ctxt_switches":
                        total += int(value)
        return total

    def _throttled_s(self) -> float | None:
        """Returns how long a CPU quota has stopped the process's cgroup; None where nobody says."""
        for line in self._files.text("/proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2
                mount, name, per_s = _CGROUP, "throttled_usec", 1e6
            elif "cpu" in controllers.split(","):  # version 1
                mount, name, per_s = f"{_CGROUP}/{controllers}", "throttled_time", 1e9
            else:
                continue
            # In a container of version 1 the path is the host's, and the root is our own.
            for folder in (path.rstrip("/"), ""):
                found = self._stat(f"{mount}{folder}", name)
                if found is not None:
                    return found / per_s
        return None

    def _stat(self, folder: str, name: str) -> int | None:
        """Returns a number of a cgroup's ``cpu.stat``."""
        for line in self._files.text(f"{folder}/cpu.stat").splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
        return None
