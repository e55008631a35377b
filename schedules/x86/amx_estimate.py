"""How long a convolution by matrix tiles should take: which of its schedules to try first.

The constants were fitted to measurements on one core of a Xeon with AMX.
``tests/benchmarks/guess_rank.py`` measures how good the guess is.
"""

from __future__ import annotations

from tvmdet.schedules.base import Workload
from tvmdet.schedules.x86.amx_tiles import TILE, Tiles
from tvmdet.targets import Target

__all__ = ["estimated_cycles", "positions"]

_PRODUCT, _LOAD, _STORE = 20, 15, 80
"""Cycles of a tile: its products, its load as a factor, and its sums' store and epilogue."""
_COPY = 3
"""Cycles of a vector of the picture that is copied."""
_NEAR, _FAR = 64, 11
"""Bytes a cycle from L2, and from beyond it."""
_LINE = 64
"""Bytes of a cache line: a pixel's results of two tiles, at least."""
_OWN_SHARE = 0.3
"""Of L2, what something may take that is read again and again, beside all else."""
_CORES = 4
"""That tasks are shared out to, as few as an inference server may give one detector: with more, the
guess has enough tasks all the same, and tuning counts the threads that there are."""
_LAUNCH = 10_000
"""Cycles from when one thread gives tasks to others until all have ended, without the tasks."""


def positions(workload: Workload, rows: int) -> int:
    """Returns the pixels of a task of so many rows, with those at their ends that are not used."""
    return int((rows - 1) * workload["row"] + workload["width"])


def estimated_cycles(
    workload: Workload, tiles: Tiles, order: str, rows: int, target: Target
) -> float:
    """Returns how long a convolution should take.

    Args:
        workload: Of the template.
        tiles: That are kept in registers together.
        order: As in the template.
        rows: Of a task.
        target: Whose caches count.
    """

    def rate(size: float) -> int:
        """Returns the bytes a cycle of what is so large and used again."""
        return _NEAR if size < target.l2_bytes * _OWN_SHARE else _FAR

    def read(size: float) -> float:
        """Returns the cycles in which so many bytes are read that were read before."""
        return size / rate(size)

    blocks: int = workload["blocks"] // tiles.filters
    parts: int = workload["batch"] * -(-workload["height"] // rows)
    pixels = positions(workload, rows)
    taps_h, taps_w = workload["taps"]
    steps = taps_h * taps_w * workload["steps"]
    step = tiles.sums * _PRODUCT + (tiles.pixels + tiles.filters) * _LOAD
    turns = -(-pixels // (tiles.pixels * tiles.rows))
    cycles = parts * blocks * turns * (steps * step + tiles.sums * _STORE)
    sums_bytes = pixels * tiles.filters * TILE * 4
    if sums_bytes > target.l1d_bytes:
        cycles += parts * blocks * 2 * read(sums_bytes)
    weight_bytes = steps * workload["pairs"] * 4 * workload["blocks"] * TILE
    phases, places, channels = workload["copied"]
    copied: float = 0.0 if workload["in place"] else phases * places * channels / TILE * _COPY
    results: int = rows * workload["width"]
    # Lines of the result are written in as many parts as there are tiles to them.
    written = results * blocks * max(1.0, tiles.filters / 2) * _LINE
    if order == "filters":
        cycles += weight_bytes / _FAR + blocks * read(2 * phases * places * channels)
        cycles += parts * written / _FAR
        tasks, copies = workload["batch"] * blocks, float(workload["batch"])
    else:
        cycles += parts * read(weight_bytes)
        part_bytes = 2 * phases * (rows + taps_h - 1) * workload["row"] * channels
        if order != "co_inner" or part_bytes > target.l1d_bytes // 2:
            cycles += parts * blocks * read(part_bytes)
        result_bytes = 2 * results * workload["filters"]
        cycles += parts * result_bytes / _FAR
        if order != "co_inner" or result_bytes > target.l1d_bytes // 2:
            cycles += parts * written / rate(result_bytes)
        tasks = parts * blocks if order == "wo_inner" else parts
        copies = tasks * min(1.0, (rows + taps_h - 1) * workload["row"] / places)
    launches = (tasks > 1) + (order == "filters" and copied > 0)
    return float((cycles + copies * copied) / min(tasks, _CORES) + launches * _LAUNCH)
