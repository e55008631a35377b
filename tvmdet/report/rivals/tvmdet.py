"""tvmdet: a file compiled with ``--raw``, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvmdet

__all__ = ["load", "settings", "version"]

_target: list[str] = []


def load(
    model: str, signature: Mapping[str, Any], *, threads: int, precision: str, mode: str
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Loads the file."""
    detector = tvmdet.load(model, threads=threads)
    _target[:] = [detector.target]
    return detector.run


def version() -> str:
    """Returns name and version."""
    return f"tvmdet {tvmdet.__version__}"


def settings(threads: int, precision: str, mode: str) -> str:
    """Says how it was set up."""
    return f"compiled for {' '.join(_target)}, threads={threads}"
