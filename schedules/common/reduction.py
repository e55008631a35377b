"""Functions with reductions: pools, means, sums, softmax, layer norm.

Strategy: elementwise producers are inlined; each remaining block gets a loop nest of its own.
Reduced axes go inside the outer spatial axes; when the innermost spatial axis has whole vectors
(channels of NHWC data) it goes innermost and is vectorised, so that a pool or a mean over pixels
adds whole vectors; else the reduced axis stays innermost. Outer axes run in parallel.
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
    is_reduction,
    loop_extents,
    output_blocks,
    split_vector,
)
from tvmdet.schedules.common.elementwise import PARALLEL_GRAIN, run_in_parallel
from tvmdet.targets import Target

__all__ = ["Reduction"]


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
        for block in child_blocks(schedule):
            if loop_extents(schedule, block):
                _schedule_block(schedule, block, workload["lanes"])
        return schedule


def _inline_producers(schedule: Schedule) -> None:
    """Inlines elementwise blocks that feed a single elementwise block.

    A producer of a reduction is kept: inlined, it would be computed once per reduced element. So
    is what the function returns.
    """
    returned = {schedule.get(block).name_hint for block in output_blocks(schedule)}
    for block in child_blocks(schedule)[:-1]:
        if is_reduction(schedule, block) or schedule.get(block).name_hint in returned:
            continue
        consumers = list(schedule.get_consumers(block))
        if consumers and not any(is_reduction(schedule, c) for c in consumers):
            schedule.compute_inline(block)


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
