"""YOLOv5-style heads: decoded boxes, objectness and class scores, three anchors a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tvmdet.heads.base import Decoded, GraphSummary, Head, Recognition
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.ultralytics import refuse_export
from tvmdet.heads.yolo_evidence import doubt_boxes, doubt_scores, unit_input
from tvmdet.heads.yolo_find_rows import describe_rows, find_rows, rows_options
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
)


class YoloV5Head(Head):
    """One output ``[N, A, 5 + C]`` (or ``[N, 5 + C, A]``), with masks a second one.

    A row is ``cx cy w h`` in pixels of the network's input, an objectness and one score per
    class, both through a sigmoid; a class scores the product of the two (YOLOv5's
    ``utils/general.py``, ``non_max_suppression``). There are three anchors a cell. YOLOv3, YOLOv5
    and YOLOv7 export so, YOLOv7 with ``--grid``. YOLOv5-seg ends each row in P mask coefficients
    and has prototypes ``[N, P, h, w]``. Exports that return the raw maps beside the decoded output
    are taken by the decoded one; exports of the raw maps alone are family ``yolo_maps``.

    Defaults are those of YOLOv5's ``detect.py``: RGB / 255, centred letterbox of grey 114, score
    0.25, IoU 0.45, up to 1000 boxes.
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
        if given.get("family") != self.name:
            classes_end = found.values - found.coefficients
            refusal = refusal or doubt_scores(summary, found, 4, classes_end)
        if refusal:
            return refusal
        labels = choose_labels(summary.metadata, found.values - 5 - found.coefficients, given)
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
        )
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **pixels[0]),
            postprocess=PostprocessSpec(
                score_threshold=0.25, iou_threshold=0.45, max_detections=1000
            ),
            options=rows_options(found),
            masks=MaskSpec(frame="image") if found.prototypes else None,
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
        return Decoded(boxes=boxes, scores=scores, masks=rows.masks)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        rows = _ROWS.reference(outputs, spec)
        boxes = reference_corners(rows.center, rows.extent)
        return Decoded(boxes=boxes, scores=rows.scores * rows.objectness, masks=rows.masks)
