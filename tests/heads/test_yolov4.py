"""YOLOv4 of pytorch-YOLOv4: boxes in shares of the image, and confidences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yolo_models
from yolo_cases import (
    RAW,
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

from tvmdet.errors import InputError, ShapeError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, get_head

HEAD = get_head("yolov4")
PLAIN = {"boxes": (1, 378, 1, 4), "confs": (1, 378, 3)}


@pytest.mark.parametrize("anchors", [378, 90])  # 90: strides 16 and 32, YOLOv4-tiny
def test_decodes(anchors: int) -> None:
    got = summary({"boxes": (1, anchors, 1, 4), "confs": (1, anchors, 3)})
    found = HEAD.recognise(got, SIZE)
    assert found is not None
    assert found.spec.input.resize == "stretch"
    assert found.spec.postprocess.iou_threshold == 0.6
    assert_decodes(found.spec, random_outputs(got, batch=2))


def test_decodes_a_known_box() -> None:
    found = HEAD.recognise(summary(PLAIN), SIZE)
    assert found is not None
    outputs = {name: np.zeros(shape, np.float32) for name, shape in PLAIN.items()}
    outputs["boxes"][0, 7, 0] = [0.25, 0.5, 0.75, 1.0]
    outputs["confs"][0, 7] = [0.5, 0.0, 1.0]
    boxes, scores = decode(found.spec, outputs)
    assert boxes[0, 7].tolist() == [24, 32, 72, 64]
    assert scores[0, 7].tolist() == [0.5, 0, 1]


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        (summary({"boxes": (1, 378, 1, 4)}), "1 outputs; this family has two"),
        (summary({"a": (1, 378, 4), "b": (1, 378, 3)}), "not boxes"),
        (summary({"a": (1, 378, 2, 4), "b": (1, 378, 3)}), "this family's are"),
        (summary({"a": (1, 300, 1, 4), "b": (1, 300, 3)}), "300 boxes; three anchors a cell"),
        (summary(PLAIN, {("confs", 2): columns((3, RAW))}), "no scores"),
        (summary(PLAIN, names="['a']"), "name 1 classes"),
    ],
)
def test_refuses(got: GraphSummary, reason: str) -> None:
    answer = HEAD.examine(got, SIZE, {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": "x"}, "options.boxes is 'x'; allowed: boxes, confs"),
        ({"strides": [8]}, "unknown options.strides; family yolov4 has: boxes, scores"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recognise(summary(PLAIN), SIZE, {"family": "yolov4", "options": options})


def test_wrong_outputs_are_refused() -> None:
    found = HEAD.recognise(summary(PLAIN), SIZE)
    assert found is not None
    with pytest.raises(ShapeError, match="the network's outputs: other"):
        decode(found.spec, {"other": np.zeros((1, 378, 1, 4), np.float32)})
    wrong = {"boxes": np.zeros((1, 378, 1, 4), np.float32), "confs": np.zeros((1, 378, 9), "f4")}
    with pytest.raises(ShapeError, match="correct the spec's labels"):
        decode(found.spec, wrong)


def test_the_network_is_recognised(tmp_path: Path) -> None:
    assert import_model(yolo_models.yolov4(), tmp_path).spec.family == "yolov4"


@slow
def test_end_to_end(tmp_path: Path) -> None:
    compile_and_detect(yolo_models.yolov4(), tmp_path)
