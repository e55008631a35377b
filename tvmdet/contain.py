"""Work on files that nobody vouches for, in a process whose death is an error message.

ONNX's checker and shape inference, onnxslim, ONNX Runtime and TVM are native code: a damaged
graph can make them crash, hang or take all memory, and then no exception is raised. The import
stage of a model therefore runs in a fresh interpreter first. It hands its result back as bytes;
when it dies instead, the last step that it told of is named.

This keeps the caller alive. It is no sandbox: the process has the rights of its user.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tvmdet import steps
from tvmdet.errors import InputError, ModelError, TvmdetError

__all__ = ["Bounds", "Contained", "available_memory_bytes", "serve", "start"]

_LOG = logging.getLogger("tvmdet.contain")
_STEP, _RESULT, _ERROR, _UNFORESEEN = b"s", b"r", b"e", b"u"
_HEADER_BYTES = 9  # a kind, then the length of what follows
_LONGEST_TOLD = 2000  # bytes of what native code says on stderr before it dies
_PARENT_POLL_S = 1.0
_SMALLEST_MEMORY = 1024**3
_SHARE_OF_AVAILABLE = 0.9
_REPORT = (
    "the file is damaged, or it meets a defect of that code: check and export it again, or "
    "report it with the model and this line"
)
# The parent's own module search path, so that both run the same code.
_BOOT = """\
import sys
sys.path[:] = {path!r}
from tvmdet.contain import serve
serve({writer})
"""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What contained work may take.

    Attributes:
        timeout_s: Wall time in seconds.
        memory_bytes: Memory of its process; by default most of what this machine has free.
    """

    timeout_s: float = 1800.0
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuses bounds that nothing can keep."""
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise InputError(f"timeout_s is {self.timeout_s}; give a positive number of seconds")
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise InputError(f"memory_bytes is {self.memory_bytes}; give a positive number")


class Contained:
    """Work that runs in a process of its own; made by :func:`start`."""

    def __init__(
        self, what: str, request: bytes, bounds: Bounds, tell: Callable[[str], None] | None
    ) -> None:
        """Starts the process."""
        self._what = what
        self._bounds = bounds
        self._tell = tell
        self._deadline = time.monotonic() + bounds.timeout_s
        self._last_step = "it starts"
        self._answer: tuple[bytes, bytes] | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the work)
        reader, writer = os.pipe()
        path = [str(Path(entry).absolute()) for entry in sys.path]
        boot = _BOOT.format(path=path, writer=writer)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", boot],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(writer,),
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._reader = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._reader.start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.close()
        except BrokenPipeError:
            _LOG.debug("the process of the contained work died before it was told what to do")

    def result(self) -> Any:
        """Waits for the work and returns what it made.

        Raises:
            TvmdetError: What the work raised itself.
            ModelError: Native code crashed, the work took too long or too much memory, or it
                raised what nobody foresaw.
        """
        try:
            self._reader.join(max(self._deadline - time.monotonic(), 0.0))
            late = self._reader.is_alive()
        finally:
            self._end()
        if self._answer is None and late:
            raise ModelError(
                f"{self._what} took longer than {self._bounds.timeout_s:g} s and was stopped while "
                f"{self._last_step}; give it more time (--timeout), or a smaller --size"
            )
        if self._answer is None:
            raise ModelError(self._death())
        kind, data = self._answer
        value = pickle.loads(data)
        if kind == _RESULT:
            return value
        *value, trace = value
        _LOG.debug("in the contained process:\n%s", trace)
        if kind == _UNFORESEEN:
            name, message = value
            if name == "MemoryError":
                raise ModelError(self._too_large())
            raise ModelError(
                f"{self._what} failed while {self._last_step}: {name}: {message}; {_REPORT}"
            )
        raise value[0]

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process when nobody has waited for its result."""
        if self._process.poll() is None or not self._stderr.closed:
            self._end()

    def _end(self) -> None:
        """Ends the process, whatever it does, and its pipe with it."""
        # One that is dying by itself has closed its pipe, and keeps its own status.
        if self._answer is None and self._reader.is_alive():
            self._process.kill()
        self._process.wait()
        self._reader.join()
        self._stderr.seek(0)
        self._told = self._stderr.read().decode(errors="replace")
        self._stderr.close()
        if self._told:
            _LOG.debug("the contained process wrote:\n%s", self._told[-_LONGEST_TOLD:])

    def _death(self) -> str:
        status = self._process.returncode
        if "bad_alloc" in self._told or "MemoryError" in self._told:
            return self._too_large()
        if status == -signal.SIGKILL:
            return (
                f"{self._what} was killed while {self._last_step}, as the system does when memory "
                "runs out; close other programs, or give a smaller --size"
            )
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        lines = [line for line in self._told.strip().splitlines() if line.strip()]
        said = f", saying {lines[-1].strip()[:200]!r}" if lines else ""
        return f"{self._what} crashed native code ({how}{said}) while {self._last_step}; {_REPORT}"

    def _too_large(self) -> str:
        limit = self._bounds.memory_bytes
        allowed = "" if limit is None else f" than the {limit / 1e9:.1f} GB that it may take"
        return (
            f"{self._what} needs more memory{allowed}, while {self._last_step}; give a smaller "
            "--size or --batch, or check the file: a damaged shape can ask for any amount"
        )

    def _say(self, tell: Callable[[str], None]) -> None:
        try:
            tell(self._last_step)
        except OSError:
            self._tell = None  # nobody reads it any more; the answer is still waited for

    def _read(self, descriptor: int) -> None:
        with open(descriptor, "rb") as pipe:
            while len(header := pipe.read(_HEADER_BYTES)) == _HEADER_BYTES:
                kind, size = header[:1], int.from_bytes(header[1:], "little")
                data = pipe.read(size)
                if len(data) < size:
                    return
                if kind != _STEP:
                    self._answer = (kind, data)
                    return
                self._last_step = data.decode(errors="replace")
                if self._tell is not None:
                    self._say(self._tell)


def start(
    what: str,
    function: str,
    *args: Any,
    bounds: Bounds | None = None,
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> Contained:
    """Starts a function in a fresh interpreter and returns at once.

    Args:
        what: What it does, to begin an error message: ``importing m.onnx``.
        function: ``module:name`` of a function of this package.
        args: Passed on; must pickle.
        bounds: What it may take.
        tell: Called with each step, from another thread.
        options: Passed on by name.

    Raises:
        ModelError: No process can be started.
    """
    bounds = bounds or Bounds()
    if bounds.memory_bytes is None:
        bounds = Bounds(timeout_s=bounds.timeout_s, memory_bytes=available_memory_bytes())
    request = pickle.dumps((function, args, options, bounds.memory_bytes))
    try:
        return Contained(what, request, bounds, tell)
    except OSError as error:
        raise ModelError(
            f"{what} needs a process of its own, which cannot be started: {error.strerror}"
        ) from error


def serve(writer: int) -> None:
    """Does what standard input asks for, in the contained process."""
    function, args, options, memory_bytes = pickle.load(sys.stdin.buffer)
    if memory_bytes is not None:
        # Not the address space, of which thread stacks and arenas reserve far more than they use.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    steps.listen(lambda step: _send(writer, _STEP, step.encode(errors="replace")))
    threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()
    module, name = function.split(":")
    try:
        result = getattr(importlib.import_module(module), name)(*args, **options)
        kind, data = _RESULT, pickle.dumps(result)
    except TvmdetError as error:
        kind, data = _ERROR, pickle.dumps((error, traceback.format_exc()))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        value = (type(error).__name__, first, traceback.format_exc())
        kind, data = _UNFORESEEN, pickle.dumps(value)
    _send(writer, kind, data)
    # Without the clean-up of native libraries, in which a damaged heap would show.
    os._exit(0)


def _follow_parent(parent: int) -> None:
    """Ends this process soon after the one that started it, however that ended."""
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    os._exit(1)


def _send(writer: int, kind: bytes, data: bytes) -> None:
    view = memoryview(kind + len(data).to_bytes(_HEADER_BYTES - 1, "little") + data)
    while view:
        view = view[os.write(writer, view) :]


def available_memory_bytes() -> int | None:
    """Returns most of the memory that is free here, or None where nobody says how much it is."""
    free = [value for value in (_free_of_machine(), _free_of_group()) if value is not None]
    if not free:
        return None
    return max(int(min(free) * _SHARE_OF_AVAILABLE), _SMALLEST_MEMORY)


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    known = dict(line.split(":", 1) for line in lines if ":" in line)
    found = known.get("MemAvailable", "").split()
    return int(found[0]) * 1024 if found else None


def _free_of_group(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Returns what this process's control group may still take (cgroup v2)."""
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = (folder / "memory.current").read_text(encoding="ascii").strip()
        stat = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    if limit == "max":
        return None
    # Pages of files count as used and are given back on demand.
    cached = sum(int(line.split()[1]) for line in stat if line.startswith("inactive_file "))
    return max(int(limit) - int(used) + cached, 0)
