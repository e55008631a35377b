"""YOLOv8-style raw maps: box distributions and class scores per level, nothing decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.labels import choose_labels, labels_from_metadata
from tvmdet.heads.options import (
    choice,
    names_of,
    refuse_unknown_options,
    strides_of,
    whole_number,
)
from tvmdet.heads.ultralytics import is_ultralytics, read_ultralytics, refuse_export
from tvmdet.heads.yolo_evidence import unit_input
from tvmdet.heads.yolo_levels import find_maps
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["YoloV8MapsHead"]

_BINS = 16  # distances per side of YOLOv8, YOLOv9 and YOLO11 (reg_max of their Detect module)
_RKNN_BOXES = (4, 4 * 17)  # channels of YOLOv6 and PP-YOLOE
_PYRAMIDS = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))
_ACTIVATIONS = ("none", "sigmoid")
_ORDERS = ("boxes_first", "classes_first")
_NEEDED = ("bins", "box_outputs", "class_outputs", "score_activation", "strides")
_OPTIONS = (*_NEEDED, "map_order")


@dataclass(frozen=True, kw_only=True)
class _Level:
    """The outputs of one level; box and class output may be one, the classes first or last.

    ``classes_first`` is None where one map holds both and nothing says in which order.
    """

    stride: int
    box: str
    scores: str
    classes: int
    classes_first: bool | None = False


class YoloV8MapsHead(Head):
    """Per level a box map ``[N, 4 * 16, H, W]`` and a class map ``[N, C, H, W]``, or both in one.

    The four groups of 16 channels are distributions over the distances 0 to 15, in strides, of
    the sides left, top, right, bottom from the cell's centre (``DFL`` and ``dist2bbox`` of
    Ultralytics' ``nn/modules``; Generalized Focal Loss, Li et al. 2020). RKNN and Hailo exports
    are cut here; RKNN's have the class scores through a sigmoid, and the sum of each cell's
    scores as a third output, which is not used. Ultralytics' training mode has both in one map,
    boxes first, and MMYOLO's easydeploy with ``--model-only`` has the classes first.

    Sixteen distances over strides 8, 16, 32 are this family's alone: PicoDet has 8, GFL and
    PP-YOLOE 17. In one map the number of classes has to be known from labels.

    Defaults are those of family ``yolov8``.
    """

    name = "yolov8_maps"
    title = "raw maps of YOLOv8, YOLOv9, YOLO11 (RKNN, Hailo, training mode), decoded here"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        refusal = refuse_export(summary.metadata, masks=False)
        if refusal:
            return refusal
        options = given.get("options", {})
        bins = whole_number(options, "bins", 1, 64) or _BINS
        levels = _find(summary, size_hw, given, bins)
        if isinstance(levels, str):
            return levels
        strides = tuple(level.stride for level in levels)
        if given.get("family") != self.name and strides not in _PYRAMIDS:
            return f"its levels have strides {strides}; this family's are {_PYRAMIDS[0]}"
        classes = {level.classes for level in levels}
        if len(classes) != 1:
            return f"its levels have different numbers of classes: {sorted(classes)}"
        labels = choose_labels(summary.metadata, classes.pop(), given)
        if isinstance(labels, str):
            return labels
        pixels = unit_input(summary, "letterbox with grey 114", self.name, given)
        if isinstance(pixels, str):
            return pixels
        order = choice(options, "map_order", _ORDERS)
        if order is None:
            if doubt := _doubt_order(levels, bins):
                return doubt
            order = _ORDERS[bool(levels[0].classes_first)]
        activation = choice(options, "score_activation", _ACTIVATIONS)
        activation = activation or _activation(summary, levels, order)
        if activation is None:
            return "some class maps are through a sigmoid and some are not"
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **pixels[0]),
            postprocess=PostprocessSpec(score_threshold=0.25, iou_threshold=0.45),
            options={
                "bins": bins,
                "box_outputs": [level.box for level in levels],
                "class_outputs": [level.scores for level in levels],
                "map_order": order,
                "score_activation": activation,
                "strides": list(strides),
            },
        )
        first = ", the classes first" if order == "classes_first" else ""
        logits = "logits" if activation == "sigmoid" else "through a sigmoid"
        reasons = (
            f"raw maps of strides {', '.join(map(str, strides))}: 4 sides x {bins} distances and "
            f"{len(labels[0])} classes ({logits}){first}",
            labels[1],
            pixels[1],
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        options = spec.options
        refuse_unknown_options(options, self.name, _OPTIONS)
        for name in _NEEDED:
            if options.get(name) is None:
                raise InputError(f"the spec's options lack {name!r}; needed: {', '.join(_NEEDED)}")
        choice(options, "map_order", _ORDERS)
        choice(options, "score_activation", _ACTIVATIONS)
        whole_number(options, "bins", 1, 64)
        strides = strides_of(options) or ()
        for key in ("box_outputs", "class_outputs"):
            names = names_of(options, key, summary.outputs) or ()
            if len(names) != len(strides):
                raise InputError(
                    f"the spec's options.strides has {len(strides)} entries for {len(names)} {key}"
                )
        shapes = {
            name: tuple(dim or 0 for dim in value.shape) for name, value in summary.outputs.items()
        }
        try:
            for level in range(len(strides)):
                _check_level(shapes, spec, level)
        except ShapeError as error:
            raise InputError(str(error)) from error

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        options, bins = spec.options, int(spec.options["bins"])
        shapes = {n: tuple(int(dim) for dim in v.ty.shape) for n, v in outputs.items()}
        boxes, scores = [], []
        for level in range(len(options["strides"])):
            box, score = _check_level(shapes, spec, level)
            rows = {name: _emit_rows(bb, outputs[name]) for name in dict.fromkeys((box, score))}
            boxes.append(rows[box])
            scores.append(rows[score])
            if box == score:
                first = len(spec.labels) if _classes_first(spec) else 4 * bins
                parts = bb.emit(relax.op.split(rows[box], [first], axis=2))
                boxes[-1] = bb.emit(relax.TupleGetItem(parts, int(_classes_first(spec))))
                scores[-1] = bb.emit(relax.TupleGetItem(parts, int(not _classes_first(spec))))
        scored = bb.emit(relax.op.concat(scores, axis=1))
        if options["score_activation"] == "sigmoid":
            scored = bb.emit(relax.op.sigmoid(scored))
        distance = bb.emit(relax.op.concat(boxes, axis=1))
        if bins > 1:
            batch, anchors = [int(dim) for dim in distance.ty.shape][:2]
            distance = bb.emit(relax.op.reshape(distance, (batch, anchors, 4, bins)))
            weights = bb.emit(relax.op.nn.softmax(distance, axis=-1))
            ramp = relax.const(np.arange(bins, dtype=np.float32))
            distance = bb.emit(relax.op.sum(relax.op.multiply(weights, ramp), axis=[-1]))
        steps, centers = _anchor_constants(spec)
        distance = bb.emit(relax.op.multiply(distance, relax.const(steps)))
        return Decoded(boxes=bb.emit(relax.op.add(distance, relax.const(centers))), scores=scored)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        options, bins = spec.options, int(spec.options["bins"])
        shapes = {name: value.shape for name, value in outputs.items()}
        boxes, scores = [], []
        for level, stride in enumerate(options["strides"]):
            box, score = _check_level(shapes, spec, level)
            classes = len(spec.labels)
            turned = box == score and _classes_first(spec)
            sides = outputs[box][:, classes if turned else 0 :][:, : 4 * bins].astype(np.float64)
            logits = outputs[score][:, 0 if turned else -classes :][:, :classes].astype(np.float64)
            batch, _, height, width = sides.shape
            sides = sides.reshape(batch, 4, bins, height, width)
            if bins > 1:
                power = np.exp(sides - sides.max(axis=2, keepdims=True))
                sides = np.einsum("nsbhw,b->nshw", power, np.arange(bins)) / power.sum(axis=2)
            left, top, right, bottom = np.moveaxis(sides.reshape(batch, 4, height, width), 1, 0)
            x, y = np.arange(width)[None, :] + 0.5, np.arange(height)[:, None] + 0.5
            corners = np.stack([x - left, y - top, x + right, y + bottom], axis=-1) * stride
            boxes.append(corners.reshape(batch, -1, 4))
            if options["score_activation"] == "sigmoid":
                logits = 1 / (1 + np.exp(-logits))
            scores.append(logits.reshape(batch, len(spec.labels), -1).swapaxes(1, 2))
        return Decoded(
            boxes=np.concatenate(boxes, axis=1).astype(np.float32),
            scores=np.concatenate(scores, axis=1).astype(np.float32),
        )


def _find(
    summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any], bins: int
) -> list[_Level] | str:
    """Returns the levels, finest first, or why the outputs are no levels of this family."""
    options = given.get("options", {})
    names = {key: names_of(options, key, summary.outputs) for key in _OPTIONS if "outputs" in key}
    listed = [name for key in names for name in names[key] or ()]
    maps = find_maps(summary, size_hw, tuple(dict.fromkeys(listed)) or None)
    if isinstance(maps, str):
        return maps
    strides: dict[int, list[tuple[str, int]]] = {}
    for name, stride in maps.items():
        shape = summary.outputs[name].shape
        if len(shape) != 4 or shape[2] != size_hw[0] // stride:
            return f"{name} is {summary.outputs[name]}; this family's maps are [N, C, H, W]"
        strides.setdefault(stride, []).append((name, int(shape[1] or 0)))
    if len(strides) == 1 and given.get("family") != YoloV8MapsHead.name:
        return f"its maps are of one stride, {next(iter(strides))}; this family's are of several"
    levels = [_level(summary, stride, strides[stride], given, bins) for stride in sorted(strides)]
    wrong = [level for level in levels if isinstance(level, str)]
    return wrong[0] if wrong else [level for level in levels if isinstance(level, _Level)]


def _level(
    summary: GraphSummary,
    stride: int,
    maps: list[tuple[str, int]],
    given: Mapping[str, Any],
    bins: int,
) -> _Level | str:
    """Returns which of a level's maps holds boxes and which scores, or why none does."""
    if len(maps) == 1:
        name, channels = maps[0]
        known = given.get("labels") or labels_from_metadata(summary.metadata)[0]
        sure = known or read_ultralytics(summary.metadata).by_ultralytics
        joined = [shape[1] for shape in summary.output_maps.get(name, ())]
        if len(joined) == 2 and 4 * bins not in joined:
            one, other = joined
            return (
                f"{name} joins {one} and {other} channels; this family's are 4 x {bins} and classes"
            )
        if channels <= 4 * bins or (known and channels - 4 * bins != len(known)):
            return f"{name} has {channels} channels, which are not 4 x {bins} distances and classes"
        if not sure and given.get("family") != YoloV8MapsHead.name:
            return Question(
                f"{name} has {channels} channels, which may be 4 x {bins} distances and "
                f"{channels - 4 * bins} classes: name the family or the classes in a spec",
                spec_text=f'family = "{YoloV8MapsHead.name}"',
            )
        classes = channels - 4 * bins
        turned = _are_classes_first(summary, name, classes, bins)
        return _Level(stride=stride, box=name, scores=name, classes=classes, classes_first=turned)
    named = given.get("options", {}).get("box_outputs") or ()
    boxes = [name for name, channels in maps if channels == 4 * bins]
    boxes = [name for name in boxes if name in named] or [
        name for name in boxes if not _is_score(summary, name)
    ]
    others = [(name, channels) for name, channels in maps if name not in boxes]
    if len(maps) == 3:
        others = [(name, channels) for name, channels in others if channels != 1] or others[:1]
    if not boxes and "bins" not in given.get("options", {}):
        question = _ask_for_bins(summary, maps)
        if question is not None:
            return question
    if len(boxes) != 1 or len(others) != 1:
        found = ", ".join(f"{name} with {channels} channels" for name, channels in maps)
        return f"the level of stride {stride} has {found}; this family's are 4 x {bins} and classes"
    return _Level(stride=stride, box=boxes[0], scores=others[0][0], classes=others[0][1])


def _ask_for_bins(summary: GraphSummary, maps: list[tuple[str, int]]) -> Question | None:
    """Asks for the distances a side where a level is RKNN's with others than YOLOv8's 16.

    Its third map is the sum of the class scores, cut at 1. YOLOv6 has one distance (n, s) or 17
    (m, l), PP-YOLOE 17: the boxes are decoded alike, but pictures are fed otherwise.
    """
    sources, cut = summary.output_sources, frozenset({"Clip"})
    sums = [name for name, channels in maps if channels == 1 and sources.get(name) == cut]
    boxes = [
        (name, channels // 4)
        for name, channels in maps
        if channels in _RKNN_BOXES and not _is_score(summary, name)
    ]
    if len(maps) != 3 or len(sums) != 1 or len(boxes) != 1:
        return None
    name, bins = boxes[0]
    return Question(
        f"{name} has {4 * bins} channels beside class scores and their sum, which may be "
        f"4 x {bins} distances of YOLOv6 or PP-YOLOE, cut for RKNN",
        spec_text=f'family = "{YoloV8MapsHead.name}"\n[options]\nbins = {bins}\n'
        "[input]    # YOLOv6's; PP-YOLOE's is stretched, with ImageNet's mean\n"
        'resize = "letterbox"           # or "stretch"\n'
        "mean = [0.0, 0.0, 0.0]         # or [123.675, 116.28, 103.53]\n"
        "std = [255.0, 255.0, 255.0]    # or [58.395, 57.12, 57.375]",
    )


def _is_score(summary: GraphSummary, name: str, start: int = 0, classes: int | None = None) -> bool:
    stop = int(summary.outputs[name].shape[1] or 0) if classes is None else start + classes
    runs = summary.column_runs(name, 1, start, stop)
    return bool(runs) and all(run.is_score for run in runs)


def _activation(summary: GraphSummary, levels: list[_Level], order: str) -> str | None:
    """Returns whether a sigmoid is missing; None where the levels differ."""
    done = set()
    for level in levels:
        channels = int(summary.outputs[level.scores].shape[1] or 0)
        start = 0 if order == "classes_first" else channels - level.classes
        done.add(_is_score(summary, level.scores, start, level.classes))
    if len(done) != 1:
        return None
    return "none" if done.pop() else "sigmoid"


def _are_classes_first(summary: GraphSummary, name: str, classes: int, bins: int) -> bool | None:
    """Returns whether one map begins with the classes, or None where nothing says so.

    Said by the maps that it joins, by which of its channels are through a sigmoid, or by metadata:
    Ultralytics has the boxes first.
    """
    joined = [shape[1] for shape in summary.output_maps.get(name, ())]
    if len(joined) == 2 and joined[0] != joined[1]:
        return joined[0] == classes
    first = _is_score(summary, name, 0, classes)
    if first != _is_score(summary, name, 4 * bins, classes):
        return first
    return False if is_ultralytics(summary.metadata) else None


def _doubt_order(levels: list[_Level], bins: int) -> str:
    """Returns why the maps have no order of boxes and classes in common, what to ask, or ''."""
    found = {level.classes_first for level in levels}
    if len(found) > 1:
        return "some of its maps have the classes first and some the boxes"
    if found != {None}:
        return ""
    return Question(
        f"{levels[0].box} has {4 * bins} channels of distances and {levels[0].classes} of classes, "
        "and nothing says which come first",
        spec_text=f'family = "{YoloV8MapsHead.name}"\n[options]\n'
        'map_order = "boxes_first"    # Ultralytics; or "classes_first": MMYOLO',
    )


def _classes_first(spec: DetectorSpec) -> bool:
    return bool(spec.options.get("map_order") == "classes_first")


def _check_level(
    shapes: Mapping[str, tuple[int, ...]], spec: DetectorSpec, level: int
) -> tuple[str, str]:
    """Returns the names of a level's outputs.

    Raises:
        ShapeError: An output is missing or has a shape that the spec does not explain.
    """
    options = spec.options
    box, score = options["box_outputs"][level], options["class_outputs"][level]
    stride, sides, classes = options["strides"][level], 4 * options["bins"], len(spec.labels)
    cells = tuple(side // stride for side in spec.input.size_hw)
    wanted = {box: sides, score: classes} if box != score else {box: sides + classes}
    for name, channels in wanted.items():
        if name not in shapes:
            raise ShapeError(
                f"the spec's options name the output {name!r}; the network's outputs: "
                f"{', '.join(shapes)}"
            )
        if tuple(shapes[name][1:]) != (channels, *cells):
            raise ShapeError(
                f"{name} is {list(shapes[name])}; the spec needs [N, {channels}, {cells[0]}, "
                f"{cells[1]}]: correct the spec's labels, input.size_hw, options.strides or "
                "options.bins"
            )
    return box, score


def _emit_rows(bb: relax.BlockBuilder, value: Any) -> Any:
    """Emits ``[N, H W, C]`` from ``[N, C, H, W]``; in NHWC the transposition costs nothing."""
    from tvm import relax

    batch, channels, height, width = (int(dim) for dim in value.ty.shape)
    value = bb.emit(relax.op.permute_dims(value, [0, 2, 3, 1]))
    return bb.emit(relax.op.reshape(value, (batch, height * width, channels)))


def _anchor_constants(spec: DetectorSpec) -> tuple[np.ndarray, np.ndarray]:
    """Returns signed strides and centres, float32 ``[1, A, 4]``: box = centre + step * side."""
    steps, centers = [], []
    for stride in spec.options["strides"]:
        height, width = (side // stride for side in spec.input.size_hw)
        grid_y, grid_x = np.mgrid[0:height, 0:width]
        corner = np.stack([grid_x, grid_y, grid_x, grid_y], axis=-1).reshape(-1, 4)
        centers.append((corner + 0.5) * stride)
        steps.append(np.tile(np.array([-stride, -stride, stride, stride]), (len(corner), 1)))
    return (
        np.concatenate(steps)[None].astype(np.float32),
        np.concatenate(centers)[None].astype(np.float32),
    )
