"""YOLOX: what its boxes are is told by their arithmetic; offsets decode as the export would."""

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
    run_onnx,
    slow,
    sorted_rows,
    summary,
    summary_of,
)

from tvmdet.errors import InputError, ModelError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import ColumnRun, GraphSummary, Question, get_head

HEAD = get_head("yolox")
PLAIN = {"o": (1, 126, 8)}
EXTENT = ColumnRun(start=0, stop=0, operators=frozenset({"Conv", "Exp", "Mul"}), low=0.0)
OFFSETS = {("o", 2): columns((4, RAW), (4, SCORES))}
DECODED = {("o", 2): columns((2, PIXELS), (2, EXTENT), (4, SCORES))}


@pytest.mark.parametrize(("runs", "boxes"), [(OFFSETS, "offsets"), (DECODED, "decoded")])
def test_decodes(runs: dict, boxes: str) -> None:
    found = HEAD.recognise(summary(PLAIN, runs), SIZE)
    assert found is not None
    assert found.spec.options["boxes"] == boxes
    assert found.spec.input.color == "bgr"
    assert found.spec.input.std == (1.0, 1.0, 1.0)
    assert found.spec.input.pad_position == "top_left"
    assert found.spec.input.rounding == "down"  # int() in yolox/data/data_augment.py
    assert found.spec.postprocess.class_agnostic
    assert_decodes(found.spec, random_outputs(summary(PLAIN), batch=2))


def test_decodes_a_known_box() -> None:
    found = HEAD.recognise(summary(PLAIN, OFFSETS), SIZE)
    assert found is not None
    output = np.zeros((1, 126, 8), np.float32)
    # Cell (row 1, column 2) of stride 16, which has 6 columns after 96 cells of stride 8.
    output[0, 96 + 8] = [0.5, 0.25, 0.0, np.log(2), 0.5, 1.0, 0.5, 0.0]
    boxes, scores = decode(found.spec, {"o": output})
    np.testing.assert_allclose(boxes[0, 104], [40 - 8, 20 - 16, 40 + 8, 20 + 16], atol=1e-4)
    assert scores[0, 104].tolist() == [0.5, 0.25, 0.0]


def test_extents_past_any_picture_stay_finite() -> None:
    found = HEAD.recognise(summary(PLAIN, OFFSETS), SIZE)
    assert found is not None
    outputs = {"o": np.full((1, 126, 8), 1000, np.float32)}
    assert np.isfinite(decode(found.spec, outputs)[0]).all()
    assert_decodes(found.spec, outputs)


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        (summary({"o": (1, 378, 8)}), "three anchors a cell, as YOLOv5"),
        (summary(PLAIN), "neither straight from a Conv nor made with Exp"),
        (summary(PLAIN, {("o", 2): columns((4, PIXELS), (4, SCORES))}), "neither straight"),
        (summary(PLAIN, {("o", 2): columns((8, RAW))}), "values 4 to 7 .* no scores"),
        (summary(PLAIN, OFFSETS, task="point"), "it finds points"),
        (summary(PLAIN, OFFSETS, names="['a']"), "name 1 classes"),
        (summary(PLAIN, DECODED, operators={"Relu": 9}), r"YOLOv6 0.1 \(RGB / 255\)"),
    ],
)
def test_refuses(got: GraphSummary, reason: str) -> None:
    answer = HEAD.examine(got, SIZE, {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


def test_the_spec_settles_what_the_graph_leaves_open() -> None:
    asked = HEAD.examine(summary(PLAIN), SIZE, {"family": "yolox"})
    assert isinstance(asked, Question)
    assert "boxes" in asked.spec_text
    given = {"family": "yolox", "options": {"boxes": "offsets"}}
    assert recognise(summary(PLAIN), SIZE, given).spec.options["boxes"] == "offsets"
    with pytest.raises(InputError, match=r"options.boxes is 'raw'; allowed: decoded, offsets"):
        recognise(summary(PLAIN), SIZE, {"family": "yolox", "options": {"boxes": "raw"}})


def test_offsets_mean_what_the_decoded_export_says() -> None:
    rows = []
    for decoded in (False, True):
        model = yolo_models.yolox(decoded=decoded)
        spec = recognise(summary_of(model), SIZE, {}).spec
        assert spec.options["boxes"] == ("decoded" if decoded else "offsets")
        rows.append(sorted_rows(HEAD.decode_reference(run_onnx(model), spec)))
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5, atol=1e-3)


def test_relu_asks_for_a_spec(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='family = "yolox"   # or "yolov6"'):
        import_model(yolo_models.yolox(decoded=True, relu=True), tmp_path)


@slow
def test_end_to_end(tmp_path: Path) -> None:
    compile_and_detect(yolo_models.yolox(), tmp_path)


@slow
def test_decoded_end_to_end(tmp_path: Path) -> None:
    compile_and_detect(yolo_models.yolox(decoded=True), tmp_path)
