"""Arrays on the boundary that compiled code wants; large ones in memory that was used before."""

from __future__ import annotations

import gc
import mmap
import os
import threading
from collections import deque

import numpy as np
import pytest

from tvmdet.runtime import memory
from tvmdet.runtime.memory import aligned_empty, recycled_copy, recycled_empty

LARGE = (256, 1024)  # of float32: 1 MiB


@pytest.fixture(autouse=True)
def nothing_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_free", deque(maxlen=memory._MOST_FREE))


@pytest.mark.parametrize("make", [aligned_empty, recycled_empty])
@pytest.mark.parametrize("shape", [(), (3,), (5, 7, 9), LARGE], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
def test_arrays_begin_on_the_boundary(make: type, shape: tuple[int, ...], dtype: str) -> None:
    array = make(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.ctypes.data % 64 == 0 and array.flags.c_contiguous and array.flags.writeable
    array[...] = 7
    assert (array == 7).all()


def test_memory_is_used_again_when_every_view_is_gone() -> None:
    first = recycled_empty(LARGE, "float32")
    place = first.ctypes.data
    view = first[3:, ::2].T
    view[...] = 5
    del first
    gc.collect()
    other = recycled_empty(LARGE, "float32")
    assert not np.shares_memory(view, other) and (view == 5).all()
    del view
    assert recycled_empty((1024, 200), "float32").ctypes.data == place, "a somewhat smaller one"


def test_much_smaller_arrays_do_not_take_a_large_block() -> None:
    large = recycled_empty((4, *LARGE), "float32")
    place = large.ctypes.data
    del large
    small = recycled_empty(LARGE, "float32")
    assert small.ctypes.data != place
    assert recycled_empty((4, *LARGE), "float32").ctypes.data == place


def test_few_blocks_wait() -> None:
    arrays = [recycled_empty(LARGE, "float32") for _ in range(3 * memory._MOST_FREE)]
    arrays.clear()
    assert len(memory._free) == memory._MOST_FREE


def test_few_bytes_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MOST_FREE_BYTES", 64 << 20)
    arrays = [recycled_empty((24 << 20,), "uint8") for _ in range(4)]
    arrays.clear()
    assert sum(map(len, memory._free)) == 48 << 20


def test_a_forked_child_writes_to_its_own_memory() -> None:
    array = recycled_empty(LARGE, "float32")
    array[...] = 1
    child = os.fork()
    if child == 0:
        array[...] = 99
        os._exit(0 if (array == 99).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (array == 1).all()


def test_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(mmap.mmap):
        def madvise(self, *_arguments: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(memory.mmap, "mmap", Refusing)
    array = recycled_empty(LARGE, "float32")
    array[...] = 3
    assert (array == 3).all()


def test_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: int, **_more: int) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(memory.mmap, "mmap", refuse)
    with pytest.raises(MemoryError, match="no memory for an array of 1048576 bytes"):
        recycled_empty(LARGE, "float32")


def test_a_copy_is_contiguous_and_its_own() -> None:
    array = np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024)[:, ::2].T
    copy = recycled_copy(array)
    assert copy.flags.c_contiguous and not np.shares_memory(copy, array)
    np.testing.assert_array_equal(copy, array)


def test_threads_never_share_a_block() -> None:
    count = 6
    wrong: list[int] = []
    together = threading.Barrier(count)

    def work(mark: int) -> None:
        for _ in range(100):
            array = recycled_empty(LARGE, "float32")
            array[::64] = mark
            together.wait()  # all have written to theirs
            if not (array[::64] == mark).all():
                wrong.append(mark)
            together.wait()
            del array

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
