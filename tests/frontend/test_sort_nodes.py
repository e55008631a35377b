"""Files whose nodes come before what they read, which ONNX Runtime takes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tvmdet.errors import ModelError
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.sort_nodes import sort_nodes


def _node(op_type: str, reads: str, makes: str) -> onnx.NodeProto:
    return helper.make_node(op_type, reads.split(), makes.split(), name=f"{op_type} {makes}")


FIRST, SECOND = _node("Relu", "x", "a"), _node("Neg", "a", "b")
THIRD = _node("Add", "a b", "y")


def _graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    return helper.make_graph(list(nodes), "graph", values[:1], values[1:])


def _save(path: Path, graph: onnx.GraphProto) -> Path:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        pytest.param([], [], id="no nodes"),
        pytest.param([FIRST, SECOND, THIRD], [FIRST, SECOND, THIRD], id="in order"),
        pytest.param([THIRD, SECOND, FIRST], [FIRST, SECOND, THIRD], id="backwards"),
        pytest.param([SECOND, FIRST, THIRD], [FIRST, SECOND, THIRD], id="two of them"),
        pytest.param(
            [THIRD, _node("Neg", "y", "b"), FIRST],
            [THIRD, _node("Neg", "y", "b"), FIRST],
            id="a cycle stays as it is",
        ),
    ],
)
def test_order(nodes: list[onnx.NodeProto], wanted: list[onnx.NodeProto]) -> None:
    graph = _graph(*nodes)
    assert sort_nodes(graph) is (nodes != wanted)
    assert list(graph.node) == wanted


def test_a_branch_waits_for_what_it_reads_from_around_it() -> None:
    then = helper.make_graph([_node("Neg", "b", "t")], "then", [], [_graph().output[0]])
    then.output[0].name = "t"
    other = helper.make_graph([_node("Abs", "u", "e"), _node("Relu", "x", "u")], "else", [], [])
    other.output.append(then.output[0])
    other.output[0].name = "e"
    branch = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    graph = _graph(branch, FIRST, SECOND)
    assert sort_nodes(graph)
    assert [node.op_type for node in graph.node] == ["Relu", "Neg", "If"]
    (inner,) = [a.g for a in graph.node[2].attribute if a.name == "else_branch"]
    assert [node.op_type for node in inner.node] == ["Relu", "Abs"]


def test_such_a_file_is_loaded(tmp_path: Path) -> None:
    loaded = load_onnx(_save(tmp_path / "model.onnx", _graph(THIRD, SECOND, FIRST)))
    assert [node.op_type for node in loaded.proto.graph.node] == ["Relu", "Neg", "Add"]


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "model.onnx", _graph(THIRD, _node("Neg", "y", "b"), FIRST))
    with pytest.raises(ModelError, match="topologically sorted"):
        load_onnx(path)
