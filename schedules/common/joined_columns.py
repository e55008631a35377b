"""Rows that are joined of several tensors, such as the boxes and the scores of a detector.

A vector that holds values of two tensors is computed value by value, and so is then every other
vector of its loop: TVM has one code for all of them. So the loop is cut where another tensor begins
and where whole vectors end, and each part is a loop of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvmdet.schedules.blocks import split_vector

__all__ = ["cut_columns", "vectorise_columns"]

_MOST_PARTS = 12  # of which each is code of its own


def cut_columns(schedule: Schedule, block: SBlockRV, lanes: int) -> list[str]:
    """Cuts the last loop of a block, which must be vectorised by :func:`vectorise_columns` then.

    Args:
        schedule: Is changed. Nothing of the loop but where it lies may be scheduled yet.
        block: Whose last loop is that of the columns.
        lanes: Elements of a vector.

    Returns:
        The names of the blocks that there are instead; none where all columns are of one tensor, or
        of very many: then nothing is changed.
    """
    column = schedule.get_loops(block)[-1]
    extent = int(schedule.get(column).extent)
    begins = [0, *sorted(edge for edge in _edges(schedule, block) if 0 < edge < extent), extent]
    if len(begins) == 2:
        return []
    parts = []
    for begin, end in itertools.pairwise(begins):
        whole = (end - begin) // lanes * lanes
        parts += [size for size in (whole, end - begin - whole) if size]
    if len(parts) > _MOST_PARTS:
        return []
    before = set(_named(schedule))
    schedule.loop_partition(column, [*parts[:-1], None])
    return [name for name in _named(schedule) if name not in before]


def vectorise_columns(schedule: Schedule, names: Sequence[str], lanes: int) -> Schedule:
    """Returns a schedule in which the parts of :func:`cut_columns` are vectors.

    Args:
        schedule: All else is scheduled.
        names: Of the parts' blocks.
        lanes: Elements of a vector.
    """
    # Loops that do not begin at 0 cannot be split.
    result = Schedule(s_tir.transform.CanonicalizeLoop()(schedule.mod))
    for name in names:
        block = result.get_sblock(name)
        split_vector(result, result.get_loops(block)[-1], lanes)
    return result


def _named(schedule: Schedule) -> list[str]:
    """Returns the names of the blocks that compute something."""
    found: list[str] = []

    def look(block: Any) -> None:
        if len(block.iter_vars):
            found.append(block.name_hint)

    tvm_ffi.structural_walk(schedule.mod["main"].body, (s_tir.SBlock, look))
    return found


def _edges(schedule: Schedule, block: SBlockRV) -> set[int]:
    """Returns the columns that a block compares its own with."""
    body = schedule.get(block)
    last = body.iter_vars[-1].var
    found: set[int] = set()

    def look(test: Any) -> None:
        for one, other in ((test.a, test.b), (test.b, test.a)):
            if isinstance(one, tirx.IntImm) and other.same_as(last):
                found.add(int(one))

    for kind in (tirx.LT, tirx.LE, tirx.GT, tirx.GE):
        tvm_ffi.structural_walk(body.body, (kind, look))
    return found
