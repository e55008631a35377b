"""Which outputs of a network are finished detections, and what their columns mean.

Roles are told by the names that exporters give (torchvision, MMDeploy, TensorRT's plugins, the
TensorFlow Object Detection API, RT-DETR's and Detectron2's authors), by element types, and by what
the graph proves about each column (:mod:`tvmdet.frontend.value_ranges`): class numbers are whole,
scores lie between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvmdet.errors import InputError
from tvmdet.heads.base import ANYTHING, GraphSummary, Question, Range, TensorSummary
from tvmdet.heads.cell_rows import CENTER_SIZE, CORNER_SIZE, CORNERS
from tvmdet.heads.chosen_rows import chooses_rows
from tvmdet.heads.labels import labels_from_metadata
from tvmdet.heads.names import (
    SELECTED_BOXES,
    SELECTED_CLASSES,
    SELECTED_SCORES,
    plain_name,
)
from tvmdet.heads.options import choice
from tvmdet.heads.paddledetection import is_paddledetection
from tvmdet.heads.pose_outputs import find_points, flat_pose_points
from tvmdet.heads.ultralytics import is_ultralytics, read_ultralytics
from tvmdet.heads.unnamed_outputs import (
    by_type,
    count_question,
    has_rows,
    is_float,
    whole_range,
)

__all__ = [
    "BOX_COLUMNS",
    "DetectionOutputs",
    "class_range",
    "find_detection_outputs",
    "finished_rows",
]

_ROLES = {
    "boxes": (
        "boxes",
        "bboxes",
        "dets",
        "det_boxes",
        "detection_boxes",
        "nmsed_boxes",
        "pred_boxes",
        "post_nms_boxes",
        SELECTED_BOXES,
    ),
    "scores": (
        "scores",
        "det_scores",
        "detection_scores",
        "nmsed_scores",
        "pred_scores",
        "score",
        "post_nms_scores",
        SELECTED_SCORES,
    ),
    "classes": (
        "labels",
        "classes",
        "det_classes",
        "detection_classes",
        "nmsed_classes",
        "pred_classes",
        "class_ids",
        SELECTED_CLASSES,
    ),
    "count": (
        "num_dets",
        "num_detections",
        "num_boxes",
        "num_predictions",
        "bbox_num",
        "valid_detections",
    ),
    "masks": ("masks", "det_masks", "detection_masks", "pred_masks"),
}

# The four columns of a box, in the order of each convention.
BOX_COLUMNS = {
    "corners": CORNERS,
    "corner_size": CORNER_SIZE,
    "center_size": CENTER_SIZE,
}
_CORNERS = BOX_COLUMNS["corners"]
_PADDLE = ("class", "score", *_CORNERS)
_ORIENTED = (*BOX_COLUMNS["center_size"], "score", "class", "angle")
_PATTERNS: dict[int, tuple[tuple[tuple[str, ...], str], ...]] = {
    6: (
        ((*_CORNERS, "score", "class"), "as YOLOv10 and Ultralytics' exports with nms=True"),
        (_PADDLE, "as PaddleDetection's exports"),
    ),
    7: (
        (("batch", *_CORNERS, "class", "score"), "as YOLOv7's exports with NMS"),
        (("batch", *_CORNERS, "score", "class"), "as YOLO-NAS's flat exports"),
    ),
}

# Rows of a table that may be finished detections; more are the anchors of a pyramid.
_MOST_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class DetectionOutputs:
    """Outputs that hold one row for each detection.

    Attributes:
        boxes: Name of the output whose last dimension has the columns.
        columns: What they are; empty where it is not known.
        scores: Name of the scores, or the empty string where a column has them.
        classes: Name of the class numbers, likewise.
        count: Name of the number of rows that count, or the empty string.
        masks: Name of one mask for each row, or the empty string.
        prototypes: Name of the pictures that an image's masks are mixed from, or the empty string;
            further columns of the boxes are the coefficients.
        rows: Rows of an image.
        of_cells: Whether there is a row for every cell, so that nothing was suppressed.
        are_cells_shown: Whether a picture shows it.
        cell_frame: The columns that it shows, and their unit; None where it shows none, or the spec
            says them.
        why: A line for people.
    """

    boxes: str
    columns: tuple[str, ...]
    scores: str = ""
    classes: str = ""
    count: str = ""
    masks: str = ""
    prototypes: str = ""
    rows: int
    of_cells: bool = False
    are_cells_shown: bool = False
    cell_frame: tuple[tuple[str, ...], str] | None = None
    why: str


def find_detection_outputs(
    summary: GraphSummary,
    options: Mapping[str, Any],
    keypoint_columns: int = 0,
    *,
    oriented: bool = False,
    labels: Sequence[str] = (),
) -> DetectionOutputs | str:
    """Finds the outputs: those that the options name, else those that can be told.

    Args:
        summary: The network.
        options: Of the user's spec.
        keypoint_columns: How many numbers of keypoints end each row.
        oriented: Whether boxes are said to be oriented.
        labels: Of the user's spec.

    Returns:
        The outputs, or one sentence that says what is missing.

    Raises:
        InputError: An option names no output.
    """
    outputs = summary.exported_outputs
    names = tuple(summary.outputs)
    classes = len(labels or labels_from_metadata(summary.metadata)[0] or ())
    unnamed = by_type(summary, outputs, classes)
    roles = {**unnamed, **_by_name(outputs)}
    for role in _ROLES:
        key = {"boxes": "box_output", "classes": "class_output"}.get(
            role, f"{role.rstrip('s')}_output"
        )
        told = choice(options, key, ("", *names))
        if told is not None:
            roles[role] = told
    boxes = roles.get("boxes", "")
    prototypes = choice(options, "prototype_output", ("", *outputs))
    joined, mixed_from = _joined(outputs, keypoint_columns)
    boxes = boxes or joined
    if prototypes is None:
        prototypes = mixed_from if boxes == joined else ""
    if prototypes and len(outputs[prototypes].shape) != 4:
        raise InputError(
            f"the spec's options.prototype_output is {prototypes}, {outputs[prototypes]}; "
            "prototypes of masks are [N, P, height, width]"
        )
    if boxes not in outputs:
        return "no output is one row of columns for each detection"
    columns = tuple(options.get("columns", ()))
    rows = outputs[boxes].shape[-2] if len(outputs[boxes].shape) > 1 else None
    width = outputs[boxes].shape[-1]
    if rows is None or width is None or len(outputs[boxes].shape) > 3:
        return f"{boxes} is {outputs[boxes]}; detections are [N, rows, columns] or [rows, columns]"
    if unnamed and "count" not in roles:
        question = count_question(summary, outputs, int(rows))
        if question is not None:
            return question
    of_rows = {
        role: name
        for role, name in roles.items()
        if role in ("scores", "classes") and name and has_rows(outputs[name], rows)
    }
    if not columns:
        coefficients = int(outputs[prototypes].shape[1] or 0) if prototypes else 0
        left = int(width) - coefficients - keypoint_columns
        apart = find_points(summary, options) is not None
        decided = _columns(summary, boxes, left, of_rows, has_points=apart, oriented=oriented)
        if isinstance(decided, str):
            return decided
        columns, why = decided
    else:
        why = f"{boxes} has the columns {' '.join(columns)}, from the spec"
    return DetectionOutputs(
        boxes=boxes,
        columns=columns,
        scores="" if "score" in columns else of_rows.get("scores", ""),
        classes="" if "class" in columns else of_rows.get("classes", ""),
        count=roles.get("count", ""),
        masks=_masks(outputs, roles.get("masks", ""), int(rows)),
        prototypes=prototypes or "",
        rows=int(rows),
        why=why,
    )


def finished_rows(summary: GraphSummary) -> list[str]:
    """Returns the outputs of few rows whose columns could hold a box, a score and a class."""
    return [
        name
        for name, value in summary.exported_outputs.items()
        if is_float(value)
        and len(value.shape) in (2, 3)
        and value.shape[-1] in _PATTERNS
        and 0 < (value.shape[-2] or 0) <= _MOST_ROWS
    ]


def _by_name(outputs: Mapping[str, TensorSummary]) -> dict[str, str]:
    found: dict[str, str] = {}
    for role, known in _ROLES.items():
        matches = [name for wanted in known for name in outputs if plain_name(name) == wanted]
        if matches:
            found[role] = matches[0]
    return found


def _joined(outputs: Mapping[str, TensorSummary], keypoint_columns: int) -> tuple[str, str]:
    """Returns the only output whose columns could hold boxes, scores and classes, and prototypes.

    Ultralytics' segmentation models with the suppression inside have ``[N, K, 6 + P]`` and
    prototypes ``[N, P, h, w]``, their pose models the points' numbers after the six.
    """
    floats = {name: value.shape for name, value in outputs.items() if is_float(value)}
    fits = [
        name
        for name, shape in floats.items()
        if shape[-1:] in ((6 + keypoint_columns,), (7 + keypoint_columns,))
    ]
    if len(fits) == 1 and len(floats) == 1:
        return fits[0], ""
    tables = [name for name, shape in floats.items() if len(shape) == 3]
    maps = [name for name, shape in floats.items() if len(shape) == 4]
    if len(floats) == 2 and len(tables) == len(maps) == 1:
        width, coefficients = floats[tables[0]][-1], floats[maps[0]][1]
        rows = floats[tables[0]][1] or 0
        if coefficients and width == 6 + coefficients and rows <= _MOST_ROWS:
            return tables[0], maps[0]
    return "", ""


def _columns(
    summary: GraphSummary,
    boxes: str,
    width: int,
    of_rows: Mapping[str, str],
    *,
    has_points: bool,
    oriented: bool,
) -> tuple[tuple[str, ...], str] | str:
    value = summary.outputs[boxes]
    if width == 4 and len(of_rows) == 2:
        listed = f"{boxes}, {of_rows['scores']} and {of_rows['classes']}"
        return (), f"{listed}: one box, score and class number a row"
    if width == 4 and "scores" in of_rows and has_points:
        return (), f"{boxes} and {of_rows['scores']}: one box and score a row, of a single class"
    if width == 5 and "classes" in of_rows and plain_name(boxes) == "dets":
        line = f"{boxes} has the columns x1 y1 x2 y2 score, as MMDeploy's exports"
        return (*_CORNERS, "score"), f"{line}; {of_rows['classes']} has the class numbers"
    ranges = _column_ranges(summary, boxes)[:width]
    if flat_pose_points(summary):
        flat = ("batch", *_CORNERS, "score")
        return flat, f"{boxes} has the columns {' '.join(flat)}, as YOLO-NAS's flat poses"
    patterns = _PATTERNS.get(width, ())
    matching = [(columns, why) for columns, why in patterns if _matches(columns, ranges)]
    if not matching and is_paddledetection(summary):
        matching = [(columns, why) for columns, why in patterns if columns == _PADDLE]
    is_chosen = (value.shape[-2] or 0) <= _MOST_ROWS and _says_chosen(summary)
    if width == len(_ORIENTED) and oriented and is_chosen and not matching:
        line = f"{boxes} has the columns {' '.join(_ORIENTED)}"
        return _ORIENTED, f"{line}, as Ultralytics' exports of oriented boxes"
    if len(matching) == 1:
        ((columns, why),) = matching
        return columns, f"{boxes} has the columns {' '.join(columns)}, {why}"
    if width == 6 and is_ultralytics(summary.metadata):
        columns, why = _PATTERNS[6][0]
        return columns, f"{boxes} has the columns {' '.join(columns)}, {why}"
    if width in _PATTERNS:
        reason = (
            f"{boxes} is {value}, which may be detections, but the graph does not prove which "
            "column is what"
        )
        rows = value.shape[-2] or 0
        usual = _ORIENTED if width == len(_ORIENTED) and oriented else _PATTERNS[width][0][0]
        return (
            reason
            if rows > _MOST_ROWS
            else Question(reason, spec_text=_spec_text(summary, usual, ranges))
        )
    return f"{boxes} is {value}, and no scores and class numbers of its rows are among the outputs"


def _column_ranges(summary: GraphSummary, name: str) -> tuple[Range, ...]:
    """Returns what each column of rows can be, by the values' ranges and by the columns' makers."""
    ranges = list(summary.output_ranges.get(name, ()))
    for run in summary.column_runs(name, -1, 0, len(ranges)):
        for at in range(run.start, run.stop):
            one = ranges[at]
            low, high = max(one.low, run.low), min(one.high, run.high)
            ranges[at] = replace(one, low=low, high=high)
    return tuple(ranges)


def _says_chosen(summary: GraphSummary) -> bool:
    """Returns whether rows are chosen inside; else they may be a raw table of every cell."""
    said = read_ultralytics(summary.metadata)
    return chooses_rows(summary) or said.end2end or said.nms


def _spec_text(summary: GraphSummary, usual: tuple[str, ...], ranges: tuple[Range, ...]) -> str:
    named = labels_from_metadata(summary.metadata)[0] is not None
    labels = "" if named else 'labels = ["first class", "second class"]\n'
    # Four sides and a score that cannot be more: what the graph proves is not contradicted.
    unit = sum(not one.whole and one.low >= -1 and one.high <= 2 for one in ranges) > 4
    frame = "normalized" if unit else "pixels"
    meaning = 'from 0 to 1; or "pixels": of the network\'s input'
    if not unit:
        meaning = 'of the network\'s input; or "normalized": from 0 to 1'
    columns = ", ".join(f'"{name}"' for name in usual)
    return (
        f'family = "detections"\n{labels}'
        f"[options]\ncolumns = [{columns}]    # or another order\n"
        f'box_frame = "{frame}"    # {meaning}\n'
        "[input]    # what the network was trained with\n"
        "mean = [0.0, 0.0, 0.0]\nstd = [255.0, 255.0, 255.0]"
    )


def _matches(columns: Iterable[str], ranges: tuple[Range, ...]) -> bool:
    """Returns whether the graph proves what the scores and class numbers are."""
    names = tuple(columns)
    if len(ranges) != len(names):
        return False
    found = dict(zip(names, ranges, strict=True))
    score, number = found["score"], found["class"]
    batch = found.get("batch", Range(low=0, high=0, whole=True))
    proven = score.is_unit and not score.whole and number.whole and number.low >= 0
    return proven and batch.whole and batch.low >= 0


def _masks(outputs: Mapping[str, TensorSummary], name: str, rows: int) -> str:
    """Returns the output of masks when it has one for each row."""
    shape = outputs[name].shape if name in outputs else ()
    fits = len(shape) in (3, 4) and rows in shape[:-2]
    return name if fits else ""


def class_range(summary: GraphSummary, found: DetectionOutputs) -> Range:
    """Returns what class numbers there can be, as far as the graph proves it."""
    if found.classes:
        return whole_range(summary, found.classes)
    if found.columns == () or flat_pose_points(summary):
        return Range(low=0, high=0, whole=True)  # of a single class
    ranges = summary.output_ranges.get(found.boxes, ())
    if "class" not in found.columns or len(ranges) < len(found.columns):
        return ANYTHING
    return ranges[found.columns.index("class")]
