"""The board kit: what an ARM board needs to run compiled kernels, 6 MB and no Python.

``python -m tvmdet.board`` makes it here: TVM's runtime for aarch64, taken from the wheels on PyPI
of the very versions that are installed here, and our RPC server, compiled with a cross compiler.
The folder is copied to a board (docs/arm.md), or run here under QEMU
(:mod:`tvmdet.board.emulator`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from tvmdet.errors import TargetError

__all__ = ["SERVER", "default_kit", "make_kit"]

SERVER: Final = "rpc_server"
"""Name of the server's executable in the kit."""

_LIBRARIES: Final = {
    "tvm/lib/libtvm_runtime.so": "lib/libtvm_runtime.so",
    "tvm_ffi/lib/libtvm_ffi.so": "lib/libtvm_ffi.so",
}
_HEADERS: Final = {
    "tvm_ffi/include/tvm/ffi/c_api.h": "include/tvm/ffi/c_api.h",
    "tvm_ffi/include/dlpack/dlpack.h": "include/dlpack/dlpack.h",
}
_PLATFORM: Final = "manylinux_2_28_aarch64"
_COMPILERS: Final = (("aarch64-linux-gnu-gcc",), ("clang", "--target=aarch64-linux-gnu"))
_SOURCE: Final = Path(__file__).with_name("rpc_server.c")
_DIGITS: Final = 8
_VARIABLE: Final = "TVMDET_BOARD_KIT"


def default_kit() -> Path:
    """Returns where the kit of the installed TVM and of our server is looked for.

    ``$TVMDET_BOARD_KIT``, else ``tvmdet/board-aarch64-VERSION-DIGEST`` under ``$XDG_CACHE_HOME`` or
    ``~/.cache``: TVM's version, and the start of the SHA-256 of the server's source.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:_DIGITS]
    return Path(cache) / "tvmdet" / f"board-aarch64-{metadata.version('apache-tvm')}-{digest}"


def make_kit(folder: Path | None = None, *, progress: Callable[[str], None] | None = None) -> Path:
    """Makes the kit for aarch64 boards.

    Downloads 98 MB through pip, of which 5 MB are kept.

    Args:
        folder: Where; by default :func:`default_kit`. What is there already is replaced.
        progress: Called with one line at the start of each step.

    Returns:
        The folder.

    Raises:
        TargetError: There is no cross compiler, or pip finds no wheels.
    """
    folder = folder or default_kit()
    say = progress or (lambda _line: None)
    compiler = _find_compiler()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".board-", dir=folder.parent) as made:
        place = Path(made)
        say("downloading TVM's runtime for aarch64 (98 MB, of which 5 MB are kept)")
        for wheel in _download(place / "wheels"):
            _unpack(wheel, place, _LIBRARIES | _HEADERS)
        shutil.rmtree(place / "wheels")
        say(f"compiling {SERVER} with {compiler[0]}")
        _compile(compiler, place)
        shutil.rmtree(place / "include")
        if folder.exists():
            shutil.rmtree(folder)
        place.chmod(0o755)
        kit = place.rename(folder)
        place.mkdir()  # the temporary folder's own end wants it back
    return kit


def _find_compiler() -> tuple[str, ...]:
    for command in _COMPILERS:
        if shutil.which(command[0]):
            return command
    raise TargetError(
        "no compiler for aarch64 is installed: looked for aarch64-linux-gnu-gcc and clang. "
        "Install one: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross (Debian, Ubuntu); "
        f"or compile {_SOURCE} on the board itself, as docs/arm.md says"
    )


def _download(folder: Path) -> list[Path]:
    wanted = [f"{name}=={metadata.version(name)}" for name in ("apache-tvm", "apache-tvm-ffi")]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", version]
    done = subprocess.run(
        [*command, *options, "--platform", _PLATFORM, "--dest", str(folder), *wanted],
        check=False,
        capture_output=True,
        text=True,
    )
    wheels = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if done.returncode or len(wheels) != len(wanted):
        reason = (done.stderr.strip() or "no wheels came").splitlines()[-1]
        raise TargetError(
            f"pip cannot download {' and '.join(wanted)} for {_PLATFORM}: {reason}; check the "
            "network, or the package index that pip uses"
        )
    return wheels


def _unpack(wheel: Path, place: Path, wanted: Mapping[str, str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in set(archive.namelist()) & set(wanted):
            path = place / wanted[name]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))


def _compile(compiler: tuple[str, ...], place: Path) -> None:
    options = ["-O1", "-Wall", "-Werror", f"-I{place / 'include'}", f"-L{place / 'lib'}"]
    link = ["-Wl,--no-as-needed", "-ltvm_runtime", "-ltvm_ffi", "-Wl,-rpath,$ORIGIN/lib"]
    link.append("-Wl,--allow-shlib-undefined")
    done = subprocess.run(
        [*compiler, *options, str(_SOURCE), "-o", str(place / SERVER), *link],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise TargetError(
            f"{compiler[0]} cannot compile {_SOURCE.name} for aarch64:\n{done.stderr.strip()}\n"
            "Is its C library installed? apt install libc6-dev-arm64-cross (Debian, Ubuntu)"
        )
