"""Times the kernels of a tuning plan: python measure.py [--limit TIME_S].

Copied as measure.py into the folder of a plan by `tvmdet tune --plan`, and run where the hardware
is. Needs Python 3.10, numpy, and TVM's runtime: pip install apache-tvm (its compiler is not used,
and tvmdet itself is not needed).

Each result is a line of results.jsonl, on disk before the next kernel runs: stop it whenever you
like, and run it again to go on. Kernels run in a process of their own, so that one that crashes or
hangs costs itself alone; one that answers otherwise than the default is recorded as failed. Take
the folder back to `tvmdet tune --collect` when it is done.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PLAN_VERSION = 2
"""2: with the default, which answers are compared with, and the GPU."""

_HERE = Path(__file__).resolve().parent
_RESULTS = _HERE / "results.jsonl"
_KERNEL_TIMEOUT_S = 30.0
_MEASURE_S = 0.05
_REPEATS = 10
_TEGRA = frozenset({53, 62, 72, 87, 101})


def main() -> int:
    """Measures what nobody has measured; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds to stop after")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        plan = read_plan(_HERE / "plan.json")
        if given.child is not None:
            _serve(plan, given.child)
            return 0
        return _measure(plan, given.limit)
    except PlanError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; every result so far is kept, run it again to go on", file=sys.stderr)
        return 130


class PlanError(Exception):
    """The folder cannot be measured here."""


def read_plan(path: Path) -> dict[str, Any]:
    """Reads a plan.

    Raises:
        PlanError: It is not there, or of another version.
    """
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path} cannot be read: {error}; copy the whole folder again") from error
    if plan.get("version") != PLAN_VERSION:
        raise PlanError(
            f"{path} is a plan of version {plan.get('version')!r}; this measure.py measures "
            f"version {PLAN_VERSION}: make the plan again, with the measure.py that comes with it"
        )
    return plan


def _measure(plan: dict[str, Any], limit_s: float) -> int:
    end = time.monotonic() + limit_s
    done = {(line["task"], line["candidate"]) for line in _read_results(plan)}
    total = sum(len(task["candidates"]) for task in plan["tasks"])
    candidates = "candidate" if total == 1 else "candidates"
    print(f"{total - len(done)} of {total} {candidates} to measure for {plan['target']}")
    for number, task in enumerate(plan["tasks"]):
        waiting = [c for c in range(len(task["candidates"])) if (number, c) not in done]
        while waiting and time.monotonic() < end:
            for candidate, result in _ask_child(number, waiting, end):
                _write({"task": number, "candidate": candidate, "plan": plan["id"], **result})
                waiting.remove(candidate)
                said = result.get("error") or f"{min(result['latencies_s']) * 1e6:.1f} us"
                print(f"{task['anchor']}, {candidate}: {said}", flush=True)
        if time.monotonic() >= end:
            print("the time is spent; run it again to go on")
            return 0
    print("all measured; take this folder back to: tvmdet tune --collect DIR")
    return 0


def _ask_child(
    task: int, candidates: list[int], end: float
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the results of one process, until it has measured all or one ended it."""
    child = subprocess.Popen(
        [sys.executable, str(_HERE / "measure.py"), "--child", str(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        problem, kind = _greeting(child)
        if problem:  # without the default's answer nothing says whether another's is right
            for candidate in list(candidates):
                yield candidate, {"error": f"the default {problem}", "error_kind": kind}
            return
        for candidate in list(candidates):
            if time.monotonic() >= end:
                return
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(f"{candidate}\n")
                child.stdin.flush()
            line = _read_line(child, _KERNEL_TIMEOUT_S)
            if line is None:
                child.kill()
                took = f"took longer than {_KERNEL_TIMEOUT_S:.0f} s"
                yield candidate, {"error": took, "error_kind": "timeout"}
                return
            if not line:
                yield candidate, {"error": _how_it_ended(child.wait()), "error_kind": "crash"}
                return
            answer = json.loads(line)
            yield candidate, answer
            if answer.get("poisoned"):  # a GPU that failed once answers nothing in this process
                return
    finally:
        child.stdin.close()
        child.stdout.close()
        child.kill()
        child.wait()


def _greeting(child: subprocess.Popen[str]) -> tuple[str, str]:
    """Returns why the default gave no answer and what kind of error that is; nothing when it did.

    Raises:
        PlanError: The folder cannot be measured here.
    """
    line = _read_line(child, _KERNEL_TIMEOUT_S)
    if line is None:
        child.kill()
        return f"took longer than {_KERNEL_TIMEOUT_S:.0f} s", "timeout"
    if not line:
        return f"gave no answer: {_how_it_ended(child.wait())}", "crash"
    greeting = json.loads(line)
    if "fatal" in greeting:
        raise PlanError(greeting["fatal"])
    return greeting["problem"], "run"


def _read_line(child: subprocess.Popen[str], timeout_s: float) -> str | None:
    """Returns a line of a process, empty when it has ended, None when it took too long."""

    def ring(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        assert child.stdout is not None
        return child.stdout.readline()
    except TimeoutError:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with code {code}"


def _read_results(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Reads the results so far; a line that a crash tore off is removed."""
    if not _RESULTS.exists():
        return []
    data = _RESULTS.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        with _RESULTS.open("r+b") as file:
            file.truncate(len(whole))
    lines = [json.loads(line) for line in whole.splitlines()]
    if any(line["plan"] != plan["id"] for line in lines):
        raise PlanError(
            f"{_RESULTS} holds results of another plan; move it away, or copy the folder again"
        )
    return lines


def _write(result: dict[str, Any]) -> None:
    with _RESULTS.open("ab") as file:
        file.write(json.dumps(result).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


# In the child


def _serve(plan: dict[str, Any], number: int) -> None:
    """Runs the default, then measures the candidates whose numbers come in, one a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        bench = _Bench(plan, plan["tasks"][number])
        greeting = {"problem": bench.run_default()}
    except PlanError as error:
        greeting = {"fatal": str(error)}
    print(json.dumps(greeting), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(bench.measure(int(line))), file=answers, flush=True)


class _Bench:
    """One task: its library, its arguments, and the device that they are on."""

    def __init__(self, plan: dict[str, Any], task: dict[str, Any]) -> None:
        path = _HERE / task["library"]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != task["sha256"]:
            raise PlanError(f"{path} is missing or damaged; copy the whole folder again")
        self._task = task
        self._ffi = _load_runtime(plan["device"])
        index, self._name = _device(plan["device"], plan["sm"])
        self._device = self._ffi.device(plan["device"], index)
        get = self._ffi.get_global_func
        self._wait, self._copy = (
            get("runtime.Device_StreamSync"),
            get("runtime.TVMTensorCopyFromTo"),
        )
        self._allowed = float(plan["tolerance"])
        self._right: list[np.ndarray] = []
        try:
            self._library = self._ffi.load_module(path)
            self._given = [
                _numbers(dtype, shape, seed)
                for seed, (dtype, shape) in enumerate(task["arguments"])
            ]
            self._arguments = [self._tensor(array) for array in self._given]
        except Exception as error:
            raise PlanError(f"{path.name} cannot be loaded here: {_first_line(error)}") from error

    def _tensor(self, array: np.ndarray) -> Any:
        made = self._ffi.get_global_func("runtime.TVMTensorAllocWithScope")(
            self._ffi.Shape(array.shape), self._ffi.dtype(str(array.dtype)), self._device, None
        )
        self._copy(self._ffi.from_dlpack(array), made)
        return made

    def run_default(self) -> str:
        """Keeps what the default answers; says why it does not, or nothing."""
        try:
            self._right = self._answer(self._library[self._task["default"]])
        except Exception as error:  # TVM raises whatever its C++ side named
            return f"fails: {_first_line(error)}"
        return ""

    def _answer(self, call: Any) -> list[np.ndarray]:
        """Returns what all arguments are after a call: results are among them, and what is read."""
        for array, tensor in zip(self._given, self._arguments, strict=True):
            self._copy(self._ffi.from_dlpack(array), tensor)
        call(*self._arguments)
        self._wait(self._device, 0)
        found = [np.empty_like(array) for array in self._given]
        for array, tensor in zip(found, self._arguments, strict=True):
            self._copy(tensor, self._ffi.from_dlpack(array))
        self._wait(self._device, 0)
        return found

    def measure(self, candidate: int) -> dict[str, Any]:
        """Times one candidate: a trial first, then rounds of calls that fill the time."""
        function = self._task["candidates"][candidate]["function"]
        try:
            call = self._library[function]
            if wrong := _difference(self._answer(call), self._right, self._allowed):
                return {"error": f"wrong: {wrong} than the default", "error_kind": "wrong"}
            first = min(self._round(call, 1) for _ in range(3))
            calls = max(1, min(1000, int(_MEASURE_S / _REPEATS / max(first, 1e-7))))
            latencies = [self._round(call, calls) for _ in range(_REPEATS)]
        except Exception as error:  # TVM raises whatever its C++ side named
            return {"error": _first_line(error), "error_kind": "run", "poisoned": True}
        rounded = [float(f"{one:.4g}") for one in latencies]
        return {"latencies_s": rounded, "device": self._name, "time": round(time.time(), 3)}

    def _round(self, call: Any, times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            call(*self._arguments)
        self._wait(self._device, 0)
        return (time.perf_counter() - start) / times


def _numbers(dtype: str, shape: list[int], seed: int) -> np.ndarray:
    """Returns numbers that are safe to run any kernel on: no zeros to divide by, no indices."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        array = (rng.random(shape, np.float32) * 0.9 + 0.1).astype(dtype)
    elif dtype in ("uint8", "int8"):
        array = rng.integers(0, 100, shape).astype(dtype)
    else:
        array = rng.integers(0, 2, shape).astype(dtype)
    return np.ascontiguousarray(array)


def _difference(got: list[np.ndarray], right: list[np.ndarray], allowed: float) -> str:
    """Says how answers differ, floats by more than a share of the greatest value; else nothing."""
    for index, (one, other) in enumerate(zip(got, right, strict=True)):
        same = (one == other) | ((one != one) & (other != other))
        if one.dtype.kind == "f":
            ours, theirs = one.astype(np.float64), other.astype(np.float64)
            greatest = np.abs(theirs, where=np.isfinite(theirs), out=np.zeros_like(theirs)).max()
            with np.errstate(invalid="ignore"):
                same |= np.abs(ours - theirs) <= allowed * greatest
        if not same.all():
            return f"{same.size - np.count_nonzero(same)} of argument {index}'s numbers are others"
    return ""


def _load_runtime(device: str) -> Any:
    """Loads tvm_ffi and TVM's runtime, without TVM's compiler."""
    found = importlib.util.find_spec("tvm")
    folders = list(found.submodule_search_locations or ()) if found else []
    try:
        import tvm_ffi

        if device == "cuda":
            _load_cuda_runtime()
        libraries = ["libtvm_runtime.so", *(["libtvm_runtime_cuda.so"] if device == "cuda" else [])]
        for library in libraries:
            ctypes.CDLL(str(Path(folders[0], "lib", library)), ctypes.RTLD_GLOBAL)
    except (ImportError, OSError, IndexError) as error:
        raise PlanError(
            f"TVM's runtime cannot be loaded ({error}); pip install apache-tvm"
            + (" 'nvidia-cuda-runtime>=13,<14', and a driver for CUDA 13" * (device == "cuda"))
        ) from error
    return tvm_ffi


def _load_cuda_runtime() -> None:
    """Loads the CUDA runtime: the system's, else that of the pip package."""
    try:
        ctypes.CDLL("libcudart.so.13", ctypes.RTLD_GLOBAL)
    except OSError:
        found = importlib.util.find_spec("nvidia")
        for folder in (found.submodule_search_locations or ()) if found else ():
            library = Path(folder, "cu13", "lib", "libcudart.so.13")
            if library.is_file():
                ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
                return
        raise


def _device(device: str, sm: str) -> tuple[int, str]:
    """Returns the index and the name of what a plan is measured on."""
    if device == "cuda":
        return _find_gpu(ctypes.CDLL("libcuda.so.1"), sm)
    return 0, _cpu_name()


def _find_gpu(driver: Any, sm: str) -> tuple[int, str]:
    """Returns the first GPU that runs code for ``sm``, as tvmdet chooses one: see tvmdet/gpus.py.

    Raises:
        PlanError: There is none.
    """
    count, seen, wanted = ctypes.c_int(), [], int(sm.removeprefix("sm_"))
    driver.cuInit(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    for index in range(count.value):
        handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(handle), index)
        driver.cuDeviceGetName(name, len(name), handle)
        driver.cuDeviceGetAttribute(ctypes.byref(major), 75, handle)  # CUdevice_attribute
        driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, handle)
        have, called = major.value * 10 + minor.value, name.value.decode(errors="replace")
        same = major.value == wanted // 10 and have >= wanted
        if have == wanted or (same and not {have, wanted} & _TEGRA):
            return index, called
        seen.append(f"{called} (sm_{have})")
    raise PlanError(
        f"the kernels are for {sm}, and this machine has {', '.join(seen) or 'no GPU'}; measure "
        f"them where such a GPU is, or make a plan for this one: tvmdet tune --plan --target cuda"
    )


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "CPU part", "Model"):
                return value.strip()
    return ""


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else ''}"


if __name__ == "__main__":
    sys.exit(main())
