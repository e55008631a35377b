"""A contestant that does a given amount of work; run by ``rivals/serve.py`` in its own process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["load", "settings", "version"]

BLOCK = bytes(range(256)) * 256


def load(
    model: str, signature: Mapping[str, Any], *, threads: int, precision: str, mode: str
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Returns a function that hashes as many blocks as the name of the model says."""
    count = int(model)

    def run(_inputs: dict[str, Any]) -> dict[str, Any]:
        digest = hashlib.sha256()
        for _ in range(count):
            digest.update(BLOCK)
        return {}

    return run


def version() -> str:
    """Returns name and version."""
    return "work 1"


def settings(threads: int, precision: str, mode: str) -> str:
    """Says how it was set up."""
    return ""
