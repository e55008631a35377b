"""Functions without any reduction: elementwise, broadcasts, concat, slices, resizes, casts.

Strategy: everything is inlined into the last block. Where each tensor is read as the result is
written, all of it is one run of vectors. Else rows of at least one vector are cut into vectors
where they end and where another tensor of a concatenation begins (``joined_columns``), so that no
index is divided and nothing is tested per vector. Results that lie across what they are read from
are written block by block (``transposing``). Rows of up to four elements are interleaved from
vectors; others are joined until they hold whole vectors. The rows run in parallel when there is
enough work to share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import tvm_ffi
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.blocks import (
    block_iters,
    buffer_shape,
    child_blocks,
    inline_between,
    loop_extents,
    output_blocks,
    split_ragged_vector,
    split_vector,
)
from tvmdet.schedules.common.joined_columns import cut_columns, vectorise_columns
from tvmdet.schedules.common.transposing import find_turned, turn
from tvmdet.targets import Target

__all__ = ["PARALLEL_GRAIN", "TASKS", "Elementwise", "run_in_parallel"]

# Elements below which waking the other threads costs more than they help: about 5 us.
PARALLEL_GRAIN = 16384
# Pieces of work that a long loop is cut into.
TASKS = 64
_ENOUGH_TASKS = 16
_FEW = 4  # elements of a row that is shuffled


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
            if not schedule.get(block).writes:  # opaque: it does not say what it computes
                return None
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
        lanes = workload["lanes"]
        turned = find_turned(schedule, PARALLEL_GRAIN)
        sources = [one.source for one in turned if one.source is not None]
        outputs = output_blocks(schedule)
        inline_between(schedule, [*outputs, *sources])
        parts = [name for one in turned for name in turn(schedule, one, lanes)]
        done = {schedule.get(one.block).name_hint for one in turned}
        for block in outputs:
            if schedule.get(block).name_hint in done:
                continue
            loops = list(schedule.get_loops(block))
            if not loops:
                continue
            extents = loop_extents(schedule, block)
            rows = math.prod(extents[:-1])
            pointwise = _is_pointwise(schedule, block)
            if rows > 1 and extents[-1] >= lanes and not pointwise:
                indirect = _is_indirect(schedule, block)
                parts += _vectorize_rows(
                    schedule, block, lanes, math.prod(extents), is_indirect=indirect
                )
                continue
            if rows > 1 and extents[-1] <= _FEW and extents[-2] >= lanes and not pointwise:
                _interleave(schedule, loops, math.prod(extents))
                continue
            # As few trailing axes as hold whole vectors: an index that crosses more of them
            # costs a division per vector.
            count = 1
            while count < len(loops) and math.prod(extents[-count:]) % lanes:
                count += 1
            if count > 1 and math.prod(extents[-count:]) % lanes == 0:
                loops = [*loops[:-count], schedule.fuse(*loops[-count:])]
            split_vector(schedule, loops[-1], lanes)
            run_in_parallel(schedule, block, math.prod(extents))
        return vectorise_columns(schedule, parts, lanes) if parts else schedule


def _is_pointwise(schedule: Schedule, block: SBlockRV) -> bool:
    """Returns whether every tensor is read where the result is written: one run of vectors."""
    body = schedule.get(block)
    written = [r.min for r in body.writes[0].region]
    return all(
        len(read.region) == len(written)
        and all(
            tvm_ffi.structural_equal(r.min, w) for r, w in zip(read.region, written, strict=True)
        )
        for read in body.reads
    )


def _is_indirect(schedule: Schedule, block: SBlockRV) -> bool:
    """Returns whether a tensor says where another is read, as in a gather."""
    found: list[object] = []

    def look(load: Any) -> None:
        found.extend(index for index in load.indices if isinstance(index, TensorLoad))

    tvm_ffi.structural_walk(schedule.get(block).body, (TensorLoad, look))
    return bool(found)


def _vectorize_rows(
    schedule: Schedule, block: SBlockRV, lanes: int, elements: int, *, is_indirect: bool
) -> list[str]:
    """Cuts rows into vectors where they end or another tensor begins, and shares the rows.

    Rows of odd length begin anywhere: LLVM's own vectors of such a loop are better.

    Returns:
        The blocks whose columns are yet to be vectorised.
    """
    *lead, row = schedule.get_loops(block)
    _share(schedule, lead, elements)
    parts = [] if is_indirect else cut_columns(schedule, block, lanes)
    if parts:
        return parts
    if int(schedule.get(row).extent) % 4 == 0:
        split_ragged_vector(schedule, row, lanes)
    return []


def _share(schedule: Schedule, lead: Sequence[LoopRV], elements: int) -> None:
    """Shares rows among the threads, where there is enough to share."""
    outer = schedule.fuse(*lead) if len(lead) > 1 else lead[0]
    if elements >= PARALLEL_GRAIN:
        if int(schedule.get(outer).extent) > 4 * TASKS:
            outer, _ = schedule.split(outer, [TASKS, None])
        schedule.parallel(outer)


def _interleave(schedule: Schedule, loops: Sequence[LoopRV], elements: int) -> None:
    """Leaves rows of a few elements, such as pixels, to LLVM, which shuffles whole vectors.

    That is how a picture gets its channels last.
    """
    *lead, row, few = loops
    schedule.unroll(few)
    if elements < PARALLEL_GRAIN:
        return
    count = math.prod(int(schedule.get(loop).extent) for loop in lead)
    if count < _ENOUGH_TASKS:
        extent = int(schedule.get(row).extent)
        pieces = max(n for n in (1, 2, 4, 8, 16) if extent % n == 0)
        piece, _ = schedule.split(row, [pieces, None])
        lead = [*lead, piece]
    if lead:
        schedule.parallel(schedule.fuse(*lead) if len(lead) > 1 else lead[0])


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
