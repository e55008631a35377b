"""Annotations in COCO's format: pictures, objects and categories, checked before anything runs.

The format is that of https://cocodataset.org/#format-data ("object detection" and "keypoint
detection"). Files of other
tools are taken as long as what they say is clear: ids of annotations are made anew (0 and doubled
ids, which some tools write, would be counted wrong without a word), a missing ``area`` is that of
the box, a missing ``iscrowd`` is 0.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvmdet.counted import counted
from tvmdet.errors import InputError

__all__ = ["Annotations", "CocoImage", "CocoObject", "check_keypoints", "read_annotations"]

_LONGEST_SHOWN = 80  # characters of a wrong value in a message
_FARTHEST_PX = 1_000_000  # an outline is followed pixel by pixel
_MOST = 2**53  # whole numbers above are no longer exact in all of the packages that read them
_TABLES = ("images", "annotations", "categories")


@dataclass(frozen=True, kw_only=True)
class CocoImage:
    """One annotated picture.

    Attributes:
        id: What annotations call it.
        path: Where it lies.
        size_hw: Height and width as annotated; None where the file does not say.
    """

    id: int
    path: Path
    size_hw: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class CocoObject:
    """One annotated object.

    Attributes:
        image_id: The picture that it is in.
        category_id: What it is.
        box_xywh: Left, top, width and height, in pixels.
        area: In pixels; decides whether it is small, medium or large.
        is_crowd: Whether it stands for many objects; detections in it count neither way.
        segmentation: Polygons, or run lengths; None without.
        keypoints: As the file has them, unchecked: boxes and masks do not need them.
            :func:`check_keypoints` makes of them x, y and visibility of each point, one after the
            other: 0 where it is not annotated, 1 where it is hidden, 2 where it is seen.
    """

    image_id: int
    category_id: int
    box_xywh: tuple[float, float, float, float]
    area: float
    is_crowd: bool
    segmentation: Any
    keypoints: Any = None

    @property
    def points_known(self) -> int:
        """How many of its points are annotated, once they are checked."""
        return sum(seen > 0 for seen in (self.keypoints or ())[2::3])


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """What is in the pictures.

    Attributes:
        path: The file.
        images: In the order of the file.
        objects: Of those pictures.
        categories: Names by id, in the order of ids.
        points: What the file lists as the points of a category, by its id, unchecked.
    """

    path: Path
    images: tuple[CocoImage, ...]
    objects: tuple[CocoObject, ...]
    categories: Mapping[int, str]
    points: Mapping[int, Any] = field(default_factory=dict)

    @property
    def without_mask(self) -> int:
        """How many objects have no segmentation; a crowd needs one too."""
        return sum(one.segmentation is None for one in self.objects)


def read_annotations(
    path: str | Path, images: str | Path, *, limit: int | None = None
) -> Annotations:
    """Reads a file of annotations and finds its pictures.

    Args:
        path: A JSON file in COCO's format.
        images: The folder of the pictures.
        limit: Take the first so many pictures; None for all.

    Raises:
        InputError: The file is no such file, or a picture is missing.
    """
    path, folder = Path(path), Path(images)
    data = _read_json(path)
    for table in _TABLES:
        if not isinstance(data.get(table), list):
            raise InputError(
                f"{path} has no list {table!r}; give --annotations a file in COCO's format, "
                f"with {', '.join(_TABLES)} (instances_val2017.json is one)"
            )
    categories = _categories(data["categories"], path)
    every = _images(data["images"], path, folder)
    objects = _objects(data["annotations"], path, {image.id for image in every}, categories)
    chosen = every if limit is None else every[:limit]
    if not chosen:
        raise InputError(f"{path} lists no pictures, so that there is nothing to evaluate")
    ids = {image.id for image in chosen}
    return Annotations(
        path=path,
        images=tuple(_found(chosen, folder)),
        objects=tuple(one for one in objects if one.image_id in ids),
        categories=categories,
        points={entry["id"]: entry.get("keypoints") for entry in data["categories"]},
    )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"annotations {path} cannot be read: {error.strerror or error}; "
            "give --annotations a JSON file"
        ) from error
    # RecursionError: lists in lists in lists. UnicodeDecodeError is a ValueError.
    except (ValueError, RecursionError) as error:
        raise InputError(f"annotations {path} are no JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(
            f"annotations {path} hold a {type(data).__name__}; in COCO's format a file is a table "
            f"with {', '.join(_TABLES)} (a bare list is a file of results, not of annotations)"
        )
    return data


def _categories(entries: Sequence[Any], path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for index, entry in enumerate(entries):
        where = f"{path}: categories[{index}]"
        number, name = _whole(entry, "id", where), _text(entry, "name", where)
        if number in names:
            raise InputError(f"{where} has the id {number}, as {names[number]!r} has; make it new")
        names[number] = name
    if not names:
        raise InputError(f"{path} lists no categories; give it those of the detector")
    return dict(sorted(names.items()))


def _images(entries: Sequence[Any], path: Path, folder: Path) -> list[CocoImage]:
    images: list[CocoImage] = []
    seen: set[int] = set()
    for index, entry in enumerate(entries):
        where = f"{path}: images[{index}]"
        number, name = _whole(entry, "id", where), _text(entry, "file_name", where)
        if number in seen:
            raise InputError(f"{where} ({name}) has the id {number}, as another one has")
        seen.add(number)
        size = None
        if entry.get("height") is not None and entry.get("width") is not None:
            size = _whole(entry, "height", where), _whole(entry, "width", where)
        images.append(CocoImage(id=number, path=folder / name, size_hw=size))
    return images


def _found(images: Iterable[CocoImage], folder: Path) -> list[CocoImage]:
    """Returns the pictures where they lie: under their name, or without its folders.

    Raises:
        InputError: Some lie nowhere.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give --images the folder of the pictures")
    found, missing = [], []
    for image in images:
        beside = folder / image.path.name
        if image.path.is_file():
            found.append(image)
        elif beside.is_file():
            # Names such as val2017/000000000139.jpg, and the folder val2017.
            found.append(CocoImage(id=image.id, path=beside, size_hw=image.size_hw))
        else:
            missing.append(image)
    if missing:
        raise InputError(
            f"{len(missing)} of {counted(len(found) + len(missing), 'picture')} not in {folder}, "
            f"such as {os.path.relpath(missing[0].path, folder)}: give --images their folder, or "
            "--annotations of the pictures that are there"
        )
    return found


def _objects(
    entries: Sequence[Any], path: Path, images: set[int], categories: Mapping[int, str]
) -> list[CocoObject]:
    objects = []
    for index, entry in enumerate(entries):
        where = f"{path}: annotations[{index}]"
        image, category = _whole(entry, "image_id", where), _whole(entry, "category_id", where)
        if image not in images:
            raise InputError(f"{where} is of picture {image}, which images does not list")
        if category not in categories:
            raise InputError(f"{where} is of category {category}, which categories does not list")
        box = _box(entry, where)
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise InputError(f"{where} has iscrowd {_show(crowd)}; allowed: 0 or 1")
        area = entry.get("area")
        if area is None:
            area = box[2] * box[3]
        if not _is_number(area) or area < 0:
            raise InputError(f"{where} has the area {_show(area)}; allowed: a number from 0")
        objects.append(
            CocoObject(
                image_id=image,
                category_id=category,
                box_xywh=box,
                area=float(area),
                is_crowd=bool(crowd),
                segmentation=_segmentation(entry.get("segmentation"), where),
                keypoints=entry.get("keypoints"),
            )
        )
    return objects


def _box(entry: Mapping[str, Any], where: str) -> tuple[float, float, float, float]:
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise InputError(
            f"{where} has the bbox {_show(box)}; allowed: left, top, width and height in pixels"
        )
    x, y, width, height = map(float, box)
    if width < 0 or height < 0:
        raise InputError(
            f"{where} has the bbox {_show(box)}, less than nothing wide or high; COCO's boxes are "
            "left, top, width, height, not two corners"
        )
    return x, y, width, height


def _segmentation(value: Any, where: str) -> Any:
    """Returns polygons or run lengths, checked as far as native code relies on them."""
    if value is None or value == []:
        return None
    if isinstance(value, list):
        for polygon in value:
            fits = isinstance(polygon, list) and len(polygon) >= 2 and len(polygon) % 2 == 0
            if not (fits and all(_is_number(n) and abs(n) <= _FARTHEST_PX for n in polygon)):
                raise InputError(
                    f"{where} has the polygon {_show(polygon)}; allowed: x and y of three corners "
                    f"or more, in pixels up to {_FARTHEST_PX}"
                )
        # Tools write points and lines too, which hold no pixel; pycocotools takes four numbers
        # for a box.
        areas = [polygon for polygon in value if len(polygon) >= 6]
        return areas or [value[0][:2] * 3]
    if isinstance(value, dict) and _is_size(value.get("size")):
        counts, pixels = value.get("counts"), math.prod(value["size"])
        if isinstance(counts, str) and counts.isascii():
            return value
        whole = isinstance(counts, list) and all(type(n) is int and n >= 0 for n in counts)
        if isinstance(counts, list) and whole and sum(counts) == pixels:
            return value
    raise InputError(
        f"{where} has the segmentation {_show(value)}; allowed: a list of polygons, or run lengths "
        "with size (height, width) and counts that add up to it"
    )


def check_keypoints(value: Any, where: str) -> tuple[float, ...] | None:
    """Returns x, y and visibility of each point, one after the other; None where there are none.

    Args:
        value: What an annotation has.
        where: For the error message.

    Raises:
        InputError: It is no such list.
    """
    if value is None or value == []:
        return None
    if (
        isinstance(value, list)
        and len(value) % 3 == 0
        and all(map(_is_number, value))
        and all(seen in (0, 1, 2) for seen in value[2::3])
    ):
        return tuple(map(float, value))
    raise InputError(
        f"{where} has the keypoints {_show(value)}; allowed: x, y and visibility (0, 1 or 2) of "
        "each point"
    )


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(type(n) is int and n > 0 for n in value)
    )


def _is_number(value: Any) -> bool:
    # Written so that NaN fails, and that no whole number is too large to be compared.
    return isinstance(value, int | float) and type(value) is not bool and -_MOST < value < _MOST


def _whole(entry: Any, key: str, where: str) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is not int or not -_MOST < value < _MOST:
        raise InputError(f"{where} has the {key} {_show(value)}; allowed: a whole number")
    return value


def _text(entry: Any, key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InputError(f"{where} has the {key} {_show(value)}; allowed: text that is not empty")
    return value


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
