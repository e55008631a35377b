"""BlazeFace: boxes from the middle of a cell, against MediaPipe's decoding."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dense_summaries import assert_decodes, claim, decode, summary

from tvmdet.errors import InputError, ModelError
from tvmdet.heads import GraphSummary, Question, get_head

SIDES = {128: ((16, 8, 2), (8, 16, 6)), 192: ((48, 4, 1),), 256: ((16, 16, 2), (8, 32, 6))}


def _network(side: int, **facts: Any) -> GraphSummary:
    rows = sum(cells * cells * per_cell for cells, _, per_cell in SIDES[side])
    outputs = {"regressors": (1, rows, 16), "classificators": (1, rows, 1)}
    return summary(outputs, size_hw=(side, side), **facts)


def _published(
    rows: np.ndarray, logits: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What ``BlazeFace._decode_boxes`` finds on MediaPipe's anchors: boxes, scores, keypoints."""
    anchors = [
        ((column + 0.5) / cells, (row + 0.5) / cells)
        for cells, _, per_cell in SIDES[side]
        for row in range(cells)
        for column in range(cells)
        for _ in range(per_cell)
    ]
    boxes, points = [], []
    for (anchor_x, anchor_y), row in zip(anchors, rows, strict=True):
        x, y, width, height = row[:4]
        x, y = (x / side + anchor_x) * side, (y / side + anchor_y) * side
        boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        points.append([])
        for k in range(6):
            points[-1].append((row[4 + k * 2] / side + anchor_x) * side)
            points[-1].append((row[4 + k * 2 + 1] / side + anchor_y) * side)
    scores = 1 / (1 + np.exp(-np.clip(logits[:, 0], -100, 100)))
    return np.array(boxes), scores, np.array(points)


@pytest.mark.parametrize("side", SIDES)
def test_decodes_as_mediapipe_does(side: int) -> None:
    network = _network(side)
    found = claim(network, (side, side))
    assert found.family == "blazeface"
    assert found.spec.options["score_activation"] == "sigmoid"
    rng = np.random.default_rng(9)
    shapes = {name: value.shape for name, value in network.outputs.items()}
    values = {name: rng.normal(5, 20, shape).astype(np.float32) for name, shape in shapes.items()}
    boxes, scores, points = decode(found.spec, values)
    with np.errstate(over="ignore"):
        want_boxes, want_scores, want_points = _published(
            values["regressors"][0].astype(np.float64),
            values["classificators"][0].astype(np.float64),
            side,
        )
    want_boxes = np.clip(want_boxes, 0, side)
    inside = (want_boxes[:, 2:] - want_boxes[:, :2] > 0.01).all(axis=1)
    assert inside.sum() > 100
    np.testing.assert_allclose(boxes[0][inside], want_boxes[inside], atol=1e-3)
    np.testing.assert_allclose(scores[0, :, 0], want_scores * inside, atol=1e-6)
    np.testing.assert_allclose(points[0], want_points, atol=1e-3)
    assert found.spec.keypoints.names[3:] == ("mouth", "right_ear", "left_ear")
    assert_decodes(network, found.spec)


def test_keypoints_can_be_left_out() -> None:
    spec = claim(_network(128), (128, 128), keypoints=False).spec
    assert spec.keypoints is None
    assert_decodes(_network(128), spec)


def test_is_fed_as_mediapipe_does() -> None:
    spec = claim(_network(128), (128, 128)).spec
    values = spec.input
    assert (values.color, values.mean, values.std) == ("rgb", (127.5,) * 3, (127.5,) * 3)
    assert (values.resize, values.pad_position, values.pad_value) == ("letterbox", "center", 0)
    assert (spec.postprocess.score_threshold, spec.postprocess.iou_threshold) == (0.5, 0.3)


def test_scores_get_no_second_sigmoid() -> None:
    sources = {"classificators": frozenset({"Sigmoid"})}
    spec = claim(_network(128, sources=sources), (128, 128)).spec
    assert spec.options["score_activation"] == "none"
    answer = get_head("blazeface").examine(
        _network(128, sources={"classificators": frozenset({"Tanh"})}), (128, 128), {}
    )
    assert isinstance(answer, Question)


@pytest.mark.parametrize(
    ("network", "side", "reason"),
    [
        (summary({}), 128, "0 outputs"),
        (_network(128), 160, "input is 160x160; this family's is one of 128x128"),
        (_network(128), 192, r"0 outputs \[1, 2304, 16\]"),
        (summary({"a": (1, 2016, 18), "b": (1, 2016, 1)}), 192, "0 outputs"),  # of palms
        (replace(_network(128), outputs={}), 128, "0 outputs"),
    ],
)
def test_refuses(network: GraphSummary, side: int, reason: str) -> None:
    answer = get_head("blazeface").examine(network, (side, side), {})
    assert isinstance(answer, str)
    assert not isinstance(answer, Question)
    assert re.search(reason, answer), answer


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"labels": ["a", "b"]}, "the spec gives 2 labels"),
        ({"options": {"anchors": 896}}, "unknown options.anchors"),
        ({"options": {"box_output": "classificators"}}, r"the spec needs \[N, 896, 16\]"),
        ({"input": {"size_hw": [160, 160]}}, r"input.size_hw is \[160, 160\]"),
    ],
)
def test_says_what_of_a_spec_does_not_fit(given: dict[str, Any], reason: str) -> None:
    with pytest.raises((InputError, ModelError), match=reason):
        claim(_network(128), (128, 128), family="blazeface", **given)
