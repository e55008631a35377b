"""Times every kernel inside a running network; run by ``rivals/serve.py`` in its own process.

The virtual machine has the clock read before and after each function, kernels and its own. So the
kernels are the compiled ones of the file, on the data and in the caches of a real call, and TVM's
compiler is not needed. The same code is loaded a second time without a clock, and both are called
in turn: what watching costs is seen, and the sum of the kernels can be held against the undisturbed
whole.

Between two readings lies a part of what reading takes, too. The quickest function of a network,
such as one that hands a value on, takes next to nothing: its time is taken off each. In networks of
a thousand small functions that is a quarter of the call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmdet.artifact import Artifact
from tvmdet.report.network import make_inputs, signature_of_raw
from tvmdet.runtime.loader import Host, choose_target, load_native, read_spec
from tvmdet.runtime.memory import aligned_empty
from tvmdet.runtime.native import NativeModule, configure_workers
from tvmdet.runtime.threads import native_thread

__all__ = ["CALLS", "entry_of", "profile"]

_WARM_UP = 3
_FEWEST = 8
_BUILT_IN = ("vm.builtin.", "runtime.")


def _describe(
    module: NativeModule, function: str, arguments: Sequence[Any]
) -> list[tuple[str, int]]:
    """Returns the functions of one call, in order, and how many bytes each is given."""
    calls: list[tuple[str, int]] = []

    def note(_func: Any, name: str, before: bool, _result: Any, *given: Any) -> int:
        if before:
            calls.append((name, _bytes_of(given)))
        return 0

    module.watch(note)
    module.call(function, arguments)
    return calls


def _bytes_of(arguments: Sequence[Any]) -> int:
    """Adds up the tensors among a call's arguments: weights, inputs and results."""
    total = 0
    for tensor in arguments:
        if hasattr(tensor, "shape") and hasattr(tensor, "dtype"):
            count = int(np.prod([int(side) for side in tensor.shape], dtype=np.int64))
            bits = int(tensor.dtype.bits) * int(tensor.dtype.lanes)
            total += count * max(bits // 8, 1)
    return total


def profile(
    artifact: str, target: str, batch_size: int, threads: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Profiles one entry function of a compiled file.

    Takes so many rounds of calls, or of a slow network as many as fit in the seconds; eight in any
    case.

    Returns:
        ``whole_s``, the seconds of a call that nobody watches; ``watched_s``, of a watched one;
        ``kernels``, by name the number of calls, the seconds of all of them and the bytes of all
        their arguments; ``built_in_s``, what the virtual machine's own functions took. All are
        means over the quietest quarter of the calls, as far as can be told: of the faster half,
        those with the least time outside of functions. Means of parts add up to the mean of the
        whole, as medians do not, and what interrupts a call is no kernel's.
    """
    opened = Artifact.open(artifact)
    chosen = choose_target(opened.targets, Host.this_machine(), target)
    function, arguments = entry_of(opened, batch_size)
    thread = native_thread(threads, configure_workers)

    def work() -> dict[str, Any]:
        plain, watched = (load_native(opened, chosen) for _ in range(2))
        calls = _describe(watched, function, arguments)
        stamps: list[float] = []
        watched.watch_clock(stamps)
        wholes: tuple[list[float], list[float]] = ([], [])
        each = []
        end = time.perf_counter() + seconds
        for index in range(_WARM_UP + rounds):
            if index >= _WARM_UP + _FEWEST and time.perf_counter() > end:
                break
            stamps.clear()
            for module, times in zip((plain, watched), wholes, strict=True):
                start = time.perf_counter()
                module.call(function, arguments)
                times.append(time.perf_counter() - start)
            each.append(_between(stamps))
        plain_s, watched_s = (np.asarray(times[_WARM_UP:]) for times in wholes)
        functions_s = np.asarray(each[_WARM_UP:])
        fast = _least(watched_s, 2)
        quiet = fast[_least((watched_s - functions_s.sum(axis=1))[fast], 2)]
        means = _without_the_clock(functions_s[quiet].mean(axis=0))
        whole, slowed = plain_s[_least(plain_s, 4)].mean(), watched_s[quiet].mean()
        found = _by_name(calls, means)
        return {"whole_s": float(whole), "watched_s": float(slowed), **found}

    return thread.submit(work).result()


def _between(stamps: Sequence[float]) -> Any:
    """Returns the seconds of each function, of stamps before and after each in turn."""
    return np.subtract(stamps[1::2], stamps[0::2])


def _without_the_clock(seconds: Any) -> Any:
    """Takes what reading the clock takes off the time of each function."""
    return seconds - seconds.min()


def _least(values: Any, part: int) -> Any:
    """Returns which values are the least, one of so many."""
    return np.argsort(values, kind="stable")[: math.ceil(len(values) / part)]


def _by_name(calls: Sequence[tuple[str, int]], seconds: Any) -> dict[str, Any]:
    kernels: dict[str, dict[str, Any]] = {}
    built_in = 0.0
    for (name, size), took in zip(calls, seconds, strict=True):
        if name.startswith(_BUILT_IN):
            built_in += float(took)
            continue
        kernel = kernels.setdefault(name, {"calls": 0, "seconds": 0.0, "bytes": 0})
        kernel["calls"] += 1
        kernel["seconds"] += float(took)
        kernel["bytes"] += size
    return {"kernels": kernels, "built_in_s": built_in}


def entry_of(artifact: Artifact, batch_size: int) -> tuple[str, tuple[Any, ...]]:
    """Returns the name and arguments of the function that serves a batch size."""
    if artifact.manifest["raw"] is not None:
        given = make_inputs(signature_of_raw(artifact, batch_size)).values()
        return f"run_b{batch_size}", tuple(_aligned(array) for array in given)
    spec = read_spec(artifact)
    pictures = np.random.default_rng(0).integers(
        0, 256, (batch_size, *spec.input.size_hw, 3), np.uint8
    )
    limits = (spec.postprocess.score_threshold, spec.postprocess.iou_threshold)
    arrays = (pictures, np.array(limits, np.float32))
    return f"detect_b{batch_size}", tuple(_aligned(array) for array in arrays)


def _aligned(array: Any) -> Any:
    place = aligned_empty(array.shape, array.dtype)
    place[...] = array
    return place


CALLS = {"profile": profile}
