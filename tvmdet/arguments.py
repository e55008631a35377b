"""Arguments of the public functions: what is plainly meant is taken, the rest refused by name.

Without these, a number where a list belongs or None where a path does ends in an error of Python's
own, from somewhere deep inside.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from tvmdet.errors import InputError

__all__ = [
    "as_batch_sizes",
    "as_path",
    "as_seconds",
    "as_size_hw",
    "as_whole",
    "check_callable",
    "check_flag",
    "check_kind",
    "check_model",
    "described",
]

_LONGEST_SHOWN = 60  # characters of a value in a message
_LARGEST_BATCH = 256


def described(value: object) -> str:
    """Returns a wrong value and its type, such as ``5 (int)``; ``None`` for None."""
    if value is None:
        return "None"
    text = " ".join(repr(value).split())
    if len(text) > _LONGEST_SHOWN:
        text = f"{text[: _LONGEST_SHOWN - 3]}..."
    return f"{text} ({type(value).__name__})"


def as_path(value: object, name: str) -> Path:
    """Returns a path.

    Args:
        value: A str, or a Path or another object with ``__fspath__``.
        name: Of the argument, for the message.

    Raises:
        InputError: It is something else.
    """
    path = value.__fspath__() if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise InputError(f"{name} is {described(value)}; give a path, as a str or a Path")
    return Path(path)


def as_whole(value: object) -> int | None:
    """Returns a whole number, of numpy's too, as an int; None for what is none, True among it."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return None


def as_batch_sizes(value: object) -> tuple[int, ...]:
    """Returns batch sizes, each once and the smallest first.

    Args:
        value: A whole number, or several.

    Raises:
        InputError: It is something else, or none, or out of range.
    """
    one = as_whole(value)
    given = [one] if one is not None else value
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        sizes: list[int | None] = [None]
    else:
        given = list(given)
        sizes = [as_whole(size) for size in given]
    found = sorted({size for size in sizes if size is not None})
    if not sizes or None in sizes or found[0] < 1 or found[-1] > _LARGEST_BATCH:
        raise InputError(
            f"batch sizes are {described(value)}; give one or more whole numbers from 1 to "
            f"{_LARGEST_BATCH}, such as (1, 4)"
        )
    return tuple(found)


def as_size_hw(value: object) -> tuple[int, int]:
    """Returns height and width in pixels.

    Args:
        value: Both, or one whole number for a square.

    Raises:
        InputError: It is something else, or not positive.
    """
    side = as_whole(value)
    sides = (side, side)
    if side is None and isinstance(value, Iterable) and not isinstance(value, str | bytes):
        given = [as_whole(one) for one in value]
        sides = (given[0], given[1]) if len(given) == 2 else (None, None)
    height, width = sides
    if height is None or width is None or height < 1 or width < 1:
        raise InputError(
            f"the input size is {described(value)}; give height and width in pixels, such as "
            "(480, 640)"
        )
    return height, width


def as_seconds(value: object, name: str) -> float:
    """Returns a time in seconds.

    Raises:
        InputError: It is no number, or not positive.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    seconds = float(value) if is_number else math.nan  # type: ignore[arg-type]
    if not seconds > 0:
        raise InputError(f"{name} is {described(value)}; give seconds, a number above 0")
    return seconds


def check_kind(value: object, kind: type | tuple[type, ...], name: str, allowed: str) -> None:
    """Refuses what is of another type.

    Args:
        value: An argument.
        kind: What it must be an instance of.
        name: Of the argument, for the message.
        allowed: What to give, in words.

    Raises:
        InputError: It is of another type.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} is {described(value)}; give {allowed}")


def check_flag(value: object, name: str) -> None:
    """Refuses what is neither True nor False.

    Raises:
        InputError: It is something else.
    """
    check_kind(value, bool, name, "True or False")


def check_callable(value: Callable[..., Any] | None, name: str) -> None:
    """Refuses what cannot be called; None is nothing to call.

    Raises:
        InputError: It cannot be called.
    """
    if value is not None and not callable(value):
        raise InputError(f"{name} is {described(value)}; give a function, or None")


def check_model(model: object) -> None:
    """Refuses what :func:`tvmdet.import_onnx` has not returned.

    Raises:
        InputError: It is something else, such as the path of a file.
    """
    if isinstance(model, str | os.PathLike):
        raise InputError(
            f"model is {described(model)}; import the file first: "
            f"tvmdet.import_onnx({os.fspath(model)!r})"
        )
    from tvmdet.frontend.model import Model  # whoever compiles or tunes has it already

    check_kind(model, Model, "model", "what tvmdet.import_onnx() returns")
