"""What further inputs of a detector mean, by the names that exporters give them.

An entry says which constant an input gets when the picture fills the network's whole input, so
that boxes come out in pixels of that input. The spec's ``input.constants`` win.

Sources: Hugging Face ``DetrImageProcessor`` (``pixel_mask``: 1 where there is picture; sizes are
height, width), RT-DETR and D-FINE ``tools/export_onnx.py`` (``orig_target_sizes`` multiplies ``x y
x y``, so it is width, height), PaddleDetection ``deploy`` (``im_shape`` is height, width of the
input; ``scale_factor`` what the picture was scaled by), Caffe2 and Detectron's ``im_info`` (height,
width, scale), the ONNX model zoo's YOLOv3 (``image_shape``: height, width), and the ONNX operator
NonMaxSuppression for thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvmdet.heads.names import plain_name
from tvmdet.heads.size_inputs import HEIGHT_WIDTH, WIDTH_HEIGHT

__all__ = ["SideInput", "is_text_input", "known_side_input"]

Size = tuple[int, int]

# Tokens of a text, of detectors that find what it names (OWL-ViT, Grounding DINO, OmDet-Turbo).
_TEXT_INPUTS = frozenset(
    (
        "attention_mask",
        "classes_attention_mask",
        "classes_input_ids",
        "input_ids",
        "position_ids",
        "tasks_attention_mask",
        "tasks_input_ids",
        "text",
        "text_token_mask",
        "token_type_ids",
        "txt_feats",
    )
)

_IOU = 0.45  # PostprocessSpec's own default
_SCORE = 0.01  # low: the threshold that users choose per call comes after the network
_ROWS = 300


@dataclass(frozen=True, kw_only=True)
class SideInput:
    """A known further input.

    Attributes:
        value: The constant: a number for every element, or a list along the last dimension.
        meaning: What it says to the network, for people.
    """

    value: Any
    meaning: str


def known_side_input(name: str, size_hw: Size) -> SideInput | None:
    """Returns what an input of this name gets, or None when the name says nothing."""
    make = _KNOWN.get(_key(name))
    return None if make is None else make(size_hw)


def is_text_input(name: str) -> bool:
    """Returns whether an input of this name takes the tokens of a text."""
    return _key(name) in _TEXT_INPUTS


def _key(name: str) -> str:
    return plain_name(name).replace(".", "_")


def _size(names: str, suffix: list[int], meaning: str) -> Callable[[Size], SideInput]:
    def make(size_hw: Size) -> SideInput:
        sides = {"hw": list(size_hw), "wh": [size_hw[1], size_hw[0]]}[names]
        return SideInput(value=sides + suffix, meaning=meaning)

    return make


def _same(value: Any, meaning: str) -> Callable[[Size], SideInput]:
    return lambda _size_hw: SideInput(value=value, meaning=meaning)


_HEIGHT_WIDTH = _size("hw", [], "height and width of the network's input")
_WIDTH_HEIGHT = _size("wh", [], "width and height of the network's input, for boxes in its pixels")
_SIZE_AND_SCALE = _size("hw", [1], "height and width of the network's input, and scale 1")
_IOU_INPUT = _same(_IOU, "the IoU threshold of the suppression inside the network")
_SCORE_INPUT = _same(_SCORE, "a low score threshold inside the network; the spec's comes after it")
_ROWS_INPUT = _same(_ROWS, "most boxes that the suppression inside the network returns")

_KNOWN: dict[str, Callable[[Size], SideInput]] = {
    "pixel_mask": _same(1, "the picture fills the network's whole input"),
    **dict.fromkeys(WIDTH_HEIGHT, _WIDTH_HEIGHT),
    **dict.fromkeys(HEIGHT_WIDTH, _HEIGHT_WIDTH),
    **dict.fromkeys(("im_info", "image_info"), _SIZE_AND_SCALE),
    **dict.fromkeys(
        ("scale_factor", "scale_factors"), _same(1, "boxes are not scaled inside the network")
    ),
    **dict.fromkeys(("iou_threshold", "nms_threshold", "nms_iou_threshold"), _IOU_INPUT),
    **dict.fromkeys(
        ("score_threshold", "conf_threshold", "confidence_threshold", "score_thresh"), _SCORE_INPUT
    ),
    **dict.fromkeys(
        (
            "max_output_boxes_per_class",
            "max_output_boxes",
            "max_boxes",
            "max_detections",
            "max_det",
            "topk",
        ),
        _ROWS_INPUT,
    ),
}
