"""COCO's run-length encoding, against its definition and against pycocotools."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tvmdet.errors import InputError
from tvmdet.rle import decode_rle, encode_rle


def counts_of(mask: np.ndarray) -> list[int]:
    """The uncompressed counts, from the definition."""
    flat = mask.ravel(order="F").tolist()
    runs = [(value, len(list(group))) for value, group in itertools.groupby(flat)]
    return ([0] if runs and runs[0][0] else []) + [length for _, length in runs]


def text_of(counts: list[int]) -> str:
    """``rleToString`` of pycocotools, statement by statement."""
    text = ""
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            group = value & 31
            value >>= 5
            more = value != -1 if group & 16 else value != 0
            text += chr(group + (32 if more else 0) + 48)
    return text


def masks() -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    made = [
        ("nothing", np.zeros((5, 7), bool)),
        ("everything", np.ones((5, 7), bool)),
        ("one pixel", np.ones((1, 1), bool)),
        ("no pixel", np.zeros((1, 1), bool)),
        ("first and last", np.eye(4, dtype=bool)),
        ("full columns", np.tile([False, True, True, False], (6, 1))),
        ("full rows", np.tile([[True], [False], [True]], (1, 5))),
        ("long runs", np.kron(rng.random((3, 4)) > 0.5, np.ones((200, 300), bool)) > 0),
    ]
    for seed, share in enumerate((0.05, 0.5, 0.95)):
        shape = tuple(np.random.default_rng(seed).integers(1, 60, 2))
        made.append((f"noise {share}", rng.random(shape) < share))
    return made


MASKS = masks()


@pytest.mark.parametrize("mask", [m for _, m in MASKS], ids=[name for name, _ in MASKS])
def test_text_is_that_of_the_definition_and_comes_back(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    assert rle == {"size": list(mask.shape), "counts": text_of(counts_of(mask))}
    np.testing.assert_array_equal(decode_rle(rle), mask)
    as_bytes = {**rle, "counts": rle["counts"].encode()}
    np.testing.assert_array_equal(decode_rle(as_bytes), mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("mask", [m for _, m in MASKS], ids=[name for name, _ in MASKS])
def test_pycocotools_writes_and_reads_the_same(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    mine = encode_rle(mask)
    assert mine["counts"] == theirs["counts"].decode()
    np.testing.assert_array_equal(coco.decode(mine).astype(bool), mask)
    np.testing.assert_array_equal(decode_rle(theirs), mask)
    assert coco.area(mine) == mask.sum()


@pytest.mark.parametrize("size_hw", [(40, 50), (23, 31), (23, 50)])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (10, 19), (17, 0), (0, 3)])
def test_a_part_is_encoded_where_it_lies(size_hw: tuple[int, int], top: int, left: int) -> None:
    whole = np.zeros(size_hw, bool)
    height, width = min(23, size_hw[0] - top), min(31, size_hw[1] - left)
    part = np.random.default_rng(top).random((height, width)) < 0.7
    whole[top : top + height, left : left + width] = part
    assert encode_rle(part, size_hw, top=top, left=left) == encode_rle(whole)


def test_a_part_of_nothing() -> None:
    nothing = np.zeros((0, 3), bool)
    assert encode_rle(nothing, (4, 5), top=4, left=1) == encode_rle(np.zeros((4, 5), bool))


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [3, 4], "counts": ""}, r"add up to 0 pixels; its size is 3x4 \(height x width\)"),
        ({"size": [3, 4], "counts": encode_rle(np.ones((3, 5), bool))["counts"]}, "15 pixels"),
        ({"size": [3, 4], "counts": "~"}, "hold the character '~'"),
        ({"size": [3, 4], "counts": "\n"}, "hold the character"),
        ({"size": [0, 1], "counts": text_of([1, -1])}, "add up to"),
    ],
)
def test_refuses_counts_that_are_none(rle: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_rle(rle)
