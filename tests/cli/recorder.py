"""Stands in for the slow functions that the verbs call."""

from __future__ import annotations

from typing import Any


class Recorder:
    """Stands in for a slow function; remembers its last call."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.args: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.args, self.options = args, options
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer
