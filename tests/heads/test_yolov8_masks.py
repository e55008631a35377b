"""YOLOv8-seg, and what the arithmetic behind YOLOv8's output rules out."""

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
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import ColumnRun, GraphSummary, get_head

HEAD = get_head("yolov8")
MASKED = {"o": (1, 11, 126), "p": (1, 4, 16, 24)}
EXP = ColumnRun(start=0, stop=0, operators=frozenset({"Conv", "Exp", "Mul"}), low=0.0)
ONE = ColumnRun(start=0, stop=0, low=1.0, high=1.0)


def test_masks_decode() -> None:
    found = HEAD.recognise(summary(MASKED), SIZE)
    assert found is not None
    assert found.spec.masks is not None
    assert found.spec.masks.frame == "image"
    assert found.spec.masks.interpolate == "logits"
    assert found.spec.options["prototypes"] == "p"
    assert len(found.spec.labels) == 3
    assert "p holds 4 mask prototypes" in found.reasons
    want = assert_decodes(found.spec, random_outputs(summary(MASKED), batch=2))
    assert want.masks is not None
    assert want.masks.values.shape == (2, 126, 4)


def test_masks_decode_known_coefficients() -> None:
    found = HEAD.recognise(summary(MASKED), SIZE)
    assert found is not None
    outputs = {name: np.zeros(shape, np.float32) for name, shape in MASKED.items()}
    outputs["o"][0, :, 9] = [20, 30, 8, 4, 0.25, 0.5, 0.75, -1, 2, -3, 4]
    boxes, scores, coefficients, _ = decode(found.spec, outputs)
    assert boxes[0, 9].tolist() == [16, 28, 24, 32]
    assert scores[0, 9].tolist() == [0.25, 0.5, 0.75]
    assert coefficients[0, 9].tolist() == [-1, 2, -3, 4]


def test_masks_and_keypoints_at_once() -> None:
    network = summary({"o": (1, 17, 126), "p": (1, 4, 16, 24)})
    spec = recognise(
        network, SIZE, {"family": "yolov8", "keypoints": {"names": ["a", "b", "c"]}}
    ).spec
    assert (len(spec.labels), spec.keypoints.columns) == (3, 6)
    outputs = random_outputs(network, batch=2)
    want = assert_decodes(spec, outputs)
    rows = outputs["o"].transpose(0, 2, 1)
    np.testing.assert_array_equal(want.masks.values, rows[..., 7:11])
    np.testing.assert_array_equal(want.keypoints, rows[..., 11:])
    without = recognise(network, SIZE, {**spec.to_dict(), "keypoints": False}).spec
    assert assert_decodes(without, outputs).keypoints is None
    np.testing.assert_array_equal(
        get_head("yolov8").decode_reference(outputs, without).masks.values, rows[..., 7:11]
    )


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        (summary({"o": (1, 11, 126), "p": (1, 9, 16, 24)}), "2 outputs"),
        (summary({"o": (1, 11, 126), "p": (1, 4, 16, 25)}), "2 outputs"),
        (
            summary(MASKED, {("o", 1): columns((4, PIXELS), (7, RAW))}),
            "values 4 to 6 .* no scores",
        ),
        # Keypoints and angles that no metadata announce.
        (
            summary({"o": (1, 8, 126)}, {("o", 1): columns((4, PIXELS), (3, SCORES), (1, PIXELS))}),
            "value 7 .* no scores",
        ),
        (
            summary({"o": (1, 7, 126)}, {("o", 1): columns((4, EXP), (3, SCORES))}),
            "Exp, as .*YOLOX",
        ),
        (
            summary(
                {"o": (1, 126, 7)},
                {("o", 2): columns((4, PIXELS), (1, ONE), (2, SCORES))},
                names="['a', 'b', 'c']",
            ),
            "value 4 .* is a constant .1., as the objectness of YOLOv6",
        ),
        (summary({"o": (1, 7, 126)}, end2end="True"), "say end2end: .* chosen already"),
        (summary({"o": (1, 7, 126)}, args="{'nms': True}"), "say args nms: .* chosen already"),
    ],
)
def test_refuses(got: GraphSummary, reason: str) -> None:
    answer = HEAD.examine(got, SIZE, {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


def test_raw_maps_beside_are_left_away() -> None:
    maps = {f"m{s}": (1, 67, SIZE[0] // s, SIZE[1] // s) for s in (8, 16, 32)}
    found = recognise(summary({"o": (1, 7, 126), **maps}), SIZE, {})
    assert found.family == "yolov8"
    assert "m8, m16, m32 not used: o holds the decoded boxes" in found.reasons


def test_networks_are_recognised(tmp_path: Path) -> None:
    masked = {"task": "segment", "names": "['a', 'b', 'c']"}
    found = import_model(yolo_models.yolov8(masks=5, metadata=masked), tmp_path)
    assert found.spec.masks is not None
    with pytest.raises(ModelError, match="task 'segment', but there is no output of mask"):
        import_model(yolo_models.yolov8(metadata={"task": "segment"}), tmp_path)


@slow
def test_end_to_end(tmp_path: Path) -> None:
    compile_and_detect(yolo_models.yolov8(masks=5), tmp_path)
