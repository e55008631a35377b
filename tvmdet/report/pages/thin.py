"""Many latencies as a drawing of bounded size, without losing the odd ones.

Nothing here is random: the same latencies give the same drawing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tvmdet.report.statistics import far_out

__all__ = ["Shape", "outline"]

Floats = npt.NDArray[np.float64]

_FEW = 120  # values that are all drawn as strokes


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is drawn of a row of values that lie along an axis.

    Attributes:
        strokes: Places of single values: all when they are few, else none.
        outliers: Places of outliers, as tables count them; those at one place are one.
        density: Share of the values in each bin, the greatest being 1; empty when they are few.
        edges: Places of the bins' borders, one more than there are bins.
    """

    strokes: Floats
    outliers: Floats
    density: Floats
    edges: Floats


def outline(
    values: Floats, places: Floats, start: float, end: float, *, step: float = 3.0
) -> Shape:
    """Returns what to draw of values.

    Every value has a part in it. Of more than some hundred the bulk becomes a histogram, whose
    bins are as wide as ``step``, but outliers stay marks of their own, of which
    those that would cover each other within half a unit are one.

    Args:
        values: At least one.
        places: Of each along the axis, in units of the drawing.
        start: Where the axis begins.
        end: Where it ends.
        step: Width of a bin.
    """
    odd = far_out(values)
    outliers = np.unique(np.round(places[odd] * 2.0)) / 2.0
    inner = places[~odd]
    if inner.size <= _FEW:
        return Shape(
            strokes=np.unique(np.round(inner, 1)),
            outliers=outliers,
            density=np.zeros(0),
            edges=np.zeros(0),
        )
    edges = np.linspace(start, end, max(round((end - start) / step), 1) + 1)
    counts, _ = np.histogram(inner, edges)
    held = np.flatnonzero(counts)
    counts = counts[held[0] : held[-1] + 1]
    return Shape(
        strokes=np.zeros(0),
        outliers=outliers,
        density=counts / counts.max(),
        edges=edges[held[0] : held[-1] + 2],
    )
