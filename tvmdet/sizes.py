"""Sizes of pictures in words: height first, as in ``--size HxW`` and ``size_hw``, and labelled.

Video tools and cameras put the width first, so that ``480x640`` alone says neither.
"""

from __future__ import annotations

__all__ = ["size_text"]


def size_text(size_hw: tuple[int, int]) -> str:
    """Returns ``480x640 (height x width)``."""
    height, width = size_hw
    return f"{height}x{width} (height x width)"
