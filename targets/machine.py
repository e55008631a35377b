"""What this machine has: the flags of its CPU and the GPUs that a CUDA driver shows."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
from collections.abc import Iterable

from tvmdet.cpus import cpuinfo

__all__ = ["features_for", "gpu_capabilities", "gpu_features", "host_features"]

# Linux, arch/arm64/include/uapi/asm/hwcap.h: bit n of AT_HWCAP and of AT_HWCAP2.
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_ARM_HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma "
    "lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
_ARM_HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm "
    "svebf16 i8mm bf16 dgh rng bti"
)

# CUDA driver API, cuda.h: CUdevice_attribute.
_CU_COMPUTE_CAPABILITY_MAJOR, _CU_COMPUTE_CAPABILITY_MINOR = 75, 76


@functools.cache
def host_features() -> frozenset[str]:
    """Returns the CPU flags of this machine, as the kernel names them."""
    if platform.machine() == "aarch64":
        # What the process may use, also where /proc/cpuinfo is another machine's: under emulation.
        return _arm_features()
    for key, value in cpuinfo():
        if key in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _arm_features() -> frozenset[str]:
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    found: list[str] = []
    for kind, names in ((_AT_HWCAP, _ARM_HWCAP), (_AT_HWCAP2, _ARM_HWCAP2)):
        bits = getauxval(kind)
        found += [name for bit, name in enumerate(names.split()) if bits >> bit & 1]
    return frozenset(found)


@functools.cache
def gpu_capabilities() -> tuple[int, ...]:
    """Returns the compute capability of each CUDA GPU, major times 10 plus minor.

    Empty where there is no driver or no GPU. Asks the driver itself, without the CUDA runtime.
    """
    with contextlib.suppress(OSError, AttributeError):
        return _ask_driver(ctypes.CDLL("libcuda.so.1"))
    return ()


def _ask_driver(driver: ctypes.CDLL) -> tuple[int, ...]:
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    found = []
    for index in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        failed = (
            driver.cuDeviceGet(ctypes.byref(device), index)
            or driver.cuDeviceGetAttribute(
                ctypes.byref(major), _CU_COMPUTE_CAPABILITY_MAJOR, device
            )
            or driver.cuDeviceGetAttribute(
                ctypes.byref(minor), _CU_COMPUTE_CAPABILITY_MINOR, device
            )
        )
        if not failed:
            found.append(major.value * 10 + minor.value)
    return tuple(found)


def gpu_features() -> frozenset[str]:
    """Returns ``sm_80`` and the like for all GPU code that the GPUs of this machine can run.

    A GPU runs code compiled for its own major version and a minor version up to its own (CUDA C++
    Programming Guide, binary compatibility).
    """
    return frozenset(
        f"sm_{older}"
        for capability in gpu_capabilities()
        for older in range(capability // 10 * 10, capability + 1)
    )


def features_for(required: Iterable[str]) -> frozenset[str]:
    """Returns this machine's features; looks for GPUs only when one is among the required."""
    have = host_features()
    return have | gpu_features() if any(f.startswith("sm_") for f in required) else have
