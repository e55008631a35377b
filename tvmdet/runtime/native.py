"""The boundary to compiled code: ``tvm_ffi``, ``libtvm_runtime.so`` and compiled libraries.

Nothing else in the runtime touches TVM. The compiler half of TVM is not imported: ``tvm_ffi``
and the runtime library are enough to run a Relax VM executable.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tvmdet.cuda_runtime import load_cuda_runtime
from tvmdet.errors import ArtifactError, InputError
from tvmdet.runtime import cuda_graphs
from tvmdet.runtime.memory import aligned_empty, recycled_copy

__all__ = [
    "CPU",
    "Arrays",
    "Copy",
    "Device",
    "DeviceMemory",
    "Module",
    "NativeModule",
    "configure_workers",
    "copy_all",
]

Arrays: TypeAlias = tuple[npt.NDArray[Any], ...]
Copy: TypeAlias = Callable[[Arrays], Arrays]
"""Copies what is wanted of a compiled function's results, which are gone afterwards."""

# Imported by tvm_ffi when it finds them: seconds, and hundreds of megabytes, for conversions
# of tensors that the runtime never sees.
_UNWANTED = frozenset({"cuda", "torch", "torch_c_dlpack_ext"})

_SPINS = ("TVM_THREAD_POOL_SPIN_COUNT", "3000")
"""How often an idle worker looks for work before it sleeps: some 2 ms, which no pause within a call
takes. TVM's own 300,000 keep a CPU busy for 0.2 s after every call."""

_SHARE_ALL_CPUS = -3
"""``kSpecifyThreadShareAllCore`` of ``AffinityMode`` in TVM's ``threading_backend.h``."""

Device: TypeAlias = tuple[str, int]
"""Kind, ``cpu`` or ``cuda``, and index."""

CPU: Final[Device] = ("cpu", 0)

_ON_GPU: Final = cuda_graphs.Turns()
"""Who uses a GPU; of the process, since what a recording forbids is forbidden to all of it."""

_DEVICE_TYPES: Final = {"cpu": 1, "cuda": 2}  # DLDeviceType
_POOLED_ALLOCATOR = 2


class _RefuseUnwanted:
    """An import finder that hides packages from one thread; others import as ever."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in _UNWANTED and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is hidden from tvm_ffi", name=name)


@contextmanager
def _hiding_unwanted() -> Iterator[None]:
    finder = _RefuseUnwanted()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@functools.cache
def _tvm_ffi() -> ModuleType:
    """Loads tvm_ffi and libtvm_runtime.so, once per process."""
    try:
        with _hiding_unwanted():
            import tvm_ffi
        ctypes.CDLL(str(_runtime_library()), ctypes.RTLD_GLOBAL)
    except (ImportError, OSError) as error:
        raise ArtifactError(
            f"TVM's runtime cannot be loaded: {error}; "
            "install it again with: pip install --force-reinstall tvmdet"
        ) from error
    module: ModuleType = tvm_ffi
    return module


def _runtime_library() -> Path:
    # find_spec() of a top-level package finds it without importing it.
    spec = importlib.util.find_spec("tvm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        library = Path(folder, "lib", "libtvm_runtime.so")
        if library.is_file():
            return library
    raise ImportError("the package apache-tvm is not installed, or has no lib/libtvm_runtime.so")


def configure_workers(workers: int) -> int:
    """Gives the calling thread a pool of that many workers, free to run on every usable CPU.

    Without it TVM takes half of the logical CPUs on x86, and binds to the first ones whether
    or not the process may use those. Binds the calling thread too.

    Returns:
        How many workers the pool has: another number where the thread had one before.
    """
    os.environ.setdefault(*_SPINS)  # read once, when the process's first pool is made
    configure = _tvm_ffi().get_global_func("runtime.config_threadpool")
    cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))]
    # A new pool gets as many workers as CPUs are named, however many are asked for ...
    configure(_SHARE_ALL_CPUS, workers, [cpus[i % len(cpus)] for i in range(workers)])
    # ... and an existing one keeps its workers while their CPUs change.
    configure(_SHARE_ALL_CPUS, workers, cpus)
    return int(_tvm_ffi().get_global_func("runtime.NumThreads")())


def copy_all(results: Arrays) -> Arrays:
    """Copies every result whole."""
    return tuple(recycled_copy(array) for array in results)


class Module(Protocol):
    """Compiled code as a detector uses it, wherever it runs.

    Attributes:
        runs_on_any_thread: Whether :meth:`call` may be called on any thread with a pool of workers,
            one call at a time, instead of on the thread that loaded it.
    """

    runs_on_any_thread: bool

    def call(
        self, function: str, arguments: Sequence[npt.NDArray[Any]], copy: Copy = copy_all
    ) -> Arrays:
        """Runs a function of the code; see :meth:`NativeModule.call`."""

    def close(self) -> None:
        """Lets go of the code and its memory."""


class NativeModule:
    """A compiled library, loaded and ready to be called: a :class:`Module` of this machine.

    Every method must be called on one and the same native thread, but for :meth:`call` of code for
    the CPU.
    """

    def __init__(
        self,
        write_library: Callable[[BinaryIO], object],
        weights: Sequence[npt.NDArray[Any]] = (),
        *,
        name: str,
        device: Device = CPU,
    ) -> None:
        """Loads a compiled library.

        Args:
            write_library: Writes the bytes of a shared library that holds a Relax VM executable
                to a file, and verifies them.
            weights: What every function of it takes as its last argument, if there are any;
                aligned as by :func:`aligned_empty`, and used where they lie.
            name: For error messages.
            device: What its kernels run on. Arguments and results are copied to and from the
                memory of a GPU, the weights once.

        Raises:
            ArtifactError: The library cannot be loaded, or ``write_library`` raises it.
        """
        self._name = name
        ffi = _tvm_ffi()
        if device[0] == "cuda":
            _load_cuda_runtime()
        # On the CPU tensors are used where they lie.
        self._memory = None if device == CPU else DeviceMemory(ffi, device)
        self.runs_on_any_thread = device == CPU
        try:
            with self._turn():
                # Not kept alive for the process: the code goes when this object goes.
                self._library = _load_and_unlink(ffi, write_library)
                self._executable = self._library["vm_load_executable"]()
                self._executable["vm_initialization"](*_devices(device))
                self._weights = _argument_of(ffi, weights, self._memory)
            self._lent = weights
        except ArtifactError:
            raise
        except Exception as error:  # TVM raises whatever class its C++ side named
            raise ArtifactError(
                f"{name} cannot be loaded: {_first_line(error)}; compile it again with the "
                "installed versions of tvmdet and TVM (or, where the folder for temporary files "
                "forbids running code, set TMPDIR to another)"
            ) from error
        self._functions: dict[str, Any] = {}

    def call(
        self, function: str, arguments: Sequence[npt.NDArray[Any]], copy: Copy = copy_all
    ) -> Arrays:
        """Runs a function of the module.

        Args:
            function: Its name.
            arguments: Arrays made by :func:`aligned_empty`; read in place.
            copy: Says what is copied of the results.

        Returns:
            What it returns, copied into arrays that the caller owns.

        Raises:
            ArtifactError: The module has no such function, or it failed.
            InputError: The module is closed.
        """
        if self._executable is None:
            raise InputError(f"{self._name} is closed; load it again with tvmdet.load()")
        # On a GPU the first call of a function records its kernels.
        first = function not in self._functions
        try:
            with self._turn(alone=first):
                called = self._executable[function] if first else self._functions[function]
                results = self._call(called, arguments, copy)
                # Only now: what failed has recorded nothing, and will have to be alone again.
                self._functions[function] = called
                return results
        except Exception as error:  # TVM raises whatever class its C++ side named
            raise ArtifactError(
                f"{self._name} failed in {function}: {_first_line(error)}; compile it again"
            ) from error

    def _call(self, function: Any, arguments: Sequence[npt.NDArray[Any]], copy: Copy) -> Arrays:
        ffi, memory = _tvm_ffi(), self._memory
        given = [ffi.from_dlpack(array) for array in arguments]
        if memory is not None:
            given = [memory.upload(tensor) for tensor in given]
        result = function(*given, *self._weights)
        tensors = (result,) if isinstance(result, ffi.Tensor) else tuple(result)
        if memory is not None:
            return copy(tuple(memory.download(tensor) for tensor in tensors))
        return copy(tuple(np.from_dlpack(tensor) for tensor in tensors))

    def _turn(self, *, alone: bool = False) -> AbstractContextManager[None]:
        if self._memory is None:
            return nullcontext()
        return _ON_GPU.alone() if alone else _ON_GPU.shared()

    def watch(self, watcher: Callable[..., int]) -> None:
        """Has a function called before and after every kernel and built-in, from now on.

        It gets the callee, its name, whether this is before, the result and the arguments, and
        returns 0. It makes every call slower by some microseconds.
        """
        self._executable["set_instrument"](_tvm_ffi().convert_func(watcher))

    def watch_clock(self, stamps: list[float]) -> None:
        """Has the time noted before and after every kernel and built-in, from now on.

        Two stamps of ``time.perf_counter`` are added for each, in turn. No argument is looked at,
        which would take longer than the clock.
        """
        now, note = time.perf_counter, stamps.append
        # TVMFFISafeCallType of tvm/ffi/c_api.h: handle, arguments, their number, result.
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p
        )
        noted = kind(lambda *_: note(now()) or 0)
        address = ctypes.cast(noted, ctypes.c_void_p).value
        bare = _tvm_ffi().Function.__from_extern_c__(address, keep_alive_object=noted)
        self._executable["set_instrument"](bare)

    def close(self) -> None:
        """Lets go of the compiled code and its memory."""
        with self._turn():
            # The library and the lent weights last: the others point into them.
            self._functions.clear()
            self._executable = None
            self._weights = []
            self._library = None
        self._lent = ()


def _load_and_unlink(ffi: ModuleType, write_library: Callable[[BinaryIO], object]) -> Any:
    with tempfile.TemporaryDirectory(prefix="tvmdet-") as folder:  # mode 0700
        path = Path(folder, "module.so")
        with path.open("wb") as file:
            write_library(file)
        return ffi.load_module(path, keep_module_alive=False)


def _argument_of(
    ffi: ModuleType, weights: Sequence[npt.NDArray[Any]], memory: DeviceMemory | None
) -> list[Any]:
    """Returns the argument that holds the weights, or none if there are none."""
    if not weights:
        return []
    tensors = [ffi.from_dlpack(_lend(array)) for array in weights]
    return [ffi.convert([memory.upload(one) for one in tensors] if memory else tensors)]


def _devices(device: Device) -> list[int]:
    """Returns a virtual machine's devices: the kernels' and, where that is not it, the CPU."""
    found = [_DEVICE_TYPES[device[0]], device[1], _POOLED_ALLOCATOR]
    return found if device[0] == "cpu" else [*found, _DEVICE_TYPES["cpu"], 0, _POOLED_ALLOCATOR]


@functools.cache
def _load_cuda_runtime() -> None:
    """Loads TVM's CUDA runtime into the process, once."""
    library = _runtime_library().with_name("libtvm_runtime_cuda.so")
    try:
        load_cuda_runtime()
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        if not cuda_graphs.wanted():
            cuda_graphs.launch_one_by_one(_tvm_ffi())
    except OSError as error:
        raise ArtifactError(
            f"TVM's CUDA runtime cannot be loaded: {error}; it needs libcudart.so.13: "
            "pip install 'nvidia-cuda-runtime>=13,<14', or install the CUDA 13 toolkit"
        ) from error


class DeviceMemory:
    """Copies between the memory of the host and that of a device."""

    def __init__(self, ffi: ModuleType, device: Device) -> None:
        """Takes the device."""
        self._device = ffi.device(*device)
        self._allocate = ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        self._copy = ffi.get_global_func("runtime.TVMTensorCopyFromTo")
        self._wait = ffi.get_global_func("runtime.Device_StreamSync")
        self._ffi = ffi

    def upload(self, tensor: Any) -> Any:
        """Returns a tensor of the device with the contents of one of the host."""
        shape = self._ffi.Shape(tensor.shape)
        made = self._allocate(shape, self._ffi.dtype(tensor.dtype), self._device, None)
        self._copy(tensor, made)
        return made

    def download(self, tensor: Any) -> npt.NDArray[Any]:
        """Returns an array with the contents of a tensor of the device, once it is computed."""
        made = aligned_empty(tensor.shape, str(tensor.dtype))
        self._copy(tensor, self._ffi.from_dlpack(made))
        self._wait(self._device, 0)
        return made


def _lend(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns a view that DLPack takes, of an array that nobody may write to.

    DLPack could not say "read only" before its version 1, and numpy refuses to leave it out. The
    view does not keep the memory alive.
    """
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    view: npt.NDArray[Any] = np.frombuffer(memoryview(memory), array.dtype).reshape(array.shape)
    return view


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
