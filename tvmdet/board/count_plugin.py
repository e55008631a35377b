"""Compiles the plugin with which QEMU counts what kernels execute, and keeps it with the kit."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tvmdet.board.emulator import why_no_emulator
from tvmdet.board.kit import default_kit
from tvmdet.errors import TargetError

__all__ = ["count_plugin", "qemu_version", "why_no_counts"]

_SOURCE: Final = Path(__file__).with_name("count_blocks.c")
_COMPILERS: Final = ("cc", "gcc", "clang")
_VERSION: Final = re.compile(r"version (\d+)\.")
_OLDEST, _NEWEST = 6, 8  # of QEMU: those whose plugin interface is version 1


def why_no_counts(qemu: str = "qemu-aarch64") -> str:
    """Says what is missing to count instructions of emulated kernels; empty when nothing is."""
    return why_no_emulator() or _why_no_plugin(qemu)


@functools.cache
def _why_no_plugin(qemu: str) -> str:
    if not any(map(shutil.which, _COMPILERS)):
        return f"no C compiler is installed for QEMU's plugin: looked for {', '.join(_COMPILERS)}"
    found = _VERSION.search(qemu_version(qemu))
    version = int(found[1]) if found else 0
    if not _OLDEST <= version <= _NEWEST:
        return (
            f"the plugin is for QEMU {_OLDEST} to {_NEWEST}, and {shutil.which(qemu) or qemu} is "
            f"{f'version {version}' if version else 'of no known version'}; install one of those "
            "(qemu-user of Debian 12 is 7.2) and put it first in PATH"
        )
    if "-plugin" not in _output(qemu, "--help"):
        return (
            f"{shutil.which(qemu)} is built without plugins, as those of qemu-user-static are; "
            "install qemu-user"
        )
    return ""


@functools.cache
def qemu_version(qemu: str = "qemu-aarch64") -> str:
    """Returns QEMU's name and version, such as ``qemu-aarch64 version 7.2.22``."""
    words = _output(qemu, "--version").split()
    return " ".join(words[:3])


def count_plugin() -> Path:
    """Returns the compiled plugin; compiles it when there is none of this source yet.

    Raises:
        TargetError: It cannot be compiled or kept.
    """
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    path = default_kit() / f"count_blocks-{digest}.so"
    if path.exists():
        return path
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise TargetError(f"{_why_no_plugin('qemu-aarch64')}; install one: apt install gcc")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".plugin-", dir=path.parent) as folder:
            made = Path(folder, path.name)
            _compile(compiler, made)
            os.replace(made, path)
    except OSError as error:
        raise TargetError(
            f"QEMU's plugin cannot be kept in {path.parent}: {error.strerror or error}; make the "
            "folder writable, or name another with TVMDET_BOARD_KIT"
        ) from error
    return path


def _compile(compiler: str, output: Path) -> None:
    options = ["-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-Wall"]
    done = subprocess.run(
        [compiler, *options, str(_SOURCE), "-o", str(output)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise TargetError(
            f"{compiler} cannot compile {_SOURCE.name}:\n{done.stderr.strip()}\n"
            "Are the headers of the C library installed? apt install libc6-dev"
        )


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout
    except OSError:
        return ""
