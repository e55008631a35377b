"""LibreYOLO's metadata: how pictures are fed, never what the outputs hold."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import yolo_models
from yolo_cases import SIZE, import_model, summary_of

from tvmdet.errors import ModelError
from tvmdet.heads import Question, Recognition, TensorSummary, get_head
from tvmdet.heads.base import Normalisation
from tvmdet.heads.libreyolo import libreyolo_input, selects_by_itself

YOLOV9 = {"libreyolo_version": "1.6.0", "model_family": "yolo9", "task": "detect"}
UNIT = ((0.0,) * 3, (255.0,) * 3)


def _corners(**metadata: str) -> onnx.ModelProto:
    return yolo_models.yolov8(corners="of cells", metadata=metadata)


@pytest.mark.parametrize(
    ("metadata", "color", "resize", "pad", "normalised"),
    [
        ({}, "rgb", "letterbox", ("top_left", 114), UNIT),
        ({"letterbox_pad": "topleft"}, "rgb", "letterbox", ("top_left", 114), UNIT),
        ({"letterbox_pad": "center"}, "rgb", "letterbox", ("center", 114), UNIT),
        ({"model_family": "yolo3"}, "rgb", "letterbox", ("top_left", 128), UNIT),
        (
            {"model_family": "rtmdet"},
            "bgr",
            "letterbox",
            ("top_left", 114),
            ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395)),
        ),
        (
            {"model_family": "picodet"},
            "rgb",
            "stretch",
            None,
            ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        ),
    ],
)
def test_pictures_are_fed_as_its_code_does(
    metadata: dict[str, str],
    color: str,
    resize: str,
    pad: tuple[str, int] | None,
    normalised: Any,
    tmp_path: Path,
) -> None:
    spec = import_model(_corners(**{**YOLOV9, **metadata}), tmp_path).spec
    assert spec.family == "decoded"
    values = spec.input
    assert (values.color, values.resize, (values.mean, values.std)) == (color, resize, normalised)
    if pad is not None:
        assert (values.pad_position, values.pad_value) == pad


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"model_family": "yolo9"},  # not LibreYOLO's
        {**YOLOV9, "model_family": "detany3d"},
        {**YOLOV9, "letterbox_pad": "bottom"},
        {**YOLOV9, "model_family": "picodet", "letterbox_pad": "center"},  # it stretches
    ],
)
def test_what_is_not_known_is_asked_for(metadata: dict[str, str], tmp_path: Path) -> None:
    assert libreyolo_input(metadata) is None
    with pytest.raises(ModelError, match="nothing in the graph says how pictures are resized"):
        import_model(_corners(**metadata), tmp_path)


@pytest.mark.parametrize(("family", "iou"), [("yolo9", 0.45), ("yolo9_e2e", 1.0)])
def test_what_is_trained_to_need_no_suppression_gets_none(
    family: str, iou: float, tmp_path: Path
) -> None:
    metadata = {**YOLOV9, "model_family": family}
    assert selects_by_itself(metadata) is (iou == 1.0)
    spec = import_model(_corners(**metadata), tmp_path).spec
    assert spec.postprocess.iou_threshold == iou
    assert not selects_by_itself({"model_family": "yolo9_e2e"}), "LibreYOLO did not write it"


def test_the_users_input_wins(tmp_path: Path) -> None:
    told = {"input": {"resize": "stretch", "mean": [1.0] * 3, "std": [2.0] * 3}}
    values = import_model(_corners(**YOLOV9), tmp_path, told).spec.input
    assert (values.resize, values.mean, values.std) == ("stretch", (1.0,) * 3, (2.0,) * 3)


def test_the_graph_is_believed_before_the_metadata(tmp_path: Path) -> None:
    # The name of a family with centres and sizes does not make corners of them.
    model = yolo_models.yolov8(metadata=YOLOV9)
    assert import_model(model, tmp_path).spec.family == "yolov8"
    # A normalisation inside is asked about, and pictures are not normalised twice.
    inner = Normalisation(mean=(10.0, 20.0, 30.0), std=(2.0, 2.0, 2.0))
    summary = replace(summary_of(_corners(**YOLOV9)), normalisation=inner)
    answer = get_head("decoded").examine(summary, SIZE, {})
    assert isinstance(answer, Question)
    assert re.search("the network normalises its picture itself, by mean 10, 20, 30", answer)


def test_rows_that_are_chosen_beside_raw_ones_are_said_to_be_unused() -> None:
    network = summary_of(_corners(**YOLOV9))
    rows = {"chosen": TensorSummary(shape=(1, 300, 6), dtype="float32")}
    for outputs, said in (({}, False), (rows, True)):
        more = replace(network, outputs={**network.outputs, **outputs})
        found = get_head("decoded").examine(more, SIZE, {})
        assert isinstance(found, Recognition)
        assert any("not used: chosen" in reason for reason in found.reasons) is said
