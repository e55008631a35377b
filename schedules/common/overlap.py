"""Tiles that do not divide a loop: the last one starts earlier, over a part of the one before.

A guard in the innermost loops would cost more than what is computed twice, and a shorter tile for
the rest is a second copy of the kernel's code. A tile computes and stores the same values again.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, sym, tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV

__all__ = ["overlap_tiles", "split_overlapping"]

_MARK = "tvmdet.overlap"


def split_overlapping(schedule: Schedule, loop: LoopRV, tile: int) -> tuple[LoopRV, LoopRV]:
    """Splits a loop into tiles of ``tile`` rounds, at most as many as it has.

    Whoever calls this calls :func:`overlap_tiles` when the schedule is complete.

    Returns:
        The loops over the tiles and within one.

    Raises:
        ValueError: A tile has more rounds than the loop.
    """
    extent = int(schedule.get(loop).extent)
    if tile > extent:
        raise ValueError(f"a tile of {tile} rounds does not fit a loop of {extent}")
    divides = extent % tile == 0
    outer, inner = schedule.split(loop, [None, tile], disable_predication=not divides)
    if not divides:
        schedule.annotate(outer, _MARK, [tile, extent])
    return outer, inner


def overlap_tiles(schedule: Schedule) -> Schedule:
    """Returns the schedule with every tile within its loop's rounds.

    Nothing more can be scheduled around the blocks in it. What a tile stores must not depend on
    what was stored before, and all its rounds must be of one task.

    Raises:
        ValueError: A block in a tile is no multiple of the tile's first round, a fused one say.
    """
    func = schedule.mod["main"]
    problems: list[str] = []
    body = tvm_ffi.structural_map(func.body, (tirx.For, lambda loop: _overlapping(loop, problems)))
    if problems:
        raise ValueError(problems[0])
    return Schedule(tvm.IRModule({"main": func.with_body(body)}))


def _overlapping(loop: Any, problems: list[str]) -> Any:
    """Moves the first round ``outer * tile`` of a tile to where a whole one fits.

    What cannot be moved is added to ``problems``: TVM does not survive an exception here.
    """
    if _MARK not in loop.annotations:
        return loop
    tile, extent = (int(number) for number in loop.annotations[_MARK])
    analyzer = sym.Analyzer()
    outer = loop.loop_var

    def moved(value: Any) -> Any:
        factor, *_ = sym.detect_linear_equation(value, [outer]) or (None,)
        if not isinstance(factor, tirx.IntImm) or int(factor) % tile:
            problems.append(f"{value} is no multiple of {tile} rounds of {outer}")
            return value
        if int(factor) == 0:
            return value
        start = tirx.min(outer * tile, extent - tile) * (int(factor) // tile)
        return analyzer.simplify(value - outer * int(factor)) + start

    def moved_condition(condition: Any) -> Any:
        """Moves what is compared: it is proven true when the function is lowered."""
        return tirx.LT(moved(condition.a), moved(condition.b))

    def moved_block(realize: Any) -> Any:
        values = [moved(value) for value in realize.iter_values]
        predicate = tvm_ffi.structural_map(realize.predicate, (tirx.LT, moved_condition))
        return s_tir.SBlockRealize(values, predicate, realize.block)

    body = tvm_ffi.structural_map(loop.body, (s_tir.SBlockRealize, moved_block))
    kept = {key: value for key, value in loop.annotations.items() if key != _MARK}
    return tirx.For(outer, loop.min, loop.extent, loop.kind, body, annotations=kept)
