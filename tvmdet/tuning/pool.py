"""Worker processes that may crash, hang or grow without the tuner noticing more than an answer.

Workers are started as ``python worker.py`` and not forked or spawned by ``multiprocessing``: a
fork would copy TVM's thread pool in an unknown state, and a spawn runs the caller's main module
again, which breaks every script without an ``if __name__ == "__main__"`` guard.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["START_HINT", "WorkerPool"]

_SCRIPT = Path(__file__).with_name("worker.py")
_START_TIMEOUT_S = 120.0
START_HINT = f"run `{sys.executable} -P {_SCRIPT} < /dev/null` to see why"
_POLL_S = 0.1
# LLVM keeps some memory of every function it has seen.
_MAX_JOBS = 400
_MAX_RSS_MB = 2048.0

Answer = dict[str, Any]


class _Worker:
    """One process and its pipe; started on first use, and again after it died."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._jobs = 0
        self._buffer = b""

    def start(self) -> None:
        """Starts the process without waiting for it to be ready."""
        if self._process is not None:
            return
        # TVM's pool would take half of the logical cores, and no later setting can exceed that.
        env = os.environ | {"TVM_NUM_THREADS": str(self._threads)}
        self._process = subprocess.Popen(
            # -P: the folder of the script, with modules of common names, stays off sys.path.
            [sys.executable, "-P", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,  # Ctrl-C in the terminal is for the tuner alone
        )
        self._ready, self._jobs, self._buffer = False, 0, b""

    def fileno(self) -> int:
        """Returns the descriptor that answers come from."""
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.fileno()

    def send(self, request: dict[str, Any]) -> None:
        """Hands a request over; a worker that is gone shows when its answer is read."""
        assert self._process is not None and self._process.stdin is not None
        data = json.dumps(request).encode()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(len(data).to_bytes(4, "little") + data)
            self._process.stdin.flush()
        self._jobs += 1

    def receive(self) -> Answer | None:
        """Reads what is there; returns the answer once it is whole.

        Raises:
            EOFError: The process is gone.
        """
        chunk = os.read(self.fileno(), 1 << 16)
        if not chunk:
            raise EOFError
        self._buffer += chunk
        size = int.from_bytes(self._buffer[:4], "little")
        if len(self._buffer) < 4 + size or len(self._buffer) < 4:
            return None
        answer: Answer = json.loads(self._buffer[4 : 4 + size])
        self._buffer = self._buffer[4 + size :]
        if not self._ready:
            self._ready = "ready" in answer
            return None
        return answer

    @property
    def ready(self) -> bool:
        """Whether the process has said that it can work."""
        return self._ready

    def recycle(self, answer: Answer) -> None:
        """Ends a process that has grown; the next request starts a new one."""
        if self._jobs >= _MAX_JOBS or answer.get("rss_mb", 0.0) > _MAX_RSS_MB:
            self.kill()

    def kill(self) -> int | None:
        """Ends the process at once; returns its exit status, negative for a signal."""
        process, self._process = self._process, None
        if process is None:
            return None
        # One that has just died keeps its own status: kill() then does nothing.
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        return status

    def died(self) -> Answer:
        """Reaps a process whose pipe closed; returns what to say of it."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        was_ready = self._ready
        status = self.kill() or 0
        if not was_ready:
            return {"error": f"it ended with status {status}", "error_kind": "start"}
        if status == -signal.SIGKILL:  # the kernel, out of memory, or a person
            return {"error": "the process was killed", "error_kind": "killed"}
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return {"error": f"the process died: {name}", "error_kind": "crash"}


@dataclass(kw_only=True)
class _Job:
    """A request on its way: a worker that is still starting is sent it when it is ready."""

    index: int
    deadline: float
    sent: bool


class WorkerPool:
    """A few workers that answer requests in parallel, each within its time.

    Use as a context manager; leaving it ends every process.
    """

    def __init__(
        self, size: int, *, threads: int, stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Makes a pool; processes start on first use or by :meth:`start`.

        Args:
            size: Number of processes.
            threads: Threads that each may use to run kernels.
            stop: Asked a few times a second while waiting; once true, what is unfinished is
                abandoned.
        """
        self._workers = [_Worker(threads) for _ in range(size)]
        self._stop = stop

    def __enter__(self) -> WorkerPool:
        """Returns the pool itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Ends every process."""
        self.close()

    @property
    def size(self) -> int:
        """How many requests are worked on at a time."""
        return len(self._workers)

    def start(self) -> None:
        """Starts the processes, so that they load while something else is done."""
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """Ends every process; the pool may be used again."""
        for worker in self._workers:
            worker.kill()

    def map(self, requests: Sequence[dict[str, Any]], timeout_s: float) -> list[Answer]:
        """Has every request answered.

        Args:
            requests: Plain JSON values.
            timeout_s: For one request. A worker that takes longer is ended.

        Returns:
            The answers in the order of the requests. One with ``error`` has also an
            ``error_kind`` when the worker did not answer: ``crash``, ``killed``, ``timeout``,
            ``start`` (no worker can be started) or ``stopped``.
        """
        answers: list[Answer | None] = [None] * len(requests)
        waiting = list(range(len(requests)))[::-1]
        busy: dict[_Worker, _Job] = {}
        while waiting or busy:
            if self._stop():
                for worker in busy:
                    worker.kill()
                break
            for worker in self._workers:
                if waiting and worker not in busy:
                    worker.start()
                    deadline = time.monotonic() + _START_TIMEOUT_S
                    busy[worker] = _Job(index=waiting.pop(), deadline=deadline, sent=False)
                self._send_when_ready(worker, busy.get(worker), requests, timeout_s)
            readable, _, _ = select.select(list(busy), [], [], _POLL_S)
            for worker, job in list(busy.items()):
                answer = self._answer(worker, job, worker in readable, timeout_s)
                if answer is not None:
                    answers[job.index] = answer
                    del busy[worker]
        stopped = {"error": "tuning was stopped", "error_kind": "stopped"}
        return [answer if answer is not None else stopped for answer in answers]

    def _send_when_ready(
        self,
        worker: _Worker,
        job: _Job | None,
        requests: Sequence[dict[str, Any]],
        timeout_s: float,
    ) -> None:
        if job is not None and worker.ready and not job.sent:
            worker.send(requests[job.index])
            job.sent = True
            job.deadline = time.monotonic() + timeout_s

    def _answer(
        self, worker: _Worker, job: _Job, readable: bool, timeout_s: float
    ) -> Answer | None:
        if readable:
            try:
                answer = worker.receive()
            except EOFError:
                return worker.died()
            if answer is not None:
                worker.recycle(answer)
            return answer
        if time.monotonic() > job.deadline:
            worker.kill()
            if not job.sent:
                return {"error": f"not ready in {_START_TIMEOUT_S:g} s", "error_kind": "start"}
            return {"error": f"no answer in {timeout_s:g} s", "error_kind": "timeout"}
        return None
