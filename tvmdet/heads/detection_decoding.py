"""Rows of detections to scored boxes: columns picked, class numbers to one score a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import Decoded, GraphSummary, MaskValues
from tvmdet.heads.detection_outputs import BOX_COLUMNS
from tvmdet.heads.options import choice, refuse_unknown_options, whole_number
from tvmdet.heads.pose import (
    KEYPOINT_COLUMNS,
    emit_row_keypoints,
    keypoint_columns,
    reference_row_keypoints,
)
from tvmdet.heads.pose_outputs import (
    POINT_OPTIONS,
    check_points,
    emit_points,
    reference_points,
)
from tvmdet.spec import DetectorSpec

if TYPE_CHECKING:
    from tvm import relax

__all__ = [
    "boxes_reference",
    "check_options",
    "convention_of",
    "decode_detections",
    "decode_detections_reference",
    "emit_boxes",
]

_OPTIONS = (
    "box_frame",
    "box_output",
    "class_output",
    "columns",
    "count_output",
    "label_offset",
    "mask_output",
    "score_output",
)
_COLUMNS = (
    *("x1", "y1", "x2", "y2", "cx", "cy", "w", "h"),
    *("score", "class", "angle", "batch", "unused"),
)
# Where the second corner lies from the first two columns, in sizes: x1 y1 x2 y2 = start + k * size.
_STEPS = {"corner_size": (0.0, 0.0, 1.0, 1.0), "center_size": (-0.5, -0.5, 0.5, 0.5)}


def check_options(spec: DetectorSpec, summary: GraphSummary) -> None:
    """Checks a whole spec against the network.

    Raises:
        InputError: An option is unknown, missing or does not fit the network.
    """
    options = spec.options
    known = (*_OPTIONS, KEYPOINT_COLUMNS, *POINT_OPTIONS, "prototype_output")
    refuse_unknown_options(options, spec.family, known)
    missing = [name for name in _OPTIONS if options.get(name) is None]
    if missing:
        raise InputError(f"the spec's options lack {missing[0]!r}; needed: {', '.join(_OPTIONS)}")
    choice(options, "box_frame", ("normalized", "pixels"))
    whole_number(options, "label_offset", 0, 1000)
    choice(options, "box_output", tuple(summary.outputs))
    for name in ("class_output", "count_output", "mask_output", "prototype_output", "score_output"):
        choice(options, name, ("", *summary.outputs))
    columns = options["columns"]
    listed = isinstance(columns, list | tuple) and all(column in _COLUMNS for column in columns)
    if not listed or convention_of(columns) is None:
        raise InputError(
            f"the spec's options.columns is {columns!r}; allowed: a list of {', '.join(_COLUMNS)} "
            "with x1 y1 x2 y2, x1 y1 w h or cx cy w h among them"
        )
    if spec.oriented and (columns.count("angle") != 1 or options["box_frame"] != "pixels"):
        raise InputError(
            "the spec says oriented: options.columns needs one column 'angle', in radians, and "
            "options.box_frame 'pixels'"
        )
    for column, key in (("score", "score_output"), ("class", "class_output")):
        sources = (column in columns) + bool(options[key])
        single = column == "class" and len(spec.labels) == 1
        if sources > 1 or (sources == 0 and not single):
            raise InputError(
                f"the spec names {sources} sources of the {column}: give a column {column!r} in "
                f"options.columns, or options.{key}"
            )
    sources = bool(options["mask_output"]) + bool(options.get("prototype_output"))
    if spec.masks is not None and sources != 1:
        raise InputError(
            f"the spec has masks, and {sources} outputs of them: options.mask_output names one of "
            "a mask a row, options.prototype_output one that masks are mixed from; name one of "
            "both, or leave the masks away"
        )
    check_points(spec, summary)
    try:
        coefficients = _coefficients(summary.outputs, spec)
        _check_rows(summary.outputs[options["box_output"]].shape, spec, coefficients)
    except ShapeError as error:
        raise InputError(str(error)) from error


def decode_detections(
    bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], spec: DetectorSpec
) -> Decoded:
    """Emits the decoding; see :meth:`tvmdet.heads.base.Head.decode`."""
    from tvm import relax

    table = _pick(outputs, spec, "box_output")
    shape = tuple(int(dim) for dim in table.ty.shape)
    _check_rows(shape, spec, _coefficients({n: v.ty for n, v in outputs.items()}, spec))
    batch, rows = _rows(shape)
    table = bb.emit(relax.op.reshape(table, (batch, rows, shape[-1])))
    scores = _emit_row_values(bb, outputs, spec, "score", table)
    if spec.options["count_output"]:
        count = bb.emit(relax.op.astype(_pick(outputs, spec, "count_output"), "int32"))
        count = bb.emit(relax.op.reshape(count, (batch, 1)))
        place = relax.const(np.arange(rows, dtype="int32")[None])
        real = bb.emit(relax.op.less(place, count))
        scores = bb.emit(relax.op.where(real, scores, relax.const(0.0, "float32")))
    scores = bb.emit(relax.op.expand_dims(scores, 2))
    if "class" in spec.options["columns"] or spec.options["class_output"]:
        numbers = _emit_row_values(bb, outputs, spec, "class", table)
        numbers = bb.emit(relax.op.expand_dims(numbers, 2))
        wanted = relax.const(_class_numbers(spec).reshape(1, 1, -1))
        is_class = bb.emit(relax.op.equal(numbers, wanted))
        scores = bb.emit(relax.op.where(is_class, scores, relax.const(0.0, "float32")))
    masks = None
    if spec.masks is not None and spec.options.get("prototype_output"):
        first = len(spec.options["columns"])
        end = shape[-1] - keypoint_columns(spec)
        values = _emit_columns(bb, table, list(range(first, end)))
        masks = MaskValues(values=values, prototypes=_pick(outputs, spec, "prototype_output"))
    elif spec.masks is not None:
        values = _pick(outputs, spec, "mask_output")
        height, width = (int(dim) for dim in list(values.ty.shape)[-2:])
        values = bb.emit(relax.op.reshape(values, (batch, rows, height, width)))
        masks = MaskValues(values=values)
    return Decoded(
        boxes=emit_boxes(bb, table, spec),
        scores=scores,
        masks=masks,
        keypoints=_emit_keypoints(bb, outputs, table, spec),
        angles=_emit_row_values(bb, outputs, spec, "angle", table) if spec.oriented else None,
    )


def _emit_keypoints(
    bb: relax.BlockBuilder, outputs: Mapping[str, relax.Expr], table: Any, spec: DetectorSpec
) -> Any:
    apart = emit_points(bb, outputs, spec)
    return emit_row_keypoints(bb, table, spec) if apart is None else apart


def _emit_row_values(
    bb: relax.BlockBuilder,
    outputs: Mapping[str, relax.Expr],
    spec: DetectorSpec,
    column: str,
    table: Any,
) -> Any:
    """Emits one float32 number a row, ``[N, K]``, from a column or an output of its own."""
    from tvm import relax

    batch, rows = (int(dim) for dim in list(table.ty.shape)[:2])
    columns = list(spec.options["columns"])
    if column in columns:
        values = _emit_columns(bb, table, [columns.index(column)])
    else:
        values = _pick(outputs, spec, f"{column}_output")
        values = bb.emit(relax.op.astype(values, "float32"))
    return bb.emit(relax.op.reshape(values, (batch, rows)))


def _emit_columns(bb: relax.BlockBuilder, table: Any, columns: list[int]) -> Any:
    from tvm import relax

    if columns == list(range(columns[0], columns[0] + len(columns))):
        end = columns[-1] + 1
        return bb.emit(relax.op.strided_slice(table, axes=[2], begin=[columns[0]], end=[end]))
    chosen = relax.const(np.array(columns, "int64"))
    return bb.emit(relax.op.take(table, chosen, axis=2, mode="clip"))


def emit_boxes(bb: relax.BlockBuilder, table: Any, spec: DetectorSpec) -> Any:
    """Emits ``x1 y1 x2 y2`` in pixels, ``[N, A, 4]``, of the columns that the options name."""
    from tvm import relax

    columns = list(spec.options["columns"])
    convention = convention_of(columns)
    assert convention is not None  # validated with the spec
    at = [columns.index(name) for name in BOX_COLUMNS[convention]]
    if convention == "corners":
        boxes = _emit_columns(bb, table, at)
    else:
        start = _emit_columns(bb, table, at[:2] * 2)
        size = _emit_columns(bb, table, at[2:] * 2)
        steps = relax.const(np.array(_STEPS[convention], "float32").reshape(1, 1, 4))
        boxes = bb.emit(relax.op.add(start, bb.emit(relax.op.multiply(size, steps))))
    if spec.options["box_frame"] == "pixels":
        return boxes
    height, width = spec.input.size_hw
    sides = relax.const(np.array([width, height, width, height], "float32").reshape(1, 1, 4))
    return bb.emit(relax.op.multiply(boxes, sides))


def decode_detections_reference(outputs: Mapping[str, np.ndarray], spec: DetectorSpec) -> Decoded:
    """Does the same in numpy; see :meth:`tvmdet.heads.base.Head.decode_reference`."""
    options, columns = spec.options, list(spec.options["columns"])
    table = np.asarray(_pick(outputs, spec, "box_output"))
    _check_rows(table.shape, spec, _coefficients(outputs, spec))
    batch, rows = _rows(table.shape)
    named = dict(
        zip(columns, np.moveaxis(table.reshape(batch, rows, -1), 2, 0)[: len(columns)], strict=True)
    )

    def of_row(column: str) -> np.ndarray:
        if column in named:
            return np.asarray(named[column])
        return np.asarray(_pick(outputs, spec, f"{column}_output")).reshape(batch, rows)

    boxes = boxes_reference(table.reshape(batch, rows, -1), spec)
    scores = of_row("score").astype(np.float32)
    if options["count_output"]:
        counts = np.asarray(_pick(outputs, spec, "count_output")).reshape(batch)
        scores = scores.copy()
        for image, count in enumerate(counts):
            scores[image, max(int(count), 0) :] = 0
    table_of_scores = np.zeros((batch, rows, len(spec.labels)), np.float32)
    if "class" in named or options["class_output"]:
        indexes = of_row("class").astype(np.float64) - options["label_offset"]
    else:
        indexes = np.zeros((batch, rows))
    real = (indexes >= 0) & (indexes < len(spec.labels)) & (indexes == np.floor(indexes))
    images, places = np.nonzero(real)
    table_of_scores[images, places, indexes[real].astype(int)] = scores[real]
    masks = None
    if spec.masks is not None and options.get("prototype_output"):
        end = table.shape[-1] - keypoint_columns(spec)
        values = table.reshape(batch, rows, -1)[..., len(columns) : end]
        prototypes = np.asarray(_pick(outputs, spec, "prototype_output"), np.float32)
        masks = MaskValues(values=values.astype(np.float32), prototypes=prototypes)
    elif spec.masks is not None:
        values = np.asarray(_pick(outputs, spec, "mask_output"), np.float32)
        masks = MaskValues(values=values.reshape(batch, rows, *values.shape[-2:]))
    points = reference_points(outputs, spec)
    if points is None:
        points = reference_row_keypoints(table.reshape(batch, rows, -1), spec)
    angles = of_row("angle").astype(np.float32) if spec.oriented else None
    return Decoded(
        boxes=boxes, scores=table_of_scores, masks=masks, keypoints=points, angles=angles
    )


def boxes_reference(table: np.ndarray, spec: DetectorSpec) -> np.ndarray:
    """Does in numpy what :func:`emit_boxes` does."""
    columns = spec.options["columns"]
    named = dict(zip(columns, np.moveaxis(table, 2, 0)[: len(columns)], strict=True))
    left, top = named.get("x1"), named.get("y1")
    if left is None or top is None:
        left, top = named["cx"] - named["w"] / 2, named["cy"] - named["h"] / 2
    right = named["x2"] if "x2" in named else left + named["w"]
    bottom = named["y2"] if "y2" in named else top + named["h"]
    boxes = np.stack([left, top, right, bottom], axis=-1).astype(np.float32)
    if spec.options["box_frame"] == "normalized":
        boxes *= np.array([*spec.input.size_hw[::-1]] * 2, np.float32)
    return boxes


def _class_numbers(spec: DetectorSpec) -> np.ndarray:
    first = int(spec.options["label_offset"])
    return np.arange(first, first + len(spec.labels), dtype=np.float32)


def convention_of(columns: Any) -> str | None:
    """Returns which four columns the boxes are, or None when they are none."""
    for name, wanted in BOX_COLUMNS.items():
        if all(list(columns).count(column) == 1 for column in wanted):
            return name
    return None


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns batch and rows; a table without a batch dimension is of one image."""
    return (1, shape[0]) if len(shape) == 2 else (shape[0], shape[1])


def _coefficients(outputs: Mapping[str, Any], spec: DetectorSpec) -> int:
    """Returns how many columns follow those that have names: one for each prototype of masks."""
    if not spec.options.get("prototype_output"):
        return 0
    shape = _pick(outputs, spec, "prototype_output").shape
    if len(shape) != 4:
        raise ShapeError(
            f"the spec's options.prototype_output is {spec.options['prototype_output']!r}, of "
            f"{len(shape)} dimensions; prototypes of masks are [N, P, height, width]"
        )
    return int(shape[1])


def _check_rows(shape: tuple[int | None, ...], spec: DetectorSpec, coefficients: int = 0) -> None:
    columns = spec.options["columns"]
    points = keypoint_columns(spec)
    width = len(columns) + coefficients + points
    if len(shape) not in (2, 3) or shape[-1] != width:
        also = f" and {coefficients} coefficients of masks" if coefficients else ""
        also += f" and {points} numbers of keypoints" if points else ""
        raise ShapeError(
            f"{spec.options['box_output']} is {list(shape)}; the spec's options.columns "
            f"({' '.join(columns)}){also} need [N, rows, {width}] or [rows, {width}]"
        )


def _pick(outputs: Mapping[str, Any], spec: DetectorSpec, key: str) -> Any:
    name = spec.options[key]
    if name not in outputs:
        raise ShapeError(
            f"the spec's options.{key} is {name!r}; the network's outputs: {', '.join(outputs)}"
        )
    return outputs[name]
