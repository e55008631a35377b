"""The doctor never fails: it says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx_models
import pytest

from tvmdet.errors import UnsupportedOperatorError
from tvmdet.frontend import Model, diagnose


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


def _no_tensor(proto: onnx.ModelProto) -> None:
    old = proto.graph.input[0]
    name, dtype = old.name, old.type.tensor_type.elem_type
    old.CopyFrom(onnx.helper.make_tensor_sequence_value_info(name, dtype, None))


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
        (_no_tensor, "is no tensor of known rank; export it with its shape", 0),
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


def test_dry_run_gets_the_model(tmp_path: Path) -> None:
    given: list[Model] = []
    path = onnx_models.save(onnx_models.yolov8(), tmp_path / "m.onnx")
    assert diagnose(path, dry_run=given.append).ok
    assert [model.spec.family for model in given] == ["yolov8"]
    assert given[0].relax_at(1)["main"] is not None


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (
            UnsupportedOperatorError("no kernel for relax.nn.conv2d giving x"),
            "no kernel for relax.nn.conv2d giving x; relax.nn.conv2d from node 'conv_0' (Conv)",
        ),
        (ValueError("inside TVM\nmore"), "cannot be lowered: inside TVM"),
    ],
)
def test_what_a_dry_run_raises_is_a_problem(error: Exception, problem: str, tmp_path: Path) -> None:
    def dry_run(_model: Model) -> None:
        raise error

    path = onnx_models.save(onnx_models.yolov8(), tmp_path / "m.onnx")
    found = diagnose(path, dry_run=dry_run)
    assert not found.ok
    assert problem in found.problems[0]


def test_network_of_no_family_is_tried_without_a_head(tmp_path: Path) -> None:
    given: list[Model] = []
    graph = onnx_models.Graph()
    output = graph.node("Relu", graph.conv("images", (3, 8), 3))
    path = onnx_models.save(
        graph.model({"images": [1, 3, 32, 32]}, {output: None}), tmp_path / "m.onnx"
    )
    assert "no known detector family" in diagnose(path, dry_run=given.append).problems[0]
    assert [model.spec.family for model in given] == ["raw"]
