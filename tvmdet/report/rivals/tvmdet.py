"""tvmdet: a file compiled with ``--raw``, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvmdet

__all__ = ["load", "settings", "version"]

_target: list[str] = []


def load(
    model: str,
    signature: Mapping[str, Any],
    *,
    threads: int,
    precision: str,
    mode: str,
    target: str | None = None,
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Loads the file, to run the code of ``target``; None for that of its best one.

    Raises:
        RuntimeError: It would run the code of another target.
    """
    detector = tvmdet.load(model, threads=threads, target=target)
    if target is not None and detector.target != target:
        raise RuntimeError(f"it runs the code of {detector.target}, not that of {target}")
    _target[:] = [detector.target]
    return detector.run


def version() -> str:
    """Returns name and version."""
    return f"tvmdet {tvmdet.__version__}"


def settings(threads: int, precision: str, mode: str, target: str | None = None) -> str:
    """Says how it was set up."""
    return f"compiled for {' '.join(_target)}, threads={threads}"
