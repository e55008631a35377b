"""YOLOv5-style heads: decoded boxes, objectness and class scores, three anchors a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.labels import choose_labels, labels_from_metadata
from tvmdet.heads.landmarks import FACE_LANDMARKS, keypoints_line, landmark_spec
from tvmdet.heads.options import whole_number
from tvmdet.heads.pose import KEYPOINT_COLUMNS
from tvmdet.heads.ultralytics import refuse_export
from tvmdet.heads.yolo_evidence import doubt_boxes, doubt_scores, unit_input
from tvmdet.heads.yolo_find_rows import FoundRows, describe_rows, find_rows, rows_options
from tvmdet.heads.yolo_rows import RowFormat, emit_corners, reference_corners
from tvmdet.spec import DetectorSpec, InputSpec, MaskSpec, PostprocessSpec

if TYPE_CHECKING:
    import numpy as np
    from tvm import relax

__all__ = ["YoloV5Head"]

# Pyramids: P3 to P5; P3 to P6 (YOLOv5x6, YOLOv7-W6); P4 and P5 (YOLOv3-tiny); P2 to P5.
_ROWS = RowFormat(
    family="yolov5",
    lead=5,
    per_cell=3,
    pyramids=((8, 16, 32), (8, 16, 32, 64), (16, 32), (4, 8, 16, 32)),
    masks=True,
    keypoints=True,
    points_first=True,
)
_LEAD = 5
_FACE_VALUES = _LEAD + FACE_LANDMARKS + 1


class YoloV5Head(Head):
    """One output ``[N, A, 5 + C]`` (or ``[N, 5 + C, A]``), with masks a second one.

    A row is ``cx cy w h`` in pixels of the network's input, an objectness and one score per
    class, both through a sigmoid; a class scores the product of the two (YOLOv5's
    ``utils/general.py``, ``non_max_suppression``). There are three anchors a cell. YOLOv3, YOLOv5
    and YOLOv7 export so, YOLOv7 with ``--grid``. YOLOv5-seg ends each row in P mask coefficients
    and has prototypes ``[N, P, h, w]``. YOLOv5-face (deepcam-cn, ``models/yolo.py``) has five
    landmarks in pixels between the objectness and its only class. Exports that return the raw maps
    beside the decoded output are taken by the decoded one; exports of the raw maps alone are family
    ``yolo_maps``.

    Defaults are those of YOLOv5's ``detect.py``: RGB / 255, centred letterbox of grey 114, boxes
    divided by the ratio before rounding (``scale_boxes``), score 0.25, IoU 0.45, up to 1000 boxes.
    """

    name = "yolov5"
    title = "YOLOv5-style, decoded boxes with objectness, 3 anchors a cell (YOLOv3, YOLOv5, YOLOv7)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        found = find_rows(_ROWS, summary, size_hw, given)
        if isinstance(found, str):
            return found
        refusal = refuse_export(summary.metadata, masks=found.prototypes is not None)
        refusal = refusal or doubt_boxes(summary, found, size_hw, _ROWS.per_cell)
        columns = _landmark_columns(summary, found, given)
        if isinstance(columns, str):
            return columns
        found = replace(found, keypoint_columns=columns)
        first, end = _LEAD + columns, found.values - found.coefficients
        refusal = refusal or _doubt(summary, found, (first, end), given)
        if refusal:
            return refusal
        labels = choose_labels(summary.metadata, end - first, given)
        if isinstance(labels, str):
            return labels
        pixels = unit_input(summary, "letterbox with grey 114", self.name, given)
        if isinstance(pixels, str):
            return pixels
        reasons = (
            *describe_rows(found, size_hw, "4 box rows + 1 objectness row", len(labels[0])),
            "three anchors a cell; score = objectness x class",
            labels[1],
            pixels[1],
            *([keypoints_line(landmark_spec(columns), (found.output,))] if columns else []),
        )
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, scale="unrounded", **pixels[0]),
            postprocess=PostprocessSpec(
                score_threshold=0.25, iou_threshold=0.45, max_detections=1000
            ),
            options=rows_options(found),
            masks=MaskSpec(frame="image") if found.prototypes else None,
            keypoints=landmark_spec(columns) if columns else None,
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        _ROWS.validate(spec, summary)

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        rows = _ROWS.emit(bb, outputs, spec)
        boxes = emit_corners(bb, rows.center, rows.extent)
        scores = bb.emit(relax.op.multiply(rows.scores, rows.objectness))
        return rows.decoded(boxes, scores)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        rows = _ROWS.reference(outputs, spec)
        boxes = reference_corners(rows.center, rows.extent)
        scores = rows.scores * rows.objectness
        return rows.decoded(boxes, scores)


def _landmark_columns(
    summary: GraphSummary, found: FoundRows, given: Mapping[str, Any]
) -> int | Question:
    """Returns how many numbers of landmarks stand before the classes; or asks.

    A row of 16 is YOLOv5-face's where the graph proves that its last value is a score and the ten
    before it are none; where nothing is known of them, only labels tell it from eleven classes.
    """
    told = whole_number(given.get("options", {}), KEYPOINT_COLUMNS, 0, FACE_LANDMARKS)
    if told is not None:
        return told
    if found.values - found.coefficients != _FACE_VALUES:
        return 0
    end = _LEAD + FACE_LANDMARKS
    points = summary.column_runs(found.output, found.axis, _LEAD, end)
    last = summary.column_runs(found.output, found.axis, end, _FACE_VALUES)
    if points and last:
        faces = all(one.operators and not one.is_score for one in points)
        return FACE_LANDMARKS if faces and all(one.is_score for one in last) else 0
    named = given.get("labels") or labels_from_metadata(summary.metadata)[0]
    if named:
        return FACE_LANDMARKS if len(named) == 1 else 0
    return Question(
        f"rows of {_FACE_VALUES} values in {found.output} are eleven classes, or the landmarks and "
        "the class of a YOLOv5-face: say which",
        spec_text='family = "yolov5"\nlabels = ["face"]    # or the names of eleven classes',
    )


def _doubt(
    summary: GraphSummary, found: FoundRows, classes: tuple[int, int], given: Mapping[str, Any]
) -> str:
    """Says why the objectness and the classes are no scores, or ''.

    A user who names the family is believed, but where only some of the classes are scores: those
    are all made alike.
    """
    start, end = classes
    if start == _LEAD:
        doubt = doubt_scores(summary, found, _LEAD - 1, end)
    else:
        doubt = doubt_scores(summary, found, _LEAD - 1, _LEAD)
        doubt = doubt or doubt_scores(summary, found, start, end)
    if given.get("family") != YoloV5Head.name:
        return doubt
    runs = summary.column_runs(found.output, found.axis, start, end)
    mixed = any(run.is_score for run in runs) and not all(run.is_score for run in runs)
    return doubt if mixed else ""
