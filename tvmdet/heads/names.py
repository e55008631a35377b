"""How exporters name inputs and outputs."""

from __future__ import annotations

__all__ = ["plain_name"]


def plain_name(name: str) -> str:
    """Returns a name without TensorFlow's suffix and scopes, in lower case."""
    return name.split(":")[0].rsplit("/", 1)[-1].lower()
