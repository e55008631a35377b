"""What tells PaddleDetection's exports.

Its ``infer_cfg.yml`` is read by :mod:`tvmdet.frontend.paddle_files`, which leaves hints. Exports
without it have inputs that no other exporter has: ``scale_factor`` beside ``image``, ``im_shape``
besides (``Trainer._get_infer_cfg_and_input_spec``).
"""

from __future__ import annotations

from collections.abc import Mapping

from tvmdet.heads.base import GraphSummary
from tvmdet.heads.names import plain_name

__all__ = [
    "ARCH",
    "METRIC",
    "NMS_IOU",
    "advice",
    "is_paddledetection",
    "refuse_metric",
    "suppression",
    "takes_scale",
]

ARCH = "paddledetection.arch"
"""Key of a hint: ``arch`` of infer_cfg.yml."""

METRIC = "paddledetection.metric"
"""Key of a hint: ``metric`` of infer_cfg.yml, by which its models are judged."""

NMS_IOU = "paddledetection.nms_iou"
"""Key of a hint: the IoU threshold of a suppression that the network may have left out."""

_SCALE = "scale_factor"
_PICTURES = ("image", "x")
# How metrics begin that judge no boxes x1 y1 x2 y2 (``get_categories`` in ``category.py``).
_OTHER_METRICS = {
    "rbox": "it finds oriented boxes",
    "keypoint": "it finds the points of a person, and no boxes",
    "pose3d": "it finds points in space, and no boxes",
    "reid": "it tells objects from each other, and finds none",
    "culane": "it finds lanes",
}


def is_paddledetection(summary: GraphSummary) -> bool:
    """Returns whether a network is an export of PaddleDetection's."""
    if ARCH in summary.metadata:
        return True
    return takes_scale(summary) and any(plain_name(name) in _PICTURES for name in summary.inputs)


def takes_scale(summary: GraphSummary) -> bool:
    """Returns whether a network is told by how much its picture was scaled, under Paddle's name."""
    return any(plain_name(name) == _SCALE for name in summary.constants)


def refuse_metric(metadata: Mapping[str, str]) -> str:
    """Returns why a network that infer_cfg.yml describes has no upright boxes, or ''."""
    metric = metadata.get(METRIC, "")
    found = (what for name, what in _OTHER_METRICS.items() if metric.lower().startswith(name))
    what = next(found, "")
    return f"infer_cfg.yml says metric {metric}: {what}" if what else ""


def advice(summary: GraphSummary) -> str:
    """Returns where such an export says how pictures are fed, to end a reason with; or ''."""
    if ARCH in summary.metadata or not is_paddledetection(summary):
        return ""
    return (
        "; PaddleDetection writes it into infer_cfg.yml: lay that beside the model, or give "
        "--spec infer_cfg.yml"
    )


def suppression(summary: GraphSummary) -> tuple[float, str]:
    """Returns the IoU threshold for boxes that are not suppressed yet, and a line for people.

    The file has PicoDet's only. Of the others that leave the suppression out, PP-YOLOE's
    configurations have 0.7 and YOLOv3's 0.45; the first has a softmax over the distances.
    """
    told = _share(summary.metadata.get(NMS_IOU, ""))
    if told is not None:
        return told, f"IoU {told}, as infer_cfg.yml says"
    name, threshold = ("PP-YOLOE", 0.7) if summary.operators.get("Softmax") else ("YOLOv3", 0.45)
    return threshold, f"IoU {threshold}, as {name}'s configurations have it"


def _share(text: str) -> float | None:
    """Returns a number from 0 to 1, or None: the metadata of a file may say anything."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None
