"""A file's members for GPUs on machines with and without one."""

from __future__ import annotations

import numpy as np
import pytest

from tvmdet.artifact import TargetEntry
from tvmdet.errors import TargetError
from tvmdet.gpus import Gpu, GpuNeeds
from tvmdet.runtime.loader import Host, choose_target, explain_targets
from tvmdet.runtime.native import DeviceMemory, _tvm_ffi

HOPPER = GpuNeeds(sm="sm_90", toolkit="13.0", never_run=True)
H100 = Gpu(names=("NVIDIA H100",), capabilities=(90,), driver=13000)
MIXED = Gpu(names=("Tesla T4", "NVIDIA RTX A4000"), capabilities=(75, 86), driver=13010)


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
