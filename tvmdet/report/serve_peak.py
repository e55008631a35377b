"""Measures what this machine can do at most; run by ``rivals/serve.py`` in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm

from tvmdet.passes.lower import tvm_target
from tvmdet.report.peak_kernels import CHAINS, f32_chains, read_sum
from tvmdet.report.typed_json import from_json
from tvmdet.runtime.native import configure_workers
from tvmdet.targets import Target

__all__ = ["CALLS", "measure_peak"]

_STEPS = 200_000  # of arithmetic: some milliseconds
_READ_BYTES = 64 << 20  # of a bandwidth measurement, in as many passes as that takes
_READ_CHAINS = 8
_REPEATS = 12


def measure_peak(target: dict[str, Any], threads: int, footprints: Sequence[int]) -> dict[str, Any]:
    """Measures arithmetic and memory with a number of threads; the best of several runs counts.

    Args:
        target: Whose vectors to use: the fields of a :class:`tvmdet.targets.Target`.
        threads: Threads to compute with.
        footprints: Sizes in bytes of the arrays that are read.

    Returns:
        ``f32_flop_per_s``, and ``bytes_per_s`` in the order of the footprints.
    """
    chosen = from_json(Target, target)
    lanes = chosen.vector_lanes_f32
    configure_workers(threads)
    # A factor under one and a small addend: the sums go to a limit, and are never subnormal.
    factors = np.stack([np.full(lanes, 0.999), np.full(lanes, 1e-3)]).astype(np.float32)
    sums = np.zeros((threads, CHAINS, lanes), np.float32)
    seconds = _fastest(f32_chains(threads, _STEPS, lanes, CHAINS), [factors, sums], chosen, threads)
    flop = 2 * threads * _STEPS * CHAINS * lanes
    rates = [_read_rate(size, threads, lanes, chosen) for size in footprints]
    return {"f32_flop_per_s": flop / seconds, "bytes_per_s": rates}


def _read_rate(size: int, threads: int, lanes: int, target: Any) -> float:
    row_bytes = threads * _READ_CHAINS * lanes * 4
    rows = max(size // row_bytes, 1)
    passes = max(_READ_BYTES // (rows * row_bytes), 1)
    data = np.ones((threads, rows, _READ_CHAINS, lanes), np.float32)
    sums = np.zeros((threads, _READ_CHAINS, lanes), np.float32)
    kernel = read_sum(threads, passes, rows, lanes, _READ_CHAINS)
    return passes * data.nbytes / _fastest(kernel, [data, sums], target, threads)


def _fastest(kernel: Any, arrays: Sequence[Any], target: Any, threads: int) -> float:
    module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
    built = tvm.compile(module, target=tvm_target(target, threads))
    evaluate = built.mod.time_evaluator("main", tvm.cpu(), number=1, repeat=_REPEATS)
    return float(min(evaluate(*(tvm.runtime.tensor(array) for array in arrays)).results))


CALLS = {"measure": measure_peak}
