"""DETRs with a sigmoid for each class: what is claimed, input defaults, and the decoding."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from head_tools import ANY, UNIT, assert_decodes_as_reference, decode, summary_of

from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, Question, Recognition, get_head
from tvmdet.heads.base import Stem

OUTPUTS = {"logits": (1, 9, 3), "pred_boxes": (1, 9, 4)}
SAMPLED = {"Softmax": 2, "MatMul": 9, "GridSample": 6, "TopK": 1}
GATHERED = {"Softmax": 2, "MatMul": 9, "GatherElements": 26, "TopK": 1}
REFERENCE = {"pred_boxes": ("Sigmoid", "Add(9x4)", "Gemm(4x32,4)")}
CNN, VIT = Stem(kernel=3, stride=2), Stem(kernel=16, stride=16)
ULTRALYTICS = {"description": "Ultralytics RT-DETR-l model trained on coco.yaml"}
LIBREYOLO = {"libreyolo_version": "1.6.0", "model_family": "dinodetr"}


def _rtdetr(**facts: Any) -> GraphSummary:
    usual: dict[str, Any] = {"operators": SAMPLED, "gates": 12, "stem": CNN}
    return summary_of(facts.pop("outputs", OUTPUTS), **{**usual, **facts})


def _claim(summary: GraphSummary, given: Mapping[str, Any] | None = None) -> Recognition:
    found = get_head("rtdetr").examine(summary, (64, 96), given or {})
    assert isinstance(found, Recognition), found
    return found


@pytest.mark.parametrize(("free", "tokens"), [(-np.inf, True), (-80.0, False)])
def test_a_text_s_tokens_are_told_by_the_columns_that_it_leaves_free(
    free: float, tokens: bool
) -> None:
    logits = np.full((1, 9, 3), 0.5, np.float32)
    logits[..., 2] = free
    sample = {"logits": logits, "pred_boxes": np.full((1, 9, 4), 0.5, np.float32)}
    found = _claim(_rtdetr(sample=lambda: sample))
    # A box of several tokens is one box, as GroundingDinoProcessor has it.
    assert found.spec.postprocess.multi_label is not tokens
    assert found.spec.postprocess.score_threshold == (0.25 if tokens else 0.5)
    assert any("tokens of a text" in reason for reason in found.reasons) is tokens


def test_a_text_s_tokens_are_told_of_scores_too() -> None:
    scores = np.full((1, 9, 3), 0.5, np.float32)
    scores[..., 2] = 0
    sample = {"logits": scores, "pred_boxes": np.full((1, 9, 4), 0.5, np.float32)}
    options = {"activation": "none"}
    given = {"family": "rtdetr", "options": options}
    assert not _claim(_rtdetr(sample=lambda: sample), given).spec.postprocess.multi_label
    # Logits of 0 are scores of a half.
    assert _claim(_rtdetr(sample=lambda: sample)).spec.postprocess.multi_label


@pytest.mark.parametrize(
    ("facts", "resize", "mean", "std"),
    [
        ({}, "stretch", 0, 255),  # RT-DETR, D-FINE
        (
            {"operators": GATHERED, "output_traces": REFERENCE},
            "stretch",
            0,
            255,
        ),  # the same below opset 16, or discrete
        (
            {"operators": {**GATHERED, "Erf": 1}, "output_traces": REFERENCE},
            "stretch",
            0,
            255,
        ),  # of its encoder
        (
            {"operators": {**GATHERED, "Erf": 12}, "output_traces": REFERENCE},
            "stretch",
            123.675,
            58.395,
        ),  # DEIMv2 with a ViT
        ({"operators": {**SAMPLED, "Gelu": 12}}, "stretch", 123.675, 58.395),
        ({"stem": VIT}, "stretch", 123.675, 58.395),  # RF-DETR
        ({"gates": 0}, "letterbox", 123.675, 58.395),  # DINO with a ResNet
        (
            {"operators": {"Softmax": 2, "MatMul": 9, "GridSample": 6}, "gates": 0},
            "letterbox",
            123.675,
            58.395,
        ),  # Deformable DETR
        ({"gates": 0, "metadata": LIBREYOLO}, "stretch", 123.675, 58.395),  # its DINO
        (
            {"operators": {"Softmax": 2, "MatMul": 9}, "output_traces": REFERENCE},
            "letterbox",
            123.675,
            58.395,
        ),  # Conditional DETR
    ],
)
def test_claims_with_the_input_of_the_kind(
    facts: Mapping[str, Any], resize: str, mean: float, std: float
) -> None:
    spec = _claim(_rtdetr(**facts)).spec
    assert (spec.input.resize, spec.input.color) == (resize, "rgb")
    assert (spec.input.mean[0], spec.input.std[0]) == pytest.approx((mean, std))
    assert spec.options["activation"] == "sigmoid"
    assert spec.options["background"] == "none"
    assert spec.postprocess.multi_label
    assert spec.postprocess.iou_threshold == 1.0
    assert len(spec.labels) == 3


@pytest.mark.parametrize(
    "outputs",
    [
        {"dets": (1, 9, 4), "labels": (1, 9, 3)},
        {"pred_logits": (1, 9, 3), "pred_boxes": (1, 9, 4)},
        {"labels": (1, 9, 3), "dets": (1, 9, 4), "masks": (1, 9, 16, 24)},
    ],
)
def test_outputs_are_found_by_name(outputs: Mapping[str, Any]) -> None:
    found = _claim(_rtdetr(outputs=outputs, stem=VIT))
    assert (found.spec.masks is not None) == ("masks" in outputs)


def test_ultralytics_has_boxes_and_scores_in_one_output() -> None:
    facts = {"metadata": ULTRALYTICS, "output_ranges": {"output0": (UNIT,) * 4 + (UNIT,) * 3}}
    spec = _claim(_rtdetr(outputs={"output0": (1, 9, 7)}, **facts)).spec
    assert spec.options["box_output"] == spec.options["class_output"] == "output0"
    assert spec.options["activation"] == "none"
    assert (spec.input.resize, spec.input.mean) == ("stretch", (0, 0, 0))
    assert len(spec.labels) == 3
    rng = np.random.default_rng(0)
    assert_decodes_as_reference(spec, {"output0": rng.random((2, 9, 7)).astype(np.float32)})


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        (summary_of({"output0": (1, 9, 7)}), "no outputs are named"),
        (_rtdetr(operators={"Softmax": 1, "MatMul": 9}), "may be a softmax"),
        (
            _rtdetr(
                operators={"Softmax": 1, "MatMul": 9},
                output_traces={"pred_boxes": ("Sigmoid", "Gemm(4x32,4)", "Relu")},
            ),
            "perceptron alone",
        ),
        (_rtdetr(metadata={"names": "['a', 'b']"}), "contradict each other"),
        (_rtdetr(metadata={"names": "['a']"}), "options.background"),
        (_rtdetr(output_ranges={"logits": (UNIT,)}), "not logits: are the rows a DETR's"),
        (_rtdetr(operators={"GridSample": 1}), "no attention"),
    ],
)
def test_refuses(summary: GraphSummary, reason: str) -> None:
    answer = get_head("rtdetr").examine(summary, (64, 96), {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


def test_scores_of_queries_are_asked_about_with_a_spec_that_settles_it() -> None:
    network = _rtdetr(output_ranges={"logits": (UNIT,)})
    answer = get_head("rtdetr").examine(network, (64, 96), {})
    assert isinstance(answer, Question)
    spec = recognise(network, (64, 96), tomllib.loads(answer.spec_text)).spec
    assert (spec.family, spec.options["activation"]) == ("rtdetr", "none")


def test_the_spec_says_which_column_is_no_class() -> None:
    given = {"family": "rtdetr", "labels": ["a", "b"], "options": {"background": "first"}}
    found = recognise(_rtdetr(), (64, 96), given)
    values = {"logits": np.zeros((1, 9, 3), np.float32), "pred_boxes": np.zeros((1, 9, 4), "f4")}
    values["logits"][0, 2] = [9, 0, np.log(3)]
    _, scores = decode(found.spec, values)
    np.testing.assert_allclose(scores[0, 2], [0.5, 0.75], atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2])
def test_decodes(batch: int) -> None:
    spec = _claim(_rtdetr(output_ranges={"logits": (ANY,)})).spec
    rng = np.random.default_rng(batch)
    values = {n: rng.normal(0, 2, (batch, *s[1:])).astype("f4") for n, s in OUTPUTS.items()}
    assert_decodes_as_reference(spec, values)


def test_decodes_a_known_box() -> None:
    spec = _claim(_rtdetr()).spec
    values = {name: np.zeros(shape, np.float32) for name, shape in OUTPUTS.items()}
    values["logits"][0, 8] = [np.log(3), -np.log(3), 0]
    values["pred_boxes"][0, 8] = [0.5, 0.5, 0.5, 0.25]
    boxes, scores = decode(spec, values)
    np.testing.assert_allclose(boxes[0, 8], [24, 24, 72, 40], atol=1e-4)
    np.testing.assert_allclose(scores[0, 8], [0.75, 0.25, 0.5], atol=1e-6)
