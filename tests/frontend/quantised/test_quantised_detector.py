"""A detector as ONNX Runtime quantises it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
from integer_models import largest_change
from qdq_models import operators

from tvmdet.frontend import diagnose, import_onnx
from tvmdet.frontend.operators import INTEGER_OPERATORS
from tvmdet.frontend.prove import probes, run_onnx
from tvmdet.frontend.quantised import FOLDED, MULTIPLIED

RNG = np.random.default_rng(7)


def _pictures(shape: list[int]) -> Any:
    """Returns what ONNX Runtime's quantiser measures ranges on."""
    from onnxruntime import quantization

    class Pictures(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [RNG.random(shape).astype(np.float32) for _ in range(2)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {"images": self.left.pop()} if self.left else None

    return Pictures()


def _quantised_detector(folder: Path) -> Path:
    """A YOLOv8 as ONNX Runtime quantises it, its head left in float."""
    from onnxruntime import quantization

    path = onnx_models.save(onnx_models.yolov8(), folder / "float.onnx")
    pictures = _pictures([1, 3, 64, 96])
    quantization.quantize_static(
        path, folder / "int8.onnx", pictures, op_types_to_quantize=["Conv"], per_channel=True
    )
    return folder / "int8.onnx"


def test_a_quantised_detector_is_recognised_and_says_what_it_lost(tmp_path: Path) -> None:
    path = _quantised_detector(tmp_path)
    assert "QuantizeLinear" in operators(onnx.load(path))
    model = import_onnx(path)
    assert model.spec.family == "yolov8"
    assert "QuantizeLinear" not in operators(model.onnx_at(1))
    (note,) = [line for line in model.recognition if line.startswith("the file is quantised")]
    moved = re.search(r"move by up to ([\d.e-]+) of the greatest", note)
    assert moved is not None
    assert 0 < float(moved[1]) < 0.2
    assert [proof.largest for proof in model.network.proofs if proof.rewrite == FOLDED] == [0.0]
    found = diagnose(path)
    assert found.ok
    assert found.notes == (note,)
    assert found.operators["QuantizeLinear"] > 0


def _network() -> onnx.ModelProto:
    """A network of what detectors are made of, with random weights."""
    graph = onnx_models.Graph()
    stem = graph.node("Relu", graph.conv("images", (3, 8), 3, strides=[2, 2], pads=[1, 1, 1, 1]))
    stem = graph.node("LeakyRelu", graph.conv(stem, (8, 8), 3, pads=[1, 1, 1, 1]), alpha=0.1)
    deep = graph.conv(stem, (8, 8), 3, strides=[2, 2], auto_pad="SAME_UPPER")
    deep = graph.node("Mul", deep, graph.node("Sigmoid", deep))
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}
    pooled = graph.node("MaxPool", deep, **window)
    deep = graph.node("Add", pooled, graph.node("AveragePool", deep, **window))
    all_of_it = graph.node("GlobalAveragePool", deep)
    deep = graph.node("Mul", deep, all_of_it)
    twice = graph.constant([1, 1, 2, 2])
    coordinates = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    deep = graph.node("Resize", deep, "", twice, mode="nearest", **coordinates)
    head = graph.conv(graph.node("Concat", deep, stem, axis=1), (16, 12), 1)
    boxes = graph.node("Split", head, graph.constant([4, 8], np.int64), outputs=2, axis=1)
    flat = graph.node("Reshape", boxes, graph.constant([1, 4, -1], np.int64))
    rows = graph.node("Transpose", flat, perm=[0, 2, 1])
    rows = graph.node("MatMul", rows, graph.constant(graph.rng.normal(0, 0.5, (4, 6))))
    scores = graph.node("Softmax", rows, axis=-1)
    weights = (graph.rng.normal(0, 0.5, (5, 8)), graph.rng.normal(0, 0.5, 5))
    constants = [graph.constant(one) for one in weights]
    label = graph.node("Gemm", graph.node("Flatten", all_of_it), *constants, transB=1)
    return graph.model({"images": [1, 3, 32, 32]}, {scores: None, label: None, f"{boxes}.1": None})


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("how", ["QOperator", "dynamic"])
def test_files_of_integer_operators(how: str, per_channel: bool, tmp_path: Path) -> None:
    from onnxruntime import quantization

    path = onnx_models.save(_network(), tmp_path / "float.onnx")
    result = tmp_path / "int8.onnx"
    if how == "QOperator":
        quantization.quantize_static(
            path,
            result,
            _pictures([1, 3, 32, 32]),
            quant_format=quantization.QuantFormat.QOperator,
            per_channel=per_channel,
        )
    else:
        quantization.quantize_dynamic(path, result, per_channel=per_channel)
    model = import_onnx(result, raw=True)
    static = model.onnx_at(1)
    assert not {*operators(static)} & {*INTEGER_OPERATORS}
    integers = onnx.load(result)
    feeds = list(probes(integers).values())
    greatest = max(
        float(np.abs(v).max()) for out in run_onnx(integers, feeds) for v in out.values()
    )
    assert largest_change(integers, static) <= 0.05 * greatest
    proofs = {proof.rewrite: proof.largest for proof in model.network.proofs}
    assert proofs[FOLDED] == 0.0
    assert proofs.get(MULTIPLIED, 0.0) < 1e-5
    (outputs,) = run_onnx(static, feeds[:1])
    compiled = onnx_models.run_relax(model.relax_at(1), feeds[0]["images"])
    for expected, found in zip(outputs.values(), compiled, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    found = diagnose(result)
    verdicts = {node.operator: node for node in found.nodes}
    assert not [node for node in found.nodes if node.verdict == "blocks"]
    for operator in {*verdicts} & {*INTEGER_OPERATORS}:
        assert verdicts[operator].detail.startswith("taken as float32")
