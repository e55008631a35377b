"""Products by lane: the reason why ARM has register tiles of its own.

NEON multiplies a vector with one lane of another (``FMLA Vd.4S, Vn.4S, Vm.S[i]``), but cannot
broadcast from memory within a multiplication as x86 does: ``LD1R`` is an instruction of its own,
and one that takes a slot of the vector units on some cores. So the inputs of as many neighbouring
channels as a vector has lanes come with one load and are used lane by lane: a quarter of the
loads. They take registers from the sums, so that tiles are a little smaller.

Source: Arm Cortex-A76 Software Optimization Guide, ASIMD load instructions ("load, 1 element, all
lanes": load and vector pipelines) and floating-point multiply-accumulate by element.
"""

from __future__ import annotations

from typing import ClassVar

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.schedules.common.register_tile import RegisterTile
from tvmdet.targets import Target

__all__ = ["ByLane"]

_BETWEEN_TILES = 3


class ByLane(RegisterTile):
    """Inputs are loaded as vectors of channels; see the module's text."""

    broadcasts: ClassVar[bool] = False

    def fits(self, target: Target, pixels: int, vectors: int, *, shallow: bool = False) -> bool:
        """Returns whether the registers hold a tile: sums, a vector for each pixel, weights.

        All weights of a lane are counted, since LLVM loads them before it multiplies the first: a
        tile of 6 pixels by 4 vectors, whose weights would have to come one by one, spills.
        """
        return self.holds(target, pixels * vectors + pixels + vectors, shallow=shallow)

    def holds(self, target: Target, registers: int, *, shallow: bool) -> bool:
        """Returns whether a target has so many registers for a tile.

        Where few products are unrolled, some more are needed: what is stored of one tile and loaded
        for the next is mixed with them.
        """
        return registers <= target.vector_registers - (_BETWEEN_TILES if shallow else 0)

    def depth_loops(self, schedule: Schedule, depth: LoopRV, lanes: int) -> tuple[LoopRV, ...]:
        """Splits the loop into groups of channels that one load brings; an odd number stays one."""
        extent = int(schedule.get(depth).extent)
        while extent % lanes:
            lanes //= 2
        if lanes == 1:
            return (depth,)
        group, lane = schedule.split(depth, [None, lanes])
        return group, lane

    def load_inputs(
        self, schedule: Schedule, products: SBlockRV, loops: tuple[LoopRV, ...]
    ) -> None:
        """Loads the inputs of a group as vectors."""
        if len(loops) == 1:
            return
        group, lane = loops
        around = [schedule.get(loop) for loop in schedule.get_loops(products)]
        (at,) = (i for i, loop in enumerate(around) if loop.same_as(schedule.get(group)))
        # Of this scope TVM puts small buffers on the stack, where LLVM can keep them in registers.
        inputs = schedule.cache_read(products, 0, "global")
        schedule.compute_at(inputs, group, preserve_unit_loops=True)
        *outer, channels = schedule.get_loops(inputs)[at + 1 :]
        schedule.vectorize(channels)
        for loop in outer:
            schedule.unroll(loop)
        schedule.unroll(lane)
