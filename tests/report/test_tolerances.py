"""What is allowed between right answers, in every precision that a file can be compiled in."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tvmdet.compiler.tolerance import Tolerance
from tvmdet.report.answers import changed_answers
from tvmdet.report.tolerances import Tolerances, tolerances_at

TABLE = {
    "fp32": (1e-3, 0.01, 0.01),
    "fp16": (0.01, 0.05, 0.05),
    "tf32": (0.01, 0.05, 0.05),
    "bf16": (0.05, 0.1, 0.1),
}


@pytest.mark.parametrize(("precision", "allowed"), TABLE.items())
def test_every_precision_has_its_own(precision: str, allowed: tuple[float, ...]) -> None:
    outputs, overlap, score = allowed
    found = tolerances_at(precision)
    assert found == Tolerances(outputs=outputs, overlap=overlap, score=score)
    assert found.outputs == Tolerance.at_precision(precision).raw


@pytest.mark.parametrize("precision", TABLE)
def test_the_coarser_of_two_decides(precision: str) -> None:
    assert tolerances_at("fp32", precision) == tolerances_at(precision)
    assert tolerances_at(precision, "bf16") == tolerances_at("bf16")


@pytest.mark.parametrize(("precision", "allowed"), TABLE.items())
def test_recorded_answers_may_drift_as_far(precision: str, allowed: tuple[float, ...]) -> None:
    outputs, overlap, score = allowed
    values = {"y": [1.0] * 8}
    for share, says in ((0.9, ""), (1.2, "output y is off")):
        now = {"y": [1.0 - share * outputs] * 7 + [1.0]}
        assert changed_answers(values, now, precision).startswith(says)
        assert bool(changed_answers(values, now, precision)) == bool(says)
    one = {"boxes_xyxy": [0.0, 0.0, 100.0, 100.0], "scores": [0.9], "class_ids": [0.0]}
    for share, ok in ((0.9, True), (1.2, False)):
        moved = {**one, "boxes_xyxy": [0.0, 0.0, 100.0, 100.0 * (1 - share * overlap)]}
        assert (changed_answers(one, moved, precision) == "") == ok
        fainter = {**one, "scores": [0.9 - share * score]}
        assert (changed_answers(one, fainter, precision) == "") == ok


def test_reading_results_needs_no_compiler() -> None:
    code = "import tvmdet.report, sys; sys.exit('tvmdet.compiler' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
