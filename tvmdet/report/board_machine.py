"""The machine behind an RPC address, as results describe machines."""

from __future__ import annotations

from typing import Any, Final

from tvmdet.board.kernel_files import KernelFiles
from tvmdet.cpus import cpu_model, cpuinfo, listed
from tvmdet.gpus import Gpu
from tvmdet.report.machine import TOLD_FEATURES, describe_clock
from tvmdet.runtime.loader import Host

__all__ = ["board_host", "describe_board", "why_emulated"]

# ELF header: e_machine is the 16-bit number at byte 18 (System V ABI, chapter 4).
_ELF_MACHINE: Final = slice(18, 20)
_ARCHITECTURES: Final = {40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}


def board_host(files: KernelFiles) -> Host:
    """Returns what the CPU behind a connection can run; no GPU of it is used.

    Raises:
        TargetError: The server does not tell.
    """
    return Host(
        arch=_architecture(files),
        features=_features(files),
        gpu=Gpu(problem="GPUs of a board are not used over RPC"),
        elsewhere="the board",
    )


def why_emulated(files: KernelFiles) -> str:
    """Says why times of a server's process are no hardware's; empty when they may be.

    An emulator of a whole machine does not show.

    Raises:
        TargetError: The server does not tell.
    """
    arch = _architecture(files)
    kernel = files.text("/proc/sys/kernel/arch").strip()
    if kernel and kernel != arch and arch != "arm":  # 64-bit kernels run 32-bit programs
        return f"its process is {arch}, and its kernel is {kernel}"
    if arch == "aarch64" and "CPU implementer" not in dict(_cpuinfo(files)):
        return f"its process is {arch}, and its /proc/cpuinfo is that of another processor"
    return ""


def describe_board(files: KernelFiles) -> dict[str, Any]:
    """Returns the same of a board as :func:`tvmdet.report.machine.describe_machine` of this one.

    Raises:
        TargetError: The server does not tell.
    """
    host = board_host(files)
    status, memory = _table(files, "/proc/self/status"), _table(files, "/proc/meminfo")
    load = files.text("/proc/loadavg").split()[:3]
    online = listed(files.text("/sys/devices/system/cpu/online"))
    kib = memory.get("MemTotal", "0").split()[0]
    return {
        # The board's own name says more than the number of a core.
        "cpu": dict(_cpuinfo(files)).get("Model") or cpu_model(_cpuinfo(files)),
        "arch": host.arch,
        "cpus_usable": len(listed(status.get("Cpus_allowed_list", ""))) or len(online),
        "cpus_online": len(online),
        "features": [name for name in TOLD_FEATURES if name in host.features],
        "virtual": "hypervisor" in host.features,
        "system": f"Linux {files.text('/proc/sys/kernel/osrelease').strip()}",
        "python": "",
        "load_average": [round(float(value), 2) for value in load],
        "memory_bytes": int(kib) << 10 or None,
        "clock": describe_clock(files),
        "accelerator": None,
    }


def _architecture(files: KernelFiles) -> str:
    """Returns what the server's own process is compiled for."""
    number = int.from_bytes(files.read("/proc/self/exe")[_ELF_MACHINE], "little")
    return _ARCHITECTURES.get(number, f"ELF machine {number}")


def _features(files: KernelFiles) -> frozenset[str]:
    named = dict(reversed(_cpuinfo(files)))
    return frozenset((named.get("flags") or named.get("Features") or "").split())


def _cpuinfo(files: KernelFiles) -> list[tuple[str, str]]:
    return cpuinfo(files.text("/proc/cpuinfo"))


def _table(files: KernelFiles, path: str) -> dict[str, str]:
    """Returns a file of lines such as ``MemTotal:  8 kB``."""
    pairs = (line.partition(":") for line in files.text(path).splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
