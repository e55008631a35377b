"""The CUDA runtime that TVM's wheel is linked with: where it lies, and whether it works here."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Final

__all__ = ["RUNTIME_CUDA", "load_cuda_runtime", "why_no_runtime"]

RUNTIME_CUDA: Final = 13
"""Major version of the CUDA runtime that TVM's wheel is linked with: kernels are started by it."""

_LIBRARY: Final = f"libcudart.so.{RUNTIME_CUDA}"
_IN_PIP_PACKAGE: Final = f"cu{RUNTIME_CUDA}/lib/{_LIBRARY}"  # of nvidia-cuda-runtime


@functools.cache
def load_cuda_runtime() -> ctypes.CDLL:
    """Loads the runtime into the process: the system's, else that of the pip package.

    What is linked with it finds it then, wherever it lies.

    Raises:
        OSError: There is none that can be loaded.
    """
    try:
        return ctypes.CDLL(_LIBRARY, ctypes.RTLD_GLOBAL)
    except OSError:
        for folder in _folders_of("nvidia"):
            if (library := folder / _IN_PIP_PACKAGE).is_file():
                return ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        raise


def why_no_runtime() -> str:
    """Tries the runtime; says why kernels cannot be started with it, or nothing."""
    count = ctypes.c_int()
    install = f"pip install 'nvidia-cuda-runtime>={RUNTIME_CUDA},<{RUNTIME_CUDA + 1}'"
    try:
        status = load_cuda_runtime().cudaGetDeviceCount(ctypes.byref(count))
    except OSError as error:
        return f"it cannot be loaded ({error}): {install}"
    except AttributeError as error:  # another library by that name
        return f"this machine's {_LIBRARY} is none ({error}): {install}"
    if status or not count.value:
        return f"the one here finds no GPU (cudaGetDeviceCount: {status}): update the driver"
    if not any((folder / "lib/libtvm_runtime_cuda.so").is_file() for folder in _folders_of("tvm")):
        return "and the installed apache-tvm was built without it"
    return ""


def _folders_of(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
