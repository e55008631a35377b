"""The parity check at the level users see: the same objects, classes and scores.

Each image is run through the compiled detector and through the reference. Every box of one side
must have a partner of its class on the other, with an IoU of at least ``Tolerance.iou`` and a
score within ``Tolerance.score`` (within a share of it, where that is less). Three things may
differ, because rounding decides them: a box whose score lies within the tolerance of the
threshold, which of two overlapping boxes with equal scores survives suppression, and which of two
classes with equal scores a box is given; with what follows from them.

So that pictures with few objects test something too, the score threshold of each image is lowered
until the reference has ``MIN_CANDIDATES`` candidates above it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform, iou_matrix
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.reference import Candidates, Reference, suppress, to_image
from tvmdet.errors import ParityError
from tvmdet.rows import SPARED_SHARE, in_reference_order
from tvmdet.runtime.detector import Detector
from tvmdet.spec import PostprocessSpec

__all__ = ["MIN_CANDIDATES", "Tolerance", "check_detector", "check_raw"]

MIN_CANDIDATES = 100


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a compiled detector may be from the reference.

    Attributes:
        iou: Least overlap of two boxes that count as the same.
        score: Greatest difference of their scores.
        score_share: That of a low score, as a share of it.
        raw: Greatest difference of a raw output, relative to the greatest value in it.
    """

    iou: float = 0.99
    score: float = 1e-3
    score_share: float = 0.05
    raw: float = 1e-3

    @classmethod
    def at_precision(cls, precision: str) -> Tolerance:
        """Returns what is allowed of a build by default.

        A bfloat16 factor is off by up to 1/256 of itself. On photographs that moved the scores
        of a YOLOv8n by up to 0.007 and the edges of its boxes by up to 4 pixels of 320, those of
        a PicoDet by up to 0.009; scores of a thousandth were off by up to 0.8 of themselves.
        """
        if precision == "bf16":
            return cls(iou=0.8, score=0.03, score_share=0.8, raw=0.05)
        return cls()

    def score_near(self, score: Any) -> Any:
        """Returns how far a score may be off: less for small ones, so that they count too."""
        return np.clip(self.score_share * np.asarray(score), min(1e-5, self.score), self.score)


@dataclass
class _Tally:
    """Counts over all images."""

    boxes: int = 0
    worst_iou: float = 1.0
    worst_score_drift: float = 0.0
    rank_swaps: int = 0
    at_threshold: int = 0
    breaches: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One image, what the reference sees in it, and the threshold to compare above."""

    image: NamedImage
    transform: ImageTransform
    candidates: Candidates
    second_choices: Candidates
    score: float


def _prepare(image: NamedImage, reference: Reference) -> _Case:
    transform = ImageTransform.for_image(image.pixels.shape[:2], reference.spec.input)
    candidates, second_choices = reference.candidates(image.pixels, transform)
    if not np.all(np.isfinite(candidates.scores)):
        raise ParityError(
            f"ONNX Runtime's scores for {image.name} are not finite; "
            "check the spec's mean and std, and the model"
        )
    score = _threshold(candidates, reference.spec.postprocess.score_threshold)
    return _Case(
        image=image,
        transform=transform,
        candidates=candidates,
        second_choices=second_choices,
        score=score,
    )


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
        ParityError: A box has no partner; the message names the image and the box.
    """
    tolerance = tolerance or Tolerance()
    tally = _Tally()
    cases = [_prepare(image, reference) for image in images]
    for batch_size in detector.batch_sizes:
        for first in range(0, len(cases), batch_size):
            # A different image in every row, so that rows cannot be mixed up unseen.
            batch = [cases[(first + row) % len(cases)] for row in range(batch_size)]
            lowest = min(case.score for case in batch)
            found = detector.detect([case.image.pixels for case in batch], score=lowest)
            for row, (case, result) in enumerate(zip(batch, found, strict=True)):
                where = f"{case.image.name} (batch {batch_size}, row {row})"
                compiled = Candidates(
                    boxes_xyxy=result.boxes_xyxy,
                    scores=result.scores,
                    class_ids=result.class_ids,
                ).take(result.scores > case.score)
                _compare(tally, where, compiled, case, reference, tolerance)
    if not tally.boxes and not tally.breaches:
        raise ParityError(
            f"{detector.target}: neither detector finds anything in {len(images)} pictures, so "
            "that nothing can be compared; give --images a folder of pictures with objects"
        )
    _refuse(tally, detector.target)
    return {
        "reference": reference.version,
        "images": [image.name for image in images],
        "batch_sizes": list(detector.batch_sizes),
        "boxes": tally.boxes,
        "worst_iou": round(tally.worst_iou, 6),
        "worst_score_drift": round(tally.worst_score_drift, 6),
        "rank_swaps": tally.rank_swaps,
        "at_threshold": tally.at_threshold,
        "tolerance": {"iou": tolerance.iou, "score": tolerance.score},
    }


def check_raw(
    detector: Detector,
    reference: Reference,
    inputs: dict[str, npt.NDArray[Any]],
    batch_sizes: Sequence[int],
    whole: Collection[str] = (),
    tolerance: Tolerance | None = None,
) -> dict[str, Any]:
    """Compares the outputs of a raw network with ONNX Runtime's, for each batch bucket.

    Args:
        detector: The compiled network.
        reference: ONNX Runtime at batch 1.
        inputs: By name, with at least as many rows as the greatest batch size.
        batch_sizes: The buckets.
        whole: Outputs without a batch axis, which come with one item at a time.
        tolerance: How far an output may be off.

    Raises:
        ParityError: An output is off; the message names it, the row and the value.
    """
    tolerance = tolerance or Tolerance()
    worst: dict[str, float] = {}
    breaches = []
    moved = 0
    for batch_size in batch_sizes:
        rows = {n: a if len(batch_sizes) == 1 else a[:batch_size] for n, a in inputs.items()}
        compiled = detector.run(rows)
        for row in range(batch_size):
            one = {
                n: a if list(batch_sizes) == [1] else a[row : row + 1] for n, a in inputs.items()
            }
            expected = reference.run(one)
            mine = {n: a if n in whole else a[row : row + 1] for n, a in compiled.items()}
            if reference.selects:
                mine, count = in_reference_order(mine, expected, tolerance.raw)
                moved += count
            for name, want in expected.items():
                got = mine[name]
                gap = _relative_gap(got, want)
                if reference.selects:
                    gap = _without_spared(gap, tolerance.raw)
                drift = float(np.max(gap, initial=0.0))
                worst[name] = max(worst.get(name, 0.0), drift)
                if not drift <= tolerance.raw:
                    place = tuple(int(i) for i in np.unravel_index(np.argmax(gap), gap.shape))
                    breaches.append(
                        f"output {name}{list(place)} of batch {batch_size}, row {row}, is "
                        f"{got[place]!r}, ONNX Runtime has {want[place]!r}"
                    )
    if breaches:
        raise ParityError(
            f"{detector.target}: {breaches[0]} (allowed: {tolerance.raw:g} of the greatest "
            f"value; {len(breaches)} outputs differ); report it with the model"
        )
    return {
        "reference": reference.version,
        "batch_sizes": list(batch_sizes),
        "worst_relative": {name: float(f"{value:.3g}") for name, value in worst.items()},
        "rows_moved": moved,
        "tolerance": {"raw": tolerance.raw},
    }


def _without_spared(gap: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.float64]:
    """Returns the gaps without the few rows that may be other candidates altogether."""
    if gap.ndim < 2:
        return gap
    worst = gap.reshape(*gap.shape[:2], -1).max(axis=2, initial=0.0)
    off = worst > tolerance
    if 0 < off.sum() <= SPARED_SHARE * off.size:
        gap = gap.copy()
        gap[off] = 0.0
    return gap


def _relative_gap(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns differences as shares of the greatest finite value; exact for whole numbers."""
    if want.dtype.kind in "iub":
        return np.where(got == want, 0.0, np.inf)
    finite = np.abs(want[np.isfinite(want)]).astype(np.float64)
    scale = float(np.max(finite, initial=0.0)) or 1.0
    with np.errstate(invalid="ignore"):
        gap = np.abs(got.astype(np.float64) - want.astype(np.float64)) / scale
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    result: npt.NDArray[np.float64] = np.where(same, 0.0, np.nan_to_num(gap, nan=np.inf))
    return result


def _threshold(candidates: Candidates, default: float) -> float:
    """Returns the score threshold at which an image has enough boxes to compare."""
    if len(candidates.scores) <= MIN_CANDIDATES:
        return 0.0
    return float(min(default, max(candidates.scores[MIN_CANDIDATES], 0.0)))


def _compare(
    tally: _Tally,
    where: str,
    compiled: Candidates,
    case: _Case,
    reference: Reference,
    tolerance: Tolerance,
) -> None:
    spec = reference.spec.postprocess
    candidates, score, transform = case.candidates, case.score, case.transform
    kept = suppress(candidates, spec, score, spec.iou_threshold)
    expected = to_image(candidates.take(kept), transform)
    lowest = score - tolerance.score_near(score)
    above = candidates.take(candidates.scores > lowest)
    above += case.second_choices.take(case.second_choices.scores > lowest)
    everything = to_image(above, transform)
    full = max(len(compiled.scores), len(kept)) == spec.max_detections
    last = min(compiled.scores[-1:].min(initial=1.0), expected.scores[-1:].min(initial=1.0))

    sides = {"compiled": (compiled, expected), "reference": (expected, compiled)}
    alone: list[tuple[str, int]] = []
    for side, (mine, others) in sides.items():
        partners, overlaps = _match(mine, others, tolerance)
        for index, partner in enumerate(partners):
            value = float(mine.scores[index])
            slack = float(tolerance.score_near(value))
            if partner >= 0:
                drift = abs(value - float(others.scores[partner]))
                tally.worst_iou = min(tally.worst_iou, overlaps[index])
                tally.worst_score_drift = max(tally.worst_score_drift, drift)
                tally.boxes += side == "compiled"
            elif value <= score + slack or (full and value <= last + slack):
                tally.at_threshold += 1
            else:
                alone.append((side, index))
    rows = {side: _match(mine, everything, tolerance)[0] for side, (mine, _) in sides.items()}
    swapped = _rank_swaps(alone, rows, above, spec, tolerance)
    tally.rank_swaps += len(swapped)
    for side, index in alone:
        if (side, index) not in swapped:
            mine = sides[side][0]
            box = ", ".join(f"{v:.1f}" for v in mine.boxes_xyxy[index])
            name = reference.spec.labels[mine.class_ids[index]]
            tally.breaches.append(
                f"{where}: the {side} detector alone finds {name} "
                f"{mine.scores[index]:.4g} at [{box}]"
            )


def _match(
    mine: Candidates, others: Candidates, tolerance: Tolerance
) -> tuple[list[int], list[float]]:
    """Pairs boxes one to one, best score first; -1 where there is no partner."""
    ious = iou_matrix(mine.boxes_xyxy, others.boxes_xyxy)
    # Boxes clipped to nothing have no area to overlap with: equal corners are the same box.
    same = np.all(np.isclose(mine.boxes_xyxy[:, None], others.boxes_xyxy[None], atol=0.5), axis=-1)
    empty = (_areas(mine.boxes_xyxy) < 1)[:, None] & (_areas(others.boxes_xyxy) < 1)[None, :]
    ious = np.where(empty, same, ious)
    fits = (ious >= tolerance.iou) & (mine.class_ids[:, None] == others.class_ids[None, :])
    slack = tolerance.score_near(mine.scores)[:, None]
    fits &= np.abs(mine.scores[:, None] - others.scores[None, :]) <= slack
    free = np.ones(len(others.scores), bool)
    partners, overlaps = [], []
    for row in range(len(mine.scores)):
        options = np.flatnonzero(fits[row] & free)
        if len(options) == 0:
            partners.append(-1)
            overlaps.append(0.0)
            continue
        best = options[np.argmax(ious[row, options])]
        free[best] = False
        partners.append(int(best))
        overlaps.append(float(ious[row, best]))
    return partners, overlaps


def _areas(boxes_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    areas: npt.NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return areas


def _rank_swaps(
    alone: Sequence[tuple[str, int]],
    rows: Mapping[str, Sequence[int]],
    candidates: Candidates,
    spec: PostprocessSpec,
    tolerance: Tolerance,
) -> set[tuple[str, int]]:
    """Returns the unmatched boxes whose absence on the other side is a matter of rounding.

    Such a box is one of the reference's candidates, and the other side kept a box that overlaps
    it, with about the same score or by about the threshold: rounding chose. What that choice
    suppressed in turn, or spared, follows from it.

    Args:
        alone: Side and index of each unmatched box.
        rows: For each side, which candidate each of its boxes is; -1 for none.
        candidates: Of the reference, with second choices, as suppression saw them: not clipped
            to the image.
        spec: Of the suppression.
        tolerance: What counts as about the same.
    """
    swapped: set[tuple[str, int]] = set()
    growing = True
    while growing:
        growing = False
        for side, index in alone:
            other = "reference" if side == "compiled" else "compiled"
            row, others = rows[side][index], np.asarray(rows[other], np.intp)
            if (side, index) in swapped or row < 0:
                continue
            one, rivals = candidates.take([row]), candidates.take(others)
            overlap = iou_matrix(one.boxes_xyxy, rivals.boxes_xyxy)[0]
            near = (overlap > spec.iou_threshold - (1 - tolerance.iou)) & (others >= 0)
            if not spec.class_agnostic:
                near &= rivals.class_ids == one.class_ids[0]
            close = np.abs(rivals.scores - one.scores[0]) <= tolerance.score_near(one.scores[0])
            edge = np.abs(overlap - spec.iou_threshold) <= 1 - tolerance.iou
            chosen = np.array([(other, i) in swapped for i in range(len(others))], bool)
            if np.any(near & (close | edge | chosen)) or _is_class_tie(row, candidates, tolerance):
                swapped.add((side, index))
                growing = True
    return swapped


def _is_class_tie(row: int, candidates: Candidates, tolerance: Tolerance) -> bool:
    """Whether the same box is a candidate of another class with about the same score."""
    same = np.all(candidates.boxes_xyxy == candidates.boxes_xyxy[row], axis=1)
    same &= candidates.class_ids != candidates.class_ids[row]
    near = tolerance.score_near(candidates.scores[row])
    return bool(np.any(same & (np.abs(candidates.scores - candidates.scores[row]) <= near)))


def _refuse(tally: _Tally, target: str) -> None:
    if tally.breaches:
        more = len(tally.breaches) - 1
        raise ParityError(
            f"{target}: {tally.breaches[0]}"
            + (f" (and {more} more)" if more else "")
            + "; the build is not written. Compare with `tvmdet doctor`, check the spec, or "
            "report it with the model"
        )
