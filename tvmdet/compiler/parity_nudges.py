"""Which boxes a network that suppresses inside finds by a hair, and would not find at the next run.

Such a network returns what it kept, not what it chose from: when rounding decides which of two
boxes survives, nothing in its answer says so. The reference itself tells: on pixels changed by
far less than a grey level it keeps other boxes. A box that only one side finds is a matter of
rounding when the reference, so nudged, finds it as well, or loses it. Where much hangs on rounding
every nudge brings boxes that no other does; then the compiled detector may differ from the
reference in as many boxes as the reference, nudged, differs from itself at the least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.reference import Candidates, Reference, to_image

__all__ = ["settled_by_nudges"]

_MOST_NUDGES = 12
_LEAST_NUDGES = 4  # before their counts say something

Fits = Callable[[Candidates, Candidates], npt.NDArray[np.bool_]]
Count = Callable[[Candidates, Candidates], int]


def settled_by_nudges(
    alone: Sequence[tuple[str, int]],
    sides: Mapping[str, Candidates],
    image: NamedImage,
    transform: ImageTransform,
    reference: Reference,
    nudge: float,
    fits: Fits,
    count_alone: Count,
) -> set[tuple[str, int]]:
    """Returns the boxes of one side whose being found is a matter of rounding.

    Args:
        alone: Side (``compiled`` or ``reference``) and index of each box without a partner.
        sides: The boxes of each side, in pixels of the image.
        image: The picture.
        transform: How it lies in the network's input.
        reference: The reference.
        nudge: Greatest change of the network's input, as a share of each value.
        fits: Which boxes of two sets are the same, ``[n, m]``.
        count_alone: How many boxes of the first set have no partner in the second.
    """
    expected = sides["reference"]
    wanted = {side: sum(one == side for one, _ in alone) for side in sides}
    least = {side: len(alone) for side in sides}
    settled: set[tuple[str, int]] = set()
    for seed in range(_MOST_NUDGES):
        open_ones = [one for one in alone if one not in settled]
        if not open_ones:
            break
        nudged, _ = reference.candidates(image.pixels, transform, nudge=nudge, seed=seed)
        found = to_image(nudged.take(nudged.scores > 0), transform)
        for side, index in open_ones:
            there = bool(fits(sides[side].take([index]), found).any())
            if there == (side == "compiled"):
                settled.add((side, index))
        least["compiled"] = min(least["compiled"], count_alone(found, expected))
        least["reference"] = min(least["reference"], count_alone(expected, found))
        if seed + 1 >= _LEAST_NUDGES:
            settled |= {one for one in alone if wanted[one[0]] <= least[one[0]]}
    return settled
