"""A fixed piece of work, timed beside all else: how fast the machine itself is just now.

Virtual machines do not tell their clock, and a neighbour on the same core slows one down without
any trace in its accounts. What is timed in every round and never changes shows both. It is SHA-256
of one MiB: integer arithmetic of one thread, from the standard library, in the caches.
"""

from __future__ import annotations

import hashlib
import time

__all__ = ["Yardstick"]

_BYTES = 1 << 16
_PASSES = 16


class Yardstick:
    """The work, and a buffer for it."""

    def __init__(self) -> None:
        """Fills the buffer."""
        self._data = bytes(range(256)) * (_BYTES // 256)

    def time(self) -> float:
        """Returns the seconds that the work takes now, the better of two tries.

        The first one after a pause finds caches cold and the clock low.
        """
        return min(self._once(), self._once())

    def _once(self) -> float:
        start = time.perf_counter()
        digest = hashlib.sha256()
        for _ in range(_PASSES):
            digest.update(self._data)
        return time.perf_counter() - start
