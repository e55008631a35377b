"""The other side of the pipe: builds or runs one candidate at a time, in its own process.

This file is run by its path, not imported: it must not load the package around it, so that a
worker is ready after ``import tvm`` alone. Each message is four bytes of length, then JSON, on
descriptors 0 and 1; nothing is unpickled. Whatever a kernel prints goes to standard error.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import dataclass
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
# On this machine the picture is also written again. Left alone it lies where the last call of the
# same kernel has read it, so that one that shares out channels finds its own in its core's cache.
# In a network the kernel before has shared out rows: a depthwise convolution of 672 channels that
# took 0.06 ms so took 0.28 ms there.
_AS_IN_NETWORKS = "tvmdet.tuning.as_in_networks"
_SHARES = 64  # of a picture's rows, for as many threads at most
_FEWEST, _MOST = 5, 40  # timed calls of a candidate
# A median so many times the minimum shows that other programs took part.
_NOISY = 1.25
_MORE_ROUNDS = 2
# Two that are timed in turn: so many times each at most. A turn of a few milliseconds is short
# beside the seconds in which a machine's speed changes.
_TURNS = 8
_LONG_S = 1.0  # of calls, after which a busy machine is not waited for any more


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
        built = tvm.tirx.build(mod, target, _pipeline(request["package"]))
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
def _pipeline(package: str) -> str:
    """Registers the pipeline of the package in this folder; returns the pipeline's name.

    What the package's ``__init__`` files would load is not loaded.
    """
    for name, folder in (("tvmdet", package), ("tvmdet.passes", os.path.join(package, "passes"))):
        bare = types.ModuleType(name)
        bare.__path__ = [folder]
        sys.modules[name] = bare
    return str(importlib.import_module("tvmdet.passes.cpu_pipeline").PIPELINE)


@functools.cache
def _write_again() -> Any:
    """Returns a kernel that writes the words of an array, every thread a run of neighbours.

    It reads them first, and writes what was there: an exclusive or with its second argument, zero.
    """
    tirx = tvm.tirx
    size, each = tirx.Var("size", "int64"), tirx.Var("each", "int64")
    share, step = tirx.Var("share", "int64"), tirx.Var("step", "int64")
    zero, none = tirx.Var("zero", "int64"), tirx.const(0, "int64")
    words = tirx.decl_buffer((size,), "int64", name="words")
    at = share * each + step
    write = tirx.BufferStore(words, tirx.BufferLoad(words, [at]) ^ zero, [at])
    left = tirx.min(each, size - share * each)
    run = tirx.For(step, none, left, tirx.ForKind.SERIAL, write)
    shares = tirx.For(share, none, tirx.const(_SHARES, "int64"), tirx.ForKind.PARALLEL, run)
    body = tirx.SeqStmt([tirx.Bind(each, tirx.ceildiv(size, _SHARES)), shares])
    function = tirx.PrimFunc([words, zero], body).with_attr("global_symbol", "write_again")
    return tirx.build(tvm.IRModule({"write_again": function}), "llvm")["write_again"]


@tvm.register_global_func(_AS_IN_NETWORKS)  # type: ignore[untyped-decorator]
def _leave_as_in_networks(picture: Any, *others: Any) -> None:
    """Drives all but the picture out of the caches, and has each core write its rows of it."""
    tvm.get_global_func(_FLUSH)(picture, *others)
    words = int(np.prod(picture.shape)) * tvm.DataType(picture.dtype).itemsize // 8
    if words:
        _write_again()(picture._create_view((words,), "int64"), 0)


class _Arguments:
    """The arguments of the kernels that were run last, by their shapes."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Any]] = {}

    def of(self, infos: list[Any], device: Any, keep: int) -> list[Any]:
        """Returns arguments of the shapes given, new or kept; so many sets are kept in all."""
        key = json.dumps(infos)
        args = self._kept.pop(key, None)
        while len(self._kept) >= keep:
            del self._kept[next(iter(self._kept))]
        if args is None:
            args = [random_tensor(dtype, shape, i) for i, (dtype, shape) in enumerate(infos)]
            if device != tvm.cpu():
                args = [tvm.runtime.tensor(arg.numpy(), device) for arg in args]
        self._kept[key] = args
        return args


class _Runner:
    """Measures libraries on this machine."""

    def __init__(self) -> None:
        self._args = _Arguments()
        self._threads = 0

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Times one library, in turn with another if one is given."""
        self._set_threads(request["threads"])
        timed = [
            _Timed(
                library=tvm.runtime.load_module(one["path"]),
                device=tvm.cpu(),
                args=self._args.of(one["args"], tvm.cpu(), len(request["kernels"])),
                before=_AS_IN_NETWORKS,
            )
            for one in request["kernels"]
        ]
        return _time(timed, request)

    def _set_threads(self, threads: int) -> None:
        if threads != self._threads:
            tvm.get_global_func("runtime.config_threadpool")(1, threads)
            self._threads = threads


class _BoardRunner:
    """Measures libraries on a board, over one connection while it lasts."""

    def __init__(self) -> None:
        self._session: Any = None
        self._args = _Arguments()
        self._uploads = 0

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Times one library, in turn with another if one is given.

        Only what happens while it runs may be the candidate's fault: an error in it (``run``), or
        the end of the connection (``lost``), which an illegal instruction looks like. Everything
        else is of kind ``board``: nobody answers, no space for the library, a wrong kit.
        """
        kind, ran = "board", False
        names: list[str] = []
        try:
            if self._session is None:
                self._connect(request)
            timed = []
            for one in request["kernels"]:
                names.append(self._upload(one["path"]))
                device = self._session.cpu(0)
                args = self._args.of(one["args"], device, len(request["kernels"]))
                library = self._session.load_module(names[-1])
                timed.append(_Timed(library=library, device=device, args=args, before=_FLUSH))
            kind, ran = "run", True
            return _time(timed, request)
        except Exception as error:  # TVM raises anything
            if not self._is_alive() and kind == "run":
                kind = self._why_gone(request)
            return {"error": _one_line(error), "error_kind": kind, "ran": ran}
        finally:
            if names and self._is_alive():
                for name in names:
                    self._session.remove(name)

    def _upload(self, path: str) -> str:
        self._uploads += 1  # a file that is loaded must not be written again
        name = f"k{self._uploads}.so"
        with open(path, "rb") as file:
            self._session.upload(bytearray(file.read()), name)
        return name

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
            self._session, self._args = None, _Arguments()
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


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """A loaded library and what it is called with."""

    library: Any
    device: Any
    args: list[Any]
    before: str
    """Name of the function that is called before each call with the same arguments."""

    def call(self, repeat: int) -> list[float]:
        """Returns the seconds of so many calls with cold weights."""
        timer = self.library.time_evaluator(
            "main", self.device, number=1, repeat=repeat, f_preproc=self.before
        )
        return list(timer(*self.args).results)


def _time(kernels: Sequence[_Timed], request: dict[str, Any]) -> dict[str, Any]:
    """Times the first kernel, in turn with the second if there is one.

    A trial call comes first, then repeats that fill the time given. What is aborted was called too
    seldom to be compared: of a second kernel there is one figure then.

    ``over`` is what the first takes over what the second does: the median over the turns of the
    ratio of the fastest call of each. Where every second call takes some times as long, since other
    programs take part, the quartile of one kernel's calls is a quick call and that of the other's a
    slow one: their ratio is off by the whole of it.
    """
    candidate, *others = kernels
    # The first call of all also loads the code and the scratch memory.
    first = min(candidate.call(1) + candidate.call(1))
    beside = [min(other.call(1) + other.call(1)) for other in others]
    limit = request["abort_above_s"]
    if limit is not None:
        for now in beside:  # the limit is of another moment
            limit *= now / request["beside_s"]
        if first > limit:
            # Once more, since a candidate may have met a busy moment.
            first = min(first, *candidate.call(1))
            if first > limit:
                over = [first / now for now in beside]
                latencies = [[first], *([now] for now in beside)]
                return {"latencies_s": latencies, "over": over, "aborted": True}
    repeats = min(_MOST, max(_FEWEST, int(request["measure_s"] / max(first, 1e-9))))
    turns = min(_TURNS, repeats) if others else 1
    pairs = [(kernel, list[float]()) for kernel in kernels]
    fastest: list[list[float]] = [[] for _ in kernels]
    for more in range(1 + _MORE_ROUNDS):
        if more and (_is_quiet(pairs) or sum(sum(seconds) for _, seconds in pairs) > _LONG_S):
            break  # else the machine is busy: wait for quiet moments
        for turn in range(turns):
            # Who goes first is what a machine that slows down is kind to.
            for at in range(len(pairs))[:: -1 if turn % 2 else 1]:
                kernel, seconds = pairs[at]
                calls = kernel.call(-(-repeats // turns))
                seconds += calls
                fastest[at].append(min(calls))
    over = [float(np.median(np.divide(fastest[0], other))) for other in fastest[1:]]
    return {"latencies_s": [seconds for _, seconds in pairs], "over": over, "aborted": False}


def _is_quiet(pairs: Sequence[tuple[_Timed, list[float]]]) -> bool:
    return all(np.median(seconds) < _NOISY * min(seconds) for _, seconds in pairs)


def random_tensor(dtype: str, shape: list[int], seed: int) -> Any:
    """Returns an array that is safe to run any kernel on.

    Floats lie in [0.1, 1): never zero, denormal or negative, so that no division, root or
    logarithm of them is slow or sets off a data-dependent loop. So do uint16, which are
    bfloat16, and uint32, pairs of them.
    Wide integers may be indices: 0 and 1 are within any axis that is worth gathering from.
    """
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape, dtype=np.int64))
    count = max(1, min(size, 65521))  # a prime, so that rows of the array differ
    if dtype == "bool":
        block = rng.integers(0, 2, count).astype("bool")
    elif dtype in ("uint8", "int8"):
        bounds = np.iinfo(dtype)
        block = rng.integers(bounds.min, bounds.max, count, dtype=dtype, endpoint=True)
    elif dtype in ("uint16", "uint32"):
        floats = rng.random(count, dtype="float32") * 0.9 + 0.1
        bits = floats.view("uint32") >> 16
        block = bits.astype(dtype) if dtype == "uint16" else bits | bits[::-1] << 16
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
