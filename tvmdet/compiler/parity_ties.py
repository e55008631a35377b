"""Which differences of two lists of boxes are a matter of rounding: ties, and what follows of them.

Suppression is greedy: which of two boxes that score alike comes first decides which one stays, and
what that one suppresses in turn. Nothing is excused without something on the other side that stands
for it: a box that overlaps it, or at the cut as many boxes that were chosen instead.

That of oriented boxes is not: whatever overlaps a box and scores more drops it, kept or not. So it
is a matter of rounding where nothing drops it for sure, and something may.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tvmdet.compiler.reference import Candidates
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.spec import PostprocessSpec

__all__ = ["find_cut", "rank_swaps"]

_SPARE = 3  # more boxes than the other side has, which the choice at the cut may bring about


def find_cut(candidates: Candidates, score: float, room: int) -> float | None:
    """Returns the least score that enters suppression, where not all above the threshold do."""
    above = int(np.count_nonzero(candidates.scores > score))
    return float(candidates.scores[room - 1]) if above > room else None


def rank_swaps(
    alone: Sequence[tuple[str, int]],
    fits: Mapping[str, npt.NDArray[np.bool_]],
    candidates: Candidates,
    cut: float | None,
    spec: PostprocessSpec,
    tolerance: Tolerance,
) -> set[tuple[str, int]]:
    """Returns the unmatched boxes whose absence on the other side is a matter of rounding.

    Such a box is one of the reference's candidates, and the other side kept a box that overlaps
    it, with about the same score or by about the threshold: rounding chose. Or so it kept one that
    overlaps it in a class that the box may as well be given. Or its score is about that at which
    the list of candidates was cut, and the other side has about as many unmatched boxes: rounding
    chose who is in it. What such a choice suppressed in turn, or spared, follows from it.

    Args:
        alone: Side and index of each unmatched box.
        fits: For each side, which candidates each of its boxes may be, ``[n, m]``: several where
            they are alike once they are clipped to the image.
        candidates: Of the reference, with other choices, as suppression saw them: not clipped
            to the image.
        cut: The least score that entered suppression; None where all did.
        spec: Of the suppression.
        tolerance: What counts as about the same.
    """
    swapped: set[tuple[str, int]] = set()
    if candidates.angles is not None:
        swapped |= {
            (side, index)
            for side, index in alone
            if _may_be_dropped(np.flatnonzero(fits[side][index]), candidates, spec, tolerance)
        }
    counts = Counter(side for side, _ in alone)
    growing = True
    while growing:
        growing = False
        for side, index in alone:
            other = "reference" if side == "compiled" else "compiled"
            own = np.flatnonzero(fits[side][index])
            if (side, index) in swapped or not len(own):
                continue
            chosen = np.array([(other, i) in swapped for i in range(len(fits[other]))], bool)
            rivals = _Rivals.of(candidates, own, fits[other], spec, tolerance)
            tied = _of_tied_classes(own, candidates, tolerance)
            tied_rivals = _Rivals.of(candidates, tied, fits[other], spec, tolerance)
            balanced = counts[side] <= 2 * counts[other] + _SPARE
            greedy = candidates.angles is None
            if (
                (greedy and np.any(rivals.close | rivals.at_edge | (rivals.near & chosen)))
                or np.any(tied_rivals.near)
                or (balanced and _is_at_cut(candidates.scores[own], cut, tolerance))
            ):
                swapped.add((side, index))
                growing = True
    return swapped


@dataclass(frozen=True, kw_only=True)
class _Rivals:
    """How the other side's boxes stand to one box, bool ``[n]`` each.

    Attributes:
        near: Overlaps it by about the threshold or more.
        close: Does, and scores about as much.
        at_edge: Overlaps it by about the threshold.
    """

    near: npt.NDArray[np.bool_]
    close: npt.NDArray[np.bool_]
    at_edge: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        candidates: Candidates,
        own: npt.NDArray[np.intp],
        fits: npt.NDArray[np.bool_],
        spec: PostprocessSpec,
        tolerance: Tolerance,
    ) -> _Rivals:
        """Compares every candidate that the box may be with every one that each other may be."""
        one, slack = candidates.take(own), 1 - tolerance.iou
        used = np.flatnonzero(fits.any(axis=0))
        others = candidates.take(used)
        overlap = one.overlaps(others)
        near = overlap > spec.iou_threshold - slack
        if not spec.class_agnostic:
            near &= others.class_ids[None, :] == one.class_ids[:, None]
        far = np.abs(others.scores[None, :] - one.scores[:, None])
        close = far <= tolerance.score_near(one.scores)[:, None]
        at_edge = np.abs(overlap - spec.iou_threshold) <= slack
        near_any, close_any, at_edge_any = (
            np.asarray((fits[:, used] & relation.any(axis=0)).any(axis=1), bool)
            for relation in (near, near & close, near & at_edge)
        )
        return cls(near=near_any, close=close_any, at_edge=at_edge_any)


def _may_be_dropped(
    own: npt.NDArray[np.intp], candidates: Candidates, spec: PostprocessSpec, tolerance: Tolerance
) -> bool:
    """Whether one of some oriented boxes is dropped by others for rounding alone.

    Args:
        own: Which candidates the box may be.
        candidates: All of them.
        spec: Of the suppression.
        tolerance: What counts as about the same.
    """
    one, slack = candidates.take(own), 1 - tolerance.iou
    assert one.anchors is not None and candidates.anchors is not None
    overlap = one.overlaps(candidates)
    ahead = candidates.scores[None, :] - one.scores[:, None]
    near = tolerance.score_near(one.scores)[:, None]
    rivals = candidates.anchors[None, :] != one.anchors[:, None]
    if not spec.class_agnostic:
        rivals &= candidates.class_ids[None, :] == one.class_ids[:, None]
    may = rivals & (overlap > spec.iou_threshold - slack) & (ahead > -near)
    will = rivals & (overlap > spec.iou_threshold + slack) & (ahead > near)
    return bool(np.any(may.any(axis=1) & ~will.any(axis=1)))


def _is_at_cut(scores: npt.NDArray[np.float32], cut: float | None, tolerance: Tolerance) -> bool:
    """Whether a score is about that at which the list of candidates was cut."""
    return cut is not None and bool(np.any(np.abs(scores - cut) <= tolerance.score_near(cut)))


def _of_tied_classes(
    own: npt.NDArray[np.intp], candidates: Candidates, tolerance: Tolerance
) -> npt.NDArray[np.intp]:
    """Returns the same boxes as candidates of other classes with about the same score."""
    tied = np.zeros(len(candidates.scores), bool)
    for row in own:
        same = np.all(candidates.boxes_xyxy == candidates.boxes_xyxy[row], axis=1)
        same &= candidates.class_ids != candidates.class_ids[row]
        far = np.abs(candidates.scores - candidates.scores[row])
        tied |= same & (far <= tolerance.score_near(candidates.scores[row]))
    return np.flatnonzero(tied)
