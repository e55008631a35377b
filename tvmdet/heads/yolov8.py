"""YOLOv8-style heads: decoded boxes and class scores in one output (YOLOv8, YOLOv9, YOLO11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.heads.angles import ends_in_angle
from tvmdet.heads.base import AtOdds, Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.labels import choose_labels, labels_from_metadata
from tvmdet.heads.pose import given_columns, row_keypoints
from tvmdet.heads.ultralytics import is_ultralytics, is_yoloe, refuse_export
from tvmdet.heads.yolo_evidence import box_runs, doubt_boxes, doubt_scores, unit_input
from tvmdet.heads.yolo_find_rows import (
    FoundRows,
    SeveralFit,
    describe_rows,
    find_rows,
    rows_options,
)
from tvmdet.heads.yolo_rows import RowFormat, emit_corners, reference_corners
from tvmdet.spec import DetectorSpec, InputSpec, MaskSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["YoloV8Head"]

# Pyramid levels that this family is trained with: the usual one, its -p2 and -p6 variants, and that
# of the small YOLOv3.
_ROWS = RowFormat(
    family="yolov8",
    lead=4,
    per_cell=1,
    pyramids=((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64), (16, 32)),
    masks=True,
    keypoints=True,
)
# Of two boxes of a class that overlap more the weaker goes: Ultralytics' OpenCV example for YOLOv8,
# and their ``predict`` (``ultralytics/cfg/default.yaml``).
_IOU, _IOU_ULTRALYTICS = 0.45, 0.7


class YoloV8Head(Head):
    """One output ``[N, 4 + C, A]`` or ``[N, A, 4 + C]``, with masks a second one.

    Its rows are ``cx cy w h`` in pixels of the network's input, then one score per class that
    has been through a sigmoid. There is one column per cell of the feature pyramid. YOLOv5
    and YOLOv7 have an objectness row and three anchors a cell, YOLOX has an objectness row:
    neither is claimed. The segmentation models (YOLOv8-seg, YOLO11-seg) end each row in P mask
    coefficients, and their second output ``[N, P, h, w]`` holds the prototypes. The pose models end
    each row in keypoints (:mod:`tvmdet.heads.pose`), those of oriented boxes in an angle
    (:mod:`tvmdet.heads.angles`). An export that returns the raw maps beside the decoded output is
    taken by the decoded one.

    Defaults are RGB / 255 and a centred letterbox of grey 114, score 0.25 and IoU 0.45; IoU 0.7, as
    their ``predict`` has it, where Ultralytics' exporter wrote the file.
    """

    name = "yolov8"
    title = "YOLOv8-style, decoded boxes and class scores (YOLOv8, YOLO11, -seg, -pose, -obb)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        found = find_rows(_ROWS, summary, size_hw, given)
        if isinstance(found, SeveralFit):
            return self._ask_which(found, summary, size_hw, given)
        if isinstance(found, str):
            return found
        points = row_keypoints(summary.metadata, given)
        last = summary.column_runs(found.output, found.axis, found.values - 1, found.values)
        found = replace(
            found,
            keypoint_columns=given_columns(points, given),
            ends_in_angle=ends_in_angle(summary, given, last),
        )
        if found.ends_in_angle and last and all(run.is_score for run in last):
            return AtOdds(
                f"the last value of each row of {found.output} is from 0 to 1 in any picture, as "
                "scores are, and no angle; remove oriented from the spec, or correct the metadata"
            )
        refusal = refuse_export(
            summary.metadata,
            masks=found.prototypes is not None,
            keypoints=found.keypoint_columns > 0,
        )
        asked = given.get("family") == self.name
        if not asked:
            classes_end = found.values - found.trailing
            refusal = refusal or doubt_scores(summary, found, 4, classes_end)
        only_scores = not found.trailing
        refusal = refusal or doubt_boxes(
            summary, found, size_hw, _ROWS.per_cell, only_scores=only_scores
        )
        if not asked:
            refusal = refusal or _doubt(summary, found, given)
        if refusal:
            return refusal
        classes = found.values - 4 - found.trailing
        labels = choose_labels(summary.metadata, classes, given)
        if isinstance(labels, str):
            return labels
        pixels = unit_input(summary, "letterbox with grey 114", self.name, given)
        if isinstance(pixels, str):
            return pixels
        predicts = is_ultralytics(summary.metadata)
        iou = _IOU_ULTRALYTICS if predicts else _IOU
        agnostic = is_yoloe(summary.metadata)
        reasons = (
            *describe_rows(found, size_hw, "4 box rows", len(labels[0])),
            labels[1],
            pixels[1],
            f"score 0.25, IoU {iou}{', as Ultralytics predicts' if predicts else ''}",
            *(["YOLOE: boxes suppress those of other classes, as its predict has it"] * agnostic),
        )
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **pixels[0]),
            postprocess=PostprocessSpec(
                score_threshold=0.25, iou_threshold=iou, class_agnostic=agnostic
            ),
            options=rows_options(found),
            # process_mask and scale_masks of ultralytics/utils/ops.py.
            masks=MaskSpec(frame="image", interpolate="logits") if found.prototypes else None,
            keypoints=points,
            oriented=found.ends_in_angle,
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def _ask_which(
        self,
        found: SeveralFit,
        summary: GraphSummary,
        size_hw: tuple[int, int],
        given: Mapping[str, Any],
    ) -> str:
        """Returns the question which of several outputs counts, where they are this family's.

        The dual heads of YOLOv9 return the boxes of the auxiliary branch, then those of the main
        one, which ``detect_dual.py`` and the ``End2End`` of ``models/experimental.py`` take.
        """
        options = given.get("options", {})
        fitting = [
            name
            for name in found.outputs
            if isinstance(
                self.examine(summary, size_hw, {**given, "options": {**options, "output": name}}),
                Recognition,
            )
        ]
        if len(fitting) < 2:
            return found
        return Question(
            f"{', '.join(fitting)} each hold boxes and class scores, as the auxiliary and the main "
            "branch of YOLOv9's dual heads, of which the last is the main one: say which counts",
            spec_text=f'family = "{self.name}"\n[options]\noutput = "{fitting[-1]}"    '
            f"# or {', '.join(fitting[:-1])}",
        )

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        _ROWS.validate(spec, summary)

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        rows = _ROWS.emit(bb, outputs, spec)
        extent = rows.extent
        if spec.oriented:  # of which the angle says where the corners are
            extent = bb.emit(relax.op.abs(extent))
        boxes = emit_corners(bb, rows.center, extent)
        return rows.decoded(boxes, rows.scores)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        rows = _ROWS.reference(outputs, spec)
        extent = np.abs(rows.extent) if spec.oriented else rows.extent
        boxes = reference_corners(rows.center, extent)
        return rows.decoded(boxes, rows.scores)


def _doubt(summary: GraphSummary, found: FoundRows, given: Mapping[str, Any]) -> str:
    """Returns why rows that count right may still mean something else, or ''."""
    name = found.output
    if any(
        "Exp" in run.operators and "Softmax" not in run.operators
        for run in box_runs(summary, found)
    ):
        return f"the boxes of {name} are made with Exp, as those of YOLOX are"
    named = given.get("labels") or labels_from_metadata(summary.metadata)[0]
    if found.layout == "channels_last" and not named:
        rows = found.values
        return Question(
            f"{name} has {rows} values an anchor, which is 4 + {rows - 4} classes here but "
            f"4 + 1 + {rows - 5} in YOLOX and YOLOv6, and no class names settle it",
            spec_text=f'family = "{YoloV8Head.name}"',
        )
    return ""
