"""What differences of outputs are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["scale_of"]

_LEAST_SCORE = 1e-2
"""ONNX Runtime's vectorised sigmoid is off by some 1e-7 wherever its result is small, and a trained
network that is sure of finding nothing answers little else."""


def scale_of(values: npt.NDArray[Any]) -> float:
    """Returns the size of an output, which differences are given as shares of.

    It is the greatest absolute value, infinities aside; of what lies from 0 to 1, as scores do, a
    hundredth at least.

    Args:
        values: The right ones, of any shape.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return 1.0
    low, high = float(finite.min()), float(finite.max())
    if values.dtype.kind == "f" and low >= 0.0 and high <= 1.0:
        return max(high, _LEAST_SCORE)
    return max(abs(low), abs(high)) or 1.0
