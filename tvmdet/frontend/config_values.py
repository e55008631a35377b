"""Values in other projects' configurations, as they are parsed: anything may stand anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

__all__ = ["is_three_numbers", "tables_in"]


def is_three_numbers(value: Any) -> TypeGuard[list[float]]:
    """Returns whether a value is a list of three finite numbers, one a channel."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, int | float) and type(v) is not bool for v in value)
        and all(math.isfinite(v) for v in value)
    )


def tables_in(value: Any) -> list[Mapping[str, Any]]:
    """Returns the tables of a list; none of a value that is no list."""
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, Mapping)]
