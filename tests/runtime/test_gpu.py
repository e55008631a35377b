"""What is said of a machine's GPUs, with drivers that answer as real ones do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tvmdet.artifact import TargetEntry
from tvmdet.errors import TargetError
from tvmdet.runtime.gpu import Gpu, GpuNeeds, ask
from tvmdet.runtime.loader import Host, choose_target, explain_targets
from tvmdet.runtime.native import DeviceMemory, _tvm_ffi

HOPPER = GpuNeeds(sm="sm_90", toolkit="13.0", never_run=True)
AMPERE = GpuNeeds(sm="sm_80", toolkit="13.0", never_run=True)
H100 = Gpu(names=("NVIDIA H100",), capabilities=(90,), driver=13000)
MIXED = Gpu(names=("Tesla T4", "NVIDIA RTX A4000"), capabilities=(75, 86), driver=13010)


class _Driver:
    """Stands in for libcuda.so.1: the calls that are made of it, with plain arguments."""

    def __init__(self, version: int, gpus: list[tuple[str, int]], init: int = 0) -> None:
        self._version, self._gpus, self._init = version, gpus, init

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self._version
        return 0

    def cuInit(self, _flags: int) -> int:
        return self._init

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self._gpus)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, _length: int, device: Any) -> int:
        name.value = self._gpus[device.value][0].encode()
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        capability = self._gpus[device.value][1]
        value._obj.value = capability // 10 if attribute == 75 else capability % 10
        return 0


def _entry(name: str, rank: int, needs: GpuNeeds | None) -> TargetEntry:
    gpu = None if needs is None else dict(vars(needs))
    return TargetEntry(
        name=name,
        arch="x86_64",
        rank=rank,
        required_features=("fma", *((needs.sm,) if needs else ())),
        library=f"lib/{name}.so",
        planned_bytes={1: 1},
        gpu=gpu,
    )


def test_a_driver_is_asked_for_its_version_and_its_gpus() -> None:
    found = ask(_Driver(13000, [("Tesla T4", 75), ("NVIDIA H100", 90)]))  # type: ignore[arg-type]
    assert found == Gpu(names=("Tesla T4", "NVIDIA H100"), capabilities=(75, 90), driver=13000)


@pytest.mark.parametrize(
    ("driver", "problem"),
    [
        (_Driver(13000, [], init=100), "finds no GPU"),
        (_Driver(13000, []), "finds no GPU"),
        (_Driver(13000, [("broken", 90)], init=999), r"fails \(cuInit: 999\)"),
    ],
)
def test_a_driver_without_a_gpu_says_so(driver: Any, problem: str) -> None:
    found = ask(driver)
    assert found.capabilities == ()
    assert re.search(problem, found.lacks(HOPPER))
    assert found.lacks(HOPPER).startswith("needs an NVIDIA GPU of sm_90; ")


@pytest.mark.parametrize(
    ("gpu", "needs", "said"),
    [
        (H100, HOPPER, ""),
        (MIXED, AMPERE, ""),  # 8.6 runs what was compiled for 8.0
        (MIXED, HOPPER, "this machine has Tesla T4 (sm_75), NVIDIA RTX A4000 (sm_86)"),
        (H100, AMPERE, "needs a GPU of sm_80; this machine has NVIDIA H100 (sm_90)"),
        (
            Gpu(names=("NVIDIA H100",), capabilities=(90,), driver=12040),
            HOPPER,
            "needs a driver for CUDA 13.0 or newer; the one here is for CUDA 12.4: update",
        ),
        (Gpu(problem="this machine has no CUDA driver"), HOPPER, "sm_90; this machine has no CUDA"),
    ],
)
def test_what_a_machine_lacks(gpu: Gpu, needs: GpuNeeds, said: str) -> None:
    lacks = gpu.lacks(needs)
    assert said in lacks
    assert bool(lacks) == bool(said)


def test_the_first_gpu_that_fits_is_used() -> None:
    assert MIXED.device_for(AMPERE) == 1
    assert MIXED.device_for(HOPPER) is None


def test_a_gpu_is_chosen_where_there_is_one_and_the_cpu_elsewhere() -> None:
    entries = [_entry("sm_90", 90, HOPPER), _entry("x86-64-v3", 30, None)]
    features = frozenset({"fma"})
    with_gpu = Host(arch="x86_64", features=features, gpu=H100)
    without = Host(arch="x86_64", features=features, gpu=Gpu(problem="this machine has none"))
    assert choose_target(entries, with_gpu).name == "sm_90"
    assert choose_target(entries, without).name == "x86-64-v3"
    explained = explain_targets(entries, with_gpu, entries[0]).splitlines()
    assert explained[0].endswith("chosen; never run on a GPU when it was compiled")
    assert explained[1] == "x86-64-v3 (rank 30): runs here too"


def test_a_file_for_another_gpu_is_refused_with_what_was_found() -> None:
    host = Host(arch="x86_64", features=frozenset({"fma"}), gpu=MIXED)
    with pytest.raises(TargetError, match=r"sm_90: needs a GPU of sm_90; .* Tesla T4 \(sm_75\)"):
        choose_target([_entry("sm_90", 90, HOPPER)], host)


def test_a_cpu_that_lacks_something_is_named_before_the_gpu_is_asked() -> None:
    host = Host(arch="x86_64", features=frozenset(), gpu=H100)
    assert host.lacks(_entry("sm_90", 90, HOPPER)) == "this CPU lacks fma"


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int32", "bool"])
def test_arrays_come_back_from_a_device_as_they_went(dtype: str) -> None:
    # The CPU is a device too: the copies are the same calls.
    ffi = _tvm_ffi()
    memory = DeviceMemory(ffi, ("cpu", 0))
    array = np.arange(30).reshape(2, 3, 5).astype(dtype)
    there = memory.upload(ffi.from_dlpack(array))
    array_back = memory.download(there)
    assert array_back.dtype == array.dtype
    np.testing.assert_array_equal(array_back, array)
    assert not np.shares_memory(array_back, array)
