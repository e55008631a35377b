"""CenterFace: a heat map of faces, and the logarithm of a box's sides at each cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import ShapeError
from tvmdet.heads import box_coding
from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.grids import Grid
from tvmdet.heads.input_defaults import fed_input
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.landmarks import FACE_LANDMARKS, keypoints_line, landmark_spec
from tvmdet.heads.options import choice, refuse_unknown_options, validate_roles
from tvmdet.heads.score_evidence import SCORE_ACTIVATIONS, choose_activation
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["CenterFaceHead"]

_OUTPUTS = ("heatmap_output", "size_output", "offset_output")
_LANDMARKS = "landmark_output"
_OPTIONS = (*_OUTPUTS, _LANDMARKS, "score_activation")
_STRIDE = 4
# centerface.py: blobFromImage with scale 1, mean 0, swapRB, to sides that are multiples of 32, so
# that the aspect ratio all but stays.
_INPUT: Mapping[str, Any] = {
    "color": "rgb",
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "resize": "letterbox",
    "pad_position": "top_left",
    "pad_value": 0,
}
# What a picture gives: shifts from the middle of a cell are -0.5 to 0.5 and none on average; a
# face's sides are 2 cells and more, and no larger than a picture.
_FARTHEST_SHIFT, _MEAN_SHIFT = 0.75, 0.2
_LOG_SIDES = (0.5, 6.0)


class CenterFaceHead(Head):
    """Scores ``[N, 1, H, W]``, log sides and shifts ``[N, 2, H, W]`` at stride 4, landmarks.

    CenterFace: Joint Face Detection and Alignment Using Face as Point, Xu et al. 2019, as
    Star-Clouds/CenterFace exports it (``prj-python/centerface.py``): the centre is the cell's
    middle plus the shift, height and width are exponents, all in cells and y first. The authors
    move a box that starts left of the picture to its border; here it is cut there.

    The sides and the shifts have the same shape: told by the names ``scale`` and ``offset``, or by
    what the network answers to a picture; else asked for. Landmarks are shares of the box's sides
    from its first corner, y first.
    """

    name = "centerface"
    title = "CenterFace, faces: heat map, log sides and shifts (Star-Clouds)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        options, mine = given.get("options", {}), given.get("family") == self.name
        landmarks = _landmarks(summary, options)
        found = _roles(summary, size_hw, options, mine=mine)
        if isinstance(found, str):
            return found
        roles, told = found
        labels = choose_labels(summary.metadata, 1, given)
        if isinstance(labels, str):
            return labels
        heatmap = (roles["heatmap_output"],)
        activation = choose_activation(summary, heatmap, self.name, options)
        if isinstance(activation, Question):
            return activation
        pixels = fed_input(summary, _INPUT, "input as in CenterFace: RGB", self.name, given)
        if isinstance(pixels, str):
            return pixels
        points = landmark_spec(FACE_LANDMARKS) if landmarks else None
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **pixels[0]),
            postprocess=PostprocessSpec(score_threshold=0.5, iou_threshold=0.3),
            options={
                **roles,
                **({_LANDMARKS: landmarks} if landmarks else {}),
                "score_activation": activation,
            },
            keypoints=points,
        )
        reasons = (
            f"heat map {roles['heatmap_output']} of faces, log sides {roles['size_output']} and "
            f"shifts {roles['offset_output']}, {told}",
            *(() if points is None else (keypoints_line(points, (landmarks,)),)),
            f"heat map {'of scores' if activation == 'none' else 'of logits: a sigmoid is added'}",
            labels[1],
            pixels[1],
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        refuse_unknown_options(spec.options, self.name, _OPTIONS)
        choice(spec.options, "score_activation", SCORE_ACTIVATIONS)
        roles = _OUTPUTS if spec.keypoints is None else (*_OUTPUTS, _LANDMARKS)
        validate_roles(spec, summary, roles, _check_shapes)

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        shapes = {n: tuple(int(dim) for dim in v.ty.shape) for n, v in outputs.items()}
        grid = _check_shapes(shapes, spec)
        heat, size, offset = (outputs[str(spec.options[key])] for key in _OUTPUTS)

        def rows(value: relax.Expr) -> relax.Expr:
            batch, channels, *_ = (int(dim) for dim in value.ty.shape)
            value = bb.emit(relax.op.permute_dims(value, [0, 2, 3, 1]))
            return bb.emit(relax.op.reshape(value, (batch, grid.cells, channels)))

        scores = rows(heat)
        if spec.options["score_activation"] == "sigmoid":
            scores = bb.emit(relax.op.sigmoid(scores))
        cell = np.full((grid.cells, 2), _STRIDE, np.float64)
        deltas = bb.emit(relax.op.concat([rows(offset), rows(size)], axis=2))
        anchors = np.concatenate([grid.centers(), cell], axis=1)
        boxes = box_coding.emit_deltas(
            bb, deltas, anchors, stds=(1.0,) * 4, limits=None, swapped=True
        )
        points = None
        if spec.keypoints is not None:
            points = _emit_points(bb, rows(outputs[str(spec.options[_LANDMARKS])]), boxes)
        boxes = box_coding.emit_clip(bb, boxes, spec.input.size_hw)
        return Decoded(
            boxes=boxes,
            scores=box_coding.emit_without_empty(bb, boxes, scores),
            keypoints=points,
        )

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        grid = _check_shapes({n: v.shape for n, v in outputs.items()}, spec)
        heat, size, offset = (
            outputs[str(spec.options[key])].astype(np.float64) for key in _OUTPUTS
        )
        if spec.options["score_activation"] == "sigmoid":
            heat = 0.5 * (1.0 + np.tanh(0.5 * heat))
        row, column = np.mgrid[0 : grid.size_hw[0], 0 : grid.size_hw[1]]
        y, x = row + 0.5 + offset[:, 0], column + 0.5 + offset[:, 1]
        # What grows beyond all bounds is cut to the picture; its landmarks are nowhere.
        with np.errstate(over="ignore"):
            down, across = np.exp(size[:, 0]) / 2, np.exp(size[:, 1]) / 2
        sides = np.stack([x - across, y - down, x + across, y + down], axis=-1) * _STRIDE
        points = None
        if spec.keypoints is not None:
            shares = outputs[str(spec.options[_LANDMARKS])].astype(np.float64)
            points = np.empty((*sides.shape[:3], FACE_LANDMARKS), np.float32)
            for index in range(FACE_LANDMARKS // 2):
                for axis, share in ((1, shares[:, 2 * index]), (0, shares[:, 2 * index + 1])):
                    low, high = sides[..., axis], sides[..., axis + 2]
                    with np.errstate(invalid="ignore"):
                        points[..., 2 * index + axis] = low + share * (high - low)
            points = points.reshape(len(heat), -1, FACE_LANDMARKS)
        boxes = box_coding.reference_clip(sides, spec.input.size_hw).reshape(len(heat), -1, 4)
        scores = box_coding.reference_without_empty(boxes, heat.reshape(len(heat), -1, 1))
        return Decoded(
            boxes=boxes.astype(np.float32), scores=scores.astype(np.float32), keypoints=points
        )


def _emit_points(bb: relax.BlockBuilder, shares: relax.Expr, boxes: relax.Expr) -> relax.Expr:
    """Emits the landmarks of boxes that are not cut yet; ``shares`` are y before x."""
    from tvm import relax

    count = FACE_LANDMARKS // 2
    swapped = np.arange(FACE_LANDMARKS).reshape(count, 2)[:, ::-1].reshape(-1)
    shares = bb.emit(relax.op.take(shares, relax.const(swapped), axis=2, mode="clip"))
    parts = bb.emit(relax.op.split(boxes, 2, axis=2))
    first, second = (bb.emit(relax.TupleGetItem(parts, index)) for index in (0, 1))
    extent = bb.emit(relax.op.subtract(second, first))
    start, reach = (bb.emit(relax.op.tile(one, (1, 1, count))) for one in (first, extent))
    return bb.emit(relax.op.add(start, bb.emit(relax.op.multiply(shares, reach))))


def _landmarks(summary: GraphSummary, options: Mapping[str, Any]) -> str:
    """Returns the output of landmarks, or '' where there is none."""
    wanted = choice(options, _LANDMARKS, tuple(summary.outputs))
    maps = [n for n, v in summary.outputs.items() if _channels(v.shape) == FACE_LANDMARKS]
    return wanted or (maps[0] if len(maps) == 1 else "")


def _channels(shape: tuple[int | None, ...]) -> int | None:
    return shape[1] if len(shape) == 4 else None


def _roles(
    summary: GraphSummary, size_hw: tuple[int, int], options: Mapping[str, Any], *, mine: bool
) -> tuple[dict[str, str], str] | str:
    """Returns the output of each role and by what they are told, or why they are not."""
    roles = {key: choice(options, key, tuple(summary.outputs)) or "" for key in _OUTPUTS}
    if mine and all(roles.values()):
        return roles, "as the spec says"
    grid = (-(-size_hw[0] // _STRIDE), -(-size_hw[1] // _STRIDE))
    maps: dict[int, list[str]] = {}
    for name, value in summary.outputs.items():
        if len(value.shape) != 4 or value.shape[2:] != grid:
            return f"{name} is {value}; this family's outputs are maps at stride {_STRIDE}"
        maps.setdefault(int(value.shape[1] or 0), []).append(name)
    landmarks = maps.pop(FACE_LANDMARKS, [])
    if {channels: len(names) for channels, names in maps.items()} != {1: 1, 2: 2}:
        return "its outputs are not a heat map of one class and two maps of two channels"
    if len(landmarks) != 1 and not mine:
        return "its heat map has not five landmarks beside it"
    if all(roles.values()):
        return roles, "as the spec says"
    heat, twos = maps[1][0], maps[2]
    named = _by_names(twos)
    valued = _by_values(summary, twos)
    if named and valued and named != valued:
        named = valued = None
    size, offset = named or valued or (twos[0], twos[1])
    if named or valued:
        told = "by their names" if named else "by what a picture gives"
        return dict(zip(_OUTPUTS, (heat, size, offset), strict=True)), told
    return Question(
        f"a heat map of one class and two maps of two channels on {grid[0]}x{grid[1]} cells fit, "
        "but neither their names nor what a picture gives says which holds log sides and which "
        "shifts",
        spec_text=(
            f'family = "{CenterFaceHead.name}"\n[options]\nheatmap_output = "{heat}"\n'
            f'size_output = "{size}"    # or "{offset}"\n'
            f'offset_output = "{offset}"  # or "{size}"'
        ),
    )


def _by_names(names: list[str]) -> tuple[str, str] | None:
    """Returns the sides and the shifts by the authors' words for them, or None."""
    sides, shifts = (
        [name for name in names if word in name.lower()] for word in ("scale", "offset")
    )
    return (sides[0], shifts[0]) if len(sides) == len(shifts) == 1 and sides != shifts else None


def _by_values(summary: GraphSummary, names: list[str]) -> tuple[str, str] | None:
    """Returns the sides and the shifts by what the network answers to a picture, or None."""
    if summary.sample is None:
        return None
    values = summary.sample()
    found = [
        (sides, shifts)
        for sides, shifts in (names, names[::-1])
        if _are_log_sides(values[sides]) and _are_shifts(values[shifts])
    ]
    return found[0] if len(found) == 1 else None


def _are_log_sides(values: np.ndarray) -> bool:
    low, high = _LOG_SIDES
    return bool(np.median(values) > low and values.max() < high)


def _are_shifts(values: np.ndarray) -> bool:
    return bool(np.abs(values).max() <= _FARTHEST_SHIFT and abs(values.mean()) <= _MEAN_SHIFT)


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], spec: DetectorSpec) -> Grid:
    """Returns the maps' grid."""
    height, width = (-(-side // _STRIDE) for side in spec.input.size_hw)
    if len(spec.labels) != 1:
        raise ShapeError(f"the spec has {len(spec.labels)} labels; this family finds faces only")
    wanted = dict(zip(_OUTPUTS, (1, 2, 2), strict=True))
    if spec.keypoints is not None:
        wanted[_LANDMARKS] = FACE_LANDMARKS
    for key, channels in wanted.items():
        name = str(spec.options.get(key))
        if name not in shapes:
            raise ShapeError(
                f"the spec's options.{key} is {name!r}; the network's outputs: {', '.join(shapes)}"
            )
        if len(shapes[name]) != 4 or shapes[name][1:] != (channels, height, width):
            raise ShapeError(
                f"{name} is {list(shapes[name])}; the spec needs [N, {channels}, {height}, {width}]"
                ": correct its options or input.size_hw"
            )
    return Grid(size_hw=(height, width), stride_yx=(_STRIDE, _STRIDE), offset=0.5)
