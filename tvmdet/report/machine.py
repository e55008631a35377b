"""The machine that was measured on, and how busy others kept it meanwhile."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import tvmdet
from tvmdet.cpus import cpu_model, usable_cpu_count
from tvmdet.gpus import Gpu, GpuNeeds
from tvmdet.targets import host_features

__all__ = [
    "CpuClock",
    "TOLD_FEATURES",
    "Disturbance",
    "Files",
    "LocalFiles",
    "describe_accelerator",
    "describe_clock",
    "describe_machine",
    "describe_versions",
    "read_text",
]

_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "numpy", "opencv-python-headless", "onnxruntime")
_CPUFREQ = "/sys/devices/system/cpu/cpu0/cpufreq"

TOLD_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
)


class Files(Protocol):
    """What a kernel tells in ``/proc`` and ``/sys``: of this machine, or of another one."""

    def text(self, path: str | Path) -> str:
        """Returns what a file says; nothing where there is none."""

    def threads(self, process: int) -> Sequence[int]:
        """Returns the ids of a process's threads; none where they cannot be listed."""


class LocalFiles:
    """Those of this machine."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Takes the folder that ``/proc`` and ``/sys`` are in."""
        self._root = root

    def text(self, path: str | Path) -> str:
        """Returns what a file says; nothing where there is none."""
        return read_text(self._root / Path(path).relative_to("/"))

    def threads(self, process: int) -> tuple[int, ...]:
        """Returns the ids of a process's threads; none when it has ended."""
        folder = self._root / "proc" / str(process) / "task"
        return tuple(int(path.name) for path in folder.glob("[0-9]*"))


def describe_machine() -> dict[str, Any]:
    """Returns what a reader of figures must know of this machine, as plain JSON values."""
    features = host_features()
    return {
        "cpu": cpu_model(),
        "arch": platform.machine(),
        "cpus_usable": usable_cpu_count(),
        "cpus_online": os.cpu_count(),
        "features": [name for name in TOLD_FEATURES if name in features],
        "virtual": "hypervisor" in features,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "clock": describe_clock(LocalFiles()),
        "accelerator": None,
    }


def describe_accelerator(gpus: Gpu, needs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what a reader must know of the GPU that runs some kernels; None where none does.

    Args:
        gpus: Those of this machine.
        needs: What the kernels need, as a manifest has it.
    """
    index = gpus.device_for(GpuNeeds(**needs))
    if gpus.problem or index is None:
        return None
    facts = asdict(gpus.facts[index]) if gpus.facts else {}
    return {
        "name": gpus.names[index],
        "capability": f"sm_{gpus.capabilities[index]}",
        "driver_cuda": f"{gpus.driver // 1000}.{gpus.driver % 1000 // 10}",
        "count": len(gpus.names),
        **{name: value for name, value in facts.items() if value is not None},
    }


def describe_versions() -> dict[str, str]:
    """Returns the versions of what takes part on tvmdet's side, by name."""
    found = {"tvmdet": tvmdet.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        # What is not installed took no part.
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def describe_clock(files: Files) -> dict[str, Any]:
    """Returns what a kernel says of the first CPU's clock; nothing in most virtual machines."""
    found: dict[str, Any] = {}
    for key, name in (("min_mhz", "cpuinfo_min_freq"), ("max_mhz", "cpuinfo_max_freq")):
        if (khz := files.text(f"{_CPUFREQ}/{name}").strip()).isdecimal():
            found[key] = round(int(khz) / 1e3)
    if governor := files.text(f"{_CPUFREQ}/scaling_governor").strip():
        found["governor"] = governor
    boost = files.text("/sys/devices/system/cpu/cpufreq/boost").strip()
    no_turbo = files.text("/sys/devices/system/cpu/intel_pstate/no_turbo").strip()
    if boost or no_turbo:
        found["boost"] = boost == "1" or no_turbo == "0"
    return found


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """What else the machine did during a measurement.

    Attributes:
        others_cpus: CPUs' worth of work that other processes did on average.
        stolen_cpus: CPUs' worth of time that the hypervisor gave to other guests.
    """

    others_cpus: float
    stolen_cpus: float

    @property
    def is_high(self) -> bool:
        """Whether figures should not be trusted: over a tenth of a CPU was busy elsewhere."""
        return self.others_cpus + self.stolen_cpus > 0.1

    def to_dict(self) -> dict[str, float]:
        """Returns plain JSON values."""
        return {"others_cpus": self.others_cpus, "stolen_cpus": self.stolen_cpus}


class CpuClock:
    """Accounts for the CPU time between its making and :meth:`read`."""

    def __init__(self, processes: Iterable[int], files: Files | None = None) -> None:
        """Starts the account.

        Args:
            processes: Work of these is no disturbance.
            files: Of the machine; None for this one, whose present process is none either.
        """
        own = [os.getpid()] if files is None else []
        self._processes = [*own, *processes]
        self._files = files or LocalFiles()
        self._start = time.monotonic()
        self._busy, self._stolen, self._own = self._now()

    def read(self) -> Disturbance:
        """Returns what happened since; all zero where the kernel does not tell."""
        elapsed = max(time.monotonic() - self._start, 1e-6)
        busy, stolen, own = self._now()
        others = (busy - self._busy) - (own - self._own)
        return Disturbance(
            others_cpus=round(max(others, 0.0) / elapsed, 3),
            stolen_cpus=round(max(stolen - self._stolen, 0.0) / elapsed, 3),
        )

    def _now(self) -> tuple[float, float, float]:
        """Returns seconds of busy CPUs, stolen time, and CPU time of our own processes."""
        tick = 1.0 / os.sysconf("SC_CLK_TCK")
        # cpu user nice system idle iowait irq softirq steal (proc(5))
        words = self._files.text("/proc/stat").splitlines()[:1]
        counts = [int(word) for word in words[0].split()[1:9]] if words else [0] * 8
        own = 0
        for process in self._processes:
            after_name = self._files.text(f"/proc/{process}/stat").rpartition(")")[2].split()
            own += sum(int(word) for word in after_name[11:13])  # utime, stime
        busy = sum(counts) - counts[3] - counts[4] - counts[7]
        return busy * tick, counts[7] * tick, own * tick


def read_text(path: str | Path) -> str:
    """Returns what a file of the kernel says; nothing where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
