"""What a machine's CUDA driver says of its GPUs, asked without the CUDA runtime."""

from __future__ import annotations

import ctypes
import functools
import re
from dataclasses import dataclass

__all__ = ["Gpu", "GpuNeeds", "find_gpus"]

# cuda.h: CUdevice_attribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


@dataclass(frozen=True, kw_only=True)
class GpuNeeds:
    """What a library's kernels need.

    Attributes:
        sm: Of the GPU, such as ``sm_90``.
        toolkit: Version of CUDA that they were compiled with, ``major.minor``. TVM's CUDA runtime
            is of the same major version.
        never_run: Whether they were compiled where no such GPU was, so that nobody has seen them
            run.
    """

    sm: str
    toolkit: str
    never_run: bool


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The GPUs of a machine.

    Attributes:
        names: Of each GPU, in the driver's order.
        capabilities: Of each GPU, major version times 10 plus minor.
        driver: The newest version of CUDA that the driver supports, times 1000 for the major and
            times 10 for the minor version, as CUDA writes it; 0 where there is no driver.
        problem: Why there is no GPU to be used; empty when there is one.
    """

    names: tuple[str, ...] = ()
    capabilities: tuple[int, ...] = ()
    driver: int = 0
    problem: str = ""

    def device_for(self, needs: GpuNeeds) -> int | None:
        """Returns the index of the first GPU that runs some kernels, if there is one.

        A GPU runs code that was compiled for its own major version and a minor version up to its
        own (CUDA C++ Programming Guide, "Binary compatibility").
        """
        wanted = int(re.sub(r"\D", "", needs.sm) or 0)
        for index, capability in enumerate(self.capabilities):
            if capability // 10 == wanted // 10 and capability >= wanted:
                return index
        return None

    def lacks(self, needs: GpuNeeds) -> str:
        """Says what the machine lacks to run some kernels; empty when it can."""
        if self.problem:
            return f"needs an NVIDIA GPU of {needs.sm}; {self.problem}"
        major = int(needs.toolkit.partition(".")[0])
        if self.driver < major * 1000:
            have = f"{self.driver // 1000}.{self.driver % 1000 // 10}"
            return (
                f"needs a driver for CUDA {major}.0 or newer; the one here is for CUDA {have}: "
                "update the NVIDIA driver"
            )
        if self.device_for(needs) is None:
            have = ", ".join(
                f"{name} (sm_{capability})"
                for name, capability in zip(self.names, self.capabilities, strict=True)
            )
            return f"needs a GPU of {needs.sm}; this machine has {have}"
        return ""


@functools.cache
def find_gpus() -> Gpu:
    """Asks the driver of this machine, once."""
    try:
        return ask(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return Gpu(problem="this machine has no CUDA driver (libcuda.so.1 cannot be loaded)")


def ask(driver: ctypes.CDLL) -> Gpu:
    """Asks a driver for its version and its GPUs."""
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    status = driver.cuInit(0)
    if status == _NO_DEVICE:
        return Gpu(driver=version.value, problem="this machine's CUDA driver finds no GPU")
    if status:
        return Gpu(
            driver=version.value, problem=f"this machine's CUDA driver fails (cuInit: {status})"
        )
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return Gpu(driver=version.value, problem="this machine's CUDA driver finds no GPU")
    names, capabilities = [], []
    for index in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
        names.append(name.value.decode(errors="replace"))
        capabilities.append(major.value * 10 + minor.value)
    return Gpu(names=tuple(names), capabilities=tuple(capabilities), driver=version.value)
