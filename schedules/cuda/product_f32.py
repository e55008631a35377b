"""Convolutions and matrix products in float32 on a GPU, without tensor cores.

Strategy:

1. A block of threads computes a tile of ``tile_m`` rows and ``tile_n`` columns. For each step along
   the depth all its threads copy the tiles of both factors to shared memory; those of a convolution
   are gathered from the picture there.
2. Each thread holds ``thread_m x thread_n`` sums in registers, and reads the two short vectors that
   they need from shared memory: ``thread_m * thread_n`` products for ``thread_m + thread_n`` reads.
3. Bias, activation and residual are computed on the registers before the only store.

Why not tensor cores: they round the factors, to 10 bits of mantissa at best.

Source of the blocking: Volkov and Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.s_tir import Schedule
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.cuda.products import (
    copy_with_all_threads,
    frame,
    idle_share,
    read_product,
)
from tvmdet.schedules.cuda.threads import WARP
from tvmdet.targets import Target

__all__ = ["ProductF32"]

_SHARED_BYTES = 48 * 1024  # of static shared memory, on every GPU
_BYTES = 4


class ProductF32(Template):
    """Register tiles fed from shared memory; see the module's text."""

    name: ClassVar[str] = "cuda.product_f32"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one product whose epilogue keeps its shape."""
        return read_product(func, ("direct",))

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns tiles that fit, those that fill the GPU with the fewest reads first."""
        ranked = []
        for tile_m in (16, 32, 64, 128):
            for tile_n in (16, 32, 64, 128):
                if workload["rows padded"] % tile_m or workload["columns padded"] % tile_n:
                    continue
                for thread_m in (1, 2, 4, 8):
                    for thread_n in (1, 2, 4, 8):
                        threads = tile_m // thread_m * (tile_n // thread_n)
                        if threads not in (64, 128, 256):
                            continue
                        tile = (tile_m, tile_n, thread_m, thread_n)
                        ranked.append((_cost(workload, target, *tile, threads), *tile))
        ranked.sort()
        found = []
        for _, tile_m, tile_n, thread_m, thread_n in ranked[:16]:
            for step in (16, 8, 32):
                if workload["depth"] % step or (tile_m + tile_n) * step * _BYTES > _SHARED_BYTES:
                    continue
                knobs = {"tile_m": tile_m, "tile_n": tile_n, "thread_m": thread_m}
                found.append(Decision.of(self.name, **knobs, thread_n=thread_n, step=step))
        return found

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one tile; see :class:`Template`."""
        schedule = schedule_of(func)
        left, right, product, last = frame(schedule, workload)
        across = decision["tile_n"] // decision["thread_n"]
        warps = decision["tile_m"] // decision["thread_m"] * across // WARP
        many, m, n = schedule.get_loops(last)
        m_block, m_thread, m_own = schedule.split(
            m, [None, decision["tile_m"] // decision["thread_m"], decision["thread_m"]]
        )
        n_block, n_thread, n_own = schedule.split(n, [None, across, decision["thread_n"]])
        schedule.reorder(many, m_block, n_block, m_thread, n_thread, m_own, n_own)
        warp, lane = schedule.split(schedule.fuse(m_thread, n_thread), [warps, WARP])
        for loop, axis in (
            (many, "blockIdx.z"),
            (m_block, "blockIdx.x"),
            (n_block, "blockIdx.y"),
            (warp, "threadIdx.y"),
            (lane, "threadIdx.x"),
        ):
            schedule.bind(loop, axis)
        # nvcc unrolls: thousands of lines for each kernel would take it long to read.
        schedule.annotate(many, "pragma_auto_unroll_max_step", 0)
        schedule.annotate(many, "pragma_unroll_explicit", 0)
        schedule.compute_at(product, lane, preserve_unit_loops=True)
        schedule.set_scope(product, 0, "local")
        *_, own_m, own_n, k = schedule.get_loops(product)
        outer, inner = schedule.split(k, [None, decision["step"]])
        schedule.reorder(outer, inner, own_m, own_n)
        for block, run in ((left, workload["run"]), (right, 4)):
            schedule.set_scope(block, 0, "shared")
            copy_with_all_threads(schedule, block, outer, warps=warps, vector=min(run, 4))
        # Rows of the left tile start in different banks: a column of it is read at once.
        schedule.storage_align(left, 0, -2, 32, min(workload["run"], 4))
        for loop in (inner, own_m, own_n, m_own, n_own):
            schedule.unroll(loop)
        init = schedule.decompose_reduction(product, outer)
        for loop in schedule.get_loops(init)[-2:]:
            schedule.unroll(loop)
        return schedule


def _cost(
    workload: Workload,
    target: Target,
    tile_m: int,
    tile_n: int,
    thread_m: int,
    thread_n: int,
    threads: int,
) -> float:
    """Guesses the time of a tile, in no unit: reads per product, and multiprocessors left idle."""
    blocks = -(-workload["rows"] // tile_m) * -(-workload["columns"] // tile_n) * workload["many"]
    waste = blocks * tile_m * tile_n / (workload["rows"] * workload["columns"] * workload["many"])
    reads = 1 / thread_m + 1 / thread_n
    traffic = 16 * (1 / tile_m + 1 / tile_n)
    idle = idle_share(target, blocks, threads // WARP)
    cost: float = waste * (1 + reads + traffic) * idle * (1 + 32 / threads)
    return cost
