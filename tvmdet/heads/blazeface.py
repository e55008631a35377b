"""BlazeFace, MediaPipe's detector of faces: boxes in pixels from the middle of a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tvmdet.errors import ShapeError
from tvmdet.heads import box_coding
from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.grids import Grid
from tvmdet.heads.input_defaults import fed_input
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.options import choice, refuse_unknown_options, validate_roles
from tvmdet.heads.score_evidence import SCORE_ACTIVATIONS, choose_activation
from tvmdet.spec import DetectorSpec, InputSpec, KeypointSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["BlazeFaceHead"]

_OUTPUTS = ("box_output", "score_output")
_OPTIONS = (*_OUTPUTS, "score_activation")
# MediaPipe's FaceKeyPoint; left and right are the person's own.
_POINTS = ("right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear")
_COLUMNS = 4 + 2 * len(_POINTS)
# By the input's side, the stride of each grid and the predictions at a cell: short range, full
# range, and the older one of the camera at the back (SsdAnchorsCalculator's options).
_GRIDS: Mapping[int, tuple[tuple[int, int], ...]] = {
    128: ((8, 2), (16, 6)),
    192: ((4, 1),),
    256: ((16, 2), (32, 6)),
}
# face_detection.pbtxt: -1 to 1, aspect ratio kept, BORDER_ZERO.
_INPUT: Mapping[str, Any] = {
    "color": "rgb",
    "mean": (127.5,) * 3,
    "std": (127.5,) * 3,
    "resize": "letterbox",
    "pad_position": "center",
    "pad_value": 0,
}


class BlazeFaceHead(Head):
    """Boxes and six landmarks ``[N, A, 16]``, scores ``[N, A, 1]`` (Bazarevsky et al. 2019).

    A box is a shift from the middle of a cell to its centre, width and height, all in pixels of the
    network's input (MediaPipe's ``tensors_to_detections_calculator.cc`` with anchors of a fixed
    size of 1 and scales of the input's side; hollance/BlazeFace-PyTorch). Scores are logits, cut to
    100 there, where a sigmoid is 0 or 1 all the same. MediaPipe blends boxes that overlap; here the
    best of them stays, with its landmarks, which are shifts from the cell's middle too. Claimed by
    these shapes.
    """

    name = "blazeface"
    title = "BlazeFace, faces: boxes in pixels from a cell's middle, and scores (MediaPipe)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        options = given.get("options", {})
        centers = _centers(size_hw)
        if centers is None:
            sides = ", ".join(f"{side}x{side}" for side in _GRIDS)
            return f"its input is {size_hw[0]}x{size_hw[1]}; this family's is one of {sides}"
        outputs = _find(summary, len(centers), options)
        if isinstance(outputs, str):
            return outputs
        labels = choose_labels(summary.metadata, 1, given)
        if isinstance(labels, str):
            return labels
        scores = (outputs["score_output"],)
        activation = choose_activation(summary, scores, self.name, options)
        if isinstance(activation, Question):
            return activation
        line = "input RGB, -1 to 1, letterbox with black: as MediaPipe"
        pixels = fed_input(summary, _INPUT, line, self.name, given)
        if isinstance(pixels, str):
            return pixels
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **pixels[0]),
            postprocess=PostprocessSpec(score_threshold=0.5, iou_threshold=0.3),
            keypoints=KeypointSpec(names=_POINTS),
            options={**outputs, "score_activation": activation},
        )
        reasons = (
            f"{outputs['box_output']}: {len(centers)} boxes with six landmarks, as at "
            f"{size_hw[0]}x{size_hw[1]}",
            f"{scores[0]}: {'scores' if activation == 'none' else 'logits: a sigmoid is added'}",
            labels[1],
            pixels[1],
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        refuse_unknown_options(spec.options, self.name, _OPTIONS)
        choice(spec.options, "score_activation", SCORE_ACTIVATIONS)
        validate_roles(spec, summary, _OUTPUTS, _check)

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        shapes = {n: tuple(int(dim) for dim in v.ty.shape) for n, v in outputs.items()}
        centers = _check(shapes, spec)
        rows, scores = (outputs[str(spec.options[key])] for key in _OUTPUTS)
        shift, size = (
            bb.emit(relax.op.strided_slice(rows, axes=[2], begin=[begin], end=[begin + 2]))
            for begin in (0, 2)
        )
        center = bb.emit(relax.op.add(shift, relax.const(centers[None].astype("float32"))))
        half = bb.emit(relax.op.multiply(size, relax.const(0.5, "float32")))
        corners = [bb.emit(relax.op.subtract(center, half)), bb.emit(relax.op.add(center, half))]
        boxes = bb.emit(relax.op.concat(corners, axis=2))
        boxes = box_coding.emit_clip(bb, boxes, spec.input.size_hw)
        if spec.options["score_activation"] == "sigmoid":
            scores = bb.emit(relax.op.sigmoid(scores))
        points = None
        if spec.keypoints is not None:
            shifts = relax.op.strided_slice(rows, axes=[2], begin=[4], end=[_COLUMNS])
            points = box_coding.emit_points(bb, bb.emit(shifts), centers, np.ones_like(centers))
        return Decoded(
            boxes=boxes,
            scores=box_coding.emit_without_empty(bb, boxes, scores),
            keypoints=points,
        )

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        centers = _check({n: v.shape for n, v in outputs.items()}, spec)
        rows, scores = (outputs[str(spec.options[key])].astype(np.float64) for key in _OUTPUTS)
        x, y = rows[..., 0] + centers[:, 0], rows[..., 1] + centers[:, 1]
        width, height = rows[..., 2], rows[..., 3]
        sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        boxes = box_coding.reference_clip(np.stack(sides, axis=-1), spec.input.size_hw)
        if spec.options["score_activation"] == "sigmoid":
            scores = 0.5 * (1.0 + np.tanh(0.5 * scores))
        scores = box_coding.reference_without_empty(boxes, scores)
        points = None
        if spec.keypoints is not None:
            points = rows[..., 4:] + np.concatenate([centers] * len(_POINTS), axis=1)
            points = points.astype(np.float32)
        return Decoded(
            boxes=boxes.astype(np.float32), scores=scores.astype(np.float32), keypoints=points
        )


def _centers(size_hw: tuple[int, int]) -> npt.NDArray[np.float64] | None:
    """Returns the middle of each prediction's cell, ``[A, 2]`` as x, y; None at other sizes."""
    if size_hw[0] != size_hw[1] or size_hw[0] not in _GRIDS:
        return None
    side = size_hw[0]
    levels = [
        Grid(size_hw=(side // stride,) * 2, stride_yx=(stride, stride), offset=0.5)
        .centers()
        .repeat(per_cell, axis=0)
        for stride, per_cell in _GRIDS[side]
    ]
    return np.concatenate(levels)


def _find(summary: GraphSummary, rows: int, options: Mapping[str, Any]) -> dict[str, str] | str:
    """Returns the outputs by their options, or why they are not this family's."""
    found = {}
    for key, columns in zip(_OUTPUTS, (_COLUMNS, 1), strict=True):
        wanted = (1, rows, columns)
        fitting = [name for name, value in summary.outputs.items() if value.shape == wanted]
        name = choice(options, key, tuple(summary.outputs))
        if name is None and len(fitting) != 1:
            return f"it has {len(fitting)} outputs {list(wanted)}; this family has one"
        found[key] = name or fitting[0]
    return found


def _check(shapes: Mapping[str, tuple[int, ...]], spec: DetectorSpec) -> npt.NDArray[np.float64]:
    """Returns the middles of the cells."""
    centers = _centers(spec.input.size_hw)
    if centers is None:
        raise ShapeError(
            f"the spec's input.size_hw is {list(spec.input.size_hw)}; this family's is "
            f"{', '.join(f'[{side}, {side}]' for side in _GRIDS)}"
        )
    if len(spec.labels) != 1:
        raise ShapeError(f"the spec has {len(spec.labels)} labels; this family finds faces only")
    for key, columns in zip(_OUTPUTS, (_COLUMNS, 1), strict=True):
        name = str(spec.options.get(key))
        if name not in shapes:
            raise ShapeError(
                f"the spec's options.{key} is {name!r}; the network's outputs: {', '.join(shapes)}"
            )
        if shapes[name][1:] != (len(centers), columns):
            raise ShapeError(
                f"{name} is {list(shapes[name])}; the spec needs [N, {len(centers)}, {columns}]: "
                "correct its options or input.size_hw"
            )
    return centers
