"""A depthwise convolution and the pointwise one that reads it, as one kernel.

Strategy:

1. A parallel task computes ``rows`` rows of the result. It first computes the rows of the depthwise
   convolution that it needs, bias and activation included, into a scratch buffer that stays in L2;
   for bfloat16 products they are rounded as they are stored there.
2. The depthwise part takes the channels in blocks of ``dw_vectors`` vectors: tiles of ``dw_tile_w``
   columns are summed in registers, of a picture that is read where it lies, or copied, as in
   :mod:`.depthwise_conv2d_nhwc`.
3. The pointwise part is that of :mod:`.conv2d_nhwc`, ``order`` meaning the same inside a task.

No task computes what is another's, since a pointwise convolution reads no neighbours; what is won
is the way of the picture between the two through L3 or memory, and one start of the threads.

Why not always: a task needs all weights of the pointwise part, where the separate kernel can keep
one block of them in L1 for the whole picture. Small pictures with many channels lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.blocks import (
    annotated_block,
    buffer_shape,
    child_blocks,
    inline_between,
    is_reduction,
    loop_extents,
    split_vector,
)
from tvmdet.schedules.common import depthwise_conv2d_nhwc as depthwise
from tvmdet.schedules.common.borders import read_without_copy
from tvmdet.schedules.common.conv2d_nhwc import Conv2dNhwc
from tvmdet.schedules.common.overlap import overlap_tiles, split_overlapping
from tvmdet.targets import Target

__all__ = ["DepthwisePointwiseNhwc"]


class DepthwisePointwiseNhwc(Template):
    """Depthwise and pointwise convolution in one kernel; see the module's text."""

    pointwise: ClassVar[tuple[Conv2dNhwc, ...]]
    """The templates that lay out the registers of the second part; the first ranks its tiles."""

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one of each, the second reading the first."""
        schedule = schedule_of(func)
        dw = annotated_block(schedule, depthwise.MARK)
        found = self._pointwise(schedule)
        if dw is None or found is None:
            return None
        template, conv = found
        blocks = child_blocks(schedule)
        if sum(is_reduction(schedule, block) for block in blocks) != 2:
            return None
        batch, height, width, filters = buffer_shape(schedule, blocks[-1])[-4:]
        if buffer_shape(schedule, conv)[:2] != (batch, height):
            return None
        notes, dw_notes = schedule.get(conv).annotations, schedule.get(dw).annotations
        channels = buffer_shape(schedule, dw)[-1]
        dw_lanes = depthwise.lanes_for(channels, target.vector_lanes_f32)
        lanes = int(notes["tvmdet.lanes"])
        return Workload(
            anchor=f"{dw_notes[depthwise.MARK]} + {notes[template.mark]}",
            flop=int(notes["tvmdet.flop"]) + int(dw_notes["tvmdet.flop"]),
            facts=(
                ("lanes", lanes),
                ("vectors", loop_extents(schedule, conv)[3] // lanes),
                ("batch", batch),
                ("height", height),
                ("width", width),
                ("filters", filters),
                ("depth", channels),
                ("taps", depthwise.taps_of(str(dw_notes[depthwise.MARK]), channels, dw_lanes)),
                ("sliced", False),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns register tiles of both parts, the pointwise part's best first."""
        height, width = workload["height"], workload["width"]
        tasks = workload["batch"] * height
        found = []
        for tile_w, oc_blocks in self._tiles_of(workload, target)[:6]:
            columns = -(-width // tile_w) * tile_w
            dw_tiles = depthwise.tiles_of(workload["taps"], target, columns)[:4]
            for order in ("co_inner", "wo_inner"):
                for rows in (4, 2, 8, 1):
                    if height % rows or (rows > 1 and tasks // rows < 4):
                        continue
                    for dw_tile_w, dw_vectors in dw_tiles:
                        knobs = {"oc_blocks": oc_blocks, "tile_w": tile_w}
                        knobs |= {"dw_tile_w": dw_tile_w, "dw_vectors": dw_vectors}
                        found.append(Decision.of(self.name, **knobs, order=order, rows=rows))
        return found

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one pair of register tiles; see :class:`Template`."""
        schedule = schedule_of(func)
        found = self._pointwise(schedule)
        assert found is not None
        template, conv = found
        dw = annotated_block(schedule, depthwise.MARK)
        between = schedule.get_producers(conv)[0]
        pad = schedule.get_producers(dw)[0]
        last = child_blocks(schedule)[-1]
        if schedule.get(last).name_hint == schedule.get(conv).name_hint:
            last = schedule.cache_write(conv, 0, "global")
        inline_between(schedule, (pad, dw, between, conv, last))
        vector = decision["oc_blocks"] * workload["lanes"]
        n, h, w, c = schedule.get_loops(last)[-4:]
        co, ci = schedule.split(c, [None, vector])
        wo, wi = split_overlapping(schedule, w, decision["tile_w"])
        ho, hi = schedule.split(h, [None, decision["rows"]])
        if decision["order"] == "co_inner":
            schedule.reorder(n, ho, hi, wo, co, wi, ci)
            tile = co
        else:
            schedule.reorder(n, ho, co, hi, wo, wi, ci)
            tile = wo
        task = schedule.fuse(n, ho)
        schedule.parallel(task)
        schedule.compute_at(conv, tile, preserve_unit_loops=True)
        schedule.set_scope(conv, 0, "local")
        template.prepare_task(schedule, task)
        schedule.compute_at(between, task, preserve_unit_loops=True)
        _depthwise_part(schedule, pad, dw, between, workload, decision)
        template.registers(schedule, conv, workload["lanes"])
        columns, channels = schedule.get_loops(last)[-2:]
        outer, inner = schedule.split(channels, [None, workload["lanes"]])
        schedule.vectorize(inner)
        schedule.unroll(outer)
        schedule.unroll(columns)
        return overlap_tiles(schedule)

    def _pointwise(self, schedule: Schedule) -> tuple[Conv2dNhwc, SBlockRV] | None:
        for template in self.pointwise:
            block = annotated_block(schedule, template.mark)
            if block is not None:
                return template, block
        return None

    def _tiles_of(self, workload: Workload, target: Target) -> list[tuple[int, int]]:
        found = []
        for decision in self.pointwise[0].decisions(workload, target):
            tile = (decision["tile_w"], decision["oc_blocks"])
            if tile not in found:
                found.append(tile)
        return found


def _depthwise_part(
    schedule: Schedule,
    pad: SBlockRV,
    dw: SBlockRV,
    between: SBlockRV,
    workload: Workload,
    decision: Decision,
) -> None:
    lanes = workload["taps"].lanes
    hi, w, c = schedule.get_loops(between)[-3:]
    co, ci = split_overlapping(schedule, c, decision["dw_vectors"] * lanes)
    wo, wi = split_overlapping(schedule, w, decision["dw_tile_w"])
    schedule.reorder(co, hi, wo, wi, ci)
    schedule.compute_at(dw, wo, preserve_unit_loops=True)
    schedule.set_scope(dw, 0, "local")
    if not read_without_copy(schedule, pad, wo):
        schedule.compute_at(pad, co, preserve_unit_loops=True)
        split_vector(schedule, schedule.get_loops(pad)[-1], lanes)
    wi, ci, kh, kw = schedule.get_loops(dw)[-4:]
    blocks, inner = schedule.split(ci, [None, lanes])
    schedule.reorder(kh, kw, wi, blocks, inner)
    for loop in (kw, wi, blocks):
        schedule.unroll(loop)
    schedule.vectorize(inner)
    init = schedule.decompose_reduction(dw, kh)
    wi, blocks, inner = schedule.get_loops(init)[-3:]
    schedule.vectorize(inner)
    schedule.unroll(blocks)
    schedule.unroll(wi)
    columns, channels = schedule.get_loops(between)[-2:]
    outer = split_vector(schedule, channels, lanes)
    if outer is not None:
        schedule.unroll(outer)
    schedule.unroll(columns)
