"""Softmax, layer norm and reductions along the last axis.

Strategy: rows run in parallel, and everything about a row is done while it is in the first cache.
Each step of a row is a loop over whole vectors; of a row that ends inside a vector, the rest is a
vector of its own. What was computed before the row is computed as it is read, and what follows
before it is stored.

Steps stay in TVM's "global" scope: below 1 KiB that is the stack, and LLVM keeps it in registers,
whereas "local" memory comes from a pool and is written and read in each step.

The steps themselves are in the expression (:mod:`tvmdet.passes.row_expressions`).
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
    is_reduction,
    output_blocks,
    split_ragged_vector,
)
from tvmdet.schedules.common.elementwise import PARALLEL_GRAIN, TASKS
from tvmdet.targets import Target

__all__ = ["Rows", "mark_of", "place_steps"]

MARK = "tvmdet.rows"


class Rows(Template):
    """One pass over rows in cache; see the module's text."""

    name: ClassVar[str] = "common.rows"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one row operator whose result keeps its shape."""
        schedule = schedule_of(func)
        blocks = child_blocks(schedule)
        found = [b for b in blocks if mark_of(schedule, b) not in ("", "row", "part")]
        if len(found) != 1 or len(output_blocks(schedule)) != 1:
            return None
        if any(is_reduction(schedule, b) and not mark_of(schedule, b) for b in blocks):
            return None
        result, last = found[0], blocks[-1]
        if buffer_shape(schedule, result) != buffer_shape(schedule, last):
            return None
        whole = [b for b in blocks if mark_of(schedule, b) == "row"]
        anchor = mark_of(schedule, result)
        extents = [int(extent) for extent in anchor.split()[1].split("x")]
        return Workload(
            anchor=anchor,
            facts=(
                ("lanes", target.vector_lanes_f32),
                ("lead", tuple(extents[:-1])),
                ("length", extents[-1]),
                ("reads in place", not any(schedule.get_producers(block) for block in whole)),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns the only way."""
        return [Decision.of(self.name)]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies it; see :class:`Template`."""
        schedule, lanes = schedule_of(func), workload["lanes"]
        *between, last = child_blocks(schedule)
        for block in between:
            mark = mark_of(schedule, block)
            inlined = mark not in ("row", "part") or (mark == "row" and workload["reads in place"])
            if inlined:
                schedule.compute_inline(block)
        loops = list(schedule.get_loops(last))
        lead, extents = loops[: len(workload["lead"])], workload["lead"]
        rows = math.prod(extents)
        if rows * workload["length"] >= PARALLEL_GRAIN and rows > 1:
            row = _among_tasks(schedule, lead, extents)
        else:
            row = schedule.fuse(*lead) if len(lead) > 1 else lead[0]
        if len(loops) > len(lead):
            split_ragged_vector(schedule, loops[-1], lanes)
        place_steps(schedule, child_blocks(schedule)[:-1], row, lanes)
        return schedule


def mark_of(schedule: Schedule, block: SBlockRV) -> str:
    """Returns what a block says that it is among the steps of a row, empty for nothing."""
    return str(schedule.get(block).annotations.get(MARK, ""))


def place_steps(schedule: Schedule, steps: Sequence[SBlockRV], row: LoopRV, lanes: int) -> None:
    """Computes the steps of a row in the loop over rows, as vectors; ``steps`` in their order."""
    for block in reversed(steps):
        schedule.compute_at(block, row, preserve_unit_loops=True)
        _vectorize(schedule, block, lanes)


def _among_tasks(schedule: Schedule, lead: list[LoopRV], extents: Sequence[int]) -> LoopRV:
    """Runs parts of the rows in parallel; returns the loop over the rows of a part.

    A part is cut along the axes that the rows lie on, at a divisor: TVM does not place the steps of
    a row inside a loop from which the axes are computed with a remainder.
    """
    outer: list[LoopRV] = []
    inner: list[LoopRV] = []
    tasks = 1
    for loop, extent in zip(lead, extents, strict=True):
        wanted = TASKS // tasks
        if wanted <= 1 or inner:
            inner.append(loop)
            continue
        count = max(n for n in range(1, min(extent, wanted) + 1) if extent % n == 0)
        if 2 * count <= min(extent, wanted):  # of a length without divisors
            count = extent
        tasks *= count
        if count == extent:
            outer.append(loop)
        else:
            first, second = schedule.split(loop, [count, None])
            outer.append(first)
            inner.append(second)
    task = schedule.fuse(*outer) if len(outer) > 1 else outer[0]
    schedule.parallel(task)
    return inner[-1] if inner else task


def _vectorize(schedule: Schedule, block: SBlockRV, lanes: int) -> None:
    if not is_reduction(schedule, block):
        split_ragged_vector(schedule, schedule.get_loops(block)[-1], lanes)
        return
    lane, steps = schedule.get_loops(block)[-2:]
    assert int(block_iters(schedule, block)[-1].iter_type) == int(tirx.IterVar.CommReduce)
    vectors, vector = schedule.split(lane, [None, min(lanes, int(schedule.get(lane).extent))])
    schedule.reorder(steps, vectors, vector)
    schedule.unroll(vectors)
    schedule.vectorize(vector)
    init = schedule.decompose_reduction(block, steps)
    vectors, vector = schedule.get_loops(init)[-2:]
    schedule.unroll(vectors)
    schedule.vectorize(vector)
