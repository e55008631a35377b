"""A detector that was compiled with some outputs of its file is compared with those alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import onnx_models
import pytest
from onnx import TensorProto, helper

import tvmdet
from tvmdet.report.eval_reference import ReferenceDetector
from tvmdet.report.network import import_network


def _with_a_loop(model: onnx.ModelProto) -> onnx.ModelProto:
    """Adds an output that nobody compiles: the picture added to itself as often as it says."""
    flag = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    value = helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 3, 64, 96])
    step = helper.make_tensor_value_info("step", TensorProto.INT64, [])
    ends = [helper.make_tensor_value_info("on", TensorProto.BOOL, [])]
    ends.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, [1, 3, 64, 96]))
    body = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Add", ["sum", "sum"], ["twice"]),
    ]
    turns = helper.make_graph(body, "turns", [step, flag, value], ends)
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["images"], ["top"], keepdims=0),
            helper.make_node("Cast", ["top"], ["count"], to=TensorProto.INT64),
            helper.make_node("Loop", ["count", "", "images"], ["summed"], body=turns),
        ]
    )
    model.graph.output.append(
        helper.make_tensor_value_info("summed", TensorProto.FLOAT, [1, 3, 64, 96])
    )
    return model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = _with_a_loop(onnx_models.yolov8(metadata={"names": "{0: 'a', 1: 'b', 2: 'c'}"}))
    return onnx_models.save(model, tmp_path_factory.mktemp("kept") / "loop.onnx")


@pytest.fixture(scope="module")
def kept(path: Path) -> list[str]:
    return [onnx.load(path).graph.output[0].name]


@pytest.mark.parametrize("family", [{"family": "raw"}, {}])
def test_rivals_get_the_outputs_that_were_kept(
    path: Path, kept: list[str], family: dict[str, Any], tmp_path: Path
) -> None:
    model = tvmdet.import_onnx(path, spec={"outputs": kept, **family})
    manifest = {"spec": model.spec.to_dict(), "model": {"sha256": model.sha256}}
    artifact: Any = SimpleNamespace(manifest=manifest, path=path)
    network, _ = import_network(artifact, path, [1], tmp_path)
    assert list(network.output_names) == kept
    assert [value.name for value in onnx.load(tmp_path / "network_b1.onnx").graph.output] == kept


def test_the_reference_runs_the_outputs_that_were_kept(
    path: Path, kept: list[str], tmp_path: Path
) -> None:
    model = tvmdet.import_onnx(path, spec={"outputs": kept})
    artifact = tmp_path / "kept.tvmdet"
    tvmdet.compile(model, output=artifact)
    picture = tmp_path / "picture.png"
    rng = np.random.default_rng(0)
    cv2.imwrite(str(picture), rng.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    reference = ReferenceDetector(artifact, path, 1)
    expected = reference.detect(picture, 0.1, 0.45)
    found = tvmdet.load(artifact, threads=1).detect(picture, score=0.1, iou=0.45)
    assert len(expected.scores) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
