"""DETR and YOLOS: what is claimed, on which evidence, and the decoding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
from head_tools import UNIT, assert_decodes_as_reference, decode, summary_of

import tvmdet
from tvmdet.errors import InputError, ModelError, ShapeError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, Question, Recognition, get_head
from tvmdet.heads.base import Normalisation

PERCEPTRON = ("Sigmoid", "Gemm(4x32,4)", "Relu")
SPLIT_PERCEPTRON = ("Sigmoid", "Add(4)", "MatMul(32x4)", "Relu")
UNBIASED_PERCEPTRON = ("Sigmoid", "MatMul(32x4)", "Relu")  # zeros are not added
REFERENCE = ("Sigmoid", "ScatterND*")
OUTPUTS = {"logits": (1, 9, 4), "pred_boxes": (1, 9, 4)}
NAMES = {"names": "['a', 'b', 'c']"}


def _detr(**facts: Any) -> GraphSummary:
    usual: dict[str, Any] = {
        "operators": {"Softmax": 2, "MatMul": 9},
        "output_traces": {"pred_boxes": PERCEPTRON},
        "output_ranges": {"pred_boxes": (UNIT,)},
    }
    return summary_of(facts.pop("outputs", OUTPUTS), **{**usual, **facts})


def _claim(summary: GraphSummary, given: Mapping[str, Any] | None = None) -> Recognition:
    found = get_head("detr").examine(summary, (64, 96), given or {})
    assert isinstance(found, Recognition), found
    return found


@pytest.mark.parametrize("trace", [PERCEPTRON, SPLIT_PERCEPTRON, UNBIASED_PERCEPTRON])
def test_boxes_of_a_perceptron_mean_a_softmax(trace: tuple[str, ...]) -> None:
    spec = _claim(_detr(output_traces={"pred_boxes": trace})).spec
    assert spec.options == {
        "activation": "softmax",
        "background": "last",
        "box_output": "pred_boxes",
        "class_output": "logits",
        "mask_output": "",
    }
    assert spec.labels == ("class_0", "class_1", "class_2")
    assert (spec.postprocess.iou_threshold, spec.postprocess.multi_label) == (1.0, False)
    assert spec.postprocess.max_detections == 9
    assert (spec.input.resize, spec.input.pad_position) == ("letterbox", "top_left")
    assert spec.input.mean == pytest.approx((123.675, 116.28, 103.53))


def test_libreyolo_stretches() -> None:
    metadata = {"libreyolo_version": "1.6.0", "model_family": "detr"}
    values = _claim(_detr(metadata=metadata)).spec.input
    assert (values.resize, values.color) == ("stretch", "rgb")
    assert values.mean == pytest.approx((123.675, 116.28, 103.53))


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        ("logits", {"logits": (1, 9, 4), "pred_boxes": (1, 9, 4)}),
        ("pred_logits", {"pred_boxes": (1, 9, 4), "pred_logits": (1, 9, 4)}),
        ("logits", {"last_hidden_state": (1, 9, 32), **OUTPUTS}),
    ],
)
def test_outputs_are_found_by_name(names: str, outputs: Mapping[str, Any]) -> None:
    assert _claim(_detr(outputs=outputs)).spec.options["class_output"] == names


def test_labels_settle_what_the_graph_leaves_open() -> None:
    assert _claim(_detr(output_traces={}, metadata=NAMES)).spec.labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        (summary_of({}), "no outputs are named"),
        (summary_of({"logits": (1, 9, 4)}), "no outputs are named"),
        (summary_of({"logits": (1, 9, 4), "pred_boxes": (1, 8, 4)}), r"are \[N, queries, 4\]"),
        (_detr(output_traces={}), 'family = "detr", 3 labels.*family = "rtdetr", 4 labels'),
        (_detr(output_traces={"pred_boxes": REFERENCE}), "added to reference points"),
        (
            _detr(operators={"Softmax": 2, "Gemm": 9, "GridSample": 6}),
            "sampled at reference points",
        ),
        (_detr(operators={"Conv": 3}), "no attention"),
        (_detr(metadata={"names": "['a', 'b', 'c', 'd']"}), "contradict each other"),
        (_detr(metadata={"names": "['a']"}), "name 1 classes, but the network scores 3"),
        (_detr(output_ranges={"logits": (UNIT,)}), "scores from 0 to 1"),
    ],
)
def test_refuses(summary: GraphSummary, reason: str) -> None:
    answer = get_head("detr").examine(summary, (64, 96), {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


def test_the_family_in_the_spec_settles_doubt() -> None:
    found = _claim(_detr(output_traces={}), {"family": "detr", "labels": ["a", "b", "c"]})
    assert found.spec.options["activation"] == "softmax"


SOFTMAX = {
    "output_ranges": {"pred_boxes": (UNIT,), "logits": (UNIT,)},
    "output_traces": {"pred_boxes": PERCEPTRON, "logits": ("Softmax", "Gemm(32x4,4)")},
}


@pytest.mark.parametrize(
    ("given", "background", "classes"),
    [
        ({"labels": ["a", "b", "c"]}, "last", 3),
        ({"labels": ["a", "b", "c", "d"]}, "none", 4),
        ({"family": "detr", "options": {"background": "last"}}, "last", 3),
        ({"family": "detr", "options": {"background": "none"}}, "none", 4),
    ],
)
def test_a_softmax_in_the_graph_is_not_repeated(
    given: Mapping[str, Any], background: str, classes: int
) -> None:
    spec = recognise(_detr(**SOFTMAX), (64, 96), given).spec
    assert spec.family == "detr"
    assert (spec.options["activation"], spec.options["background"]) == ("none", background)
    values = {"logits": np.zeros((1, 9, 4), "f4"), "pred_boxes": np.zeros((1, 9, 4), "f4")}
    values["logits"][0, 2] = [0.125, 0.5, 0.25, 0.125]
    _, scores = decode(spec, values)
    np.testing.assert_allclose(scores[0, 2], [0.125, 0.5, 0.25, 0.125][:classes])


@pytest.mark.parametrize("given", [{}, {"family": "detr"}])
def test_a_softmax_in_the_graph_asks_whether_no_object_was_cut(given: Mapping[str, Any]) -> None:
    with pytest.raises(
        ModelError, match='background = "last"    # 3 classes; or "none": 4 classes'
    ):
        recognise(_detr(**SOFTMAX), (64, 96), given)


def test_a_network_that_normalises_gets_pixels_as_they_are() -> None:
    inner = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    spec = _claim(_detr(normalisation=inner)).spec
    assert (spec.input.mean, spec.input.std) == ((0, 0, 0), (255, 255, 255))
    caffe = Normalisation(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))
    spec = _claim(_detr(normalisation=caffe)).spec
    assert (spec.input.color, spec.input.std) == ("bgr", (1, 1, 1))
    ssd = Normalisation(mean=(0.482, 0.459, 0.408), std=(1 / 255,) * 3)
    assert _claim(_detr(normalisation=ssd)).spec.input.std == (255, 255, 255)
    signed = Normalisation(mean=(127.5,) * 3, std=(127.5,) * 3)
    assert _claim(_detr(normalisation=signed)).spec.input.std == (1, 1, 1)
    strange = Normalisation(mean=(9.0, 9.0, 9.0), std=(1.0, 1.0, 1.0))
    answer = get_head("detr").examine(_detr(normalisation=strange), (64, 96), {})
    assert isinstance(answer, Question)
    assert "mean 9, 9, 9 and deviation 1, 1, 1" in answer


def test_what_a_fixed_size_leaves_over_has_the_mean_colour() -> None:
    assert _claim(_detr()).spec.input.pad_value == (124, 116, 104)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("background", ["last", "first", "none"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_decodes(activation: str, background: str, batch: int) -> None:
    columns = 4 if background == "none" else 5
    given = {"family": "detr", "options": {"background": background}}
    outputs = {"logits": (1, 9, columns), "pred_boxes": (1, 9, 4), "pred_masks": (1, 9, 6, 5)}
    spec = _claim(_detr(outputs=outputs), given).spec
    spec = spec.override({"options": {"activation": activation}})
    rng = np.random.default_rng(batch)
    values = {
        name: rng.normal(0, 2, (batch, *shape[1:])).astype(np.float32)
        for name, shape in outputs.items()
    }
    assert_decodes_as_reference(spec, values)


def test_decodes_a_known_box() -> None:
    outputs = {**OUTPUTS, "pred_masks": (1, 9, 4, 6)}
    spec = _claim(_detr(outputs=outputs)).spec
    assert spec.masks is not None
    assert spec.masks.frame == "image"
    values = {name: np.zeros(shape, np.float32) for name, shape in outputs.items()}
    values["logits"][0, 3] = [np.log(2), np.log(5), 0, np.log(2)]
    values["pred_boxes"][0, 3] = [0.5, 0.25, 0.25, 0.5]
    values["pred_masks"][0, 3, 1, 2] = np.log(3)
    boxes, scores, masks = decode(spec, values)
    np.testing.assert_allclose(boxes[0, 3], [36, 0, 60, 32], atol=1e-4)
    np.testing.assert_allclose(scores[0, 3], [0.2, 0.5, 0.1], atol=1e-6)
    np.testing.assert_allclose(masks[0, 3, 1, 1:3], [0.5, 0.75], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "tanh"}, "allowed: none, sigmoid, softmax"),
        ({"background": "middle"}, "allowed: first, last, none"),
        ({"box_output": "x"}, "options.box_output is 'x'; allowed: logits, pred_boxes"),
        ({"mask_output": "x"}, "options.mask_output is 'x'"),
        ({"queries": 9}, "unknown options.queries"),
        ({"class_output": None}, "options lack 'class_output'"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], message: str) -> None:
    given = {"family": "detr", "options": options}
    with pytest.raises((InputError, ModelError), match=message):
        recognise(_detr(), (64, 96), given)


def test_masks_need_an_output() -> None:
    with pytest.raises(InputError, match="mask_output names no output"):
        recognise(_detr(), (64, 96), {"masks": {"frame": "image"}})


def test_wrong_outputs_are_refused() -> None:
    spec = _claim(_detr()).spec
    with pytest.raises(ShapeError, match="the network's outputs: other"):
        decode(spec, {"other": np.zeros((1, 3, 3), np.float32)})
    wrong = {name: np.zeros((1, 3, 3), np.float32) for name in OUTPUTS}
    with pytest.raises(ShapeError, match="correct the spec's labels or options"):
        decode(spec, wrong)


def network(columns: int = 4, *, reference: bool = False) -> onnx.ModelProto:
    """A transformer of a few tokens: each of nine queries looks at patches of the picture."""
    graph = onnx_models.Graph(seed=3)
    features = graph.node("Relu", graph.conv("pixel_values", (3, 16), 8, strides=[8, 8]))
    flat = graph.node("Reshape", features, graph.constant([0, 16, -1], np.int64))
    tokens = graph.node("Transpose", flat, perm=[0, 2, 1])
    queries = graph.constant(graph.rng.normal(0, 1, (1, 9, 16)))
    weights = graph.node("Softmax", graph.node("MatMul", queries, flat), axis=-1)
    found = graph.node("Add", graph.node("MatMul", weights, tokens), queries)

    def linear(data: str, width: int) -> str:
        weight = graph.constant(graph.rng.normal(0, 0.4, (16, width)))
        bias = graph.constant(graph.rng.normal(0, 0.4, width))
        return graph.node("Add", graph.node("MatMul", data, weight), bias)

    logits = linear(found, columns)
    boxes = linear(graph.node("Relu", linear(found, 16)), 4)
    if reference:
        boxes = graph.node("Add", boxes, graph.constant(graph.rng.normal(0, 1, (1, 9, 4))))
    boxes = graph.node("Sigmoid", boxes)
    renamed = {logits: "logits", boxes: "pred_boxes"}
    for node in graph.nodes:
        node.output[:] = [renamed.get(name, name) for name in node.output]
    outputs = dict.fromkeys(renamed.values())
    return graph.model({"pixel_values": ["n", 3, 32, 48]}, outputs)


def test_a_network_compiles_with_parity(tmp_path: Path) -> None:
    model = tvmdet.import_onnx(onnx_models.save(network(), tmp_path / "m.onnx"))
    assert model.spec.family == "detr"
    report = tvmdet.compile(model, batch_sizes=(1, 2), output=tmp_path / "m.tvmdet")
    (certificate,) = report.parity.values()
    assert certificate["boxes"] > 0


def test_reference_points_are_seen_in_a_network(tmp_path: Path) -> None:
    path = onnx_models.save(network(reference=True), tmp_path / "m.onnx")
    model = tvmdet.import_onnx(path)
    assert model.spec.family == "rtdetr"
    assert len(model.spec.labels) == 4
