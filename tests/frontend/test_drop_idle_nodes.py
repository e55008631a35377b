"""Nodes without outputs, which an editor of graphs has left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmdet.frontend.load import load_onnx


def test_nodes_without_outputs_are_dropped(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.zeros(1, np.float32))
    idle = helper.make_node("Constant", [], [], name="idle", value=value)
    kept = helper.make_node("Relu", ["x"], ["y"], name="kept")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([idle, kept, idle], "graph", values[:1], values[1:])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    assert [node.name for node in load_onnx(path).proto.graph.node] == ["kept"]
