"""YOLOX heads: objectness and class scores, boxes decoded or as offsets, one anchor a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import InputError
from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.input_defaults import fed_input
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.options import choice
from tvmdet.heads.ultralytics import refuse_export
from tvmdet.heads.yolo_evidence import box_runs, doubt_scores
from tvmdet.heads.yolo_find_rows import FoundRows, describe_rows, find_rows, rows_options
from tvmdet.heads.yolo_rows import LARGEST_LOG, RowFormat, emit_corners, reference_corners
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["YoloXHead"]

_BOXES = ("decoded", "offsets")
_INPUT: Mapping[str, Any] = {
    "color": "bgr",
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "pad_position": "top_left",
    "rounding": "down",
}
_ROWS = RowFormat(family="yolox", lead=5, per_cell=1, pyramids=((8, 16, 32),), options=("boxes",))


class YoloXHead(Head):
    """One output ``[N, A, 5 + C]`` with one anchor a cell.

    A row is a box, an objectness and one score per class, the last two through a sigmoid; a class
    scores their product. ``tools/export_onnx.py`` leaves the boxes as the network makes them:
    centres are offsets from the cell's corner in cells, extents are logarithms of cells
    (``yolox/utils/demo_utils.py``, ``demo_postprocess``); with ``--decode_in_inference`` they are
    pixels. Boxes straight from a convolution are the first, boxes whose extents are made with
    ``Exp`` the second; anything else is not claimed without a spec.

    Defaults are those of ``demo/ONNXRuntime/onnx_inference.py``: BGR from 0 to 255 without any
    normalisation, the picture in the top left corner on grey 114, its sides cut to whole pixels,
    score 0.3, IoU 0.45, boxes of different classes suppress each other. Models of YOLOX before
    0.1.1 want RGB / 255 less the ImageNet mean: nothing in the file tells, so a spec has to.
    """

    name = "yolox"
    title = "YOLOX, objectness and class scores, 1 anchor a cell, decoded or not (YOLOX)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        found = find_rows(_ROWS, summary, size_hw, given)
        if isinstance(found, str):
            return found
        refusal = refuse_export(summary.metadata, masks=False)
        if given.get("family") != self.name:
            refusal = refusal or _doubt(summary, found)
        if refusal:
            return refusal
        boxes = choice(given.get("options", {}), "boxes", _BOXES) or _box_form(summary, found)
        if boxes is None:
            return Question(
                f"nothing tells whether the boxes of {found.output} are decoded: say it in the "
                "spec's options.boxes",
                spec_text='[options]\nboxes = "decoded"   # or "offsets"',
            )
        labels = choose_labels(summary.metadata, found.values - 5, given)
        if isinstance(labels, str):
            return labels
        line = "input BGR, 0 to 255, top left on grey 114: the family's default (since YOLOX 0.1.1)"
        pixels = fed_input(summary, _INPUT, line, self.name, given)
        if isinstance(pixels, str):
            return pixels
        reasons = (
            *describe_rows(found, size_hw, "4 box rows + 1 objectness row", len(labels[0])),
            "boxes are pixels" if boxes == "decoded" else "boxes are offsets: decoding is added",
            labels[1],
            pixels[1],
        )
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **pixels[0]),
            postprocess=PostprocessSpec(
                score_threshold=0.3, iou_threshold=0.45, class_agnostic=True
            ),
            options={**rows_options(found), "boxes": boxes},
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        _ROWS.validate(spec, summary)
        if choice(spec.options, "boxes", _BOXES) is None:
            raise InputError("the spec's options lack 'boxes'; allowed: decoded, offsets")

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        rows = _ROWS.emit(bb, outputs, spec)
        center, extent = rows.center, rows.extent
        if spec.options["boxes"] == "offsets":
            corners, strides = _cell_constants(spec)
            center = bb.emit(relax.op.multiply(center, relax.const(strides)))
            center = bb.emit(relax.op.add(center, relax.const(corners)))
            extent = bb.emit(relax.op.minimum(extent, relax.const(LARGEST_LOG, "float32")))
            extent = bb.emit(relax.op.multiply(relax.op.exp(extent), relax.const(strides)))
        boxes = emit_corners(bb, center, extent)
        scores = bb.emit(relax.op.multiply(rows.scores, rows.objectness))
        return Decoded(boxes=boxes, scores=scores)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        rows = _ROWS.reference(outputs, spec)
        center, extent = (np.array(part, np.float64) for part in (rows.center, rows.extent))
        if spec.options["boxes"] == "offsets":
            start = 0
            for stride in spec.options["strides"]:
                width = spec.input.size_hw[1] // stride
                cells = np.arange(spec.input.size_hw[0] // stride * width)
                level = slice(start, start + len(cells))
                center[:, level, 0] = (center[:, level, 0] + cells % width) * stride
                center[:, level, 1] = (center[:, level, 1] + cells // width) * stride
                extent[:, level] = np.exp(np.clip(extent[:, level], None, LARGEST_LOG)) * stride
                start += len(cells)
        scores = rows.scores * rows.objectness
        return Decoded(boxes=reference_corners(center, extent), scores=scores)


def _doubt(summary: GraphSummary, found: FoundRows) -> str:
    """Returns why rows that count right may still mean something else, or ''."""
    form = _box_form(summary, found)
    if form is None:
        return (
            f"the boxes of {found.output} are neither straight from a Conv nor made with Exp, as "
            "those of YOLOX are"
        )
    if form == "decoded" and summary.operators.get("Relu", 0) > 0:
        return Question(
            f"{found.output} has boxes made with Exp behind Relu, as YOLOv6 0.1 (RGB / 255) and a "
            "YOLOX of that activation (BGR, 0 to 255) both have: name the family in a spec",
            spec_text=f'family = "{YoloXHead.name}"   # or "yolov6"',
        )
    return doubt_scores(summary, found, 4, found.values)


def _box_form(summary: GraphSummary, found: FoundRows) -> str | None:
    """Returns what the box values are by the arithmetic behind them, or None."""
    runs = box_runs(summary, found)
    if runs and all(run.is_raw for run in runs):
        return "offsets"
    extents = [run for run in runs if run.stop > 2]
    exponential = [run for run in extents if "Exp" in run.operators and run.low >= 0.0]
    return "decoded" if extents and exponential == extents else None


def _cell_constants(spec: DetectorSpec) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cells' corners in pixels float32 ``[1, A, 2]`` and strides ``[1, A, 1]``."""
    corners, strides = [], []
    for stride in spec.options["strides"]:
        height, width = (side // stride for side in spec.input.size_hw)
        grid_y, grid_x = np.mgrid[0:height, 0:width]
        corners.append(np.stack([grid_x, grid_y], axis=-1).reshape(-1, 2) * stride)
        strides.append(np.full((height * width, 1), stride))
    return (
        np.concatenate(corners)[None].astype(np.float32),
        np.concatenate(strides)[None].astype(np.float32),
    )
