"""Functions with reductions: pools, means and sums over pixels, softmax across channels.

Strategy:

1. Elementwise producers are inlined, into a reduction only where it reads every element once;
   the border of a pool is inlined too: its test is that of one element of the window, outside
   the loop over channels.
2. When the innermost spatial axis has whole vectors (channels of NHWC data), some of them are
   reduced at a time, in registers, and what follows is computed before the only store. A small
   window is unrolled.
3. Else the reduced axes stay innermost. Outer axes run in parallel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.blocks import (
    block_iters,
    buffer_shape,
    child_blocks,
    is_border,
    is_reduction,
    is_widened,
    loop_extents,
    output_blocks,
    split_vector,
)
from tvmdet.schedules.common.elementwise import PARALLEL_GRAIN, TASKS, run_in_parallel
from tvmdet.targets import Target

__all__ = ["Reduction"]

_UNROLLED = 32  # elements of a window
_ENOUGH_TASKS = 16


class Reduction(Template):
    """One loop nest per block, vectors along the innermost spatial axis."""

    name: ClassVar[str] = "common.reduction"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches functions whose blocks are all reductions or elementwise."""
        schedule = schedule_of(func)
        blocks = child_blocks(schedule)
        if not blocks or not any(is_reduction(schedule, block) for block in blocks):
            return None
        for block in blocks:
            kinds = {int(var.iter_type) for var in block_iters(schedule, block)}
            if not kinds <= {int(tirx.IterVar.DataPar), int(tirx.IterVar.CommReduce)}:
                return None
            if len(schedule.get_loops(block)) != len(block_iters(schedule, block)):
                return None
        shape = buffer_shape(schedule, blocks[-1])
        return Workload(
            anchor=f"reduction {'x'.join(map(str, shape))}",
            facts=(("lanes", target.vector_lanes_f32),),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns the only way."""
        return [Decision.of(self.name)]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies it; see :class:`Template`."""
        schedule = schedule_of(func)
        _inline_producers(schedule)
        stored: set[str] = set()
        for block in child_blocks(schedule):
            if schedule.get(block).name_hint in stored or not loop_extents(schedule, block):
                continue
            lanes = _vector_lanes(schedule, block, workload["lanes"])
            if is_reduction(schedule, block) and lanes > 1:
                stored.add(_reduce_in_registers(schedule, block, lanes))
            else:
                _schedule_block(schedule, block, workload["lanes"])
        return schedule


def _inline_producers(schedule: Schedule) -> None:
    """Inlines elementwise blocks that feed a single elementwise block, and some into reductions.

    A producer of which a reduction reads elements more than once is kept: it would be computed each
    time, which is only little for a border, and for a number kept in 16 bits. So is what the
    function returns.
    """
    returned = {schedule.get(block).name_hint for block in output_blocks(schedule)}
    for block in child_blocks(schedule)[:-1]:
        if is_reduction(schedule, block) or schedule.get(block).name_hint in returned:
            continue
        consumers = list(schedule.get_consumers(block))
        reductions = [c for c in consumers if is_reduction(schedule, c)]
        once = len(consumers) == 1 and math.prod(loop_extents(schedule, consumers[0])) <= math.prod(
            loop_extents(schedule, block)
        )
        again = is_border(schedule, block) or is_widened(schedule, block)
        if consumers and (not reductions or once or again):
            schedule.compute_inline(block)


def _vector_lanes(schedule: Schedule, block: SBlockRV, lanes: int) -> int:
    """Returns the widest vector that divides the innermost spatial axis; 1 where none fits."""
    loops = schedule.get_loops(block)
    spatial = [
        loop
        for loop, var in zip(loops, block_iters(schedule, block), strict=True)
        if int(var.iter_type) != int(tirx.IterVar.CommReduce)
    ]
    if not spatial or len(schedule.get(block).writes) != 1:
        return 1
    extent = int(schedule.get(spatial[-1]).extent)
    while extent % lanes:
        lanes //= 2
    return lanes if lanes >= 4 else 1


def _reduce_in_registers(schedule: Schedule, block: SBlockRV, lanes: int) -> str:
    """Schedules a reduction and the block that stores its result; returns the name of that."""
    elements = math.prod(loop_extents(schedule, block))
    consumers = list(schedule.get_consumers(block))
    if (
        len(consumers) == 1
        and not is_reduction(schedule, consumers[0])
        and buffer_shape(schedule, consumers[0]) == buffer_shape(schedule, block)
    ):
        store = consumers[0]
    else:
        store = schedule.cache_write(block, 0, "global")
    *outer, channels = schedule.get_loops(store)
    vectors = int(schedule.get(channels).extent) // lanes
    tile = max(count for count in (1, 2, 3, 4) if vectors % count == 0)
    tiles, channels = schedule.split(channels, [None, tile * lanes])
    inner = _run_outer_in_parallel(schedule, [*outer, tiles], elements)
    schedule.compute_at(block, inner, preserve_unit_loops=True)
    _unroll_vectors(schedule, channels, lanes)
    own = list(schedule.get_loops(block))[-len(block_iters(schedule, block)) :]
    kinds = [int(var.iter_type) for var in block_iters(schedule, block)]
    reduces = int(tirx.IterVar.CommReduce)
    reduced = [loop for loop, kind in zip(own, kinds, strict=True) if kind == reduces]
    *units, channels = [loop for loop, kind in zip(own, kinds, strict=True) if kind != reduces]
    schedule.reorder(*units, *reduced, channels)
    _unroll_vectors(schedule, channels, lanes)
    if math.prod(int(schedule.get(loop).extent) for loop in reduced) <= _UNROLLED:
        for loop in reduced:
            schedule.unroll(loop)
    init = schedule.decompose_reduction(block, reduced[0])
    vector_loops = schedule.get_loops(init)[-2:]
    schedule.unroll(vector_loops[0])
    schedule.vectorize(vector_loops[1])
    return str(schedule.get(store).name_hint)


def _unroll_vectors(schedule: Schedule, loop: LoopRV, lanes: int) -> None:
    vectors, vector = schedule.split(loop, [None, lanes])
    schedule.unroll(vectors)
    schedule.vectorize(vector)


def _run_outer_in_parallel(schedule: Schedule, loops: Sequence[LoopRV], elements: int) -> LoopRV:
    """Shares as few leading loops as make enough tasks; returns the innermost loop that is left."""
    if elements < PARALLEL_GRAIN:
        return loops[-1]
    count, tasks = 0, 1
    while count < len(loops) and tasks < _ENOUGH_TASKS:
        tasks *= int(schedule.get(loops[count]).extent)
        count += 1
    task = schedule.fuse(*loops[:count]) if count > 1 else loops[0]
    if tasks == 1:
        return loops[-1] if count < len(loops) else task
    inner = loops[-1]
    if tasks > TASKS * 4:
        task, rest = schedule.split(task, [TASKS, None])
        schedule.parallel(task)
        return inner if count < len(loops) else rest
    if count == len(loops):
        # The loop that something is computed in may not be the parallel one.
        task, inner = schedule.split(task, [tasks, 1])
    schedule.parallel(task)
    return inner


def _schedule_block(schedule: Schedule, block: SBlockRV, lanes: int) -> None:
    loops = list(schedule.get_loops(block))
    extents = loop_extents(schedule, block)
    reduces = int(tirx.IterVar.CommReduce)
    kinds = [int(var.iter_type) for var in block_iters(schedule, block)]
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != reduces]
    reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == reduces]
    elements = math.prod(extents)
    if not reduced:
        split_vector(schedule, loops[-1], lanes)
        run_in_parallel(schedule, block, elements)
        return
    vector = None
    if spatial and int(schedule.get(spatial[-1]).extent) % lanes == 0:
        outer, vector = schedule.split(spatial[-1], [None, lanes])
        spatial[-1] = outer
    order = [*spatial, *reduced, *([vector] if vector is not None else [])]
    if len(order) > 1:
        schedule.reorder(*order)
    if vector is not None:
        schedule.vectorize(vector)
    if len(spatial) > 1:
        spatial = [schedule.fuse(*spatial)]
    if spatial and elements >= PARALLEL_GRAIN and int(schedule.get(spatial[0]).extent) > 1:
        schedule.parallel(spatial[0])
    init = schedule.decompose_reduction(block, reduced[0])
    if vector is not None:
        schedule.vectorize(schedule.get_loops(init)[-1])
