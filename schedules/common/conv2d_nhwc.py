"""Direct NHWC convolution: dense, pointwise and grouped, any stride, dilation and size.

Strategy:

1. A tile of ``tile_w`` output columns by ``oc_blocks`` vectors of output channels is held in
   registers; for every tap and input channel one vector of weights is loaded per channel block
   and multiplied with a broadcast pixel, ``tile_w * oc_blocks`` independent FMAs in flight.
   Where tiles do not divide a row, its last one starts earlier.
2. Tiles run over a row with either the channels (``order=co_inner``: the row stays in L1, the
   weights stream from L2) or the columns innermost (``order=wo_inner``: one block of weights
   stays in L1 while the picture streams).
3. ``rows`` output rows form one parallel task; the padded input rows of a task are copied once
   to a scratch buffer, unless nothing is padded, when they are read in place.
4. Bias, activation and residual are computed on the registers' copy before anything is stored.
5. Pointwise convolutions of thousands of channels go through them in slices (``order=depth``,
   :mod:`~tvmdet.schedules.common.deep_conv2d_nhwc`).

Why not NCHW16c: the blocked layout fails on a first layer of 3 channels, and needs re-blocking at
every concat and split of a detector; the FMA loop is the same.

Source of the register blocking: Georganas et al., "Anatomy of High-Performance Deep Learning
Convolutions on SIMD Architectures", SC 2018, section II-C.
"""

from __future__ import annotations

import itertools
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
    split_ragged_vector,
    split_vector,
)
from tvmdet.schedules.common.deep_conv2d_nhwc import DEEP, deep_knobs, is_deep, sum_by_slices
from tvmdet.schedules.common.overlap import overlap_tiles, split_overlapping
from tvmdet.schedules.common.register_tile import SHALLOW, RegisterTile
from tvmdet.targets import Target

__all__ = ["Conv2dNhwc", "copy_channels", "frame_blocks"]

MIN_TASKS = 4
"""Fewer leave cores idle."""


class Conv2dNhwc(RegisterTile, Template):
    """Direct convolution with register tiles; see the module's text."""

    mark: ClassVar[str] = "tvmdet.conv2d"
    """Annotation of the main block."""
    slices: ClassVar[bool] = True
    """Whether the products can go through the channels in slices."""

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one packed convolution whose epilogue keeps its shape."""
        schedule = schedule_of(func)
        conv = annotated_block(schedule, self.mark)
        if conv is None:
            return None
        blocks = child_blocks(schedule)
        own = {schedule.get(b).name_hint for b in (conv, self.totals(schedule, conv))}
        others = [b for b in blocks if schedule.get(b).name_hint not in own]
        if any(is_reduction(schedule, block) for block in others):
            return None
        batch, height, width, filters = buffer_shape(schedule, blocks[-1])[-4:]
        if buffer_shape(schedule, conv)[:2] != (batch, height):
            return None
        extents = loop_extents(schedule, conv)
        notes = schedule.get(conv).annotations
        return Workload(
            anchor=str(notes[self.mark]),
            flop=int(notes["tvmdet.flop"]),
            facts=(
                ("lanes", int(notes["tvmdet.lanes"])),
                ("vectors", extents[3] // int(notes["tvmdet.lanes"])),
                ("batch", batch),
                ("height", height),
                ("width", width),
                ("filters", filters),
                ("depth", extents[-1]),
                ("unpadded", "p0.0.0.0" in str(notes[self.mark]).split()),
                (
                    "sliced",
                    self.slices and extents[4:6] == [1, 1] and self._is_plain(schedule, conv),
                ),
            ),
        )

    def _is_plain(self, schedule: Schedule, conv: SBlockRV) -> bool:
        """Whether one picture is read as it is, by all filters."""
        words = str(schedule.get(conv).annotations[self.mark]).split()
        pad = schedule.get_producers(conv)[0]
        return "p0.0.0.0" in words and "g1" in words and not is_gathered(schedule, pad)

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns register tiles that fit, the fullest with the least waste first."""
        per_vector = self.registers_of_vector(workload["lanes"], target)
        height, width = workload["height"], workload["width"]
        shallow = workload["depth"] < SHALLOW and " k1x1 " in workload.anchor
        ranked = []
        for oc_blocks in (1, 2, 3, 4, 5, 6, 8):
            if oc_blocks > 1 and workload["vectors"] % oc_blocks:
                continue
            for tile_w in range(1, min(width, 28) + 1):
                tiles = -(-width // tile_w)
                waste = tiles * tile_w / width
                held = oc_blocks * tile_w
                sums = oc_blocks * per_vector
                if not self.fits(target, tile_w, sums, shallow=shallow) or waste > 1.25:
                    continue
                if held < 4 and tile_w < min(width, 4):
                    continue
                if waste > 1 and tile_w != -(-width // tiles):
                    continue  # a narrower tile covers the row as well
                loads = 1 / tile_w + 1 / (4 * oc_blocks)
                cost = waste * (1 + loads) * max(1.0, 10 / held)
                ranked.append((cost, tile_w, oc_blocks))
        ranked.sort()
        tasks = workload["batch"] * height
        found: list[tuple[bool, Decision]] = []
        for _, tile_w, oc_blocks in ranked[:12]:
            for order, rows in itertools.product(("co_inner", "wo_inner"), (1, 2, 4)):
                if height % rows == 0 and (rows == 1 or tasks // rows >= MIN_TASKS):
                    knobs = {"oc_blocks": oc_blocks, "tile_w": tile_w}
                    shares = workload["vectors"] // oc_blocks if order == "wo_inner" else 1
                    decision = Decision.of(self.name, **knobs, order=order, rows=rows)
                    found.append((tasks // rows * shares < MIN_TASKS, decision))
        # A single row is shared out by channels or not at all.
        found.sort(key=lambda entry: entry[0])
        plain = [decision for _, decision in found]
        if not is_deep(workload):
            return plain
        tiles = [(tile_w, oc_blocks) for _, tile_w, oc_blocks in ranked]
        deep = [Decision.of(self.name, **knobs) for knobs in deep_knobs(workload, target, tiles)]
        return deep + plain if workload["depth"] >= DEEP else plain + deep

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one register tile; see :class:`Template`."""
        schedule = schedule_of(func)
        conv = annotated_block(schedule, self.mark)
        totals = self.totals(schedule, conv)
        pad, last = frame_blocks(schedule, conv, totals)
        lanes = workload["lanes"]
        if decision["order"] == "depth":
            schedule.compute_inline(pad)
            self.registers(schedule, sum_by_slices(schedule, conv, last, decision, lanes), lanes)
            return schedule
        vector = decision["oc_blocks"] * lanes
        n, h, w, c = schedule.get_loops(last)[-4:]
        co, ci = schedule.split(c, [None, vector])
        wo, wi = split_overlapping(schedule, w, decision["tile_w"])
        ho, hi = schedule.split(h, [None, decision["rows"]])
        if decision["order"] == "co_inner":
            schedule.reorder(n, ho, hi, wo, co, wi, ci)
            task, tile = schedule.fuse(n, ho), co
        else:
            schedule.reorder(n, co, ho, hi, wo, wi, ci)
            task, tile = schedule.fuse(n, co, ho), wo
        schedule.parallel(task)
        schedule.compute_at(totals, tile, preserve_unit_loops=True)
        schedule.set_scope(totals, 0, "local")
        self.place_parts(schedule, conv, lanes)
        self._place_padding(schedule, pad, task, workload)
        self.registers(schedule, conv, lanes)
        columns, channels = schedule.get_loops(last)[-2:]
        outer, inner = schedule.split(channels, [None, lanes])
        schedule.vectorize(inner)
        schedule.unroll(outer)
        schedule.unroll(columns)
        return overlap_tiles(schedule)

    def _place_padding(
        self, schedule: Schedule, pad: SBlockRV, task: object, workload: Workload
    ) -> None:
        """Copies the padded rows of a task to a scratch buffer; without padding, reads in place.

        A picture that is gathered from several is always copied: which one a vector of channels is
        read from is settled once.
        """
        if workload["unpadded"] and not is_gathered(schedule, pad):
            schedule.compute_inline(pad)
            return
        schedule.compute_at(pad, task)
        copy_channels(schedule, pad, workload["lanes"])

    def registers_of_vector(self, lanes: int, target: Target) -> int:
        """Returns how many registers the sums of a vector take, which may be a wider one."""
        return -(-lanes // target.vector_lanes_f32)

    def totals(self, schedule: Schedule, conv: SBlockRV) -> SBlockRV:
        """Returns the block whose sums are complete: the convolution, if nothing sums on."""
        return conv

    def place_parts(self, schedule: Schedule, conv: SBlockRV, lanes: int) -> None:
        """Places the convolution in the loops of :meth:`totals`, if it is not that."""

    def prepare_task(self, schedule: Schedule, task: object) -> None:
        """Adds to the loop of a task what :meth:`registers` needs."""

    def registers(self, schedule: Schedule, conv: SBlockRV, lanes: int) -> None:
        """Lays the register tile's loops out and vectorises them."""
        wi, ci, kh, kw, ic = schedule.get_loops(conv)[-5:]
        blocks, vector = schedule.split(ci, [None, lanes])
        # A channel of a group is no neighbour of what the group's other filters read.
        single = "g1" in str(schedule.get(conv).annotations[self.mark]).split()
        depth = self.depth_loops(schedule, ic, lanes) if single else (ic,)
        schedule.reorder(kh, kw, *depth, wi, blocks, vector)
        self.load_inputs(schedule, conv, depth)
        for loop in (wi, blocks):
            schedule.unroll(loop)
        schedule.vectorize(vector)
        init = schedule.decompose_reduction(conv, kh)
        wi, blocks, vector = schedule.get_loops(init)[-3:]
        schedule.vectorize(vector)
        schedule.unroll(blocks)
        schedule.unroll(wi)


def frame_blocks(
    schedule: Schedule, conv: SBlockRV, totals: SBlockRV | None = None
) -> tuple[SBlockRV, SBlockRV]:
    """Inlines what lies around a convolution; returns its padding and the block that stores.

    Args:
        schedule: Where.
        conv: The convolution.
        totals: The block with its complete sums, where that is another one.
    """
    totals = totals or conv
    blocks = child_blocks(schedule)
    pad = schedule.get_producers(conv)[0]
    last = blocks[-1]
    if schedule.get(last).name_hint == schedule.get(totals).name_hint:
        last = schedule.cache_write(totals, 0, "global")
    inline_between(schedule, (pad, conv, totals, last))
    return pad, last


def is_gathered(schedule: Schedule, pad: SBlockRV) -> bool:
    """Returns whether a picture is read from several, a concatenation."""
    return len({read.source for read in schedule.get(pad).reads}) > 1


def copy_channels(schedule: Schedule, pad: SBlockRV, lanes: int, *, ragged: bool = False) -> None:
    """Vectorises the copy of a picture's channels; ``ragged`` if only some of them are copied."""
    channels = schedule.get_loops(pad)[-1]
    if ragged or is_gathered(schedule, pad):
        split_ragged_vector(schedule, channels, lanes)
    else:
        split_vector(schedule, channels, lanes)
