"""How many CPUs this process may really use."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

from tvmdet.arguments import as_whole
from tvmdet.counted import counted
from tvmdet.errors import InputError

__all__ = [
    "cgroup_cpu_limit",
    "check_local_threads",
    "check_measuring_threads",
    "check_threads",
    "cpu_identity",
    "cpu_model",
    "cpuinfo",
    "listed",
    "usable_cpu_count",
]

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_SELF_CGROUP = Path("/proc/self/cgroup")
_MOST_THREADS = 1024

_log = logging.getLogger(__name__)


def usable_cpu_count() -> int:
    """Returns the CPUs that the process may use: its affinity, cut by its cgroups' quotas.

    A quota of one and a half CPUs counts as two.
    """
    count = len(os.sched_getaffinity(0))
    limit = cgroup_cpu_limit()
    return count if limit is None else max(min(count, math.ceil(limit)), 1)


def check_threads(threads: int | None) -> int:
    """Returns the number of threads to compute with; None means every usable CPU.

    Raises:
        InputError: Not a whole number from 1 to 1024.
    """
    if threads is None:
        return usable_cpu_count()
    count = as_whole(threads)
    if count is None or not 1 <= count <= _MOST_THREADS:
        raise InputError(
            f"threads is {threads!r}; allowed: 1 to {_MOST_THREADS}, "
            f"or None for every CPU that this process may use ({usable_cpu_count()})"
        )
    return count


def check_local_threads(threads: int | None) -> int:
    """Returns the number of threads to compute with here; warns of more than there are CPUs.

    They are obeyed: the quota of a container may be a floor, and a program should not end because
    it was moved to a smaller machine.

    Raises:
        InputError: As :func:`check_threads`.
    """
    count, cpus = check_threads(threads), usable_cpu_count()
    if count > cpus:
        _log.warning(
            "%s, which is slower: leave threads away, or give at most %d",
            _crowd(count, cpus, "this process"),
            cpus,
        )
    return count


def check_measuring_threads(
    threads: int | None, cpus: int | None = None, where: str = "this process"
) -> int:
    """Returns the number of threads to measure with.

    Args:
        threads: What was asked for; None for every CPU.
        cpus: That may be used where it is measured; by default those of this process.
        where: What uses them, for the message.

    Raises:
        InputError: As :func:`check_threads`; or there are more threads than CPUs, which would be
            timed waiting for each other.
    """
    cpus = usable_cpu_count() if cpus is None else cpus
    count = cpus if threads is None else check_threads(threads)
    if count > cpus:
        raise InputError(
            f"{_crowd(count, cpus, where)}: they would be timed waiting for each other; leave "
            f"threads away, or give at most {cpus}"
        )
    return count


def _crowd(threads: int, cpus: int, where: str) -> str:
    return f"{counted(threads, 'thread')} asked for, and {where} may use {counted(cpus, 'CPU')}"


def cgroup_cpu_limit(root: Path = _CGROUP_ROOT, membership: Path = _SELF_CGROUP) -> float | None:
    """Returns the CPU quota of this process's cgroups in CPUs, or None without one.

    Reads version 2 (``cpu.max``) and version 1 (``cpu.cfs_quota_us``), of the process's own
    group and of every group above it, since the tightest holds.

    Args:
        root: Where cgroups are mounted.
        membership: The process's groups, as ``/proc/self/cgroup`` lists them.
    """
    limits: list[float] = []
    for line in _read(membership).splitlines():
        _, colons, rest = line.partition(":")
        controllers, colon, group = rest.partition(":")
        if not (colons and colon):
            continue
        if not controllers:
            folders = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            folders = [root / controllers, root / "cpu"]
        else:
            continue
        for folder in folders:
            limits += _limits_upwards(folder, group)
    return min(limits, default=None)


def _limits_upwards(mount: Path, group: str) -> list[float]:
    # In a container the path is often the host's, and only the mount itself is there.
    # A group outside the process's cgroup namespace starts with "/..".
    place = mount if ".." in Path(group).parts else mount / group.lstrip("/")
    folders = [folder for folder in (place, *place.parents) if folder.is_relative_to(mount)]
    found = (_limit_of(folder) for folder in folders)
    return [limit for limit in found if limit is not None]


def _limit_of(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split() or [
        *_read(folder / "cpu.cfs_quota_us").split(),
        *_read(folder / "cpu.cfs_period_us").split(),
    ]
    # "max 100000" (version 2) and "-1 100000" (version 1) mean: no limit.
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def cpu_model(info: Sequence[tuple[str, str]] | None = None) -> str:
    """Returns the model name of a processor; empty if the kernel has none.

    Args:
        info: As :func:`cpuinfo` returns it; None for this machine's.
    """
    lines = cpuinfo() if info is None else info
    return next((value for key, value in lines if key in ("model name", "CPU part", "Model")), "")


def cpu_identity(info: Sequence[tuple[str, str]] | None = None) -> str:
    """Returns the model name of a processor with the numbers by which x86 tells them apart.

    Virtual machines often call theirs ``AMD EPYC`` or ``Intel Xeon Processor``, whatever it is.

    Args:
        info: As :func:`cpuinfo` returns it; None for this machine's.
    """
    lines = cpuinfo() if info is None else info
    values = dict(reversed(lines))
    numbers = [f"{key} {values[key]}" for key in ("cpu family", "model") if key in values]
    return ", ".join([cpu_model(lines), " ".join(numbers)]) if numbers else cpu_model(lines)


def cpuinfo(text: str | None = None) -> list[tuple[str, str]]:
    """Returns the lines of ``/proc/cpuinfo`` as keys and values; empty where there is none.

    Args:
        text: What the file says; None to read this machine's.
    """
    if text is None:
        text = _read(Path("/proc/cpuinfo"))
    pairs = (line.partition(":") for line in text.splitlines())
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def listed(text: str) -> list[int]:
    """Returns the numbers of a list of the kernel's, such as ``0-3,6``."""
    ranges = (part.partition("-") for part in text.strip().split(",") if part)
    return [n for first, _, last in ranges for n in range(int(first), int(last or first) + 1)]
