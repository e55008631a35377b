"""Finished detections whose outputs nothing names: roles by types, bounds and a picture."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from detections_samples import TOLD, claimed
from head_tools import ANY, UNIT, number_range, summary_of

from tvmdet.heads import GraphSummary, Recognition, get_head
from tvmdet.heads.base import Normalisation, Question, Range

NO_ROLES = "no output is one row of columns for each detection"
COUNTED = ("Cast", "ReduceSum", "Cast", "Greater(1)")
IN_ORDER = {"options": {"columns": ["y1", "x1", "y2", "x2"], "box_frame": "normalized"}}


def unnamed(
    *more: str,
    number: Range | None = None,
    trace: tuple[str, ...] = (),
    ranges: Mapping[str, Range] | None = None,
    dtype: str = "int32",
    classes: str = "float32",
    **sample: Any,
) -> GraphSummary:
    """tf2onnx of tf.image.combined_non_max_suppression: Identity, Identity_1, ..."""
    known = {"i": UNIT, "i1": UNIT, "i2": number_range(3), **(ranges or {})}
    if number is not None:
        known["i3"] = number
    values = {name: np.asarray(value, np.float32) for name, value in sample.items()}
    return summary_of(
        {"i": (1, 7, 4), "i1": (1, 7), "i2": (1, 7), "i3": (1,), **dict.fromkeys(more, (1, 7))},
        dtypes={"i2": classes, "i3": dtype},
        operators={"NonMaxSuppression": 1},
        output_ranges={name: (one,) for name, one in known.items()},
        output_traces={"i3": trace},
        sample=(lambda: values) if values else None,
    )


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("trace", [COUNTED, ("Min", "Add*")], ids=["of marks", "of other sums"])
def test_class_numbers_without_names_may_be_floats(dtype: str, trace: tuple[str, ...]) -> None:
    summary = unnamed(number=number_range(7), trace=trace, dtype=dtype)
    spec = claimed(summary, {**TOLD, **IN_ORDER})
    assert (spec.options["score_output"], spec.options["class_output"]) == ("i1", "i2")
    assert spec.options["count_output"] == "i3"


@pytest.mark.parametrize(
    ("number", "dtype", "value"),
    [
        (Range(low=3, high=3, whole=True), "int32", 3),  # a constant
        (Range(low=7, high=7, whole=True), "int32", 7),
        (number_range(0), "int32", 0),  # the number of a picture
        (number_range(3), "int32", 3),  # of a scene
        (None, "int32", 8),
        (None, "int32", -1),
        (None, "float32", 7),
        (None, "float32", 0),
        (None, "float32", 2.5),
    ],
)
def test_a_number_that_cannot_be_a_count_is_left(
    number: Range | None, dtype: str, value: float
) -> None:
    summary = unnamed(number=number, trace=COUNTED, dtype=dtype, i3=[value])
    assert claimed(summary, {**TOLD, **IN_ORDER}).options["count_output"] == ""


@pytest.mark.parametrize("sample", [{}, {"i3": [0]}, {"i3": [3]}, {"i3": [7]}])
@pytest.mark.parametrize("number", [None, number_range(7)], ids=["unbounded", "an index"])
def test_a_number_that_may_be_a_count_is_asked_about(
    number: Range | None, sample: dict[str, list[int]]
) -> None:
    summary = unnamed(number=number, trace=("ArgMax",), **sample)
    answer = get_head("detections").examine(summary, (64, 96), {**TOLD, **IN_ORDER})
    assert isinstance(answer, Question)
    assert "i3 is a single number, which may be how many of the 7 rows count" in answer
    told = tomllib.loads(answer.spec_text)["options"]
    for count in (told["count_output"], ""):
        options = {**IN_ORDER["options"], "count_output": count}
        assert claimed(summary, {**TOLD, "options": options}).options["count_output"] == count


@pytest.mark.parametrize("high", [0, 1])
def test_marks_and_numbers_of_pictures_are_no_class_numbers(high: int) -> None:
    marks = {"i2": number_range(high)}
    examine = get_head("detections").examine
    beside = unnamed("i4", number=number_range(0), ranges=marks)  # i4 has the class numbers
    for labels in (["a", "b"], ["a", "b", "c"]):
        assert examine(beside, (64, 96), {**TOLD, **IN_ORDER, "labels": labels}) == NO_ROLES
    alone = unnamed(number=number_range(0), ranges=marks)
    assert examine(alone, (64, 96), {**TOLD, **IN_ORDER}) == NO_ROLES
    labels = ["a", "b"][: high + 1]
    spec = claimed(alone, {**TOLD, **IN_ORDER, "labels": labels})
    assert spec.options["class_output"] == "i2"


def test_class_numbers_are_not_told_beside_other_floats_of_each_row() -> None:
    summary = unnamed("i4", number=number_range(0))
    found = get_head("detections").examine(summary, (64, 96), {**TOLD, **IN_ORDER})
    assert found == NO_ROLES


@pytest.mark.parametrize(
    ("values", "are_scores"),
    [
        ([0.9, 0.2, 0.0, 0.0, -1.0, -1.0, -1.0], True),
        ([-0.5] * 7, False),
        ([0.9, 0.2, -0.1, 0.0, -1.0, -1.0, -1.0], False),
        (None, False),
    ],
)
def test_bounds_from_minus_one_prove_no_scores(
    values: list[float] | None, are_scores: bool
) -> None:
    bounds = {"i1": Range(low=-1.0, high=1.0)}
    sample = {} if values is None else {"i1": [values], "i3": [3]}
    summary = unnamed(number=number_range(0), ranges=bounds, **sample)
    found = get_head("detections").examine(summary, (64, 96), {**TOLD, **IN_ORDER})
    assert isinstance(found, Recognition) == are_scores
    assert are_scores or found == NO_ROLES


@pytest.mark.parametrize("classes", ["float32", "int32"])
def test_a_cosine_beside_logits_is_no_score(classes: str) -> None:
    bounds = {"i1": ANY, "i4": Range(low=-1.0, high=1.0)}
    for cosine in (-0.5, 0.5):
        values = {"i1": [[3.0] * 7], "i4": [[cosine] * 7], "i3": [3]}
        summary = unnamed("i4", number=number_range(0), ranges=bounds, classes=classes, **values)
        found = get_head("detections").examine(summary, (64, 96), {**TOLD, **IN_ORDER})
        assert found == NO_ROLES


def test_two_floats_that_may_be_scores_are_no_score_and_class_number() -> None:
    summary = summary_of(
        {"i": (1, 7, 4), "i1": (1, 7), "i2": (1, 7)},
        operators={"NonMaxSuppression": 1},
        output_ranges={"i": (UNIT,), "i1": (UNIT,), "i2": (UNIT,)},
    )
    found = get_head("detections").examine(summary, (64, 96), TOLD)
    assert found == NO_ROLES


def test_outputs_without_names_are_told_by_type() -> None:
    summary = summary_of(
        {"5": (7, 4), "6": (7,), "7": (7,), "8": (7, 1, 28, 28), "9": (2,)},
        dtypes={"7": "int64", "9": "int64"},
        operators={"NonMaxSuppression": 2, "RoiAlign": 5},
        normalisation=Normalisation(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0)),
        output_ranges={"6": (UNIT,), "7": (number_range(2),)},
    )
    spec = claimed(summary)
    assert (spec.options["score_output"], spec.options["class_output"]) == ("6", "7")
    assert (spec.input.color, spec.input.std) == ("bgr", (1, 1, 1))
    assert spec.masks is not None
    assert spec.masks.frame == "box"


@pytest.mark.parametrize(
    ("values", "are_scores"),
    [([0.9, 0.2, 0.0], True), ([0.9, 1.2, 0.0], False), ([0.0] * 3, False), ([], False)],
)
def test_scores_without_a_proof_are_told_by_what_a_picture_gives(
    values: list[float], are_scores: bool
) -> None:
    summary = summary_of(
        {"5": (3, 4), "6": (3,), "7": (3,)},
        dtypes={"7": "int64"},
        operators={"NonMaxSuppression": 2, "RoiAlign": 5},
        normalisation=Normalisation(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0)),
        output_ranges={"7": (number_range(2),)},
        sample=lambda: {"6": np.asarray(values, np.float32)},
    )
    if are_scores:
        assert claimed(summary).options["score_output"] == "6"
        return
    assert isinstance(get_head("detections").examine(summary, (64, 96), {}), str)
