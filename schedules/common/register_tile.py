"""The innermost step of the products: how inputs come into registers, and how many fit.

Convolutions, Winograd's products and batched products share it: a tile of ``pixels`` by ``vectors``
sums is held in registers, and each input is multiplied with each vector of weights.
"""

from __future__ import annotations

from typing import ClassVar

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvmdet.targets import Target

__all__ = ["SHALLOW", "RegisterTile"]

_NOT_SUMS = 3
"""Registers for an input and two vectors of weights."""


SHALLOW = 64
"""Products of a sum below which LLVM unrolls their loop, and mixes it with what is around it."""


class RegisterTile:
    """Inputs are broadcast from memory one by one, as x86 can within a multiplication.

    Attributes:
        broadcasts: Whether they are: else they are read as vectors, as weights are.
    """

    broadcasts: ClassVar[bool] = True

    def fits(self, target: Target, pixels: int, vectors: int, *, shallow: bool = False) -> bool:
        """Returns whether the registers of a target hold a tile and its factors.

        Args:
            target: Whose registers.
            pixels: Of the tile.
            vectors: Of sums for each pixel.
            shallow: Whether the sums have fewer than ``SHALLOW`` products, in one loop.
        """
        return pixels * vectors <= target.vector_registers - _NOT_SUMS

    def depth_loops(self, schedule: Schedule, depth: LoopRV, lanes: int) -> tuple[LoopRV, ...]:
        """Returns the loops over the input channels, to be placed around those of the tile.

        Args:
            schedule: Where.
            depth: The loop over input channels, which are neighbours in memory.
            lanes: Of a vector.
        """
        return (depth,)

    def load_inputs(
        self, schedule: Schedule, products: SBlockRV, loops: tuple[LoopRV, ...]
    ) -> None:
        """Brings the inputs of one turn of ``loops`` into registers.

        Args:
            schedule: Where.
            products: The block, whose first factor is the input; its loops are in order.
            loops: From :meth:`depth_loops`.
        """
