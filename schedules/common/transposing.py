"""Results that lie across what they are made of, such as maps with channels first.

A row of such a result reads one value of each of many cache lines, and the next row reads the
others of the same lines. So it is written block by block: as many places of a row as keep their
lines in L1, and all the rows, before the next places. What is computed on the way is computed the
way its tensors lie, in vectors, into a small block that is turned then: along the row nothing would
be a vector where another tensor begins, and each place would be looked up for itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import TensorLoad
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvmdet.schedules.blocks import loop_extents, output_blocks, split_ragged_vector
from tvmdet.schedules.common.joined_columns import cut_columns

__all__ = ["Turned", "find_turned", "turn"]

# Bytes that the values of a block may take: half of L1, and the lines that are written beside it.
_BLOCK_BYTES = 16384
_FEWEST, _MOST = 16, 128  # places of a block


@dataclass(frozen=True, kw_only=True)
class Turned:
    """An output whose rows lie across the tensor that it is read from.

    Attributes:
        block: The block that writes it.
        source: The block that computes that tensor; None for a parameter or another output.
        along: The axis of the output along which the tensor's values lie side by side.
        places: How many places of a row are taken together.
    """

    block: SBlockRV
    source: SBlockRV | None
    along: int
    places: int


def find_turned(schedule: Schedule, least: int) -> list[Turned]:
    """Returns the outputs that are nothing but another tensor, turned; nothing is changed.

    Args:
        schedule: Before anything is inlined.
        least: Elements below which an output is left as it is.
    """
    outputs = output_blocks(schedule)
    found = [_turned(schedule, block, least) for block in outputs]
    written = {schedule.get(block).name_hint for block in outputs}
    return [
        one
        if one.source is None or schedule.get(one.source).name_hint not in written
        # Another output is all there before this one is turned.
        else replace(one, source=None)
        for one in found
        if one is not None
    ]


def _turned(schedule: Schedule, block: SBlockRV, least: int) -> Turned | None:
    body = schedule.get(block)
    load = body.body.value
    if not isinstance(load, TensorLoad):
        return None
    axes = [axis.var for axis in body.iter_vars]
    extents = loop_extents(schedule, block)
    indices = [index for index in load.indices if not isinstance(index, tirx.IntImm)]
    order = [next((at for at, axis in enumerate(axes) if axis.same_as(i)), None) for i in indices]
    wide = [axis for axis in order if axis is None or extents[axis] > 1]
    along = wide[-1] if len(wide) > 1 else None
    if None in wide or along is None or along == len(axes) - 1 or math.prod(extents) < least:
        return None
    most = min(_MOST, max(_FEWEST, _BLOCK_BYTES // (4 * extents[along])))
    sizes = [size for size in range(_FEWEST, most + 1) if extents[-1] % size == 0]
    producers = schedule.get_producers(block)
    source = producers[0] if len(producers) == 1 else None
    if not sizes or (source is not None and len(schedule.get_consumers(source)) > 1):
        return None
    places = max(sizes, key=lambda size: (size % 16 == 0, size % 4 == 0, size))
    return Turned(block=block, source=source, along=along, places=places)


def turn(schedule: Schedule, turned: Turned, lanes: int) -> list[str]:
    """Schedules an output, once all but its source is inlined.

    Args:
        schedule: Is changed.
        turned: Of :func:`find_turned`.
        lanes: Elements of a vector.

    Returns:
        Blocks whose columns are yet to be vectorised, as :func:`cut_columns` does.
    """
    loops = list(schedule.get_loops(turned.block))
    outer, inner = schedule.split(loops[-1], [None, turned.places])
    rest = [*loops[: turned.along], *loops[turned.along + 1 : -1], outer]
    schedule.reorder(*rest, loops[turned.along], inner)
    shared = schedule.fuse(*rest) if len(rest) > 1 else outer
    split_ragged_vector(schedule, inner, lanes)
    schedule.parallel(shared)
    if turned.source is None:
        return []
    schedule.compute_at(turned.source, shared)
    parts = cut_columns(schedule, turned.source, lanes)
    if not parts:
        split_ragged_vector(schedule, schedule.get_loops(turned.source)[-1], lanes)
    return parts
