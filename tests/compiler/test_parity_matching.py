"""Which box of one side is which of the other."""

from __future__ import annotations

import numpy as np
import pytest

from tvmdet.compiler.parity import _match
from tvmdet.compiler.reference import Candidates
from tvmdet.compiler.tolerance import Tolerance

WHOLE = [0.0, 0.0, 160.0, 72.0]
NEAR = [0.0, 0.0, 160.0, 71.9]
THIN = [0.0, 66.2, 200.0, 66.25]  # with an area, and a side of a twentieth of a pixel
APART = [10.0, 10.0, 40.0, 40.0]
INSIDE_OUT = [71.0, 96.0, 54.8, 80.9]  # random weights of a YOLO26, whose sides have no sign


def _boxes(*rows: tuple[list[float], float, int]) -> Candidates:
    boxes, scores, classes = zip(*rows, strict=True) if rows else ((), (), ())
    return Candidates(
        boxes_xyxy=np.asarray(boxes, np.float32).reshape(-1, 4),
        scores=np.asarray(scores, np.float32),
        class_ids=np.asarray(classes, np.int32),
    )


def _lower(box: list[float], pixels: float) -> list[float]:
    return [box[0], box[1] + pixels, box[2], box[3] + pixels]


@pytest.mark.parametrize(
    ("mine", "others", "partners"),
    [
        pytest.param(_boxes(), _boxes(), [], id="nothing"),
        pytest.param(_boxes((WHOLE, 0.9, 1)), _boxes(), [-1], id="nothing there"),
        pytest.param(_boxes((WHOLE, 0.9, 1)), _boxes((WHOLE, 0.9, 2)), [-1], id="other class"),
        pytest.param(_boxes((WHOLE, 0.9, 1)), _boxes((APART, 0.9, 1)), [-1], id="other box"),
        pytest.param(
            _boxes((INSIDE_OUT, 0.9, 1)), _boxes((INSIDE_OUT, 0.9, 1)), [0], id="inside out"
        ),
        pytest.param(
            _boxes((THIN, 0.9, 1)), _boxes((_lower(THIN, 0.01), 0.9, 1)), [0], id="thin, moved"
        ),
        pytest.param(
            _boxes((THIN, 0.9, 1)), _boxes((_lower(THIN, 0.1), 0.9, 1)), [-1], id="thin, apart"
        ),
        pytest.param(
            _boxes((INSIDE_OUT, 0.9, 1)), _boxes((APART, 0.9, 1)), [-1], id="one inside out"
        ),
        pytest.param(
            _boxes((WHOLE, 1.0, 5), (WHOLE, 0.9997, 5), (WHOLE, 0.9992, 5)),
            _boxes((WHOLE, 0.9997, 5), (WHOLE, 0.9992, 5)),
            [-1, 0, 1],
            id="clipped to the image: the one too many stays alone, not the last",
        ),
        pytest.param(
            _boxes((WHOLE, 0.9, 1), (NEAR, 0.9, 1)),
            _boxes((NEAR, 0.9, 1), (WHOLE, 0.9001, 1)),
            [1, 0],
            id="the better overlap goes before the closer score",
        ),
    ],
)
def test_partners(mine: Candidates, others: Candidates, partners: list[int]) -> None:
    found, overlaps = _match(mine, others, Tolerance())
    assert found == partners
    assert [overlap >= 0.99 for overlap in overlaps] == [partner >= 0 for partner in partners]
