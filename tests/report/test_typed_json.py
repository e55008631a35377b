"""JSON into frozen dataclasses: what is taken, what is refused, and the schema of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from tvmdet.report.typed_json import Mismatch, Within, from_json, json_schema, to_json


@dataclass(frozen=True, kw_only=True)
class Leg:
    """One leg.

    Attributes:
        length: In metres, of a leg that
            may be long.
        marks: Along it.
    """

    length: Annotated[float, Within(0, 100)]
    marks: tuple[Annotated[float, Within(0, 100)], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Chair:
    """A chair.

    Attributes:
        name: Its name.
        legs: All of them.
        place: Left and right.
        kind: What it is.
        count: How many.
        loose: Anything.
        by_name: More legs.
    """

    name: str
    legs: tuple[Leg, ...]
    place: tuple[float, float] = (0.0, 1.0)
    kind: Literal["wood", 2] = "wood"
    count: int | None = None
    loose: Any = None
    by_name: Mapping[str, Leg] = field(default_factory=dict)


LEAST = {"name": "", "legs": []}


def test_an_empty_chair() -> None:
    assert from_json(Chair, LEAST) == Chair(name="", legs=())


def test_values_go_there_and_back() -> None:
    chair = Chair(
        name="é", legs=(Leg(length=1.5),), kind=2, count=0, by_name={"x": Leg(length=0.0)}
    )
    assert from_json(Chair, to_json(chair)) == chair


def test_a_whole_number_is_a_number_and_unknown_keys_are_passed_over() -> None:
    found = from_json(Chair, {**LEAST, "legs": [{"length": 2}], "wings": 4})
    assert found.legs == (Leg(length=2.0),)
    assert isinstance(found.legs[0].length, float)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "the file is a list, not an object"),
        ({}, "name is missing"),
        ({"name": 5, "legs": []}, "name is 5, not a text"),
        ({"name": "", "legs": {}}, "legs is an object, not a list"),
        ({"name": "", "legs": [{}]}, r"legs\[0\].length is missing"),
        ({"name": "", "legs": [{"length": -1}]}, r"legs\[0\].length is -1.0, less than 0"),
        ({"name": "", "legs": [{"length": 101}]}, "is 101.0, not plausible: more than 100"),
        (
            {"name": "", "legs": [{"length": 1, "marks": [1.0, 1e308]}]},
            r"marks\[1\] is 1e\+308, not",
        ),
        ({"name": "", "legs": [{"length": float("nan")}]}, "length is nan, not a number"),
        ({"name": "", "legs": [{"length": 10**400}]}, "length is too large a number"),
        ({"name": "", "legs": [{"length": True}]}, "length is True, not a number"),
        ({**LEAST, "count": True}, "count is True, not a whole number"),
        ({**LEAST, "count": 1.5}, "count is 1.5, not a whole number"),
        ({**LEAST, "place": [1.0]}, "place has 1 value, not 2"),
        ({**LEAST, "kind": "iron"}, "kind is 'iron', not 'wood' or 2"),
        ({**LEAST, "by_name": []}, "by_name is a list, not an object"),
        ({**LEAST, "by_name": {"x": {}}}, "by_name.x.length is missing"),
        ({"name": "n" * 99, "legs": "n" * 99}, "legs is 'n+\\.\\.\\., not a list"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(value: Any, says: str) -> None:
    with pytest.raises(Mismatch, match=says):
        from_json(Chair, value)


def test_the_schema_says_what_is_read() -> None:
    schema = json_schema(Chair, "a chair")
    assert schema["required"] == ["name", "legs"]
    legs = schema["properties"]["legs"]
    assert legs == {
        "description": "All of them.",
        "type": "array",
        "items": {"$ref": "#/$defs/Leg"},
    }
    assert schema["$defs"]["Leg"]["properties"]["length"] == {
        "description": "In metres, of a leg that may be long.",
        "type": "number",
        "minimum": 0,
        "maximum": 100,
    }
    assert schema["properties"]["count"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
