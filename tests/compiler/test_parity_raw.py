"""Raw networks that select: what hangs on rounding is not held against the compiled code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tvmdet.compiler.parity_raw import check_raw
from tvmdet.errors import ParityError

ROWS = 400
INPUTS = {"x": np.linspace(0.5, 1.5, ROWS, dtype=np.float32)[None]}


class Network:
    """Rows, of which the first so many change altogether with every rounding of the input."""

    version = "a reference"
    selects = True
    target = "a target"

    def __init__(self, restless: int, off: int = 0) -> None:
        self._restless, self._off = restless, off

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        (x,) = inputs["x"].astype(np.float64)
        rows = np.arange(ROWS) + 0.25 * np.round(x, 3)
        rows[: self._restless] += 0.5 * (np.round(x[: self._restless] * 1e7) % 2)
        rows[: self._off] += 7000.5
        return {"rows": rows.astype(np.float32)[None, :, None]}


def check(restless: int, off: int) -> dict[str, Any]:
    compiled: Any = Network(restless, off)
    reference: Any = Network(restless)
    return check_raw(compiled, reference, INPUTS, [1])


def test_as_many_rows_as_the_reference_itself_exchanges_may_differ() -> None:
    # Every nudge flips about half of 30 rows: 3.75 %.
    found = check(restless=30, off=10)
    assert found["rows_unsettled"] == 10 / ROWS
    assert found["worst_relative"] == {"rows": 0.0}


def test_more_rows_than_that_may_not() -> None:
    with pytest.raises(ParityError, match=r"output rows.*; 7.5% of its rows are others"):
        check(restless=30, off=30)


def test_a_network_that_keeps_still_has_no_excuse() -> None:
    with pytest.raises(ParityError, match="output rows"):
        check(restless=0, off=10)
    assert "rows_unsettled" not in check(restless=0, off=3)  # what a tie at the end may exchange


def test_no_more_than_a_tenth_is_excused() -> None:
    with pytest.raises(ParityError, match="output rows"):
        check(restless=ROWS, off=60)


def test_a_network_that_selects_nothing_is_held_to_every_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Network, "selects", False)
    with pytest.raises(ParityError, match="output rows"):
        check(restless=0, off=1)
