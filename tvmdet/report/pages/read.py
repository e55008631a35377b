"""Results and earlier reports, read from files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tvmdet.errors import InputError
from tvmdet.report.pages.data import REPORT_FORMAT, REPORT_SCHEMA
from tvmdet.report.pages.runs import Source
from tvmdet.report.result_file import load_results, parse_result, read_object

__all__ = ["read_baseline", "read_sources"]


def read_sources(paths: Iterable[str | Path]) -> list[Source]:
    """Reads results.

    Raises:
        InputError: There are none, one is there twice, or one cannot be used.
    """
    files = [str(path) for path in paths]
    return [
        Source(file=file, result=result)
        for file, result in zip(files, load_results(files), strict=True)
    ]


def read_baseline(paths: Iterable[str | Path]) -> list[Source]:
    """Reads earlier results, each a file of its own or all in the JSON of an earlier report.

    Raises:
        InputError: A file cannot be used.
    """
    found: list[Source] = []
    for path in paths:
        value = read_object(Path(path))
        if value.get("format") == REPORT_FORMAT:
            found += _from_report(value, str(path))
        else:
            found.append(Source(file=str(path), result=parse_result(value, path)))
    return found


def _from_report(value: dict[str, Any], path: str) -> list[Source]:
    schema, entries = value.get("schema"), value.get("results")
    if type(schema) is not int or not isinstance(entries, list):
        raise InputError(f"{path} is a damaged report; write it again with `tvmdet report`")
    if schema > REPORT_SCHEMA:
        raise InputError(
            f"{path} is a report of schema {schema}, and this tvmdet reads {REPORT_SCHEMA}; read "
            "it with the tvmdet that wrote it, or give the results themselves"
        )
    found = []
    for index, entry in enumerate(entries):
        result = entry.get("result") if isinstance(entry, dict) else None
        if not isinstance(result, dict):
            raise InputError(f"{path} is a damaged report: results[{index}] holds no result")
        where = f"results[{index}] of {path}"
        found.append(Source(file=path, result=parse_result(result, where)))
    return found
