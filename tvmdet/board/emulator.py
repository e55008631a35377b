"""A board in a process: the board kit's RPC server under QEMU's user-mode emulation.

QEMU refuses an instruction that the emulated core lacks, so that running on ``-cpu cortex-a76``
what was compiled for it is also a check of the instructions used; a core that QEMU does not know
is run as one that has more. Its times say nothing of an ARM's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Final

from tvmdet.board.kit import SERVER, default_kit
from tvmdet.errors import TargetError

__all__ = ["Emulator", "emulated_core", "why_no_emulator"]

_QEMU: Final = "qemu-aarch64"
_LIBC: Final = Path("/usr/aarch64-linux-gnu")
_START_S: Final = 60.0

_ANY_CORE: Final = "max,sve=off"
"""Every feature that QEMU knows but SVE, which no target of ours uses."""


def why_no_emulator() -> str:
    """Says what is missing to emulate an ARM board; empty when nothing is."""
    if shutil.which(_QEMU) is None:
        return f"{_QEMU} is not installed (apt install qemu-user)"
    if not (_LIBC / "lib" / "ld-linux-aarch64.so.1").exists():
        return f"there is no C library for aarch64 in {_LIBC} (apt install libc6-arm64-cross)"
    if not (default_kit() / SERVER).exists():
        return f"there is no board kit in {default_kit()} (python -m tvmdet.board)"
    return ""


def emulated_core(mcpu: str) -> str:
    """Returns QEMU's name of the core that LLVM calls ``mcpu``, or of one that has more."""
    return mcpu if mcpu in _known_cores() else _ANY_CORE


@functools.cache
def _known_cores() -> frozenset[str]:
    listed = subprocess.run(
        [_QEMU, "-cpu", "help"], check=False, capture_output=True, text=True
    ).stdout
    return frozenset(listed.split())


class Emulator:
    """A running RPC server of an emulated board; use as a context manager.

    Attributes:
        port: On which it serves 127.0.0.1.
        core: As QEMU names it.
        plugin_file: What a plugin writes; it goes with the board.
    """

    def __init__(
        self,
        core: str = "max",
        *,
        threads: int = 1,
        key: str = "",
        tracker: str = "",
        port: int = 0,
        limit_s: float = 600.0,
        plugin: str = "",
    ) -> None:
        """Starts the board.

        Args:
            core: As QEMU names it.
            threads: Threads that kernels run on.
            key: Clients must name it, if it is not empty.
            tracker: HOST:PORT of an RPC tracker to announce itself to, as a board of the key.
            port: To serve on; 0 for any free one.
            limit_s: Seconds after which the board is ended, whatever it does.
            plugin: Path and options of a plugin of QEMU, which is told to write ``plugin_file``.

        Raises:
            TargetError: Something that is needed is missing, or the server does not start.
        """
        if missing := why_no_emulator():
            raise TargetError(f"no ARM board can be emulated: {missing}")
        self.core = core
        self._cleanup = contextlib.ExitStack()
        folder = tempfile.TemporaryDirectory(prefix="tvmdet-board-", ignore_cleanup_errors=True)
        self.folder = Path(self._cleanup.enter_context(folder))
        self._said = self.folder / "messages"
        self.plugin_file = self.folder / "plugin"
        words = [_QEMU, "-cpu", core, "-L", str(_LIBC)]
        words += ["-plugin", f"{plugin},out={self.plugin_file}"] if plugin else []
        server = [str(default_kit() / SERVER), "--until-eof", "--port", str(port)]
        server += ["--key", key] if key else []
        server += ["--tracker", tracker] if tracker else []
        with self._said.open("wb") as messages:  # QEMU writes a line for each crash
            self._process = subprocess.Popen(
                [*words, *server, str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                start_new_session=True,  # so that the children of its connections end with it
                env={**os.environ, "TVM_NUM_THREADS": str(threads)},
            )
        self._watchdog = threading.Timer(limit_s, self.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        try:
            self.port = self._read_port()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Emulator:
        """Returns the board itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Ends the board."""
        self.close()

    def kill(self) -> None:
        """Ends the board at once, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the board and removes its files."""
        self._watchdog.cancel()
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._cleanup.close()

    def _read_port(self) -> int:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _START_S)
        words = self._process.stdout.readline().split() if ready else []
        if words[:1] == [b"PORT"]:
            return int(words[1])
        self.kill()
        self._process.wait()
        said = self._said.read_text(errors="replace").strip()
        raise TargetError(
            f"the emulated board does not start: {said or f'nothing in {_START_S:g} s'}; make its "
            "kit again: python -m tvmdet.board"
        )
