"""Bilinear sampling of channels-last pictures at computed points, as deformable attention does.

Strategy:

1. Neighbours and weights of all points are computed first, in vectors of points.
2. Each point's four neighbours are then read as vectors of channels. What only renames axes
   before that (slices, reshapes, transposes) is an index, and moves nothing; other producers
   have a loop nest of their own, because a pixel is read by many points.
3. What follows, such as the concatenation of several samplings, is the loop nest that samples,
   when channels stay innermost and no sample is needed twice. The last axis of points is unrolled
   when it is short: which of the concatenated samplings is meant is then known at compile time.

Why not compute the points inside the loop of 2.: their arithmetic would be scalar.
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
    buffer_shape,
    child_blocks,
    is_reduction,
    is_view,
    loop_extents,
    output_blocks,
    split_vector,
)
from tvmdet.schedules.common.elementwise import PARALLEL_GRAIN, TASKS
from tvmdet.targets import Target

__all__ = ["GridSample"]

MARK = "tvmdet.grid_sample"
_UNROLLED = 16  # points
_VECTORS = 4  # unrolled, so that they share the neighbours' places


class GridSample(Template):
    """Points in vectors, then channels in vectors; see the module's text."""

    name: ClassVar[str] = "common.grid_sample"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches functions with one result and without reductions that sample."""
        schedule = schedule_of(func)
        blocks = child_blocks(schedule)
        marks = [_mark(schedule, block) for block in blocks]
        pictures = [mark for mark in marks if mark.startswith("grid_sample")]
        if not pictures or any(is_reduction(schedule, block) for block in blocks):
            return None
        if len(output_blocks(schedule)) != 1:
            return None
        shape = buffer_shape(schedule, blocks[-1])
        return Workload(
            anchor=f"{', '.join(pictures)}, to {'x'.join(map(str, shape))}",
            facts=(("lanes", target.vector_lanes_f32),),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns the only way."""
        return [Decision.of(self.name)]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies it; see :class:`Template`."""
        schedule, lanes = schedule_of(func), workload["lanes"]
        *between, last = child_blocks(schedule)
        samples = [b for b in between if _mark(schedule, b).startswith("grid_sample")]
        after = _after(schedule, samples)
        if not _keeps_channels(schedule, samples, last):
            samples = []
        for block in between:
            mark, name = _mark(schedule, block), schedule.get(block).name_hint
            if mark == "position" or name in after or (not mark and is_view(schedule, block)):
                schedule.compute_inline(block)
        for block in samples:
            schedule.compute_inline(block)
        for block in child_blocks(schedule):
            if _mark(schedule, block) == "points":
                _vectors_of_points(schedule, block, lanes)
            else:
                _vectors_of_channels(schedule, block, lanes)
        return schedule


def _mark(schedule: Schedule, block: SBlockRV) -> str:
    return str(schedule.get(block).annotations.get(MARK, ""))


def _after(schedule: Schedule, samples: Sequence[SBlockRV]) -> set[str]:
    """Returns the names of the blocks that use samples."""
    found: set[str] = set()
    queue = list(samples)
    while queue:
        for consumer in schedule.get_consumers(queue.pop()):
            name = schedule.get(consumer).name_hint
            if name not in found and not _mark(schedule, consumer):
                found.add(name)
                queue.append(consumer)
    return found


def _keeps_channels(schedule: Schedule, samples: Sequence[SBlockRV], last: SBlockRV) -> bool:
    """Returns whether the result has the samples' channels innermost, and each of them once."""
    shape = buffer_shape(schedule, last)
    shapes = [buffer_shape(schedule, block) for block in samples]
    return all(s[-1] == shape[-1] for s in shapes) and math.prod(shape) <= sum(
        math.prod(s) for s in shapes
    )


def _vectors_of_points(schedule: Schedule, block: SBlockRV, lanes: int) -> None:
    axis, side, *points = schedule.get_loops(block)
    elements = math.prod(loop_extents(schedule, block))
    task = schedule.fuse(*points) if len(points) > 1 else points[0]
    split_vector(schedule, task, lanes)
    outer, *vector = schedule.get_loops(block)[2:]
    schedule.reorder(outer, axis, side)
    schedule.unroll(axis)
    schedule.unroll(side)
    if vector and elements >= PARALLEL_GRAIN:
        pieces, _ = schedule.split(outer, [TASKS, None])
        schedule.parallel(pieces)


def _vectors_of_channels(schedule: Schedule, block: SBlockRV, lanes: int) -> None:
    *points, channels = schedule.get_loops(block)
    extents = loop_extents(schedule, block)
    outer = split_vector(schedule, channels, lanes)
    if outer is not None and int(schedule.get(outer).extent) <= _VECTORS:
        schedule.unroll(outer)
    if len(points) < 2:
        return
    if extents[-2] <= _UNROLLED:
        schedule.unroll(points.pop())
    task = schedule.fuse(*points) if len(points) > 1 else points[0]
    if math.prod(extents) >= PARALLEL_GRAIN:
        pieces, _ = schedule.split(task, [min(TASKS, math.prod(extents[:-2])), None])
        schedule.parallel(pieces)
