"""Results of older schemas as those of the newest one: one step for each schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tvmdet.report.result_format import FORMAT, SCHEMA
from tvmdet.report.statistics import summarise

__all__ = ["is_schema_1", "upgrade"]

Json = dict[str, Any]

_KEYS_OF_1 = {"artifact", "model", "target", "threads", "machine", "tables", "command"}


def is_schema_1(value: Mapping[str, Any]) -> bool:
    """Returns whether an object without a format is what the first ``bench --json`` wrote."""
    return value.keys() >= _KEYS_OF_1 and isinstance(value["artifact"], str)


def upgrade(value: Json, schema: int) -> Json:
    """Returns the JSON values of a result as the newest schema has them.

    Args:
        value: The result, not yet checked.
        schema: Of the result, at least 1 and at most the newest.

    Raises:
        KeyError: A value that the older schema always has is missing, or is of another type; so
            do the other two.
        TypeError: As above.
        ValueError: As above.
    """
    for number in range(schema, SCHEMA):
        value = _STEPS[number](value)
    return value


def _from_1(value: Json) -> Json:
    tables = [{**t, "entries": [_entry_from_1(e) for e in t["entries"]]} for t in value["tables"]]
    precision = next((e["precision"] for t in tables for e in t["entries"][:1]), "fp32")
    return {
        **value,
        "format": FORMAT,
        "schema": 2,
        "created": "",
        "setup": None,
        "artifact": {"path": value["artifact"]},
        "target": {
            "name": value["target"],
            "arch": value["machine"]["arch"],
            "precision": precision,
        },
        "versions": {"python": value["machine"]["python"]},
        "tables": tables,
        "members": [
            {
                "target": value["target"],
                "arch": value["machine"]["arch"],
                "state": "measured",
            }
        ],
        "warnings": ["a result of schema 1: without noise floor, digests, memory and setup"],
    }


def _entry_from_1(entry: Json) -> Json:
    rounds_us = np.asarray(entry["rounds_us"], np.float64)
    stages = [
        {"name": name, "median_ms": median_ms} for name, median_ms in entry["phases_ms"].items()
    ]
    latency = summarise(rounds_us * 1e-6).to_dict() if rounds_us.size else None
    return {**entry, "latency": latency, "stages": stages}


_STEPS: Mapping[int, Callable[[Json], Json]] = {1: _from_1}
