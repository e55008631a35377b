"""How far two right answers may be from each other, by the precision that they are computed in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

__all__ = ["Tolerances", "tolerances_at"]

_MOST: Final = 0.1
_SCORE_SLACK: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far two right answers may be from each other.

    Attributes:
        outputs: Greatest error of a network's output, relative to the greatest value in it.
        overlap: How far the IoU of two boxes of the same object may be from 1.
        score: Greatest difference of their scores.
    """

    outputs: float
    overlap: float
    score: float


@cache
def tolerances_at(*precisions: str) -> Tolerances:
    """Returns what is allowed between answers in these precisions: the coarsest of them decides.

    Outputs and boxes are held to what a build is
    (:meth:`tvmdet.compiler.tolerance.Tolerance.at_precision`). Scores have ten times that: a build
    is compared with the reference, and here two runtimes are with each other, both of which round,
    or two builds. Boxes and scores that are off by more than a tenth are wrong in any precision:
    unlike a build's certificate, which covers unlikely boxes too, this is for those that are shown.
    """
    # Comes with the whole compiler, which whoever reads results can do without.
    from tvmdet.compiler.tolerance import Tolerance

    allowed = [Tolerance.at_precision(precision) for precision in precisions]
    return Tolerances(
        outputs=max(one.raw for one in allowed),
        overlap=min(max(round(1 - one.iou, 6) for one in allowed), _MOST),
        score=min(max(round(_SCORE_SLACK * one.score, 6) for one in allowed), _MOST),
    )
