"""The weights of all targets of a file, laid out as one member."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.artifact import WeightEntry
from tvmdet.sealed_zip import ALIGNMENT_BYTES

__all__ = ["WeightStore"]


class WeightStore:
    """Collects arrays; those of equal bytes are stored once.

    Attributes:
        chunks: The contents of the member so far, without copies of the arrays.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self.chunks: list[bytes | memoryview] = []
        self._length = 0
        self._offsets: dict[bytes, int] = {}

    def add(self, array: npt.NDArray[Any]) -> WeightEntry:
        """Stores an array, which must not change any more; returns where."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        digest = hashlib.sha256(data).digest()
        if digest not in self._offsets:
            padding = bytes(-self._length % ALIGNMENT_BYTES)
            self._offsets[digest] = self._length + len(padding)
            self.chunks += [padding, data]
            self._length += len(padding) + len(data)
        return WeightEntry(offset=self._offsets[digest], dtype=array.dtype.name, shape=array.shape)
