"""The parity check at the level users see: the same objects, classes and scores.

Each image is run through the compiled detector and through the reference. Every box of one side
must have a partner of its class on the other, with an IoU of at least ``Tolerance.iou`` and a
score within ``Tolerance.score``. Two things may differ, because rounding decides them: a box
whose score lies within the tolerance of the threshold, and which of two overlapping boxes with
equal scores survives suppression.

So that pictures with few objects test something too, the score threshold of each image is lowered
until the reference has ``MIN_CANDIDATES`` candidates above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import ImageTransform, iou_matrix
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.reference import Candidates, Reference, suppress, to_image
from tvmdet.errors import ParityError
from tvmdet.runtime.detector import Detector

__all__ = ["MIN_CANDIDATES", "Tolerance", "check_detector", "check_raw"]

MIN_CANDIDATES = 300


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a compiled detector may be from the reference.

    Attributes:
        iou: Least overlap of two boxes that count as the same.
        score: Greatest difference of their scores.
        raw: Greatest difference of a raw output, relative to the greatest value in it.
    """

    iou: float = 0.99
    score: float = 1e-3
    raw: float = 1e-3


@dataclass
class _Tally:
    """Counts over all images."""

    boxes: int = 0
    worst_iou: float = 1.0
    worst_score_drift: float = 0.0
    rank_swaps: int = 0
    at_threshold: int = 0
    breaches: list[str] = field(default_factory=list)


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
    for image in images:
        transform = ImageTransform.for_image(image.pixels.shape[:2], reference.spec.input)
        candidates = reference.candidates(image.pixels, transform)
        score = _threshold(candidates, reference.spec.postprocess.score_threshold)
        for batch_size in detector.batch_sizes:
            # Every row of the batch is this image, so that each row's kernels are seen.
            found = detector.detect([image.pixels] * batch_size, score=score)
            for row, result in enumerate(found):
                where = f"{image.name} (batch {batch_size}, row {row})"
                compiled = Candidates(
                    boxes_xyxy=result.boxes_xyxy,
                    scores=result.scores,
                    class_ids=result.class_ids,
                )
                _compare(tally, where, compiled, candidates, score, transform, reference, tolerance)
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
    tolerance: Tolerance | None = None,
) -> dict[str, Any]:
    """Compares the outputs of a raw network with ONNX Runtime's, for each batch bucket.

    Args:
        detector: The compiled network.
        reference: ONNX Runtime at batch 1.
        inputs: By name, with at least as many rows as the greatest batch size.
        batch_sizes: The buckets.
        tolerance: How far an output may be off.

    Raises:
        ParityError: An output is off; the message names it, the row and the value.
    """
    tolerance = tolerance or Tolerance()
    worst: dict[str, float] = {}
    breaches = []
    for batch_size in batch_sizes:
        compiled = detector.run({name: array[:batch_size] for name, array in inputs.items()})
        for row in range(batch_size):
            expected = reference.run({n: a[row : row + 1] for n, a in inputs.items()})
            for name, want in expected.items():
                got = compiled[name][row : row + 1]
                scale = max(1.0, float(np.max(np.abs(want), initial=0.0)))
                gap = np.abs(got.astype(np.float64) - want.astype(np.float64)) / scale
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
        "tolerance": {"raw": tolerance.raw},
    }


def _threshold(candidates: Candidates, default: float) -> float:
    """Returns the score threshold at which an image has enough boxes to compare."""
    if len(candidates.scores) <= MIN_CANDIDATES:
        return 0.0
    return float(min(default, max(candidates.scores[MIN_CANDIDATES], 0.0)))


def _compare(
    tally: _Tally,
    where: str,
    compiled: Candidates,
    candidates: Candidates,
    score: float,
    transform: ImageTransform,
    reference: Reference,
    tolerance: Tolerance,
) -> None:
    spec = reference.spec.postprocess
    kept = suppress(candidates, spec, score, spec.iou_threshold)
    expected = to_image(candidates.take(kept), transform)
    above = candidates.take(candidates.scores > score - tolerance.score)
    everything = to_image(above, transform)
    labels = reference.spec.labels
    full = max(len(compiled.scores), len(kept)) == spec.max_detections
    last = min(compiled.scores[-1:].min(initial=1.0), expected.scores[-1:].min(initial=1.0))

    for side, mine, others in (
        ("compiled", compiled, expected),
        ("reference", expected, compiled),
    ):
        partners, overlaps = _match(mine, others, tolerance)
        for index, partner in enumerate(partners):
            if partner >= 0:
                drift = abs(float(mine.scores[index] - others.scores[partner]))
                tally.worst_iou = min(tally.worst_iou, overlaps[index])
                tally.worst_score_drift = max(tally.worst_score_drift, drift)
                tally.boxes += side == "compiled"
                continue
            value = float(mine.scores[index])
            if value <= score + tolerance.score or (full and value <= last + tolerance.score):
                tally.at_threshold += 1
            elif _is_rank_swap(mine, index, others, everything, spec, tolerance):
                tally.rank_swaps += 1
            else:
                box = ", ".join(f"{v:.1f}" for v in mine.boxes_xyxy[index])
                name = labels[mine.class_ids[index]]
                tally.breaches.append(
                    f"{where}: the {side} detector alone finds {name} {value:.4f} at [{box}]"
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
    fits &= np.abs(mine.scores[:, None] - others.scores[None, :]) <= tolerance.score
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


def _is_rank_swap(
    mine: Candidates,
    index: int,
    others: Candidates,
    everything: Candidates,
    spec: Any,
    tolerance: Tolerance,
) -> bool:
    """Whether the other side kept an overlapping box in its place, for a reason of rounding.

    The box itself must be one of the reference's candidates, and the other side must have kept a
    box that overlaps it by about the threshold or more, with about the same score.
    """
    one = mine.take([index])
    if _match(one, everything, tolerance)[0][0] < 0:
        return False
    overlap = iou_matrix(one.boxes_xyxy, others.boxes_xyxy)[0]
    rivals = overlap > spec.iou_threshold - (1 - tolerance.iou)
    if not spec.class_agnostic:
        rivals &= others.class_ids == one.class_ids[0]
    close = np.abs(others.scores - one.scores[0]) <= tolerance.score
    edge = np.abs(overlap - spec.iou_threshold) <= 1 - tolerance.iou
    return bool(np.any(rivals & (close | edge)))


def _refuse(tally: _Tally, target: str) -> None:
    if tally.breaches:
        more = len(tally.breaches) - 1
        raise ParityError(
            f"{target}: {tally.breaches[0]}"
            + (f" (and {more} more)" if more else "")
            + "; the build is not written. Compare with `tvmdet doctor`, check the spec, or "
            "report it with the model"
        )
