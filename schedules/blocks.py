"""Readers of a fused function's blocks, shared by the templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import s_tir, tirx
from tvm.ir import Call, Op, TensorLoad
from tvm.ir.prim import LShift
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV

__all__ = [
    "annotated_block",
    "block_iters",
    "buffer_shape",
    "child_blocks",
    "inline_between",
    "is_border",
    "is_reduction",
    "is_view",
    "is_widened",
    "loop_extents",
    "output_blocks",
    "split_ragged_vector",
    "split_vector",
]


def child_blocks(schedule: Schedule) -> list[SBlockRV]:
    """Returns the blocks of the function, in the order in which they run.

    A function written as plain loops has none.
    """
    if not isinstance(schedule.mod["main"].body, s_tir.SBlockRealize):
        return []
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def block_iters(schedule: Schedule, block: SBlockRV) -> list[Any]:
    """Returns the iteration variables of a block."""
    return list(schedule.get(block).iter_vars)


def is_reduction(schedule: Schedule, block: SBlockRV) -> bool:
    """Returns whether a block sums (or otherwise reduces) over some axis."""
    kinds = {int(var.iter_type) for var in block_iters(schedule, block)}
    return int(tirx.IterVar.CommReduce) in kinds


def is_border(schedule: Schedule, block: SBlockRV) -> bool:
    """Returns whether a block puts a constant around a tensor."""
    body = schedule.get(block).body
    if not isinstance(body, tirx.BufferStore) or not isinstance(body.value, Call):
        return False
    call = body.value
    if call.op != Op.get("prim.if_then_else"):
        return False
    _, inside, outside = call.args
    return isinstance(inside, TensorLoad) and isinstance(outside, tirx.FloatImm | tirx.IntImm)


def is_widened(schedule: Schedule, block: SBlockRV) -> bool:
    """Returns whether a block makes float32 of numbers kept in 16 bits, maybe with a border."""
    body = schedule.get(block).body
    if not isinstance(body, tirx.BufferStore) or str(body.buffer.dtype) != "float32":
        return False
    value = body.value
    if isinstance(value, Call) and value.op == Op.get("prim.if_then_else"):
        _, value, outside = value.args
        if not isinstance(outside, tirx.FloatImm):
            return False
    if isinstance(value, Call) and value.op == Op.get("tirx.reinterpret"):
        (value,) = value.args
        if not isinstance(value, LShift):
            return False
        value = value.a
    if not isinstance(value, tirx.Cast) or not isinstance(value.value, TensorLoad):
        return False
    return str(value.value.source.dtype) in ("uint16", "float16")


def is_view(schedule: Schedule, block: SBlockRV) -> bool:
    """Returns whether a block only renames indices, such as a slice, a reshape or a transpose."""
    body = schedule.get(block).body
    return isinstance(body, tirx.BufferStore) and isinstance(body.value, TensorLoad)


def annotated_block(schedule: Schedule, key: str) -> SBlockRV | None:
    """Returns the only block with an annotation of that key, or None."""
    found = [b for b in child_blocks(schedule) if key in schedule.get(b).annotations]
    return found[0] if len(found) == 1 else None


def loop_extents(schedule: Schedule, block: SBlockRV) -> list[int]:
    """Returns the extents of the loops around a block."""
    return [int(schedule.get(loop).extent) for loop in schedule.get_loops(block)]


def buffer_shape(schedule: Schedule, block: SBlockRV) -> tuple[int, ...]:
    """Returns the shape of the buffer that a block writes."""
    return tuple(int(d) for d in schedule.get(block).writes[0].source.shape)


def output_blocks(schedule: Schedule) -> list[SBlockRV]:
    """Returns the blocks that write an output of the function."""
    params = list(schedule.mod["main"].params)
    return [
        block
        for block in child_blocks(schedule)
        if any(param.same_as(schedule.get(block).writes[0].source) for param in params)
    ]


def inline_between(schedule: Schedule, keep: Sequence[SBlockRV]) -> None:
    """Inlines every block except those in ``keep`` into its consumers.

    Raises:
        tvm.s_tir.schedule.ScheduleError: A block is not elementwise.
    """
    names = {schedule.get(block).name_hint for block in keep}
    for block in child_blocks(schedule):
        if schedule.get(block).name_hint not in names:
            schedule.compute_inline(block)


def split_vector(schedule: Schedule, loop: LoopRV, lanes: int) -> LoopRV | None:
    """Vectorises the inner part of a loop; returns the outer part, or None when nothing fits.

    The widest power of two up to ``lanes`` that divides the extent is used; an extent that
    depends on an outer loop has none.
    """
    extent = schedule.get(loop).extent
    if not isinstance(extent, tirx.IntImm):
        return None
    extent = int(extent)
    while lanes > 1 and extent % lanes:
        lanes //= 2
    if lanes == 1:
        return None
    outer, inner = schedule.split(loop, [None, lanes])
    schedule.vectorize(inner)
    return outer


def split_ragged_vector(schedule: Schedule, loop: LoopRV, lanes: int) -> LoopRV:
    """Vectorises the inner part of a loop of any extent; returns the outer part.

    The last vector of an extent that is no multiple is written for itself when the function is
    lowered (:mod:`tvmdet.passes.ragged_vectors`).
    """
    extent = int(schedule.get(loop).extent)
    while lanes > 1 and lanes // 2 >= extent:
        lanes //= 2
    outer, inner = schedule.split(loop, [None, lanes])
    schedule.vectorize(inner)
    return outer
