"""YOLOv6-style heads: decoded boxes, a column of ones, class scores, one anchor a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tvmdet.heads.base import Decoded, GraphSummary, Head, Recognition
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.ultralytics import refuse_export
from tvmdet.heads.yolo_evidence import doubt_boxes, doubt_scores, is_constant_one, unit_input
from tvmdet.heads.yolo_find_rows import FoundRows, describe_rows, find_rows, rows_options
from tvmdet.heads.yolo_rows import RowFormat, emit_corners, reference_corners
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    import numpy as np
    from tvm import relax

__all__ = ["YoloV6Head"]

# P3 to P5, and P3 to P6 (YOLOv6-N6 to -L6, YOLOv6-Lite).
_ROWS = RowFormat(family="yolov6", lead=5, per_cell=1, pyramids=((8, 16, 32), (8, 16, 32, 64)))


class YoloV6Head(Head):
    """One output ``[N, A, 5 + C]`` with one anchor a cell.

    A row is ``cx cy w h`` in pixels of the network's input, an objectness and one score per class;
    a class scores the product of the two. YOLOv6 has no objectness since its version 0.2 and fills
    the column with ones (``yolov6/models/effidehead.py``), by which it is recognised. With the
    family in a spec any decoded output of this form is taken, such as YOLOv6 0.1's.

    Defaults are those of YOLOv6's ``tools/infer.py``: RGB / 255, centred letterbox of grey 114,
    boxes divided by the ratio before rounding (``Inferer.rescale``), score 0.4, IoU 0.45, up to
    1000 boxes.
    """

    name = "yolov6"
    title = "YOLOv6-style, decoded boxes with an objectness of ones, 1 anchor a cell (YOLOv6)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        found = find_rows(_ROWS, summary, size_hw, given)
        if isinstance(found, str):
            return found
        refusal = refuse_export(summary.metadata, masks=False)
        refusal = refusal or doubt_boxes(summary, found, size_hw, _ROWS.per_cell)
        if given.get("family") != self.name:
            refusal = refusal or _doubt(summary, found)
        if refusal:
            return refusal
        labels = choose_labels(summary.metadata, found.values - 5, given)
        if isinstance(labels, str):
            return labels
        pixels = unit_input(summary, "letterbox with grey 114", self.name, given)
        if isinstance(pixels, str):
            return pixels
        reasons = (
            *describe_rows(found, size_hw, "4 box rows + 1 objectness row", len(labels[0])),
            "one anchor a cell; score = objectness x class",
            labels[1],
            pixels[1],
        )
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, scale="unrounded", **pixels[0]),
            postprocess=PostprocessSpec(
                score_threshold=0.4, iou_threshold=0.45, max_detections=1000
            ),
            options=rows_options(found),
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
        return Decoded(boxes=boxes, scores=scores)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        rows = _ROWS.reference(outputs, spec)
        boxes = reference_corners(rows.center, rows.extent)
        return Decoded(boxes=boxes, scores=rows.scores * rows.objectness)


def _doubt(summary: GraphSummary, found: FoundRows) -> str:
    """Returns why rows that count right may still mean something else, or ''."""
    ones = is_constant_one(summary, found, 4)
    if not ones:
        why = "is not known to be" if ones is None else "is not"
        return (
            f"value 4 of each row of {found.output} {why} a constant 1, as YOLOv6's is since its "
            "version 0.2"
        )
    return doubt_scores(summary, found, 5, found.values)
