"""A file's members for GPUs on machines with and without one."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import pytest
from assertions import assert_close
from toy_modules import SIZE_HW, reference_detect

from tvmdet.artifact import TargetEntry
from tvmdet.errors import ArtifactError, TargetError
from tvmdet.gpus import Gpu, GpuNeeds
from tvmdet.runtime import native
from tvmdet.runtime.cuda_graphs import Turns
from tvmdet.runtime.loader import Host, choose_target, explain_targets
from tvmdet.runtime.memory import aligned_empty
from tvmdet.runtime.native import DeviceMemory, NativeModule, _tvm_ffi, configure_workers
from tvmdet.runtime.threads import native_thread

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


def test_a_function_has_the_gpu_alone_until_it_has_run_once(
    toy_library: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a first call records must not be disturbed; a call that failed has recorded nothing."""
    turns, taken = Turns(), list[str]()

    class Noted:
        def alone(self) -> AbstractContextManager[None]:
            taken.append("alone")
            return turns.alone()

        def shared(self) -> AbstractContextManager[None]:
            taken.append("shared")
            return turns.shared()

    def load() -> NativeModule:
        module = NativeModule(lambda file: file.write(toy_library), name="toy")
        module._memory = DeviceMemory(_tvm_ffi(), ("cpu", 0))  # which copies, as to a GPU
        return module

    monkeypatch.setattr(native, "_ON_GPU", Noted())
    thread = native_thread(1, configure_workers)
    module = thread.submit(load).result()
    images, thresholds = aligned_empty((1, *SIZE_HW, 3), np.uint8), aligned_empty((2,), np.float32)
    images[...], thresholds[...] = (200, 150, 100), (0.25, 0.6)
    wrong = aligned_empty((1, 2, 3, 3), np.uint8)

    def call(pictures: np.ndarray, function: str = "detect_b1") -> tuple[np.ndarray, ...]:
        return thread.submit(lambda: module.call(function, (pictures, thresholds))).result()

    for _ in range(2):
        with pytest.raises(ArtifactError, match="toy failed in detect_b1"):
            call(wrong)
    answers = [call(images) for _ in range(3)]
    with pytest.raises(ArtifactError, match="toy failed in detect_b1"):
        call(wrong)
    call(images)
    with pytest.raises(ArtifactError, match="toy failed in detect_b99"):
        call(images, "detect_b99")
    assert taken == ["alone"] * 3 + ["shared"] * 4 + ["alone"]
    expected = reference_detect(images[0], 0.25, 0.6)
    for found in answers:
        for array, wanted in zip(found, expected, strict=False):
            assert_close(array[0, : found[3][0]], wanted)
    thread.submit(module.close).result()
    assert taken[-1] == "shared"
