"""The other side of the pipe: builds or runs one candidate at a time, in its own process.

This file is run by its path, not imported: it must not load the package around it, so that a
worker is ready after ``import tvm`` alone. Each message is four bytes of length, then JSON, on
descriptors 0 and 1; nothing is unpickled. Whatever a kernel prints goes to standard error.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import resource
import runpy
import signal
import subprocess
import time
from typing import Any, BinaryIO

import numpy as np
import tvm

_PR_SET_PDEATHSIG = 1
_MAX_ERROR = 600
# Everything but the first argument of a kernel is flushed from the caches before each call. In a
# network the picture was written a moment ago, while weights were last read an inference ago, and
# were driven out since: with warm weights the kernels of a YOLOv8n summed to 15 % less than the
# network took, and Winograd's weights, four times as large, looked cheaper than they are.
_FLUSH = "cache_flush_cpu_non_first_arg"
_FEWEST, _MOST = 5, 40  # timed calls of a candidate
# A median so many times the minimum shows that other programs took part.
_NOISY = 1.25
_MORE_ROUNDS = 2


def main() -> None:
    """Answers requests until the pipe closes."""
    # A tuner that is killed must not leave a worker in an endless loop behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    requests = os.fdopen(0, "rb", closefd=False)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit_memory()
    runner, board = _Runner(), _BoardRunner()
    _send(answers, {"ready": os.getpid()})
    while (request := _receive(requests)) is not None:
        try:
            if request["op"] == "build":
                answer = _build(request)
            else:
                answer = (board if request["board"] else runner).run(request)
        except Exception as error:  # the boundary of the process: every failure is an answer
            answer = {"error": _one_line(error)}
        answer["rss_mb"] = _rss_mb()
        _send(answers, answer)


def _build(request: dict[str, Any]) -> dict[str, Any]:
    """Compiles a module to a shared library.

    The object is linked by ``ld`` itself: 4 ms, where the compiler driver takes 30 and
    ``export_library`` 65. Without linking (LLVM's JIT) the machine code would be made in the
    process that measures, 45 ms a candidate that two builders now do side by side.
    """
    start = time.perf_counter()
    mod = tvm.ir.load_json(request["module"])
    with tvm.transform.PassContext(config=request["code_options"]):
        target = tvm.target.Target(request["target"])
        built = tvm.tirx.build(mod, target, _pipeline(request["pipeline"]))
    stem = os.path.splitext(request["path"])[0]
    built.write_to_file(stem + ".o")
    compiled = time.perf_counter()
    linked = subprocess.run(
        [*request["linker"], "-shared", "-o", request["path"], stem + ".o"],
        check=False,
        capture_output=True,
        text=True,
    )
    os.unlink(stem + ".o")
    if linked.returncode:
        return {"error": f"ld failed: {linked.stderr.strip()[:_MAX_ERROR]}"}
    return {"compile_s": compiled - start, "link_s": time.perf_counter() - compiled}


@functools.cache
def _pipeline(path: str) -> str:
    """Registers the pipeline that a file of the package defines; returns its name."""
    return str(runpy.run_path(path)["PIPELINE"])


class _Runner:
    """Measures libraries on one set of arguments, kept while the shapes stay the same."""

    def __init__(self) -> None:
        self._key = ""
        self._args: list[Any] = []
        self._threads = 0

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Times one library on this machine."""
        self._set_threads(request["threads"])
        args = self._arguments(request["args"])
        return _time(tvm.runtime.load_module(request["path"]), tvm.cpu(), args, request)

    def _set_threads(self, threads: int) -> None:
        if threads != self._threads:
            tvm.get_global_func("runtime.config_threadpool")(1, threads)
            self._threads = threads

    def _arguments(self, infos: list[Any]) -> list[Any]:
        key = json.dumps(infos)
        if key != self._key:
            self._args = []
            self._args = [random_tensor(dtype, shape, i) for i, (dtype, shape) in enumerate(infos)]
            self._key = key
        return self._args


class _BoardRunner:
    """Measures libraries on a board, over one connection while it lasts."""

    def __init__(self) -> None:
        self._session: Any = None
        self._key = ""
        self._args: list[Any] = []
        self._uploads = 0

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Times one library.

        Only what happens while it runs may be the candidate's fault: an error in it (``run``), or
        the end of the connection (``lost``), which an illegal instruction looks like. Everything
        else is of kind ``board``: nobody answers, no space for the library, a wrong kit.
        """
        kind, name = "board", ""
        try:
            if self._session is None:
                self._connect(request)
            name = self._upload(request["path"])
            library = self._session.load_module(name)
            args = self._arguments(request["args"])
            kind = "run"
            return _time(library, self._session.cpu(0), args, request)
        except Exception as error:  # TVM raises anything
            if not self._is_alive() and kind == "run":
                kind = self._why_gone(request)
            return {"error": _one_line(error), "error_kind": kind}
        finally:
            if name and self._is_alive():
                self._session.remove(name)

    def _upload(self, path: str) -> str:
        self._uploads += 1  # a file that is loaded must not be written again
        name = f"k{self._uploads}.so"
        with open(path, "rb") as file:
            self._session.upload(bytearray(file.read()), name)
        return name

    def _arguments(self, infos: list[Any]) -> list[Any]:
        key = json.dumps(infos)
        if key != self._key:
            self._args, self._key = [], ""
            device = self._session.cpu(0)
            self._args = [
                tvm.runtime.tensor(random_tensor(dtype, shape, i).numpy(), device)
                for i, (dtype, shape) in enumerate(infos)
            ]
            self._key = key
        return self._args

    def _connect(self, request: dict[str, Any]) -> None:
        from tvm import rpc

        board = request["board"]
        self._session = rpc.connect(board["host"], board["port"], board["key"])
        self._session.get_function("runtime.config_threadpool")(1, request["threads"])

    def _is_alive(self) -> bool:
        """Whether the connection answers: an error within a call leaves it whole."""
        if self._session is None:
            return False
        try:
            self._session.get_function("runtime.NumThreads")()
        except Exception:  # TVM raises anything
            self._session, self._args, self._key = None, [], ""
            return False
        return True

    def _why_gone(self, request: dict[str, Any]) -> str:
        """Tells a connection that was ``lost`` from a board that is gone."""
        try:
            self._connect(request)
        except Exception:  # TVM raises anything
            self._session = None
            return "board"
        return "lost"


def _time(library: Any, device: Any, args: list[Any], request: dict[str, Any]) -> dict[str, Any]:
    """Times one library: a trial call first, then repeats that fill the time given."""
    trial = library.time_evaluator("main", device, number=1, repeat=1, f_preproc=_FLUSH)
    # The first call of all also loads the code and the scratch memory.
    first = min(trial(*args).results[0], trial(*args).results[0])
    limit = request["abort_above_s"]
    if limit is not None and first > limit:
        # Twice, since a candidate may have met a busy moment.
        first = min(first, trial(*args).results[0])
        if first > limit:
            return {"latencies_s": [first], "aborted": True}
    repeats = min(_MOST, max(_FEWEST, int(request["measure_s"] / max(first, 1e-9))))
    timed = library.time_evaluator("main", device, number=1, repeat=repeats, f_preproc=_FLUSH)
    latencies = list(timed(*args).results)
    for _ in range(_MORE_ROUNDS):
        if np.median(latencies) < _NOISY * min(latencies):
            break
        latencies += timed(*args).results  # the machine is busy: wait for quiet moments
    return {"latencies_s": latencies, "aborted": False}


def random_tensor(dtype: str, shape: list[int], seed: int) -> Any:
    """Returns an array that is safe to run any kernel on.

    Floats lie in [0.1, 1): never zero, denormal or negative, so that no division, root or
    logarithm of them is slow or sets off a data-dependent loop. Wide integers may be indices:
    0 and 1 are within any axis that is worth gathering from.
    """
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape, dtype=np.int64))
    count = max(1, min(size, 65521))  # a prime, so that rows of the array differ
    if dtype == "bool":
        block = rng.integers(0, 2, count).astype("bool")
    elif dtype in ("uint8", "int8"):
        bounds = np.iinfo(dtype)
        block = rng.integers(bounds.min, bounds.max, count, dtype=dtype, endpoint=True)
    elif dtype.startswith(("int", "uint")):
        block = rng.integers(0, 2, count).astype(dtype)
    elif dtype.startswith("float") and hasattr(np, dtype):
        block = (rng.random(count, dtype="float32") * 0.9 + 0.1).astype(dtype)
    else:
        tensor = tvm.runtime.empty(shape, dtype)
        tvm.get_global_func("tvm.contrib.random.random_fill_for_measure")(tensor)
        return tensor
    return tvm.runtime.tensor(np.resize(block, shape))


def _limit_memory() -> None:
    """Makes a candidate that wants more than the machine has fail by itself."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = total if hard == resource.RLIM_INFINITY else min(total, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _one_line(error: BaseException) -> str:
    """Returns the telling line of an error: TVM prints the whole function before it."""
    text = str(error).strip()
    text = text.rpartition("Error message:")[2] or text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[-_MAX_ERROR:]}"


def _rss_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _send(pipe: BinaryIO, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    pipe.write(len(data).to_bytes(4, "little") + data)
    pipe.flush()


def _receive(pipe: BinaryIO) -> dict[str, Any] | None:
    head = pipe.read(4)
    if len(head) < 4:
        return None
    data = pipe.read(int.from_bytes(head, "little"))
    message: dict[str, Any] = json.loads(data)
    return message


if __name__ == "__main__":
    main()
