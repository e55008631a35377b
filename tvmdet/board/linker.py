"""Finds a linker for an architecture: compiled kernels need nothing else of a cross toolchain.

LLVM in TVM makes the object files for every architecture; they refer to nothing but TVM's runtime
and libm, which the loading process has.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tvmdet.errors import TargetError

__all__ = ["find_linker", "link_shared"]

_LLD_EMULATION = {"aarch64": "aarch64linux", "x86_64": "elf_x86_64"}
_PACKAGE = {"aarch64": "binutils-aarch64-linux-gnu", "x86_64": "binutils-x86-64-linux-gnu"}


def find_linker(arch: str) -> tuple[str, ...]:
    """Returns the command that links shared libraries for an architecture, without its arguments.

    Args:
        arch: As ``platform.machine()`` names it.

    Raises:
        TargetError: There is none; the message says what to install.
    """
    for command in _candidates(arch):
        found = shutil.which(command[0])
        if found is not None:
            return (found, *command[1:])
    looked_for = ", ".join(dict.fromkeys(command[0] for command in _candidates(arch)))
    package = _PACKAGE.get(arch)
    install = f": apt install {package} (Debian, Ubuntu), or lld" if package else ""
    raise TargetError(
        f"no linker for {arch} is installed: looked for {looked_for}. Install one{install}"
    )


def _candidates(arch: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    if arch == platform.machine():
        found += [("ld",), ("cc", "-nostdlib")]
    found += [(f"{arch}-linux-gnu-ld",), (f"{arch}-linux-gnu-gcc", "-nostdlib")]
    if arch in _LLD_EMULATION:
        found.append(("ld.lld", "-m", _LLD_EMULATION[arch]))
    found.append(("clang", f"--target={arch}-linux-gnu", "-fuse-ld=lld", "-nostdlib"))
    return found


def link_shared(arch: str, objects: Sequence[Path | str], output: Path | str) -> None:
    """Links object files to a shared library, the same byte for byte wherever it is done.

    Raises:
        TargetError: There is no linker for the architecture, or it fails.
    """
    command = find_linker(arch)
    driver = "-nostdlib" in command
    # Stripped, and without a build id: nothing in it may depend on where it was built.
    options = ["-shared", "-s", "-Wl,--build-id=none" if driver else "--build-id=none"]
    done = subprocess.run(
        [*command, *options, "-o", str(output), *map(str, objects)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise TargetError(
            f"{command[0]} cannot link for {arch}: {reason}; install a linker for it, such as the "
            f"package {_PACKAGE.get(arch, 'lld')}"
        )
