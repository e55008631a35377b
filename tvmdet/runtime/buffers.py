"""Input buffers of compiled functions, reused from call to call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["BufferPool"]

Key = TypeVar("Key")
Buffer = TypeVar("Buffer")


class BufferPool(Generic[Key, Buffer]):
    """Buffers that are lent to one caller at a time.

    There are as many of a kind as were ever lent at once. A caller that is interrupted keeps
    its buffer, which compiled code may still be reading; a new one takes its place.
    """

    def __init__(self, make: Callable[[Key], Buffer]) -> None:
        """Starts empty; ``make(key)`` makes a buffer when none of that kind is free."""
        self._make = make
        # Appending to a list and popping from it are atomic, so that no lock is needed.
        self._free: defaultdict[Key, list[Buffer]] = defaultdict(list)

    def lend(self, key: Key) -> Buffer:
        """Returns a free buffer of a kind, with whatever its last user left in it."""
        try:
            return self._free[key].pop()
        except IndexError:
            return self._make(key)

    def give_back(self, key: Key, buffer: Buffer) -> None:
        """Takes a buffer back that nobody reads any more."""
        self._free[key].append(buffer)
