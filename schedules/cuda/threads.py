"""Loops become blocks and threads of a GPU, shared by the CUDA templates."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.schedules.blocks import block_iters, loop_extents

__all__ = ["WARP", "bind_points", "bind_reduction", "reduced_loops", "spatial_loops"]

WARP = 32
"""Threads that run in step."""

_VECTOR_BYTES = 16  # of the widest load and store of a thread


def spatial_loops(schedule: Schedule, block: SBlockRV) -> list[LoopRV]:
    """Returns the loops of a block's result; the block's loops must be its iteration variables."""
    return _loops_of(schedule, block, reduces=False)


def reduced_loops(schedule: Schedule, block: SBlockRV) -> list[LoopRV]:
    """Returns the loops that a block reduces over."""
    return _loops_of(schedule, block, reduces=True)


def _loops_of(schedule: Schedule, block: SBlockRV, *, reduces: bool) -> list[LoopRV]:
    variables = block_iters(schedule, block)
    loops = list(schedule.get_loops(block))[-len(variables) :] if variables else []
    return [
        loop
        for loop, variable in zip(loops, variables, strict=True)
        if (int(variable.iter_type) == int(tirx.IterVar.CommReduce)) == reduces
    ]


def bind_points(
    schedule: Schedule, loops: Sequence[LoopRV], *, threads: int, vector: int = 1
) -> None:
    """Gives each point of some loops, which are next to each other, to a thread.

    Args:
        schedule: Is changed.
        loops: From the outermost; at least one.
        threads: Threads of a block at most.
        vector: Neighbouring points that one thread takes at once; divides the points.
    """
    points = math.prod(int(schedule.get(loop).extent) for loop in loops)
    fused = schedule.fuse(*loops) if len(loops) > 1 else loops[0]
    units = points // vector
    threads = min(threads, max(-(-units // WARP) * WARP, WARP))
    if vector > 1:
        block, thread, lane = schedule.split(fused, [None, threads, vector])
        schedule.vectorize(lane)
    else:
        block, thread = schedule.split(fused, [None, threads])
    schedule.bind(block, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")


def bind_reduction(schedule: Schedule, block: SBlockRV, *, threads: int) -> None:
    """Gives each result of a reduction to a block of threads, which share its terms.

    Each thread reduces its part of the terms in order, then the threads' results are combined.

    Args:
        schedule: Is changed.
        block: A reduction whose loops are its iteration variables.
        threads: Threads of a block.
    """
    points, terms = spatial_loops(schedule, block), reduced_loops(schedule, block)
    if not points:
        points = [schedule.add_unit_loop(block)]
    schedule.reorder(*points, *terms)
    point = schedule.fuse(*points) if len(points) > 1 else points[0]
    term = schedule.fuse(*terms) if len(terms) > 1 else terms[0]
    _, thread = schedule.split(term, [None, threads])
    schedule.bind(point, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")


def vector_of(extents: Sequence[int], bytes_per_element: int) -> int:
    """Returns how many neighbouring points of the innermost loop a thread may take at once."""
    vector = max(_VECTOR_BYTES // bytes_per_element, 1)
    while vector > 1 and (not extents or extents[-1] % vector):
        vector //= 2
    return vector


def points_of(schedule: Schedule, block: SBlockRV) -> int:
    """Returns the iterations of a block."""
    return math.prod(loop_extents(schedule, block))
