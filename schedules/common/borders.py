"""Reads a picture with a border where it lies: the copy between zeros is inlined into the sums.

The sums test what they read, and the loop over tiles of columns is marked: when the function is
lowered, tiles at the border become code of their own, and those between test nothing
(:mod:`tvmdet.passes.peel_borders`).
"""

from __future__ import annotations

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.schedules.blocks import is_border, is_view, is_widened

__all__ = ["read_without_copy"]

_MARK = "tvmdet.borders"


def read_without_copy(schedule: Schedule, pad: SBlockRV, tiles: LoopRV) -> bool:
    """Inlines the copy of a picture between zeros into the sums; returns whether it could.

    It cannot where the copy computes something, which would then be computed for each tap. Numbers
    kept in 16 bits are widened for each row of taps, which still is faster than a copy.

    Args:
        schedule: Where the sums are placed in ``tiles`` already.
        pad: The block that copies.
        tiles: The loop over tiles of columns. Those over the columns of a tile and over the taps of
            a row must be unrolled later.
    """
    if (
        not is_border(schedule, pad)
        and not is_view(schedule, pad)
        and not is_widened(schedule, pad)
    ):
        return False
    schedule.compute_inline(pad)
    schedule.annotate(tiles, _MARK, 1)
    return True
