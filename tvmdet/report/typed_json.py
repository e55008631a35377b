"""JSON values to frozen dataclasses and back, and the JSON Schema that describes them.

The dataclasses say what a file may hold: their annotations are checked while reading, every
mistake is named by its place in the file, and the schema that other programs may check with is made
from the same annotations.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from tvmdet.counted import counted

__all__ = ["Mismatch", "Within", "from_json", "json_schema", "to_json"]

T = TypeVar("T")

_SIMPLE: Mapping[Any, tuple[str, str]] = {
    str: ("string", "a text"),
    bool: ("boolean", "true or false"),
    int: ("integer", "a whole number"),
    float: ("number", "a number"),
}


@dataclass(frozen=True)
class Within:
    """In ``Annotated[float, Within(0, 1e15)]``: between what a number lies.

    Attributes:
        least: The least value.
        most: The greatest; what is above it is damage, and would overflow where it is drawn.
    """

    least: float
    most: float = math.inf


class Mismatch(ValueError):
    """A value is not what its place in the file asks for; the message names both."""

    def __init__(self, where: str, problem: str) -> None:
        """Takes the place and what is wrong with it."""
        super().__init__(f"{where or 'the file'} {problem}")


def from_json(kind: type[T], value: Any, where: str = "") -> T:
    """Returns a dataclass with the values of a JSON object.

    Args:
        kind: The dataclass. Keys that it has no field for are passed over.
        value: What was read.
        where: The place of the value in the file.

    Raises:
        Mismatch: A key is missing, or a value is of another type or out of its range.
    """
    read: T = _read(kind, value, where)
    return read


def _read(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _read_object(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if kind in _SIMPLE:
        return _read_simple(kind, value, where)
    if origin is Annotated:
        return _read_bounded(arguments, value, where)
    if origin is Literal:
        return _read_literal(arguments, value, where)
    if origin in (typing.Union, types.UnionType):
        (other,) = (one for one in arguments if one is not types.NoneType)
        return None if value is None else _read(other, value, where)
    if origin is tuple:
        return _read_list(arguments, value, where)
    if origin is list:
        return list(_read_list((*arguments, Ellipsis), value, where))
    if origin in (Mapping, dict):
        if not isinstance(value, dict):
            raise Mismatch(where, f"is {_shown(value)}, not an object")
        return {key: _read(arguments[1], one, f"{where}.{key}") for key, one in value.items()}
    raise TypeError(f"{kind!r} is no type that JSON is read into")


def _read_object(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise Mismatch(where, f"is {_shown(value)}, not an object")
    hints = _hints(kind)
    given = {}
    for field in dataclasses.fields(kind):
        place = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            given[field.name] = _read(hints[field.name], value[field.name], place)
        elif _is_required(field):
            raise Mismatch(place, "is missing")
    return kind(**given)


def _read_simple(kind: Any, value: Any, where: str) -> Any:
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            raise Mismatch(where, "is too large a number") from None
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise Mismatch(where, f"is {_shown(value)}, not {_SIMPLE[kind][1]}")
    return value


def _read_bounded(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    number = _read(arguments[0], value, where)
    if number < arguments[1].least:
        raise Mismatch(where, f"is {_shown(number)}, less than {arguments[1].least:g}")
    if number > arguments[1].most:
        raise Mismatch(
            where, f"is {_shown(number)}, not plausible: more than {arguments[1].most:g}"
        )
    return number


def _read_literal(allowed: tuple[Any, ...], value: Any, where: str) -> Any:
    # True == 1, but is not what is written for it.
    if not any(type(value) is type(one) and value == one for one in allowed):
        raise Mismatch(where, f"is {_shown(value)}, not {' or '.join(map(repr, allowed))}")
    return value


def _read_list(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list):
        raise Mismatch(where, f"is {_shown(value)}, not a list")
    if arguments[-1] is Ellipsis:
        if (numbers := _read_numbers(arguments[0], value)) is not None:
            return numbers
        return tuple(_read(arguments[0], one, f"{where}[{i}]") for i, one in enumerate(value))
    if len(value) != len(arguments):
        raise Mismatch(where, f"has {counted(len(value), 'value')}, not {len(arguments)}")
    pairs = zip(arguments, value, strict=True)
    return tuple(_read(kind, one, f"{where}[{i}]") for i, (kind, one) in enumerate(pairs))


def _read_numbers(kind: Any, value: list[Any]) -> tuple[float, ...] | None:
    """Returns a list of numbers at once, None where that is not what it is: timings are many."""
    least, most = -math.inf, math.inf
    if typing.get_origin(kind) is Annotated:
        kind, bound = typing.get_args(kind)
        least, most = bound.least, bound.most
    if kind is not float or not set(map(type, value)) <= {float}:
        return None
    numbers = tuple(value)
    # NaN compares as false.
    return numbers if all(least <= one <= most and one < math.inf for one in numbers) else None


def to_json(value: Any) -> Any:
    """Returns a dataclass, and all in it, as plain JSON values."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): to_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    return value


def json_schema(kind: type[Any], title: str) -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of what :func:`from_json` reads into a dataclass."""
    named: dict[str, Any] = {}
    _describe(kind, named)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **named.pop(kind.__name__),
        "$defs": dict(sorted(named.items())),
    }


def _describe(kind: Any, named: dict[str, Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        return _describe_object(kind, named)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return {}
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind][0]}
    if origin is Annotated:
        return {**_describe(arguments[0], named), **_bounds(arguments[1])}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        (other,) = (one for one in arguments if one is not types.NoneType)
        return {"anyOf": [_describe(other, named), {"type": "null"}]}
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": _describe(arguments[0], named)}
    if origin is tuple:
        items = [_describe(one, named) for one in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _describe(arguments[1], named)}
    raise TypeError(f"{kind!r} has no JSON Schema")


def _bounds(within: Within) -> dict[str, float]:
    most = {} if math.isinf(within.most) else {"maximum": within.most}
    return {"minimum": within.least, **most}


def _describe_object(kind: Any, named: dict[str, Any]) -> dict[str, Any]:
    name: str = kind.__name__
    if name not in named:
        named[name] = {}  # a place, for what refers to itself
        told, hints = _told(kind), _hints(kind)
        fields = dataclasses.fields(kind)
        named[name] = {
            "type": "object",
            "description": (kind.__doc__ or "").splitlines()[0],
            "properties": {
                field.name: {"description": told[field.name], **_describe(hints[field.name], named)}
                for field in fields
            },
            "required": [field.name for field in fields if _is_required(field)],
        }
    return {"$ref": f"#/$defs/{name}"}


def _told(kind: Any) -> dict[str, str]:
    """Returns what the docstring of a dataclass says of each attribute."""
    _, _, text = (kind.__doc__ or "").partition("Attributes:\n")
    told: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        name, colon, rest = line.strip().partition(": ")
        if colon and line.startswith(" " * 8) and not line.startswith(" " * 9):
            last = name
            told[last] = rest
        elif last and line.strip():
            told[last] += f" {line.strip()}"
    return told


def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
