"""COCO's run-length encoding of masks, as pycocotools writes and reads it.

Pixels are counted column by column: first how many are not the object's, then how many are, and so
on in turn. The counts become text, from the fourth on as the difference to the count before the
last, in groups of five bits with the lowest first; each character holds a group, 32 more where
another group follows, and 48 more so that it can be read (``rleToString`` in
``common/maskApi.c`` of https://github.com/cocodataset/cocoapi).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.counted import counted
from tvmdet.errors import InputError
from tvmdet.sizes import size_text

__all__ = ["decode_rle", "encode_rle"]

_FIRST_CHARACTER = 48
_GROUP_BITS = 5


def encode_rle(
    pixels: npt.NDArray[np.bool_],
    size_hw: tuple[int, int] | None = None,
    *,
    top: int = 0,
    left: int = 0,
) -> dict[str, Any]:
    """Encodes a mask, or the part of one outside of which there is nothing.

    Args:
        pixels: bool ``[h, w]``.
        size_hw: Height and width of the image; by default those of ``pixels``.
        top: Row of the image at which ``pixels`` starts.
        left: Column of the image at which ``pixels`` starts.

    Returns:
        ``size``, height and width of the image, and ``counts``, text.
    """
    height, width = pixels.shape if size_hw is None else size_hw
    rows = pixels.shape[0] + 1
    # A pixel of nothing behind each column ends its runs there, and one before all of them.
    columns = np.zeros(pixels.shape[1] * rows + 1, np.bool_)
    columns[1:].reshape(-1, rows)[:, :-1] = pixels.T
    changes = np.flatnonzero(columns[1:] != columns[:-1])
    places = (changes // rows + left) * height + changes % rows + top
    starts, ends = places[::2], places[1::2]
    # Runs that end at the bottom of the image go on at the top of the next column.
    joined = np.flatnonzero(starts[1:] == ends[:-1])
    starts, ends = np.delete(starts, joined + 1), np.delete(ends, joined)
    turns = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(turns, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [int(height), int(width)], "counts": _to_text(counts)}


def _to_text(counts: npt.NDArray[np.int64]) -> str:
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    groups, present = [], []
    more = np.ones(len(rest), np.bool_)
    while np.any(more):
        present.append(more)
        group = rest & 31
        rest = rest >> _GROUP_BITS
        # The highest bit of the last group is the sign.
        more = more & (rest != np.where(group & 16, -1, 0))
        groups.append(group + 32 * more + _FIRST_CHARACTER)
    text = np.stack(groups, axis=1)[np.stack(present, axis=1)]
    return text.astype(np.uint8).tobytes().decode("ascii")


def decode_rle(rle: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Decodes a mask.

    Args:
        rle: ``size``, height and width, and ``counts``, text or bytes.

    Returns:
        bool ``[height, width]``, in a new array.

    Raises:
        InputError: The counts are no such text, or do not add up to the size.
    """
    height, width = rle["size"]
    text = rle["counts"]
    counts = _from_text(text.encode("ascii") if isinstance(text, str) else bytes(text))
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise InputError(
            f"the counts of a mask add up to {counted(sum(counts), 'pixel')}; its size is "
            f"{size_text((height, width))}: give counts and size of one mask, as "
            "pycocotools writes them"
        )
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T.copy()


def _from_text(text: bytes) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        group = character - _FIRST_CHARACTER
        if not 0 <= group < 64:
            raise InputError(
                f"the counts of a mask hold the character {chr(character)!r}; "
                "give compressed counts, as pycocotools writes them"
            )
        value |= (group & 31) << shift
        shift += _GROUP_BITS
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts
