"""Anchors and decoding of the published YOLO models whose raw maps need them.

Sources: ``models/*.yaml`` of ultralytics/yolov5, ``cfg/deploy/*.yaml`` of WongKinYiu/yolov7, and
``cfg/*.cfg`` of AlexeyAB/darknet (``anchors``, ``mask``, ``scale_x_y``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvmdet.errors import InputError

__all__ = ["VERSIONS", "Anchors", "Version", "anchors_of", "numbers_of"]

Anchors = tuple[tuple[float, ...], ...]

_COCO_608: Anchors = (
    (10, 13, 16, 30, 33, 23),
    (30, 61, 62, 45, 59, 119),
    (116, 90, 156, 198, 373, 326),
)
_COCO_512: Anchors = (
    (12, 16, 19, 36, 40, 28),
    (36, 75, 76, 55, 72, 146),
    (142, 110, 192, 243, 459, 401),
)
_COCO_1280: Anchors = (
    (19, 27, 44, 40, 38, 94),
    (96, 68, 86, 152, 180, 137),
    (140, 301, 303, 264, 238, 542),
    (436, 615, 739, 380, 925, 792),
)
# Of Darknet's region layer, in cells of 32 pixels: yolov2.cfg and yolov2-tiny.cfg, yolov2-voc.cfg,
# yolov2-tiny-voc.cfg (which is the ONNX model zoo's Tiny YOLOv2).
_REGION_COCO = (
    *(0.57273, 0.677385, 1.87446, 2.06253, 3.33843),
    *(5.47434, 7.88282, 3.52778, 9.77052, 9.16828),
)
_REGION_VOC = (
    *(1.3221, 1.73145, 3.19275, 4.00944, 5.05587),
    *(8.09892, 9.47112, 4.84053, 11.2364, 10.0071),
)
_REGION_TINY_VOC = (1.08, 1.19, 3.42, 4.41, 6.63, 11.38, 9.42, 5.11, 16.62, 10.52)
_TINY_3: Anchors = ((10, 14, 23, 27, 37, 58), (81, 82, 135, 169, 344, 319))
_TINY_4: Anchors = ((23, 27, 37, 58, 81, 82), (81, 82, 135, 169, 344, 319))


@dataclass(frozen=True, kw_only=True)
class Version:
    """How the raw maps of one published model decode.

    Attributes:
        decoding: ``sigmoid``, extents ``(2 s)^2`` anchors with s a sigmoid (YOLOv5), or ``exp``,
            extents ``e^t`` anchors (YOLOv3).
        anchors: Widths and heights in pixels, one row a level, finest first.
        strides: Strides of the levels.
        scale_xy: How far centres reach beyond their cell, per level.
        class_activation: Of the classes: ``sigmoid``, or ``softmax`` over those of an anchor.
    """

    decoding: str
    anchors: Anchors
    strides: tuple[int, ...] = (8, 16, 32)
    scale_xy: tuple[float, ...] = (2.0, 2.0, 2.0)
    class_activation: str = "sigmoid"


def _region(cells: tuple[float, ...]) -> Version:
    """Returns Darknet's region layer: one level of stride 32 (``src/region_layer.c``)."""
    return Version(
        decoding="exp",
        anchors=(tuple(32 * side for side in cells),),
        strides=(32,),
        scale_xy=(1.0,),
        class_activation="softmax",
    )


VERSIONS = {
    "yolov2": _region(_REGION_COCO),
    "yolov2-tiny": _region(_REGION_COCO),
    "yolov2-voc": _region(_REGION_VOC),
    "yolov2-tiny-voc": _region(_REGION_TINY_VOC),
    "yolov3": Version(decoding="exp", anchors=_COCO_608, scale_xy=(1.0, 1.0, 1.0)),
    "yolov3-tiny": Version(decoding="exp", anchors=_TINY_3, strides=(16, 32), scale_xy=(1.0, 1.0)),
    "yolov4": Version(decoding="exp", anchors=_COCO_512, scale_xy=(1.2, 1.1, 1.05)),
    "yolov4-tiny": Version(
        decoding="exp", anchors=_TINY_4, strides=(16, 32), scale_xy=(1.05, 1.05)
    ),
    "yolov5": Version(decoding="sigmoid", anchors=_COCO_608),
    "yolov5-p6": Version(
        decoding="sigmoid",
        anchors=_COCO_1280,
        strides=(8, 16, 32, 64),
        scale_xy=(2.0, 2.0, 2.0, 2.0),
    ),
    "yolov7": Version(decoding="sigmoid", anchors=_COCO_512),
    "yolov7-tiny": Version(decoding="sigmoid", anchors=_COCO_608),
    "yolov7-w6": Version(
        decoding="sigmoid",
        anchors=_COCO_1280,
        strides=(8, 16, 32, 64),
        scale_xy=(2.0, 2.0, 2.0, 2.0),
    ),
}


def anchors_of(options: Mapping[str, Any]) -> Anchors | None:
    """Returns ``options.anchors``, or None when they are not given.

    Raises:
        InputError: They are no lists of widths and heights, of one length for every level.
    """
    given = options.get("anchors")
    if given is None:
        return None
    fits = isinstance(given, list | tuple) and len(given) > 0
    fits = fits and all(_is_positive_row(row) and len(row) % 2 == 0 for row in given)
    if not fits or len({len(row) for row in given}) != 1:
        raise InputError(
            f"the spec's options.anchors is {given!r}; allowed: for each level, finest first, a "
            "list of as many widths and heights in pixels, such as [[10, 13, 16, 30, 33, 23], ...]"
        )
    return tuple(tuple(float(side) for side in row) for row in given)


def numbers_of(options: Mapping[str, Any], name: str) -> tuple[float, ...] | None:
    """Returns an option that lists positive numbers, or None when it is not given.

    Raises:
        InputError: It is no list of positive numbers.
    """
    given = options.get(name)
    if given is None:
        return None
    if not _is_positive_row(given):
        raise InputError(
            f"the spec's options.{name} is {given!r}; allowed: a list of positive numbers, one "
            "for each level"
        )
    return tuple(float(value) for value in given)


def _is_positive_row(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(type(item) in (int, float) and 0 < item < math.inf for item in value)
    )
