"""How much of the parity check an emulator can do in reasonable time."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["pictures_within", "too_much"]


def pictures_within(flop: Mapping[int, int], most_pictures: int, most_flop: float) -> int:
    """Returns on how many pictures every batch bucket can be emulated.

    Args:
        flop: Of one call, by the rows of its bucket.
        most_pictures: No more are asked for.
        most_flop: What all calls together may compute.

    Returns:
        From 0, when one picture is too much already, to ``most_pictures``.
    """
    for pictures in range(most_pictures, 0, -1):
        if _work(flop, pictures) <= most_flop:
            return pictures
    return 0


def _work(flop: Mapping[int, int], pictures: int) -> int:
    return sum(-(-pictures // rows) * each for rows, each in flop.items())


def too_much(flop: Mapping[int, int], most_flop: float) -> str:
    """Says that one picture in every bucket is more than may be emulated."""
    needed = _work(flop, 1) / 1e9
    return f"{needed:.1f} GFLOP are too many to emulate (at most {most_flop / 1e9:.0f})"
