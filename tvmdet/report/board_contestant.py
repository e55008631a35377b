"""Compiled code on a board as a contestant: timed by the board's own clock, in turn with others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from tvmdet.artifact import Artifact, TargetEntry
from tvmdet.board.module import BoardModule
from tvmdet.board.session import BoardAddress
from tvmdet.errors import ArtifactError, TargetError
from tvmdet.report.worker import WorkerError

__all__ = ["BoardContestant"]

_LOOK_S: Final = 0.05
_IDLE_TICKS: Final = 1
"""Of CPU time within a look, of which answering takes a part."""


class BoardContestant:
    """One function of a compiled file, in a process of its own on a board.

    Attributes:
        pid: Of that process.
    """

    def __init__(
        self,
        artifact: Artifact,
        entry: TargetEntry,
        address: BoardAddress,
        function: str,
        arguments: Sequence[Any],
        threads: int,
    ) -> None:
        """Uploads the code and the arguments.

        Args:
            artifact: The compiled file.
            entry: The one of its targets to run, which the board can.
            address: Of the board's RPC server.
            function: Its name.
            arguments: Of every call, arrays.
            threads: Threads to compute with.

        Raises:
            ArtifactError: The board cannot load it.
            TargetError: No RPC server answers, or it does not say what its board is.
        """
        self._module = BoardModule(artifact, entry, address, threads)
        self._function, self._arguments = function, tuple(arguments)
        try:
            self._seconds = self._module.timer(function, self._arguments)
            self._files = self._module.files()
            self.pid = int(self._files.text("/proc/self/stat").split()[0])
        except BaseException:
            self._module.close()
            raise

    def run(self) -> tuple[Any, ...]:
        """Returns the results of one call, arrays.

        Raises:
            ArtifactError: It failed, or the board is gone.
        """
        return tuple(self._module.call(self._function, self._arguments))

    def time(self, *, untimed: int = 1) -> float:
        """Returns the seconds of one call after some that are not timed.

        Raises:
            WorkerError: It failed, or the board is gone.
        """
        try:
            for _ in range(untimed - 1):  # each is two calls, the first of which is never timed
                self._seconds()
            return self._seconds()
        except ArtifactError as error:
            raise WorkerError(str(error)) from error

    def wait_until_asleep(self, *, at_least_s: float, at_most_s: float) -> bool:
        """Waits until its process computes no more, and returns whether that came to be."""
        start = time.monotonic()
        time.sleep(at_least_s)
        while True:
            before = self._cpu_ticks()
            time.sleep(_LOOK_S)
            if self._cpu_ticks() - before <= _IDLE_TICKS:
                return True
            if time.monotonic() - start > at_most_s:
                return False

    def memory_peak_bytes(self) -> int | None:
        """Returns the most memory that its process had resident; None where that is not known."""
        for line in self._files.text("/proc/self/status").splitlines():
            name, _, value = line.partition(":")
            if name == "VmHWM":
                return int(value.split()[0]) << 10  # "1234 kB", which are KiB
        return None

    def close(self) -> None:
        """Ends its process."""
        self._module.close()

    def _cpu_ticks(self) -> int:
        """Returns the CPU time of its process so far, in ticks of the kernel's."""
        try:
            words = self._files.text("/proc/self/stat").rpartition(")")[2].split()
        except TargetError as error:
            raise WorkerError(str(error)) from error
        return sum(int(word) for word in words[11:13])  # utime, stime (proc(5))
