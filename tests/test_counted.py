"""Counts in words."""

from __future__ import annotations

import pytest

from tvmdet.counted import counted


@pytest.mark.parametrize(
    ("count", "words", "expected"),
    [
        (0, ("trial",), "0 trials"),
        (1, ("trial",), "1 trial"),
        (2, ("trial",), "2 trials"),
        (1, ("box", "boxes"), "1 box"),
        (0, ("box", "boxes"), "0 boxes"),
        (7, ("more source",), "7 more sources"),
    ],
)
def test_one_is_no_plural(count: int, words: tuple[str, ...], expected: str) -> None:
    assert counted(count, *words) == expected
