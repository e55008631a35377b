"""The table of the zoo: which network is exported how, and what tvmdet is to make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["CASES", "Case"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One export.

    Attributes:
        title: The family and its variant, as people call them; rows of the table.
        builder: Module that builds the network.
        network: Its name there.
        family: Head that recognises it; None where tvmdet must ask for a spec.
        reason: Why this row is here.
        exporter: script (TorchScript) or dynamo.
        opset: Of the export.
        spec: What the user has to write, because the file does not say it.
        default: What the default run does with it, whose export lies in ``exports/``: ``whole``,
            ``import``, or nothing.
    """

    title: str
    builder: str
    network: str
    family: str | None
    reason: str
    exporter: str = "script"
    opset: int = 17
    spec: Mapping[str, Any] = field(default_factory=dict)
    default: str = ""

    @property
    def name(self) -> str:
        """Names the case, and its files."""
        return f"{self.network}-{self.exporter}{self.opset}"

    @property
    def committed(self) -> bool:
        """Whether its export lies in ``exports/``."""
        return bool(self.default)


# The default run needs no torch: these exports are small, and committed.
DEFAULT = {
    "yolov8-script17": "import",
    "ultralytics_nms-script17": "whole",
    "yolov5_maps-script17": "import",
    "yolov7-script17": "import",
    "yolox_raw-script17": "import",
    "mmdeploy_nms-script17": "import",
    "efficient_nms_trt-script17": "import",
    "centernet-script17": "import",
}

# The oldest opset that each exporter writes, the one that most files have, and the newest.
SCRIPT_OPSETS = (11, 13, 17, 20)
DYNAMO_OPSETS = (18, 20)
# Their frameworks register NonMaxSuppression as a symbolic function, which TorchScript alone has.
SCRIPT_ONLY = ("mmdeploy_nms", "yolov7_end_to_end", "paddle_nms")

_YOLO = (
    Case(
        title="YOLOv3",
        builder="build_yolo",
        network="yolov3",
        family="yolov5",
        reason="decoded rows with objectness, sizes by exp",
    ),
    Case(
        title="YOLOv4",
        builder="build_yolo",
        network="yolov4",
        family="yolov4",
        reason="boxes [N, A, 1, 4] and confidences of pytorch-YOLOv4",
    ),
    Case(
        title="YOLOv5",
        builder="build_yolo",
        network="yolov5",
        family="yolov5",
        reason="decoded rows with objectness, three anchors a cell",
    ),
    Case(
        title="YOLOv5, raw maps",
        builder="build_yolo",
        network="yolov5_maps",
        family=None,
        reason="raw maps name neither anchors nor strides: it has to ask",
    ),
    Case(
        title="YOLOv5, raw maps, named",
        builder="build_yolo",
        network="yolov5_maps_named",
        family="yolo_maps",
        reason="the same maps with the spec that was asked for",
        spec={
            "family": "yolo_maps",
            "labels": [f"class {number}" for number in range(6)],
            "options": {"version": "yolov5"},
        },
    ),
    Case(
        title="YOLOv7",
        builder="build_yolo",
        network="yolov7",
        family="yolov5",
        reason="decoded in place: the exporters write ScatterND",
    ),
    Case(
        title="YOLOv6",
        builder="build_yolo",
        network="yolov6",
        family="yolov6",
        reason="an objectness of ones",
    ),
    Case(
        title="YOLOv6, distribution",
        builder="build_yolo",
        network="yolov6_distribution",
        family="yolov6",
        reason="sides as distributions, an objectness of ones",
    ),
    Case(
        title="YOLOX",
        builder="build_yolo",
        network="yolox",
        family="yolox",
        reason="one anchor a cell, decoded in the graph",
    ),
    Case(
        title="YOLOX, raw",
        builder="build_yolo",
        network="yolox_raw",
        family="yolox",
        reason="what tools/export_onnx.py writes: decoded by the user",
    ),
    Case(
        title="YOLOv8, YOLOv9, YOLO11",
        builder="build_yolo",
        network="yolov8",
        family="yolov8",
        reason="with the exporter's metadata",
    ),
    Case(
        title="YOLOv8, no metadata",
        builder="build_yolo",
        network="yolov8_plain",
        family="yolov8",
        reason="classes and labels by the shape alone",
        spec={"labels": [f"class {number}" for number in range(6)]},
    ),
    Case(
        title="YOLOv8, raw maps",
        builder="build_yolo",
        network="yolov8_maps",
        family="yolov8_maps",
        reason="box and class maps of each level, as for RKNN and Hailo",
        spec={"labels": [f"class {number}" for number in range(6)]},
    ),
    Case(
        title="YOLOv8-seg",
        builder="build_yolo",
        network="yolov8_seg",
        family="yolov8",
        reason="mask coefficients and prototypes",
    ),
    Case(
        title="YOLOv8-pose, YOLO11-pose",
        builder="build_yolo",
        network="yolov8_pose",
        family="yolov8",
        reason="keypoints with scores end each row",
    ),
    Case(
        title="YOLO26-pose",
        builder="build_yolo",
        network="yolo26_pose",
        family="detections",
        reason="keypoints after the six columns of chosen rows",
    ),
    Case(
        title="YOLOv10",
        builder="build_yolo",
        network="yolov10",
        family="detections",
        reason="end to end: TopK inside",
    ),
    Case(
        title="YOLO26",
        builder="build_yolo",
        network="yolo26",
        family="detections",
        reason="end to end, sides without a distribution",
    ),
)


# No file of a raw dense head says which framework's anchors, points and pixels it has.
def _dense(family: str, style: str) -> dict[str, Any]:
    return {
        "family": family,
        "labels": [f"class {number}" for number in range(6)],
        "options": {"style": style},
    }


_DENSE = (
    Case(
        title="RetinaNet, MMDetection, raw",
        builder="build_dense",
        network="retinanet_mm",
        family="retinanet",
        reason="class and box maps of five levels, nine anchors a cell",
        spec=_dense("retinanet", "mmdetection"),
    ),
    Case(
        title="FCOS, MMDetection, raw",
        builder="build_dense",
        network="fcos_mm",
        family="fcos",
        reason="distances in pixels, centerness",
        spec=_dense("fcos", "mmdetection"),
    ),
    Case(
        title="ATSS, raw",
        builder="build_dense",
        network="atss",
        family="atss",
        reason="one anchor a cell, centerness",
        spec=_dense("atss", "mmdetection"),
    ),
    Case(
        title="GFL, raw",
        builder="build_dense",
        network="gfl",
        family="gfl",
        reason="sides as distributions on five levels",
        spec={"labels": [f"class {number}" for number in range(6)]},
    ),
    Case(
        title="PicoDet, raw",
        builder="build_dense",
        network="picodet",
        family="picodet",
        reason="scores and distributions of four levels",
        spec={"labels": [f"class {number}" for number in range(6)]},
    ),
    Case(
        title="NanoDet-Plus",
        builder="build_dense",
        network="nanodet_plus",
        family="nanodet_plus",
        reason="scores and distributions in one output",
        spec={"labels": [f"class {number}" for number in range(6)]},
    ),
    Case(
        title="RTMDet, raw",
        builder="build_dense",
        network="rtmdet",
        family="rtmdet",
        reason="distances in pixels from three levels",
        spec=_dense("rtmdet", "mmdetection"),
    ),
    Case(
        title="CenterNet",
        builder="build_dense",
        network="centernet",
        family="centernet",
        reason="peaks of a heat map",
        spec=_dense("centernet", "centernet"),
    ),
    Case(
        title="EfficientDet, raw",
        builder="build_dense",
        network="efficientdet",
        family="efficientdet",
        reason="boxes as y x h w, nine anchors a cell",
        spec=_dense("efficientdet", "tensorflow"),
    ),
)

_FACES = tuple(
    Case(title=title, builder="build_faces", network=network, family=network, reason=reason)
    for title, network, reason in (
        ("SCRFD, faces", "scrfd", "rows without a batch, two anchors a cell, numbers for names"),
        ("YuNet, faces", "yunet", "the root of two scores' product"),
        ("CenterFace, faces", "centerface", "log sides and shifts, told by what a picture gives"),
        ("BlazeFace, faces", "blazeface", "896 boxes in pixels with six landmarks each"),
    )
)

_TRANSFORMERS = tuple(
    Case(title=title, builder="build_transformers", network=network, family=family, reason=reason)
    for title, network, family, reason in (
        ("DETR", "detr", "detr", "softmax with a column for no object"),
        ("YOLOS", "yolos", "detr", "a plain vision transformer"),
        ("Conditional DETR", "conditional_detr", "rtdetr", "sigmoid for each class"),
        ("Deformable DETR", "deformable_detr", "rtdetr", "attention that samples maps"),
        ("RT-DETR", "rtdetr", "rtdetr", "hybrid encoder, queries chosen by TopK"),
        ("RT-DETRv2", "rtdetr_v2", "rtdetr", "discrete sampling as an option"),
        ("D-FINE", "dfine", "rtdetr", "distributions refined layer by layer"),
        ("RF-DETR", "rf_detr", "rtdetr", "windowed DINOv2"),
        ("LW-DETR", "lw_detr", "rtdetr", "windowed vision transformer"),
    )
)


# What pictures an export with suppression wants, and its classes, no output says.
def _finished(*columns: str) -> dict[str, Any]:
    return {
        "family": "detections",
        "labels": [f"class {number}" for number in range(6)],
        "input": {"color": "rgb", "mean": [0.0] * 3, "std": [255.0] * 3},
        "options": {"columns": list(columns)} if columns else {},
    }


_SUPPRESSED = tuple(
    Case(
        title=title,
        builder="build_suppressed",
        network=network,
        family="detections",
        reason=reason,
        spec=spec,
    )
    for title, network, reason, spec in (
        ("Ultralytics, nms=True", "ultralytics_nms", "a loop over pictures, rows padded", {}),
        ("MMDeploy, ONNX Runtime", "mmdeploy_nms", "NonMaxSuppression, dets, labels", _finished()),
        ("MMDeploy, TensorRT", "mmdeploy_trt", "TRTBatchedNMS", _finished()),
        (
            "YOLOv7 end to end",
            "yolov7_end_to_end",
            "NonMaxSuppression, rows of seven columns",
            _finished("batch", "x1", "y1", "x2", "y2", "class", "score"),
        ),
        ("YOLOv6, YOLOv7 for TensorRT", "efficient_nms_trt", "EfficientNMS_TRT", _finished()),
        (
            "PP-YOLOE, PaddleDetection",
            "paddle_nms",
            "multiclass_nms3, divided by scale_factor",
            _finished("class", "score", "x1", "y1", "x2", "y2"),
        ),
    )
)

_SEVEN = {"labels": ["background", *(f"class {number}" for number in range(1, 7))]}

_TORCHVISION = tuple(
    Case(
        title=f"{title}, torchvision, whole",
        builder="build_torchvision",
        network=f"torchvision_{network}",
        family="detections",
        reason=reason,
        spec=_SEVEN,
    )
    for title, network, reason in (
        ("RetinaNet", "retinanet", "TopK and suppression of each level inside"),
        ("FCOS", "fcos", "as RetinaNet, with centerness"),
        ("SSD", "ssd", "TopK and suppression of each class inside"),
        ("SSDLite", "ssdlite", "MobileNetV3"),
        ("Faster R-CNN", "faster_rcnn", "proposals, RoIAlign on four levels"),
        ("Cascade R-CNN", "cascade_rcnn", "three box heads in a row, scores averaged"),
        ("Mask R-CNN", "mask_rcnn", "masks pasted in a Loop"),
    )
) + tuple(
    Case(
        title=f"{title}, torchvision, heads",
        builder="build_torchvision",
        network=f"torchvision_{network}_raw",
        family=network.replace("ssdlite", "ssd"),
        reason=reason,
        spec=spec,
    )
    for title, network, reason, spec in (
        ("RetinaNet", "retinanet", "logits and deltas, anchors of torchvision", {}),
        ("FCOS", "fcos", "logits, distances, centerness", {}),
        (
            "SSD",
            "ssd",
            "default boxes of SSD300 on a backbone that is not VGG16: it has to ask",
            {"family": "ssd", "options": {"style": "torchvision"}},
        ),
        ("SSDLite", "ssdlite", "default boxes of SSDLite320", {}),
    )
)

_NETWORKS = _YOLO + _DENSE + _FACES + _TRANSFORMERS + _SUPPRESSED + _TORCHVISION


def _matrix() -> tuple[Case, ...]:
    """Every network by every exporter and opset."""
    exports = [("script", opset) for opset in SCRIPT_OPSETS]
    exports += [("dynamo", opset) for opset in DYNAMO_OPSETS]
    cases = [
        replace(case, exporter=exporter, opset=opset)
        for case in _NETWORKS
        for exporter, opset in exports
        if exporter == "script" or case.network not in SCRIPT_ONLY
    ]
    return tuple(replace(case, default=DEFAULT.get(case.name, "")) for case in cases)


CASES = _matrix()
