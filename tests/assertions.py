"""Assertions that say how far off a result is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tvmdet.boxes import iou_matrix
from tvmdet.detections import Detections


def assert_close(
    actual: npt.ArrayLike,
    expected: npt.ArrayLike,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    name: str = "result",
) -> None:
    """Holds ``|actual - expected| <= atol + rtol * |expected|`` for every element.

    A failure prints the largest error, the element that breaks the bound the most, and the
    tolerance with which the comparison would have passed.
    """
    got, want = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
    if got.size == 0:
        return
    # Equal infinities and NaNs in both agree; any other pair with one of them does not.
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(got - want))
        error = np.where(np.isfinite(error), error, np.inf)
        excess = np.where(error == np.inf, np.inf, error - (atol + rtol * np.abs(want)))
        excess = np.where(same, -np.inf, excess)
    if np.max(excess) <= 0:
        return
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), got.shape))
    with np.errstate(invalid="ignore"):
        needed_atol = float(np.max(error - rtol * np.where(np.isfinite(want), np.abs(want), 0)))
    raise AssertionError(
        f"{name}: {int((excess > 0).sum())} of {got.size} elements differ; "
        f"max error {float(np.max(error)):.3g}; worst at index {worst}: got {got[worst]!r}, "
        f"expected {want[worst]!r}; would pass with rtol={rtol:g}, atol={needed_atol:.3g}"
    )


def assert_detections_close(
    actual: Detections,
    expected: Detections,
    *,
    score_threshold: float,
    iou: float = 0.99,
    score_atol: float = 1e-3,
) -> None:
    """Holds two results of one image to the same objects, whatever their order.

    Boxes are matched one to one by class and IoU, best IoU first. A box that only one side has
    is allowed within ``score_atol`` of the score threshold, and nowhere else. Ranks may differ
    only between boxes whose scores are within twice ``score_atol`` of each other, which the
    bound on each score implies.
    """
    overlaps = iou_matrix(actual.boxes_xyxy, expected.boxes_xyxy)
    overlaps[actual.class_ids[:, None] != expected.class_ids[None, :]] = -1
    drift = np.abs(actual.scores[:, None] - expected.scores[None, :])
    overlaps[drift > score_atol] = -1
    pairs = _greedy_pairs(overlaps, iou)
    lonely = [
        (side, index, found)
        for side, found, taken in (
            ("actual", actual, {a for a, _ in pairs}),
            ("expected", expected, {e for _, e in pairs}),
        )
        for index in range(len(found))
        if index not in taken
    ]
    problems = [
        f"only in {side}: {found.labels[index]} {found.scores[index]:.4f} at "
        f"{np.round(found.boxes_xyxy[index], 2).tolist()}"
        for side, index, found in lonely
        if abs(float(found.scores[index]) - score_threshold) > score_atol
    ]
    assert not problems, (
        f"{len(problems)} boxes without a partner of their class with IoU >= {iou:g} and a score "
        f"within {score_atol:g} (score threshold {score_threshold:g}):\n" + "\n".join(problems)
    )


def _greedy_pairs(overlaps: npt.NDArray[np.float32], least: float) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    left = overlaps.copy()
    while left.size and left.max() >= least:
        a, e = (int(i) for i in np.unravel_index(int(np.argmax(left)), left.shape))
        pairs.append((a, e))
        left[a, :] = -1
        left[:, e] = -1
    return pairs
