"""COCO's 80 names at the numbers that its annotations give them."""

from __future__ import annotations

import pytest
from coco_80 import COCO_80

from tvmdet.coco_names import UNUSED, plain_class_name, spread_over_numbers

# Some of instances_val2017.json's categories, and the numbers that it has not.
NUMBERS = {
    1: "person",
    11: "fire hydrant",
    13: "stop sign",
    25: "giraffe",
    27: "backpack",
    31: "handbag",
    44: "bottle",
    46: "wine glass",
    65: "bed",
    67: "dining table",
    70: "toilet",
    72: "tv",
    82: "refrigerator",
    84: "book",
    90: "toothbrush",
}
NONE = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


def test_classes_lie_at_their_numbers() -> None:
    assert len(COCO_80) == 80
    spread = spread_over_numbers(COCO_80, 91)
    assert spread is not None
    assert [spread[number] for number in NUMBERS] == list(NUMBERS.values())
    assert tuple(number for number, name in enumerate(spread) if name == UNUSED) == NONE
    assert spread_over_numbers(COCO_80, 90) == spread[1:]


def test_other_spellings_are_kept() -> None:
    darknet = {"motorcycle": "motorbike", "airplane": "aeroplane", "couch": "sofa"}
    names = [darknet.get(name, name).replace(" ", "_") for name in COCO_80]
    spread = spread_over_numbers(names, 91)
    assert spread is not None
    assert (spread[4], spread[5], spread[63]) == ("motorbike", "aeroplane", "sofa")
    assert spread[10] == "traffic_light"


@pytest.mark.parametrize(
    ("names", "classes", "reason"),
    [
        ([], 91, "no names"),
        (COCO_80, 80, "a column for each class"),
        (COCO_80, 92, "as many numbers as no network has"),
        (COCO_80[:-1], 91, "a class too few"),
        ([*COCO_80[:-1], "toothpick"], 91, "another class"),
        (COCO_80[::-1], 91, "another order"),
    ],
)
def test_nothing_else_is_spread(names: list[str], classes: int, reason: str) -> None:
    assert spread_over_numbers(names, classes) is None, reason


def test_spellings_of_a_class() -> None:
    assert plain_class_name("TV-Monitor") == plain_class_name("tv") == "tv"
    assert plain_class_name("hair drier") != plain_class_name("hair dryer")
