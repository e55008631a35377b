"""A process that runs one contestant, as this process sees it."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tvmdet.report.machine import read_text
from tvmdet.report.rivals import serve

__all__ = ["Arrays", "Worker", "WorkerError"]

Arrays = dict[str, Any]

_SERVE = Path(serve.__file__)
_LOG_LINES = 6
_POLL_S = 0.002


class WorkerError(Exception):
    """A contestant cannot be loaded or run; the message is the contestant's own."""


class Worker:
    """One runtime in a process of its own, asleep while it is not asked anything.

    Use as a context manager; a worker that did not answer in time is killed.
    """

    def __init__(
        self, python: Path, rival: Path, *, threads: int, environment: Mapping[str, str]
    ) -> None:
        """Starts the process.

        Args:
            python: The interpreter that has the runtime.
            rival: The file that loads and runs it.
            threads: Threads that it may compute with.
            environment: Of the process; variables that size thread pools are added.
        """
        self._log = tempfile.TemporaryFile(prefix="tvmdet-worker-")  # noqa: SIM115
        variables = {**environment, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [str(python), "-P", str(_SERVE), str(rival)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=variables,
        )

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the process."""
        self.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def load(
        self,
        model: Path,
        signature: Mapping[str, Any],
        options: Mapping[str, Any],
        *,
        timeout_s: float = 900.0,
    ) -> dict[str, Any]:
        """Loads a model; returns the runtime's version and settings.

        Raises:
            WorkerError: It cannot be loaded.
        """
        header = {"do": "load", "model": str(model), "signature": signature, "options": options}
        return self._ask(header, {}, timeout_s)[0]

    def feed(self, inputs: Arrays) -> None:
        """Sets the inputs of the calls that follow.

        Raises:
            WorkerError: The process has ended.
        """
        self._ask({"do": "feed"}, inputs, 120.0)

    def run(self, *, timeout_s: float = 600.0) -> Arrays:
        """Returns the outputs by name.

        Raises:
            WorkerError: The runtime failed.
        """
        return self._ask({"do": "run"}, {}, timeout_s)[1]

    def time(self, *, untimed: int = 1, timeout_s: float = 600.0) -> float:
        """Returns the seconds of one call after some that are not timed.

        Raises:
            WorkerError: The runtime failed.
        """
        header = {"do": "time", "untimed": untimed}
        return float(self._ask(header, {}, timeout_s)[0]["seconds"])

    def call(self, function: str, *, timeout_s: float = 600.0, **arguments: Any) -> Any:
        """Returns what a further function of the rival's file answers.

        Raises:
            WorkerError: It failed.
        """
        header = {"do": "call", "function": function, "arguments": arguments}
        return self._ask(header, {}, timeout_s)[0]["value"]

    def wait_until_asleep(self, *, at_least_s: float, at_most_s: float) -> bool:
        """Waits until no thread of the process runs, and returns whether that came to be.

        Idle threads of every runtime spin for a while after a call, on cores that the next
        contestant needs.
        """
        start = time.monotonic()
        time.sleep(at_least_s)
        while self._is_running():
            if time.monotonic() - start > at_most_s:
                return False
            time.sleep(_POLL_S)
        return True

    def memory_peak_bytes(self) -> int | None:
        """Returns the most memory that the process had resident, None where that is not known."""
        for line in read_text(f"/proc/{self.pid}/status").splitlines():
            name, _, value = line.partition(":")
            if name == "VmHWM":
                return int(value.split()[0]) << 10  # "1234 kB", which are KiB
        return None

    def close(self) -> None:
        """Ends the process; closing twice does nothing."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                # What a dead process did not read is lost, and nobody waits for it.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _is_running(self) -> bool:
        for task in Path(f"/proc/{self.pid}/task").glob("*/stat"):
            try:
                # "pid (name) state ...", and a name may hold anything but the last bracket.
                state = task.read_text(errors="replace").rpartition(")")[2].split()[0]
            except (OSError, IndexError):
                continue  # the thread has ended
            if state == "R":
                return True
        return False

    def _ask(self, header: Mapping[str, Any], arrays: Arrays, timeout_s: float) -> serve.Message:
        stdin = self._process.stdin
        assert stdin is not None
        deadline = time.monotonic() + timeout_s

        def read(count: int) -> bytes:
            return self._read(count, deadline, timeout_s)

        try:
            stdin.writelines(serve.encode(header, arrays))
            stdin.flush()
            answer = serve.decode_header(read)
            if answer is None:
                raise WorkerError(self._epitaph())
            received = serve.receive_arrays(answer, read)
        except (OSError, EOFError) as error:
            raise WorkerError(self._epitaph()) from error
        if "error" in answer:
            raise WorkerError(str(answer["error"]))
        return answer, received

    def _read(self, count: int, deadline: float, timeout_s: float) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        parts: list[bytes] = []
        while count:
            ready, _, _ = select.select([stdout], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                self._process.kill()
                raise WorkerError(f"no answer within {timeout_s:g} s")
            part = os.read(stdout.fileno(), min(count, 1 << 20))
            if not part:
                break  # the process has ended
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _epitaph(self) -> str:
        """Says how the process ended, with the end of what it printed."""
        try:
            code: object = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            code = "none yet"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()[-_LOG_LINES:]
        said = "; it said: " + " | ".join(lines) if lines else ""
        return f"its process ended (exit status {code}){said}"
