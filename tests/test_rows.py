"""Rows that rounding has moved are found again; rows that are wrong are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tvmdet.rows import in_reference_order, selects

RNG = np.random.default_rng(0)
BOXES = RNG.random((2, 7, 4)).astype("float32")
SCORES = RNG.random((2, 7)).astype("float32")
RIGHT = {"boxes": BOXES, "scores": SCORES}


def _shuffled(order: list[int], item: int = 1) -> dict[str, np.ndarray]:
    moved = {name: array.copy() for name, array in RIGHT.items()}
    for name, array in RIGHT.items():
        moved[name][item] = array[item][order]
    return moved


@pytest.mark.parametrize(
    ("order", "count"),
    [
        ([0, 1, 2, 3, 4, 5, 6], 0),
        ([0, 1, 3, 2, 4, 5, 6], 2),
        ([6, 0, 1, 2, 3, 4, 5], 7),
    ],
)
def test_rows_are_put_back(order: list[int], count: int) -> None:
    ordered, moved = in_reference_order(_shuffled(order), RIGHT, 1e-3)
    assert moved == count
    for name, array in RIGHT.items():
        np.testing.assert_array_equal(ordered[name], array)


def test_no_rows() -> None:
    empty = {"boxes": np.empty((1, 0, 4), "float32")}
    ordered, moved = in_reference_order(empty, empty, 1e-3)
    assert moved == 0 and ordered["boxes"].shape == (1, 0, 4)


def test_a_box_does_not_move_without_its_score() -> None:
    got = _shuffled([1, 0, 2, 3, 4, 5, 6])
    got["scores"] = SCORES.copy()
    ordered, moved = in_reference_order(got, RIGHT, 1e-3)
    assert moved == 0
    assert not np.allclose(ordered["boxes"], BOXES)


def test_a_wrong_row_stays_wrong_and_the_others_are_found() -> None:
    got = _shuffled([3, 1, 2, 0, 4, 5, 6])
    got["boxes"][1, 0] += 1.0  # what belongs to row 3
    ordered, _ = in_reference_order(got, RIGHT, 1e-3)
    off = np.abs(ordered["boxes"] - BOXES).max(axis=2) > 1e-3
    assert off.sum() == 1 and off[1, 3]


def _by(*ranked: list[float]) -> Callable[[Sequence[str]], list[np.ndarray]]:
    values = [np.array([one, one], np.float32) for one in ranked]
    return lambda names: values if set(names) == set(RIGHT) else []


@pytest.mark.parametrize(
    ("ranked", "count"),
    [
        ([], 0),
        ([[9, 8, 7, 6, 5, 4, 3]], 0),
        ([[9, 8, 7, 6.999, 5, 4, 3]], 2),
        ([[9, 8, 7, 6.9, 5, 4, 3]], 0),  # further apart than rounding brings it
        ([[np.inf, np.inf, np.inf, np.inf, 1, 0, 0]], 0),
        # Two that both say the order have to tie both.
        ([[9, 8, 7, 6, 5, 4, 3], [9, 8, 8, 8, 8, 8, 7]], 0),
        ([[9, 8, 7, 7, 5, 4, 3], [9, 8, 8, 8, 8, 8, 7]], 2),
    ],
)
def test_rows_move_only_between_ranks_that_tie(ranked: list[list[float]], count: int) -> None:
    got = _shuffled([0, 1, 3, 2, 4, 5, 6])
    ordered, moved = in_reference_order(got, RIGHT, 1e-3, _by(*ranked))
    assert moved == count
    assert np.array_equal(ordered["boxes"], BOXES) == (count > 0)


@pytest.mark.parametrize(
    ("order", "count"),
    [
        ([1, 0, 3, 2, 5, 4, 6], 6),
        ([6, 5, 4, 3, 2, 1, 0], 0),
        ([6, 0, 1, 2, 3, 4, 5], 0),  # each row but one moves by one rank
        ([2, 0, 1, 3, 4, 5, 6], 0),
    ],
)
def test_ranks_that_fall_in_small_steps_tie_with_their_neighbours_alone(
    order: list[int], count: int
) -> None:
    steps = [1 - 8e-4 * rank for rank in range(7)]
    ordered, moved = in_reference_order(_shuffled(order), RIGHT, 1e-3, _by(steps))
    assert moved == count
    assert np.array_equal(ordered["boxes"], BOXES) == (count > 0)


def test_which_networks_select() -> None:
    assert selects(["Conv", "TopK"]) and not selects(["Conv", "Relu"])
