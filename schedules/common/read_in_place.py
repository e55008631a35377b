"""Pictures of 16 bits that a pointwise convolution multiplies where they lie."""

from __future__ import annotations

import tvm_ffi
from tvm import s_tir, tirx
from tvmdet.schedules.base import schedule_of
from tvmdet.schedules.blocks import annotated_block, buffer_shape, is_border

__all__ = ["read_in_place"]


def read_in_place(func: tirx.PrimFunc, mark: str) -> tirx.PrimFunc:
    """Returns a convolution whose picture need not be copied, if it is as the products want it.

    That is where the copy would round nothing, and nothing is around the picture nor behind its
    channels. What is left of the copy's condition then only cuts off the slack of the rows, of
    which no tile computes anything; without it the copy is a view, and can be inlined.

    Args:
        func: With one convolution, not scheduled.
        mark: The annotation of its main block.
    """
    schedule = schedule_of(func)
    conv = annotated_block(schedule, mark)
    pad = schedule.get_producers(conv)[0]
    block = schedule.get(pad)
    words = str(schedule.get(conv).annotations[mark]).split()
    if not is_border(schedule, pad) or "p0.0.0.0" not in words:
        return func
    _, picture, _ = block.body.value.args
    if int(picture.source.shape[-1]) != buffer_shape(schedule, pad)[-1]:
        return func

    def plain(found: s_tir.SBlock) -> s_tir.SBlock:
        if found.name_hint != block.name_hint:
            return found
        body = tirx.BufferStore(found.body.buffer, found.body.value.args[1], found.body.indices)
        return s_tir.SBlock(found.iter_vars, found.reads, found.writes, found.name_hint, body)

    return func.with_body(tvm_ffi.structural_map(func.body, (s_tir.SBlock, plain)))
