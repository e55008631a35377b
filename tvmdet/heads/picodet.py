"""PicoDet / GFL heads: raw class scores and box distributions per pyramid level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.dense_inputs import IMAGENET_RGB, stretched
from tvmdet.heads.input_defaults import fed_input
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.options import (
    choice,
    names_of,
    refuse_unknown_options,
    strides_of,
    whole_number,
)
from tvmdet.heads.picodet_levels import (
    LARGEST_REG_MAX,
    assign_roles,
    check_count,
    count_cells,
    find_strides,
    pair_levels,
)
from tvmdet.heads.score_evidence import SCORE_ACTIVATIONS, choose_activation
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["PicoDetHead"]

_LEVELS = 4
_ANCHORS = (3, 4, 5, 6, 9)  # usual boxes at a cell
_GFL_LEVELS = 5  # PicoDet has four; MMDetection's GFL has five and other centres
_OPTIONS = ("box_outputs", "class_outputs", "reg_max", "score_activation", "strides")


class PicoDetHead(Head):
    """Per level one class tensor and one box tensor, found by shape, in any order.

    The class tensor is ``[N, HW, C]`` or ``[N, C, H, W]``; the box tensor has
    ``4 * (reg_max + 1)`` channels in the same form: for each side of the box a distribution
    over the distances 0 to reg_max, in units of the stride (Generalized Focal Loss, Li et al.
    2020, section 3). Cell centres lie at ``(i + 0.5) * stride``.

    Post-processing defaults are those of PaddleDetection's PicoDet export: multi-label,
    class-aware NMS at IoU 0.5, 1000 candidates, 100 detections; score 0.4 is RapidLayout's.
    """

    name = "picodet"
    title = "PicoDet / GFL, raw class scores and box distributions per level (PicoDet, NanoDet)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        options = given.get("options", {})
        levels = pair_levels(summary, options)
        if isinstance(levels, str):
            return levels
        if given.get("family") != self.name:
            names = tuple(name for level in levels for name, _ in level.outputs)
            if len(levels) == _GFL_LEVELS or any(name.startswith("dis_pred") for name in names):
                return "it has five levels or NanoDet's names, which family gfl reads"
        strides = find_strides([level.cells for level in levels], size_hw, options)
        if strides is None:
            cells = ", ".join(str(level.cells) for level in levels)
            return (
                f"levels of {cells} cells are no pyramid of doubling strides "
                f"at {size_hw[0]}x{size_hw[1]}"
            )
        roles = assign_roles(levels, summary, given)
        if isinstance(roles, str):
            return roles
        class_names, box_names, classes, box_channels = roles
        raw = len(summary.outputs[box_names[0]].shape) == 4
        if raw and box_channels == 64 and given.get("family") != self.name:
            return "64 box channels in raw maps are 4 sides x 16 distances, as YOLOv8's are"
        if given.get("family") != self.name and _may_be_anchors(len(levels), classes, box_channels):
            return Question(
                f"{box_channels} box and {classes} class channels on {len(levels)} levels may as "
                f"well be {box_channels // 4} boxes a cell, as SSD's and RetinaNet's are",
                spec_text=f'family = "{self.name}"',
            )
        labels = choose_labels(summary.metadata, classes, given)
        if isinstance(labels, str):
            return labels
        activation = choose_activation(summary, class_names, self.name, options)
        if isinstance(activation, Question):
            return activation
        line = "input RGB, ImageNet mean and deviation, stretched: the family's default"
        pixels = fed_input(summary, stretched(IMAGENET_RGB), line, self.name, given)
        if isinstance(pixels, str):
            return pixels
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **pixels[0]),
            postprocess=PostprocessSpec(
                score_threshold=0.4,
                iou_threshold=0.5,
                max_detections=100,
                pre_nms_top_k=1000,
                multi_label=True,
            ),
            options={
                "box_outputs": list(box_names),
                "class_outputs": list(class_names),
                "reg_max": box_channels // 4 - 1,
                "score_activation": activation,
                "strides": list(strides),
            },
        )
        reasons = (
            *_reasons(spec, size_hw, [level.cells for level in levels]),
            labels[1],
            pixels[1],
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        options = spec.options
        refuse_unknown_options(options, self.name, _OPTIONS)
        missing = [name for name in _OPTIONS if options.get(name) is None]
        if missing:
            raise InputError(
                f"the spec's options lack {missing[0]!r}; needed: {', '.join(_OPTIONS)}"
            )
        choice(options, "score_activation", SCORE_ACTIVATIONS)
        bins = (whole_number(options, "reg_max", 0, LARGEST_REG_MAX) or 0) + 1
        strides = strides_of(options) or ()
        for key, channels in (("class_outputs", len(spec.labels)), ("box_outputs", 4 * bins)):
            names = names_of(options, key, summary.outputs) or ()
            check_count(strides, len(names), key)
            for name, stride in zip(names, strides, strict=True):
                shape = tuple(dim or 0 for dim in summary.outputs[name].shape)
                try:
                    _check_shape(name, shape, count_cells(spec.input.size_hw, stride), channels)
                except ShapeError as error:
                    raise InputError(str(error)) from error

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        bins = int(spec.options["reg_max"]) + 1
        scores = _emit_levels(bb, outputs, spec, "class_outputs", len(spec.labels))
        if spec.options["score_activation"] == "sigmoid":
            scores = bb.emit(relax.op.sigmoid(scores))
        logits = _emit_levels(bb, outputs, spec, "box_outputs", 4 * bins)
        batch, anchors = [int(dim) for dim in logits.ty.shape][:2]
        logits = bb.emit(relax.op.reshape(logits, (batch, anchors, 4, bins)))
        weights = bb.emit(relax.op.nn.softmax(logits, axis=-1))
        ramp = relax.const(np.arange(bins, dtype=np.float32))
        weighted = bb.emit(relax.op.multiply(weights, ramp))
        distance = bb.emit(relax.op.sum(weighted, axis=[-1]))
        centers, steps = _anchor_constants(spec)
        offset = bb.emit(relax.op.multiply(distance, relax.const(steps)))
        boxes = bb.emit(relax.op.add(offset, relax.const(centers)))
        return Decoded(boxes=boxes, scores=scores)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        options = spec.options
        all_boxes, all_scores = [], []
        names = zip(
            options["class_outputs"], options["box_outputs"], options["strides"], strict=True
        )
        for class_name, box_name, stride in names:
            scores = _reference_level(outputs, class_name)
            logits = _reference_level(outputs, box_name).astype(np.float64)
            if options["score_activation"] == "sigmoid":
                scores = 1.0 / (1.0 + np.exp(-scores.astype(np.float64)))
            width = -(-spec.input.size_hw[1] // stride)
            cell = np.arange(logits.shape[1])
            cx, cy = (cell % width + 0.5) * stride, (cell // width + 0.5) * stride
            sides = []
            for logit in np.split(logits, 4, axis=-1):
                power = np.exp(logit - logit.max(axis=-1, keepdims=True))
                expected = power @ np.arange(power.shape[-1]) / power.sum(axis=-1)
                sides.append(expected * stride)
            left, top, right, bottom = sides
            all_boxes.append(np.stack([cx - left, cy - top, cx + right, cy + bottom], axis=-1))
            all_scores.append(scores)
        return Decoded(
            boxes=np.concatenate(all_boxes, axis=1).astype(np.float32),
            scores=np.concatenate(all_scores, axis=1).astype(np.float32),
        )


def _may_be_anchors(levels: int, classes: int, box_channels: int) -> bool:
    """Returns whether channels count as several boxes of four numbers at a cell, too.

    SSD has three to six, on six or seven levels, RetinaNet nine; PicoDet has four levels and a
    reg_max of 7.
    """
    at_cell = box_channels // 4
    return (levels > _LEVELS or at_cell in _ANCHORS) and classes % at_cell == 0


def _reasons(spec: DetectorSpec, size_hw: tuple[int, int], cells: Sequence[int]) -> tuple[str, ...]:
    options = spec.options
    strides = ", ".join(str(stride) for stride in options["strides"])
    counts = ", ".join(str(count) for count in cells)
    bins = options["reg_max"] + 1
    scores = "scores already"
    if options["score_activation"] == "sigmoid":
        scores = "logits: the sigmoid is added"
    return (
        f"{2 * len(cells)} outputs in pairs of {counts} cells: strides {strides} "
        f"at {size_hw[0]}x{size_hw[1]}",
        f"{4 * bins} box channels: 4 sides x {bins} distances (reg_max {bins - 1})",
        f"{len(spec.labels)} class channels, {scores}",
    )


def _anchor_constants(spec: DetectorSpec) -> tuple[np.ndarray, np.ndarray]:
    """Returns centres and signed strides, float32 ``[1, A, 4]``: box = centre + step * side."""
    centers, steps = [], []
    for stride in spec.options["strides"]:
        height, width = (-(-side // stride) for side in spec.input.size_hw)
        grid_y, grid_x = np.mgrid[0:height, 0:width]
        center = np.stack([grid_x, grid_y, grid_x, grid_y], axis=-1).reshape(-1, 4)
        centers.append((center + 0.5) * stride)
        steps.append(np.tile(np.array([-stride, -stride, stride, stride]), (len(center), 1)))
    return (
        np.concatenate(centers)[None].astype(np.float32),
        np.concatenate(steps)[None].astype(np.float32),
    )


def _emit_levels(
    bb: relax.BlockBuilder,
    outputs: Mapping[str, relax.Expr],
    spec: DetectorSpec,
    key: str,
    channels: int,
) -> relax.Expr:
    """Emits the concatenation ``[N, A, channels]`` of one kind of output."""
    from tvm import relax

    parts = []
    for name, stride in zip(spec.options[key], spec.options["strides"], strict=True):
        part = _pick(outputs, name, key)
        shape = tuple(int(dim) for dim in part.ty.shape)
        cells = count_cells(spec.input.size_hw, stride)
        _check_shape(name, shape, cells, channels)
        if len(shape) == 4:
            part = bb.emit(relax.op.permute_dims(part, [0, 2, 3, 1]))
            part = bb.emit(relax.op.reshape(part, (shape[0], cells, channels)))
        parts.append(part)
    return bb.emit(relax.op.concat(parts, axis=1))


def _reference_level(outputs: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    part = _pick(outputs, name, "class_outputs or box_outputs")
    if part.ndim == 4:
        part = np.moveaxis(part.reshape(*part.shape[:2], -1), 1, 2)
    return np.asarray(part)


def _pick(outputs: Mapping[str, Any], name: str, key: str) -> Any:
    if name not in outputs:
        raise ShapeError(
            f"the spec's options.{key} names {name!r}; the network's outputs: {', '.join(outputs)}"
        )
    return outputs[name]


def _check_shape(name: str, shape: tuple[int, ...], cells: int, channels: int) -> None:
    got = (shape[2] * shape[3], shape[1]) if len(shape) == 4 else tuple(shape[1:])
    if got != (cells, channels):
        raise ShapeError(
            f"{name} is {list(shape)}; the spec needs {cells} cells of {channels} channels: "
            "correct the spec's labels, input.size_hw, options.strides or options.reg_max"
        )
