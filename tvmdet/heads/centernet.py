"""CenterNet: a heat map of centres for each class, and the size of a box at each cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import ShapeError
from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.box_coding import emit_without_empty, reference_without_empty
from tvmdet.heads.dense_inputs import IMAGENET_RGB, padded
from tvmdet.heads.input_defaults import fed_input
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.options import choice, refuse_unknown_options, validate_roles
from tvmdet.heads.score_evidence import SCORE_ACTIVATIONS, choose_activation
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["CenterNetHead"]

_OUTPUTS = ("heatmap_output", "size_output", "offset_output")
_OPTIONS = (*_OUTPUTS, "score_activation", "style")
# Names of the heads in the authors' code, and of MMDetection's outputs.
_NAMES = {"heatmap_output": ("hm", "center_heatmap"), "size_output": ("wh",)}
_NAMES["offset_output"] = ("reg", "offset")
_INPUTS: Mapping[str, Mapping[str, Any]] = {
    # datasets/coco.py: mean 0.408, 0.447, 0.470, std 0.289, 0.274, 0.278 of BGR; warpAffine to
    # the middle of a black image.
    "centernet": {
        "color": "bgr",
        "mean": (104.04, 113.985, 119.85),
        "std": (73.695, 69.87, 70.89),
        "pad_value": 0,
        "interpolation": "warp",
    },
    "mmdetection": padded(IMAGENET_RGB),
}


class CenterNetHead(Head):
    """Three maps of one grid: C class columns, 2 sizes, 2 offsets (Zhou et al. 2019).

    A cell whose value is the largest of the 3 by 3 around it is an object of that class; its
    centre is the cell's corner plus the offset, its width and height are the sizes, all in cells.
    Nothing is suppressed afterwards: an IoU threshold of 1.

    The sizes and the offsets have the same shape: claimed by the authors' names (``hm``, ``wh``,
    ``reg``), else the spec must say which is which.
    """

    name = "centernet"
    title = "CenterNet, heat map, sizes and offsets (hm, wh, reg)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        options = given.get("options", {})
        roles = _roles(summary, options)
        if isinstance(roles, str):
            return roles
        shape = summary.outputs[roles["heatmap_output"]].shape
        classes = int(shape[1] or 0)
        labels = choose_labels(summary.metadata, classes, given)
        if isinstance(labels, str):
            return labels
        style = choice(options, "style", tuple(_INPUTS)) or "centernet"
        heatmap = (roles["heatmap_output"],)
        activation = choose_activation(summary, heatmap, self.name, options)
        if isinstance(activation, Question):
            return activation
        line = f"input as in {style}: give input, or options.style, in a spec if it is another"
        pixels = fed_input(summary, _INPUTS[style], line, self.name, given)
        if isinstance(pixels, str):
            return pixels
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **pixels[0]),
            postprocess=PostprocessSpec(
                score_threshold=0.3,
                iou_threshold=1.0,
                max_detections=100,
                multi_label=True,
            ),
            options={
                **roles,
                "score_activation": activation,
                "style": style,
            },
        )
        reasons = (
            f"heat map {roles['heatmap_output']} of {classes} classes on {shape[2]}x{shape[3]} "
            f"cells, sizes {roles['size_output']}, offsets {roles['offset_output']}",
            f"heat map {'of scores' if activation == 'none' else 'of logits: a sigmoid is added'}",
            labels[1],
            "no suppression: the peaks of the heat map are the objects",
            pixels[1],
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        refuse_unknown_options(spec.options, self.name, _OPTIONS)
        choice(spec.options, "score_activation", SCORE_ACTIVATIONS)
        choice(spec.options, "style", tuple(_INPUTS))
        validate_roles(spec, summary, _OUTPUTS, _check_shapes)

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        shapes = {n: tuple(int(dim) for dim in v.ty.shape) for n, v in outputs.items()}
        height, width = _check_shapes(shapes, spec)
        heat, size, offset = (outputs[str(spec.options[key])] for key in _OUTPUTS)
        batch, classes = shapes[str(spec.options["heatmap_output"])][:2]

        def rows(value: relax.Expr, channels: int) -> relax.Expr:
            value = bb.emit(relax.op.permute_dims(value, [0, 2, 3, 1]))
            return bb.emit(relax.op.reshape(value, (batch, height * width, channels)))

        # Peaks of logits are those of scores, and logits do not saturate.
        highest = bb.emit(relax.op.nn.max_pool2d(heat, (3, 3), padding=(1, 1, 1, 1)))
        peak = bb.emit(relax.op.equal(heat, highest))
        scores = heat
        if spec.options["score_activation"] == "sigmoid":
            scores = bb.emit(relax.op.sigmoid(heat))
        scores = bb.emit(relax.op.where(peak, scores, relax.const(0.0, "float32")))
        cells = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
        corner = relax.const(cells.reshape(1, -1, 2).astype("float32"))
        center = bb.emit(relax.op.add(rows(offset, 2), corner))
        half = bb.emit(relax.op.multiply(rows(size, 2), relax.const(0.5, "float32")))
        corners = [
            bb.emit(relax.op.subtract(center, half)),
            bb.emit(relax.op.add(center, half)),
        ]
        boxes = bb.emit(relax.op.concat(corners, axis=2))
        pixels = relax.const(np.array([[_cell_xy(spec, (height, width)) * 2]], "float32"))
        boxes = bb.emit(relax.op.multiply(boxes, pixels))
        scores = emit_without_empty(bb, boxes, rows(scores, classes))
        return Decoded(boxes=boxes, scores=scores)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        height, width = _check_shapes({n: v.shape for n, v in outputs.items()}, spec)
        heat, size, offset = (
            outputs[str(spec.options[key])].astype(np.float64) for key in _OUTPUTS
        )
        scale_x, scale_y = _cell_xy(spec, (height, width))
        padded_heat = np.pad(heat, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(padded_heat, (3, 3), axis=(2, 3))
        scores = heat
        if spec.options["score_activation"] == "sigmoid":
            scores = 0.5 * (1.0 + np.tanh(0.5 * heat))
        scores = np.where(heat >= windows.max(axis=(-2, -1)), scores, 0.0)
        y, x = np.mgrid[0:height, 0:width]
        x, y = x + offset[:, 0], y + offset[:, 1]
        sides = (
            (x - size[:, 0] / 2) * scale_x,
            (y - size[:, 1] / 2) * scale_y,
            (x + size[:, 0] / 2) * scale_x,
            (y + size[:, 1] / 2) * scale_y,
        )
        batch, classes = heat.shape[:2]
        boxes = np.stack(sides, axis=-1).reshape(batch, -1, 4)
        scores = np.moveaxis(scores.reshape(batch, classes, -1), 1, 2)
        scores = reference_without_empty(boxes, scores)
        return Decoded(boxes=boxes.astype(np.float32), scores=scores.astype(np.float32))


def _roles(summary: GraphSummary, options: Mapping[str, Any]) -> dict[str, str] | str:
    """Returns the output of each role, or why they cannot be told."""
    roles = {key: choice(options, key, tuple(summary.outputs)) or "" for key in _OUTPUTS}
    if not all(roles.values()) and len(summary.outputs) != len(_OUTPUTS):
        return f"it has {len(summary.outputs)} outputs; this family has three"
    shapes = {name: value.shape for name, value in summary.outputs.items()}
    used = [shapes[name] for name in roles.values() if name] or list(shapes.values())
    if any(len(shape) != 4 or None in shape for shape in used):
        return "its outputs are not maps [N, C, H, W]"
    if len({shape[2:] for shape in used}) != 1 and len({shape[1:3] for shape in used}) == 1:
        return (
            "its maps are [N, H, W, C]; this family's are [N, C, H, W]: export them so (tf2onnx "
            "has --outputs-as-nchw)"
        )
    if len({shape[2:] for shape in used}) != 1:
        return "its outputs are on different grids; this family's are on one"
    if not all(roles.values()):
        twos = [name for name, shape in shapes.items() if shape[1] == 2]
        if len(twos) < 2:
            return "it has not two outputs of two channels, sizes and offsets"
        for key, prefixes in _NAMES.items():
            named = [name for name in shapes if name.lower().startswith(prefixes)]
            roles[key] = roles[key] or (named[0] if len(named) == 1 else "")
    if not all(roles.values()) or len(set(roles.values())) != len(_OUTPUTS):
        heat = next((name for name, shape in shapes.items() if shape[1] != 2), next(iter(shapes)))
        first, second = [name for name in shapes if name != heat][:2]
        return Question(
            f"a heat map and two maps of two channels on {used[0][2]}x{used[0][3]} cells fit, but "
            "their names do not say which holds sizes and which offsets",
            spec_text=(
                f'family = "{CenterNetHead.name}"\n[options]\nheatmap_output = "{heat}"\n'
                f'size_output = "{first}"    # or "{second}"\n'
                f'offset_output = "{second}"  # or "{first}"\n'
                'style = "centernet"  # or "mmdetection"'
            ),
        )
    return roles


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], spec: DetectorSpec) -> tuple[int, int]:
    """Returns rows and columns of the maps."""
    grid: tuple[int, ...] = ()
    for key, channels in zip(_OUTPUTS, (len(spec.labels), 2, 2), strict=True):
        name = str(spec.options.get(key))
        if name not in shapes:
            raise ShapeError(
                f"the spec's options.{key} is {name!r}; the network's outputs: {', '.join(shapes)}"
            )
        shape = shapes[name]
        grid = grid or shape[2:]
        if len(shape) != 4 or shape[1] != channels or shape[2:] != grid:
            raise ShapeError(
                f"{name} is {list(shape)}; the spec needs [N, {channels}, H, W] on the heat map's "
                "grid: correct the spec's labels or options"
            )
    return grid[0], grid[1]


def _cell_xy(spec: DetectorSpec, grid_hw: tuple[int, int]) -> tuple[float, float]:
    """Returns the pixels of a cell, x and y."""
    height, width = spec.input.size_hw
    return width / grid_hw[1], height / grid_hw[0]
