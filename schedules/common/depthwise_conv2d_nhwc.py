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

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

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

__all__ = ["DepthwiseConv2dNhwc", "Taps", "lanes_for", "taps_of", "tiles_of"]

MARK = "tvmdet.depthwise_conv2d"

_LINE_BYTES = 64
_SUMS_AT_ONCE = 8
"""Of a core that begins two multiplications in a cycle, each of which takes four: with fewer sums
they wait for each other."""


class Taps(NamedTuple):
    """What the tiles of a depthwise convolution depend on."""

    channels: int
    lanes: int
    kernel_w: int
    stride_w: int


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
                ("height", shape[1]),
                ("width", shape[2]),
                ("taps", taps_of(str(notes[self.mark]), shape[3], lanes)),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns register tiles that fit, the fullest with the least waste first."""
        height, taps = workload["height"], workload["taps"]
        tiles = tiles_of(taps, target, workload["width"])[:6]
        found = []
        for tile_w, vectors in tiles:
            knobs = {"vectors": vectors, "tile_w": tile_w}
            for order in ("rows", "channels"):
                # What two blocks of channels both compute must be of one task.
                if order == "channels" and not _is_cut_evenly(taps, vectors):
                    continue
                found += [
                    Decision.of(self.name, **knobs, order=order, rows=rows)
                    for rows in dict.fromkeys((4, 8, 2, 1, height))
                    if height % rows == 0
                ]
        return found + [
            Decision.of(self.name, vectors=vectors, tile_w=tile_w, order="copied", rows=height)
            for tile_w, vectors in tiles[:2]
            if _is_cut_evenly(taps, vectors)
        ]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one register tile; see :class:`Template`."""
        schedule = schedule_of(func)
        conv = annotated_block(schedule, self.mark)
        pad, last = frame_blocks(schedule, conv)
        lanes = workload["taps"].lanes
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


def taps_of(anchor: str, channels: int, lanes: int) -> Taps:
    """Returns the facts of a convolution with such an anchor."""
    words = {word[0]: word[1:] for word in anchor.split()}
    kernel_w, stride_w = (int(words[key].split("x")[1]) for key in "ks")
    return Taps(channels=channels, lanes=lanes, kernel_w=kernel_w, stride_w=stride_w)


def tiles_of(taps: Taps, target: Target, columns: int) -> list[tuple[int, int]]:
    """Returns tiles of columns by vectors of channels that the registers hold, the best first.

    Where tiles do not divide the columns, or blocks of vectors the channels, the last one begins
    within the one before.

    Args:
        taps: Of the convolution.
        target: Where.
        columns: Of a row of the result.
    """
    ranked = []
    for vectors in (1, 2, 4):
        block = vectors * taps.lanes
        if block > taps.channels or (taps.channels % block and taps.channels % taps.lanes == 0):
            continue
        wide = -(-taps.channels // block) * block / taps.channels
        if block < taps.channels:
            # The rest of a cache line is fetched again for the next block.
            parts = max(1, _LINE_BYTES // (4 * target.vector_lanes_f32 * vectors))
            wide *= 1 + 0.25 * (parts - 1)
        for tile_w in range(1, min(columns, 16) + 1):
            tiles = -(-columns // tile_w)
            waste = tiles * tile_w / columns
            if waste > 1.25 or not _fits(taps, target, vectors, tile_w):
                continue
            if waste > 1 and tile_w != -(-columns // tiles):
                continue  # a narrower tile covers the row as well
            held = vectors * tile_w
            cost = wide * waste * (1 + 1 / tile_w) * max(1.0, _SUMS_AT_ONCE / held)
            cost += 0.05 * abs(held - _SUMS_AT_ONCE) / _SUMS_AT_ONCE
            ranked.append((cost, tile_w, vectors))
    return [(tile_w, vectors) for _, tile_w, vectors in sorted(ranked)]


def _fits(taps: Taps, target: Target, vectors: int, tile_w: int) -> bool:
    """Returns whether the registers hold a tile.

    LLVM loads a pixel once for all columns that read it, and keeps it. It has a quarter more in
    registers than there are before it spills, for sums of the first columns end before the last
    pixels are loaded. Counted in its code for 3 and 5 taps with 16 and with 32 registers.
    """
    shared = -(-taps.kernel_w // taps.stride_w) - 1
    kept = tile_w + min(tile_w, shared)
    return vectors * (tile_w + kept) * 4 <= target.vector_registers * 5


def _is_cut_evenly(taps: Taps, vectors: int) -> bool:
    """Returns whether blocks of vectors are several, none of which begins within another."""
    channels, block = taps.channels, vectors * taps.lanes
    return block < channels and channels % block == 0
