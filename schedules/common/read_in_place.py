"""Convolutions of 16 bits: pictures that are so already are multiplied where they lie."""

from __future__ import annotations

import abc

import tvm_ffi
from tvm import s_tir, tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvmdet.schedules.base import Decision, Workload, schedule_of
from tvmdet.schedules.blocks import annotated_block, buffer_shape, is_border, is_view
from tvmdet.schedules.common.conv2d_nhwc import Conv2dNhwc

__all__ = ["ReadsInPlace", "read_in_place"]


class ReadsInPlace(Conv2dNhwc):
    """Copies the rows of a task, rounded, unless the picture is as the products want it."""

    def apply(self, func: tirx.PrimFunc, workload: Workload, decision: Decision) -> Schedule:
        """Applies one register tile; see :class:`Template`."""
        return super().apply(read_in_place(func, self.mark), workload, decision)

    @abc.abstractmethod
    def copy_rows(self, schedule: Schedule, pad: SBlockRV, workload: Workload) -> None:
        """Vectorises the copy of a task's rows."""

    def _place_padding(
        self, schedule: Schedule, pad: SBlockRV, task: object, workload: Workload
    ) -> None:
        self.prepare_task(schedule, task)
        if is_view(schedule, pad):
            schedule.compute_inline(pad)
            return
        schedule.compute_at(pad, task)
        self.copy_rows(schedule, pad, workload)


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
