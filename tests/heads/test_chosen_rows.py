"""Rows that a suppression has chosen, beside what it chose them of: which outputs count."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
from detections_samples import (
    ULTRALYTICS,
    claimed,
    of_paddle,
)
from head_tools import summary_of

from tvmdet.frontend.recognise import recognise
from tvmdet.heads import TensorSummary, get_head
from tvmdet.heads.base import Question

RAW = {"output": (1, 300, 6), "raw": (1, 84, 2100)}


@pytest.mark.parametrize("operator", ["NonMaxSuppression", "BoundedNonMaxSuppression"])
def test_rows_beside_what_they_were_chosen_of_are_asked_for(operator: str) -> None:
    summary = summary_of(RAW, operators={operator: 1}, metadata=ULTRALYTICS)
    answer = get_head("detections").examine(summary, (64, 96), {})
    assert isinstance(answer, Question)
    assert 'are other outputs beside it ("raw")' in answer
    told = tomllib.loads(answer.spec_text)
    assert told["outputs"] == ["output"]
    # The frontend leaves the others out before the families are asked again.
    kept = summary_of({"output": (1, 300, 6)}, operators={operator: 1}, metadata=ULTRALYTICS)
    assert claimed(kept, told).options["box_output"] == "output"


def test_what_else_is_asked_of_the_rows_is_asked_at_once() -> None:
    summary = summary_of(RAW, operators={"NonMaxSuppression": 1})
    answer = get_head("detections").examine(summary, (64, 96), {})
    assert isinstance(answer, Question)
    told = tomllib.loads(answer.spec_text)
    assert (told["outputs"], told["family"]) == (["output"], "detections")
    kept = summary_of({"output": (1, 300, 6)}, operators={"NonMaxSuppression": 1})
    assert claimed(kept, told).labels == ("first class", "second class")


@pytest.mark.parametrize(
    ("outputs", "operators"),
    [
        (RAW, {}),  # no suppression: nothing was chosen
        ({"output": (1, 1500, 6), "raw": (1, 84, 2100)}, {"NonMaxSuppression": 1}),  # anchors
        ({"a": (1, 300, 6), "b": (1, 300, 6)}, {"NonMaxSuppression": 1}),  # which of both?
    ],
)
def test_other_outputs_are_not_taken_for_chosen_rows(
    outputs: Mapping[str, Any], operators: Mapping[str, int]
) -> None:
    summary = summary_of(outputs, operators=operators)
    answer = get_head("detections").examine(summary, (64, 96), {})
    assert not isinstance(answer, Question)
    assert answer == "no output is one row of columns for each detection"


def test_the_number_of_the_rows_is_no_output_to_choose_from() -> None:
    answer = get_head("detections").examine(of_paddle(constants={"scale_factor": 1}), (64, 96), {})
    assert isinstance(answer, Question)
    assert "say which to keep" not in answer
    assert "how pictures are normalised" in answer
    assert tomllib.loads(answer.spec_text)["input"]["resize"] == "letterbox"
    picture = {"image": TensorSummary(shape=(1, 3, 64, 96), dtype="float32")}
    summary = of_paddle(constants={"scale_factor": 1}, inputs=picture)
    answer = get_head("detections").examine(summary, (64, 96), {})
    assert isinstance(answer, Question)
    assert "infer_cfg.yml" in answer
    table = tomllib.loads(answer.spec_text)
    assert table["input"]["resize"] == "stretch"
    found = recognise(summary, (64, 96), table)
    assert found.spec.input.resize == "stretch"
    assert not any("letterbox" in line for line in found.reasons)
