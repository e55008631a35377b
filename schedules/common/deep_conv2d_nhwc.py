"""Deep pointwise convolutions, in slices of their channels: the matrix products of box heads.

The box head of a Faster R-CNN multiplies 1000 rows of 12544 numbers with 12544 x 1024 weights. A
register tile that runs through the whole depth at once reads weights 12544 deep (400 KiB for each
8 filters), which no inner cache keeps until the next tile needs them.

Strategy:

1. The depth is cut into slices. A task has ``rows`` rows of pixels and ``shares`` register tiles of
   output channels; its sums, over all slices, stay in the L2 cache.
2. For each slice and each tile of channels, the weights of the slice (L1) meet all pixels of the
   task, whose part in the slice stays in L2 while the tiles of channels go by.
3. Within, sums of one slice are held in registers as everywhere else
   (:class:`~tvmdet.schedules.common.register_tile.RegisterTile`), and added to the task's once.

Sums of sums round less than one long sum, too.

Source: Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3),
2008, section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvmdet.schedules.base import Decision, Workload
from tvmdet.targets import Target

__all__ = ["DEEP", "deep_knobs", "is_deep", "sum_by_slices"]

DEEP = 2560
"""Input channels from which slices are the better guess. Measured on two cores with AVX2, in turn
with the best guess without slices: as fast with 2048 channels, 4.3 times as fast with 4096, 2.8
times with 12544."""

_SHALLOW = 1024
"""Below, a tile's weights fit the L1 cache or nearly so."""

_SLICES = (256, 512)
"""Wanted slices: weights of 16 channels that deep take 16 and 32 KiB."""

_MOST_SHARES = 8


def is_deep(workload: Workload) -> bool:
    """Returns whether a convolution can be done in slices and may gain by it."""
    return bool(workload["sliced"] and workload["depth"] >= _SHALLOW)


def deep_knobs(
    workload: Workload, target: Target, tiles: Iterable[tuple[int, int]]
) -> list[Mapping[str, int | str]]:
    """Returns settings for a deep convolution, best guess first.

    Args:
        workload: One that :func:`is_deep`.
        target: What it is for.
        tiles: Register tiles, best guess first: columns, and vectors of output channels.
    """
    found: list[Mapping[str, int | str]] = []
    whole = [(w, v) for w, v in tiles if workload["width"] % w == 0 and _divides(workload, v)]
    for tile_w, oc_blocks in whole[:3]:
        shares = workload["vectors"] // oc_blocks
        for depth in _slices(workload["depth"]):
            for rows in _rows(workload, target, depth):
                for share in _divisors(shares, _MOST_SHARES):
                    tasks = workload["batch"] * workload["height"] // rows * (shares // share)
                    if tasks >= 4 or share == 1:
                        found.append(
                            {
                                "oc_blocks": oc_blocks,
                                "tile_w": tile_w,
                                "order": "depth",
                                "rows": rows,
                                "depth": depth,
                                "shares": share,
                            }
                        )
    return found


def _divides(workload: Workload, oc_blocks: int) -> bool:
    lanes = workload["lanes"]
    return bool(workload["vectors"] % oc_blocks == 0 and workload["filters"] % lanes == 0)


def _slices(depth: int) -> Iterator[int]:
    """Yields the divisors of the depth that are nearest to what is wanted."""
    divisors = [d for d in range(64, 1025) if depth % d == 0]
    nearest = [min(divisors, key=lambda d: abs(d - wanted)) for wanted in _SLICES if divisors]
    yield from dict.fromkeys(nearest)


def _rows(workload: Workload, target: Target, depth: int) -> Iterator[int]:
    """Yields how many rows of pixels a task may have: as many as fit L2, and half of those."""
    row_bytes = workload["width"] * depth * 4
    every = [r for r in range(1, workload["height"] + 1) if workload["height"] % r == 0]
    fitting = [r for r in every if r * row_bytes <= target.l2_bytes] or every[:1]
    yield fitting[-1]
    if len(fitting) > 1:
        yield fitting[-2]


def _divisors(number: int, most: int) -> Sequence[int]:
    """Returns the divisors of a number up to a limit, the greatest first."""
    return [d for d in range(most, 0, -1) if number % d == 0]


def sum_by_slices(
    schedule: Schedule, conv: SBlockRV, last: SBlockRV, decision: Decision, lanes: int
) -> SBlockRV:
    """Lays out all loops but those of the register tile; returns the block that has those.

    Args:
        schedule: Of a function whose padding is inlined.
        conv: The convolution.
        last: What stores the result.
        decision: With the knobs of :func:`deep_knobs`.
        lanes: Of a vector.
    """
    vector = decision["oc_blocks"] * lanes
    depth = schedule.get_loops(conv)[-1]
    outer, _ = schedule.split(depth, [None, decision["depth"]])
    products = schedule.rfactor(outer, 0)
    n, h, w, c = schedule.get_loops(last)[-4:]
    co, ci = schedule.split(c, [None, vector * decision["shares"]])
    ho, hi = schedule.split(h, [None, decision["rows"]])
    schedule.reorder(n, co, ho, hi, w, ci)
    task = schedule.fuse(n, co, ho)
    schedule.parallel(task)
    schedule.compute_at(conv, task, preserve_unit_loops=True)
    slices, n, h, w, c = schedule.get_loops(conv)[-5:]
    co, blocks, lane = schedule.split(c, [None, decision["oc_blocks"], lanes])
    wo, wi = schedule.split(w, [None, decision["tile_w"]])
    schedule.reorder(slices, n, co, h, wo, wi, blocks, lane)
    schedule.compute_at(products, wo, preserve_unit_loops=True)
    schedule.set_scope(products, 0, "local")
    schedule.vectorize(lane)
    schedule.unroll(blocks)
    schedule.unroll(wi)
    schedule.decompose_reduction(conv, slices)
    _, inner = schedule.split(schedule.get_loops(last)[-1], [None, lanes])
    schedule.vectorize(inner)
    return products
