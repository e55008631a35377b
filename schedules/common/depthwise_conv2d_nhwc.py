"""Depthwise NHWC convolution: one filter per channel, any kernel, stride and dilation.

Strategy:

1. A tile of ``tile_w`` columns by ``vectors`` vectors of channels is held in registers; for every
   tap one vector of weights per channel vector is loaded, and multiplied with vectors of pixels.
2. The taps are unrolled along the row, so that neighbouring columns share loads.
3. ``rows`` output rows form one parallel task (``order=rows``), or those of one channel block when
   the tasks are split over channels as well (``order=channels``, for small pictures with many
   channels).
4. The picture is read where it lies (:mod:`.borders`). If something is computed as it is read, the
   padded input of a task is copied to a scratch buffer first; also with ``order=copied``, else like
   ``channels``, for pictures whose columns fall into few sets of the L1 cache.

Why not the dense template: there is no sum over input channels to keep the FMA units busy; the
kernel is bound by loads, so that the sharing of loads decides, not the register count.
"""

from __future__ import annotations

import re
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
    split_vector,
)
from tvmdet.schedules.common.borders import read_without_copy
from tvmdet.schedules.common.conv2d_nhwc import frame_blocks
from tvmdet.schedules.common.overlap import overlap_tiles, split_overlapping
from tvmdet.targets import Target

__all__ = ["DepthwiseConv2dNhwc", "lanes_for", "taps_of", "tile_fits", "vectors_of_blocks"]

MARK = "tvmdet.depthwise_conv2d"

_LINE_BYTES = 64
_SUMS_AT_ONCE = 8
"""Two multiplications begin in each cycle and take four, so that fewer sums wait for each other."""


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
        lanes = lanes_for(shape[3], self.lanes_of(target))
        return Workload(
            anchor=str(notes[self.mark]),
            flop=int(notes["tvmdet.flop"]),
            facts=(
                ("lanes", lanes),
                ("batch", shape[0]),
                ("height", shape[1]),
                ("width", shape[2]),
                ("channels", shape[3]),
                *taps_of(str(notes[self.mark])),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns register tiles that fit, the fullest with the least waste first."""
        height, width = workload["height"], workload["width"]
        channels, lanes = workload["channels"], workload["lanes"]
        ranked = []
        for vectors, too_many in vectors_of_blocks(channels, lanes).items():
            for tile_w in range(1, min(width, 16) + 1):
                tiles = -(-width // tile_w)
                waste = tiles * tile_w / width
                if waste > 1.25 or not tile_fits(workload, target, vectors, tile_w):
                    continue
                if waste > 1 and tile_w != -(-width // tiles):
                    continue
                # The rest of a cache line is fetched again for the next block.
                parts = max(1, _LINE_BYTES // (4 * target.vector_lanes_f32 * vectors))
                cost = waste * too_many * (1 + 1 / tile_w) * (1 + 0.25 * (parts - 1))
                cost *= max(1.0, _SUMS_AT_ONCE / (vectors * tile_w))
                cost += 0.05 * abs(vectors * tile_w - 8) / 8
                ranked.append((cost, tile_w, vectors))
        ranked.sort()
        found = []
        for _, tile_w, vectors in ranked[:6]:
            for order in ("rows", "channels"):
                # What two blocks of channels both compute must be of one task.
                if order == "channels" and (too_many > 1 or channels == vectors * lanes):
                    continue
                for rows in (4, 8, 2, 1, height):
                    if height % rows == 0 and (rows < height or rows not in (1, 2, 4, 8)):
                        knobs = {"vectors": vectors, "tile_w": tile_w}
                        found.append(Decision.of(self.name, **knobs, order=order, rows=rows))
        for _, tile_w, vectors in ranked[:2]:
            if channels % (vectors * lanes) == 0:
                knobs = {"vectors": vectors, "tile_w": tile_w}
                found.append(Decision.of(self.name, **knobs, order="copied", rows=height))
        return found or [Decision.of(self.name, vectors=1, tile_w=1, order="rows", rows=1)]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one register tile; see :class:`Template`."""
        schedule = schedule_of(func)
        conv = annotated_block(schedule, self.mark)
        pad, last = frame_blocks(schedule, conv)
        lanes = workload["lanes"]
        vector = decision["vectors"] * lanes
        n, h, w, c = schedule.get_loops(last)[-4:]
        co, ci = split_overlapping(schedule, c, vector)
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
        if decision["order"] == "copied" or not read_without_copy(schedule, pad, wo):
            schedule.compute_at(pad, task)
            split_vector(schedule, schedule.get_loops(pad)[-1], lanes)
        columns, channels = schedule.get_loops(last)[-2:]
        outer = split_vector(schedule, channels, lanes)
        if outer is not None:
            schedule.unroll(outer)
        schedule.unroll(columns)
        return overlap_tiles(schedule)


def lanes_for(channels: int, lanes: int) -> int:
    """Returns the lanes of a vector for so many channels, at most ``lanes``."""
    while lanes > channels:
        lanes //= 2
    return lanes


def taps_of(anchor: str) -> tuple[tuple[str, int], ...]:
    """Returns the facts of a depthwise convolution that :func:`tile_fits` needs."""
    found = re.search(r" k\d+x(\d+) s\d+x(\d+) ", anchor)
    assert found is not None, anchor
    return ("kernel_w", int(found[1])), ("stride_w", int(found[2]))


def tile_fits(workload: Workload, target: Target, vectors: int, tile_w: int) -> bool:
    """Returns whether the registers hold a tile of ``tile_w`` columns by ``vectors`` vectors.

    LLVM loads a pixel once for all columns that read it, and keeps it. It has a quarter more in
    registers than there are before it spills, for sums of the first columns end before the last
    pixels are loaded. Counted in its code for 3 and 5 taps with 16 and with 32 registers.
    """
    shared = -(-workload["kernel_w"] // workload["stride_w"]) - 1
    kept = tile_w + min(tile_w, shared)
    return bool(vectors * (tile_w + kept) * 4 <= target.vector_registers * 5)


def vectors_of_blocks(channels: int, lanes: int) -> dict[int, float]:
    """Returns of how many vectors blocks of channels may be, and what each computes too much.

    Where vectors do not divide the channels the last block begins within the one before.
    """
    found = {}
    for vectors in (1, 2, 4):
        block = vectors * lanes
        if block <= channels and (channels % block == 0 or channels % lanes):
            found[vectors] = -(-channels // block) * block / channels
    return found
