"""The doctor never fails: it says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx_models
import pytest

from tvmdet.frontend import diagnose


def test_healthy_model(tmp_path: Path) -> None:
    path = onnx_models.save(onnx_models.yolov8(), tmp_path / "m.onnx")
    found = diagnose(path)
    assert found.ok
    assert found.family == "yolov8"
    assert found.static
    assert found.batchable
    assert found.opset == onnx_models.OPSET
    assert found.size_hw == (64, 96)
    assert sum(found.operators.values()) == len(found.nodes)
    assert found.count("blocks") == 0
    # First layer 3 -> 16 channels, kernel 8, 8 x 12 outputs: 2 * 96 * 16 * 192 of the whole.
    assert found.gflops is not None
    assert found.gflops * 1e9 > 2 * 96 * 16 * 192
    assert found.parameters is not None
    assert found.parameters > 16 * 192
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True


def test_fixed_batch_is_said(tmp_path: Path) -> None:
    found = diagnose(onnx_models.save(onnx_models.picodet(), tmp_path / "m.onnx"))
    assert found.batchable
    assert "the export fixes batch 1; batch 2 gives what single images give" in found.batch


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_file_that_cannot_be_loaded(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    found = diagnose(path)
    assert not found.ok
    assert len(found.problems) == 1
    assert json.loads(json.dumps(found.to_dict()))["ok"] is False


def _custom(proto: onnx.ModelProto) -> None:
    proto.graph.node[3].domain = "custom"


def _unknown_size(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def _no_converter(proto: onnx.ModelProto) -> None:
    last = proto.graph.node[-1]
    node = onnx.helper.make_node("Celu", [last.output[0]], ["celu"], name="bad celu")
    proto.graph.node.append(node)
    proto.graph.output[0].name = "celu"


@pytest.mark.parametrize(
    ("damage", "problem", "blocks"),
    [
        (_custom, "custom domain 'custom'", 1),
        (_unknown_size, "give --size", 0),
        (_no_converter, r"'bad celu' (Celu): TVM has no converter for it", 1),
    ],
)
def test_problems_are_listed(damage, problem: str, blocks: int, tmp_path: Path) -> None:
    proto = onnx_models.yolov8()
    damage(proto)
    found = diagnose(onnx_models.save(proto, tmp_path / "m.onnx"))
    assert not found.ok
    assert any(problem in line for line in found.problems), found.problems
    assert found.count("blocks") == blocks
    assert len(found.nodes) == len(proto.graph.node)


def test_size_opens_the_way(tmp_path: Path) -> None:
    proto = onnx_models.yolov8(size=("h", "w"))
    path = onnx_models.save(proto, tmp_path / "m.onnx")
    assert diagnose(path, size_hw=(64, 64)).ok
    assert "height and width in pixels" in diagnose(path, size_hw=(0, 64)).problems[0]
