"""Finished detections: rows become boxes and scores of every class."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
from detections_samples import (
    PADDLE,
    SIDES,
    TOLD,
    ULTRALYTICS,
    YOLOV7,
    YOLOV10,
    claimed,
    joined,
    network,
    poses,
    torchvision,
)
from head_tools import assert_decodes_as_reference, decode, summary_of

import tvmdet
from tvmdet.errors import InputError, ModelError, ShapeError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, get_head
from tvmdet.heads.base import ROW_COUNTS
from tvmdet.heads.paddledetection import ARCH
from tvmdet.spec import KeypointSpec


def _random(summary: GraphSummary, batch: int, classes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    made = {}
    for name, value in summary.outputs.items():
        shape = [int(dim or 0) for dim in value.shape]
        if len(shape) != 2 or name in ("labels", "det_classes"):
            shape[0] = batch if shape[0] == 1 else shape[0]
        if value.dtype == "float32":
            made[name] = rng.uniform(0, 1, shape).astype(np.float32)
            if shape[-1] in (6, 7):
                made[name][..., [0, 5]] = rng.integers(0, classes + 2, (*shape[:-1], 2))
        else:
            made[name] = rng.integers(0, classes + 2, shape).astype(value.dtype)
    return made


@pytest.mark.parametrize(
    ("summary", "given", "batch"),
    [
        (torchvision(), {"labels": ["a", "b"]}, 1),
        (joined(YOLOV10, metadata=ULTRALYTICS), {}, 2),
        (poses(), {}, 2),
        (joined(PADDLE, rank=2, metadata={ARCH: "RTDETR"}), TOLD, 1),
        (joined(YOLOV7, rank=2), {}, 1),
        (
            summary_of({"dets": (1, 7, 5), "labels": (1, 7)}, dtypes={"labels": "int64"}),
            {**TOLD, "labels": ["a", "b", "c"]},
            3,
        ),
    ],
)
def test_decodes(summary: GraphSummary, given: Mapping[str, Any], batch: int) -> None:
    spec = claimed(summary, given)
    assert_decodes_as_reference(spec, _random(summary, batch, len(spec.labels)))


MIXED = {"output0": (1, 7, 9), "output1": (1, 3, 16, 24)}


@pytest.mark.parametrize("batch", [1, 2])
def test_masks_are_mixed_from_prototypes(batch: int) -> None:
    # Ultralytics' -seg with nms=True: six columns, then one coefficient for each prototype.
    summary = summary_of(MIXED, metadata={**ULTRALYTICS, "task": "segment"})
    spec = claimed(summary)
    assert spec.options["prototype_output"] == "output1"
    assert spec.masks is not None
    assert (spec.masks.frame, spec.masks.interpolate) == ("image", "logits")
    outputs = _random(summary, batch, 2)
    outputs["output0"][..., 5] = np.arange(7) % 2
    assert_decodes_as_reference(spec, outputs)
    masks = get_head("detections").decode_reference(outputs, spec).masks
    assert masks is not None
    np.testing.assert_array_equal(masks.values, outputs["output0"][..., 6:])


def test_numbers_of_rows_are_no_outputs_of_the_export() -> None:
    shapes = {"a": (1, 7, 6), "a.rows": (1,), "a.rows1": (1,), "b.rows": (1,)}
    counts = json.dumps({"a": {"0": "a.rows", "1": "a.rows1"}})
    summary = dataclasses.replace(summary_of(shapes), metadata={ROW_COUNTS: counts})
    assert list(summary.exported_outputs) == ["a", "b.rows"]
    assert list(summary_of(shapes).exported_outputs) == list(shapes), "the export's own"


def test_prototypes_are_found_also_where_the_rows_are_named() -> None:
    summary = summary_of(MIXED, metadata=ULTRALYTICS)
    given = {"options": {"box_output": "output0"}}
    found = get_head("detections").examine(summary, (64, 96), given)
    assert not isinstance(found, str), found
    assert found.spec.options["prototype_output"] == "output1"
    for name, message in (("output0", "prototypes of masks are"), ("output0.rows", "allowed: ")):
        given = {"options": {"box_output": "output0", "prototype_output": name}}
        with pytest.raises(InputError, match=message):
            get_head("detections").examine(summary, (64, 96), given)


@pytest.mark.parametrize(
    ("outputs", "options", "message"),
    [
        ({**MIXED, "masks": (7, 1, 8, 8)}, {"mask_output": "masks"}, "2 outputs of them"),
        (MIXED, {"prototype_output": ""}, "0 outputs of them"),
        (MIXED, {"prototype_output": "output0"}, "of 3 dimensions; prototypes of masks are"),
        ({**MIXED, "output1": (1, 4, 16, 24)}, {}, "4 coefficients of masks need .N, rows, 10."),
    ],
)
def test_refuses_masks_that_do_not_fit(
    outputs: Mapping[str, Any], options: Mapping[str, Any], message: str
) -> None:
    spec = claimed(summary_of(MIXED, metadata=ULTRALYTICS)).override({"options": options})
    with pytest.raises(InputError, match=message):
        get_head("detections").validate(spec, summary_of(outputs, metadata=ULTRALYTICS))


@pytest.mark.parametrize(
    ("columns", "row", "box"),
    [
        (["x1", "y1", "x2", "y2"], [10, 20, 30, 60], [10, 20, 30, 60]),
        (["y1", "x1", "y2", "x2"], [20, 10, 60, 30], [10, 20, 30, 60]),
        (["cx", "cy", "w", "h"], [20, 40, 20, 40], [10, 20, 30, 60]),
        (["x1", "y1", "w", "h"], [10, 20, 20, 40], [10, 20, 30, 60]),
        (["unused", "h", "w", "cy", "cx"], [9, 40, 20, 40, 20], [10, 20, 30, 60]),
    ],
)
@pytest.mark.parametrize("frame", ["pixels", "normalized"])
def test_decodes_known_boxes(
    columns: list[str], row: list[float], box: list[float], frame: str
) -> None:
    summary = summary_of({"b": (1, 2, len(columns)), "s": (1, 2), "c": (1, 2, 1)})
    options = {
        "box_output": "b",
        "score_output": "s",
        "class_output": "c",
        "columns": columns,
        "box_frame": frame,
        "label_offset": 1,
    }
    given = {"family": "detections", "labels": ["a", "b"], "options": options, **TOLD}
    spec = recognise(summary, (64, 96), given).spec
    scale = np.ones(len(columns), np.float32)
    if frame == "normalized":
        sides = {"x": 96, "w": 96, "y": 64, "h": 64}
        scale = np.array([sides.get(name.replace("c", "")[0], 1) for name in columns], np.float32)
    table = np.zeros((1, 2, len(columns)), np.float32)
    table[0, 1] = np.array(row) / scale
    values = {"b": table, "s": np.array([[0, 0.75]], "f4"), "c": np.array([[[0], [2]]], "f4")}
    boxes, scores = decode(spec, values)
    np.testing.assert_allclose(boxes[0, 1], box, rtol=1e-5)
    assert scores[0].tolist() == [[0, 0], [0, 0.75]]
    assert_decodes_as_reference(spec, values)


def test_rows_past_the_count_are_nothing() -> None:
    summary = summary_of(
        {"num_dets": (1, 1), "det_boxes": (1, 3, 4), "det_scores": (1, 3), "det_classes": (1, 3)},
        dtypes={"num_dets": "int64", "det_classes": "int32"},
    )
    spec = claimed(summary, {**TOLD, "labels": ["a", "b"]})
    values = {
        "num_dets": np.array([[2], [0]]),
        "det_boxes": np.ones((2, 3, 4), np.float32),
        "det_scores": np.full((2, 3), 0.5, np.float32),
        "det_classes": np.array([[0, 1, 1], [0, 0, 0]], np.int32),
    }
    _, scores = decode(spec, values)
    assert scores.tolist() == [[[0.5, 0], [0, 0.5], [0, 0]], [[0, 0], [0, 0], [0, 0]]]
    assert_decodes_as_reference(spec, values)


def test_many_classes() -> None:
    labels = [f"c{index}" for index in range(1203)]
    summary = torchvision(classes=1203)
    spec = claimed(summary, {"labels": labels})
    rng = np.random.default_rng(0)
    values = {
        "boxes": rng.random((300, 4), np.float32),
        "labels": rng.integers(0, 1203, 300),
        "scores": rng.random(300, np.float32),
    }
    assert_decodes_as_reference(spec, values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_frame": "metres"}, "allowed: normalized, pixels"),
        ({"label_offset": -1}, "a whole number from 0 to 1000"),
        ({"columns": ["x1", "y1", "x2"]}, "x1 y1 x2 y2, x1 y1 w h or cx cy w h among them"),
        ({"columns": ["x1", "y1", "x2", "y3"]}, "options.columns is"),
        ({"columns": ["x1", "y1", "x2", "y2", "score"]}, "need .N, rows, 5. or"),
        ({"score_output": "nowhere"}, "options.score_output is 'nowhere'"),
        ({"score_output": ""}, "no scores and class numbers of its rows"),
        ({"rows": 3}, "unknown options.rows"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], message: str) -> None:
    given = {"family": "detections", "options": options}
    with pytest.raises((InputError, ModelError), match=message):
        recognise(torchvision(), (64, 96), given)


def test_wrong_outputs_are_refused() -> None:
    spec = claimed(torchvision())
    with pytest.raises(ShapeError, match="the network's outputs: other"):
        decode(spec, {"other": np.zeros((1, 3, 3), np.float32)})


@pytest.mark.parametrize("kind", ["torchvision", pytest.param("yolov10", marks=pytest.mark.slow)])
def test_a_network_compiles_with_parity(kind: str, tmp_path: Path) -> None:
    path = onnx_models.save(network(kind), tmp_path / "m.onnx")
    # No suppression tells that the small network is torchvision's.
    options = {"columns": SIDES, "box_frame": "pixels"} if kind == "torchvision" else {}
    model = tvmdet.import_onnx(path, spec={"options": options} if options else None)
    assert model.spec.family == "detections"
    assert len(model.spec.labels) == 3
    report = tvmdet.compile(model, output=tmp_path / "m.tvmdet")
    (certificate,) = report.parity.values()
    assert certificate["boxes"] > 0


def test_keypoints_follow_the_six_columns() -> None:
    spec = claimed(poses(points=2, numbers=3))
    assert spec.options["columns"] == [*SIDES, "score", "class"]
    assert spec.keypoints == KeypointSpec(names=("point_0", "point_1"), scored=True)
    rows = np.zeros((1, 7, 12), np.float32)
    rows[0, 2] = [1, 2, 30, 40, 0.75, 1, 5, 6, 0.25, 7, 8, 1]
    boxes, scores, points = decode(spec, {"output0": rows})
    assert boxes[0, 2].tolist() == [1, 2, 30, 40]
    assert scores[0, 2].tolist() == [0, 0.75]
    assert points[0, 2].tolist() == [5, 6, 0.25, 7, 8, 1]
    assert claimed(poses(points=17, numbers=3)).keypoints.names[0] == "point_0"
    person = claimed(poses(points=17, numbers=3, names="{0: 'person'}")).keypoints
    assert person.names[:3] == ("nose", "left_eye", "right_eye")
    joined_names = {tuple(person.names[at] for at in pair) for pair in person.skeleton}
    assert ("left_ankle", "left_knee") in joined_names
    assert len(joined_names) == 19


def test_masks_and_keypoints_at_once() -> None:
    summary = summary_of({**MIXED, "output0": (1, 7, 13)}, metadata=ULTRALYTICS)
    points = {"names": ["a", "b"]}
    spec = recognise(
        summary,
        (64, 96),
        {
            "family": "detections",
            "keypoints": points,
            "options": {"box_output": "output0", "prototype_output": "output1"},
        },
    ).spec
    outputs = _random(summary, 2, 2)
    outputs["output0"][..., 5] = np.arange(7) % 2
    assert_decodes_as_reference(spec, outputs)
    want = get_head("detections").decode_reference(outputs, spec)
    np.testing.assert_array_equal(want.masks.values, outputs["output0"][..., 6:9])
    np.testing.assert_array_equal(want.keypoints, outputs["output0"][..., 9:])


def test_what_the_option_says_ends_rows_where_nothing_else_does() -> None:
    bare = summary_of({"output0": (1, 7, 12)}, metadata=ULTRALYTICS)
    given = {"keypoints": False, "options": {"keypoint_columns": 6}}
    spec = recognise(bare, (64, 96), given).spec
    assert (spec.keypoints, spec.options["keypoint_columns"]) == (None, 6)
    assert recognise(bare, (64, 96), spec.to_dict()).spec == spec


def test_keypoints_of_rows_can_be_left_out() -> None:
    spec = recognise(poses(), (64, 96), {"keypoints": False}).spec
    assert spec.keypoints is None
    rows = np.arange(84, dtype=np.float32).reshape(1, 7, 12)
    boxes, _ = decode(spec, {"output0": rows})
    assert boxes[0, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"need .N, rows, 11."):
        recognise(poses(), (64, 96), {"keypoints": False, "options": {"keypoint_columns": 5}})
    with pytest.raises(InputError, match=r"options.keypoint_columns is 5; its keypoints have 6"):
        recognise(poses(), (64, 96), {"options": {"keypoint_columns": 5}})
