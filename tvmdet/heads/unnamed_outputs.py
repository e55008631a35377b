"""What outputs of finished detections are that nothing names: by types, bounds and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tvmdet.heads.base import ANYTHING, GraphSummary, Question, Range, TensorSummary

__all__ = ["by_type", "count_question", "has_rows", "is_float", "whole_range"]

# What may be done to a sum of marks before it is returned as a count.
_AFTER_A_SUM = ("Cast", "Clip", "Concat", "Min")


def by_type(
    summary: GraphSummary, outputs: Mapping[str, TensorSummary], labels: int
) -> dict[str, str]:
    """Returns the roles of unnamed outputs: boxes, whole class numbers, scores, masks, a count.

    Args:
        summary: The network.
        outputs: Of the export.
        labels: How many are known; 0 where none are.
    """
    boxes = [n for n, v in outputs.items() if is_float(v) and v.shape[-1:] == (4,)]
    if len(boxes) != 1 or len(outputs[boxes[0]].shape) < 2:
        return {}
    rows = outputs[boxes[0]].shape[-2]
    of_rows = [name for name, value in outputs.items() if has_rows(value, rows)]
    integers = [name for name in of_rows if not is_float(outputs[name])]
    classes = integers or [n for n in of_rows if _is_class_number(whole_range(summary, n), labels)]
    scores = [name for name in of_rows if name not in classes and _is_score(summary, name)]
    if len(classes) != 1 or len(scores) != 1:
        return {}
    # What else there is of each row may be what the two were taken for.
    is_alone = set(of_rows) <= {*classes, *scores, *integers}
    if not is_alone and not (integers and whole_range(summary, scores[0]).is_unit):
        return {}
    found = {"boxes": boxes[0], "classes": classes[0], "scores": scores[0]}
    masks = [n for n, v in outputs.items() if len(v.shape) == 4 and v.shape[:2] == (rows, 1)]
    counts = [name for name in outputs if _is_count(summary, name, rows or 0)]
    others = {"masks": masks, "count": counts}
    return {**found, **{role: names[0] for role, names in others.items() if len(names) == 1}}


def _is_class_number(values: Range, labels: int) -> bool:
    """Returns whether floats are numbers of classes, and not marks or the numbers of pictures.

    Those are whole as well, from 0 to 0 or 1, as the numbers of one or two classes are.
    """
    return values.whole and (values.high > 1 or 0 < labels <= 2)


def _is_count(summary: GraphSummary, name: str, rows: int) -> bool:
    """Returns whether an output is proven to be how many rows count: a sum of a mark for each.

    A number that happens to be as small may be anything: a constant, the number of a picture. Rows
    past the count need not have a score of 0: ``tf.image.non_max_suppression_padded`` chooses the
    first box of all in every row that it has no box for.
    """
    if rows < 2 or not _is_single(summary.outputs[name]):
        return False
    values = whole_range(summary, name)
    if not values.whole or (values.low, values.high) != (0, rows):
        return False
    steps = (step.partition("(")[0] for step in summary.output_traces.get(name, ()))
    made = next((step for step in steps if step not in _AFTER_A_SUM), "")
    return made in ("ReduceSum", "Add*")


def count_question(
    summary: GraphSummary, outputs: Mapping[str, TensorSummary], rows: int
) -> Question | None:
    """Asks whether a single number beside unnamed rows counts them, where it could.

    Args:
        summary: The network.
        outputs: Of the export.
        rows: Of an image.
    """
    names = [name for name in outputs if _may_count(summary, name, rows)]
    if len(names) != 1:
        return None
    return Question(
        f"{names[0]} is a single number, which may be how many of the {rows} rows count",
        spec_text='family = "detections"\n[options]\n'
        f'count_output = {json.dumps(names[0])}    # or "": all rows count',
    )


def _may_count(summary: GraphSummary, name: str, rows: int) -> bool:
    value, values = summary.outputs[name], whole_range(summary, name)
    if rows < 2 or not _is_single(value) or (is_float(value) and not values.whole):
        return False
    if values.low > 0 or values.high < rows:  # constants and numbers of pictures among them
        return False
    if summary.sample is None:
        return True
    sample = summary.sample()[name]
    return bool((sample >= 0).all() and (sample <= rows).all())


def _is_single(value: TensorSummary) -> bool:
    return all(length == 1 for length in value.shape)


def _is_score(summary: GraphSummary, name: str) -> bool:
    """Returns whether values are from 0 to 1, or -1 as in rows past the last.

    Bounds prove it from 0 on: from -1 to 1 is a cosine, too. Otherwise what a network answers on a
    picture says so, if there is any.
    """
    proven = whole_range(summary, name)
    if proven.is_unit and not proven.whole:
        return True
    if proven.whole or summary.sample is None:
        return False
    values = summary.sample()[name]
    fits = (values >= 0) & (values <= 1)
    if proven.low >= -1 and proven.high <= 1:
        fits |= values == -1
    return bool(values.size and fits.all() and values.any())


def whole_range(summary: GraphSummary, name: str) -> Range:
    """Returns what any value of an output can be, whatever its column."""
    ranges = summary.output_ranges.get(name, (ANYTHING,))
    return Range(
        low=min(one.low for one in ranges),
        high=max(one.high for one in ranges),
        whole=all(one.whole for one in ranges),
    )


def has_rows(value: TensorSummary, rows: int | None) -> bool:
    """Returns whether there is one number a row: [K], [N, K], [N, K, 1]."""
    shape = value.shape[:-1] if value.shape[-1:] == (1,) and len(value.shape) > 1 else value.shape
    return bool(shape) and shape[-1] == rows and len(shape) <= 2


def is_float(value: TensorSummary) -> bool:
    """Returns whether values are floats of any size."""
    return value.dtype.startswith("float")
