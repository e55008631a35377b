"""The parity check of keypoints: the points that users see.

The points of two boxes that count as the same must lie at most ``Tolerance.keypoint`` of the longer
side apart that the object has, in the image or not, or be seen as the same (``UNSEEN_PX``), and
their scores may differ as far as those of boxes. Where rounding may have chosen another candidate
for the same box, that one's points will do. A box that is clipped to nothing is that of many
candidates, and its points are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmdet.compiler.tolerance import UNSEEN_PX, Tolerance
from tvmdet.keypoints import Keypoints

__all__ = ["KeypointTally"]


@dataclass
class KeypointTally:
    """Counts over all pairs of objects.

    Attributes:
        keypoints: How many were compared.
        worst_shift: The farthest that two points were apart, as a share of the box's longer side.
        worst_score_drift: Greatest difference of two scores of points.
    """

    keypoints: int = 0
    worst_shift: float = 0.0
    worst_score_drift: float = 0.0

    def compare(
        self,
        found: Keypoints,
        sides: Mapping[int, float | None],
        expected: Keypoints,
        partners: Mapping[int, int],
        rivals_of: Callable[[int], Keypoints],
        tolerance: Tolerance,
    ) -> dict[int, str]:
        """Compares the points of one image.

        Args:
            found: The compiled detector's.
            sides: The longer side of each of its boxes that has a partner, in pixels of the image;
                None of one whose points are not compared.
            expected: The reference's.
            partners: For the index of each of its boxes that has a partner, that one's index.
            rivals_of: Returns the points of all of the reference's candidates that count as the
                same as a box, of which rounding may have chosen another.
            tolerance: How far they may be off.

        Returns:
            What is wrong with the points that are too far from all that they may be, by the index
            of their box.
        """
        wrong = {}
        for index, partner in partners.items():
            side = sides[index]
            if side is None:
                continue
            (one,) = _differ(found, index, side, expected.take([partner]))
            if not one.fits(tolerance):
                rivals = rivals_of(index)
                every = [one, *_differ(found, index, side, rivals)]
                one = min(every, key=lambda each: (not each.fits(tolerance), *each.rank()))
            self.keypoints += len(found.names)
            self.worst_shift = max(self.worst_shift, one.shift)
            self.worst_score_drift = max(self.worst_score_drift, one.score)
            if not one.fits(tolerance):
                wrong[index] = one.in_words(found.names, tolerance)
        return wrong

    def to_dict(self) -> dict[str, Any]:
        """Returns the certificate's part, as plain JSON values."""
        return {
            "keypoints": self.keypoints,
            "worst_keypoint_shift": round(self.worst_shift, 6),
            "worst_keypoint_score_drift": round(self.worst_score_drift, 6),
        }


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """How far the points of two objects are apart.

    Attributes:
        shift: The farthest two points, as a share of the box's longer side; 0 where nobody sees it.
        score: Greatest difference of two scores.
        point: Index of the farthest point.
    """

    shift: float
    score: float
    point: int

    def fits(self, tolerance: Tolerance) -> bool:
        # Also false where one of them is not a number.
        return self.shift <= tolerance.keypoint and self.score <= tolerance.score

    def rank(self) -> tuple[float, float]:
        shift, score = (np.inf if np.isnan(one) else one for one in (self.shift, self.score))
        return shift, score

    def in_words(self, names: tuple[str, ...], tolerance: Tolerance) -> str:
        if not self.shift <= tolerance.keypoint:
            return (
                f"its {names[self.point]} is {self.shift:.3g} of its longer side from the "
                f"reference's (allowed: {tolerance.keypoint:g})"
            )
        return (
            f"the scores of its points are up to {self.score:.3g} from the reference's "
            f"(allowed: {tolerance.score:g})"
        )


def _differ(found: Keypoints, index: int, side: float, others: Keypoints) -> list[_Difference]:
    """Compares the points of one object with those of each of some others."""
    with np.errstate(invalid="ignore"):  # of infinite points, which fit nothing
        away = np.hypot(*np.moveaxis(found.xy[index].astype(np.float64) - others.xy, -1, 0))
        shares = np.where(away <= UNSEEN_PX, 0.0, away / side)
        scores = np.zeros((len(others), 1))
        if found.scores is not None and others.scores is not None:
            scores = np.abs(found.scores[index].astype(np.float64) - others.scores)
    return [
        _Difference(
            shift=float(np.max(share)), score=float(np.max(score)), point=int(np.argmax(share))
        )
        for share, score in zip(shares, scores, strict=True)
    ]
