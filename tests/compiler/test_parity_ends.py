"""Where lists end that have no room for more: what is missing below is no difference.

Of boxes, and of candidates that enter suppression.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_modules import toy_spec

from tvmdet.boxes import ImageTransform
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.parity import _Case, _compare, _Tally
from tvmdet.compiler.parity_ties import find_cut, rank_swaps
from tvmdet.compiler.reference import Candidates
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.detections import Detections

SPEC = toy_spec(postprocess={"max_detections": 3})
SIZE_HW = SPEC.input.size_hw
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)


def _found(*rows: int) -> Candidates:
    """Boxes that overlap nowhere, one a score."""
    left = np.arange(len(SCORES), dtype=np.float32)[list(rows)] * 5
    boxes = np.stack([left, np.zeros_like(left), left + 4, np.full_like(left, 4)], axis=1)
    return Candidates(
        boxes_xyxy=boxes, scores=SCORES[list(rows)], class_ids=np.zeros(len(rows), np.int32)
    )


@pytest.mark.parametrize(
    ("compiled", "expected", "breaches"),
    [
        pytest.param((), (), [], id="nothing"),
        pytest.param((0, 1, 2), (0, 1, 2), [], id="the same"),
        pytest.param((0, 1), (0, 1, 2), ["reference", 0.7], id="room was left"),
        pytest.param((0, 1, 2), (0, 1), ["compiled", 0.7], id="room was left in the reference"),
        pytest.param(
            (1, 2, 3), (0, 1, 2), ["reference", 0.9], id="full: the lower one had no room, no more"
        ),
        pytest.param((0, 1, 2), (2, 3, 4), ["compiled", 0.9, 0.8], id="full: two boxes lower"),
    ],
)
def test_a_full_list_ends_where_its_last_box_is(
    compiled: tuple[int, ...], expected: tuple[int, ...], breaches: list[Any]
) -> None:
    _assert_breaches(_found(*compiled), _found(*expected), None, breaches)


@pytest.mark.parametrize(
    ("compiled", "expected", "cut", "breaches"),
    [
        pytest.param((0, 2), (0, 1), 0.8, ["compiled", 0.7], id="one of another score"),
        pytest.param((0,), (0, 1), 0.8, [], id="the reference chose it"),
        pytest.param((0, 1), (0,), 0.8, [], id="the compiled one chose it"),
        pytest.param((0, 1), (0,), 0.8002, [], id="all but equal"),
        pytest.param((0, 1), (0,), 0.81, ["compiled", 0.8], id="not equal"),
        pytest.param((0, 1), (0,), None, ["compiled", 0.8], id="all entered"),
    ],
)
def test_where_the_candidates_are_cut_rounding_chooses_among_equal_scores(
    compiled: tuple[int, ...], expected: tuple[int, ...], cut: float | None, breaches: list[Any]
) -> None:
    _assert_breaches(_found(*compiled), _found(*expected), cut, breaches)


def test_nothing_found_is_no_matter_of_rounding() -> None:
    """At the cut as many boxes must stand for those that are missing."""
    many = np.arange(40, dtype=np.float32)[:, None] * 5
    boxes = np.concatenate([many, 0 * many, many + 4, 0 * many + 4], axis=1)
    every = Candidates(
        boxes_xyxy=boxes, scores=np.ones(40, np.float32), class_ids=np.zeros(40, np.int32)
    )
    fits = np.eye(40, dtype=bool)
    alone = [("reference", index) for index in range(20)]
    found = {"reference": fits[:20], "compiled": fits[:0]}
    arguments = (every, 1.0, SPEC.postprocess, Tolerance())
    assert rank_swaps(alone, found, *arguments) == set()
    # Other ones in their place are what the cut explains.
    both = [*alone, *(("compiled", index) for index in range(18))]
    found = {"reference": fits[:20], "compiled": fits[20:38]}
    assert rank_swaps(both, found, *arguments) == set(both)
    assert rank_swaps(both, found, every, None, SPEC.postprocess, Tolerance()) == set()


def test_a_class_that_ties_needs_a_box_in_its_place() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 4], [20, 0, 24, 4]], np.float32)
    every = Candidates(
        boxes_xyxy=boxes, scores=np.ones(3, np.float32), class_ids=np.array([0, 1, 0], np.int32)
    )
    fits = np.eye(3, dtype=bool)
    alone = [("reference", 0)]
    arguments = (every, None, SPEC.postprocess, Tolerance())
    other_class = {"reference": fits[:1], "compiled": fits[1:2]}
    assert rank_swaps(alone, other_class, *arguments) == {("reference", 0)}
    elsewhere = {"reference": fits[:1], "compiled": fits[2:]}
    assert rank_swaps(alone, elsewhere, *arguments) == set()


def test_a_box_that_is_no_candidate_is_no_matter_of_rounding() -> None:
    moved = _found(0, 1)
    moved.boxes_xyxy[1] += 1
    _assert_breaches(moved, _found(0), 0.8, ["compiled", 0.8])


def test_the_cut_is_the_last_score_that_enters_suppression() -> None:
    every = _found(*range(len(SCORES)))
    assert find_cut(every, 0.55, 4) is None
    assert find_cut(every, 0.55, 3) == pytest.approx(0.7)
    assert find_cut(every, 0.0, 1) == pytest.approx(0.9)


def _assert_breaches(
    mine: Candidates, expected: Candidates, cut: float | None, breaches: list[Any]
) -> None:
    image = NamedImage(name="grey", pixels=np.full((*SIZE_HW, 3), 114, np.uint8))
    case = _Case(
        image=image,
        transform=ImageTransform.for_image(SIZE_HW, SPEC.input),
        score=0.25,
        candidates=_found(*range(len(SCORES))),
        expected=expected,
        masks=None,
        cut=cut,
    )
    found = Detections(
        boxes_xyxy=mine.boxes_xyxy,
        scores=mine.scores,
        class_ids=mine.class_ids,
        labels=(SPEC.labels[0],) * len(mine.scores),
        image_size_hw=SIZE_HW,
    )
    tally, reference = _Tally(), SimpleNamespace(spec=SPEC, selects=False)
    _compare(tally, "grey", found, case, reference, Tolerance())  # type: ignore[arg-type]
    side, *scores = breaches or [""]
    assert len(tally.breaches) == len(scores)
    for line, score in zip(tally.breaches, scores, strict=True):
        assert f"the {side} detector alone finds" in line
        assert f" {score} at " in line
