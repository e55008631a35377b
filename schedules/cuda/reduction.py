"""Functions with reductions on a GPU: pools, means, sums, softmax, whatever nothing else matches.

Strategy, for each block that is left after elementwise producers were inlined:

1. A reduction with many results, or with few terms, gives each result to one thread: pools,
   argmax over classes.
2. One with few results and many terms gives each result to a block of threads, which combine
   their sums: means over a picture.
3. What follows is a kernel loop of its own: one thread per point.

Why not one pass over rows in shared memory, as the softmax of a language model has it: rows of a
detector are short (16 to 400 values), and such softmaxes take microseconds in either form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.blocks import (
    block_iters,
    buffer_shape,
    child_blocks,
    is_border,
    is_reduction,
    loop_extents,
    output_blocks,
)
from tvmdet.schedules.cuda.threads import (
    WARP,
    bind_points,
    bind_reduction,
    reduced_loops,
    spatial_loops,
)
from tvmdet.targets import Target

__all__ = ["CudaReduction"]

_MANY_RESULTS = 8192  # as many threads keep a GPU busy
_MANY_TERMS = 256


class CudaReduction(Template):
    """One loop nest per block, each bound to threads; see the module's text."""

    name: ClassVar[str] = "cuda.reduction"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches functions whose blocks are all reductions or elementwise."""
        schedule = schedule_of(func)
        blocks = child_blocks(schedule)
        if not blocks:
            return None
        for block in blocks:
            kinds = {int(var.iter_type) for var in block_iters(schedule, block)}
            if not kinds <= {int(tirx.IterVar.DataPar), int(tirx.IterVar.CommReduce)}:
                return None
            if not schedule.get(block).writes:
                return None
            # A single number has an axis of its own, and no loop.
            loops, axes = len(schedule.get_loops(block)), len(block_iters(schedule, block))
            if loops != axes and (loops, axes) != (0, 1):
                return None
        shape = buffer_shape(schedule, blocks[-1])
        return Workload(anchor=f"reduction {'x'.join(map(str, shape))}")

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns block sizes, and whether threads may share the terms of a result."""
        return [
            Decision.of(self.name, threads=threads, shared=shared)
            for shared in ("long", "never")
            for threads in (256, 128, 64)
        ]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies it; see :class:`Template`."""
        schedule = schedule_of(func)
        _inline_producers(schedule)
        if _one_kernel(schedule, decision):
            return schedule
        for block in child_blocks(schedule):
            if not is_reduction(schedule, block):
                loops = list(schedule.get_loops(block)) or [schedule.add_unit_loop(block)]
                bind_points(schedule, loops, threads=decision["threads"])
            elif decision["shared"] == "long" and _is_long(schedule, block):
                bind_reduction(schedule, block, threads=decision["threads"])
            else:
                _one_thread_each(schedule, block, decision["threads"])
        return schedule


def _one_kernel(schedule: Schedule, decision: Decision) -> bool:
    """Computes a reduction where its only user, of the same shape, needs it; returns whether.

    Its results need no memory of the GPU then, which the host would allocate between two kernels.
    """
    blocks = child_blocks(schedule)
    if len(blocks) != 2 or not is_reduction(schedule, blocks[0]):
        return False
    reduction, last = blocks
    if is_reduction(schedule, last) or buffer_shape(schedule, last) != buffer_shape(
        schedule, reduction
    ):
        return False
    is_long = decision["shared"] == "long" and _is_long(schedule, reduction)
    points, threads = math.prod(loop_extents(schedule, last)), decision["threads"]
    if not is_long:
        # A reduction has no test of its own: a thread too many would read past the end.
        threads = max(size for size in range(1, threads + 1) if points % size == 0)
        if threads < min(WARP, points):
            return False
    loops = list(schedule.get_loops(last)) or [schedule.add_unit_loop(last)]
    point = schedule.fuse(*loops) if len(loops) > 1 else loops[0]
    if is_long:
        # One of the block's threads makes the result: the others fail the split's test.
        point, one = schedule.split(point, [None, 1])
        _, one = schedule.split(one, [None, threads])
        schedule.bind(point, "blockIdx.x")
        schedule.bind(one, "threadIdx.x")
        schedule.compute_at(reduction, point, preserve_unit_loops=True)
        _keep_in(schedule, reduction, "shared")
        terms = reduced_loops(schedule, reduction)
        _, thread = schedule.split(
            schedule.fuse(*terms) if len(terms) > 1 else terms[0], [None, threads]
        )
        schedule.bind(thread, "threadIdx.x")
        return True
    block, thread = schedule.split(point, [None, threads])
    schedule.bind(block, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")
    schedule.compute_at(reduction, thread, preserve_unit_loops=True)
    _keep_in(schedule, reduction, "local")
    return True


def _keep_in(schedule: Schedule, block: SBlockRV, scope: str) -> None:
    """Puts what a block writes into a kind of memory: two results of an argmax."""
    for index in range(len(schedule.get(block).writes)):
        schedule.set_scope(block, index, scope)


def _is_long(schedule: Schedule, block: SBlockRV) -> bool:
    results = _extent(schedule, spatial_loops(schedule, block))
    terms = _extent(schedule, reduced_loops(schedule, block))
    return results < _MANY_RESULTS and terms >= _MANY_TERMS


def _extent(schedule: Schedule, loops: Sequence[object]) -> int:
    return math.prod(int(schedule.get(loop).extent) for loop in loops)


def _one_thread_each(schedule: Schedule, block: SBlockRV, threads: int) -> None:
    points, terms = spatial_loops(schedule, block), reduced_loops(schedule, block)
    if not points:
        points = [schedule.add_unit_loop(block)]
    schedule.reorder(*points, *terms)
    # The sum stays in a register: with its own start in a loop of its own it would not.
    bind_points(schedule, points, threads=threads)


def _inline_producers(schedule: Schedule) -> None:
    """Inlines elementwise blocks, into reductions only where they are read once or are a border."""
    returned = {schedule.get(block).name_hint for block in output_blocks(schedule)}
    for block in child_blocks(schedule)[:-1]:
        if is_reduction(schedule, block) or schedule.get(block).name_hint in returned:
            continue
        consumers = list(schedule.get_consumers(block))
        reductions = [c for c in consumers if is_reduction(schedule, c)]
        once = len(consumers) == 1 and math.prod(loop_extents(schedule, consumers[0])) <= math.prod(
            loop_extents(schedule, block)
        )
        if consumers and (not reductions or once or is_border(schedule, block)):
            schedule.compute_inline(block)
