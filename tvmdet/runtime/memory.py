"""Memory of arrays that compiled code reads and writes: on its boundary, and used again.

The system gives fresh memory away in pages of 4 KiB, each at its first use, which takes several
microseconds; and malloc may give memory back as soon as a large array is freed. Outputs of a
network that go to the caller are that large, and made anew in every call.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["aligned_empty", "is_readable_in_place", "recycled_copy", "recycled_empty"]

_ALIGNMENT_BYTES: Final = 64
"""What compiled code assumes of its buffers (``kAllocAlignment`` in TVM's runtime)."""

_LEAST_BYTES: Final = 128 << 10
"""Smaller arrays are numpy's own: malloc mostly keeps their memory."""

_MOST_FREE: Final = 8
_MOST_FREE_BYTES: Final = 256 << 20
"""Of blocks that wait to be used again, and of them together: what is beyond is given back."""

# Used from several threads, and by finalizers in the midst of anything: no lock, only operations
# of a deque that are atomic.
_free: deque[mmap.mmap] = deque(maxlen=_MOST_FREE)


def aligned_empty(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Returns an uninitialised array whose first byte lies where compiled code wants it."""
    dtype = np.dtype(dtype)
    length = _length(shape, dtype)
    room = np.empty(length + _ALIGNMENT_BYTES, dtype=np.uint8)
    start = -room.ctypes.data % _ALIGNMENT_BYTES
    return room[start : start + length].view(dtype).reshape(tuple(shape))


def is_readable_in_place(array: npt.NDArray[Any]) -> bool:
    """Returns whether compiled code can read an array where it lies.

    DLPack, which hands it over, takes no read-only arrays.
    """
    flags = array.flags
    aligned = array.ctypes.data % _ALIGNMENT_BYTES == 0
    return bool(flags.c_contiguous and flags.writeable and aligned)


def recycled_empty(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Returns an array as :func:`aligned_empty` does, if it is large in memory used before.

    Its memory is used again when the array, and every view of it, is gone.
    """
    dtype = np.dtype(dtype)
    length = _length(shape, dtype)
    if length < _LEAST_BYTES:
        return aligned_empty(shape, dtype)
    block = _block(length)
    lease = (ctypes.c_char * len(block)).from_buffer(block)
    weakref.finalize(lease, _keep, block).atexit = False
    return np.frombuffer(memoryview(lease), np.uint8, length).view(dtype).reshape(tuple(shape))


def recycled_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns a C-contiguous copy, if it is large in memory used before."""
    if array.nbytes < _LEAST_BYTES:
        return array.copy()
    made = recycled_empty(array.shape, array.dtype)
    np.copyto(made, array)
    return made


def _block(length: int) -> mmap.mmap:
    for _ in range(len(_free)):
        try:
            block = _free.popleft()
        except IndexError:
            break  # another thread took it
        if length <= len(block) <= 2 * length:
            return block
        _free.append(block)
    try:
        # Private: a forked child gets a copy, not the parent's memory.
        block = mmap.mmap(
            -1,
            -(-length // mmap.PAGESIZE) * mmap.PAGESIZE,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
        )
    except OSError as error:
        raise MemoryError(f"no memory for an array of {length} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _keep(block: mmap.mmap) -> None:
    if len(block) + sum(map(len, tuple(_free))) <= _MOST_FREE_BYTES:
        _free.append(block)


def _length(shape: Sequence[int], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
