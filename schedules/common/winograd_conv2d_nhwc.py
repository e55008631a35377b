"""Winograd F(m x m, 3x3) on NHWC data: transforms, products and epilogue in one kernel.

The output is cut into slabs of ``rows`` rows of m x m tiles (a part of one picture, or several
pictures of a batch) and into chunks of ``chunk`` vectors of
output channels. Per slab and chunk, the (m+2)^2 matrix products run with register tiles of ``tile``
tiles by ``oc_blocks`` vectors; their results stay in L2, are transformed back one vector at a time,
and bias, activation and residual are computed before the only store. The two ways to split the
work differ in who transforms the input:

- ``split=slabs``: a slab is a task. It transforms its own input to a private buffer, then passes
  over all chunks. The transformed input never leaves the core, the weights are read once a slab:
  for large pictures of few channels.
- ``split=chunks``: the input is transformed once, by all cores, to a shared buffer; a chunk of a
  slab is a task. With one slab the weights are read once, each core its own share of them: for
  small pictures of many channels, whose weights are far greater than L2.

Weights come transformed, or plain when they would be too large otherwise: then those of a chunk are
transformed one row of the tile's products at a time, into a buffer that stays in L2.

Why not one kernel per stage: the products alone are 2.25 times the picture (4x4 tiles), and would
go to memory and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.blocks import (
    annotated_block,
    buffer_shape,
    child_blocks,
    inline_between,
    is_reduction,
    split_vector,
)
from tvmdet.schedules.common.overlap import overlap_tiles, split_overlapping
from tvmdet.schedules.common.register_tile import SHALLOW, RegisterTile
from tvmdet.targets import Target

__all__ = ["WinogradConv2dNhwc"]

WEIGHT_STAGES = ("weight_columns", "weight_tiles")
STAGES = ("pad", "input_columns", "input_tiles", "product", "output_rows", "output_tiles")


_TAPS = 9

_FETCH_AHEAD = "tvmdet.fetch_ahead"
"""What :mod:`tvmdet.passes.fetch_ahead` looks for."""

_BLOCKS_AHEAD = 2
"""Vectors of output channels between the weights that are multiplied and those asked for."""

_MOST_GROUPS = 32
"""Of blocks in a chunk: beyond, products leave L2."""

_WEIGHT_CYCLES = 4
"""Of one vector of transformed weights: its share of the loads and sums, and its store."""


class WinogradConv2dNhwc(RegisterTile, Template):
    """Fused Winograd convolution; see the module's text."""

    told_by_other_pictures: ClassVar[int] = 4
    mark: ClassVar[str] = "tvmdet.winograd_conv2d"
    """Annotation of the block of the products."""
    checked: ClassVar[bool] = True
    """Whether TVM can prove that what is read was written."""

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one Winograd convolution whose epilogue keeps its shape."""
        schedule = schedule_of(func)
        product = annotated_block(schedule, self.mark)
        if product is None:
            return None
        blocks = child_blocks(schedule)
        if sum(is_reduction(schedule, block) for block in blocks) != 1:
            return None
        shape = buffer_shape(schedule, blocks[-1])
        _, _, tiles, padded = buffer_shape(schedule, product)
        lanes = int(schedule.get(product).annotations["tvmdet.lanes"])
        notes = schedule.get(product).annotations
        if len(shape) != 4 or shape[3] != int(notes["tvmdet.filters"]):
            return None
        side = int(notes["tvmdet.winograd_side"])
        tiles_h, tiles_w = -(-shape[1] // side), -(-shape[2] // side)
        if shape[0] * tiles_h * tiles_w != tiles:
            return None
        return Workload(
            anchor=str(notes[self.mark]),
            flop=int(notes["tvmdet.flop"]),
            facts=(
                ("lanes", lanes),
                ("vectors", padded // lanes),
                ("filters", shape[3]),
                ("batch", shape[0]),
                ("side", side),
                ("tiles_h", tiles_h),
                ("tiles_w", tiles_w),
                ("plain_weights", _has_plain_weights(schedule)),
                ("depth", buffer_shape(schedule, schedule.get_sblock("input_tiles"))[-1]),
            ),
        )

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns slabs and chunks that fit L2 with full register tiles, least traffic first."""
        settings = self._settings(workload, target)
        settings = settings or self._settings(workload, target, full=False)
        ranked = [(_cost(workload, target, knobs, self.rate), knobs) for knobs in settings]
        ranked.sort(key=lambda entry: entry[0])
        return [Decision.of(self.name, **knobs) for _, knobs in ranked[:48]]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one way to split the work; see :class:`Template`."""
        schedule = schedule_of(func, checked=self.checked)
        lanes, side = workload["lanes"], workload["side"]
        stages = {name: schedule.get_sblock(name) for name in STAGES}
        last = child_blocks(schedule)[-1]
        if workload["plain_weights"]:
            stages |= {name: schedule.get_sblock(name) for name in WEIGHT_STAGES}
        inline_between(schedule, [*stages.values(), last])
        n, h, w, o = schedule.get_loops(last)[-4:]
        # A slab of more rows than a picture has is several pictures.
        pictures = max(1, decision["rows"] // workload["tiles_h"])
        no, ni = schedule.split(n, [None, pictures])
        ho, hi = schedule.split(h, [None, side * min(decision["rows"], workload["tiles_h"])])
        hm, hi = schedule.split(hi, [None, side])
        wo, wi = schedule.split(w, [None, side])
        chunk, oi = schedule.split(o, [None, decision["chunk"] * lanes])
        oo, oi = schedule.split(oi, [None, lanes])
        if decision["split"] == "slabs":
            schedule.reorder(no, ho, chunk, ni, hm, wo, oo, hi, wi, oi)
            task, part = schedule.fuse(no, ho), chunk
        else:
            schedule.reorder(chunk, no, ho, ni, hm, wo, oo, hi, wi, oi)
            task = part = schedule.fuse(chunk, no, ho)
        schedule.parallel(task)
        self.prepare_task(schedule, task)
        schedule.vectorize(oi)
        for name in ("output_tiles", "output_rows"):
            schedule.compute_at(stages[name], oo, preserve_unit_loops=True)
        schedule.compute_at(stages["product"], part, preserve_unit_loops=True)
        stages["product"] = self.make_steps(schedule, stages["product"], lanes)
        if decision["split"] == "slabs":
            schedule.compute_at(stages["input_tiles"], task, preserve_unit_loops=True)
        self._input(schedule, stages, workload, own_task=decision["split"] == "chunks")
        row = self._products(schedule, stages["product"], workload, decision)
        if workload["plain_weights"]:
            self._weights(schedule, stages, row)
        _columns_first(schedule, stages["output_rows"])
        for name in ("output_rows", "output_tiles"):
            _in_registers(schedule, stages[name])
            schedule.set_scope(stages[name], 0, "local")
        *_, down, across, _ = schedule.get_loops(last)
        schedule.unroll(down)
        schedule.unroll(across)
        return overlap_tiles(schedule)

    def _settings(
        self, workload: Workload, target: Target, *, full: bool = True
    ) -> list[dict[str, Any]]:
        """Returns every setting whose register tiles are large and whose tasks keep cores busy.

        A number of tiles that has no divisors may have none such: not ``full`` lifts both
        conditions.
        """
        most, vectors = target.vector_registers, workload["vectors"]
        tiles_h, tiles_w, batch = workload["tiles_h"], workload["tiles_w"], workload["batch"]
        found = []
        rows_of_slabs = [r for r in range(1, tiles_h + 1) if tiles_h % r == 0]
        rows_of_slabs += [n * tiles_h for n in range(2, batch + 1) if batch % n == 0]
        for rows in rows_of_slabs:
            slabs = batch * tiles_h // rows
            tiles = rows * tiles_w
            for tile in range(1, min(most, tiles) + 1):
                if tile != -(-tiles // -(-tiles // tile)):
                    continue  # a narrower tile covers as many
                for oc_blocks in (1, 2, 3, 4, 5, 6, 8):
                    if not self.fits(target, tile, oc_blocks, shallow=workload["depth"] < SHALLOW):
                        continue
                    if full and oc_blocks * tile < 4 and tiles * vectors >= 4:
                        continue
                    for groups in (g for g in range(1, _MOST_GROUPS + 1) if vectors % g == 0):
                        chunk = oc_blocks * groups
                        if vectors % chunk:
                            continue
                        for split in ("slabs", "chunks"):
                            tasks = slabs * (1 if split == "slabs" else vectors // chunk)
                            if full and tasks < 2 and (slabs > 1 or vectors > oc_blocks):
                                continue
                            knobs = {"split": split, "rows": rows, "chunk": chunk}
                            found.append({**knobs, "tile": tile, "oc_blocks": oc_blocks})
        return found

    @staticmethod
    def _input(
        schedule: Schedule, stages: dict[str, SBlockRV], workload: Workload, *, own_task: bool
    ) -> None:
        loops = schedule.get_loops(stages["input_tiles"])
        e, f, t, c = loops[-4:]
        row, tw = schedule.split(t, [None, workload["tiles_w"]])
        co, ci = schedule.split(c, [None, workload["lanes"]])
        schedule.reorder(row, tw, co, e, f, ci)
        if own_task:
            schedule.parallel(row)
        schedule.compute_at(stages["input_columns"], co, preserve_unit_loops=True)
        around = row if own_task else loops[0]
        schedule.compute_at(stages["pad"], around, preserve_unit_loops=True)
        # The rows that a slab reads are what the block says. From its many loads TVM would infer
        # a minimum of dozens of terms, which takes minutes to simplify in each unrolled copy.
        schedule.annotate(stages["input_columns"], "explicit_read_region", [0])
        _columns_first(schedule, stages["input_columns"])
        for name in ("input_tiles", "input_columns"):
            _in_registers(schedule, stages[name])
        schedule.set_scope(stages["input_columns"], 0, "local")
        split_vector(schedule, schedule.get_loops(stages["pad"])[-1], workload["lanes"])

    @staticmethod
    def _weights(schedule: Schedule, stages: dict[str, SBlockRV], row: LoopRV) -> None:
        """Transforms the weights of one row of products after the other, from those of a chunk."""
        columns, tiles = (stages[name] for name in WEIGHT_STAGES)
        schedule.compute_at(tiles, row, preserve_unit_loops=True)
        f, b, k, v = schedule.get_loops(tiles)[-4:]
        schedule.reorder(b, k, f, v)
        schedule.compute_at(columns, k, preserve_unit_loops=True)
        schedule.vectorize(v)
        schedule.unroll(f)
        loops = schedule.get_loops(columns)
        schedule.vectorize(loops[-1])
        for loop in loops[-5:-1]:
            schedule.unroll(loop)
        schedule.set_scope(columns, 0, "local")
        schedule.unroll(row)

    def _products(
        self, schedule: Schedule, product: SBlockRV, workload: Workload, decision: Decision
    ) -> LoopRV:
        """Lays out the register tile of the products; returns the loop over a tile's rows."""
        lanes = workload["lanes"]
        e, f, t, o, k = schedule.get_loops(product)[-5:]
        to, ti = split_overlapping(schedule, t, decision["tile"])
        oo, blocks, *vector = self.split_channels(schedule, o, decision["oc_blocks"], lanes)
        depth = self.depth_loops(schedule, k, lanes)
        schedule.reorder(e, f, oo, to, *depth, ti, blocks, *vector)
        self.load_inputs(schedule, product, depth)
        store = schedule.cache_write(product, 0, "local")
        schedule.reverse_compute_at(store, to, preserve_unit_loops=True)
        for loop in vector:
            schedule.vectorize(loop)
        schedule.unroll(blocks)
        schedule.unroll(ti)
        init = schedule.decompose_reduction(product, depth[0])
        if self.broadcasts and not workload["plain_weights"]:
            # Of the block after the next, or of the next tile where that has more.
            blocks_ahead = max(_BLOCKS_AHEAD, decision["oc_blocks"])
            ahead = blocks_ahead * int(schedule.get(depth[-1]).extent)
            schedule.annotate(depth[-1], _FETCH_AHEAD, ahead)
        self.multiply(schedule, product, init)
        outer, inner = schedule.split(schedule.get_loops(store)[-1], [None, lanes])
        schedule.vectorize(inner)
        schedule.unroll(outer)
        schedule.unroll(schedule.get_loops(store)[-3])
        return e

    def make_steps(self, schedule: Schedule, product: SBlockRV, lanes: int) -> SBlockRV:
        """Returns the block of what one instruction computes, before tiles are cut."""
        return product

    def prepare_task(self, schedule: Schedule, task: LoopRV) -> None:
        """Adds to the loop of a task what :meth:`multiply` needs."""

    def split_channels(
        self, schedule: Schedule, channels: LoopRV, oc_blocks: int, lanes: int
    ) -> tuple[LoopRV, ...]:
        """Returns the loops over tiles' channels, vectors of a tile, and lanes if there is one."""
        outer, inner = schedule.split(channels, [None, oc_blocks * lanes])
        return outer, *schedule.split(inner, [None, lanes])

    def multiply(self, schedule: Schedule, product: SBlockRV, init: SBlockRV) -> None:
        """Implements a step, and the one that sets its sums to zero."""


def _cost(workload: Workload, target: Target, knobs: dict[str, Any], rate: int) -> float:
    """Returns a guess of the time, in FMA cycles of one core, to rank settings with.

    The bytes that move between L2 and what lies beyond are charged 8 a cycle. ``rate`` is how many
    times as many products an instruction has as one of float32, of factors so many times as small.
    """
    lanes, depth, vectors = workload["lanes"], workload["depth"], workload["vectors"]
    tile, oc_blocks, rows, chunk = (knobs[k] for k in ("tile", "oc_blocks", "rows", "chunk"))
    slabs = workload["batch"] * workload["tiles_h"] // rows
    tiles = rows * workload["tiles_w"]
    chunks = vectors // chunk
    products_of_tile = (workload["side"] + 2) ** 2
    covered = -(-tiles // tile) * tile
    fma = products_of_tile * slabs * covered * vectors * depth
    loads = 1 / tile + 1 / (4 * oc_blocks)
    cycles = fma / rate * (1 + loads) * max(1.0, 10 / (tile * oc_blocks))
    weights = 4 // rate * products_of_tile * depth * vectors * lanes
    if workload["plain_weights"]:
        cycles += slabs * products_of_tile * depth * vectors * _WEIGHT_CYCLES
        weights = 4 * _TAPS * depth * vectors * lanes
    inputs = 4 // rate * products_of_tile * tiles * depth
    products = 4 * products_of_tile * tiles * chunk * lanes
    moved = weights if slabs == 1 else weights * slabs if weights > target.l2_bytes / 2 else 0
    if knobs["split"] == "slabs":
        moved += slabs * chunks * inputs if inputs + products > target.l2_bytes else 0
        tasks = slabs
    else:
        moved += slabs * inputs * (chunks + 1)
        tasks = slabs * chunks
    moved += 2 * slabs * chunks * products if products > target.l2_bytes / 2 else 0
    # Two cores and an odd task too many.
    uneven = 2 * -(-tasks // 2) / tasks
    return float((cycles + moved / 8) * uneven)


def _has_plain_weights(schedule: Schedule) -> bool:
    return any(schedule.get(b).name_hint in WEIGHT_STAGES for b in child_blocks(schedule))


def _columns_first(schedule: Schedule, block: SBlockRV) -> None:
    """Transforms a tile column by column: the rows of one share what they are computed from."""
    row, column = schedule.get_loops(block)[-3:-1]
    schedule.reorder(column, row)


def _in_registers(schedule: Schedule, block: SBlockRV) -> None:
    """Vectorises the channels of a transform and unrolls the two axes of its tile."""
    loops = schedule.get_loops(block)
    schedule.vectorize(loops[-1])
    schedule.unroll(loops[-2])
    schedule.unroll(loops[-3])
