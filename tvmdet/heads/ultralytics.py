"""The metadata block that Ultralytics writes into its ONNX exports.

Keys as of ``ultralytics/engine/exporter.py``: ``description``, ``author``, ``stride``, ``task``,
``batch``, ``imgsz``, ``names``, ``args``, ``end2end``, ``head`` and, for poses, ``kpt_shape`` and
``kpt_names``; every value is the text of a Python literal or plain text. The ``export.py`` of
YOLOv5 writes ``stride`` and ``names`` only. Nothing in them is ever executed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvmdet.spec import MOST_KEYPOINTS

__all__ = [
    "UltralyticsExport",
    "is_rtdetr",
    "is_ultralytics",
    "is_yoloe",
    "read_ultralytics",
    "refuse_export",
    "refuse_task",
]

_LONGEST = 10_000  # characters of one value
_OTHER_TASKS = {
    "classify": "it classifies whole images",
    "depth": "it estimates depth",
    "point": "it finds points",
    "semantic": "it labels pixels",
}


@dataclass(frozen=True, kw_only=True)
class UltralyticsExport:
    """What the metadata say; None where they say nothing that can be read.

    Attributes:
        by_ultralytics: Whether the author is named.
        task: ``detect``, ``segment``, ``pose``, ``obb``, ``classify``.
        size_hw: Height and width of the input (``imgsz``).
        stride: Largest stride.
        end2end: Whether the network chooses its detections itself (YOLOv10, YOLO26).
        nms: Whether suppression was exported with the network (``nms=True``).
        kpt_shape: How many keypoints there are, and numbers of each (2, or 3 with a score).
        kpt_names: Their names, those of the first class; empty where they are not said.
    """

    by_ultralytics: bool = False
    task: str | None = None
    size_hw: tuple[int, int] | None = None
    stride: int | None = None
    end2end: bool = False
    nms: bool = False
    kpt_shape: tuple[int, int] | None = None
    kpt_names: tuple[str, ...] = ()


def read_ultralytics(metadata: Mapping[str, str]) -> UltralyticsExport:
    """Reads the metadata of an ONNX file, whoever wrote them."""
    args = _literal(metadata.get("args", ""))
    stride = _literal(metadata.get("stride", ""))
    origin = f"{metadata.get('author', '')} {metadata.get('description', '')}"
    return UltralyticsExport(
        by_ultralytics="ultralytics" in origin.lower(),
        task=metadata.get("task"),
        size_hw=_size(_literal(metadata.get("imgsz", ""))),
        stride=stride if type(stride) is int and stride > 0 else None,
        end2end=_literal(metadata.get("end2end", "")) is True,
        nms=isinstance(args, dict) and args.get("nms") is True,
        kpt_shape=_kpt_shape(_literal(metadata.get("kpt_shape", ""))),
        kpt_names=_kpt_names(_literal(metadata.get("kpt_names", ""))),
    )


def is_ultralytics(metadata: Mapping[str, str]) -> bool:
    """Returns whether Ultralytics' exporter wrote the metadata: its author, or its keys."""
    return read_ultralytics(metadata).by_ultralytics or {"names", "stride", "task"} <= set(metadata)


def is_rtdetr(metadata: Mapping[str, str]) -> bool:
    """Returns whether it is an RT-DETR of Ultralytics', which has boxes ``cx cy w h`` from 0 to 1.

    Since 8.4 its exports choose their detections, and the metadata name the head.
    """
    said = metadata.get("description", "").lower().replace("-", "").replace("_", "")
    return "ultralytics" in said and ("rtdetr" in said or metadata.get("head") == "RTDETRDecoder")


def is_yoloe(metadata: Mapping[str, str]) -> bool:
    """Returns whether it is a YOLOE, which is told its classes in words that may mean the same.

    Its ``predict`` suppresses without regard to them (``agnostic_nms`` in ``YOLOE.predict`` of
    ``ultralytics/models/yolo/model.py``).
    """
    return is_ultralytics(metadata) and metadata.get("head", "").startswith("YOLOE")


def refuse_task(metadata: Mapping[str, str]) -> str:
    """Says what the metadata say the network does, where that is not finding boxes, or ''."""
    task = read_ultralytics(metadata).task
    if task not in _OTHER_TASKS:
        return ""
    return (
        f"the metadata say task {task!r}: {_OTHER_TASKS[task]}; tvmdet finds boxes (task "
        "'detect'), masks ('segment'), keypoints ('pose') and oriented boxes ('obb')"
    )


def refuse_export(
    metadata: Mapping[str, str], *, masks: bool, keypoints: bool | None = None
) -> str:
    """Says why the metadata rule out one row of box and class scores per anchor, or ''.

    Args:
        metadata: The metadata of the ONNX file.
        masks: Whether the network has an output of mask prototypes.
        keypoints: Whether the rows end in keypoints; None for a family that has none.
    """
    export = read_ultralytics(metadata)
    if refusal := refuse_task(metadata):
        return refusal
    if export.task == "segment" and not masks:
        return "the metadata say task 'segment', but there is no output of mask prototypes"
    if export.task == "pose" and not keypoints:
        return "the metadata say task 'pose', " + (
            "but this family's rows have no keypoints"
            if keypoints is None
            else "but no kpt_shape: give the table keypoints in a spec"
        )
    if export.task not in (None, "detect", "segment", "pose", "obb"):
        return (
            f"the metadata say task {export.task!r}; only 'detect', 'segment', 'pose' and 'obb' "
            "are known"
        )
    if export.end2end or export.nms:
        said = "end2end" if export.end2end else "args nms"
        return f"the metadata say {said}: the output holds detections that are chosen already"
    return ""


def _literal(text: str) -> Any:
    """Returns the value of a Python literal, or None."""
    if len(text) > _LONGEST:
        return None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _kpt_shape(value: Any) -> tuple[int, int] | None:
    listed = isinstance(value, list | tuple) and [type(one) for one in value] == [int, int]
    known = listed and 0 < value[0] <= MOST_KEYPOINTS and value[1] in (2, 3)
    return (value[0], value[1]) if known else None


def _kpt_names(value: Any) -> tuple[str, ...]:
    """Returns the names of the first class's points, from a list or lists by class."""
    if isinstance(value, dict) and value:
        value = value[min(value, key=str)]
    named = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    return tuple(one for one in value if one.strip()) if named else ()


def _size(value: Any) -> tuple[int, int] | None:
    sides = [value, value] if type(value) is int else value
    if not isinstance(sides, list | tuple) or [type(side) for side in sides] != [int, int]:
        return None
    return (sides[0], sides[1]) if min(sides) > 0 else None
