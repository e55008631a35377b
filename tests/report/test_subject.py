"""What a result says of the compiled file: digests, sizes, and every target that was not run."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

import pytest
import toy_modules

from tvmdet.artifact import Artifact
from tvmdet.gpus import Gpu, GpuFacts
from tvmdet.report.machine import describe_accelerator, describe_machine
from tvmdet.report.result_subject import Machine
from tvmdet.report.subject import describe_subject
from tvmdet.report.typed_json import from_json
from tvmdet.runtime.loader import Host

NEEDS = {"sm": "sm_90", "toolkit": "12.4", "never_run": True}
HERE = Host(arch=platform.machine(), features=frozenset(), gpu=Gpu(problem="no driver"))


def write(folder: Path, **changes: object) -> Artifact:
    path = toy_modules.write_toy(folder / "toy.tvmdet", b"\x7fELF no code at all", **changes)
    return Artifact.open(path)


def test_digests_sizes_and_parity(tmp_path: Path) -> None:
    certificate = {"worst_iou": 0.99}
    found = describe_subject(write(tmp_path, parity={"toy": certificate}), "toy", HERE)
    data = (tmp_path / "toy.tvmdet").read_bytes()
    assert found.artifact.sha256 == hashlib.sha256(data).hexdigest()
    assert found.artifact.bytes == len(data)
    assert found.artifact.target_bytes == len(b"\x7fELF no code at all")
    assert found.artifact.batch_sizes == (1, 2)
    assert (found.model.name, found.target.name) == ("toy", "toy")
    assert found.parity == certificate
    assert [member.state for member in found.members] == ["measured"]


def test_members_that_were_not_run_say_why(tmp_path: Path) -> None:
    targets = [
        toy_modules.toy_target(),
        toy_modules.toy_target("plain", rank=5),
        toy_modules.toy_target("board", arch="mips64"),
        toy_modules.toy_target("gpu", gpu=NEEDS),
    ]
    found = describe_subject(write(tmp_path, targets=targets), "toy", HERE)
    said = {member.target: (member.state, member.reason) for member in found.members}
    assert said["toy"] == ("measured", "")
    assert said["plain"] == ("not run", "never run here: another target was measured")
    assert said["board"][0] == "not run"
    assert said["board"][1].startswith("never run here: needs mips64, this machine is")
    assert said["gpu"] == (
        "not run",
        "never run, nor when it was compiled: needs an NVIDIA GPU of sm_90; no driver",
    )
    assert all(member.bytes == len(b"\x7fELF no code at all") for member in found.members)


@pytest.mark.parametrize(
    ("gpus", "name"),
    [
        (Gpu(problem="no driver"), None),
        (Gpu(names=("Old",), capabilities=(75,), driver=12040), None),
        (Gpu(names=("Old", "H"), capabilities=(75, 90), driver=12040), "H"),
    ],
)
def test_the_gpu_that_ran(gpus: Gpu, name: str | None) -> None:
    found = describe_accelerator(gpus, NEEDS)
    assert (None if found is None else found["name"]) == name
    if found is not None:
        assert (found["capability"], found["driver_cuda"]) == ("sm_90", "12.4")


def test_clocks_and_memory_of_the_gpu_are_told_where_they_are_known() -> None:
    facts = GpuFacts(multiprocessors=132, max_mhz=1980, memory_bytes=80 << 30)
    gpus = Gpu(names=("H",), capabilities=(90,), driver=13000, facts=(facts,))
    told = {"multiprocessors": 132, "max_mhz": 1980, "memory_bytes": 80 << 30}
    found = describe_accelerator(gpus, NEEDS)
    assert found == {"name": "H", "capability": "sm_90", "driver_cuda": "13.0", "count": 1, **told}


def test_this_machine_is_one_of_the_schema() -> None:
    found = from_json(Machine, describe_machine())
    assert found.cpus_usable >= 1
    assert (found.memory_bytes or 0) > 1 << 20
