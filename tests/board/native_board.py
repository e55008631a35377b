"""The board kit's RPC server compiled for this machine: a board whose times are real."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tvmdet.board import kit
from tvmdet.board.session import BoardAddress

SOURCE = Path(kit.__file__).with_name("rpc_server.c")


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def compile_server(folder: Path) -> Path:
    """Compiles the server with the libraries of the installed TVM; skips where there is no gcc."""
    if (compiler := shutil.which("gcc")) is None:
        pytest.skip("gcc is not installed")
    server = folder / "rpc_server"
    tvm, ffi = _package("tvm") / "lib", _package("tvm_ffi") / "lib"
    include = _package("tvm_ffi") / "include"
    subprocess.run(
        [
            *(compiler, "-O1", "-Wall", "-Werror", str(SOURCE), "-o", str(server)),
            *(f"-I{include}", f"-L{tvm}", f"-L{ffi}", f"-Wl,-rpath,{tvm}:{ffi}"),
            *("-Wl,--no-as-needed", "-ltvm_runtime", "-ltvm_ffi", "-Wl,--allow-shlib-undefined"),
        ],
        check=True,
    )
    return server


@contextlib.contextmanager
def serve(server: Path, folder: Path, key: str = "", tracker: str = "") -> Iterator[BoardAddress]:
    """Runs it on a free port of the loopback address."""
    words = [str(server), "--until-eof", *(["--key", key] if key else [])]
    words += [*(["--tracker", tracker] if tracker else []), str(folder)]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # so that the children of its connections end with it
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[1])
        yield BoardAddress(host="127.0.0.1", port=port, key=key)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
