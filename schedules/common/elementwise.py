"""Functions without any reduction: elementwise, broadcasts, concat, slices, resizes, casts.

Strategy: everything is inlined into the last block, whose innermost axis is vectorised where it
has whole vectors, and whose outer axes run in parallel when there is enough work to share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

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
    split_vector,
)
from tvmdet.targets import Target

__all__ = ["PARALLEL_GRAIN", "TASKS", "Elementwise", "run_in_parallel"]

# Elements below which waking the other threads costs more than they help: about 5 us.
PARALLEL_GRAIN = 16384
# Pieces of work that a long loop is cut into.
TASKS = 64


class Elementwise(Template):
    """Inline what is in between, vectorise the innermost axis, share the outer ones."""

    name: ClassVar[str] = "common.elementwise"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches functions whose blocks are all elementwise."""
        schedule = schedule_of(func)
        blocks = child_blocks(schedule)
        if not blocks:
            return None
        spatial = {int(tirx.IterVar.DataPar)}
        for block in blocks:
            kinds = [int(var.iter_type) for var in block_iters(schedule, block)]
            if not set(kinds) <= spatial or len(schedule.get_loops(block)) != len(kinds):
                return None
        shape = buffer_shape(schedule, blocks[-1])
        return Workload(
            anchor=f"elementwise {'x'.join(map(str, shape))}",
            facts=(("lanes", target.vector_lanes_f32),),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns the only way."""
        return [Decision.of(self.name)]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies it; see :class:`Template`."""
        schedule = schedule_of(func)
        outputs = output_blocks(schedule)
        inline_between(schedule, outputs)
        for block in outputs:
            loops = list(schedule.get_loops(block))
            if not loops:
                continue
            extents = loop_extents(schedule, block)
            lanes = workload["lanes"]
            # As few trailing axes as hold whole vectors: an index that crosses more of them
            # costs a division per vector.
            count = 1
            while count < len(loops) and math.prod(extents[-count:]) % lanes:
                count += 1
            if count > 1 and math.prod(extents[-count:]) % lanes == 0:
                loops = [*loops[:-count], schedule.fuse(*loops[-count:])]
            split_vector(schedule, loops[-1], lanes)
            run_in_parallel(schedule, block, math.prod(extents))
        return schedule


def run_in_parallel(schedule: Schedule, block: object, elements: int) -> None:
    """Shares a block's outer loops among the threads, when there is enough to share.

    All loops but the innermost are fused; a lone loop is cut into pieces first.
    """
    loops = list(schedule.get_loops(block))
    if elements < PARALLEL_GRAIN or len(loops) < 2:
        return
    spatial = loops[:-1]
    outer = schedule.fuse(*spatial) if len(spatial) > 1 else spatial[0]
    extent = int(schedule.get(outer).extent)
    if extent > 256:
        pieces, _ = schedule.split(outer, [TASKS, None])
        schedule.parallel(pieces)
    elif extent > 1:
        schedule.parallel(outer)
