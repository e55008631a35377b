"""Raw maps of the YOLO families with anchors: one output per level, nothing decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.options import choice, names_of, refuse_unknown_options, strides_of
from tvmdet.heads.yolo_anchors import VERSIONS, Anchors, Version, anchors_of, numbers_of
from tvmdet.heads.yolo_evidence import unit_input
from tvmdet.heads.yolo_levels import MapForm, find_levels, find_maps
from tvmdet.heads.yolo_rows import LARGEST_LOG, emit_corners, reference_corners
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec, Resize, Scale

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["YoloMapsHead"]

_DECODINGS = ("exp", "sigmoid")
_ACTIVATIONS = ("none", "sigmoid")
_CLASS_ACTIVATIONS = ("sigmoid", "softmax")
_CLASS_ACTIVATION = "class_activation"  # written where it is a softmax
_NEEDED = ("activation", "anchors", "decoding", "outputs", "scale_xy", "strides")
_OPTIONS = (*_NEEDED, _CLASS_ACTIVATION, "version")
_USUAL_ANCHORS = 3  # of a cell
_REGION_ANCHORS, _REGION_STRIDE = 5, 32  # of YOLOv2


class YoloMapsHead(Head):
    """Per level one map ``[N, P * (5 + C), H, W]``, or that with P apart, P anchors a cell.

    With t the values of an anchor, c its cell's corner, s a sigmoid and k ``scale_xy``::

        centre = (k s(t_xy) - (k - 1) / 2 + c) stride
        extent = (2 s(t_wh))^2 anchor      decoding "sigmoid": YOLOv5, YOLOv7 (models/yolo.py)
        extent = exp(t_wh) anchor          decoding "exp": YOLOv3, YOLOv4 (src/yolo_layer.c)
        score  = s(t_objectness) s(t_class), of YOLOv2 s(t_objectness) softmax(t_classes)

    YOLOv2 has one map, five anchors a cell and decoding "exp" (src/region_layer.c).
    The maps hold neither the anchors nor the formula, and those of all versions look alike: a
    network is taken only when a spec says the family, and a version or the anchors themselves.
    YOLOv5 adapts its anchors to the data it is trained on: prefer the model's own.

    Defaults are RGB / 255, score 0.25 and IoU 0.45; a centred letterbox of grey 114 for decoding
    ``sigmoid`` (YOLOv5's ``detect.py``), stretched for ``exp`` (AlexeyAB's Darknet).
    """

    name = "yolo_maps"
    title = "raw maps of YOLOv2 to v5 and v7, decoded with anchors that a spec names"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        options = given.get("options", {})
        version = VERSIONS.get(choice(options, "version", tuple(VERSIONS)) or "")
        names = names_of(options, "outputs", summary.outputs)
        maps = find_maps(summary, size_hw, names)
        if isinstance(maps, str):
            return maps
        if given.get("family") != self.name:
            return _advice(summary, maps, size_hw)
        known = _decoding(options, version)
        if isinstance(known, str):
            return known
        anchors, decoding = known
        strides = strides_of(options) or (version.strides if version else None)
        levels = find_levels(maps, size_hw, strides)
        if isinstance(levels, str):
            return levels
        per_cell = len(anchors[0]) // 2
        if reason := _made_of_others(summary, levels.values(), per_cell):
            return reason
        of_classes = _class_activation(options, version, levels, decoding)
        if of_classes not in _CLASS_ACTIVATIONS:
            return of_classes
        classes = _classes(summary, levels, size_hw, anchors)
        if isinstance(classes, str):
            return classes
        labels = choose_labels(summary.metadata, classes, given)
        if isinstance(labels, str):
            return labels
        resize: Resize = "letterbox" if decoding == "sigmoid" else "stretch"
        # detect.py divides by the ratio before rounding, as family yolov5 has it.
        places: Scale = "unrounded" if decoding == "sigmoid" else "auto"
        pixels = unit_input(summary, resize, self.name, given)
        if isinstance(pixels, str):
            return pixels
        scale = version.scale_xy if version else (2.0 if decoding == "sigmoid" else 1.0,)
        resolved = {
            "activation": _activation(summary, levels),
            "anchors": [list(row) for row in anchors],
            "decoding": decoding,
            "outputs": list(levels.values()),
            "scale_xy": [*scale, *[scale[-1]] * len(levels)][: len(levels)],
            "strides": list(levels),
            **({_CLASS_ACTIVATION: of_classes} if of_classes == "softmax" else {}),
        }
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, resize=resize, scale=places, **pixels[0]),
            postprocess=PostprocessSpec(score_threshold=0.25, iou_threshold=0.45),
            options=resolved,
        )
        listed = ", ".join(f"{name} stride {stride}" for stride, name in levels.items())
        origin = "the spec" if anchors_of(options) else f"{options['version']} as published"
        reasons = (
            f"raw maps {listed}: {per_cell} anchors a cell, 5 + {classes} values each",
            f"anchors of {origin}, decoding {decoding}, classes by a {of_classes}",
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
        choice(options, "version", tuple(VERSIONS))
        choice(options, "decoding", _DECODINGS)
        if choice(options, "activation", _ACTIVATIONS) == "none" and options["decoding"] == "exp":
            raise InputError(
                "the spec's options.activation is 'none' with decoding 'exp', which needs the "
                "values before any sigmoid; export the network without it"
            )
        softmax = choice(options, _CLASS_ACTIVATION, _CLASS_ACTIVATIONS) == "softmax"
        if softmax and options["activation"] == "none":
            raise InputError(
                "the spec's options.class_activation is 'softmax' with activation 'none': maps "
                "whose values are through a sigmoid have none left to do; correct one of them"
            )
        names = names_of(options, "outputs", summary.outputs) or ()
        strides, anchors = strides_of(options) or (), anchors_of(options) or ()
        scale = numbers_of(options, "scale_xy") or ()
        for key, entries in (("strides", strides), ("anchors", anchors), ("scale_xy", scale)):
            if len(entries) != len(names):
                raise InputError(
                    f"the spec's options.{key} has {len(entries)} entries for {len(names)} outputs"
                )
        for name, stride in zip(names, strides, strict=True):
            shape = tuple(dim or 0 for dim in summary.outputs[name].shape)
            try:
                _form(name, shape, spec, stride)
            except ShapeError as error:
                raise InputError(str(error)) from error

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        def constant(value: np.ndarray) -> Any:
            return relax.const(value.astype(np.float32))

        options = spec.options
        parts = []
        for name, stride in zip(options["outputs"], options["strides"], strict=True):
            part = _pick(outputs, name)
            shape = tuple(int(dim) for dim in part.ty.shape)
            parts.append(_form(name, shape, spec, stride).emit_rows(bb, part))
        rows = bb.emit(relax.op.concat(parts, axis=1))
        logits = options["activation"] == "sigmoid"
        softmax = options.get(_CLASS_ACTIVATION) == "softmax"
        raw = rows
        if logits and options["decoding"] == "sigmoid":
            rows = bb.emit(relax.op.sigmoid(rows))
        cut = bb.emit(relax.op.split(rows, [2, 4, 5], axis=2))
        center, extent, objectness, classes = (
            bb.emit(relax.TupleGetItem(cut, at)) for at in range(4)
        )
        if softmax:
            end = int(raw.ty.shape[2])
            classes = bb.emit(relax.op.strided_slice(raw, axes=[2], begin=[5], end=[end]))
            classes = bb.emit(relax.op.nn.softmax(classes, axis=2))
        if options["decoding"] == "exp":
            center, objectness = (bb.emit(relax.op.sigmoid(part)) for part in (center, objectness))
            if not softmax:
                classes = bb.emit(relax.op.sigmoid(classes))
            extent = bb.emit(relax.op.minimum(extent, relax.const(LARGEST_LOG, "float32")))
            extent = bb.emit(relax.op.exp(extent))
        else:
            extent = bb.emit(relax.op.multiply(extent, extent))
        factor, offset, sizes = _row_constants(outputs, spec)
        center = bb.emit(relax.op.multiply(center, constant(factor)))
        center = bb.emit(relax.op.add(center, constant(offset)))
        extent = bb.emit(relax.op.multiply(extent, constant(sizes)))
        boxes = emit_corners(bb, center, extent)
        return Decoded(boxes=boxes, scores=bb.emit(relax.op.multiply(classes, objectness)))

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        options = spec.options
        boxes, scores = [], []
        for name, stride, anchors, scale in zip(
            options["outputs"],
            options["strides"],
            options["anchors"],
            options["scale_xy"],
            strict=True,
        ):
            part = _pick(outputs, name)
            form = _form(name, part.shape, spec, stride)
            raw = form.reference(part).astype(np.float64)  # [N, P, H, W, V]
            active = raw if options["activation"] == "none" else 1 / (1 + np.exp(-raw))
            sizes = np.reshape(anchors, (1, -1, 1, 1, 2))
            corner = np.stack(np.meshgrid(np.arange(form.width), np.arange(form.height)), axis=-1)
            center = (active[..., :2] * scale - (scale - 1) / 2 + corner) * stride
            exponential = options["decoding"] == "exp"
            factor = (2 * active[..., 2:4]) ** 2
            if exponential:
                factor = np.exp(np.clip(raw[..., 2:4], None, LARGEST_LOG))
            shares = active[..., 5:]
            if options.get(_CLASS_ACTIVATION) == "softmax":
                shares = np.exp(raw[..., 5:] - raw[..., 5:].max(-1, keepdims=True))
                shares /= shares.sum(-1, keepdims=True)
            level = active[..., 4:5] * shares
            flat = [form.flatten(value) for value in (center, factor * sizes, level)]
            boxes.append(reference_corners(flat[0], flat[1]))
            scores.append(flat[2].astype(np.float32))
        return Decoded(boxes=np.concatenate(boxes, axis=1), scores=np.concatenate(scores, axis=1))


def _advice(summary: GraphSummary, maps: Mapping[str, int], size_hw: tuple[int, int]) -> str:
    """Returns what to write for outputs that look like raw maps, of such strides."""
    shapes = [value.shape for value in summary.outputs.values()]
    for sides in (slice(1, 3), slice(2, 4)):
        grids = {shape[sides] for shape in shapes if len(shape) == 4}
        if len(shapes) > 1 and len(grids) == 1:
            return "all of its outputs have one grid; this family has one output for each level"
    if region := _region_advice(summary):
        return region
    for name, value in summary.outputs.items():
        shape = [int(dim or 0) for dim in value.shape[1:]]
        if len(shape) == 3:
            # How many rows and columns of cells there are says nothing of the channels.
            cells = [side // maps[name] for side in size_hw]
            shape = [shape[0] if shape[1:] == cells else shape[2]]
        if 3 not in shape and not any(side >= 18 and side % 3 == 0 for side in shape):
            return f"{name} is {value}; three anchors a cell have 3 x (5 + classes) channels"
    if reason := _made_of_others(summary, summary.outputs, _USUAL_ANCHORS):
        return reason
    return Question(
        "its outputs may be raw maps of a YOLO with anchors, which tell neither the anchors nor "
        f"the decoding: name the family and a version ({', '.join(VERSIONS)}) in a spec; anchors "
        "of its own, in pixels, and their decoding (sigmoid or exp) go beside it",
        spec_text=f'family = "{YoloMapsHead.name}"\n[options]\nversion = "yolov5"\n'
        "# anchors = [[10, 13, 16, 30, 33, 23], ...]   where the training changed them",
    )


def _region_advice(summary: GraphSummary) -> Question | None:
    """Returns what to write for one map that comes straight from a Conv and may be YOLOv2's."""
    if len(summary.outputs) != 1:
        return None
    ((name, value),) = summary.outputs.items()
    sides = [int(dim or 0) for dim in value.shape[1:]]
    pictures = [one.shape for one in summary.inputs.values() if len(one.shape) == 4]
    if len(sides) != 3 or not pictures:
        return None
    channels = 0
    for at, cells in ((0, sides[1:]), (2, sides[:2])):
        if {side * _REGION_STRIDE for side in cells} <= set(pictures[0][1:]):
            channels = sides[at]
    values = channels // _REGION_ANCHORS
    if values <= 5 or channels % _REGION_ANCHORS:
        return None
    if not summary.output_sources.get(name, frozenset()) & {"Conv"}:
        return None
    version = "yolov2-tiny-voc" if values == 25 else "yolov2"
    return Question(
        f"{name} may be the raw map of a YOLOv2, {_REGION_ANCHORS} anchors a cell of "
        f"{_REGION_STRIDE} pixels and {values - 5} classes, which does not tell its anchors: name "
        "the family and a version in a spec",
        spec_text=f'family = "{YoloMapsHead.name}"\n[options]\nversion = "{version}"    # or '
        '"yolov2-voc", "yolov2-tiny", or anchors in pixels of its own:\n'
        '# anchors = [[35, 38, ...]]\n# decoding = "exp"\n# class_activation = "softmax"',
    )


def _class_activation(
    options: Mapping[str, Any], version: Version | None, levels: Mapping[int, str], decoding: str
) -> str:
    """Returns what makes scores of the classes' values, or asks for it."""
    told = choice(options, _CLASS_ACTIVATION, _CLASS_ACTIVATIONS)
    if told is not None:
        return told
    if version is not None:
        return version.class_activation
    if len(levels) == 1 and decoding == "exp":
        return Question(
            "one map with decoding exp may be a YOLOv2's, whose classes go through a softmax, or a "
            "level of a later YOLO, whose classes go through a sigmoid: say which",
            spec_text='[options]\nclass_activation = "softmax"    # or "sigmoid"',
        )
    return "sigmoid"


def _made_of_others(summary: GraphSummary, names: Iterable[str], per_cell: int) -> str:
    """Returns why a map is not this family's, by the maps that it is joined of; or ''."""
    for name in names:
        parts = [shape[1] for shape in summary.output_maps.get(name, ())]
        if len(parts) > 1 and any(part % per_cell for part in parts):
            shown = " and ".join(map(str, parts))
            return f"{name} joins maps of {shown} channels; {per_cell} anchors a cell share theirs"
    return ""


def _decoding(options: Mapping[str, Any], version: Version | None) -> tuple[Anchors, str] | str:
    """Returns the anchors and how extents decode, or what the spec has to say first."""
    anchors = anchors_of(options) or (version.anchors if version else None)
    if anchors is None:
        return Question(
            "raw maps need anchors: name the version of the model in the spec's "
            f"options.version, one of {', '.join(VERSIONS)}, or give options.anchors and "
            "options.decoding",
            spec_text='[options]\nversion = "yolov5"',
        )
    decoding = choice(options, "decoding", _DECODINGS) or (version.decoding if version else None)
    if decoding is None:
        return Question(
            "anchors without a version need options.decoding in the spec, sigmoid or exp",
            spec_text='[options]\ndecoding = "sigmoid"   # or "exp"',
        )
    return anchors, decoding


def _classes(
    summary: GraphSummary, levels: Mapping[int, str], size_hw: tuple[int, int], anchors: Anchors
) -> int | str:
    """Returns the number of classes that the maps have in common, or why there is none."""
    if len(anchors) != len(levels):
        return f"there are {len(levels)} maps, but anchors for {len(anchors)} levels"
    found, per_cell = set(), len(anchors[0]) // 2
    for stride, name in levels.items():
        shape = tuple(int(dim or 0) for dim in summary.outputs[name].shape)
        cell = (size_hw[0] // stride, size_hw[1] // stride)
        form = MapForm.of(shape, cell, per_cell)
        if form is None or form.values <= 5:
            return (
                f"{name} is {summary.outputs[name]}; {per_cell} anchors a cell need "
                f"{per_cell} x (5 + classes) values in each of {cell[0]}x{cell[1]} cells"
            )
        found.add(form.values - 5)
    if len(found) != 1:
        return f"the maps have different numbers of classes: {sorted(found)}"
    return found.pop()


def _activation(summary: GraphSummary, levels: Mapping[int, str]) -> str:
    """Returns ``none`` where every value is a sigmoid's, as RKNN's exports have it."""
    for name in levels.values():
        rank = len(summary.outputs[name].shape)
        runs = [run for axis in range(1, rank) for run in summary.columns.get((name, axis), ())]
        if not runs or not all(run.is_score for run in runs):
            return "sigmoid"
    return "none"


def _form(name: str, shape: tuple[int, ...], spec: DetectorSpec, stride: int) -> MapForm:
    """Returns how a map lies.

    Raises:
        ShapeError: It is not what the spec says.
    """
    height, width = (side // stride for side in spec.input.size_hw)
    per_cell, values = len(spec.options["anchors"][0]) // 2, 5 + len(spec.labels)
    form = MapForm.of(shape, (height, width), per_cell)
    if form is None or form.values != values:
        raise ShapeError(
            f"{name} is {list(shape)}; {len(spec.labels)} labels and {per_cell} anchors a cell at "
            f"stride {stride} need [N, {per_cell * values}, {height}, {width}]: correct the "
            "spec's labels, input.size_hw, options.strides or options.anchors"
        )
    return form


def _row_constants(
    outputs: Mapping[str, Any], spec: DetectorSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns factor ``[1, A, 1]`` and offset of centres, and factor of extents, ``[1, A, 2]``."""
    options = spec.options
    factors, offsets, sizes = [], [], []
    gain = 4.0 if options["decoding"] == "sigmoid" else 1.0
    for name, stride, anchors, scale in zip(
        options["outputs"], options["strides"], options["anchors"], options["scale_xy"], strict=True
    ):
        shape = tuple(int(dim) for dim in outputs[name].ty.shape)
        form = _form(name, shape, spec, stride)
        grid_y, grid_x = np.mgrid[0 : form.height, 0 : form.width]
        corner = np.stack([grid_x, grid_y], axis=-1)[None, None]  # [1, 1, H, W, 2]
        offset = (corner - (scale - 1) / 2) * stride
        size = np.asarray(anchors, np.float64).reshape(1, -1, 1, 1, 2) * gain
        full = (1, form.per_cell, form.height, form.width, 2)
        offsets.append(form.flatten(np.broadcast_to(offset, full)))
        sizes.append(form.flatten(np.broadcast_to(size, full)))
        factors.append(np.full((1, offsets[-1].shape[1], 1), scale * stride))
    return np.concatenate(factors, 1), np.concatenate(offsets, 1), np.concatenate(sizes, 1)


def _pick(outputs: Mapping[str, Any], name: str) -> Any:
    if name not in outputs:
        raise ShapeError(
            f"the spec's options.outputs names {name!r}; the network's outputs: "
            f"{', '.join(outputs)}"
        )
    return outputs[name]
