"""Products of two matrices, many at a time: attention scores and their use.

Strategy:

1. The right matrices are packed to panels of one vector of columns, by all cores, in a loop of
   its own: a panel is then read without a gap, and rows that end inside a vector are filled up.
2. A tile of ``tile_m`` rows by ``vectors`` vectors of columns is held in registers, as a pointwise
   convolution does (:mod:`.conv2d_nhwc`). ``tiles`` tiles of one matrix are a task, which keeps
   each group of panels in L1 for all of its rows.
3. What follows, a scale or a mask, is computed before the only store.

Why not one convolution per matrix: its weights would have to be constants.
"""

from __future__ import annotations

from collections.abc import Sequence

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
)
from tvmdet.schedules.common.register_tile import SHALLOW, RegisterTile
from tvmdet.targets import Target

__all__ = ["BatchMatmul", "registers", "tile_cost"]

MARK = "tvmdet.batch_matmul"


class BatchMatmul(RegisterTile, Template):
    """Batched matrix product with register tiles; see the module's text."""

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one packed product whose epilogue keeps its shape."""
        schedule = schedule_of(func)
        product = annotated_block(schedule, MARK)
        if product is None:
            return None
        blocks = child_blocks(schedule)
        if sum(is_reduction(schedule, block) for block in blocks) != 1:
            return None
        shape, whole = buffer_shape(schedule, blocks[-1]), buffer_shape(schedule, product)
        notes = schedule.get(product).annotations
        lanes = int(notes["tvmdet.lanes"])
        if shape[:-2] != whole[:-2] or not 0 <= whole[-1] - shape[-1] < 2 * lanes:
            return None
        lead = 1
        for extent in shape[:-2]:
            lead *= extent
        return Workload(
            anchor=str(notes[MARK]),
            flop=int(notes["tvmdet.flop"]),
            facts=(
                ("lanes", lanes),
                ("vectors", whole[-1] // lanes),
                ("rows", shape[-2]),
                ("columns", shape[-1]),
                ("lead", lead),
                ("depth", loop_extents(schedule, product)[-1]),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns register tiles that fit, the fullest with the least waste first."""
        rows, lead = workload["rows"], workload["lead"]
        shallow = workload["depth"] < SHALLOW
        ranked = []
        for vectors in (v for v in (1, 2, 3, 4, 5, 6) if workload["vectors"] % v == 0):
            for tile_m in range(1, min(rows, target.vector_registers) + 1):
                tiles = -(-rows // tile_m)
                if not self.fits(target, tile_m, vectors, shallow=shallow):
                    break
                if tile_m != -(-rows // tiles):
                    continue  # a lower tile covers the rows as well
                waste = tiles * tile_m / rows
                if waste > 1.25:
                    continue
                cost = waste * tile_cost(tile_m, vectors)
                ranked += [
                    (cost * (1 + (lead * pieces < 4)) + 0.01 * pieces, tile_m, vectors, pieces)
                    for pieces in (1, 2, 4, 8)
                    if tiles % pieces == 0 and (pieces == 1 or lead * pieces <= 64)
                ]
        ranked.sort()
        return [
            Decision.of(self.name, tile_m=tile_m, vectors=vectors, pieces=pieces)
            for _, tile_m, vectors, pieces in ranked[:24]
        ]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one register tile; see :class:`Template`."""
        schedule = schedule_of(func)
        product = annotated_block(schedule, MARK)
        clamped, pack = schedule.get_sblock("clamped"), schedule.get_sblock("pack")
        last = child_blocks(schedule)[-1]
        inline_between(schedule, (clamped, pack, product, last))
        lanes, tile_m = workload["lanes"], decision["tile_m"]
        *lead, m, n = schedule.get_loops(last)
        no, ni = schedule.split(n, [None, decision["vectors"] * lanes])
        mo, mi = schedule.split(m, [None, tile_m])
        piece, mo = schedule.split(mo, [decision["pieces"], None])
        schedule.reorder(*lead, piece, no, mo, mi, ni)
        task = schedule.fuse(*lead, piece)
        schedule.parallel(task)
        schedule.compute_at(product, mo, preserve_unit_loops=True)
        schedule.set_scope(product, 0, "local")
        registers(self, schedule, product, lanes)
        # Only now: which rows a vector of inputs is loaded from would not be a fixed number.
        schedule.compute_inline(clamped)
        *outer, _, vector = schedule.get_loops(pack)
        schedule.parallel(schedule.fuse(*outer))
        schedule.vectorize(vector)
        rows, columns = schedule.get_loops(last)[-2:]
        vectors, inner = schedule.split(columns, [None, lanes])
        schedule.vectorize(inner)
        schedule.unroll(vectors)
        schedule.unroll(rows)
        return schedule


def tile_cost(tile_m: int, vectors: int) -> float:
    """Returns the time of a register tile over that of its multiplications alone, as a guess."""
    loads = 1 / tile_m + 1 / (4 * vectors)
    return (1 + loads) * max(1.0, 10 / (tile_m * vectors))


def registers(template: RegisterTile, schedule: Schedule, product: SBlockRV, lanes: int) -> None:
    """Lays out the loops of a register tile of a product with packed columns.

    Args:
        template: How inputs come into registers.
        schedule: Where.
        product: The block, whose last loops are rows, columns and depth.
        lanes: Of a vector.
    """
    m, n, k = schedule.get_loops(product)[-3:]
    vectors, lane = schedule.split(n, [None, lanes])
    depth = template.depth_loops(schedule, k, lanes)
    schedule.reorder(*depth, m, vectors, lane)
    template.load_inputs(schedule, product, depth)
    schedule.unroll(m)
    schedule.unroll(vectors)
    schedule.vectorize(lane)
    init = schedule.decompose_reduction(product, depth[0])
    m, vectors, lane = schedule.get_loops(init)[-3:]
    schedule.vectorize(lane)
    schedule.unroll(vectors)
    schedule.unroll(m)
