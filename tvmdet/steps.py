"""Where the import of a model has come to, told step by step to whoever wants to know.

Native code that crashes or hangs cannot say where. A process that does dangerous work for
another (:mod:`tvmdet.contain`) listens here, so that the last step can be named.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["listen", "reached"]

_listeners: list[Callable[[str], None]] = []


def reached(step: str) -> None:
    """Tells that a step begins.

    Args:
        step: What is done now, to follow the word "while": ``importing node 'x' (Conv)``.
    """
    for listener in _listeners:
        listener(step)


def listen(listener: Callable[[str], None]) -> None:
    """Has every further step of this process told to a function, from any thread."""
    _listeners.append(listener)
