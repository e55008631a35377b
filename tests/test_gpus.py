"""What is said of a machine's GPUs, with drivers that answer as real ones do."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from fake_driver import FakeDriver

from tvmdet import gpus
from tvmdet.gpus import Gpu, GpuFacts, GpuNeeds, ask

HOPPER = GpuNeeds(sm="sm_90", toolkit="13.0", never_run=True)
AMPERE = GpuNeeds(sm="sm_80", toolkit="13.0", never_run=True)
H100 = Gpu(names=("NVIDIA H100",), capabilities=(90,), driver=13000)
ORIN = Gpu(names=("Orin",), capabilities=(87,), driver=13000)
L4 = Gpu(names=("NVIDIA L4",), capabilities=(89,), driver=13000)
MIXED = Gpu(names=("Tesla T4", "NVIDIA RTX A4000"), capabilities=(75, 86), driver=13010)


def test_a_driver_is_asked_for_its_version_and_its_gpus() -> None:
    found = ask(FakeDriver(13000, [("Tesla T4", 75), ("NVIDIA H100", 90)]))  # type: ignore[arg-type]
    assert found == Gpu(
        names=("Tesla T4", "NVIDIA H100"),
        capabilities=(75, 90),
        driver=13000,
        facts=(GpuFacts(), GpuFacts()),
    )


def test_a_driver_is_asked_for_clocks_and_memory() -> None:
    attributes = {13: 1_980_000, 16: 132, 36: 2_619_000}
    driver = FakeDriver(13000, [("H", 90)], attributes=attributes, memory_bytes=80 << 30)
    (facts,) = ask(driver).facts  # type: ignore[arg-type]
    assert facts == GpuFacts(
        multiprocessors=132, max_mhz=1980, memory_max_mhz=2619, memory_bytes=80 << 30
    )


@pytest.mark.parametrize(
    ("driver", "problem"),
    [
        (FakeDriver(13000, [], init=100), "finds no GPU"),
        (FakeDriver(13000, []), "finds no GPU"),
        (FakeDriver(13000, [("broken", 90)], init=999), r"fails \(cuInit: 999\)"),
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
        (ORIN, dataclasses.replace(HOPPER, sm="sm_87"), ""),
        (
            ORIN,
            dataclasses.replace(HOPPER, sm="sm_86"),
            "needs a GPU of sm_86; this machine has Orin (sm_87)",
        ),
        (
            L4,
            dataclasses.replace(HOPPER, sm="sm_87"),
            "needs a GPU of sm_87; this machine has NVIDIA L4",
        ),
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
    assert bool(lacks) == bool(said) == bool(gpu.missing(needs))


@pytest.mark.parametrize(("toolkit", "oldest"), [("12.4", 13000), ("13.0", 13000), ("14.1", 14000)])
def test_the_driver_must_do_for_the_toolkit_and_for_the_runtime(toolkit: str, oldest: int) -> None:
    """TVM's wheel starts kernels with the CUDA 13 runtime, whatever compiled them."""
    needs = GpuNeeds(sm="sm_90", toolkit=toolkit)
    new_enough = dataclasses.replace(H100, driver=oldest)
    too_old = dataclasses.replace(H100, driver=oldest - 1000)
    assert new_enough.lacks(needs) == new_enough.missing(needs) == ""
    assert too_old.missing(needs).startswith(f"a driver for CUDA {oldest // 1000}.0 (here ")


def test_another_library_by_the_drivers_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())
    found = gpus.find_gpus.__wrapped__()
    assert "libcuda.so.1 is no CUDA driver" in found.lacks(HOPPER)


def test_the_first_gpu_that_fits_is_used() -> None:
    assert MIXED.device_for(AMPERE) == 1
    assert MIXED.device_for(HOPPER) is None
