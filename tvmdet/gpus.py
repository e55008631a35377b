"""What a machine's CUDA driver says of its GPUs, and whether they run some kernels.

The one place where the driver is asked, and the one rule for what it must say: choosing a target
to compile for, recording that code was never run, and loading a file all come here.
"""

from __future__ import annotations

import ctypes
import functools
import re
from dataclasses import dataclass, replace

from tvmdet.cuda_runtime import RUNTIME_CUDA, why_no_runtime

__all__ = ["RUNTIME_CUDA", "Gpu", "GpuFacts", "GpuNeeds", "find_gpus"]

# cuda.h: CUdevice_attribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_CLOCK_KHZ, _MULTIPROCESSORS, _MEMORY_CLOCK_KHZ = 13, 16, 36
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_TEGRA = frozenset({53, 62, 72, 87, 101})


@dataclass(frozen=True, kw_only=True)
class GpuNeeds:
    """What a library's kernels need.

    Attributes:
        sm: Of the GPU, such as ``sm_90``.
        toolkit: Version of CUDA that they were compiled with, ``major.minor``.
        never_run: Whether they were compiled where no such GPU was, so that nobody has seen them
            run.
    """

    sm: str
    toolkit: str = f"{RUNTIME_CUDA}.0"
    never_run: bool = True

    @property
    def driver(self) -> int:
        """The oldest driver that will do, as :attr:`Gpu.driver` counts.

        One for the major version of the toolkit that compiled the kernels, and of the CUDA runtime
        that starts them (CUDA Compatibility, "Minor Version Compatibility").
        """
        return 1000 * max(RUNTIME_CUDA, int(self.toolkit.partition(".")[0]))


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """What a driver says of one GPU that times depend on; None is what it does not say.

    Attributes:
        multiprocessors: How many there are.
        max_mhz: Their greatest clock.
        memory_max_mhz: The greatest clock of its memory.
        memory_bytes: Of its memory.
    """

    multiprocessors: int | None = None
    max_mhz: int | None = None
    memory_max_mhz: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The GPUs of a machine.

    Attributes:
        names: Of each GPU, in the driver's order.
        capabilities: Of each GPU, major version times 10 plus minor.
        driver: The newest version of CUDA that the driver supports, times 1000 for the major and
            times 10 for the minor version, as CUDA writes it; 0 where there is no driver.
        problem: Why there is no GPU to be used; empty when there is one.
        no_runtime: Why the CUDA runtime cannot start kernels; empty when it can.
        facts: Of each GPU, in the driver's order; empty where nobody asked.
    """

    names: tuple[str, ...] = ()
    capabilities: tuple[int, ...] = ()
    driver: int = 0
    problem: str = ""
    no_runtime: str = ""
    facts: tuple[GpuFacts, ...] = ()

    def device_for(self, needs: GpuNeeds) -> int | None:
        """Returns the index of the first GPU that runs some kernels, if there is one.

        A GPU runs code that was compiled for its own major version and a minor version up to its
        own; those of Tegra (Jetson) and of cards do not run each other's (CUDA C++ Programming
        Guide, "Binary compatibility").
        """
        wanted = int(re.sub(r"\D", "", needs.sm) or 0)
        for index, capability in enumerate(self.capabilities):
            same = capability // 10 == wanted // 10 and capability >= wanted
            if capability == wanted or (same and not {capability, wanted} & _TEGRA):
                return index
        return None

    def lacks(self, needs: GpuNeeds) -> str:
        """Says what the machine lacks to run some kernels; empty when it can."""
        if self.problem:
            return f"needs an NVIDIA GPU of {needs.sm}; {self.problem}"
        if self.driver < needs.driver:
            return (
                f"needs a driver for CUDA {_version(needs.driver)} or newer; the one here is for "
                f"CUDA {_version(self.driver)}: update the NVIDIA driver"
            )
        if self.device_for(needs) is None:
            return f"needs a GPU of {needs.sm}; this machine has {self}"
        if self.no_runtime:
            return f"needs the CUDA {RUNTIME_CUDA} runtime; {self.no_runtime}"
        return ""

    def missing(self, needs: GpuNeeds) -> str:
        """Says in a few words what :meth:`lacks` says; empty when nothing is missing."""
        if not self.lacks(needs):
            return ""
        if self.problem:
            return needs.sm
        if self.driver >= needs.driver:
            return (
                needs.sm if self.device_for(needs) is None else f"the CUDA {RUNTIME_CUDA} runtime"
            )
        return f"a driver for CUDA {_version(needs.driver)} (here {_version(self.driver)})"

    def __str__(self) -> str:
        """Returns the GPUs by name and generation, or why there is none."""
        named = (f"{n} (sm_{c})" for n, c in zip(self.names, self.capabilities, strict=True))
        return self.problem or ", ".join(named)


@functools.cache
def find_gpus() -> Gpu:
    """Asks the driver of this machine, and the CUDA runtime where there is a GPU, once."""
    try:
        found = ask(ctypes.CDLL("libcuda.so.1"))
    except OSError:
        return Gpu(problem="this machine has no CUDA driver (libcuda.so.1 cannot be loaded)")
    except AttributeError as error:  # another library by that name
        return Gpu(problem=f"this machine's libcuda.so.1 is no CUDA driver ({error})")
    return found if found.problem else replace(found, no_runtime=why_no_runtime())


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


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
    names, capabilities, facts = [], [], []
    for index in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
        names.append(name.value.decode(errors="replace"))
        capabilities.append(major.value * 10 + minor.value)
        facts.append(_facts(driver, device))
    return Gpu(
        names=tuple(names),
        capabilities=tuple(capabilities),
        driver=version.value,
        facts=tuple(facts),
    )


def _facts(driver: ctypes.CDLL, device: ctypes.c_int) -> GpuFacts:
    def told(attribute: int) -> int | None:
        value = ctypes.c_int()
        status = driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        return value.value if not status and value.value > 0 else None

    size = ctypes.c_size_t()
    # A driver that cannot tell runs kernels all the same.
    total = getattr(driver, "cuDeviceTotalMem_v2", None)
    status = total(ctypes.byref(size), device) if total else 1
    clock_khz, memory_khz = told(_CLOCK_KHZ), told(_MEMORY_CLOCK_KHZ)
    return GpuFacts(
        multiprocessors=told(_MULTIPROCESSORS),
        max_mhz=None if clock_khz is None else round(clock_khz / 1e3),
        memory_max_mhz=None if memory_khz is None else round(memory_khz / 1e3),
        memory_bytes=None if status or not size.value else size.value,
    )
