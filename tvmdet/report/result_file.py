"""Results as files: written whole, read with every value checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tvmdet.errors import InputError
from tvmdet.report.result_check import check_result
from tvmdet.report.result_format import FORMAT, SCHEMA, Result
from tvmdet.report.result_upgrade import is_schema_1, upgrade
from tvmdet.report.typed_json import Mismatch, from_json, json_schema, to_json

__all__ = [
    "REPORT_FORMAT",
    "dump_result",
    "holds_result",
    "load_result",
    "load_results",
    "parse_result",
    "read_object",
    "result_digest",
    "result_schema",
]

REPORT_FORMAT = "tvmdet report"
"""What the key ``format`` says in a report's JSON, which holds results."""

_LIMIT_BYTES = 1 << 30
_AGAIN = "run `tvmdet bench FILE.tvmdet --json FILE.json` again"


def dump_result(value: Mapping[str, Any]) -> str:
    """Returns a result's JSON values as the text of a file; lists of numbers take one line each."""
    return "".join(_pieces(value, "\n")) + "\n"


def _pieces(value: Any, line: str) -> Iterator[str]:
    deeper = line + " "
    if isinstance(value, Mapping) and value:
        for index, (key, one) in enumerate(value.items()):
            yield f"{',' if index else '{'}{deeper}{_compact(str(key))}: "
            yield from _pieces(one, deeper)
        yield line + "}"
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        for index, one in enumerate(value):
            yield f"{',' if index else '['}{deeper}"
            yield from _pieces(one, deeper)
        yield line + "]"
    else:
        yield _compact(value)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def load_result(path: str | Path) -> Result:
    """Reads what ``tvmdet bench --json`` wrote, of this schema or an older one.

    Raises:
        InputError: There is no such file, it is cut off or no result, of a newer schema, or a
            value in it is not what the schema asks for.
    """
    return parse_result(read_object(Path(path)), path)


def holds_result(path: Path) -> bool:
    """Whether a file is there and holds a result, of whichever schema, damaged or not."""
    try:
        value = read_object(path)
    except InputError:
        return False
    return value.get("format") == FORMAT or is_schema_1(value)


def parse_result(value: dict[str, Any], path: str | Path) -> Result:
    """Reads the JSON values of a result that came from a file.

    Raises:
        InputError: As :func:`load_result`.
    """
    schema = _schema_of(path, value)
    try:
        result = from_json(Result, upgrade(value, schema))
        check_result(result)
    except Mismatch as error:
        raise InputError(f"{path} is a damaged result: {error}; {_AGAIN}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is a damaged result of schema {schema}: {type(error).__name__} {error}; "
            f"{_AGAIN}"
        ) from error
    return result


def load_results(paths: Iterable[str | Path]) -> list[Result]:
    """Reads several results, in their order.

    Raises:
        InputError: There are none, one of them is there twice, or as :func:`load_result`.
    """
    results: list[Result] = []
    seen: dict[str, str | Path] = {}
    for path in paths:
        result = load_result(path)
        digest = result_digest(result)
        if digest in seen:
            raise InputError(
                f"{seen[digest]} and {path} are the same result; give each result once"
            )
        seen[digest] = path
        results.append(result)
    if not results:
        raise InputError(
            "there is no result to report on; give at least one file that "
            "`tvmdet bench FILE.tvmdet --json FILE.json` wrote"
        )
    return results


def result_digest(result: Result) -> str:
    """Returns the SHA-256 of what a result says, however its file is laid out."""
    text = json.dumps(to_json(result), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def result_schema() -> dict[str, Any]:
    """Returns the JSON Schema of the newest results."""
    return json_schema(Result, f"tvmdet benchmark, schema {SCHEMA}")


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object, of whatever it is.

    Raises:
        InputError: It cannot be read, is cut off, or holds something else.
    """
    try:
        size = path.stat().st_size
        if size > _LIMIT_BYTES:
            raise InputError(
                f"{path} has {size} bytes, more than any result ({_LIMIT_BYTES}); give a file "
                "that `tvmdet bench FILE.tvmdet --json FILE.json` wrote"
            )
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; give a file that "
            "`tvmdet bench FILE.tvmdet --json FILE.json` wrote"
        ) from error
    if not data.strip():
        raise InputError(f"{path} is empty; {_AGAIN}")
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        cut = isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip()) - 1
        what = "is cut off" if cut else "is not JSON"
        raise InputError(f"{path} {what} ({error}); {_AGAIN}, or copy the whole file") from error
    if not isinstance(value, dict):
        raise InputError(_foreign(path))
    return value


def _schema_of(path: str | Path, value: dict[str, Any]) -> int:
    if "format" not in value and "schema" not in value and is_schema_1(value):
        return 1
    if value.get("format") != FORMAT:
        raise InputError(_foreign(path, value))
    schema = value.get("schema")
    if type(schema) is not int or schema < 1:
        raise InputError(f"{path} is a damaged result: its schema is {schema!r}; {_AGAIN}")
    if schema > SCHEMA:
        raise InputError(
            f"{path} has schema {schema}, and this tvmdet reads schemas 1 to {SCHEMA}; read it "
            "with the tvmdet that wrote it or a newer one (`pip install --upgrade tvmdet`)"
        )
    return schema


def _foreign(path: str | Path, value: object = None) -> str:
    if isinstance(value, Mapping) and value.get("format") == REPORT_FORMAT:
        return (
            f"{path} is a report that `tvmdet report` wrote, not a result of `tvmdet bench`; give "
            "the results that it was made from (`tvmdet report --baseline` reads it as it is)"
        )
    return (
        f'{path} is JSON, but not a result of `tvmdet bench --json` (its key "format" would say '
        f'"{FORMAT}"); {_AGAIN}'
    )


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


if __name__ == "__main__":
    print(json.dumps(result_schema(), indent=1))
