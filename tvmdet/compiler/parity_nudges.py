"""Which boxes a network that suppresses inside finds by a hair, and would not find at the next run.

Such a network returns what it kept, not what it chose from: when rounding decides which of two
boxes survives, nothing in its answer says so. The reference itself tells: on pixels changed by
far less than a grey level it keeps other boxes. A box that only one side finds is a matter of
rounding when the reference, so nudged, finds it as well, or loses it. Where much hangs on rounding
every nudge brings boxes that no other does; then the compiled detector may differ from the
reference in as large a share of its boxes as the reference, nudged, differs from itself at the
least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.reference import Candidates, Reference

__all__ = ["Settled", "settle_by_nudges"]

_MOST_NUDGES = 12
_LEAST_NUDGES = 4  # before their shares say something
_ABOUT = 1.1  # times the least share: some boxes find a partner by chance

Fits = Callable[[Candidates, Candidates], npt.NDArray[np.bool_]]
Keep = Callable[[Candidates], Candidates]
Share = Callable[[Candidates, Candidates], float]


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Boxes of one side whose being found is a matter of rounding, as side and index.

    Attributes:
        seen: Those that a nudge brought, or took away.
        excused: Others, no larger a share of the boxes than the nudges exchanged.
    """

    seen: set[tuple[str, int]]
    excused: set[tuple[str, int]]


def settle_by_nudges(
    alone: Sequence[tuple[str, int]],
    sides: Mapping[str, Candidates],
    image: NamedImage,
    transform: ImageTransform,
    reference: Reference,
    nudge: float,
    keep: Keep,
    fits: Fits,
    share_alone: Share,
) -> Settled:
    """Finds the boxes of one side whose being found is a matter of rounding.

    Args:
        alone: Side (``compiled`` or ``reference``) and index of each box without a partner.
        sides: The boxes of each side, in pixels of the image.
        image: The picture.
        transform: How it lies in the network's input.
        reference: The reference.
        nudge: Greatest change of the network's input, as a share of each value.
        keep: Suppresses candidates as the reference's were; returns them in pixels of the image.
        fits: Which boxes of two sets are the same, ``[n, m]``.
        share_alone: Which share of the boxes of the first set has no partner in the second.
    """
    expected = sides["reference"]
    wanted = {
        side: sum(one == side for one, _ in alone) / max(len(found.scores), 1)
        for side, found in sides.items()
    }
    least = dict.fromkeys(sides, 1.0)
    seen: set[tuple[str, int]] = set()
    for seed in range(_MOST_NUDGES):
        open_ones = [one for one in alone if one not in seen]
        if not open_ones:
            break
        nudged, _ = reference.candidates(image.pixels, transform, nudge=nudge, seed=seed)
        found = keep(nudged)
        for side, index in open_ones:
            there = bool(fits(sides[side].take([index]), found).any())
            if there == (side == "compiled"):
                seen.add((side, index))
        least["compiled"] = min(least["compiled"], share_alone(found, expected))
        least["reference"] = min(least["reference"], share_alone(expected, found))
        if seed + 1 >= _LEAST_NUDGES:
            excused = {
                one for one in alone if one not in seen and wanted[one[0]] <= _ABOUT * least[one[0]]
            }
            if len(seen) + len(excused) == len(alone):
                return Settled(seen=seen, excused=excused)
    return Settled(seen=seen, excused=set())
