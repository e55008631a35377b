"""Detector families, one module each; a module with a :class:`Head` in it is registered."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from tvmdet.errors import InputError
from tvmdet.heads.base import (
    AtOdds,
    ColumnRun,
    Decoded,
    GraphSummary,
    Head,
    MaskValues,
    Near,
    Question,
    Recognition,
    TensorSummary,
)

__all__ = [
    "AtOdds",
    "ColumnRun",
    "Decoded",
    "GraphSummary",
    "Head",
    "MaskValues",
    "Near",
    "Question",
    "Recognition",
    "TensorSummary",
    "all_heads",
    "get_head",
]


@cache
def all_heads() -> tuple[Head, ...]:
    """Returns one instance of every head in this folder, sorted by name."""
    found: dict[str, Head] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__ == module.__name__
            if own and issubclass(value, Head) and not inspect.isabstract(value):
                found[value.name] = value()
    return tuple(found[name] for name in sorted(found))


def get_head(name: str) -> Head:
    """Returns the head of a family.

    Raises:
        InputError: There is no such family.
    """
    heads = {head.name: head for head in all_heads()}
    if name not in heads:
        raise InputError(
            f"there is no detector family {name!r}; allowed: {', '.join(heads)}; "
            "a network of another family compiles with --raw"
        )
    return heads[name]
