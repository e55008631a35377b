"""Class names in files of their own, as they come with a model: one a line, YAML, or JSON.

- ``coco.names`` (Darknet), ``labels.txt``: one name a line, numbered (``0 person``, ``0: person``)
  or not; numbers count from 0.
- ``data.yaml`` (Ultralytics): a list ``names``, or a table of names by number.
- JSON: a list of names, a table of names by number, or either under ``names``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tvmdet.errors import InputError

__all__ = ["LABEL_SUFFIXES", "names_in", "read_labels"]

LABEL_SUFFIXES: Final = frozenset({".names", ".txt", ".yaml", ".yml"})
"""How files end that hold class names and are no spec; a JSON file may be either."""

_LARGEST: Final = 4 * 1024 * 1024  # bytes; 10,000 names are a twentieth of it
_NUMBERED: Final = re.compile(r"(\d+)(?:\s*[:,]\s*|\s+)(\S.*)")
_KEY: Final = "names"


def read_labels(path: Path) -> list[str]:
    """Reads class names, by class id.

    Args:
        path: A file, whose suffix says what it holds: ``.json``, ``.yaml`` or ``.yml``, else one
            name a line.

    Raises:
        InputError: The file cannot be read, or a line of it is no name.
    """
    text = _read(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _of_json(path, text)
    return _of_yaml(path, text) if suffix in (".yaml", ".yml") else _of_lines(path, text)


def names_in(values: Any) -> Any:
    """Returns what of JSON values holds class names; None for values of another kind."""
    if isinstance(values, Mapping) and _KEY in values:
        values = values[_KEY]
    is_table = isinstance(values, Mapping) and bool(values)
    if isinstance(values, list) or (is_table and all(str(key).isdecimal() for key in values)):
        return values
    return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"class names cannot be read from {path}: {reason}; give a text file with one name a "
            "line, a data.yaml of Ultralytics, or a JSON list"
        ) from error
    if len(data) > _LARGEST:
        raise InputError(f"{path} is larger than {_LARGEST} bytes; it holds no class names")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: the name is not UTF-8 text; save the file as UTF-8"
        ) from error


def _of_lines(path: Path, text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        pairs = [(match[1], match[2]) for match in numbered if match]
        return _by_number(path, ((n, key, name) for n, (key, name) in enumerate(pairs, start=1)))
    return _checked(path, ((f"line {n}", line) for n, line in enumerate(lines, start=1)))


def _by_number(path: Path, rows: Iterable[tuple[int, str, str]]) -> list[str]:
    """Returns names by their numbers, which must be those from 0 on."""
    found: dict[int, tuple[int, str]] = {}
    for line, key, name in rows:
        number = int(key)
        if number in found:
            raise InputError(
                f"{path}, line {line}: class {number} has a name already, in line "
                f"{found[number][0]}; give each number once"
            )
        found[number] = (line, name)
    for number, (wanted, (line, _)) in enumerate(zip(sorted(found), _sorted(found), strict=True)):
        if wanted != number:
            raise InputError(
                f"{path}, line {line}: class {wanted} follows, and class {number} has no name; "
                "number the names from 0 without gaps, one for each class that the network scores"
            )
    return _checked(path, ((f"line {line}", name) for line, name in _sorted(found)))


def _sorted(found: Mapping[int, tuple[int, str]]) -> list[tuple[int, str]]:
    return [found[number] for number in sorted(found)]


def _of_yaml(path: Path, text: str) -> list[str]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f", line {mark.line + 1}"
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise InputError(f"{path}{place} is not YAML: {problem}; correct it") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply; it holds no class names") from error
    names = dict(_entries(root)).get(_KEY, root)
    if isinstance(names, yaml.SequenceNode):
        return _checked(path, (_place(node) for node in names.value))
    if isinstance(names, yaml.MappingNode) and names.value:
        for key, _ in names.value:
            if not (isinstance(key, yaml.ScalarNode) and key.value.isdecimal()):
                raise InputError(
                    f"{path}, line {key.start_mark.line + 1}: {key.value!r} is no class number; "
                    f"{_YAML_FORM}"
                )
        rows = ((key.start_mark.line + 1, key.value, _place(value)) for key, value in names.value)
        return _by_number(path, ((line, key, _text(path, *value)) for line, key, value in rows))
    line = 1 if names is None else names.start_mark.line + 1
    raise InputError(f"{path}, line {line}: there are no class names; {_YAML_FORM}")


_YAML_FORM = "give `names:` with a list, or with lines such as `0: person`, as Ultralytics does"


def _entries(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), value) for key, value in node.value)


def _place(node: Any) -> tuple[str, Any]:
    """Returns the line of a YAML node, and its text; None where it is no text."""
    is_text = isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null"
    return f"line {node.start_mark.line + 1}", node.value if is_text else None


def _of_json(path: Path, text: str) -> list[str]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno} is not JSON: {error.msg}; correct it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; correct it") from error
    names = names_in(values)
    if names is None:
        raise InputError(
            f"{path} holds no class names; give a list of them, or a table of names by number"
        )
    if isinstance(names, Mapping):
        missing = [n for n in range(len(names)) if str(n) not in names]
        if missing:
            raise InputError(
                f"{path}: class {missing[0]} has no name; number the names from 0 without gaps"
            )
        return _checked(path, ((f"class {n}", names[str(n)]) for n in range(len(names))))
    return _checked(path, ((f"entry {n}", name) for n, name in enumerate(names, start=1)))


def _checked(path: Path, named: Iterable[tuple[str, Any]]) -> list[str]:
    names = [_text(path, place, name) for place, name in named]
    if not names:
        raise InputError(f"{path} holds no class names; give one for each class")
    return names


def _text(path: Path, place: str, name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        got = "empty" if name in (None, "") or isinstance(name, str) else f"{name!r}"
        raise InputError(f"{path}, {place}: the name is {got}; give text")
    return name.strip()
