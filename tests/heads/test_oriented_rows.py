"""Oriented boxes: rows that end in an angle, told by metadata, by a spec or by their bounds."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import oriented_detector
import pytest
from detections_samples import YOLOV7
from head_tools import summary_of
from yolo_cases import PIXELS, SCORES, assert_decodes, columns, random_outputs, summary

import tvmdet
from tvmdet.errors import InputError, ModelError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import ColumnRun, GraphSummary, Recognition, get_head
from tvmdet.heads.base import Question

ROWS = {"output0": (1, 4 + 2 + 1, 126)}
NAMES = "{0: 'plane', 1: 'ship'}"
ANGLE = ColumnRun(
    start=0,
    stop=0,
    operators=frozenset({"Sigmoid", "Sub", "Mul"}),
    low=-math.pi / 4,
    high=3 * math.pi / 4,
)
FREE = ColumnRun(start=0, stop=0, operators=frozenset({"Conv"}))


def rows(last: ColumnRun = ANGLE, **metadata: str) -> GraphSummary:
    runs = {("output0", 1): columns((4, PIXELS), (2, SCORES), (1, last))}
    return summary(ROWS, runs, names=NAMES, **metadata)


@pytest.mark.parametrize(
    ("network", "given"),
    [
        (rows(task="obb"), {}),
        (rows(FREE, task="obb"), {}),  # YOLO26 has no bounds
        (rows(), {}),
        (rows(FREE), {"oriented": True}),
        (rows(FREE, task="detect"), {"oriented": True}),
    ],
    ids=["metadata", "metadata, raw angle", "bounds", "spec", "spec over metadata"],
)
def test_is_recognised(network: GraphSummary, given: dict[str, Any]) -> None:
    found = recognise(network, (64, 96), given)
    assert (found.family, found.spec.oriented) == ("yolov8", True)
    assert found.spec.labels == ("plane", "ship")
    assert any("the angle of an oriented box" in reason for reason in found.reasons)
    want = assert_decodes(found.spec, random_outputs(network, batch=2))
    assert want.angles.shape == (2, 126)


def test_a_last_value_without_those_bounds_is_no_angle() -> None:
    with pytest.raises(ModelError, match="they are no scores"):
        recognise(rows(FREE), (64, 96), {})


def test_what_is_proven_to_be_a_score_is_no_angle() -> None:
    score = ColumnRun(start=0, stop=0, operators=frozenset({"Sigmoid"}), low=0.0, high=1.0)
    with pytest.raises(ModelError, match="as scores are, and no angle"):
        recognise(rows(score), (64, 96), {"oriented": True})
    with pytest.raises(ModelError, match="as scores are, and no angle"):
        recognise(rows(score, task="obb"), (64, 96), {})


def test_the_spec_says_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="oriented is 'yes'; give true or false"):
        oriented_detector.import_oriented(tmp_path, oriented="yes")


def test_upright_boxes_stay_upright() -> None:
    plain = {("output0", 1): columns((4, PIXELS), (3, SCORES))}
    network = summary(ROWS, plain, names="{0: 'a', 1: 'b', 2: 'c'}")
    assert not recognise(network, (64, 96), {}).spec.oriented


def test_families_without_angles_do_not_take_them() -> None:
    network = summary(
        {"output0": (1, 378, 5 + 3)},
        {("output0", 2): columns((4, PIXELS), (4, SCORES))},
        names="{0: 'a', 1: 'b', 2: 'c'}",
        task="obb",
    )
    with pytest.raises(ModelError, match="this family's have no angles"):
        recognise(network, (64, 96), {})
    with pytest.raises(ModelError, match="this family's have no angles"):
        recognise(network, (64, 96), {"family": "yolov5"})


def test_an_oriented_box_has_neither_masks_nor_keypoints() -> None:
    plain = recognise(rows(task="obb"), (64, 96), {}).spec
    with pytest.raises(InputError, match="oriented and has keypoints"):
        plain.override({"keypoints": {"names": ["bow"]}})
    with pytest.raises(InputError, match="oriented and has masks"):
        plain.override({"masks": {}})


def test_negative_extents_are_the_same_box() -> None:
    found = recognise(rows(task="obb"), (64, 96), {})
    outputs = random_outputs(rows())
    turned = {name: value.copy() for name, value in outputs.items()}
    turned["output0"][:, 2:4] *= -1
    head = get_head("yolov8")
    one, other = (head.decode_reference(each, found.spec) for each in (outputs, turned))
    np.testing.assert_array_equal(one.boxes, other.boxes)
    assert np.all(one.boxes[..., 2:] >= one.boxes[..., :2])


def chosen(**changed: str) -> GraphSummary:
    said = {"author": "Ultralytics", "task": "obb", "end2end": "True", "names": NAMES}
    said = {key: value for key, value in {**said, **changed}.items() if value}
    return summary({"output0": (1, 30, 7)}, operators={"TopK": 1}, **said)


def test_chosen_rows_end_in_the_angle() -> None:
    found = recognise(chosen(), (64, 96), {})
    assert (found.family, found.spec.oriented) == ("detections", True)
    assert found.spec.options["columns"] == ["cx", "cy", "w", "h", "score", "class", "angle"]
    outputs = random_outputs(chosen(), batch=2)
    outputs["output0"][..., 5] = np.arange(30) % 3
    want = assert_decodes(found.spec, outputs)
    np.testing.assert_array_equal(want.angles, outputs["output0"][..., 6])


@pytest.mark.parametrize(
    ("shape", "operators"), [((1, 8400, 7), {"TopK": 1}), ((1, 126, 7), {})], ids=str
)
def test_a_transposed_raw_table_is_no_chosen_rows(
    shape: tuple[int, ...], operators: dict[str, int]
) -> None:
    """YOLOv8-obb of two classes has as many columns; only ``yolov8`` is to claim it."""
    said = {"author": "Ultralytics", "task": "obb", "names": NAMES}
    network = summary({"output0": shape}, operators=operators, **said)
    size = (640, 640) if shape[1] == 8400 else (64, 96)
    assert isinstance(get_head("detections").examine(network, size, {}), str)
    found = recognise(network, size, {})
    assert (found.family, found.spec.oriented) == ("yolov8", True)


def test_columns_that_are_proven_otherwise_have_no_angle() -> None:
    network = summary_of({"output0": (30, 7)}, output_ranges={"output0": YOLOV7})
    told = {"labels": ["plane", "ship"], "oriented": True, "family": "detections"}
    with pytest.raises(ModelError, match="have no angles"):
        recognise(network, (64, 96), told)


def test_the_order_of_rows_that_nothing_chose_is_asked_for_with_the_angle() -> None:
    network = summary({"output0": (1, 30, 7)})
    answer = get_head("detections").examine(network, (64, 96), {"oriented": True})
    assert isinstance(answer, Question)
    assert tomllib.loads(answer.spec_text)["options"]["columns"][-1] == "angle"


def test_chosen_rows_of_another_exporter_are_told_by_their_columns() -> None:
    told = {
        "family": "detections",
        "oriented": True,
        "labels": ["plane", "ship"],
        "options": {
            "columns": ["angle", "cx", "cy", "w", "h", "score", "class"],
            "box_frame": "pixels",
            "label_offset": 0,
        },
        "input": {"mean": [0, 0, 0], "std": [255, 255, 255], "resize": "stretch"},
    }
    network = chosen(author="", task="", end2end="")
    found = recognise(network, (64, 96), told)
    assert isinstance(found, Recognition) and found.spec.oriented
    assert_decodes(found.spec, random_outputs(network))
    options = {**told["options"], "box_frame": "normalized"}  # type: ignore[dict-item]
    with pytest.raises(InputError, match="box_frame 'pixels'"):
        recognise(network, (64, 96), {**told, "options": options})


@pytest.mark.parametrize("metadata", [{}, {"task": ""}])
def test_a_network_is_imported(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = oriented_detector.oriented_network(tmp_path / "oriented.onnx", **metadata)
    model = tvmdet.import_onnx(path)
    assert (model.spec.family, model.spec.oriented) == ("yolov8", True)
