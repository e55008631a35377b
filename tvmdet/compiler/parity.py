"""The parity check at the level users see: the same objects, classes and scores.

Each image is run through the compiled detector and through the reference. Every box of one side
must have a partner of its class on the other, with an IoU of at least ``Tolerance.iou`` and a
score within ``Tolerance.score`` (within a share of it, where that is less). Four things may
differ, because rounding decides them: a box whose score lies within the tolerance of the
threshold, which of two overlapping boxes with equal scores survives suppression, which of two
classes with equal scores a box is given, and which of many candidates with equal scores are among
the ``pre_nms_top_k`` that enter suppression; with what follows from them. Of networks that suppress
inside the reference is asked again on nudged pixels (:mod:`tvmdet.compiler.parity_nudges`). The
ties are told by :mod:`tvmdet.compiler.parity_ties`. The masks of boxes that count as the same are
compared by :mod:`tvmdet.compiler.parity_masks`, their
keypoints by :mod:`tvmdet.compiler.parity_keypoints`.

So that pictures with few objects test something too, the score threshold of each image is lowered
until the reference has ``MIN_CANDIDATES`` candidates above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.parity_keypoints import KeypointTally
from tvmdet.compiler.parity_masks import MaskTally
from tvmdet.compiler.parity_nudges import settle_by_nudges
from tvmdet.compiler.parity_ties import find_cut, rank_swaps
from tvmdet.compiler.reference import Candidates, Reference, suppress, to_image
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.counted import counted
from tvmdet.detections import Detections
from tvmdet.errors import ParityError
from tvmdet.keypoints import Keypoints, place_keypoints
from tvmdet.masks import InstanceMasks, place_masks
from tvmdet.runtime.detector import Detector
from tvmdet.spec import KeypointSpec, MaskSpec, PostprocessSpec

__all__ = ["MIN_CANDIDATES", "Tolerance", "check_detector"]

MIN_CANDIDATES = 100


@dataclass
class _Tally:
    """Counts over all images."""

    boxes: int = 0
    worst_iou: float = 1.0
    worst_score_drift: float = 0.0
    rank_swaps: int = 0
    ties: int = 0
    excused: int = 0
    at_threshold: int = 0
    masks: MaskTally = field(default_factory=MaskTally)
    keypoints: KeypointTally = field(default_factory=KeypointTally)
    corners: KeypointTally = field(default_factory=KeypointTally)
    breaches: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One image, what the reference sees in it, and the threshold to compare above.

    Attributes:
        image: The image.
        transform: How it lies in the network's input.
        score: The threshold.
        candidates: What the reference could find above it, or just below, in network pixels; with
            other choices, which are the same boxes with other classes.
        expected: What the reference finds, in pixels of the image.
        masks: The masks of that.
        keypoints: Its keypoints.
        corners: The corners of its oriented boxes, as points.
        cut: The least score that entered suppression where there were more candidates above the
            threshold than may; else None.
    """

    image: NamedImage
    transform: ImageTransform
    score: float
    candidates: Candidates
    expected: Candidates
    masks: InstanceMasks | None
    keypoints: Keypoints | None = None
    corners: Keypoints | None = None
    cut: float | None = None


def _prepare(image: NamedImage, reference: Reference, tolerance: Tolerance) -> _Case:
    spec = reference.spec
    transform = ImageTransform.for_image(image.pixels.shape[:2], spec.input)
    candidates, other_choices = reference.candidates(
        image.pixels, transform, alike=tolerance.score_near
    )
    if not np.all(np.isfinite(candidates.scores)):
        raise ParityError(
            f"ONNX Runtime's scores for {image.name} are not finite; "
            "check the spec's mean and std, and the model"
        )
    score = _threshold(candidates, spec.postprocess.score_threshold)
    kept = suppress(candidates, spec.postprocess, score, spec.postprocess.iou_threshold)
    expected = candidates.take(kept)
    lowest = score - tolerance.score_near(score)
    above = candidates.take(candidates.scores > lowest)
    above += other_choices.take(other_choices.scores > lowest)
    return _Case(
        image=image,
        transform=transform,
        score=score,
        cut=find_cut(candidates, score, spec.postprocess.pre_nms_top_k),
        # The masks of all that is not found would be most of the memory.
        candidates=above.compact(),
        expected=replace(to_image(expected, transform), masks=None, keypoints=None),
        masks=_masks(expected, transform, spec.masks),
        keypoints=_keypoints(expected, transform, spec.keypoints),
        corners=_as_points(expected.corners(transform)),
    )


def _masks(
    candidates: Candidates, transform: ImageTransform, spec: MaskSpec | None
) -> InstanceMasks | None:
    if spec is None:
        return None
    values = candidates.mask_values()
    assert values is not None, "the reference refuses a family without masks"
    return place_masks(values, candidates.boxes_xyxy, transform, spec)


def _keypoints(
    candidates: Candidates, transform: ImageTransform, spec: KeypointSpec | None
) -> Keypoints | None:
    if spec is None:
        return None
    values = candidates.keypoint_values()
    assert values is not None, "the reference refuses a family without keypoints"
    return place_keypoints(values, transform, spec)


def _as_points(corners_xy: npt.NDArray[np.float32] | None) -> Keypoints | None:
    """Returns the corners of oriented boxes as points, which are compared as keypoints are."""
    if corners_xy is None:
        return None
    names = tuple(f"corner {number}" for number in range(1, corners_xy.shape[1] + 1))
    return Keypoints(xy=corners_xy, scores=None, names=names)


def check_detector(
    detector: Detector,
    reference: Reference,
    images: Sequence[NamedImage],
    tolerance: Tolerance | None = None,
) -> dict[str, Any]:
    """Compares a compiled detector with the reference, one batch bucket after the other.

    Returns:
        The certificate: what was compared, and the worst of it, as plain JSON values.

    Raises:
        ParityError: A box has no partner, or its mask is another; the message names the image
            and the box.
    """
    tolerance = tolerance or Tolerance()
    tally = _Tally()
    cases = [_prepare(image, reference, tolerance) for image in images]
    for batch_size in detector.batch_sizes:
        for first in range(0, len(cases), batch_size):
            # A different image in every row, so that rows cannot be mixed up unseen.
            batch = [cases[(first + row) % len(cases)] for row in range(batch_size)]
            lowest = min(case.score for case in batch)
            found = detector.detect([case.image.pixels for case in batch], score=lowest)
            for row, (case, result) in enumerate(zip(batch, found, strict=True)):
                where = f"{case.image.name} (batch {batch_size}, row {row})"
                _compare(tally, where, result.filter(score=case.score), case, reference, tolerance)
    if not tally.boxes and not tally.breaches:
        raise ParityError(
            f"{detector.target}: neither detector finds anything in "
            f"{counted(len(images), 'picture')}, so that nothing can be compared; give --images a "
            "folder of pictures with objects"
        )
    _refuse(tally, detector.target)
    if tally.ties > 2 * tally.boxes:  # of two sides each
        raise ParityError(
            f"{detector.target}: of {counted(len(images), 'picture')} rounding decides what is "
            f"found: {tally.boxes} of the boxes agree, and {tally.ties} of both sides do "
            "not, whose scores or overlaps are equal but for rounding; give --images a folder of "
            "pictures with objects that this detector knows"
        )
    if tally.excused > 2 * tally.boxes:  # of two sides each
        raise ParityError(
            f"{detector.target}: of {counted(len(images), 'picture')} rounding decides what is "
            f"found: {tally.boxes} of the boxes agree, and {tally.excused} of both sides do not, "
            "which ONNX Runtime does not find again either when its pixels move by a hair; give "
            "--images a folder of pictures with objects that this detector knows"
        )
    allowed = {"iou": tolerance.iou, "score": tolerance.score}
    if reference.spec.masks is not None:
        allowed["mask_iou"] = tolerance.mask_iou
    if reference.spec.keypoints is not None:
        allowed["keypoint"] = tolerance.keypoint
    if reference.spec.oriented:
        allowed["corner"] = tolerance.keypoint
    return {
        "reference": reference.version,
        "images": [image.name for image in images],
        "batch_sizes": list(detector.batch_sizes),
        "boxes": tally.boxes,
        "worst_iou": round(tally.worst_iou, 6),
        "worst_score_drift": round(tally.worst_score_drift, 6),
        "rank_swaps": tally.rank_swaps,
        "at_threshold": tally.at_threshold,
        **(tally.masks.to_dict() if reference.spec.masks is not None else {}),
        **(tally.keypoints.to_dict() if reference.spec.keypoints is not None else {}),
        **(_corners_dict(tally.corners) if reference.spec.oriented else {}),
        "tolerance": allowed,
    }


def _corners_dict(corners: KeypointTally) -> dict[str, Any]:
    return {"corners": corners.keypoints, "worst_corner_shift": round(corners.worst_shift, 6)}


def _threshold(candidates: Candidates, default: float) -> float:
    """Returns the score threshold at which an image has enough boxes to compare."""
    if len(candidates.scores) <= MIN_CANDIDATES:
        return 0.0
    return float(min(default, max(candidates.scores[MIN_CANDIDATES], 0.0)))


def _compare(
    tally: _Tally,
    where: str,
    found: Detections,
    case: _Case,
    reference: Reference,
    tolerance: Tolerance,
) -> None:
    spec = reference.spec.postprocess
    score, expected = case.score, case.expected
    compiled = Candidates(
        boxes_xyxy=found.boxes_xyxy, scores=found.scores, class_ids=found.class_ids
    )
    everything = to_image(case.candidates, case.transform)
    sides = {"compiled": (compiled, expected), "reference": (expected, compiled)}
    alone: list[tuple[str, int]] = []
    pairs: dict[int, int] = {}
    for side, (mine, others) in sides.items():
        partners, overlaps = _match(mine, others, tolerance)
        above = _above(mine, others, score, spec, tolerance)
        for index, partner in enumerate(partners):
            if partner >= 0:
                drift = abs(float(mine.scores[index]) - float(others.scores[partner]))
                tally.worst_iou = min(tally.worst_iou, overlaps[index])
                tally.worst_score_drift = max(tally.worst_score_drift, drift)
                if side == "compiled":
                    pairs[index] = partner
            elif above[index]:
                alone.append((side, index))
            else:
                tally.at_threshold += 1
    tally.boxes += len(pairs)

    def keep(nudged: Candidates) -> Candidates:
        lowest = score - float(tolerance.score_near(score))
        return to_image(
            nudged.take(suppress(nudged, spec, lowest, spec.iou_threshold)), case.transform
        )

    def share_alone(mine: Candidates, others: Candidates) -> float:
        partners, _ = _match(mine, others, tolerance)
        above = _above(mine, others, score, spec, tolerance)
        alone = above & (np.asarray(partners, np.intp) < 0)
        return int(np.sum(alone)) / max(int(np.sum(above)), 1)

    fits = {side: _fits(mine, everything, tolerance)[0] for side, (mine, _) in sides.items()}
    swapped = rank_swaps(alone, fits, case.candidates, case.cut, spec, tolerance)
    tally.ties += len(swapped)
    if len(swapped) < len(alone) and reference.selects:
        settled = settle_by_nudges(
            [one for one in alone if one not in swapped],
            {side: mine for side, (mine, _) in sides.items()},
            case.image,
            case.transform,
            reference,
            tolerance.nudge,
            keep,
            lambda mine, others: _fits(mine, others, tolerance)[0],
            share_alone,
        )
        swapped |= settled.seen | settled.excused
        tally.excused += len(settled.excused)
    tally.rank_swaps += len(swapped)
    for side, index in alone:
        if (side, index) not in swapped:
            box = _in_words(sides[side][0], index, reference.spec.labels)
            tally.breaches.append(f"{where}: the {side} detector alone finds {box}")
    _compare_parts(tally, where, found, case, pairs, reference, tolerance)


def _above(
    mine: Candidates, others: Candidates, score: float, spec: PostprocessSpec, tolerance: Tolerance
) -> npt.NDArray[np.bool_]:
    """Returns which boxes score enough to need a partner on the other side.

    A full side had no room for lower scores: what rounding chose before moved its end.
    """
    is_full = len(others.scores) == spec.max_detections
    lowest = max(score, float(others.scores[-1])) if is_full else score
    above: npt.NDArray[np.bool_] = mine.scores > lowest + tolerance.score_near(mine.scores)
    return above


def _in_words(found: Candidates, index: int, labels: Sequence[str]) -> str:
    box = ", ".join(f"{value:.1f}" for value in found.boxes_xyxy[index])
    return f"{labels[found.class_ids[index]]} {found.scores[index]:.4g} at [{box}]"


def _compare_parts(
    tally: _Tally,
    where: str,
    found: Detections,
    case: _Case,
    pairs: Mapping[int, int],
    reference: Reference,
    tolerance: Tolerance,
) -> None:
    """Compares the masks, keypoints and corners of boxes that count as the same."""
    compiled = Candidates(
        boxes_xyxy=found.boxes_xyxy, scores=found.scores, class_ids=found.class_ids
    )
    everything = to_image(case.candidates, case.transform)

    def same_as(index: int) -> Candidates:
        (fits,), _ = _fits(compiled.take([index]), everything, tolerance)
        return case.candidates.take(fits)

    def masks_of(index: int) -> InstanceMasks:
        masks = _masks(same_as(index), case.transform, reference.spec.masks)
        assert masks is not None
        return masks

    def keypoints_of(index: int) -> Keypoints:
        keypoints = _keypoints(same_as(index), case.transform, reference.spec.keypoints)
        assert keypoints is not None
        return keypoints

    def corners_of(index: int) -> Keypoints:
        corners = _as_points(same_as(index).corners(case.transform))
        assert corners is not None
        return corners

    wrong: list[tuple[int, str]] = []
    boxes = found.boxes_xyxy
    if found.instance_masks is not None and case.masks is not None:
        overlaps = tally.masks.compare(
            found.instance_masks, boxes, case.masks, pairs, masks_of, tolerance
        )
        wrong += [
            (
                index,
                f"its mask has an IoU of {overlap:.3f} with the reference's (allowed: "
                f"{tolerance.mask_iou:g})",
            )
            for index, overlap in overlaps.items()
        ]
    for points, expected, compared, rivals in (
        (found.keypoints, case.keypoints, tally.keypoints, keypoints_of),
        (_as_points(found.corners), case.corners, tally.corners, corners_of),
    ):
        if points is not None and expected is not None:
            sides = {index: _side(boxes[index], same_as(index), case.transform) for index in pairs}
            wrong += compared.compare(points, sides, expected, pairs, rivals, tolerance).items()
    for index, why in wrong:
        box = _in_words(compiled, index, reference.spec.labels)
        tally.breaches.append(f"{where}: of {box} {why}")


def _side(
    box_xyxy: npt.NDArray[np.float32], same: Candidates, transform: ImageTransform
) -> float | None:
    """Returns the longer side of an object, in pixels of the image, also of what is clipped off.

    None of a box that is clipped to nothing: it is that of many candidates, whose points differ.
    """
    if (box_xyxy[2:] - box_xyxy[:2]).min() < 1 or not len(same.scores):
        return None
    whole = transform.to_image_unclipped(same.boxes_xyxy)
    return float((whole[:, 2:] - whole[:, :2]).max())


def _fits(
    mine: Candidates, others: Candidates, tolerance: Tolerance
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Returns which boxes count as the same, ``[n, m]``, and their IoU."""
    ious = tolerance.overlaps(mine.boxes_xyxy, others.boxes_xyxy)
    fits = (ious >= tolerance.iou) & (mine.class_ids[:, None] == others.class_ids[None, :])
    slack = tolerance.score_near(mine.scores)[:, None]
    fits &= np.abs(mine.scores[:, None] - others.scores[None, :]) <= slack
    return fits, ious


def _match(
    mine: Candidates, others: Candidates, tolerance: Tolerance
) -> tuple[list[int], list[float]]:
    """Pairs boxes one to one; -1 where there is no partner.

    The best overlaps come first, and of those that are alike the closest scores: boxes that were
    clipped to the whole image are all the same box, and only their scores tell them apart. Paired
    in another order, one box too many would move all others by one, and the last would be alone.
    """
    fits, ious = _fits(mine, others, tolerance)
    ours, theirs = np.nonzero(fits)
    drifts = np.abs(mine.scores[ours] - others.scores[theirs])
    partners, overlaps = [-1] * len(mine.scores), [0.0] * len(mine.scores)
    free = np.ones(len(others.scores), bool)
    for pair in np.lexsort((drifts, -np.round(ious[ours, theirs], 3))):
        row, other = int(ours[pair]), int(theirs[pair])
        if partners[row] < 0 and free[other]:
            free[other] = False
            partners[row], overlaps[row] = other, float(ious[row, other])
    return partners, overlaps


def _refuse(tally: _Tally, target: str) -> None:
    if tally.breaches:
        more = len(tally.breaches) - 1
        raise ParityError(
            f"{target}: {tally.breaches[0]}"
            + (f" (and {more} more)" if more else "")
            + "; the build is not written. Compare with `tvmdet doctor`, check the spec, or "
            "report it with the model"
        )
