"""Depthwise NHWC convolution: one filter per channel, any kernel, stride and dilation.

Strategy:

1. A tile of ``tile_w`` columns by ``vectors`` vectors of channels is held in registers; for every
   tap one vector of weights per channel vector is loaded, and multiplied with vectors of pixels.
2. The taps are unrolled along the row, so that neighbouring columns share loads.
3. ``rows`` output rows form one parallel task; its padded input rows are copied once to a scratch
   buffer (``order=rows``), or only those of one channel block when the tasks are split over
   channels as well (``order=channels``, for small pictures with many channels).

Why not the dense template: there is no sum over input channels to keep the FMA units busy; the
kernel is bound by loads, so that the sharing of loads decides, not the register count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.s_tir import Schedule
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.blocks import (
    annotated_block,
    buffer_shape,
    child_blocks,
    is_reduction,
    loop_extents,
    split_vector,
)
from tvmdet.schedules.common.conv2d_nhwc import frame_blocks
from tvmdet.schedules.common.overlap import overlap_tiles, split_overlapping
from tvmdet.targets import Target

__all__ = ["DepthwiseConv2dNhwc"]

MARK = "tvmdet.depthwise_conv2d"


class DepthwiseConv2dNhwc(Template):
    """Depthwise convolution with register tiles; see the module's text."""

    mark: ClassVar[str] = MARK
    """Annotation of the main block."""

    def lanes_of(self, target: Target) -> int:
        """Returns the lanes of a vector."""
        return target.vector_lanes_f32

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one depthwise convolution whose epilogue keeps its shape."""
        schedule = schedule_of(func)
        conv = annotated_block(schedule, self.mark)
        if conv is None:
            return None
        blocks = child_blocks(schedule)
        if sum(is_reduction(schedule, block) for block in blocks) != 1:
            return None
        shape = buffer_shape(schedule, blocks[-1])[-4:]
        if buffer_shape(schedule, conv)[:2] != shape[:2]:
            return None
        notes = schedule.get(conv).annotations
        extents = loop_extents(schedule, conv)
        lanes = self.lanes_of(target)
        while shape[3] % lanes:
            lanes //= 2
        return Workload(
            anchor=str(notes[self.mark]),
            flop=int(notes["tvmdet.flop"]),
            facts=(
                ("lanes", lanes),
                ("batch", shape[0]),
                ("height", shape[1]),
                ("width", shape[2]),
                ("channels", shape[3]),
                ("kernel_w", extents[5]),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns register tiles that fit, the fullest with the least waste first."""
        budget = target.vector_registers - 4
        height, width = workload["height"], workload["width"]
        vectors_per_pixel = workload["channels"] // workload["lanes"]
        ranked = []
        for vectors in (1, 2, 4):
            if vectors_per_pixel % vectors:
                continue
            for tile_w in range(1, min(width, 16) + 1):
                tiles = -(-width // tile_w)
                waste = tiles * tile_w / width
                if vectors * tile_w > budget or waste > 1.25:
                    continue
                if waste > 1 and tile_w != -(-width // tiles):
                    continue
                cost = waste * (1 + 1 / tile_w) + 0.05 * abs(vectors * tile_w - 8) / 8
                ranked.append((cost, tile_w, vectors))
        ranked.sort()
        found = []
        for _, tile_w, vectors in ranked[:6]:
            for order in ("rows", "channels"):
                if order == "channels" and vectors_per_pixel == vectors:
                    continue
                for rows in (4, 8, 2, 1, height):
                    if height % rows == 0 and (rows < height or rows not in (1, 2, 4, 8)):
                        knobs = {"vectors": vectors, "tile_w": tile_w}
                        found.append(Decision.of(self.name, **knobs, order=order, rows=rows))
        return found or [Decision.of(self.name, vectors=1, tile_w=1, order="rows", rows=1)]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one register tile; see :class:`Template`."""
        schedule = schedule_of(func)
        conv = annotated_block(schedule, self.mark)
        pad, last = frame_blocks(schedule, conv)
        lanes = workload["lanes"]
        vector = decision["vectors"] * lanes
        n, h, w, c = schedule.get_loops(last)[-4:]
        co, ci = schedule.split(c, [None, vector])
        wo, wi = split_overlapping(schedule, w, decision["tile_w"])
        ho, hi = schedule.split(h, [None, decision["rows"]])
        if decision["order"] == "rows":
            schedule.reorder(n, ho, hi, co, wo, wi, ci)
            task = schedule.fuse(n, ho)
        else:
            schedule.reorder(n, ho, co, hi, wo, wi, ci)
            task = schedule.fuse(n, ho, co)
        schedule.parallel(task)
        schedule.compute_at(conv, wo, preserve_unit_loops=True)
        schedule.set_scope(conv, 0, "local")
        wi, ci, kh, kw = schedule.get_loops(conv)[-4:]
        blocks, inner = schedule.split(ci, [None, lanes])
        schedule.reorder(kh, kw, wi, blocks, inner)
        for loop in (kw, wi, blocks):
            schedule.unroll(loop)
        schedule.vectorize(inner)
        init = schedule.decompose_reduction(conv, kh)
        wi, blocks, inner = schedule.get_loops(init)[-3:]
        schedule.vectorize(inner)
        schedule.unroll(blocks)
        schedule.unroll(wi)
        schedule.compute_at(pad, task)
        split_vector(schedule, schedule.get_loops(pad)[-1], lanes)
        columns, channels = schedule.get_loops(last)[-2:]
        outer = split_vector(schedule, channels, lanes)
        if outer is not None:
            schedule.unroll(outer)
        schedule.unroll(columns)
        return overlap_tiles(schedule)
