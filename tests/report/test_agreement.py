"""Outputs that are right, wrong, missing, not finite, or exchanged."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tvmdet.report.agreement import Agreement, compare_outputs

RIGHT = np.array([[1.0, -4.0, 2.0, 0.5]], np.float32)


@pytest.mark.parametrize(
    ("got", "right", "ok", "says"),
    [
        (np.zeros((0, 4)), np.zeros((0, 4)), True, ""),
        (RIGHT, RIGHT, True, ""),
        (RIGHT + 0.003, RIGHT, True, ""),
        (RIGHT + 0.005, RIGHT, False, "max error 0.0013 of the greatest value"),
        (RIGHT[0], RIGHT, False, r"shape \[4\] instead of \[1, 4\]"),
        (RIGHT * np.nan, RIGHT, False, "not finite"),
        (RIGHT, RIGHT * np.inf, False, "not finite"),
        (np.full(3, np.nan), np.full(3, np.nan), True, ""),
        (np.full(3, 5e-6), np.zeros(3), True, ""),
        (np.full(3, 1e-4), np.zeros(3), False, "max error 0.01 of the greatest value"),
    ],
)
def test_one_output(got: np.ndarray, right: np.ndarray, ok: bool, says: str) -> None:
    found = compare_outputs({"y": got}, {"y": right}, 1e-3)
    assert found.ok == ok, found
    if not ok:
        assert found.output == "y"
        assert re.search(says, str(found))


def test_the_worst_output_counts() -> None:
    right = {"a": RIGHT, "b": RIGHT}
    found = compare_outputs({"a": RIGHT, "b": RIGHT + 1}, right, 1e-3)
    assert (found.output, found.ok) == ("b", False)
    assert found.worst == pytest.approx(0.25)


def test_a_missing_output_is_wrong() -> None:
    found = compare_outputs({}, {"y": RIGHT}, 1e-3)
    assert not found.ok
    assert "no output in y" in str(found)
    assert found.to_dict()["worst_relative"] is None


def test_exchanged_rows_are_spared_where_the_network_selects() -> None:
    right = np.random.default_rng(0).random((300, 4))
    got = right.copy()
    got[[7, 8]] = got[[8, 7]]
    assert not compare_outputs({"y": got}, {"y": right}, 1e-3).ok
    spared = compare_outputs({"y": got}, {"y": right}, 1e-3, 0.01)
    assert spared.ok
    assert spared.off_share == pytest.approx(2 / 300)


def test_agreement_is_plain_json() -> None:
    found = Agreement(worst=0.5, output="y", tolerance=0.1, off_share=1.0).to_dict()
    assert found["ok"] is False
    assert found["worst_relative"] == 0.5
