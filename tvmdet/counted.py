"""Counts in words: ``1 trial``, ``2 trials``."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, noun: str, plural: str = "") -> str:
    """Returns a count and what is counted, such as ``1 box`` and ``2 boxes``.

    Args:
        count: How many.
        noun: What one of them is called.
        plural: What several are called; by default the noun with an s.
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
