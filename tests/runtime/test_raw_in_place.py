"""Inputs of raw networks are read where they lie, if compiled code can."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import numpy.typing as npt
import pytest

from tvmdet.runtime.memory import aligned_empty
from tvmdet.runtime.raw import RawRunner, RawSignature, RawTensor

Array = npt.NDArray[np.float32]
ROWS = 4


def given_to_compiled_code(array: Array) -> Array:
    """Returns the argument that a network compiled for batches of ROWS is called with."""
    tensors = [
        RawTensor(name=name, shape=(1, 16), dtype=np.dtype(np.float32), batched=True)
        for name in ("x", "y")
    ]
    signature = RawSignature(
        inputs=(tensors[0],), outputs=(tensors[1],), batch_sizes=(ROWS,), one_by_one=False
    )
    seen: list[Array] = []

    def submit(_function: str, arguments: tuple[Array, ...]) -> Future[tuple[Array, ...]]:
        seen.append(arguments[0])
        future: Future[tuple[Array, ...]] = Future()
        future.set_result((arguments[0].copy(),))
        return future

    output = RawRunner(signature, submit, "network.tvmdet").run({"x": array})["y"]
    np.testing.assert_array_equal(output, array)
    assert not np.shares_memory(output, array)
    return seen[0]


def aligned(rows: int) -> Array:
    array = aligned_empty((rows, 16), np.float32)
    array[...] = np.arange(rows * 16, dtype=np.float32).reshape(rows, 16)
    return array


def shifted() -> Array:
    room = aligned_empty((ROWS * 16 + 4,), np.float32)
    array = room[4:].reshape(ROWS, 16)
    array[...] = aligned(ROWS)
    return array


def read_only() -> Array:
    array = aligned(ROWS)
    array.flags.writeable = False
    return array


def test_an_aligned_batch_is_not_copied() -> None:
    array = aligned(ROWS)
    assert given_to_compiled_code(array).ctypes.data == array.ctypes.data


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(shifted(), id="not aligned"),
        pytest.param(read_only(), id="read-only"),
        pytest.param(np.asfortranarray(aligned(ROWS)), id="column-major"),
        pytest.param(aligned(ROWS - 1), id="part of a batch"),
    ],
)
def test_other_arrays_are_copied(array: Array) -> None:
    given = given_to_compiled_code(array)
    assert given.shape == (ROWS, 16)
    assert given.flags.c_contiguous
    assert given.ctypes.data % 64 == 0
    assert not np.shares_memory(given, array)
