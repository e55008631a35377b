"""NVIDIA's compiler: CUDA C++ in, code for one generation of GPUs out."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tvmdet.cuda.device_code import with_helpers
from tvmdet.errors import ModelError, TargetError

__all__ = ["CompiledCode", "KernelUse", "compile_to_ptx", "compile_with_nvcc", "find_nvcc"]

_PLACES = ("/usr/local/cuda/bin", "/usr/lib/nvidia-cuda-toolkit/bin")
_FLAGS = ("-std=c++17", "-O3", "--expt-relaxed-constexpr")
_HOW_TO_INSTALL = (
    "install the CUDA toolkit 12 or later (https://developer.nvidia.com/cuda-downloads; a GPU is "
    "not needed) and put its nvcc on the PATH"
)


@dataclass(frozen=True, kw_only=True)
class KernelUse:
    """What one kernel takes of a multiprocessor, as ptxas says.

    Attributes:
        registers: Of one thread, 32 bits each.
        shared_bytes: Declared by the kernel, of one block.
        spilled_bytes: Stores of registers to memory, of one thread.
        stack_bytes: Of one thread.
    """

    registers: int
    shared_bytes: int
    spilled_bytes: int
    stack_bytes: int


@dataclass(frozen=True, kw_only=True)
class CompiledCode:
    """What nvcc made.

    Attributes:
        fatbin: Code for one ``sm``.
        toolkit: Version of the compiler, such as ``13.0``.
        kernels: What each kernel takes, by its name.
    """

    fatbin: bytes
    toolkit: str
    kernels: dict[str, KernelUse]


def find_nvcc() -> Path:
    """Returns nvcc: the one on the PATH, else of the usual places.

    Raises:
        TargetError: There is none; says what to install.
    """
    found = shutil.which("nvcc")
    for place in _PLACES:
        found = found or shutil.which("nvcc", path=place)
    if found is None:
        raise TargetError(
            f"code for a GPU is compiled by nvcc, which is not here; {_HOW_TO_INSTALL}"
        )
    return Path(found)


def toolkit_version(nvcc: Path) -> str:
    """Returns the version of a toolkit, ``major.minor``.

    Raises:
        TargetError: nvcc does not run or does not say.
    """
    done = _run([str(nvcc), "--version"])
    release = re.search(r"release (\d+\.\d+)", done.stdout)
    if done.returncode or release is None:
        said = (done.stderr or done.stdout).strip()[:200]
        raise TargetError(f"{nvcc} --version fails ({said}); {_HOW_TO_INSTALL}")
    return release.group(1)


def compile_with_nvcc(source: str, arch: str) -> CompiledCode:
    """Compiles CUDA C++ for one generation of GPUs.

    Args:
        source: As TVM generates it; helpers that it calls are added.
        arch: Such as ``sm_90``.

    Raises:
        TargetError: There is no nvcc, or it does not know ``arch``.
        ModelError: nvcc refuses the source.
    """
    nvcc = find_nvcc()
    version = toolkit_version(nvcc)
    known = _run([str(nvcc), "--list-gpu-code"]).stdout.split()
    if arch not in known:
        raise TargetError(
            f"nvcc {version} ({nvcc}) does not know {arch}; it knows {', '.join(known)}. Install a "
            "toolkit that does: CUDA 12 for sm_50 to sm_90, CUDA 13 for sm_75 to sm_121"
        )
    number = arch.removeprefix("sm_")
    options = [f"-gencode=arch=compute_{number},code={arch}", "-Xptxas=-v"]
    with tempfile.TemporaryDirectory(prefix="tvmdet-") as folder:
        output = Path(folder, "kernels.fatbin")
        said = _compile(nvcc, source, Path(folder), ["--fatbin", *options, "-o", str(output)])
        return CompiledCode(fatbin=output.read_bytes(), toolkit=version, kernels=_read_use(said))


def compile_to_ptx(source: str, arch: str) -> str:
    """Returns the PTX of CUDA C++, to be read.

    Raises:
        TargetError: There is no nvcc.
        ModelError: nvcc refuses the source.
    """
    with tempfile.TemporaryDirectory(prefix="tvmdet-") as folder:
        output = Path(folder, "kernels.ptx")
        _compile(find_nvcc(), source, Path(folder), ["--ptx", f"-arch={arch}", "-o", str(output)])
        return output.read_text(encoding="utf-8")


def _compile(nvcc: Path, source: str, folder: Path, options: list[str]) -> str:
    path = folder / "kernels.cu"
    path.write_text(with_helpers(source), encoding="utf-8")
    done = _run([str(nvcc), *_FLAGS, *options, str(path)])
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        raise ModelError(f"nvcc refuses the kernels: {(lines or [done.stderr.strip()])[0]}")
    return done.stderr


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise TargetError(f"{command[0]} cannot be run: {error}; {_HOW_TO_INSTALL}") from error


def _read_use(said: str) -> dict[str, KernelUse]:
    """Reads what ``ptxas -v`` prints: a header, a line of the stack, a line of registers."""
    found = {}
    for part in re.split(r"Compiling entry function '", said)[1:]:
        name = part.split("'", 1)[0]

        def number(pattern: str, text: str = part) -> int:
            match = re.search(pattern, text)
            return int(match.group(1)) if match else 0

        found[name] = KernelUse(
            registers=number(r"Used (\d+) registers"),
            shared_bytes=number(r"(\d+) bytes smem"),
            spilled_bytes=number(r"(\d+) bytes spill stores"),
            stack_bytes=number(r"(\d+) bytes stack frame"),
        )
    return found
