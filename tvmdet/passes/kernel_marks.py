"""What a kernel written by hand computes, noted on it: another target may have one of its own."""

from __future__ import annotations

import json
from typing import Any

from tvm import tirx

__all__ = ["mark_kernel", "read_mark"]

_KEY = "tvmdet.kernel"


def mark_kernel(func: tirx.PrimFunc, name: str, **facts: Any) -> tirx.PrimFunc:
    """Returns the function with its name and the arguments that it was made with, plain values."""
    return func.with_attr(_KEY, json.dumps({"name": name, **facts}, sort_keys=True))


def read_mark(func: tirx.PrimFunc) -> dict[str, Any] | None:
    """Returns what :func:`mark_kernel` noted; None for another function."""
    if func.attrs is None or _KEY not in func.attrs:
        return None
    found: dict[str, Any] = json.loads(str(func.attrs[_KEY]))
    return found
