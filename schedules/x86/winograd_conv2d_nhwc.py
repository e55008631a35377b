"""Winograd F(4x4, 3x3) on NHWC data, fused from the input transform to the epilogue.

Strategy:

1. ``rows`` rows of 4x4 tiles form one parallel task. Its input tiles are transformed to a scratch
   buffer that fits L2, one vector of channels at a time, all in registers.
2. The 36 matrix products run over that buffer with register tiles of ``tile`` tiles by
   ``oc_blocks`` vectors of output channels, as a pointwise convolution does.
3. The results are transformed back one vector of channels at a time, and bias, activation and
   residual are computed before the only store.

Why not one kernel per stage: the transformed input is 2.25 times the picture, and would go to
memory and back twice.
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
    split_vector,
)
from tvmdet.targets import Target

__all__ = ["WinogradConv2dNhwc"]

MARK = "tvmdet.winograd_conv2d"
STAGES = ("pad", "input_columns", "input_tiles", "product", "output_rows", "output_tiles")


class WinogradConv2dNhwc(Template):
    """Fused Winograd convolution; see the module's text."""

    name: ClassVar[str] = "x86.winograd_conv2d_nhwc"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one Winograd convolution whose epilogue keeps its shape."""
        schedule = schedule_of(func)
        product = annotated_block(schedule, MARK)
        if product is None:
            return None
        blocks = child_blocks(schedule)
        if sum(is_reduction(schedule, block) for block in blocks) != 1:
            return None
        shape = buffer_shape(schedule, blocks[-1])
        batch, tiles_h, _, _, tiles_w, filters = buffer_shape(schedule, product)
        if len(shape) != 4 or shape[0] != batch or shape[3] != filters:
            return None
        if (-(-shape[1] // 4), -(-shape[2] // 4)) != (tiles_h, tiles_w):
            return None
        notes = schedule.get(product).annotations
        return Workload(
            anchor=str(notes[MARK]),
            flop=int(notes["tvmdet.flop"]),
            facts=(
                ("lanes", int(notes["tvmdet.lanes"])),
                ("vectors", filters // int(notes["tvmdet.lanes"])),
                ("batch", batch),
                ("tiles_h", tiles_h),
                ("tiles_w", tiles_w),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns register tiles that fit, the fullest first."""
        budget = target.vector_registers - 3
        ranked = []
        for oc_blocks in (1, 2, 4, 8):
            if workload["vectors"] % oc_blocks:
                continue
            for tile in range(1, min(workload["tiles_w"], budget) + 1):
                if workload["tiles_w"] % tile or oc_blocks * tile > budget:
                    continue
                loads = 1 / tile + 1 / (4 * oc_blocks)
                cost = (1 + loads) * max(1.0, 10 / (oc_blocks * tile))
                ranked.append((cost, tile, oc_blocks))
        ranked.sort()
        return [
            Decision.of(self.name, tile=tile, oc_blocks=oc_blocks, rows=rows)
            for _, tile, oc_blocks in ranked[:8]
            for rows in (1, 2, 4)
            if workload["tiles_h"] % rows == 0
            and (rows == 1 or workload["batch"] * workload["tiles_h"] // rows >= 4)
        ]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one register tile; see :class:`Template`."""
        schedule = schedule_of(func)
        lanes = workload["lanes"]
        stages = {name: schedule.get_sblock(name) for name in STAGES}
        last = child_blocks(schedule)[-1]
        inline_between(schedule, [*stages.values(), last])
        n, h, w, o = schedule.get_loops(last)[-4:]
        ho, hi = schedule.split(h, [None, 4 * decision["rows"]])
        hm, hi = schedule.split(hi, [None, 4])
        wo, wi = schedule.split(w, [None, 4])
        oo, oi = schedule.split(o, [None, lanes])
        schedule.reorder(n, ho, hm, wo, oo, hi, wi, oi)
        task = schedule.fuse(n, ho)
        schedule.parallel(task)
        schedule.vectorize(oi)
        for name in ("output_tiles", "output_rows"):
            schedule.compute_at(stages[name], oo, preserve_unit_loops=True)
        for name in ("product", "input_tiles"):
            schedule.compute_at(stages[name], task, preserve_unit_loops=True)
        self._input(schedule, stages, task, lanes)
        self._products(schedule, stages["product"], lanes, decision)
        for name in ("output_rows", "output_tiles"):
            _in_registers(schedule, stages[name])
            schedule.set_scope(stages[name], 0, "local")
        loops = schedule.get_loops(last)
        schedule.unroll(loops[-2])
        schedule.unroll(loops[-3])
        return schedule

    @staticmethod
    def _input(schedule: Schedule, stages: dict[str, SBlockRV], task: object, lanes: int) -> None:
        th, e, f, tw, c = schedule.get_loops(stages["input_tiles"])[-5:]
        co, ci = schedule.split(c, [None, lanes])
        schedule.reorder(th, tw, co, e, f, ci)
        schedule.compute_at(stages["input_columns"], co, preserve_unit_loops=True)
        schedule.compute_at(stages["pad"], task, preserve_unit_loops=True)
        for name in ("input_tiles", "input_columns"):
            _in_registers(schedule, stages[name])
        schedule.set_scope(stages["input_columns"], 0, "local")
        split_vector(schedule, schedule.get_loops(stages["pad"])[-1], lanes)

    @staticmethod
    def _products(schedule: Schedule, product: SBlockRV, lanes: int, decision: Decision) -> None:
        th, e, f, tw, o, k = schedule.get_loops(product)[-6:]
        two, twi = schedule.split(tw, [None, decision["tile"]])
        oo, oi = schedule.split(o, [None, decision["oc_blocks"] * lanes])
        blocks, vector = schedule.split(oi, [None, lanes])
        schedule.reorder(e, f, th, two, oo, k, twi, blocks, vector)
        store = schedule.cache_write(product, 0, "local")
        schedule.reverse_compute_at(store, oo, preserve_unit_loops=True)
        schedule.vectorize(vector)
        schedule.unroll(blocks)
        schedule.unroll(twi)
        init = schedule.decompose_reduction(product, k)
        loops = schedule.get_loops(init)
        schedule.unroll(loops[-2])
        schedule.unroll(loops[-3])
        outer, inner = schedule.split(schedule.get_loops(store)[-1], [None, lanes])
        schedule.vectorize(inner)
        schedule.unroll(outer)
        schedule.unroll(schedule.get_loops(store)[-3])


def _in_registers(schedule: Schedule, block: SBlockRV) -> None:
    """Vectorises the channels of a transform and unrolls the two axes of its tile."""
    loops = schedule.get_loops(block)
    schedule.vectorize(loops[-1])
    schedule.unroll(loops[-2])
    schedule.unroll(loops[-3])
