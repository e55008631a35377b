"""Convolutions and matrix products on a GPU's tensor cores: float16 or tf32 factors, float32 sums.

Strategy:

1. A block of ``warps_m x warps_n`` warps computes a tile of the result. For each step along the
   depth all its threads copy the tiles of both factors to shared memory, rounding them on the way;
   those of a convolution are gathered from the picture there. Rows are padded by 16 bytes, so that
   the eight rows that a load instruction reads lie in different banks.
2. A warp holds ``tiles_m x tiles_n`` tiles of 16 x 16 sums in registers. Fragments are loaded once
   per step of the instruction's depth, and used ``tiles_n`` and ``tiles_m`` times.
3. The sums go through shared memory once more, so that bias, activation and residual read and write
   whole lines of memory, and are computed before the only store.

Why not the fragments of ``nvcuda::wmma``: their layout is hidden, and they have no tf32 in TVM's
code generator. With ``ldmatrix`` and ``mma.sync`` the layout is documented, and can be emulated.

Source of the tiling: NVIDIA, CUTLASS, "Efficient GEMM in CUDA".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.schedules.cuda.mma_intrinsics import DEPTH, intrinsics
from tvmdet.schedules.cuda.products import (
    copy_with_all_threads,
    frame,
    idle_share,
    read_product,
)
from tvmdet.schedules.cuda.threads import WARP
from tvmdet.targets import Target

__all__ = ["ProductTensorCore"]

_SHARED_BYTES = 48 * 1024  # of static shared memory, on every GPU
_TILE = 16
_MOST_TILES = 16  # of a warp: 8 registers each, of 255
_BYTES = {"fp16": 2, "tf32": 4}


class ProductTensorCore(Template):
    """Warp tiles of tensor-core products; see the module's text."""

    name: ClassVar[str] = "cuda.product_tensor_core"

    def match(self, func: tirx.PrimFunc, target: Target) -> Workload | None:
        """Matches a function with one product of rounded factors."""
        return read_product(func, tuple(DEPTH))

    def decisions(self, workload: Workload, target: Target) -> Sequence[Decision]:
        """Returns tiles that fit, those that fill the GPU with the fewest reads first."""
        ranked = []
        for warps_m, warps_n in ((2, 2), (1, 4), (4, 1), (2, 1), (1, 2), (1, 1), (2, 4), (4, 2)):
            for tiles_m in (1, 2, 4):
                for tiles_n in (1, 2, 4):
                    for step in (32, 64, 16):
                        tile = (warps_m, warps_n, tiles_m, tiles_n, step)
                        if _fits(workload, *tile):
                            ranked.append((_cost(workload, target, *tile), tile))
        ranked.sort()
        names = ("warps_m", "warps_n", "tiles_m", "tiles_n", "step")
        return [
            Decision.of(self.name, **dict(zip(names, tile, strict=True))) for _, tile in ranked[:48]
        ]

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one tile; see :class:`Template`."""
        schedule = schedule_of(func)
        left, right, product, last = frame(schedule, workload)
        names = intrinsics(workload["algorithm"])
        depth = DEPTH[workload["algorithm"]]
        rows = decision["warps_m"] * decision["tiles_m"] * _TILE
        columns = decision["warps_n"] * decision["tiles_n"] * _TILE
        warps = decision["warps_m"] * decision["warps_n"]
        staged = schedule.cache_write(product, 0, "local")
        schedule.set_scope(staged, 0, "shared.dyn")
        block = _tile_of_a_block(schedule, last, rows, columns)
        _share_out(schedule, last, warps)
        warp, stored = _stage_sums(schedule, staged, block, decision)
        steps, multiplied = _multiply(schedule, product, warp, decision, depth)
        run = 16 // _BYTES[workload["algorithm"]]
        for factor, neighbours in ((left, workload["run"]), (right, run)):
            schedule.set_scope(factor, 0, "shared.dyn")
            copy_with_all_threads(schedule, factor, steps, warps=warps, vector=min(neighbours, run))
            schedule.storage_align(factor, 0, -2, 32, run)
        # Last of all: nothing can be moved into a loop of calls.
        for what, loop in {"store": stored, **multiplied}.items():
            schedule.tensorize(loop, names[what])
        return schedule


def _fits(
    workload: Workload, warps_m: int, warps_n: int, tiles_m: int, tiles_n: int, step: int
) -> bool:
    rows, columns = warps_m * tiles_m * _TILE, warps_n * tiles_n * _TILE
    nbytes = _BYTES[workload["algorithm"]]
    padding = 16 // nbytes
    shared = (rows * (step + padding) + step * (columns + 32)) * nbytes + rows * columns * 4
    return (
        workload["rows padded"] % rows == 0
        and workload["columns padded"] % columns == 0
        and workload["depth"] % step == 0
        and tiles_m * tiles_n <= _MOST_TILES
        and shared <= _SHARED_BYTES
    )


def _cost(
    workload: Workload,
    target: Target,
    warps_m: int,
    warps_n: int,
    tiles_m: int,
    tiles_n: int,
    step: int,
) -> float:
    """Guesses the time of a tile, in no unit: reads per product, and multiprocessors left idle."""
    rows, columns = warps_m * tiles_m * _TILE, warps_n * tiles_n * _TILE
    blocks = -(-workload["rows"] // rows) * -(-workload["columns"] // columns) * workload["many"]
    done = blocks * rows * columns
    waste = done / (workload["rows"] * workload["columns"] * workload["many"])
    reads = 1 / tiles_m + 1 / tiles_n
    traffic = 32 * (1 / rows + 1 / columns)
    idle = idle_share(target, blocks, warps_m * warps_n)
    cost: float = (
        waste * (1 + reads + traffic) * idle * (1 + 4 / step) * (1 + 0.2 / (warps_m * warps_n))
    )
    return cost


def _tile_of_a_block(schedule: Schedule, last: SBlockRV, rows: int, columns: int) -> LoopRV:
    """Splits the result into tiles of a block; returns the innermost loop over blocks."""
    many, m, n = schedule.get_loops(last)
    m_block, m_inner = schedule.split(m, [None, rows])
    n_block, n_inner = schedule.split(n, [None, columns])
    schedule.reorder(many, m_block, n_block, m_inner, n_inner)
    schedule.bind(many, "blockIdx.z")
    schedule.bind(m_block, "blockIdx.x")
    schedule.bind(n_block, "blockIdx.y")
    schedule.annotate(many, "pragma_auto_unroll_max_step", 0)
    schedule.annotate(many, "pragma_unroll_explicit", 0)
    return n_block


def _share_out(schedule: Schedule, last: SBlockRV, warps: int) -> None:
    """Shares the points of a tile of the result out to the threads of a block."""
    m_inner, n_inner = schedule.get_loops(last)[-2:]
    fused = schedule.fuse(m_inner, n_inner)
    points = int(schedule.get(fused).extent)
    vector = next(v for v in (4, 2, 1) if points % (v * WARP * warps) == 0)
    _, warp, lane, run = schedule.split(fused, [None, warps, WARP, vector])
    schedule.bind(warp, "threadIdx.y")
    schedule.bind(lane, "threadIdx.x")
    if vector > 1:
        schedule.vectorize(run)


def _stage_sums(
    schedule: Schedule, staged: SBlockRV, block: LoopRV, decision: Decision
) -> tuple[LoopRV, LoopRV]:
    """Has each warp store its tiles of sums to shared memory.

    Returns:
        The loop over warps, and the outermost loop of a tile.
    """
    schedule.compute_at(staged, block, preserve_unit_loops=True)
    m, n = schedule.get_loops(staged)[-2:]
    warp_m, tile_m, m = schedule.split(m, [decision["warps_m"], decision["tiles_m"], _TILE])
    warp_n, tile_n, n = schedule.split(n, [decision["warps_n"], decision["tiles_n"], _TILE])
    schedule.reorder(warp_m, warp_n, tile_m, tile_n, m, n)
    warp = schedule.fuse(warp_m, warp_n)
    schedule.bind(warp, "threadIdx.y")
    schedule.unroll(tile_m)
    schedule.unroll(tile_n)
    return warp, m


def _multiply(
    schedule: Schedule, product: SBlockRV, warp: LoopRV, decision: Decision, depth: int
) -> tuple[LoopRV, dict[str, LoopRV]]:
    """Computes a warp's tiles in registers.

    Returns:
        The loop over the steps of the depth, and the outermost loop of each kind of tile.
    """
    schedule.compute_at(product, warp, preserve_unit_loops=True)
    m, n, k = schedule.get_loops(product)[-3:]
    tile_m, m = schedule.split(m, [None, _TILE])
    tile_n, n = schedule.split(n, [None, _TILE])
    step, piece, k = schedule.split(k, [None, decision["step"] // depth, depth])
    schedule.reorder(step, piece, tile_m, tile_n, m, n, k)
    tiles = {"multiply": m}
    for index, name in enumerate(("left", "right")):
        fragment = schedule.cache_read(product, index, "local")
        schedule.compute_at(fragment, piece, preserve_unit_loops=True)
        rows, columns = schedule.get_loops(fragment)[-2:]
        sides = (_TILE, depth) if name == "left" else (depth, _TILE)
        outer_rows, rows = schedule.split(rows, [None, sides[0]])
        outer_columns, columns = schedule.split(columns, [None, sides[1]])
        schedule.reorder(outer_rows, outer_columns, rows, columns)
        schedule.unroll(outer_rows)
        schedule.unroll(outer_columns)
        tiles[name] = rows
    for loop in (piece, tile_m, tile_n):
        schedule.unroll(loop)
    init = schedule.decompose_reduction(product, step)
    init_m, init_n, tiles["fill"], _ = schedule.get_loops(init)[-4:]
    schedule.unroll(init_m)
    schedule.unroll(init_n)
    return step, tiles
