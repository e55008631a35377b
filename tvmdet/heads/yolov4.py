"""YOLOv4 of pytorch-YOLOv4: decoded boxes and class confidences in two outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import Decoded, GraphSummary, Head, Recognition
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.options import choice, refuse_unknown_options
from tvmdet.heads.yolo_evidence import unit_input
from tvmdet.heads.yolo_rows import pick_output
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["YoloV4Head"]

_OPTIONS = ("boxes", "scores")
_PYRAMIDS = ((8, 16, 32), (16, 32))  # YOLOv4, YOLOv4-tiny


class YoloV4Head(Head):
    """Boxes ``[N, A, 1, 4]`` and confidences ``[N, A, C]``, three anchors a cell.

    Boxes are ``x1 y1 x2 y2`` in shares of the input's width and height; confidences are objectness
    times class (``tool/yolo_layer.py`` of Tianxiaomo/pytorch-YOLOv4). Exports of Darknet's raw maps
    are family ``yolo_maps``.

    Defaults are those of its ``demo.py`` and ``demo_pytorch2onnx.py``: RGB / 255, stretched to the
    input's size, score 0.4, IoU 0.6.
    """

    name = "yolov4"
    title = "YOLOv4 of pytorch-YOLOv4, boxes [N, A, 1, 4] and confidences (YOLOv4, YOLOv4-tiny)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        found = _find(summary, size_hw, given)
        if isinstance(found, str):
            return found
        boxes, scores, classes = found
        runs = summary.column_runs(scores, 2, 0, classes)
        if given.get("family") != self.name and not all(run.is_score for run in runs):
            return f"the values of {scores} are not bounded by 0 and 1, so they are no scores"
        labels = choose_labels(summary.metadata, classes, given)
        if isinstance(labels, str):
            return labels
        pixels = unit_input(summary, "stretched", self.name, given)
        if isinstance(pixels, str):
            return pixels
        anchors = summary.outputs[scores].shape[1]
        reasons = (
            f"{boxes} holds {anchors} boxes in shares of the image, {scores} their {classes} "
            f"classes: three anchors a cell at {size_hw[0]}x{size_hw[1]}",
            labels[1],
            pixels[1],
        )
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, resize="stretch", **pixels[0]),
            postprocess=PostprocessSpec(score_threshold=0.4, iou_threshold=0.6),
            options={"boxes": boxes, "scores": scores},
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        refuse_unknown_options(spec.options, self.name, _OPTIONS)
        for key in _OPTIONS:
            if choice(spec.options, key, tuple(summary.outputs)) is None:
                raise InputError(f"the spec's options lack {key!r}; needed: boxes, scores")
        boxes, scores = (summary.outputs[spec.options[key]].shape for key in _OPTIONS)
        try:
            _check_shapes(tuple(d or 0 for d in boxes), tuple(d or 0 for d in scores), spec)
        except ShapeError as error:
            raise InputError(str(error)) from error

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        boxes, scores = (pick_output(outputs, spec, key) for key in _OPTIONS)
        shapes = [tuple(int(dim) for dim in part.ty.shape) for part in (boxes, scores)]
        _check_shapes(shapes[0], shapes[1], spec)
        height, width = spec.input.size_hw
        flat = bb.emit(relax.op.reshape(boxes, (*shapes[1][:2], 4)))
        scale = relax.const(np.array([width, height, width, height], np.float32))
        return Decoded(boxes=bb.emit(relax.op.multiply(flat, scale)), scores=scores)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        boxes, scores = (pick_output(outputs, spec, key) for key in _OPTIONS)
        _check_shapes(boxes.shape, scores.shape, spec)
        pixels = np.array(boxes[:, :, 0, :], np.float32)
        pixels[..., 0::2] *= spec.input.size_hw[1]
        pixels[..., 1::2] *= spec.input.size_hw[0]
        return Decoded(boxes=pixels, scores=scores)


def _find(
    summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> tuple[str, str, int] | str:
    """Returns the names of boxes and scores and the number of classes, or why there are none."""
    outputs, options = summary.outputs, given.get("options", {})
    chosen = [choice(options, key, tuple(outputs)) for key in _OPTIONS]
    if None in chosen and len(outputs) != 2:
        return f"it has {len(outputs)} outputs; this family has two, boxes and confidences"
    ranks = {len(value.shape): name for name, value in outputs.items()}
    boxes, scores = chosen[0] or ranks.get(4), chosen[1] or ranks.get(3)
    if boxes is None or scores is None:
        return "its outputs are not boxes [N, A, 1, 4] and confidences [N, A, C]"
    anchors, form = outputs[scores].shape[1], outputs[boxes].shape[1:]
    if form != (anchors, 1, 4) or len(outputs[scores].shape) != 3:
        return (
            f"{boxes} is {outputs[boxes]} and {scores} is {outputs[scores]}; this family's are "
            "[N, A, 1, 4] and [N, A, C]"
        )
    counts = [
        3 * sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in strides)
        for strides in _PYRAMIDS
    ]
    if anchors not in counts and given.get("family") != YoloV4Head.name:
        return (
            f"{boxes} holds {anchors} boxes; three anchors a cell at {size_hw[0]}x{size_hw[1]} are "
            f"{' or '.join(str(count) for count in counts)}"
        )
    return boxes, scores, int(outputs[scores].shape[2] or 0)


def _check_shapes(boxes: tuple[int, ...], scores: tuple[int, ...], spec: DetectorSpec) -> None:
    fits = len(boxes) == 4 and len(scores) == 3 and boxes[1:] == (scores[1], 1, 4)
    if not fits or scores[2] != len(spec.labels):
        raise ShapeError(
            f"boxes are {list(boxes)} and scores {list(scores)}; {len(spec.labels)} labels need "
            f"[N, A, 1, 4] and [N, A, {len(spec.labels)}]: correct the spec's labels, "
            "options.boxes or options.scores"
        )
