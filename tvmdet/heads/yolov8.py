"""YOLOv8-style heads: decoded boxes and class scores in one output (YOLOv8, YOLOv9, YOLO11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import Decoded, GraphSummary, Head, Recognition, TensorSummary
from tvmdet.heads.labels import choose_labels, labels_from_metadata
from tvmdet.heads.options import choice, refuse_unknown_options, strides_of
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    import numpy as np
    from tvm import relax

__all__ = ["YoloV8Head"]

# Pyramid levels that this family is trained with: the usual one, and its -p2 and -p6 variants.
_LAYOUTS = ("channels_first", "channels_last")
_OPTIONS = ("layout", "output", "strides")
_PYRAMIDS = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))


class YoloV8Head(Head):
    """One output ``[N, 4 + C, A]`` or ``[N, A, 4 + C]``.

    Its rows are ``cx cy w h`` in pixels of the network's input, then one score per class that
    has been through a sigmoid. There is one column per cell of the feature pyramid. YOLOv5
    and YOLOv7 have an objectness row and three anchors a cell, YOLOX has an objectness row:
    neither is claimed.

    Defaults are RGB / 255 and a centred letterbox of grey 114, score 0.25 and IoU 0.45, as in
    Ultralytics' OpenCV example for YOLOv8. Their ``predict`` command has IoU 0.7, which keeps
    more doubled boxes; give ``postprocess.iou_threshold`` in a spec, or ``iou`` per call.
    """

    name = "yolov8"
    title = "YOLOv8-style, one output of decoded boxes and class scores (YOLOv8, YOLOv9, YOLO11)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        task = summary.metadata.get("task", "detect")
        if task != "detect" and given.get("family") != self.name:
            return f"the metadata say task {task!r}; only 'detect' is this family"
        chosen = _choose_output(summary, given)
        if isinstance(chosen, str):
            return chosen
        name, output = chosen
        if len(output.shape) != 3 or None in output.shape:
            return f"{name} is {output}; this family's is [N, 4 + classes, anchors]"
        found = _find_layout(output.shape, size_hw, given.get("options", {}))
        if isinstance(found, str):
            return f"{name} is {output}: {found}"
        layout, strides, rows = found
        doubt = _doubt(summary, name, layout, rows, given)
        if doubt:
            return doubt
        labels = choose_labels(summary.metadata, rows - 4, given)
        if isinstance(labels, str):
            return labels
        pyramid = ", ".join(str(stride) for stride in strides)
        shape = "[N, {}, {}]".format(*output.shape[1:])
        reasons = (
            f"{name} is {shape}: 4 box rows + {rows - 4} class rows, one column per anchor "
            f"of strides {pyramid} at {size_hw[0]}x{size_hw[1]}",
            labels[1],
            "input RGB / 255, letterbox with grey 114: the family's default",
        )
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw),
            postprocess=PostprocessSpec(score_threshold=0.25, iou_threshold=0.45),
            options={"layout": layout, "output": name, "strides": list(strides)},
        )
        return Recognition(family=self.name, reasons=reasons, spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        refuse_unknown_options(spec.options, self.name, _OPTIONS)
        missing = [name for name in _OPTIONS if spec.options.get(name) is None]
        if missing:
            raise InputError(
                f"the spec's options lack {missing[0]!r}; leave the table away or "
                "give all of layout, output and strides"
            )
        choice(spec.options, "layout", _LAYOUTS)
        choice(spec.options, "output", tuple(summary.outputs))
        strides_of(spec.options)
        try:
            shape = summary.outputs[spec.options["output"]].shape
            _check_shape(tuple(dim or 0 for dim in shape), spec)
        except ShapeError as error:
            raise InputError(str(error)) from error

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        output = _pick(outputs, spec)
        _check_shape(tuple(int(dim) for dim in output.ty.shape), spec)
        if spec.options["layout"] == "channels_first":
            output = bb.emit(relax.op.permute_dims(output, [0, 2, 1]))
        parts = bb.emit(relax.op.split(output, [2, 4], axis=2))
        center = bb.emit(relax.TupleGetItem(parts, 0))
        extent = bb.emit(relax.TupleGetItem(parts, 1))
        scores = bb.emit(relax.TupleGetItem(parts, 2))
        half = bb.emit(relax.op.multiply(extent, relax.const(0.5, "float32")))
        top_left = bb.emit(relax.op.subtract(center, half))
        bottom_right = bb.emit(relax.op.add(center, half))
        boxes = bb.emit(relax.op.concat([top_left, bottom_right], axis=2))
        return Decoded(boxes=boxes, scores=scores)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        import numpy as np

        output = _pick(outputs, spec)
        _check_shape(output.shape, spec)
        rows = output if spec.options["layout"] == "channels_first" else output.swapaxes(1, 2)
        x, y, w, h = (rows[:, index, :] for index in range(4))
        boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)
        scores = np.moveaxis(rows[:, 4:, :], 1, 2)
        return Decoded(
            boxes=boxes.astype(np.float32),
            scores=np.ascontiguousarray(scores, dtype=np.float32),
        )


def _choose_output(
    summary: GraphSummary, given: Mapping[str, Any]
) -> tuple[str, TensorSummary] | str:
    """Returns the only output, or the one that the spec names; or why there is none."""
    wanted = given.get("options", {}).get("output")
    if wanted is None and len(summary.outputs) != 1:
        return (
            f"it has {len(summary.outputs)} outputs; this family has one: "
            "name it in the spec's options.output"
        )
    name = next(iter(summary.outputs))
    if wanted is not None:
        name = choice(given["options"], "output", tuple(summary.outputs)) or name
    return name, summary.outputs[name]


def _anchors(size_hw: tuple[int, int], strides: tuple[int, ...]) -> int:
    return sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in strides)


def _find_layout(
    shape: tuple[int | None, ...], size_hw: tuple[int, int], options: Mapping[str, Any]
) -> tuple[str, tuple[int, ...], int] | str:
    """Returns the layout, the strides and the number of rows, or why there is none."""
    wanted, layout = strides_of(options), choice(options, "layout", _LAYOUTS)
    pyramids = (wanted,) if wanted else _PYRAMIDS
    first, second = int(shape[1] or 0), int(shape[2] or 0)
    for strides in pyramids:
        anchors = _anchors(size_hw, strides)
        if second == anchors and first > 4 and layout != "channels_last":
            return "channels_first", strides, first
        if first == anchors and second > 4 and layout != "channels_first":
            return "channels_last", strides, second
    if wanted or layout:
        counts = ", ".join(str(_anchors(size_hw, strides)) for strides in pyramids)
        where = {"channels_first": "last", "channels_last": "middle"}.get(layout or "", "any")
        raise InputError(
            f"the spec's options.strides {list(wanted or pyramids[0])} and layout "
            f"{layout or 'either'} mean {counts} anchors at {size_hw[0]}x{size_hw[1]} in the "
            f"{where} dimension of the output, which is [N, {first}, {second}]: correct them, or "
            "leave them away to have them recognised"
        )
    usual = _anchors(size_hw, pyramids[0])
    if 3 * usual in (first, second):
        return (
            f"{3 * usual} rows are three anchors a cell, as YOLOv5 and YOLOv7 have; "
            f"this family has one ({usual} at {size_hw[0]}x{size_hw[1]})"
        )
    expected = ", ".join(str(_anchors(size_hw, strides)) for strides in pyramids)
    return (
        f"neither dimension is a number of anchors that this family has at "
        f"{size_hw[0]}x{size_hw[1]} ({expected})"
    )


def _doubt(
    summary: GraphSummary, name: str, layout: str, rows: int, given: Mapping[str, Any]
) -> str:
    """Returns why rows that count right may still mean something else, or ''."""
    sources = summary.output_sources.get(name, frozenset())
    if given.get("family") == YoloV8Head.name:
        return ""
    if sources and "Sigmoid" not in sources:
        return (
            f"the values of {name} come from {', '.join(sorted(sources))}; "
            "class scores of this family come from a Sigmoid"
        )
    if sources and "Conv" in sources:
        return f"{name} holds values straight from a Conv; this family's boxes are decoded"
    named = given.get("labels") or labels_from_metadata(summary.metadata)[0]
    if layout == "channels_last" and not named:
        return (
            f"{name} has {rows} values an anchor, which is 4 + {rows - 4} classes here but "
            f"4 + 1 + {rows - 5} in YOLOX and YOLOv6, and no class names settle it"
        )
    return ""


def _pick(outputs: Mapping[str, Any], spec: DetectorSpec) -> Any:
    name = str(spec.options.get("output"))
    if name not in outputs:
        raise ShapeError(
            f"the spec's options.output is {name!r}; the network's outputs: {', '.join(outputs)}"
        )
    return outputs[name]


def _check_shape(shape: tuple[int, ...], spec: DetectorSpec) -> None:
    rows = 4 + len(spec.labels)
    anchors = _anchors(spec.input.size_hw, tuple(spec.options["strides"]))
    first = spec.options["layout"] == "channels_first"
    expected = (rows, anchors) if first else (anchors, rows)
    if len(shape) != 3 or tuple(shape[1:]) != expected:
        raise ShapeError(
            f"{spec.options['output']} is {list(shape)}; {len(spec.labels)} labels at "
            f"{spec.input.size_hw[0]}x{spec.input.size_hw[1]} need [N, {expected[0]}, "
            f"{expected[1]}]: correct the spec's labels, input.size_hw or options.strides"
        )
