"""Ctrl-C as a request that a loop can honour at a safe point."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["InterruptFlag"]


class InterruptFlag:
    """While entered, the first Ctrl-C sets :attr:`raised`; a second one acts at once.

    A KeyboardInterrupt in the middle of a callback from TVM would be lost in its C++. Outside
    the main thread, where Python delivers no signals, nothing is changed.

    Attributes:
        raised: Whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        """Makes a flag that is down."""
        self.raised = False
        self._previous: Any = None

    def __enter__(self) -> InterruptFlag:
        """Starts to listen."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        """Gives Ctrl-C back its former meaning."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.raised:
            raise KeyboardInterrupt
        self.raised = True
