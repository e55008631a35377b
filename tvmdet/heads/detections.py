"""Exports whose outputs are detections already: suppression, or a set prediction, is inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tvmdet.coco_names import spread_over_numbers
from tvmdet.heads.angles import says_oriented
from tvmdet.heads.base import (
    BOX_MASKS,
    AtOdds,
    Decoded,
    GraphSummary,
    Head,
    Question,
    Recognition,
)
from tvmdet.heads.chosen_rows import SUPPRESSION
from tvmdet.heads.detection_cells import ask_whether_to_suppress, with_cells
from tvmdet.heads.detection_decoding import (
    check_options,
    decode_detections,
    decode_detections_reference,
)
from tvmdet.heads.detection_frames import box_frame
from tvmdet.heads.detection_inputs import detections_input
from tvmdet.heads.detection_outputs import (
    DetectionOutputs,
    class_range,
    find_detection_outputs,
    finished_rows,
)
from tvmdet.heads.input_defaults import stated_input
from tvmdet.heads.labels import class_names, labels_from_metadata
from tvmdet.heads.landmarks import keypoints_line
from tvmdet.heads.names import plain_name
from tvmdet.heads.options import whole_number
from tvmdet.heads.pose import KEYPOINT_COLUMNS, given_columns, row_keypoints
from tvmdet.heads.pose_outputs import find_points, flat_pose_points, point_spec
from tvmdet.heads.ultralytics import is_ultralytics
from tvmdet.spec import DetectorSpec, InputSpec, MaskSpec, PostprocessSpec

if TYPE_CHECKING:
    import numpy as np
    from tvm import relax

__all__ = ["DetectionsHead"]

_MOST_CLASSES = 5000  # a greater bound is that of some index, not of class numbers
_LARGEST_OFFSET = 1000
_BACKGROUNDS = ("__background__", "background", "bg")


class DetectionsHead(Head):
    """One row a detection: a box, a score and a class number, in one output or in several.

    Covers torchvision (``boxes``, ``labels``, ``scores``, ``masks``), MMDeploy (``dets``,
    ``labels``), YOLOv10, YOLO26 and Ultralytics with nms=True, YOLOv7 and YOLO-NAS with NMS,
    PaddleDetection, TensorRT's NMS plugins (``num_dets``, ``det_boxes``, ...), the TensorFlow
    Object Detection API (``detection_boxes``, ...), the ONNX zoo's SSD, RT-DETR's own exporter,
    Detectron2, and DeepStream-Yolo, whose rows are one for every cell.

    What such a file cannot say for sure (how pictures are normalised, how many classes there are,
    whether boxes are pixels) is asked for. What was chosen inside is not suppressed again; whether
    other rows are to be is asked.
    """

    name = "detections"
    title = "finished detections, suppression inside the network (any export with NMS; YOLOv10)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        options = given.get("options", {})
        apart = find_points(summary, options)
        joints = flat_pose_points(summary) if apart is None else apart.count
        points = row_keypoints(summary.metadata, given)
        if joints:
            points = point_spec(joints, given, scored=apart is None or apart.is_scored)
        columns_of_points = 0 if apart is not None else given_columns(points, given)
        oriented = bool(says_oriented(summary, given))
        found = find_detection_outputs(
            summary,
            options,
            columns_of_points,
            oriented=oriented,
            labels=given.get("labels") or (),
        )
        if isinstance(found, str):
            return self._ask_which_to_keep(summary, size_hw, given) or found
        found = with_cells(summary, found, size_hw, options)
        frame = box_frame(summary, found, size_hw, options)
        if isinstance(frame, Question):
            return ask_whether_to_suppress(found, given, frame) or frame
        if isinstance(frame, str):
            return frame
        columns, where, frame_line = frame
        is_other = found.columns and columns != found.columns
        why = f"{found.boxes} has the columns {' '.join(columns)}" if is_other else found.why
        labels = _labels(summary, found, given)
        if isinstance(labels, str):
            return labels
        names, offset, labels_line = labels
        values = detections_input(summary, found, given)
        further = values if isinstance(values, Question) else None
        asked = ask_whether_to_suppress(found, given, further)
        if asked is not None:
            return asked
        if isinstance(values, str):
            return values
        masks = _mask_spec(summary, found, size_hw, given)
        if isinstance(masks, str):
            return masks
        spec = DetectorSpec(
            family=self.name,
            labels=names,
            input=InputSpec(size_hw=size_hw, **values[0]),
            postprocess=PostprocessSpec(
                iou_threshold=1.0, max_detections=min(max(found.rows, 1), 300), multi_label=True
            ),
            options={
                "box_frame": where,
                "box_output": found.boxes,
                "class_output": found.classes,
                "columns": list(columns),
                "count_output": found.count,
                "label_offset": offset,
                "mask_output": found.masks,
                "score_output": found.scores,
                **({"prototype_output": found.prototypes} if found.prototypes else {}),
                **({KEYPOINT_COLUMNS: columns_of_points} if columns_of_points else {}),
                **(apart.options if apart else {}),
            },
            masks=masks,
            keypoints=points,
            oriented="angle" in columns,
        )
        holders = apart.names if apart else (found.boxes,)
        reasons = (
            f"{why} ({found.rows} rows)",
            frame_line,
            labels_line,
            values[1],
            *([f"{found.masks}: one mask a row"] if found.masks else []),
            *([f"{found.prototypes}: prototypes of masks"] if found.prototypes else []),
            *([] if points is None else [keypoints_line(points, holders)]),
            *_pooled_otherwise(summary),
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def _ask_which_to_keep(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Question | None:
        """Asks for the output to keep, where chosen rows stand beside what they were chosen of."""
        names = [name for name, value in summary.exported_outputs.items() if len(value.shape) > 1]
        suppressed = any(summary.operators.get(name) for name in SUPPRESSION)
        kept = finished_rows(summary)
        if not suppressed or len(kept) != 1 or len(names) < 2:
            return None
        alone = replace(summary, outputs={kept[0]: summary.outputs[kept[0]]})
        answer = self.examine(alone, size_hw, given)
        if not isinstance(answer, Recognition | Question):
            return None
        others = ", ".join(f'"{name}"' for name in names if name != kept[0])
        text = f'outputs = ["{kept[0]}"]    # chosen inside; or [{others}], chosen by tvmdet'
        more = f"\n{answer.spec_text}" if isinstance(answer, Question) else ""
        return Question(
            f"{kept[0]} has rows that a suppression inside has chosen, and there are other outputs "
            f"beside it ({others}): say which to keep",
            spec_text=f"{text}{more}",
        )

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        check_options(spec, summary)

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        return decode_detections(bb, outputs, spec)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        return decode_detections_reference(outputs, spec)


def _labels(
    summary: GraphSummary, found: DetectionOutputs, given: Mapping[str, Any]
) -> tuple[tuple[str, ...], int, str] | str:
    """Returns the labels, the class number of the first one, and a line; or what to ask for."""
    numbers = class_range(summary, found)
    # Rows past the last have number -1 in some exports, and no score.
    known = numbers.whole and numbers.low >= -1 and 0 <= numbers.high < _MOST_CLASSES
    count = int(numbers.high) + 1 if known else None
    offset = whole_number(given.get("options", {}), "label_offset", 0, _LARGEST_OFFSET)
    names = tuple(given.get("labels") or labels_from_metadata(summary.metadata)[0] or ())
    if not names:
        if count is None:
            return Question(
                "the graph does not say how many classes there are",
                spec_text='family = "detections"\nlabels = ["first class", "second class"]',
            )
        start = offset or 0
        made = tuple(f"class_{index}" for index in range(start, count))
        line = f"class numbers up to {count - 1}: labels are {class_names(start, count)}"
        return made, start, f"{line}; give them in a spec"
    line = f"{len(names)} labels from the {'spec' if given.get('labels') else 'metadata'}"
    if offset is None and count and (spread := spread_over_numbers(names, count)):
        return spread, 0, f"{line}, by COCO's numbers {91 - count} to 90"
    if offset is not None:
        return names, offset, f"{line}; the first has class number {offset}"
    if names[0].strip().lower() in _BACKGROUNDS or len(names) == count:
        return names, 0, f"{line}, by class number from 0"
    if count is not None and len(names) == count - 1:
        return names, 1, f"{line}, by class number from 1: number 0 is the background"
    if count is None and _starts_at_zero(found):
        return names, 0, f"{line}, by class number from 0"
    if count is not None and len(names) > count:
        return AtOdds(f"there are {len(names)} labels, but class numbers are from 0 to {count - 1}")
    shown = "any" if count is None else f"0 to {count - 1}"
    return Question(
        f"there are {len(names)} labels, and the class numbers may be {shown}: which number has "
        "the first label?",
        spec_text='family = "detections"\n[options]\n'
        "label_offset = 1    # or 0: the class number of the first label",
    )


def _starts_at_zero(found: DetectionOutputs) -> bool:
    """Returns whether the exporters of this format count classes from 0."""
    counted = plain_name(found.count) == "num_dets"
    named = plain_name(found.boxes) in ("det_boxes", "pred_boxes")
    return "score" in found.columns or named or counted


def _pooled_otherwise(summary: GraphSummary) -> list[str]:
    """Says that an R-CNN of Detectron2 lost the half cell that its regions are moved by.

    Its ROIAlign has ``aligned=True``, which ONNX's has from opset 16 on; exporters leave it away
    before. Torchvision's detectors, whose pictures go from 0 to 1, have never had it.
    """
    stated = stated_input(summary)
    of_detectron2 = stated is not None and stated[0]["color"] == "bgr"
    if not (summary.operators.get("RoiAlign") and of_detectron2 and 0 < summary.opset < 16):
        return []
    return [
        f"opset {summary.opset} has no RoiAlign with aligned=True, as Detectron2's: where it was "
        "left away, this file answers otherwise than the framework; export at opset 16 or later"
    ]


def _mask_spec(
    summary: GraphSummary,
    found: DetectionOutputs,
    size_hw: tuple[int, int],
    given: Mapping[str, Any],
) -> MaskSpec | str | None:
    if not (found.masks or found.prototypes) or given.get("masks") is False:
        return None
    told = given.get("masks") or {}
    if found.prototypes:
        frame = told.get("frame", "image")
        by_logits = is_ultralytics(summary.metadata) and frame == "image"
        return MaskSpec(frame=frame, interpolate="logits" if by_logits else "values")
    height, width = summary.outputs[found.masks].shape[-2:]
    if "frame" in told:
        return MaskSpec(frame=told["frame"])
    if (height, width) == size_hw:
        return MaskSpec(frame="image", cut_to_box=False)  # pasted into the image already
    if _masks_span_boxes(summary, found, size_hw):
        return MaskSpec(frame="box")
    return Question(
        f"{found.masks} has masks of {height}x{width}, which may span the box or the whole input",
        spec_text='family = "detections"\n[masks]\nframe = "box"    # or "image"',
    )


def _masks_span_boxes(
    summary: GraphSummary, found: DetectionOutputs, size_hw: tuple[int, int]
) -> bool:
    """Returns whether each mask is known to span its box.

    The frontend says so where it cut their pasting off. Small squares do where regions are pooled
    (Mask R-CNN and what came of it), and in MMDeploy's exports with ``export_postprocess_mask``
    off. Small squares alone may as well be pictures of the whole input.
    """
    if summary.metadata.get(BOX_MASKS) == found.masks:
        return True
    height, width = summary.outputs[found.masks].shape[-2:]
    small = height == width and height is not None and 2 * height < min(size_hw)
    pooled = bool(summary.operators.get("RoiAlign"))
    by_mmdeploy = plain_name(found.boxes) == "dets" and "score" in found.columns
    return small and (pooled or by_mmdeploy)
