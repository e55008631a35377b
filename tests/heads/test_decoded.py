"""Decoded boxes and scores without suppression: what is claimed, asked for, and decoded."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from head_tools import UNIT, assert_decodes_as_reference, decode, summary_of

from tvmdet.errors import InputError, ModelError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, Recognition, TensorSummary, get_head
from tvmdet.heads.base import ColumnRun, Question
from tvmdet.heads.paddledetection import NMS_IOU

PICTURE = {"input": {"resize": "stretch", "mean": [0, 0, 0], "std": [255, 255, 255]}}
LAYOUT = {"columns": ["cx", "cy", "w", "h"], "box_frame": "normalized", "background": "last"}


def _summary(anchors: int = 120, classes: int = 3, **facts: Any) -> GraphSummary:
    outputs = {"scores": (1, anchors, classes), "boxes": (1, anchors, 4)}
    return summary_of(outputs, **{"output_ranges": {"scores": (UNIT,)}, **facts})


SOFTMAX = {"output_sources": {"scores": frozenset(("Softmax",))}}
ULTRAFACE = ((8, 3), (16, 2), (32, 2), (64, 3))
MOBILENET = ((16, 6), (32, 6), (64, 6), (100, 6), (150, 6), (300, 6))


def _around_priors(size_hw: tuple[int, int], maps: Sequence[tuple[int, int]]) -> np.ndarray:
    """Corners in shares of the picture around every prior."""
    rows = []
    for step, per_cell in maps:
        down, across = (-(-side // step) for side in size_hw)
        y, x = (np.mgrid[0:down, 0:across] + 0.5) / np.reshape([down, across], (2, 1, 1))
        corners = np.stack([x - 0.1, y - 0.1, x + 0.1, y + 0.1], axis=-1).reshape(-1, 4)
        rows.append(np.repeat(corners, per_cell, axis=0))
    return np.concatenate(rows)[None].astype(np.float32)


def _priors(
    size_hw: tuple[int, int], maps: Sequence[tuple[int, int]], classes: int
) -> GraphSummary:
    boxes = _around_priors(size_hw, maps)
    return _summary(boxes.shape[1], classes, **SOFTMAX, sample=lambda: {"boxes": boxes})


@pytest.mark.parametrize(
    ("summary", "size_hw", "labels", "iou"),
    [
        (_priors((240, 320), ULTRAFACE, 2), (240, 320), 1, 0.3),
        (_priors((480, 640), ULTRAFACE, 2), (480, 640), 1, 0.3),
        (_priors((300, 300), MOBILENET, 21), (300, 300), 20, 0.45),
    ],
)
def test_claims_what_it_knows(
    summary: GraphSummary, size_hw: tuple[int, int], labels: int, iou: float
) -> None:
    found = recognise(summary, size_hw, {})
    assert found.family == "decoded"
    spec = found.spec
    assert len(spec.labels) == labels
    assert (spec.options["box_frame"], spec.options["background"]) == ("normalized", "first")
    assert list(spec.options["columns"]) == ["x1", "y1", "x2", "y2"]
    assert spec.postprocess.iou_threshold == iou
    assert (spec.input.resize, spec.input.mean, spec.input.std[0]) == ("stretch", (127,) * 3, 128)


@pytest.mark.parametrize(
    ("summary", "reason", "asks"),
    [
        (summary_of({}), "its outputs are not boxes", False),
        (summary_of({"a": (1, 120, 4), "b": (1, 120, 3)}), "not proven", False),
        (_summary(output_ranges={}), "not proven to be from 0 to 1", False),
        (_summary(operators={"Softmax": 4, "MatMul": 9}), "it has attention", False),
        (_summary(20), "anchors are 100 or more", False),
        (
            summary_of({"a": (1, 120, 4), "b": (1, 120, 3)}, output_ranges={"b": (UNIT,)}),
            "nothing says that a and b",
            False,
        ),
        (_summary(), "in which order and unit boxes is", True),
        (_summary(4420, 2, **SOFTMAX), "in which order and unit boxes is", True),
        (_summary(4421, 2, **SOFTMAX), "in which order and unit boxes is", True),
    ],
)
def test_asks_or_refuses(summary: GraphSummary, reason: str, asks: bool) -> None:
    answer = get_head("decoded").examine(summary, (240, 320), {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer
    assert isinstance(answer, Question) == asks


def test_differences_to_priors_are_not_taken_for_boxes() -> None:
    """UltraFace's files without post-processing have the names and the rows of those with it."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, 4420, 4)).astype(np.float32)
    got = _summary(4420, 2, **SOFTMAX, sample=lambda: {"boxes": values})
    answer = get_head("decoded").examine(got, (240, 320), {})
    assert isinstance(answer, str)
    assert not isinstance(answer, Question)
    assert "differences to priors" in answer
    asked = get_head("decoded").examine(got, (240, 320), {"family": "decoded"})
    assert isinstance(asked, Question)
    assert "in which order" in asked


def test_what_is_asked_for_settles_it() -> None:
    given: dict[str, Any] = {}
    for _ in range(2):
        answer = get_head("decoded").examine(_summary(), (64, 96), given)
        assert isinstance(answer, Question)
        given |= tomllib.loads(answer.spec_text)
    assert isinstance(get_head("decoded").examine(_summary(), (64, 96), given), Recognition)
    assert recognise(_summary(), (64, 96), given).spec.input.std == (255,) * 3


@pytest.mark.parametrize("background", ["none", "first", "last"])
def test_decodes(background: str) -> None:
    options = {**LAYOUT, "background": background}
    given = {"family": "decoded", "options": options, **PICTURE}
    spec = recognise(_summary(), (64, 96), given).spec
    rng = np.random.default_rng(0)
    values = {
        "scores": rng.random((2, 120, 3), np.float32),
        "boxes": rng.random((2, 120, 4), np.float32),
    }
    values["boxes"][0, 0] = [0.5, 0.5, 0.25, 0.5]
    boxes, scores = decode(spec, values)
    np.testing.assert_allclose(boxes[0, 0], [36, 16, 60, 48])
    start = int(background == "first")
    width = 3 - (background != "none")
    np.testing.assert_array_equal(scores, values["scores"][:, :, start : start + width])
    assert_decodes_as_reference(spec, values)


def _paddle(**facts: Any) -> GraphSummary:
    """PP-YOLOE with ``exclude_nms``: scores ``[N, C, A]``, and a softmax over distances."""
    picture = {"image": TensorSummary(shape=(1, 3, 64, 96), dtype="float32")}
    return summary_of(
        {"a": (1, 126, 4), "b": (1, 3, 126)},
        **{
            "inputs": picture,
            "constants": {"scale_factor": 1},
            "operators": {"Softmax": 3, "MatMul": 3},
            "output_ranges": {"b": (UNIT,)},
            "output_sources": {"b": frozenset({"Sigmoid"})},
            **facts,
        },
    )


def test_scores_may_have_their_classes_first() -> None:
    spec = recognise(_paddle(), (64, 96), {"family": "decoded", **PICTURE}).spec
    assert (spec.options["box_output"], spec.options["score_output"]) == ("a", "b")
    assert len(spec.labels) == 3
    rng = np.random.default_rng(1)
    values = {
        "a": 90 * rng.random((2, 126, 4), np.float32),
        "b": rng.random((2, 3, 126), np.float32),
    }
    _, scores = decode(spec, values)
    np.testing.assert_array_equal(scores, values["b"].transpose(0, 2, 1))
    assert_decodes_as_reference(spec, values)
    told = {"family": "decoded", "labels": ["a", "b"], **PICTURE}
    with pytest.raises(ModelError, match="2 labels, but the network scores 3"):
        recognise(_paddle(), (64, 96), told)


@pytest.mark.parametrize("shape", [(1, 3, 126), (1, 126, 3)])
def test_boxes_may_have_their_values_first(shape: tuple[int, ...]) -> None:
    """As tool chains for NPUs cut a YOLOv8: what the values prove is not asked for."""
    values = {
        "a": _rows("center_size").transpose(0, 2, 1),
        "b": np.random.default_rng(3).random(shape, np.float32),
    }
    summary = summary_of(
        {"a": (1, 4, 126), "b": shape},
        output_ranges={"b": (UNIT,)},
        output_sources={"a": frozenset({"Mul"}), "b": frozenset({"Sigmoid"})},
        sample=lambda: {"a": values["a"]},
    )
    with pytest.raises(ModelError, match="a holds boxes cx cy w h in pixels") as caught:
        recognise(summary, (64, 96), {})
    assert 'family = "rtmdet"' not in str(caught.value)
    answer = get_head("decoded").examine(summary, (64, 96), {})
    assert isinstance(answer, Question)
    spec = recognise(summary, (64, 96), tomllib.loads(answer.spec_text)).spec
    assert (spec.options["box_output"], len(spec.labels)) == ("a", 3)
    boxes, scores = decode(spec, values)
    np.testing.assert_allclose(boxes[0, 0], [-6, -2, 14, 10], atol=4)
    assert scores.shape == (1, 126, 3)
    assert_decodes_as_reference(spec, values)


def test_four_classes_beside_boxes_with_their_values_first() -> None:
    summary = summary_of(
        {"boxes": (1, 4, 126), "scores": (1, 126, 4)}, output_ranges={"scores": (UNIT,)}
    )
    options = {**LAYOUT, "background": "none"}
    spec = recognise(summary, (64, 96), {"family": "decoded", "options": options, **PICTURE}).spec
    assert (spec.options["box_output"], spec.options["score_output"]) == ("boxes", "scores")


def test_priors_of_boxes_with_their_values_first_are_not_looked_for() -> None:
    """Those of UltraFace, turned: it was no reason to end in an IndexError."""
    summary = summary_of(
        {"boxes": (1, 4, 4420), "scores": (1, 4420, 2)},
        output_ranges={"scores": (UNIT,)},
        sample=lambda: {"boxes": np.random.default_rng(5).random((1, 4, 4420))},
        **SOFTMAX,
    )
    assert not isinstance(get_head("decoded").examine(summary, (240, 320), {}), Recognition)


def test_four_classes_of_boxes_are_scores() -> None:
    summary = summary_of({"a": (1, 126, 4), "b": (1, 4, 126)}, output_ranges={"b": (UNIT,)})
    options = {**LAYOUT, "background": "none"}
    spec = recognise(summary, (64, 96), {"family": "decoded", "options": options, **PICTURE}).spec
    assert (spec.options["box_output"], spec.options["score_output"]) == ("a", "b")


def test_as_many_classes_as_boxes_are_last() -> None:
    summary = summary_of({"a": (1, 126, 4), "b": (1, 126, 126)}, output_ranges={"b": (UNIT,)})
    options = {**LAYOUT, "background": "none"}
    spec = recognise(summary, (64, 96), {"family": "decoded", "options": options, **PICTURE}).spec
    values = {"a": np.zeros((1, 126, 4), np.float32)}
    values["b"] = np.random.default_rng(2).random((1, 126, 126), np.float32)
    np.testing.assert_array_equal(decode(spec, values)[1], values["b"])


@pytest.mark.parametrize(
    ("facts", "given", "iou", "line"),
    [
        ({}, {}, 0.7, "IoU 0.7, as PP-YOLOE's configurations have it"),
        ({"operators": {}}, {}, 0.45, "IoU 0.45, as YOLOv3's configurations have it"),
        ({"metadata": {NMS_IOU: "0.6"}}, {}, 0.6, "IoU 0.6, as infer_cfg.yml says"),
        ({"metadata": {NMS_IOU: "no"}}, {}, 0.7, "IoU 0.7, as PP-YOLOE's configurations have it"),
        ({"metadata": {NMS_IOU: "nan"}}, {}, 0.7, "IoU 0.7, as PP-YOLOE's configurations have it"),
        ({}, {"postprocess": {"iou_threshold": 0.5}}, 0.5, ""),
    ],
)
def test_paddledetections_boxes_are_known(
    facts: Mapping[str, Any], given: Mapping[str, Any], iou: float, line: str
) -> None:
    found = recognise(_paddle(**facts), (64, 96), {**PICTURE, **given})
    assert found.family == "decoded"
    assert (found.spec.options["box_frame"], found.spec.options["background"]) == ("pixels", "none")
    assert found.spec.postprocess.iou_threshold == iou
    said = [reason for reason in found.reasons if reason.startswith("IoU")]
    assert said == ([line] if line else [])


def test_paddledetections_boxes_ask_for_the_input_alone() -> None:
    answer = get_head("decoded").examine(_paddle(), (64, 96), {})
    assert isinstance(answer, Question)
    assert "infer_cfg.yml: lay that beside the model" in answer
    assert isinstance(
        get_head("decoded").examine(_paddle(), (64, 96), tomllib.loads(answer.spec_text)),
        Recognition,
    )
    # Without its further input nothing tells them.
    other = get_head("decoded").examine(_paddle(constants={}), (64, 96), {})
    assert not isinstance(other, Question)


@pytest.mark.parametrize(
    "facts",
    [
        {"sample": lambda: {"a": _rows("center_size")}, "output_sources": {}},
        {"outputs": summary_of({"a": (1, 126, 4), "b": (1, 126, 3)}).outputs},
    ],
    ids=["a centre and a size", "classes last"],
)
def test_not_all_that_has_a_scale_factor_is_paddledetections(facts: Mapping[str, Any]) -> None:
    answer = get_head("decoded").examine(replace(_paddle(), **facts), (64, 96), {})
    assert not isinstance(answer, Question)
    assert "PaddleDetection" not in str(answer)


@pytest.mark.parametrize(
    ("operators", "known"),
    [(("Sigmoid", "Mul"), True), (("Softmax", "Sigmoid", "Mul"), False), (("Mul",), False)],
)
def test_scores_may_be_made_of_sigmoids(operators: tuple[str, ...], known: bool) -> None:
    """FCOS and YOLOX multiply two; a softmax among them may have a background."""
    runs = (ColumnRun(start=0, stop=3, operators=frozenset(operators)),)
    summary = replace(
        _swapped("corners"),
        output_sources={"pred_boxes": frozenset({"Mul"})},
        columns={("pred_boxes", 2): runs},
    )
    answer = get_head("decoded").examine(summary, (64, 96), {})
    assert isinstance(answer, Question) is known


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"background": "middle"}, "allowed: none, first, last"),
        ({"box_frame": "metres"}, "allowed: normalized, pixels"),
        ({"columns": ["x1", "y1", "x2", "y3"]}, "options.columns is"),
        ({"score_output": "boxes"}, "boxes and boxes are not boxes"),
        ({"score_output": "scores", "background": "none"}, "2 labels, but the network scores 3"),
        ({"rows": 3}, "unknown options.rows"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], message: str) -> None:
    told = {**LAYOUT, "box_output": "boxes", **options}
    given = {"family": "decoded", "labels": ["a", "b"], "options": told, **PICTURE}
    with pytest.raises((InputError, ModelError), match=message):
        recognise(_summary(), (64, 96), given)


def _rows(kind: str) -> np.ndarray:
    """What 126 cells of strides 8, 16 and 32 of 64x96 answer: boxes of 20 by 12, or distances."""
    rng = np.random.default_rng(2)
    rows = []
    for stride in (8, 16, 32):
        y, x = np.mgrid[0 : 64 // stride, 0 : 96 // stride].reshape(2, -1) * stride + stride / 2
        sides = {
            "corners": (x - 10, y - 6, x + 10, y + 6),
            "center_size": (x, y, 20 + 0 * x, 12 + 0 * x),
            "distances": (10 + 0 * x, 6 + 0 * x, 10 + 0 * x, 6 + 0 * x),
        }["corners" if kind == "corner_size" else kind]
        rows.append(np.stack(sides, axis=1) + rng.normal(0, 1, (len(x), 4)))
        if kind == "corner_size":  # every second box is twice as large
            half = (rows[-1][:, 2:] - rows[-1][:, :2]) / 2 * (1 + np.arange(len(x)) % 2)[:, None]
            rows[-1] = np.concatenate([np.stack([x, y], axis=1) - half, 2 * half], axis=1)
    return np.concatenate(rows)[None].astype(np.float32)


def _swapped(kind: str, activation: str = "Sigmoid") -> GraphSummary:
    """A YOLO-NAS of LibreYOLO: the boxes are called logits, and the scores boxes."""
    return summary_of(
        {"pred_logits": (1, 126, 4), "pred_boxes": (1, 126, 3)},
        output_ranges={"pred_boxes": (UNIT,)},
        output_sources={
            "pred_logits": frozenset({"Mul"}),
            "pred_boxes": frozenset({activation}),
        },
        sample=lambda: {"pred_logits": _rows(kind)},
    )


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("corners", ["x1", "y1", "x2", "y2"]),
        ("corner_size", ["x1", "y1", "w", "h"]),
        ("center_size", ["cx", "cy", "w", "h"]),
    ],
)
def test_outputs_are_told_by_their_values_not_their_names(kind: str, columns: list[str]) -> None:
    summary = _swapped(kind)
    with pytest.raises(ModelError, match="pred_logits holds boxes") as caught:
        recognise(summary, (64, 96), {})
    assert 'family = "rtmdet"' not in str(caught.value)
    answer = get_head("decoded").examine(summary, (64, 96), {})
    assert isinstance(answer, Question)
    spec = recognise(summary, (64, 96), tomllib.loads(answer.spec_text)).spec
    assert (spec.options["box_output"], spec.options["score_output"]) == (
        "pred_logits",
        "pred_boxes",
    )
    assert (list(spec.options["columns"]), spec.options["box_frame"]) == (columns, "pixels")
    assert spec.options["background"] == "none"
    values = {"pred_logits": _rows(kind), "pred_boxes": np.full((1, 126, 3), 0.5, np.float32)}
    assert_decodes_as_reference(spec, values)
    boxes, _ = decode(spec, values)
    # Row 0 is the cell at (4, 4), which noise of a pixel moves.
    np.testing.assert_allclose(boxes[0, 0], [-6, -2, 14, 10], atol=4)


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        (_swapped("distances"), "distances move along with no cells"),
        (_swapped("corners", "Softmax"), "a softmax may have a background"),
    ],
)
def test_what_values_do_not_prove_is_not_believed(summary: GraphSummary, reason: str) -> None:
    answer = get_head("decoded").examine(summary, (64, 96), {})
    assert not isinstance(answer, Question), reason
    assert re.search("nothing says that pred_logits and pred_boxes are", str(answer))


def test_distances_are_left_to_the_families_that_have_them() -> None:
    answer = get_head("rtmdet").examine(_swapped("distances"), (64, 96), {})
    assert isinstance(answer, Question)
    answer = get_head("rtmdet").examine(_swapped("corners"), (64, 96), {})
    assert answer == "the values of pred_logits move along with their cells: boxes decoded already"
