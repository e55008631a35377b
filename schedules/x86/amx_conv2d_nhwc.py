"""Convolution by the matrix tiles of Intel AMX: 16 by 16 sums of 32 products in 16 cycles.

Strategy:

1. A task is ``rows`` rows of the result. It copies the rows of the picture that it needs, padded
   and rounded to bfloat16, by phases of the strides; a pointwise convolution of a picture that is
   bfloat16 already reads it in place.
2. The pixels of a task are counted through, whatever the width of the picture, so that its tiles
   are full. ``pixels`` by ``filters`` tiles of sums stay in registers while the products go through
   the taps and the channels; each tile of factors that is loaded is used for several products.
3. Sums are stored to a scratch buffer that the L1 cache holds, one block of filters at a time, from
   where bias, activation and residual are computed as vectors.
4. ``order=co_inner`` takes all filters in one task (the rows are copied once), ``order=wo_inner``
   makes tasks of blocks of filters as well (a small picture is shared out). With ``order=filters``
   the whole picture is copied first, and a task is one block of filters: each core reads its
   weights once, which matters where they are more than its caches hold.

The tensor expression is :func:`tvmdet.passes.amx_conv2d.amx_conv2d`; the instructions are written
by :mod:`tvmdet.schedules.x86.amx_tiles`.

Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, chapter "Intel AMX", on the
blocking of tiles, and on what loads cost beside products.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import tvm_ffi
from tvm import sym, tirx
from tvm.ir import Range, TensorLoad
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
)
from tvmdet.schedules.common.conv2d_nhwc import copy_channels
from tvmdet.schedules.common.overlap import overlap_tiles, split_overlapping
from tvmdet.schedules.x86.amx_estimate import estimated_cycles, positions
from tvmdet.schedules.x86.amx_tiles import TILE, Tiles, mark_products, use_tiles
from tvmdet.targets import Target

__all__ = ["AmxConv2dNhwc"]

_SHAPES = ((2, 2), (1, 4), (4, 1), (1, 3), (3, 1), (1, 2), (2, 1), (1, 1))
"""Tiles of sums by pixels and filters."""
_MOST_DECISIONS = 40


class AmxConv2dNhwc(Template):
    """Convolution by matrix tiles; see the module's text."""

    name: ClassVar[str] = "x86.amx_conv2d_nhwc"
    rate: ClassVar[int] = 16
    told_by_other_pictures: ClassVar[int] = 4
    mark: ClassVar[str] = "tvmdet.amx_conv2d"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one such convolution whose epilogue keeps its shape."""
        schedule = schedule_of(func)
        conv = annotated_block(schedule, self.mark)
        if conv is None:
            return None
        blocks = child_blocks(schedule)
        if sum(is_reduction(schedule, block) for block in blocks) != 1:
            return None
        notes = schedule.get(conv).annotations
        row = int(notes["tvmdet.row"])
        batch, pixels, padded_filters = buffer_shape(schedule, conv)
        shape = buffer_shape(schedule, blocks[-1])[-4:]
        if len(shape) != 4 or shape[:2] != (batch, pixels // row):
            return None
        steps = loop_extents(schedule, conv)[3:]
        pad = schedule.get_producers(conv)[0]
        inline_between(schedule, (pad, conv, blocks[-1]))
        return Workload(
            anchor=str(notes[self.mark]),
            flop=int(notes["tvmdet.flop"]),
            facts=(
                ("batch", batch),
                ("height", shape[1]),
                ("width", shape[2]),
                ("filters", shape[3]),
                ("row", row),
                ("blocks", padded_filters // TILE),
                ("taps", (steps[0], steps[1])),
                ("steps", steps[2]),
                ("pairs", steps[3]),
                ("copied", buffer_shape(schedule, pad)[1:]),
                ("copied at a time", int(notes["tvmdet.copied_at_a_time"])),
                ("in place", _is_in_place(schedule, pad)),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns blocks of tiles and of rows, those that should take the fewest cycles first."""
        ranked: list[tuple[float, int, Decision]] = []
        for (pixels, filters), order, rows in itertools.product(
            _SHAPES, ("co_inner", "wo_inner", "filters"), range(1, workload["height"] + 1)
        ):
            tiles = self._tiles(workload, pixels, filters, rows)
            if (
                workload["blocks"] % filters
                or tiles.pixels != pixels
                or (order != "filters" and workload["height"] % rows)
                or (order != "co_inner" and workload["blocks"] == filters)
            ):
                continue
            decision = Decision.of(
                self.name, pixels=pixels, filters=filters, order=order, rows=rows
            )
            cycles = estimated_cycles(workload, tiles, order, rows, target)
            ranked.append((cycles, len(ranked), decision))
        ranked.sort()
        return [decision for *_, decision in ranked[:_MOST_DECISIONS]]

    def _tiles(self, workload: Workload, pixels: int, filters: int, rows: int) -> Tiles:
        held = positions(workload, rows)
        if pixels * TILE > held:
            pixels = 1
        return Tiles(
            pixels=pixels,
            filters=filters,
            rows=min(TILE, held),
            pairs=workload["pairs"],
        )

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one block of tiles; see :class:`Template`."""
        schedule = schedule_of(func)
        conv = annotated_block(schedule, self.mark)
        pad = schedule.get_producers(conv)[0]
        last = child_blocks(schedule)[-1]
        inline_between(schedule, (pad, conv, last))
        order, rows = decision["order"], decision["rows"]
        tiles = self._tiles(workload, decision["pixels"], decision["filters"], rows)
        n, h, w, c = schedule.get_loops(last)[-4:]
        ho, hi = split_overlapping(schedule, h, rows)
        co, ci = schedule.split(c, [None, tiles.filters * TILE])
        if order == "co_inner":
            schedule.reorder(n, ho, co, hi, w, ci)
            task, block = schedule.fuse(n, ho), co
        elif order == "wo_inner":
            schedule.reorder(n, co, ho, hi, w, ci)
            task = block = schedule.fuse(n, co, ho)
        else:
            schedule.reorder(n, co, ho, hi, w, ci)
            task, block = schedule.fuse(n, co), ho
        schedule.parallel(task)
        schedule.compute_at(conv, block, preserve_unit_loops=True)
        if workload["in place"]:
            schedule.compute_inline(pad)
        else:
            if order != "filters":
                schedule.compute_at(pad, task, preserve_unit_loops=True)
            self._copy(schedule, pad, workload, parallel=order == "filters")
        pixels, filters, kh, kw, step, pair, half = schedule.get_loops(conv)[-7:]
        schedule.reorder(filters, pixels)
        mark_products(schedule, filters, pixels, (kh, kw, step), (pair, half))
        self._vectorise(schedule, last, workload, tiles)
        return use_tiles(overlap_tiles(schedule), tiles)

    def _copy(
        self, schedule: Schedule, pad: SBlockRV, workload: Workload, *, parallel: bool
    ) -> None:
        """Copies row by row: vectors of a pixel's channels, or of whatever follows in a row."""
        places, channels = schedule.get_loops(pad)[-2:]
        rows, places = schedule.split(places, [None, workload["row"]])
        if parallel:
            n, phase = schedule.get_loops(pad)[-5:-3]
            schedule.parallel(schedule.fuse(n, phase, rows))
        if not workload["copied at a time"]:
            split_ragged_vector(schedule, schedule.fuse(places, channels), 2 * TILE)
            return
        schedule.split(channels, [None, workload["copied at a time"]])
        copy_channels(schedule, pad, 2 * TILE)

    def _vectorise(
        self, schedule: Schedule, last: SBlockRV, workload: Workload, tiles: Tiles
    ) -> None:
        channels = schedule.get_loops(last)[-1]
        if workload["filters"] % (tiles.filters * TILE):
            split_ragged_vector(schedule, channels, TILE)
            return
        outer, inner = schedule.split(channels, [None, TILE])
        schedule.vectorize(inner)
        schedule.unroll(outer)


def _is_in_place(schedule: Schedule, pad: SBlockRV) -> bool:
    """Returns whether the tiles of a convolution can be loaded from the picture itself.

    That is where the copy would change nothing: the picture is bfloat16 already, nothing is around
    it, and its pixels follow one another as those of the copy do.

    Args:
        schedule: In which nothing is left between the picture and the copy.
        pad: The block that copies.
    """
    block = schedule.get(pad)
    load, (_, phases, places, channels) = block.body.value, buffer_shape(schedule, pad)
    if not isinstance(load, TensorLoad) or phases > 1:
        return False
    if not any(load.source.same_as(param) for param in schedule.mod["main"].params):
        return False
    n, phase, place, channel = (one.var for one in block.iter_vars)
    analyzer = sym.Analyzer()
    analyzer.bind(place, Range(0, places))
    analyzer.bind(channel, Range(0, channels))
    zero = tirx.const(0, str(place.ty))
    first = {n: zero, phase: zero}
    element = zero
    for extent, index in zip(load.source.shape, load.indices, strict=True):
        of_first = tvm_ffi.structural_map(index, (tirx.Var, lambda one: first.get(one, one)))
        element = element * int(extent) + of_first
    beyond = analyzer.simplify(element - place * int(load.source.shape[-1]) - channel)
    return isinstance(beyond, tirx.IntImm)
