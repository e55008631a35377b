"""The metadata block that LibreYOLO writes into its ONNX exports.

Keys as of its ``export/exporter.py`` 1.6: ``libreyolo_version``, ``model_family``, ``task``,
``names``, and ``letterbox_pad`` of its YOLOv9. They say how the project's own code prepares a
picture for a family (``preprocess/``, ``models/*/utils.py``), which nothing in the graph says. What
the outputs hold they do not say: that is taken from the graph alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvmdet.heads.dense_inputs import IMAGENET_RGB, RTMDET_BGR, padded, stretched

__all__ = ["libreyolo_input", "selects_by_itself"]

_END_TO_END = ("yolo9_e2e",)

_UNIT: Mapping[str, Any] = {"color": "rgb", "mean": (0.0,) * 3, "std": (255.0,) * 3}
_CENTER: Mapping[str, Any] = {"resize": "letterbox", "pad_position": "center", "pad_value": 114}
_TOP_LEFT: Mapping[str, Any] = {**_CENTER, "pad_position": "top_left", "rounding": "down"}
_PILLOW: Mapping[str, Any] = {"interpolation": "area"}  # which weighs all pixels, as areas do
_DARKNET = {**_UNIT, **_TOP_LEFT, **_PILLOW, "pad_value": 128}

# By model_family. YOLO-NAS leaves 2 pixels of a 640 free on each side, which are taken for picture.
_INPUTS: Mapping[str, Mapping[str, Any]] = {
    "deformable_detr": {**stretched(IMAGENET_RGB), **_PILLOW},
    "detr": {**stretched(IMAGENET_RGB), **_PILLOW},
    "dinodetr": {**stretched(IMAGENET_RGB), **_PILLOW},
    "efficientdet": padded(IMAGENET_RGB, {"rounding": "down", **_PILLOW}),
    "picodet": stretched(IMAGENET_RGB),
    "ppyoloe": stretched(IMAGENET_RGB),
    "rtmdet": {**RTMDET_BGR, **_TOP_LEFT, **_PILLOW},
    "yolo2": _DARKNET,
    "yolo3": _DARKNET,
    "yolo4": _DARKNET,
    "yolo7": {**_UNIT, **_TOP_LEFT, **_PILLOW},
    "yolo9": {**_UNIT, **_TOP_LEFT},
    "yolo9_e2e": {**_UNIT, **_TOP_LEFT},
    "yolo9_p2": {**_UNIT, **_TOP_LEFT},
    "yolonas": {**_UNIT, **_CENTER, **_PILLOW, "scale": "ratio"},
}
_PADS = {"topleft": "top_left", "center": "center"}


def libreyolo_input(metadata: Mapping[str, str]) -> tuple[dict[str, Any], str] | None:
    """Returns how LibreYOLO prepares pictures for the family that the metadata name.

    Args:
        metadata: The metadata of the ONNX file.

    Returns:
        Arguments of an InputSpec, and a line for people; None where LibreYOLO did not write them,
        the family is not known here, or they name a border that is not.
    """
    family = metadata.get("model_family", "")
    if "libreyolo_version" not in metadata or family not in _INPUTS:
        return None
    values = dict(_INPUTS[family])
    if "letterbox_pad" in metadata:
        if metadata["letterbox_pad"] not in _PADS or values["resize"] != "letterbox":
            return None
        values["pad_position"] = _PADS[metadata["letterbox_pad"]]
    where = values["resize"]
    if where == "letterbox":
        where = f"letterbox from the {values['pad_position'].replace('_', ' ')}"
    return values, f"input {values['color'].upper()}, {where}, as LibreYOLO feeds its {family}"


def selects_by_itself(metadata: Mapping[str, str]) -> bool:
    """Returns whether the family is trained to need no suppression, as the metadata name it."""
    return "libreyolo_version" in metadata and metadata.get("model_family") in _END_TO_END
