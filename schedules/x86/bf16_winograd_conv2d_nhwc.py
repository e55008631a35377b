"""Winograd F(m x m, 3x3) with products of bfloat16 pairs, summed in float32.

The strategy is that of :mod:`tvmdet.schedules.common.winograd_conv2d_nhwc`. Inputs are rounded as
they are transformed, which halves what lies in L2 between the stages; the products are dot products
of channel pairs, twice as many an instruction as an FMA has.
"""

from __future__ import annotations

from typing import ClassVar

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.schedules.common.winograd_conv2d_nhwc import WinogradConv2dNhwc
from tvmdet.schedules.x86.bf16_dot import BF16_DOT_LLVM, bf16_dot_of_pairs

__all__ = ["Bf16WinogradConv2dNhwc"]


class Bf16WinogradConv2dNhwc(WinogradConv2dNhwc):
    """Fused Winograd convolution with bfloat16 dot products; see the module's text."""

    name: ClassVar[str] = "x86.bf16_winograd_conv2d_nhwc"
    rate: ClassVar[int] = 2
    mark: ClassVar[str] = "tvmdet.bf16_winograd_conv2d"
    # A new block makes TVM look at all of them again, and it cannot prove it any more of those
    # placed before where channels are no whole vectors. In float32 nothing makes it look.
    checked: ClassVar[bool] = False

    def prepare_task(self, schedule: Schedule, task: LoopRV) -> None:
        """Links the dot product in."""
        schedule.annotate(task, "pragma_import_llvm", BF16_DOT_LLVM)

    def make_steps(self, schedule: Schedule, product: SBlockRV, lanes: int) -> SBlockRV:
        """Puts the loops over lanes and over the channels of a pair into a block.

        Later, the overlap of tiles is in the indices, of which TVM cannot make a block.
        """
        o, k, half = schedule.get_loops(product)[-3:]
        _, vector = schedule.split(o, [None, lanes])
        schedule.reorder(k, vector, half)
        return schedule.blockize(vector)

    def split_channels(
        self, schedule: Schedule, channels: LoopRV, oc_blocks: int, lanes: int
    ) -> tuple[LoopRV, ...]:
        """Returns the loops over tiles' channels and the vectors of a tile; lanes are in a step."""
        return tuple(schedule.split(channels, [None, oc_blocks]))

    def multiply(self, schedule: Schedule, product: SBlockRV, init: SBlockRV) -> None:
        """Multiplies a pair of inputs with a vector of pairs of weights."""
        schedule.tensorize(product, bf16_dot_of_pairs())
        (zeros,) = schedule.get_child_blocks(init)
        schedule.vectorize(schedule.get_loops(zeros)[-1])
