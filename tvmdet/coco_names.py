"""COCO's classes: their names, and the numbers that its annotations give them.

80 classes have numbers from 1 to 90, ten of which are never used
(https://cocodataset.org/#format-data, ``instances_val2017.json``). Detectors are trained with a
column for each class, or with one for each number.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["COCO_KEYPOINTS", "COCO_SKELETON", "UNUSED", "plain_class_name", "spread_over_numbers"]

# A person's points, left and right as the person has them, and the pairs that a drawing joins
# (``person_keypoints_val2017.json``, whose skeleton counts from 1).
COCO_KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
COCO_SKELETON = (
    (15, 13),
    (13, 11),
    (16, 14),
    (14, 12),
    (11, 12),
    (5, 11),
    (6, 12),
    (5, 6),
    (5, 7),
    (6, 8),
    (7, 9),
    (8, 10),
    (1, 2),
    (0, 1),
    (0, 2),
    (1, 3),
    (2, 4),
    (3, 5),
    (4, 6),
)

# As torchvision and Hugging Face call a number that no class has.
UNUSED = "N/A"

# By number; a number that is never used is left empty.
_NAMES = """\
,person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,\
stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,\
backpack,umbrella,,,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,\
baseball glove,skateboard,surfboard,tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,\
banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,\
bed,,dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,\
sink,refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"""
_BY_NUMBER = tuple(_NAMES.split(","))

# Labels of Pascal VOC, which Darknet's list of COCO classes uses too.
_OTHER_NAMES = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def plain_class_name(name: str) -> str:
    """Returns what two spellings of a class have in common: letters and digits, in small."""
    letters = "".join(letter for letter in name.casefold() if letter.isalnum())
    return _OTHER_NAMES.get(letters, letters)


def spread_over_numbers(labels: Sequence[str], classes: int) -> tuple[str, ...] | None:
    """Returns COCO's 80 names at the columns of a network with a column for each number.

    Args:
        labels: Names, in the order of the classes.
        classes: Columns of the network: 91 for the numbers 0 to 90, 90 for 1 to 90.

    Returns:
        As many labels as columns, :data:`UNUSED` where no class has the number; None where the
        labels are not COCO's 80, or the columns neither 91 nor 90.
    """
    first = len(_BY_NUMBER) - classes
    if first not in (0, 1):
        return None
    known = [plain_class_name(name) for name in _BY_NUMBER if name]
    if [plain_class_name(label) for label in labels] != known:
        return None
    own = iter(labels)
    return tuple(next(own) if name else UNUSED for name in _BY_NUMBER)[first:]
