"""Pictures that both sides draw: the exporters' environment and the tests. Numpy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["PICTURES", "draw"]

PICTURES = 2


def draw(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Returns a picture uint8 ``[height, width, 3]``, RGB, with structure of every size.

    Whole numbers only, so that it is the same on every machine.
    """
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 32, np.int64)
    for cell in (64, 32, 16, 8, 4, 2):
        rows, columns = -(-height // cell), -(-width // cell)
        coarse = rng.integers(0, 96 if cell > 8 else 32, (rows, columns, 3))
        total += coarse.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
    return np.clip(total - 64, 0, 255).astype(np.uint8)
