"""Images are spread over the batch sizes that were compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Batch", "plan_batches"]

_CALL_COST_ROWS = 0.5
"""What one more call costs, in rows of work.

Half a row makes a padded row cheaper than two more calls, and dearer than one: with batch
sizes 1 and 4, three images take one call of 4, five take 4 + 1 and six take 4 + 1 + 1.
"""


class Batch(NamedTuple):
    """One call: ``size`` rows, of which ``images`` are used and the others are padding."""

    size: int
    images: int


def plan_batches(images: int, sizes: Sequence[int]) -> tuple[Batch, ...]:
    """Covers a number of images with calls of the compiled batch sizes, with the least work.

    Work is the number of rows, padding included, plus half a row per call.

    Args:
        images: How many images there are, 0 or more.
        sizes: The compiled batch sizes, each 1 or more.

    Returns:
        The calls, largest first; together they take exactly ``images`` images.
    """
    largest = max(sizes)
    # Any cover of many images is mostly calls of the largest size; the table stays small.
    whole = max(images // largest - 1, 0)
    rest = images - whole * largest
    best: list[tuple[float, int]] = [(0.0, 0)]
    for count in range(1, rest + 1):
        best.append(
            min((size + _CALL_COST_ROWS + best[max(count - size, 0)][0], -size) for size in sizes)
        )
    chosen = [largest] * whole
    while rest > 0:
        size = -best[rest][1]
        chosen.append(size)
        rest -= size
    batches = []
    for size in sorted(chosen, reverse=True):
        batches.append(Batch(size, min(size, images)))
        images -= batches[-1].images
    return tuple(batches)
