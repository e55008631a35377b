"""Suppression nodes of TensorRT and MMDeploy against their documented semantics in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
import onnx_models
import pytest
from onnx import TensorProto, helper

from tvmdet.errors import UnsupportedOperatorError
from tvmdet.frontend import import_onnx
from tvmdet.frontend.custom_suppression import replace_custom_suppressions
from tvmdet.frontend.prove import run_onnx

_BOXES, _CLASSES = 12, 3


def _model(
    operator: str, outputs: int, boxes: list[int], *, opset: int = 17, **attributes: object
) -> onnx.ModelProto:
    names = [f"out{at}" for at in range(outputs)]
    node = helper.make_node(
        operator, ["boxes", "scores"], names, name="nms", domain="custom", **attributes
    )
    graph = helper.make_graph(
        [node],
        "test",
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, boxes),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, _BOXES, _CLASSES]),
        ],
        [
            helper.make_tensor_value_info(name, _type(operator, at), None)
            for at, name in enumerate(names)
        ],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("custom", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture(params=[11, 17])
def opset(request: pytest.FixtureRequest) -> int:
    """Of the exports; before 12 there are no minima of whole numbers."""
    return int(request.param)


def _type(operator: str, at: int) -> int:
    integers = {"TRTBatchedNMS": (1, 2), "EfficientNMS_TRT": (0, 3)}.get(operator, (0,))
    return TensorProto.INT32 if at in integers else TensorProto.FLOAT


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.maximum(high - low, 0))
    areas = [np.prod(box[2:] - box[:2]) for box in (one, other)]
    return float(shared / (sum(areas) - shared)) if shared > 0 else 0.0


def _reference(
    boxes: np.ndarray,
    scores: np.ndarray,
    *,
    rows: int,
    iou: float,
    least: float,
    candidates: int | None = None,
    background: int = -1,
    agnostic: bool = False,
) -> list[tuple[float, int, int]]:
    """Returns score, class and box of what is found, best first."""
    entries = [
        (float(scores[box, label]), label, box)
        for box in range(len(boxes))
        for label in range(scores.shape[1])
        if scores[box, label] > least and label != background
    ]
    entries.sort(key=lambda entry: -entry[0])
    if candidates is not None:
        entries = [
            entry
            for entry in entries
            if [other for other in entries if other[1] == entry[1]].index(entry) < candidates
        ]
    kept: list[tuple[float, int, int]] = []
    for entry in entries:
        rivals = [other for other in kept if agnostic or other[1] == entry[1]]
        if all(_iou(boxes[entry[2]], boxes[other[2]]) <= iou for other in rivals):
            kept.append(entry)
    return kept[:rows]


def _data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    low = rng.random((_BOXES, 2)) * 0.6
    boxes = np.concatenate([low, low + 0.1 + rng.random((_BOXES, 2)) * 0.4], axis=1)
    return boxes.astype(np.float32), rng.random((_BOXES, _CLASSES)).astype(np.float32)


def _run(model: onnx.ModelProto, boxes: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    plain = replace_custom_suppressions(model)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(plain))
    (got,) = run_onnx(plain, [{"boxes": boxes.reshape(shape), "scores": scores[None]}])
    return list(got.values())


_CASES = [
    {"rows": 4, "iou": 0.3, "least": 0.3},
    {"rows": 30, "iou": 0.6, "least": 0.1},
    {"rows": 10, "iou": 0.4, "least": 0.2, "background": 1},
    {"rows": 10, "iou": 0.4, "least": 0.2, "agnostic": True},
    {"rows": 5, "iou": 0.5, "least": 2.0},
]


@pytest.mark.parametrize("case", _CASES)
def test_efficient_nms(case: dict, opset: int) -> None:
    model = _model(
        "EfficientNMS_TRT",
        4,
        [1, _BOXES, 4],
        opset=opset,
        max_output_boxes=case["rows"],
        iou_threshold=case["iou"],
        score_threshold=case["least"],
        background_class=case.get("background", -1),
        class_agnostic=int(case.get("agnostic", False)),
        score_activation=0,
        box_coding=0,
    )
    for seed in range(4):
        boxes, scores = _data(seed)
        wanted = _reference(boxes, scores, **case)
        count, found, best, labels = _run(model, boxes, scores)
        n = len(wanted)
        assert count.tolist() == [[n]]
        assert count.dtype == labels.dtype == np.int32
        assert found.shape == (1, case["rows"], 4)
        np.testing.assert_allclose(best[0, :n], [entry[0] for entry in wanted])
        np.testing.assert_array_equal(labels[0, :n], [entry[1] for entry in wanted])
        np.testing.assert_allclose(found[0, :n], boxes[[entry[2] for entry in wanted]])
        assert not best[0, n:].any()
        assert not found[0, n:].any()


def test_efficient_nms_of_logits_and_centres() -> None:
    """Boxes of either coding come out as corners, as TensorRT returns them."""
    model = _model(
        "EfficientNMS_TRT",
        4,
        [1, _BOXES, 4],
        max_output_boxes=6,
        iou_threshold=0.4,
        score_threshold=0.5,
        score_activation=1,
        box_coding=1,
    )
    boxes, scores = _data(7)
    centred = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
    logits = np.log(scores / (1 - scores))
    wanted = _reference(boxes, scores, rows=6, iou=0.4, least=0.5)
    count, found, best, labels = _run(model, centred, logits)
    assert count.tolist() == [[len(wanted)]]
    np.testing.assert_allclose(best[0, : len(wanted)], [e[0] for e in wanted], rtol=1e-5)
    np.testing.assert_array_equal(labels[0, : len(wanted)], [e[1] for e in wanted])
    np.testing.assert_allclose(
        found[0, : len(wanted)], boxes[[e[2] for e in wanted]], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("coding", [0, 1])
def test_settings_in_lists_of_one(coding: int) -> None:
    """YOLOv6, YOLOv7 and YOLOv9 write two settings so; a list of 0 is not true."""
    told = {"max_output_boxes": 6, "iou_threshold": 0.4, "score_threshold": 0.5}
    boxes, scores = _data(3)
    got = [
        _run(
            _model("EfficientNMS_TRT", 4, [1, _BOXES, 4], **told, **settings),
            boxes,
            scores,
        )
        for settings in (
            {"background_class": -1, "box_coding": coding},
            {"background_class": [-1], "box_coding": [coding]},
        )
    ]
    assert got[0][0].item() > 0
    for wanted, found in zip(*got, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_settings_that_are_no_number() -> None:
    told = {"background_class": [0, 1], "max_output_boxes": 6}
    with pytest.raises(UnsupportedOperatorError, match=r"background_class is \[0, 1\]"):
        replace_custom_suppressions(_model("EfficientNMS_TRT", 4, [1, _BOXES, 4], **told))


@pytest.mark.parametrize("operator", ["BatchedNMS_TRT", "BatchedNMSDynamic_TRT"])
def test_batched_nms(operator: str) -> None:
    model = _model(
        operator,
        4,
        [1, _BOXES, 1, 4],
        keepTopK=9,
        topK=4,
        iouThreshold=0.4,
        scoreThreshold=0.2,
        backgroundLabelId=0,
        numClasses=_CLASSES,
        shareLocation=1,
        isNormalized=1,
        clipBoxes=1,
    )
    for seed in range(4):
        boxes, scores = _data(seed)
        wanted = _reference(boxes, scores, rows=9, iou=0.4, least=0.2, candidates=4, background=0)
        count, found, best, labels = _run(model, boxes, scores)
        n = len(wanted)
        assert count.tolist() == [[n]]
        np.testing.assert_allclose(best[0, :n], [entry[0] for entry in wanted])
        np.testing.assert_array_equal(labels[0], [e[1] for e in wanted] + [-1.0] * (9 - n))
        clipped = np.clip(boxes[[entry[2] for entry in wanted]], 0, 1)
        np.testing.assert_allclose(found[0, :n], clipped)


def test_mmdeploy(opset: int) -> None:
    model = _model(
        "TRTBatchedNMS",
        3,
        [1, _BOXES, 1, 4],
        opset=opset,
        keep_topk=7,
        topk=5,
        iou_threshold=0.4,
        score_threshold=0.2,
        background_label_id=-1,
        num_classes=_CLASSES,
        is_normalized=0,
        clip_boxes=0,
        return_index=1,
    )
    for seed in range(4):
        boxes, scores = _data(seed)
        wanted = _reference(boxes, scores, rows=7, iou=0.4, least=0.2, candidates=5)
        scored, labels, numbers = _run(model, boxes, scores)
        n = len(wanted)
        rows = [[*boxes[e[2]], e[0]] for e in wanted]
        np.testing.assert_allclose(scored[0, :n], np.array(rows, np.float32), rtol=1e-6)
        assert not scored[0, n:].any()
        np.testing.assert_array_equal(labels[0], [e[1] for e in wanted] + [-1] * (7 - n))
        np.testing.assert_array_equal(numbers[0], [e[2] for e in wanted] + [-1] * (7 - n))


def test_boxes_of_every_class_are_refused() -> None:
    model = _model("BatchedNMS_TRT", 4, [1, _BOXES, 3, 4], keepTopK=5, shareLocation=0)
    with pytest.raises(UnsupportedOperatorError, match=r"node 'nms' \(BatchedNMS_TRT\).*shareLo"):
        replace_custom_suppressions(model)


def test_export_for_tensorrt_imports_and_compiles(tmp_path: Path) -> None:
    model = _model(
        "EfficientNMS_TRT",
        4,
        [1, _BOXES, 4],
        max_output_boxes=6,
        iou_threshold=0.4,
        score_threshold=0.3,
    )
    imported = import_onnx(onnx_models.save(model, tmp_path / "m.onnx"), raw=True)
    # As many rows as the node states, and its own count: no open dimension is left.
    assert imported.output_names == ("out0", "out1", "out2", "out3")
    boxes, scores = _data(1)
    expected = _run(model, boxes, scores)
    from tvmdet.passes.lower_non_max_suppression import LowerNonMaxSuppression

    module = LowerNonMaxSuppression()(imported.relax_at(1))
    got = onnx_models.run_relax(module, boxes[None], scores[None])
    for wanted, value in zip(expected, got, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-6)


@pytest.mark.parametrize("operator", ["EfficientNMS_TRT", "TRTBatchedNMS"])
def test_what_takes_their_place_is_bounded(operator: str, opset: int, tmp_path: Path) -> None:
    outputs = 3 if operator == "TRTBatchedNMS" else 4
    model = _model(operator, outputs, [1, _BOXES, 4], opset=opset)
    onnx.save(model, tmp_path / "nms.onnx")
    imported = import_onnx(tmp_path / "nms.onnx", raw=True)
    assert set(imported.output_names) >= {f"out{at}" for at in range(outputs)}


@pytest.mark.parametrize("listed", [True, False])
def test_labels_of_mmdeploy_have_the_type_that_the_model_gives_them(listed: bool) -> None:
    """PyTorch's 64 bits: MMDeploy reshapes them before they are an output."""
    model = _model("TRTBatchedNMS", 2, [1, _BOXES, 4])
    model.graph.node.append(helper.make_node("Identity", ["out1"], ["labels"], "last"))
    model.graph.output[1].CopyFrom(
        helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 100])
    )
    if listed:
        value = helper.make_tensor_value_info("out1", TensorProto.INT64, [1, 100])
        model.graph.value_info.append(value)
    inferred = onnx.shape_inference.infer_shapes(
        replace_custom_suppressions(model), strict_mode=True
    )
    assert inferred.graph.output[1].type.tensor_type.elem_type == TensorProto.INT64


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("steps", [["Add"], ["Reshape", "Identity", "Add"], ["Equal"], ["Where"]])
def test_labels_of_mmdeploy_have_the_type_that_the_nodes_after_them_take(
    steps: list[str], wide: bool
) -> None:
    """TensorRT's 32 bits, where a file computes on with them and says nothing of it."""
    dtype = np.int64 if wide else np.int32
    model = _model("TRTBatchedNMS", 2, [1, _BOXES, 4])
    value = "out1"
    for at, step in enumerate(steps):
        one, shape, chosen = np.array(1, dtype), np.array([1, 100]), np.array(True)
        others = {"Identity": [], "Reshape": [shape], "Where": [one]}.get(step, [one])
        names = [f"other{at}.{place}" for place in range(len(others))]
        tensors = [onnx.numpy_helper.from_array(*pair) for pair in zip(others, names, strict=True)]
        inputs = [value, *names]
        if step == "Where":
            tensors.append(onnx.numpy_helper.from_array(chosen, "chosen"))
            inputs = ["chosen", *inputs]
        model.graph.initializer.extend(tensors)
        model.graph.node.append(helper.make_node(step, inputs, [f"after{at}"], f"step{at}"))
        value = f"after{at}"
    model.graph.node.append(helper.make_node("Cast", [value], ["labels"], "last", to=1))
    model.graph.output[1].CopyFrom(helper.make_tensor_value_info("labels", 1, [1, 100]))
    boxes, scores = _data(0)
    assert _run(model, boxes, scores)[1].shape == (1, 100)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_output_boxes": 0}, "its max_output_boxes is 0; allowed: 1 to 100000"),
        ({"max_output_boxes": 1 << 40}, "its max_output_boxes is 1099511627776; allowed"),
        ({"iou_threshold": float("nan")}, "its iou_threshold is nan instead of a number"),
        ({"background_class": [1, 2]}, r"its background_class is \[1, 2\] instead of a number"),
    ],
)
def test_settings_that_none_of_them_has_are_refused(
    settings: dict[str, object], reason: str
) -> None:
    model = _model("EfficientNMS_TRT", 4, [1, _BOXES, 4], **settings)
    with pytest.raises(UnsupportedOperatorError, match=rf"'nms' .*{reason}"):
        replace_custom_suppressions(model)


def test_a_node_without_scores_is_refused() -> None:
    model = _model("EfficientNMS_TRT", 4, [1, _BOXES, 4])
    del model.graph.node[0].input[1:]
    with pytest.raises(UnsupportedOperatorError, match="it has not both boxes and scores"):
        replace_custom_suppressions(model)
