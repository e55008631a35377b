"""What else a machine did: a hog is seen, slowing down is said, a silent kernel is no zero."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tvmdet.cpus import usable_cpu_count
from tvmdet.report.load import LoadFound, LoadWatch
from tvmdet.report.machine import LocalFiles
from tvmdet.report.yardstick import Yardstick

QUIET = LoadFound(others_cpus=0.02, stolen_cpus=0.0, yardstick_s=(0.001,) * 30)


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Keeps CPUs busy with other people's work."""
    command = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for one in running:
            assert one.stdout is not None
            one.stdout.readline()
        yield
    finally:
        for one in running:
            one.kill()
            one.communicate()


def test_an_injected_hog_is_flagged() -> None:
    with hogs(usable_cpu_count()):
        watch = LoadWatch([])
        for _ in range(8):
            watch.sample()
            time.sleep(0.05)
        found = watch.read()
    assert found.others_cpus > 0.3
    assert any(line.startswith("busy: other processes used") for line in found.findings)
    assert len(found.yardstick_s) == 8


def test_work_of_contestants_is_no_disturbance() -> None:
    command = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            apart, ours = LoadWatch([]), LoadWatch([process.pid])
            start, before = time.monotonic(), _cpu_seconds(process.pid)
            while (used := _cpu_seconds(process.pid) - before) < 0.4:
                time.sleep(0.05)
            elapsed = time.monotonic() - start
            seen, spared = apart.read(), ours.read()
        finally:
            process.kill()
    assert (seen.others_cpus - spared.others_cpus) * elapsed > 0.5 * used


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_quiet_machine_has_no_findings() -> None:
    assert QUIET.findings == ()
    assert LoadFound(others_cpus=0.0, stolen_cpus=0.0).findings == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"others_cpus": 0.11}, "busy: other processes used 0.11 CPUs"),
        ({"stolen_cpus": 0.5}, "busy: the hypervisor gave 0.50 CPUs"),
        ({"waiting_share": 0.4}, "busy: threads waited for a CPU 40% of the time"),
        ({"throttled_s": 0.5}, "throttled: the CPU quota stopped the processes for 0.50 s"),
        ({"thermal_events": 3}, "throttled: the CPUs slowed down for heat 3 times"),
        ({"clock_mhz": (1500.0, 3000.0, 3200.0)}, "uneven: clocks were between 1500 and 3200"),
        (
            {"yardstick_s": [0.001] * 10 + [0.0012] * 10},
            "throttled: fixed work took 20% longer at the end",
        ),
        (
            {"yardstick_s": [0.001, 0.002] * 10},
            "uneven: fixed work took up to 100% longer in some rounds",
        ),
    ],
)
def test_findings(change: dict, says: str) -> None:
    assert any(line.startswith(says) for line in replace(QUIET, **change).findings), says


@pytest.mark.parametrize(
    "change",
    [
        {"others_cpus": 0.1},
        {"waiting_share": 0.1},
        {"involuntary_switches": 90_000},
        {"throttled_s": 0.0},
        {"clock_mhz": (0.0, 0.0, 0.0)},
        {"clock_mhz": (2900.0, 3000.0, 3200.0)},
        {"yardstick_s": [0.001] * 29 + [0.05]},
        {"yardstick_s": [0.001, 0.009]},
    ],
)
def test_a_little_is_no_finding(change: dict) -> None:
    assert replace(QUIET, **change).findings == ()


def test_counters_of_the_kernel(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def tell(waited_us: int, throttled_us: int, heat: int, khz: int) -> None:
        write("proc/pressure/cpu", f"some avg10=0.00 total={waited_us}\nfull avg10=0 total=7\n")
        write("sys/fs/cgroup/mine/cpu.stat", f"usage_usec 5\nthrottled_usec {throttled_us}\n")
        write("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", f"{heat}\n")
        write("sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq", f"{khz}\n")

    write("proc/self/cgroup", "0::/mine\n")
    write("proc/stat", "cpu  0 0 0 0 0 0 0 0\n")
    write("sys/devices/system/cpu/present", "0,2-3\n")
    tell(1_000_000, 2_000_000, 5, 3_000_000)
    watch = LoadWatch([], LocalFiles(tmp_path))
    watch.sample()
    tell(1_000_000_000, 2_500_000, 7, 1_000_000)
    watch.sample()
    found = watch.read()
    assert found.waiting_share == 1.0
    assert (found.throttled_s, found.thermal_events) == (0.5, 2)
    assert found.clock_mhz == (1000.0, 2000.0, 3000.0)
    assert found.involuntary_switches is None


@pytest.mark.parametrize(
    ("groups", "place"),
    [
        ("0::/mine\n", "mine"),
        ("3:cpuset:/\n2:cpu,cpuacct:/mine\n0::/other\n", "cpu,cpuacct/mine"),
        ("9:name=systemd:/\n1:cpu:/mine\n0::/\n", "cpu/mine"),
        ("1:cpu:/docker/0123\n", "cpu"),  # as a container sees itself
    ],
)
def test_quotas_of_both_versions_of_cgroups(tmp_path: Path, groups: str, place: str) -> None:
    file = tmp_path / "sys/fs/cgroup" / place / "cpu.stat"
    file.parent.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)

    def tell(seconds: float) -> None:
        told = f"throttled_time {seconds * 1e9:.0f}"
        if groups.startswith("0::"):
            told = f"throttled_usec {seconds * 1e6:.0f}"
        file.write_text(f"nr_periods 9\nnr_throttled 3\n{told}\n")

    tell(2.0)
    watch = LoadWatch([], LocalFiles(tmp_path))
    tell(2.5)
    assert watch.read().throttled_s == 0.5


def test_a_silent_kernel_is_no_zero(tmp_path: Path) -> None:
    found = LoadWatch([], LocalFiles(tmp_path)).read()
    told = (found.waiting_share, found.involuntary_switches, found.throttled_s)
    assert (*told, found.thermal_events, found.clock_mhz) == (None,) * 5


def test_the_yardstick_does_work() -> None:
    assert 1e-5 < Yardstick().time() < 1.0
