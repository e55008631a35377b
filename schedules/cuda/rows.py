"""Reductions along the last axis and what is made of them, in one kernel: softmax, layer norm.

Strategy: each row belongs to one block of threads. Every step of a row, a reduction or what follows
from it, is a loop of the same block; values between steps are in shared memory. A reduction is
shared out to the threads, which combine their results.

Why not one kernel for each step: their values between would need memory of the GPU, allocated by
the host in the middle of the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.blocks import (
    block_iters,
    buffer_shape,
    child_blocks,
    is_reduction,
    output_blocks,
)
from tvmdet.schedules.cuda.threads import reduced_loops, spatial_loops
from tvmdet.targets import Target

__all__ = ["CudaRows"]

_SHARED_BYTES = 40 * 1024  # of values between steps


class CudaRows(Template):
    """One block of threads per row; see the module's text."""

    name: ClassVar[str] = "cuda.rows"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches several steps over the same rows, of which one at least reduces them."""
        schedule = schedule_of(func)
        blocks = child_blocks(schedule)
        if len(blocks) < 2 or not any(is_reduction(schedule, block) for block in blocks):
            return None
        outputs = output_blocks(schedule)
        if len(outputs) != 1 or is_reduction(schedule, outputs[0]):
            return None
        allowed = {int(tirx.IterVar.DataPar), int(tirx.IterVar.CommReduce)}
        shape = buffer_shape(schedule, outputs[0])
        rows = math.prod(shape[:-1])
        held = 0
        for block in blocks:
            if not {int(v.iter_type) for v in block_iters(schedule, block)} <= allowed:
                return None
            if len(schedule.get(block).writes) != 1:
                return None
            size = math.prod(buffer_shape(schedule, block))
            if size != rows and (is_reduction(schedule, block) or size != math.prod(shape)):
                return None
            held += math.prod(buffer_shape(schedule, block)) // rows * _bytes(schedule, block)
        length = shape[-1]
        if rows < 1 or held > _SHARED_BYTES or len(shape) < 2 or length < 2:
            return None
        return Workload(
            anchor=f"rows {'x'.join(map(str, shape))}",
            facts=(("length", length),),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns block sizes, the one that fits a row first."""
        sizes = (32, 64, 128, 256)
        first = next((size for size in sizes if size >= workload["length"]), sizes[-1])
        ordered = sorted(sizes, key=lambda size: abs(math.log2(size / first)))
        return [Decision.of(self.name, threads=size) for size in ordered]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies it; see :class:`Template`."""
        schedule = schedule_of(func)
        threads = decision["threads"]
        (last,) = output_blocks(schedule)
        _inline_elementwise(schedule, last)
        *lead, own = schedule.get_loops(last)
        row = schedule.fuse(*lead) if len(lead) > 1 else lead[0]
        schedule.bind(row, "blockIdx.x")
        _bind_points(schedule, own, threads)
        for block in reversed(child_blocks(schedule)):
            if schedule.get(block).name_hint == schedule.get(last).name_hint:
                continue
            schedule.compute_at(block, row, preserve_unit_loops=True)
            schedule.set_scope(block, 0, "shared")
            if is_reduction(schedule, block):
                terms = reduced_loops(schedule, block)
                term = schedule.fuse(*terms) if len(terms) > 1 else terms[0]
            else:
                term = spatial_loops(schedule, block)[-1]
            _bind_points(schedule, term, threads)
        return schedule


def _bind_points(schedule: Schedule, loop: object, threads: int) -> None:
    _, thread = schedule.split(loop, [None, threads])
    schedule.bind(thread, "threadIdx.x")


def _inline_elementwise(schedule: Schedule, last: SBlockRV) -> None:
    """Inlines elementwise steps but those of whole rows that several others read."""
    name = schedule.get(last).name_hint
    whole = math.prod(buffer_shape(schedule, last))
    for block in child_blocks(schedule):
        if schedule.get(block).name_hint == name or is_reduction(schedule, block):
            continue
        consumers = list(schedule.get_consumers(block))
        of_rows = math.prod(buffer_shape(schedule, block)) < whole
        if len(consumers) <= 1 or of_rows or not schedule.get_producers(block):
            schedule.compute_inline(block)


def _bytes(schedule: Schedule, block: SBlockRV) -> int:
    dtype = str(schedule.get(block).writes[0].source.dtype)
    return max(int(tvm.DataType(dtype).bits) // 8, 1)
