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

from tvm import tirx
from tvm.ir import TensorLoad
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
from tvmdet.schedules.common.conv2d_nhwc import MIN_TASKS, copy_channels
from tvmdet.schedules.common.overlap import overlap_tiles, split_overlapping
from tvmdet.schedules.x86.amx_tiles import TILE, Tiles, mark_products, use_tiles
from tvmdet.targets import Target

__all__ = ["AmxConv2dNhwc"]

_LANES = 16
_SHAPES = ((2, 2), (1, 4), (4, 1), (1, 3), (3, 1), (1, 2), (2, 1), (1, 1))
"""Tiles of sums by pixels and filters."""
_LEAST_VECTOR = 8
"""Of fewer channels, whatever follows one another is copied (:mod:`tvmdet.passes.amx_conv2d`)."""
_CYCLES = 16
"""Of the products of a tile."""
_LOAD_CYCLES = 8
"""Of the load of a tile from L1."""
_COPY_CYCLES = 4
"""Of a vector of the picture that is copied."""
_LAUNCH_CYCLES = 10_000
"""From when one thread gives tasks to others until all have ended, without the tasks."""
_L2_BYTES, _FAR_BYTES = 48, 8
"""A cycle, that a core reads from its own cache and from beyond it."""
_MOST_DECISIONS = 40


class AmxConv2dNhwc(Template):
    """Convolution by matrix tiles; see the module's text."""

    name: ClassVar[str] = "x86.amx_conv2d_nhwc"
    mark: ClassVar[str] = "tvmdet.amx_conv2d"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one such convolution whose epilogue keeps its shape."""
        schedule = schedule_of(func)
        conv = annotated_block(schedule, self.mark)
        if conv is None:
            return None
        blocks = child_blocks(schedule)
        own = schedule.get(conv).name_hint
        others = [block for block in blocks if schedule.get(block).name_hint != own]
        if any(is_reduction(schedule, block) for block in others):
            return None
        notes = schedule.get(conv).annotations
        row = int(notes["tvmdet.row"])
        batch, positions, padded_filters = buffer_shape(schedule, conv)
        shape = buffer_shape(schedule, blocks[-1])[-4:]
        if len(shape) != 4 or shape[:2] != (batch, positions // row):
            return None
        steps = loop_extents(schedule, conv)[3:]
        pad = schedule.get_producers(conv)[0]
        return Workload(
            anchor=str(notes[self.mark]),
            flop=int(notes["tvmdet.flop"]),
            facts=(
                ("batch", batch),
                ("height", shape[1]),
                ("width", shape[2]),
                ("filters", shape[3]),
                ("row", row),
                ("blocks", padded_filters // _LANES),
                ("taps", (steps[0], steps[1])),
                ("steps", steps[2]),
                ("pairs", steps[3]),
                ("copied", buffer_shape(schedule, pad)[1:]),
                ("joined", int(notes["tvmdet.joined"])),
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
            cycles = self._cycles(workload, tiles, order, rows, target)
            ranked.append((cycles, len(ranked), decision))
        ranked.sort()
        return [decision for *_, decision in ranked[:_MOST_DECISIONS]]

    def _tiles(self, workload: Workload, pixels: int, filters: int, rows: int) -> Tiles:
        positions = self._positions(workload, rows)
        if pixels * TILE > positions:
            pixels = 1
        return Tiles(
            pixels=pixels,
            filters=filters,
            rows=min(TILE, positions),
            pairs=workload["pairs"],
        )

    def _positions(self, workload: Workload, rows: int) -> int:
        """Returns the pixels of a task, those at the end of a row that are not used included."""
        return int((rows - 1) * workload["row"] + workload["width"])

    def _cycles(
        self, workload: Workload, tiles: Tiles, order: str, rows: int, target: Target
    ) -> float:
        """Returns how long the whole convolution should take, on :data:`MIN_TASKS` cores."""
        blocks: int = workload["blocks"] // tiles.filters
        parts: int = workload["batch"] * -(-workload["height"] // rows)
        together = -(-self._positions(workload, rows) // (tiles.pixels * tiles.rows))
        taps_h, taps_w = workload["taps"]
        steps = taps_h * taps_w * workload["steps"]
        loads = (tiles.pixels + tiles.filters) * _LOAD_CYCLES
        step = max(tiles.sums * _CYCLES, loads) + 0.2 * loads
        store = tiles.sums * 3 * _CYCLES
        work = parts * blocks * together * (steps * step + store)
        sums_bytes = self._positions(workload, rows) * tiles.filters * TILE * 4
        if sums_bytes > target.l1d_bytes // 2:
            work += parts * blocks * sums_bytes / _L2_BYTES
        weight_bytes = steps * workload["pairs"] * 4 * workload["blocks"] * TILE
        times = {"co_inner": parts, "wo_inner": parts, "filters": workload["batch"]}[order]
        near = weight_bytes / (blocks if order == "filters" else 1) < target.l2_bytes // 2
        work += times * weight_bytes / (_L2_BYTES if near and times > 1 else _FAR_BYTES)
        tasks = {"co_inner": parts, "wo_inner": parts * blocks, "filters": blocks}[order]
        phases, places, channels = workload["copied"]
        copied: float = phases * places * channels / TILE * _COPY_CYCLES
        if order == "filters":
            return float((work + copied) / min(tasks, MIN_TASKS) + 2 * _LAUNCH_CYCLES)
        share = (rows + taps_h - 1) * workload["row"] / places
        work += tasks * min(share, 1) * copied
        return float(work / min(tasks, MIN_TASKS) + (_LAUNCH_CYCLES if tasks > 1 else 0))

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
        if is_in_place(schedule, pad, workload):
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
        """Copies row by row: vectors of channels, or of whatever follows one another in a row."""
        places, channels = schedule.get_loops(pad)[-2:]
        rows, places = schedule.split(places, [None, workload["row"]])
        if parallel:
            n, phase = schedule.get_loops(pad)[-5:-3]
            schedule.parallel(schedule.fuse(n, phase, rows))
        if workload["joined"] % _LEAST_VECTOR:
            split_ragged_vector(schedule, schedule.fuse(places, channels), 2 * _LANES)
            return
        if workload["joined"]:
            schedule.split(channels, [None, workload["joined"]])
        copy_channels(schedule, pad, 2 * _LANES)

    def _vectorise(
        self, schedule: Schedule, last: SBlockRV, workload: Workload, tiles: Tiles
    ) -> None:
        channels = schedule.get_loops(last)[-1]
        if workload["filters"] % (tiles.filters * TILE):
            split_ragged_vector(schedule, channels, _LANES)
            return
        outer, inner = schedule.split(channels, [None, _LANES])
        schedule.vectorize(inner)
        schedule.unroll(outer)


def is_in_place(schedule: Schedule, pad: SBlockRV, workload: Workload) -> bool:
    """Returns whether the tiles of a convolution can be loaded from the picture itself.

    That is where the copy would change nothing: the picture is bfloat16 already, nothing is around
    it, and its pixels follow one another as those of the result do.
    """
    block = schedule.get(pad)
    store = block.body
    if not isinstance(store, tirx.BufferStore) or not isinstance(store.value, TensorLoad):
        return False
    picture = store.value.source
    height, width = (int(extent) for extent in picture.shape[-3:-1])
    return (
        workload["taps"] == (1, 1)
        and (height, width) == (workload["height"], workload["width"])
        and any(picture.same_as(param) for param in schedule.mod["main"].params)
    )
