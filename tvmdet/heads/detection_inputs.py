"""How pictures are fed to networks that return finished detections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvmdet.heads.base import GraphSummary, Question
from tvmdet.heads.chosen_rows import SUPPRESSION
from tvmdet.heads.dense_inputs import MMYOLO, stretched
from tvmdet.heads.detection_frames import (
    is_easydeploy,
    is_keras_yolo,
    is_object_detection_api,
    is_tensorrt_yolo,
    is_yolo_nas,
    is_yolo_nas_pose,
)
from tvmdet.heads.detection_outputs import DetectionOutputs
from tvmdet.heads.input_defaults import (
    UNIT,
    detr_input,
    fed_input,
    mean_levels,
    stated_input,
)
from tvmdet.heads.libreyolo import libreyolo_input
from tvmdet.heads.names import plain_name
from tvmdet.heads.paddledetection import advice, is_paddledetection
from tvmdet.heads.size_inputs import WIDTH_HEIGHT
from tvmdet.heads.ultralytics import is_rtdetr, is_ultralytics

__all__ = ["detections_input"]

_TOP_LEFT = {"resize": "letterbox", "pad_position": "top_left"}
# A picture that comes in the size that its network resizes to shows nothing of how it does that.
_ASK_RESIZER = Question(
    "detectors of the TensorFlow Object Detection API are given pictures stretched or with their "
    "aspect ratio, by the image_resizer of their pipeline.config, which the graph does not say",
    spec_text='family = "detections"\n[input]\n'
    'resize = "stretch"    # fixed_shape_resizer; or "letterbox": keep_aspect_ratio_resizer',
)


def detections_input(
    summary: GraphSummary, found: DetectionOutputs, given: Mapping[str, Any]
) -> tuple[dict[str, Any], str] | str:
    """Returns the input's defaults and a line for people; or what to ask for.

    Args:
        summary: The network.
        found: Its outputs.
        given: The user's spec.
    """
    table = given.get("input", {})
    if is_object_detection_api(summary, found) and "resize" not in table:
        return _ASK_RESIZER
    stated = stated_input(summary)
    if stated is not None:
        if _stretches(summary):
            return {**stated[0], "resize": "stretch"}, f"{stated[1]}; stretched, as torchvision SSD"
        fitted = "; letterbox from the top left, its border of the mean colour"
        line = f"{stated[1]}{'' if 'resize' in table else fitted}"
        return {**stated[0], **_TOP_LEFT, "pad_value": mean_levels(summary, stated[0])}, line
    known = _of_exporter(summary, found)
    if known is not None:
        return fed_input(summary, *known, "detections", given)
    if summary.operators.get("TopK") and _is_detr(summary):
        return detr_input(summary, "detections", given)
    if summary.takes_bytes:
        inner = summary.normalisation
        color = "bgr" if inner is not None and inner.reverses else "rgb"
        return {**_TOP_LEFT, "color": color}, "letterbox from the top left"
    is_centred = found.of_cells or is_tensorrt_yolo(summary, found) or is_easydeploy(summary)
    place, other = ("top_left", "center")[:: -1 if is_centred else 1]
    if "mean" in table and "std" in table:
        shown = "letterbox, centred" if is_centred else "letterbox from the top left"
        line = "input as the spec says" if "resize" in table else shown
        usual = {**_TOP_LEFT, "pad_position": place}
        # MMYOLO's exporter; its PPYOLOE stretches, by another interpolation.
        if is_easydeploy(summary) and table.get("resize", "letterbox") == "letterbox":
            usual.update(MMYOLO)
        return usual, line
    return _ask(summary, place, other)


def _of_exporter(
    summary: GraphSummary, found: DetectionOutputs
) -> tuple[Mapping[str, Any], str] | None:
    """Returns what an exporter that is known feeds its networks, and a line; None for others."""
    if is_rtdetr(summary.metadata):
        return stretched(UNIT), "input RGB / 255, stretched: as Ultralytics trains RT-DETR"
    grey = "input RGB / 255, letterbox with grey"
    if is_ultralytics(summary.metadata):
        return UNIT, f"{grey} 114: as Ultralytics' exports"
    if (libreyolo := libreyolo_input(summary.metadata)) is not None:
        return libreyolo
    if is_keras_yolo(summary, found):
        return {**UNIT, "pad_value": 128}, f"{grey} 128: as keras-yolo3"
    if is_yolo_nas_pose(summary):
        line = "input RGB / 255, letterbox from the top left with grey 127: as YOLO-NAS's poses"
        return {**UNIT, **_TOP_LEFT, "pad_value": 127, "scale": "ratio"}, line
    if found.columns[:1] == ("batch",) or is_yolo_nas(summary):
        # Both divide boxes by the ratio before rounding.
        return {**UNIT, "scale": "ratio"}, f"{grey} 114: as YOLOv7 and YOLO-NAS"
    if is_tensorrt_yolo(summary, found) and _scales(summary):
        return UNIT, f"{grey} 114: as YOLOv6 with its pre-processing"
    return None


def _ask(summary: GraphSummary, place: str, other: str) -> Question:
    resizes = ("letterbox", "stretch")[:: -1 if is_paddledetection(summary) else 1]
    return Question(
        f"nothing in the graph says how pictures are normalised{advice(summary)}",
        spec_text='family = "detections"\n[input]    # what the network was trained with\n'
        'color = "rgb"                  # or "bgr"\n'
        f'resize = "{resizes[0]}"           # or "{resizes[1]}"\n'
        f'pad_position = "{place}"        # or "{other}": where the border is not\n'
        "mean = [0.0, 0.0, 0.0]         # in pixel units\n"
        "std = [255.0, 255.0, 255.0]",
    )


def _is_detr(summary: GraphSummary) -> bool:
    """Returns whether a network samples at reference points, or is of RT-DETR's own exporter.

    Its variant of discrete sampling gathers features instead, as other networks do.
    """
    sized = any(plain_name(name) in WIDTH_HEIGHT for name in summary.constants)
    return bool(summary.operators.get("GridSample")) or sized


def _scales(summary: GraphSummary) -> bool:
    """Returns whether a network divides its picture, so that what it is fed is not the question."""
    inner = summary.normalisation
    return inner is not None and not inner.unknown and min(inner.std) > 1


def _stretches(summary: GraphSummary) -> bool:
    """Returns whether a whole detector is one of torchvision's SSDs.

    Their transform stretches the whole picture to a fixed size inside the network
    (``GeneralizedRCNNTransform`` with ``fixed_size``), so that a border would take a part of that
    size. The other detectors of torchvision keep the aspect ratio. An SSD has a softmax over the
    classes, and no regions; RetinaNet and FCOS have sigmoids, R-CNNs regions, and transformers many
    softmaxes.
    """
    operators = summary.operators
    suppressed = any(operators.get(name) for name in SUPPRESSION)
    others = any(operators.get(name) for name in ("RoiAlign", "Sigmoid"))
    return suppressed and operators.get("Softmax") == 1 and not others
