"""Pictures that are read where they lie: a copy between zeros takes as long as a few of its taps.

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

    It cannot where the copy computes something, which would then be computed once for each tap;
    numbers kept in 16 bits are widened once for each, which still is faster than a copy.

    Args:
        schedule: Where the sums are placed in ``tiles`` already.
        pad: The block that copies.
        tiles: The loop over tiles of columns.
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
