"""YOLOv6 is told from YOLOX by its objectness, a constant."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yolo_models
from yolo_cases import (
    PIXELS,
    RAW,
    SCORES,
    SIZE,
    assert_decodes,
    columns,
    compile_and_detect,
    decode,
    import_model,
    random_outputs,
    slow,
    summary,
)

from tvmdet.errors import ModelError
from tvmdet.heads import ColumnRun, GraphSummary, Recognition, get_head

HEAD = get_head("yolov6")
PLAIN = {"o": (1, 126, 8)}
ONE = ColumnRun(start=0, stop=0, low=1.0, high=1.0)
RUNS = {("o", 2): columns((4, PIXELS), (1, ONE), (3, SCORES))}


def test_decodes() -> None:
    found = HEAD.recognise(summary(PLAIN, RUNS), SIZE)
    assert found is not None
    assert found.spec.postprocess.score_threshold == 0.4
    assert_decodes(found.spec, random_outputs(summary(PLAIN), batch=2))


def test_decodes_a_known_box() -> None:
    found = HEAD.recognise(summary(PLAIN, RUNS), SIZE)
    assert found is not None
    output = np.zeros((1, 126, 8), np.float32)
    output[0, 5] = [40, 20, 16, 8, 1.0, 0.25, 0.5, 0.75]
    output[0, 6] = [40, 20, -16, 8, 1.0, 0.25, 0.5, 0.75]
    assert found.spec.input.scale == "unrounded"  # Inferer.rescale in yolov6/core/inferer.py
    boxes, scores = decode(found.spec, {"o": output})
    assert boxes[0, 5].tolist() == [32, 16, 48, 24]
    assert scores[0, 5].tolist() == [0.25, 0.5, 0.75]
    assert boxes[0, 6].tolist() == [40, 16, 40, 24]  # no wider than nothing


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        (summary({"o": (1, 378, 8)}), "three anchors a cell"),
        (summary(PLAIN), "value 4 of each row of o is not known to be a constant 1"),
        (
            summary(PLAIN, {("o", 2): columns((4, PIXELS), (4, SCORES))}),
            "value 4 of each row of o is not a constant 1",
        ),
        (
            summary(PLAIN, {("o", 2): columns((4, RAW), (1, ONE), (3, SCORES))}),
            "straight from a Conv",
        ),
        (
            summary(PLAIN, {("o", 2): columns((4, PIXELS), (1, ONE), (3, RAW))}),
            "values 5 to 7 .* no scores",
        ),
        (summary(PLAIN, RUNS, names="['a']"), "name 1 classes"),
    ],
)
def test_refuses(got: GraphSummary, reason: str) -> None:
    answer = HEAD.examine(got, SIZE, {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


def test_the_spec_settles_version_0_1() -> None:
    answer = HEAD.examine(summary(PLAIN), SIZE, {"family": "yolov6"})
    assert isinstance(answer, Recognition)


def test_the_network_is_recognised_by_its_ones(tmp_path: Path) -> None:
    assert import_model(yolo_models.yolov6(), tmp_path).spec.family == "yolov6"
    with pytest.raises(ModelError, match="not a constant 1"):
        import_model(yolo_models.yolov6(objectness=0.5), tmp_path)


@slow
def test_end_to_end(tmp_path: Path) -> None:
    compile_and_detect(yolo_models.yolov6(), tmp_path)
