from __future__ import annotations

import os
from pathlib import Path

import pytest

from tvmdet import cpus
from tvmdet.errors import InputError


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        pytest.param(None, {}, None, id="no cgroups"),
        pytest.param("", {}, None, id="in no group"),
        pytest.param("garbage\n", {"cpu.max": "1 1"}, None, id="garbage"),
        pytest.param("0::/\n", {"cpu.max": "max 100000\n"}, None, id="v2 without limit"),
        pytest.param("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5, id="v2"),
        pytest.param("0::/a/b\n", {"a/cpu.max": "50000 100000\n"}, 0.5, id="v2, group above"),
        pytest.param(
            "0::/a/b\n",
            {"a/cpu.max": "300000 100000", "a/b/cpu.max": "200000 100000"},
            2.0,
            id="v2, the tightest",
        ),
        pytest.param("0::/host/x\n", {"cpu.max": "100000 100000"}, 1.0, id="v2 in a container"),
        pytest.param("0::/../x\n", {"cpu.max": "100000 100000"}, 1.0, id="v2 outside the root"),
        pytest.param(
            "4:cpu,cpuacct:/a\n1:memory:/\n0::/\n",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            2.5,
            id="v1",
        ),
        pytest.param(
            "4:cpuacct,cpu:/a\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
            id="v1 without limit",
        ),
        pytest.param(
            "4:cpuset:/\n",
            {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"},
            None,
            id="v1, another controller",
        ),
        pytest.param("0::/\n", {"cpu.max": "100000 0\n"}, None, id="no period"),
    ],
)
def test_cgroup_limit(
    tmp_path: Path, membership: str | None, files: dict[str, str], expected: float | None
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    # Outside the mount, where no limit may be looked for.
    write(tmp_path, {"cpu.max": "1 100000"})
    write(root, files)
    own = tmp_path / "own"
    if membership is not None:
        own.write_text(membership)
    assert cpus.cgroup_cpu_limit(root, own) == expected


@pytest.mark.parametrize(
    ("affinity", "limit", "expected"),
    [(4, None, 4), (4, 8.0, 4), (4, 1.5, 2), (4, 1.0, 1), (4, 0.01, 1), (1, 2.0, 1)],
)
def test_usable_cpus(
    monkeypatch: pytest.MonkeyPatch, affinity: int, limit: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(cpus, "cgroup_cpu_limit", lambda: limit)
    assert cpus.usable_cpu_count() == expected
    assert cpus.check_threads(None) == expected


@pytest.mark.parametrize("threads", [0, -1, 1025, 1.0, "2", True])
def test_refuses_a_thread_count(threads: object) -> None:
    with pytest.raises(InputError, match="allowed: 1 to 1024, or None"):
        cpus.check_threads(threads)  # type: ignore[arg-type]


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "usable_cpu_count", lambda: 2)


@pytest.mark.usefixtures("two_cpus")
@pytest.mark.parametrize(("threads", "used"), [(None, 2), (1, 1), (2, 2), (3, 3), (64, 64)])
def test_more_threads_than_cpus_are_obeyed_with_a_warning(
    caplog: pytest.LogCaptureFixture, threads: int | None, used: int
) -> None:
    assert cpus.check_local_threads(threads) == used
    said = f"{used} threads asked for, and this process may use 2 CPUs, which is slower"
    assert (said in caplog.text) is (used > 2)
    assert bool(caplog.records) is (used > 2)


@pytest.mark.usefixtures("two_cpus")
def test_more_threads_than_cpus_are_not_measured() -> None:
    assert [cpus.check_measuring_threads(threads) for threads in (None, 1, 2)] == [2, 1, 2]
    with pytest.raises(InputError, match="3 threads asked for, and this process may use 2 CPUs"):
        cpus.check_measuring_threads(3)
    assert cpus.check_measuring_threads(None, 8, "the board") == 8
    assert cpus.check_measuring_threads(3, 8, "the board") == 3
    with pytest.raises(InputError, match=r"and the board may use 1 CPU: .*give at most 1"):
        cpus.check_measuring_threads(3, 1, "the board")
    with pytest.raises(InputError, match="threads is 0; allowed"):
        cpus.check_measuring_threads(0)


def test_a_virtual_machines_processor_is_told_by_its_numbers() -> None:
    text = "processor\t: {}\ncpu family\t: 25\nmodel\t\t: {}\nmodel name\t: AMD EPYC\n\n"
    one, other = (
        cpus.cpu_identity(cpus.cpuinfo(text.format(0, model) + text.format(1, model)))
        for model in (1, 17)
    )
    assert one == "AMD EPYC, cpu family 25 model 1"
    assert other == "AMD EPYC, cpu family 25 model 17"
    arm = "processor\t: 0\nCPU part\t: 0xd0b\n"
    assert cpus.cpu_identity(cpus.cpuinfo(arm)) == "0xd0b"
