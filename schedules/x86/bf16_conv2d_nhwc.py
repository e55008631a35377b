"""Direct NHWC convolution with dot products of bfloat16 pairs, summed in float32.

The strategy is that of :mod:`tvmdet.schedules.common.conv2d_nhwc`, with two differences:

1. The rows of a task are copied, and rounded to bfloat16 as they are, unless the picture is
   bfloat16 already, is not padded and has an even number of channels: then it is read in place.
2. The innermost step multiplies a broadcast pair of channels with a vector of weight pairs, 32
   products an instruction, twice as many as an FMA.

Which pictures are bfloat16: :mod:`tvmdet.passes.store_rounded`.
"""

from __future__ import annotations

from typing import ClassVar

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvmdet.schedules.base import Workload
from tvmdet.schedules.common.conv2d_nhwc import copy_channels
from tvmdet.schedules.common.read_in_place import ReadsInPlace
from tvmdet.schedules.x86.bf16_dot import BF16_DOT_LLVM, bf16_dot

__all__ = ["Bf16Conv2dNhwc"]


class Bf16Conv2dNhwc(ReadsInPlace):
    """Direct convolution with bfloat16 dot products; see the module's text."""

    name: ClassVar[str] = "x86.bf16_conv2d_nhwc"
    rate: ClassVar[int] = 2
    mark: ClassVar[str] = "tvmdet.bf16_conv2d"
    slices: ClassVar[bool] = False

    def copy_rows(self, schedule: Schedule, pad: SBlockRV, workload: Workload) -> None:
        """Copies vectors of pairs."""
        copy_channels(schedule, pad, 2 * workload["lanes"])

    def prepare_task(self, schedule: Schedule, task: object) -> None:
        """Links the dot product in."""
        schedule.annotate(task, "pragma_import_llvm", BF16_DOT_LLVM)

    def registers(self, schedule: Schedule, conv: SBlockRV, lanes: int) -> None:
        """Lays the register tile's loops out, with dot products innermost."""
        wi, ci, kh, kw, ic, half = schedule.get_loops(conv)[-6:]
        blocks, vector = schedule.split(ci, [None, lanes])
        schedule.reorder(kh, kw, ic, wi, blocks, vector, half)
        for loop in (wi, blocks):
            schedule.unroll(loop)
        init = schedule.decompose_reduction(conv, kh)
        schedule.tensorize(vector, bf16_dot())
        wi, blocks, vector = schedule.get_loops(init)[-3:]
        schedule.vectorize(vector)
        schedule.unroll(blocks)
        schedule.unroll(wi)
