"""What the templates of matrix products on a GPU share: reading the function, and its frame."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.schedules.base import Workload, schedule_of
from tvmdet.schedules.blocks import (
    block_iters,
    buffer_shape,
    child_blocks,
    inline_between,
    is_reduction,
    output_blocks,
)
from tvmdet.schedules.cuda.threads import WARP
from tvmdet.targets import Target

__all__ = ["PRODUCT", "copy_with_all_threads", "frame", "idle_share", "read_product"]

_WARPS = 8  # of a multiprocessor, at least

PRODUCT = "tvmdet.product"
"""Annotation of the main block: the algorithm."""


def read_product(func: tirx.PrimFunc, algorithms: tuple[str, ...]) -> Workload | None:
    """Returns what a function with one product computes; None when its epilogue changes the shape.

    Args:
        func: A fused function.
        algorithms: Those that the caller schedules.
    """
    schedule = schedule_of(func)
    blocks = child_blocks(schedule)
    found = [b for b in blocks if PRODUCT in schedule.get(b).annotations]
    if len(found) != 1 or sum(is_reduction(schedule, b) for b in blocks) != 1:
        return None
    product, outputs = found[0], output_blocks(schedule)
    notes = schedule.get(product).annotations
    if str(notes[PRODUCT]) not in algorithms or len(outputs) != 1:
        return None
    many, rows_padded, columns_padded = buffer_shape(schedule, product)
    rows, columns = int(notes["tvmdet.rows"]), int(notes["tvmdet.columns"])
    *lead, last = buffer_shape(schedule, outputs[0])
    if last != columns or _rows_from(lead, many, rows) is None:
        return None
    depth = int(schedule.get(schedule.get_loops(product)[-1]).extent)
    return Workload(
        anchor=str(notes["tvmdet.anchor"]),
        flop=int(notes["tvmdet.flop"]),
        facts=(
            ("algorithm", str(notes[PRODUCT])),
            ("many", many),
            ("rows", rows),
            ("columns", columns),
            ("rows padded", rows_padded),
            ("columns padded", columns_padded),
            ("depth", depth),
            ("run", int(notes["tvmdet.run"])),
        ),
    )


def frame(schedule: Schedule, workload: Workload) -> tuple[SBlockRV, SBlockRV, SBlockRV, SBlockRV]:
    """Inlines what lies around a product.

    Returns:
        The copies of both factors, the product, and the block that stores the result, whose loops
        are the pair of matrices, the row and the column.
    """
    (product,) = [b for b in child_blocks(schedule) if PRODUCT in schedule.get(b).annotations]
    left, right = schedule.get_producers(product)
    if schedule.get(left).name_hint != "left":
        left, right = right, left
    last = output_blocks(schedule)[0]
    inline_between(schedule, (left, right, product, last))
    _number_rows(schedule, last, workload["many"], workload["rows"])
    return left, right, product, last


def _number_rows(schedule: Schedule, last: SBlockRV, many: int, rows: int) -> None:
    """Makes the loops of the block that stores: pair of matrices, row, column."""
    shape = buffer_shape(schedule, last)
    if shape[:-1] == (many, rows):
        return
    first = _rows_from(shape[:-1], many, rows)

    def place(*i: tirx.Var) -> list[tirx.PrimExpr]:
        row = _flat(shape[first:-1], i[first:-1])
        return [row, i[-1]] if many == 1 else [_flat(shape[:first], i[:first]), row, i[-1]]

    dtype = str(block_iters(schedule, last)[0].var.ty)
    mapped = tirx.IndexMap.from_func(place, ndim=len(shape), index_dtype=dtype)
    schedule.transform_block_layout(last, mapped)
    if many == 1:
        schedule.add_unit_loop(schedule.get_loops(last)[0])


def idle_share(target: Target, blocks: int, warps: int) -> float:
    """Returns how many times longer blocks take than if they filled the GPU, a guess.

    Args:
        target: The GPU.
        blocks: Of threads; each multiprocessor should have one at least.
        warps: Of a block; each multiprocessor needs several to hide how long memory takes.
    """
    assert target.gpu is not None, "products are scheduled for GPUs"
    multiprocessors = target.gpu.multiprocessors
    empty = max(1.0, multiprocessors / blocks)
    hidden = max(1.0, _WARPS * multiprocessors / (blocks * warps))
    return float(empty * math.sqrt(hidden / empty) if hidden > empty else empty)


def _rows_from(lead: Sequence[int], many: int, rows: int) -> int | None:
    """Returns the first axis of the rows; None where the axes are not pairs, then rows."""
    if many == 1:
        return 0 if math.prod(lead) == rows else None
    for first in range(1, len(lead)):
        if math.prod(lead[:first]) == many and math.prod(lead[first:]) == rows:
            return first
    return None


def _flat(extents: Sequence[int], indices: Sequence[tirx.Var]) -> tirx.PrimExpr:
    place = indices[0]
    for extent, index in zip(extents[1:], indices[1:], strict=True):
        place = place * extent + index
    return place


def copy_with_all_threads(
    schedule: Schedule, block: SBlockRV, at: LoopRV, *, warps: int, vector: int, keep: int = 2
) -> None:
    """Has all threads of a block copy a tile to shared memory, at a loop around its use.

    Args:
        schedule: Is changed.
        block: Copies the tile.
        at: The loop.
        warps: Of the block of threads.
        vector: Neighbours that a thread copies at once.
        keep: Innermost loops that the tile has.
    """
    schedule.compute_at(block, at, preserve_unit_loops=True)
    loops = list(schedule.get_loops(block))[-keep:]
    fused = schedule.fuse(*loops)
    extent = int(schedule.get(fused).extent)
    while vector > 1 and extent % (vector * WARP):
        vector //= 2
    _, warp, lane, run = schedule.split(fused, [None, warps, WARP, vector])
    schedule.bind(warp, "threadIdx.y")
    schedule.bind(lane, "threadIdx.x")
    if vector > 1:
        schedule.vectorize(run)
