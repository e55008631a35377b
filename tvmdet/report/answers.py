"""What a detector answered, as few enough numbers to be kept in a result and compared later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tvmdet.report.agreement import SPARED_SHARE
from tvmdet.report.pipeline import Found
from tvmdet.report.tolerances import tolerances_at

__all__ = ["changed_answers", "found_from", "sample_found", "sample_outputs"]

Answers = Mapping[str, Sequence[float]]

_SAMPLES = 64


def sample_found(found: Found) -> dict[str, list[float]]:
    """Returns boxes, scores and classes as plain numbers."""
    return {
        "boxes_xyxy": [round(float(value), 3) for value in found.boxes_xyxy.ravel()],
        "scores": [round(float(value), 5) for value in found.scores],
        "class_ids": [float(value) for value in found.class_ids],
    }


def found_from(answers: Answers) -> Found:
    """Returns the boxes that :func:`sample_found` was given.

    Raises:
        ValueError: The lists do not belong together.
    """
    found = Found(
        boxes_xyxy=np.asarray(answers["boxes_xyxy"], np.float32).reshape(-1, 4),
        scores=np.asarray(answers["scores"], np.float32),
        class_ids=np.asarray(answers["class_ids"], np.int64),
    )
    if not len(found.boxes_xyxy) == len(found.scores) == len(found.class_ids):
        raise ValueError("boxes, scores and classes have different lengths")
    return found


def sample_outputs(outputs: Mapping[str, Any]) -> dict[str, list[float]]:
    """Returns evenly spaced values of each output, with its greatest absolute value last.

    What is not finite counts as zero.
    """
    sampled = {}
    for name, array in outputs.items():
        values = np.nan_to_num(np.asarray(array, np.float64).ravel(), posinf=0.0, neginf=0.0)
        if not values.size:
            sampled[name] = [0.0]
            continue
        places = np.linspace(0, values.size - 1, min(_SAMPLES, values.size)).astype(int)
        kept = [*values[places], np.abs(values).max()]
        sampled[name] = [float(f"{value:.7g}") for value in kept]
    return sampled


def changed_answers(then: Answers, now: Answers, precision: str) -> str:
    """Says in what answers differ from recorded ones; empty when they agree.

    Args:
        then: The recorded ones; none are no promise.
        now: Those of a repetition.
        precision: That both were computed in.
    """
    from tvmdet.report.end_to_end import compare_found

    if not then:
        return ""
    if then.keys() != now.keys():
        return f"it answered {', '.join(then)}, and answers {', '.join(now) or 'nothing'}"
    allowed = tolerances_at(precision)
    if "boxes_xyxy" not in then:
        return _changed_outputs(then, now, allowed.outputs)
    before, after = found_from(then), found_from(now)
    found = compare_found(after, before, allowed.overlap)
    if not found.ok:
        return f"the boxes are not the recorded ones: {found.reason}"
    drift = np.abs(np.sort(before.scores) - np.sort(after.scores)).max(initial=0.0)
    return "" if drift <= allowed.score else f"a score is off the recorded one by {drift:.3g}"


def _changed_outputs(then: Answers, now: Answers, tolerance: float) -> str:
    for name, values in then.items():
        before, after = np.asarray(values), np.asarray(now[name])
        if before.shape != after.shape:
            return f"output {name} has another number of values"
        gap = np.abs(before - after) / (float(np.abs(before).max(initial=0.0)) or 1.0)
        off = int((gap > tolerance).sum())
        # Where a network selects, rounding may exchange rows.
        if off > max(SPARED_SHARE * gap.size, 1.0):
            return f"output {name} is off the recorded one by {gap.max():.2g} of its greatest value"
    return ""
