"""Boxes that a suppressing network finds by a hair, against a reference that wavers on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tvmdet.boxes import ImageTransform, iou_matrix
from tvmdet.compiler.images import NamedImage
from tvmdet.compiler.parity_nudges import settle_by_nudges
from tvmdet.compiler.reference import Candidates
from tvmdet.spec import InputSpec

BOXES = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [5, 40, 15, 60]], np.float32)
STEADY, WAVERING, NOT_THERE = 0, 1, 2


def _found(*rows: int) -> Candidates:
    return Candidates(
        boxes_xyxy=BOXES[list(rows)],
        scores=np.full(len(rows), 0.5, np.float32),
        class_ids=np.zeros(len(rows), np.int32),
    )


class _Wavering:
    """Finds the wavering box on every third picture only."""

    def __init__(self) -> None:
        self.runs = 0

    def candidates(self, *_: Any, nudge: float, seed: int) -> tuple[Candidates, Candidates]:
        assert nudge == 1e-5
        self.runs += 1
        rows = (STEADY, WAVERING) if seed % 3 == 2 else (STEADY,)
        return _found(*rows), _found()


@pytest.mark.parametrize(
    ("alone", "settled", "runs"),
    [
        ([], set(), 0),
        ([("compiled", WAVERING)], {("compiled", WAVERING)}, 3),
        ([("reference", WAVERING)], {("reference", WAVERING)}, 1),
        ([("compiled", NOT_THERE)], set(), 12),
        ([("reference", STEADY)], set(), 12),
        (
            [("compiled", WAVERING), ("compiled", NOT_THERE)],
            {("compiled", WAVERING)},
            12,
        ),
    ],
)
def test_only_what_the_reference_itself_is_unsure_of(
    alone: list[tuple[str, int]], settled: set[tuple[str, int]], runs: int
) -> None:
    reference: Any = _Wavering()
    everything = _found(STEADY, WAVERING, NOT_THERE)
    image = NamedImage(name="grey", pixels=np.full((64, 64, 3), 114, np.uint8))
    got = settle_by_nudges(
        alone,
        {"compiled": everything, "reference": everything},
        image,
        ImageTransform.for_image((64, 64), InputSpec(size_hw=(64, 64))),
        reference,
        1e-5,
        lambda found: found,
        _fits,
        lambda mine, others: 0.0,
    )
    assert (got.seen, got.excused) == (settled, set())
    assert reference.runs == runs


class _Sure:
    """Has both boxes as candidates, of which suppression keeps the first."""

    def candidates(self, *_: Any, nudge: float, seed: int) -> tuple[Candidates, Candidates]:
        return _found(STEADY, WAVERING), _found()


def test_what_the_reference_suppresses_it_does_not_find() -> None:
    reference: Any = _Sure()
    image = NamedImage(name="grey", pixels=np.full((64, 64, 3), 114, np.uint8))
    got = settle_by_nudges(
        [("compiled", WAVERING)],
        {"compiled": _found(STEADY, WAVERING), "reference": _found(STEADY)},
        image,
        ImageTransform.for_image((64, 64), InputSpec(size_hw=(64, 64))),
        reference,
        1e-5,
        lambda found: found.take([0]),
        _fits,
        lambda mine, others: float((~_fits(mine, others).any(axis=1)).mean()),
    )
    assert (got.seen, got.excused) == (set(), set())


def _fits(mine: Candidates, others: Candidates) -> npt.NDArray[np.bool_]:
    return iou_matrix(mine.boxes_xyxy, others.boxes_xyxy) > 0.99


class _Restless:
    """Moves its wavering boxes to other places on every picture."""

    def __init__(self, wavering: int) -> None:
        self.wavering = wavering

    def candidates(self, *_: Any, nudge: float, seed: int) -> tuple[Candidates, Candidates]:
        return _strewn(self.wavering, 2 + seed), _strewn(0, 0)


def _strewn(wavering: int, place: int) -> Candidates:
    """A steady box, and others of which none is where it is at another ``place``."""
    corners = [(0, 0), *((12 * row + 12, 12 * place) for row in range(wavering))]
    return Candidates(
        boxes_xyxy=np.array([(x, y, x + 10, y + 10) for x, y in corners], np.float32),
        scores=np.full(len(corners), 0.5, np.float32),
        class_ids=np.zeros(len(corners), np.int32),
    )


@pytest.mark.parametrize(("ours", "settled"), [(2, True), (3, True), (5, False)])
def test_no_more_boxes_differ_than_the_reference_from_itself(ours: int, settled: bool) -> None:
    """Of three boxes that it finds elsewhere every time, none is ever where it was."""
    reference: Any = _Restless(wavering=3)
    alone = [("compiled", 1 + row) for row in range(ours)]
    image = NamedImage(name="grey", pixels=np.full((64, 64, 3), 114, np.uint8))
    got = settle_by_nudges(
        alone,
        {"compiled": _strewn(ours, 1), "reference": _strewn(3, 0)},
        image,
        ImageTransform.for_image((64, 64), InputSpec(size_hw=(64, 64))),
        reference,
        1e-5,
        lambda found: found,
        _fits,
        lambda mine, others: float((~_fits(mine, others).any(axis=1)).mean()),
    )
    assert (got.seen, got.excused) == (set(), set(alone) if settled else set())
