"""Decoded boxes with scores of every class, before suppression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import ColumnRun, Decoded, GraphSummary, Head, Question, Recognition
from tvmdet.heads.box_evidence import are_on_priors, columns_of_pyramid
from tvmdet.heads.cell_rows import CORNERS
from tvmdet.heads.decoded_joined import emit_joined, find_joined, joined_shapes
from tvmdet.heads.detection_decoding import boxes_reference, convention_of, emit_boxes
from tvmdet.heads.input_defaults import fed_input, stated_input
from tvmdet.heads.labels import choose_labels
from tvmdet.heads.landmarks import keypoints_line
from tvmdet.heads.libreyolo import libreyolo_input, selects_by_itself
from tvmdet.heads.names import plain_name
from tvmdet.heads.options import choice, refuse_unknown_options
from tvmdet.heads.paddledetection import advice, is_paddledetection, suppression
from tvmdet.heads.pose_outputs import (
    POINT_OPTIONS,
    check_points,
    emit_points,
    find_points,
    point_spec,
    reference_points,
)
from tvmdet.heads.queries import has_attention
from tvmdet.heads.yolo_rows import LAYOUTS
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = ["DecodedHead"]

_Shape: TypeAlias = tuple[int | None, ...]

_OPTIONS = ("background", "box_frame", "box_output", "columns", "score_output")
_JOINED = "layout"  # a further option, where one output holds both
_BACKGROUNDS = ("none", "first", "last")
_BOX_NAMES = ("boxes", "bboxes", "decoded_boxes", "pred_boxes")
_SCORE_NAMES = ("scores", "confidences", "conf", "cls_scores", "pred_scores", "probs")
_FEWEST = 100  # anchors; fewer boxes are those of a set prediction

# How qfgaohao/pytorch-ssd and what came of it (UltraFace) prepare pictures and write boxes:
# ``mobilenetv1_ssd_config.py``, ``fd_config.py`` (mean 127, deviation 128), ``box_utils.py``.
_PYTORCH_SSD: Mapping[str, Any] = {
    "color": "rgb",
    "mean": (127.0,) * 3,
    "std": (128.0,) * 3,
    "resize": "stretch",
}
_PRIORS: Mapping[str, Any] = {
    "columns": list(CORNERS),
    "box_frame": "normalized",
    "background": "first",
}


# What PaddleDetection's heads hand to their suppression, with ``export.nms=False`` or
# ``exclude_nms=True`` (``ppyoloe_head.py``, ``pico_head.py``): boxes over ``scale_factor``.
_PADDLE: Mapping[str, Any] = {
    "columns": list(CORNERS),
    "box_frame": "pixels",
    "background": "none",
}


class DecodedHead(Head):
    """Boxes ``[N, A, 4]`` and scores ``[N, A, C]`` from 0 to 1; tvmdet suppresses.

    Boxes may as well be ``[N, 4, A]``, and scores ``[N, C, A]``, as PaddleDetection's are: the
    number of rows tells.

    Both may be joined in one output, ``[N, A, 4 + C]`` or ``[N, 4 + C, A]``, whose name stands for
    the boxes and the scores. Rows of the usual maps whose boxes prove to be two corners are taken
    for such: the YOLO families have a centre and a size. Boxes in an output of their own are known
    by what a picture gives, too, whatever the output is called (YOLO-NAS).

    Exports of qfgaohao's pytorch-ssd with MobileNet at 300x300 and of UltraFace are known: outputs
    ``scores`` of a softmax and ``boxes``, and as many boxes as their priors. Others have to be told
    the order and unit of the columns, and which class is the background.
    """

    name = "decoded"
    title = "decoded boxes and scores of every class, no suppression (pytorch-ssd, UltraFace)"

    def examine(
        self, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
    ) -> Recognition | str:
        """Implements :meth:`tvmdet.heads.base.Head.examine`."""
        options, asked = given.get("options", {}), given.get("family") == self.name
        apart = find_points(summary, options)
        joined = None if apart else find_joined(summary, size_hw, options, asked=asked)
        beside = apart.names if apart else ()
        found = (joined.output, joined.output) if joined else _find(summary, options, beside)
        if isinstance(found, str):
            return found
        boxes, scores = found
        if not asked and not joined and not _are_scores(summary, boxes, scores):
            return f"the values of {scores} are not proven to be from 0 to 1"
        iou = None if joined else _pytorch_ssd(summary, boxes, scores, size_hw)
        if isinstance(iou, str):
            if not asked:
                return iou
            iou = None
        known = _PRIORS if iou is not None else joined.proven if joined else {}
        told = joined.told if joined else ""
        if not known and not joined:
            known, told = _proven(summary, boxes, scores, size_hw)
        if not asked and (joined or not known) and has_attention(summary):
            return (
                "it has attention, so its boxes may be a set prediction that needs no suppression"
            )
        if not asked and not known and not _are_named(boxes, scores):
            return f"nothing says that {boxes} and {scores} are decoded boxes and their scores"
        layout = _layout(options, known)
        if layout is None:
            return _ask_for_layout(boxes)
        if joined:
            layout[_JOINED] = joined.layout
        columns = joined.values - 4 if joined else _columns_of(summary, boxes, scores)
        classes = columns - (layout["background"] != "none")
        if classes < 1:
            return f"{scores} is {summary.outputs[scores]}: no class beside the background"
        labels = choose_labels(summary.metadata, classes, given)
        if isinstance(labels, str):
            return labels
        values = _input(summary, iou is not None, given, told)
        if isinstance(values, str):
            return values
        by_paddle = is_paddledetection(summary)
        threshold, line = suppression(summary) if by_paddle else (iou or 0.45, "")
        spec = DetectorSpec(
            family=self.name,
            labels=labels[0],
            input=InputSpec(size_hw=size_hw, **values[0]),
            postprocess=PostprocessSpec(
                iou_threshold=1.0 if selects_by_itself(summary.metadata) else threshold,
                multi_label=True,
            ),
            options={
                **layout,
                "box_output": boxes,
                "score_output": scores,
                **(apart.options if apart else {}),
            },
            keypoints=point_spec(apart.count, given, scored=apart.is_scored) if apart else None,
        )
        shown = f"{' '.join(layout['columns'])}, {layout['box_frame']}"
        reasons = [f"{boxes}: {shown}; {scores}: {classes} classes", labels[1], values[1]]
        if by_paddle and "iou_threshold" not in given.get("postprocess", {}):
            reasons.append(line)
        if spec.keypoints is not None:
            reasons.append(keypoints_line(spec.keypoints, beside))
        used = (boxes, scores, *beside)
        unused = [name for name in summary.exported_outputs if name not in used]
        if unused:
            reasons.append(f"boxes are chosen by tvmdet; not used: {', '.join(unused)}")
        return Recognition(family=self.name, reasons=tuple(reasons), spec=spec)

    def validate(self, spec: DetectorSpec, summary: GraphSummary) -> None:
        """Implements :meth:`tvmdet.heads.base.Head.validate`."""
        options = spec.options
        refuse_unknown_options(options, self.name, (*_OPTIONS, _JOINED, *POINT_OPTIONS))
        missing = [name for name in _OPTIONS if options.get(name) is None]
        if missing:
            raise InputError(f"the spec's options lack {missing[0]!r}")
        choice(options, "background", _BACKGROUNDS)
        choice(options, "box_frame", ("normalized", "pixels"))
        for name in ("box_output", "score_output"):
            choice(options, name, tuple(summary.outputs))
        columns = options["columns"]
        listed = isinstance(columns, list | tuple) and len(columns) == 4
        if not listed or convention_of(columns) is None:
            raise InputError(
                f"the spec's options.columns is {columns!r}; allowed: x1 y1 x2 y2, x1 y1 w h or "
                "cx cy w h, in any order"
            )
        layout = choice(options, _JOINED, LAYOUTS)
        names = options["box_output"], options["score_output"]
        if (names[0] == names[1]) != (layout is not None):
            raise InputError(
                f"options.layout goes with one output for boxes and scores; they are {names[0]} "
                f"and {names[1]}, and layout is {layout!r}"
            )
        shapes = [summary.outputs[name].shape for name in names]
        if layout is not None and len(shapes[0]) == 3:
            shapes = joined_shapes(shapes[0], layout)
        else:
            axes = _box_axis(shapes[0]), _class_axis(*shapes)
            shapes = [_rows_first(*one) for one in zip(shapes, axes, strict=True)]
        check_points(spec, summary)
        try:
            _check(shapes[0], shapes[1], spec)
        except ShapeError as error:
            raise InputError(str(error)) from error

    def decode(
        self, bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
    ) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode`."""
        from tvm import relax

        boxes, scores = _pick(outputs, spec)
        if spec.options.get(_JOINED) is not None:
            boxes, scores = emit_joined(bb, boxes, spec.options[_JOINED])
        shapes = [tuple(int(dim) for dim in part.ty.shape) for part in (boxes, scores)]
        axes = _box_axis(shapes[0]), _class_axis(shapes[0], shapes[1])
        boxes, scores = (
            bb.emit(relax.op.permute_dims(part, [0, 2, 1])) if axis == 1 else part
            for part, axis in zip((boxes, scores), axes, strict=True)
        )
        _check(_rows_first(shapes[0], axes[0]), _rows_first(shapes[1], axes[1]), spec)
        if spec.options["background"] != "none":
            first = int(spec.options["background"] == "first")
            begin, end = [first], [first + len(spec.labels)]
            scores = bb.emit(relax.op.strided_slice(scores, axes=[2], begin=begin, end=end))
        points = emit_points(bb, outputs, spec)
        return Decoded(boxes=emit_boxes(bb, boxes, spec), scores=scores, keypoints=points)

    def decode_reference(self, outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
        """Implements :meth:`tvmdet.heads.base.Head.decode_reference`."""
        boxes, scores = _pick(outputs, spec)
        if (layout := spec.options.get(_JOINED)) is not None:
            rows = boxes.transpose(0, 2, 1) if layout == "channels_first" else boxes
            boxes, scores = rows[:, :, :4], rows[:, :, 4:]
        axes = _box_axis(boxes.shape), _class_axis(boxes.shape, scores.shape)
        boxes, scores = np.moveaxis(boxes, axes[0], 2), np.moveaxis(scores, axes[1], 2)
        _check(boxes.shape, scores.shape, spec)
        kept = {"none": slice(None), "first": slice(1, None), "last": slice(-1)}
        scores = scores[:, :, kept[spec.options["background"]]]
        points = reference_points(outputs, spec)
        return Decoded(boxes=boxes_reference(boxes, spec), scores=scores, keypoints=points)


def _find(
    summary: GraphSummary, options: Mapping[str, Any], beside: Sequence[str]
) -> tuple[str, str] | str:
    """Returns the names of the boxes and the scores, or why there are none."""
    outputs = {name: value for name, value in summary.outputs.items() if name not in beside}
    keys = ("box_output", "score_output")
    chosen = tuple(choice(options, key, tuple(outputs)) for key in keys)
    if chosen[0] and chosen[1]:
        flat = [name for name in chosen if name and len(outputs[name].shape) != 3]
        if chosen[0] == chosen[1] or flat:
            return (
                f"{chosen[0]} and {chosen[1]} are not boxes [N, A, 4] and scores [N, A, C]; where "
                "one output holds both, options.layout says along which dimension a row lies"
            )
        return chosen[0], chosen[1]
    tables = [name for name, value in outputs.items() if len(value.shape) == 3]
    if len(outputs) != 2 or len(tables) != 2:
        return "its outputs are not boxes [N, A, 4] and scores [N, A, C]"
    fours = [name for name in tables if 4 in outputs[name].shape[1:]]
    if len(fours) == 2:
        named = [name for name in fours if plain_name(name) in _BOX_NAMES]
        last = [name for name in fours if outputs[name].shape[2] == 4]
        fours = named or last
    boxes = chosen[0] or (fours[0] if len(fours) == 1 else None)
    if boxes is None:
        return "its outputs are not boxes [N, A, 4] and scores [N, A, C]"
    scores = chosen[1] or next(name for name in tables if name != boxes)
    axis = _class_axis(outputs[boxes].shape, outputs[scores].shape)
    rows = [_rows_of(outputs[boxes].shape), outputs[scores].shape[3 - axis]]
    if rows[0] != rows[1] or (rows[0] or 0) < _FEWEST:
        return f"{boxes} has {rows[0]} rows and {scores} {rows[1]}; anchors are {_FEWEST} or more"
    return boxes, scores


def _box_axis(boxes: _Shape) -> int:
    """Returns along which dimension the values of a box lie: 2, or 1 for [N, 4, A]."""
    return 1 if len(boxes) == 3 and boxes[1] == 4 != boxes[2] else 2


def _rows_of(boxes: _Shape) -> int | None:
    return boxes[3 - _box_axis(boxes)]


def _class_axis(boxes: _Shape, scores: _Shape) -> int:
    """Returns along which dimension of scores the classes of a box lie: 2, or 1 for [N, C, A]."""
    return 1 if len(scores) == 3 and scores[2] == _rows_of(boxes) != scores[1] else 2


def _rows_first(shape: _Shape, axis: int) -> _Shape:
    """Returns a shape with its values along the last dimension."""
    return (shape[0], shape[2], shape[1]) if axis == 1 else shape


def _columns_of(summary: GraphSummary, boxes: str, scores: str) -> int:
    """Returns how many scores a box has."""
    shape = summary.outputs[scores].shape
    return int(shape[_class_axis(summary.outputs[boxes].shape, shape)] or 0)


def _runs(summary: GraphSummary, boxes: str, scores: str) -> tuple[ColumnRun, ...]:
    """Returns what is known of the scores of each class."""
    shape = summary.outputs[scores].shape
    axis = _class_axis(summary.outputs[boxes].shape, shape)
    return summary.column_runs(scores, axis, 0, int(shape[axis] or 0))


def _are_scores(summary: GraphSummary, boxes: str, scores: str) -> bool:
    ranges = summary.output_ranges.get(scores, ())
    runs = _runs(summary, boxes, scores)
    proven = bool(ranges) and all(one.is_unit for one in ranges)
    return proven or (bool(runs) and all(run.is_score for run in runs))


def _are_sigmoids(summary: GraphSummary, boxes: str, scores: str) -> bool:
    """Returns whether scores are sigmoids, or made of some and of no softmax."""
    runs = [run.operators for run in _runs(summary, boxes, scores)]
    made = bool(runs) and all("Sigmoid" in run and "Softmax" not in run for run in runs)
    return made or summary.output_sources.get(scores, frozenset()) == {"Sigmoid"}


def _are_named(boxes: str, scores: str) -> bool:
    return plain_name(boxes) in _BOX_NAMES and plain_name(scores) in _SCORE_NAMES


def _proven(
    summary: GraphSummary, boxes: str, scores: str, size_hw: tuple[int, int]
) -> tuple[Mapping[str, Any], str]:
    """Returns options that what the network answers to a picture proves, and what to say of them.

    Whatever the outputs are called: some exporters of YOLO-NAS call the boxes ``pred_logits`` and
    the scores ``pred_boxes``. A softmax may have a column for the background, sigmoids have none.
    """
    columns = columns_of_pyramid(summary, boxes, size_hw)
    by_class = _class_axis(summary.outputs[boxes].shape, summary.outputs[scores].shape) == 1
    if columns in (None, CORNERS) and by_class and is_paddledetection(summary):
        return _PADDLE, f"{boxes} and {scores} are PaddleDetection's, before its suppression; "
    if columns is None or not _are_sigmoids(summary, boxes, scores):
        return {}, ""
    known = {"columns": list(columns), "box_frame": "pixels", "background": "none"}
    return known, f"{boxes} holds boxes {' '.join(columns)} in pixels and {scores} their scores; "


def _pytorch_ssd(
    summary: GraphSummary, boxes: str, scores: str, size_hw: tuple[int, int]
) -> float | str | None:
    """Returns the authors' IoU threshold where the export is pytorch-ssd's or UltraFace's.

    A sentence instead where the boxes are what UltraFace's published files "without postprocessing"
    hold: differences to the priors. None for exports of others.
    """
    sources = summary.output_sources.get(scores, frozenset())
    _, anchors, columns = summary.outputs[scores].shape
    named = (plain_name(boxes), plain_name(scores)) == ("boxes", "scores")
    if not named or sources != {"Softmax"} or _box_axis(summary.outputs[boxes].shape) == 1:
        return None
    if columns == 2:  # UltraFace: 3, 2, 2, 3 priors a cell at strides 8 to 64
        height, width = size_hw
        levels = ((8, 3), (16, 2), (32, 2), (64, 3))
        maps = [(-(-height // step), -(-width // step), per) for step, per in levels]
        iou = 0.3
    else:  # MobileNet
        maps, iou = [(side, side, 6) for side in (19, 10, 5, 3, 2, 1)], 0.45
    counted = anchors == sum(rows * across * per for rows, across, per in maps)
    if not counted or (columns != 2 and size_hw != (300, 300)):
        return None
    decoded = are_on_priors(summary, boxes, maps)
    if decoded is False:
        return (
            f"{boxes} has a row for each prior of pytorch-ssd or UltraFace, but on a picture of "
            "shapes they are no corners around them: differences to priors, as UltraFace's files "
            '"without_postprocessing"; take the export that has the boxes decoded'
        )
    return iou if decoded else None


def _layout(options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns columns, unit and background, or None where one is not known."""
    merged = {
        key: options.get(key, known.get(key)) for key in ("columns", "box_frame", "background")
    }
    choice(merged, "box_frame", ("normalized", "pixels"))
    choice(merged, "background", _BACKGROUNDS)
    return merged if None not in merged.values() else None


def _ask_for_layout(boxes: str) -> Question:
    return Question(
        f"nothing says in which order and unit {boxes} is, and which class is the background",
        spec_text='family = "decoded"\n[options]\n'
        'box_frame = "pixels"                    # or "normalized"\n'
        'columns = ["x1", "y1", "x2", "y2"]      # or another order, or cx cy w h\n'
        'background = "none"                     # or "first", "last": a column that is no class',
    )


def _input(
    summary: GraphSummary, known: bool, given: Mapping[str, Any], told: str
) -> tuple[dict[str, Any], str] | str:
    """Returns the input's defaults and a line; or what to ask for."""
    stated = stated_input(summary)
    if known:
        line = "input RGB, mean 127, deviation 128, stretched: as pytorch-ssd"
        return fed_input(summary, _PYTORCH_SSD, line, "decoded", given)
    if (libreyolo := libreyolo_input(summary.metadata)) is not None:
        return fed_input(summary, *libreyolo, "decoded", given)
    table = given.get("input", {})
    if stated is not None and "resize" in table:
        return stated
    turned = summary.normalisation is not None and summary.normalisation.reverses
    colors = ("bgr", "rgb") if turned else ("rgb", "bgr")
    if {"mean", "std", "resize"} <= set(table):
        return {"color": colors[0]}, "input as the spec says"
    why = "; the network turns the channels around" if turned else ""
    return Question(
        f"{told}nothing in the graph says how pictures are resized and normalised{why}"
        f"{advice(summary)}",
        spec_text='family = "decoded"\n[input]    # what the network was trained with\n'
        f'color = "{colors[0]}"                  # or "{colors[1]}"\n'
        'resize = "letterbox"           # or "stretch"\n'
        'pad_position = "center"        # or "top_left"\n'
        "mean = [0.0, 0.0, 0.0]         # in pixel units\n"
        "std = [255.0, 255.0, 255.0]",
    )


def _check(boxes: _Shape, scores: _Shape, spec: DetectorSpec) -> None:
    columns = len(spec.labels) + (spec.options["background"] != "none")
    if len(boxes) != 3 or boxes[2] != 4 or scores[1:] != (boxes[1], columns):
        raise ShapeError(
            f"boxes are {list(boxes)} and scores {list(scores)}; {len(spec.labels)} labels and "
            f"background {spec.options['background']!r} need [N, A, 4] and [N, A, {columns}]"
        )


def _pick(outputs: Mapping[str, Any], spec: DetectorSpec) -> tuple[Any, Any]:
    names = spec.options["box_output"], spec.options["score_output"]
    for name in names:
        if name not in outputs:
            raise ShapeError(f"there is no output {name!r}; the network has: {', '.join(outputs)}")
    return outputs[names[0]], outputs[names[1]]
