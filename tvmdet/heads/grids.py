"""The grids of a dense detector: one per pyramid level, a prediction or several at each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Grid", "covering_grids", "doubling_strides"]

Float64 = npt.NDArray[np.float64]

_FIRST_STRIDES = (8, 4, 16, 2, 32)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One level.

    Attributes:
        size_hw: Rows and columns.
        stride_yx: Pixels of the network's input from one cell to the next.
        offset: Where in its cell a centre lies, in cells: 0.5 is the middle, 0 the corner.
    """

    size_hw: tuple[int, int]
    stride_yx: tuple[float, float]
    offset: float

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return self.size_hw[0] * self.size_hw[1]

    def centers(self) -> Float64:
        """Returns the centres ``[cells, 2]`` as x, y in pixels, row by row."""
        rows = (np.arange(self.size_hw[0]) + self.offset) * self.stride_yx[0]
        columns = (np.arange(self.size_hw[1]) + self.offset) * self.stride_yx[1]
        y, x = np.meshgrid(rows, columns, indexing="ij")
        return np.stack([x.ravel(), y.ravel()], axis=-1)


def covering_grids(
    size_hw: tuple[int, int], strides: Sequence[tuple[float, float]]
) -> tuple[tuple[int, int], ...]:
    """Returns the grids that cover an image at these strides; cut cells count."""
    return tuple(
        # Strides such as 320 / 3 must not make a fourth cell by rounding.
        (
            int(np.ceil(size_hw[0] / stride[0] - 1e-6)),
            int(np.ceil(size_hw[1] / stride[1] - 1e-6)),
        )
        for stride in strides
    )


def doubling_strides(
    grids: Sequence[tuple[int, int]], size_hw: tuple[int, int]
) -> tuple[int, ...] | None:
    """Returns the strides, each twice the one before, whose grids these are; None without any."""
    for first in _FIRST_STRIDES:
        strides = tuple(first * 2**level for level in range(len(grids)))
        if covering_grids(size_hw, [(stride, stride) for stride in strides]) == tuple(grids):
            return strides
    return None
