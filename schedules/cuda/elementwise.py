"""Functions without any reduction on a GPU: elementwise, broadcasts, concat, resizes, casts.

Strategy: everything is inlined into the blocks that store results. Their points are numbered in
the order of memory and shared out to threads, neighbours to neighbours, so that a warp reads and
writes whole lines of memory. A thread takes up to 16 bytes at once where the innermost axis holds
whole vectors of them and enough threads are left to fill the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.blocks import (
    block_iters,
    buffer_shape,
    child_blocks,
    inline_between,
    loop_extents,
    output_blocks,
)
from tvmdet.schedules.cuda.threads import bind_points, points_of, vector_of
from tvmdet.targets import Target

__all__ = ["CudaElementwise"]

_ENOUGH_THREADS = 32768  # so many are worth more than wide loads


class CudaElementwise(Template):
    """One thread for a few neighbouring points; see the module's text."""

    name: ClassVar[str] = "cuda.elementwise"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches functions whose blocks are all elementwise."""
        schedule = schedule_of(func)
        blocks = child_blocks(schedule)
        if not blocks:
            return None
        spatial = {int(tirx.IterVar.DataPar)}
        for block in blocks:
            kinds = [int(var.iter_type) for var in block_iters(schedule, block)]
            if not schedule.get(block).writes:  # opaque: it does not say what it computes
                return None
            # A single number has an axis of its own, and no loop.
            loops = len(schedule.get_loops(block))
            if not set(kinds) <= spatial or (loops != len(kinds) and (loops, len(kinds)) != (0, 1)):
                return None
        outputs = output_blocks(schedule)
        shape = buffer_shape(schedule, blocks[-1])
        widest = min(
            (
                vector_of(loop_extents(schedule, block), _bytes(schedule, block))
                for block in outputs
            ),
            default=1,
        )
        if any(_has_bool(schedule, block) for block in blocks):
            widest = 1  # TVM writes vectors of truth values as ushort4, past the end of the buffer
        return Workload(
            anchor=f"elementwise {'x'.join(map(str, shape))}",
            facts=(
                ("widest", widest),
                ("points", max((points_of(schedule, block) for block in outputs), default=1)),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns block sizes and vectors, the widest that leaves enough threads first."""
        vectors = [v for v in (8, 4, 2, 1) if v <= workload["widest"]]
        first = next((v for v in vectors if workload["points"] // v >= _ENOUGH_THREADS), 1)
        ordered = sorted(vectors, key=lambda v: v != first)
        return [
            Decision.of(self.name, threads=threads, vector=vector)
            for vector in ordered
            for threads in (256, 128, 512, 64)
        ]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies it; see :class:`Template`."""
        schedule = schedule_of(func)
        outputs = output_blocks(schedule)
        inline_between(schedule, outputs)
        for block in outputs:
            loops = list(schedule.get_loops(block)) or [schedule.add_unit_loop(block)]
            vector = decision["vector"]
            bind_points(schedule, loops, threads=decision["threads"], vector=vector)
        return schedule


def _has_bool(schedule: Schedule, block: object) -> bool:
    found = schedule.get(block)
    return any(str(part.source.dtype) == "bool" for part in (*found.reads, *found.writes))


def _bytes(schedule: Schedule, block: object) -> int:
    dtype = str(schedule.get(block).writes[0].source.dtype)
    return max(int(tvm.DataType(dtype).bits) // 8, 1)
