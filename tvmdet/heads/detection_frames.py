"""In which order and unit the boxes of finished detections are, where something says so.

An order is never guessed: a box ``cx cy w h`` from 0 to 1 passes every test that ``x1 y1 x2 y2``
passes, and a wrong one gives plausible boxes in the wrong places. It is known where the exporter
is, by the names of its outputs or by its metadata. What the graph proves about the values may then
contradict it, and the user is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvmdet.heads.base import GraphSummary, Question, Range
from tvmdet.heads.box_evidence import are_likely_corners
from tvmdet.heads.chosen_rows import SUPPRESSION
from tvmdet.heads.detection_outputs import BOX_COLUMNS, DetectionOutputs
from tvmdet.heads.names import SELECTED_BOXES, plain_name
from tvmdet.heads.options import choice
from tvmdet.heads.paddledetection import is_paddledetection, takes_scale
from tvmdet.heads.pose_outputs import flat_pose_points
from tvmdet.heads.size_inputs import KERAS_YOLO, SCALES_CORNERS
from tvmdet.heads.ultralytics import is_rtdetr, is_ultralytics

__all__ = [
    "box_frame",
    "ends_in_scores",
    "is_easydeploy",
    "is_keras_yolo",
    "is_object_detection_api",
    "is_tensorrt_yolo",
    "is_yolo_nas",
    "is_yolo_nas_pose",
    "proven_frame",
]

_FRAMES = ("normalized", "pixels")
_CORNERS = BOX_COLUMNS["corners"]
_SIDES = frozenset(("x1", "y1", "x2", "y2", "cx", "cy", "w", "h"))
# Corners of a box cx cy w h from 0 to 1 reach from -0.5 to 1.5; no detector has such pixels.
_UNIT = (-1.0, 2.0)
_TENSORRT = frozenset(("num_dets", "det_boxes", "det_scores", "det_classes"))
_EASYDEPLOY = frozenset(("num_dets", "boxes", "scores", "labels"))
_YOLO_NAS = frozenset(("num_predictions", "pred_boxes", "pred_scores", "pred_classes"))
_YOLO_NAS_POSE = frozenset(
    ("num_predictions", "post_nms_boxes", "post_nms_scores", "post_nms_joints")
)

Frame = tuple[tuple[str, ...], str, str]


def box_frame(
    summary: GraphSummary,
    found: DetectionOutputs,
    size_hw: tuple[int, int],
    options: Mapping[str, Any],
) -> Frame | str:
    """Returns the columns, ``pixels`` or ``normalized``, and a line; or what to ask for.

    Args:
        summary: The network.
        found: Its outputs.
        size_hw: Height and width of its input, in pixels.
        options: What the spec says; it wins.
    """
    told = choice(options, "box_frame", _FRAMES)
    proven = proven_frame(summary, found, size_hw)
    known = _convention(summary, found, proven)
    columns = tuple(options.get("columns", ()))
    if columns and told:
        return columns, told, f"boxes are {' '.join(_sides(columns))}, {told}, from the spec"
    if not columns and known is not None:
        columns = known[0]
    if not columns:
        return _ask(summary, found, proven, "in which order its columns are", told)
    frame = told or (known[1] if known is not None else None) or proven
    if frame is None:
        return _ask(
            summary, found, proven, "whether it is in pixels of the network's input or from 0 to 1"
        )
    if proven is not None and proven != frame and told is None:
        assert known is not None  # the frame came from there
        reason = f"boxes would be {frame} {known[2]}, but the graph proves that they are {proven}"
        return _ask(summary, found, proven, reason)
    why = "from the spec" if told else known[2] if known else "as the graph proves"
    shown = "in pixels of the network's input" if frame == "pixels" else "from 0 to 1"
    return columns, frame, f"boxes are {' '.join(_sides(columns))} {shown}, {why}"


def proven_frame(
    summary: GraphSummary, found: DetectionOutputs, size_hw: tuple[int, int]
) -> str | None:
    """Returns the unit that the values of the four box columns prove, or None.

    Boxes whose values cannot be more than 2 are not pixels. Boxes that are cut at the sides of the
    network's input are.
    """
    ranges = _box_ranges(summary, found)
    if not ranges:
        return None
    if all(one.low >= _UNIT[0] and one.high <= _UNIT[1] for one in ranges):
        return "normalized"
    cut = {float(side - less) for side in size_hw for less in (0, 1)}
    if min(size_hw) > 2 and all(one.high in cut for one in ranges):
        return "pixels"
    return None


def _box_ranges(summary: GraphSummary, found: DetectionOutputs) -> Sequence[Range]:
    ranges = summary.output_ranges.get(found.boxes, ())
    if len(ranges) == 1:
        return ranges * 4
    width = summary.outputs[found.boxes].shape[-1]
    if len(ranges) != width:
        return ()
    if not found.columns:
        return ranges
    named = zip(found.columns, ranges, strict=False)
    return [one for name, one in named if name in _SIDES]


def _convention(
    summary: GraphSummary, found: DetectionOutputs, proven: str | None
) -> tuple[tuple[str, ...], str | None, str] | None:
    """Returns the columns, the unit or None, and whose convention it is; None where none fits."""
    if found.cell_frame is not None:
        return *found.cell_frame, "as they move along with the cells of a picture"
    if found.of_cells:
        return None  # of an exporter that leaves the suppression to others
    if summary.outputs[found.boxes].shape[-1] != 4:
        return _of_columns(summary, found)
    names = frozenset(map(plain_name, summary.outputs))
    name, rank = plain_name(found.boxes), len(summary.outputs[found.boxes].shape)
    if name == "detection_boxes":
        if is_object_detection_api(summary, found):
            who = "as in the TensorFlow Object Detection API"
            return ("y1", "x1", "y2", "x2"), "normalized", who
        return None
    if is_keras_yolo(summary, found):
        return ("y1", "x1", "y2", "x2"), "pixels", "as keras-yolo3 and the ONNX model zoo's YOLOv3"
    if is_tensorrt_yolo(summary, found):
        return _CORNERS, "pixels", "as YOLO's exports for TensorRT"
    if is_easydeploy(summary):
        return _CORNERS, "pixels", "as MMYOLO's easydeploy"
    if is_yolo_nas(summary):
        return _CORNERS, "pixels", "as YOLO-NAS's exports"
    if {"pred_boxes", "pred_classes", "scores"} <= names and rank == 2:
        return _CORNERS, "pixels", "as Detectron2's instances"
    if name != "pred_boxes":
        sized = [one for one in summary.constants if plain_name(one) in SCALES_CORNERS]
        if sized:
            return _CORNERS, "pixels", f"scaled by the input {sized[0]}"
        if rank == 2 and _is_whole_detector(summary, found, proven):
            return _CORNERS, "pixels", "as torchvision and Detectron2"
    return None


def is_object_detection_api(summary: GraphSummary, found: DetectionOutputs) -> bool:
    """Returns whether outputs are those of the TensorFlow Object Detection API."""
    names = set(map(plain_name, summary.outputs))
    extra = {"raw_detection_boxes", "detection_multiclass_scores"}
    named = plain_name(found.boxes) == "detection_boxes"
    return named and ("tf2onnx" in summary.producer or bool(extra & names))


def is_yolo_nas(summary: GraphSummary) -> bool:
    """Returns whether outputs are those of super-gradients with suppression, in batch format.

    For TensorRT they are called as others call them, who feed no bytes.
    """
    names = set(map(plain_name, summary.outputs))
    named = names >= _YOLO_NAS or is_yolo_nas_pose(summary)
    return named or (summary.takes_bytes and names >= _TENSORRT)


def is_yolo_nas_pose(summary: GraphSummary) -> bool:
    """Returns whether outputs are those of super-gradients' poses with suppression."""
    names = set(map(plain_name, summary.outputs))
    return names >= _YOLO_NAS_POSE or flat_pose_points(summary) > 0


def is_tensorrt_yolo(summary: GraphSummary, found: DetectionOutputs) -> bool:
    """Returns whether outputs are named as those of YOLOv6, YOLOv7 and YOLOv9 for TensorRT."""
    names = frozenset(map(plain_name, summary.outputs))
    return names >= _TENSORRT and plain_name(found.boxes) == "det_boxes"


def is_easydeploy(summary: GraphSummary) -> bool:
    """Returns whether outputs are named as those of MMYOLO's easydeploy, and suppressed inside."""
    names = set(map(plain_name, summary.outputs))
    return names >= _EASYDEPLOY and _is_suppressed(summary)


def is_keras_yolo(summary: GraphSummary, found: DetectionOutputs) -> bool:
    """Returns whether boxes are scaled to ``image_shape``, and a suppression chose their rows."""
    sized = any(plain_name(name) == KERAS_YOLO for name in summary.constants)
    return sized and found.boxes == SELECTED_BOXES


def _is_whole_detector(summary: GraphSummary, found: DetectionOutputs, proven: str | None) -> bool:
    """Returns whether pictures go in as they are, and suppressed rows of one image come back.

    So do the exports of torchvision's detectors and of Detectron2's, which return lists: they
    normalise, or pool regions, inside, and cut boxes at the sides of the picture.
    """
    integers = not summary.outputs[found.classes].dtype.startswith("float")
    pools = bool(summary.operators.get("RoiAlign"))
    inner = summary.normalisation
    inside = (inner is not None and inner.is_proven) or pools or proven == "pixels"
    return _is_suppressed(summary) and integers and inside


def _is_suppressed(summary: GraphSummary) -> bool:
    return any(summary.operators.get(name) for name in SUPPRESSION)


def _of_columns(
    summary: GraphSummary, found: DetectionOutputs
) -> tuple[tuple[str, ...], str | None, str] | None:
    """Returns the convention of an output that has scores beside its boxes."""
    columns = found.columns
    rank = len(summary.outputs[found.boxes].shape)
    if columns == (*_CORNERS, "score") and plain_name(found.boxes) == "dets":
        return columns, "pixels", "as MMDeploy's exports"
    if columns == (*_CORNERS, "score", "class") and is_rtdetr(summary.metadata):
        if ends_in_scores(summary, found.boxes):
            return None  # of two classes, as before 8.4
        return ("cx", "cy", "w", "h", *columns[4:]), "normalized", "as Ultralytics' RT-DETR"
    if columns == (*_CORNERS, "score", "class") and is_ultralytics(summary.metadata):
        return columns, "pixels", "as Ultralytics' exports"
    if columns[-1:] == ("angle",):
        return columns, "pixels", "as Ultralytics' exports"
    told = is_paddledetection(summary) or takes_scale(summary)
    if columns[:2] == ("class", "score") and told:
        return columns, "pixels", "as PaddleDetection's exports"
    if columns[:1] == ("batch",) and rank == 2:
        return columns, "pixels", "as the flat exports of YOLOv7 and YOLO-NAS"
    return None


def ends_in_scores(summary: GraphSummary, output: str) -> bool:
    """Returns whether the last column of an output is proven to hold scores from 0 to 1.

    Class numbers are not always proven to be whole: Ultralytics computes them as a difference.
    """
    ranges = summary.output_ranges.get(output, ())
    return bool(ranges) and ranges[-1].is_unit and not ranges[-1].whole


def _sides(columns: Sequence[str]) -> list[str]:
    return [name for name in columns if name in _SIDES]


def _usual_columns(summary: GraphSummary, found: DetectionOutputs) -> tuple[str, ...]:
    """Returns the columns to offer: two corners, unless those of a picture look like sizes.

    Boxes whose first values can be less than nothing reach over the border, as centres do not.
    """
    columns = found.columns or _CORNERS
    if not set(_CORNERS) <= set(columns):
        return columns
    places = [columns.index(name) for name in _CORNERS]
    if are_likely_corners(summary, found.boxes, places) is not False:
        return columns
    ranges = _box_ranges(summary, found)
    beyond = bool(ranges) and ranges[0].low < 0
    sized = BOX_COLUMNS["corner_size" if beyond else "center_size"]
    renamed = dict(zip(_CORNERS, sized, strict=True))
    return tuple(renamed.get(name, name) for name in columns)


def _ask(
    summary: GraphSummary,
    found: DetectionOutputs,
    proven: str | None,
    what: str,
    told: str | None = None,
) -> Question:
    frame = told or proven or "pixels"
    other = "normalized" if frame == "pixels" else "pixels"
    columns = _usual_columns(summary, found)
    listed = ", ".join(f'"{name}"' for name in columns)
    orders = ["x1 y1 x2 y2", "y1 x1 y2 x2 (TensorFlow)", "cx cy w h", "x1 y1 w h"]
    others = ", ".join(one for one in orders if one.split(" (")[0] != " ".join(_sides(columns)))
    settled = told or proven
    said = f" (they are {settled})" if settled else ", nor the unit"
    reason = what if what.startswith("boxes") else f"nothing says of {found.boxes} {what}"
    if "order" in what:
        reason += said
    return Question(
        reason,
        spec_text='family = "detections"\n[options]\n'
        f'box_frame = "{frame}"                    # or "{other}"\n'
        f"columns = [{listed}]      # or {others}",
    )
