from __future__ import annotations

import numpy as np
import pytest
from assertions import assert_close, assert_detections_close

from tvmdet.detections import Detections


def found(*rows: tuple[int, float, tuple[float, float, float, float]]) -> Detections:
    return Detections(
        boxes_xyxy=np.array([box for *_, box in rows], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in rows], np.float32),
        class_ids=np.array([class_id for class_id, *_ in rows], np.int32),
        labels=tuple(f"class{class_id}" for class_id, *_ in rows),
        image_size_hw=(100, 100),
    )


A = (0.0, 0.0, 50.0, 50.0)
B = (40.0, 40.0, 90.0, 90.0)


def test_close_accepts_what_is_within_bounds() -> None:
    assert_close([], [])
    assert_close([1.0, np.inf, np.nan], [1.000001, np.inf, np.nan])


def test_close_says_the_worst_index_and_the_tolerance_that_would_pass() -> None:
    with pytest.raises(AssertionError, match=r"1 of 4 .* index \(1, 0\).*atol=0\.5"):
        assert_close([[1, 2], [3.5, 4]], [[1, 2], [3, 4]], rtol=0, atol=1e-3)
    assert_close([[1, 2], [3.5, 4]], [[1, 2], [3, 4]], rtol=0, atol=0.5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_close_refuses_values_that_are_not_finite(wrong: float) -> None:
    with pytest.raises(AssertionError, match="max error inf"):
        assert_close([1.0, wrong], [1.0, 1.0], atol=1e9)


def test_close_refuses_other_shapes() -> None:
    with pytest.raises(AssertionError, match=r"shape \(1, 2\), expected \(2,\)"):
        assert_close([[1, 2]], [1, 2])


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        pytest.param(found(), found(), id="nothing in both"),
        pytest.param(
            found((0, 0.9001, A), (0, 0.9, B)), found((0, 0.9005, B), (0, 0.9, A)), id="rank swap"
        ),
        pytest.param(found((0, 0.2505, A)), found(), id="only here, at the threshold"),
        pytest.param(found(), found((0, 0.2505, A)), id="only there, at the threshold"),
    ],
)
def test_detections_accepted(actual: Detections, expected: Detections) -> None:
    assert_detections_close(actual, expected, score_threshold=0.25)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        pytest.param(found((0, 0.9, A)), found(), id="box only here"),
        pytest.param(found(), found((0, 0.9, A)), id="box only there"),
        pytest.param(found((0, 0.9, A)), found((1, 0.9, A)), id="other class"),
        pytest.param(found((0, 0.9, A)), found((0, 0.9, (0, 0, 50, 49))), id="other box"),
        pytest.param(found((0, 0.9, A)), found((0, 0.89, A)), id="other score"),
        pytest.param(found((0, 0.9, A)), found((0, 0.9, A), (0, 0.9, A)), id="one box for two"),
        pytest.param(
            found((0, 0.9, A), (0, 0.5, B)), found((0, 0.9, B), (0, 0.5, A)), id="far rank swap"
        ),
    ],
)
def test_detections_refused(actual: Detections, expected: Detections) -> None:
    with pytest.raises(AssertionError, match="without a partner"):
        assert_detections_close(actual, expected, score_threshold=0.25)
