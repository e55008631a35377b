"""Convolutions on vectors of eight float16; see :mod:`tvmdet.passes.fp16_conv2d`.

The strategies are those of the float32 templates, with these differences:

1. The rows of a task are copied, and rounded to float16 as they are. A picture that is float16
   already is read in place: by a depthwise convolution always, by a dense one if it is not padded
   and has channels in whole blocks. Which pictures are float16: :mod:`tvmdet.passes.store_rounded`.
2. A dense convolution has a register tile of float16 sums, which is emptied into float32 sums on
   the stack after each block of products: for each vector two conversions, two additions, and the
   load and the store of a pair of registers, after 64 multiplications where a layer has as many.
3. ``FMLA Vd.8H, Vn.8H, Vm.H[i]`` takes its lane from one of the first 16 registers only (Arm
   Architecture Reference Manual, FMLA by element): a tile has fewer pixels.

Why not ``FMLAL``, which sums products of float16 in float32: it multiplies four lanes at a time, as
many as float32 does, and a Cortex-A76 lacks it.
"""

from __future__ import annotations

from typing import ClassVar

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.schedules.arm.by_lane import ByLane
from tvmdet.schedules.base import Workload
from tvmdet.schedules.blocks import buffer_shape
from tvmdet.schedules.common.conv2d_nhwc import copy_channels
from tvmdet.schedules.common.depthwise_conv2d_nhwc import DepthwiseConv2dNhwc
from tvmdet.schedules.common.read_in_place import ReadsInPlace
from tvmdet.targets import Target

__all__ = ["ArmFp16Conv2dNhwc", "ArmFp16DepthwiseConv2dNhwc"]

_MOST_PIXELS = 10
"""Of the 16 registers that lanes can be taken from: with 11 LLVM 22 moves pixels about."""


class ArmFp16Conv2dNhwc(ByLane, ReadsInPlace):
    """Direct convolution with float16 products by lane; see the module's text."""

    name: ClassVar[str] = "arm.fp16_conv2d_nhwc"
    rate: ClassVar[int] = 2
    mark: ClassVar[str] = "tvmdet.fp16_conv2d"
    slices: ClassVar[bool] = False

    def fits(self, target: Target, pixels: int, vectors: int, *, shallow: bool = False) -> bool:
        """Returns whether the registers hold a tile, but for one, and those of lanes its pixels."""
        held = 1 + pixels * vectors + pixels + vectors
        return self.holds(target, held, shallow=shallow) and pixels <= _MOST_PIXELS

    def registers_of_vector(self, lanes: int, target: Target) -> int:
        """Returns 1: a register holds twice as many float16 as float32."""
        return -(-lanes // (2 * target.vector_lanes_f32))

    def totals(self, schedule: Schedule, conv: SBlockRV) -> SBlockRV:
        """Returns the block of float32 sums, which reads the float16 ones."""
        (sums,) = schedule.get_consumers(conv)
        return sums

    def copy_rows(self, schedule: Schedule, pad: SBlockRV, workload: Workload) -> None:
        """Copies vectors of channels."""
        # Channels of zeros are no picture's: the last vector is copied in part.
        whole = f"c{buffer_shape(schedule, pad)[-1]}" in workload.anchor.split()
        copy_channels(schedule, pad, workload["lanes"], ragged=not whole)

    def place_parts(self, schedule: Schedule, conv: SBlockRV, lanes: int) -> None:
        """Places the tile of float16 sums in each turn of that of float32 ones."""
        sums = self.totals(schedule, conv)
        wi, ci, *turns = schedule.get_loops(sums)[-5:]
        blocks, vector = schedule.split(ci, [None, lanes])
        schedule.reorder(*turns, wi, blocks, vector)
        schedule.compute_at(conv, turns[-1], preserve_unit_loops=True)
        schedule.set_scope(conv, 0, "local")

    def registers(self, schedule: Schedule, conv: SBlockRV, lanes: int) -> None:
        """Lays out the loops of both tiles."""
        sums = self.totals(schedule, conv)
        wi, ci, *_, kh, kw, ic = schedule.get_loops(conv)[-8:]
        blocks, vector = schedule.split(ci, [None, lanes])
        depth = self.depth_loops(schedule, ic, lanes)
        schedule.reorder(kh, kw, *depth, wi, blocks, vector)
        self.load_inputs(schedule, conv, depth)
        self._in_registers(schedule, conv, (wi, blocks, vector), kh)
        first, *_, wi, blocks, vector = schedule.get_loops(sums)[-6:]
        self._in_registers(schedule, sums, (wi, blocks, vector), first)

    @staticmethod
    def _in_registers(
        schedule: Schedule, block: SBlockRV, tile: tuple[LoopRV, LoopRV, LoopRV], first: LoopRV
    ) -> None:
        """Vectorises a tile of sums, which start as zeros before the loop ``first``."""
        _unroll_tile(schedule, *tile)
        init = schedule.decompose_reduction(block, first)
        _unroll_tile(schedule, *schedule.get_loops(init)[-3:])


class ArmFp16DepthwiseConv2dNhwc(DepthwiseConv2dNhwc):
    """Depthwise convolution in float16: a filter's few products are one sum."""

    name: ClassVar[str] = "arm.fp16_depthwise_conv2d_nhwc"
    rate: ClassVar[int] = 2
    mark: ClassVar[str] = "tvmdet.fp16_depthwise_conv2d"

    def lanes_of(self, target: Target) -> int:
        """Returns the float16 lanes of a vector."""
        return 2 * target.vector_lanes_f32


def _unroll_tile(schedule: Schedule, pixels: LoopRV, vectors: LoopRV, lanes: LoopRV) -> None:
    schedule.vectorize(lanes)
    schedule.unroll(vectors)
    schedule.unroll(pixels)
