"""Attention in one kernel: scores, softmax and weighted values of a block of rows.

Strategy:

1. Keys and values are packed to panels of one vector of columns, as in :mod:`.batch_matmul`.
2. ``rows`` rows of one head are a task. It computes their scores, tile by tile in registers, to a
   scratch buffer; then the softmax of each row, as in :mod:`.rows`; then the product with the
   values. Both buffers, ``rows`` by as many columns as there are tokens, stay in L2 where it has
   room for so many; larger blocks are ranked behind.
3. What follows is computed before the only store. Where no block divides the rows, the last one
   computes its last row again, and does not store it.

The scores are whole before the softmax begins: keeping a running maximum, as GPUs do, saves a
buffer that L2 has room for, and costs corrections.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.blocks import (
    annotated_block,
    buffer_shape,
    child_blocks,
    inline_between,
    split_ragged_vector,
)
from tvmdet.schedules.common.batch_matmul import registers, tile_cost
from tvmdet.schedules.common.register_tile import RegisterTile
from tvmdet.schedules.common.rows import mark_of, place_steps
from tvmdet.targets import Target

__all__ = ["Attention"]

MARK = "tvmdet.attention"
_PACKED = ("pack_keys", "pack_values")
_TILES = 3  # of the best ones for each product
_MOST = 32  # decisions


class Attention(RegisterTile, Template):
    """Both products and the softmax between them; see the module's text."""

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function of one attention whose epilogue keeps its shape."""
        schedule = schedule_of(func)
        sums = annotated_block(schedule, MARK)
        if sums is None:
            return None
        notes = schedule.get(sums).annotations
        scores, logits = (schedule.get_sblock(name) for name in ("scores", "logits"))
        shape = buffer_shape(schedule, child_blocks(schedule)[-1])
        whole, lanes = buffer_shape(schedule, sums), int(notes["tvmdet.lanes"])
        if shape[:-2] != whole[:-2] or not 0 <= whole[-1] - shape[-1] < 2 * lanes:
            return None
        return Workload(
            anchor=str(notes[MARK]),
            flop=int(notes["tvmdet.flop"]),
            facts=(
                ("lanes", lanes),
                ("score_vectors", buffer_shape(schedule, scores)[-1] // lanes),
                ("value_vectors", whole[-1] // lanes),
                ("lead", math.prod(shape[:-2])),
                ("rows", shape[-2]),
                ("tokens", buffer_shape(schedule, logits)[-1]),
                ("blocks", tuple(map(int, str(notes["tvmdet.row_blocks"]).split()))),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns blocks of rows with register tiles that fit, the likely fastest first."""
        ranked = []
        for rows in workload["blocks"]:
            blocks = -(-workload["rows"] // rows)
            # Keys and values are read once for a block, which is written and read three times.
            cost = (1 + 1.5 / rows) * blocks * rows / workload["rows"]
            if 8 * rows * workload["tokens"] > target.l2_bytes / 2:
                cost *= 1.1
            if workload["lead"] * blocks < 4:
                cost *= 1.5
            scores, values = (
                list(itertools.islice(self._tiles(rows, workload[name], target), _TILES))
                for name in ("score_vectors", "value_vectors")
            )
            ranked += [
                (cost * (one + other), rows, *tile, *last)
                for (one, tile), (other, last) in itertools.product(scores, values)
            ]
        ranked.sort()
        names = ("rows", "score_m", "score_vectors", "value_m", "value_vectors")
        return [
            Decision.of(self.name, **dict(zip(names, knobs, strict=True)))
            for _, *knobs in ranked[:_MOST]
        ]

    def _tiles(
        self, rows: int, vectors: int, target: Target
    ) -> Iterator[tuple[float, tuple[int, int]]]:
        """Yields tiles of rows by vectors that fill a block, with their cost, the best first."""
        # Sums of a head are few, and those of tokens are stored between two loops that unroll.
        fits = functools.partial(self.fits, target, shallow=True)
        every = [
            (tile_cost(tile_m, wide), (tile_m, wide))
            for wide in range(1, min(vectors, 6) + 1)
            for tile_m in range(1, rows + 1)
            if vectors % wide == 0 and rows % tile_m == 0 and fits(tile_m, wide)
        ]
        yield from sorted(every)

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one block of rows and its tiles; see :class:`Template`."""
        schedule, lanes = schedule_of(func), workload["lanes"]
        blocks = child_blocks(schedule)
        steps = [block for block in blocks if mark_of(schedule, block) == "part"]
        (softmax,) = (
            block for block in blocks if mark_of(schedule, block) not in ("", "row", "part")
        )
        scores, logits, sums = (schedule.get_sblock(n) for n in ("scores", "logits", "sums"))
        packed = [schedule.get_sblock(name) for name in _PACKED]
        clamped = [b for b in blocks if schedule.get(b).name_hint == "clamped"]
        last = blocks[-1]
        inline_between(schedule, (*clamped, *packed, scores, logits, *steps, softmax, sums, last))
        *lead, row, _ = schedule.get_loops(last)
        block, _ = schedule.split(row, [None, decision["rows"]])
        task = schedule.fuse(*lead, block)
        schedule.parallel(task)
        self._product(schedule, sums, last, lanes, _tile_of(decision, "value"))
        schedule.compute_at(softmax, task, preserve_unit_loops=True)
        row, column = schedule.get_loops(softmax)[-2:]
        split_ragged_vector(schedule, column, lanes)
        place_steps(schedule, steps, row, lanes)
        schedule.compute_at(logits, task, preserve_unit_loops=True)
        self._product(schedule, scores, logits, lanes, _tile_of(decision, "score"))
        # Only now: which rows a vector of inputs is loaded from would not be a fixed number.
        for one in clamped:
            schedule.compute_inline(one)
        for one in packed:
            *outer, _, vector = schedule.get_loops(one)
            schedule.parallel(schedule.fuse(*outer))
            schedule.vectorize(vector)
        return schedule

    def _product(
        self,
        schedule: Schedule,
        product: SBlockRV,
        store: SBlockRV,
        lanes: int,
        tile: tuple[int, int],
    ) -> None:
        """Lays out the last two loops of a block that stores a product, and the product in them."""
        tile_m, vectors = tile
        row, column = schedule.get_loops(store)[-2:]
        no, ni = schedule.split(column, [None, vectors * lanes])
        mo, mi = schedule.split(row, [None, tile_m])
        schedule.reorder(no, mo, mi, ni)
        schedule.compute_at(product, mo, preserve_unit_loops=True)
        schedule.set_scope(product, 0, "local")
        registers(self, schedule, product, lanes)
        row, column = schedule.get_loops(store)[-2:]
        outer, inner = schedule.split(column, [None, lanes])
        schedule.vectorize(inner)
        schedule.unroll(outer)
        schedule.unroll(row)


def _tile_of(decision: Decision, product: str) -> tuple[int, int]:
    return decision[f"{product}_m"], decision[f"{product}_vectors"]
